//! Dumps of all connections (`GET /v1/sessions`), as one client reads them.
//!
//! The next piece is asked for when the client has taken the last: one that reads slowly has a slow dump, and
//! one that stops has one piece waiting, however many connections there are. Next: `scans`, which asks the
//! shards.

use std::time::Instant;

use super::{Peer, Protocol, Stream};
use crate::connections::{Session, SessionsEnd};
use crate::control::codec::{self, Reply};
use crate::control::command::Answer;
use crate::control::desk::{Desk, Subject};
use crate::control::inquiries::Waiter;
use crate::control::{chunked, routes};

impl Stream {
    fn wants_more(&self) -> bool {
        self.subject == Subject::Sessions && !self.asked
    }
}

impl Peer {
    /// Whether a dump goes on: everything so far was taken.
    pub(super) fn wants_sessions(&self) -> bool {
        self.output.unread() == 0 && self.streams.iter().any(Stream::wants_more)
    }

    /// Asks for the next piece of each dump, once the last was taken.
    pub(super) fn step_dumps(&mut self, desk: &mut Desk) {
        if !self.wants_sessions() {
            return;
        }
        let client = self.id;
        for stream in self.streams.iter_mut().filter(|stream| stream.wants_more()) {
            let waiter = Waiter::Client { client, correlation: stream.correlation };
            desk.scans.dump_on(waiter, &desk.sequencer);
            stream.asked = true;
        }
    }

    /// A piece of a dump, and its end with the last.
    pub fn tell_sessions(&mut self, correlation: u64, sessions: Vec<Session>, end: Option<SessionsEnd>) {
        let is_it = |stream: &Stream| {
            stream.subject == Subject::Sessions && stream.correlation == correlation && !stream.ended
        };
        let Some(at) = self.streams.iter().position(is_it) else { return };
        self.streams[at].asked = end.is_some();
        self.streams[at].ended = end.is_some();
        if let Protocol::Binary = self.protocol {
            let answers = [Some(Answer::Sessions(sessions)), end.map(Answer::SessionsEnd)];
            for answer in answers.into_iter().flatten() {
                codec::encode_reply(&Reply { correlation, result: Ok(answer) }, self.output.bytes());
            }
            return;
        }
        routes::session_lines(&sessions, end.as_ref(), self.output.bytes());
        if end.is_some() {
            self.output.bytes().extend_from_slice(chunked::END);
        }
    }

    /// Everything was taken: dumps that have ended are over, and over HTTP the connection with them. Not before: who
    /// is to be closed may not be slow any more.
    pub(super) fn end_dumps(&mut self, now: Instant) {
        let before = self.streams.len();
        self.streams.retain(|stream| !stream.ended);
        if let (true, Protocol::Http { .. }) = (self.streams.len() < before, &self.protocol) {
            self.close(now);
        }
    }
}
