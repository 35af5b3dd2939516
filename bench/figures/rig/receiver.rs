//! The client side of a measurement: a worker of `corecast-bench`, on one core.
//!
//! The same worker that users drive through the tool's modes, driven here step by step, so that rounds can
//! alternate between the gateway and the baseline. Next: `load::worker`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::crew::{Crew, Shape};
use crate::plan::{BackOff, News, Order, Plan, Ramp, Target, Transport, Work};
use crate::record::Counts;
use crate::{cpu, failure};

use super::Outcome;

/// How many connections may be under way at once.
const CONNECTING_MAX: u32 = 256;
/// Connections from one address: beyond half of its 28,232 ports the kernel's search gets slow.
const PER_SOURCE: u32 = 12_000;

/// What each of a receiver's connections asks for.
#[derive(Clone, Debug)]
pub enum Role {
    /// A WebSocket of its own user (`user`), subscribed to `TOPIC`.
    Subscriber,
    /// The same by another transport.
    By(Transport),
    /// A `Subscriber` that was at this position.
    Resuming(String),
    /// A connect and nothing more.
    Bare,
}

/// What every subscriber is subscribed to.
pub const TOPIC: &str = "news";

/// The user that connection number `number` authenticates as: 16 bytes, distinct.
pub fn user(number: u32) -> String {
    format!("u{number:015}")
}

/// All connections of an order are established.
#[derive(Clone, Copy, Debug)]
pub struct Connected {
    /// Before the first connect (`cpu::now_ns`).
    pub started_ns: u64,
    /// After the last was established, with its handshake where it has one.
    pub ended_ns: u64,
}

/// What has arrived since the receiver started, over all connections.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Everything that is counted.
    pub counts: Counts,
    /// The moment of this count (`cpu::now_ns`).
    pub at_ns: u64,
}

/// The worker's process, seen from the driver.
pub struct Receiver {
    crew: Crew,
    connections: u32,
}

impl Receiver {
    /// Starts it on one core.
    pub fn start(core: usize) -> Outcome<Self> {
        let shape = Shape { processes: 1, threads: 1, pin: vec![core] };
        let program = Path::new(env!("CARGO_BIN_EXE_corecast-bench"));
        Ok(Self { crew: Crew::start(program, &shape)?, connections: 0 })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.crew.pids()[0]
    }

    /// Opens `count` more connections and waits for the last.
    pub fn connect(&mut self, address: SocketAddr, count: u32, role: &Role) -> Outcome<Connected> {
        let plan = self.plan(address, count, role);
        self.connections += count;
        self.crew.order(0, &Order::Open(Box::new(plan)))?;
        match self.next(Duration::from_secs(60))? {
            News::Opened { started_ns, ended_ns, open } if open == self.connections => {
                Ok(Connected { started_ns, ended_ns })
            }
            other => Err(failure!("while connecting, the receiver reports {other:?}")),
        }
    }

    fn plan(&self, address: SocketAddr, count: u32, role: &Role) -> Plan {
        let (transport, path) = match role {
            Role::Subscriber | Role::Resuming(_) => (Transport::WebSocket, "/ws"),
            Role::By(transport @ Transport::EventStream) => (*transport, "/sse"),
            Role::By(transport @ Transport::LongPoll) => (*transport, "/poll"),
            Role::By(transport) => (*transport, "/ws"),
            Role::Bare => (Transport::Tcp, "/"),
        };
        let since = match role {
            Role::Resuming(position) => format!("&since={position}"),
            _ => String::new(),
        };
        let target = Target {
            transport,
            address,
            host: address.to_string(),
            path: format!("{path}?user=u{{{{number:15}}}}&topics={TOPIC}&timeout=300{since}"),
            method: "GET".to_owned(),
            headers: Vec::new(),
            body: None,
            subprotocol: None,
            greeting: Vec::new(),
            weight: 1,
            close: false,
        };
        // Another net for every process, so that ports in TIME_WAIT are not in the way.
        let net = (std::process::id() % 200) as u8 + 2;
        let sources = (0..=count.div_ceil(PER_SOURCE)).map(|host| [127, 0, net, host as u8 + 1].into());
        Plan {
            targets: vec![target],
            first: self.connections,
            count,
            ramp: Ramp::AtOnce,
            connecting_max: CONNECTING_MAX,
            // Always: the ports of 127.0.0.1 are those that the run before left in TIME_WAIT.
            sources: sources.collect(),
            timeout_ns: 30_000_000_000,
            variables: None,
            behaviours: Vec::new(),
            // The payloads have no stamps: receiving should cost as little as it can.
            verify: false,
            checks: Vec::new(),
            back_off: BackOff::Never,
            polls_again: false,
            work: Work::Hold,
            seed: 1,
        }
    }

    /// Lets the polls that were answered ask again.
    pub fn poll_again(&mut self) -> Outcome<()> {
        self.crew.order(0, &Order::Begin { at_ns: cpu::now_ns() })
    }

    /// Asks to be told when `messages` have arrived since the start; does not wait. To be asked before
    /// they are sent, so that the answer is on its way when the last arrives.
    pub fn expect(&mut self, messages: u64) -> Outcome<()> {
        self.crew.order(0, &Order::Await { messages })
    }

    /// Waits for what `expect` asked for. Errors: a connection was lost.
    pub fn received(&mut self, within: Duration) -> Outcome<Received> {
        match self.next(within)? {
            News::Received { counts, at_ns } if counts.dropped == 0 => {
                Ok(Received { counts: *counts, at_ns })
            }
            other => Err(failure!("while receiving, the receiver reports {other:?}")),
        }
    }

    /// What has arrived so far.
    pub fn count(&mut self) -> Outcome<Received> {
        self.expect(0)?;
        self.received(Duration::from_secs(10))
    }

    /// The next news that is an answer. Errors: connections were lost meanwhile.
    fn next(&mut self, within: Duration) -> Outcome<News> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.crew.news(left)? {
                Some((_, News::Delta(delta))) if delta.counts.dropped + delta.counts.failed > 0 => {
                    return Err(failure!("connections were lost: {:?}", delta.outcomes));
                }
                Some((_, News::Delta(_))) => {}
                Some((_, news)) => return Ok(news),
                None => return Err(failure!("the receiver reports nothing within {within:?}")),
            }
        }
    }

    /// Ends the process, and with it all connections.
    pub fn stop(self) -> Outcome<()> {
        self.crew.stop()
    }
}
