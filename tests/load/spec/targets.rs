//! `request::targets`: URLs, the file of targets, and who gets which.

use proptest::prelude::*;

use crate::request::targets::{LineFault, Scheme, Url, UrlFault, parse, parse_url, pick};

#[track_caller]
fn url(text: &str) -> (Scheme, String, u16, String) {
    let Url { scheme, host, port, path } = parse_url(text).unwrap();
    (scheme, host, port, path)
}

fn http(host: &str, port: u16, path: &str) -> (Scheme, String, u16, String) {
    (Scheme::Http, host.to_owned(), port, path.to_owned())
}

#[test]
fn rfc3986_3_a_url_is_scheme_host_port_and_path_with_query() {
    assert_eq!(url("http://example.org:8080/a/b?c=d"), http("example.org", 8080, "/a/b?c=d"));
    assert_eq!(url("HTTP://10.0.0.1"), http("10.0.0.1", 80, "/"));
    assert_eq!(url("http://h?a=b"), http("h", 80, "/?a=b"));
    assert_eq!(url("http://[::1]:81/x"), http("::1", 81, "/x"));
    assert_eq!(url("http://[fe80::1]"), http("fe80::1", 80, "/"));
    assert_eq!(url("ws://h:65535/ws").0, Scheme::Ws);
}

#[test]
fn a_path_is_kept_as_it_was_typed() {
    for path in ["/ws?user=u{{ number:6 }}&t={{token|url}}", "/a//b/../c?x=%2f&y=a:b@c", "/\u{fc}?://"] {
        assert_eq!(url(&format!("ws://h{path}")).3, path);
    }
}

#[test]
fn rfc9110_4_2_5_a_fragment_is_not_sent() {
    assert_eq!(url("http://h/a?b#c?d"), http("h", 80, "/a?b"));
    assert_eq!(url("http://h#c"), http("h", 80, "/"));
}

#[test]
fn rfc9110_7_2_the_host_header_has_the_port_where_it_is_not_80() {
    let header = |text| parse_url(text).unwrap().host_header();
    assert_eq!(header("http://h/"), "h");
    assert_eq!(header("http://h:80/"), "h");
    assert_eq!(header("ws://h:81/"), "h:81");
    assert_eq!(header("http://[::1]:81/"), "[::1]:81");
    assert_eq!(header("http://[::1]/"), "[::1]");
}

#[test]
fn what_is_no_url_says_what_to_write() {
    let cases = [
        ("", UrlFault::Scheme),
        ("localhost:8080/ws", UrlFault::Scheme),
        ("ftp://h/", UrlFault::Scheme),
        ("https://h/", UrlFault::Tls),
        ("WSS://h/", UrlFault::Tls),
        ("http://user:secret@h/", UrlFault::UserInfo),
        ("http:///path", UrlFault::Host),
        ("http://:80/", UrlFault::Host),
        ("http://{{host}}/", UrlFault::Host),
        ("http://a b/", UrlFault::Host),
        ("http://[::1/", UrlFault::Host),
        ("http://[]/", UrlFault::Host),
        ("http://[g::]/", UrlFault::Host),
        ("http://h:/", UrlFault::Port),
        ("http://h:0/", UrlFault::Port),
        ("http://h:65536/", UrlFault::Port),
        ("http://h:+80/", UrlFault::Port),
        ("http://::1/", UrlFault::Host),
        ("http://fe80::1/", UrlFault::Port),
        ("http://[::1]80/", UrlFault::Port),
        ("http://h:{{port}}/", UrlFault::Port),
        ("http://h/a b", UrlFault::Space),
        ("http://h/a\r\nX: y", UrlFault::Space),
        ("http://h/{{ open", UrlFault::Space),
    ];
    for (text, fault) in cases {
        assert_eq!(parse_url(text).map_err(|bad| bad.fault), Err(fault), "{text:?}");
    }
    let tls = parse_url("https://h/").unwrap_err().to_string();
    assert_eq!(
        tls,
        "\"https://h/\": TLS is not spoken: put a proxy that ends TLS in front, or measure behind it"
    );
}

#[test]
fn a_file_of_targets_has_a_weight_a_method_and_a_url_a_line() {
    let file =
        "# reads and writes\n\n 70 http://h/read?u={{ user }} # often\n\t30\tPOST  http://h/write#top\n";
    let lines = parse("targets", file).unwrap();
    let seen: Vec<_> =
        lines.iter().map(|line| (line.weight, line.method.as_deref(), &*line.url.path)).collect();
    assert_eq!(seen, [(70, None, "/read?u={{ user }}"), (30, Some("POST"), "/write")]);
}

#[test]
fn errors_of_the_file_name_the_line() {
    let fault = |file: &str| {
        let bad = parse("targets", file).unwrap_err();
        (bad.line, bad.fault)
    };
    assert_eq!(fault("# only this\n"), (None, LineFault::Empty));
    assert_eq!(fault("\nhttp://h/\n"), (Some(2), LineFault::Weight("http://h/".to_owned())));
    assert_eq!(fault("0 http://h/"), (Some(1), LineFault::Weight("0".to_owned())));
    assert_eq!(fault("1.5 http://h/"), (Some(1), LineFault::Weight("1.5".to_owned())));
    assert_eq!(fault("1"), (Some(1), LineFault::NoUrl));
    assert_eq!(fault("1 GET # where to\n"), (Some(1), LineFault::Url(parse_url("GET").unwrap_err())));
    assert_eq!(fault("1 get http://h/"), (Some(1), LineFault::Method("get".to_owned())));
    assert_eq!(fault("1 GET POST http://h/").0, Some(1));
    let bad = parse("my.targets", "1 http://h/\n1 https://h/\n").unwrap_err().to_string();
    assert!(bad.starts_with("my.targets, line 2: \"https://h/\": TLS is not spoken"), "{bad}");
}

fn counts(weights: &[u32], numbers: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut counts = vec![0; weights.len()];
    numbers.for_each(|number| counts[pick(weights, number)] += 1);
    counts
}

#[test]
fn any_100_consecutive_numbers_hold_the_shares() {
    for weights in [&[60, 30, 10][..], &[6, 3, 1], &[97, 1, 1, 1], &[100], &[0, 50, 50], &[50, 0, 50]] {
        let sum: u32 = weights.iter().sum();
        let shares: Vec<u32> = weights.iter().map(|weight| weight * 100 / sum).collect();
        for first in [0, 1, 99, 12_345, u32::MAX - 99] {
            assert_eq!(counts(weights, (0..100).map(|number| first + number)), shares, "from {first}");
        }
    }
}

#[test]
fn shares_are_interleaved() {
    // Of 100, the second gets 25: never more than two of the first to one missing its turn.
    let picked: Vec<usize> = (0..400).map(|number| pick(&[75, 25], number)).collect();
    assert_eq!(counts(&[75, 25], 0..4), [3, 1]);
    let longest = picked.chunk_by(|a, b| a == b).map(<[usize]>::len).max();
    assert_eq!(longest, Some(3));
    let picked: Vec<usize> = (0..1000).map(|number| pick(&[61, 29, 10], number)).collect();
    for ten in picked.windows(20) {
        let share = ten.iter().filter(|index| **index == 0).count();
        assert!((11..=14).contains(&share), "{ten:?}");
    }
}

#[test]
fn large_weights_are_shared_too() {
    let counted = counts(&[u32::MAX, u32::MAX - 1, 1], 0..10_000);
    assert!(counted[0].abs_diff(5_000) < 5 && counted[2] <= 1, "{counted:?}");
    assert_eq!(pick(&[u32::MAX; 3], u32::MAX), pick(&[1, 1, 1], u32::MAX));
}

proptest! {
    #[test]
    fn one_cycle_from_any_number_on_holds_the_weights(
        weights in proptest::collection::vec(0..40u32, 1..6), first in 0..u32::MAX - 1000,
    ) {
        let sum: u32 = weights.iter().sum();
        prop_assume!(sum > 0);
        prop_assert_eq!(counts(&weights, first..first + sum), weights);
    }

    #[test]
    fn any_text_is_a_url_or_not(text in "(ws|http)?(://)?[a-z:@\\[\\]{}/?# .0-9]{0,20}") {
        if let Ok(url) = parse_url(&text) {
            prop_assert!(url.path.starts_with('/') && url.port > 0 && !url.host.is_empty());
        }
        let _ = parse("targets", &text);
    }
}
