//! `wire::request` against hostile heads: every shape of contract section 2, each limit reached and just
//! missed, each refused for the same reason wherever it is cut.

use corecast::wire::request::{HeadLimits, parse_head};
use proptest::prelude::*;

use super::request::{LIMITS, everywhere, everywhere_within};

/// Each is refused with 400 `bad_request`, whole and cut anywhere.
fn refused(shapes: &[(&str, &[u8])]) {
    for (what, input) in shapes {
        let refusal = everywhere(input).expect_err(what);
        assert_eq!((refusal.status, refusal.code), (400, "bad_request"), "{what}: {refusal:?}");
    }
}

/// A good head around some header lines.
fn with(lines: &[u8]) -> Vec<u8> {
    [b"GET /ws HTTP/1.1\r\nHost: a\r\n", lines, b"\r\n"].concat()
}

fn refused_headers(shapes: &[(&str, &[u8])]) {
    for (what, lines) in shapes {
        refused(&[(what, &with(lines))]);
    }
}

/// Refused when so many octets are there, and not one sooner.
fn refused_at(limits: &HeadLimits, input: &[u8], status: u16, octets: usize) {
    assert_eq!(everywhere_within(limits, input).unwrap_err().status, status);
    assert!(parse_head(&input[..octets - 1], limits).unwrap().is_none(), "refused too soon");
    assert_eq!(parse_head(&input[..octets], limits).unwrap_err().status, status);
}

#[test]
fn rfc9112_3_1_a_method_is_a_token_and_one_space_follows() {
    refused(&[
        ("no method", b" / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("separator", b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("control", b"GE\x01T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("above ascii", b"G\xc3\x89T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("tab", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("method alone", b"GET\r\nHost: a\r\n\r\n"),
        ("null", b"\0GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("bare LF first", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("bare CR first", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ]);
}

#[test]
fn what_is_not_http_is_refused_at_its_first_octet() {
    for (what, input) in [
        ("TLS client hello", &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..]),
        ("PROXY protocol 2", b"\r\n\r\n\0\r\nQUIT\n"),
        ("socks 5", b"\x05\x01\x00"),
    ] {
        assert_eq!(everywhere(input).expect_err(what).status, 400);
    }
    assert_eq!(parse_head(b"\x16", &LIMITS).unwrap_err().status, 400);
    assert_eq!(everywhere(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap_err().status, 400);
}

#[test]
fn rfc9112_3_2_a_target_is_visible_ascii_and_begins_with_a_slash() {
    let targets: [(&str, &[u8]); 12] = [
        ("empty", b""),
        ("no slash", b"ws"),
        ("question mark first", b"?a=b"),
        ("authority form", b"localhost:80"),
        ("unknown scheme", b"ftp://localhost/ws"),
        ("no authority", b"http:///ws"),
        ("asterisk and more", b"*a"),
        ("fragment", b"/ws#a"),
        ("null", b"/w\0s"),
        ("escape", b"/w\x1bs"),
        ("delete", b"/w\x7fs"),
        ("above ascii", b"/w\xc3\xbc"),
    ];
    for (what, target) in targets {
        refused(&[(what, &[b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat())]);
    }
}

#[test]
fn rfc9112_2_3_a_version_is_http_1_1_or_1_0_exactly() {
    let versions = [
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/0.9",
        "HTTP/1.10",
        "HTTP/11",
        "http/1.1",
        "HTTP/1.1 ",
        "HTTPS/1.1",
        " HTTP/1.1",
    ];
    for version in versions {
        refused(&[(version, format!("GET / {version}\r\nHost: a\r\n\r\n").as_bytes())]);
    }
    refused(&[("HTTP/0.9", b"GET /\r\n"), ("no version", b"GET / \r\nHost: a\r\n\r\n")]);
}

#[test]
fn rfc9112_2_2_a_line_ends_in_cr_lf_and_nothing_else() {
    refused(&[
        ("bare LF after the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
        ("bare LF everywhere", b"GET / HTTP/1.1\nHost: a\n\n"),
        ("bare LF after a header", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
        ("bare LF as the blank line", b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
        ("two bare LF", b"GET / HTTP/1.1\r\nHost: a\n\n"),
        ("bare CR after the request line", b"GET / HTTP/1.1\rHost: a\r\n\r\n"),
        ("bare CR in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n"),
        ("bare CR between headers", b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"),
        ("CR CR LF", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"),
        ("CR CR LF as the blank line", b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n"),
    ]);
}

#[test]
fn a_bare_lf_is_refused_before_the_head_is_complete() {
    for input in [&b"GET / HTTP/1.1\n"[..], b"GET / HTTP/1.1\r\nHost: a\n", b"GET / HTTP/1.1\r\n\n"] {
        assert_eq!(parse_head(input, &LIMITS).unwrap_err().status, 400);
        assert!(parse_head(&input[..input.len() - 1], &LIMITS).unwrap().is_none());
    }
}

#[test]
fn rfc9112_5_2_a_folded_line_is_refused() {
    refused_headers(&[
        ("space", b"X: a\r\n b\r\n"),
        ("tab", b"X: a\r\n\tb\r\n"),
        ("that looks like a header", b"X: a\r\n Y: b\r\n"),
        ("blank", b"X: a\r\n \r\n"),
    ]);
    refused(&[("rfc9112 2.2: before the first header", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n")]);
}

#[test]
fn rfc9112_5_1_a_header_name_is_a_token_right_before_its_colon() {
    refused_headers(&[
        ("space before the colon", b"X : a\r\n"),
        ("tab before the colon", b"X\t: a\r\n"),
        ("space inside", b"X Y: a\r\n"),
        ("empty", b": a\r\n"),
        ("no colon", b"X\r\n"),
        ("separator", b"X[]: a\r\n"),
        ("control", b"X\x01: a\r\n"),
        ("null", b"X\0: a\r\n"),
        ("above ascii", b"X\xe9: a\r\n"),
    ]);
}

#[test]
fn rfc9110_5_5_a_header_value_has_no_control_character_but_the_tab() {
    for octet in (0..b' ').chain([0x7f]).filter(|octet| !b"\t\n".contains(octet)) {
        let lines = [b"X: a", &[octet][..], b"b\r\n"].concat();
        refused(&[(&format!("octet {octet}"), &with(&lines))]);
    }
}

#[test]
fn rfc9112_3_2_there_is_exactly_one_host_and_it_is_one() {
    refused(&[
        ("none", b"GET / HTTP/1.1\r\nX: a\r\n\r\n"),
        ("no header at all", b"GET / HTTP/1.1\r\n\r\n"),
        ("two", b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n"),
        ("the same twice", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        ("two in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
        ("two words", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        ("a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        ("user info", b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
        ("above ascii", b"GET / HTTP/1.1\r\nHost: \xe9\r\n\r\n"),
    ]);
}

#[test]
fn rfc9112_6_3_a_length_that_two_readers_could_read_differently_is_refused() {
    refused_headers(&[
        ("two lengths", b"Content-Length: 1\r\nContent-Length: 2\r\n"),
        ("the same twice", b"Content-Length: 1\r\ncontent-length: 1\r\n"),
        ("a list", b"Content-Length: 1, 1\r\n"),
        ("plus", b"Content-Length: +1\r\n"),
        ("minus", b"Content-Length: -1\r\n"),
        ("hex", b"Content-Length: 0x1\r\n"),
        ("empty", b"Content-Length:\r\n"),
        ("over 64 bits", b"Content-Length: 18446744073709551616\r\n"),
        ("arabic digits", "Content-Length: \u{661}\r\n".as_bytes()),
        ("with chunks", b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
        ("with chunks before it", b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n"),
    ]);
}

#[test]
fn rfc9112_6_1_a_transfer_coding_other_than_chunked_is_refused() {
    refused_headers(&[
        ("unknown", b"Transfer-Encoding: gzip\r\n"),
        ("under chunked", b"Transfer-Encoding: gzip, chunked\r\n"),
        ("over chunked", b"Transfer-Encoding: chunked, gzip\r\n"),
        ("chunked twice", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ("identity", b"Transfer-Encoding: identity\r\n"),
        ("empty", b"Transfer-Encoding:\r\n"),
        ("vertical tab", b"Transfer-Encoding: \x0bchunked\r\n"),
    ]);
    refused(&[("in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")]);
}

#[test]
fn contract_2_a_target_of_the_limit_is_served_and_one_byte_more_is_414() {
    let target = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(bytes - 1));
    assert!(everywhere(target(2048)).unwrap().is_some());
    assert_eq!(everywhere(target(2049)).unwrap_err().status, 414);
    refused_at(&LIMITS, target(4000).as_bytes(), 414, "GET ".len() + 2049);
}

#[test]
fn contract_2_a_head_of_the_limit_is_served_and_one_byte_more_is_431() {
    let limits = HeadLimits { head_bytes_max: 300, ..LIMITS };
    let filled = |bytes: usize| {
        let filling = bytes - with(b"X: \r\n").len();
        with(format!("X: {}\r\n", "a".repeat(filling)).as_bytes())
    };
    let served = everywhere_within(&limits, &filled(300)).unwrap().unwrap();
    assert_eq!(served.length, 300);
    refused_at(&limits, &filled(301), 431, 300);
    refused_at(&limits, &filled(900), 431, 300);
    let with_unread = [filled(300), vec![b'x'; 500]].concat();
    assert!(everywhere_within(&limits, &with_unread).unwrap().is_some());
}

#[test]
fn contract_2_a_header_line_without_end_is_431_at_the_limit() {
    let input = [&b"GET / HTTP/1.1\r\nX: "[..], &[b'a'; 9000]].concat();
    refused_at(&LIMITS, &input, 431, 8192);
}

#[test]
fn rfc9112_3_1_a_method_longer_than_any_is_refused_before_its_end() {
    let method = |bytes: usize| format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(bytes));
    assert!(everywhere(method(32)).unwrap().is_some());
    refused_at(&LIMITS, method(33).as_bytes(), 400, 33);
}

#[test]
fn contract_2_header_lines_to_the_limit_are_served_and_one_more_is_431_as_it_ends() {
    let lines = |count: usize| "X: a\r\n".repeat(count - 1);
    assert_eq!(everywhere(with(lines(64).as_bytes())).unwrap().unwrap().headers.len(), 64);
    let input = with(lines(65).as_bytes());
    refused_at(&LIMITS, &input, 431, input.len() - 2);
}

#[test]
fn rfc9112_3_the_first_line_is_judged_before_the_head_is_complete() {
    let early = [
        "GE\t",
        "G(",
        "GET  ",
        "GET ws ",
        "GET /\u{7f}",
        "GET / HTTQ",
        "GET / HTTP/1.1\rH",
        "GET / HTTP/1.2",
    ];
    for start in early {
        assert_eq!(parse_head(start.as_bytes(), &LIMITS).unwrap_err().status, 400, "{start:?}");
        let shorter = &start.as_bytes()[..start.len() - 1];
        assert!(parse_head(shorter, &LIMITS).unwrap().is_none(), "{start:?}");
    }
}

/// Pieces that heads are made of, good and bad, so that random orders get deep into the parser.
fn any_shape() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => proptest::sample::select(vec![
            "GET", " ", "/", "/ws?a=%41", " HTTP/1.1", " HTTP/1.0", "\r\n", "\r\n", "\r", "\n", "Host: a\r\n", ":", "X",
            "Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n", "\t", "\0", "http://h/", "aaaaaaaaaaaaaaaaaaaa",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ];
    let pieces = proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat());
    (any::<bool>(), pieces).prop_map(|(begun, pieces)| {
        let start: &[u8] = if begun { b"GET / HTTP/1.1\r\nHost: a\r\n" } else { b"" };
        [start, &pieces].concat()
    })
}

proptest! {
    #[test]
    fn any_octets_come_to_the_same_wherever_they_are_cut(input in any_shape()) {
        let tight = HeadLimits { head_bytes_max: 100, header_lines_max: 3, target_bytes_max: 20 };
        let _ = everywhere(&input);
        let _ = everywhere_within(&tight, &input);
    }

    #[test]
    fn any_octets_under_any_limits_do_not_panic(
        input in proptest::collection::vec(any::<u8>(), 0..200),
        head_bytes_max in 0usize..100, header_lines_max in 0usize..3, target_bytes_max in 0usize..20,
    ) {
        let _ = everywhere_within(&HeadLimits { head_bytes_max, header_lines_max, target_bytes_max }, &input);
    }
}
