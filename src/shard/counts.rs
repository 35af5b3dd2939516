//! How many connections, and how many new ones a second, come from one address: over all shards.
//!
//! The one thing beside `Gate`'s words that shards share, behind a lock that is taken for a connect and an
//! end, and only where one of the two limits is set. Addresses are those of `addresses::counted_as`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::mailbox::Gate;

/// Time in which a bucket fills: the burst is what comes in twice a second.
const BURST: Duration = Duration::from_secs(2);
/// Most addresses whose rate is known from the last `BURST`, and as many again from the one before: 11 MB each.
/// More than a machine accepts in that time; beyond it strangers are over the rate.
const RATES_MAX: usize = 200_000;

/// What is counted by address.
#[derive(Debug, Default)]
pub struct Counts {
    connections: HashMap<IpAddr, u32>,
    rates: Rates,
}

/// One bucket for each address, as one number: when it is full again. A full one need not be remembered.
#[derive(Debug, Default)]
struct Rates {
    recent: HashMap<IpAddr, Instant>,
    /// Of the `BURST` or more before; what is not touched until the next turn is full by then.
    older: HashMap<IpAddr, Instant>,
    turned: Option<Instant>,
}

impl Rates {
    fn take(&mut self, address: IpAddr, per_second: u32, now: Instant) -> bool {
        if self.turned.is_none_or(|turned| now.saturating_duration_since(turned) >= BURST) {
            self.turned = Some(now);
            self.older = std::mem::take(&mut self.recent);
        }
        let full = self.recent.get(&address).or_else(|| self.older.get(&address));
        let ahead = full.map_or(Duration::ZERO, |full| full.saturating_duration_since(now));
        let ahead = ahead + Duration::from_secs(1) / per_second;
        let room = self.recent.len() < RATES_MAX || self.recent.contains_key(&address);
        if ahead > BURST || !room {
            return false;
        }
        self.recent.insert(address, now + ahead);
        true
    }
}

impl Gate {
    /// Counts one more connection of `address`; false (and not counted) where it has `max`.
    pub(super) fn count_address(&self, address: IpAddr, max: u32) -> bool {
        let mut counts = self.counts();
        let count = counts.connections.entry(address).or_default();
        let fits = *count < max;
        *count += u32::from(fits);
        fits
    }

    /// Counts one less.
    pub(super) fn uncount_address(&self, address: IpAddr) {
        let connections = &mut self.counts().connections;
        let count = connections.get_mut(&address).expect("counted when it came in");
        *count -= 1;
        if *count == 0 {
            connections.remove(&address);
            // After a rush the memory goes back; half full is not worth a copy.
            if connections.len() < connections.capacity() / 8 {
                connections.shrink_to(2 * connections.len());
            }
        }
    }

    /// Whether `address` may connect once more at `per_second` with a burst of twice that; counts it if so.
    pub(super) fn take_connect(&self, address: IpAddr, per_second: u32, now: Instant) -> bool {
        self.counts().rates.take(address, per_second, now)
    }

    /// Addresses with a connection that is counted.
    pub fn counted_addresses(&self) -> usize {
        self.counts().connections.len()
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.addresses.lock().expect("no panic while counting")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn issue_6_an_address_connects_at_its_rate_with_a_burst_of_twice_that() {
        let (gate, start) = (Gate::default(), Instant::now());
        let taken = |address, at_ms: u64| {
            let now = start + Duration::from_millis(at_ms);
            (0..100).take_while(|_| gate.take_connect(address, 5, now)).count()
        };
        assert_eq!((taken(ONE, 0), taken(ONE, 0), taken(OTHER, 0)), (10, 0, 10));
        assert_eq!((taken(ONE, 199), taken(ONE, 200), taken(ONE, 1000)), (0, 1, 4));
        // Each second its five, however the generations turn.
        (2..60).for_each(|second| assert_eq!(taken(ONE, second * 1000), 5, "{second}"));
        assert_eq!((taken(ONE, 100_000), taken(OTHER, 100_000)), (10, 10));
    }

    #[test]
    fn issue_6_an_address_that_does_not_come_back_is_forgotten() {
        let (gate, start) = (Gate::default(), Instant::now());
        for n in 0..10_000u32 {
            let address = std::net::Ipv4Addr::from_bits(n).into();
            assert!(gate.take_connect(address, 1, start + Duration::from_millis(n.into())));
        }
        let rates = &gate.counts().rates;
        let known = rates.recent.len() + rates.older.len();
        assert!(known <= 4000, "{known} of the last 4 s at 1,000 a second");
    }

    #[test]
    fn issue_6_a_table_that_is_full_of_strangers_takes_no_other() {
        let (gate, now) = (Gate::default(), Instant::now());
        let nth = |n: usize| std::net::Ipv4Addr::from_bits(n as u32).into();
        assert!((0..RATES_MAX).all(|n| gate.take_connect(nth(n), 1, now)));
        assert!(!gate.take_connect(nth(RATES_MAX), 1, now) && gate.take_connect(nth(0), 1, now));
        assert!(gate.take_connect(nth(RATES_MAX), 1, now + BURST));
    }

    #[test]
    fn issue_6_connections_are_counted_up_to_the_limit_and_back_to_nothing() {
        let gate = Gate::default();
        assert_eq!([3, 3, 3, 3].map(|max| gate.count_address(ONE, max)), [true, true, true, false]);
        assert!(gate.count_address(OTHER, 1));
        (0..3).for_each(|_| gate.uncount_address(ONE));
        assert_eq!(gate.counted_addresses(), 1);
        gate.uncount_address(OTHER);
        assert_eq!(gate.counted_addresses(), 0);
    }

    #[test]
    fn issue_6_after_a_rush_of_strangers_the_memory_goes_back() {
        let gate = Gate::default();
        let strangers = || (0..10_000).map(|n| std::net::Ipv4Addr::from_bits(n).into());
        assert!(strangers().all(|address| gate.count_address(address, 1)));
        strangers().for_each(|address| gate.uncount_address(address));
        let left = gate.counts().connections.capacity();
        assert!(left <= 16, "{left}");
    }
}
