//! The HTTP/1.1 request head, strictly (RFC 9110, 9112; contract section 2).
//!
//! One parser for the client port and the control socket. Pure: it looks at the bytes from the front
//! and says "not yet", "this much is a head", or why it is refused.

use super::close::Refusal;

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
#[derive(Clone, Debug)]
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

/// Parses the head at the front of `input`; consumes nothing.
///
/// `None` while it is incomplete; with the head, its length in bytes, blank line included.
/// Errors: 400 for anything malformed, 414, 431 (also while incomplete, as soon as it is certain).
pub fn parse_head<'a>(input: &'a [u8], limits: &HeadLimits) -> Result<Option<(Request<'a>, usize)>, Refusal> {
    let _ = (input, limits);
    todo!()
}

impl<'a> Request<'a> {
    /// The only value of a header. Name compared without case; `None` when absent.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let _ = name;
        todo!()
    }

    /// Whether the comma-separated list in header `name` holds `token`, without case.
    pub fn header_has_token(&self, name: &str, token: &str) -> bool {
        let _ = (name, token);
        todo!()
    }

    /// The first value of `key` in the query, percent-decoded (`+` is a space). `None` when absent.
    /// Errors: 400 when the escapes are broken or the result is not UTF-8.
    pub fn query_value(&self, key: &str) -> Result<Option<String>, Refusal> {
        let _ = key;
        todo!()
    }
}

/// Decodes percent escapes in one path segment. `None` when broken or not UTF-8.
pub fn percent_decode(text: &str) -> Option<String> {
    let _ = text;
    todo!()
}
