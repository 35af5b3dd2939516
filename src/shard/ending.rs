//! How a connection ends: told why, its places given back, its socket let go.
//!
//! Three steps. `finish` decides the end, with exactly one reason (Rule 5), and queues the last words.
//! When they are out the write side is shut. When the peer has ended its side too, or a deadline is
//! over, `drop_connection` lets the socket go. In between input is read and discarded: closing with
//! unread input would reset the connection and take the last words with it (RFC 1122 4.2.2.13).

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Shard;
use super::clock::Tick;
use super::conn::{NONE, State, flag};
use super::life::life;
use super::mailbox::{Act, Happening, Reply, Report, event_mask};
use super::outlook::form_of;
use crate::message::UserId;
use crate::ring::Socket;
use crate::stats::CloseReason;
use crate::wire::close::code;
use crate::wire::session::Transport;
use crate::wire::{envelope, event_stream, websocket};

/// Slots told to leave in one turn of a drain.
const LEAVING_PER_TURN: u32 = 1024;
/// How long a shard that ends waits for the requests of those it has just accepted.
const LATE: Duration = Duration::from_millis(100);

/// A drain that is being told to the clients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    within_ms: u64,
    /// Slots below this have been told.
    next: u32,
}

/// Last words.
#[derive(Debug)]
pub(super) enum Answer {
    /// A whole HTTP response.
    Http(Bytes),
    /// A WebSocket close frame, or an event that says the same.
    Close {
        /// `None` is an empty frame.
        code: Option<u16>,
        /// At most 123 bytes.
        reason: Cow<'static, str>,
    },
    /// A frame that is ready: the echo of the peer's close, or a `retry`.
    Frame {
        /// The whole frame.
        frame: Bytes,
        /// The close code in it.
        code: Option<u16>,
    },
    /// What is queued already, the answer to a poll or the demo page, and nothing after it.
    Queued,
    /// Nothing: the peer has gone.
    Nothing,
}

impl Answer {
    /// What the client is told for people to read.
    fn message(&self) -> Option<String> {
        match self {
            Self::Close { reason, .. } => Some(reason.clone().into_owned()),
            Self::Http(_) | Self::Frame { .. } | Self::Queued | Self::Nothing => None,
        }
    }
}

impl Shard {
    /// Decides the end of a connection. The first reason counts.
    pub(super) fn finish(&mut self, index: u32, reason: CloseReason, answer: Answer) {
        if matches!(self.table[index].state, State::Closing | State::Free) {
            return;
        }
        let sent = match &answer {
            Answer::Close { code, .. } | Answer::Frame { code, .. } => *code,
            Answer::Http(_) | Answer::Queued | Answer::Nothing => None,
        };
        life!(DEBUG, self, connection = %self.id(index), reason = reason.name(), code = sent, "ends");
        self.trace(index, |_| Act::Closed { reason, code: sent, message: answer.message() });
        self.write_off(index, 0, reason);
        self.leave_places(index, reason, sent);
        let deadline = self.clock.tick().after(self.settings.close_ticks);
        self.read_on(index);
        let slot = &mut self.table[index];
        let transport = slot.transport;
        slot.state = State::Closing;
        slot.clear(flag::AHEAD | flag::PINGED);
        let rare = slot.rare();
        rare.head = Vec::new();
        rare.decoder = None;
        rare.unheard = Vec::new();
        rare.message_deadline = None;
        rare.ended = Some(reason);
        rare.close_deadline = Some(deadline);
        match answer {
            Answer::Http(bytes) | Answer::Frame { frame: bytes, .. } => self.queue(index, bytes),
            Answer::Queued => {}
            // A poll has no words for it, and what it does not read would only be in their way.
            Answer::Close { .. } if transport == Transport::LongPoll => return self.drop_connection(index),
            Answer::Close { code, reason } if transport == Transport::EventStream => {
                self.queue(index, event_stream::close(code, &reason));
            }
            Answer::Close { code, reason } => self.queue(index, websocket::encode_close(code, &reason)),
            Answer::Nothing => return self.drop_connection(index),
        }
        self.want_read(index);
    }

    /// Takes a client out of everything that finds it or counts it.
    fn leave_places(&mut self, index: u32, reason: CloseReason, code: Option<u16>) {
        self.leave_indexes(index, reason, code);
        self.uncount(index);
    }

    /// Takes an established client out of everything that finds it.
    pub(super) fn leave_indexes(&mut self, index: u32, reason: CloseReason, code: Option<u16>) {
        if self.table[index].state == State::Open {
            self.stats.connections -= 1;
            *self.clients_by(self.table[index].transport) -= 1;
            self.gate.established.fetch_sub(1, Ordering::Relaxed);
            if self.wants(event_mask::DISCONNECT) {
                let user = self.user_of(index);
                self.report(Some(self.id(index)), user, Happening::Disconnect { reason, code });
            }
        }
        self.users.detach(&mut self.table, index);
        self.topics.unsubscribe_all(&mut self.table, index, &mut self.tape);
        if self.table[index].is(flag::ADDRESSED) {
            self.table[index].clear(flag::ADDRESSED);
            self.tape.close_connection(index);
        }
    }

    /// The peer has closed or reset, or its socket is broken.
    pub(super) fn peer_ended(&mut self, index: u32) {
        match self.table[index].state {
            State::Free => {}
            State::Closing if self.table[index].has_outbox() => {
                // Half a close: our last words may still be read.
                self.table[index].set(flag::PEER_DONE);
            }
            State::Closing => self.drop_connection(index),
            State::Handshake if self.table[index].has_outbox() => {
                // Half a close behind a poll: its answer may still be read.
                self.table[index].set(flag::PEER_DONE);
                self.finish(index, CloseReason::Answered, Answer::Queued);
            }
            State::Handshake if self.table[index].is(flag::SERVED) && !self.table[index].has_head() => {
                self.finish(index, CloseReason::Answered, Answer::Nothing);
            }
            State::Handshake | State::Open => self.finish(index, CloseReason::PeerGone, Answer::Nothing),
        }
    }

    /// The outbox of a closing connection is empty: nothing more will be said.
    pub(super) fn last_words_sent(&mut self, index: u32) {
        if self.table[index].is(flag::PEER_DONE) {
            return self.drop_connection(index);
        }
        if !self.table[index].is(flag::SHUT) {
            self.table[index].set(flag::SHUT);
            self.table[index].socket().end();
        }
    }

    /// Lets go at a deadline: what the kernel still holds for the peer is dropped with it.
    pub(super) fn abort(&mut self, index: u32) {
        self.table[index].socket().forsake();
        self.drop_connection(index);
    }

    /// Frees the slot and closes the socket.
    pub(super) fn drop_connection(&mut self, index: u32) {
        let rare = self.table[index].rare.as_ref();
        let reason = rare.and_then(|rare| rare.ended).expect("an end has a reason (Rule 5)");
        let unsent = rare.map_or(0, |rare| rare.queued_messages(0));
        life!(DEBUG, self, connection = %self.id(index), reason = reason.name(), unsent, "gone");
        self.stats.count_close(reason);
        self.stats.dropped.ended[reason as usize] += unsent;
        self.gate.sockets.fetch_sub(1, Ordering::Relaxed);
        self.trace(index, |_| Act::Gone);
        self.let_go(index);
    }

    /// Frees the slot and closes the socket. What is still armed on it tells a slot that is no longer its own.
    pub(super) fn let_go(&mut self, index: u32) {
        let slot = &self.table[index];
        if slot.is(flag::ANY_POLL) {
            slot.socket().hang_up();
        }
        drop(self.vacate(index));
    }

    /// Frees the slot and gives the socket, with nothing armed on it any more.
    pub(super) fn release(&mut self, index: u32) -> Socket {
        let (token, slot) = (self.table.token(index), &self.table[index]);
        if slot.is(flag::POLLED) {
            self.ring.cancel_read_poll(token);
        }
        if slot.is(flag::END_POLLED) {
            self.ring.cancel_end_poll(token);
        }
        if slot.is(flag::BLOCKED) {
            self.ring.cancel_write_poll(token);
        }
        self.vacate(index)
    }

    fn vacate(&mut self, index: u32) -> Socket {
        assert!(!self.table[index].is(flag::COUNTED), "it was uncounted when it ended or went over");
        self.addresses.forget(index);
        self.forget_trail(index);
        self.stats.blocked -= u64::from(self.table[index].is(flag::BLOCKED));
        self.grants.clear(index);
        self.table.remove(index)
    }

    /// Slow-consumer policy: 4000, counted, logged at a pace.
    ///
    /// `why` names the numbers and the limit.
    pub(super) fn close_slow(&mut self, index: u32, why: std::fmt::Arguments<'_>) {
        if let Some(silent) = self.lines.slow.count(self.clock.now()) {
            let user = self.user_of(index);
            tracing::warn!(
                "slow consumer: closed {} (user {}) {why}; {silent} without a line before it on shard {}",
                self.id(index),
                user.as_ref().map_or("-", |user| user.as_str()),
                self.number
            );
        }
        self.tell_slow_cut(index);
        let answer = Answer::Close { code: Some(code::SLOW_CONSUMER), reason: "slow consumer".into() };
        self.finish(index, CloseReason::SlowConsumer, answer);
    }

    /// Begins to tell every client to come back, each after its own delay within `within_ms`.
    pub(super) fn begin_drain(&mut self, within_ms: u64) {
        self.draining.get_or_insert(Drain { within_ms, next: 0 });
    }

    /// Over how long clients are to come back: at least a second, and `timeouts.drain` until this shard
    /// has been told.
    pub(super) fn drain_within_s(&self) -> u32 {
        let by_itself = self.settings.timeouts.drain.as_secs();
        let within_s = self.draining.map_or(by_itself, |drain| drain.within_ms.div_ceil(1000));
        u32::try_from(within_s).unwrap_or(u32::MAX).max(1)
    }

    /// Whether a drain has not reached every slot yet.
    pub(super) fn is_telling_clients_to_leave(&self) -> bool {
        self.draining.is_some_and(|drain| drain.next < self.table.slots())
    }

    /// Tells the next clients of a drain.
    pub(super) fn tell_clients_to_leave(&mut self) {
        let Some(drain) = self.draining else { return };
        let until = drain.next.saturating_add(LEAVING_PER_TURN).min(self.table.slots());
        for index in drain.next..until {
            if self.table[index].state == State::Open {
                self.tell_to_leave(index, drain.within_ms);
            }
        }
        self.draining = Some(Drain { next: until, ..drain });
    }

    fn tell_to_leave(&mut self, index: u32, within_ms: u64) {
        // Neighbouring slots get delays far apart; shards are shifted against each other.
        let spread = index.wrapping_mul(0x9e37_79b9).wrapping_add(u32::from(self.number) << 20);
        let after_ms = ((u128::from(spread) * u128::from(within_ms)) >> 32) as u64;
        self.queue_rest(index, CloseReason::Drained);
        match self.table[index].transport {
            Transport::EventStream => {
                let answer = Answer::Frame { frame: event_stream::retry(after_ms), code: None };
                return self.finish(index, CloseReason::Drained, answer);
            }
            Transport::LongPoll => return self.end_poll(index, CloseReason::Drained),
            Transport::WebSocketJson => self.queue(index, envelope::reconnect(after_ms, "restart")),
            Transport::WebSocketRaw | Transport::WebSocketEcho => {}
        }
        let reason = format!("reconnect after {after_ms} ms");
        let answer = Answer::Close { code: Some(code::RESTART), reason: reason.into() };
        self.finish(index, CloseReason::Drained, answer);
    }

    /// Puts what the tape still holds for the client before its last words: what was pushed before a drain
    /// or a kick is not lost by it. As much as a client may lag; a poll's answer holds it anyway.
    pub(super) fn queue_rest(&mut self, index: u32, reason: CloseReason) {
        let slot = &self.table[index];
        if slot.transport == Transport::LongPoll {
            return;
        }
        let (outlook, form) = (self.outlook(), form_of(slot.transport));
        let (mut frames, mut bytes) = (Vec::new(), 0);
        outlook.pending(index, |entry| {
            let frame = entry.form(form, &outlook.encoder).clone();
            bytes += frame.len();
            frames.push(frame);
            bytes < self.settings.lag_bytes_max
        });
        self.write_off(index, frames.len() as u64, reason);
        frames.into_iter().for_each(|frame| self.queue_messages(index, frame, 1));
    }

    /// Has those who were accepted after the last look told `draining`, as everybody before them was: their request
    /// comes at once, or never. Nobody is accepted any more.
    pub(super) async fn answer_the_late(&mut self) {
        for number in 0..self.listeners.len() {
            self.ring.cancel_accept(number as u16);
        }
        let by = Instant::now() + LATE;
        loop {
            self.clock.advance(Instant::now());
            self.collect();
            self.receive();
            self.send();
            if Instant::now() >= by || !(0..self.table.slots()).any(|index| self.is_late(index)) {
                return;
            }
            glommio::timer::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether it has come a moment ago and not asked for anything yet.
    fn is_late(&self, index: u32) -> bool {
        let slot = &self.table[index];
        let new = slot.state == State::Handshake && !slot.is(flag::SERVED);
        new && self.clock.tick().since(slot.opened) < Tick::count(LATE)
    }

    /// Closes everything at once and reports the end of this shard.
    pub(super) fn close_all(&mut self) {
        for index in 0..self.table.slots() {
            match self.table[index].state {
                State::Free => continue,
                State::Closing => {}
                State::Handshake | State::Open => {
                    self.finish(index, CloseReason::Drained, Answer::Nothing);
                    continue;
                }
            }
            self.drop_connection(index);
        }
        self.ring.collect();
        let _ = self.reports.send(Report::Stopped);
    }

    /// Stops after this turn.
    pub(super) fn stop(&mut self) -> Reply {
        self.stopped = true;
        Reply::Done
    }

    /// The client's user, unless anonymous.
    pub(super) fn user_of(&self, index: u32) -> Option<UserId> {
        let name = self.table[index].user;
        (name != NONE).then(|| UserId::new(self.users.text(name)).expect("checked when it came in"))
    }
}
