//! What the server makes late, and what the tool says of it. Each test has the machine for itself.

use std::time::Duration;

use crate::bench::{alone, bench};
use crate::planted::Planted;
use crate::planted::script::{ALWAYS, Answer, Greeting, Opening, Script};

/// How much later than planted a median may be on a busy machine, in milliseconds.
const MEDIAN_SLACK_MS: f64 = 15.0;
/// The same for the slowest: whoever builds beside this holds a core for so long.
const TAIL_SLACK_MS: f64 = 80.0;

/// A figure is what was planted: never less, and not much more.
#[track_caller]
fn about(what: &str, found_ms: f64, planted_ms: f64, slack_ms: f64) {
    // Three significant digits, as HDR histograms have them.
    let low = planted_ms * 0.998;
    let expected = low..planted_ms + slack_ms;
    assert!(expected.contains(&found_ms), "{what}: {found_ms} ms of {planted_ms} planted");
}

#[test]
fn a_fixed_delay_is_what_every_delivery_takes() {
    let _machine = alone();
    let server = Planted::start(Script { delay: |_, _| Duration::from_millis(20), ..Script::default() });
    for (transport, url) in
        [("ws", server.ws("/ws")), ("sse", server.http("/sse")), ("poll", server.http("/poll"))]
    {
        let exact = [&*url, "--publish", "http", "--publish-url", &server.publish_url()];
        let run = bench("fanout", &exact, "-c 20 -m 25 --rate 25/s");
        run.exits(0);
        assert_eq!(run.timed("delivery"), 500);
        about(transport, run.time_ms("delivery", "min"), 20.0, MEDIAN_SLACK_MS);
        about(transport, run.time_ms("delivery", "p50"), 20.0, MEDIAN_SLACK_MS);
        about(transport, run.time_ms("delivery", "max"), 20.0, 2.0 * TAIL_SLACK_MS);
    }
}

/// Every tenth delivery, spread over messages and connections; the next message comes when none is under way.
#[test]
fn two_points_of_latency_are_found_at_their_percentiles() {
    let _machine = alone();
    let delay = |message: u64, connection: u32| {
        Duration::from_millis(if (message + u64::from(connection)).is_multiple_of(10) { 50 } else { 1 })
    };
    let server = Planted::start(Script { delay, ..Script::default() });
    let exact = [&*server.ws("/ws"), "--publish", "http", "--publish-url", &server.publish_url()];
    let run = bench("fanout", &exact, "-c 50 -m 40 --rate 12/s");
    run.exits(0);
    assert_eq!(run.timed("delivery"), 2000);
    about("p50", run.time_ms("delivery", "p50"), 1.0, MEDIAN_SLACK_MS);
    about("p95", run.time_ms("delivery", "p95"), 50.0, TAIL_SLACK_MS);
    about("p99", run.time_ms("delivery", "p99"), 50.0, TAIL_SLACK_MS);
    // The report's own distribution says the same: 200 of 2,000 took 50 ms or more, and few others did.
    let slow = run.report["times"]["delivery"]["distribution"].as_array().unwrap().iter();
    let slow: u64 = slow
        .filter(|step| step[0].as_u64().unwrap() >= 49_900_000)
        .map(|step| step[1].as_u64().unwrap())
        .sum();
    assert!((200..300).contains(&slow), "{slow} of 200: {}", run.said());
}

/// A server that stands still for 500 ms while 200 requests a second are due lets 100 of them wait, 250 ms in
/// the mean. Whoever times from the sending sees one slow request for each connection.
#[test]
fn a_stall_is_not_hidden_by_coordinated_omission() {
    let _machine = alone();
    let stall = Some((200, Duration::from_millis(500)));
    for (mode, path) in [("request", "/"), ("echo", "/echo")] {
        let server = Planted::start(Script { stall, ..Script::default() });
        let url = if mode == "echo" { server.ws(path) } else { server.http(path) };
        let run = bench(mode, &[&url], "-c 4 -n 600 --rate 200/s");
        run.exits(0);
        run.has(&[("sent", 600), ("succeeded", 600)]);
        assert_eq!(run.timed("response"), 600);
        let figure = |name: &str| run.time_ms("response", name);
        assert!(figure("p50") < 50.0, "{mode} p50 {}", figure("p50"));
        // 100 of 600 waited: p90 is in the middle of them, p99 near the longest.
        assert!((150.0..400.0).contains(&figure("p90")), "{mode} p90 {}", figure("p90"));
        assert!((440.0..800.0).contains(&figure("p99")), "{mode} p99 {}", figure("p99"));
        assert!((490.0..800.0).contains(&figure("max")), "{mode} max {}", figure("max"));
    }
}

#[test]
fn a_closed_loop_is_timed_from_its_sending() {
    let _machine = alone();
    let answers = vec![(10, Answer::Late(Duration::from_millis(60)))];
    for (mode, path) in [("request", "/"), ("echo", "/echo")] {
        let server = Planted::start(Script { answers: answers.clone(), ..Script::default() });
        let url = if mode == "echo" { server.ws(path) } else { server.http(path) };
        let run = bench(mode, &[&url], "-c 5 -n 200");
        run.exits(0);
        run.has(&[("sent", 200), ("succeeded", 200)]);
        let figure = |name: &str| run.time_ms("response", name);
        assert!(figure("p50") < MEDIAN_SLACK_MS, "{mode} p50 {}", figure("p50"));
        about(mode, figure("p95"), 60.0, TAIL_SLACK_MS);
        about(mode, figure("p99"), 60.0, TAIL_SLACK_MS);
    }
}

#[test]
fn a_late_handshake_is_timed_and_one_that_never_comes_is_a_timeout() {
    let _machine = alone();
    let late =
        Opening { connections: 0..10, attempts: 0..1, how: Greeting::Late(Duration::from_millis(300)) };
    let never = Opening { connections: 10..13, attempts: ALWAYS, how: Greeting::Never };
    let server = Planted::start(Script { openings: vec![late, never], ..Script::default() });
    let run = bench("hold", &[&server.ws("/ws")], "-c 40 --for 200ms --timeout 1s");
    run.exits(1);
    run.has(&[("attempted", 40), ("opened", 37), ("failed", 3), ("dropped", 0)]);
    assert_eq!(run.outcome("error handshake_timed_out"), 3);
    assert_eq!(run.timed("connect"), 37);
    about("max", run.time_ms("connect", "max"), 300.0, TAIL_SLACK_MS);
    assert!(run.time_ms("connect", "p50") < 150.0);
}
