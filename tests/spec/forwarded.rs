//! `X-Forwarded-For` and `Forwarded` (RFC 7239): whose word is believed, and how far.

use std::net::{IpAddr, SocketAddr};

use corecast::wire::forwarded::client;
use corecast::wire::request::{HeadLimits, parse_head};
use proptest::prelude::*;

const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 8192, header_lines_max: 64, target_bytes_max: 2048 };

/// Trusted here: 10.0.0.0/8 and fd00::/8.
fn is_trusted(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.octets()[0] == 0xfd,
    }
}

/// The client of a request with these header lines, sent by `peer`: its address, `None`, or a status.
fn of(peer: &str, lines: &[&str]) -> Result<Option<SocketAddr>, u16> {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
    let (request, _) = parse_head(head.as_bytes(), &LIMITS).unwrap().unwrap();
    client(&request, peer.parse().unwrap(), is_trusted).map_err(|refusal| refusal.status)
}

#[track_caller]
fn assert_client(lines: &[&str], address: &str) {
    assert_eq!(of("10.0.0.1", lines), Ok(Some(address.parse().unwrap())), "{lines:?}");
}

#[track_caller]
fn assert_nobody(lines: &[&str]) {
    assert_eq!(of("10.0.0.1", lines), Ok(None), "{lines:?}");
}

#[track_caller]
fn assert_bad_request(lines: &[&str]) {
    assert_eq!(of("10.0.0.1", lines), Err(400), "{lines:?}");
}

#[test]
fn issue_6_only_a_trusted_peer_is_believed() {
    for line in ["X-Forwarded-For: 192.0.2.7", "Forwarded: for=192.0.2.7", "Forwarded: nonsense=\""] {
        assert_eq!(of("192.0.2.1", &[line]), Ok(None));
        assert_eq!(of("2001:db8::1", &[line]), Ok(None));
    }
    assert_eq!(of("fd00::1", &["X-Forwarded-For: 192.0.2.7"]), Ok(Some("192.0.2.7:0".parse().unwrap())));
    assert_nobody(&[]);
    assert_nobody(&["X-Forwarded-For:"]);
    assert_nobody(&["Forwarded: ,"]);
}

#[test]
fn issue_6_the_right_most_address_that_is_not_trusted_is_the_clients() {
    assert_client(&["X-Forwarded-For: 192.0.2.7"], "192.0.2.7:0");
    assert_client(&["X-Forwarded-For: 203.0.113.9, 192.0.2.7"], "192.0.2.7:0");
    assert_client(&["X-Forwarded-For: 203.0.113.9, 192.0.2.7, 10.0.0.2, fd00::3"], "192.0.2.7:0");
    // All are ours: the first of them is who asked.
    assert_client(&["X-Forwarded-For: 10.0.0.3, 10.0.0.2"], "10.0.0.3:0");
    assert_client(&["Forwarded: for=203.0.113.9, for=192.0.2.7, for=10.0.0.2"], "192.0.2.7:0");
}

#[test]
fn rfc7239_4_several_lines_are_one_list() {
    let lines =
        ["X-Forwarded-For: 203.0.113.9", "x-forwarded-for: 192.0.2.7,10.0.0.3", "X-FORWARDED-FOR: 10.0.0.2"];
    assert_client(&lines, "192.0.2.7:0");
    assert_client(&["Forwarded: for=192.0.2.7", "Forwarded: for=10.0.0.2"], "192.0.2.7:0");
    assert_client(&["Forwarded: for=192.0.2.7", "Forwarded:"], "192.0.2.7:0");
}

#[test]
fn issue_6_x_forwarded_for_takes_ports_and_ipv6_as_proxies_write_them() {
    for (value, address) in [
        ("192.0.2.7:4711", "192.0.2.7:4711"),
        ("2001:db8::7", "[2001:db8::7]:0"),
        ("[2001:db8::7]", "[2001:db8::7]:0"),
        ("[2001:db8::7]:4711", "[2001:db8::7]:4711"),
        ("::ffff:192.0.2.7", "192.0.2.7:0"),
        ("\t192.0.2.7 ,, ", "192.0.2.7:0"),
    ] {
        assert_client(&[&format!("X-Forwarded-For: {value}")], address);
    }
}

#[test]
fn rfc7239_4_and_6_elements_have_pairs_in_any_order_and_case_and_values_may_be_quoted() {
    for (value, address) in [
        ("for=192.0.2.43", "192.0.2.43:0"),
        ("For=192.0.2.43;Proto=https;BY=10.0.0.1", "192.0.2.43:0"),
        ("proto=http;by=10.0.0.1;for=192.0.2.43", "192.0.2.43:0"),
        ("for=\"192.0.2.43\"", "192.0.2.43:0"),
        ("for=\"192.0.2.43:47011\"", "192.0.2.43:47011"),
        ("for=\"[2001:db8:cafe::17]:4711\"", "[2001:db8:cafe::17]:4711"),
        ("for=\"[2001:db8:cafe::17]\"", "[2001:db8:cafe::17]:0"),
        ("for=\"[2001:db8:cafe::17]:_port\"", "[2001:db8:cafe::17]:0"),
        ("for=\"\\1\\92.0.2.43\"", "192.0.2.43:0"),
        ("for=192.0.2.43;host=\"a,b;c=\\\"d\"", "192.0.2.43:0"),
        ("for=192.0.2.43; proto=http ;", "192.0.2.43:0"),
        (" , for=192.0.2.43 , ", "192.0.2.43:0"),
    ] {
        assert_client(&[&format!("Forwarded: {value}")], address);
    }
}

#[test]
fn rfc7239_6_2_and_6_3_a_hidden_client_is_the_proxy_that_hides_it() {
    for hidden in ["for=unknown", "for=Unknown", "for=_hidden", "for=\"_SEVKISEK:_x\"", "proto=https"] {
        assert_nobody(&[&format!("Forwarded: {hidden}")]);
        assert_client(&[&format!("Forwarded: for=192.0.2.7, {hidden}, for=10.0.0.2")], "10.0.0.2:0");
        // Of one that is not trusted it means nothing.
        assert_client(&[&format!("Forwarded: {hidden}, for=192.0.2.7")], "192.0.2.7:0");
    }
    assert_nobody(&["X-Forwarded-For: 192.0.2.7, unknown"]);
}

#[test]
fn issue_6_what_a_trusted_proxy_wrote_and_is_no_address_is_400() {
    for value in [
        "localhost",
        "192.0.2",
        "192.0.2.07",
        "192.0.2.7:",
        "192.0.2.7:65536",
        "192.0.2.7:+1",
        "[192.0.2.7]",
        "[::1",
        "::1]",
        "[::1]x",
        "fe80::1%eth0",
        "_",
        "_a b",
        "\u{e9}",
        "\"192.0.2.7\"",
        "0x7f000001",
    ] {
        assert_bad_request(&[&format!("X-Forwarded-For: {value}")]);
        assert_bad_request(&[&format!("X-Forwarded-For: 192.0.2.7, {value}, 10.0.0.2")]);
        // To the left of the client it is the client's own.
        assert_client(&[&format!("X-Forwarded-For: {value}, 192.0.2.7")], "192.0.2.7:0");
    }
    for value in ["2001:db8::7", "localhost", "192.0.2.7:", "[2001:db8::7"] {
        assert_bad_request(&[&format!("Forwarded: for=\"{value}\"")]);
    }
}

#[test]
fn rfc7239_4_a_line_that_is_not_its_grammar_is_400() {
    for value in [
        "192.0.2.7",
        "for",
        "for=",
        "for =192.0.2.7",
        "for= 192.0.2.7",
        "for=[2001:db8::7]",
        "for=192.0.2.7:80",
        "for=192.0.2.7 proto=http",
        "for=192.0.2.7;for=192.0.2.8",
        "for=\"192.0.2.7",
        "for=\"192.0.2.7\\",
        "for=\"192.0.2.7\"x",
        "=192.0.2.7",
    ] {
        assert_bad_request(&[&format!("Forwarded: {value}")]);
    }
}

#[test]
fn issue_6_a_quotation_mark_that_the_client_left_open_hides_nobody() {
    for (theirs, ours) in [
        ("for=\"", "for=192.0.2.7"),
        ("for=\"", "for=\"[2001:db8::7]\""),
        ("for=203.0.113.9;x=\"", "for=192.0.2.7;by=\"[fd00::1]\""),
        ("for=203.0.113.9;x=\"\\", "for=\"192.0.2.7\""),
    ] {
        assert_bad_request(&[&format!("Forwarded: {theirs}, {ours}")]);
        // A proxy that adds a line of its own is not even disturbed.
        let line = format!("Forwarded: {ours}");
        assert!(of("10.0.0.1", &[&format!("Forwarded: {theirs}"), &line]).unwrap().is_some());
    }
}

#[test]
fn issue_6_both_headers_have_to_tell_the_same() {
    let agree = ["X-Forwarded-For: 203.0.113.9, 192.0.2.7", "Forwarded: for=\"192.0.2.7:80\", for=10.0.0.2"];
    assert_client(&agree, "192.0.2.7:0");
    assert_bad_request(&["X-Forwarded-For: 192.0.2.7", "Forwarded: for=203.0.113.9"]);
    assert_bad_request(&["X-Forwarded-For: 192.0.2.7", "Forwarded: for=unknown"]);
    assert_bad_request(&["X-Forwarded-For: 192.0.2.7", "Forwarded: for=\""]);
}

proptest! {
    /// What a client writes to the left of what its proxy adds never changes who it is.
    #[test]
    fn issue_6_a_client_never_chooses_its_address(theirs in "[ -~]{0,60}", semicolons in "[a-z=;\", \\\\]{0,30}") {
        for theirs in [theirs, semicolons] {
            let list = of("10.0.0.1", &[&format!("X-Forwarded-For: {theirs}, 192.0.2.7, 10.0.0.2")]);
            prop_assert_eq!(list, Ok(Some("192.0.2.7:0".parse().unwrap())));
            let elements = of("10.0.0.1", &[&format!("Forwarded: {theirs}, for=192.0.2.7;by=\"10.0.0.1:1\"")]);
            prop_assert!(elements == Ok(Some("192.0.2.7:0".parse().unwrap())) || elements == Err(400), "{elements:?}");
        }
    }
}
