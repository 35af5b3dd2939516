//! The addresses of those connections for which one has to be kept, beside their slots.
//!
//! Only clients of proxies, whose socket does not know them, and clients that are counted by address, because
//! a socket that was reset does not know its peer any more. With neither there is nothing here. Otherwise
//! 4 bytes for each slot (2 more where a proxy tells the port), by chunks as in `Table`, and one entry for
//! each distinct address.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hashbrown::HashTable;

use super::column::Column;
use super::conn::CHUNK;

/// The addresses of one shard's connections.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Of each slot, the place of its address in `known` and one more.
    places: Column<u32>,
    /// Of each slot, the client's port, where it is known.
    ports: Column<u16>,
    known: Vec<Vec<Known>>,
    /// Places that are free again.
    free: Vec<u32>,
    by_address: HashTable<u32>,
    hasher: RandomState,
}

/// One distinct address.
#[derive(Debug)]
struct Known {
    /// IPv4 mapped into IPv6 (RFC 4291 2.5.5.2).
    octets: [u8; 16],
    /// That have it; 0 is a free place.
    connections: u32,
}

const _: () = assert!(size_of::<Known>() == 20, "one for each address that clients come from");

impl Addresses {
    /// How many distinct ones there are.
    pub(super) fn count(&self) -> usize {
        self.by_address.len()
    }

    /// Bytes that it takes.
    pub(super) fn memory_bytes(&self) -> usize {
        let known = self.known.len() * CHUNK * size_of::<Known>() + self.free.capacity() * size_of::<u32>();
        self.places.memory_bytes() + self.ports.memory_bytes() + known + self.by_address.allocation_size()
    }

    /// What is kept for slot `index`; port 0 where none is known.
    pub(super) fn of(&self, index: u32) -> Option<SocketAddr> {
        let place = self.place(index)?;
        let address = IpAddr::from(self.known(place).octets).to_canonical();
        Some(SocketAddr::new(address, self.ports.get(index).copied().unwrap_or_default()))
    }

    /// Keeps `address` for slot `index`, instead of what was kept before. Port 0 is none.
    pub(super) fn keep(&mut self, index: u32, address: SocketAddr) {
        self.forget(index);
        let place = self.intern(address.ip());
        self.known_mut(place).connections += 1;
        self.places.put(index, place + 1);
        self.ports.put(index, address.port());
    }

    /// Keeps nothing for slot `index` any more.
    pub(super) fn forget(&mut self, index: u32) {
        let Some(place) = self.place(index) else { return };
        self.places.put(index, 0);
        self.ports.put(index, 0);
        let known = self.known_mut(place);
        known.connections -= 1;
        if known.connections > 0 {
            return;
        }
        let hash = self.hasher.hash_one(self.known(place).octets);
        self.by_address.find_entry(hash, |&other| other == place).expect("it was interned").remove();
        self.free.push(place);
        if self.by_address.is_empty() {
            // The limit was switched off, or a rush is over: as small as before.
            (self.known, self.free, self.by_address) = Default::default();
        }
    }

    fn place(&self, index: u32) -> Option<u32> {
        self.places.get(index)?.checked_sub(1)
    }

    fn intern(&mut self, address: IpAddr) -> u32 {
        let octets = octets(address);
        let hash = self.hasher.hash_one(octets);
        if let Some(&place) = self.by_address.find(hash, |&place| self.known(place).octets == octets) {
            return place;
        }
        let known = Known { octets, connections: 0 };
        let place = match self.free.pop() {
            Some(place) => {
                *self.known_mut(place) = known;
                place
            }
            None => self.grow(known),
        };
        let (hasher, chunks) = (&self.hasher, &self.known);
        let rehash = |&place: &u32| hasher.hash_one(in_chunks(chunks, place).octets);
        self.by_address.insert_unique(hash, place, rehash);
        place
    }

    fn grow(&mut self, known: Known) -> u32 {
        if self.known.last().is_none_or(|last| last.len() == CHUNK) {
            self.known.push(Vec::with_capacity(CHUNK));
        }
        let before = (self.known.len() - 1) * CHUNK;
        let last = self.known.last_mut().expect("pushed above");
        last.push(known);
        (before + last.len() - 1) as u32
    }

    fn known(&self, place: u32) -> &Known {
        in_chunks(&self.known, place)
    }

    fn known_mut(&mut self, place: u32) -> &mut Known {
        &mut self.known[place as usize / CHUNK][place as usize % CHUNK]
    }
}

fn in_chunks(chunks: &[Vec<Known>], place: u32) -> &Known {
    &chunks[place as usize / CHUNK][place as usize % CHUNK]
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// IPv6 addresses are counted by /64: one customer has that many, and takes another at will.
pub(super) fn counted_as(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn issue_6_what_is_kept_is_given_back_until_it_is_forgotten() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.of(5), None);
        addresses.keep(5, address("192.0.2.7:80"));
        addresses.keep(2048, address("192.0.2.7:0"));
        addresses.keep(6, address("[2001:db8::7]:1"));
        assert_eq!(addresses.of(5), Some(address("192.0.2.7:80")));
        assert_eq!(addresses.of(2048), Some(address("192.0.2.7:0")));
        assert_eq!(addresses.of(6), Some(address("[2001:db8::7]:1")));
        assert_eq!((addresses.of(4), addresses.of(1024), addresses.count()), (None, None, 2));
        addresses.keep(5, address("192.0.2.8:0"));
        assert_eq!((addresses.of(5), addresses.count()), (Some(address("192.0.2.8:0")), 3));
        (0..3000).for_each(|index| addresses.forget(index));
        assert_eq!((addresses.of(5), addresses.of(2048), addresses.count()), (None, None, 0));
    }

    #[test]
    fn issue_6_a_kept_address_costs_4_bytes_a_connection_and_30_for_each_that_is_distinct() {
        const CONNECTIONS: u32 = 10 * CHUNK as u32;
        let of = |distinct: u32, port: u16| {
            let mut addresses = Addresses::default();
            let fill = || {
                for index in 0..CONNECTIONS {
                    let address = std::net::Ipv4Addr::from_bits(index % distinct).into();
                    addresses.keep(index, SocketAddr::new(address, port));
                }
            };
            let filled = allocation_counter::measure(fill).bytes_current as u64;
            let emptied = allocation_counter::measure(|| {
                (0..CONNECTIONS).for_each(|index| addresses.forget(index));
            });
            // But for the lists of chunks themselves.
            assert!(filled.strict_add_signed(emptied.bytes_current) < 1024);
            filled
        };
        let shared = of(10, 0);
        assert!((4 * 10_240..5 * 10_240 + 20 * 1024).contains(&shared), "{shared}");
        let with_port = of(10, 1) - shared;
        assert!((2 * 10_240..3 * 10_240).contains(&with_port), "{with_port}");
        let each = of(CONNECTIONS, 0) - shared;
        assert!(each <= 30 * 10_240, "{each}");
    }

    #[test]
    fn issue_6_ipv6_is_counted_by_64_bits_and_ipv4_by_all() {
        let counted = |text: &str| counted_as(text.parse().unwrap()).to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("2001:db8:1:2:ffff:ffff:ffff:ffff"), "2001:db8:1:2::");
        assert_eq!(counted("2001:db8:1:3::"), "2001:db8:1:3::");
        assert_eq!(counted("192.0.2.7"), "192.0.2.7");
    }
}
