//! The `corecast.v1` JSON subprotocol (contract section 2): frames in and out.
//!
//! Every encoder gives a whole WebSocket text frame, ready to send.

use bytes::Bytes;

use crate::message::{ConnId, Message, Position, Topic};

/// The `id` of a client's frame, any JSON value, echoed exactly as sent.
pub type EchoId = Option<Box<serde_json::value::RawValue>>;

/// What a client asks.
#[derive(Debug)]
pub enum ClientFrame {
    /// `subscribe`
    Subscribe {
        /// Without duplicates, each valid.
        topics: Vec<Topic>,
        /// Replay these topics from here.
        since: Option<Position>,
        /// Echoed.
        id: EchoId,
    },
    /// `unsubscribe`
    Unsubscribe {
        /// Without duplicates, each valid.
        topics: Vec<Topic>,
        /// Echoed.
        id: EchoId,
    },
    /// `uplink`
    Uplink {
        /// One JSON value, exactly as sent.
        data: Bytes,
        /// Where it names one.
        topic: Option<Topic>,
        /// Echoed in an error.
        id: EchoId,
    },
    /// `ping`
    Ping {
        /// Echoed.
        id: EchoId,
    },
}

/// A frame that is answered with `error`; the connection stays open.
#[derive(Debug)]
pub struct FrameError {
    /// `bad_request` (not an object, a field of the wrong shape), `bad_type`, `bad_topic`, ...
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// Echoed where it could be read.
    pub id: EchoId,
}

/// Parses one text message. Unknown fields are ignored. Errors: `FrameError`.
pub fn parse(text: &[u8]) -> Result<ClientFrame, FrameError> {
    let _ = text;
    todo!()
}

/// `hello`
pub fn hello(connection: ConnId, position: Position, heartbeat_s: u16) -> Bytes {
    let _ = (connection, position, heartbeat_s);
    todo!()
}

/// `message`: `data` is the payload as it stands (json), a string (text) or base64 with
/// `"encoding":"base64"` (binary).
pub fn message(message: &Message, epoch: u32) -> Bytes {
    let _ = (message, epoch);
    todo!()
}

/// `resumed`
pub fn resumed(replayed: u64, gap: bool) -> Bytes {
    let _ = (replayed, gap);
    todo!()
}

/// `subscribed`
pub fn subscribed(topics: &[Topic], position: Position, id: &EchoId) -> Bytes {
    let _ = (topics, position, id);
    todo!()
}

/// `unsubscribed`
pub fn unsubscribed(topics: &[Topic], position: Position, id: &EchoId) -> Bytes {
    let _ = (topics, position, id);
    todo!()
}

/// `pong`
pub fn pong(id: &EchoId) -> Bytes {
    let _ = id;
    todo!()
}

/// `reconnect`
pub fn reconnect(after_ms: u64, reason: &str) -> Bytes {
    let _ = (after_ms, reason);
    todo!()
}

/// `error`
pub fn error(code: &str, message: &str, id: &EchoId) -> Bytes {
    let _ = (code, message, id);
    todo!()
}
