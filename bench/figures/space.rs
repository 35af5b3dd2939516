//! What an idle connection costs in memory: the gateway's own, and the kernel's beyond the socket.

use std::collections::BTreeMap;

use crate::memory;
use crate::memory::{Resident, Slab, resident, settled, slab};
use crate::plan::Transport;
use crate::rig::Outcome;
use crate::rig::baseline::Baseline;
use crate::rig::process::{Gateway, Settings};
use crate::rig::receiver::{Receiver, Role};
use crate::table::{Bound, Reading, median, runs as runs_note};

const CONNECTIONS: u32 = 15_000;
const RECEIVER_CORE: usize = 1;
const BASELINE_CORE: usize = 0;
/// Readings that differ by less have settled: 2 bytes a connection.
const SLACK_BYTES: u64 = 32 * 1024;

/// RSS of the gateway process with all connections less RSS with none, per connection. The difference
/// starts at an idle gateway that has never served anybody, so it contains what the first client costs:
/// code pages, stacks, the receive area.
pub fn memory(runs: u32) -> Outcome<Vec<Reading>> {
    memory_of("memory", &Role::Subscriber, 128.0, 160.0, runs)
}

/// The same for idle event streams and held polls.
pub fn memory_by_transport(runs: u32) -> Outcome<Vec<Reading>> {
    let streams = memory_of("memory.sse", &Role::By(Transport::EventStream), 144.0, 176.0, runs)?;
    let polls = memory_of("memory.poll", &Role::By(Transport::LongPoll), 160.0, 192.0, runs)?;
    Ok([&streams[..1], &polls[..1]].concat())
}

fn memory_of(name: &'static str, role: &Role, goal: f64, limit: f64, runs: u32) -> Outcome<Vec<Reading>> {
    let per_connection = |bytes: u64, before: u64| (bytes as f64 - before as f64) / f64::from(CONNECTIONS);
    let (mut rss, mut pss, mut anonymous, mut at_start) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let gateway = Gateway::start(Settings { shards: 2, heartbeat_s: 600 })?;
        let pid = gateway.pid();
        let read = || settled(SLACK_BYTES, || resident(pid), |reading: &Resident| reading.rss);
        let before = read()?;
        let mut receiver = Receiver::start(RECEIVER_CORE)?;
        receiver.connect(gateway.address, CONNECTIONS, role)?;
        let after = read()?;
        receiver.count()?;
        receiver.stop()?;
        gateway.stop()?;
        rss.push(per_connection(after.rss, before.rss));
        pss.push(per_connection(after.pss, before.pss));
        anonymous.push(per_connection(after.anonymous, before.anonymous));
        at_start.push(before.rss as f64 / 1024.0);
    }
    Ok(vec![
        Reading::detail(name, median(&rss), "B/connection", runs_note(&rss))
            .goal(Bound::AtMost(goal))
            .limit(Bound::AtMost(limit)),
        Reading::detail("memory.pss", median(&pss), "B/connection", runs_note(&pss)),
        Reading::detail(
            "memory.anonymous",
            median(&anonymous),
            "B/connection",
            "heap and stacks only, no code",
        ),
        Reading::detail("memory.at_start", median(&at_start), "KiB", "RSS before the first connection"),
    ])
}

/// How much the kernel's caches grow per connection under the gateway, less how much they grow under a
/// bare holder of the same sockets. The connections come from the same client in both, so the client's
/// side, the accepted socket and its descriptor cancel, and what remains is how the gateway waits.
///
/// Live objects times size, because whole pages (`Slab:` of meminfo) depend on what lay there before. Of
/// caches with less than half an object more or less for each connection nothing is counted: what a
/// connection has it has at least one of, and the rest of the machine moves the others by some 50 bytes a
/// connection in all. Both sums are printed too.
pub fn kernel(runs: u32) -> Outcome<Vec<Reading>> {
    let (mut live, mut all, mut pages) = (Vec::new(), Vec::new(), Vec::new());
    let mut by_cache = BTreeMap::new();
    for _ in 0..runs {
        let bare = bare_growth()?;
        let gateway = gateway_growth()?;
        let beyond = |cache: &str| gateway.live.get(cache).unwrap_or(&0) - bare.live.get(cache).unwrap_or(&0);
        by_cache = gateway.live.keys().map(|cache| (cache.clone(), beyond(cache))).collect();
        let of_connections = |(cache, bytes): (&String, &i64)| {
            let object_bytes = gateway.object_bytes.get(cache).copied().unwrap_or(1);
            let counts = 2 * bytes.unsigned_abs() >= object_bytes * u64::from(CONNECTIONS);
            if counts { *bytes } else { 0 }
        };
        live.push(by_cache.iter().map(of_connections).sum::<i64>() as f64 / f64::from(CONNECTIONS));
        all.push(by_cache.values().sum::<i64>() as f64 / f64::from(CONNECTIONS));
        pages.push((gateway.pages - bare.pages) as f64 / f64::from(CONNECTIONS));
    }
    Ok(vec![
        Reading::detail("kernel", median(&live), "B/connection", runs_note(&live))
            .goal(Bound::AtMost(256.0))
            .limit(Bound::AtMost(300.0)),
        Reading::detail("kernel.all_caches", median(&all), "B/connection", runs_note(&all)),
        Reading::detail("kernel.pages", median(&pages), "B/connection", largest(by_cache)),
    ])
}

struct Growth {
    live: BTreeMap<String, i64>,
    object_bytes: BTreeMap<String, u64>,
    pages: i64,
}

fn growth(before: &Slab, after: &Slab) -> Growth {
    Growth {
        live: after.growth_since(before),
        object_bytes: after.object_bytes.clone(),
        pages: after.pages as i64 - before.pages as i64,
    }
}

fn settled_slab() -> Outcome<Slab> {
    // Live objects of 15,000 connections are 100 MB: 256 KiB are 17 bytes a connection.
    settled(256 * 1024, slab, |slab: &memory::Slab| slab.live.values().sum())
}

fn bare_growth() -> Outcome<Growth> {
    let mut baseline = Baseline::start(BASELINE_CORE)?;
    let mut receiver = Receiver::start(RECEIVER_CORE)?;
    let before = settled_slab()?;
    baseline.accept(CONNECTIONS)?;
    receiver.connect(baseline.address, CONNECTIONS, &Role::Bare)?;
    baseline.accepted()?;
    let after = settled_slab()?;
    receiver.stop()?;
    baseline.stop()?;
    Ok(growth(&before, &after))
}

fn gateway_growth() -> Outcome<Growth> {
    let gateway = Gateway::start(Settings { shards: 2, heartbeat_s: 600 })?;
    let mut receiver = Receiver::start(RECEIVER_CORE)?;
    let before = settled_slab()?;
    receiver.connect(gateway.address, CONNECTIONS, &Role::Subscriber)?;
    let after = settled_slab()?;
    receiver.count()?;
    receiver.stop()?;
    gateway.stop()?;
    Ok(growth(&before, &after))
}

/// The caches that make most of the difference, per connection, of the last run.
fn largest(by_cache: BTreeMap<String, i64>) -> String {
    let mut caches: Vec<(String, i64)> = by_cache.into_iter().filter(|(_, bytes)| *bytes != 0).collect();
    caches.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.abs()));
    caches.truncate(5);
    let per_connection = |bytes: i64| bytes as f64 / f64::from(CONNECTIONS);
    let texts: Vec<String> =
        caches.iter().map(|(cache, bytes)| format!("{cache} {:+.0}", per_connection(*bytes))).collect();
    texts.join(", ")
}
