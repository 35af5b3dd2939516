//! Cutting those furthest behind when memory is short.
//!
//! Who is behind has filled his socket's buffer, which is the kernel's memory, and may have replies waiting. Nobody
//! else is cut: an idle client gives back little.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;

use super::Shard;
use super::conn::{Rare, State};
use super::ending::Answer;
use crate::stats::CloseReason;
use crate::wire::close::code;

impl Shard {
    /// Does what the gate tells, once.
    pub(super) fn cut_if_told(&mut self) {
        let told = self.gate.cuts_told.load(Ordering::Acquire);
        if told == self.cuts_done {
            return;
        }
        self.cuts_done = told;
        let bytes = self.gate.cut_bytes.load(Ordering::Relaxed);
        self.cut_furthest_behind(bytes.div_ceil(self.peers.len() as u64));
    }

    /// Cuts until so many bytes are freed, or nobody is behind.
    fn cut_furthest_behind(&mut self, bytes: u64) {
        let mut behind: Vec<_> = (0..self.table.slots()).filter_map(|index| self.behind(index)).collect();
        behind.sort_unstable_by_key(|&(_, lag_bytes, _)| Reverse(lag_bytes));
        let (mut freed, mut cut) = (0, 0);
        for (index, _, frees_bytes) in behind {
            if freed >= bytes {
                break;
            }
            (freed, cut) = (freed + frees_bytes, cut + 1);
            self.cut_for_memory(index);
        }
        if cut > 0 {
            let shard = self.number;
            tracing::warn!(
                shard,
                "memory is short: cut {cut} clients that were furthest behind, about {freed} bytes"
            );
        }
    }

    /// Slot, how far behind, and what its end frees about.
    fn behind(&self, index: u32) -> Option<(u32, usize, u64)> {
        let slot = &self.table[index];
        // Not `flag::BLOCKED`: that is gone for a part of each turn in which its socket took a little.
        let is_behind = |rare: &&Rare| slot.state == State::Open && rare.send_deadline.is_some();
        let rare = slot.rare.as_deref().filter(is_behind)?;
        let frees_bytes = rare.outbox_bytes + self.settings.socket_send_bytes;
        Some((index, rare.lag_bytes + rare.outbox_bytes, frees_bytes as u64))
    }

    /// 4000 for who still reads, and a reset at the next look of the clock for who does not: the memory is
    /// needed before `timeouts.close`.
    fn cut_for_memory(&mut self, index: u32) {
        let rare = self.table[index].rare();
        // What was begun has to be finished before last words.
        let dropped = rare.queued_messages(1);
        rare.outbox.truncate(1);
        rare.outbox_bytes = rare.outbox.iter().map(|frame| frame.bytes.len()).sum();
        self.stats.dropped.ended[CloseReason::Memory as usize] += dropped;
        self.tell_slow_cut(index);
        let now = self.clock.tick();
        let answer = Answer::Close { code: Some(code::SLOW_CONSUMER), reason: "memory is short".into() };
        self.finish(index, CloseReason::Memory, answer);
        // A poll has gone at once.
        if self.table[index].state == State::Closing {
            self.table[index].rare().close_deadline = Some(now);
        }
    }
}
