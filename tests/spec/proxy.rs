//! The PROXY protocol (haproxy's proxy-protocol.txt). Each header is read whole, octet by octet and cut
//! everywhere, alone and with the client's first octets behind it.

use std::net::SocketAddr;

use corecast::wire::proxy::{Client, HEADER_BYTES_MAX, Malformed, parse};
use proptest::prelude::*;

const REQUEST: &[u8] = b"GET /ws HTTP/1.1\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn from(address: &str) -> Client {
    Client::Address(address.parse().unwrap())
}

/// The same outcome wherever it is cut; consumed is the header and nothing behind it.
#[track_caller]
fn assert_header(header: &[u8], client: Client) {
    let octets = [header, REQUEST].concat();
    for cut in 0..=octets.len() {
        let expected = (cut >= header.len()).then_some((client, header.len()));
        assert_eq!(parse(&octets[..cut]), Ok(expected), "cut at {cut}");
    }
}

/// "Not yet" up to where it is certain, and then the same error for ever.
#[track_caller]
fn assert_malformed(octets: &[u8], error: Malformed) {
    let first = (0..=octets.len()).find(|&cut| parse(&octets[..cut]).is_err()).expect("an error");
    for cut in 0..=octets.len() {
        let expected = if cut < first { Ok(None) } else { Err(error) };
        assert_eq!(parse(&octets[..cut]), expected, "cut at {cut}");
    }
}

/// Version 2: command, family and transport, and what the length counts.
fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    [SIGNATURE, &[0x20 | command, family], &length, body].concat()
}

/// 192.0.2.7:56324 to 198.51.100.1:443.
const IPV4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 220, 4, 1, 187];

fn ipv6() -> Vec<u8> {
    let source: std::net::Ipv6Addr = "2001:db8::7".parse().unwrap();
    [&source.octets()[..], &[0xff; 16], &[220, 4, 1, 187]].concat()
}

fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], &(value.len() as u16).to_be_bytes()[..], value].concat()
}

#[test]
fn proxy_2_1_a_line_of_tcp4_or_tcp6_names_the_client() {
    assert_header(b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", from("192.0.2.7:56324"));
    assert_header(
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        from("255.255.255.255:65535"),
    );
    assert_header(b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", from("0.0.0.0:0"));
    assert_header(b"PROXY TCP6 2001:db8::7 2001:DB8::1 56324 443\r\n", from("[2001:db8::7]:56324"));
    let longest = "ffff:f:ffff:ffff:ffff:ffff:ffff:ffff";
    let line = format!("PROXY TCP6 {longest} {longest} 65535 65535\r\n");
    assert_header(line.as_bytes(), from(&format!("[{longest}]:65535")));
    assert_header(b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", from("192.0.2.7:1"));
}

#[test]
fn proxy_2_1_of_unknown_everything_up_to_the_line_end_is_skipped() {
    assert_header(b"PROXY UNKNOWN\r\n", Client::Unknown);
    assert_header(b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", Client::Unknown);
    assert_header(b"PROXY UNKNOWN \xff\0 anything\r\n", Client::Unknown);
}

#[test]
fn proxy_2_1_a_line_of_107_octets_passes_and_108_are_refused_without_their_end() {
    let line = |bytes: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(bytes - 16)).into_bytes();
    assert_eq!(line(107).len(), 107);
    assert_header(&line(107), Client::Unknown);
    assert_malformed(&line(108), Malformed::Line);
    assert_eq!(parse(&line(108)[..107]), Err(Malformed::Line), "as soon as it is certain");
}

#[test]
fn proxy_2_1_a_line_that_is_not_its_grammar_is_refused() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY tcp4 192.0.2.7 198.51.100.1 1 2\r\n",
        "PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1 2 \r\n",
        "PROXY TCP4  192.0.2.7 198.51.100.1 1 2\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
        "PROXY TCP4 192.0.2.7 2001:db8::1 1 2\r\n",
        "PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
        "PROXY TCP6 [2001:db8::7] 2001:db8::1 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 2001:db8::1 1 2\r\n",
        "PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n",
        "PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 65536 2\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 +1 2\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 -1 2\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\r\n",
        "PROXY TCP4 \u{661}.0.2.7 198.51.100.1 1 2\r\n",
    ] {
        assert_malformed(line.as_bytes(), Malformed::Line);
    }
}

#[test]
fn proxy_2_what_begins_with_neither_signature_is_refused_at_the_octet_that_differs() {
    for (octets, certain) in [
        (&b"GET / HTTP/1.1\r\n"[..], 1),
        (b"PROXYTCP4", 6),
        (b"proxy TCP4", 1),
        (b"\r\n\r\n\0\r\nQUIT\r", 12),
        (b"\r\nGET / HTTP/1.1", 3),
        (b"\0", 1),
    ] {
        assert_malformed(octets, Malformed::Signature);
        assert!(parse(&octets[..certain - 1]).is_ok() && parse(&octets[..certain]).is_err());
    }
}

#[test]
fn proxy_2_2_tcp_over_ipv4_and_ipv6_names_the_client() {
    assert_header(&version_2(1, 0x11, &IPV4), from("192.0.2.7:56324"));
    assert_header(&version_2(1, 0x21, &ipv6()), from("[2001:db8::7]:56324"));
    let mapped: Vec<u8> = [&[0; 10][..], &[0xff, 0xff, 192, 0, 2, 7], &[0; 16], &[0, 1, 0, 2]].concat();
    assert_header(&version_2(1, 0x21, &mapped), from("192.0.2.7:1"));
}

#[test]
fn proxy_2_2_local_and_families_without_an_ip_address_leave_the_connection_the_proxys_own() {
    // LOCAL: whatever else it says is skipped.
    for (family, body) in [(0x00, &[][..]), (0x11, &IPV4), (0x11, b"short"), (0x00, b"\x04\xff\xff")] {
        assert_header(&version_2(0, family, body), Client::Unknown);
    }
    // Unspecified, a Unix socket, datagrams.
    assert_header(&version_2(1, 0x00, b""), Client::Unknown);
    assert_header(&version_2(1, 0x00, b"whatever"), Client::Unknown);
    assert_header(&version_2(1, 0x31, &[b'/'; 216]), Client::Unknown);
    assert_header(&version_2(1, 0x32, &[b'/'; 216]), Client::Unknown);
    assert_header(&version_2(1, 0x12, &IPV4), Client::Unknown);
    assert_header(&version_2(1, 0x22, &ipv6()), Client::Unknown);
}

#[test]
fn proxy_2_2_another_version_command_family_or_transport_is_refused_at_its_octet() {
    for first in [0x01, 0x11, 0x22, 0x2f, 0x31, 0xf1] {
        assert_malformed(&[SIGNATURE, &[first]].concat(), Malformed::Unsupported);
    }
    for family in [0x41, 0xf1, 0x13, 0x1f] {
        assert_malformed(&[SIGNATURE, &[0x21, family]].concat(), Malformed::Unsupported);
    }
}

#[test]
fn proxy_2_2_a_body_shorter_than_its_addresses_is_refused() {
    assert_malformed(&version_2(1, 0x11, &IPV4[..11]), Malformed::Truncated);
    assert_malformed(&version_2(1, 0x21, &ipv6()[..35]), Malformed::Truncated);
    assert_malformed(&version_2(1, 0x11, b""), Malformed::Truncated);
}

#[test]
fn proxy_2_2_fields_behind_the_addresses_are_skipped_and_must_fit() {
    let with = |fields: &[u8]| version_2(1, 0x11, &[&IPV4, fields].concat());
    let fields = [field(0x01, b"h2"), field(0x04, b""), field(0x02, b"example.org"), field(0xe0, &[0; 300])];
    assert_header(&with(&fields.concat()), from("192.0.2.7:56324"));
    for broken in [&b"\x02"[..], b"\x02\x00", b"\x02\x00\x01", b"\x02\xff\xff1234"] {
        assert_malformed(&with(broken), Malformed::Truncated);
    }
}

#[test]
fn proxy_2_2_a_header_of_4096_octets_behind_its_length_passes_and_one_more_is_too_long() {
    let filled = |body: usize| {
        let field = field(0x04, &vec![0; body - IPV4.len() - 3]);
        version_2(1, 0x11, &[&IPV4[..], &field].concat())
    };
    let longest = filled(4096);
    assert_eq!(longest.len(), HEADER_BYTES_MAX);
    assert_header(&longest, from("192.0.2.7:56324"));
    let longer = filled(4097);
    assert_malformed(&longer, Malformed::TooLong);
    assert_eq!(parse(&longer[..16]), Err(Malformed::TooLong), "before it is read");
}

/// What haproxy 2.6 sent from 127.0.0.1:51406 to 127.0.0.1:32787 for
/// `send-proxy-v2 proxy-v2-options crc32c,unique-id`.
const FROM_HAPROXY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x16\x7f\0\0\x01\x7f\0\0\x01\xc8\xce\x80\x13\
    \x03\0\x04\x84\x1e\x72\xde\x05\0\0";

#[test]
fn proxy_2_2_3_a_checksum_has_to_be_that_of_the_header() {
    assert_header(FROM_HAPROXY, from("127.0.0.1:51406"));
    for at in [16, 25, 31, 34] {
        let mut damaged = FROM_HAPROXY.to_vec();
        damaged[at] ^= 1;
        assert_malformed(&damaged, Malformed::Checksum);
    }
    let with = |fields: &[u8]| version_2(1, 0x11, &[&IPV4, fields].concat());
    assert_malformed(&with(&field(0x03, b"abc")), Malformed::Checksum);
    assert_malformed(&with(&field(0x03, b"abcde")), Malformed::Checksum);
    // A second one could only be there to have us count.
    let twice = [&FROM_HAPROXY[28..35], &FROM_HAPROXY[28..35]].concat();
    assert_malformed(&with(&twice), Malformed::Checksum);
}

proptest! {
    #[test]
    fn proxy_any_octets_are_read_alike_however_they_are_cut(
        begin in prop_oneof![
            Just(&b""[..]), Just(&b"PROXY "[..]), Just(&b"PROXY TCP4 "[..]), Just(SIGNATURE),
            Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"[..]), Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0"[..]),
        ],
        rest in prop::collection::vec(any::<u8>(), 0..80),
        cut in any::<prop::sample::Index>(),
    ) {
        let octets = [begin, &rest].concat();
        let cut = cut.index(octets.len() + 1);
        let (part, whole) = (parse(&octets[..cut]), parse(&octets));
        match part {
            Ok(None) => {}
            settled => prop_assert_eq!(settled, whole),
        }
        if let Ok(Some((_, length))) = whole {
            prop_assert!(length <= octets.len());
            prop_assert_eq!(parse(&octets[..length - 1]), Ok(None));
        }
    }

    #[test]
    fn proxy_what_either_version_says_of_a_client_is_read(ip in any::<std::net::IpAddr>(), port in any::<u16>()) {
        let family = if ip.is_ipv4() { "TCP4" } else { "TCP6" };
        let client = Client::Address(SocketAddr::new(ip.to_canonical(), port));
        let line = format!("PROXY {family} {ip} {ip} {port} 1\r\n");
        prop_assert_eq!(parse(line.as_bytes()), Ok(Some((client, line.len()))));
        let octets = match ip {
            std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
            std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let body = [&octets[..], &octets, &port.to_be_bytes(), &[0, 1]].concat();
        let header = version_2(1, if ip.is_ipv4() { 0x11 } else { 0x21 }, &body);
        prop_assert_eq!(parse(&header), Ok(Some((client, header.len()))));
    }
}
