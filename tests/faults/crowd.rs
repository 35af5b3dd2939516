//! Thousands of WebSockets on one thread: opened together, heard together, ended together.
//!
//! Raw WebSockets without a subprotocol, so that a message is one frame. A message that begins with a
//! number of microseconds is a probe, and what it took is kept. Next: `scene` for those that are watched.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::harness::websocket::{CLOSE, PING, PONG, frame, reset, upgrade};

/// What stamps count from.
static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Connections from one address: far fewer than it has ports, those of ended ones included.
const FROM_ONE_ADDRESS: usize = 4000;

/// Now, in microseconds, as probes carry it.
pub fn stamp_us() -> u64 {
    BEGUN.elapsed().as_micros() as u64
}

/// What a crowd has heard so far.
#[derive(Debug, Default)]
pub struct Heard {
    /// Upgraded.
    pub opened: usize,
    /// Answered something else, by status.
    pub refused: BTreeMap<u16, usize>,
    /// Told why before the end, by close code.
    pub closed: BTreeMap<u16, usize>,
    /// Connections that have ended, however.
    pub ended: usize,
    /// Messages.
    pub messages: u64,
    /// From a probe's stamp to its receipt, in microseconds.
    pub probes_us: Vec<u64>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Connecting,
    Upgrading,
    Open,
    Refused,
    Ended,
}

struct Member {
    stream: Option<TcpStream>,
    /// What is not whole yet.
    input: Vec<u8>,
    state: State,
}

/// How its members are.
#[derive(Clone, Copy, Default)]
pub struct Manner {
    /// Bytes that a socket takes before it is read; the kernel's default where 0.
    pub receive_bytes: usize,
    /// Pings and closes stay unanswered.
    pub rude: bool,
}

/// Many clients.
pub struct Crowd {
    epoll: OwnedFd,
    members: Vec<Member>,
    requests: Vec<String>,
    manner: Manner,
    scratch: Vec<u8>,
    pub heard: Heard,
}

impl Crowd {
    /// Begins to connect `count`, the n-th with `/ws?` and `query(n)`; `until` or `turn` goes on with it.
    pub fn begin(address: SocketAddr, count: usize, manner: Manner, query: impl Fn(usize) -> String) -> Self {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let requests = (0..count).map(|n| upgrade(&format!("/ws?{}", query(n)), "")).collect();
        let scratch = vec![0; 256 * 1024];
        let mut crowd = Self { epoll, members: vec![], requests, manner, scratch, heard: Heard::default() };
        for n in 0..count {
            let stream = crowd.connect(address, n);
            let edges = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&crowd.epoll, &stream, epoll::EventData::new_u64(n as u64), edges).unwrap();
            crowd.members.push(Member { stream: Some(stream), input: vec![], state: State::Connecting });
            // The gateway is not to wait for this thread, nor its backlog to fill before it is heard.
            if n % 64 == 63 {
                crowd.turn(Duration::ZERO);
            }
        }
        crowd
    }

    /// Connects all; each is upgraded or refused when this returns. Panics after `within`.
    #[track_caller]
    pub fn open(
        address: SocketAddr,
        count: usize,
        manner: Manner,
        within: Duration,
        query: impl Fn(usize) -> String,
    ) -> Self {
        let mut crowd = Self::begin(address, count, manner, query);
        let all = crowd.until(within, |heard| heard.answered() >= count);
        assert!(all, "{} of {count} answered within {within:?}: {:?}", crowd.heard.answered(), crowd.heard);
        crowd
    }

    fn connect(&self, address: SocketAddr, n: usize) -> TcpStream {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        if self.manner.receive_bytes > 0 {
            // Before connecting: it decides the window that is announced.
            sockopt::set_socket_recv_buffer_size(&socket, self.manner.receive_bytes).unwrap();
        }
        if address.ip().is_loopback() {
            let from = Ipv4Addr::new(127, 0, 1, 2 + (n / FROM_ONE_ADDRESS) as u8);
            rustix::net::bind(&socket, &SocketAddr::from((from, 0))).unwrap();
        }
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => socket.into(),
            Err(errno) => panic!("connecting number {n}: {errno}"),
        }
    }

    /// Hears what there is until `enough`; false where that takes longer than `within`.
    pub fn until(&mut self, within: Duration, enough: impl Fn(&Heard) -> bool) -> bool {
        let by = Instant::now() + within;
        while !enough(&self.heard) {
            if Instant::now() >= by {
                return false;
            }
            self.turn(Duration::from_millis(20));
        }
        true
    }

    /// Hears what there is, after waiting `timeout` for it at most.
    pub fn turn(&mut self, timeout: Duration) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(512);
        let timeout = Timespec::try_from(timeout).unwrap();
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => panic!("epoll_wait: {errno}"),
        }
        events.iter().for_each(|event| self.serve(event.data.u64() as usize));
    }

    fn serve(&mut self, n: usize) {
        let Self { members, requests, scratch, heard, manner, .. } = self;
        let member = &mut members[n];
        let Some(stream) = member.stream.as_mut() else { return };
        if member.state == State::Connecting {
            match stream.write(requests[n].as_bytes()) {
                Ok(count) => assert_eq!(count, requests[n].len(), "a new socket takes a whole request"),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return;
                }
                Err(_) => return member.end(heard),
            }
            member.state = State::Upgrading;
        }
        loop {
            match stream.read(scratch) {
                Ok(0) => return member.end(heard),
                Ok(count) if member.input.is_empty() && member.state == State::Open => {
                    // Nothing is kept of whole frames: a crowd is large.
                    let taken = take_frames(&scratch[..count], stream, heard, *manner);
                    member.input.extend_from_slice(&scratch[taken..count]);
                }
                Ok(count) => {
                    member.input.extend_from_slice(&scratch[..count]);
                    member.state = take_answer(&mut member.input, member.state, heard);
                    if member.state == State::Open {
                        let taken = take_frames(&member.input, stream, heard, *manner);
                        member.input.drain(..taken);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return member.end(heard),
            }
        }
    }

    /// Hears nothing more of its members from number `first` on, which stay connected.
    pub fn mute(&mut self, first: usize) {
        for stream in self.members[first..].iter().filter_map(|member| member.stream.as_ref()) {
            epoll::delete(&self.epoll, stream).unwrap();
        }
    }

    /// Sends `octets` to the gateway as number `n`; false where the socket does not take all of it.
    pub fn send(&mut self, n: usize, octets: &[u8]) -> bool {
        let stream = self.members[n].stream.as_mut();
        stream.is_some_and(|stream| stream.write(octets).is_ok_and(|count| count == octets.len()))
    }

    /// Resets so many of those that are open.
    pub fn reset_open(&mut self, count: usize) {
        let open = self.members.iter_mut().filter(|member| member.state == State::Open);
        open.take(count).filter_map(|member| member.stream.take()).for_each(reset);
    }

    /// Resets all that are still connected.
    pub fn reset_all(&mut self) {
        self.members.iter_mut().filter_map(|member| member.stream.take()).for_each(reset);
    }
}

impl Heard {
    /// Clients that know what became of their request: those without an answer have ended.
    pub fn answered(&self) -> usize {
        let refused: usize = self.refused.values().sum();
        self.opened + refused.max(self.ended.saturating_sub(self.opened))
    }
}

impl Member {
    fn end(&mut self, heard: &mut Heard) {
        self.stream = None;
        self.state = State::Ended;
        heard.ended += 1;
    }
}

/// Takes the head of an answer off `input` once it is whole.
fn take_answer(input: &mut Vec<u8>, state: State, heard: &mut Heard) -> State {
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else { return state };
    if state != State::Upgrading {
        return state;
    }
    let status = String::from_utf8_lossy(&input[9..12]).parse().unwrap();
    input.drain(..end + 4);
    if status == 101 {
        heard.opened += 1;
        return State::Open;
    }
    *heard.refused.entry(status).or_default() += 1;
    State::Refused
}

/// Takes all whole frames off the front of `input`; gives how many bytes they were.
fn take_frames(input: &[u8], stream: &mut TcpStream, heard: &mut Heard, manner: Manner) -> usize {
    let mut taken = 0;
    while let Some((opcode, payload, length)) = whole_frame(&input[taken..]) {
        match opcode {
            PING if !manner.rude => drop(stream.write(&frame(true, PONG, payload))),
            CLOSE => {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                *heard.closed.entry(code).or_default() += 1;
                if !manner.rude {
                    let _ = stream.write(&frame(true, CLOSE, &payload[..payload.len().min(2)]));
                }
            }
            PING | PONG => {}
            _ => {
                heard.messages += 1;
                let digits = payload.iter().take_while(|octet| octet.is_ascii_digit());
                let sent_us = digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
                if sent_us > 0 {
                    heard.probes_us.push(stamp_us().saturating_sub(sent_us));
                }
            }
        }
        taken += length;
    }
    taken
}

/// The frame at the front, where it is whole: opcode, payload, length with the header.
fn whole_frame(input: &[u8]) -> Option<(u8, &[u8], usize)> {
    let [first, second, ..] = *input else { return None };
    let (begin, length) = match second {
        126 => (4, usize::from(u16::from_be_bytes([*input.get(2)?, *input.get(3)?]))),
        127 => (10, u64::from_be_bytes(*input.get(2..)?.first_chunk()?) as usize),
        length => (2, usize::from(length)),
    };
    Some((first & 0xf, input.get(begin..begin + length)?, begin + length))
}
