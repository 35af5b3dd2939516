//! How time passes for connections: heartbeats and deadlines, slice by slice.

use std::time::{Duration, Instant};

use super::Shard;
use super::clock::heartbeat_phase;
use super::conn::{State, flag};
use super::ending::Answer;
use super::life::life;
use super::settings::ECHO_QUIET_S;
use crate::stats::{CloseReason, RefusalReason};
use crate::wire::close::{Refusal, code};
use crate::wire::session::Transport;

impl Shard {
    /// Looks at the next slice of the table when it is due, and at what else waits for time.
    pub(super) fn keep_time(&mut self) {
        self.retry_listeners();
        self.tell_clients_to_leave();
        self.cut_if_told();
        self.end_grants();
        self.tell_what_waits();
        let Some((slice, last)) = self.sweep.slice(self.clock.now(), self.table.slots()) else { return };
        for index in slice {
            self.census.count(&self.table[index]);
            self.look_at(index);
        }
        if last {
            self.census.end_pass();
            self.needed_after = self.needed_after_next;
            // Whoever falls behind from here on needs nothing before this.
            self.needed_after_next = self.tape.head();
        }
    }

    /// How long this shard may sleep; `None` is for ever.
    pub(super) fn due_in(&mut self, now: Instant) -> Option<Duration> {
        let sweep = (self.table.used() > 0 || !self.tape.is_empty()).then(|| self.sweep.due_in(now));
        let end = self.grants.next_end().map(|end| self.clock.until_tenths(end));
        let told = self.refused.due_in(now);
        [sweep, self.retry_listeners(), end, told].into_iter().flatten().min()
    }

    fn look_at(&mut self, index: u32) {
        match self.table[index].state {
            State::Free => {}
            State::Handshake => self.check_handshake(index),
            State::Open => self.check_open(index),
            State::Closing => {
                let deadline = self.table[index].rare.as_ref().and_then(|rare| rare.close_deadline);
                if deadline.is_some_and(|deadline| self.clock.tick().reached(deadline)) {
                    self.abort(index);
                }
            }
        }
    }

    fn check_handshake(&mut self, index: u32) {
        let slot = &self.table[index];
        if slot.is(flag::SERVED) && !slot.has_head() || slot.has_outbox() {
            return self.check_between_polls(index);
        }
        if self.clock.tick().since(slot.opened) < self.settings.handshake_ticks {
            return;
        }
        // Half a PROXY header is no request, and a proxy that cannot finish it no reader of answers.
        if slot.has_head() && !slot.is(flag::PROXY_DUE) {
            let refusal = Refusal::new(RefusalReason::HandshakeTimeout, "the request did not arrive in time");
            return self.refuse(index, &refusal);
        }
        // Said nothing, is told nothing: health checks and preconnects.
        self.finish(index, CloseReason::HandshakeTimeout, Answer::Nothing);
    }

    /// No request is being heard: an answer is on its way, or the client idles.
    fn check_between_polls(&mut self, index: u32) {
        let tick = self.clock.tick();
        let slot = &self.table[index];
        let stuck = slot.rare.as_ref().and_then(|rare| rare.send_deadline);
        if stuck.is_some_and(|deadline| tick.reached(deadline)) {
            let limit = self.settings.timeouts.send;
            return self.close_slow(index, format_args!("no progress for {limit:?} (timeouts.send)"));
        }
        if slot.has_outbox() {
            return;
        }
        // A drain waits for every socket, and these have nothing to be told.
        if self.is_draining() {
            self.finish(index, CloseReason::Drained, Answer::Nothing);
        } else if tick.since(slot.opened) >= self.settings.idle_ticks {
            self.finish(index, CloseReason::Answered, Answer::Nothing);
        }
    }

    fn check_open(&mut self, index: u32) {
        let tick = self.clock.tick();
        if self.table[index].transport == Transport::EventStream {
            self.read_on(index);
        }
        if let Some(rare) = &self.table[index].rare {
            let over = |deadline: Option<super::clock::Tick>| {
                deadline.is_some_and(|deadline| tick.reached(deadline))
            };
            let (message, send, lag) =
                (over(rare.message_deadline), over(rare.send_deadline), rare.lag_bytes);
            let echo = self.table[index].transport == Transport::WebSocketEcho;
            if message {
                let answer = Answer::Close { code: Some(code::POLICY), reason: "unfinished message".into() };
                return self.finish(index, CloseReason::Policy, answer);
            }
            if send && !echo {
                let limit = self.settings.timeouts.send;
                return self.close_slow(
                    index,
                    format_args!("{lag} bytes behind, no progress for {limit:?} (timeouts.send)"),
                );
            }
            self.needs(index);
        }
        if self.table[index].transport == Transport::LongPoll {
            return self.check_poll(index);
        }
        self.heartbeat(index);
    }

    /// Pings at the slot's own moment in each period; no answer in time is the end.
    fn heartbeat(&mut self, index: u32) {
        let tick = self.clock.tick();
        let slot = &mut self.table[index];
        let (period, since_ticks) = heartbeat_phase(index, slot.heartbeat_s, tick);
        let odd = if period % 2 == 1 { flag::ODD_PERIOD } else { 0 };
        let new_period = slot.flags & flag::ODD_PERIOD != odd;
        slot.flags = slot.flags & !flag::ODD_PERIOD | odd;
        // A ping that is still to go out cannot have been missed.
        let waiting = slot.is(flag::PINGED) && !slot.is(flag::PING_DUE);
        if waiting && (new_period || since_ticks >= self.settings.pong_ticks) {
            let answer =
                Answer::Close { code: Some(code::HEARTBEAT_MISSED), reason: "heartbeat missed".into() };
            return self.finish(index, CloseReason::HeartbeatMissed, answer);
        }
        let stream = slot.transport == Transport::EventStream;
        let quiet =
            slot.transport == Transport::WebSocketEcho && tick.since(slot.opened) < ECHO_QUIET_S * 100;
        // A blocked socket has its own deadline; a ping behind it would say nothing.
        if new_period && !quiet && !slot.is(flag::BLOCKED) {
            slot.set(flag::PING_DUE);
            // Nobody answers a comment: a peer that has gone is found by TCP (`Listener::give_up_after`).
            if !stream {
                slot.set(flag::PINGED);
                self.stats.pings += 1;
            }
            self.mark(index);
            life!(TRACE, self, connection = %self.id(index), "is due a ping");
        }
    }

    /// A new client's first ping comes with its slot's next moment.
    pub(super) fn begin_heartbeat(&mut self, index: u32) {
        let (period, _) = heartbeat_phase(index, self.table[index].heartbeat_s, self.clock.tick());
        let slot = &mut self.table[index];
        slot.clear(flag::ODD_PERIOD);
        if period % 2 == 1 {
            slot.set(flag::ODD_PERIOD);
        }
    }
}
