//! Ctrl-C: a run that is ended early leaves its report, and nothing that was on its way is lost.

use rustix::process::Signal;

use crate::bench::{beside, start};
use crate::planted::Planted;
use crate::planted::script::Script;

#[test]
fn an_interrupted_publisher_reports_what_was_published_and_none_of_it_is_lost() {
    let _machine = beside();
    let server = Planted::start(Script::default());
    let url = server.ws("/ws");
    let exact = [&*url, "--publish", "http", "--publish-url", &server.publish_url()];
    let running = start("fanout", &exact, "-c 20 -m 1000000 --rate 100/s");
    server.until("some are published", |tally| tally.published >= 10);
    running.signal(Signal::INT);
    let run = running.ended();
    run.exits(0);
    let published = server.tally().published;
    run.has(&[("messages", 20 * published), ("lost", 0), ("dropped", 0)]);
    assert_eq!(run.report["publisher"]["accepted"], published);
    assert!(run.stderr.contains("interrupted"), "{}", run.said());
}

#[test]
fn an_interrupted_hold_reports_the_connections_that_it_held() {
    let _machine = beside();
    let server = Planted::start(Script::default());
    let running = start("hold", &[&server.ws("/ws")], "-c 30 --for 1h");
    server.until("all are open", |tally| tally.clients().filter(|seen| seen.is_open()).count() == 30);
    running.signal(Signal::TERM);
    let run = running.ended();
    run.exits(0);
    run.has(&[("opened", 30), ("dropped", 0)]);
    assert!(run.report["elapsed_s"].as_f64().unwrap() < 60.0, "{}", run.said());
}
