//! How long a push takes to a client that waits, and what waiting costs the gateway.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver as Arrivals, channel};
use std::thread::{sleep, spawn};
use std::time::Duration;

use bytes::Bytes;
use corecast::message::Target;

use crate::rig::process::{Gateway, Settings};
use crate::rig::pusher::{name, push};
use crate::rig::receiver::{Receiver, Role, TOPIC, user};
use crate::rig::websocket::{Arrived, Frames, Upgrade, accepted, user};
use crate::cpu;
use crate::rig::Outcome;
use crate::table::{Bound, Reading, median, runs as runs_note};

const PUSHES: usize = 2000;
const SPACING_NS: u64 = 2_000_000;
const PAYLOAD_BYTES: usize = 256;
const IDLE_CONNECTIONS: u32 = 15_000;
const HEARTBEAT_S: u32 = 60;
const CLIENT_CORE: usize = 1;

/// From the call of `Client::push` to the return of the client's `recv`, one push every 2 ms to one
/// user with one connection, nothing pinned by us, as many shards as the gateway starts by itself.
pub fn latency(runs: u32) -> Outcome<Vec<Reading>> {
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let gateway = Gateway::start(Settings { shards: 0, heartbeat_s: 600 })?;
        let mut waits = waits_us(&gateway)?;
        gateway.stop()?;
        waits.sort_by(f64::total_cmp);
        p50.push(waits[waits.len() / 2]);
        p99.push(waits[waits.len() * 99 / 100]);
    }
    Ok(vec![
        Reading::detail("latency.p50", median(&p50), "us", runs_note(&p50)).goal(Bound::AtMost(100.0)),
        Reading::detail("latency.p99", median(&p99), "us", runs_note(&p99)).goal(Bound::AtMost(500.0)),
    ])
}

fn waits_us(gateway: &Gateway) -> Outcome<Vec<f64>> {
    let arrivals = listen(gateway)?;
    let mut client = gateway.client()?;
    let target = Target::User(name(&user(0))?);
    let payload = Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let mut waits = Vec::with_capacity(PUSHES);
    let mut intended_ns = cpu::now_ns();
    for _ in 0..PUSHES {
        intended_ns += SPACING_NS;
        let now_ns = cpu::now_ns();
        // Late because the push before took that long: it counts from when it should have gone. Not
        // late: it counts from when it goes, because a sleep that ends late is the driver's own.
        let started_ns = if now_ns > intended_ns {
            intended_ns
        } else {
            sleep(Duration::from_nanos(intended_ns - now_ns));
            cpu::now_ns()
        };
        client.push(push(target.clone(), &payload)).map_err(|error| format!("{error:?}"))?;
        let arrived_ns = arrivals.recv_timeout(Duration::from_secs(10))?;
        waits.push((arrived_ns - started_ns) as f64 / 1000.0);
    }
    Ok(waits)
}

/// Connects user 0 and tells the moment of every message that arrives, from a thread of its own.
fn listen(gateway: &Gateway) -> Outcome<Arrivals<u64>> {
    let mut stream = TcpStream::connect(gateway.address)?;
    let request = Upgrade { topics: "news".to_owned() }.request(gateway.address, 0);
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let mut buffer = vec![0; 4096];
    // Nothing is pushed yet, so nothing follows the head.
    while accepted(&head)?.is_none() {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err("the gateway ended the connection during the upgrade".into());
        }
        head.extend_from_slice(&buffer[..read]);
    }
    let (arrived, arrivals) = channel();
    spawn(move || {
        let mut frames = Frames::default();
        while let Ok(read) = stream.read(&mut buffer) {
            let now_ns = cpu::now_ns();
            if read == 0 {
                return;
            }
            frames.handle_bytes(&buffer[..read], |frame| {
                if matches!(frame, Arrived::Message(_)) {
                    // Nobody listens any more when the measurement has failed.
                    let _ = arrived.send(now_ns);
                }
            });
        }
    });
    Ok(arrivals)
}

/// CPU of the gateway process over one whole heartbeat period, in which every connection is pinged
/// once, in % of one core. Starts at the first ping, whenever that comes. Measured once, because a
/// shorter stretch may hold all pings or none.
pub fn idle() -> Outcome<Vec<Reading>> {
    let gateway = Gateway::start(Settings { shards: 2, heartbeat_s: HEARTBEAT_S })?;
    let mut receiver = Receiver::start(CLIENT_CORE)?;
    receiver.connect(gateway.address, IDLE_CONNECTIONS, &Role::Subscriber)?;
    let period = Duration::from_secs(u64::from(HEARTBEAT_S));
    let mut polls = 0;
    while receiver.count()?.counts.pings == 0 {
        polls += 1;
        if polls > 4 * (HEARTBEAT_S + 10) {
            return Err("no ping within a heartbeat and 10 s".into());
        }
        sleep(Duration::from_millis(250));
    }
    let (pings, used_ns, start_ns) = (receiver.count()?.counts.pings, cpu::used_ns(gateway.pid())?, cpu::now_ns());
    sleep(period);
    let used_ns = cpu::used_ns(gateway.pid())? - used_ns;
    let elapsed_ns = cpu::now_ns() - start_ns;
    // A lost connection is an error: every ping has been answered in time.
    let pings = receiver.count()?.counts.pings - pings;
    receiver.stop()?;
    gateway.stop()?;
    let percent = used_ns as f64 * 100.0 / elapsed_ns as f64;
    Ok(vec![
        Reading::detail("idle", percent, "% of a core", format!("{pings} pings answered in {HEARTBEAT_S} s"))
            .goal(Bound::AtMost(1.0)),
    ])
}
