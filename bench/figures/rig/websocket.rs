//! The client's side of RFC 6455, as far as counting needs it: upgrade, frames in, pongs out.
//!
//! Does no I/O. Payloads of data frames are counted, never kept; control frames are at most 125 bytes
//! and are kept until they are whole. Next: `receiver`, which feeds it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Outcome;

const PING: u8 = 0x9;
const CLOSE: u8 = 0x8;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// RFC 6455 wants a fresh key for every frame, against proxies that could be confused; there is none
/// on loopback.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// RFC 6455 1.3's example: every connection asks with the same key, so the answer is known.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The answer to any `Upgrade::request`.
pub const RESPONSE: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// What a connection asks for when it upgrades.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Upgrade {
    /// `topics=` in the query.
    pub topics: String,
}

/// The user that connection number `index` authenticates as: 16 bytes, distinct.
pub fn user(index: u32) -> String {
    format!("u{index:015}")
}

impl Upgrade {
    /// The request of connection number `index`.
    pub fn request(&self, address: SocketAddr, index: u32) -> String {
        format!(
            "GET /ws?user={}&topics={} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
            user(index),
            self.topics,
        )
    }
}

/// Where the response head in `input` ends; `None` while it is incomplete.
///
/// Errors: it is not a 101 that accepts our key.
pub fn accepted(input: &[u8]) -> Outcome<Option<usize>> {
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&input[..end]);
    if !head.starts_with("HTTP/1.1 101 ") || !head.contains(ACCEPT) {
        return Err(format!("the upgrade was refused:\n{head}").into());
    }
    Ok(Some(end + 4))
}

/// The frame of an unmasked binary message, as a server sends it.
pub fn binary_frame(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a benchmark's payloads are short");
    let mut frame = vec![FIN | 0x2];
    match length {
        0..=125 => frame.push(length as u8),
        _ => {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// A masked pong that carries `payload`, the ping's.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![FIN | 0xa, MASKED | payload.len() as u8];
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// What a peer sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived {
    /// A whole data frame with this many payload bytes.
    Message(u64),
    /// A ping with its payload.
    Ping(Vec<u8>),
    /// A close frame: its code (1005 where there is none) and reason.
    Close(u16, String),
}

/// Walks the frames of one connection, cut anywhere.
#[derive(Debug, Default)]
pub struct Frames {
    header: [u8; 10],
    header_bytes: u8,
    payload_bytes: u64,
    payload_left: u64,
    control: Vec<u8>,
}

impl Frames {
    /// Takes what was received and tells of every frame that became whole.
    pub fn handle_bytes(&mut self, mut input: &[u8], mut tell: impl FnMut(Arrived)) {
        while !input.is_empty() {
            if self.payload_left == 0 {
                input = self.take_header(input);
                if usize::from(self.header_bytes) < self.header_needed() {
                    return;
                }
                self.payload_bytes = self.payload_length();
                self.payload_left = self.payload_bytes;
            } else {
                let taken = input.len().min(usize::try_from(self.payload_left).unwrap_or(usize::MAX));
                if self.opcode() >= CLOSE {
                    self.control.extend_from_slice(&input[..taken]);
                }
                self.payload_left -= taken as u64;
                input = &input[taken..];
            }
            if self.payload_left == 0 {
                self.finish(&mut tell);
            }
        }
    }

    fn take_header<'a>(&mut self, mut input: &'a [u8]) -> &'a [u8] {
        loop {
            let have = usize::from(self.header_bytes);
            let taken = input.len().min(self.header_needed() - have);
            if taken == 0 {
                return input;
            }
            self.header[have..have + taken].copy_from_slice(&input[..taken]);
            self.header_bytes += taken as u8;
            input = &input[taken..];
        }
    }

    fn header_needed(&self) -> usize {
        match (self.header_bytes, self.header[1]) {
            (0 | 1, _) => 2,
            (_, 126) => 4,
            (_, 127) => 10,
            _ => 2,
        }
    }

    fn payload_length(&self) -> u64 {
        let [_, short, long @ ..] = self.header;
        match short {
            126 => u64::from(u16::from_be_bytes([long[0], long[1]])),
            127 => u64::from_be_bytes(long),
            short => u64::from(short),
        }
    }

    fn opcode(&self) -> u8 {
        self.header[0] & 0x0f
    }

    fn finish(&mut self, tell: &mut impl FnMut(Arrived)) {
        let opcode = self.opcode();
        let control = std::mem::take(&mut self.control);
        self.header_bytes = 0;
        match opcode {
            PING => tell(Arrived::Ping(control)),
            CLOSE => {
                let code = control.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                tell(Arrived::Close(code, String::from_utf8_lossy(control.get(2..).unwrap_or(b"")).into()));
            }
            opcode if opcode < CLOSE => tell(Arrived::Message(self.payload_bytes)),
            _ => {}
        }
    }
}
