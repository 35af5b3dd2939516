//! How often a shard writes a line about what clients do (Rule 8). Reads no clock: time is an argument.

use std::time::{Duration, Instant};

use super::life::LifePace;

/// All shards together write at most ten lines a second of one reason.
const LINE_EVERY: Duration = Duration::from_millis(100);
const PERIOD_MIN: Duration = Duration::from_secs(1);

/// The lines of one reason.
#[derive(Debug)]
pub(super) struct LogPace {
    period: Duration,
    next: Option<Instant>,
    silent: u64,
}

impl LogPace {
    /// One line a period on each of `shards` shards.
    pub(super) fn new(shards: usize) -> Self {
        let period = LINE_EVERY.saturating_mul(u32::try_from(shards).unwrap_or(u32::MAX)).max(PERIOD_MIN);
        Self { period, next: None, silent: 0 }
    }

    /// Counts one. Where a line is due: how many there were since the line before that had none.
    pub(super) fn count(&mut self, now: Instant) -> Option<u64> {
        if self.next.is_some_and(|next| now < next) {
            self.silent += 1;
            return None;
        }
        self.next = Some(now + self.period);
        Some(std::mem::take(&mut self.silent))
    }
}

/// One pace for each reason that a shard writes lines for, and one for the lives of connections.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) slow: LogPace,
    pub(super) refused_rate: LogPace,
    pub(super) refused_memory: LogPace,
    pub(super) life: LifePace,
}

impl Lines {
    pub(super) fn new(shards: usize) -> Self {
        let pace = || LogPace::new(shards);
        Self { slow: pace(), refused_rate: pace(), refused_memory: pace(), life: LifePace::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_8_the_first_has_a_line_and_then_one_a_second_that_tells_of_the_others() {
        let (mut pace, begun) = (LogPace::new(2), Instant::now());
        assert_eq!(pace.count(begun), Some(0));
        (0..500).for_each(|_| assert_eq!(pace.count(begun), None));
        assert_eq!(pace.count(begun + Duration::from_millis(999)), None);
        assert_eq!(pace.count(begun + PERIOD_MIN), Some(501));
        assert_eq!(pace.count(begun + 3 * PERIOD_MIN), Some(0));
    }

    #[test]
    fn rule_8_many_shards_together_write_no_more() {
        let (mut pace, begun) = (LogPace::new(64), Instant::now());
        assert_eq!(pace.count(begun), Some(0));
        assert_eq!(pace.count(begun + Duration::from_millis(6399)), None);
        assert_eq!(pace.count(begun + Duration::from_millis(6400)), Some(1));
    }
}
