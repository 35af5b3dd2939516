//! What a shard tells control of those who are traced, for `/v1/trace`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::happenings::Party;
use crate::message::{ConnId, Position, Topic, UserId};
use crate::stats::CloseReason;
use crate::wire::websocket::Header;

/// Names one trace; given by control and never given again.
pub type TraceId = u64;

/// Who is traced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Traced {
    /// All connections of a user, those that come later too.
    User(UserId),
    /// One connection.
    Connection(ConnId),
}

/// One line of a trace.
#[derive(Clone, Debug)]
pub struct Step {
    /// Of which.
    pub trace: TraceId,
    /// Since the trace began. Steps of one turn of a shard have the same.
    pub after: Duration,
    /// Whose step. A connection that is handed over goes on under another name.
    pub connection: ConnId,
    /// What.
    pub what: Act,
}

/// What was seen or decided. Never a token or a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// A request of the user was heard.
    Asked {
        /// `ws`, `sse`, `poll` or `echo`.
        transport: &'static str,
        /// `ip:port`.
        remote: String,
        /// The topics it wants.
        topics: Vec<Topic>,
        /// Where it wants to resume.
        since: Option<Position>,
    },
    /// It was not let in; `Closed` follows.
    Refused {
        /// HTTP status.
        status: u16,
        /// The code in the answer.
        code: &'static str,
        /// The message in the answer.
        message: String,
    },
    /// It goes on at the shard that owns the user.
    HandedOver {
        /// Which.
        shard: u16,
    },
    /// It is an established client: the upgrade, or the answer of a stream, is on its way.
    Opened {
        /// As in `Asked`.
        transport: &'static str,
        /// `ip:port`.
        remote: String,
        /// What it is subscribed to.
        topics: Vec<Topic>,
        /// Seconds between pings; of a poll, how long it is held.
        heartbeat_s: u16,
    },
    /// It went on from a position.
    Resumed {
        /// The one that it named; `None` for what is none.
        since: Option<Position>,
        /// Messages that are sent again.
        replayed: u64,
        /// Whether some are no longer held.
        gap: bool,
    },
    /// It has more topics.
    Subscribed {
        /// Those that it did not have.
        topics: Vec<Topic>,
        /// Who wanted it.
        by: Party,
    },
    /// It has fewer topics.
    Unsubscribed {
        /// Those that it had.
        topics: Vec<Topic>,
        /// Who wanted it.
        by: Party,
    },
    /// A message was handed to it: it is marked behind until that is sent.
    Handed {
        /// The message's.
        position: Position,
    },
    /// A WebSocket frame: heard, or begun to be taken by the socket.
    Frame {
        /// To the client, or from it.
        outward: bool,
        /// Its header.
        header: Header,
        /// Of the pushed message in it, where it is one.
        position: Option<Position>,
    },
    /// An HTTP response was begun to be taken by the socket: that of a poll with its messages.
    Response {
        /// Its status.
        status: u16,
        /// Its length, or that of its head where a stream follows.
        bytes: usize,
    },
    /// Octets of an event stream, or more of a response, were begun to be taken by the socket.
    Octets {
        /// How many.
        bytes: usize,
        /// Of the pushed message in it, where it is one.
        position: Option<Position>,
    },
    /// The socket takes no more for now.
    Blocked {
        /// Bytes of messages that it has yet to be sent.
        lag_bytes: usize,
        /// Bytes of frames of its own, and of one that was begun.
        outbox_bytes: usize,
        /// Bytes that the kernel holds for it (SIOCOUTQ).
        send_queue_bytes: u32,
    },
    /// The socket takes bytes again.
    Writable,
    /// Its end was decided.
    Closed {
        /// Why.
        reason: CloseReason,
        /// The WebSocket close code sent or echoed, where there is one.
        code: Option<u16>,
        /// The reason in the close frame, where there is one.
        message: Option<String>,
    },
    /// Its socket was let go.
    Gone,
}
