//! One shard without gateway and executor, turned by hand in a process of its own, its heap watched.
//!
//! `Shard::turn` takes the time as an argument, so an hour of heartbeats passes in seconds, and every
//! allocation of a turn is the shard's own: those of control and of this harness are not counted.
//! Real sockets, real ring; the clients are a `receiver` on a core of its own, started here.

use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use corecast::config::Config;
use corecast::control::Channel;
use corecast::message::{Kind, Message, Target};
use corecast::ring;
use corecast::shard::listener::{Listener, SocketOptions};
use corecast::shard::mailbox::{Gate, Letter, Mailbox, Owner, Report, mailbox};
use corecast::shard::{Parts, Room, Settings, Shard};
use corecast::wire::websocket::encode_message;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use rustix::event::{EventfdFlags, eventfd};
use serde::{Deserialize, Serialize};

use super::Outcome;
use super::process::{Helper, Role};
use super::pusher::name;
use super::receiver::{self, Receiver, TOPIC};

const RECEIVER_CORE: usize = 1;
/// Few, so that a tape is soon as full as it gets; how many changes nothing per message.
const HISTORY_MESSAGES: u32 = 16;
/// How far time is put forward between turns: the resolution of a shard's clock.
const STEP: Duration = Duration::from_millis(10);
/// Longest wait for what is on its way, in real time.
const ARRIVAL: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Connect { count: u32 },
    Broadcast { rounds: u32, payload_bytes: usize },
    Pass { seconds: u64 },
    Wake { times: u32 },
}

/// What the shard's thread did while it carried out an order. The answer to every order.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Counted {
    /// Heap allocations, `realloc` included.
    pub allocations: u64,
    /// Turns of the shard's loop.
    pub turns: u64,
    /// Pings sent, each answered.
    pub pings: u64,
}

/// The shard's process, seen from the driver.
pub struct LoneShard {
    helper: Helper,
}

impl LoneShard {
    /// Starts it on one core, not that of its receiver.
    pub fn start(core: usize) -> Outcome<Self> {
        Ok(Self { helper: Helper::start(Role::LoneShard, core)? })
    }

    /// Has `count` more clients connect and subscribe.
    pub fn connect(&mut self, count: u32) -> Outcome<Counted> {
        self.obey(&Order::Connect { count })
    }

    /// Broadcasts to all of them, each received by all before the next.
    pub fn broadcast(&mut self, rounds: u32, payload_bytes: usize) -> Outcome<Counted> {
        self.obey(&Order::Broadcast { rounds, payload_bytes })
    }

    /// Lets time pass, in small steps; every ping is answered before the next step.
    pub fn pass(&mut self, seconds: u64) -> Outcome<Counted> {
        self.obey(&Order::Pass { seconds })
    }

    /// Has an executor, without the shard, fall asleep and be woken so many times.
    pub fn wake(&mut self, times: u32) -> Outcome<Counted> {
        self.obey(&Order::Wake { times })
    }

    fn obey(&mut self, order: &Order) -> Outcome<Counted> {
        self.helper.order(order)?;
        self.helper.report(Duration::from_secs(300))
    }

    /// Ends the process.
    pub fn stop(self) -> Outcome<()> {
        self.helper.stop()
    }
}

/// The shard's process, from inside: obeys until its orders end.
pub fn run() -> Outcome<()> {
    let mut harness = Harness::start()?;
    for line in std::io::stdin().lock().lines() {
        let counted = harness.obey(serde_json::from_str(&line?)?)?;
        let mut line = serde_json::to_vec(&counted)?;
        line.push(b'\n');
        std::io::stdout().write_all(&line)?;
    }
    harness.receiver.stop()
}

/// A shard and the time it is given: real time, and what was skipped of it.
struct Turning {
    shard: Shard,
    reports: Channel<Report>,
    skipped: Duration,
    counted: Counted,
}

impl Turning {
    fn now(&self) -> Instant {
        Instant::now() + self.skipped
    }

    fn turn(&mut self) {
        let now = self.now();
        self.counted.allocations += measure(|| self.shard.turn(now)).count_total;
        self.counted.turns += 1;
        // Through control's own hands: how it empties the channel decides what the next send costs.
        self.reports.drain().for_each(drop);
    }

    /// Turns until `done`, at least once.
    fn turn_until(&mut self, what: &str, mut done: impl FnMut(&Shard) -> bool) -> Outcome<()> {
        let deadline = Instant::now() + ARRIVAL;
        loop {
            self.turn();
            if done(&self.shard) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let stats = self.shard.snapshot();
                return Err(format!("no {what} within {ARRIVAL:?}: {stats:?}").into());
            }
        }
    }
}

struct Harness {
    turning: Turning,
    mailbox: Mailbox,
    gate: Arc<Gate>,
    address: SocketAddr,
    receiver: Receiver,
    clients: u32,
    seq: u64,
    messages: u64,
}

impl Harness {
    fn start() -> Outcome<Self> {
        let mut config = Config::default();
        config.limits.connects_per_second = 0;
        config.history.messages = HISTORY_MESSAGES;
        let send_bytes = config.limits.socket_send_bytes.bytes();
        let options = SocketOptions { send_bytes, backlog: 4096 };
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), options)?;
        let address = listener.address()?;
        let bytes_max = config.control.mailbox_bytes.bytes();
        let (mailbox, inbox) = mailbox(config.control.mailbox_messages as usize, bytes_max)?;
        let gate = Arc::new(Gate::default());
        let (reports, reports_in) = flume::unbounded();
        let shard = Shard::new(Parts {
            number: 0,
            epoch: 1,
            settings: Settings::new(&config, Room { clients_max: 1 << 20, sockets_max: 1 << 20 }),
            listeners: vec![listener],
            inbox,
            peers: vec![mailbox.clone()],
            owner: Owner::new(1),
            gate: gate.clone(),
            reports,
        })?;
        let counted = Counted::default();
        let turning = Turning { shard, reports: Channel::new(reports_in), skipped: Duration::ZERO, counted };
        let receiver = Receiver::start(RECEIVER_CORE)?;
        Ok(Self { turning, mailbox, gate, address, receiver, clients: 0, seq: 0, messages: 0 })
    }

    fn obey(&mut self, order: Order) -> Outcome<Counted> {
        self.turning.counted = Counted::default();
        let pings = self.turning.shard.snapshot().pings;
        match order {
            Order::Connect { count } => self.connect(count)?,
            Order::Broadcast { rounds, payload_bytes } => self.broadcast(rounds, payload_bytes)?,
            Order::Pass { seconds } => self.pass(Duration::from_secs(seconds))?,
            Order::Wake { times } => return wakes(times),
        }
        let stats = self.turning.shard.snapshot();
        if stats.connections != u64::from(self.clients) || stats.blocked > 0 {
            return Err(format!("not all {} clients keep up: {stats:?}", self.clients).into());
        }
        Ok(Counted { pings: stats.pings - pings, ..self.turning.counted })
    }

    fn connect(&mut self, count: u32) -> Outcome<()> {
        let Self { turning, receiver, address, .. } = self;
        thread::scope(|scope| {
            let connecting = scope.spawn(|| {
                receiver
                    .connect(*address, count, &receiver::Role::Subscriber)
                    .map_err(|error| error.to_string())
            });
            while !connecting.is_finished() {
                turning.turn();
            }
            connecting.join().expect("connecting does not panic")
        })?;
        self.clients += count;
        Ok(())
    }

    fn broadcast(&mut self, rounds: u32, payload_bytes: usize) -> Outcome<()> {
        let topic = name(TOPIC)?;
        let payload = vec![b'x'; payload_bytes];
        for _ in 0..rounds {
            self.seq += 1;
            self.messages += u64::from(self.clients);
            self.receiver.expect(self.messages)?;
            let (frame, header_bytes) = encode_message(Kind::Binary, &payload);
            let target = Target::Topic(topic.clone());
            let message = Arc::new(Message::new(self.seq, target, Kind::Binary, frame, header_bytes));
            self.gate.last_seq.store(self.seq, Ordering::Relaxed);
            let letter = Letter::Push { inquiry: self.seq, message };
            self.mailbox.post(letter).map_err(|full| format!("{full:?}"))?;
            let messages = self.messages;
            self.turning.turn_until("delivery", |shard| shard.snapshot().delivered >= messages)?;
            self.receiver.received(ARRIVAL)?;
            // One more, that finds nothing: whatever was left for later has been done.
            self.turning.turn();
        }
        Ok(())
    }

    fn pass(&mut self, time: Duration) -> Outcome<()> {
        let end = self.turning.now() + time;
        while self.turning.now() < end {
            self.turning.skipped += STEP;
            self.turning.turn_until("pong", |shard| {
                let stats = shard.snapshot();
                stats.pongs == stats.pings || stats.closed_total() > 0
            })?;
        }
        Ok(())
    }
}

/// Allocations of `times` wake-ups: those of an executor's run with so many, less one with none.
fn wakes(times: u32) -> Outcome<Counted> {
    // As a shard's (`gateway`); it runs on this thread.
    let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 10).ring_depth(64).make();
    let executor = executor.map_err(|error| error.to_string())?;
    // What only the first run allocates is not a wake-up's.
    executor_run(&executor, 1)?;
    let allocations = executor_run(&executor, times + 1)? - executor_run(&executor, 1)?;
    Ok(Counted { allocations, ..Counted::default() })
}

/// Sleeps on an eventfd as a shard does, `times` times, woken by another thread each time.
fn executor_run(executor: &LocalExecutor, times: u32) -> Outcome<u64> {
    let asleep = eventfd(0, EventfdFlags::CLOEXEC)?;
    let alarm = eventfd(0, EventfdFlags::CLOEXEC)?;
    let (waits, rings) = (asleep.try_clone()?, alarm.try_clone()?);
    let waker = thread::spawn(move || -> rustix::io::Result<()> {
        for _ in 0..times {
            rustix::io::read(&waits, &mut [0; 8])?;
            // Until the executor sleeps; when it does not yet, the count is the same.
            thread::sleep(Duration::from_micros(100));
            rustix::io::write(&rings, &1u64.to_ne_bytes())?;
        }
        Ok(())
    });
    let mut slept: Outcome<()> = Ok(());
    let sleeps = async {
        let alarm = ring::alarm(alarm);
        for _ in 0..times {
            rustix::io::write(&asleep, &1u64.to_ne_bytes())?;
            alarm.read_at(0, 8).await.map_err(|error| error.to_string())?;
        }
        Ok(alarm.close().await.map_err(|error| error.to_string())?)
    };
    let allocations = measure(|| slept = executor.run(sleeps)).count_total;
    waker.join().expect("waking does not panic")?;
    slept.map(|()| allocations)
}
