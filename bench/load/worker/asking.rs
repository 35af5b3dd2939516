//! Requests and chat messages: who sends the next one, when, and when it counts as answered.
//!
//! Closed loop: a connection sends when it has its response. Open loop: the clock says when, and a request
//! that finds no free connection waits; it counts from when it was due, so a server that stalls shows.

use std::collections::{BTreeMap, VecDeque};

use super::Worker;
use super::slots::{State, flag};
use super::timers::Due;
use crate::cpu;
use crate::plan::{Behaviour, ChatRoute, Pace, Transport, Work};
use crate::record::{Error, Timed};
use crate::request::values::Values;
use crate::request::verify::Failed;
use crate::wire::stamp::{self, Stamp};

/// Work in progress.
#[derive(Debug, Default)]
pub struct Asking {
    running: bool,
    finished: bool,
    begun_ns: u64,
    /// Requests to send, `u64::MAX` without end.
    limit: u64,
    issued: u64,
    done: u64,
    /// Open loop: nanoseconds from request to request.
    interval_ns: Option<f64>,
    /// Open loop: due moments of requests that found no free connection.
    waiting: VecDeque<u64>,
    /// Slots that can take a request.
    free: VecDeque<u32>,
    /// Chat senders by slot number.
    senders: BTreeMap<u32, Sender>,
    /// The same by connection number, with their publisher number.
    publishers: BTreeMap<u32, u16>,
}

#[derive(Debug)]
struct Sender {
    route: ChatRoute,
    /// Messages to each of `route.to`.
    sent: Vec<u32>,
    left: u64,
    interval_ns: u64,
}

impl Asking {
    /// When the next request is due.
    pub fn next_ns(&self) -> Option<u64> {
        let interval_ns = self.interval_ns.filter(|_| self.running && self.issued < self.limit)?;
        Some(self.begun_ns + (self.issued as f64 * interval_ns) as u64)
    }

    /// Whether requests are being sent.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// No further request is sent.
    pub fn stop(&mut self) {
        self.running = false;
    }

    /// A request has its end, good or bad.
    pub fn count_done(&mut self) {
        self.done += 1;
        if self.running && self.done >= self.limit {
            self.running = false;
            self.finished = true;
        }
    }

    /// True once when all is done.
    pub fn take_finished(&mut self) -> bool {
        std::mem::take(&mut self.finished)
    }

    /// Whether connection `number` is that publisher.
    pub fn is_own(&self, number: u32, publisher: u16) -> bool {
        !self.publishers.is_empty() && self.publishers.get(&number) == Some(&publisher)
    }
}

impl Worker {
    pub(super) fn begin_work(&mut self, at_ns: u64) {
        self.now_ns = cpu::now_ns();
        match self.scene.work.clone() {
            Work::Hold => {
                for index in 0..self.slots.len() {
                    if self.slots[index].is(flag::SATED) {
                        self.slots[index].clear(flag::SATED);
                        self.poll(index);
                    }
                }
            }
            Work::Request { pace, .. } => {
                let (limit, interval_ns) = match pace {
                    Pace::Closed { requests } => (requests, None),
                    Pace::Open { per_second, requests } => (requests, Some(1e9 / per_second)),
                };
                let limit = limit.unwrap_or(u64::MAX);
                self.asking = Asking { begun_ns: at_ns, limit, interval_ns, ..Asking::default() };
                (self.asking.running, self.asking.finished) = (limit > 0, limit == 0);
                for index in 0..self.slots.len() {
                    self.slots[index].clear(flag::LISTED);
                    if self.slots[index].state == State::Open {
                        self.ready_to_ask(index);
                    }
                }
            }
            Work::Chat { routes, per_second, messages, .. } => {
                self.begin_chat(at_ns, routes, per_second, messages);
            }
        }
    }

    /// A connection that has no request under way.
    pub(super) fn ready_to_ask(&mut self, index: usize) {
        if !self.asking.running || self.slots[index].behaviour != Behaviour::Well {
            return;
        }
        if self.slots[index].is(flag::ASKED) {
            // It was connected for this one.
            return self.send_request(index);
        }
        if self.asking.interval_ns.is_none() {
            if self.asking.issued < self.asking.limit {
                self.ask(index, self.now_ns);
            }
        } else if let Some(due_ns) = self.asking.waiting.pop_front() {
            self.ask(index, due_ns);
        } else if !self.slots[index].is(flag::LISTED) {
            self.slots[index].set(flag::LISTED);
            self.asking.free.push_back(index as u32);
        }
        if self.asking.interval_ns.is_none() {
            self.now_ns = cpu::now_ns();
        }
    }

    /// Open loop: sends what is due by now.
    pub(super) fn ask_what_is_due(&mut self) {
        while let Some(due_ns) = self.asking.next_ns().filter(|&due_ns| due_ns <= self.now_ns) {
            match self.asking.free.pop_front() {
                Some(index) => {
                    self.slots[index as usize].clear(flag::LISTED);
                    self.ask(index as usize, due_ns);
                }
                None => {
                    self.asking.issued += 1;
                    self.asking.waiting.push_back(due_ns);
                }
            }
        }
    }

    fn ask(&mut self, index: usize, due_ns: u64) {
        // What waited has been counted when it was put aside.
        if self.asking.interval_ns.is_none() || self.asking.next_ns() == Some(due_ns) {
            self.asking.issued += 1;
        }
        let deadline_ms = self.deadline_ms();
        let slot = &mut self.slots[index];
        slot.set(flag::ASKED);
        slot.since_ns = due_ns;
        slot.deadline_ms = deadline_ms;
        match slot.state {
            State::Open => self.send_request(index),
            State::Idle => self.connect(index),
            _ => {}
        }
    }

    fn send_request(&mut self, index: usize) {
        self.tally.counts.sent += 1;
        let deadline_ms = self.deadline_ms();
        self.slots[index].deadline_ms = deadline_ms;
        let slot = &self.slots[index];
        let aim = &self.scene.aims[usize::from(slot.target)];
        let Work::Request { binary, payload_bytes, .. } = self.scene.work else { return };
        let stamp =
            Stamp { publisher: 0, seq: self.tally.counts.sent as u32, at_ns: slot.since_ns, wall: false };
        let payload = stamp::payload(stamp, payload_bytes.max(stamp::LENGTH));
        let payload = String::from_utf8_lossy(&payload[..payload_bytes]);
        let values = Values { payload: &payload, ..self.values(slot) };
        if aim.transport == Transport::Http {
            let request = aim.request(&values);
            self.write(index, &request);
        } else if let Some(message) = &self.scene.message {
            let message = values.render(message);
            self.send_message(index, message.as_bytes(), binary);
        }
    }

    /// A response has come to a request that waited.
    pub(super) fn answered(&mut self, index: usize, status: Option<u16>, body: &[u8]) {
        let now_ns = cpu::now_ns();
        let slot = &mut self.slots[index];
        slot.clear(flag::ASKED);
        slot.deadline_ms = 0;
        let took_ns = now_ns.saturating_sub(slot.since_ns);
        self.tally.time(Timed::Response, took_ns);
        // Nobody who sends requests means an error to be well; who does names it.
        let refused = status.is_some_and(|status| status >= 400) && !self.scene.checks.names_status();
        match self.scene.checks.judge(status, body) {
            Ok(()) if refused => {
                self.tally.counts.unsuccessful += 1;
                self.tally.error(Error::WrongStatus);
            }
            Ok(()) => self.tally.counts.succeeded += 1,
            Err(failed) => {
                self.tally.counts.unsuccessful += 1;
                self.tally.error(match failed {
                    Failed::Status { .. } => Error::WrongStatus,
                    _ => Error::CheckFailed,
                });
            }
        }
        self.asking.count_done();
        self.now_ns = now_ns;
        let ends = self.slots[index].is(flag::LAST_RESPONSE);
        if ends || self.scene.aims[usize::from(self.slots[index].target)].close {
            self.end(index, None);
        }
        self.ready_to_ask(index);
    }

    fn begin_chat(&mut self, at_ns: u64, routes: Vec<ChatRoute>, per_second: f64, messages: u64) {
        let interval_ns = (1e9 / per_second) as u64;
        let all = routes.len() as u64;
        self.asking = Asking { running: true, begun_ns: at_ns, limit: 0, ..Asking::default() };
        for (place, route) in routes.into_iter().enumerate() {
            let Some(index) = self.slots.iter().position(|slot| slot.number == route.sender) else {
                continue;
            };
            self.asking.limit += messages;
            self.asking.publishers.insert(route.sender, route.publisher);
            // Spread over the first interval, so that they do not send in step.
            let first_ns = at_ns + interval_ns * place as u64 / all;
            self.timers.add(first_ns, index as u32, self.slots[index].generation, Due::Chat);
            let sent = vec![0; route.to.len()];
            self.asking.senders.insert(index as u32, Sender { route, sent, left: messages, interval_ns });
        }
        if self.asking.limit == 0 {
            (self.asking.running, self.asking.finished) = (false, true);
        }
    }

    /// The next message of a chat sender, due at `due_ns`.
    pub(super) fn chat(&mut self, index: usize, due_ns: u64) {
        let Work::Chat { payload_bytes, .. } = self.scene.work else { return };
        let Some(sender) = self.asking.senders.get_mut(&(index as u32)) else { return };
        if sender.left == 0 || sender.route.to.is_empty() {
            return;
        }
        let messages_before: u32 = sender.sent.iter().sum();
        let place = messages_before as usize % sender.route.to.len();
        sender.sent[place] += 1;
        sender.left -= 1;
        let (to, seq) = (sender.route.to[place].clone(), sender.sent[place]);
        let (publisher, next_ns, more) =
            (sender.route.publisher, due_ns + sender.interval_ns, sender.left > 0);
        let payload = stamp::payload(Stamp { publisher, seq, at_ns: due_ns, wall: false }, payload_bytes);
        let payload = String::from_utf8_lossy(&payload);
        if let Some(message) = &self.scene.message {
            let values = Values { payload: &payload, to: &to, ..self.values(&self.slots[index]) };
            let message = values.render(message);
            self.send_message(index, message.as_bytes(), false);
            self.tally.counts.sent += 1;
        }
        if more {
            self.timers.add(next_ns, index as u32, self.slots[index].generation, Due::Chat);
        }
        self.asking.count_done();
    }
}
