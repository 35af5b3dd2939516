//! Pushes out: what a delivery costs, and how many there are in a second, against a bare `send()` loop.
//!
//! Both sides have their own 10,000 subscribers at the same time, in two receivers that are the same
//! program on the same core; only one side works at a time. The senders are on core 0, the receivers on
//! core 1. What the gateway's other threads and the driver need, they take where they find it.

use std::time::Duration;

use corecast::client::Client;
use corecast::message::{Name, Target};

use crate::cpu;
use crate::rig::audience::Audience;
use crate::rig::baseline::{Baseline, Way};
use crate::rig::pusher::{Pace, Pushed, name, push, push_all};
use crate::rig::receiver::{Receiver, Role, user};
use crate::rig::{Outcome, PAYLOAD_BYTES, per_second};
use crate::table::{Bound, Reading, median, runs as runs_note};

const SUBSCRIBERS: u32 = 10_000;
const SENDER_CORE: usize = 0;
const RECEIVER_CORE: usize = 1;
/// Longest wait for what is on its way.
const ARRIVAL: Duration = Duration::from_secs(120);

/// What deliveries one at a time cost their sender.
struct Cost {
    /// CPU of the sender's process per delivery, in µs.
    cpu_us: f64,
    /// How often the receiver fell asleep per 1,000 deliveries. Each time, a send has to wake it, and
    /// that is in `cpu_us`: a receiver that others keep from its core makes sending look cheap.
    sleeps: f64,
    /// From the first push to the last receipt, per delivery, in µs.
    took_us: f64,
}

/// Runs `rounds` and reads what they cost the process `sender`.
fn cost(sender: u32, receiver: u32, rounds: u32, run: impl FnOnce() -> Outcome<()>) -> Outcome<Cost> {
    let (used_ns, sleeps) = (cpu::used_ns(sender)?, cpu::sleeps(receiver)?);
    let began_ns = cpu::now_ns();
    run()?;
    let took_ns = cpu::now_ns() - began_ns;
    let (used_ns, sleeps) = (cpu::used_ns(sender)? - used_ns, cpu::sleeps(receiver)? - sleeps);
    let deliveries = f64::from(rounds * SUBSCRIBERS);
    Ok(Cost {
        cpu_us: used_ns as f64 / 1e3 / deliveries,
        sleeps: sleeps as f64 * 1e3 / deliveries,
        took_us: took_ns as f64 / 1e3 / deliveries,
    })
}

/// Costs as a reading, with the receiver's sleeps for a note.
fn cost_reading(name: &'static str, costs: &[Cost]) -> Reading {
    let cpu_us: Vec<f64> = costs.iter().map(|cost| cost.cpu_us).collect();
    let sleeps: Vec<f64> = costs.iter().map(|cost| cost.sleeps).collect();
    let note = format!("{}; receiver slept {:.0} times per 1000", runs_note(&cpu_us), median(&sleeps));
    Reading::detail(name, median(&cpu_us), "us CPU", note)
}

/// The gateway with its subscribers.
struct GatewaySide(Audience);

impl GatewaySide {
    fn start() -> Outcome<Self> {
        Ok(Self(Audience::start(SUBSCRIBERS, &[Role::Subscriber])?))
    }

    /// One broadcast after another, each received by all before the next.
    fn one_at_a_time(&mut self, rounds: u32) -> Outcome<Cost> {
        let (gateway, receiver) = (self.0.gateway.pid(), self.0.receiver.pid());
        cost(gateway, receiver, rounds, || (0..rounds).try_for_each(|_| self.0.broadcast()))
    }

    /// Broadcasts as fast as they are accepted; deliveries per second until all are received.
    fn broadcasts(&mut self, count: u32, pace: Pace) -> Outcome<(f64, Pushed)> {
        let deliveries = u64::from(count) * u64::from(SUBSCRIBERS);
        let topic = self.0.topic.clone();
        let payload = self.0.payload.clone();
        self.timed(deliveries, |client| {
            push_all(client, 0..count, pace, |_| push(Target::Topic(topic.clone()), &payload))
        })
    }

    /// Pushes to one user each, scattered over all; deliveries per second until all are received.
    fn unicasts(&mut self, users: &[Name], count: u32, pace: Pace) -> Outcome<(f64, Pushed)> {
        let payload = self.0.payload.clone();
        // A stride that has no factor in common with 10,000: everybody's turn, never a neighbour's.
        let to = |number: u32| users[(number as usize * 7919) % users.len()].clone();
        self.timed(u64::from(count), |client| {
            push_all(client, 0..count, pace, |number| push(Target::User(to(number)), &payload))
        })
    }

    fn timed(
        &mut self,
        deliveries: u64,
        send: impl FnOnce(&mut Client) -> Outcome<Pushed>,
    ) -> Outcome<(f64, Pushed)> {
        self.0.messages += deliveries;
        self.0.receiver.expect(self.0.messages)?;
        let start_ns = cpu::now_ns();
        let pushed = send(&mut self.0.client)?;
        let received = self.0.receiver.received(ARRIVAL)?;
        if received.counts.payload_bytes != received.counts.messages * PAYLOAD_BYTES as u64 {
            return Err(format!("payloads of {PAYLOAD_BYTES} bytes were sent, not {received:?}").into());
        }
        if pushed.connections != deliveries {
            return Err(format!("{deliveries} deliveries were due, not {}", pushed.connections).into());
        }
        Ok((per_second(deliveries, received.at_ns - start_ns), pushed))
    }
}

/// The bare loop with its subscribers.
struct BareSide {
    baseline: Baseline,
    receiver: Receiver,
    messages: u64,
}

impl BareSide {
    fn start() -> Outcome<Self> {
        let mut baseline = Baseline::start(SENDER_CORE)?;
        let mut receiver = Receiver::start(RECEIVER_CORE)?;
        baseline.accept_and_upgrade(SUBSCRIBERS)?;
        receiver.connect(baseline.address, SUBSCRIBERS, &Role::Subscriber)?;
        baseline.accepted()?;
        Ok(Self { baseline, receiver, messages: 0 })
    }

    /// One round after another, each received by all before the next.
    fn one_at_a_time(&mut self, rounds: u32, way: Way) -> Outcome<Cost> {
        cost(self.baseline.pid(), self.receiver.pid(), rounds, || self.send_rounds(rounds, way))
    }

    fn send_rounds(&mut self, rounds: u32, way: Way) -> Outcome<()> {
        for _ in 0..rounds {
            self.messages += u64::from(SUBSCRIBERS);
            self.receiver.expect(self.messages)?;
            self.baseline.send(1, PAYLOAD_BYTES, way)?;
            self.receiver.received(ARRIVAL)?;
            self.baseline.sent()?;
        }
        Ok(())
    }

    /// Round after round without waiting, one message a `send()`; deliveries per second.
    fn loop_rate(&mut self, rounds: u32) -> Outcome<f64> {
        let deliveries = u64::from(rounds) * u64::from(SUBSCRIBERS);
        self.messages += deliveries;
        self.receiver.expect(self.messages)?;
        let start_ns = cpu::now_ns();
        self.baseline.send(rounds, PAYLOAD_BYTES, Way::Loop)?;
        let received = self.receiver.received(ARRIVAL)?;
        self.baseline.sent()?;
        Ok(per_second(deliveries, received.at_ns - start_ns))
    }

    fn stop(self) -> Outcome<()> {
        self.receiver.stop()?;
        self.baseline.stop()
    }
}

/// The bare loop alone: what this machine charges and allows, and how much it wavers.
pub fn machine(runs: u32) -> Outcome<Vec<Reading>> {
    let mut bare = BareSide::start()?;
    bare.one_at_a_time(3, Way::Loop)?;
    let (mut costs, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        costs.push(bare.one_at_a_time(20, Way::Loop)?);
        rates.push(bare.loop_rate(20)?);
    }
    bare.stop()?;
    Ok(vec![
        cost_reading("machine.send", &costs),
        Reading::detail("machine.send_loop", median(&rates), "deliveries/s", runs_note(&rates)),
    ])
}

/// CPU of the whole gateway process per delivered broadcast, over that of the bare loop's process. Beside
/// it what bare batches of the gateway's ring cost: the part of the ratio that is the kernel's.
pub fn fanout(runs: u32) -> Outcome<Vec<Reading>> {
    const PAIRS: u32 = 3;
    const ROUNDS: u32 = 20;
    // A receiver that has rested sleeps after every message in its first second, and each send wakes it:
    // 6 µs instead of 4, whoever sends. After that it keeps up without sleeping.
    const WARM_UP_ROUNDS: u32 = 15;
    let mut bare = BareSide::start()?;
    let mut gateway = GatewaySide::start()?;
    // The first rounds grow socket buffers and warm caches.
    bare.one_at_a_time(3, Way::Loop)?;
    gateway.one_at_a_time(3)?;
    let (mut ratios, mut gateway_costs, mut bare_costs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut batch_ratios, mut batch_costs) = (Vec::new(), Vec::new());
    let mut completions = Vec::new();
    for _ in 0..runs * PAIRS {
        gateway.one_at_a_time(WARM_UP_ROUNDS)?;
        let ours = gateway.one_at_a_time(ROUNDS)?;
        bare.one_at_a_time(WARM_UP_ROUNDS, Way::Loop)?;
        let theirs = bare.one_at_a_time(ROUNDS, Way::Loop)?;
        let batches = bare.one_at_a_time(ROUNDS, Way::Batch)?;
        ratios.push(ours.cpu_us / theirs.cpu_us);
        completions.push(ours.took_us / theirs.took_us);
        batch_ratios.push(batches.cpu_us / theirs.cpu_us);
        batch_costs.push(batches);
        gateway_costs.push(ours);
        bare_costs.push(theirs);
    }
    gateway.0.stop()?;
    bare.stop()?;
    Ok(vec![
        Reading::detail("fanout", median(&ratios), "x send loop", runs_note(&ratios))
            .goal(Bound::AtMost(0.9))
            .limit(Bound::AtMost(1.05)),
        Reading::detail("fanout.completion", median(&completions), "x send loop", runs_note(&completions)),
        Reading::detail("fanout.bare_batch", median(&batch_ratios), "x send loop", runs_note(&batch_ratios)),
        cost_reading("fanout.gateway", &gateway_costs),
        cost_reading("fanout.send_loop", &bare_costs),
        cost_reading("fanout.batch", &batch_costs),
    ])
}

/// Deliveries per second while broadcasts come as fast as they go, over those of the bare loop.
pub fn saturated(runs: u32) -> Outcome<Vec<Reading>> {
    const BROADCASTS: u32 = 1000;
    const BARE_ROUNDS: u32 = 60;
    let pace = Pace { window: BROADCASTS as usize, batch: 1 };
    let mut bare = BareSide::start()?;
    let mut gateway = GatewaySide::start()?;
    bare.one_at_a_time(3, Way::Loop)?;
    gateway.one_at_a_time(3)?;
    let (mut ratios, mut rates, mut bare_rates, mut busy) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..runs {
        let (ours, pushed) = gateway.broadcasts(BROADCASTS, pace)?;
        let theirs = bare.loop_rate(BARE_ROUNDS)?;
        ratios.push(ours / theirs);
        rates.push(ours);
        bare_rates.push(theirs);
        busy += pushed.busy;
    }
    gateway.0.stop()?;
    bare.stop()?;
    Ok(vec![
        Reading::detail("saturated", median(&ratios), "x send loop", runs_note(&ratios))
            .goal(Bound::AtLeast(20.0))
            .limit(Bound::AtLeast(10.0)),
        Reading::detail("saturated.gateway", median(&rates), "deliveries/s", format!("busy {busy} times")),
        Reading::detail("saturated.send_loop", median(&bare_rates), "deliveries/s", runs_note(&bare_rates)),
    ])
}

/// Pushes to single users per second, received, over what the bare loop delivers. One push a command
/// and 64 a command; the better counts.
pub fn unicast(runs: u32) -> Outcome<Vec<Reading>> {
    const PUSHES: u32 = 200_000;
    const BARE_ROUNDS: u32 = 20;
    const SINGLE: Pace = Pace { window: 4096, batch: 1 };
    const BATCHED: Pace = Pace { window: 4096, batch: 64 };
    let users = (0..SUBSCRIBERS).map(|index| name(&user(index))).collect::<Outcome<Vec<Name>>>()?;
    let mut bare = BareSide::start()?;
    let mut gateway = GatewaySide::start()?;
    bare.one_at_a_time(3, Way::Loop)?;
    gateway.one_at_a_time(3)?;
    let (mut singles, mut batches, mut bare_rates, mut busy) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let (mut single_ratios, mut batch_ratios) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let theirs = bare.loop_rate(BARE_ROUNDS)?;
        let (single, pushed) = gateway.unicasts(&users, PUSHES, SINGLE)?;
        let (batch, pushed_batched) = gateway.unicasts(&users, PUSHES, BATCHED)?;
        single_ratios.push(single / theirs);
        batch_ratios.push(batch / theirs);
        singles.push(single);
        batches.push(batch);
        bare_rates.push(theirs);
        busy += pushed.busy + pushed_batched.busy;
    }
    gateway.0.stop()?;
    bare.stop()?;
    let better = if median(&single_ratios) >= median(&batch_ratios) { &single_ratios } else { &batch_ratios };
    Ok(vec![
        Reading::detail("unicast", median(better), "x send loop", runs_note(better))
            .goal(Bound::AtLeast(0.7))
            .limit(Bound::AtLeast(0.5)),
        Reading::detail("unicast.single", median(&singles), "pushes/s", format!("busy {busy} times in all")),
        Reading::detail("unicast.batch_64", median(&batches), "pushes/s", runs_note(&batches)),
        Reading::detail("unicast.send_loop", median(&bare_rates), "deliveries/s", runs_note(&bare_rates)),
    ])
}
