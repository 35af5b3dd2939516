//! What a shard tells control beside its answers: what happens to connections, for `/v1/events`.

use bytes::Bytes;

use crate::message::{ConnId, Kind, Topic, UserId};
use crate::stats::CloseReason;

/// What happened to a connection, for `/v1/events`.
#[derive(Clone, Debug)]
pub struct Event {
    /// The connection; `None` of a client that was refused, which never was one.
    pub connection: Option<ConnId>,
    /// Its user, unless anonymous or not known yet.
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
    /// An established client has more topics.
    Subscribe {
        /// Those that it did not have before.
        topics: Vec<Topic>,
        /// Who wanted it.
        by: Party,
    },
    /// An established client has fewer topics.
    Unsubscribe {
        /// Those that it had.
        topics: Vec<Topic>,
        /// Who wanted it.
        by: Party,
    },
    /// A client fell behind (`SLOW_PART` of `limits.send_backlog_bytes`): once until it has caught up. And once
    /// more where it is cut for that.
    Slow {
        /// Bytes that it has yet to take: of messages, and of frames of its own.
        lag_bytes: u64,
        /// Whether this was the end of it.
        cut: bool,
    },
    /// A client was not let in.
    Refused {
        /// HTTP status; `None` where it was closed without a word.
        status: Option<u16>,
        /// The code in the answer, or the reason of the end (`CloseReason::name`).
        code: &'static str,
        /// `ip:port`; `None` where several are told of at once.
        remote: Option<String>,
        /// How many: 1, or those of a second beyond `REFUSED_PER_SECOND`.
        count: u64,
    },
}

/// Who changed a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// The client itself.
    Client,
    /// A program on the control socket.
    Control,
}

impl Party {
    /// The name in events and traces.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Control => "control",
        }
    }
}

/// A client is slow once it lags by more than this part of `limits.send_backlog_bytes`.
pub const SLOW_PART: usize = 4;
/// Refusals told one by one in a second, on each shard. Those beyond are added up and told together.
pub const REFUSED_PER_SECOND: u32 = 10;

/// Bits of `Gate::events_wanted`, one per kind of `Happening`.
pub mod event_mask {
    /// `Happening::Connect`.
    pub const CONNECT: u64 = 1;
    /// `Happening::Disconnect`.
    pub const DISCONNECT: u64 = 2;
    /// `Happening::Uplink`.
    pub const UPLINK: u64 = 4;
    /// `Happening::Subscribe`.
    pub const SUBSCRIBE: u64 = 8;
    /// `Happening::Unsubscribe`.
    pub const UNSUBSCRIBE: u64 = 16;
    /// `Happening::Slow`.
    pub const SLOW: u64 = 32;
    /// `Happening::Refused`.
    pub const REFUSED: u64 = 64;

    /// Every kind, by the name that it is asked for with.
    pub const KINDS: [(&str, u64); 7] = [
        ("connect", CONNECT),
        ("disconnect", DISCONNECT),
        ("uplink", UPLINK),
        ("subscribe", SUBSCRIBE),
        ("unsubscribe", UNSUBSCRIBE),
        ("slow", SLOW),
        ("refused", REFUSED),
    ];
}
