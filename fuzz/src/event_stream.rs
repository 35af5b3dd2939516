//! An event stream written by us and read by a parser that was written from the specification: every payload,
//! name and position comes back exactly, however the stream is cut (WHATWG HTML 9.2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use corecast::message::{Kind, Message, Position};
use corecast::wire::event_stream;

use super::draw::Draw;
use super::whatwg::{Event, Parser};

const EPOCH: u32 = 0xa1;

/// The first octets are the size of the reads, less one, and the first block; each that follows chooses what
/// comes next.
pub fn check(input: &[u8]) {
    let mut draw = Draw(input);
    let read_bytes = usize::from(draw.octet()) + 1;
    let retry_ms = u32::from(draw.octet());
    let begin = (retry_ms % 2 == 0).then_some(Position { epoch: EPOCH, seq: 7 });
    let mut stream = event_stream::begin(retry_ms, begin).into_bytes();
    let mut id = begin.map_or(String::new(), |at| at.to_string());
    let (mut expected, mut comments) = (Vec::new(), 0);
    for seq in 8.. {
        if draw.is_over() {
            break;
        }
        match draw.octet() % 8 {
            0 => {
                stream.extend(event_stream::COMMENT);
                comments += 1;
            }
            1 => {
                let at = Position { epoch: EPOCH, seq };
                stream.extend(event_stream::gap(Some(at)).into_bytes());
                id = at.to_string();
                expected.push(event("corecast.gap", r#"{"gap":true}"#, &id));
            }
            2 => {
                let reason = draw.text();
                stream.extend(event_stream::close(Some(1012), &reason));
                let data = serde_json::json!({"code": 1012, "reason": reason}).to_string();
                expected.push(event("corecast.close", &data, &id));
            }
            _ => {
                let Some(message) = draw.message(seq) else { continue };
                stream.extend(event_stream::message(&message, EPOCH));
                id = Position { epoch: EPOCH, seq }.to_string();
                expected.push(read(&message, &id));
            }
        }
    }
    let mut parser = Parser::default();
    stream.chunks(read_bytes).for_each(|piece| parser.feed(piece));
    assert_eq!(parser.events, expected);
    assert_eq!((parser.retry, parser.comments), (Some(u64::from(retry_ms)), comments));
    assert_eq!(parser.last_event_id, id);
}

fn event(name: &str, data: &str, id: &str) -> Event {
    Event { name: name.to_owned(), data: data.to_owned(), id: id.to_owned() }
}

/// What a page gets of `message`.
fn read(message: &Message, id: &str) -> Event {
    let payload = message.payload();
    let text = || std::str::from_utf8(payload).expect("was checked");
    let name = message.event.as_deref().filter(|name| !name.is_empty()).unwrap_or("message");
    match message.kind {
        // JSON has line ends between its tokens only, where each is as good as LF (RFC 8259 2).
        Kind::Json => event(name, &text().replace("\r\n", "\n").replace('\r', "\n"), id),
        Kind::Text if !payload.contains(&b'\r') => event(name, text(), id),
        Kind::Text | Kind::Binary => event("corecast.binary", &STANDARD.encode(payload), id),
    }
}
