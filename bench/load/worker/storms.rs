//! Everybody goes and comes back: storms, and the back-off of every connection that was lost.

use super::Worker;
use super::slots::{State, flag};
use super::timers::Due;
use crate::cpu;
use crate::plan::{BackOff, Behaviour, Cut, News};

/// What a client waits that was not told how long.
const UNTOLD_MS: u64 = 1000;

/// What every failed attempt in a row adds to the wait, where no back-off is asked for.
const PAUSE_NS: u64 = 100_000_000;

/// A storm that is under way.
#[derive(Debug)]
pub struct Storm {
    started_ns: Option<u64>,
    /// Connections that have to be back.
    awaited: u32,
}

impl Worker {
    pub(super) fn begin_storm(&mut self, cut: Cut) {
        self.now_ns = cpu::now_ns();
        let started_ns = (cut != Cut::ByServer).then_some(self.now_ns);
        self.storm = Some(Storm { started_ns, awaited: self.open });
        for index in 0..self.slots.len() {
            if self.slots[index].state != State::Open {
                continue;
            }
            match cut {
                Cut::Fin => self.end(index, None),
                Cut::Reset => self.reset(index),
                Cut::ByServer => {}
            }
        }
    }

    /// `News::Back` once all that a storm took are open again.
    pub(super) fn back(&mut self) -> Option<News> {
        let storm = self.storm.as_ref()?;
        let started_ns = storm.started_ns?;
        if self.open < storm.awaited || self.slots.iter().any(|slot| slot.is(flag::BACK)) {
            return None;
        }
        self.storm = None;
        Some(News::Back { started_ns, ended_ns: cpu::now_ns(), open: self.open })
    }

    /// Arranges the return of a connection that was lost, or could not be had, just now.
    pub(super) fn come_back(&mut self, index: usize, was: State, told_ms: Option<u64>) {
        let now_ns = cpu::now_ns();
        if let Some(storm) = &mut self.storm
            && storm.started_ns.is_none()
        {
            storm.started_ns = Some(now_ns);
        }
        let slot = &mut self.slots[index];
        if was == State::Open && !slot.is(flag::ASKED) {
            slot.since_ns = now_ns;
            slot.set(flag::BACK);
        }
        let failures = u32::from(slot.failures);
        let wait_ns = match self.scene.back_off {
            // Work goes on at once, but not in a busy loop against a server that is down.
            BackOff::Never | BackOff::None => u64::from(failures.min(10)) * PAUSE_NS,
            BackOff::Fixed { wait_ns } => wait_ns,
            BackOff::Exponential { base_ns, cap_ns } => {
                let cap_ns = base_ns.saturating_mul(1 << failures.min(32)).min(cap_ns);
                self.random.below(cap_ns)
            }
            BackOff::AsTold => told_ms.unwrap_or(UNTOLD_MS) * 1_000_000,
        };
        let slot = &mut self.slots[index];
        slot.state = State::Waiting;
        slot.seq = if slot.behaviour == Behaviour::Well { slot.seq } else { 0 };
        self.timers.add(now_ns + wait_ns, index as u32, slot.generation, Due::Return);
    }
}
