//! The Rust client of the control socket: blocking, without an async runtime.
//!
//! Speaks the binary protocol of contract section 3. `call` for one command after the other; `send`,
//! `flush` and `receive` for many in flight. Writing never waits for ever on unread answers: they are
//! taken in meanwhile.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::control::codec;
use crate::control::command::{Answer, Command, CommandError, EventFilter, Push, Pushed};

/// Commands queued before they are written without being told to.
const QUEUE_BYTES: usize = 64 * 1024;
/// Read at once.
const READ_BYTES: usize = 256 * 1024;
/// Longest wait at once.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// Longest answer that is believed; the gateway's longest is a list of all topics.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// One connection to the gateway's control socket, over the binary protocol.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    next_correlation: u64,
    queue: Vec<u8>,
    input: Vec<u8>,
    /// How much of `input` is decoded.
    taken: usize,
    scratch: Vec<u8>,
    /// Came while `call` waited for another one.
    set_aside: VecDeque<Received>,
}

/// An answer with the correlation id of what it answers.
pub type Received = (u64, Result<Answer, CommandError>);

/// Why a call failed.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody answers on the socket; the error names the path.
    Unreachable(io::Error),
    /// The connection broke.
    Broken(io::Error),
    /// The gateway refused the command.
    Refused(CommandError),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                writeln!(f, "may not speak to the gateway on {error}")?;
                write!(f, "try: as the gateway's user or in its group; its control.allow_uids may say more")
            }
            Self::Unreachable(error) => {
                writeln!(f, "no gateway answers on {error}")?;
                writeln!(f, "likely cause: it is not running, or its socket is elsewhere")?;
                write!(f, "try: corecast serve, or --socket with the path that it printed")
            }
            Self::Broken(error) => {
                writeln!(f, "the connection to the gateway broke: {error}")?;
                write!(f, "likely cause: it has exited, or closed us for leaving its answers unread")
            }
            Self::Refused(refused) => write!(f, "the gateway refused: {refused}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl Client {
    /// Connects. Errors: `Unreachable`.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let socket = UnixStream::connect(path).map_err(|error| ClientError::Unreachable(named(error)))?;
        Ok(Self {
            socket,
            next_correlation: 1,
            queue: Vec::new(),
            input: Vec::new(),
            taken: 0,
            scratch: vec![0; READ_BYTES],
            set_aside: VecDeque::new(),
        })
    }

    /// Sends one command and waits for its answer; of a stream, for its first. Answers to other commands
    /// that come meanwhile are kept for `receive`. Errors: all.
    pub fn call(&mut self, command: &Command) -> Result<Answer, ClientError> {
        let correlation = self.send(command)?;
        self.flush()?;
        loop {
            match self.receive_next()? {
                (of, result) if of == correlation => return result.map_err(ClientError::Refused),
                other => self.set_aside.push_back(other),
            }
        }
    }

    /// One push. Errors: all.
    pub fn push(&mut self, push: Push) -> Result<Pushed, ClientError> {
        match self.call(&Command::Push(push))? {
            Answer::Pushed(pushed) => Ok(pushed),
            other => Err(unexpected(&format!("{other:?} is no answer to a push"))),
        }
    }

    /// Asks for events of the kinds in `mask` (`shard::mailbox::event_mask`): their JSON lines, until the
    /// gateway goes. The iterator ends with the error that ended it.
    pub fn events(self, mask: u64) -> Result<Events, ClientError> {
        self.events_where(EventFilter { mask, topics: Vec::new(), user: None })
    }

    /// The same, of events that pass `filter`. A filter that is none is refused by the first item.
    pub fn events_where(mut self, filter: EventFilter) -> Result<Events, ClientError> {
        let correlation = self.send(&Command::EventsWhere(filter))?;
        self.flush()?;
        Ok(Events { client: self, correlation, ended: false })
    }

    /// Queues a command without waiting; gives its correlation id. Written out by `flush`, or when
    /// 64 KiB are queued. Errors: `Broken`.
    pub fn send(&mut self, command: &Command) -> Result<u64, ClientError> {
        let correlation = self.next_correlation;
        self.next_correlation += 1;
        codec::encode_request(correlation, command, &mut self.queue);
        if self.queue.len() >= QUEUE_BYTES {
            self.flush()?;
        }
        Ok(correlation)
    }

    /// Writes out what is queued. Takes answers in while the gateway does not take commands: it reads
    /// from nobody who leaves its answers unread. Errors: `Broken`.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        let mut written = 0;
        while written < self.queue.len() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, &self.queue[written..], flags) {
                Ok(n) => written += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if self.wait(PollFlags::IN | PollFlags::OUT, None)?.intersects(PollFlags::IN) {
                        self.read(RecvFlags::DONTWAIT)?;
                    }
                }
                Err(errno) => return Err(ClientError::Broken(errno.into())),
            }
        }
        self.queue.clear();
        Ok(())
    }

    /// Waits for the next answer to anything sent: its correlation id and what became of it. Writes out
    /// what is queued before it waits. Errors: `Broken`.
    pub fn receive(&mut self) -> Result<Received, ClientError> {
        match self.set_aside.pop_front() {
            Some(reply) => Ok(reply),
            None => self.receive_next(),
        }
    }

    /// As `receive`, but no longer than until `by`, where that is given: then `None`. Errors: `Broken`.
    pub fn receive_by(&mut self, by: Option<Instant>) -> Result<Option<Received>, ClientError> {
        self.flush()?;
        loop {
            if let Some(reply) = self.try_receive()? {
                return Ok(Some(reply));
            }
            let left = by.map(|by| by.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            self.wait(PollFlags::IN, left)?;
        }
    }

    /// The next answer if it is there already. Errors: `Broken`.
    pub fn try_receive(&mut self) -> Result<Option<Received>, ClientError> {
        if let Some(reply) = self.set_aside.pop_front() {
            return Ok(Some(reply));
        }
        if let Some(reply) = self.decode()? {
            return Ok(Some(reply));
        }
        self.read(RecvFlags::DONTWAIT)?;
        self.decode()
    }

    fn receive_next(&mut self) -> Result<Received, ClientError> {
        loop {
            if let Some(reply) = self.decode()? {
                return Ok(reply);
            }
            self.flush()?;
            // What the flush took in comes first.
            if let Some(reply) = self.decode()? {
                return Ok(reply);
            }
            self.read(RecvFlags::empty())?;
        }
    }

    fn decode(&mut self) -> Result<Option<Received>, ClientError> {
        let malformed = |malformed| unexpected(&format!("{malformed:?} frame"));
        let frame = codec::frame(&self.input[self.taken..], ANSWER_BYTES_MAX).map_err(malformed)?;
        let Some(frame) = frame else {
            return Ok(None);
        };
        let reply = codec::decode_reply(frame).map_err(malformed)?;
        self.taken += codec::LENGTH_BYTES + frame.len();
        Ok(Some((reply.correlation, reply.result)))
    }

    fn wait(&self, flags: PollFlags, at_most: Option<Duration>) -> Result<PollFlags, ClientError> {
        // One too long for the kernel is looked at again before it is over.
        let at_most = at_most.map(|time| time.min(WAIT_MAX).try_into().expect("an hour is a time"));
        let mut fds = [PollFd::new(&self.socket, flags)];
        match rustix::event::poll(&mut fds, at_most.as_ref()) {
            Ok(_) => Ok(fds[0].revents()),
            Err(Errno::INTR) => Ok(PollFlags::empty()),
            Err(errno) => Err(ClientError::Broken(errno.into())),
        }
    }

    fn read(&mut self, flags: RecvFlags) -> Result<(), ClientError> {
        match rustix::net::recv(&self.socket, &mut self.scratch[..], flags) {
            Ok((0, _)) => {
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection");
                Err(ClientError::Broken(error))
            }
            Ok((n, _)) => {
                self.input.drain(..self.taken);
                self.taken = 0;
                self.input.extend_from_slice(&self.scratch[..n]);
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(errno) => Err(ClientError::Broken(errno.into())),
        }
    }
}

fn unexpected(what: &str) -> ClientError {
    let message = format!("{what}: is it a gateway of another version?");
    ClientError::Broken(io::Error::new(io::ErrorKind::InvalidData, message))
}

/// Events as they happen; see `Client::events`.
#[derive(Debug)]
pub struct Events {
    client: Client,
    correlation: u64,
    ended: bool,
}

impl Iterator for Events {
    type Item = Result<String, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let result = self.client.receive();
            match result {
                Ok((of, _)) if of != self.correlation => {}
                Ok((_, Ok(Answer::Event(line)))) => return Some(Ok(line)),
                Ok((_, Ok(other))) => {
                    self.ended = true;
                    return Some(Err(unexpected(&format!("{other:?} is no event"))));
                }
                Ok((_, Err(refused))) => {
                    self.ended = true;
                    return Some(Err(ClientError::Refused(refused)));
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
