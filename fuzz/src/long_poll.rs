//! The answers of long polls, read back by `httparse` and `serde_json`: the length is the one that the head
//! says, and every message comes back exactly (contract section 2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use corecast::message::{Kind, Message, Position};
use corecast::wire::long_poll::{LIST_END, answer, begin, item, list_begin};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::draw::Draw;

const EPOCH: u32 = 0xa1;

#[derive(Deserialize)]
struct Body<'a> {
    next: String,
    gap: bool,
    #[serde(borrow)]
    messages: Vec<Item<'a>>,
}

/// A message as every JSON client gets it.
#[derive(Deserialize)]
pub(crate) struct Item<'a> {
    position: String,
    topic: Option<String>,
    event: Option<String>,
    encoding: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The first octet says whether there is a gap; messages follow.
pub fn check(input: &[u8]) {
    let mut draw = Draw(input);
    let gap = draw.octet() % 2 == 1;
    let mut messages = Vec::new();
    for seq in 1.. {
        if draw.is_over() {
            break;
        }
        messages.extend(draw.message(seq));
    }
    let next = Position { epoch: EPOCH, seq: 9999 };
    let mut items: Vec<Bytes> = messages.iter().map(|message| item(message, EPOCH)).collect();
    if let Some(first) = items.first_mut() {
        *first = first.slice(1..);
    }
    let head = list_begin(next, gap, items.iter().map(Bytes::len).sum());
    let list = [&begin("")[..], &head, &items.concat(), LIST_END].concat();
    holds(&list, next, gap, &messages);
    for message in &messages {
        let one = answer(message, EPOCH, &begin("Vary: Origin\r\n"));
        holds(&one, Position { epoch: EPOCH, seq: message.seq }, false, std::slice::from_ref(message));
    }
}

#[track_caller]
fn holds(octets: &[u8], next: Position, gap: bool, messages: &[Message]) {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let status = response.parse(octets).expect("a head");
    let body = &octets[status.unwrap()..];
    let length = response.headers.iter().find(|header| header.name == "Content-Length").expect("a length");
    assert_eq!(length.value, body.len().to_string().as_bytes());
    let body: Body<'_> = serde_json::from_slice(body).expect("JSON");
    assert_eq!((body.next, body.gap, body.messages.len()), (next.to_string(), gap, messages.len()));
    for (item, message) in body.messages.iter().zip(messages) {
        assert_eq!(item.event.as_deref(), message.event.as_deref());
        is_message(item, message);
    }
}

/// Holds what a client reads against what was pushed, all but the event's name.
#[track_caller]
pub(crate) fn is_message(item: &Item<'_>, message: &Message) {
    assert_eq!(item.position, Position { epoch: EPOCH, seq: message.seq }.to_string());
    assert_eq!(item.topic.as_deref(), message.topic().map(|topic| topic.as_str()));
    assert_eq!(item.encoding.as_deref(), (message.kind == Kind::Binary).then_some("base64"));
    let payload = message.payload();
    let string = || serde_json::from_str::<String>(item.data.get()).expect("a string");
    match message.kind {
        Kind::Json => assert_eq!(item.data.get().as_bytes(), payload.trim_ascii()),
        Kind::Text => assert_eq!(string().as_bytes(), payload),
        Kind::Binary => assert_eq!(STANDARD.decode(string()).expect("base64"), payload),
    }
}
