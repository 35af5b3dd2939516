//! RFC 6455 after the handshake: frames in, events out; messages in, frames out.
//!
//! The decoder is fed arbitrary splits. Between messages it holds nothing (`is_idle`) and may be
//! dropped, so an idle connection owns none.

use std::borrow::Cow;

use bytes::Bytes;

use super::close::ProtocolError;
use crate::message::Kind;

/// Limits of what a client may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// One message, over all its fragments, in bytes.
    pub message_bytes_max: usize,
    /// Fragments of one message.
    pub fragments_max: u32,
}

/// What came in. Payloads are unmasked; those of one unfragmented frame that arrived whole are
/// borrowed from the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message, checked UTF-8.
    Text(Cow<'a, [u8]>),
    /// A whole binary message.
    Binary(Cow<'a, [u8]>),
    /// To be answered with a pong of the same payload.
    Ping(Cow<'a, [u8]>),
    /// The peer is alive.
    Pong,
    /// The peer closes; nothing after it counts.
    Close {
        /// `None` for an empty close frame.
        code: Option<u16>,
        /// Checked UTF-8, at most 123 bytes.
        reason: Cow<'a, [u8]>,
    },
}

/// Turns octets into events.
#[derive(Debug, Default)]
pub struct Decoder {}

impl Decoder {
    /// Nothing received yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is kept: no part of a frame, no unfinished message.
    pub fn is_idle(&self) -> bool {
        todo!()
    }

    /// Takes octets from the front of `input` (unmasking in place) until one event is complete.
    ///
    /// Gives how many octets were taken, and the event. `None` means that all input was taken and more
    /// is needed. Call again with the rest until then.
    ///
    /// Errors: the first thing wrong, as early as it can be known: a length before its payload is
    /// read or anything allocated for it, UTF-8 at the octet that breaks it. The decoder is of no use after.
    pub fn handle_bytes<'a>(
        &mut self,
        input: &'a mut [u8],
        limits: &Limits,
    ) -> Result<(usize, Option<Event<'a>>), ProtocolError> {
        let _ = (input, limits);
        todo!()
    }
}

/// A data message as one frame from server to client, and the length of the frame's header.
pub fn encode_message(kind: Kind, payload: &[u8]) -> (Bytes, u8) {
    let _ = (kind, payload);
    todo!()
}

/// A close frame; `reason` is cut to 123 bytes at a character boundary. An empty frame without a code.
pub fn encode_close(code: Option<u16>, reason: &str) -> Bytes {
    let _ = (code, reason);
    todo!()
}

/// A pong with the ping's payload (at most 125 bytes).
pub fn encode_pong(payload: &[u8]) -> Bytes {
    let _ = payload;
    todo!()
}

/// An empty ping.
pub const PING: &[u8] = &[0x89, 0x00];
