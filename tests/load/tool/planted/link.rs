//! One connection of the server: what came in, what waits to go out, and when.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use socket2::SockRef;

use super::script::{End, Writing};
use super::tally::{Ended, Seen};

/// What a WebSocket is for, by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Subscriber,
    Echo,
    Chat,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Between requests.
    Head,
    WebSocket(Purpose),
    EventStream,
    /// A poll that waits for what comes at this position or later.
    Poll(usize),
    /// Whatever comes is counted and not understood.
    Deaf,
}

/// Something to do once everything before it is done and its time has come.
pub struct Piece {
    pub due: Instant,
    pub what: What,
}

pub enum What {
    /// Octets, from the offset on; with how many messages they carry.
    Octets {
        octets: Arc<[u8]>,
        from: usize,
        messages: u64,
    },
    /// Nothing goes on before so many pings are answered.
    AwaitPong(u64),
    End(End),
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It stays.
    Stays,
    /// It stays, and wants to be looked at then.
    Until(Instant),
    /// The socket takes no more for now.
    Blocked,
    /// It is to be dropped.
    Over(Ended),
}

pub struct Link {
    pub stream: TcpStream,
    pub input: Vec<u8>,
    pub output: VecDeque<Piece>,
    pub state: State,
    pub number: u32,
    pub user: Option<String>,
    pub group: Option<String>,
    /// Messages put into `output` so far.
    pub queued: u64,
    /// Payloads of the pings that are not answered yet.
    pub pings: VecDeque<Vec<u8>>,
    /// What epoll waits for.
    pub wants: EventFlags,
    /// The server has sent its close or its FIN: only the client's end is awaited.
    pub ending: bool,
}

impl Link {
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            output: VecDeque::new(),
            state: State::Head,
            number: 0,
            user: None,
            group: None,
            queued: 0,
            pings: VecDeque::new(),
            wants: EventFlags::IN,
            ending: false,
        }
    }

    /// Puts something at the end of what goes out; never before what was put there earlier.
    pub fn put(&mut self, due: Instant, what: What) {
        let due = self.output.back().map_or(due, |last| last.due.max(due));
        self.output.push_back(Piece { due, what });
    }

    pub fn put_octets(&mut self, due: Instant, octets: impl Into<Arc<[u8]>>) {
        self.put(due, What::Octets { octets: octets.into(), from: 0, messages: 0 });
    }

    /// Notes pings that go out with the next octets.
    pub fn put_pings(&mut self, payloads: impl IntoIterator<Item = Vec<u8>>, seen: &mut Seen) {
        let before = self.pings.len();
        self.pings.extend(payloads);
        seen.pings += (self.pings.len() - before) as u64;
    }

    /// A pong came. It answers its ping and those before (RFC 6455 5.5.3).
    pub fn pong(&mut self, payload: &[u8], seen: &mut Seen) {
        match self.pings.iter().position(|ping| ping == payload) {
            Some(at) => {
                self.pings.drain(..=at);
                seen.pongs += at as u64 + 1;
            }
            None => seen.breach = Some("a pong without its ping"),
        }
    }

    /// Reads what is there. The connection is over at its end.
    pub fn read(&mut self, seen: &mut Seen) -> Flow {
        let mut octets = [0; 65_536];
        loop {
            match self.stream.read(&mut octets) {
                Ok(0) if self.ending => return Flow::Over(Ended::Planted),
                Ok(0) => return Flow::Over(Ended::Finished),
                Ok(count) => {
                    seen.reads += 1;
                    seen.bytes_in += count as u64;
                    if self.state != State::Deaf {
                        self.input.extend_from_slice(&octets[..count]);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Flow::Stays,
                Err(_) if self.ending => return Flow::Over(Ended::Planted),
                Err(_) => return Flow::Over(Ended::Reset),
            }
        }
    }

    /// Writes what is due.
    pub fn flush(&mut self, writing: Writing, seen: &mut Seen, now: Instant) -> Flow {
        let flow = self.write(writing, seen, now);
        let unsent = |piece: &Piece| match &piece.what {
            What::Octets { octets, from, .. } => octets.len() - from,
            _ => 0,
        };
        seen.unsent = self.output.iter().map(unsent).sum();
        flow
    }

    fn write(&mut self, writing: Writing, seen: &mut Seen, now: Instant) -> Flow {
        while let Some(piece) = self.output.front_mut() {
            if piece.due > now {
                return Flow::Until(piece.due);
            }
            match &mut piece.what {
                What::AwaitPong(answered) if seen.pongs < *answered => return Flow::Stays,
                What::AwaitPong(_) => {}
                What::Octets { octets, from, messages } => {
                    while *from < octets.len() {
                        let end = if writing == Writing::Octets { *from + 1 } else { octets.len() };
                        match self.stream.write(&octets[*from..end]) {
                            Ok(count) => {
                                *from += count;
                                seen.bytes_out += count as u64;
                            }
                            Err(error) if error.kind() == ErrorKind::WouldBlock => return Flow::Blocked,
                            Err(_) if self.ending => return Flow::Over(Ended::Planted),
                            Err(_) => return Flow::Over(Ended::Reset),
                        }
                    }
                    seen.delivered += *messages;
                }
                What::End(End::Close(..)) => self.ending = true,
                What::End(End::Silent) => {
                    // Not a plain close: with something unread that would be an RST.
                    let _ = self.stream.shutdown(Shutdown::Write);
                    self.ending = true;
                    self.state = State::Deaf;
                }
                What::End(End::Reset) => {
                    SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
                    return Flow::Over(Ended::Planted);
                }
            }
            self.output.pop_front();
        }
        Flow::Stays
    }
}
