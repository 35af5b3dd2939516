//! Frames from server to client: never masked, never fragmented (RFC 6455 5.1, 5.4).
//!
//! Every function makes one whole frame in one allocation of its exact size.

use bytes::Bytes;

use super::frame::{CONTROL_BYTES_MAX, FIN, Opcode, is_wire_code};
use crate::message::Kind;

/// An empty ping.
pub const PING: &[u8] = &[FIN | Opcode::Ping as u8, 0];

/// A data message as one frame from server to client, and the length of the frame's header: 2, 4 or 10
/// bytes. Text for `Kind::Json` and `Kind::Text`, whose payload is UTF-8 by then. Source: RFC 6455 5.2.
pub fn encode_message(kind: Kind, payload: &[u8]) -> (Bytes, u8) {
    let opcode = match kind {
        Kind::Json | Kind::Text => Opcode::Text,
        Kind::Binary => Opcode::Binary,
    };
    let mut header = [FIN | opcode as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let header_bytes = match payload.len() {
        length @ ..126 => {
            header[1] = length as u8;
            2
        }
        length @ ..0x1_0000 => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            4
        }
        length => {
            header[1] = 127;
            header[2..].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    };
    let frame = [&header[..header_bytes], payload].concat();
    (Bytes::from(frame), header_bytes as u8)
}

/// A close frame; `reason` is cut to 123 bytes at a character boundary. An empty frame without a code,
/// and for a code that must not be on the wire (1005, 1006, ...). Source: RFC 6455 5.5.1, 7.4.
pub fn encode_close(code: Option<u16>, reason: &str) -> Bytes {
    let Some(code) = code.filter(|code| is_wire_code(*code)) else {
        return Bytes::from_static(&[FIN | Opcode::Close as u8, 0]);
    };
    let code = code.to_be_bytes();
    let reason = &reason[..reason.floor_char_boundary(CONTROL_BYTES_MAX - code.len())];
    encode_control(Opcode::Close, &[&code, reason.as_bytes()])
}

/// A pong with the ping's payload (at most 125 bytes). Source: RFC 6455 5.5.3.
pub fn encode_pong(payload: &[u8]) -> Bytes {
    encode_control(Opcode::Pong, &[payload])
}

/// Whether this whole frame of ours is a pong.
pub fn is_pong(frame: &[u8]) -> bool {
    frame.first() == Some(&(FIN | Opcode::Pong as u8))
}

fn encode_control(opcode: Opcode, parts: &[&[u8]]) -> Bytes {
    let payload_bytes = parts.iter().map(|part| part.len()).sum::<usize>();
    assert!(payload_bytes <= CONTROL_BYTES_MAX, "a control frame of {payload_bytes} bytes");
    let mut frame = Vec::with_capacity(2 + payload_bytes);
    frame.extend_from_slice(&[FIN | opcode as u8, payload_bytes as u8]);
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    Bytes::from(frame)
}
