//! The HTTP/1.1 request head, strictly (RFC 9110, 9112; contract section 2).
//!
//! One parser for the client port and the control socket. Pure: it looks at the bytes from the front
//! and says "not yet", "this much is a head", or why it is refused. What only one of the two ports
//! refuses (methods, bodies, paths) is not decided here; see `session` and `control::http`.
//!
//! The order of the checks is fixed, so that a head cut anywhere is refused for the same reason as the
//! whole: the request line as its octets come, then line ends and counts, and header fields only
//! when the blank line is there. Being fed byte by byte therefore costs a search, not a parse.

use std::fmt;

use super::close::Refusal;
use crate::auth::Secret;
use crate::stats::RefusalReason;

/// Limits of a head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Whole head, in bytes: 431 beyond.
    pub head_bytes_max: usize,
    /// Header lines: 431 beyond.
    pub header_lines_max: usize,
    /// Request target, in bytes: 414 beyond.
    pub target_bytes_max: usize,
}

/// A parsed head, borrowed from the input.
#[derive(Clone)]
pub struct Request<'a> {
    /// `GET`, `POST`, ... exactly as sent.
    pub method: &'a str,
    /// The target's path, not decoded.
    pub path: &'a str,
    /// What follows `?`, not decoded; empty without one.
    pub query: &'a str,
    /// False for HTTP/1.0.
    pub http_1_1: bool,
    /// Names and values, in order, values trimmed.
    pub headers: Vec<(&'a str, &'a [u8])>,
}

/// Without query and header values: tokens stand there, and what is formatted is logged one day.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        let Self { method, path, http_1_1, .. } = self;
        let mut shown = f.debug_struct("Request");
        shown.field("method", method).field("path", path).field("http_1_1", http_1_1);
        shown.field("headers", &names).finish_non_exhaustive()
    }
}

/// Parses the head at the front of `input`; consumes nothing.
///
/// `None` while it is incomplete; with the head, its length in bytes, blank line included. One empty
/// line before the request line is skipped (RFC 9112 2.2) and counted in that length.
///
/// Errors: 400 for anything malformed, 414, 431; the request line, line ends and lengths also while
/// the head is incomplete, as soon as it is certain.
///
/// Source: RFC 9112 2.2, 3, 5, 6.3.
pub fn parse_head<'a>(input: &'a [u8], limits: &HeadLimits) -> Result<Option<(Request<'a>, usize)>, Refusal> {
    let window = &input[..input.len().min(limits.head_bytes_max)];
    let Some(line) = request_line(window, limits)? else { return incomplete(input, limits) };
    let Some((end, lines)) = head_end(window, line.end, limits)? else { return incomplete(input, limits) };

    let mut headers = Vec::with_capacity(lines);
    for text in window[line.end..end - CRLF.len()].split_inclusive(|&octet| octet == b'\n') {
        headers.push(header_line(&text[..text.len() - CRLF.len()])?);
    }
    let RequestLine { method, path, query, http_1_1, .. } = line;
    let request = Request { method, path, query, http_1_1, headers };
    request.check_host()?;
    request.content_length()?;
    request.is_chunked()?;
    Ok(Some((request, end)))
}

const CRLF: &[u8] = b"\r\n";

/// Longer than any method there is (`UPDATEREDIRECTREF`, 17).
const METHOD_BYTES_MAX: usize = 32;

/// More octets may complete the head, unless as many as are allowed are there already.
fn incomplete<T>(input: &[u8], limits: &HeadLimits) -> Result<Option<T>, Refusal> {
    if input.len() < limits.head_bytes_max {
        return Ok(None);
    }
    let message = format!("request head is over {} bytes", limits.head_bytes_max);
    Err(Refusal::new(RefusalReason::HeadTooLarge, message))
}

fn malformed(message: &'static str) -> Refusal {
    Refusal::new(RefusalReason::BadRequest, message)
}

/// The first line. `end` is the offset of the first header line.
struct RequestLine<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    http_1_1: bool,
    end: usize,
}

/// Parses the request line; `None` while it is incomplete and nothing in it is wrong yet.
fn request_line<'a>(input: &'a [u8], limits: &HeadLimits) -> Result<Option<RequestLine<'a>>, Refusal> {
    if input == b"\r" {
        return Ok(None);
    }
    let method_at = if input.starts_with(CRLF) { CRLF.len() } else { 0 };
    let rest = &input[method_at..];
    let searched = &rest[..rest.len().min(METHOD_BYTES_MAX + 1)];
    let method_len = match searched.iter().position(|&octet| !is_token_octet(octet)) {
        Some(at) if at > 0 && searched[at] == b' ' => at,
        None if searched.len() <= METHOD_BYTES_MAX => return Ok(None),
        _ => return Err(malformed("the request does not begin with a method and a space")),
    };

    let target_at = method_at + method_len + 1;
    let rest = &input[target_at..];
    let searched = &rest[..rest.len().min(limits.target_bytes_max + 1)];
    let target_len = match find(searched, |octet| !is_target_octet(octet)) {
        Some(at) if searched[at] == b' ' => at,
        Some(at) if at < limits.target_bytes_max => {
            return Err(malformed("an octet in the request target that has to be percent-encoded"));
        }
        None if searched.len() <= limits.target_bytes_max => return Ok(None),
        _ => {
            let message = format!("request target is over {} bytes", limits.target_bytes_max);
            return Err(Refusal::new(RefusalReason::TargetTooLong, message));
        }
    };
    let method = ascii(&input[method_at..method_at + method_len])?;
    let (path, query) = split_target(method, ascii(&rest[..target_len])?)?;

    let version_at = target_at + target_len + 1;
    let Some(http_1_1) = version(&input[version_at..])? else { return Ok(None) };
    Ok(Some(RequestLine { method, path, query, http_1_1, end: version_at + HTTP_1_1.len() }))
}

const HTTP_1_0: &[u8] = b"HTTP/1.0\r\n";
const HTTP_1_1: &[u8] = b"HTTP/1.1\r\n";

/// Whether the version is 1.1 rather than 1.0; `None` while it could become either (RFC 9112 2.3).
fn version(input: &[u8]) -> Result<Option<bool>, Refusal> {
    let seen = &input[..input.len().min(HTTP_1_1.len())];
    if !HTTP_1_1.starts_with(seen) && !HTTP_1_0.starts_with(seen) {
        return Err(malformed("the request line must end with HTTP/1.1 (or HTTP/1.0), CR and LF"));
    }
    Ok((seen.len() == HTTP_1_1.len()).then_some(seen == HTTP_1_1))
}

/// Path and query of a request target: origin-form, absolute-form, or `*` for OPTIONS (RFC 9112 3.2).
fn split_target<'a>(method: &str, target: &'a str) -> Result<(&'a str, &'a str), Refusal> {
    let (before, query) = target.split_once('?').unwrap_or((target, ""));
    if before.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok((before, query));
    }
    // RFC 9112 3.2.2: a server must accept the form meant for proxies.
    let absolute = before.split_once("://").filter(|(scheme, authority)| {
        let schemes = ["http", "https", "ws", "wss"];
        schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known))
            && !authority.is_empty()
            && !authority.starts_with('/')
    });
    let (_, rest) = absolute.ok_or_else(|| malformed("the request target must begin with a slash"))?;
    Ok((rest.find('/').map_or("/", |at| &rest[at..]), query))
}

/// Finds the blank line: the offset behind it, and how many header lines precede it. `None` while it
/// is not there. Errors: a line that ends in a bare LF (400), too many lines (431).
fn head_end(input: &[u8], headers_at: usize, limits: &HeadLimits) -> Result<Option<(usize, usize)>, Refusal> {
    let (mut line_at, mut lines) = (headers_at, 0);
    while let Some(length) = find(&input[line_at..], |octet| octet == b'\n') {
        let line = &input[line_at..line_at + length];
        line_at += length + 1;
        match line {
            b"\r" => return Ok(Some((line_at, lines))),
            [.., b'\r'] if lines < limits.header_lines_max => lines += 1,
            [.., b'\r'] => {
                let message = format!("more than {} header lines", limits.header_lines_max);
                return Err(Refusal::new(RefusalReason::HeadTooLarge, message));
            }
            // RFC 9112 2.2 lets a recipient take it for a line end; where two recipients differ on
            // that, one request can be smuggled inside another.
            _ => return Err(malformed("a line ends in LF without CR")),
        }
    }
    Ok(None)
}

/// Name and trimmed value of one header line, without its CR LF (RFC 9112 5).
fn header_line(line: &[u8]) -> Result<(&str, &[u8]), Refusal> {
    if line.first().is_some_and(|octet| is_blank(*octet)) {
        return Err(malformed("a folded header line"));
    }
    let colon = line.iter().position(|&octet| octet == b':');
    let (name, value) = line.split_at(colon.ok_or_else(|| malformed("a header line without a colon"))?);
    if name.last().is_some_and(|octet| is_blank(*octet)) {
        return Err(malformed("whitespace before the colon of a header line"));
    }
    if name.is_empty() || !name.iter().all(|&octet| is_token_octet(octet)) {
        return Err(malformed("a header name that is not a token"));
    }
    let value = trim(&value[1..]);
    if find(value, |octet| !is_value_octet(octet)).is_some() {
        return Err(malformed("a control character in a header value"));
    }
    Ok((ascii(name)?, value))
}

/// The first octet that is `wanted`. In blocks without a branch per octet, which the compiler turns into
/// vector code: a head that comes byte by byte is searched from its start each time.
fn find(octets: &[u8], wanted: impl Fn(u8) -> bool) -> Option<usize> {
    const BLOCK: usize = 32;
    let free = |block: &&[u8]| !block.iter().fold(false, |found, &octet| found | wanted(octet));
    let skipped = octets.chunks_exact(BLOCK).take_while(free).count() * BLOCK;
    octets[skipped..].iter().position(|&octet| wanted(octet)).map(|at| skipped + at)
}

/// A token octet (RFC 9110 5.6.2).
pub(super) fn is_token_octet(octet: u8) -> bool {
    matches!(octet, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.')
        || matches!(octet, b'^' | b'_' | b'`' | b'|' | b'~')
}

/// Visible ASCII without `#`. Wider than RFC 3986: browsers leave `|`, `^` and braces as they are.
fn is_target_octet(octet: u8) -> bool {
    octet.is_ascii_graphic() && octet != b'#'
}

/// HTAB, visible, space or obs-text (RFC 9110 5.5).
fn is_value_octet(octet: u8) -> bool {
    octet == b'\t' || (octet >= b' ' && octet != 0x7f)
}

/// An octet of `uri-host [":" port]` (RFC 3986 3.2.2).
fn is_host_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(&octet)
}

/// SP or HTAB: the only whitespace inside a line (RFC 9110 5.6.3).
fn is_blank(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t')
}

pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = value
        && is_blank(*first)
    {
        value = rest;
    }
    while let [rest @ .., last] = value
        && is_blank(*last)
    {
        value = rest;
    }
    value
}

/// Octets that were checked to be ASCII, as text.
fn ascii(octets: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(octets).map_err(|_| malformed("an octet that is not ASCII"))
}

impl<'a> Request<'a> {
    /// The only value of a header. Name compared without case; `None` when absent, and when it was sent
    /// more than once: which of them counts is not for us to guess.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.header_values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Every value of a header, in order. Name compared without case.
    pub fn header_values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let same =
            move |(field, value): &(&'a str, &'a [u8])| field.eq_ignore_ascii_case(name).then_some(*value);
        self.headers.iter().filter_map(same)
    }

    /// The items of a comma-separated list, over all lines of the header, empty ones left out
    /// (RFC 9110 5.6.1).
    pub fn header_items(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.header_values(name)
            .flat_map(|value| value.split(|&octet| octet == b',').map(trim))
            .filter(|item| !item.is_empty())
    }

    /// Whether the comma-separated list in header `name` holds `token`, without case.
    pub fn header_has_token(&self, name: &str, token: &str) -> bool {
        self.header_items(name).any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The first value of `key` in the query, percent-decoded (`+` is a space). `None` when absent;
    /// empty where the key stands alone.
    ///
    /// Errors: 400 when the escapes are broken or the result is not UTF-8.
    pub fn query_value(&self, key: &str) -> Result<Option<String>, Refusal> {
        for pair in self.query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if name == key || decode(name, true).as_deref() == Some(key) {
                let broken = || {
                    Refusal::new(RefusalReason::BadRequest, format!("{key}= is not percent-encoded UTF-8"))
                };
                return decode(value, true).map(Some).ok_or_else(broken);
            }
        }
        Ok(None)
    }

    /// The length of the body in bytes where the head says one.
    ///
    /// Errors: 400 when it is no number, given twice, or there with Transfer-Encoding (RFC 9112 6.3).
    /// A head that `parse_head` gave has none of these.
    pub fn content_length(&self) -> Result<Option<u64>, Refusal> {
        let mut values = self.header_values("content-length");
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(malformed("more than one Content-Length"));
        }
        if self.header_values("transfer-encoding").next().is_some() {
            return Err(malformed("Content-Length with Transfer-Encoding"));
        }
        let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        let length = digits.and_then(|text| text.parse().ok());
        length.map(Some).ok_or_else(|| malformed("Content-Length is not a number"))
    }

    /// Whether the body comes in chunks.
    ///
    /// Errors: 400 for any other transfer coding, and for HTTP/1.0, which has none (RFC 9112 6.1). A
    /// head that `parse_head` gave has neither.
    pub fn is_chunked(&self) -> Result<bool, Refusal> {
        if self.header_values("transfer-encoding").next().is_none() {
            return Ok(false);
        }
        let mut codings = self.header_items("transfer-encoding");
        let chunked = codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
        if !chunked || codings.next().is_some() || !self.http_1_1 {
            return Err(malformed("the only transfer coding is chunked, in HTTP/1.1"));
        }
        Ok(true)
    }

    /// What stands behind `Bearer`, the scheme without case (RFC 9110 11.1, RFC 6750 2.1). Credentials of
    /// another scheme are for somebody else. Errors: 400 for more than one header.
    pub fn bearer(&self) -> Result<Option<Secret>, Refusal> {
        let mut values = self.header_values("authorization");
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(malformed("more than one Authorization header"));
        }
        let Some((scheme, token)) = value.split_at_checked(b"bearer ".len()) else { return Ok(None) };
        let is_bearer = scheme.eq_ignore_ascii_case(b"bearer ");
        Ok(is_bearer.then(|| Secret::new(String::from_utf8_lossy(token).trim_start().to_owned())))
    }

    /// Whether the peer wants to send another request on this connection (RFC 9112 9.3).
    pub fn keep_alive(&self) -> bool {
        if self.header_has_token("connection", "close") {
            return false;
        }
        self.http_1_1 || self.header_has_token("connection", "keep-alive")
    }

    /// Whether the peer waits for `100 Continue` before it sends the body (RFC 9110 10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.http_1_1 && self.header_has_token("expect", "100-continue")
    }

    /// RFC 9112 3.2: exactly one Host, and it looks like one. HTTP/1.0 may leave it out.
    fn check_host(&self) -> Result<(), Refusal> {
        let mut hosts = self.header_values("host");
        let Some(host) = hosts.next() else {
            return if self.http_1_1 { Err(malformed("no Host header")) } else { Ok(()) };
        };
        if hosts.next().is_some() {
            return Err(malformed("more than one Host header"));
        }
        if !host.iter().all(|&octet| is_host_octet(octet)) {
            return Err(malformed("the Host header is not a host name"));
        }
        Ok(())
    }
}

/// Decodes percent escapes in one path segment. `None` when broken or not UTF-8.
pub fn percent_decode(text: &str) -> Option<String> {
    decode(text, false)
}

/// A name or a value of a query, where `+` is a space; `None` where its escapes are broken or it is not UTF-8.
pub fn query_decode(text: &str) -> Option<String> {
    decode(text, true)
}

fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'%' => hex_digit(rest.next()?)? << 4 | hex_digit(rest.next()?)?,
            b'+' if plus_is_space => b' ',
            plain => plain,
        });
    }
    String::from_utf8(octets).ok()
}

fn hex_digit(octet: u8) -> Option<u8> {
    char::from(octet).to_digit(16).map(|digit| digit as u8)
}
