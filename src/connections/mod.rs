//! What may be asked about connections, and what is told of them.
//!
//! Words that the command line, control and the shards share; pure. A list is a `Query`: whom it is about
//! (`filter`), in which order and how many (`page`). A shard is asked for it in short steps (`step`), so that no
//! list holds up a push. Next: `shard::listing`, which looks, and `control::scans`, which asks.

mod filter;
mod page;
mod step;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use filter::{BadRemote, Filter, Remote};
pub use page::{BadCursor, Cursor, Key, LIMIT_DEFAULT, LIMIT_MAX, Page};
pub use step::{Budget, Found, ListingStep, Place};

use crate::message::{ConnId, Position, Topic, UserId, borrowed};

/// A list of connections, as asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Whom it is about.
    pub filter: Filter,
    /// In which order.
    pub sort: Sort,
    /// How many at most: 1 to `LIMIT_MAX`; `LIMIT_DEFAULT` unless given.
    pub limit: Option<u32>,
    /// Goes on behind this: `Listing::next` of the list before, of the same sort.
    pub after: Option<Cursor>,
}

/// A list of connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// In the order that was asked for.
    pub connections: Vec<Row>,
    /// Where the list goes on; `None` where it ends.
    pub next: Option<Cursor>,
}

/// One established connection in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The connection.
    pub id: ConnId,
    /// Its user, unless anonymous.
    pub user: Option<UserId>,
    /// How it is spoken to.
    pub transport: Transport,
    /// `ip:port` of the client.
    #[serde(deserialize_with = "borrowed::text")]
    pub remote: String,
    /// Unix time in milliseconds; of a poll, when it began.
    pub connected_at: u64,
    /// What it is subscribed to.
    pub topics: Vec<Topic>,
    /// Messages that wait for it in the gateway; those whose time to live is over are among them.
    pub lag_messages: u64,
    /// Octets that wait for it in the gateway: messages as raw WebSocket frames, and frames of its own.
    pub lag_bytes: u64,
    /// Milliseconds since it last sent anything, answers to pings included (`ring::TcpInfo`). The client of an
    /// event stream sends nothing after its request.
    pub idle_ms: u64,
    /// Why something waits for it; `None` where nothing does.
    pub reason: Option<Reason>,
}

/// Everything that is known of one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// As in a list.
    pub row: Row,
    /// Where in its life it is.
    pub state: State,
    /// Up to where it was sent everything.
    pub position: Position,
    /// Seconds between pings; `None` for a poll, which has none.
    pub heartbeat_s: Option<u16>,
    /// Octets in the kernel's send queue, sent or not, that the client has not acknowledged.
    pub send_queue_bytes: u64,
    /// Round trip time and its mean deviation, in microseconds.
    pub rtt_us: u64,
    /// See `rtt_us`.
    pub rtt_var_us: u64,
    /// Segments that were sent more than once.
    pub retransmits: u64,
    /// Octets that the client has acknowledged, the answer to its request included.
    pub bytes_sent: u64,
    /// Octets that came from the client, its request included.
    pub bytes_received: u64,
    /// Octets of its own (replies, the rest of a frame that was begun) that wait; part of `lag_bytes`.
    pub outbox_bytes: u64,
    /// `corecast.v1`, or none.
    pub is_json: bool,
    /// Milliseconds since `connected_at`.
    pub age_ms: u64,
}

impl Detail {
    /// As `GET /v1/connections/{id}` shows it: one object, the fields of a list first.
    pub fn to_json(&self) -> Value {
        let mut all = json!(self.row);
        let subprotocol = self.is_json.then_some("corecast.v1");
        let more = json!({
            "state": self.state, "position": self.position, "heartbeat_s": self.heartbeat_s,
            "send_queue_bytes": self.send_queue_bytes, "rtt_us": self.rtt_us, "rtt_var_us": self.rtt_var_us,
            "retransmits": self.retransmits, "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received, "outbox_bytes": self.outbox_bytes,
            "subprotocol": subprotocol, "age_ms": self.age_ms,
        });
        if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
            all.extend(more);
        }
        all
    }
}

/// One established connection in a dump of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// See `Row`.
    pub id: ConnId,
    /// See `Row`.
    pub user: Option<UserId>,
    /// See `Row`.
    pub transport: Transport,
    /// See `Row`.
    #[serde(deserialize_with = "borrowed::text")]
    pub remote: String,
    /// See `Row`.
    pub connected_at: u64,
    /// See `Row`.
    pub topics: Vec<Topic>,
}

impl From<Row> for Session {
    fn from(row: Row) -> Self {
        let Row { id, user, transport, remote, connected_at, topics, .. } = row;
        Self { id, user, transport, remote, connected_at, topics }
    }
}

/// The end of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsEnd {
    /// How many were told.
    pub connections: u64,
    /// The newest position when the dump began: who was connected then, and was to its end, is in it.
    pub position: Position,
}

impl SessionsEnd {
    /// The last line of `GET /v1/sessions`.
    pub fn to_json(&self) -> Value {
        json!({ "end": true, "connections": self.connections, "position": self.position })
    }
}

/// A set of words that JSON, the query string and the command line share.
macro_rules! words {
    ($(#[$about:meta])* $name:ident: $($(#[$what:meta])* $word:ident = $text:literal),+ $(,)?) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$what])* #[serde(rename = $text)] $word,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$word),+];

            /// As it is written.
            pub fn name(self) -> &'static str {
                match self { $(Self::$word => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = BadWord;
            fn from_str(text: &str) -> Result<Self, BadWord> {
                let found = Self::ALL.iter().find(|word| word.name() == text);
                found.copied().ok_or(BadWord(&[$($text),+]))
            }
        }
    };
}

/// The text is none of these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadWord(&'static [&'static str]);

impl fmt::Display for BadWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "must be one of {}", self.0.join(", "))
    }
}

impl std::error::Error for BadWord {}

words! {
    /// How a client is spoken to.
    Transport:
    /// A WebSocket, raw or under `corecast.v1`.
    WebSocket = "ws",
    /// An event stream.
    EventStream = "sse",
    /// A poll that is held.
    LongPoll = "poll",
    /// A WebSocket of `GET /echo`.
    Echo = "echo",
}

words! {
    /// The order of a list.
    #[derive(Default)]
    Sort:
    /// Ascending: by shard, then slot.
    #[default]
    Id = "id",
    /// The furthest behind first, by bytes.
    Lag = "lag",
    /// The longest idle first.
    Idle = "idle",
    /// The longest connected first.
    Age = "age",
}

words! {
    /// Where a connection is in its life.
    State:
    /// Its request, or that of its next poll, is not complete.
    Handshake = "handshake",
    /// An established client.
    Open = "open",
    /// Ended: it has yet to take the last words, or to end its side.
    Closing = "closing",
}

words! {
    /// Why something waits for a connection.
    Reason:
    /// Its send buffer in our kernel is full, and what went out is not all acknowledged yet.
    SocketFull = "socket_full",
    /// The peer's receive buffer is full: the program there does not read.
    NotReading = "not_reading",
    /// Nothing is acknowledged, and the kernel sends again: the network, or the host there, is slow or gone.
    NotAcknowledging = "not_acknowledging",
    /// It catches up with what it asked for by resuming.
    Replaying = "replaying",
    /// Its turn comes: the shard has not sent it yet.
    Sending = "sending",
    /// The connection ends, and its last words wait.
    Closing = "closing",
}

impl Reason {
    /// What it means, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::SocketFull => "the kernel's send buffer is full; what went out is not all acknowledged yet",
            Self::NotReading => "the client does not read: its receive buffer is full",
            Self::NotAcknowledging => {
                "the network or the client's host does not answer; the kernel sends again"
            }
            Self::Replaying => "it catches up after it came back with a position",
            Self::Sending => "the shard has not come to it yet",
            Self::Closing => "it was told to go, and has not taken it yet",
        }
    }

    /// What to do about it, for people.
    pub fn advice(self) -> &'static str {
        match self {
            Self::SocketFull => {
                "look again in a second: if LAG grows, it takes less than is pushed; push less, or raise \
                 limits.socket_send_bytes for long distances"
            }
            Self::NotReading => {
                "the fault is in that client; it is cut after timeouts.send, or now: corecast kick --connection"
            }
            Self::NotAcknowledging => {
                "corecast connections ID shows round trips and retransmits; many of one network: ask who runs it"
            }
            Self::Replaying => {
                "nothing; where it lasts, history.messages and history.bytes bound how much it is"
            }
            Self::Sending => "nothing for one; for many at once the shard is busy: corecast stats, top -H",
            Self::Closing => "nothing: it is let go after timeouts.close",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issue_7_words_are_written_alike_in_json_and_text() {
        for &reason in Reason::ALL {
            assert_eq!(json!(reason), reason.name());
            assert_eq!(reason.name().parse(), Ok(reason));
        }
        assert_eq!("udp".parse::<Transport>().unwrap_err().to_string(), "must be one of ws, sse, poll, echo");
    }

    #[test]
    fn issue_7_a_connection_in_full_is_one_object_that_begins_as_in_a_list() {
        let row = Row {
            id: ConnId { shard: 0, index: 5, generation: 1 },
            user: None,
            transport: Transport::WebSocket,
            remote: "192.0.2.7:1".to_owned(),
            connected_at: 5,
            topics: Vec::new(),
            lag_messages: 0,
            lag_bytes: 0,
            idle_ms: 7,
            reason: None,
        };
        let detail = Detail {
            row: row.clone(),
            state: State::Open,
            position: Position { epoch: 0xa1, seq: 3 },
            heartbeat_s: Some(60),
            send_queue_bytes: 0,
            rtt_us: 80,
            rtt_var_us: 4,
            retransmits: 0,
            bytes_sent: 129,
            bytes_received: 200,
            outbox_bytes: 0,
            is_json: true,
            age_ms: 12,
        };
        let shown = detail.to_json();
        assert_eq!(
            (&shown["id"], &shown["user"], &shown["idle_ms"]),
            (&json!("0-5-1"), &Value::Null, &json!(7))
        );
        assert_eq!((&shown["state"], &shown["subprotocol"]), (&json!("open"), &json!("corecast.v1")));
        assert_eq!((&shown["position"], &shown["rtt_us"]), (&json!("000000a1-3"), &json!(80)));
        assert_eq!(json!(Session::from(row)).as_object().unwrap().len(), 6);
    }
}
