//! HTTP/1.1 from the client's side (RFC 9110, 9112): requests out; heads of responses and chunks in.
//!
//! What a body is and how long is said by `Head::body`; its bytes are the caller's. Reads no trailers and
//! follows no redirects.

use std::fmt;

use httparse::{EMPTY_HEADER, Header, Response, Status};

/// A longer head is refused, in bytes.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// More header lines are refused.
pub(super) const HEADER_LINES_MAX: usize = 128;

/// A response's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// How long it is in bytes, interim responses (1xx) before it included.
    pub length_bytes: usize,
    /// Status code.
    pub status: u16,
    /// What follows the head.
    pub body: Body,
    /// Whether the connection may carry another request after the body.
    pub keep_alive: bool,
    /// `Retry-After` in seconds; `None` also where it is a date, since there is no clock here.
    pub retry_after_s: Option<u64>,
    /// Whether the body is `text/event-stream`.
    pub event_stream: bool,
}

/// Where a body ends (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// Where `Chunks` says.
    Chunked,
    /// Where the connection does.
    UntilClose,
}

/// A head that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHead {
    /// Not the syntax of RFC 9112 4 and 5.
    Syntax(httparse::Error),
    /// More than `HEAD_BYTES_MAX`.
    TooLong,
    /// `Content-Length` is no number, or several that differ.
    ContentLength,
}

impl fmt::Display for BadHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(error) => write!(f, "the response is not HTTP: {error}"),
            Self::TooLong => write!(f, "the response's head is longer than {HEAD_BYTES_MAX} bytes"),
            Self::ContentLength => write!(f, "the response's Content-Length is no single number"),
        }
    }
}

/// Decodes a response's head from the front of `input`; `method` is that of the request, which decides
/// whether a body follows. `None` while the head is incomplete.
///
/// Interim responses (1xx, RFC 9110 15.2) are passed over, 101 excepted.
pub fn head(input: &[u8], method: &str) -> Result<Option<Head>, BadHead> {
    let mut slots = [EMPTY_HEADER; HEADER_LINES_MAX];
    let Some((response, length_bytes)) = response(input, &mut slots)? else { return Ok(None) };
    let status = response.code.expect("a complete head has a status");
    let is_http_1_1 = response.version == Some(1);
    let headers = &*response.headers;
    let body = body(headers, status, method)?;
    // With both, somebody on the way may have read another end of the body (RFC 9112 6.3).
    let is_ambiguous =
        find(headers, "transfer-encoding").is_some() && find(headers, "content-length").is_some();
    let keeps = is_http_1_1 || lists(headers, "connection", "keep-alive");
    let ends = body == Body::UntilClose || is_ambiguous || lists(headers, "connection", "close");
    Ok(Some(Head {
        length_bytes,
        status,
        body,
        keep_alive: keeps && !ends,
        retry_after_s: retry_after_s(headers),
        event_stream: find(headers, "content-type").is_some_and(is_event_stream),
    }))
}

/// The final response in `input` and where its head ends.
pub(super) fn response<'slots, 'input>(
    input: &'input [u8],
    slots: &'slots mut [Header<'input>],
) -> Result<Option<(Response<'slots, 'input>, usize)>, BadHead> {
    let before = interim_bytes(input)?;
    let mut response = Response::new(slots);
    match response.parse(&input[before..]).map_err(BadHead::Syntax)? {
        Status::Complete(length) if before + length <= HEAD_BYTES_MAX => {
            Ok(Some((response, before + length)))
        }
        Status::Partial if input.len() <= HEAD_BYTES_MAX => Ok(None),
        _ => Err(BadHead::TooLong),
    }
}

/// How many bytes of whole interim responses (1xx but 101) `input` begins with.
fn interim_bytes(input: &[u8]) -> Result<usize, BadHead> {
    let mut at = 0;
    while input[at..].starts_with(b"HTTP/1.1 1") && !input[at..].starts_with(b"HTTP/1.1 101") {
        let mut slots = [EMPTY_HEADER; HEADER_LINES_MAX];
        match Response::new(&mut slots).parse(&input[at..]).map_err(BadHead::Syntax)? {
            Status::Complete(length) => at += length,
            Status::Partial => break,
        }
    }
    Ok(at)
}

/// RFC 9112 6.3, in its order.
fn body(headers: &[Header<'_>], status: u16, method: &str) -> Result<Body, BadHead> {
    if method == "HEAD" || matches!(status, 100..=199 | 204 | 304) {
        return Ok(Body::None);
    }
    if let Some(last) = all(headers, "transfer-encoding").last() {
        let coding = last.rsplit(|byte| *byte == b',').next().unwrap_or_default();
        let is_chunked = coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
        return Ok(if is_chunked { Body::Chunked } else { Body::UntilClose });
    }
    let mut length = None;
    // Several, or a list of the same number, come from proxies that join header lines.
    for value in all(headers, "content-length").flat_map(|value| value.split(|byte| *byte == b',')) {
        let value = number(value.trim_ascii()).ok_or(BadHead::ContentLength)?;
        if length.is_some_and(|before| before != value) {
            return Err(BadHead::ContentLength);
        }
        length = Some(value);
    }
    Ok(length.map_or(Body::UntilClose, Body::Length))
}

/// The value of the first header of that name.
pub(super) fn find<'a>(headers: &[Header<'a>], name: &str) -> Option<&'a [u8]> {
    all(headers, name).next()
}

fn all<'h, 'a>(headers: &'h [Header<'a>], name: &'h str) -> impl Iterator<Item = &'a [u8]> + 'h {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// Whether a header that is a comma-separated list has `item`, in whatever case.
pub(super) fn lists(headers: &[Header<'_>], name: &str, item: &str) -> bool {
    all(headers, name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|listed| listed.trim_ascii().eq_ignore_ascii_case(item.as_bytes()))
}

/// `Retry-After` in seconds (RFC 9110 10.2.3); `None` for a date.
pub(super) fn retry_after_s(headers: &[Header<'_>]) -> Option<u64> {
    find(headers, "retry-after").and_then(number)
}

fn is_event_stream(content_type: &[u8]) -> bool {
    let kind = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &[u8]) -> Option<u64> {
    let is_digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_digits.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

/// Takes a chunked body apart (RFC 9112 7.1), cut anywhere. All that a body under way needs.
///
/// Everything it is given it takes, so nothing is left to be given again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    /// Bytes of the chunk still to come; its size so far while that is read.
    left: u64,
    place: Place,
}

const _: () = assert!(size_of::<Chunks>() == 16);

/// What comes next in a chunked body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// The first digit of a size.
    #[default]
    Size,
    /// Further digits, or what ends them.
    SizeDigits,
    /// What follows the size, to the CR.
    Extension,
    /// The LF of a size line.
    SizeLf,
    /// The chunk itself.
    Data,
    /// The CR after it.
    DataCr,
    /// The LF after it.
    DataLf,
    /// A trailer line, or the CR of the last, empty one.
    Trailer,
    /// The rest of a trailer line, to the CR.
    TrailerLine,
    /// The LF of a trailer line.
    TrailerLf,
    /// The LF that ends the body.
    EndLf,
    /// Nothing.
    End,
}

/// What `Chunks` has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of the body, at least one.
    Data(&'a [u8]),
    /// The input is used up and the body goes on.
    More,
    /// The body has ended; what is left of the input is behind it.
    End,
}

/// Not a chunked body: a size that is none, one over 64 bits, or a line that does not end with CRLF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadChunk;

impl fmt::Display for BadChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the response is not chunked as RFC 9112 7.1 says")
    }
}

impl Chunks {
    /// Takes from the front of `input` to the next piece.
    ///
    /// After an error there is nothing to be had from the connection.
    pub fn take<'a>(&mut self, input: &mut &'a [u8]) -> Result<Piece<'a>, BadChunk> {
        loop {
            if self.place == Place::End {
                return Ok(Piece::End);
            }
            if self.place == Place::Data && !input.is_empty() {
                return Ok(Piece::Data(self.data(input)));
            }
            let Some(byte) = input.split_off_first() else { return Ok(Piece::More) };
            self.place = self.after(*byte)?;
        }
    }

    fn data<'a>(&mut self, input: &mut &'a [u8]) -> &'a [u8] {
        let taken = usize::try_from(self.left).map_or(input.len(), |left| left.min(input.len()));
        self.left -= taken as u64;
        if self.left == 0 {
            self.place = Place::DataCr;
        }
        input.split_off(..taken).expect("no more than there is")
    }

    /// The place after `byte`, outside a chunk's data.
    fn after(&mut self, byte: u8) -> Result<Place, BadChunk> {
        let place = match (self.place, byte) {
            (Place::Size | Place::SizeDigits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).expect("a hex digit");
                self.left = self.left.checked_mul(16).ok_or(BadChunk)? + u64::from(digit);
                Place::SizeDigits
            }
            (Place::SizeDigits | Place::Extension, b'\r') => Place::SizeLf,
            // Some servers pad the size with spaces to a fixed width.
            (Place::SizeDigits, b';' | b' ' | b'\t') => Place::Extension,
            (Place::Extension, not_lf) if not_lf != b'\n' => Place::Extension,
            (Place::SizeLf, b'\n') if self.left == 0 => Place::Trailer,
            (Place::SizeLf, b'\n') => Place::Data,
            (Place::DataCr, b'\r') => Place::DataLf,
            (Place::DataLf, b'\n') => Place::Size,
            (Place::Trailer, b'\r') => Place::EndLf,
            (Place::TrailerLine, b'\r') => Place::TrailerLf,
            (Place::Trailer | Place::TrailerLine, not_lf) if not_lf != b'\n' => Place::TrailerLine,
            (Place::TrailerLf, b'\n') => Place::Trailer,
            (Place::EndLf, b'\n') => Place::End,
            _ => return Err(BadChunk),
        };
        Ok(place)
    }
}

/// A request. `headers` are whole lines, `Name: value\r\n` each, or empty.
///
/// `Host`, `Content-Length` and `Connection` are written where `headers` have them not: a length for every
/// body, and 0 for a method that is expected to have one (RFC 9110 8.6).
pub fn request(
    method: &str,
    target: &str,
    host: &str,
    headers: &str,
    body: Option<&[u8]>,
    close: bool,
) -> Vec<u8> {
    let mut request = format!("{method} {target} HTTP/1.1\r\n");
    if !has(headers, "host") {
        request.extend(["Host: ", host, "\r\n"]);
    }
    request.push_str(headers);
    let expects_body = matches!(method, "POST" | "PUT" | "PATCH");
    if (body.is_some() || expects_body) && !has(headers, "content-length") {
        request.push_str(&format!("Content-Length: {}\r\n", body.unwrap_or_default().len()));
    }
    if close && !has(headers, "connection") {
        request.push_str("Connection: close\r\n");
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    request.extend_from_slice(body.unwrap_or_default());
    request
}

/// Whether header lines have one of that name.
pub(super) fn has(headers: &str, name: &str) -> bool {
    headers.lines().any(|line| line.split(':').next().is_some_and(|found| found.eq_ignore_ascii_case(name)))
}
