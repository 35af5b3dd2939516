//! A connection's life in the log, at `debug` and `trace`: one line for each thing that happens to it, at a pace
//! (Rule 8).
//!
//! `debug` is how it comes, asks, is let in or refused, and ends. `trace` adds each message, ping, and socket that
//! is full. Nothing of what a client sends is shown but its user, which is short and has no control characters.

use std::time::{Duration, Instant};

/// What `corecast log debug --target shard` names.
pub(super) const TARGET: &str = "corecast::shard";

/// Most lines of one shard in a second.
const LINES_MAX: u32 = 200;
const SECOND: Duration = Duration::from_secs(1);

/// How many lines there were in this second.
#[derive(Debug, Default)]
pub(super) struct LifePace {
    ends: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl LifePace {
    /// Counts one. Where there is to be a line: how many were left out since the one before.
    pub(super) fn count(&mut self, now: Instant) -> Option<u64> {
        if self.ends.is_none_or(|ends| now >= ends) {
            self.ends = Some(now + SECOND);
            self.lines = 0;
        }
        if self.lines >= LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// `life!(DEBUG, self, connection = %id, "accepted")`: what is to be shown is worked out only where it is.
macro_rules! life {
    ($level:ident, $shard:expr, $($line:tt)+) => {
        if tracing::enabled!(target: $crate::shard::life::TARGET, tracing::Level::$level)
            && let Some(left_out) = $shard.lines.life.count($shard.clock.now())
        {
            let shard = $shard.number;
            if left_out > 0 {
                tracing::event!(target: $crate::shard::life::TARGET, tracing::Level::$level, shard, "{left_out} lines were left out before this");
            }
            tracing::event!(target: $crate::shard::life::TARGET, tracing::Level::$level, shard, $($line)+);
        }
    };
}
pub(super) use life;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_8_a_shard_tells_200_things_a_second_and_counts_the_others() {
        let (mut pace, begun) = (LifePace::default(), Instant::now());
        assert!((0..LINES_MAX).all(|_| pace.count(begun) == Some(0)));
        assert!((0..5000).all(|_| pace.count(begun + Duration::from_millis(999)).is_none()));
        assert_eq!(pace.count(begun + SECOND), Some(5000));
        assert_eq!(pace.count(begun + SECOND), Some(0));
    }
}
