//! A list of networks as it is asked for each new client: sorted ranges, found by halving.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks that an address may be in. A list of 65,536 is asked in 16 steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Networks {
    /// First and last of each range; ascending, and none touches another.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    pub(super) fn new(networks: &[IpNet]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            let (first, last) = (network.network(), network.broadcast());
            // Clients are known by their IPv4 address where they have one, and so are networks of such.
            match (first.to_canonical(), last.to_canonical()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.to_bits(), last.to_bits())),
                _ => {
                    let (IpAddr::V6(first), IpAddr::V6(last)) = (first, last) else { unreachable!() };
                    v6.push((first.to_bits(), last.to_bits()));
                }
            }
        }
        Self { v4: merged(v4), v6: merged(v6) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether `address`, in its canonical form, is in one of them.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => is_in(&self.v4, address.to_bits()),
            IpAddr::V6(address) => is_in(&self.v6, address.to_bits()),
        }
    }
}

fn merged<T: Copy + Ord>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn is_in<T: Copy + Ord>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|range| range.0 <= address);
    after > 0 && address <= ranges[after - 1].1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(texts: &[&str]) -> Networks {
        Networks::new(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn issue_6_the_edges_of_a_network_are_in_it_and_its_neighbours_are_not() {
        let set = networks(&["10.0.0.0/8", "192.0.2.7/32", "10.1.0.0/16", "2001:db8::/64", "::1/128"]);
        for (address, inside) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("192.0.2.6", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8::", true),
            ("2001:db8:0:0:ffff:ffff:ffff:ffff", true),
            ("2001:db8:0:1::", false),
            ("::1", true),
            ("::", false),
        ] {
            assert_eq!(set.contains(address.parse().unwrap()), inside, "{address}");
        }
    }

    #[test]
    fn issue_6_everything_nothing_and_ipv4_written_as_ipv6() {
        let any = |set: &Networks| {
            ["0.0.0.0", "255.255.255.255", "::", "ffff::1"]
                .map(|address| set.contains(address.parse().unwrap()))
        };
        assert_eq!(any(&networks(&["0.0.0.0/0"])), [true, true, false, false]);
        assert_eq!(any(&networks(&["::/0"])), [false, false, true, true]);
        assert_eq!(any(&networks(&[])), [false; 4]);
        assert!(networks(&[]).is_empty() && !networks(&["::/0"]).is_empty());
        assert!(networks(&["::ffff:10.0.0.0/104"]).contains("10.1.2.3".parse().unwrap()));
        assert!(networks(&["10.1.2.3/8"]).contains("10.9.9.9".parse().unwrap()), "host bits do not count");
    }

    proptest! {
        #[test]
        fn issue_6_a_list_holds_what_one_of_its_networks_holds(
            nets in prop::collection::vec((0u32..4096, 20u8..=32), 0..12), host in 0u32..4096,
        ) {
            let nets: Vec<IpNet> = nets.into_iter()
                .map(|(bits, prefix)| IpNet::new(std::net::Ipv4Addr::from_bits(bits).into(), prefix).unwrap())
                .collect();
            let address = IpAddr::from(std::net::Ipv4Addr::from_bits(host));
            let expected = nets.iter().any(|net| net.contains(&address));
            prop_assert_eq!(Networks::new(&nets).contains(address), expected);
        }
    }
}
