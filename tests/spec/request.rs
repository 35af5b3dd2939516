//! `wire::request`: what a request head means (RFC 9110, 9112). Hostile ones are in `request_hostile`.

use corecast::wire::close::Refusal;
use corecast::wire::request::{HeadLimits, parse_head, percent_decode};
use proptest::prelude::*;

/// The defaults of the contract.
pub const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 8192, header_lines_max: 64, target_bytes_max: 2048 };

/// A parsed head that owns its text, and its length.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    pub method: String,
    pub path: String,
    pub query: String,
    pub http_1_1: bool,
    pub headers: Vec<(String, Vec<u8>)>,
    pub length: usize,
}

fn parse(input: &[u8], limits: &HeadLimits) -> Result<Option<Head>, Refusal> {
    let owned = parse_head(input, limits)?.map(|(request, length)| Head {
        method: request.method.to_owned(),
        path: request.path.to_owned(),
        query: request.query.to_owned(),
        http_1_1: request.http_1_1,
        headers: request.headers.iter().map(|(name, value)| (name.to_string(), value.to_vec())).collect(),
        length,
    });
    Ok(owned)
}

/// Parses `input` whole, and checks that every part of it from the front, as it grows byte by byte or
/// however it is cut, is "not yet" until it comes to the same.
pub fn everywhere_within(limits: &HeadLimits, input: &[u8]) -> Result<Option<Head>, Refusal> {
    let whole = parse(input, limits);
    let mut decided = false;
    for cut in 0..=input.len() {
        let part = parse(&input[..cut], limits);
        if decided || part != Ok(None) {
            assert_eq!(part, whole, "cut at {cut}");
            decided = true;
        }
    }
    whole
}

/// `everywhere_within` the default limits.
pub fn everywhere(input: impl AsRef<[u8]>) -> Result<Option<Head>, Refusal> {
    everywhere_within(&LIMITS, input.as_ref())
}

fn head(input: &str) -> Head {
    everywhere(input).expect("not refused").expect("complete")
}

/// Asks `question` of the parsed `input`.
fn asked<T>(input: &str, question: impl FnOnce(corecast::wire::request::Request<'_>) -> T) -> T {
    question(parse_head(input.as_bytes(), &LIMITS).expect("not refused").expect("complete").0)
}

fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

#[test]
fn rfc9112_3_a_head_is_method_target_version_and_headers_in_order() {
    let input = "PUT /v1/users/u?a=b?c HTTP/1.1\r\nHost: localhost:80\r\nX-Two: 2\r\nx-two: 3\r\n\r\n";
    let head = head(input);
    assert_eq!((&*head.method, &*head.path, &*head.query), ("PUT", "/v1/users/u", "a=b?c"));
    assert!(head.http_1_1);
    let expected = [("Host", "localhost:80"), ("X-Two", "2"), ("x-two", "3")];
    assert_eq!(head.headers, expected.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())));
    assert_eq!(head.length, input.len());
}

#[test]
fn rfc9112_2_what_follows_the_blank_line_is_not_part_of_the_head() {
    let input = get("/", "");
    assert_eq!(head(&(input.clone() + "\r\n\n\0GET")).length, input.len());
}

#[test]
fn rfc9112_2_2_one_empty_line_before_the_request_line_is_skipped_and_counted() {
    let input = format!("\r\n{}", get("/ws", ""));
    let head = head(&input);
    assert_eq!((&*head.path, head.length), ("/ws", input.len()));
    assert_eq!(everywhere(format!("\r\n{input}")).unwrap_err().status, 400);
}

#[test]
fn rfc9112_2_3_http_1_0_is_told_apart_and_may_leave_host_out() {
    assert!(!head("GET / HTTP/1.0\r\n\r\n").http_1_1);
    assert!(!head("GET / HTTP/1.0\r\nHost: a\r\n\r\n").http_1_1);
}

#[test]
fn rfc9112_3_2_2_the_absolute_form_comes_to_its_path() {
    let paths = [
        ("http://localhost/ws?a=b", "/ws", "a=b"),
        ("HTTPS://user@localhost:80", "/", ""),
        ("ws://h?x", "/", "x"),
        ("wss://[::1]:8/e//f", "/e//f", ""),
    ];
    for (target, path, query) in paths {
        let head = head(&get(target, ""));
        assert_eq!((&*head.path, &*head.query), (path, query), "{target}");
    }
}

#[test]
fn rfc9112_3_2_4_the_asterisk_form_is_for_options() {
    assert_eq!(head("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n").path, "*");
    assert_eq!(everywhere(get("*", "")).unwrap_err().status, 400);
}

#[test]
fn rfc9110_5_5_a_value_is_trimmed_and_may_hold_tabs_and_octets_above_ascii() {
    let input =
        b"GET / HTTP/1.1\r\nHost:\t localhost \t\r\nX: \xe9a \t b\xff\r\nEmpty:\r\nBlank: \t \r\n\r\n";
    let head = everywhere(input).unwrap().unwrap();
    let values: Vec<&[u8]> = head.headers.iter().map(|(_, value)| &**value).collect();
    assert_eq!(values, [&b"localhost"[..], b"\xe9a \t b\xff", b"", b""]);
}

#[test]
fn rfc9110_5_1_header_names_are_compared_without_case_and_only_one_value_counts() {
    let input = get("/", "X-A: 1\r\nX-B: 2\r\nx-b: 3\r\n");
    asked(&input, |request| {
        assert_eq!(request.header("x-a"), Some(&b"1"[..]));
        assert_eq!(request.header("x-b"), None);
        assert_eq!(request.header("x-c"), None);
        assert_eq!(request.header_values("X-B").collect::<Vec<_>>(), [b"2", b"3"]);
    });
}

#[test]
fn rfc9110_5_6_1_a_list_spans_lines_and_its_tokens_are_compared_without_case() {
    let input = get("/", "Connection: keep-alive ,\tUpgrade\r\nconnection: ,x,\r\nOther: Upgraded\r\n");
    asked(&input, |request| {
        for token in ["upgrade", "KEEP-ALIVE", "x"] {
            assert!(request.header_has_token("Connection", token), "{token}");
        }
        assert!(!request.header_has_token("connection", ""));
        assert!(!request.header_has_token("other", "upgrade"));
        let items: Vec<&[u8]> = request.header_items("connection").collect();
        assert_eq!(items, [&b"keep-alive"[..], b"Upgrade", b"x"]);
    });
}

#[test]
fn a_query_value_is_the_first_of_its_key_decoded() {
    let input = get("/ws?a=1&a=2&b=%41%2c+%C3%BC&c&d=&%65=e&=f&g=h=i", "");
    asked(&input, |request| {
        let values = [("a", "1"), ("b", "A, ü"), ("c", ""), ("d", ""), ("e", "e"), ("", "f"), ("g", "h=i")];
        for (key, value) in values {
            assert_eq!(request.query_value(key).unwrap().as_deref(), Some(value), "{key}");
        }
        assert_eq!(request.query_value("A").unwrap(), None);
    });
}

#[test]
fn a_query_value_with_broken_escapes_is_refused_and_its_neighbours_are_not() {
    for broken in ["%", "%4", "%4g", "%g4", "%ff", "%c3", "a%", "%+1"] {
        asked(&get(&format!("/ws?x=1&a={broken}"), ""), |request| {
            let refusal = request.query_value("a").unwrap_err();
            assert_eq!((refusal.status, refusal.code), (400, "bad_request"), "{broken}");
            assert_eq!(request.query_value("x").unwrap().as_deref(), Some("1"));
        });
    }
}

#[test]
fn rfc3986_2_1_a_path_segment_is_decoded_and_keeps_its_plus() {
    assert_eq!(percent_decode("a%2Fb+%c3%bc").as_deref(), Some("a/b+ü"));
    assert_eq!(percent_decode("").as_deref(), Some(""));
    for broken in ["%", "%2", "%2x", "%ff"] {
        assert_eq!(percent_decode(broken), None, "{broken}");
    }
}

#[test]
fn rfc9112_6_3_the_body_is_told_by_length_or_chunks() {
    let lengths = [("", None), ("Content-Length: 0\r\n", Some(0)), ("content-length: 012\r\n", Some(12))];
    for (headers, length) in lengths {
        asked(&get("/", headers), |request| {
            assert_eq!(request.content_length(), Ok(length));
            assert_eq!(request.is_chunked(), Ok(false));
        });
    }
    asked(&get("/", &format!("Content-Length: {}\r\n", u64::MAX)), |request| {
        assert_eq!(request.content_length(), Ok(Some(u64::MAX)));
    });
    asked(&get("/", "Transfer-Encoding: Chunked\r\n"), |request| {
        assert_eq!(request.content_length(), Ok(None));
        assert_eq!(request.is_chunked(), Ok(true));
    });
}

#[test]
fn rfc9112_9_3_a_connection_stays_unless_told_otherwise_and_in_1_0_only_if_told() {
    let cases = [
        ("1.1", "", true),
        ("1.1", "Connection: x, Close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ];
    for (version, headers, stays) in cases {
        let input = format!("GET / HTTP/{version}\r\nHost: a\r\n{headers}\r\n");
        asked(&input, |request| assert_eq!(request.keep_alive(), stays, "{input}"));
    }
}

#[test]
fn rfc9110_10_1_1_the_wait_for_100_continue_is_seen_but_not_in_1_0() {
    for (version, headers, expects) in [
        ("1.1", "Expect: 100-Continue\r\n", true),
        ("1.1", "", false),
        ("1.0", "Expect: 100-continue\r\n", false),
    ] {
        let input = format!("POST / HTTP/{version}\r\nHost: a\r\n{headers}\r\n");
        asked(&input, |request| assert_eq!(request.expects_continue(), expects, "{input}"));
    }
}

prop_compose! {
    fn any_head()(
        method in "[A-Za-z!#$%&'*+.^_`|~-]{1,12}",
        path in "/[!-\"$->@-~]{0,40}",
        query in proptest::option::of("[!-\"$-~]{0,40}"),
        http_1_1 in any::<bool>(),
        host in "[a-z0-9.-]{1,20}(:[0-9]{1,4})?",
        others in proptest::collection::vec(("X-[A-Za-z0-9_-]{1,12}", "([!-~\u{80}-\u{ff}]([ -~\t]{0,20}[!-~])?)?"), 0..8),
        before in "[ \t]{0,2}", after in "[ \t]{0,2}",
    ) -> (String, Head) {
        let target = query.as_ref().map_or(path.clone(), |query| format!("{path}?{query}"));
        let mut headers = vec![("Host".to_owned(), host.into_bytes())];
        headers.extend(others.into_iter().map(|(name, value)| (name, value.into_bytes())));
        let mut text = format!("{method} {target} HTTP/1.{}\r\n", u8::from(http_1_1));
        for (name, value) in &headers {
            let value = str::from_utf8(value).unwrap();
            text.push_str(&format!("{name}:{before}{value}{after}\r\n"));
        }
        text.push_str("\r\n");
        let length = text.len();
        let query = query.unwrap_or_default();
        (text, Head { method, path, query, http_1_1, headers, length })
    }
}

proptest! {
    #[test]
    fn any_valid_head_parses_back_to_what_was_written((text, expected) in any_head(), tail in any::<Vec<u8>>()) {
        let input = [text.as_bytes(), &tail].concat();
        prop_assert_eq!(parse(&input, &LIMITS), Ok(Some(expected)));
    }

    #[test]
    fn any_part_of_a_valid_head_is_not_yet((text, expected) in any_head()) {
        prop_assert_eq!(everywhere(&text), Ok(Some(expected)));
        prop_assert_eq!(parse(&text.as_bytes()[..text.len() - 1], &LIMITS), Ok(None));
    }

    #[test]
    fn any_text_survives_percent_encoding(text in ".{0,40}") {
        let encoded: String = text.bytes().map(|octet| format!("%{octet:02X}")).collect();
        prop_assert_eq!(percent_decode(&encoded), Some(text.clone()));
        asked(&get(&format!("/?k={encoded}"), ""), |request| {
            assert_eq!(request.query_value("k"), Ok(Some(text)));
        });
    }
}
