//! The forms in which a message of the tape is written to clients, and what they depend on.

use std::cell::{Cell, OnceCell};

use bytes::Bytes;

/// How a message is written to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One WebSocket frame with exactly the payload.
    Raw,
    /// A `message` frame of `corecast.v1`.
    Envelope,
    /// An event of an event stream.
    Event,
    /// A message of a poll's answer, a comma before it.
    Item,
    /// The whole answer of a poll, with this message alone.
    Answer,
}

/// What an encoding depends on beside the message.
#[derive(Clone, Copy, Debug)]
pub struct Encoder<'a> {
    /// The gateway's.
    pub epoch: u32,
    /// `long_poll::begin` of a poll with no header lines of its own.
    pub poll_begin: &'a [u8],
    /// `Tape::encoded`.
    pub encoded: &'a Cell<usize>,
}

/// Forms that not every gateway is asked for.
#[derive(Debug, Default)]
pub(super) struct HttpForms {
    pub(super) event: OnceCell<Bytes>,
    pub(super) item: OnceCell<Bytes>,
    pub(super) answer: OnceCell<Bytes>,
}
