//! What happens to clients, told to those who listen to `/v1/events`.
//!
//! Nobody pays for what nobody listens to: `Shard::wants` is looked at before anything is put together. Never
//! waits for control: what it does not take in time is counted, and told once there is room again.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Shard;
use super::conn::{State, flag};
use super::mailbox::{Act, Event, Happening, Party, REFUSED_PER_SECOND, Report, event_mask};
use crate::message::{ConnId, Topic, UserId};

/// Reports that may wait for control before events are dropped; replies never are.
const REPORTS_MAX: usize = 65_536;
/// How long refusals beyond `REFUSED_PER_SECOND` are added up.
const SECOND: Duration = Duration::from_secs(1);

/// Refusals of the second that runs: the first of them are told at once, the others together when it is over
/// (Rule 8).
#[derive(Debug, Default)]
pub(super) struct Refused {
    begun: Option<Instant>,
    told: u32,
    /// Status, code, and how many were not told of yet. As many entries as there are codes.
    held: Vec<(Option<u16>, &'static str, u64)>,
}

impl Refused {
    /// Takes one in. True if it is to be told now, else it is held.
    fn take(&mut self, status: Option<u16>, code: &'static str, now: Instant) -> bool {
        if self.begun.is_none_or(|begun| now >= begun + SECOND) && self.held.is_empty() {
            (self.begun, self.told) = (Some(now), 0);
        }
        if self.told < REFUSED_PER_SECOND {
            self.told += 1;
            return true;
        }
        match self.held.iter_mut().find(|held| (held.0, held.1) == (status, code)) {
            Some(held) => held.2 += 1,
            None => self.held.push((status, code, 1)),
        }
        false
    }

    /// What was held, once its second is over.
    fn take_due(&mut self, now: Instant) -> Vec<(Option<u16>, &'static str, u64)> {
        let due = self.due_in(now).is_some_and(|due| due.is_zero());
        if due { std::mem::take(&mut self.held) } else { Vec::new() }
    }

    /// How long until what is held has to be told; `None` where nothing is.
    pub(super) fn due_in(&self, now: Instant) -> Option<Duration> {
        let begun = self.begun.filter(|_| !self.held.is_empty())?;
        Some((begun + SECOND).saturating_duration_since(now))
    }
}

impl Shard {
    /// Whether anybody listens to events of this kind (`event_mask`).
    pub(super) fn wants(&self, event: u64) -> bool {
        self.gate.events_wanted.load(Ordering::Relaxed) & event != 0
    }

    /// Tells the listeners of `/v1/events`; they lose what they do not take in time, and are told.
    pub(super) fn report(&mut self, connection: Option<ConnId>, user: Option<UserId>, what: Happening) {
        if !self.has_room_for_reports() {
            self.stats.events_dropped += 1;
            self.events_lost += 1;
            return;
        }
        self.tell_lost();
        let event = Event { connection, user, at_ms: self.clock.unix_ms(), what };
        // Control has gone only when the gateway ends.
        let _ = self.reports.send(Report::Event(event));
    }

    pub(super) fn has_room_for_reports(&self) -> bool {
        self.reports.len() < REPORTS_MAX
    }

    fn tell_lost(&mut self) {
        if self.events_lost > 0 {
            let _ = self.reports.send(Report::EventsLost(std::mem::take(&mut self.events_lost)));
        }
    }

    /// Tells what was held back for a while.
    pub(super) fn tell_what_waits(&mut self) {
        // Most often neither: the channel's length is asked for only then.
        if (self.events_lost > 0 || self.trails.have_lost()) && self.has_room_for_reports() {
            self.tell_lost();
            self.tell_lost_steps();
        }
        for (status, code, count) in self.refused.take_due(self.clock.now()) {
            if self.wants(event_mask::REFUSED) {
                self.report(None, None, Happening::Refused { status, code, remote: None, count });
            }
        }
    }

    /// Slot `index` has topics that it did not have.
    pub(super) fn tell_subscribed(&mut self, index: u32, by: Party, topics: impl FnOnce() -> Vec<Topic>) {
        if self.wants(event_mask::SUBSCRIBE) || self.table[index].is(flag::TRACED) {
            let topics = topics();
            self.trace(index, |_| Act::Subscribed { topics: topics.clone(), by });
            self.tell_topics(index, event_mask::SUBSCRIBE, topics, |topics| Happening::Subscribe {
                topics,
                by,
            });
        }
    }

    /// Slot `index` does not have topics any more that it had.
    pub(super) fn tell_unsubscribed(&mut self, index: u32, by: Party, topics: impl FnOnce() -> Vec<Topic>) {
        if self.wants(event_mask::UNSUBSCRIBE) || self.table[index].is(flag::TRACED) {
            let topics = topics();
            self.trace(index, |_| Act::Unsubscribed { topics: topics.clone(), by });
            let what = |topics| Happening::Unsubscribe { topics, by };
            self.tell_topics(index, event_mask::UNSUBSCRIBE, topics, what);
        }
    }

    fn tell_topics(
        &mut self,
        index: u32,
        event: u64,
        topics: Vec<Topic>,
        what: impl FnOnce(Vec<Topic>) -> Happening,
    ) {
        if !topics.is_empty() && self.wants(event) {
            self.report(Some(self.id(index)), self.user_of(index), what(topics));
        }
    }

    /// Slot `index` lags: told once until it has caught up.
    pub(super) fn tell_slow(&mut self, index: u32) {
        if !self.table[index].is(flag::SLOW) && self.wants(event_mask::SLOW) {
            self.table[index].set(flag::SLOW);
            self.report_slow(index, false);
        }
    }

    /// Slot `index` is cut because it lags.
    pub(super) fn tell_slow_cut(&mut self, index: u32) {
        if self.table[index].state == State::Open && self.wants(event_mask::SLOW) {
            self.report_slow(index, true);
        }
    }

    fn report_slow(&mut self, index: u32, cut: bool) {
        let rare = self.table[index].rare.as_ref();
        let lag_bytes = rare.map_or(0, |rare| rare.lag_bytes + rare.outbox_bytes) as u64;
        self.report(Some(self.id(index)), self.user_of(index), Happening::Slow { lag_bytes, cut });
    }

    /// A client was refused. Not one event each in a flood: `Refused`. `remote` is asked for only where it is
    /// told.
    pub(super) fn tell_refused(
        &mut self,
        status: Option<u16>,
        code: &'static str,
        user: Option<UserId>,
        remote: impl FnOnce(&Self) -> String,
    ) {
        if self.wants(event_mask::REFUSED) && self.refused.take(status, code, self.clock.now()) {
            let remote = Some(remote(self));
            self.report(None, user, Happening::Refused { status, code, remote, count: 1 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_8_ten_refusals_a_second_are_told_one_by_one_and_the_others_together() {
        let (mut refused, begun) = (Refused::default(), Instant::now());
        let told = (0..500).filter(|_| refused.take(Some(503), "overloaded", begun)).count();
        assert_eq!(told, REFUSED_PER_SECOND as usize);
        assert!(!refused.take(Some(429), "too_many_connections", begun));
        assert_eq!(refused.due_in(begun), Some(SECOND));
        assert_eq!(refused.take_due(begun + SECOND / 2), []);
        let over = begun + SECOND;
        assert_eq!(
            refused.take_due(over),
            [(Some(503), "overloaded", 490), (Some(429), "too_many_connections", 1)]
        );
        assert_eq!((refused.due_in(over), refused.take_due(over)), (None, Vec::new()));
        assert!(refused.take(Some(503), "overloaded", over), "another second");
    }
}
