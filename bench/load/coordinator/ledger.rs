//! The sums: every worker's differences, added up over the run and by second.

use std::collections::BTreeMap;

use crate::record::{Counts, Delta, Distribution, Outcome, Timed};
use crate::report::{Phase, Quantiles, Second, Times, ToolCost};

const SECOND_NS: u64 = 1_000_000_000;
/// Workers tell at each full second of the shared clock; so long their lines may take to get here.
const GRACE_NS: u64 = SECOND_NS / 10;
/// A worker that uses this much of its core may be what limits the figures.
const BUSY: f64 = 0.95;
/// A loop that is this late, in the worst 1 of 100 turns, makes latencies its own.
const LATE_US: f64 = 5_000.0;

/// Everything that was told so far.
#[derive(Debug)]
pub struct Ledger {
    started_ns: u64,
    boundary_ns: u64,
    boundary_before_ns: u64,
    /// Over the run.
    pub totals: Counts,
    /// Over the run.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Over the run.
    pub times: BTreeMap<Timed, Distribution>,
    /// When the last message arrived anywhere.
    pub last_message_ns: u64,
    counts: Counts,
    second_outcomes: BTreeMap<Outcome, u64>,
    second_times: BTreeMap<Timed, Distribution>,
    workers: Vec<Worker>,
    phases: Vec<Phase>,
    /// The timeline.
    pub seconds: Vec<Second>,
    cpu_max: f64,
}

#[derive(Clone, Debug, Default)]
struct Worker {
    open: u32,
    resident_bytes: u64,
    resident_before_bytes: u64,
}

impl Ledger {
    /// Nothing told yet; the run begins at `started_ns`.
    pub fn new(workers: u16, started_ns: u64) -> Self {
        Self {
            started_ns,
            boundary_ns: (started_ns / SECOND_NS + 1) * SECOND_NS,
            boundary_before_ns: started_ns,
            totals: Counts::default(),
            outcomes: BTreeMap::new(),
            times: BTreeMap::new(),
            last_message_ns: 0,
            counts: Counts::default(),
            second_outcomes: BTreeMap::new(),
            second_times: BTreeMap::new(),
            workers: vec![Worker::default(); usize::from(workers)],
            phases: Vec::new(),
            seconds: Vec::new(),
            cpu_max: 0.0,
        }
    }

    /// Seconds since the start of the run.
    pub fn elapsed_s(&self, at_ns: u64) -> f64 {
        at_ns.saturating_sub(self.started_ns) as f64 / 1e9
    }

    /// Begins a phase, and ends the one before.
    pub fn begin_phase(&mut self, name: &str, at_ns: u64) {
        let now_s = self.elapsed_s(at_ns);
        self.end_phase(at_ns);
        self.phases.push(Phase { name: name.to_owned(), from_s: now_s, to_s: f64::INFINITY });
    }

    /// Ends the phase.
    pub fn end_phase(&mut self, at_ns: u64) {
        let now_s = self.elapsed_s(at_ns);
        if let Some(phase) = self.phases.last_mut().filter(|phase| phase.to_s.is_infinite()) {
            phase.to_s = now_s;
        }
    }

    /// The phases that have ended.
    pub fn phases(&self) -> Vec<Phase> {
        self.phases.iter().filter(|phase| phase.to_s.is_finite()).cloned().collect()
    }

    /// Takes what a worker did.
    pub fn add(&mut self, delta: &Delta) {
        let worker = &mut self.workers[usize::from(delta.worker)];
        worker.open = delta.open;
        if delta.resident_bytes > 0 {
            worker.resident_bytes = worker.resident_bytes.max(delta.resident_bytes);
            if worker.resident_before_bytes == 0 {
                worker.resident_before_bytes = delta.resident_bytes;
            }
        }
        self.totals.add(&delta.counts);
        self.counts.add(&delta.counts);
        self.last_message_ns = self.last_message_ns.max(delta.last_message_ns);
        for (&outcome, &count) in &delta.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
            *self.second_outcomes.entry(outcome).or_default() += count;
        }
        for (&timed, times) in &delta.times {
            self.times.entry(timed).or_default().add(times);
            self.second_times.entry(timed).or_default().add(times);
        }
        // A short stretch says nothing about a second.
        if delta.wall_ns > SECOND_NS / 2 {
            self.cpu_max = self.cpu_max.max(delta.cpu_ns as f64 / delta.wall_ns as f64);
        }
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.workers.iter().map(|worker| u64::from(worker.open)).sum()
    }

    /// Connections of one worker.
    pub fn open_of(&self, worker: u16) -> u64 {
        u64::from(self.workers[usize::from(worker)].open)
    }

    /// The line of the second that has just ended, once its news is in.
    pub fn close_second(&mut self, now_ns: u64) -> Option<&Second> {
        if now_ns < self.boundary_ns + GRACE_NS {
            return None;
        }
        let boundary_ns = self.boundary_ns;
        self.boundary_ns = (now_ns.saturating_sub(GRACE_NS) / SECOND_NS + 1) * SECOND_NS;
        Some(self.close_stretch(boundary_ns.max(self.boundary_ns - SECOND_NS)))
    }

    /// The same for what is left at the end.
    pub fn close_rest(&mut self, now_ns: u64) -> Option<&Second> {
        let anything = self.counts != Counts::default() || !self.second_times.is_empty();
        anything.then(|| self.close_stretch(now_ns.max(self.boundary_before_ns + 1)))
    }

    fn close_stretch(&mut self, to_ns: u64) -> &Second {
        let from_ns = std::mem::replace(&mut self.boundary_before_ns, to_ns);
        let times = std::mem::take(&mut self.second_times);
        let second = Second {
            elapsed_s: self.elapsed_s(to_ns),
            wall_s: (to_ns - from_ns) as f64 / 1e9,
            phase: self.phases.last().map(|phase| phase.name.clone()).unwrap_or_default(),
            open: self.open(),
            counts: std::mem::take(&mut self.counts),
            outcomes: std::mem::take(&mut self.second_outcomes),
            times: times.iter().map(|(&timed, times)| (timed, Quantiles::from(times))).collect(),
        };
        self.seconds.push(second);
        &self.seconds[self.seconds.len() - 1]
    }

    /// The distributions with their usual figures; loop lag is the tool's own and not among them.
    pub fn times(&self) -> BTreeMap<Timed, Times> {
        let of_server = self.times.iter().filter(|(timed, _)| **timed != Timed::LoopLag);
        let times = |times: &Distribution| Times { quantiles: times.into(), distribution: times.clone() };
        of_server.map(|(&timed, distribution)| (timed, times(distribution))).collect()
    }

    /// What the run cost the tool. `opened`: the most connections there were.
    pub fn tool_cost(&self, opened: u64) -> ToolCost {
        let grown = |worker: &Worker| worker.resident_bytes - worker.resident_before_bytes;
        let resident: u64 = self.workers.iter().map(grown).sum();
        let loop_lag = self.times.get(&Timed::LoopLag).map(Quantiles::from).unwrap_or_default();
        let bottleneck = if self.cpu_max >= BUSY {
            Some(format!(
                "a worker used {:.0} % of a core in its busiest second: rates may be the tool's own; \
                 try --processes or --threads",
                self.cpu_max * 100.0
            ))
        } else if loop_lag.p99 >= LATE_US {
            Some(format!(
                "a worker's loop was {:.1} ms late in 1 of 100 turns: latencies may be the tool's own; \
                 try --processes, --pin, or a quieter machine",
                loop_lag.p99 / 1000.0
            ))
        } else {
            None
        };
        ToolCost {
            workers: self.workers.len() as u32,
            bytes_per_connection: if opened == 0 { 0.0 } else { resident as f64 / opened as f64 },
            cpu_max: self.cpu_max,
            loop_lag,
            bottleneck,
        }
    }
}
