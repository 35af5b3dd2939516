//! Whom a list is about.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Transport;
use crate::message::{Topic, UserId, serde_by_text};

/// Conditions, all of which a connection has to meet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// It is this user's.
    pub user: Option<UserId>,
    /// It is subscribed to this topic.
    pub topic: Option<Topic>,
    /// It is spoken to like this.
    pub transport: Option<Transport>,
    /// It comes from there.
    pub remote: Option<Remote>,
    /// More octets than these wait for it: `Row::lag_bytes`.
    pub lag_above_bytes: Option<u64>,
    /// It has sent nothing for longer than this: `Row::idle_ms`.
    pub idle_above_ms: Option<u64>,
    /// It was established longer ago than this.
    pub age_above_ms: Option<u64>,
}

/// Where connections come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// A network, or one address: `10.0.0.0/8`, `2001:db8::1`.
    Network(IpNet),
    /// One socket: `192.0.2.7:5000`.
    Socket(SocketAddr),
    /// The beginning of an address as it is shown: `10.1.`, `2001:db8:`.
    Text(Box<str>),
}

/// The text is not a network, an address or the beginning of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRemote;

/// Longest beginning of an address: all of an IPv6 address, its brackets and its port.
const TEXT_BYTES_MAX: usize = 48;

impl Remote {
    /// Whether `client`, in its canonical form, is from there.
    pub fn contains(&self, client: SocketAddr) -> bool {
        match self {
            Self::Network(network) => network.contains(&client.ip()),
            Self::Socket(socket) => *socket == client,
            Self::Text(beginning) => {
                let shown = client.to_string();
                let bare =
                    |text: &str| text.trim_start_matches('[').starts_with(beginning.trim_start_matches('['));
                bare(&shown)
            }
        }
    }
}

impl FromStr for Remote {
    type Err = BadRemote;

    fn from_str(text: &str) -> Result<Self, BadRemote> {
        let text = text.trim();
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(Self::Network(network));
        }
        let unwrapped = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = unwrapped.parse::<IpAddr>() {
            return Ok(Self::Network(address.to_canonical().into()));
        }
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Ok(Self::Socket(SocketAddr::new(socket.ip().to_canonical(), socket.port())));
        }
        let fits = |c: char| c.is_ascii_hexdigit() || ".:[]".contains(c);
        if text.is_empty() || text.len() > TEXT_BYTES_MAX || !text.chars().all(fits) {
            return Err(BadRemote);
        }
        // As it is shown.
        Ok(Self::Text(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Socket(socket) => socket.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for BadRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be a network such as 10.0.0.0/8, an address, or the beginning of one such as 10.1.")
    }
}

impl std::error::Error for BadRemote {}

serde_by_text!(Remote, "a network, an address, or the beginning of one");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issue_7_a_remote_is_a_network_an_address_a_socket_or_the_beginning_of_an_address() {
        let contains = |remote: &str, client: &str| {
            remote.parse::<Remote>().expect(remote).contains(client.parse().expect(client))
        };
        for (remote, client, expected) in [
            ("10.0.0.0/8", "10.255.0.1:1", true),
            ("10.0.0.0/8", "11.0.0.1:1", false),
            ("2001:db8::/32", "[2001:db8:1::7]:443", true),
            ("2001:db8::/32", "10.0.0.1:1", false),
            ("10.1.2.3", "10.1.2.3:9", true),
            ("10.1.2.3", "10.1.2.30:9", false),
            ("::ffff:10.1.2.3", "10.1.2.3:9", true),
            ("[2001:db8::7]", "[2001:db8::7]:1", true),
            ("10.1.2.3:9", "10.1.2.3:9", true),
            ("10.1.2.3:9", "10.1.2.3:90", false),
            ("10.1.", "10.1.200.3:9", true),
            ("10.1.", "10.10.0.3:9", false),
            ("2001:DB8:", "[2001:db8:1::7]:443", true),
            ("[2001:db8:", "[2001:db8:1::7]:443", true),
            ("2001:db8:", "[2001:db9:1::7]:443", false),
        ] {
            assert_eq!(contains(remote, client), expected, "{remote} {client}");
        }
        let long = "1".repeat(49);
        for bad in ["", " ", "10.0.0.0/33", "example.org", "10.1.*", "fe80::1%eth0", &long] {
            assert_eq!(bad.parse::<Remote>(), Err(BadRemote), "{bad:?}");
        }
    }

    #[test]
    fn issue_7_a_remote_reads_back_as_it_displays() {
        for text in ["10.0.0.0/8", "10.1.2.3", "192.0.2.7:80", "10.1.", "[2001:db8::7]:443", "2001:db8:"] {
            let remote: Remote = text.parse().expect(text);
            assert_eq!(remote.to_string().parse(), Ok(remote));
        }
    }
}
