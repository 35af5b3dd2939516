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
    /// Messages that connections have yet to be sent, found by looking at each of them: what `pending` of
    /// the counters must be. For tests: it takes time with the number of slots.
    pub fn due(&self) -> u64 {
        let outlook = self.outlook();
        let of_slot = |index: u32| {
            let slot = &self.table[index];
            let queued =
                slot.rare.iter().flat_map(|rare| &rare.outbox).map(|frame| u64::from(frame.messages));
            let due = if slot.state == State::Open { outlook.due(index) } else { Due::default() };
            due.live + due.expired + queued.sum::<u64>()
        };
        (0..self.table.slots()).map(of_slot).sum()
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
