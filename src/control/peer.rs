//! One client of the control socket: what it sent and we have not done yet, what we owe it.
//!
//! Speaks whichever protocol its first bytes choose. Requests of one client begin in order; over HTTP
//! one at a time, over the binary protocol as many as its replies find room for. A client that does not
//! take its replies is first not read from, then closed (`deadlines`). Its streams are in `streams`, what it is told at
//! an interval in `readings`, its dumps in `dumps`.

mod deadlines;
mod dumps;
mod readings;
mod streams;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::Shutdown;

use super::admin::Way;
use super::codec::{self, Reply};
use super::command::{Answer, Command, CommandError, ErrorCode};
use super::dashboard;
use super::desk::{Desk, Subject, Verdict};
use super::http;
use super::inquiries::{ClientId, Waiter};
use super::job::Job;
use super::output::Output;
use super::routes::{self, Route, Shape};
use super::tally::{RequestKind, RequestResult};

/// Bytes read at once, and the most that wait undone unless one request is longer.
pub const READ_BYTES: usize = 256 * 1024;
/// What one reply in flight is reckoned at: a push's has 24 to 40 bytes.
const REPLY_BYTES: usize = 40;
/// Streams of one binary client.
const STREAMS_MAX: usize = 16;
/// How long a client that we close, and that has read all of its answer, may go on sending before its end is cut.
const LINGER: Duration = Duration::from_secs(1);

/// Which way a client came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The control socket: either protocol, every path.
    Control,
    /// The admin listener: HTTP, what the gatekeeper lets pass.
    Admin,
}

/// Limits of one client (`[control]`).
#[derive(Clone, Copy, Debug)]
pub struct PeerLimits {
    /// Of HTTP requests.
    pub http: http::Limits,
    /// `control.reply_bytes`
    pub reply_bytes_max: usize,
    /// `control.request_timeout`
    pub request_timeout: Duration,
}

#[derive(Debug)]
struct Stream {
    correlation: u64,
    subject: Subject,
    /// Events that were not written, and not told of yet.
    dropped: u64,
    /// Of a dump: nothing is to be asked for now; its end is written.
    asked: bool,
    ended: bool,
    /// When the next reading of the counters is due, where they are what it tells.
    due: Option<Instant>,
}

/// The HTTP request that is being done.
#[derive(Debug)]
struct Exchange {
    shape: Shape,
    keep_alive: bool,
}

#[derive(Debug)]
enum Protocol {
    Unknown,
    Binary,
    Http { reader: Box<http::Reader>, exchange: Option<Exchange> },
}

/// One client.
#[derive(Debug)]
pub struct Peer {
    id: ClientId,
    door: Door,
    socket: OwnedFd,
    limits: PeerLimits,
    protocol: Protocol,
    /// Why nothing it asks will be done, where that is so.
    refusal: Option<CommandError>,
    input: Vec<u8>,
    /// How much of `input` is done.
    taken: usize,
    output: Output,
    in_flight: u32,
    job: Option<Job>,
    streams: Vec<Stream>,
    /// What is undone waits for more input.
    hungry: bool,
    /// It sends no more.
    ended: bool,
    /// It reads no more, either.
    hung_up: bool,
    /// It is told nothing more; gone by then at the latest.
    closing: Option<Instant>,
    dead: bool,
    accepted_at: Instant,
    /// Since when we wait for it, be it the rest of a request or that it reads.
    waiting_since: Option<Instant>,
    /// Since when it owes us nothing and we owe it nothing, where that has an end.
    idle_since: Option<Instant>,
}

impl Peer {
    /// A client that was just accepted. With `refusal`, that is the answer to whatever it asks first.
    pub fn new(
        id: ClientId,
        door: Door,
        socket: OwnedFd,
        limits: PeerLimits,
        refusal: Option<CommandError>,
        now: Instant,
    ) -> Self {
        Self {
            id,
            door,
            socket,
            limits,
            protocol: Protocol::Unknown,
            refusal,
            input: Vec::new(),
            taken: 0,
            output: Output::default(),
            in_flight: 0,
            job: None,
            streams: Vec::new(),
            hungry: true,
            ended: false,
            hung_up: false,
            closing: None,
            dead: false,
            accepted_at: now,
            waiting_since: None,
            idle_since: None,
        }
    }

    /// Its name.
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// Which way it came.
    pub fn door(&self) -> Door {
        self.door
    }

    /// Its socket, to be watched.
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Whether it does not count against `control.clients` or `admin.clients`.
    pub fn is_refused(&self) -> bool {
        self.refusal.is_some()
    }

    /// Event kinds it wants (`event_mask`).
    pub fn events_wanted(&self) -> u64 {
        let masks = self.streams.iter().map(|stream| match &stream.subject {
            Subject::Events(filter) => filter.mask,
            Subject::Drain | Subject::Trace(_) | Subject::Sessions | Subject::Stats(_) => 0,
        });
        masks.fold(0, |all, mask| all | mask)
    }

    /// Both directions are closed by the client: nothing we write arrives.
    pub fn hang_up(&mut self) {
        self.hung_up = true;
        self.output.give_up();
        self.streams.clear();
    }

    /// Whether bytes wait that the socket refused.
    pub fn wants_to_write(&self) -> bool {
        self.output.unread() > 0
    }

    /// Whether its next bytes are of use now.
    pub fn wants_to_read(&self) -> bool {
        if self.ended || self.dead {
            return false;
        }
        // What is undone waits for something of ours, unless more input is what it waits for.
        self.closing.is_some() || self.input.len() - self.taken < READ_BYTES || !self.is_blocked()
    }

    /// Whether no further request is begun until an answer is there, or read.
    fn is_blocked(&self) -> bool {
        if self.job.is_some() || self.closing.is_some() {
            return true;
        }
        match &self.protocol {
            Protocol::Unknown => false,
            Protocol::Binary => self.is_backlogged(),
            Protocol::Http { exchange, .. } => exchange.is_some(),
        }
    }

    /// Half of `control.reply_bytes` is taken, by what is unread and by what is in flight; so whoever
    /// only pushes never reaches the whole of it, where it would be closed.
    fn is_backlogged(&self) -> bool {
        self.output.unread() + self.in_flight as usize * REPLY_BYTES > self.limits.reply_bytes_max / 2
    }

    /// Reads what is there, up to `READ_BYTES`, through `scratch`.
    pub fn read(&mut self, scratch: &mut [u8]) {
        match rustix::io::read(&self.socket, &mut *scratch) {
            Ok(0) => self.ended = true,
            Ok(_) if self.closing.is_some() => {}
            Ok(n) => {
                self.hungry = false;
                self.input.drain(..self.taken);
                self.taken = 0;
                self.input.extend_from_slice(&scratch[..n]);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => {
                self.ended = true;
                self.hang_up();
            }
        }
    }

    /// Does what its input asks, as far as it can be done now.
    pub fn work(&mut self, desk: &mut Desk, now: Instant) {
        self.step_job(desk, now);
        self.step_dumps(desk);
        if let Protocol::Unknown = self.protocol {
            let is_binary = match self.door {
                Door::Control => codec::is_binary(&self.input),
                Door::Admin => (!self.input.is_empty()).then_some(false),
            };
            match is_binary {
                None => {
                    self.hungry = true;
                    return;
                }
                Some(true) => self.protocol = Protocol::Binary,
                Some(false) => self.protocol = Protocol::Http { reader: Box::default(), exchange: None },
            }
        }
        match self.protocol {
            Protocol::Binary => self.work_binary(desk, now),
            _ => self.work_http(desk, now),
        }
        if self.taken == self.input.len() {
            self.taken = 0;
            self.input.clear();
            if self.input.capacity() > 4 * READ_BYTES {
                self.input = Vec::new();
            }
        }
    }

    fn step_job(&mut self, desk: &mut Desk, now: Instant) {
        let Some(job) = &mut self.job else { return };
        if !job.step(&mut desk.sequencer, self.limits.request_timeout, now) {
            self.job = None;
        }
    }

    fn work_binary(&mut self, desk: &mut Desk, now: Instant) {
        while !self.is_blocked() && !self.dead {
            let input = &self.input[self.taken..];
            let frame = match codec::frame(input, self.limits.http.body_bytes_max) {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    self.hungry = true;
                    return;
                }
                Err(malformed) => return self.cut(&format!("{malformed:?} frame")),
            };
            let Ok(request) = codec::decode_request(frame) else {
                return self.cut("undecodable frame");
            };
            self.taken += codec::LENGTH_BYTES + frame.len();
            self.waiting_since = None;
            self.begin(request.correlation, request.command, desk, now);
        }
    }

    fn work_http(&mut self, desk: &mut Desk, now: Instant) {
        while !self.is_blocked() && !self.dead {
            let Protocol::Http { reader, .. } = &mut self.protocol else { return };
            match reader.handle_bytes(&self.input[self.taken..], &self.limits.http) {
                Err(refusal) => {
                    desk.tally.count(RequestKind::Unknown, RequestResult::Refused);
                    http::Answer::from(&refusal).encode(false, self.output.bytes());
                    return self.close(now);
                }
                Ok((taken, None)) => {
                    self.taken += taken;
                    if taken == 0 || self.taken == self.input.len() {
                        self.hungry = true;
                        return;
                    }
                }
                Ok((taken, Some(http::Event::ExpectsContinue))) => {
                    self.taken += taken;
                    self.output.bytes().extend_from_slice(http::CONTINUE);
                }
                Ok((taken, Some(http::Event::Request(request)))) => {
                    self.taken += taken;
                    self.waiting_since = None;
                    self.begin_http(request, desk, now);
                }
            }
        }
    }

    fn begin_http(&mut self, request: http::Request, desk: &mut Desk, now: Instant) {
        let keep_alive = request.keep_alive;
        let route = match (&self.refusal, self.door) {
            (Some(refused), _) => Err(Box::new(http::Answer::refused(refused))),
            (None, Door::Control) => routes::route(request),
            (None, Door::Admin) => match desk.gatekeeper.admit(&request, now) {
                Ok(Way::Page { head_only }) => Ok(Route::Page { head_only }),
                Ok(Way::Route) => routes::route(request),
                Err(answer) => Err(answer),
            },
        };
        let shape = match &route {
            Ok(Route::Command(_, shape)) => shape.clone(),
            _ => Shape::Plain,
        };
        let keep_alive = keep_alive && self.refusal.is_none();
        if let Protocol::Http { exchange, .. } = &mut self.protocol {
            *exchange = Some(Exchange { shape, keep_alive });
        }
        match route {
            Err(answer) => {
                let turned_away = self.refusal.as_ref().map(|refused| RequestResult::of(Some(refused)));
                desk.tally.count(RequestKind::Unknown, turned_away.unwrap_or(RequestResult::Refused));
                self.answer_http(&answer, now);
            }
            Ok(Route::Command(command, _)) => self.begin(0, command, desk, now),
            Ok(Route::Page { head_only }) => {
                dashboard::encode(head_only, self.output.bytes());
                self.close(now);
            }
            Ok(Route::Lines(body)) => {
                desk.tally.count(RequestKind::PushBatch, RequestResult::Done);
                let batch = desk.sequencer.open_batch(self.waiter(0));
                self.begin_job(Job::lines(batch, body), desk, now);
            }
        }
    }

    fn waiter(&self, correlation: u64) -> Waiter {
        Waiter::Client { client: self.id, correlation }
    }

    fn begin_job(&mut self, job: Job, desk: &mut Desk, now: Instant) {
        self.in_flight += 1;
        self.job = Some(job);
        self.step_job(desk, now);
    }

    fn begin(&mut self, correlation: u64, command: Command, desk: &mut Desk, now: Instant) {
        if let Some(refused) = self.refusal.clone() {
            desk.tally.count(RequestKind::of(&command), RequestResult::of(Some(&refused)));
            self.tell(correlation, Err(refused), now);
            return self.close(now);
        }
        match desk.execute(command, self.waiter(correlation), now) {
            Verdict::Waits => self.in_flight += 1,
            Verdict::Now(result) => self.tell(correlation, result, now),
            Verdict::Batch(pushes) => {
                let batch = desk.sequencer.open_batch(self.waiter(correlation));
                self.begin_job(Job::pushes(batch, pushes), desk, now);
            }
            Verdict::Stream(subject) => self.begin_stream(correlation, subject, desk.started, now),
        }
    }

    fn begin_stream(&mut self, correlation: u64, subject: Subject, epoch: Instant, now: Instant) {
        if self.streams.len() >= STREAMS_MAX {
            let refused =
                CommandError::new(ErrorCode::Busy, format!("a client may have {STREAMS_MAX} streams"));
            return self.tell(correlation, Err(refused), now);
        }
        // It asked and went: its stream would be there for ever, as nothing more is heard of it.
        if self.hung_up {
            return;
        }
        if let Protocol::Http { .. } = self.protocol {
            http::stream_head(self.output.bytes());
        }
        let due = matches!(subject, Subject::Stats(_)).then(|| self.first_reading(now, epoch));
        self.streams.push(Stream { correlation, subject, dropped: 0, asked: false, ended: false, due });
    }

    /// The answer to a request that waited.
    pub fn answer(&mut self, correlation: u64, result: Result<Answer, CommandError>, now: Instant) {
        self.in_flight -= 1;
        self.tell(correlation, result, now);
    }

    fn tell(&mut self, correlation: u64, result: Result<Answer, CommandError>, now: Instant) {
        if self.output.unread() > self.limits.reply_bytes_max {
            return self.cut("its replies are unread, control.reply_bytes is reached");
        }
        match &self.protocol {
            Protocol::Binary => codec::encode_reply(&Reply { correlation, result }, self.output.bytes()),
            Protocol::Http { exchange: Some(exchange), .. } => {
                let answer = match &result {
                    Ok(answer) => routes::render(answer, &exchange.shape),
                    Err(refused) => http::Answer::refused(refused),
                };
                self.answer_http(&answer, now);
            }
            Protocol::Http { exchange: None, .. } | Protocol::Unknown => {}
        }
    }

    fn answer_http(&mut self, answer: &http::Answer, now: Instant) {
        if self.output.unread() > self.limits.reply_bytes_max {
            return self.cut("its answers are unread, control.reply_bytes is reached");
        }
        let Protocol::Http { exchange, .. } = &mut self.protocol else { return };
        let keep_alive = exchange.take().is_some_and(|exchange| exchange.keep_alive);
        answer.encode(keep_alive, self.output.bytes());
        if !keep_alive {
            self.close(now);
        }
    }

    /// Begins nothing more; goes when what waits is written.
    fn close(&mut self, now: Instant) {
        self.closing.get_or_insert(now + LINGER);
        self.taken = self.input.len();
    }

    fn cut(&mut self, why: &str) {
        tracing::debug!(client = self.id.index, "control client closed: {why}");
        self.dead = true;
    }

    /// Writes what the socket takes.
    pub fn flush(&mut self, now: Instant) {
        if self.output.unread() == 0 {
            return;
        }
        if self.output.flush(&self.socket) > 0 {
            // It reads, so it is not stuck.
            self.waiting_since = None;
            self.closing = self.closing.map(|_| now + LINGER);
        }
        if self.output.unread() == 0 {
            for at in 0..self.streams.len() {
                self.tell_dropped(at);
            }
            self.end_dumps(now);
            if self.closing.is_some() {
                // It may still be sending: cutting it off now would cost it our answer.
                let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
            }
        }
    }

    /// Whether it is worth calling `work` again at once.
    pub fn can_work(&self) -> bool {
        match &self.job {
            Some(job) => !job.is_held(),
            None if self.wants_sessions() => true,
            None => (self.hung_up && self.wants_to_read()) || (!self.hungry && !self.is_blocked()),
        }
    }

    /// Whether time alone may change something.
    pub fn wants_ticks(&self) -> bool {
        let waits = self.waiting_since.is_some() || self.closing.is_some() || self.job.is_some();
        waits || self.refusal.is_some() || self.hung_up
    }
}
