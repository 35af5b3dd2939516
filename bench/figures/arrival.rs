//! Connections in: accepted and upgraded per second, against a bare accept loop; and what a refusal costs.

use crate::rig::baseline::Baseline;
use crate::rig::crowd::{Crowd, Told};
use crate::rig::process::{Gateway, Settings};
use crate::rig::receiver::{Receiver, Role};
use crate::rig::{Outcome, per_second};
use crate::table::{Bound, Reading, median, runs as runs_note};
use crate::{cpu, failure};

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

/// CPU of the gateway for a connect that is refused beyond `limits.connects_per_second`, until its end, over that
/// for one that is accepted and upgraded and stays. The same crowd on core 1, 256 under way; the second gateway
/// lets one a second in.
pub fn refusal(runs: u32) -> Outcome<Vec<Reading>> {
    let (mut ratios, mut refused_us, mut accepted_us) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let (accepted, told) = crowd_us(Gateway::start(SETTINGS)?)?;
        if told.refused > 0 {
            return Err(failure!("{told:?} of a gateway that lets everybody in"));
        }
        let (refused, told) = crowd_us(Gateway::start_refusing(SETTINGS)?)?;
        if told.let_in > CONNECTIONS / 100 {
            return Err(failure!("{told:?} of a gateway that is to refuse"));
        }
        ratios.push(refused / accepted);
        refused_us.push(refused);
        accepted_us.push(accepted);
    }
    Ok(vec![
        Reading::detail("refusal", median(&ratios), "x accepted", runs_note(&ratios))
            .goal(Bound::AtMost(0.2))
            .limit(Bound::AtMost(1.25)),
        Reading::detail("refusal.refused", median(&refused_us), "us CPU", runs_note(&refused_us)),
        Reading::detail("refusal.accepted", median(&accepted_us), "us CPU", runs_note(&accepted_us)),
    ])
}

const SETTINGS: Settings = Settings { shards: 1, heartbeat_s: 600 };

/// CPU of the gateway for each of a crowd, in microseconds.
fn crowd_us(gateway: Gateway) -> Outcome<(f64, Told)> {
    let mut crowd = Crowd::start(CLIENT_CORE)?;
    // Its first clients cost it more, and use up the burst where there is one.
    crowd.come(gateway.address, 512)?;
    let before_ns = cpu::used_ns(gateway.pid())?;
    let told = crowd.come(gateway.address, CONNECTIONS)?;
    let used_ns = cpu::used_ns(gateway.pid())? - before_ns;
    crowd.stop()?;
    gateway.stop()?;
    Ok((used_ns as f64 / 1e3 / f64::from(CONNECTIONS), told))
}
