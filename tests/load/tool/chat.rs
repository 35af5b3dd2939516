//! `chat`: clients write to clients through a server that passes on `{"to":…,"payload":…}`.

use crate::bench::{Run, bench, beside};
use crate::planted::Planted;
use crate::planted::script::Script;

/// 20 connections, 5 of them send 12 messages each, 50 a second.
#[track_caller]
fn chat(server: &Planted, shape: &str, to: &str) -> Run {
    let url = format!("{}&group=g{{{{group}}}}", server.ws("/chat"));
    let message = r#"{"to":"{{to}}","payload":"{{payload}}"}"#;
    let exact = [&*url, "--message", message, "--shape", shape, "--to", to];
    bench("chat", &exact, "-c 20 --senders 5 --groups 4 -m 12 --rate 50/s --linger 500ms")
}

/// With each shape: whom a message is for, and how many receive the 60 messages in all. A sender does not count
/// on its own: of a group of all 19 others receive, and of four groups the senders are in the first.
const SHAPES: [(&str, &str, u64); 3] =
    [("pairs", "u{{number}}", 60), ("group", "all", 60 * 19), ("groups", "g{{group}}", 15 * 4 + 45 * 5)];

#[test]
fn everybody_gets_what_was_written_to_them() {
    let _machine = beside();
    for (shape, to, deliveries) in SHAPES {
        let server = Planted::start(Script::default());
        let run = chat(&server, shape, to);
        run.exits(0);
        run.has(&[("sent", 60), ("messages", deliveries)]);
        run.has(&[("lost", 0), ("duplicated", 0), ("reordered", 0), ("unstamped", 0)]);
        assert_eq!(run.timed("delivery"), deliveries, "{shape}: {}", run.said());
        let planted = server.tally();
        assert_eq!(planted.published, 60);
        let senders = planted.clients().filter(|seen| seen.messages == 12).count();
        assert_eq!(senders, 5, "{shape}");
    }
}

#[test]
fn what_the_server_loses_and_doubles_between_clients_is_found() {
    let _machine = beside();
    for (shape, to, deliveries) in SHAPES {
        let server = Planted::start(Script { drops: 15, doubles: 7, ..Script::default() });
        let run = chat(&server, shape, to);
        let planted = server.tally();
        assert_eq!((planted.published, planted.dropped, planted.doubled), (60, 4, 8));
        run.exits(1);
        run.has(&[("sent", 60), ("messages", deliveries - planted.missed + planted.extra)]);
        run.has(&[("lost", planted.missed), ("duplicated", planted.extra), ("reordered", 0)]);
    }
}

#[test]
fn pairs_are_pairs_and_groups_take_turns() {
    let _machine = beside();
    let server = Planted::start(Script::default());
    chat(&server, "pairs", "u{{number}}").exits(0);
    let mut delivered: Vec<u64> = server.tally().clients().map(|seen| seen.delivered).collect();
    delivered.sort_unstable();
    // Five receivers have twelve each, the others nothing.
    assert_eq!(delivered, [[0; 15].as_slice(), &[12; 5]].concat());
    let server = Planted::start(Script::default());
    chat(&server, "groups", "g{{group}}").exits(0);
    // Twelve messages of each of five senders, over four groups in turn: each group has a quarter of them.
    assert!(server.tally().clients().all(|seen| seen.delivered == 15), "{:?}", server.tally());
}
