//! How long a client is waited for: the rest of a request, that it reads, that it asks for anything at all.

use std::time::{Duration, Instant};

use super::{Door, Peer, Protocol};
use crate::control::http;

/// How long a client that is refused may wait before it is told, whatever its protocol.
const GREETING_WAIT: Duration = Duration::from_millis(200);

impl Peer {
    /// Looks at the clock; false when it is over with this client.
    pub fn handle_tick(&mut self, now: Instant) -> bool {
        let silent = matches!(self.protocol, Protocol::Unknown) && self.closing.is_none();
        if let (true, Some(refused)) = (silent && now >= self.accepted_at + GREETING_WAIT, &self.refusal) {
            http::Answer::refused(refused).encode(false, self.output.bytes());
            self.close(now);
            self.flush(now);
        }
        if self.dead || self.is_done(now) {
            return false;
        }
        if !self.is_idle() {
            self.idle_since = None;
        } else if now >= *self.idle_since.get_or_insert(now) + self.limits.request_timeout {
            self.cut("it has asked for nothing for control.request_timeout");
            return false;
        }
        let unread = self.is_backlogged() || (self.closing.is_some() && self.output.unread() > 0);
        let stuck = unread && self.streams.is_empty();
        if !stuck && !self.is_half() {
            self.waiting_since = None;
            return true;
        }
        let since = *self.waiting_since.get_or_insert(now);
        if now >= since + self.limits.request_timeout {
            self.cut("control.request_timeout is over");
        }
        !self.dead
    }

    /// Whether it keeps a place among the few of the admin listener for nothing: browsers have connections that
    /// they may never use.
    fn is_idle(&self) -> bool {
        self.door == Door::Admin && !self.is_blocked() && !self.owes() && !self.is_half()
    }

    /// In how long time alone changes something, but for what ticks are for (`wants_ticks`).
    pub fn due_in(&self, now: Instant) -> Option<Duration> {
        self.idle_since.map(|since| (since + self.limits.request_timeout).saturating_duration_since(now))
    }

    /// Nothing is owed in either direction.
    fn is_done(&self, now: Instant) -> bool {
        match self.closing {
            // A reader that pauses in its last answer is waited for as in any other.
            Some(_) if self.output.unread() > 0 => false,
            Some(by) => now >= by || self.ended,
            // `work` has been called: what is left of its input is half a request, for ever.
            None => self.ended && self.in_flight == 0 && self.job.is_none() && !self.owes(),
        }
    }

    /// A client that has shut down its sending half still gets what it asked for, streams included.
    fn owes(&self) -> bool {
        self.output.unread() > 0 || !self.streams.is_empty()
    }

    /// Whether a request has begun to come, and its rest is due.
    fn is_half(&self) -> bool {
        let begun = match &self.protocol {
            Protocol::Http { reader, .. } => reader.in_body(),
            _ => false,
        };
        !self.is_blocked() && (begun || self.taken < self.input.len())
    }
}
