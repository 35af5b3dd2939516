//! What a worker is told to do, and what it tells: the words between the coordinator and its workers.
//!
//! One JSON object a line, over a Unix socket that the worker opens (`coordinator::crew`, `worker`). A plan
//! is complete: a worker reads no argument and no file but the CSV it names. Times are nanoseconds of
//! CLOCK_MONOTONIC, which all processes of a machine share.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::record::{Counts, Delta};

/// How a connection speaks to the server.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// WebSocket (RFC 6455).
    #[value(name = "ws")]
    WebSocket,
    /// `text/event-stream`.
    #[value(name = "sse")]
    EventStream,
    /// One held HTTP request after another.
    #[value(name = "poll")]
    LongPoll,
    /// HTTP/1.1 requests and responses.
    #[value(name = "http")]
    Http,
    /// A connect and nothing more; what arrives is counted as bytes.
    #[value(name = "tcp")]
    Tcp,
}

/// One server, one way to speak to it. Texts may hold `{{variables}}` (`template`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// The way.
    pub transport: Transport,
    /// Where.
    pub address: SocketAddr,
    /// `Host` header.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// `GET` unless it is an `Http` target.
    pub method: String,
    /// Further headers, `Name: value`.
    pub headers: Vec<(String, String)>,
    /// Body of an `Http` request.
    pub body: Option<String>,
    /// `Sec-WebSocket-Protocol` to offer.
    pub subprotocol: Option<String>,
    /// Messages to send as soon as a WebSocket is open (subscriptions, a login).
    pub greeting: Vec<String>,
    /// Share among the targets.
    pub weight: u32,
    /// Close the connection after each response.
    pub close: bool,
}

/// How fast connections are opened.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ramp {
    /// As fast as `connecting_max` under way at once allows.
    AtOnce,
    /// So many a second, evenly, by each worker.
    PerSecond(f64),
    /// So many at once, again every so many nanoseconds.
    Steps {
        /// Connections of one step, of this worker.
        count: u32,
        /// From step to step.
        every_ns: u64,
    },
}

/// How some of the clients misbehave.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// As it should.
    Well,
    /// Reads 1 KiB ten times a second.
    SlowReader,
    /// Never reads once it is open.
    NeverReads,
    /// Connects and sends nothing.
    HalfOpen,
    /// Sends its request one byte a second.
    ByteASecond,
    /// Resets the connection (RST) a second after it is open, and connects anew.
    Resets,
    /// Sends 1 KiB of random bytes once it is open.
    Garbage,
    /// Sends fragment after fragment of a message that never ends.
    EndlessFragments,
    /// Sends pings as fast as the socket takes them.
    PingFlood,
}

/// What a check wants of a response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Check {
    /// This status.
    Status(u16),
    /// The value at a JSON path (RFC 9535) is this one.
    JsonEquals(String, serde_json::Value),
    /// The body (the message, on a WebSocket) contains this text.
    Contains(String),
}

/// What goes on once the connections are open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Work {
    /// Listen, count, answer pings.
    Hold,
    /// Send a request, await its response, on every connection.
    Request {
        /// The message on a WebSocket; an `Http` target has its own body.
        message: String,
        /// Bytes of `{{payload}}` in either.
        payload_bytes: usize,
        /// Send it as a binary frame.
        binary: bool,
        /// Who decides when the next is sent.
        pace: Pace,
    },
    /// Some of the connections send, all listen.
    Chat {
        /// The message, with `{{payload}}` and `{{to}}`.
        message: String,
        /// The senders and whom they write to.
        routes: Vec<ChatRoute>,
        /// `{{group}}` is a connection's number modulo this.
        groups: u32,
        /// Messages per sender and second.
        per_second: f64,
        /// Messages of each sender in all.
        messages: u64,
        /// Bytes of `{{payload}}`.
        payload_bytes: usize,
    },
}

/// One sender and whom it writes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatRoute {
    /// The sending connection's number.
    pub sender: u32,
    /// Its number as a publisher, in stamps.
    pub publisher: u16,
    /// What `{{to}}` becomes, in turn.
    pub to: Vec<String>,
}

/// Who decides when the next request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Pace {
    /// Each connection, when it has its response.
    Closed {
        /// Requests of this worker; none is no end.
        requests: Option<u64>,
    },
    /// The clock: so many a second by this worker, whatever the server does.
    Open {
        /// Requests per second of this worker.
        per_second: f64,
        /// Requests of this worker; none is no end.
        requests: Option<u64>,
    },
}

impl Pace {
    /// The part of a worker that has `share` of the connections; `divided` divides what is counted.
    pub fn part(self, share: f64, divided: impl Fn(u64) -> u64) -> Self {
        match self {
            Pace::Closed { requests } => Pace::Closed { requests: requests.map(divided) },
            Pace::Open { per_second, requests } => {
                Pace::Open { per_second: per_second * share, requests: requests.map(divided) }
            }
        }
    }
}

/// How lost connections come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackOff {
    /// Not at all.
    Never,
    /// At once.
    None,
    /// After this long.
    Fixed {
        /// Nanoseconds.
        wait_ns: u64,
    },
    /// After a random time between 0 and the cap that doubles with each failure (full jitter).
    Exponential {
        /// First cap, nanoseconds.
        base_ns: u64,
        /// Last cap, nanoseconds.
        cap_ns: u64,
    },
    /// After as long as the server said (`Retry-After`, `retry:`, `reconnect after N ms`), else after 1 s.
    AsTold,
}

/// Everything one worker needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Where to connect; a connection's number picks one by weight.
    pub targets: Vec<Target>,
    /// Number of this worker's first connection, over all workers.
    pub first: u32,
    /// How many it opens.
    pub count: u32,
    /// How fast.
    pub ramp: Ramp,
    /// Handshakes under way at once, at most.
    pub connecting_max: u32,
    /// Local addresses, used in turn; empty leaves it to the kernel.
    pub sources: Vec<IpAddr>,
    /// Connect to complete handshake, and request to response.
    pub timeout_ns: u64,
    /// One line per connection, in turn, header first.
    pub variables: Option<PathBuf>,
    /// Shares of connections that misbehave, in thousandths; the rest behaves.
    pub behaviours: Vec<(Behaviour, u32)>,
    /// Look for stamps in what arrives: latency, losses, duplicates, order.
    pub verify: bool,
    /// What responses must be.
    pub checks: Vec<Check>,
    /// How lost connections come back.
    pub back_off: BackOff,
    /// A poll that was answered asks again at once; else at the next `Order::Begin`.
    pub polls_again: bool,
    /// What goes on.
    pub work: Work,
    /// Seed of everything random.
    pub seed: u64,
}

/// What the coordinator says to a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Open the connections: `News::Opened` when all are open or have failed. May come again: the
    /// further connections come on top.
    Open(Box<Plan>),
    /// Start the work of the plan.
    Begin {
        /// When it began, for all workers alike.
        at_ns: u64,
    },
    /// Tell when this many messages have arrived since the start: `News::Received`.
    Await {
        /// Messages.
        messages: u64,
    },
    /// Tell what was not told yet: a `News::Delta`, then `News::Told`.
    Tell {
        /// Send no further request.
        stop: bool,
    },
    /// What was published, for the count of what is missing.
    Expect(Expected),
    /// All connections are cut and come back by the plan's back-off: `News::Back`.
    Storm(Cut),
    /// Close everything, tell the rest: `News::Done`.
    End,
}

/// How the connections of a storm end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cut {
    /// We end them with FIN.
    Fin,
    /// We end them with RST.
    Reset,
    /// The server ends them; the storm begins with the first.
    ByServer,
}

/// What a publisher has sent, and to whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Expected {
    /// Messages 1 to `last`, to every connection.
    Each {
        /// The publisher's number in its stamps.
        publisher: u16,
        /// Its last sequence number.
        last: u32,
    },
    /// To every connection its own messages, from 1 up.
    Own {
        /// The publisher's number in its stamps.
        publisher: u16,
        /// Last sequence numbers, from the worker's first connection on.
        last: Vec<u32>,
    },
}

/// What a worker says to the coordinator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum News {
    /// The first line: which worker this is.
    Hello {
        /// Its number, as it was started with.
        worker: u16,
        /// Its process.
        pid: u32,
    },
    /// All connections of an `Open` are open or have failed.
    Opened {
        /// Before the first connect.
        started_ns: u64,
        /// After the last was open, its handshake included.
        ended_ns: u64,
        /// Open now.
        open: u32,
    },
    /// What happened since the last of these; about once a second, and before `Opened`, `Back`, `Done`.
    Delta(Box<Delta>),
    /// So many messages have arrived (`Order::Await`): totals since the start.
    Received {
        /// Totals.
        counts: Box<Counts>,
        /// The moment.
        at_ns: u64,
    },
    /// All are back after a storm, or have given up.
    Back {
        /// When the storm began.
        started_ns: u64,
        /// When the last was back.
        ended_ns: u64,
        /// Open now.
        open: u32,
    },
    /// Everything up to an `Order::Tell` was told.
    Told,
    /// The work has come to its end by itself (requests done, messages sent).
    WorkDone {
        /// The moment.
        at_ns: u64,
    },
    /// The worker is through; nothing follows.
    Done,
    /// It cannot go on.
    Failed {
        /// Why, for people.
        why: String,
    },
}
