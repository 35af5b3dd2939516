//! What one client is told as it happens: events, steps of traces, the progress of a drain.
//!
//! Never more than `control.reply_bytes` wait for it. What does not fit is counted, and told once it reads again.

use std::time::Instant;

use super::{Peer, Protocol, Stream};
use crate::control::codec::{self, Reply};
use crate::control::command::{Answer, DrainProgress};
use crate::control::desk::Subject;
use crate::control::trace::{self, Begun};
use crate::control::{chunked, events, routes};
use crate::shard::mailbox::{Event, Step, TraceId};

impl Peer {
    /// One event; its line is made for the first who takes it. Never more than `control.reply_bytes` wait.
    pub fn tell_event(&mut self, event: &Event, line: &mut Option<String>) {
        let wants = |subject: &Subject| matches!(subject, Subject::Events(filter) if filter.passes(event));
        self.tell_line(wants, line, || events::line(event));
    }

    /// The same of one step of a trace.
    pub fn tell_step(&mut self, step: &Step, line: &mut Option<String>) {
        let wants = |subject: &Subject| *subject == Subject::Trace(step.trace);
        self.tell_line(wants, line, || trace::line(step));
    }

    fn tell_line(
        &mut self,
        wants: impl Fn(&Subject) -> bool,
        line: &mut Option<String>,
        make: impl Fn() -> String,
    ) {
        for at in 0..self.streams.len() {
            if !wants(&self.streams[at].subject) {
                continue;
            }
            if self.output.unread() > self.limits.reply_bytes_max {
                self.streams[at].dropped += 1;
            } else {
                self.tell_dropped(at);
                self.write_stream(at, line.get_or_insert_with(&make));
            }
        }
    }

    /// Lines that a shard could not tell control of: perhaps some of them were for its streams.
    pub fn count_lost(&mut self, count: u64, wants: impl Fn(&Subject) -> bool) {
        for at in 0..self.streams.len() {
            if wants(&self.streams[at].subject) {
                self.streams[at].dropped += count;
                if self.output.unread() <= self.limits.reply_bytes_max {
                    self.tell_dropped(at);
                }
            }
        }
    }

    /// Tells how many lines were not written to a stream, where there are any.
    pub(super) fn tell_dropped(&mut self, at: usize) {
        let dropped = std::mem::take(&mut self.streams[at].dropped);
        if dropped > 0 {
            self.write_stream(at, &events::dropped_line(dropped));
        }
    }

    fn write_stream(&mut self, at: usize, line: &str) {
        let Stream { correlation, subject, .. } = &self.streams[at];
        let answer = if let Subject::Trace(_) = subject { Answer::Step } else { Answer::Event };
        self.write_line(*correlation, line, answer);
    }

    /// Whether a stream of its shows this trace.
    pub fn reads_trace(&self, trace: TraceId) -> bool {
        self.streams.iter().any(|stream| stream.subject == Subject::Trace(trace))
    }

    /// All shards trace: its stream begins, unless there is nobody to be traced.
    pub fn begin_trace(&mut self, correlation: u64, begun: &Begun, now: Instant) {
        self.in_flight -= 1;
        if let Some(refused) = begun.refusal() {
            return self.tell(correlation, Err(refused), now);
        }
        let subject = Subject::Trace(begun.trace);
        self.begin_stream(correlation, subject.clone(), now, now);
        self.tell_line(|other| *other == subject, &mut None, || begun.line());
    }

    /// How a drain goes on.
    pub fn tell_drain(&mut self, progress: DrainProgress) {
        for at in 0..self.streams.len() {
            let Stream { subject, correlation, .. } = &self.streams[at];
            let correlation = *correlation;
            if *subject == Subject::Drain && self.output.unread() <= self.limits.reply_bytes_max {
                self.write_line(correlation, &routes::drain_line(&progress), |_| Answer::Drain(progress));
            }
        }
    }

    pub(super) fn write_line(&mut self, correlation: u64, line: &str, answer: impl Fn(String) -> Answer) {
        match self.protocol {
            Protocol::Binary => {
                let result = Ok(answer(line.to_owned()));
                codec::encode_reply(&Reply { correlation, result }, self.output.bytes());
            }
            _ => chunked::encode(format!("{line}\n").as_bytes(), self.output.bytes()),
        }
    }

    /// Ends its streams properly: the gateway goes.
    pub fn end_streams(&mut self) {
        if let (Protocol::Http { .. }, false) = (&self.protocol, self.streams.is_empty()) {
            self.output.bytes().extend_from_slice(chunked::END);
        }
        self.streams.clear();
    }
}
