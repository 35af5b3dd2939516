//! Coarse time of one shard, and the sweep that stands in for a timer per connection.
//!
//! Each step of the sweep looks at the next slice of the table; a whole pass takes `Sweep::period`.
//! Deadlines are therefore kept late by at most one period, never early.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::config::Timeouts;

/// A moment in units of 10 ms since the shard started; wraps after 497 days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick(pub u32);

const TICK_MS: u64 = 10;
/// One tick.
pub const TICK: Duration = Duration::from_millis(TICK_MS);
const TENTH_MS: u64 = 100;
/// Ticks in a second.
pub const TICKS_PER_SECOND: u32 = 1000 / TICK_MS as u32;

impl Tick {
    /// How many ticks after another moment `duration` has passed for sure: rounded up, and one more, since the
    /// other moment lies anywhere within its tick.
    pub fn count(duration: Duration) -> u32 {
        u32::try_from(duration.as_millis().div_ceil(u128::from(TICK_MS)) + 1)
            .unwrap_or(u32::MAX / 2)
            .min(u32::MAX / 2)
    }

    /// This moment and `ticks` more.
    pub fn after(self, ticks: u32) -> Self {
        Self(self.0.wrapping_add(ticks))
    }

    /// Ticks from `earlier` to this moment; 0 if it is not earlier.
    pub fn since(self, earlier: Self) -> u32 {
        let ticks = self.0.wrapping_sub(earlier.0);
        if ticks > u32::MAX / 2 { 0 } else { ticks }
    }

    /// Whether `deadline` has come.
    pub fn reached(self, deadline: Self) -> bool {
        self.0.wrapping_sub(deadline.0) <= u32::MAX / 2
    }
}

/// Unix time in milliseconds as the wall clock shows it now: what tokens are judged by.
pub fn wall_ms() -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    unix.as_millis() as u64
}

/// The time of the turn, as it was given.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    started_unix_ms: u64,
    now: Instant,
    runs: bool,
}

impl Clock {
    /// Starts at tick 0, which is `now`, and stands still but for `advance`.
    pub fn start(now: Instant) -> Self {
        Self { started: now, started_unix_ms: wall_ms(), now, runs: false }
    }

    /// Runs by itself between turns, too, from now on: `reading`.
    pub fn run(&mut self) {
        self.runs = true;
    }

    /// The time now, within a turn: for what is measured. Where turns are taken by hand it is the turn's, so
    /// that a run that is simulated measures the same each time.
    pub fn reading(&self) -> Instant {
        if self.runs { Instant::now().max(self.now) } else { self.now }
    }

    /// Takes the time of the turn that begins.
    pub fn advance(&mut self, now: Instant) {
        self.now = now.max(self.now);
    }

    /// This turn's time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// This turn's tick.
    pub fn tick(&self) -> Tick {
        Tick((self.elapsed_ms() / TICK_MS) as u32)
    }

    /// Milliseconds since start, wrapping after 49 days: for differences only.
    pub fn ms(&self) -> u32 {
        self.elapsed_ms() as u32
    }

    /// Microseconds since start, wrapping after 71 minutes: for short differences only.
    pub fn us(&self) -> u32 {
        (self.now - self.started).as_micros() as u32
    }

    fn elapsed_ms(&self) -> u64 {
        (self.now - self.started).as_millis() as u64
    }

    /// Tenths of a second since start; wraps after 13 years.
    pub fn tenths(&self) -> u32 {
        (self.elapsed_ms() / TENTH_MS) as u32
    }

    /// How long from this turn until it is `tenths`.
    pub fn until_tenths(&self, tenths: u32) -> Duration {
        Duration::from_millis((u64::from(tenths) * TENTH_MS).saturating_sub(self.elapsed_ms()))
    }

    /// When the wall clock, if nobody sets it, will have reached `unix_ms`: in `tenths`, rounded up. `None`
    /// lies beyond them.
    ///
    /// Counted from here on by the clock that nobody can set: one that is put forward or back ends nothing
    /// early and nothing late. Time in which the host is suspended does not count (CLOCK_MONOTONIC).
    pub fn tenths_at(&self, unix_ms: u64) -> Option<u32> {
        let left_ms = unix_ms.saturating_sub(wall_ms());
        // Read after the wall clock, so that what passes in between is waited for twice rather than not at all.
        let elapsed = (self.now - self.started).max(self.started.elapsed());
        let at_ms = u64::try_from(elapsed.as_millis()).ok()?.checked_add(left_ms)?.checked_add(1)?;
        u32::try_from(at_ms.div_ceil(TENTH_MS)).ok()
    }

    /// Unix time in milliseconds of this turn.
    pub fn unix_ms(&self) -> u64 {
        self.started_unix_ms + self.elapsed_ms()
    }

    /// Unix time in milliseconds of a tick that has passed: the same whenever it is asked for.
    pub fn unix_ms_of(&self, tick: Tick) -> u64 {
        let into_tick_ms = self.elapsed_ms() % TICK_MS;
        self.unix_ms() - into_tick_ms - u64::from(self.tick().since(tick)) * TICK_MS
    }
}

/// Steps in one pass over the table.
const STEPS: u32 = 8;

/// Walks over the table, slice by slice.
#[derive(Debug)]
pub struct Sweep {
    step: Duration,
    next_step: Instant,
    slice: u32,
}

impl Sweep {
    /// A pass takes an eighth of the shortest timeout, within 80 ms and 1.25 s.
    pub fn new(timeouts: &Timeouts, now: Instant) -> Self {
        let step = Self::step(timeouts);
        Self { step, next_step: now + step, slice: 0 }
    }

    /// Goes on with these timeouts, from where it is: no slice is left out.
    pub fn adopt(&mut self, timeouts: &Timeouts, now: Instant) {
        self.step = Self::step(timeouts);
        self.next_step = self.next_step.min(now + self.step);
    }

    fn step(timeouts: &Timeouts) -> Duration {
        let all = [
            timeouts.handshake,
            timeouts.message,
            timeouts.send,
            timeouts.close,
            timeouts.heartbeat,
            timeouts.heartbeat_min,
            timeouts.pong,
        ];
        let shortest = all.into_iter().min().unwrap_or_default();
        let period = (shortest / 8).clamp(Duration::from_millis(80), Duration::from_millis(1250));
        period / STEPS
    }

    /// How long until the next step, from `now`.
    pub fn due_in(&self, now: Instant) -> Duration {
        self.next_step.saturating_duration_since(now)
    }

    /// The next slice of a table with `slots` slots, once it is due, and whether it ends a pass.
    pub fn slice(&mut self, now: Instant, slots: u32) -> Option<(std::ops::Range<u32>, bool)> {
        if now < self.next_step {
            return None;
        }
        self.next_step = now + self.step;
        let edge = |slice: u32| (u64::from(slots) * u64::from(slice) / u64::from(STEPS)) as u32;
        let range = edge(self.slice)..edge(self.slice + 1);
        self.slice = (self.slice + 1) % STEPS;
        Some((range, self.slice == 0))
    }
}

/// When a slot's heartbeats fall due: its own phase within the period, so that clients that came
/// together are not pinged together.
///
/// Gives how many whole periods have passed at `tick`, and ticks since the last one ended.
pub fn heartbeat_phase(index: u32, heartbeat_s: u16, tick: Tick) -> (u32, u32) {
    let period = u32::from(heartbeat_s.max(1)) * TICKS_PER_SECOND;
    let shifted = tick.0.wrapping_add(spread(index, period));
    (shifted / period, shifted % period)
}

/// A number below `range` for slot `index`, far from that of its neighbours (Fibonacci hashing).
pub fn spread(index: u32, range: u32) -> u32 {
    let hash = u64::from(index.wrapping_mul(0x9e37_79b9));
    ((hash * u64::from(range)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_wrap_without_losing_deadlines() {
        let late = Tick(u32::MAX - 5);
        assert!(!late.reached(late.after(10)));
        assert!(late.after(10).reached(late.after(10)));
        assert_eq!(late.after(10).since(late), 10);
        assert_eq!(late.since(late.after(10)), 0);
    }

    #[test]
    fn a_deadline_in_ticks_is_never_early_wherever_in_its_tick_it_was_set() {
        let begun = Instant::now();
        let at = |after_us: u64| {
            let mut clock = Clock::start(begun);
            clock.advance(begun + Duration::from_micros(after_us));
            clock.tick()
        };
        for set_us in [0, 1, 4_999, 9_999, 10_000] {
            for wait_us in [1_000, 10_000, 12_000, 300_000] {
                let deadline = at(set_us).after(Tick::count(Duration::from_micros(wait_us)));
                assert!(!at(set_us + wait_us - 1).reached(deadline), "{set_us} {wait_us}");
                assert!(at(set_us + wait_us + 20_000).reached(deadline), "{set_us} {wait_us}");
            }
        }
    }

    #[test]
    fn issue_7_the_time_of_a_tick_is_the_same_whenever_it_is_asked_for() {
        let begun = Instant::now();
        let mut clock = Clock::start(begun);
        clock.advance(begun + Duration::from_millis(1234));
        let (tick, at) = (clock.tick(), clock.unix_ms_of(clock.tick()));
        for later_ms in [1239, 1240, 1249, 5003] {
            clock.advance(begun + Duration::from_millis(later_ms));
            assert_eq!(clock.unix_ms_of(tick), at, "{later_ms}");
        }
    }

    #[test]
    fn design_5_clients_that_came_together_are_pinged_spread_over_the_period() {
        let mut per_second = [0u32; 60];
        for index in 0..6000 {
            let (_, since) = heartbeat_phase(index, 60, Tick(0));
            per_second[since as usize / 100] += 1;
        }
        assert!(per_second.iter().all(|&n| (80..=120).contains(&n)), "{per_second:?}");
    }
}
