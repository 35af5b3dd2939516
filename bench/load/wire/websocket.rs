//! The client's side of RFC 6455: upgrade, frames in, masked frames out.
//!
//! Stateless: a frame is decoded when it is whole. The caller puts fragments together and judges their
//! order (5.4), and limits what it keeps of a frame that is long.

use std::fmt;

use httparse::{EMPTY_HEADER, Header};

use super::http::{self, BadHead};

/// RFC 6455 1.3's example: every connection asks with the same key, so the answer is known.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The longest payload of a control frame (5.5).
const CONTROL_BYTES_MAX: usize = 125;
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
/// What stands for a close frame without a code (7.1.5).
const NO_CODE: u16 = 1005;

/// An upgrade request. `host` as in `Host`, `path` with its query, `headers` whole lines (`Name: value\r\n`)
/// or empty.
pub fn request(host: &str, path: &str, headers: &str, subprotocol: Option<&str>) -> Vec<u8> {
    let mut ours = format!(
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    if let Some(subprotocol) = subprotocol {
        ours.push_str(&format!("Sec-WebSocket-Protocol: {subprotocol}\r\n"));
    }
    ours.push_str(headers);
    http::request("GET", path, host, &ours, None, false)
}

/// An upgrade that did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of an HTTP answer; `None` where it is none, or a 101 that does not hold what RFC 6455 4.1
    /// asks of it.
    pub status: Option<u16>,
    /// `Retry-After` in seconds.
    pub retry_after_s: Option<u64>,
    /// How long the head is; 0 where there is none.
    pub head_bytes: usize,
    /// What is wrong.
    pub fault: Fault,
}

/// Why an answer is no upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not HTTP.
    Head(BadHead),
    /// It is not 101.
    Status(u16),
    /// No `Upgrade: websocket`.
    Upgrade,
    /// No `Connection: Upgrade`.
    Connection,
    /// `Sec-WebSocket-Accept` is missing, or made from another key.
    Accept,
    /// An extension that was not asked for: its frames could not be read.
    Extension,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(bad) => bad.fmt(f),
            Self::Status(status) => write!(f, "the upgrade was answered with status {status}"),
            Self::Upgrade => write!(f, "the 101 has no `Upgrade: websocket`"),
            Self::Connection => write!(f, "the 101 has no `Connection: Upgrade`"),
            Self::Accept => write!(f, "the 101 has no Sec-WebSocket-Accept for our key"),
            Self::Extension => write!(f, "the 101 has an extension that was not asked for"),
        }
    }
}

/// Where the answer to `request` ends in `input`; `None` while it is incomplete. Source: RFC 6455 4.1.
///
/// Which subprotocol the server chose is not looked at: many choose none and speak it all the same.
pub fn accepted(input: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut slots = [EMPTY_HEADER; http::HEADER_LINES_MAX];
    let bad = |bad| Refusal { status: None, retry_after_s: None, head_bytes: 0, fault: Fault::Head(bad) };
    let Some((response, head_bytes)) = http::response(input, &mut slots).map_err(bad)? else {
        return Ok(None);
    };
    let headers = &*response.headers;
    let status = response.code.expect("a complete head has a status");
    let Some(fault) = fault(status, headers) else { return Ok(Some(head_bytes)) };
    let status = (status != 101).then_some(status);
    Err(Refusal { status, retry_after_s: http::retry_after_s(headers), head_bytes, fault })
}

fn fault(status: u16, headers: &[Header<'_>]) -> Option<Fault> {
    if status != 101 {
        return Some(Fault::Status(status));
    }
    let extensions = http::find(headers, "sec-websocket-extensions");
    let holds = [
        (http::lists(headers, "upgrade", "websocket"), Fault::Upgrade),
        (http::lists(headers, "connection", "upgrade"), Fault::Connection),
        (http::find(headers, "sec-websocket-accept") == Some(ACCEPT), Fault::Accept),
        (extensions.is_none_or(<[u8]>::is_empty), Fault::Extension),
    ];
    holds.into_iter().find(|(holds, _)| !holds).map(|(_, fault)| fault)
}

/// What a frame is (11.8), with its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation = 0,
    /// A text message, or its first fragment.
    Text = 1,
    /// A binary message, or its first fragment.
    Binary = 2,
    /// The end.
    Close = 8,
    /// To be answered with a pong.
    Ping = 9,
    /// An answer to a ping.
    Pong = 10,
}

impl Opcode {
    /// Whether it may come between the fragments of a message.
    pub fn is_control(self) -> bool {
        self as u8 >= Self::Close as u8
    }
}

/// A whole frame from a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Whether it is the last of its message.
    pub fin: bool,
    /// What it is.
    pub opcode: Opcode,
    /// What it holds.
    pub payload: &'a [u8],
}

/// How a server's frame breaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// RSV1 to RSV3: no extension was agreed on (5.2).
    ReservedBits,
    /// 3 to 7 or 11 to 15 (5.2).
    UnknownOpcode,
    /// A server does not mask (5.1).
    Masked,
    /// A control frame of more than 125 bytes (5.5).
    ControlTooLong,
    /// A control frame that is a fragment (5.5).
    ControlFragmented,
    /// A length in a form that is longer than needed, or its 64th bit set (5.2).
    Length,
    /// A close frame with half a code (5.5.1).
    HalfACode,
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReservedBits => "a frame with reserved bits",
            Self::UnknownOpcode => "a frame of an unknown opcode",
            Self::Masked => "a masked frame from the server",
            Self::ControlTooLong => "a control frame of more than 125 bytes",
            Self::ControlFragmented => "a fragmented control frame",
            Self::Length => "a frame whose length has a wrong form",
            Self::HalfACode => "a close frame with half a code",
        })
    }
}

/// Decodes the frame at the front of `input`, and its whole length. `None` while it is incomplete.
///
/// A fault of the header is told as soon as it is seen. Source: RFC 6455 5.2.
pub fn decode(input: &[u8]) -> Result<Option<(Frame<'_>, usize)>, BadFrame> {
    let Some(&first) = input.first() else { return Ok(None) };
    let fin = first & FIN != 0;
    let opcode = opcode(first)?;
    if opcode.is_control() && !fin {
        return Err(BadFrame::ControlFragmented);
    }
    let Some(&second) = input.get(1) else { return Ok(None) };
    if second & MASKED != 0 {
        return Err(BadFrame::Masked);
    }
    if opcode.is_control() && usize::from(second) > CONTROL_BYTES_MAX {
        return Err(BadFrame::ControlTooLong);
    }
    if opcode == Opcode::Close && second == 1 {
        return Err(BadFrame::HalfACode);
    }
    let Some((header_bytes, payload_bytes)) = header(input) else { return Ok(None) };
    let shortest = match header_bytes {
        2 => 0,
        4 => 126,
        _ => 0x1_0000,
    };
    if payload_bytes < shortest || payload_bytes > i64::MAX as u64 {
        return Err(BadFrame::Length);
    }
    let whole = usize::try_from(payload_bytes).ok().and_then(|bytes| bytes.checked_add(header_bytes));
    let payload = whole.and_then(|whole| input.get(header_bytes..whole));
    Ok(payload.map(|payload| (Frame { fin, opcode, payload }, header_bytes + payload.len())))
}

fn opcode(first: u8) -> Result<Opcode, BadFrame> {
    if first & RESERVED != 0 {
        return Err(BadFrame::ReservedBits);
    }
    match first & 0x0f {
        0 => Ok(Opcode::Continuation),
        1 => Ok(Opcode::Text),
        2 => Ok(Opcode::Binary),
        8 => Ok(Opcode::Close),
        9 => Ok(Opcode::Ping),
        10 => Ok(Opcode::Pong),
        _ => Err(BadFrame::UnknownOpcode),
    }
}

/// Lengths of the header and of the payload of the frame at the front of `input`, so that a caller knows
/// how much of an incomplete frame is missing. `None` while the header is incomplete.
///
/// Judges nothing: what `decode` refuses it may tell nonsense about.
pub fn header(input: &[u8]) -> Option<(usize, u64)> {
    let after = input.get(2..)?;
    match input[1] & !MASKED {
        126 => after.first_chunk().map(|length| (4, u64::from(u16::from_be_bytes(*length)))),
        127 => after.first_chunk().map(|length| (10, u64::from_be_bytes(*length))),
        short => Some((2, u64::from(short))),
    }
}

/// Code and reason of a close frame's payload: 1005 where there is no code, the reason as far as it is UTF-8.
pub fn close_code(payload: &[u8]) -> (u16, &str) {
    let Some((code, reason)) = payload.split_first_chunk() else { return (NO_CODE, "") };
    let valid = reason.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    (u16::from_be_bytes(*code), valid)
}

/// How long to stay away, where a close reason is Corecast's `reconnect after <ms> ms`.
pub fn reconnect_after_ms(reason: &str) -> Option<u64> {
    reason.strip_prefix("reconnect after ")?.strip_suffix(" ms")?.parse().ok()
}

/// Appends a whole masked frame to `out`.
pub fn frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
    masked(out, FIN | opcode as u8, payload, mask);
}

/// Appends a masked fragment of a text message that goes on after it; `first` of the message or a later one.
pub fn fragment(out: &mut Vec<u8>, first: bool, payload: &[u8], mask: [u8; 4]) {
    let opcode = if first { Opcode::Text } else { Opcode::Continuation };
    masked(out, opcode as u8, payload, mask);
}

/// Appends the pong to a ping of that payload, at most 125 bytes.
pub fn pong(out: &mut Vec<u8>, payload: &[u8], mask: [u8; 4]) {
    assert!(payload.len() <= CONTROL_BYTES_MAX, "a pong of {} bytes", payload.len());
    frame(out, Opcode::Pong, payload, mask);
}

fn masked(out: &mut Vec<u8>, first: u8, payload: &[u8], mask: [u8; 4]) {
    out.push(first);
    match payload.len() {
        length @ ..126 => out.push(MASKED | length as u8),
        length @ ..0x1_0000 => {
            out.push(MASKED | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(MASKED | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    let begin = out.len();
    out.extend_from_slice(payload);
    let (words, tail) = out[begin..].as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    tail.iter_mut().zip(mask).for_each(|(byte, key)| *byte ^= key);
}
