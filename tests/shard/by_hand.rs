//! The shard, its time, and clients that do not wait for it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use corecast::auth::KeyRing;
use corecast::config::Config;
use corecast::message::{Kind, Message, Name, Target};
use corecast::shard::listener::{Listener, SocketOptions};
use corecast::shard::mailbox::{Gate, Letter, Mailbox, Owner, Reply, Report, Request, mailbox};
use corecast::shard::{Parts, Room, Settings, Shard};
use corecast::stats::ShardStats;
use corecast::wire::websocket::encode_message;
use glommio::{LocalExecutorBuilder, Placement};

use crate::harness::http::Response;
use crate::harness::websocket::upgrade;
use crate::harness::{DEADLINE, eventually};

pub struct ByHand {
    shard: Shard,
    pub address: SocketAddr,
    pub gate: Arc<Gate>,
    mailbox: Mailbox,
    /// What the shard tells control.
    pub reports: flume::Receiver<Report>,
    /// Stands still but for `pass`.
    now: Instant,
}

impl ByHand {
    /// A shard under a configuration that `configure` has had.
    pub fn start(configure: impl FnOnce(&mut Config)) -> Self {
        Self::start_with(KeyRing::default(), configure)
    }

    /// The same, with keys for tokens.
    pub fn start_with(keys: KeyRing, configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        configure(&mut config);
        let send_bytes = config.limits.socket_send_bytes.bytes();
        let options = SocketOptions { send_bytes, backlog: 4096 };
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), options).unwrap();
        let address = listener.address().unwrap();
        let room = Room { clients_max: 1 << 20, sockets_max: 1 << 20 };
        let (mailbox, inbox) = mailbox(1024, 1 << 20).unwrap();
        let (gate, (report, reports)) = (Arc::new(Gate::default()), flume::unbounded());
        let shard = Shard::new(Parts {
            number: 0,
            epoch: 0xa1,
            settings: Settings::new(&config, room).with_keys(&config.auth, keys),
            listeners: vec![listener],
            inbox,
            peers: vec![mailbox.clone()],
            owner: Owner::new(1),
            gate: gate.clone(),
            reports: report,
        });
        Self { shard: shard.unwrap(), address, gate, mailbox, reports, now: Instant::now() }
    }

    pub fn turn(&mut self) -> ShardStats {
        self.shard.turn(self.now);
        self.shard.snapshot()
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    /// Has the shard end as control does, in the executor that it needs for that.
    pub fn stop(self) {
        self.mailbox.post(Letter::Ask { inquiry: 0, request: Request::Stop }).unwrap();
        let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 10).ring_depth(64);
        executor.make().unwrap().run(self.shard.run(|| {})).unwrap();
    }

    /// Asks as control does, and takes a turn: the answer.
    #[track_caller]
    pub fn ask(&mut self, request: Request) -> Reply {
        let inquiry = 7;
        self.mailbox.post(Letter::Ask { inquiry, request }).unwrap();
        self.turn();
        let mut reports = self.reports.try_iter();
        let answer = reports.find_map(|report| match report {
            Report::Reply { inquiry: of, reply } if of == inquiry => Some(reply),
            _ => None,
        });
        answer.expect("an answer within the turn")
    }

    /// Posts a push of `payload` to `topic`, as control would.
    pub fn push(&mut self, topic: &str, payload: &[u8]) {
        let seq = self.gate.last_seq.load(Ordering::Relaxed) + 1;
        self.gate.last_seq.store(seq, Ordering::Release);
        let (frame, header_bytes) = encode_message(Kind::Binary, payload);
        let target = Target::Topic(Name::new(topic).unwrap());
        let message = Arc::new(Message::new(seq, target, Kind::Binary, frame, header_bytes));
        self.mailbox.post(Letter::Push { inquiry: 0, message }).unwrap();
    }

    /// Turns until the counters are so.
    #[track_caller]
    pub fn until(&mut self, what: &str, wanted: impl Fn(&ShardStats) -> bool) -> ShardStats {
        eventually(what, || Some(self.turn()).filter(&wanted))
    }

    /// An open WebSocket at `target`; the answer to its request has been read.
    #[track_caller]
    pub fn websocket(&mut self, target: &str) -> TcpStream {
        self.websocket_on(TcpStream::connect(self.address).unwrap(), target)
    }

    /// The same on a socket that is connected.
    #[track_caller]
    pub fn websocket_on(&mut self, mut stream: TcpStream, target: &str) -> TcpStream {
        let before = self.shard.snapshot().connections;
        stream.write_all(upgrade(target, "").as_bytes()).unwrap();
        self.until("it is open", |stats| stats.connections == before + 1);
        stream.set_nonblocking(true).unwrap();
        let mut answer = Vec::new();
        eventually("the 101", || {
            read_more(&mut stream, &mut answer);
            answer.ends_with(b"\r\n\r\n").then_some(())
        });
        stream
    }

    /// Sends `request`, turns until the shard has ended the connection, and gives what it said. Panics at a
    /// reset.
    #[track_caller]
    pub fn exchange(&mut self, request: &[u8]) -> Response {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(request).unwrap();
        self.answer(&mut stream)
    }

    /// Turns until the shard has ended the connection, and gives what it said. Panics at a reset.
    #[track_caller]
    pub fn answer(&mut self, stream: &mut TcpStream) -> Response {
        stream.set_nonblocking(true).unwrap();
        let mut octets = Vec::new();
        eventually("the end", || {
            self.turn();
            (!read_more(stream, &mut octets)).then_some(())
        });
        Response::parse(&octets)
    }

    /// Turns until this many octets have come for `stream`, and gives them.
    #[track_caller]
    pub fn read(&mut self, stream: &mut TcpStream, count: usize) -> Vec<u8> {
        let mut octets = Vec::new();
        eventually("the octets", || {
            self.turn();
            read_more(stream, &mut octets);
            (octets.len() >= count).then_some(())
        });
        octets
    }
}

/// Reads what is there of a socket that does not block; false at its end.
pub fn read_more(stream: &mut TcpStream, octets: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => octets.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Writes all of it, and waits until the kernel has it where the shard finds it.
pub fn write_all(stream: &mut TcpStream, octets: &[u8]) {
    stream.set_nonblocking(false).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(octets).unwrap();
    stream.set_nonblocking(true).unwrap();
}
