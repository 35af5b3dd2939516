//! How long a push takes to a client that waits, and what waiting costs the gateway.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use serde::Deserialize;

use crate::rig::Outcome;
use crate::rig::process::{Gateway, Settings};
use crate::rig::receiver::{Receiver, Role};
use crate::table::{Bound, Reading, median, runs as runs_note};
use crate::{cpu, failure};

const PUSHES: &str = "2000";
const RATE: &str = "500/s";
const PAYLOAD_BYTES: &str = "256";
const IDLE_CONNECTIONS: u32 = 15_000;
const HEARTBEAT_S: u32 = 60;
const CLIENT_CORE: usize = 1;

/// From the moment that a push is due to its receipt: one every 2 ms to one user with one connection, as
/// `corecast-bench unicast` measures it. Nothing pinned by us, as many shards as the gateway starts by itself.
pub fn latency(runs: u32) -> Outcome<Vec<Reading>> {
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let gateway = Gateway::start(Settings { shards: 0, heartbeat_s: 600 })?;
        let times = delivery_us(&gateway)?;
        gateway.stop()?;
        p50.push(times.p50);
        p99.push(times.p99);
    }
    Ok(vec![
        Reading::detail("latency.p50", median(&p50), "us", runs_note(&p50)).goal(Bound::AtMost(100.0)),
        Reading::detail("latency.p99", median(&p99), "us", runs_note(&p99)).goal(Bound::AtMost(500.0)),
    ])
}

/// What is read of the tool's report.
#[derive(Deserialize)]
struct Times {
    p50: f64,
    p99: f64,
}

fn delivery_us(gateway: &Gateway) -> Outcome<Times> {
    let report = tempfile::NamedTempFile::new()?;
    let url = format!("ws://{}/ws?user=u{{{{number}}}}", gateway.address);
    let output = Command::new(env!("CARGO_BIN_EXE_corecast-bench"))
        .args(["unicast", &url, "--quiet", "--connections", "1", "--messages", PUSHES, "--rate", RATE])
        .args(["--size", PAYLOAD_BYTES, "--socket"])
        .arg(gateway.socket())
        .arg("--json")
        .arg(report.path())
        .output()?;
    if !output.status.success() {
        let (said, table) =
            (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        return Err(failure!("corecast-bench unicast: {}\n{said}{table}", output.status));
    }
    let mut report: serde_json::Value = serde_json::from_slice(&std::fs::read(report.path())?)?;
    Ok(serde_json::from_value(report["times"]["delivery"].take())?)
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
    let (pings, used_ns, start_ns) =
        (receiver.count()?.counts.pings, cpu::used_ns(gateway.pid())?, cpu::now_ns());
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
