//! HTTP/1.1 on the control socket: octets in, whole requests out; answers in, octets out.
//!
//! Pure; fed arbitrary splits. The head is read by `wire::request`, the same parser that the client
//! port has. Knows no path: `routes` says what a request asks.

use super::chunked::{self, ChunkError};
use super::command::{CommandError, ErrorCode};
use crate::auth::Secret;
use crate::stats::RefusalReason;
use crate::wire::close::Refusal;
use crate::wire::request::{self, HeadLimits};

/// Limits of a request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of the head.
    pub head: HeadLimits,
    /// Of the body, in bytes: 413 beyond.
    pub body_bytes_max: usize,
}

/// A whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Exactly as sent.
    pub method: String,
    /// Not decoded.
    pub path: String,
    /// Not decoded; empty without one.
    pub query: String,
    /// `Content-Type`; empty without one.
    pub content_type: String,
    /// `Host`; empty without one, in HTTP/1.0.
    pub host: String,
    /// `Origin`: the page that asks, where a browser does.
    pub origin: Option<String>,
    /// The token of `Authorization: Bearer`.
    pub bearer: Option<Secret>,
    /// Whether another request may follow.
    pub keep_alive: bool,
    /// Of `body_bytes_max` at most.
    pub body: Vec<u8>,
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The client waits for `CONTINUE` before it sends the body.
    ExpectsContinue,
    /// A request, whole.
    Request(Request),
}

/// The answer to `Event::ExpectsContinue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    Length(Request, usize),
    Chunked(Request, chunked::Decoder),
}

/// Turns octets into requests.
#[derive(Debug, Default)]
pub struct Reader {
    state: State,
}

impl Reader {
    /// Whether the head of a request was taken, and its body is due.
    pub fn in_body(&self) -> bool {
        !matches!(self.state, State::Head)
    }

    /// Takes octets from the front of `input` until one event is complete.
    ///
    /// Gives how many octets were taken, and the event. Without an event more input is needed: call
    /// again with what was not taken, and more behind it.
    ///
    /// Errors: those of `parse_head`, and 400 or 413 for the body; the reader is of no use after.
    pub fn handle_bytes(&mut self, input: &[u8], limits: &Limits) -> Result<(usize, Option<Event>), Refusal> {
        match std::mem::take(&mut self.state) {
            State::Head => self.handle_head(input, limits),
            State::Length(mut request, length) => {
                let take = (length - request.body.len()).min(input.len());
                request.body.extend_from_slice(&input[..take]);
                if request.body.len() == length {
                    return Ok((take, Some(Event::Request(request))));
                }
                self.state = State::Length(request, length);
                Ok((take, None))
            }
            State::Chunked(mut request, mut decoder) => {
                let (taken, whole) = decoder
                    .handle_bytes(input, &mut request.body, limits.body_bytes_max)
                    .map_err(|error| match error {
                        ChunkError::Malformed => {
                            Refusal::new(RefusalReason::BadRequest, "the body is not chunked coding")
                        }
                        ChunkError::TooLong => too_large(limits),
                    })?;
                if whole {
                    return Ok((taken, Some(Event::Request(request))));
                }
                self.state = State::Chunked(request, decoder);
                Ok((taken, None))
            }
        }
    }

    fn handle_head(&mut self, input: &[u8], limits: &Limits) -> Result<(usize, Option<Event>), Refusal> {
        let Some((head, head_bytes)) = request::parse_head(input, &limits.head)? else {
            return Ok((0, None));
        };
        let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        let request = Request {
            method: head.method.to_owned(),
            path: head.path.to_owned(),
            query: head.query.to_owned(),
            content_type: text(head.header("content-type")),
            host: text(head.header("host")),
            // Of two neither is believed: what is left is no page's.
            origin: head.header_values("origin").next().map(|_| text(head.header("origin"))),
            // Of two tokens neither is believed.
            bearer: head.bearer().unwrap_or_default(),
            // HTTP/1.0 would have to be told that it may stay; nobody needs that here.
            keep_alive: head.http_1_1 && head.keep_alive(),
            body: Vec::new(),
        };
        let length = head.content_length()?.unwrap_or(0);
        if head.is_chunked()? {
            self.state = State::Chunked(request, chunked::Decoder::default());
        } else if length > limits.body_bytes_max as u64 {
            return Err(too_large(limits));
        } else if length > 0 {
            self.state = State::Length(request, length as usize);
        } else {
            return Ok((head_bytes, Some(Event::Request(request))));
        }
        // A client that has begun the body waits no more (RFC 9110 10.1.1 lets us say nothing then).
        let waits = head.expects_continue() && input.len() == head_bytes;
        Ok((head_bytes, waits.then_some(Event::ExpectsContinue)))
    }
}

fn too_large(limits: &Limits) -> Refusal {
    let message = format!("the body is longer than is taken here, {} bytes", limits.body_bytes_max);
    // Clients send no bodies, so there is no reason for it among theirs.
    Refusal {
        status: 413,
        code: ErrorCode::TooLarge.name(),
        ..Refusal::new(RefusalReason::BadRequest, message)
    }
}

/// What an answer is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// `Allow`, with 405 (RFC 9110 15.5.6).
    pub allow: Option<&'static str>,
    /// The body.
    pub body: Vec<u8>,
}

/// `Content-Type` of JSON.
pub const JSON: &str = "application/json";
/// `Content-Type` of streams.
pub const NDJSON: &str = "application/x-ndjson";

impl Answer {
    /// 200 with a JSON body.
    pub fn json(body: &impl serde::Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("our own types have string keys and encode");
        Self { status: 200, content_type: JSON, allow: None, body }
    }

    /// The error object of the contract.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({ "error": { "code": code, "message": message } });
        Self { status, ..Self::json(&body) }
    }

    /// A refused command.
    pub fn refused(error: &CommandError) -> Self {
        Self::error(status_of(error.code), error.code.name(), &error.message)
    }

    /// Appends the whole response.
    pub fn encode(&self, keep_alive: bool, output: &mut Vec<u8>) {
        use std::io::Write;
        let Self { status, content_type, allow, body } = self;
        let reason = reason_of(*status);
        let length = body.len();
        // Writing to a Vec cannot fail.
        let _ = write!(
            output,
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n"
        );
        if let Some(allow) = allow {
            let _ = write!(output, "Allow: {allow}\r\n");
        }
        match status {
            // RFC 9110 15.5.2
            401 => output.extend_from_slice(b"WWW-Authenticate: Bearer\r\n"),
            503 => output.extend_from_slice(b"Retry-After: 1\r\n"),
            _ => {}
        }
        if !keep_alive {
            output.extend_from_slice(b"Connection: close\r\n");
        }
        output.extend_from_slice(b"\r\n");
        output.extend_from_slice(body);
    }
}

impl From<&Refusal> for Answer {
    fn from(refusal: &Refusal) -> Self {
        Self::error(refusal.status, refusal.code, &refusal.message)
    }
}

/// The head of an endless answer of lines: each line is a chunk, `chunked::END` ends it.
pub fn stream_head(output: &mut Vec<u8>) {
    output.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: ");
    output.extend_from_slice(NDJSON.as_bytes());
    output.extend_from_slice(b"\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
}

/// The HTTP status of a refused command.
pub fn status_of(code: ErrorCode) -> u16 {
    match code {
        ErrorCode::BadRequest
        | ErrorCode::BadTarget
        | ErrorCode::BadUser
        | ErrorCode::BadTopic
        | ErrorCode::BadPayload => 400,
        ErrorCode::Forbidden => 403,
        ErrorCode::NotFound => 404,
        ErrorCode::MethodNotAllowed => 405,
        ErrorCode::TooLarge => 413,
        ErrorCode::Busy => 503,
    }
}

fn reason_of(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        head: HeadLimits { head_bytes_max: 1024, header_lines_max: 16, target_bytes_max: 256 },
        body_bytes_max: 16,
    };

    /// Everything that comes out of `pieces`, fed one after the other as a socket would.
    fn events(pieces: &[&[u8]]) -> Result<Vec<Event>, Refusal> {
        let (mut reader, mut input, mut events) = (Reader::default(), Vec::new(), Vec::new());
        for piece in pieces {
            input.extend_from_slice(piece);
            loop {
                let (taken, event) = reader.handle_bytes(&input, &LIMITS)?;
                input.drain(..taken);
                match event {
                    Some(event) => events.push(event),
                    None if taken == 0 || input.is_empty() => break,
                    None => {}
                }
            }
        }
        Ok(events)
    }

    fn bodies(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let requests = events(pieces).expect("accepted").into_iter();
        requests.filter_map(|event| if let Event::Request(r) = event { Some(r.body) } else { None }).collect()
    }

    const PIPELINED: &[u8] = b"POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\
        \r\nPOST /a?b=c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n\
        GET /v1/stats HTTP/1.1\r\nHost: x\r\n\r\n";

    #[test]
    fn contract_3_pipelined_requests_are_the_same_wherever_they_are_cut() {
        let expected = vec![b"abc".to_vec(), b"def".to_vec(), Vec::new()];
        assert_eq!(bodies(&[PIPELINED]), expected);
        for cut in 0..PIPELINED.len() {
            assert_eq!(bodies(&[&PIPELINED[..cut], &PIPELINED[cut..]]), expected, "cut at {cut}");
        }
        assert_eq!(bodies(&PIPELINED.chunks(1).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn rfc9110_10_1_1_continue_is_due_only_while_the_body_is() {
        let head = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
        assert_eq!(events(&[head]), Ok(vec![Event::ExpectsContinue]));
        let whole = [&head[..], b"a"].concat();
        assert!(matches!(events(&[&whole]).as_deref(), Ok([Event::Request(_)])));
    }

    #[test]
    fn contract_2_a_body_at_the_limit_passes_and_one_byte_more_is_413_before_it_is_read() {
        let head = |n: usize| format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {n}\r\n\r\n");
        let whole = [head(16).as_bytes(), &[b'x'; 16]].concat();
        assert_eq!(bodies(&[&whole]), [[b'x'; 16]]);
        let refused = events(&[head(17).as_bytes()]).expect_err("over");
        assert_eq!((refused.status, refused.code), (413, "too_large"));
        let chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n";
        assert_eq!(events(&[chunked]).expect_err("over").status, 413);
    }
}
