//! What a shard tells those who trace, and what it does when nobody takes it.

use corecast::shard::mailbox::{Act, Report, Request, TraceId, Traced, event_mask};

use crate::by_hand::{ByHand, write_all};
use crate::harness::websocket::{PING, TEXT, frame};

const NOTHING: [TraceId; 0] = [];

fn ask(shard: &mut ByHand, trace: TraceId) {
    let (of, begun) = (Traced::User("ann".parse().unwrap()), shard.now());
    shard.ask(Request::Trace { trace, of, begun });
}

/// Traces of the steps that wait to be taken.
fn steps(shard: &mut ByHand) -> Vec<TraceId> {
    let steps = shard.reports.drain().filter_map(|report| match report {
        Report::Step(step) => Some(step.trace),
        _ => None,
    });
    steps.collect()
}

#[test]
fn issue_7_a_trace_that_has_ended_is_told_nothing_and_the_others_go_on() {
    let mut shard = ByHand::start(|_| {});
    let mut client = shard.websocket("/ws?user=ann");
    let ping = |shard: &mut ByHand, client: &mut std::net::TcpStream| {
        steps(shard);
        write_all(client, &frame(true, PING, b""));
        shard.read(client, 2);
        steps(shard)
    };
    assert_eq!(ping(&mut shard, &mut client), NOTHING);
    ask(&mut shard, 1);
    ask(&mut shard, 2);
    assert_eq!(ping(&mut shard, &mut client), [1, 2, 1, 2], "in and out, for both");
    shard.ask(Request::EndTrace(1));
    assert_eq!(ping(&mut shard, &mut client), [2, 2]);
    shard.ask(Request::EndTrace(2));
    assert_eq!(ping(&mut shard, &mut client), NOTHING);
    // A user whom nobody traces any more is not looked for either.
    shard.websocket("/ws?user=ann");
    assert_eq!(steps(&mut shard), NOTHING);
}

#[test]
fn rule_3_what_control_does_not_take_is_counted_and_told_and_nobody_waits_for_it() {
    let mut shard = ByHand::start(|config| config.limits.uplinks_per_second = 0);
    let mut client = shard.websocket("/ws?user=ann");
    ask(&mut shard, 7);
    shard.gate.events_wanted.store(event_mask::UPLINK, std::sync::atomic::Ordering::Relaxed);
    let sent = 40_000;
    let frames: Vec<u8> = (0..1000).flat_map(|_| frame(true, TEXT, b"x")).collect();
    for n in 1..=sent / 1000 {
        write_all(&mut client, &frames);
        shard.until("they are heard", |stats| stats.uplinks == n * 1000);
    }
    let stats = shard.turn();
    let (mut heard, mut events) = (0_u64, 0_u64);
    let mut take = |shard: &mut ByHand| {
        let (mut lost_events, mut lost_steps) = (0_u64, 0_u64);
        for report in shard.reports.drain() {
            match report {
                Report::Event(_) => events += 1,
                Report::Step(step) => heard += u64::from(matches!(step.what, Act::Frame { .. })),
                Report::EventsLost(count) => lost_events += count,
                Report::StepsLost { trace: 7, count } => lost_steps += count,
                _ => {}
            }
        }
        (lost_events, lost_steps)
    };
    assert_eq!(take(&mut shard), (0, 0), "there was no room to tell it");
    shard.turn();
    let (lost_events, lost_steps) = take(&mut shard);
    assert_eq!((heard + lost_steps, events + lost_events), (sent, sent));
    assert!(lost_steps > 0 && lost_events > 0);
    assert_eq!((stats.trace_dropped, stats.events_dropped), (lost_steps, lost_events));
}
