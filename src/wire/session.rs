//! From a request head to what the client wants: one place that decides what is served and refused.
//!
//! Pure. `shard::opening` performs what is decided here.

use bytes::Bytes;

use super::close::Refusal;
use super::request::Request;
use crate::message::{Position, Topic, UserId};

/// How an established client is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Transport {
    /// WebSocket, each push one frame holding exactly the payload.
    WebSocketRaw,
    /// WebSocket with the `corecast.v1` JSON subprotocol.
    WebSocketJson,
    /// `GET /echo`.
    WebSocketEcho,
}

/// A client that may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// How to speak to it.
    pub transport: Transport,
    /// Who it is; `None` is anonymous.
    pub user: Option<UserId>,
    /// First subscriptions, without duplicates.
    pub topics: Vec<Topic>,
    /// Where to resume.
    pub since: Option<Position>,
    /// Ping period in seconds, clamped to the configured bounds.
    pub heartbeat_s: u16,
    /// `Sec-WebSocket-Accept` (RFC 6455 4.2.2).
    pub accept: [u8; 28],
}

/// What the configuration says about requests, as plain numbers.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whether a client without a user may connect.
    pub anonymous: bool,
    /// Period where the client asks for none, and the bounds, in seconds.
    pub heartbeat_s: u16,
    /// See `heartbeat_s`.
    pub heartbeat_min_s: u16,
    /// See `heartbeat_s`.
    pub heartbeat_max_s: u16,
    /// Most topics of one connection.
    pub topics_max: u32,
    /// Whether `GET /echo` is served on this listener.
    pub echo: bool,
}

/// What a request comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// A client.
    Open(Opening),
    /// `GET /healthz`: 200.
    Health,
    /// `GET /readyz`: 200, or 503 while the gateway drains.
    Ready,
}

/// Decides what `request` comes to. Errors: the refusal to send (contract section 2).
pub fn route(request: &Request<'_>, policy: &Policy) -> Result<Route, Refusal> {
    let _ = (request, policy);
    todo!()
}

impl Opening {
    /// The 101 response, whole.
    pub fn response(&self) -> Bytes {
        todo!()
    }
}

/// A refusal as a whole HTTP response with `Connection: close` and the JSON error object.
pub fn refusal_response(refusal: &Refusal) -> Bytes {
    let _ = refusal;
    todo!()
}

/// A short answer (`healthz`, `readyz`) as a whole HTTP response with `Connection: close`.
pub fn plain_response(status: u16, body: &str) -> Bytes {
    let _ = (status, body);
    todo!()
}
