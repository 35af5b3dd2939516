//! Connections that the server ends, refuses or greets wrongly, and by which name the tool calls it.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use crate::bench::{bench, beside};
use crate::planted::Planted;
use crate::planted::script::{ALWAYS, Answer, End, Ending, Greeting, Opening, Script};

/// 3 closed with 4000, 2 with 1012, 4 without a word, 5 reset; each after ten messages.
fn ends() -> Vec<Ending> {
    let after = |connections, how| Ending { connections, after: 10, how };
    vec![
        after(0..3, End::Close(4000, "slow consumer")),
        after(3..5, End::Close(1012, "restart")),
        after(5..9, End::Silent),
        after(9..14, End::Reset),
    ]
}

#[test]
fn each_end_of_a_websocket_is_counted_by_its_name() {
    let _machine = beside();
    let server = Planted::start(Script { endings: ends(), ..Script::default() });
    let exact = [&*server.ws("/ws"), "--publish", "http", "--publish-url", &server.publish_url()];
    let run = bench("fanout", &exact, "-c 20 -m 30 --rate 100/s --linger 500ms");
    run.exits(1);
    run.has(&[("opened", 20), ("dropped", 14), ("failed", 0), ("messages", 14 * 10 + 6 * 30)]);
    // What was published after a connection's end did not reach it.
    run.has(&[("lost", 14 * 20), ("duplicated", 0), ("reordered", 0)]);
    for (name, count) in [("close 4000", 3), ("close 1012", 2), ("error ended", 4), ("error reset", 5)] {
        assert_eq!(run.outcome(name), count, "{name}: {}", run.said());
    }
    assert_eq!(run.report["open"], 6);
}

#[test]
fn each_end_of_an_event_stream_is_counted_by_its_name() {
    let _machine = beside();
    let server = Planted::start(Script { endings: ends(), ..Script::default() });
    let exact = [&*server.http("/sse"), "--publish", "http", "--publish-url", &server.publish_url()];
    let run = bench("fanout", &exact, "-c 20 -m 30 --rate 100/s --linger 500ms");
    run.exits(1);
    run.has(&[("dropped", 14), ("messages", 14 * 10 + 6 * 30), ("lost", 14 * 20)]);
    assert_eq!((run.outcome("error ended"), run.outcome("error reset")), (9, 5), "{}", run.said());
}

#[test]
fn a_close_without_a_code_is_1005() {
    let _machine = beside();
    let all = Ending { connections: 0..7, after: 0, how: End::Close(0, "") };
    let server = Planted::start(Script { endings: vec![all], ..Script::default() });
    let run = bench("hold", &[&server.ws("/ws")], "-c 10 --for 500ms");
    run.exits(1);
    run.has(&[("opened", 10), ("dropped", 7)]);
    assert_eq!(run.outcome("close 1005"), 7, "{}", run.said());
}

#[test]
fn every_close_is_answered() {
    let _machine = beside();
    let all = Ending { connections: 0..10, after: 0, how: End::Close(4500, "kicked") };
    let server = Planted::start(Script { endings: vec![all], ..Script::default() });
    let run = bench("hold", &[&server.ws("/ws")], "-c 10 --for 500ms");
    run.has(&[("dropped", 10)]);
    let answered = server.tally().clients().filter(|seen| seen.close_from_client.is_some()).count();
    assert_eq!(answered, 10);
}

#[test]
fn each_wrong_handshake_is_counted_by_its_name() {
    let _machine = beside();
    let opening = |connections, how| Opening { connections, attempts: ALWAYS, how };
    for (path, accepts) in [("/ws", true), ("/sse", false)] {
        let openings = vec![
            opening(0..4, Greeting::Refused(503, Some(1))),
            opening(4..7, Greeting::Refused(429, None)),
            opening(7..9, Greeting::Garbage),
            opening(9..14, Greeting::Ended),
            opening(14..20, Greeting::Reset),
            // Only a WebSocket has an accept: the others are not there.
            opening(if accepts { 20..21 } else { 90..91 }, Greeting::WrongAccept),
        ];
        let server = Planted::start(Script { openings, ..Script::default() });
        let url = if accepts { server.ws(path) } else { server.http(path) };
        let run = bench("hold", &[&url], "-c 30 --for 300ms");
        let bad = if accepts { 3 } else { 2 };
        run.exits(1);
        run.has(&[("attempted", 30), ("opened", 12 - bad), ("failed", 18 + bad), ("dropped", 0)]);
        assert_eq!(run.outcome("status 503"), 4, "{path}: {}", run.said());
        assert_eq!(run.outcome("status 429"), 3, "{path}: {}", run.said());
        assert_eq!(run.outcome("error bad_handshake"), bad, "{path}: {}", run.said());
        assert_eq!(run.outcome("error ended"), 5, "{path}: {}", run.said());
        assert_eq!(run.outcome("error reset"), 6, "{path}: {}", run.said());
        assert_eq!(server.tally().misgreeted, 18 + bad);
    }
}

#[test]
fn garbage_on_an_open_websocket_is_a_broken_protocol() {
    let _machine = beside();
    let server = Planted::start(Script { answers: vec![(5, Answer::Garbage)], ..Script::default() });
    let run = bench("echo", &[&server.ws("/echo")], "-c 1 -n 5 --timeout 2s");
    run.exits(1);
    run.has(&[("succeeded", 4), ("unsuccessful", 1)]);
    assert_eq!(run.outcome("error bad_protocol"), 1, "{}", run.said());
}

#[test]
fn nobody_who_listens_is_exit_status_3() {
    let _machine = beside();
    // Bound and not listening: nobody else is given this port.
    let taken = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    taken.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = taken.local_addr().unwrap().as_socket().unwrap();
    for (mode, url) in [("hold", "ws"), ("echo", "ws"), ("hold", "http"), ("request", "http")] {
        let words = if mode == "hold" { "-c 5 --for 200ms" } else { "-c 5 -n 10" };
        let run = bench(mode, &[&format!("{url}://{address}/sse")], words);
        run.exits(3);
        assert!(run.said().contains("refused"), "{}", run.said());
    }
}

#[test]
fn wrong_usage_is_exit_status_2_and_says_what_is_wrong() {
    let _machine = beside();
    let cases: [(&str, &[&str], &str, &str); 9] = [
        ("hold", &[], "", "URL"),
        ("hold", &["ws://127.0.0.1:1/ws"], "--ramp 0/s", "is no rate"),
        ("hold", &["ftp://127.0.0.1:1/"], "", "ftp"),
        ("hold", &["wss://127.0.0.1:1/"], "", "TLS"),
        ("hold", &["ws://127.0.0.1:1/{{nobody}}"], "", "nobody"),
        ("hold", &["ws://127.0.0.1:1/"], "--behaviour rude=5%", "slow-reader"),
        ("fanout", &["ws://127.0.0.1:1/"], "--publish http", "publish-url"),
        ("echo", &["ws://127.0.0.1:1/"], "--check status=fine", "is no check"),
        ("request", &["http://127.0.0.1:1/"], "--csv /nowhere/at/all", "/nowhere/at/all"),
    ];
    for (mode, exact, words, says) in cases {
        let run = bench(mode, exact, words);
        assert_eq!(run.status, 2, "{mode} {exact:?} {words}: {}", run.said());
        assert!(run.stderr.contains(says), "{says:?} is not said: {}", run.said());
        assert!(!run.stderr.contains("panicked"), "{}", run.said());
    }
}
