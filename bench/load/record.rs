//! What is counted and timed: plain counters, outcomes by name, distributions.
//!
//! Workers send differences (`Delta`), the coordinator adds them up; a sum of differences is the total, so
//! nothing is counted twice and nothing is sampled. Distributions are HDR histograms of nanoseconds with
//! three significant digits.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Everything that is only counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Connects begun.
    pub attempted: u64,
    /// Handshakes completed.
    pub opened: u64,
    /// Connects and handshakes that failed, by whatever fault.
    pub failed: u64,
    /// Open connections that ended though nobody here ended them.
    pub dropped: u64,
    /// Messages (frames, events, items of a poll) that arrived whole.
    pub messages: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
    /// Bytes read from sockets.
    pub bytes_in: u64,
    /// Bytes written to sockets.
    pub bytes_out: u64,
    /// Pings and keep-alive comments received.
    pub pings: u64,
    /// Requests or chat messages sent.
    pub sent: u64,
    /// Responses received and found right.
    pub succeeded: u64,
    /// Requests without a right response: error, timeout, failed check.
    pub unsuccessful: u64,
    /// Stamped messages that never came.
    pub lost: u64,
    /// Stamped messages that came again.
    pub duplicated: u64,
    /// Stamped messages that came after a later one.
    pub reordered: u64,
    /// Messages without a stamp where stamps are looked for.
    pub unstamped: u64,
}

impl Counts {
    /// Adds what `other` has counted.
    pub fn add(&mut self, other: &Counts) {
        for (mine, theirs) in self.cells().into_iter().zip(other.values()) {
            *mine += theirs;
        }
    }

    /// What was counted since `before`.
    pub fn since(&self, before: &Counts) -> Counts {
        let mut rest = *self;
        for (mine, theirs) in rest.cells().into_iter().zip(before.values()) {
            *mine -= theirs;
        }
        rest
    }

    fn cells(&mut self) -> [&mut u64; 16] {
        [
            &mut self.attempted,
            &mut self.opened,
            &mut self.failed,
            &mut self.dropped,
            &mut self.messages,
            &mut self.payload_bytes,
            &mut self.bytes_in,
            &mut self.bytes_out,
            &mut self.pings,
            &mut self.sent,
            &mut self.succeeded,
            &mut self.unsuccessful,
            &mut self.lost,
            &mut self.duplicated,
            &mut self.reordered,
            &mut self.unstamped,
        ]
    }

    fn values(&self) -> [u64; 16] {
        let mut copy = *self;
        copy.cells().map(|cell| *cell)
    }
}

/// How a response or a connection ended. In JSON the text of `Display`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Outcome {
    /// An HTTP status.
    Status(u16),
    /// A WebSocket close code (1005 where the frame had none).
    Close(u16),
    /// Something that is no answer.
    Error(Error),
}

/// What can go wrong, by cause: each has its own advice (`report::advice`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Error {
    /// EMFILE, ENFILE.
    TooManyFiles,
    /// EADDRNOTAVAIL, EADDRINUSE: no local port is left.
    AddressNotAvailable,
    /// ECONNREFUSED.
    Refused,
    /// ECONNRESET, EPIPE.
    Reset,
    /// ENETUNREACH, EHOSTUNREACH.
    Unreachable,
    /// No connection within the time.
    ConnectTimedOut,
    /// No complete handshake within the time.
    HandshakeTimedOut,
    /// No response within the time.
    ResponseTimedOut,
    /// The server ended the connection without a word.
    Ended,
    /// The handshake's answer was not what the protocol says.
    BadHandshake,
    /// The server broke the protocol later on.
    BadProtocol,
    /// A response of the wrong status.
    WrongStatus,
    /// A response that failed another check.
    CheckFailed,
    /// Any other error of the system.
    System,
}

impl Error {
    /// Every one, with its name in reports.
    pub const NAMES: [(Error, &'static str); 14] = [
        (Error::TooManyFiles, "too_many_files"),
        (Error::AddressNotAvailable, "address_not_available"),
        (Error::Refused, "refused"),
        (Error::Reset, "reset"),
        (Error::Unreachable, "unreachable"),
        (Error::ConnectTimedOut, "connect_timed_out"),
        (Error::HandshakeTimedOut, "handshake_timed_out"),
        (Error::ResponseTimedOut, "response_timed_out"),
        (Error::Ended, "ended"),
        (Error::BadHandshake, "bad_handshake"),
        (Error::BadProtocol, "bad_protocol"),
        (Error::WrongStatus, "wrong_status"),
        (Error::CheckFailed, "check_failed"),
        (Error::System, "system"),
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(error, _)| *error == self);
        found.expect("every error has a name").1
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Status(status) => write!(f, "status {status}"),
            Outcome::Close(code) => write!(f, "close {code}"),
            Outcome::Error(error) => write!(f, "error {}", error.name()),
        }
    }
}

impl From<Outcome> for String {
    fn from(outcome: Outcome) -> String {
        outcome.to_string()
    }
}

impl TryFrom<String> for Outcome {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = |text: &str| text.parse().ok();
        let parsed = match text.split_once(' ') {
            Some(("status", status)) => number(status).map(Outcome::Status),
            Some(("close", code)) => number(code).map(Outcome::Close),
            Some(("error", name)) => {
                Error::NAMES.iter().find(|(_, named)| *named == name).map(|(error, _)| Outcome::Error(*error))
            }
            _ => None,
        };
        parsed.ok_or_else(|| format!("{text:?} is no outcome"))
    }
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timed {
    /// Connect to complete handshake.
    Connect,
    /// Publisher's intended send time to receipt.
    Delivery,
    /// Intended send time of a request to its whole response.
    Response,
    /// Loss of a connection to its complete new handshake.
    Reconnect,
    /// How late a worker's loop came to its work: the tool's own doing.
    LoopLag,
}

/// Longer times count as this long: an hour.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// A distribution of nanoseconds, up to an hour.
#[derive(Clone, Debug)]
pub struct Distribution(Histogram<u64>);

impl Default for Distribution {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds that the crate allows"))
    }
}

impl Distribution {
    /// Takes one time.
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns.max(1));
    }

    /// Takes many times of the same length.
    pub fn record_many(&mut self, ns: u64, count: u64) {
        self.0.saturating_record_n(ns.max(1), count);
    }

    /// Adds another.
    pub fn add(&mut self, other: &Distribution) {
        self.0.add(&other.0).expect("histograms of the same bounds");
    }

    /// How many times there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// The value that a share of the times does not exceed, in nanoseconds: `0.99` is p99.
    pub fn quantile(&self, share: f64) -> u64 {
        self.0.value_at_quantile(share)
    }

    /// The arithmetic mean in nanoseconds, 0 when there are none.
    pub fn mean(&self) -> f64 {
        self.0.mean()
    }

    /// The shortest, 0 when there are none.
    pub fn min(&self) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.min() }
    }

    /// The longest.
    pub fn max(&self) -> u64 {
        self.0.max()
    }

    /// Values with how often each came, ascending.
    pub fn buckets(&self) -> Vec<(u64, u64)> {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }
}

impl Serialize for Distribution {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.buckets().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Distribution {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut distribution = Distribution::default();
        for (ns, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            distribution.record_many(ns, count);
        }
        Ok(distribution)
    }
}

/// What one worker did since it last told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Delta {
    /// The worker's number.
    pub worker: u16,
    /// The moment of telling.
    pub at_ns: u64,
    /// How long the stretch was.
    pub wall_ns: u64,
    /// CPU that the worker's thread used in it.
    pub cpu_ns: u64,
    /// Connections open now.
    pub open: u32,
    /// When the last message so far arrived, 0 before the first.
    pub last_message_ns: u64,
    /// What was counted in it.
    pub counts: Counts,
    /// How things ended in it.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// What was timed in it.
    pub times: BTreeMap<Timed, Distribution>,
    /// Heap and stack of the worker's process now, in bytes; only from the first thread of a process.
    pub resident_bytes: u64,
}
