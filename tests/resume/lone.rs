//! Shards without a process, turned by hand: real sockets, real rings, the real sequencer, and a clock that
//! the test puts forward.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use corecast::config::{ByteSize, Config};
use corecast::control::command::{Answer, Command, Push};
use corecast::control::inquiries::{ClientId, Waiter};
use corecast::control::sequencer::{Outcome, Sequencer, Shards};
use corecast::message::{Kind, Name, Target};
use corecast::shard::listener::{Listener, SocketOptions};
use corecast::shard::mailbox::{Gate, Owner, Report, Request, mailbox};
use corecast::shard::{Parts, Room, Settings, Shard};
use corecast::wire::websocket::encode_message;

use crate::model::Limits;
use crate::run::Machine;

pub const EPOCH: u32 = 0xa1;
/// `limits.socket_send_bytes` for sluggish clients, and for the others.
const SEND_BYTES: [usize; 2] = [4 << 10, 32 << 10];

/// Shards joined by their mailboxes.
pub struct Lone {
    shards: Vec<Shard>,
    /// Of each shard: for sluggish clients, and for the others.
    addresses: Vec<[SocketAddr; 2]>,
    sequencer: Sequencer,
    owner: Owner,
    reports: flume::Receiver<Report>,
    started: Instant,
    skipped: Duration,
    asked: u64,
    frozen: Option<usize>,
}

impl Lone {
    pub fn start(limits: &Limits, poll_bytes: usize, count: u16) -> Self {
        let config = configuration(limits, poll_bytes);
        let (gate, owner) = (Arc::new(Gate::default()), Owner::new(count));
        let (report, reports) = flume::unbounded();
        let pairs = (0..count).map(|_| mailbox(1 << 16, 64 << 20).expect("an eventfd"));
        let (mailboxes, inboxes): (Vec<_>, Vec<_>) = pairs.unzip();
        let (mut shards, mut addresses) = (Vec::new(), Vec::new());
        for (number, inbox) in inboxes.into_iter().enumerate() {
            let listeners = SEND_BYTES.map(|send_bytes| {
                let options = SocketOptions { send_bytes, backlog: 128 };
                Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), options).expect("a port")
            });
            addresses.push(listeners.each_ref().map(|listener| listener.address().expect("bound")));
            let parts = Parts {
                number: number as u16,
                epoch: EPOCH,
                settings: Settings::new(&config, Room { clients_max: 1 << 20, sockets_max: 1 << 20 }),
                listeners: listeners.into(),
                inbox,
                peers: mailboxes.clone(),
                owner: owner.clone(),
                gate: gate.clone(),
                reports: report.clone(),
            };
            shards.push(Shard::new(parts).expect("a ring"));
        }
        let mailboxes = Shards { mailboxes, owner: owner.clone() };
        let sequencer = Sequencer::new(EPOCH, config.limits.message_bytes.bytes(), mailboxes, gate);
        let (started, skipped) = (Instant::now(), Duration::ZERO);
        Self { shards, addresses, sequencer, owner, reports, started, skipped, asked: 0, frozen: None }
    }

    /// The time of all shards. Stands still but for `pass`.
    fn now(&self) -> Instant {
        self.started + self.skipped
    }

    fn request(&mut self, shard: u16, request: Request) {
        let waiter = self.waiter();
        self.sequencer.ask_one(shard, request, waiter).expect("there is room");
    }

    fn waiter(&mut self) -> Waiter {
        self.asked += 1;
        Waiter::Client { client: ClientId { index: 0, generation: 0 }, correlation: self.asked }
    }
}

/// No deadline but those of the history: how time is counted against the others has tests of its own.
fn configuration(limits: &Limits, poll_bytes: usize) -> Config {
    let size = |bytes: usize| ByteSize(bytes as u64);
    let mut config = Config::default();
    config.history.messages = limits.messages as u32;
    config.history.bytes = size(limits.bytes);
    config.history.age = limits.age;
    config.limits.send_backlog_bytes = size(limits.backlog_bytes);
    config.limits.poll_bytes = size(poll_bytes);
    config.limits.connects_per_second = 0;
    config.limits.uplinks_per_second = 0;
    let long = Duration::from_secs(60_000);
    let timeouts = &mut config.timeouts;
    (timeouts.handshake, timeouts.pong) = (long, long);
    (timeouts.send, timeouts.close) = (long, long);
    (timeouts.heartbeat, timeouts.heartbeat_min, timeouts.heartbeat_max) = (long, long, long);
    config
}

impl Machine for Lone {
    // A host that is short of memory stands still for seconds; what arrives at all does so in one turn or two.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn epoch(&self) -> u32 {
        EPOCH
    }

    fn shard_of(&self, user: &Name) -> usize {
        usize::from(self.owner.shard_of(user))
    }

    fn address(&self, landing: usize, sluggish: bool) -> (SocketAddr, usize) {
        let shard = landing % self.addresses.len();
        (self.addresses[shard][usize::from(!sluggish)], shard)
    }

    fn turn(&mut self, _: &[&TcpStream]) {
        let now = self.now();
        for (number, shard) in self.shards.iter_mut().enumerate() {
            if self.frozen != Some(number) {
                shard.turn(now);
            }
            let stats = shard.snapshot();
            assert_eq!(stats.pending, shard.owed().messages, "Rule 10: {stats:?}");
        }
        for report in self.reports.drain() {
            if let Report::Reply { inquiry, reply } = report {
                self.sequencer.handle_reply(inquiry, reply);
            }
        }
    }

    fn order(&mut self, command: Command) {
        match command {
            Command::Push(push) => {
                let (waiter, now) = (self.waiter(), self.now());
                self.sequencer.push(push, waiter, now).expect("accepted");
            }
            Command::KickUser { user, code, .. } => {
                let code = code.expect("a code");
                let request = Request::KickUser { user: user.clone(), code, reason: String::new() };
                self.request(self.owner.shard_of(&user), request);
            }
            Command::Bind { user, topic } => {
                self.request(self.owner.shard_of(&user), Request::Bind { user, topic });
            }
            Command::Unbind { user, topic } => {
                self.request(self.owner.shard_of(&user), Request::Unbind { user, topic });
            }
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self) -> Option<Answer> {
        match self.sequencer.poll_answer()? {
            (_, Outcome::Answer(answer)) => Some(answer),
            (_, outcome) => panic!("{outcome:?}"),
        }
    }

    fn connections(&mut self) -> usize {
        self.shards.iter().map(|shard| shard.snapshot().connections as usize).sum()
    }

    fn counted(&mut self) -> String {
        let counted: Vec<_> = self.shards.iter().map(Shard::snapshot).collect();
        format!("{counted:?}")
    }

    fn is_by_hand(&self) -> bool {
        true
    }

    fn pass(&mut self, time: Duration) {
        self.skipped += time;
    }

    fn freeze(&mut self, shard: Option<usize>) {
        self.frozen = shard;
    }
}

/// What one message costs beside its frame, by `history.bytes`: as a shard says.
pub fn entry_bytes() -> usize {
    static ENTRY_BYTES: OnceLock<usize> = OnceLock::new();
    *ENTRY_BYTES.get_or_init(|| {
        let day = Duration::from_secs(86_400);
        let limits = Limits {
            messages: 1,
            bytes: 1 << 20,
            age: day,
            backlog_bytes: 1,
            entry_bytes: 0,
            socket_bytes: [0; 2],
        };
        let mut lone = Lone::start(&limits, 1, 1);
        let payload = Bytes::from_static(b"1");
        let frame_bytes = encode_message(Kind::Json, &payload).0.len();
        lone.order(Command::Push(Push {
            target: Target::All,
            kind: Kind::Json,
            payload,
            event: None,
            ttl_ms: None,
            id: None,
        }));
        lone.turn(&[]);
        lone.shards[0].snapshot().tape_bytes as usize - frame_bytes
    })
}
