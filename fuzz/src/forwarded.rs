//! Whom a proxy speaks for: nobody whom it did not name, whatever stands to the left of what trusted proxies wrote,
//! and nobody at all where the peer is a stranger (RFC 7239 8.1).
//!
//! The input is header lines; those that begin with `F` are `Forwarded`, the others `X-Forwarded-For`.

use std::net::{IpAddr, Ipv4Addr};

use corecast::wire::forwarded::client;
use corecast::wire::request::Request;

use super::draw::Draw;

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn is_trusted(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.segments()[0] == 0xfd00,
    }
}

fn request<'a>(headers: &[(&'a str, &'a [u8])]) -> Request<'a> {
    Request { method: "GET", path: "/ws", query: "", http_1_1: true, headers: headers.to_vec() }
}

/// See the top of this file.
pub fn check(input: &[u8]) {
    let mut draw = Draw(input);
    let mut headers = Vec::new();
    while !draw.is_over() {
        let line = draw.line();
        let named = line.strip_prefix(b"F").map(|line| ("forwarded", line));
        headers.push(named.unwrap_or(("x-forwarded-for", line)));
    }
    assert_eq!(client(&request(&headers), STRANGER, is_trusted).ok(), Some(None));
    let found = match client(&request(&headers), PROXY, is_trusted) {
        Ok(found) => found,
        Err(refusal) => return assert_eq!((refusal.status, refusal.code), (400, "bad_request")),
    };
    let Some(found) = found else { return };
    assert!(!headers.is_empty() && found.ip() == found.ip().to_canonical());
    if is_trusted(found.ip()) {
        return;
    }
    // Named with a character of its own: no address is made up.
    let digits = found.ip().to_string();
    assert!(found.is_ipv6() || headers.iter().any(|(_, line)| holds(line, digits.as_bytes())), "{digits}");
    for forged in [&b"198.51.100.9"[..], b"for=198.51.100.9", b"\"", b"for=\"", b"x y"] {
        let mut more = headers.clone();
        for name in ["forwarded", "x-forwarded-for"] {
            if headers.iter().any(|(known, _)| *known == name) {
                more.insert(0, (name, forged));
            }
        }
        assert_eq!(client(&request(&more), PROXY, is_trusted).ok(), Some(Some(found)), "{forged:?}");
    }
}

/// With backslashes left out, as a quoted string may have them before any octet.
fn holds(line: &[u8], wanted: &[u8]) -> bool {
    let plain: Vec<u8> = line.iter().copied().filter(|&octet| octet != b'\\').collect();
    plain.windows(wanted.len()).any(|octets| octets == wanted)
}
