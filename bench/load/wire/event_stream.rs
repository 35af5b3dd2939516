//! `text/event-stream` from the client's side (WHATWG HTML 9.2.5, 9.2.6).
//!
//! An event is decoded when its blank line is there. Neither id nor retry time is remembered: both are told,
//! and the caller keeps what it needs.

use std::borrow::Cow;

use memchr::memchr2;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The lines up to a blank one, or a comment that stands before them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event<'a> {
    /// `id:`, where there is one without NUL.
    pub id: Option<&'a [u8]>,
    /// `event:`.
    pub event: Option<&'a [u8]>,
    /// The `data:` lines, joined by LF. Without any it is no message: a browser tells its page nothing.
    pub data: Option<Cow<'a, [u8]>>,
    /// `retry:` in milliseconds.
    pub retry_ms: Option<u64>,
    /// Whether there is a comment, which keeps the connection alive.
    pub comment: bool,
}

impl<'a> Event<'a> {
    /// Whether it holds nothing: a blank line too many, or the LF of a CRLF whose CR ended the event before.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes a line that is not blank.
    fn take(&mut self, line: &'a [u8]) {
        let (field, value) = match memchr::memchr(b':', line) {
            Some(0) => {
                self.comment = true;
                return;
            }
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => match &mut self.data {
                Some(data) => {
                    let data = data.to_mut();
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(Cow::Borrowed(value)),
            },
            b"event" => self.event = Some(value),
            b"id" if !value.contains(&0) => self.id = Some(value),
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                let digits = std::str::from_utf8(value).unwrap_or_default();
                self.retry_ms = digits.parse().ok().or(self.retry_ms);
            }
            _ => {}
        }
    }
}

/// Decodes the event at the front of `input`, up to and with its blank line, and how long it is. `None` while
/// it is incomplete.
///
/// - A comment before an event is told by itself: a connection that is only kept alive has nothing left over.
/// - A CR at the end of the input ends its line at once, since a server that ends lines with CR may send
///   nothing for a long time. Where it was half a CRLF, the LF comes next as an event that `is_empty`.
/// - A byte order mark is passed over before any event, not only the first: there is no memory of which
///   is the first, and no server writes one later.
pub fn decode(input: &[u8]) -> Option<(Event<'_>, usize)> {
    let mut at = if input.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    let mut event = Event::default();
    let is_comment = input.get(at) == Some(&b':');
    loop {
        let (line, length) = line(&input[at..])?;
        at += length;
        if line.is_empty() {
            return Some((event, at));
        }
        event.take(line);
        if is_comment {
            let blank = self::line(&input[at..]).filter(|(next, _)| next.is_empty());
            return Some((event, at + blank.map_or(0, |(_, length)| length)));
        }
    }
}

/// The line at the front of `input`, and how long it is with its end: LF, CR or CRLF.
fn line(input: &[u8]) -> Option<(&[u8], usize)> {
    let end = memchr2(b'\n', b'\r', input)?;
    let is_crlf = input[end..].starts_with(b"\r\n");
    Some((&input[..end], end + if is_crlf { 2 } else { 1 }))
}
