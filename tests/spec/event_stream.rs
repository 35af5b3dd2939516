//! `wire::event_stream`: what a parser that keeps to the specification reads (contract section 2, WHATWG
//! HTML 9.2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use corecast::message::{Kind, Message, Position, Target};
use corecast::wire::event_stream::{self, COMMENT};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::whatwg::{Event, Parser};

const POSITION: Position = Position { epoch: 0xa1, seq: 18 };

fn pushed(kind: Kind, payload: &[u8], event: Option<&str>) -> Bytes {
    let mut message = Message::new(18, Target::All, kind, Bytes::copy_from_slice(payload), 0);
    message.event = event.map(Into::into);
    event_stream::message(&message, POSITION.epoch)
}

/// What a parser gets of a stream that begins as ours do and goes on with `octets`.
fn parsed(octets: &[u8]) -> Parser {
    let mut parser = Parser::default();
    parser.feed(event_stream::begin(1500, None).as_bytes());
    parser.feed(octets);
    parser
}

/// The one event in `octets`.
fn read(octets: &[u8]) -> Event {
    let mut parser = parsed(octets);
    assert_eq!(parser.events.len(), 1, "{:?}", String::from_utf8_lossy(octets));
    parser.events.pop_front().unwrap()
}

fn text(payload: &str) -> Event {
    read(&pushed(Kind::Text, payload.as_bytes(), None))
}

#[test]
fn contract_2_an_event_is_id_event_and_a_data_line_per_line_of_payload() {
    let octets = pushed(Kind::Text, b"one\ntwo\n", Some("news"));
    let expected = "id: 000000a1-18\nevent: news\ndata: one\ndata: two\ndata: \n\n";
    assert_eq!(str::from_utf8(&octets), Ok(expected));
    let plain = pushed(Kind::Json, br#"{"n":1}"#, None);
    assert_eq!(str::from_utf8(&plain), Ok("id: 000000a1-18\ndata: {\"n\":1}\n\n"));
}

#[test]
fn issue_4_text_that_a_careless_encoder_would_change_reads_back_exactly() {
    for payload in [
        "",
        " ",
        "  two spaces",
        "\n",
        "\n\n",
        "a\n",
        "\na",
        "a\n\nb",
        ": no comment",
        "data: x",
        "id: 7\nevent: x\nretry: 1",
        "\u{feff}",
        "\u{feff}x\n\u{feff}",
        "a\0b",
        "\0",
        "\u{85}\u{2028}\u{2029}\u{b}\u{c}",
        "größe 🙂",
    ] {
        let event = text(payload);
        assert_eq!((event.name.as_str(), event.data.as_str()), ("message", payload));
        assert_eq!(event.id, POSITION.to_string());
    }
}

#[test]
fn issue_4_text_with_a_cr_comes_whole_as_base64() {
    for payload in ["\r", "a\rb", "a\r\nb", "\r\n\r\n", "a\n\r"] {
        let event = text(payload);
        assert_eq!(event.name, "corecast.binary");
        assert_eq!(STANDARD.decode(event.data).unwrap(), payload.as_bytes());
    }
}

#[test]
fn contract_2_a_binary_payload_is_base64_under_its_own_event_whatever_the_pusher_named() {
    for payload in [&b""[..], b"\0\xff\r\n", &[0xef, 0xbb, 0xbf]] {
        let event = read(&pushed(Kind::Binary, payload, Some("news")));
        assert_eq!(event.name, "corecast.binary");
        assert_eq!(STANDARD.decode(event.data).unwrap(), payload);
    }
}

#[test]
fn issue_4_json_with_line_ends_between_its_tokens_is_the_same_value() {
    for payload in ["{\r\n\"a\":\r1,\n\"b\":[\r\r\n2]}", "\r1", "1\r", "\r\n\"a\\r\\n\"\r\n"] {
        let event = read(&pushed(Kind::Json, payload.as_bytes(), None));
        assert_eq!(event.name, "message");
        let (sent, got): (Value, Value) =
            (serde_json::from_str(payload).unwrap(), serde_json::from_str(&event.data).unwrap());
        assert_eq!(sent, got, "{payload:?}");
    }
}

#[test]
fn contract_2_an_event_name_reads_back_and_an_empty_one_is_none() {
    for name in ["news", " leading", "a:b", ":", "ö\u{feff}", "data"] {
        assert_eq!(read(&pushed(Kind::Json, b"1", Some(name))).name, name);
    }
    assert_eq!(read(&pushed(Kind::Json, b"1", Some(""))).name, "message");
}

#[test]
fn contract_2_the_stream_begins_with_retry_and_may_say_where_to_resume_without_an_event() {
    let begin = event_stream::begin(1500, Some(POSITION));
    assert!(begin.starts_with("retry: 1500\n"));
    let mut parser = Parser::default();
    parser.feed(begin.as_bytes());
    assert_eq!((parser.retry, parser.last_event_id.as_str()), (Some(1500), "000000a1-18"));
    assert!(parser.events.is_empty());
    assert_eq!(event_stream::begin(7, None), "retry: 7\n\n");
}

#[test]
fn contract_2_a_gap_is_an_event_of_its_own_and_moves_the_id_only_where_it_says_one() {
    let gap = read(event_stream::gap(None).as_bytes());
    assert_eq!(
        (gap.name.as_str(), gap.data.as_str(), gap.id.as_str()),
        ("corecast.gap", r#"{"gap":true}"#, "")
    );
    assert_eq!(read(event_stream::gap(Some(POSITION)).as_bytes()).id, "000000a1-18");
}

#[test]
fn contract_2_a_close_says_code_and_reason_and_a_drain_a_fresh_retry() {
    let close = read(&event_stream::close(Some(4500), "a \"b\"\r\n"));
    assert_eq!(close.name, "corecast.close");
    assert_eq!(
        serde_json::from_str::<Value>(&close.data).unwrap(),
        json!({"code": 4500, "reason": "a \"b\"\r\n"})
    );
    let parser = parsed(&event_stream::retry(29_999));
    assert_eq!((parser.retry, parser.events.len()), (Some(29_999), 0));
}

#[test]
fn contract_2_a_comment_is_no_event() {
    let parser = parsed(COMMENT);
    assert_eq!((parser.comments, parser.events.len()), (1, 0));
}

#[test]
fn contract_2_the_response_is_a_stream_that_nobody_caches_or_buffers_and_ends_with_the_connection() {
    let head = event_stream::head("Vary: Origin\r\n");
    let lines: Vec<&str> = head.strip_suffix("\r\n\r\n").unwrap().split("\r\n").collect();
    assert_eq!(
        lines,
        [
            "HTTP/1.1 200 OK",
            "Connection: close",
            "Content-Type: text/event-stream",
            "Cache-Control: no-cache",
            "X-Accel-Buffering: no",
            "Vary: Origin",
        ]
    );
}

/// Texts made of what matters to a parser.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\r".to_owned()),
        Just("\n".to_owned()),
        Just(" ".to_owned()),
        Just(":".to_owned()),
        Just("\0".to_owned()),
        Just("\u{feff}".to_owned()),
        Just("data: ".to_owned()),
        any::<char>().prop_map(String::from),
        "[a-z]{0,9}",
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_payloads_read_back_exactly_however_the_stream_is_cut(
        texts in proptest::collection::vec(any_text(), 1..5),
        binary in proptest::collection::vec(any::<u8>(), 0..40),
        name in proptest::option::of("[^\r\n\0]{1,8}"),
        cut in 1usize..20,
    ) {
        let mut stream = event_stream::begin(1000, None).into_bytes();
        for payload in &texts {
            stream.extend(pushed(Kind::Text, payload.as_bytes(), name.as_deref()));
            stream.extend(COMMENT);
        }
        stream.extend(pushed(Kind::Binary, &binary, None));
        let mut parser = Parser::default();
        stream.chunks(cut).for_each(|piece| parser.feed(piece));
        prop_assert_eq!(parser.events.len(), texts.len() + 1);
        for payload in &texts {
            let event = parser.events.pop_front().unwrap();
            if payload.contains('\r') {
                prop_assert_eq!(event.name, "corecast.binary");
                prop_assert_eq!(STANDARD.decode(event.data).unwrap(), payload.as_bytes());
            } else {
                prop_assert_eq!(event.name, name.as_deref().unwrap_or("message"));
                prop_assert_eq!(&event.data, payload);
            }
        }
        prop_assert_eq!(STANDARD.decode(parser.events.pop_front().unwrap().data).unwrap(), binary);
    }

    #[test]
    fn any_json_is_the_same_value_with_any_white_space(
        value in any_text(), spaces in "[ \r\n\t]{0,6}",
    ) {
        let sent = json!({"value": value, "list": [1, null]});
        let payload = sent.to_string().replace(',', &format!("{spaces},{spaces}"));
        prop_assume!(serde_json::from_str::<Value>(&payload).is_ok_and(|read| read == sent));
        let event = read(&pushed(Kind::Json, payload.as_bytes(), None));
        prop_assert_eq!(serde_json::from_str::<Value>(&event.data).unwrap(), sent);
    }
}
