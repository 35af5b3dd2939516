//! Whether there is a place for one more client: the rate of connects, and the limits of the whole gateway.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;

use super::Shard;
use super::addresses::counted_as;
use super::clock::spread;
use super::conn::flag;
use crate::stats::RefusalReason;
use crate::wire::close::Refusal;

/// What a client takes of the bucket, in thousandths of a connect: one that comes back from a position of ours
/// half of what a new one does. It was let in once, and the longer it is kept waiting the more it has to be
/// sent again; so after a break in the network those who were here are back before those who were not.
pub(super) const NEW: u64 = 1000;
pub(super) const RETURNING: u64 = 500;
/// Delays told to those who are refused are 1 to so many seconds.
pub(super) const RETRY_AFTER_S: u32 = 8;

/// `limits.connects_per_second` as a token bucket with a burst of two seconds.
#[derive(Debug)]
pub(super) struct ConnectRate {
    per_second: u64,
    /// Thousandths of a connect.
    tokens: u64,
    filled_ms: u32,
}

impl ConnectRate {
    /// Full. 0 per second is no limit.
    pub(super) fn new(per_second: u32) -> Self {
        let per_second = u64::from(per_second);
        Self { per_second, tokens: per_second * 2000, filled_ms: 0 }
    }

    /// Goes on at another rate, with what is left of the burst; full where there was no limit before.
    pub(super) fn adopt(&mut self, per_second: u32) {
        let before = std::mem::replace(self, Self { filled_ms: self.filled_ms, ..Self::new(per_second) });
        if before.per_second > 0 {
            self.tokens = self.tokens.min(before.tokens);
        }
    }

    /// Whether there is enough for a client of this price.
    pub(super) fn has(&mut self, price: u64, now_ms: u32) -> bool {
        let elapsed_ms = u64::from(now_ms.wrapping_sub(self.filled_ms));
        self.filled_ms = now_ms;
        self.tokens = (self.tokens + elapsed_ms * self.per_second).min(self.per_second * 2000);
        self.per_second == 0 || self.tokens >= price
    }

    /// Takes it.
    pub(super) fn take(&mut self, price: u64) {
        self.tokens = self.tokens.saturating_sub(price);
    }
}

impl Shard {
    /// What a delay is spread by. Slots alone would not do: each of those who come one after the other may be
    /// refused in the same one.
    pub(super) fn delay_key(&self, index: u32) -> u32 {
        index.rotate_left(16).wrapping_add(self.stats.accepted as u32)
    }

    /// Counts the client against the limits of the whole gateway.
    pub(super) fn take_places(&mut self, index: u32) -> Result<(), Refusal> {
        let before = self.gate.established.fetch_add(1, Ordering::Relaxed);
        if before >= self.settings.connections_max {
            self.gate.established.fetch_sub(1, Ordering::Relaxed);
            let (key, why) = (self.delay_key(index), "too many connections (limits.connections)");
            return Err(overloaded(key, RefusalReason::Connections, why));
        }
        if self.table[index].is(flag::COUNTED) {
            // Since an earlier poll on this connection.
            return Ok(());
        }
        let max = self.settings.connections_per_address_max;
        let Some(address) = self.limited_address(index, max) else { return Ok(()) };
        if !self.gate.count_address(counted_as(address), max) {
            self.gate.established.fetch_sub(1, Ordering::Relaxed);
            let message = format!("{} has {max} connections already", named(address));
            return Err(Refusal::new(RefusalReason::ConnectionsPerAddress, message));
        }
        self.table[index].set(flag::COUNTED);
        if self.addresses.of(index).is_none() {
            self.addresses.keep(index, SocketAddr::new(address, 0));
        }
        Ok(())
    }

    /// The client's address, where there is a limit and it holds for it. Without one the socket is not asked.
    fn limited_address(&self, index: u32, limit: u32) -> Option<IpAddr> {
        if limit == 0 {
            return None;
        }
        self.client_address(index).filter(|&address| !self.settings.uncounted.contains(address))
    }

    /// Gives back its place among those of its address.
    pub(super) fn uncount(&mut self, index: u32) {
        if self.table[index].is(flag::COUNTED) {
            self.table[index].clear(flag::COUNTED);
            let client = self.addresses.of(index).expect("of one that is counted the address is kept");
            self.gate.uncount_address(counted_as(client.ip()));
        }
    }

    /// Counts a new client against the rate of its address.
    pub(super) fn take_connect(&mut self, index: u32) -> Result<(), Refusal> {
        let per_second = self.settings.connects_per_address;
        let Some(address) = self.limited_address(index, per_second) else { return Ok(()) };
        if self.gate.take_connect(counted_as(address), per_second, self.clock.now()) {
            return Ok(());
        }
        let message = format!("more than {per_second} new connections a second from {}", named(address));
        let retry_after_s = Some(1 + spread(self.delay_key(index), RETRY_AFTER_S));
        Err(Refusal { retry_after_s, ..Refusal::new(RefusalReason::ConnectsPerAddress, message) })
    }
}

/// As its customers know it: an address, or a network of IPv6.
fn named(address: IpAddr) -> String {
    let counted = counted_as(address);
    if counted.is_ipv6() { format!("{counted}/64") } else { counted.to_string() }
}

/// Spread by `delay_key`, so that those refused together do not come back together.
pub(super) fn overloaded(delay_key: u32, reason: RefusalReason, why: &'static str) -> Refusal {
    Refusal { retry_after_s: Some(1 + spread(delay_key, RETRY_AFTER_S)), ..Refusal::new(reason, why) }
}
