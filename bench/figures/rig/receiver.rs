//! The client side of a measurement: thousands of connections in one thread, counting what arrives.
//!
//! One epoll, edge-triggered, one receive buffer, no task and no buffer per connection, so that the
//! receiver costs little and costs the same whoever sends. Answers pings. It reports when a total has
//! arrived, and at once when a connection that should stay is lost. Next: `websocket`.

use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Serialize};

use super::process::{Helper, Role};
use super::websocket::{self, Arrived, Frames, Upgrade};
use super::{Outcome, cpu};

/// How many connections may be under way at once.
const CONNECTING_MAX: u32 = 256;
/// So many connections leave from the kernel's choice of port; beyond that they leave from a second
/// address, because the search for a free port gets slow when half of the 28,232 ports are taken.
const FROM_FIRST_ADDRESS_MAX: u32 = 12_000;
const BUFFER_BYTES: usize = 256 * 1024;
const EVENTS_MAX: usize = 1024;
/// Marks the standard input among the epoll data, which else are connection numbers.
const ORDERS: u64 = u64::MAX;

#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// Open `count` more connections: `Report::Connected`.
    Connect { address: SocketAddr, count: u32, upgrade: Option<Upgrade> },
    /// Tell when this many messages have arrived since the start: `Report::Received`.
    Await { messages: u64 },
}

#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Connected(Connected),
    Received(Received),
    Lost { connections: u32, first: String },
}

/// All connections of an order are established.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Connected {
    /// Before the first connect (`cpu::now_ns`).
    pub started_ns: u64,
    /// After the last was established, with its 101 where it upgrades.
    pub ended_ns: u64,
}

/// What has arrived since the receiver started, over all connections.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Received {
    /// Whole data frames.
    pub messages: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
    /// Pings, each answered with a pong.
    pub pings: u64,
    /// The moment of this count (`cpu::now_ns`).
    pub at_ns: u64,
}

/// The receiver's process, seen from the driver.
pub struct Receiver {
    helper: Helper,
}

impl Receiver {
    /// Starts it on one core.
    pub fn start(core: usize) -> Outcome<Self> {
        Ok(Self { helper: Helper::start(Role::Receiver, core)? })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.helper.pid()
    }

    /// Opens `count` connections, upgraded where `upgrade` is given, and waits for the last.
    pub fn connect(
        &mut self,
        address: SocketAddr,
        count: u32,
        upgrade: Option<Upgrade>,
    ) -> Outcome<Connected> {
        self.helper.order(&Order::Connect { address, count, upgrade })?;
        match self.helper.report(Duration::from_secs(60))? {
            Report::Connected(connected) => Ok(connected),
            other => Err(format!("while connecting, the receiver reports {other:?}").into()),
        }
    }

    /// Asks to be told when `messages` have arrived since the start; does not wait. To be asked before
    /// they are sent, so that the answer is on its way when the last arrives.
    pub fn expect(&mut self, messages: u64) -> Outcome<()> {
        self.helper.order(&Order::Await { messages })
    }

    /// Waits for what `expect` asked for. Errors: a connection was lost.
    pub fn received(&mut self, within: Duration) -> Outcome<Received> {
        match self.helper.report(within)? {
            Report::Received(received) => Ok(received),
            other => Err(format!("while receiving, the receiver reports {other:?}").into()),
        }
    }

    /// What has arrived so far.
    pub fn count(&mut self) -> Outcome<Received> {
        self.expect(0)?;
        self.received(Duration::from_secs(10))
    }

    /// Ends the process, and with it all connections.
    pub fn stop(self) -> Outcome<()> {
        self.helper.stop()
    }
}

/// The receiver's process, from inside: obeys until its orders end.
pub fn run() -> Outcome<()> {
    let mut crowd = Crowd::new()?;
    while crowd.turn()? {}
    Ok(())
}

/// How far a connection has come.
enum State {
    Connecting,
    /// Reading the response head, which is here as far as it has come.
    Upgrading(Vec<u8>),
    Open(Frames),
}

struct Connection {
    socket: OwnedFd,
    state: State,
}

/// An order to connect that is under way.
struct Connecting {
    address: SocketAddr,
    upgrade: Option<Upgrade>,
    unstarted: u32,
    under_way: u32,
    started_ns: u64,
}

struct Crowd {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    orders: Vec<u8>,
    connections: Vec<Option<Connection>>,
    connecting: Option<Connecting>,
    awaited: VecDeque<u64>,
    received: Received,
    lost: u32,
    first_lost: Option<String>,
    buffer: Vec<u8>,
}

impl Crowd {
    fn new() -> Outcome<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, std::io::stdin(), epoll::EventData::new_u64(ORDERS), epoll::EventFlags::IN)?;
        Ok(Self {
            epoll,
            events: Vec::with_capacity(EVENTS_MAX),
            orders: Vec::new(),
            connections: Vec::new(),
            connecting: None,
            awaited: VecDeque::new(),
            received: Received::default(),
            lost: 0,
            first_lost: None,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Waits for events and handles them; false when there will be no more orders.
    fn turn(&mut self) -> Outcome<bool> {
        self.start_connections()?;
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut more = true;
        for event in &events {
            match event.data.u64() {
                ORDERS => more = self.read_orders()?,
                index => self.handle_event(index as usize, event.flags)?,
            }
        }
        self.events = events;
        self.report_progress()?;
        Ok(more)
    }

    fn read_orders(&mut self) -> Outcome<bool> {
        let read = rustix::io::read(std::io::stdin(), &mut self.buffer[..])?;
        self.orders.extend_from_slice(&self.buffer[..read]);
        while let Some(end) = self.orders.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.orders.drain(..=end).collect();
            match serde_json::from_slice(&line)? {
                Order::Connect { address, count, upgrade } => {
                    let started_ns = cpu::now_ns();
                    let connecting =
                        Connecting { address, upgrade, unstarted: count, under_way: 0, started_ns };
                    self.connecting = Some(connecting);
                }
                Order::Await { messages } => self.awaited.push_back(messages),
            }
        }
        Ok(read > 0)
    }

    fn start_connections(&mut self) -> Outcome<()> {
        let Some(connecting) = &mut self.connecting else { return Ok(()) };
        while connecting.unstarted > 0 && connecting.under_way < CONNECTING_MAX {
            let index = self.connections.len() as u64;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
            if index >= u64::from(FROM_FIRST_ADDRESS_MAX) {
                // Another address for every process, so that ports in TIME_WAIT are not in the way.
                let host = (std::process::id() % 200) as u8 + 2;
                rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, host], 0)))?;
            }
            match rustix::net::connect(&socket, &connecting.address) {
                Ok(()) | Err(Errno::INPROGRESS) => {}
                Err(error) => return Err(format!("connection {index}: {error}").into()),
            }
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT;
            let flags = flags | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
            epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(index), flags)?;
            self.connections.push(Some(Connection { socket, state: State::Connecting }));
            connecting.unstarted -= 1;
            connecting.under_way += 1;
        }
        Ok(())
    }

    fn handle_event(&mut self, index: usize, flags: epoll::EventFlags) -> Outcome<()> {
        // A connection lost in this turn may have an event left.
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        if matches!(connection.state, State::Connecting) {
            sockopt::socket_error(&connection.socket)?
                .map_err(|error| format!("connection {index}: {error}"))?;
            if !flags.contains(epoll::EventFlags::OUT) {
                return Ok(());
            }
            let Some(connecting) = &mut self.connecting else { return Ok(()) };
            connection.state = match &connecting.upgrade {
                Some(upgrade) => {
                    let request = upgrade.request(connecting.address, index as u32);
                    send_whole(&connection.socket, request.as_bytes())?;
                    State::Upgrading(Vec::new())
                }
                None => {
                    connecting.under_way -= 1;
                    State::Open(Frames::default())
                }
            };
        }
        let ended = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        let ended = flags.intersects(ended);
        if ended || flags.contains(epoll::EventFlags::IN) { self.read(index, ended) } else { Ok(()) }
    }

    /// Reads until there is no more: an edge comes once. A read shorter than the buffer has emptied the
    /// socket, and the next bytes are a new edge; only an end that has `ended` already is no longer told.
    fn read(&mut self, index: usize, ended: bool) -> Outcome<()> {
        while let Some(connection) = &self.connections[index] {
            match rustix::net::recv(&connection.socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.lose(index, "it ended"),
                Ok((read, _)) => {
                    self.handle_bytes(index, read)?;
                    if read < BUFFER_BYTES && !ended {
                        break;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(error) => self.lose(index, &error.to_string()),
            }
        }
        Ok(())
    }

    /// Takes the first `read` bytes of the buffer for the connection.
    fn handle_bytes(&mut self, index: usize, read: usize) -> Outcome<()> {
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        let mut input = &self.buffer[..read];
        if let State::Upgrading(head) = &mut connection.state {
            let already = head.len();
            head.extend_from_slice(input);
            let Some(end) = websocket::accepted(head)? else { return Ok(()) };
            input = &input[end - already..];
            connection.state = State::Open(Frames::default());
            if let Some(connecting) = &mut self.connecting {
                connecting.under_way -= 1;
            }
        }
        let State::Open(frames) = &mut connection.state else { return Ok(()) };
        let mut control = None;
        frames.handle_bytes(input, |arrived| match arrived {
            Arrived::Message(bytes) => {
                self.received.messages += 1;
                self.received.payload_bytes += bytes;
            }
            other => control = Some(other),
        });
        // At most one a read: a ping comes once a heartbeat, and nothing follows a close.
        match control {
            Some(Arrived::Ping(payload)) => {
                self.received.pings += 1;
                send_whole(&connection.socket, &websocket::pong(&payload))?;
            }
            Some(Arrived::Close(code, reason)) => self.lose(index, &format!("close {code} {reason}")),
            _ => {}
        }
        Ok(())
    }

    fn lose(&mut self, index: usize, why: &str) {
        self.connections[index] = None;
        self.lost += 1;
        self.first_lost.get_or_insert_with(|| format!("connection {index}: {why}"));
    }

    fn report_progress(&mut self) -> Outcome<()> {
        if let Some(Connecting { unstarted: 0, under_way: 0, started_ns, .. }) = self.connecting {
            self.connecting = None;
            report(&Report::Connected(Connected { started_ns, ended_ns: cpu::now_ns() }))?;
        }
        let waited_for = self.connecting.is_some() || !self.awaited.is_empty();
        if let (true, Some(first)) = (waited_for, &self.first_lost) {
            return report(&Report::Lost { connections: self.lost, first: first.clone() });
        }
        while self.awaited.front().is_some_and(|&messages| self.received.messages >= messages) {
            self.awaited.pop_front();
            self.received.at_ns = cpu::now_ns();
            report(&Report::Received(self.received))?;
        }
        Ok(())
    }
}

/// A new socket takes a short message whole.
fn send_whole(socket: &OwnedFd, bytes: &[u8]) -> Outcome<()> {
    match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        Ok(sent) => Err(format!("only {sent} of {} bytes were taken", bytes.len()).into()),
        Err(error) => Err(error.into()),
    }
}

fn report(report: &Report) -> Outcome<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    Ok(std::io::stdout().write_all(&line)?)
}
