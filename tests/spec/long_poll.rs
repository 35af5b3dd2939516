//! `wire::long_poll`: the answers octet by octet (contract section 2).

use bytes::Bytes;
use corecast::message::{Kind, Message, Position, Target};
use corecast::wire::long_poll::{LIST_END, answer, begin, item, list_begin};
use proptest::prelude::*;
use serde_json::{Value, json};

const EPOCH: u32 = 0xa1;

fn pushed(target: Target, kind: Kind, payload: &[u8], event: Option<&str>) -> Message {
    let mut message = Message::new(18, target, kind, Bytes::copy_from_slice(payload), 0);
    message.event = event.map(Into::into);
    message
}

/// An answer with these messages, as the shard puts it together.
fn list(next: Position, gap: bool, messages: &[Message]) -> Vec<u8> {
    let mut items: Vec<Bytes> = messages.iter().map(|message| item(message, EPOCH)).collect();
    if let Some(first) = items.first_mut() {
        *first = first.slice(1..);
    }
    let head = list_begin(next, gap, items.iter().map(Bytes::len).sum());
    [&begin("")[..], &head, &items.concat(), LIST_END].concat()
}

/// Lines of the head, and the body, whose length is the one that the head says.
fn split(octets: &[u8]) -> (Vec<String>, Value) {
    let text = std::str::from_utf8(octets).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let lines: Vec<String> = head.split("\r\n").map(str::to_owned).collect();
    assert_eq!(lines.last().unwrap(), &format!("Content-Length: {}", body.len()));
    (lines, serde_json::from_str(body).unwrap())
}

#[test]
fn contract_2_an_answer_is_json_that_nobody_stores() {
    let message = pushed(Target::Topic("t".parse().unwrap()), Kind::Json, br#"{"n":1}"#, None);
    let octets = answer(&message, EPOCH, &begin("Vary: Origin\r\n"));
    let body = r#"{"next":"000000a1-18","gap":false,"messages":[{"position":"000000a1-18","topic":"t","data":{"n":1}}]}"#;
    let expected = format!(
        "HTTP/1.1 200 OK\r\nVary: Origin\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(std::str::from_utf8(&octets), Ok(&*expected));
}

#[test]
fn contract_2_data_is_the_value_a_string_or_base64() {
    let all = |kind, payload| pushed(Target::All, kind, payload, None);
    let messages = [
        all(Kind::Json, b"[1]"),
        all(Kind::Text, b"a\"\r\n"),
        all(Kind::Binary, b"\0\xff"),
        all(Kind::Text, b""),
    ];
    let (_, body) = split(&list(Position { epoch: EPOCH, seq: 20 }, true, &messages));
    let position = "000000a1-18";
    assert_eq!(
        body,
        json!({"next": "000000a1-20", "gap": true, "messages": [
            {"position": position, "data": [1]},
            {"position": position, "data": "a\"\r\n"},
            {"position": position, "encoding": "base64", "data": "AP8="},
            {"position": position, "data": ""},
        ]})
    );
}

#[test]
fn contract_2_a_message_says_its_event_where_the_pusher_gave_one() {
    let message = pushed(Target::All, Kind::Json, b"1", Some("a\"b"));
    let (_, body) = split(&answer(&message, EPOCH, &begin("")));
    assert_eq!(body["messages"], json!([{"position": "000000a1-18", "event": "a\"b", "data": 1}]));
}

#[test]
fn contract_2_an_empty_list_is_an_answer_too() {
    let (lines, body) = split(&list(Position { epoch: EPOCH, seq: 0 }, false, &[]));
    assert_eq!(lines[0], "HTTP/1.1 200 OK");
    assert_eq!(body, json!({"next": "000000a1-0", "gap": false, "messages": []}));
}

#[test]
fn the_answer_for_one_message_is_the_list_with_one_message() {
    let message = pushed(Target::User("u".parse().unwrap()), Kind::Text, b"x", Some("news"));
    let one = answer(&message, EPOCH, &begin(""));
    assert_eq!(one, list(Position { epoch: EPOCH, seq: 18 }, false, &[message]));
}

proptest! {
    #[test]
    fn any_payloads_make_a_list_of_the_length_that_is_said(
        texts in proptest::collection::vec(any::<String>(), 0..6),
        binary in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut messages: Vec<Message> =
            texts.iter().map(|text| pushed(Target::All, Kind::Text, text.as_bytes(), None)).collect();
        messages.push(pushed(Target::All, Kind::Binary, &binary, None));
        let (_, body) = split(&list(Position { epoch: EPOCH, seq: 18 }, false, &messages));
        prop_assert_eq!(body["messages"].as_array().unwrap().len(), messages.len());
        for (text, message) in texts.iter().zip(body["messages"].as_array().unwrap()) {
            prop_assert_eq!(&message["data"], text);
        }
    }
}
