//! The way out: refuse new clients, wait until the present ones have gone, stop the shards.
//!
//! Decides what is due when; asks through the sequencer. Time is an argument. Next: `shard` for how the
//! clients are told.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::command::DrainProgress;
use super::inquiries::Waiter;
use super::sequencer::Sequencer;
use crate::shard::mailbox::{Gate, Request};
use crate::stats::ShardStats;

/// How often the shards are asked who is left.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long past its time a drain waits for the last clients.
const GRACE: Duration = Duration::from_secs(1);
/// How long a shard may take to end.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// Longest drain.
const WITHIN_MAX: Duration = Duration::from_secs(86_400);

#[derive(Debug)]
enum Phase {
    Running,
    Draining { look_at: Instant, told: bool, looking: bool },
    Stopping { since: Instant, told: bool, stopped: usize },
    Over,
}

/// Where the gateway stands between running and gone.
#[derive(Debug)]
pub struct Drain {
    phase: Phase,
    began: Option<Instant>,
    within: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { phase: Phase::Running, began: None, within: Duration::ZERO }
    }
}

impl Drain {
    /// Begins a drain over `within`, at most a day. One that runs already goes on as it is.
    pub fn begin(&mut self, within: Duration, gate: &Gate, now: Instant) {
        if self.began.is_some() {
            return;
        }
        gate.draining.store(true, Ordering::SeqCst);
        self.began = Some(now);
        self.within = within.min(WITHIN_MAX);
        self.phase = Phase::Draining { look_at: now, told: false, looking: false };
        tracing::info!(within_ms = self.within.as_millis() as u64, "drain begins");
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.began.is_some()
    }

    /// Whether the gateway may exit.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// How it goes, with `connections` left.
    pub fn progress(&self, connections: u64, now: Instant) -> DrainProgress {
        let elapsed = self.began.map_or(Duration::ZERO, |began| now.duration_since(began));
        DrainProgress { connections, elapsed_ms: elapsed.as_millis() as u64 }
    }

    /// Does what is due. A full mailbox only makes it late: it is tried again at the next call.
    pub fn handle_tick(&mut self, sequencer: &mut Sequencer, now: Instant) {
        match &mut self.phase {
            Phase::Running | Phase::Over => {}
            Phase::Draining { look_at, told, looking } => {
                let within_ms = self.within.as_millis() as u64;
                *told = *told || sequencer.ask_all(Request::Drain { within_ms }, Waiter::Drain).is_ok();
                if *told && !*looking && now >= *look_at {
                    *looking = sequencer.ask_all(Request::Stats, Waiter::Drain).is_ok();
                    *look_at = now + LOOK_EVERY;
                }
                if self.began.is_some_and(|began| now >= began + self.within + GRACE) {
                    self.stop(sequencer, now);
                }
            }
            Phase::Stopping { since, told, .. } => {
                *told = *told || sequencer.ask_all(Request::Stop, Waiter::Drain).is_ok();
                if now >= *since + STOP_WAIT {
                    tracing::error!("a shard did not stop within {} s", STOP_WAIT.as_secs());
                    self.phase = Phase::Over;
                }
            }
        }
    }

    fn stop(&mut self, sequencer: &mut Sequencer, now: Instant) {
        self.phase = Phase::Stopping { since: now, told: false, stopped: 0 };
        self.handle_tick(sequencer, now);
    }

    /// What the shards said when asked who is left: the progress to tell.
    pub fn handle_stats(
        &mut self,
        shards: &[ShardStats],
        sequencer: &mut Sequencer,
        now: Instant,
    ) -> DrainProgress {
        // Sockets, not only established clients: handshakes under way are to be told 503, and who was
        // told to leave has to read it before its socket goes.
        let connections = shards.iter().map(|shard| shard.open).sum();
        if let Phase::Draining { looking, .. } = &mut self.phase {
            *looking = false;
            if connections == 0 {
                self.stop(sequencer, now);
            }
        }
        self.progress(connections, now)
    }

    /// A shard has ended. Unasked, it is the end as well: a gateway without it would lie.
    pub fn handle_stopped(&mut self, sequencer: &Sequencer) {
        if let Phase::Stopping { stopped, .. } = &mut self.phase {
            *stopped += 1;
            if *stopped == sequencer.shard_count() {
                self.phase = Phase::Over;
            }
        }
    }

    /// All shards are gone.
    pub fn handle_gone(&mut self) {
        self.phase = Phase::Over;
    }
}
