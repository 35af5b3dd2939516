//! Connections on their way up: the ramp, the connect, the request, and what a failed one counts as.

use std::net::SocketAddr;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::scene::{Aim, Scene};
use super::slots::{Slot, State, flag};
use super::timers::Due;
use super::{MASK, SECOND_NS, Worker};
use crate::plan::{Behaviour, News, Plan, Ramp, Transport, Work};
use crate::record::{Error, Timed};
use crate::request::targets;
use crate::request::values::Values;
use crate::wire::websocket::Opcode;
use crate::wire::{http, websocket};
use crate::{Failure, cpu};

/// An order to open that is under way.
#[derive(Debug)]
pub struct Ramping {
    ramp: Ramp,
    started_ns: u64,
    /// Slots from here on are its own.
    first: usize,
    count: usize,
    /// Of these, connects begun.
    begun: usize,
    /// Of these, open or failed.
    settled: usize,
}

impl Ramping {
    /// How many connects should have begun by now.
    fn allowed(&self, now_ns: u64) -> usize {
        let elapsed_ns = now_ns.saturating_sub(self.started_ns);
        let allowed = match self.ramp {
            Ramp::AtOnce => self.count,
            Ramp::PerSecond(rate) => (elapsed_ns as f64 * rate / SECOND_NS as f64) as usize + 1,
            Ramp::Steps { count, every_ns } => count as usize * (elapsed_ns / every_ns.max(1) + 1) as usize,
        };
        allowed.min(self.count)
    }

    /// When the next connect is due; `None` when all have begun or too many are under way.
    pub fn next_ns(&self, scene: &Scene) -> Option<u64> {
        if self.begun >= self.count || scene.under_way >= scene.connecting_max {
            return None;
        }
        Some(match self.ramp {
            Ramp::AtOnce => self.started_ns,
            Ramp::PerSecond(rate) => {
                self.started_ns + (self.begun as f64 * SECOND_NS as f64 / rate).ceil() as u64
            }
            Ramp::Steps { count, every_ns } => {
                self.started_ns + (self.begun / count.max(1) as usize) as u64 * every_ns
            }
        })
    }
}

impl Worker {
    pub(super) fn begin_opening(&mut self, plan: Plan) -> Result<(), Failure> {
        let under_way = self.scene.under_way;
        let first = if self.slots.is_empty() { plan.first } else { self.scene.first };
        let weights: Vec<u32> = plan.targets.iter().map(|target| target.weight).collect();
        // Connections that are open go on with the targets that they have.
        let mut aims = std::mem::take(&mut self.scene.aims);
        let aims_before = aims.len();
        let scene = Scene::new(&plan)?;
        aims.extend(scene.aims);
        self.scene = Scene { under_way, first, aims, ..scene };
        self.random = super::Random::new(plan.seed ^ u64::from(plan.first) << 32);
        let (before, count) = (self.slots.len(), plan.count as usize);
        // Exactly: a vector that doubles holds twice what it needs.
        self.slots.reserve_exact(count);
        for number in (0..plan.count).map(|number| plan.first + number) {
            let mut slot = Slot::new(number);
            slot.target = (aims_before + targets::pick(&weights, number)) as u16;
            slot.behaviour = self.scene.behaviour(number);
            self.slots.push(slot);
        }
        let started_ns = cpu::now_ns();
        let ramping = Ramping { ramp: plan.ramp, started_ns, first: before, count, begun: 0, settled: 0 };
        self.opening = Some(ramping);
        Ok(())
    }

    pub(super) fn open_more(&mut self) -> Result<(), Failure> {
        while let Some(ramping) = &mut self.opening {
            let allowed = ramping.allowed(self.now_ns);
            if ramping.begun >= allowed || self.scene.under_way >= self.scene.connecting_max {
                return Ok(());
            }
            let index = ramping.first + ramping.begun;
            ramping.begun += 1;
            self.connect(index);
        }
        Ok(())
    }

    /// `News::Opened` once everything of the order is open or has failed.
    pub(super) fn opened(&mut self) -> Option<News> {
        let ramping = self.opening.as_ref()?;
        if ramping.settled < ramping.count {
            return None;
        }
        let started_ns = ramping.started_ns;
        self.opening = None;
        Some(News::Opened { started_ns, ended_ns: cpu::now_ns(), open: self.open })
    }

    /// The slot has been open or has failed once.
    pub(super) fn settle(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        if slot.is(flag::SETTLED) {
            return;
        }
        slot.set(flag::SETTLED);
        if let Some(ramping) = &mut self.opening
            && index >= ramping.first
        {
            ramping.settled += 1;
        }
    }

    /// Begins to connect.
    pub(super) fn connect(&mut self, index: usize) {
        self.tally.counts.attempted += 1;
        let deadline_ms = self.deadline_ms();
        let slot = &mut self.slots[index];
        slot.began_ns = cpu::now_ns();
        slot.deadline_ms = deadline_ms;
        slot.state = State::Connecting;
        slot.set(flag::UNDER_WAY);
        self.scene.under_way += 1;
        let address = self.scene.aims[usize::from(slot.target)].address;
        match self.start_connect(index, address) {
            Ok(socket) => {
                self.slots[index].socket = Some(socket);
            }
            Err(error) => self.end(index, Some(error_of(error))),
        }
    }

    fn start_connect(&mut self, index: usize, address: SocketAddr) -> Result<OwnedFd, Errno> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let mut left = self.scene.sources.len();
        loop {
            let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
            sockopt::set_tcp_nodelay(&socket, true)?;
            if self.slots[index].behaviour == Behaviour::SlowReader {
                sockopt::set_socket_recv_buffer_size(&socket, 4096)?;
            }
            let connected = self.bind_source(&socket).and_then(|()| rustix::net::connect(&socket, &address));
            match connected {
                Ok(()) | Err(Errno::INPROGRESS) => {
                    let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT;
                    let flags = flags | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
                    epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(index as u64), flags)?;
                    return Ok(socket);
                }
                // This address has no port left: the next may have.
                Err(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL) if left > 1 => left -= 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn bind_source(&mut self, socket: &OwnedFd) -> Result<(), Errno> {
        if self.scene.sources.is_empty() {
            return Ok(());
        }
        let source = self.scene.sources[self.scene.next_source % self.scene.sources.len()];
        self.scene.next_source += 1;
        // The port is chosen by connect, which looks at all four numbers. One that bind chose would be closed to
        // every connect without a source for as long as it is in TIME_WAIT (ip(7), Linux 4.2).
        if source.is_ipv4() {
            let set = setsockopt(socket, IpBindAddressNoPort, &true);
            set.map_err(|error| Errno::from_raw_os_error(error as i32))?;
        }
        rustix::net::bind(socket, &SocketAddr::from((source, 0)))
    }

    /// The connect has come to its end: asks for what the target is there for.
    pub(super) fn connected(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let aim = &self.scene.aims[usize::from(slot.target)];
        slot.state = State::Handshake;
        match (slot.behaviour, aim.transport) {
            (Behaviour::HalfOpen, _) => self.stop_waiting(index),
            (Behaviour::ByteASecond, _) => {
                self.stop_waiting(index);
                self.misbehave_in(index, SECOND_NS);
            }
            (_, Transport::Tcp | Transport::Http) => self.established(index),
            _ => {
                let request = self.opening_request(index);
                self.write(index, &request);
                if self.scene.aims[usize::from(self.slots[index].target)].transport == Transport::LongPoll {
                    // There is no answer before the first message: a request that is sent is held.
                    self.established(index);
                }
            }
        }
    }

    /// A client that will never complete its handshake: nobody waits for it.
    pub(super) fn stop_waiting(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        if slot.is(flag::UNDER_WAY) {
            slot.clear(flag::UNDER_WAY);
            self.scene.under_way -= 1;
        }
        self.settle(index);
    }

    /// The request that opens a WebSocket, an event stream or a poll.
    pub(super) fn opening_request(&self, index: usize) -> Vec<u8> {
        let slot = &self.slots[index];
        let aim = &self.scene.aims[usize::from(slot.target)];
        let values = self.values(slot);
        let mut path = values.render(&aim.path);
        if aim.transport == Transport::LongPoll
            && let Some(next) = &slot.next
            && !aim.path.names().any(|name| name == "next")
        {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str("since=");
            path.push_str(next);
        }
        let headers = aim.headers.iter().map(|(name, value)| (name.as_str(), values.render(value)));
        let mut lines = lines(headers);
        match aim.transport {
            Transport::WebSocket => websocket::request(&aim.host, &path, &lines, aim.subprotocol.as_deref()),
            Transport::EventStream => {
                lines.push_str("Accept: text/event-stream\r\n");
                http::request("GET", &path, &aim.host, &lines, None, false)
            }
            Transport::LongPoll => http::request("GET", &path, &aim.host, &lines, None, false),
            Transport::Http | Transport::Tcp => Vec::new(),
        }
    }

    /// What the variables of templates are for this connection.
    pub(super) fn values<'a>(&'a self, slot: &'a Slot) -> Values<'a> {
        Values {
            number: slot.number,
            group: self.scene.group(slot.number),
            next: slot.next.as_deref().unwrap_or(""),
            variables: self.scene.variables.as_ref(),
            random: u64::from(slot.number) << 32 ^ slot.began_ns,
            ..Values::default()
        }
    }

    /// The handshake is complete.
    pub(super) fn established(&mut self, index: usize) {
        let now_ns = cpu::now_ns();
        let slot = &mut self.slots[index];
        slot.state = State::Open;
        slot.failures = 0;
        slot.deadline_ms = 0;
        self.open += 1;
        self.tally.counts.opened += 1;
        if slot.is(flag::BACK) {
            slot.clear(flag::BACK);
            self.tally.time(Timed::Reconnect, now_ns - slot.since_ns);
        } else {
            self.tally.time(Timed::Connect, now_ns - slot.began_ns);
        }
        self.stop_waiting(index);
        let target = usize::from(self.slots[index].target);
        if self.scene.aims[target].transport == Transport::WebSocket {
            for greeting in 0..self.scene.aims[target].greeting.len() {
                let values = self.values(&self.slots[index]);
                let text = values.render(&self.scene.aims[target].greeting[greeting]);
                self.send_message(index, text.as_bytes(), false);
            }
        }
        match self.slots[index].behaviour {
            Behaviour::Well => {}
            Behaviour::SlowReader => self.misbehave_in(index, SECOND_NS / 10),
            Behaviour::Resets => self.misbehave_in(index, SECOND_NS),
            _ => self.misbehave_in(index, 0),
        }
        if matches!(self.scene.work, Work::Request { .. }) {
            self.ready_to_ask(index);
        }
    }

    pub(super) fn misbehave_in(&mut self, index: usize, wait_ns: u64) {
        let generation = self.slots[index].generation;
        self.timers.add(self.now_ns + wait_ns, index as u32, generation, Due::Misbehave);
    }

    /// Sends one WebSocket message.
    pub(super) fn send_message(&mut self, index: usize, payload: &[u8], binary: bool) {
        let mut frame = Vec::with_capacity(payload.len() + 14);
        let opcode = if binary { Opcode::Binary } else { Opcode::Text };
        websocket::frame(&mut frame, opcode, payload, MASK);
        self.write(index, &frame);
    }
}

impl Aim {
    /// The request of an `Http` target.
    pub(super) fn request(&self, values: &Values<'_>) -> Vec<u8> {
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), values.render(value)));
        let body = self.body.as_ref().map(|body| values.render(body).into_bytes());
        let path = values.render(&self.path);
        http::request(&self.method, &path, &self.host, &lines(headers), body.as_deref(), self.close)
    }
}

fn lines<'a>(headers: impl Iterator<Item = (&'a str, String)>) -> String {
    headers.map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

/// What an error of the system amounts to.
pub(super) fn error_of(error: Errno) -> Error {
    match error {
        Errno::MFILE | Errno::NFILE => Error::TooManyFiles,
        Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => Error::AddressNotAvailable,
        Errno::CONNREFUSED => Error::Refused,
        Errno::CONNRESET | Errno::PIPE => Error::Reset,
        Errno::NETUNREACH | Errno::HOSTUNREACH => Error::Unreachable,
        Errno::TIMEDOUT => Error::ConnectTimedOut,
        _ => Error::System,
    }
}
