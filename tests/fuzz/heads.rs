//! Our head parser against `httparse`: each listed difference is there, and there is no other.

use proptest::prelude::*;

use super::targets::heads_differential::{DIFFERENCES, difference};

/// A head for every listed difference.
const SHOWN: [(&str, &str); DIFFERENCES.len()] = [
    ("the request does not begin with a method and a space", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("an octet in the request target that has to be percent-encoded", "GET /ö HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("the request target must begin with a slash", "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("the request line must end with HTTP/1.1 (or HTTP/1.0), CR and LF", "GET / HTTP/1.1\nHost: a\r\n\r\n"),
    ("a line ends in LF without CR", "GET / HTTP/1.1\r\nHost: a\n\r\n"),
    ("no Host header", "GET / HTTP/1.1\r\n\r\n"),
    ("more than one Host header", "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"),
    ("the Host header is not a host name", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    (
        "more than one Content-Length",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "Content-Length with Transfer-Encoding",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    ("Content-Length is not a number", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n"),
    (
        "the only transfer coding is chunked, in HTTP/1.1",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    ),
];

#[test]
fn issue_6_each_difference_from_httparse_is_there() {
    for ((listed, _), (shown, head)) in DIFFERENCES.iter().zip(SHOWN) {
        assert_eq!(*listed, shown);
        assert_eq!(difference(head.as_bytes()), Some(shown));
    }
}

#[test]
fn issue_6_what_both_take_or_refuse_alike_is_no_difference() {
    for head in [
        "GET /ws?topics=a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\nbehind",
        "\r\nGET / HTTP/1.0\r\n\r\n",
        "GET http://a.example/b?c HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \t a b\u{ff} \t\r\nX:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: no name\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(difference(head.as_bytes()), None, "{head:?}");
    }
}

/// Heads of pieces that are right, or nearly so.
fn any_head() -> impl Strategy<Value = Vec<u8>> {
    let before = prop_oneof![9 => Just(""), 1 => Just("\r\n"), 1 => Just("\r\n\r\n"), 1 => Just("\n")];
    let method = prop_oneof![6 => Just("GET"), 1 => Just("OPTIONS"), 1 => Just("G(T"), 1 => Just("")];
    let target = prop_oneof![
        5 => "/[a-z%?&=|^{}\"<>`\\\\#]{0,9}",
        1 => Just("*".to_owned()),
        1 => "https?://[a-z]{0,3}(/[a-z?]{0,5})?",
        1 => "[ -~ö]{0,9}",
    ];
    let version =
        prop_oneof![9 => Just(" HTTP/1.1"), 2 => Just(" HTTP/1.0"), 1 => Just(" HTTP/1.2"), 1 => Just("")];
    let end = || prop_oneof![15 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("\r\r\n")];
    let name = prop_oneof![
        6 => Just("Host".to_owned()),
        2 => Just("Content-Length".to_owned()),
        2 => Just("Transfer-Encoding".to_owned()),
        2 => "[!-~]{0,4}",
        1 => "[ \ta-z]{0,4}",
    ];
    let colon = prop_oneof![9 => Just(":"), 3 => Just(": "), 1 => Just(" :"), 1 => Just("")];
    let value = prop_oneof![
        6 => "[a-z0-9:.]{0,6}",
        2 => Just("chunked".to_owned()),
        1 => any::<String>(),
        1 => "[\0-\u{ff}]{0,4}",
    ];
    let line = (name, colon, value, end())
        .prop_map(|(name, colon, value, end)| format!("{name}{colon}{value}{end}"));
    (before, method, target, version, end(), proptest::collection::vec(line, 0..5), end()).prop_map(
        |(before, method, target, version, first_end, lines, end)| {
            format!("{before}{method} {target}{version}{first_end}{}{end}", lines.concat()).into_bytes()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn issue_6_no_head_differs_from_httparse_but_as_listed(head in any_head(), cut in 0usize..120) {
        difference(&head);
        difference(&head[..cut.min(head.len())]);
    }
}
