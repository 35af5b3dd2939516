//! What commands do: one place for both protocols.
//!
//! Answers what control knows by itself, asks the shards for the rest, and completes their answers.
//! Never touches a socket.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::admin::Gatekeeper;
use super::command::{Answer, Command, CommandError, ErrorCode, Push, Stats};
use super::drain::Drain;
use super::events::Filter;
use super::inquiries::Waiter;
use super::log_levels::LogLevels;
use super::reload::Reloads;
use super::scans::Scans;
use super::sequencer::{Outcome, Sequencer};
use super::tally::{RequestKind, RequestResult, Tally};
use super::tickets;
use super::topics::TopicLists;
use super::trace::Traces;
use crate::config::{Config, LogFilter};
use crate::message::{ConnId, UserId};
use crate::shard::mailbox::{Gate, Request, TraceId};
use crate::stats::ShardStats;
use crate::wire::close::code;

/// Longest reason of a close frame, in bytes (RFC 6455 5.5: 125 less the code).
const REASON_BYTES_MAX: usize = 123;

/// What a command comes to.
#[derive(Debug)]
pub enum Verdict {
    /// The answer comes later, to the waiter.
    Waits,
    /// The answer.
    Now(Result<Answer, CommandError>),
    /// Pushes to be taken one after the other.
    Batch(Vec<Push>),
    /// From now on, whatever `Subject` names.
    Stream(Subject),
}

/// What a stream tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Events that pass this.
    Events(Filter),
    /// How the drain goes on.
    Drain,
    /// Steps of this trace.
    Trace(TraceId),
    /// All connections, once.
    Sessions,
    /// The counters, at this interval.
    Stats(Duration),
}

/// Shortest and longest interval of a stream of counters.
const STATS_EVERY: RangeInclusive<u64> = 100..=3_600_000;

/// Everything that commands work on.
#[derive(Debug)]
pub struct Desk {
    /// Positions and answers.
    pub sequencer: Sequencer,
    /// The way out.
    pub drain: Drain,
    /// The traces that run.
    pub traces: Traces,
    /// Lists and dumps of connections.
    pub scans: Scans,
    /// Lists of topics.
    pub topic_lists: TopicLists,
    /// Clients of the control socket.
    pub clients: u64,
    /// Clients of the admin listener.
    pub admin_clients: u64,
    /// Who passes the admin listener.
    pub gatekeeper: Gatekeeper,
    /// Other configurations so far.
    pub reloads: Reloads,
    /// What was asked so far.
    pub tally: Tally,
    /// The one in effect.
    pub config: Arc<Config>,
    /// What is logged.
    pub log_levels: LogLevels,
    gate: Arc<Gate>,
    /// When the gateway started.
    pub started: Instant,
}

impl Desk {
    /// Begins at `now`.
    pub fn new(
        sequencer: Sequencer,
        gate: Arc<Gate>,
        config: Arc<Config>,
        log_filter: LogFilter,
        now: Instant,
    ) -> Self {
        let (drain, reloads, traces) = (Drain::default(), Reloads::default(), Traces::default());
        let log_levels = LogLevels::new(log_filter, &config.log.level);
        let (scans, tally) = (Scans::default(), Tally::default());
        let gatekeeper = Gatekeeper::new(&config.admin);
        let (clients, admin_clients) = (0, 0);
        Self {
            sequencer,
            drain,
            traces,
            scans,
            topic_lists: TopicLists::default(),
            clients,
            admin_clients,
            gatekeeper,
            reloads,
            tally,
            config,
            log_levels,
            gate,
            started: now,
        }
    }

    /// Does what `command` asks, and counts it.
    pub fn execute(&mut self, command: Command, waiter: Waiter, now: Instant) -> Verdict {
        let kind = RequestKind::of(&command);
        let verdict = self.perform(command, waiter, now);
        let refused = if let Verdict::Now(Err(refused)) = &verdict { Some(refused) } else { None };
        self.tally.count(kind, RequestResult::of(refused));
        verdict
    }

    fn perform(&mut self, command: Command, waiter: Waiter, now: Instant) -> Verdict {
        let asked = match command {
            Command::Push(push) => self.sequencer.push(push, waiter, now),
            Command::PushBatch(pushes) => return Verdict::Batch(pushes),
            Command::Presence(user) => self.ask_owner(&user.clone(), Request::Presence(user), waiter),
            Command::KickUser { user, code, reason } => self.kick_user(user, code, reason, waiter),
            Command::KickConnection { connection, code, reason } => {
                self.kick_connection(connection, code, reason, waiter)
            }
            Command::Bind { user, topic } => {
                self.ask_owner(&user.clone(), Request::Bind { user, topic }, waiter)
            }
            Command::Unbind { user, topic } => {
                self.ask_owner(&user.clone(), Request::Unbind { user, topic }, waiter)
            }
            Command::Topics => self.topic_lists.begin_first(waiter),
            Command::TopicsPage(query) => self.topic_lists.begin(query, waiter),
            Command::Topic(topic) => self.sequencer.ask_all(Request::Topic(topic), waiter),
            Command::Stats => self.sequencer.ask_all(Request::Stats, waiter),
            Command::StatsEvery { every_ms } => return stats_every(every_ms),
            Command::Events { mask } => return Verdict::Stream(Subject::Events(Filter::kinds(mask))),
            Command::EventsWhere(filter) => {
                return match Filter::new(filter) {
                    Ok(filter) => Verdict::Stream(Subject::Events(filter)),
                    Err(refused) => Verdict::Now(Err(refused)),
                };
            }
            Command::Drain { within_ms } => {
                let within = within_ms.map_or(self.config.timeouts.drain, Duration::from_millis);
                self.begin_drain(within, now);
                return Verdict::Stream(Subject::Drain);
            }
            Command::Trace(of) => self.traces.begin(of, &mut self.sequencer, waiter, now),
            Command::Version => return Verdict::Now(Ok(Answer::Version(version()))),
            Command::Ticket(request) => {
                let tickets = self.gate.tickets.lock().expect("no panic while tickets are counted");
                return Verdict::Now(tickets::issue(request, &self.config.auth, tickets, now));
            }
            Command::Process => return Verdict::Now(Ok(Answer::Process { pid: std::process::id() })),
            Command::Log(request) => return Verdict::Now(self.log_levels.execute(request, now)),
            Command::Connections(query) => self.scans.list(query, waiter, &self.sequencer),
            Command::Connection(connection) => {
                self.sequencer.ask_one(connection.shard, Request::Detail(connection), waiter)
            }
            Command::Sessions => return Verdict::Stream(Subject::Sessions),
        };
        match asked {
            Ok(()) => Verdict::Waits,
            Err(refused) => Verdict::Now(Err(refused)),
        }
    }

    /// Begins a drain, unless one runs.
    pub fn begin_drain(&mut self, within: Duration, now: Instant) {
        self.drain.begin(within, &self.gate, now);
    }

    /// As `Signal::Drain` asks: over `timeouts.drain`.
    pub fn begin_default_drain(&mut self, now: Instant) {
        self.begin_drain(self.config.timeouts.drain, now);
    }

    fn ask_owner(&mut self, user: &UserId, request: Request, waiter: Waiter) -> Result<(), CommandError> {
        self.sequencer.ask_one(self.sequencer.shard_of(user), request, waiter)
    }

    fn kick_user(
        &mut self,
        user: UserId,
        code: Option<u16>,
        reason: Option<String>,
        waiter: Waiter,
    ) -> Result<(), CommandError> {
        let (code, reason) = close_arguments(code, reason)?;
        self.ask_owner(&user.clone(), Request::KickUser { user, code, reason }, waiter)
    }

    fn kick_connection(
        &mut self,
        connection: ConnId,
        code: Option<u16>,
        reason: Option<String>,
        waiter: Waiter,
    ) -> Result<(), CommandError> {
        let (code, reason) = close_arguments(code, reason)?;
        self.sequencer.ask_one(connection.shard, Request::KickConnection { connection, code, reason }, waiter)
    }

    /// What the outcome is to a client. Errors: `not_found`.
    pub fn complete(&self, outcome: Outcome, now: Instant) -> Result<Answer, CommandError> {
        match outcome {
            Outcome::Answer(answer) => Ok(answer),
            Outcome::Stats(shards) => Ok(Answer::Stats(Box::new(self.stats(shards, now)))),
            Outcome::Detail(Some(detail)) => Ok(Answer::Connection(detail)),
            Outcome::Detail(None) => {
                Err(CommandError::new(ErrorCode::NotFound, "no connection has this id, or none any more"))
            }
            Outcome::Traced(_) => unreachable!("a trace is answered by its stream"),
            Outcome::Done | Outcome::Found(_) | Outcome::TopicsFound(_) => {
                unreachable!("no command of a client is answered by nothing or by a step")
            }
        }
    }

    /// The counters, once the shards have given theirs.
    pub fn stats(&self, mut shards: Vec<ShardStats>, now: Instant) -> Stats {
        let counts = self.sequencer.counts();
        for (shard, &refused) in shards.iter_mut().zip(self.sequencer.refused_by_mailbox()) {
            shard.mailbox_refused = refused;
        }
        let descriptors = Descriptors::look();
        let uptime = now.duration_since(self.started);
        Stats {
            version: version(),
            uptime_s: uptime.as_secs(),
            uptime_ms: uptime.as_millis() as u64,
            position: self.sequencer.position(),
            draining: self.drain.has_begun(),
            accepted: counts.accepted,
            refused: counts.refused,
            busy: counts.busy,
            reloads: self.reloads.taken,
            reloads_refused: self.reloads.refused,
            memory_used_bytes: self.gate.memory_used_bytes.load(Ordering::Relaxed),
            memory_limit_bytes: self.gate.memory_limit_bytes.load(Ordering::Relaxed),
            tickets: self.gate.tickets.lock().expect("no panic while tickets are counted").len() as u64,
            control_clients: self.clients,
            requests: self.tally,
            descriptors: descriptors.open.unwrap_or_else(|| self.gate.sockets.load(Ordering::Relaxed)),
            descriptors_max: descriptors.max,
            admin_clients: self.admin_clients,
            admin_unauthorized: self.gatekeeper.unauthorized(),
            counted_addresses: self.gate.counted_addresses() as u64,
            shards,
        }
    }
}

/// File descriptors of this process.
struct Descriptors {
    /// Open now. `None` before Linux 6.2, where only opening a directory of all of them would tell.
    open: Option<u64>,
    /// RLIMIT_NOFILE; `u64::MAX` where there is none.
    max: u64,
}

impl Descriptors {
    fn look() -> Self {
        // The size of the directory is how many there are (Linux 6.2, fs/proc/fd.c).
        let directory = rustix::fs::stat("/proc/self/fd").ok();
        let open = directory.and_then(|found| u64::try_from(found.st_size).ok()).filter(|&open| open > 0);
        let max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Self { open, max: max.unwrap_or(u64::MAX) }
    }
}

fn stats_every(every_ms: u64) -> Verdict {
    if STATS_EVERY.contains(&every_ms) {
        return Verdict::Stream(Subject::Stats(Duration::from_millis(every_ms)));
    }
    let message = format!("every is {every_ms} ms, must be 100 ms to 1 h");
    Verdict::Now(Err(CommandError::new(ErrorCode::BadRequest, message)))
}

fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// Code and reason of a kick. Errors: `bad_request` for a code that is not 1000 or 4000 to 4999, or a
/// reason that does not fit into a close frame.
fn close_arguments(code: Option<u16>, reason: Option<String>) -> Result<(u16, String), CommandError> {
    let code = code.unwrap_or(code::KICKED);
    if code != code::NORMAL && !(4000..=4999).contains(&code) {
        return Err(CommandError::new(
            ErrorCode::BadRequest,
            format!("code {code} is not 1000 or 4000 to 4999"),
        ));
    }
    let reason = reason.unwrap_or_else(|| "kicked".to_owned());
    if reason.len() > REASON_BYTES_MAX {
        let message =
            format!("the reason has {} bytes, a close frame holds {REASON_BYTES_MAX}", reason.len());
        return Err(CommandError::new(ErrorCode::BadRequest, message));
    }
    Ok((code, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_2_a_kick_closes_with_1000_or_4000_to_4999_and_4500_unless_given() {
        assert_eq!(close_arguments(None, None), Ok((4500, "kicked".to_owned())));
        for good in [1000, 4000, 4999] {
            assert!(close_arguments(Some(good), None).is_ok());
        }
        for bad in [0, 999, 1001, 1006, 3999, 5000] {
            assert!(
                close_arguments(Some(bad), None).is_err_and(|e| e.code == ErrorCode::BadRequest),
                "{bad}"
            );
        }
    }

    #[test]
    fn rfc6455_5_5_a_reason_has_at_most_123_bytes() {
        assert!(close_arguments(None, Some("x".repeat(123))).is_ok());
        assert!(close_arguments(None, Some("x".repeat(124))).is_err());
    }
}
