//! How long things take, in plain cells: two to each doubling of the time, from a microsecond to 16 s.
//!
//! To observe is a shift, a mask and three additions. Percentiles are read from the cells and so are right to
//! within half an octave; they do not add up over shards, cells do.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Doublings of a microsecond that have cells of their own: up to 2^24 µs, 16.8 s.
const OCTAVES: usize = 24;
/// Cells with an upper bound.
const BOUNDED: usize = 2 * OCTAVES;

/// Times, counted by how long they were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    octaves: [[u64; 2]; OCTAVES],
    beyond: u64,
    sum_ns: u64,
    max_ns: u64,
}

/// What a reader looks at first, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of the times were at most as long.
    pub p50: u64,
    /// See `p50`: nine tenths.
    pub p90: u64,
    /// See `p50`: 99 of 100.
    pub p99: u64,
    /// The longest.
    pub max: u64,
    /// How many there were.
    pub count: u64,
}

impl Histogram {
    /// Counts `time`.
    pub fn observe(&mut self, time: Duration) {
        self.observe_times(time, 1);
    }

    /// Counts `time`, which `times` things took.
    pub fn observe_times(&mut self, time: Duration, times: u64) {
        if times == 0 {
            return;
        }
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // Bounds belong to their cell ("le"): what takes 2 µs is in the cell up to 2 µs.
        let above = ns.div_ceil(1000).saturating_sub(1);
        let octave = above.checked_ilog2().unwrap_or(0);
        let half = if octave == 0 { above } else { above >> (octave - 1) & 1 };
        match self.octaves.get_mut(octave as usize) {
            Some(halves) => halves[half as usize] += times,
            None => self.beyond += times,
        }
        self.sum_ns = self.sum_ns.saturating_add(ns.saturating_mul(times));
        self.max_ns = self.max_ns.max(ns);
    }

    /// Takes in what another has counted.
    pub fn merge(&mut self, other: &Self) {
        let cells = self.octaves.as_flattened_mut().iter_mut().zip(other.octaves.as_flattened());
        cells.for_each(|(cell, more)| *cell += more);
        self.beyond += other.beyond;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.octaves.as_flattened().iter().sum::<u64>() + self.beyond
    }

    /// Their sum, in nanoseconds.
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// Each cell's upper bound in microseconds, and how many were at most as long; `count` has those beyond.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let cells = self.octaves.as_flattened().iter().enumerate();
        cells.scan(0, |sum, (cell, count)| {
            *sum += count;
            Some((bound_us(cell), *sum))
        })
    }

    /// The same for whole octaves only.
    pub fn cumulative_octaves(&self) -> impl Iterator<Item = (u64, u64)> {
        self.cumulative().skip(1).step_by(2)
    }

    /// Read from the cells, as if the times of one lay evenly in it.
    pub fn percentiles(&self) -> Percentiles {
        let at = |share| self.quantile_us(share);
        let max = self.max_ns.div_ceil(1000);
        Percentiles { p50: at(50), p90: at(90), p99: at(99), max, count: self.count() }
    }

    /// The time that `percent` of all do not exceed.
    fn quantile_us(&self, percent: u64) -> u64 {
        let rank = (u128::from(self.count()) * u128::from(percent)).div_ceil(100) as u64;
        let (mut below, mut lower) = (0, 0);
        for (upper, through) in self.cumulative() {
            if through >= rank && through > below {
                let within = u128::from(upper - lower) * u128::from(rank - below);
                let estimate = lower + within.div_ceil(u128::from(through - below)) as u64;
                return estimate.min(self.max_ns.div_ceil(1000));
            }
            (below, lower) = (through, upper);
        }
        self.max_ns.div_ceil(1000)
    }
}

/// The upper bound of a cell, in microseconds: 1, 2, 3, 4, 6, 8, 12, 16 and so on.
fn bound_us(cell: usize) -> u64 {
    debug_assert!(cell < BOUNDED);
    let (octave, half) = (cell as u32 / 2, cell as u64 % 2);
    if octave == 0 { 1 + half } else { (3 + half) << (octave - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times_us: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        times_us.into_iter().for_each(|us| histogram.observe(Duration::from_micros(us)));
        histogram
    }

    /// The bound of the one cell that `time` was counted in.
    fn cell_of(time: Duration) -> Option<u64> {
        let mut histogram = Histogram::default();
        histogram.observe(time);
        histogram.cumulative().find(|&(_, count)| count == 1).map(|(bound, _)| bound)
    }

    #[test]
    fn issue_7_a_time_is_in_the_cell_whose_bound_is_the_first_not_below_it() {
        let bounds: Vec<u64> = Histogram::default().cumulative().map(|(bound, _)| bound).collect();
        assert_eq!(bounds[..8], [1, 2, 3, 4, 6, 8, 12, 16]);
        assert_eq!((bounds.len(), bounds[BOUNDED - 1]), (BOUNDED, 1 << 24));
        assert!(bounds.is_sorted());
        for &bound in &bounds {
            assert_eq!(cell_of(Duration::from_micros(bound)), Some(bound));
            let next = bounds.iter().copied().find(|&next| next > bound);
            assert_eq!(cell_of(Duration::from_nanos(bound * 1000 + 1)), next);
        }
        assert_eq!(cell_of(Duration::ZERO), Some(1));
        assert_eq!(cell_of(Duration::MAX), None);
        let octaves: Vec<u64> = Histogram::default().cumulative_octaves().map(|(bound, _)| bound).collect();
        assert_eq!((&octaves[..4], octaves.len()), (&[2, 4, 8, 16][..], OCTAVES));
    }

    #[test]
    fn issue_7_percentiles_are_right_to_half_an_octave_and_never_above_the_longest() {
        let all = of(1..=1000).percentiles();
        assert_eq!((all.max, all.count), (1000, 1000));
        for (found, exact) in [(all.p50, 500.0), (all.p90, 900.0), (all.p99, 990.0)] {
            let ratio = found as f64 / exact;
            assert!((0.75..=1.34).contains(&ratio), "{found} for {exact}");
        }
        assert_eq!(of([700]).percentiles(), Percentiles { p50: 700, p90: 700, p99: 700, max: 700, count: 1 });
        assert_eq!(Histogram::default().percentiles(), Percentiles::default());
        let late = of([20_000_000]);
        assert_eq!((late.percentiles().p50, late.count(), late.sum_ns()), (20_000_000, 1, 20_000_000_000));
    }

    #[test]
    fn issue_7_shards_are_merged_cell_by_cell() {
        let mut merged = of(1..=10);
        merged.merge(&of(11..=1000));
        assert_eq!(merged, of(1..=1000));
        let mut weighed = Histogram::default();
        weighed.observe_times(Duration::from_micros(5), 3);
        weighed.observe_times(Duration::from_secs(1), 0);
        assert_eq!(weighed, of([5, 5, 5]));
    }
}
