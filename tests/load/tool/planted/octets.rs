//! What the server says and hears, as octets: frames, events, polls, responses. Without I/O.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::script::Framing;

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;
const FIN: u8 = 0x80;

/// No HTTP, and no frame: reserved bits are set.
pub const GARBAGE: &[u8] = b"\xf7\xff\x00 nothing that anybody would understand\n";

/// A frame of the server's.
pub fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut octets = vec![opcode | if fin { FIN } else { 0 }];
    match payload.len() {
        length @ 0..=125 => octets.push(length as u8),
        length @ 126..=0xffff => {
            octets.push(126);
            octets.extend((length as u16).to_be_bytes());
        }
        length => {
            octets.push(127);
            octets.extend((length as u64).to_be_bytes());
        }
    }
    octets.extend(payload);
    octets
}

/// The payload of the pings within a fragmented message.
pub const BETWEEN: &[u8] = b"between";

/// A message in at most `count` frames, a ping after each but the last; and how many pings that are.
pub fn fragments(opcode: u8, payload: &[u8], count: usize) -> (Vec<u8>, usize) {
    let mut octets = Vec::new();
    let size = payload.len().div_ceil(count).max(1);
    let parts: Vec<&[u8]> = payload.chunks(size).collect();
    for (number, part) in parts.iter().enumerate() {
        let opcode = if number == 0 { opcode } else { CONTINUATION };
        let last = number + 1 == parts.len();
        octets.extend(frame(last, opcode, part));
        if !last {
            octets.extend(frame(true, PING, BETWEEN));
        }
    }
    (octets, parts.len().saturating_sub(1))
}

/// A close with its reason; without both where `code` is 0.
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    if code == 0 {
        return frame(true, CLOSE, &[]);
    }
    frame(true, CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// A frame of a client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// The first frame of `input` and its length; none while it is incomplete.
///
/// Errors: reserved bits, an unknown opcode, no mask, a control frame that is long or fragmented.
pub fn client_frame(input: &[u8]) -> Result<Option<(Frame, usize)>, &'static str> {
    let [first, second, rest @ ..] = input else { return Ok(None) };
    let (fin, opcode) = (first & FIN != 0, first & 0xf);
    if first & 0x70 != 0 {
        return Err("reserved bits");
    }
    if !matches!(opcode, CONTINUATION..=BINARY | CLOSE..=PONG) {
        return Err("unknown opcode");
    }
    if second & 0x80 == 0 {
        return Err("no mask");
    }
    let short = usize::from(second & 0x7f);
    if opcode >= CLOSE && (!fin || short > 125) {
        return Err("long or fragmented control frame");
    }
    let extended = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some((length, rest)) = rest.split_at_checked(extended) else { return Ok(None) };
    let length = length.iter().fold(0, |length, &octet| length << 8 | usize::from(octet));
    let length = if extended == 0 { short } else { length };
    let Some((mask, rest)) = rest.split_at_checked(4) else { return Ok(None) };
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(octet, key)| octet ^ key).collect();
    Ok(Some((Frame { fin, opcode, payload }, 2 + extended + 4 + length)))
}

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The first request of `input` and its length; none while it is incomplete.
    pub fn parse(input: &[u8]) -> Option<(Self, usize)> {
        let end = input.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&input[..end]);
        let mut lines = head.lines();
        let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
        let method = words.next().unwrap_or_default();
        let target = words.next().unwrap_or_default();
        let fields = lines.filter_map(|line| line.split_once(':'));
        let headers = fields.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
        let mut request = Self { method, target, headers, body: Vec::new() };
        let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        request.body = input.get(end..end + length)?.to_vec();
        Some((request, end + length))
    }

    /// The value of a header, its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A value of the query.
    pub fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// 101, with what answers `key` (RFC 6455 4.2.2).
pub fn switching(key: &str) -> Vec<u8> {
    let mut digest = Sha1::new();
    digest.update(key.as_bytes());
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = STANDARD.encode(digest.finalize());
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    format!("{head}Sec-WebSocket-Accept: {accept}\r\n\r\n").into_bytes()
}

/// The head of an event stream without an end, and its `retry:`.
pub fn stream_head(retry_ms: Option<u64>, framing: Framing) -> Vec<u8> {
    let until = if framing == Framing::Chunks { "Transfer-Encoding: chunked" } else { "Connection: close" };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{until}\r\n\r\n");
    let retry = retry_ms.map_or(String::new(), |ms| format!("retry: {ms}\n\n"));
    [head.into_bytes(), streamed(retry.as_bytes(), framing)].concat()
}

/// A part of an event stream: in chunks of 1, 2, 3 ... octets where it comes in chunks.
pub fn streamed(octets: &[u8], framing: Framing) -> Vec<u8> {
    if framing == Framing::Chunks { chunks(octets) } else { octets.to_vec() }
}

fn chunks(mut rest: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    for size in 1.. {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        if chunk.is_empty() {
            break;
        }
        octets.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        octets.extend(chunk);
        octets.extend(b"\r\n");
        rest = after;
    }
    octets
}

/// An event at `position`.
pub fn event(position: usize, payload: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(payload);
    let lines: String = text.split('\n').map(|line| format!("data: {line}\n")).collect();
    format!("id: planted-{position}\n{lines}\n").into_bytes()
}

/// The answer of a poll: messages with their positions, and where to go on.
pub fn poll_answer(messages: &[(usize, &[u8])], next: usize, framing: Framing) -> Vec<u8> {
    let items = messages.iter().map(|(position, payload)| {
        let data = String::from_utf8_lossy(payload);
        serde_json::json!({"position": format!("planted-{position}"), "data": data})
    });
    let items: Vec<_> = items.collect();
    let body = serde_json::json!({"next": format!("planted-{next}"), "gap": false, "messages": items});
    response(200, &[], body.to_string().as_bytes(), framing)
}

/// The position behind `since`, which `poll_answer` gave.
pub fn position(since: &str) -> Option<usize> {
    since.strip_prefix("planted-")?.parse().ok()
}

/// A whole response.
pub fn response(status: u16, headers: &[(&str, String)], body: &[u8], framing: Framing) -> Vec<u8> {
    let mut octets = format!("HTTP/1.1 {status} Planted\r\nContent-Type: application/json\r\n").into_bytes();
    for (name, value) in headers {
        octets.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    match framing {
        Framing::Length => {
            octets.extend(format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes());
            octets.extend(body);
        }
        Framing::UntilClose => {
            octets.extend(b"Connection: close\r\n\r\n");
            octets.extend(body);
        }
        Framing::Chunks => {
            octets.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            octets.extend(chunks(body));
            octets.extend(b"0\r\n\r\n");
        }
    }
    octets
}
