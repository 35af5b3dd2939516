//! What was asked of control and what became of it: counted by kind of request and by result.
//!
//! A request is counted when it is begun. What is taken up then is never refused later, so its result is known.

use serde::{Deserialize, Serialize};

use super::command::{Command, CommandError, ErrorCode};
use crate::stats::kinds;

kinds! {
    /// What a request asks, by the name of its command.
    RequestKind {
        /// `Command::Push`.
        Push = "push",
        /// `Command::PushBatch`, and a body of lines.
        PushBatch = "push_batch",
        /// `Command::Presence`.
        Presence = "presence",
        /// `Command::KickUser`.
        KickUser = "kick_user",
        /// `Command::KickConnection`.
        KickConnection = "kick_connection",
        /// `Command::Bind`.
        Bind = "bind",
        /// `Command::Unbind`.
        Unbind = "unbind",
        /// `Command::Topics` and `Command::TopicsPage`.
        Topics = "topics",
        /// `Command::Topic`.
        Topic = "topic",
        /// `Command::Stats`, as JSON or for Prometheus, and `Command::StatsEvery`.
        Stats = "stats",
        /// `Command::Events` and `Command::EventsWhere`.
        Events = "events",
        /// `Command::Drain`.
        Drain = "drain",
        /// `Command::Version`.
        Version = "version",
        /// `Command::Ticket`.
        Ticket = "ticket",
        /// `Command::Log`.
        Log = "log",
        /// `Command::Trace`.
        Trace = "trace",
        /// `Command::Process`.
        Process = "process",
        /// `Command::Connections`.
        Connections = "connections",
        /// `Command::Connection`.
        Connection = "connection",
        /// `Command::Sessions`.
        Sessions = "sessions",
        /// None of these: an HTTP request that makes no command, or of a client that was refused before it asked.
        Unknown = "unknown",
    }
}

kinds! {
    /// What became of a request.
    RequestResult {
        /// It was done, or is being done.
        Done = "done",
        /// Refused: the caller's fault.
        Refused = "refused",
        /// `busy`: nothing of it was done, and it may be tried again.
        Busy = "busy",
    }
}

impl RequestKind {
    /// What `command` asks.
    pub fn of(command: &Command) -> Self {
        match command {
            Command::Push(_) => Self::Push,
            Command::PushBatch(_) => Self::PushBatch,
            Command::Presence(_) => Self::Presence,
            Command::KickUser { .. } => Self::KickUser,
            Command::KickConnection { .. } => Self::KickConnection,
            Command::Bind { .. } => Self::Bind,
            Command::Unbind { .. } => Self::Unbind,
            Command::Topics | Command::TopicsPage(_) => Self::Topics,
            Command::Topic(_) => Self::Topic,
            Command::Stats | Command::StatsEvery { .. } => Self::Stats,
            Command::Events { .. } | Command::EventsWhere(_) => Self::Events,
            Command::Trace(_) => Self::Trace,
            Command::Drain { .. } => Self::Drain,
            Command::Version => Self::Version,
            Command::Ticket(_) => Self::Ticket,
            Command::Log(_) => Self::Log,
            Command::Process => Self::Process,
            Command::Connections(_) => Self::Connections,
            Command::Connection(_) => Self::Connection,
            Command::Sessions => Self::Sessions,
        }
    }
}

impl RequestResult {
    /// What a request came to that is refused with `refused`, where it is.
    pub fn of(refused: Option<&CommandError>) -> Self {
        match refused.map(|refused| refused.code) {
            None => Self::Done,
            Some(ErrorCode::Busy) => Self::Busy,
            Some(_) => Self::Refused,
        }
    }
}

/// Requests so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally([[u64; RequestResult::COUNT]; RequestKind::COUNT]);

impl Tally {
    /// Counts one.
    pub fn count(&mut self, kind: RequestKind, result: RequestResult) {
        self.0[kind as usize][result as usize] += 1;
    }

    /// How many of this kind came to this.
    pub fn of(&self, kind: RequestKind, result: RequestResult) -> u64 {
        self.0[kind as usize][result as usize]
    }
}
