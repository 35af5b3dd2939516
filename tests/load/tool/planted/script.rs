//! What is wrong with the server: nothing, unless a field says so.
//!
//! Every fault stands at a number (of a message, of a connection, of a request), so that a test can say
//! beforehand how often it happens. Nothing here is random.

use std::ops::Range;
use std::time::Duration;

/// Stands for "at every multiple of it"; 0 is never.
pub type Every = u64;

/// Whether `every` falls on `number`.
pub fn falls_on(every: Every, number: u64) -> bool {
    every > 0 && number.is_multiple_of(every)
}

/// How long a message waits for a connection: message number, connection number.
pub type Delay = fn(u64, u32) -> Duration;

/// Everything that can be planted.
#[derive(Clone, Debug)]
pub struct Script {
    /// Messages that are never sent.
    pub drops: Every,
    /// Messages that are sent twice.
    pub doubles: Every,
    /// Messages that are sent after the one that follows them.
    pub swaps: Every,
    /// How long each message waits before it is written; the order within a connection stays.
    pub delay: Delay,
    /// The whole server stands still once, when it comes to this request (an echo, a plain request).
    pub stall: Option<(u64, Duration)>,
    /// How octets go out.
    pub writing: Writing,
    /// A ping before each message; the message waits for its pong.
    pub pings: bool,
    /// Connections that the server ends.
    pub endings: Vec<Ending>,
    /// Connections whose handshake is not answered as it should be.
    pub openings: Vec<Opening>,
    /// Requests and echoes that are not answered as they should be; the first that falls on a request is it.
    pub answers: Vec<(Every, Answer)>,
    /// How the bodies of plain responses, of polls and of event streams are framed.
    pub framing: Framing,
    /// `retry:` at the beginning of an event stream, in milliseconds.
    pub retry_ms: Option<u64>,
    /// SO_SNDBUF of its connections, where it is not the kernel's choice.
    pub socket_send_bytes: Option<usize>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            drops: 0,
            doubles: 0,
            swaps: 0,
            delay: |_, _| Duration::ZERO,
            stall: None,
            writing: Writing::Whole,
            pings: false,
            endings: Vec::new(),
            openings: Vec::new(),
            answers: Vec::new(),
            framing: Framing::Length,
            retry_ms: None,
            socket_send_bytes: None,
        }
    }
}

/// How octets go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// As one.
    Whole,
    /// One `write` for each octet.
    Octets,
    /// A WebSocket message in so many frames, with a ping between them.
    Fragments(usize),
}

/// The end of some connections by the server.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Which, by the number in their URL.
    pub connections: Range<u32>,
    /// After so many messages; 0 is as soon as they are open.
    pub after: u64,
    /// How.
    pub how: End,
}

/// How a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A close frame with a reason, and the end once it is answered; without one on other transports.
    Close(u16, &'static str),
    /// No close frame.
    Silent,
    /// RST.
    Reset,
}

/// Every handshake of a connection.
pub const ALWAYS: Range<u32> = 0..u32::MAX;

/// A handshake that is not answered as it should be.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Which, by the number in their URL.
    pub connections: Range<u32>,
    /// Which handshakes of each, the first is 0; the others are answered well.
    pub attempts: Range<u32>,
    /// How.
    pub how: Greeting,
}

/// How a handshake is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// Well, but after this long.
    Late(Duration),
    /// Not at all; the connection stays.
    Never,
    /// With this status, and `Retry-After` where given.
    Refused(u16, Option<u32>),
    /// With octets that are no HTTP.
    Garbage,
    /// With the accept of another key.
    WrongAccept,
    /// FIN.
    Ended,
    /// RST.
    Reset,
}

/// How a request or an echo is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With this status.
    Status(u16),
    /// With `"ok":false` in the JSON.
    WrongJson,
    /// With another body.
    WrongBody,
    /// Well, but after this long.
    Late(Duration),
    /// Not at all.
    Never,
    /// FIN.
    Ended,
    /// RST.
    Reset,
    /// With octets that are no HTTP, and no frame.
    Garbage,
}

/// How a response says where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Content-Length.
    Length,
    /// In chunks of 1, 2, 3 ... octets.
    Chunks,
    /// By the end of the connection.
    UntilClose,
}
