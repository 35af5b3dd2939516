//! A server of known behaviour: WebSocket, event stream, long poll and plain HTTP on one port, with faults
//! at known places.
//!
//! One thread, one epoll. Messages come in by `POST /publish` (to all) and `POST /publish/USER`, or from the
//! test itself. `script` says what is wrong with it, `tally` what it saw. Faults of messages are planted once,
//! in the one log that all connections are served from: what one connection misses, all miss.
//!
//! `GET /ws`, `/sse`, `/poll` receive; `/echo` sends back; `/chat` takes `{"to":…,"payload":…}` and passes the
//! payload on to `all`, to a group or to a user; every other path is a plain request. Of the query,
//! `number=`, `user=` and `group=` are heeded.

pub mod octets;
pub mod script;
pub mod tally;

pub mod answering;
mod delivery;
mod link;
mod service;

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use script::{End, Script};
use service::Service;
use tally::Tally;

/// How long anything may take that is waited for.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// What a test says to its server.
enum Command {
    Publish { to: To, payload: Vec<u8> },
    EndAll(End),
    Stop,
}

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    All,
    User(String),
    Group(String),
}

/// The tally, and a bell that rings when it has changed.
#[derive(Default)]
struct Shared {
    tally: Mutex<Tally>,
    changed: Condvar,
}

/// A running server; it ends with this.
pub struct Planted {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Planted {
    pub fn start(script: Script) -> Self {
        // Some tests hold thousands of connections.
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        // The tool has 256 handshakes under way: the standard library's 128 would cost some of them a second.
        socket.listen(4096).unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        let (commands, orders) = mpsc::channel();
        let service = Service::new(script, listener, wake.clone(), orders, shared.clone());
        let thread = std::thread::spawn(move || service.run());
        Self { address, shared, commands, wake, thread: Some(thread) }
    }

    /// `ws://…PATH?number={{number}}&user=u{{number}}`
    pub fn ws(&self, path: &str) -> String {
        format!("ws://{}{path}?number={{{{number}}}}&user=u{{{{number}}}}", self.address)
    }

    /// `http://…PATH?number={{number}}&user=u{{number}}`
    pub fn http(&self, path: &str) -> String {
        format!("http://{}{path}?number={{{{number}}}}&user=u{{{{number}}}}", self.address)
    }

    /// Where messages are published.
    pub fn publish_url(&self) -> String {
        format!("http://{}/publish", self.address)
    }

    pub fn publish(&self, to: To, payload: Vec<u8>) {
        self.order(Command::Publish { to, payload });
    }

    /// Ends every connection that is open.
    pub fn end_all(&self, how: End) {
        self.order(Command::EndAll(how));
    }

    /// What it has seen so far.
    pub fn tally(&self) -> Tally {
        self.shared.tally.lock().unwrap().clone()
    }

    /// Waits until it has seen something. Panics at the deadline.
    #[track_caller]
    pub fn until(&self, what: &str, seen: impl Fn(&Tally) -> bool) -> Tally {
        let by = Instant::now() + DEADLINE;
        let mut tally = self.shared.tally.lock().unwrap();
        while !seen(&tally) {
            let left = by.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not within {DEADLINE:?}: {what}");
            tally = self.shared.changed.wait_timeout(tally, left).unwrap().0;
        }
        tally.clone()
    }

    fn order(&self, command: Command) {
        self.commands.send(command).expect("the server is there");
        rustix::io::write(&self.wake, &1u64.to_ne_bytes()).unwrap();
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        // It is gone already where it has panicked; then the join says so.
        let _ = self.commands.send(Command::Stop);
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the planted server has failed");
    }
}
