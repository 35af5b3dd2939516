//! Long poll (`GET /poll`): the answers, as JSON in HTTP.
//!
//! What most held polls get is one message and nothing else: `answer` is the same octets for all of them. Any
//! other answer is `list_begin`, an `item` for each message (the first without its comma), `LIST_END`.

use bytes::Bytes;

use super::envelope;
use crate::message::{Message, Position};

/// Behind the last item.
pub const LIST_END: &[u8] = b"]}";

/// Status line, then `fields`: header lines, each with its CR LF. What follows is the same for all.
pub fn begin(fields: &str) -> Bytes {
    format!("HTTP/1.1 200 OK\r\n{fields}").into()
}

/// The rest of the header for a body of this length.
fn header(body_bytes: usize) -> String {
    format!(
        "Content-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: {body_bytes}\r\n\r\n"
    )
}

/// The body up to the list's items.
fn body_begin(next: Position, gap: bool) -> String {
    format!(r#"{{"next":"{next}","gap":{gap},"messages":["#)
}

/// What stands before the items of an answer, behind `begin`. `items_bytes` is the sum of their lengths,
/// the first one without its comma.
pub fn list_begin(next: Position, gap: bool, items_bytes: usize) -> Bytes {
    let body = body_begin(next, gap);
    (header(body.len() + items_bytes + LIST_END.len()) + &body).into()
}

/// One message of the list, a comma before it.
pub fn item(message: &Message, epoch: u32) -> Bytes {
    let mut out = Vec::with_capacity(96 + message.payload().len());
    out.extend_from_slice(b",{");
    envelope::push_message(&mut out, message, message.event.as_deref(), epoch);
    out.into()
}

/// The whole answer with this one message and no gap, `begin` included.
pub fn answer(message: &Message, epoch: u32, begin: &[u8]) -> Bytes {
    let mut item = Vec::with_capacity(96 + message.payload().len());
    item.push(b'{');
    envelope::push_message(&mut item, message, message.event.as_deref(), epoch);
    let list = list_begin(Position { epoch, seq: message.seq }, false, item.len());
    Bytes::from([begin, &list, &item, LIST_END].concat())
}
