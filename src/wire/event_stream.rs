//! Event streams (`GET /sse`): octets that any parser of `text/event-stream` reads back to the payload exactly.
//!
//! A `data` field ends at CR, LF or CRLF and the parser joins fields with LF: LF is carried by lines, CR
//! cannot be. A text with a CR in it therefore goes the way of a binary payload. The stream begins with
//! `retry`, so a U+FEFF in a payload is never taken for a byte order mark.
//!
//! Source: WHATWG HTML 9.2.5, 9.2.6 (parsing and interpreting an event stream).

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::message::{Kind, Message, Position};

/// Keeps a connection alive and means nothing to the client: a comment.
pub const COMMENT: &[u8] = b":\n\n";

/// `event` of a payload that is base64.
const BINARY: &str = "corecast.binary";

/// Status line and header of the response; `fields` are more header lines, each with its CR LF.
///
/// The body ends with the connection, so that no event is wrapped into a chunk.
pub fn head(fields: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream\r\n\
         Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n{fields}\r\n"
    )
}

/// The first block: how long to wait before coming back, and where to resume if nothing comes before that.
///
/// A block without `data` is no event, but its `id` counts (WHATWG HTML 9.2.6).
pub fn begin(retry_ms: u32, at: Option<Position>) -> String {
    let id = at.map(id_line).unwrap_or_default();
    format!("retry: {retry_ms}\n{id}\n")
}

/// How long to wait before coming back, in milliseconds.
pub fn retry(retry_ms: u64) -> Bytes {
    format!("retry: {retry_ms}\n\n").into()
}

/// Some messages since the position that the client named are no longer held. `at` is where to resume
/// when nothing is sent again after it; otherwise the messages that follow say it.
pub fn gap(at: Option<Position>) -> String {
    let id = at.map(id_line).unwrap_or_default();
    format!("event: corecast.gap\n{id}data: {{\"gap\":true}}\n\n")
}

/// The connection ends: a WebSocket's close code and reason.
pub fn close(code: Option<u16>, reason: &str) -> Bytes {
    let data = serde_json::json!({"code": code, "reason": reason});
    format!("event: corecast.close\ndata: {data}\n\n").into()
}

fn id_line(at: Position) -> String {
    format!("id: {at}\n")
}

/// One push as an event. Text with a CR and binary payloads are base64 under `corecast.binary`, whatever
/// name the pusher gave.
pub fn message(message: &Message, epoch: u32) -> Bytes {
    let payload = message.payload();
    let encoded = match message.kind {
        Kind::Binary => true,
        Kind::Text => payload.contains(&b'\r'),
        // Outside strings a CR is white space, and inside them JSON has none (RFC 8259 2, 7).
        Kind::Json => false,
    };
    let data: Cow<'_, [u8]> =
        if encoded { STANDARD.encode(payload).into_bytes().into() } else { payload.into() };
    let event = if encoded { Some(BINARY) } else { message.event.as_deref() };
    let mut out = Vec::with_capacity(64 + event.map_or(0, str::len) + data.len());
    out.extend_from_slice(id_line(Position { epoch, seq: message.seq }).as_bytes());
    // An empty name is that of an event without one.
    if let Some(event) = event.filter(|event| !event.is_empty()) {
        out.extend_from_slice(format!("event: {event}\n").as_bytes());
    }
    for line in lines(&data) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
    out.into()
}

/// Splits at LF, CR and CRLF; gives at least one line.
fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let data = rest?;
        let Some(end) = data.iter().position(|octet| matches!(octet, b'\r' | b'\n')) else {
            return rest.take();
        };
        let ending = if data[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = Some(&data[end + ending..]);
        Some(&data[..end])
    })
}
