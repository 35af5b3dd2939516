//! What the tool itself costs: beside a bare epoll receiver in the same run, and in bytes per connection.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::time::{ClockId, clock_gettime};

use crate::bench::{alone, bench, beside, start};
use crate::guest::eventually;
use crate::planted::script::Script;
use crate::planted::{Planted, To};

const CONNECTIONS: u64 = 100;
/// Of one burst: 100 messages to 100 connections.
const MESSAGES: u32 = 100;
const BETWEEN_MESSAGES: Duration = Duration::from_millis(3);
/// Pairs are measured for so long, while the tool listens for `--linger`.
const MEASURING: Duration = Duration::from_secs(4);
const LINGER: &str = "7s";
/// Header and payload of a message.
const FRAME_BYTES: u64 = 4 + 256;

/// What C would be: one thread, level-triggered epoll, one `recv` an event into one buffer, and a count.
struct Bare {
    bytes: Arc<AtomicU64>,
    /// CPU of its thread, in nanoseconds, as of the last time it slept.
    cpu_ns: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bare {
    fn start(address: SocketAddr) -> Self {
        let streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| upgraded(address)).collect();
        let (bytes, cpu_ns, over) = (Arc::default(), Arc::default(), Arc::default());
        let mut bare = Self { bytes, cpu_ns, over, thread: None };
        let (bytes, cpu_ns, over) = (bare.bytes.clone(), bare.cpu_ns.clone(), bare.over.clone());
        bare.thread = Some(std::thread::spawn(move || receive(streams, &bytes, &cpu_ns, &over)));
        bare
    }

    /// CPU of it until everything of `bytes` is there.
    fn cpu_ns_at(&self, bytes: u64) -> u64 {
        eventually("the bare receiver has everything", || {
            (self.bytes.load(Ordering::Acquire) == bytes).then(|| self.cpu_ns.load(Ordering::Acquire))
        })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn upgraded(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = "GET /ws HTTP/1.1\r\nHost: planted\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(format!("{head}{key}").as_bytes()).unwrap();
    let mut answer = [0; 1024];
    let mut length = 0;
    while !answer[..length].ends_with(b"\r\n\r\n") {
        length += stream.read(&mut answer[length..]).unwrap();
    }
    stream
}

fn receive(mut streams: Vec<TcpStream>, bytes: &AtomicU64, cpu_ns: &AtomicU64, over: &AtomicBool) {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    for (number, stream) in streams.iter().enumerate() {
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&epoll, stream, data, epoll::EventFlags::IN).unwrap();
    }
    let mut events = Vec::with_capacity(256);
    let mut buffer = vec![0; 65_536];
    // Only to see that it is over.
    let tick = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    while !over.load(Ordering::Acquire) {
        let _ = epoll::wait(&epoll, spare_capacity(&mut events), Some(&tick));
        let mut arrived = 0;
        for event in events.drain(..) {
            arrived += streams[event.data.u64() as usize].read(&mut buffer).unwrap_or(0) as u64;
        }
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        cpu_ns.store(cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64, Ordering::Release);
        bytes.fetch_add(arrived, Ordering::Release);
    }
}

/// CPU of the tool's workers in nanoseconds: of the processes that it started, or of itself.
fn workers_cpu_ns(pid: u32) -> u64 {
    let tasks = |pid: &str| {
        let folder = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        folder.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let children: String = tasks(&pid.to_string())
        .iter()
        .map(|task| fs::read_to_string(task.join("children")).unwrap())
        .collect();
    let own = pid.to_string();
    let mut workers: Vec<&str> = children.split_whitespace().collect();
    if workers.is_empty() {
        workers.push(&own);
    }
    let of_task = |task: std::path::PathBuf| {
        let line = fs::read_to_string(task.join("schedstat")).unwrap();
        line.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    workers.iter().flat_map(|pid| tasks(pid)).map(of_task).sum()
}

/// A payload as an outside publisher has to stamp it.
fn stamped(seq: u32) -> Vec<u8> {
    let now = clock_gettime(ClockId::Monotonic);
    let at_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    let mut payload = format!("~cb1m{:04x}{seq:08x}{at_ns:016x}~", 1).into_bytes();
    payload.resize(256, b'x');
    payload
}

/// Publishes a burst, evenly, and waits until it has gone out.
fn burst(server: &Planted, seq: &mut u32) {
    for _ in 0..MESSAGES {
        *seq += 1;
        server.publish(To::All, stamped(*seq));
        std::thread::sleep(BETWEEN_MESSAGES);
    }
    let all = u64::from(*seq) * CONNECTIONS;
    server.until("it has gone out", |tally| tally.sum(|seen| seen.delivered) == all);
}

#[test]
fn the_tool_costs_at_most_twice_a_bare_receiver() {
    let _machine = alone();
    let (for_bare, for_tool) = (Planted::start(Script::default()), Planted::start(Script::default()));
    let bare = Bare::start(for_bare.address);
    let words = format!("-c 100 --publish none --linger {LINGER} -q");
    let running = start("fanout", &[&for_tool.ws("/ws")], &words);
    for_tool.until("the tool is there", |tally| tally.open() == CONNECTIONS as usize);
    let (mut bare_seq, mut tool_seq) = (0, 0);
    let (mut ratios, begun) = (Vec::new(), Instant::now());
    for pair in 0.. {
        if begun.elapsed() > MEASURING {
            break;
        }
        let bare_begun = bare.cpu_ns_at(u64::from(bare_seq) * CONNECTIONS * FRAME_BYTES);
        burst(&for_bare, &mut bare_seq);
        let bare_ns = bare.cpu_ns_at(u64::from(bare_seq) * CONNECTIONS * FRAME_BYTES) - bare_begun;
        let tool_begun = workers_cpu_ns(running.pid());
        burst(&for_tool, &mut tool_seq);
        // What was written last is still to be read.
        std::thread::sleep(Duration::from_millis(50));
        let tool_ns = workers_cpu_ns(running.pid()) - tool_begun;
        let per_message = |ns: u64| ns as f64 / (f64::from(MESSAGES) * CONNECTIONS as f64);
        let ratio = tool_ns as f64 / bare_ns as f64;
        assert!(per_message(tool_ns) > 300.0, "less than a system call: somebody else is measured");
        println!(
            "pair {pair}: bare {:.0} ns, tool {:.0} ns, {ratio:.2}",
            per_message(bare_ns),
            per_message(tool_ns)
        );
        // The first warms up both.
        ratios.extend((pair > 0).then_some(ratio));
    }
    let run = running.ended();
    run.has(&[("messages", u64::from(tool_seq) * CONNECTIONS), ("lost", 0), ("unstamped", 0)]);
    assert!(ratios.len() >= 3, "only {} pairs in {MEASURING:?}", ratios.len());
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    // Unoptimised code says nothing about the tool, but that it is not out of hand.
    let most = if cfg!(debug_assertions) { 20.0 } else { 2.0 };
    println!("CPU per delivered message: {median:.2} of the bare receiver's, {most} allowed");
    assert!(median <= most, "{median:.2} times the bare receiver: {ratios:.2?}");
}

/// Resident memory that the tool took for so many connections, by its report, in bytes.
fn resident_bytes(url: &str, connections: u64) -> f64 {
    let run = bench("hold", &[url], &format!("-c {connections} --for 300ms"));
    run.exits(0);
    run.has(&[("opened", connections), ("dropped", 0)]);
    let each = run.report["tool_cost"]["bytes_per_connection"].as_f64().unwrap();
    assert!(each > 0.0, "{}", run.said());
    each * connections as f64
}

/// What one more costs: the report's own figure for few connections is mostly buffers and histograms, which a
/// million connections share.
#[test]
fn one_more_held_connection_costs_the_tool_at_most_200_bytes() {
    const FEW: u64 = 3000;
    const MANY: u64 = 9000;
    let _machine = beside();
    for path in ["/ws", "/sse", "/poll"] {
        let server = Planted::start(Script::default());
        let url = if path == "/ws" { server.ws(path) } else { server.http(path) };
        let (few, many) = (resident_bytes(&url, FEW), resident_bytes(&url, MANY));
        let each = (many - few) / (MANY - FEW) as f64;
        println!("{path}: {few:.0} bytes for {FEW}, {many:.0} for {MANY}, {each:.0} for one more");
        assert!(each > 0.0 && each <= 200.0, "{each:.0} bytes per held connection on {path}");
    }
}
