//! What the server does to messages, and what `fanout` and `unicast` find of it.

use std::time::Duration;

use crate::bench::{Run, bench, beside};
use crate::planted::Planted;
use crate::planted::script::{Framing, Script, Writing};
use crate::planted::tally::Role;

/// Every transport that receives, with its path.
const RECEIVING: [(&str, &str); 3] = [("ws", "/ws"), ("sse", "/sse"), ("poll", "/poll")];

/// The address that `transport` connects to.
fn url(server: &Planted, transport: &str) -> String {
    let (_, path) = RECEIVING.iter().find(|(name, _)| *name == transport).unwrap();
    if transport == "ws" { server.ws(path) } else { server.http(path) }
}

/// `fanout` through the planted server's own publish request.
#[track_caller]
fn fanout(server: &Planted, transport: &str, words: &str) -> Run {
    let url = url(server, transport);
    let exact = [&*url, "--publish", "http", "--publish-url", &server.publish_url()];
    bench("fanout", &exact, words)
}

#[test]
fn nothing_planted_is_nothing_found() {
    let _machine = beside();
    for (transport, _) in RECEIVING {
        let server = Planted::start(Script::default());
        let run = fanout(&server, transport, "-c 50 -m 40 --rate 200/s");
        run.exits(0);
        run.has(&[("attempted", 50), ("opened", 50), ("failed", 0), ("dropped", 0), ("messages", 2000)]);
        run.has(&[("lost", 0), ("duplicated", 0), ("reordered", 0), ("unstamped", 0)]);
        // A poll's item is counted with the JSON around it.
        let around = if transport == "poll" { 500_000..700_000 } else { 2000 * 256..2000 * 256 + 1 };
        assert!(around.contains(&run.total("payload_bytes")), "{transport}: {}", run.said());
        // 40 messages at 200 a second to 50 connections: never faster, and on a busy machine slower.
        let rate = run.report["rates"]["deliveries/s"].as_f64().unwrap();
        assert!((1_000.0..10_300.0).contains(&rate), "{transport}: {rate} a second: {}", run.said());
        assert_eq!(run.timed("delivery"), 2000, "{transport}: {}", run.said());
        assert_eq!(run.report["open"], 50);
        assert_eq!(run.report["publisher"]["by"], "http");
        assert_eq!(run.report["publisher"]["accepted"], 40);
        assert_eq!(server.tally().published, 40);
        assert_eq!(server.tally().sum(|seen| seen.delivered), 2000);
    }
}

#[test]
fn every_message_that_was_dropped_is_lost_by_everybody() {
    let _machine = beside();
    for (transport, _) in RECEIVING {
        let server = Planted::start(Script { drops: 1000, ..Script::default() });
        let run = fanout(&server, transport, "-c 5 -m 2500 --rate max --linger 500ms");
        assert_eq!(server.tally().dropped, 2);
        run.exits(1);
        run.has(&[("messages", 5 * 2498), ("lost", 5 * 2), ("duplicated", 0), ("reordered", 0)]);
    }
}

#[test]
fn the_last_message_is_missed_too() {
    let _machine = beside();
    let server = Planted::start(Script { drops: 50, ..Script::default() });
    let run = fanout(&server, "ws", "-c 4 -m 100 --rate max --linger 300ms");
    run.exits(1);
    run.has(&[("messages", 4 * 98), ("lost", 4 * 2), ("duplicated", 0), ("reordered", 0)]);
}

#[test]
fn every_message_that_was_sent_twice_is_a_duplicate() {
    let _machine = beside();
    for (transport, _) in RECEIVING {
        let server = Planted::start(Script { doubles: 7, ..Script::default() });
        let run = fanout(&server, transport, "-c 5 -m 100 --rate max");
        assert_eq!(server.tally().doubled, 14);
        run.exits(1);
        run.has(&[("messages", 5 * 114), ("lost", 0), ("duplicated", 5 * 14), ("reordered", 0)]);
    }
}

#[test]
fn every_message_that_was_overtaken_is_a_reordering() {
    let _machine = beside();
    for (transport, _) in RECEIVING {
        let server = Planted::start(Script { swaps: 9, ..Script::default() });
        let run = fanout(&server, transport, "-c 5 -m 100 --rate max");
        assert_eq!(server.tally().swapped, 11);
        run.exits(1);
        run.has(&[("messages", 5 * 100), ("lost", 0), ("duplicated", 0), ("reordered", 5 * 11)]);
    }
}

/// Of 200 messages 18 drops 11, 13 swaps 15, and 7 doubles 28 less 126, which is dropped, and 91 and 182, which
/// are swapped.
#[test]
fn faults_of_every_kind_are_told_apart() {
    let _machine = beside();
    for (transport, _) in RECEIVING {
        let server = Planted::start(Script { drops: 18, doubles: 7, swaps: 13, ..Script::default() });
        let run = fanout(&server, transport, "-c 10 -m 200 --rate max --linger 500ms");
        let planted = server.tally();
        assert_eq!((planted.dropped, planted.doubled, planted.swapped), (11, 25, 15));
        run.exits(1);
        run.has(&[("lost", 10 * planted.dropped), ("duplicated", 10 * planted.doubled)]);
        run.has(&[("reordered", 10 * planted.swapped), ("messages", 10 * (200 - 11 + 25))]);
    }
}

#[test]
fn what_is_tolerated_is_no_failure_of_the_run_but_is_told() {
    let _machine = beside();
    let server = Planted::start(Script { drops: 50, ..Script::default() });
    let run = fanout(&server, "ws", "-c 4 -m 100 --rate max --linger 300ms --tolerate 5%");
    run.exits(0);
    run.has(&[("lost", 8)]);
    let server = Planted::start(Script { drops: 50, ..Script::default() });
    let run = fanout(&server, "ws", "-c 4 -m 100 --rate max --linger 300ms --tolerate 1%");
    run.exits(1);
}

#[test]
fn single_octets_and_fragments_with_pings_between_are_whole_messages() {
    let _machine = beside();
    for (transport, writing) in [
        ("ws", Writing::Octets),
        ("sse", Writing::Octets),
        ("poll", Writing::Octets),
        ("ws", Writing::Fragments(5)),
    ] {
        let server = Planted::start(Script { writing, ..Script::default() });
        let run = fanout(&server, transport, "-c 5 -m 20 --rate 100/s -s 300");
        run.exits(0);
        run.has(&[("messages", 100), ("lost", 0), ("unstamped", 0)]);
        assert!(
            transport == "poll" || run.total("payload_bytes") == 100 * 300,
            "{transport}: {}",
            run.said()
        );
        let planted = server.tally();
        assert_eq!(planted.sum(|seen| seen.pings), run.total("pings"), "{transport}");
        if writing == Writing::Fragments(5) {
            assert_eq!(run.total("pings"), 5 * 20 * 4);
            server.until("every ping is answered", |tally| tally.sum(|seen| seen.pongs) == 400);
        }
    }
}

#[test]
fn streams_and_polls_in_chunks_are_whole_messages() {
    let _machine = beside();
    for transport in ["sse", "poll"] {
        let server = Planted::start(Script { framing: Framing::Chunks, drops: 25, ..Script::default() });
        let run = fanout(&server, transport, "-c 10 -m 60 --rate 200/s --linger 500ms");
        run.has(&[("messages", 10 * 58), ("lost", 10 * 2), ("duplicated", 0), ("reordered", 0)]);
        run.has(&[("unstamped", 0), ("dropped", 0)]);
    }
}

#[test]
fn polls_that_end_their_connection_each_time_lose_nothing() {
    let _machine = beside();
    let server = Planted::start(Script { framing: Framing::UntilClose, ..Script::default() });
    let run = fanout(&server, "poll", "-c 10 -m 60 --rate 200/s");
    run.exits(0);
    run.has(&[("messages", 600), ("lost", 0), ("duplicated", 0), ("dropped", 0), ("failed", 0)]);
    assert!(server.tally().clients().count() > 100, "a connection for each answer");
}

#[test]
fn a_server_that_waits_for_its_pongs_gets_them() {
    let _machine = beside();
    let server = Planted::start(Script { pings: true, ..Script::default() });
    let run = fanout(&server, "ws", "-c 10 -m 30 --rate 200/s");
    run.exits(0);
    run.has(&[("messages", 300), ("pings", 300), ("lost", 0)]);
    let planted = server.tally();
    assert_eq!((planted.sum(|seen| seen.pongs), planted.sum(|seen| seen.messages)), (300, 0));
}

/// The publish requests are not among them: they go over a connection of their own.
#[test]
fn bytes_of_the_report_are_the_bytes_of_the_line() {
    let _machine = beside();
    for (transport, _) in RECEIVING {
        let server = Planted::start(Script::default());
        let run = fanout(&server, transport, "-c 20 -m 50 --rate max -s 1000");
        run.exits(0);
        let planted = server.until("all have gone", |tally| tally.open() == 0);
        assert_eq!(run.total("bytes_in"), planted.sum(|seen| seen.bytes_out), "{transport}");
        assert_eq!(run.total("bytes_out"), planted.sum(|seen| seen.bytes_in), "{transport}");
    }
}

#[test]
fn a_mix_of_transports_gets_every_message_over_each() {
    let _machine = beside();
    let server = Planted::start(Script { drops: 25, ..Script::default() });
    let url = server.http("/");
    let exact = [&*url, "--publish", "http", "--publish-url", &server.publish_url()];
    let run = bench("fanout", &exact, "-c 30 --mix ws=50,sse=30,poll=20 -m 50 --rate 100/s --linger 500ms");
    run.has(&[("messages", 30 * 48), ("lost", 30 * 2), ("duplicated", 0), ("reordered", 0)]);
    let planted = server.tally();
    let of = |role| planted.clients().filter(|seen| seen.role == role && seen.delivered == 48).count();
    assert_eq!((of(Role::WebSocket), of(Role::EventStream), of(Role::LongPoll)), (15, 9, 6));
}

#[test]
fn unicast_reaches_whom_it_is_for_and_losses_are_counted_per_user() {
    let _machine = beside();
    for (transport, _) in RECEIVING {
        let server = Planted::start(Script { drops: 20, doubles: 50, ..Script::default() });
        let url = url(&server, transport);
        let publish = format!("{}/{{{{user}}}}", server.publish_url());
        let exact = [&*url, "--publish", "http", "--publish-url", &publish];
        let run = bench("unicast", &exact, "-c 25 -m 205 --rate max --linger 500ms");
        let planted = server.tally();
        assert_eq!((planted.published, planted.dropped, planted.doubled), (205, 10, 2));
        // 100 and 200 fall on both, and what is dropped is not doubled.
        run.exits(1);
        run.has(&[("messages", 205 - 10 + 2), ("lost", 10), ("duplicated", 2), ("reordered", 0)]);
        let reached = planted.clients().filter(|seen| seen.delivered > 0).count();
        assert!(reached > 20, "single users at random, and only {reached} of 25 got something");
    }
}

#[test]
fn messages_without_a_stamp_are_counted_and_nothing_is_lost_of_them() {
    let _machine = beside();
    let server = Planted::start(Script::default());
    let run = fanout(&server, "ws", "-c 5 -m 20 --rate max --unstamped");
    run.exits(0);
    run.has(&[("messages", 100), ("payload_bytes", 100 * 256), ("lost", 0)]);
    assert_eq!(run.timed("delivery"), 0);
}

#[test]
fn a_command_publishes_as_a_request_does() {
    let _machine = beside();
    let server = Planted::start(Script { drops: 5, ..Script::default() });
    let command = format!("curl -sS -f --data-binary {{{{payload}}}} {}", server.publish_url());
    let url = server.ws("/ws");
    let exact = [&*url, "--publish", "command", "--publish-command", &command];
    let run = bench("fanout", &exact, "-c 5 -m 12 --rate max --linger 500ms");
    run.exits(1);
    run.has(&[("messages", 5 * 10), ("lost", 5 * 2), ("duplicated", 0), ("reordered", 0)]);
    assert_eq!(run.report["publisher"]["accepted"], 12);
}

#[test]
fn lockstep_publishes_the_next_when_all_have_the_one_before() {
    let _machine = beside();
    let late = |_: u64, connection: u32| Duration::from_millis(if connection == 3 { 20 } else { 0 });
    let server = Planted::start(Script { delay: late, ..Script::default() });
    let run = fanout(&server, "ws", "-c 10 -m 25 --rate lockstep");
    run.exits(0);
    run.has(&[("messages", 250), ("lost", 0)]);
    let took_s = run.report["publisher"]["took_s"].as_f64().unwrap();
    // 24 times somebody was waited for.
    assert!((0.47..3.0).contains(&took_s), "{took_s} s");
}
