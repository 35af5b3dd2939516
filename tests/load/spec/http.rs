//! `wire::http`: RFC 9110 and 9112 from the client's side.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{cuts, places};
use crate::wire::http::{BadChunk, BadHead, Body, Chunks, HEAD_BYTES_MAX, Head, Piece, head, request};

/// The head of a response to `method`; checks that no part of it is taken for the whole.
#[track_caller]
fn answer_to(method: &str, response: &str) -> Result<Head, BadHead> {
    for cut in 0..response.len() {
        let part = head(&response.as_bytes()[..cut], method);
        assert!(matches!(part, Ok(None) | Err(_)), "cut at {cut}: {part:?}");
    }
    let whole = head(response.as_bytes(), method).map(|head| head.expect("a complete head"));
    let with_body =
        head(format!("{response}body").as_bytes(), method).map(|head| head.expect("a complete head"));
    assert_eq!(whole, with_body, "what follows is not part of the head");
    whole
}

#[track_caller]
fn answer(status_line: &str, headers: &str) -> Head {
    answer_to("GET", &format!("{status_line}\r\n{headers}\r\n")).unwrap()
}

#[test]
fn rfc9112_4_a_head_is_status_and_headers_to_the_blank_line() {
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let expected = Head {
        length_bytes: response.len(),
        status: 200,
        body: Body::Length(5),
        keep_alive: true,
        retry_after_s: None,
        event_stream: false,
    };
    assert_eq!(answer_to("GET", response), Ok(expected));
    // RFC 9112 4: the reason may be missing.
    assert_eq!(answer("HTTP/1.1 404 ", "content-length: 0\r\n").status, 404);
}

#[test]
fn rfc9112_6_3_where_a_body_ends() {
    let ok = "HTTP/1.1 200 OK";
    let bodies = [
        (ok, "Content-Length: 0\r\n", Body::Length(0)),
        (ok, "Content-Length: 7, 7\r\n", Body::Length(7)),
        (ok, "Content-Length: 7\r\nContent-Length: 7\r\n", Body::Length(7)),
        (ok, "Content-Length: 18446744073709551615\r\n", Body::Length(u64::MAX)),
        (ok, "Transfer-Encoding: chunked\r\n", Body::Chunked),
        (ok, "transfer-encoding: gzip, Chunked\r\n", Body::Chunked),
        (ok, "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", Body::Chunked),
        (ok, "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", Body::Chunked),
        (ok, "Transfer-Encoding: gzip\r\n", Body::UntilClose),
        (ok, "", Body::UntilClose),
        ("HTTP/1.1 204 No Content", "", Body::None),
        ("HTTP/1.1 304 Not Modified", "Content-Length: 9\r\n", Body::None),
        ("HTTP/1.1 101 Switching Protocols", "", Body::None),
    ];
    for (status_line, headers, body) in bodies {
        assert_eq!(answer(status_line, headers).body, body, "{status_line} {headers:?}");
    }
}

#[test]
fn rfc9112_6_3_a_response_to_head_has_no_body_whatever_its_length_says() {
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let head = answer_to("HEAD", response).unwrap();
    assert_eq!((head.body, head.keep_alive), (Body::None, true));
}

#[test]
fn rfc9112_6_3_a_content_length_that_is_no_single_number_is_refused() {
    for value in ["", "-1", "+1", "1 1", "5, 6", "5\r\nContent-Length: 6", "18446744073709551616", "0x5"] {
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {value}\r\n\r\n");
        assert_eq!(answer_to("GET", &response), Err(BadHead::ContentLength), "{value:?}");
    }
}

#[test]
fn rfc9112_9_3_whether_the_connection_is_kept() {
    let cases = [
        ("HTTP/1.1 200 OK", "Content-Length: 0\r\n", true),
        ("HTTP/1.1 200 OK", "Content-Length: 0\r\nConnection: foo, Close\r\n", false),
        ("HTTP/1.1 200 OK", "", false),
        ("HTTP/1.0 200 OK", "Content-Length: 0\r\n", false),
        ("HTTP/1.0 200 OK", "Content-Length: 0\r\nConnection: keep-alive\r\n", true),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked\r\n", true),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", false),
        ("HTTP/1.1 204 No Content", "", true),
    ];
    for (status_line, headers, kept) in cases {
        assert_eq!(answer(status_line, headers).keep_alive, kept, "{status_line} {headers:?}");
    }
}

#[test]
fn rfc9110_15_2_interim_responses_are_passed_over() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
    let response = format!("{interim}HTTP/1.1 204 No Content\r\n\r\n");
    let head = answer_to("GET", &response).unwrap();
    assert_eq!((head.status, head.length_bytes), (204, response.len()));
}

#[test]
fn rfc9110_10_2_3_when_to_come_back_is_told_in_seconds() {
    let ask = |value| answer("HTTP/1.1 503 Busy", &format!("Retry-After: {value}\r\n")).retry_after_s;
    assert_eq!(ask("120"), Some(120));
    assert_eq!(ask("Fri, 31 Dec 1999 23:59:59 GMT"), None);
    assert_eq!(ask("-1"), None);
}

#[test]
fn an_event_stream_is_known_by_its_type() {
    let is = |value| answer("HTTP/1.1 200 OK", &format!("Content-Type: {value}\r\n")).event_stream;
    assert!(is("text/event-stream"));
    assert!(is("Text/Event-Stream; charset=utf-8"));
    assert!(!is("text/event-streams"));
    assert!(!is("application/json"));
}

#[test]
fn what_is_not_http_is_refused_at_once() {
    for other in
        ["SSH-2.0-OpenSSH_9.9\r\n", "\0\0\0\x12\x04", "HTTP/2 200\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n"]
    {
        assert!(matches!(head(other.as_bytes(), "GET"), Err(BadHead::Syntax(_))), "{other:?}");
    }
}

#[test]
fn a_head_of_64_kib_is_taken_and_a_longer_one_refused() {
    let frame = "HTTP/1.1 204 No Content\r\nX: \r\n\r\n".len();
    let of = |bytes: usize| format!("HTTP/1.1 204 No Content\r\nX: {}\r\n\r\n", "x".repeat(bytes - frame));
    let longest = of(HEAD_BYTES_MAX);
    assert_eq!(head(longest.as_bytes(), "GET").unwrap().unwrap().length_bytes, HEAD_BYTES_MAX);
    assert_eq!(head(of(HEAD_BYTES_MAX + 1).as_bytes(), "GET"), Err(BadHead::TooLong));
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(HEAD_BYTES_MAX / 25 + 1);
    assert_eq!(head(interim.as_bytes(), "GET"), Err(BadHead::TooLong));
}

/// What a chunked body, cut at `cuts`, comes to: its bytes, and what is left behind its end or the fault.
fn dechunked(octets: &[u8], cuts: &[usize]) -> (Vec<u8>, Result<Option<Vec<u8>>, BadChunk>) {
    let (mut chunks, mut body, mut from) = (Chunks::default(), Vec::new(), 0);
    for to in cuts.iter().copied().chain([octets.len()]) {
        let mut input = &octets[from..to];
        from = to;
        loop {
            match chunks.take(&mut input) {
                Ok(Piece::Data(data)) => {
                    assert!(!data.is_empty());
                    body.extend_from_slice(data);
                }
                Ok(Piece::More) => {
                    assert!(input.is_empty());
                    break;
                }
                Ok(Piece::End) => return (body, Ok(Some([input, &octets[to..]].concat()))),
                Err(fault) => return (body, Err(fault)),
            }
        }
    }
    (body, Ok(None))
}

/// `dechunked` whole; checks that byte by byte, and cut in two anywhere, it comes to the same.
#[track_caller]
fn dechunked_everywhere(octets: &[u8]) -> (Vec<u8>, Result<Option<Vec<u8>>, BadChunk>) {
    let whole = dechunked(octets, &[]);
    let by_octet: Vec<usize> = (1..octets.len()).collect();
    assert_eq!(dechunked(octets, &by_octet), whole, "byte by byte");
    for cut in by_octet {
        assert_eq!(dechunked(octets, &[cut]), whole, "cut at {cut}");
    }
    whole
}

#[test]
fn rfc9112_7_1_chunks_are_put_together_and_what_follows_is_left() {
    let octets = b"4\r\nWiki\r\n6;name=\"v\"\r\npedia \r\nB \r\nin \r\nchunks\r\n0\r\n\r\nHTTP/1.1 200";
    let (body, end) = dechunked_everywhere(octets);
    assert_eq!(String::from_utf8(body).unwrap(), "Wikipedia in \r\nchunks");
    assert_eq!(end, Ok(Some(b"HTTP/1.1 200".to_vec())));
}

#[test]
fn rfc9112_7_1_2_trailers_are_passed_over() {
    let (body, end) = dechunked_everywhere(b"1\r\na\r\n000;x\r\nExpires: never\r\nX:\r\n\r\nnext");
    assert_eq!((body, end), (b"a".to_vec(), Ok(Some(b"next".to_vec()))));
}

#[test]
fn an_endless_chunked_stream_gives_what_there_is() {
    assert_eq!(dechunked_everywhere(b"5\r\n: hi\n\r\n10\r\ndata"), (b": hi\ndata".to_vec(), Ok(None)));
}

#[test]
fn rfc9112_7_1_what_is_not_chunked_is_refused() {
    let broken: [&[u8]; 11] = [
        b"\r\n",
        b"g\r\n",
        b" 5\r\n",
        b"-1\r\n",
        b"5\nhello\r\n",
        b"5\r\rhello",
        b"5;x\nhello",
        b"0\r\n\n",
        b"0\r\nX: y\n\r\n",
        b"0\r\nX: y\rz",
        b"10000000000000000\r\n",
    ];
    for octets in broken {
        assert_eq!(
            dechunked_everywhere(octets),
            (vec![], Err(BadChunk)),
            "{:?}",
            octets.escape_ascii().to_string()
        );
    }
    assert_eq!(dechunked_everywhere(b"2\r\nabc\r\n"), (b"ab".to_vec(), Err(BadChunk)));
    assert_eq!(dechunked_everywhere(b"2\r\nab\rx"), (b"ab".to_vec(), Err(BadChunk)));
}

#[test]
fn the_largest_chunk_that_can_be_announced_is_awaited() {
    assert_eq!(dechunked_everywhere(b"ffffffffffffffff\r\nab"), (b"ab".to_vec(), Ok(None)));
}

#[track_caller]
fn assert_request(written: Vec<u8>, expected: &str) {
    assert_eq!(String::from_utf8(written).unwrap(), expected);
}

#[test]
fn rfc9112_3_a_request_names_its_host_and_the_length_of_its_body() {
    assert_request(
        request("GET", "/a?b", "h:81", "A: 1\r\n", None, false),
        "GET /a?b HTTP/1.1\r\nHost: h:81\r\nA: 1\r\n\r\n",
    );
    assert_request(
        request("POST", "/", "h", "", Some(b"body"), true),
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody",
    );
    assert_request(
        request("PUT", "/", "h", "", None, false),
        "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
    );
    assert_request(
        request("DELETE", "/", "h", "", Some(b""), false),
        "DELETE / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
    );
}

#[test]
fn headers_of_the_users_own_are_not_written_twice() {
    assert_request(
        request(
            "POST",
            "/",
            "h",
            "host: x\r\ncontent-length: 9\r\nCONNECTION: close\r\n",
            Some(b"body"),
            true,
        ),
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nCONNECTION: close\r\n\r\nbody",
    );
}

proptest! {
    #[test]
    fn design_6_rule_1_any_split_of_any_chunks_gives_the_same(
        chunks in vec((vec(any::<u8>(), 1..40), 0..3usize), 0..6), broken in any::<Option<u8>>(), cuts in cuts(),
    ) {
        let mut octets = Vec::new();
        for (data, form) in &chunks {
            let extension = ["", ";a=b", "  "][*form];
            octets.extend(format!("{:x}{extension}\r\n", data.len()).into_bytes());
            octets.extend_from_slice(data);
            octets.extend(b"\r\n");
        }
        octets.extend(broken);
        octets.extend(b"0\r\n\r\nrest");
        let whole = dechunked(&octets, &[]);
        let by_octet: Vec<usize> = (1..octets.len()).collect();
        prop_assert_eq!(&dechunked(&octets, &by_octet), &whole);
        prop_assert_eq!(&dechunked(&octets, &places(&octets, &cuts)), &whole);
        if broken.is_none() {
            let data: Vec<u8> = chunks.into_iter().flat_map(|(data, _)| data).collect();
            prop_assert_eq!(whole, (data, Ok(Some(b"rest".to_vec()))));
        }
    }

    #[test]
    fn any_bytes_can_be_taken_for_a_head(octets in vec(any::<u8>(), 0..200)) {
        let _ = head(&octets, "GET");
        let _ = head(&[b"HTTP/1.1 100 \r\nA: ", &octets[..]].concat(), "GET");
    }
}
