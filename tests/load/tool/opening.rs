//! How connections are opened and held: ramp, steps, transports, processes, threads, addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::bench::{bench, beside, start};
use crate::planted::Planted;
use crate::planted::script::Script;
use crate::planted::tally::{Role, Tally};

/// Seconds from the first accept to each.
fn accepted_s(tally: &Tally) -> Vec<f64> {
    let first = tally.connections[0].accepted_at;
    let since = |at: Instant| at.duration_since(first).as_secs_f64();
    tally.connections.iter().map(|seen| since(seen.accepted_at)).collect()
}

#[test]
fn a_ramp_of_100_a_second_opens_200_in_two_seconds_and_evenly() {
    let _machine = beside();
    let server = Planted::start(Script::default());
    bench("hold", &[&server.ws("/ws")], "-c 200 --ramp 100/s --for 100ms").exits(0);
    let accepted = accepted_s(&server.tally());
    assert_eq!(accepted.len(), 200);
    let last = accepted[199];
    assert!((1.9..3.0).contains(&last), "the last came after {last} s");
    let after_one = accepted.iter().filter(|at| **at < 1.0).count();
    assert!((60..=120).contains(&after_one), "{after_one} in the first second");
}

#[test]
fn two_workers_keep_the_ramp_of_one() {
    let _machine = beside();
    let server = Planted::start(Script::default());
    bench("hold", &[&server.ws("/ws")], "-c 150 --ramp 100/s --processes 2 --for 100ms").exits(0);
    let last = *accepted_s(&server.tally()).last().unwrap();
    assert!((1.4..2.5).contains(&last), "the last came after {last} s");
}

#[test]
fn steps_come_at_once_and_then_nothing_until_the_next() {
    let _machine = beside();
    let server = Planted::start(Script::default());
    bench("hold", &[&server.ws("/ws")], "-c 90 --step 30 --every 600ms --for 100ms").exits(0);
    let accepted = accepted_s(&server.tally());
    for (number, at) in accepted.iter().enumerate() {
        let begins = 0.6 * (number / 30) as f64;
        assert!((begins - 0.05..begins + 0.5).contains(at), "connection {number} came after {at} s");
    }
}

#[test]
fn a_hold_lasts_as_long_as_it_was_told_to() {
    let _machine = beside();
    let server = Planted::start(Script::default());
    let run = bench("hold", &[&server.ws("/ws")], "-c 20 --for 1500ms");
    run.exits(0);
    run.has(&[("attempted", 20), ("opened", 20), ("dropped", 0), ("messages", 0)]);
    assert_eq!(run.report["open"], 20);
    for seen in server.until("all have gone", |tally| tally.open() == 0).clients() {
        let held = seen.ended.unwrap().0 - seen.opened_at.unwrap();
        assert!(held >= Duration::from_millis(1500) && held < Duration::from_millis(3500), "{held:?}");
    }
    // A line a second while it runs.
    let lines = run.stderr.lines().filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit()));
    assert!((1..=3).contains(&lines.count()), "{}", run.stderr);
    let phases: Vec<&str> = run.report["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|phase| phase["name"].as_str().unwrap())
        .collect();
    assert_eq!(phases[..2], ["connect", "hold"]);
}

#[test]
fn a_mix_is_held_in_its_shares() {
    let _machine = beside();
    let server = Planted::start(Script::default());
    let run = bench("hold", &[&server.http("/")], "-c 100 --mix ws=60,sse=30,poll=10 --for 300ms");
    run.exits(0);
    run.has(&[("opened", 100), ("dropped", 0)]);
    let planted = server.tally();
    let of = |role| planted.clients().filter(|seen| seen.role == role).count();
    assert_eq!((of(Role::WebSocket), of(Role::EventStream), of(Role::LongPoll)), (60, 30, 10));
}

#[test]
fn processes_and_threads_are_joined_into_one_report_with_each_number_once() {
    let _machine = beside();
    for (words, workers) in [("--processes 3", 3), ("--threads 2", 2), ("--processes 2 --threads 2", 4)] {
        let server = Planted::start(Script { drops: 10, ..Script::default() });
        let exact = [&*server.ws("/ws"), "--publish", "http", "--publish-url", &server.publish_url()];
        let run = bench("fanout", &exact, &format!("-c 100 -m 50 --rate 200/s --linger 500ms {words}"));
        run.exits(1);
        run.has(&[("opened", 100), ("messages", 100 * 45), ("lost", 100 * 5), ("duplicated", 0)]);
        assert_eq!(run.timed("delivery"), 4500);
        assert_eq!(run.report["tool_cost"]["workers"], workers);
        let planted = server.tally();
        let mut numbers: Vec<u32> = planted.clients().filter_map(|seen| seen.number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>(), "{words}");
    }
}

#[test]
fn source_addresses_are_used_in_turn() {
    let _machine = beside();
    let server = Planted::start(Script::default());
    bench("hold", &[&server.ws("/ws")], "-c 40 --sources 127.0.0.2-127.0.0.4,127.0.0.9 --for 200ms").exits(0);
    let mut from: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for seen in server.tally().connections {
        *from.entry(seen.peer.ip()).or_default() += 1;
    }
    let expected = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.9"].map(|ip| (ip.parse().unwrap(), 10));
    assert_eq!(from, BTreeMap::from(expected));
}

#[test]
fn a_bare_connection_says_nothing_and_counts_what_it_hears() {
    let _machine = beside();
    let server = Planted::start(Script::default());
    let url = format!("http://{}/", server.address);
    let run = bench("hold", &[&url], "-c 20 --transport tcp --for 300ms");
    run.exits(0);
    run.has(&[("opened", 20), ("bytes_out", 0), ("bytes_in", 0)]);
    let planted = server.tally();
    assert_eq!((planted.connections.len(), planted.sum(|seen| seen.bytes_in)), (20, 0));
}

#[test]
fn workers_go_when_the_tool_is_killed() {
    let _machine = beside();
    let server = Planted::start(Script::default());
    let running = start("hold", &[&server.ws("/ws")], "-c 30 --processes 3 --for 1m");
    server.until("30 are open", |tally| tally.open() == 30);
    running.kill();
    server.until("all have gone", |tally| tally.open() == 0);
}
