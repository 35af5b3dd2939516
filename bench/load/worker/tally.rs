//! What a worker counts and times between two reports to the coordinator.

use std::collections::BTreeMap;

use crate::record::{Counts, Delta, Distribution, Error, Outcome, Timed};

/// Counters since the start, and everything that was not told yet.
#[derive(Debug)]
pub struct Tally {
    worker: u16,
    /// Since the start.
    pub counts: Counts,
    told: Counts,
    outcomes: BTreeMap<Outcome, u64>,
    times: [(Timed, Distribution); 5],
    /// When the last message arrived.
    pub last_message_ns: u64,
    told_ns: u64,
    told_cpu_ns: u64,
}

impl Tally {
    /// Nothing yet.
    pub fn new(worker: u16, now_ns: u64) -> Self {
        let timed = [Timed::Connect, Timed::Delivery, Timed::Response, Timed::Reconnect, Timed::LoopLag];
        Self {
            worker,
            counts: Counts::default(),
            told: Counts::default(),
            outcomes: BTreeMap::new(),
            times: timed.map(|timed| (timed, Distribution::default())),
            last_message_ns: 0,
            told_ns: now_ns,
            told_cpu_ns: 0,
        }
    }

    /// Counts how something ended.
    pub fn outcome(&mut self, outcome: Outcome) {
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    /// Counts an error.
    pub fn error(&mut self, error: Error) {
        self.outcome(Outcome::Error(error));
    }

    /// Takes a time.
    pub fn time(&mut self, timed: Timed, ns: u64) {
        self.times[timed as usize].1.record(ns);
    }

    /// What has not been told yet; from now on it has.
    pub fn tell(&mut self, now_ns: u64, cpu_ns: u64, open: u32) -> Delta {
        let delta = Delta {
            worker: self.worker,
            at_ns: now_ns,
            wall_ns: now_ns - self.told_ns,
            cpu_ns: cpu_ns - self.told_cpu_ns,
            open,
            last_message_ns: self.last_message_ns,
            counts: self.counts.since(&self.told),
            outcomes: std::mem::take(&mut self.outcomes),
            times: self.times.iter().filter(|(_, times)| !times.is_empty()).cloned().collect(),
            resident_bytes: 0,
        };
        self.times.iter_mut().for_each(|(_, times)| times.clear());
        self.told = self.counts;
        (self.told_ns, self.told_cpu_ns) = (now_ns, cpu_ns);
        delta
    }
}
