//! Event streams, polls and returning clients, against WebSockets and plain connects of the same run.

use std::time::{Duration, Instant};

use bytes::Bytes;
use corecast::control::command::{Answer, Command};
use corecast::message::Target;

use crate::plan::Transport;
use crate::rig::audience::Audience;
use crate::rig::process::{Gateway, Settings};
use crate::rig::pusher::{name, push};
use crate::rig::receiver::{Receiver, Role, TOPIC};
use crate::rig::{Outcome, PAYLOAD_BYTES, per_second};
use crate::table::{Bound, Reading, median, runs as runs_note};
use crate::{arrival, cpu, failure};

const SUBSCRIBERS: u32 = 9_000;
const RESUMING: u32 = arrival::CONNECTIONS;
const MISSED: u32 = 100;
const RECEIVER_CORE: usize = 1;
/// Longest wait for what is on its way.
const ARRIVAL: Duration = Duration::from_secs(60);

/// CPU of the gateway per delivery, in µs, from the push to the last receipt. Polls ask again between the
/// rounds, and what that costs is not in it.
fn cost_us(side: &mut Audience, rounds: u32) -> Outcome<f64> {
    let mut used_ns = 0;
    for _ in 0..rounds {
        side.receiver.poll_again()?;
        wait_until_all_listen(side)?;
        let before_ns = cpu::used_ns(side.gateway.pid())?;
        side.broadcast()?;
        used_ns += cpu::used_ns(side.gateway.pid())? - before_ns;
    }
    Ok(used_ns as f64 / 1e3 / f64::from(rounds * side.subscribers))
}

fn wait_until_all_listen(side: &mut Audience) -> Outcome<()> {
    let deadline = Instant::now() + ARRIVAL;
    loop {
        let asked = Command::Topic(side.topic.clone());
        let answer = side.client.call(&asked).map_err(|error| failure!("{error:?}"))?;
        let Answer::Topics(topics) = answer else {
            return Err(failure!("topics were answered {answer:?}"));
        };
        if topics.first().is_some_and(|topic| topic.connections == u64::from(side.subscribers)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(failure!("not all subscribers are back: {topics:?}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// CPU per delivery of a broadcast to one third each of WebSockets, event streams and held polls, over that of
/// one to WebSockets alone.
pub fn mixed(runs: u32) -> Outcome<Vec<Reading>> {
    const PAIRS: u32 = 3;
    const ROUNDS: u32 = 15;
    const WARM_UP_ROUNDS: u32 = 10;
    let mut alone = Audience::start(SUBSCRIBERS, &[Role::Subscriber])?;
    let by = [Role::Subscriber, Role::By(Transport::EventStream), Role::By(Transport::LongPoll)];
    let mut mixed = Audience::start(SUBSCRIBERS, &by)?;
    let (mut ratios, mut mixed_us, mut alone_us) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs * PAIRS {
        cost_us(&mut mixed, WARM_UP_ROUNDS)?;
        let of_mixed = cost_us(&mut mixed, ROUNDS)?;
        cost_us(&mut alone, WARM_UP_ROUNDS)?;
        let of_alone = cost_us(&mut alone, ROUNDS)?;
        ratios.push(of_mixed / of_alone);
        mixed_us.push(of_mixed);
        alone_us.push(of_alone);
    }
    mixed.stop()?;
    alone.stop()?;
    Ok(vec![
        Reading::detail("mixed", median(&ratios), "x WebSockets", runs_note(&ratios))
            .goal(Bound::AtMost(1.15))
            .limit(Bound::AtMost(1.4)),
        Reading::detail("mixed.thirds", median(&mixed_us), "us CPU", runs_note(&mixed_us)),
        Reading::detail("mixed.websockets", median(&alone_us), "us CPU", runs_note(&alone_us)),
    ])
}

/// Clients that come back and miss messages, per second until the last has all of them, over plain connects.
pub fn resume(runs: u32) -> Outcome<Vec<Reading>> {
    let (mut ratios, mut rates, mut plain_rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let plain = arrival::gateway_rate()?;
        let resuming = resuming_rate()?;
        ratios.push(resuming / plain);
        rates.push(resuming);
        plain_rates.push(plain);
    }
    Ok(vec![
        Reading::detail("resume", median(&ratios), "x connects", runs_note(&ratios))
            .goal(Bound::AtLeast(0.5))
            .limit(Bound::AtLeast(0.35)),
        Reading::detail("resume.clients", median(&rates), "clients/s", runs_note(&rates)),
        Reading::detail("resume.connects", median(&plain_rates), "clients/s", runs_note(&plain_rates)),
    ])
}

fn resuming_rate() -> Outcome<f64> {
    let gateway = Gateway::start(Settings { shards: 1, heartbeat_s: 600 })?;
    let mut client = gateway.client()?;
    let topic = name(TOPIC)?;
    let payload = Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let mut since = String::new();
    // The first is what the clients have had.
    for number in 0..=MISSED {
        let pushed = client.push(push(Target::Topic(topic.clone()), &payload));
        let pushed = pushed.map_err(|error| failure!("{error:?}"))?;
        if number == 0 {
            since = pushed.position.to_string();
        }
    }
    let mut receiver = Receiver::start(RECEIVER_CORE)?;
    let connected = receiver.connect(gateway.address, RESUMING, &Role::Resuming(since))?;
    receiver.expect(u64::from(RESUMING) * u64::from(MISSED))?;
    let received = receiver.received(ARRIVAL)?;
    receiver.stop()?;
    gateway.stop()?;
    // The last message may have come before the last connect, or after it.
    let ended_ns = received.at_ns.max(connected.ended_ns);
    Ok(per_second(u64::from(RESUMING), ended_ns - connected.started_ns))
}
