//! Nothing is lost in silence (Rule 10): what is due to a connection and never sent is counted, with its reason.
//!
//! A connection owns no queue, so what it has not been sent is known only by walking the tape from its
//! cursor. That is done when it ends, leaves a topic or gets its answer, and only for one that is behind;
//! a connection that keeps up costs nothing here.

use super::Shard;
use super::conn::{Replay, State, flag};
use super::outlook::Outlook;
use super::tape::{ChainId, Due};
use super::topics::TopicId;
use crate::stats::CloseReason;

/// What a shard's connections have yet to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owed {
    /// Messages: what `pending` of the counters must be.
    pub messages: u64,
    /// Octets of frames of its own, and of those that were begun, of the connection with the most.
    pub outbox_bytes_max: usize,
}

impl Outlook<'_> {
    /// What slot `index` has yet to be sent of the tape.
    pub(super) fn due(&self, index: u32) -> Due {
        let mut chains = Vec::new();
        self.sum(index, |replay, after, until| {
            self.chains(index, replay, after, &mut chains);
            self.tape.count(&chains, after, until, self.now)
        })
    }

    /// The same, of one topic.
    fn due_of_topic(&self, index: u32, id: TopicId) -> Due {
        let subscribed = self.topics.of(self.table, index).any(|present| present == id);
        self.sum(index, |replay, after, until| {
            match replay.map_or(subscribed, |replay| replay.topics.contains(&id)) {
                true => self.tape.count(&[self.topics.chain(id)], after, until, self.now),
                false => Due::default(),
            }
        })
    }

    /// Over every stretch of slot `index`.
    fn sum(&self, index: u32, mut of: impl FnMut(Option<&Replay>, u64, u64) -> Due) -> Due {
        let stretches = self.stretches(&self.table[index]);
        stretches.fold(Due::default(), |sum, (replay, after, until)| {
            let due = of(replay, after, until);
            Due { live: sum.live + due.live, expired: sum.expired + due.expired }
        })
    }

    /// Whether slot `index` has yet to be sent anything up to seq `until`.
    pub(super) fn needs_any(&self, index: u32, until: u64) -> bool {
        let (mut chains, mut needs): (Vec<ChainId>, _) = (Vec::new(), false);
        for (replay, after, end) in self.stretches(&self.table[index]) {
            self.chains(index, replay, after, &mut chains);
            self.tape.walk(&chains, after, end.min(until), |_| {
                needs = true;
                false
            });
        }
        needs
    }
}

impl Shard {
    /// What connections have yet to be sent, found by looking at each of them. For tests: it takes time with
    /// the number of slots.
    pub fn owed(&self) -> Owed {
        let outlook = self.outlook();
        let mut owed = Owed::default();
        for index in 0..self.table.slots() {
            let slot = &self.table[index];
            if let Some(rare) = &slot.rare {
                owed.messages += rare.queued_messages(0);
                owed.outbox_bytes_max = owed.outbox_bytes_max.max(rare.outbox_bytes);
            }
            if slot.state == State::Open {
                let due = outlook.due(index);
                owed.messages += due.live + due.expired;
            }
        }
        owed
    }

    /// Slot `index` is not sent anything more of what the tape holds for it, for `reason`; `queued` messages
    /// of it are on their way.
    pub(super) fn write_off(&mut self, index: u32, queued: u64, reason: CloseReason) {
        let slot = &self.table[index];
        if !slot.is(flag::BEHIND) && slot.rare.is_none() {
            return;
        }
        let Due { live, expired } = self.outlook().due(index);
        self.stats.expired += expired;
        self.stats.dropped.ended[reason as usize] += live - queued;
        self.table[index].caught_up();
    }

    /// The same of one topic, because the slot leaves it.
    pub(super) fn write_off_topic(&mut self, index: u32, id: TopicId) {
        let Due { live, expired } = self.outlook().due_of_topic(index, id);
        self.stats.expired += expired;
        self.stats.dropped.unsubscribed += live;
    }

    /// Counts what a client asks for again, from seq `after` on; gives how many it will be sent.
    pub(super) fn count_replay(&mut self, chains: &[ChainId], after: u64) -> u64 {
        let Due { live, expired } = self.tape.count(chains, after, u64::MAX, self.clock.now());
        self.stats.replayed += live + expired;
        if live == 0 {
            // Nobody walks past them.
            self.stats.expired += expired;
        }
        live
    }
}
