//! Frame headers and close payloads: the layout of RFC 6455 5.2 and 5.5.1, and who breaks it.
//!
//! Judges octets in the order in which they arrive, so that the same fault is named however the input
//! was split. Keeps nothing and reads no payload; `Decoder` does both.

use super::Limits;
use crate::wire::close::ProtocolError;

/// The longest header of a masked frame: two octets, a 64-bit length, the key.
pub(super) const HEADER_BYTES_MAX: usize = 14;
/// The longest payload of a control frame (RFC 6455 5.5).
pub(super) const CONTROL_BYTES_MAX: usize = 125;

/// FIN of the first octet.
pub(super) const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// What a frame is (RFC 6455 11.8), with its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn decode(first: u8) -> Result<Self, ProtocolError> {
        match first & 0x0f {
            0 => Ok(Self::Continuation),
            1 => Ok(Self::Text),
            2 => Ok(Self::Binary),
            8 => Ok(Self::Close),
            9 => Ok(Self::Ping),
            10 => Ok(Self::Pong),
            _ => Err(ProtocolError::UnknownOpcode),
        }
    }

    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A frame whose header is known and whose payload is arriving.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    pub(super) fin: bool,
    pub(super) key: [u8; 4],
    /// Announced payload, already within the limits.
    pub(super) payload_bytes: usize,
    /// How much of it has arrived; also the phase of the mask.
    pub(super) received_bytes: usize,
}

/// The unfinished message that a frame may continue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unfinished {
    pub(super) message_bytes: usize,
    pub(super) fragments: u32,
}

/// Decodes one frame header from the front of `octets`; consumes nothing.
///
/// Gives the frame, nothing received of it, and the header's length. `None` while `octets` is shorter
/// than the header (6 to 14 bytes, a client's mask included).
///
/// Errors: `ReservedBits`, `UnknownOpcode`, `ControlFragmented`, `UnexpectedContinuation`,
/// `ExpectedContinuation`, `TooManyFragments` by the first octet; `Unmasked`, `ControlTooLong` by the
/// second; `BadLength`, `TooBig` by the length, before the key. Source: RFC 6455 5.1, 5.2, 5.4, 5.5.
pub(super) fn decode(
    octets: &[u8],
    unfinished: Option<Unfinished>,
    limits: &Limits,
) -> Result<Option<(Frame, usize)>, ProtocolError> {
    let Some((&first, after)) = octets.split_first() else { return Ok(None) };
    let opcode = judge_first(first, unfinished, limits)?;
    let Some((&second, after)) = after.split_first() else { return Ok(None) };
    if second & MASKED == 0 {
        return Err(ProtocolError::Unmasked);
    }
    let short = second & !MASKED;
    if opcode.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
        return Err(ProtocolError::ControlTooLong);
    }
    let Some((announced, after)) = decode_length(short, after)? else { return Ok(None) };
    let payload_bytes = usize::try_from(announced).map_err(|_| ProtocolError::TooBig)?;
    if !opcode.is_control() {
        let before = unfinished.map_or(0, |unfinished| unfinished.message_bytes);
        if payload_bytes > limits.message_bytes_max.saturating_sub(before) {
            return Err(ProtocolError::TooBig);
        }
    }
    let Some((&key, after)) = after.split_first_chunk() else { return Ok(None) };
    let frame = Frame { opcode, fin: first & FIN != 0, key, payload_bytes, received_bytes: 0 };
    Ok(Some((frame, octets.len() - after.len())))
}

fn judge_first(first: u8, unfinished: Option<Unfinished>, limits: &Limits) -> Result<Opcode, ProtocolError> {
    if first & RESERVED != 0 {
        return Err(ProtocolError::ReservedBits);
    }
    let opcode = Opcode::decode(first)?;
    match (opcode, unfinished) {
        (Opcode::Close | Opcode::Ping | Opcode::Pong, _) if first & FIN == 0 => {
            Err(ProtocolError::ControlFragmented)
        }
        (Opcode::Continuation, None) => Err(ProtocolError::UnexpectedContinuation),
        (Opcode::Text | Opcode::Binary, Some(_)) => Err(ProtocolError::ExpectedContinuation),
        (Opcode::Continuation, Some(unfinished)) if unfinished.fragments >= limits.fragments_max => {
            Err(ProtocolError::TooManyFragments)
        }
        _ => Ok(opcode),
    }
}

/// The payload length in its three forms, and what follows it. `None` while it is incomplete.
fn decode_length(short: u8, after: &[u8]) -> Result<Option<(u64, &[u8])>, ProtocolError> {
    let (length, shortest, after) = match short {
        126 => match after.split_first_chunk() {
            Some((octets, after)) => (u64::from(u16::from_be_bytes(*octets)), 126, after),
            None => return Ok(None),
        },
        127 => match after.split_first_chunk() {
            Some((octets, after)) => (u64::from_be_bytes(*octets), 0x1_0000, after),
            None => return Ok(None),
        },
        short => (u64::from(short), 0, after),
    };
    // The top bit of the 64-bit form must be 0, or a signed length somewhere turns negative.
    if length < shortest || length > i64::MAX as u64 {
        return Err(ProtocolError::BadLength);
    }
    Ok(Some((length, after)))
}

/// The code at the front of a close frame's payload; `None` of an empty one. The reason is the rest.
///
/// Errors: `BadCloseCode` for a payload of one octet, or a code that must not be on the wire.
/// Source: RFC 6455 5.5.1, 7.4.
pub(super) fn decode_close(payload: &[u8]) -> Result<Option<u16>, ProtocolError> {
    match payload {
        [] => Ok(None),
        [high, low, ..] if is_wire_code(u16::from_be_bytes([*high, *low])) => {
            Ok(Some(u16::from_be_bytes([*high, *low])))
        }
        _ => Err(ProtocolError::BadCloseCode),
    }
}

/// Whether a close frame may carry `code`. 1004 to 1006 and 1015 only stand for the absence of one,
/// 1012 to 1014 came after the RFC (IANA's registry); what nobody registered under 3000 is refused.
pub(super) fn is_wire_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
