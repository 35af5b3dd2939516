//! What is counted, and why a connection ended.
//!
//! Counters are plain fields of the shard that counts; a snapshot travels as `ShardStats`.
//! Rule 5: a connection ends with exactly one `CloseReason`, so accepted = open + closed, always.
//!
//! Rule 10, the same for messages: what is due to a connection becomes exactly one of these, so
//! handed + replayed = delivered + expired + dropped + pending, always, on every shard.
//!
//! - *handed*: pushed while the connection was there; the sum of `connections` in the answers to pushes.
//! - *replayed*: held already when the connection asked for it by `since`. A message that is handed to one
//!   connection and, after it broke off, replayed to the next is due twice, and becomes something twice.
//! - *delivered*: the kernel has taken its last octet. What the network then does nobody counts.
//! - *expired*: its time to live was over when its turn came.
//! - *dropped*, by reason: the connection ended first, or was unsubscribed first.
//! - *pending*: none of it yet. With nothing on its way and everybody reading it is 0.
//!
//! What is no longer held when somebody asks for it is not due: he is told of a gap.

use serde::{Deserialize, Serialize};

mod histogram;
mod kinds;

pub use histogram::{Histogram, Percentiles};
pub(crate) use kinds::kinds;
pub use kinds::{AcceptError, CloseReason, MemoryClass, RefusalReason};

/// Messages that were due to a connection and never sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The connection ended first, in the order of `CloseReason::ALL`.
    pub ended: [u64; CloseReason::COUNT],
    /// It left the topic first.
    pub unsubscribed: u64,
}

impl Dropped {
    /// Sum over all reasons.
    pub fn total(&self) -> u64 {
        self.by_reason().map(|(_, count)| count).sum()
    }

    /// Each reason's name in metrics, and how many.
    pub fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CloseReason::named(&self.ended).chain([("unsubscribed", self.unsubscribed)])
    }
}

/// What one shard has counted since it started, and what it holds now.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ShardStats {
    /// Which shard.
    pub shard: u16,
    /// Sockets open now, handshakes included.
    pub open: u64,
    /// Of `open`: a request head is being waited for, as the last pass of the sweep found it.
    pub handshakes: u64,
    /// Clients established now (of `open`).
    pub connections: u64,
    /// Of `connections`: WebSockets, event streams, held polls.
    pub websockets: u64,
    /// See `websockets`.
    pub event_streams: u64,
    /// See `websockets`.
    pub polls: u64,
    /// Sockets accepted, on whichever shard they landed.
    pub accepted: u64,
    /// Refused, by reason, in the order of `RefusalReason::ALL`.
    pub refused: [u64; RefusalReason::COUNT],
    /// Of those refused by `limits.connects_per_second` or for want of memory: answered before their request
    /// was parsed.
    pub refused_early: u64,
    /// Accepts that failed, by errno, in the order of `AcceptError::ALL`.
    pub accept_errors: [u64; AcceptError::COUNT],
    /// Connections moved to the shard that owns their user / here from another shard.
    pub moved_out: u64,
    /// See `moved_out`.
    pub moved_in: u64,
    /// Closed, by reason, in the order of `CloseReason::ALL`.
    pub closed: [u64; CloseReason::COUNT],
    /// Requests and refreshes without a credential that holds (401).
    pub unauthorized: u64,
    /// Pushes that this shard took from its mailbox.
    pub pushes: u64,
    /// Messages handed to live connections, each counted once per connection.
    pub handed: u64,
    /// Messages due again because a connection resumed or subscribed by `since`.
    pub replayed: u64,
    /// Times that a client named a `since`: when it connected, polled or subscribed.
    pub resumes: u64,
    /// Of these: something of what it asked for is no longer held, and it was told so.
    pub gaps: u64,
    /// Messages written whole to a client's socket.
    pub delivered: u64,
    /// Messages whose time to live was over when their turn came.
    pub expired: u64,
    /// Messages that were due and never sent, by why.
    pub dropped: Dropped,
    /// Messages that are due and were not sent yet.
    pub pending: u64,
    /// Bytes written to and read from client sockets.
    pub sent_bytes: u64,
    /// See `sent_bytes`.
    pub received_bytes: u64,
    /// Polls answered.
    pub polls_answered: u64,
    /// Data messages received from clients.
    pub uplinks: u64,
    /// Times that a client had sent more frames than are heard in one turn, and the rest waited.
    pub deferred: u64,
    /// Pings sent, pongs received.
    pub pings: u64,
    /// See `pings`.
    pub pongs: u64,
    /// Connections whose socket refuses bytes now.
    pub blocked: u64,
    /// Clients whose sockets refuse bytes while messages are due to them, as the last pass of the sweep found it.
    pub lagging: u64,
    /// How far the furthest of them is behind, in bytes of frames.
    pub lag_bytes_max: u64,
    /// Distinct addresses kept: of clients of proxies, and of those that are counted by address.
    pub addresses: u64,
    /// Topics with at least one subscriber now.
    pub topics: u64,
    /// Users with at least one connection now.
    pub users: u64,
    /// Letters from control, and bytes of payload in them, that wait in the mailbox now.
    pub mailbox_letters: u64,
    /// See `mailbox_letters`.
    pub mailbox_bytes: u64,
    /// Pushes and commands answered `busy` because this shard's mailbox was full. Control counts them, and
    /// puts the number in here.
    pub mailbox_refused: u64,
    /// Messages on the tape now, and their bytes as `history.bytes` counts them.
    pub tape_messages: u64,
    /// See `tape_messages`.
    pub tape_bytes: u64,
    /// How long ago the oldest message of the tape was appended, in milliseconds.
    pub tape_age_ms: u64,
    /// Bytes of memory set aside, by what for, in the order of `MemoryClass::ALL`.
    pub memory: [u64; MemoryClass::COUNT],
    /// Events that control did not take in time.
    pub events_dropped: u64,
    /// Steps of traces that it did not take in time.
    pub trace_dropped: u64,
    /// Turns of the loop, and batches of sends submitted.
    pub turns: u64,
    /// See `turns`.
    pub send_batches: u64,
    /// Operations given to the ring, completions taken from it, and system calls (`io_uring_enter`) for both.
    pub ring_submissions: u64,
    /// See `ring_submissions`.
    pub ring_completions: u64,
    /// See `ring_submissions`.
    pub ring_enters: u64,
    /// How long each turn of the loop took, without the sleep before it.
    pub turn_time: Histogram,
    /// From when control accepted a push to when the kernel had taken it for a client that keeps up: one for each
    /// send, to the end of the batch that it was in. Replays, and those who are blocked, do not count.
    pub latency: Histogram,
}

impl ShardStats {
    /// Counts one end.
    pub fn count_close(&mut self, reason: CloseReason) {
        self.closed[reason as usize] += 1;
    }

    /// Counts one refusal.
    pub fn count_refusal(&mut self, reason: RefusalReason) {
        self.refused[reason as usize] += 1;
    }

    /// How many were refused for `reason`.
    pub fn refused_for(&self, reason: RefusalReason) -> u64 {
        self.refused[reason as usize]
    }

    /// Messages that were due and became nothing yet, by the counters alone: `pending` of a snapshot.
    pub fn unaccounted(&self) -> u64 {
        let due = self.handed + self.replayed;
        let became = self.delivered + self.expired + self.dropped.total();
        debug_assert!(due >= became, "something became of more than was due (Rule 10): {self:?}");
        due.saturating_sub(became)
    }

    /// Sum of closed over all reasons.
    pub fn closed_total(&self) -> u64 {
        self.closed.iter().sum()
    }

    /// Sum of the refused over all reasons.
    pub fn refused_total(&self) -> u64 {
        self.refused.iter().sum()
    }
}
