//! What a shard tells control beside its answers: what happens to connections, for `/v1/events`.

use bytes::Bytes;

use crate::message::{ConnId, Kind, Topic, UserId};
use crate::stats::CloseReason;

/// What happened to a connection, for `/v1/events`.
#[derive(Clone, Debug)]
pub struct Event {
    /// The connection.
    pub connection: ConnId,
    /// Its user, unless anonymous.
    pub user: Option<UserId>,
    /// Unix time in milliseconds.
    pub at_ms: u64,
    /// What.
    pub what: Happening,
}

/// The kinds of events.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A client was established.
    Connect {
        /// `ws`, `sse`, `poll` or `echo`.
        transport: &'static str,
        /// `ip:port`.
        remote: String,
        /// Its first topics.
        topics: Vec<Topic>,
    },
    /// An established client ended.
    Disconnect {
        /// Why.
        reason: CloseReason,
        /// The WebSocket close code sent or received, where there was one.
        code: Option<u16>,
    },
    /// A data message from a client.
    Uplink {
        /// The topic it names, under `corecast.v1`.
        topic: Option<Topic>,
        /// Text (UTF-8) or JSON, or binary.
        kind: Kind,
        /// The payload.
        data: Bytes,
    },
}

/// Bits of `Gate::events_wanted`, one per kind of `Happening`.
pub mod event_mask {
    /// `Happening::Connect`.
    pub const CONNECT: u64 = 1;
    /// `Happening::Disconnect`.
    pub const DISCONNECT: u64 = 2;
    /// `Happening::Uplink`.
    pub const UPLINK: u64 = 4;
}
