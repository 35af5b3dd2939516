//! What the metrics cost of a shard's turns, for `valgrind --tool=callgrind`: one shard and its clients on one thread.
//!
//! As `bench/figures/rig/lone_shard.rs` (real ring, real sockets, turned by hand), with clients of its own that are
//! read between the turns, so that two builds do exactly the same. Time is put forward by a fixed step: the
//! sweep comes by as often whatever valgrind makes of the speed.
//!
//!     metrics_cost CLIENTS ROUNDS MESSAGES_PER_TURN READ_EVERY RECEIVE_BYTES STEP_US
//!
//! `ROUNDS` are counted, after 20 that are not. Only `metered_turn` is of interest:
//!
//!     valgrind --tool=callgrind --collect-atstart=no '--toggle-collect=*metered_turn*' metrics_cost 1000 20 1 1 0 4000
#![allow(unsafe_code)]

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use corecast::config::Config;
use corecast::control::Channel;
use corecast::message::{Kind, Message, Name, Target, Topic};
use corecast::shard::listener::{Listener, SocketOptions};
use corecast::shard::mailbox::{Gate, Letter, Mailbox, Owner, Report, mailbox};
use corecast::shard::{Parts, Room, Settings, Shard};
use corecast::wire::websocket::encode_message;

const PAYLOAD_BYTES: usize = 256;
const WARM_ROUNDS: u32 = 20;

type Outcome<T> = Result<T, Box<dyn Error>>;

struct Client {
    stream: TcpStream,
    /// Octets of frames received.
    bytes: u64,
}

struct Bench {
    shard: Shard,
    reports: Channel<Report>,
    mailbox: Mailbox,
    gate: Arc<Gate>,
    topic: Topic,
    clients: Vec<Client>,
    now: Instant,
    step: Duration,
    seq: u64,
    buffer: Vec<u8>,
}

/// What turns cost, natively.
#[derive(Default)]
struct Meter {
    turns: u64,
    cpu: Duration,
}

/// The only function whose instructions are counted.
#[inline(never)]
fn metered_turn(shard: &mut Shard, now: Instant, meter: &mut Meter) {
    shard.turn(now);
    meter.turns += 1;
}

fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec to `time`. Not by rustix, which looks for a vdso that valgrind hides.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Bench {
    fn start(step: Duration) -> Outcome<(Self, SocketAddr)> {
        let mut config = Config::default();
        config.limits.connects_per_second = 0;
        config.history.messages = 256;
        // Nobody here answers pings.
        config.timeouts.heartbeat = Duration::from_secs(60_000);
        let send_bytes = config.limits.socket_send_bytes.bytes();
        let options = SocketOptions { send_bytes, backlog: 4096 };
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), options)?;
        let address = listener.address()?;
        let bytes_max = config.control.mailbox_bytes.bytes();
        let (mailbox, inbox) = mailbox(config.control.mailbox_messages as usize, bytes_max)?;
        let gate = Arc::new(Gate::default());
        let (reports, reports_in) = flume::unbounded();
        let now = Instant::now();
        let parts = Parts {
            number: 0,
            epoch: 1,
            settings: Settings::new(&config, Room { clients_max: 1 << 20, sockets_max: 1 << 20 }),
            listeners: vec![listener],
            inbox,
            peers: vec![mailbox.clone()],
            owner: Owner::new(1),
            gate: gate.clone(),
            reports,
        };
        let shard = Shard::new_at(parts, now)?;
        let topic: Topic = Name::new("news").map_err(|error| format!("{error:?}"))?.into();
        let (reports, clients, buffer) = (Channel::new(reports_in), Vec::new(), vec![0; 1 << 20]);
        Ok((Self { shard, reports, mailbox, gate, topic, clients, now, step, seq: 0, buffer }, address))
    }

    fn turn(&mut self, meter: Option<&mut Meter>) {
        match meter {
            None => self.shard.turn(self.now),
            Some(meter) => {
                self.now += self.step;
                let before = thread_cpu();
                metered_turn(&mut self.shard, self.now, meter);
                meter.cpu += thread_cpu() - before;
            }
        }
        self.reports.drain().for_each(drop);
    }

    fn connect(&mut self, address: SocketAddr, count: u32, receive_bytes: usize) -> Outcome<()> {
        for number in 0..count {
            let kind = (socket2::Domain::IPV4, socket2::Type::STREAM);
            let socket = socket2::Socket::new(kind.0, kind.1, None)?;
            if receive_bytes > 0 {
                socket.set_recv_buffer_size(receive_bytes)?;
            }
            socket.connect(&address.into())?;
            let mut stream = TcpStream::from(socket);
            let path = format!("/ws?user=u{number:015}&topics=news");
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            );
            stream.write_all(request.as_bytes())?;
            stream.set_nonblocking(true)?;
            self.clients.push(Client { stream, bytes: 0 });
            if number % 64 == 63 {
                self.turn(None);
            }
        }
        for at in 0..self.clients.len() {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                self.turn(None);
                let mut part = [0; 1024];
                match self.clients[at].stream.read(&mut part) {
                    Ok(read) if read > 0 => head.extend_from_slice(&part[..read]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    other => return Err(format!("handshake: {other:?} after {head:?}").into()),
                }
            }
            assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        }
        Ok(())
    }

    /// Posts one message; gives the octets of its frame.
    fn post(&mut self, payload: &[u8]) -> Outcome<u64> {
        self.seq += 1;
        let (frame, header_bytes) = encode_message(Kind::Binary, payload);
        let bytes = frame.len() as u64;
        let target = Target::Topic(self.topic.clone());
        let mut message = Message::new(self.seq, target, Kind::Binary, frame, header_bytes);
        // As control does: the histogram of latencies is counted from it.
        message.accepted = Some(self.now);
        self.gate.last_seq.store(self.seq, Ordering::Relaxed);
        let letter = Letter::Push { inquiry: self.seq, message: Arc::new(message) };
        self.mailbox.post(letter).map_err(|full| format!("{full:?}"))?;
        Ok(bytes)
    }

    /// Reads all there is; gives how many have everything up to `expected` octets.
    fn read(&mut self, expected: u64) -> Outcome<usize> {
        let Self { clients, buffer, .. } = self;
        let mut whole = 0;
        for client in clients {
            while client.bytes < expected {
                match client.stream.read(buffer) {
                    Ok(0) => return Err("a client was closed".into()),
                    Ok(read) => client.bytes += read as u64,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
            whole += usize::from(client.bytes == expected);
        }
        Ok(whole)
    }
}

fn main() -> Outcome<()> {
    let numbers: Vec<u64> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let [clients, rounds, per_turn, read_every, receive_bytes, step_us] = numbers[..] else {
        return Err("metrics_cost CLIENTS ROUNDS MESSAGES_PER_TURN READ_EVERY RECEIVE_BYTES STEP_US".into());
    };
    let (mut bench, address) = Bench::start(Duration::from_micros(step_us))?;
    bench.connect(address, clients as u32, receive_bytes as usize)?;
    let payload = vec![b'x'; PAYLOAD_BYTES];
    let (mut expected, mut meter, mut costs) = (0, Meter::default(), Vec::new());
    let mut blocked = 0;
    for (warm, phase) in [(true, WARM_ROUNDS), (false, rounds as u32)] {
        for round in 1..=phase {
            for _ in 0..per_turn {
                expected += bench.post(&payload)?;
            }
            let before = meter.cpu;
            bench.turn((!warm).then_some(&mut meter));
            blocked = blocked.max(bench.shard.snapshot().blocked);
            let reads = u64::from(round) % read_every == 0 || round == phase;
            while reads && bench.read(expected)? < bench.clients.len() {
                bench.turn((!warm).then_some(&mut meter));
            }
            if !warm {
                costs.push(meter.cpu - before);
            }
        }
    }
    let stats = bench.shard.snapshot();
    assert_eq!((stats.connections, stats.closed_total()), (clients, 0), "{stats:?}");
    let deliveries = clients * rounds * per_turn;
    costs.sort();
    let per_round = |cost: Duration| cost.as_nanos() as f64 / (clients * per_turn.max(1)) as f64;
    println!(
        "{deliveries} deliveries in {} turns, {blocked} blocked at most; CPU of turns, ns per delivery: \
         mean {:.0}, median of rounds {:.0}, least {:.0}; in all {} turns, {} batches, latency {} of {}, enters {}",
        meter.turns,
        meter.cpu.as_nanos() as f64 / deliveries.max(1) as f64,
        per_round(costs[costs.len() / 2]),
        per_round(costs[0]),
        stats.turns,
        stats.send_batches,
        stats.latency.count(),
        stats.delivered,
        stats.ring_enters,
    );
    Ok(())
}
