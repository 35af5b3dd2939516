//! What local programs may ask of the gateway, and what they get: shared by both control protocols,
//! the client library and the command line.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::tally::Tally;
use crate::auth::Secret;
use crate::connections::{Detail, Listing, Query, Session, SessionsEnd};
use crate::message::{ConnId, Kind, Position, Target, Topic, UserId, borrowed};
use crate::shard::mailbox::{Presence, Traced};
use crate::stats::ShardStats;

/// One push, as asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Push {
    /// Whom it is for.
    pub target: Target,
    /// What the payload is; checked by the gateway.
    pub kind: Kind,
    /// At most `limits.message_bytes`.
    #[serde(deserialize_with = "borrowed::payload")]
    pub payload: Bytes,
    /// The event name, for event streams: at most 256 bytes, no CR, LF or NUL.
    #[serde(deserialize_with = "borrowed::optional_text")]
    pub event: Option<String>,
    /// Not delivered later than this after acceptance, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// Idempotency key, 1 to 256 bytes: for 5 minutes the same key gets the first answer and pushes
    /// nothing.
    #[serde(deserialize_with = "borrowed::optional_text")]
    pub id: Option<String>,
}

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// One push: `Answer::Pushed`.
    Push(Push),
    /// Several, in order, each accepted or refused by itself: `Answer::Batch`.
    PushBatch(Vec<Push>),
    /// A user's connections: `Answer::Presence`.
    Presence(UserId),
    /// Close all of a user's connections: `Answer::Closed`.
    KickUser {
        /// Whose.
        user: UserId,
        /// 1000 or 4000 to 4999; 4500 unless given.
        code: Option<u16>,
        /// At most 123 bytes.
        #[serde(deserialize_with = "borrowed::optional_text")]
        reason: Option<String>,
    },
    /// Close one connection: `Answer::Closed`.
    KickConnection {
        /// Which.
        connection: ConnId,
        /// 1000 or 4000 to 4999; 4500 unless given.
        code: Option<u16>,
        /// At most 123 bytes.
        #[serde(deserialize_with = "borrowed::optional_text")]
        reason: Option<String>,
    },
    /// Subscribe all of a user's connections: `Answer::Bound`.
    Bind {
        /// Whose.
        user: UserId,
        /// To what.
        topic: Topic,
    },
    /// The opposite: `Answer::Bound`.
    Unbind {
        /// Whose.
        user: UserId,
        /// From what.
        topic: Topic,
    },
    /// The first 10,000 topics with subscribers, by name: `Answer::Topics`. Where there may be more: `TopicsPage`.
    Topics,
    /// One topic: `Answer::Topics` with one entry.
    Topic(Topic),
    /// `Answer::Stats`.
    Stats,
    /// A stream of `Answer::Event` under the same correlation id, until the connection ends.
    Events {
        /// `shard::mailbox::event_mask` bits.
        mask: u64,
    },
    /// A stream of `Answer::Drain` until the gateway exits.
    Drain {
        /// `timeouts.drain` unless given.
        within_ms: Option<u64>,
    },
    /// `Answer::Version`.
    Version,
    /// Make a ticket: `Answer::Ticket`.
    Ticket(TicketRequest),
    /// Show or change what is logged: `Answer::Log`.
    Log(LogRequest),
    /// `Answer::Process`.
    Process,
    /// As `Events`, of those that pass a filter.
    EventsWhere(EventFilter),
    /// A stream of `Answer::Step` under the same correlation id, until the connection ends.
    Trace(Traced),
    /// Connections: `Answer::Connections`.
    Connections(Query),
    /// Everything about one connection: `Answer::Connection`, or `not_found`.
    Connection(ConnId),
    /// All established connections: `Answer::Sessions` under the same correlation id, piece by piece, then
    /// `Answer::SessionsEnd`.
    Sessions,
    /// A stream of `Answer::Stats`, one now and one each interval, until the connection ends. Who does not take
    /// one does not get it later: the next one comes instead.
    StatsEvery {
        /// The interval in milliseconds, 100 to 3,600,000.
        every_ms: u64,
    },
    /// A page of the topics with subscribers, by name: `Answer::TopicsPage`.
    TopicsPage(TopicsQuery),
}

/// A page of topics, as asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicsQuery {
    /// Those behind this name; from the first on unless given.
    pub after: Option<Topic>,
    /// How many at most: 1 to 10,000; 1,000 unless given.
    pub limit: Option<u32>,
}

/// Which events a reader wants: those that pass all of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventFilter {
    /// `shard::mailbox::event_mask` bits.
    pub mask: u64,
    /// Patterns (`auth::topics`), one of which a topic of the event has to match; none of them is any event, with
    /// topics or without.
    pub topics: Vec<Topic>,
    /// Whose.
    pub user: Option<UserId>,
}

/// What is asked about the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogRequest {
    /// Nothing changes.
    Show,
    /// Another level, over what `log.level` says.
    Set {
        /// `config::LOG_LEVELS`.
        #[serde(deserialize_with = "borrowed::text")]
        level: String,
        /// Of which part of the gateway (`LOG_TARGETS`); of everything unless given.
        #[serde(deserialize_with = "borrowed::optional_text")]
        target: Option<String>,
        /// For how long, in milliseconds, at most a day; until it is reset unless given.
        for_ms: Option<u64>,
    },
    /// `log.level` alone counts again.
    Reset,
}

/// What can be named as the target of a log level: the parts of the gateway that write lines.
pub const LOG_TARGETS: [&str; 5] = ["cli", "control", "gateway", "service", "shard"];

/// A ticket, as asked (`auth.mode = "ticket"`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TicketRequest {
    /// Whose connection it will be.
    pub user: UserId,
    /// Patterns of topics that it may subscribe to (`auth::topics`); `None` is any.
    pub topics: Option<Vec<Topic>>,
    /// How long the ticket waits to be used, in milliseconds, at most an hour; `auth.ticket_ttl` unless given.
    pub ttl_ms: Option<u64>,
    /// How long the connection may last, in milliseconds; without end unless given.
    pub connection_ttl_ms: Option<u64>,
    /// Most connections of the user, this one included.
    pub max_connections: Option<u32>,
    /// Whether it replaces the user's other connections.
    pub single: bool,
}

/// What comes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The push was accepted.
    Pushed(Pushed),
    /// What became of each push of a batch.
    Batch(BatchAnswer),
    /// A user's connections.
    Presence(Vec<Presence>),
    /// How many connections were closed.
    Closed(u64),
    /// How many connections were bound or unbound.
    Bound(u64),
    /// Topics over all shards, by name.
    Topics(Vec<TopicAnswer>),
    /// The counters.
    Stats(Box<Stats>),
    /// One event as its JSON line, without the newline.
    Event(#[serde(deserialize_with = "borrowed::text")] String),
    /// How a drain goes on.
    Drain(DrainProgress),
    /// The gateway's version.
    Version(#[serde(deserialize_with = "borrowed::text")] String),
    /// A ticket.
    Ticket(TicketAnswer),
    /// What is logged.
    Log(LogAnswer),
    /// The gateway's process.
    Process {
        /// Its number, where it runs.
        pid: u32,
    },
    /// One step of a trace as its JSON line, without the newline.
    Step(#[serde(deserialize_with = "borrowed::text")] String),
    /// A page of connections.
    Connections(Listing),
    /// One connection.
    Connection(Box<Detail>),
    /// A piece of the dump of all, perhaps empty.
    Sessions(Vec<Session>),
    /// The dump is complete.
    SessionsEnd(SessionsEnd),
    /// A page of topics.
    TopicsPage(TopicsPage),
}

/// A page of topics over all shards, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicsPage {
    /// Each with what was counted while the page was gathered.
    pub topics: Vec<TopicAnswer>,
    /// The last of them, to go on `after`; `None` where the list ends.
    pub next: Option<Topic>,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogAnswer {
    /// The filter in effect, as `log.level` is written.
    #[serde(deserialize_with = "borrowed::text")]
    pub filter: String,
    /// `log.level` of the configuration.
    #[serde(deserialize_with = "borrowed::text")]
    pub level: String,
    /// What is set over it.
    pub overrides: Vec<LogOverride>,
}

/// A level that is set over the configuration's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOverride {
    /// Of which part; `None` is everything.
    #[serde(deserialize_with = "borrowed::optional_text")]
    pub target: Option<String>,
    /// Which.
    #[serde(deserialize_with = "borrowed::text")]
    pub level: String,
    /// Until when, in milliseconds of Unix time; `None` is until it is reset.
    pub until: Option<u64>,
}

/// A ticket that waits to be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketAnswer {
    /// To be presented once, as `ticket=` in the query.
    pub ticket: Secret,
    /// Until when, in milliseconds of Unix time.
    pub expires_at: u64,
}

/// An accepted push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// Where it stands.
    pub position: Position,
    /// Live connections that it was handed to.
    pub connections: u64,
}

/// A batch of pushes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchAnswer {
    /// How many were accepted.
    pub accepted: u64,
    /// How many were refused.
    pub refused: u64,
    /// The refused ones.
    pub errors: Vec<BatchError>,
    /// Of the last accepted one.
    pub position: Option<Position>,
    /// Live connections reached, over all accepted ones.
    pub connections: u64,
}

/// One refused push of a batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchError {
    /// Which, counted from 1.
    pub line: u64,
    /// As in `CommandError`.
    pub code: ErrorCode,
    /// As in `CommandError`.
    #[serde(deserialize_with = "borrowed::text")]
    pub message: String,
}

/// One topic over all shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicAnswer {
    /// The topic.
    pub topic: Topic,
    /// Connections subscribed.
    pub connections: u64,
    /// Of its newest message that is held; `None` where none is.
    pub position: Option<Position>,
    /// Pushes to it since a shard has known it. Begins at 0 again once nobody is subscribed and nothing of it is
    /// held, and after `u32::MAX`.
    pub pushes: u32,
}

/// All counters.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stats {
    /// Program version.
    #[serde(deserialize_with = "borrowed::text")]
    pub version: String,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Milliseconds since start: what divides the difference between two readings.
    pub uptime_ms: u64,
    /// The newest position given out.
    pub position: Position,
    /// Whether it drains.
    pub draining: bool,
    /// Pushes accepted, and refused by the sequencer (`busy` among them).
    pub accepted: u64,
    /// See `accepted`.
    pub refused: u64,
    /// Of `refused`: for want of room in a mailbox.
    pub busy: u64,
    /// Other configurations taken over.
    pub reloads: u64,
    /// Other configurations refused.
    pub reloads_refused: u64,
    /// Memory in use and its limit, in bytes; 0 where nothing limits it.
    pub memory_used_bytes: u64,
    /// See `memory_used_bytes`.
    pub memory_limit_bytes: u64,
    /// Tickets that wait to be used.
    pub tickets: u64,
    /// Control clients connected now.
    pub control_clients: u64,
    /// What they have asked so far, and what became of it.
    pub requests: Tally,
    /// File descriptors open now; before Linux 6.2 only those of clients are counted.
    pub descriptors: u64,
    /// Most that there may be (RLIMIT_NOFILE).
    pub descriptors_max: u64,
    /// Clients of the admin listener connected now.
    pub admin_clients: u64,
    /// Requests to it without the token where it is needed, or with a wrong one.
    pub admin_unauthorized: u64,
    /// Addresses with a connection that counts against `limits.connections_per_address`.
    pub counted_addresses: u64,
    /// Each shard's.
    pub shards: Vec<ShardStats>,
}

/// How a drain goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainProgress {
    /// Clients still connected.
    pub connections: u64,
    /// Milliseconds since the drain began.
    pub elapsed_ms: u64,
}

/// The caller's fault, or `busy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Malformed request.
    BadRequest,
    /// No such path, or nobody has that id.
    NotFound,
    /// Path exists, method does not.
    MethodNotAllowed,
    /// `to` is missing or malformed, or a connection id is.
    BadTarget,
    /// Not a user id.
    BadUser,
    /// Not a topic.
    BadTopic,
    /// Payload is not what its kind says, or an event name has CR, LF or NUL.
    BadPayload,
    /// Payload or body over the limit.
    TooLarge,
    /// Nothing was accepted; try again.
    Busy,
    /// This peer may not command.
    Forbidden,
}

/// A refused command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandError {
    /// Which kind.
    pub code: ErrorCode,
    /// For people.
    #[serde(deserialize_with = "borrowed::text")]
    pub message: String,
}

impl CommandError {
    /// A refusal of `code` with a message for people.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

impl std::error::Error for CommandError {}

impl ErrorCode {
    /// The name in JSON and on the command line (contract section 3).
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BadTarget => "bad_target",
            Self::BadUser => "bad_user",
            Self::BadTopic => "bad_topic",
            Self::BadPayload => "bad_payload",
            Self::TooLarge => "too_large",
            Self::Busy => "busy",
            Self::Forbidden => "forbidden",
        }
    }
}
