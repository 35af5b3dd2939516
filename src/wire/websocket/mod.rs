//! RFC 6455 after the handshake: frames in, events out; messages in, frames out.
//!
//! The decoder is fed arbitrary splits. Between messages it holds nothing (`is_idle`) and may be
//! dropped, so an idle connection owns none. A frame that arrives whole is handed on where it lies;
//! anything else grows one buffer per message, by what arrives and never by what is announced.
//! Answers nothing by itself: `Event::reply` says what is due and the shard sends it.
//! Next: `frame` for headers and their faults, `encode` for the way out, `super::close` for the errors.

mod encode;
mod frame;
mod header;
mod mask;
mod utf8;

use std::borrow::Cow;

use bytes::Bytes;

pub use encode::{PING, encode_close, encode_message, encode_pong, is_pong};
pub use header::Header;

use self::frame::{CONTROL_BYTES_MAX, Frame, HEADER_BYTES_MAX, Opcode, Unfinished};
use super::close::{ProtocolError, code};

/// Limits of what a client may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// One message, over all its fragments, in bytes.
    pub message_bytes_max: usize,
    /// Fragments of one message.
    pub fragments_max: u32,
}

/// What `GET /echo` takes, for conformance suites (contract section 2): 65,536 fragments after the first,
/// because Autobahn (9.3.1, 9.4.1) ends 4 MiB in fragments of 64 with an empty one.
pub const ECHO_LIMITS: Limits = Limits { message_bytes_max: 32 << 20, fragments_max: 65_537 };

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

impl Event<'_> {
    /// The frame that RFC 6455 asks for in return: a pong to a ping (5.5.2), an echo to a close (5.5.1),
    /// 1000 where it gave no code. `None` for the rest.
    ///
    /// A close is to be answered only where we have not sent one ourselves.
    pub fn reply(&self) -> Option<Bytes> {
        match self {
            Self::Ping(payload) => Some(encode_pong(payload)),
            Self::Close { code, reason } => {
                let reason = std::str::from_utf8(reason).unwrap_or_default();
                Some(encode_close(Some(code.unwrap_or(code::NORMAL)), reason))
            }
            Self::Text(_) | Self::Binary(_) | Self::Pong => None,
        }
    }
}

/// Turns octets into events.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The unfinished message, and behind it the part of a control frame that came in between.
    buffer: Vec<u8>,
    progress: Progress,
    message: Option<Message>,
}

// A client that stops in the middle of a frame costs this much and what it sent.
const _: () = assert!(size_of::<Decoder>() <= 56);

/// Where in a frame the input stopped.
#[derive(Clone, Copy, Debug)]
enum Progress {
    /// In the header; none of it where `kept` is 0.
    Header { octets: [u8; HEADER_BYTES_MAX], kept: u8 },
    /// In the payload.
    Payload(Frame),
}

impl Default for Progress {
    fn default() -> Self {
        Self::Header { octets: [0; HEADER_BYTES_MAX], kept: 0 }
    }
}

/// A data message whose last frame is not complete.
#[derive(Clone, Copy, Debug)]
struct Message {
    is_text: bool,
    /// Octets at the end of the buffer that begin a character: 0 to 3.
    unfinished_char: u8,
    fragments: u32,
}

impl Decoder {
    /// Nothing received yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes set aside for what is kept, beside the decoder itself.
    pub fn buffer_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Whether nothing is kept: no part of a frame, no unfinished message.
    pub fn is_idle(&self) -> bool {
        self.message.is_none() && matches!(self.progress, Progress::Header { kept: 0, .. })
    }

    /// Whether a data message has begun and is not complete; `timeouts.message` is counted from there.
    pub fn in_message(&self) -> bool {
        let begins = match &self.progress {
            Progress::Header { octets, kept } => *kept > 0 && octets[0] & 0x08 == 0,
            Progress::Payload(_) => false,
        };
        self.message.is_some() || begins
    }

    /// Heap bytes held for what is incomplete.
    pub fn kept_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Takes octets from the front of `input` (unmasking in place), of one frame at most: how many frames of a
    /// client are heard at once is the caller's to say.
    ///
    /// Gives how many octets were taken, and the event that the frame completed. `None` means that its message
    /// goes on, or that all input was taken and the frame is not complete. Call again with the rest.
    ///
    /// Errors: the first thing wrong, as early as it can be known: a length before its payload is
    /// read or anything allocated for it, UTF-8 at the octet that breaks it. The decoder is of no use after.
    pub fn handle_bytes<'a>(
        &mut self,
        input: &'a mut [u8],
        limits: &Limits,
    ) -> Result<(usize, Option<Event<'a>>), ProtocolError> {
        let input_bytes = input.len();
        let mut rest = input;
        let mut frame = match self.progress {
            Progress::Payload(frame) => frame,
            Progress::Header { octets, kept } => {
                let Some((frame, used)) = self.handle_header(octets, kept, rest, limits)? else {
                    return Ok((input_bytes, None));
                };
                rest = &mut rest[used..];
                frame
            }
        };
        let arrived = rest.len().min(frame.payload_bytes - frame.received_bytes);
        let (payload, after) = rest.split_at_mut(arrived);
        let used = input_bytes - after.len();
        mask::unmask(payload, frame.key, frame.received_bytes);
        if arrived == frame.payload_bytes && frame.fin && frame.opcode != Opcode::Continuation {
            return Ok((used, Some(self.finish_borrowed(frame.opcode, payload)?)));
        }
        self.keep(payload, &frame, limits)?;
        frame.received_bytes += arrived;
        if frame.received_bytes < frame.payload_bytes {
            self.progress = Progress::Payload(frame);
            return Ok((used, None));
        }
        self.progress = Progress::default();
        Ok((used, self.finish_kept(&frame)?))
    }

    /// The header of the next frame, if it is complete with `input`, for those who look on: right or wrong.
    pub fn next_header(&self, input: &[u8]) -> Option<Header> {
        let Progress::Header { mut octets, kept } = self.progress else { return None };
        let kept = usize::from(kept);
        let more = input.len().min(HEADER_BYTES_MAX - kept);
        octets[kept..kept + more].copy_from_slice(&input[..more]);
        Header::read(&octets[..kept + more]).map(|(header, _)| header)
    }

    /// Octets that the frame which has begun still lacks; 0 between frames and in a header.
    pub fn lacking_bytes(&self) -> usize {
        match &self.progress {
            Progress::Payload(frame) => frame.payload_bytes - frame.received_bytes,
            Progress::Header { .. } => 0,
        }
    }

    /// Completes a header from what was kept of it and the front of `rest`. Gives the frame and how much
    /// of `rest` its header took; `None` when all of `rest` was kept for later.
    fn handle_header(
        &mut self,
        mut octets: [u8; HEADER_BYTES_MAX],
        kept: u8,
        rest: &[u8],
        limits: &Limits,
    ) -> Result<Option<(Frame, usize)>, ProtocolError> {
        let unfinished = self
            .message
            .map(|message| Unfinished { message_bytes: self.buffer.len(), fragments: message.fragments });
        let kept = usize::from(kept);
        let decoded = if kept == 0 {
            frame::decode(rest, unfinished, limits)?
        } else {
            let more = rest.len().min(HEADER_BYTES_MAX - kept);
            octets[kept..kept + more].copy_from_slice(&rest[..more]);
            frame::decode(&octets[..kept + more], unfinished, limits)?
        };
        let Some((frame, header_bytes)) = decoded else {
            // Shorter than a header, or it would have been decoded.
            let seen = kept + rest.len();
            octets[kept..seen].copy_from_slice(rest);
            self.progress = Progress::Header { octets, kept: seen as u8 };
            return Ok(None);
        };
        match (&mut self.message, frame.opcode) {
            (Some(message), Opcode::Continuation) => message.fragments += 1,
            (message, Opcode::Text | Opcode::Binary) => {
                let is_text = frame.opcode == Opcode::Text;
                *message = Some(Message { is_text, unfinished_char: 0, fragments: 1 });
            }
            _ => {}
        }
        Ok(Some((frame, header_bytes - kept)))
    }

    /// Appends unmasked octets of a frame that is not complete, or of a message that is not.
    fn keep(&mut self, payload: &[u8], frame: &Frame, limits: &Limits) -> Result<(), ProtocolError> {
        let needed = self.buffer.len() + payload.len();
        if needed > self.buffer.capacity() {
            // Doubled, so that small fragments cost no copy each, but never beyond what may still come.
            let bytes_max = match frame.fin && !frame.opcode.is_control() {
                true => self.buffer.len() + frame.payload_bytes - frame.received_bytes,
                false => limits.message_bytes_max.saturating_add(CONTROL_BYTES_MAX),
            };
            let grown = self.buffer.capacity().saturating_mul(2).min(bytes_max).max(needed);
            self.buffer.reserve_exact(grown - self.buffer.len());
        }
        self.buffer.extend_from_slice(payload);
        if let Some(message) = self.message.as_mut().filter(|m| m.is_text && !frame.opcode.is_control()) {
            let checked = needed - payload.len() - usize::from(message.unfinished_char);
            message.unfinished_char = utf8::unfinished_tail(&self.buffer[checked..])?;
        }
        Ok(())
    }

    /// The event of an unfragmented frame that lies whole in the input.
    fn finish_borrowed<'a>(&mut self, opcode: Opcode, payload: &'a [u8]) -> Result<Event<'a>, ProtocolError> {
        self.progress = Progress::default();
        let payload = Cow::Borrowed(payload);
        if opcode.is_control() {
            return control_event(opcode, payload);
        }
        self.message = None;
        if opcode == Opcode::Text {
            utf8::check_whole(&payload)?;
            return Ok(Event::Text(payload));
        }
        Ok(Event::Binary(payload))
    }

    /// The event of a frame whose last octets have just been kept; `None` when its message goes on.
    fn finish_kept(&mut self, frame: &Frame) -> Result<Option<Event<'static>>, ProtocolError> {
        if frame.opcode.is_control() {
            let payload = match self.message {
                Some(_) => self.buffer.split_off(self.buffer.len() - frame.payload_bytes),
                None => std::mem::take(&mut self.buffer),
            };
            return control_event(frame.opcode, Cow::Owned(payload)).map(Some);
        }
        let Some(message) = self.message.take_if(|_| frame.fin) else { return Ok(None) };
        if message.unfinished_char > 0 {
            return Err(ProtocolError::BadUtf8);
        }
        let payload = Cow::Owned(std::mem::take(&mut self.buffer));
        Ok(Some(if message.is_text { Event::Text(payload) } else { Event::Binary(payload) }))
    }
}

fn control_event(opcode: Opcode, payload: Cow<'_, [u8]>) -> Result<Event<'_>, ProtocolError> {
    match opcode {
        Opcode::Ping => Ok(Event::Ping(payload)),
        Opcode::Close => {
            let code = frame::decode_close(&payload)?;
            let code_bytes = payload.len().min(2);
            let reason = match payload {
                Cow::Borrowed(payload) => Cow::Borrowed(&payload[code_bytes..]),
                Cow::Owned(payload) => Cow::Owned(payload[code_bytes..].to_vec()),
            };
            utf8::check_whole(&reason)?;
            Ok(Event::Close { code, reason })
        }
        _ => Ok(Event::Pong),
    }
}
