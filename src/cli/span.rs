//! Two readings of the counters: what happened between them, a second.

use crate::control::command::Stats;
use crate::stats::ShardStats;

/// From one reading to a later one of the same gateway.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    before: &'a Stats,
    after: &'a Stats,
    /// More than 0.
    ms: u64,
}

impl<'a> Span<'a> {
    /// `None` where `after` is not the later one: the gateway was started anew, or no time has passed.
    pub(super) fn new(before: &'a Stats, after: &'a Stats) -> Option<Self> {
        let is_same =
            before.position.epoch == after.position.epoch && before.shards.len() == after.shards.len();
        let ms = after.uptime_ms.checked_sub(before.uptime_ms).filter(|ms| is_same && *ms > 0)?;
        Some(Self { before, after, ms })
    }

    /// How fast a counter of the whole gateway grows, a second, rounded.
    pub(super) fn rate(&self, count: impl Fn(&Stats) -> u64) -> u64 {
        self.per_second(count(self.before), count(self.after))
    }

    /// The same for a counter of the shards, over all of them.
    pub(super) fn total(&self, count: impl Fn(&ShardStats) -> u64) -> u64 {
        self.rate(|stats| stats.shards.iter().map(&count).sum())
    }

    /// The same for each shard, in the order of their numbers.
    pub(super) fn by_shard(&self, count: impl Fn(&ShardStats) -> u64) -> Vec<u64> {
        let of =
            |stats: &Stats, number| stats.shards.iter().find(|shard| shard.shard == number).map_or(0, &count);
        let numbers = 0..self.after.shards.len() as u16;
        numbers.map(|number| self.per_second(of(self.before, number), of(self.after, number))).collect()
    }

    fn per_second(&self, before: u64, after: u64) -> u64 {
        let grown = u128::from(after.saturating_sub(before)) * 1000;
        ((grown + u128::from(self.ms) / 2) / u128::from(self.ms)) as u64
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::message::Position;

    /// A gateway of two shards, both with `shard`, `uptime_ms` after its start.
    pub fn reading(uptime_ms: u64, shard: &ShardStats) -> Stats {
        let mut shards = vec![shard.clone(), shard.clone()];
        shards[1].shard = 1;
        Stats {
            version: "0.1.0".to_owned(),
            uptime_s: uptime_ms / 1000,
            uptime_ms,
            position: Position { epoch: 0x1a2b_3c4d, seq: 17 },
            draining: false,
            accepted: 17,
            refused: 3,
            busy: 1,
            reloads: 0,
            reloads_refused: 0,
            memory_used_bytes: 0,
            memory_limit_bytes: 0,
            tickets: 0,
            control_clients: 1,
            requests: Default::default(),
            descriptors: 15_040,
            descriptors_max: 1_048_576,
            admin_clients: 0,
            admin_unauthorized: 0,
            counted_addresses: 0,
            shards,
        }
    }

    #[test]
    fn a_rate_is_what_was_counted_by_the_time_between_the_readings() {
        let before = reading(1000, &ShardStats { delivered: 100, ..Default::default() });
        let mut after = reading(3000, &ShardStats { delivered: 400, ..Default::default() });
        after.accepted += 5;
        let span = Span::new(&before, &after).unwrap();
        assert_eq!((span.total(|shard| shard.delivered), span.rate(|stats| stats.accepted)), (300, 3));
        assert_eq!(span.by_shard(|shard| shard.delivered), [150, 150]);
    }

    #[test]
    fn readings_of_two_gateways_or_of_one_moment_have_no_rate() {
        let (early, late) = (reading(1000, &ShardStats::default()), reading(2000, &ShardStats::default()));
        assert!(Span::new(&early, &late).is_some());
        assert!(Span::new(&late, &early).is_none() && Span::new(&early, &early).is_none());
        let mut other = late.clone();
        other.position.epoch += 1;
        assert!(Span::new(&early, &other).is_none());
    }
}
