//! What the service manager is told, and when: ready, how many there are, alive, stopping.
//!
//! Alive is told only while every shard's loop turns: each is asked for a sign of life, and the next word
//! waits until all have given one. A shard that stalls so keeps the watchdog unfed, and the manager
//! starts the gateway anew. Time is an argument. Next: `service` for how it is told.

use std::time::{Duration, Instant};

use super::drain::Drain;
use super::inquiries::Waiter;
use super::sequencer::Sequencer;
use crate::service::{Note, ServiceManager};
use crate::shard::mailbox::Request;
use crate::stats::ShardStats;

/// How often the status line is renewed.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// How often a stop that goes on asks for more time, and for how much from then on: the shards' end and
/// the last answers are within it (`drain::STOP_WAIT`, `control::FAREWELL`).
const EXTEND_EVERY: Duration = Duration::from_secs(1);
const EXTEND_BY: Duration = Duration::from_secs(15);

/// Signs of life for `WatchdogSec=`.
#[derive(Debug)]
struct Watchdog {
    /// A third of what is allowed: one round may come late, and the next is still in time.
    every: Duration,
    at: Instant,
}

/// What is told when.
#[derive(Debug)]
pub struct Supervision {
    manager: ServiceManager,
    watchdog: Option<Watchdog>,
    status_at: Instant,
    /// Reloads that are not over.
    reloading: u32,
    /// Why the last reload was refused, where it was.
    refused: Option<String>,
    /// The shards were asked for their counters.
    looking: bool,
    /// When messages were last counted, and how many had been delivered.
    counted: Option<(Instant, u64)>,
    /// When more time is asked for next, once the gateway stops.
    extend_at: Option<Instant>,
}

impl Supervision {
    /// Tells that the gateway is ready.
    pub fn begin(manager: ServiceManager, sequencer: &Sequencer, now: Instant) -> Self {
        manager.tell(Note::Ready);
        let watchdog = manager.watchdog().map(|within| Watchdog { every: within / 3, at: now + within / 3 });
        if watchdog.is_some() {
            sequencer.ask_for_signs_of_life();
        }
        Self {
            manager,
            watchdog,
            status_at: now,
            reloading: 0,
            refused: None,
            looking: false,
            counted: None,
            extend_at: None,
        }
    }

    /// How long control may sleep.
    pub fn due_in(&self, now: Instant) -> Duration {
        let watchdog = self.watchdog.as_ref().map(|watchdog| watchdog.at);
        let next = [watchdog, self.extend_at].into_iter().flatten().fold(self.status_at, Instant::min);
        next.saturating_duration_since(now)
    }

    /// Does what is due.
    pub fn handle_tick(&mut self, sequencer: &mut Sequencer, drain: &Drain, now: Instant) {
        if let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| now >= watchdog.at) {
            watchdog.at = now + watchdog.every;
            if sequencer.have_given_signs_of_life() {
                self.manager.tell(Note::Alive);
                sequencer.ask_for_signs_of_life();
            }
        }
        if now >= self.status_at {
            self.status_at = now + STATUS_EVERY;
            // Refused by a full mailbox, or unanswered: the line stays as it was.
            self.looking = self.looking || sequencer.ask_all(Request::Stats, Waiter::Supervision).is_ok();
        }
        if drain.has_begun() && self.extend_at.is_none_or(|at| now >= at) {
            if self.extend_at.is_none() {
                self.manager.tell(Note::Stopping);
            }
            self.manager.tell(Note::Extend(EXTEND_BY));
            self.extend_at = Some(now + EXTEND_EVERY);
        }
    }

    /// The configuration is read again.
    pub fn begin_reload(&mut self) {
        self.reloading += 1;
        self.manager.tell(Note::Reloading);
    }

    /// It is in effect, or was refused.
    pub fn end_reload(&mut self, refused: Option<String>) {
        self.refused = refused;
        self.reloading = self.reloading.saturating_sub(1);
        if let Some(why) = &self.refused {
            self.manager.tell(Note::Status(format!("reload refused: {why}")));
        }
        if self.reloading == 0 {
            self.manager.tell(Note::Ready);
        }
    }

    /// The shards' counters, for the status line.
    pub fn handle_stats(&mut self, shards: &[ShardStats], drain: &Drain, now: Instant) {
        self.looking = false;
        let delivered = shards.iter().map(|shard| shard.delivered).sum();
        let before = self.counted.replace((now, delivered));
        let line = if drain.has_begun() {
            format!("draining, {} connections left", shards.iter().map(|shard| shard.open).sum::<u64>())
        } else {
            let connections = shards.iter().map(|shard| shard.connections).sum();
            status(connections, delivered, before, now)
        };
        let line = match &self.refused {
            Some(why) => format!("{line}; reload refused: {why}"),
            None => line,
        };
        self.manager.tell(Note::Status(line));
    }
}

/// `12 connections, 340 messages/s`; without `before`, when there is no rate yet, the connections alone.
fn status(connections: u64, delivered: u64, before: Option<(Instant, u64)>, now: Instant) -> String {
    let plural = if connections == 1 { "" } else { "s" };
    let line = format!("{connections} connection{plural}");
    match before {
        Some((at, earlier)) if now > at => {
            let rate = delivered.saturating_sub(earlier) as f64 / (now - at).as_secs_f64();
            format!("{line}, {rate:.0} messages/s")
        }
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::sequencer::Shards;
    use crate::shard::mailbox::{Gate, Inbox, Owner, mailbox};

    fn two_shards() -> (Sequencer, [Inbox; 2]) {
        let pair = || mailbox(1, 1 << 20).expect("an eventfd");
        let ((first, first_in), (second, second_in)) = (pair(), pair());
        let shards = Shards { mailboxes: vec![first, second], owner: Owner::new(2) };
        (Sequencer::new(1, 64, shards, Arc::new(Gate::default())), [first_in, second_in])
    }

    #[test]
    fn issue_5_the_watchdog_is_fed_only_when_every_shard_has_turned_since_the_last_time() {
        let (mut sequencer, shards) = two_shards();
        let (manager, told) = ServiceManager::planted(Some(Duration::from_secs(30)));
        let (drain, mut now) = (Drain::default(), Instant::now());
        let mut supervision = Supervision::begin(manager, &sequencer, now);
        let mut round = |turning: &[&Inbox]| {
            turning.iter().for_each(|shard| shard.give_sign_of_life());
            now += Duration::from_secs(10);
            supervision.handle_tick(&mut sequencer, &drain, now);
            told().into_iter().filter(|note| *note == Note::Alive).count()
        };
        let [first, second] = &shards;
        assert_eq!(round(&[first, second]), 1);
        assert_eq!(round(&[first]), 0, "the second stalls");
        assert_eq!(round(&[first]), 0);
        assert_eq!(round(&[second]), 1, "it was slow, not dead");
        assert_eq!(round(&[]), 0);
    }

    #[test]
    fn issue_5_a_shard_with_a_full_mailbox_that_turns_is_alive() {
        let (mut sequencer, shards) = two_shards();
        sequencer.ask_all(Request::Stats, Waiter::Supervision).expect("there is room for one");
        let (manager, told) = ServiceManager::planted(Some(Duration::from_secs(30)));
        let now = Instant::now();
        let mut supervision = Supervision::begin(manager, &sequencer, now);
        shards.iter().for_each(Inbox::give_sign_of_life);
        supervision.handle_tick(&mut sequencer, &Drain::default(), now + Duration::from_secs(10));
        assert_eq!(told(), [Note::Ready, Note::Alive]);
    }

    #[test]
    fn issue_5_a_shard_that_is_asked_for_a_sign_does_not_fall_asleep_before_it_gave_one() {
        let (sequencer, [first, _]) = two_shards();
        assert!(first.is_empty());
        sequencer.ask_for_signs_of_life();
        assert!(!first.is_empty());
        first.give_sign_of_life();
        assert!(first.is_empty());
    }

    #[test]
    fn issue_5_a_long_drain_asks_for_more_time_again_and_again_and_stops_once() {
        let (mut sequencer, _shards) = two_shards();
        let (manager, told) = ServiceManager::planted(None);
        let (mut drain, now) = (Drain::default(), Instant::now());
        let mut supervision = Supervision::begin(manager, &sequencer, now);
        drain.begin(Duration::from_secs(600), &Gate::default(), now);
        for second in 0..3 {
            supervision.handle_tick(&mut sequencer, &drain, now + Duration::from_secs(second));
        }
        let notes = told();
        let extend = Note::Extend(EXTEND_BY);
        assert_eq!(notes, [Note::Ready, Note::Stopping, extend.clone(), extend.clone(), extend]);
    }

    #[test]
    fn the_status_line_tells_connections_and_the_rate_since_the_one_before() {
        let then = Instant::now();
        let now = then + Duration::from_secs(5);
        assert_eq!(status(1, 900, None, now), "1 connection");
        assert_eq!(status(1200, 2400, Some((then, 900)), now), "1200 connections, 300 messages/s");
        assert_eq!(status(0, 900, Some((now, 900)), now), "0 connections");
    }
}
