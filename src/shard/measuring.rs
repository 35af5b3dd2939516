//! What a shard tells about itself when it is asked: its counters, and what it holds now.
//!
//! Nothing here looks at every connection. What only they know (how far one lags, what its buffers take) is
//! gathered by the sweep, which comes by each of them anyway, and told as of its last whole pass: with one pass under
//! way, it is as old as two, 2.5 s at most (`clock::Sweep`).

use super::Shard;
use super::conn::{Slot, State, flag};
use crate::stats::{MemoryClass, ShardStats};

/// What one pass of the sweep has found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Findings {
    handshakes: u64,
    lagging: u64,
    lag_bytes_max: u64,
    buffer_bytes: u64,
}

/// The pass that is under way, and the last whole one.
#[derive(Debug, Default)]
pub(super) struct Census {
    counted: Findings,
    last: Findings,
}

impl Census {
    /// Looks at one slot, whoever has it.
    pub(super) fn count(&mut self, slot: &Slot) {
        // Between two polls there is no handshake; with the next head one begins.
        if slot.state == State::Handshake && (!slot.is(flag::SERVED) || slot.has_head()) {
            self.counted.handshakes += 1;
        }
        let Some(rare) = &slot.rare else { return };
        self.counted.buffer_bytes += rare.memory_bytes() as u64;
        if slot.state == State::Open && slot.is(flag::BLOCKED) && rare.lag_bytes > 0 {
            self.counted.lagging += 1;
            self.counted.lag_bytes_max = self.counted.lag_bytes_max.max(rare.lag_bytes as u64);
        }
    }

    /// The pass has come by everybody.
    pub(super) fn end_pass(&mut self) {
        self.last = std::mem::take(&mut self.counted);
    }
}

impl Shard {
    /// What was counted so far, and what is held now.
    pub fn snapshot(&self) -> ShardStats {
        let findings = self.findings();
        let (mailbox_letters, mailbox_bytes) = self.inbox.waiting();
        let ring = self.ring.counts();
        ShardStats {
            pending: self.stats.unaccounted(),
            open: u64::from(self.table.used()),
            handshakes: findings.handshakes,
            lagging: findings.lagging,
            lag_bytes_max: findings.lag_bytes_max,
            addresses: self.addresses.count() as u64,
            topics: self.topics.subscribed() as u64,
            users: self.users.count() as u64,
            mailbox_letters: mailbox_letters as u64,
            mailbox_bytes: mailbox_bytes as u64,
            tape_messages: self.tape.len() as u64,
            tape_bytes: self.tape.bytes() as u64,
            tape_age_ms: self.tape.age(self.clock.tick()).as_millis() as u64,
            memory: self.memory(&findings),
            ring_submissions: ring.submissions,
            ring_completions: ring.completions,
            ring_enters: ring.enters,
            ..self.stats.clone()
        }
    }

    /// The last pass's, but for what is known to be over since: nobody may be left for another pass.
    fn findings(&self) -> Findings {
        let mut findings = self.census.last;
        if self.table.used() == 0 {
            findings = Findings::default();
        }
        if self.stats.blocked == 0 {
            (findings.lagging, findings.lag_bytes_max) = (0, 0);
        }
        findings
    }

    /// Bytes set aside: reckoned from what the tables have grown to, not asked of the allocator.
    fn memory(&self, findings: &Findings) -> [u64; MemoryClass::COUNT] {
        let lists = (self.readable.capacity() + self.marked.capacity()) * size_of::<u32>();
        let buffers = self.receiver.memory_bytes() + self.sender.memory_bytes() + lists;
        let mut memory = [0; MemoryClass::COUNT];
        let mut put = |class: MemoryClass, bytes: usize| memory[class as usize] = bytes as u64;
        put(MemoryClass::Slots, self.table.memory_bytes());
        put(MemoryClass::Users, self.users.memory_bytes());
        put(MemoryClass::Topics, self.topics.memory_bytes());
        put(MemoryClass::Tape, self.tape.bytes());
        put(MemoryClass::Buffers, buffers + findings.buffer_bytes as usize);
        put(MemoryClass::Addresses, self.addresses.memory_bytes() + self.grants.memory_bytes());
        memory
    }
}
