//! `storm`: how long clients stay away, as the server sees it, and what the tool says of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::bench::{Run, alone, bench, beside, start};
use crate::planted::script::{End, Greeting, Opening, Script};
use crate::planted::tally::{Ended, Seen, Tally};
use crate::planted::{DEADLINE, Planted};

/// For each connection number, how long it was from each end to the next connect, in milliseconds.
fn absences(tally: &Tally) -> Vec<f64> {
    let mut by_number: BTreeMap<u32, Vec<&Seen>> = BTreeMap::new();
    for seen in tally.clients() {
        by_number.entry(seen.number.expect("each says its number")).or_default().push(seen);
    }
    let pairs = by_number.values().flat_map(|seen| seen.windows(2));
    let absence = |pair: &[&Seen]| {
        let left: Instant = pair[0].ended.expect("it has ended").0;
        pair[1].accepted_at.saturating_duration_since(left).as_secs_f64() * 1000.0
    };
    pairs.map(absence).collect()
}

#[track_caller]
fn all_within(what: &str, absences: &[f64], count: usize, range: std::ops::Range<f64>) {
    assert_eq!(absences.len(), count, "{what}");
    let outside: Vec<_> = absences.iter().filter(|ms| !range.contains(*ms)).collect();
    assert!(outside.is_empty(), "{what}: not within {range:?} ms: {outside:?}");
}

fn storm(server: &Planted, words: &str) -> Run {
    bench("storm", &[&server.ws("/ws")], &format!("-c 40 --for 200ms {words}"))
}

#[test]
fn all_come_back_at_once_or_after_a_fixed_time() {
    let _machine = beside();
    for (back_off, range) in [("none", 0.0..380.0), ("fixed:400ms", 390.0..900.0)] {
        let server = Planted::start(Script::default());
        let run = storm(&server, &format!("--back-off {back_off}"));
        run.exits(0);
        run.has(&[("opened", 80), ("failed", 0)]);
        assert_eq!(run.timed("reconnect"), 40);
        assert_eq!(run.report["open"], 40);
        all_within(back_off, &absences(&server.tally()), 40, range.clone());
        let longest = run.time_ms("reconnect", "max");
        assert!(longest >= range.start && longest < range.end + 50.0, "{back_off}: {longest} ms");
    }
}

#[test]
fn full_jitter_is_anywhere_below_its_cap_and_the_cap_doubles() {
    let _machine = alone();
    let server = Planted::start(Script::default());
    storm(&server, "--back-off exponential:400ms..10s").exits(0);
    let first = absences(&server.tally());
    all_within("first", &first, 40, 0.0..550.0);
    // Evenly spread: of 40 some are in each half, but for one seed in 500 thousand million.
    let late = first.iter().filter(|ms| **ms > 200.0).count();
    assert!((5..=35).contains(&late), "{late} of 40 in the second half: {first:?}");
    // Refused twice: the third wait is below 4 times the first cap, and some are above twice.
    let refused = Greeting::Refused(503, None);
    let opening = Opening { connections: 0..40, attempts: 1..3, how: refused };
    let server = Planted::start(Script { openings: vec![opening], ..Script::default() });
    let run = storm(&server, "--back-off exponential:200ms..10s");
    assert_eq!(run.outcome("status 503"), 80, "{}", run.said());
    assert_eq!(run.report["open"], 40);
    let absences = absences(&server.tally());
    all_within("three waits", &absences, 120, 0.0..950.0);
    assert!(absences.iter().any(|ms| *ms > 400.0), "the cap has not doubled twice: {absences:?}");
}

#[test]
fn retry_after_is_heeded_where_clients_do_as_told() {
    let _machine = beside();
    let opening = Opening { connections: 0..40, attempts: 1..2, how: Greeting::Refused(503, Some(1)) };
    let server = Planted::start(Script { openings: vec![opening], ..Script::default() });
    let run = storm(&server, "--back-off as-told");
    assert_eq!(run.outcome("status 503"), 40, "{}", run.said());
    assert_eq!(run.report["open"], 40);
    // Nothing was told when the tool itself cut them: one second; then the second that was told.
    all_within("a second each", &absences(&server.tally()), 80, 980.0..1800.0);
}

#[test]
fn a_server_that_restarts_says_when_to_come_back() {
    let _machine = alone();
    let script = Script { retry_ms: Some(500), ..Script::default() };
    for (what, end) in [("ws", End::Close(1012, "reconnect after 700 ms")), ("sse", End::Silent)] {
        let server = Planted::start(script.clone());
        let url = if what == "ws" { server.ws("/ws") } else { server.http("/sse") };
        let words = "-c 40 --for 100ms --by-server 10s --back-off as-told";
        let running = start("storm", &[&url], words);
        server.until("40 are open", |tally| tally.open() == 40);
        // The tool does not say when it begins to wait for the server.
        std::thread::sleep(Duration::from_millis(400));
        server.end_all(end);
        let run = running.ended();
        run.exits(0);
        assert_eq!(run.timed("reconnect"), 40, "{}", run.said());
        let told = if what == "ws" { 690.0..950.0 } else { 490.0..750.0 };
        all_within(what, &absences(&server.tally()), 40, told);
        if what == "ws" {
            assert_eq!(run.outcome("close 1012"), 40, "{}", run.said());
        }
    }
}

#[test]
fn each_round_is_a_storm_and_reset_is_rst() {
    let _machine = beside();
    let server = Planted::start(Script::default());
    let run = storm(&server, "--back-off none --rounds 3 --reset");
    run.exits(0);
    run.has(&[("opened", 160), ("failed", 0)]);
    assert_eq!(run.timed("reconnect"), 120);
    let planted = server.until("all have gone", |tally| tally.open() == 0);
    assert_eq!((planted.connections.len(), planted.ended(Ended::Reset)), (160, 120));
}

#[test]
fn event_streams_and_polls_come_back_too() {
    let _machine = beside();
    for path in ["/sse", "/poll"] {
        let server = Planted::start(Script::default());
        let run = bench("storm", &[&server.http(path)], "-c 30 --for 200ms --back-off fixed:200ms");
        run.exits(0);
        assert_eq!((run.timed("reconnect"), run.report["open"].as_u64()), (30, Some(30)), "{path}");
        assert_eq!(server.tally().connections.len(), 60, "{path}");
    }
}

#[test]
fn who_is_never_let_in_again_is_a_failure_and_the_run_ends() {
    let _machine = beside();
    let opening = Opening { connections: 0..10, attempts: 1..u32::MAX, how: Greeting::Refused(403, None) };
    let server = Planted::start(Script { openings: vec![opening], ..Script::default() });
    let begun = Instant::now();
    let run = storm(&server, "--back-off fixed:100ms --timeout 300ms");
    assert!(begun.elapsed() < DEADLINE);
    run.exits(1);
    assert!(run.outcome("status 403") >= 10, "{}", run.said());
    assert_eq!(run.report["open"], 30);
}
