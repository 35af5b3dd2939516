//! The server's thread: one epoll, a clock for what is late, connections and their handshakes. Next:
//! `delivery` for messages, `answering` for requests.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use socket2::SockRef;

use super::delivery::Log;
use super::link::{Flow, Link, Purpose, State, What};
use super::octets::{self, Request};
use super::script::{End, Ending, Framing, Greeting, Script};
use super::tally::{Asked, Ended, Role, Seen, Tally};
use super::{Command, Shared, To};

const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;

pub struct Service {
    pub(super) script: Script,
    epoll: OwnedFd,
    listener: TcpListener,
    wake: Arc<OwnedFd>,
    orders: Receiver<Command>,
    shared: Arc<Shared>,
    /// By their index in the tally.
    pub(super) links: BTreeMap<usize, Link>,
    /// When to look at which connection again.
    clock: BinaryHeap<Reverse<(Instant, usize)>>,
    pub(super) log: Log,
    /// Handshakes of each connection for which something is planted.
    attempts: HashMap<u32, u32>,
}

impl Service {
    pub fn new(
        script: Script,
        listener: TcpListener,
        wake: Arc<OwnedFd>,
        orders: Receiver<Command>,
        shared: Arc<Shared>,
    ) -> Self {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN).unwrap();
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN).unwrap();
        Self {
            script,
            epoll,
            listener,
            wake,
            orders,
            shared,
            links: BTreeMap::new(),
            clock: BinaryHeap::new(),
            log: Log::default(),
            attempts: HashMap::new(),
        }
    }

    pub fn run(mut self) {
        let mut events = Vec::with_capacity(256);
        loop {
            let timeout = self.clock.peek().map(|Reverse((due, _))| {
                let left = due.saturating_duration_since(Instant::now());
                // Rounded up by the kernel's timer slack at most: never early.
                Timespec::try_from(left).unwrap()
            });
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => panic!("epoll: {error}"),
            }
            let shared = self.shared.clone();
            let mut tally = shared.tally.lock().unwrap();
            for event in events.drain(..) {
                match event.data.u64() {
                    LISTENER => self.accept(&mut tally),
                    WAKE => {
                        if self.obey(&mut tally) {
                            return;
                        }
                    }
                    id => self.look(id as usize, event.flags, &mut tally),
                }
            }
            let now = Instant::now();
            while self.clock.peek().is_some_and(|Reverse((due, _))| *due <= now) {
                let Reverse((_, id)) = self.clock.pop().unwrap();
                self.flush(id, &mut tally);
            }
            drop(tally);
            self.shared.changed.notify_all();
        }
    }

    fn accept(&mut self, tally: &mut Tally) {
        while let Ok((stream, peer)) = self.listener.accept() {
            stream.set_nonblocking(true).unwrap();
            stream.set_nodelay(true).unwrap();
            if let Some(bytes) = self.script.socket_send_bytes {
                SockRef::from(&stream).set_send_buffer_size(bytes).unwrap();
            }
            let id = tally.connections.len();
            tally.connections.push(Seen::new(peer));
            let data = epoll::EventData::new_u64(id as u64);
            epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN).unwrap();
            self.links.insert(id, Link::new(stream));
        }
    }

    /// Does what the test says; true at the end.
    fn obey(&mut self, tally: &mut Tally) -> bool {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        while let Ok(command) = self.orders.try_recv() {
            match command {
                Command::Publish { to, payload } => self.publish(to, payload.into(), None, tally),
                Command::EndAll(how) => {
                    let open = |id: &usize| tally.connections[*id].is_open();
                    let ids: Vec<usize> = self.links.keys().copied().filter(open).collect();
                    for id in ids {
                        self.end(id, how);
                        self.flush(id, tally);
                    }
                }
                Command::Stop => return true,
            }
        }
        false
    }

    fn look(&mut self, id: usize, flags: epoll::EventFlags, tally: &mut Tally) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            let flow = link.read(&mut tally.connections[id]);
            // What came before the end counts.
            self.understand(id, tally);
            if let Flow::Over(how) = flow {
                return self.drop_link(id, how, tally);
            }
        }
        self.flush(id, tally);
    }

    fn drop_link(&mut self, id: usize, how: Ended, tally: &mut Tally) {
        if self.links.remove(&id).is_some() {
            tally.connections[id].ended = Some((Instant::now(), how));
        }
    }

    pub(super) fn flush(&mut self, id: usize, tally: &mut Tally) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let flow = link.flush(self.script.writing, &mut tally.connections[id], Instant::now());
        let mut interest = epoll::EventFlags::IN;
        match flow {
            Flow::Stays => {}
            Flow::Until(due) => self.clock.push(Reverse((due, id))),
            Flow::Blocked => interest |= epoll::EventFlags::OUT,
            Flow::Over(how) => return self.drop_link(id, how, tally),
        }
        if link.wants != interest {
            link.wants = interest;
            epoll::modify(&self.epoll, &link.stream, epoll::EventData::new_u64(id as u64), interest).unwrap();
        }
    }

    /// Takes everything whole out of the input.
    fn understand(&mut self, id: usize, tally: &mut Tally) {
        while let Some(link) = self.links.get_mut(&id) {
            match link.state {
                State::Head => {
                    let Some((request, length)) = Request::parse(&link.input) else { return };
                    link.input.drain(..length);
                    self.request(id, request, tally);
                }
                State::WebSocket(purpose) => match octets::client_frame(&link.input) {
                    Ok(None) => return,
                    Ok(Some((frame, length))) => {
                        link.input.drain(..length);
                        self.frame(id, purpose, frame, tally);
                    }
                    Err(breach) => {
                        tally.connections[id].breach = Some(breach);
                        link.state = State::Deaf;
                    }
                },
                State::EventStream | State::Poll(_) | State::Deaf => return,
            }
        }
    }

    fn request(&mut self, id: usize, request: Request, tally: &mut Tally) {
        let link = self.links.get_mut(&id).unwrap();
        let seen = &mut tally.connections[id];
        seen.number = request.query("number").and_then(|number| number.parse().ok()).or(seen.number);
        link.number = seen.number.unwrap_or_default();
        link.user = request.query("user").map(str::to_owned).or(link.user.take());
        link.group = request.query("group").map(str::to_owned).or(link.group.take());
        if let Some(user) = request.path().strip_prefix("/publish") {
            seen.role = Role::Publisher;
            let user = user.strip_prefix('/').map(str::to_owned);
            self.publish(user.map_or(To::All, To::User), request.body.into(), None, tally);
            return self.respond(id, 200, br#"{"accepted":true}"#, tally);
        }
        seen.role = match request.path() {
            "/ws" | "/echo" | "/chat" => Role::WebSocket,
            "/sse" => Role::EventStream,
            "/poll" => Role::LongPoll,
            _ => Role::Http,
        };
        if seen.role == Role::Http {
            tally.requests.push(Asked { connection: id, request });
            return self.answer(id, tally);
        }
        let greeting = self.greeting(id);
        tally.misgreeted += u64::from(greeting.is_some());
        match greeting {
            None => self.open(id, &request, Instant::now(), tally),
            Some(Greeting::Late(late)) => self.open(id, &request, Instant::now() + late, tally),
            Some(Greeting::Never) => self.links.get_mut(&id).unwrap().state = State::Deaf,
            Some(Greeting::Refused(status, after)) => {
                let headers = after.map(|seconds| ("Retry-After", seconds.to_string()));
                self.refuse(id, status, headers.as_slice(), tally);
            }
            Some(Greeting::Garbage) => {
                let link = self.links.get_mut(&id).unwrap();
                link.put_octets(Instant::now(), octets::GARBAGE);
                link.state = State::Deaf;
            }
            Some(Greeting::WrongAccept) => {
                let link = self.links.get_mut(&id).unwrap();
                link.put_octets(Instant::now(), octets::switching("somebody else's key"));
                link.state = State::Deaf;
            }
            Some(Greeting::Ended) => self.end(id, End::Silent),
            Some(Greeting::Reset) => self.end(id, End::Reset),
        }
    }

    /// What is planted for this handshake, where something is.
    fn greeting(&mut self, id: usize) -> Option<Greeting> {
        let number = self.links[&id].number;
        let planted = self.script.openings.iter().find(|opening| opening.connections.contains(&number))?;
        let attempt = self.attempts.entry(number).or_default();
        *attempt += 1;
        planted.attempts.contains(&(*attempt - 1)).then_some(planted.how)
    }

    /// Completes the handshake, or holds the poll.
    fn open(&mut self, id: usize, request: &Request, at: Instant, tally: &mut Tally) {
        let seen = &mut tally.connections[id];
        let link = self.links.get_mut(&id).unwrap();
        seen.opened_at.get_or_insert(at);
        match seen.role {
            Role::EventStream => {
                link.put_octets(at, octets::stream_head(self.script.retry_ms, self.script.framing));
                link.state = State::EventStream;
            }
            Role::LongPoll => {
                let since = request.query("since").map(|since| octets::position(since).expect("ours"));
                link.state = State::Poll(since.unwrap_or(self.log.end()));
                return self.serve_poll(id);
            }
            _ => {
                let Some(key) = request.header("sec-websocket-key") else {
                    seen.opened_at = None;
                    return self.refuse(id, 426, &[], tally);
                };
                link.put_octets(at, octets::switching(key));
                link.state = State::WebSocket(match request.path() {
                    "/echo" => Purpose::Echo,
                    "/chat" => Purpose::Chat,
                    _ => Purpose::Subscriber,
                });
            }
        }
        self.end_where_planted(id);
    }

    fn refuse(&mut self, id: usize, status: u16, headers: &[(&str, String)], tally: &mut Tally) {
        let body = br#"{"error":{"code":"planted","message":"as planted"}}"#;
        *tally.statuses.entry(status).or_default() += 1;
        let response = octets::response(status, headers, body, self.script.framing);
        self.links.get_mut(&id).unwrap().put_octets(Instant::now(), response);
        self.end(id, End::Silent);
    }

    pub(super) fn respond(&mut self, id: usize, status: u16, body: &[u8], tally: &mut Tally) {
        *tally.statuses.entry(status).or_default() += 1;
        let response = octets::response(status, &[], body, Framing::Length);
        self.links.get_mut(&id).unwrap().put_octets(Instant::now(), response);
    }

    pub(super) fn end(&mut self, id: usize, how: End) {
        let link = self.links.get_mut(&id).unwrap();
        let now = Instant::now();
        let websocket = matches!(link.state, State::WebSocket(_));
        match how {
            End::Close(code, reason) if websocket => {
                link.put_octets(now, octets::close(code, reason));
                link.put(now, What::End(how));
            }
            End::Close(..) => link.put(now, What::End(End::Silent)),
            _ => link.put(now, What::End(how)),
        }
    }

    pub(super) fn end_where_planted(&mut self, id: usize) {
        let link = &self.links[&id];
        let due = |ending: &&Ending| ending.connections.contains(&link.number) && ending.after == link.queued;
        if let Some(ending) = self.script.endings.iter().find(due) {
            self.end(id, ending.how);
        }
    }
}
