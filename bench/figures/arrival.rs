//! Connections in: accepted and upgraded per second, against a bare accept loop.

use crate::rig::baseline::Baseline;
use crate::rig::process::{Gateway, Settings};
use crate::rig::receiver::{Receiver, Role};
use crate::rig::{Outcome, per_second};
use crate::table::{Bound, Reading, median, runs as runs_note};

/// How many connect.
pub const CONNECTIONS: u32 = 10_000;
const SERVER_CORE: usize = 0;
const CLIENT_CORE: usize = 1;

/// Connections per second, from the first connect to the last 101 (the last accept, for the bare loop).
/// The same client program on core 1, 256 connects under way; one shard on core 0, the bare loop there
/// too. Each side starts afresh in every run.
pub fn accept(runs: u32) -> Outcome<Vec<Reading>> {
    let (mut ratios, mut rates, mut bare_rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let (theirs, ours) = (bare_rate()?, gateway_rate()?);
        ratios.push(ours / theirs);
        rates.push(ours);
        bare_rates.push(theirs);
    }
    Ok(vec![
        Reading::detail("accept", median(&ratios), "x accept loop", runs_note(&ratios))
            .goal(Bound::AtLeast(0.5))
            .limit(Bound::AtLeast(0.35)),
        Reading::detail("accept.gateway", median(&rates), "upgrades/s", runs_note(&rates)),
        Reading::detail("accept.accept_loop", median(&bare_rates), "accepts/s", runs_note(&bare_rates)),
    ])
}

/// The bare accept loop alone.
pub fn machine(runs: u32) -> Outcome<Vec<Reading>> {
    let rates = (0..runs).map(|_| bare_rate()).collect::<Outcome<Vec<f64>>>()?;
    Ok(vec![Reading::detail("machine.accept_loop", median(&rates), "accepts/s", runs_note(&rates))])
}

/// Connections per second of the bare accept loop.
fn bare_rate() -> Outcome<f64> {
    let mut baseline = Baseline::start(SERVER_CORE)?;
    let mut receiver = Receiver::start(CLIENT_CORE)?;
    baseline.accept(CONNECTIONS)?;
    let connected = receiver.connect(baseline.address, CONNECTIONS, &Role::Bare)?;
    let accepted_ns = baseline.accepted()?;
    receiver.stop()?;
    baseline.stop()?;
    let ended_ns = accepted_ns.max(connected.ended_ns);
    Ok(per_second(u64::from(CONNECTIONS), ended_ns - connected.started_ns))
}

/// The same of the gateway: until the last 101.
pub fn gateway_rate() -> Outcome<f64> {
    let gateway = Gateway::start(Settings { shards: 1, heartbeat_s: 600 })?;
    let mut receiver = Receiver::start(CLIENT_CORE)?;
    let connected = receiver.connect(gateway.address, CONNECTIONS, &Role::Subscriber)?;
    receiver.stop()?;
    gateway.stop()?;
    Ok(per_second(u64::from(CONNECTIONS), connected.ended_ns - connected.started_ns))
}
