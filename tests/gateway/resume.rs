//! Resume by `since`: what was missed comes once, in order, and a gap is said to be one.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use corecast::control::command::Push;
use corecast::message::{Kind, Target};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Gateway, websocket::WebSocket};

/// Pushes `0..count` to `to` and gives their positions.
fn push_many(gateway: &Gateway, to: &Value, count: u32) -> Vec<String> {
    let push = |n| gateway.push(to.clone(), json!(n))["position"].as_str().unwrap().to_owned();
    (0..count).map(push).collect()
}

/// Resumes at `since`; gives the client, `replayed` and `gap`.
#[track_caller]
fn resume(gateway: &Gateway, query: &str, since: &str) -> (WebSocket, u64, bool) {
    let (mut client, _) = gateway.hello(&format!("{query}&since={since}"));
    let resumed = client.expect("resumed");
    (client, resumed["replayed"].as_u64().unwrap(), resumed["gap"].as_bool().unwrap())
}

#[track_caller]
fn assert_data(client: &mut WebSocket, expected: impl IntoIterator<Item = u32>) {
    for n in expected {
        assert_eq!(client.expect("message")["data"], n);
    }
    client.nothing_waits();
}

/// The same epoch with another number.
fn with_seq(position: &str, seq: u64) -> String {
    format!("{}-{seq}", position.split_once('-').unwrap().0)
}

#[test]
fn contract_2_resumed_comes_after_hello_and_before_what_was_missed() {
    let gateway = Gateway::start(&[]);
    let positions = push_many(&gateway, &json!({"topic": "t"}), 5);
    let (mut client, replayed, gap) = resume(&gateway, "topics=t", &positions[1]);
    assert_eq!((replayed, gap), (3, false));
    assert_data(&mut client, 2..5);
    gateway.push(json!({"topic": "t"}), json!(5));
    assert_data(&mut client, 5..6);
}

#[test]
fn contract_2_raw_a_resume_replays_without_a_word_about_it() {
    let gateway = Gateway::start(&[]);
    let positions = push_many(&gateway, &json!({"topic": "t"}), 3);
    let mut client = gateway.raw(&format!("topics=t&since={}", positions[0]));
    assert_eq!((client.text(), client.text()), ("1".to_owned(), "2".to_owned()));
    client.nothing_waits();
}

#[test]
fn contract_2_who_missed_nothing_is_told_so() {
    let gateway = Gateway::start(&[]);
    let (_, hello) = gateway.hello("");
    let (_, replayed, gap) = resume(&gateway, "topics=t", hello["position"].as_str().unwrap());
    assert_eq!((replayed, gap), (0, false));
    let positions = push_many(&gateway, &json!({"topic": "t"}), 3);
    let (mut client, replayed, gap) = resume(&gateway, "topics=t", &positions[2]);
    assert_eq!((replayed, gap), (0, false));
    client.nothing_waits();
}

#[test]
fn contract_2_subscribe_with_since_replays_that_topic_and_says_so_first() {
    let gateway = Gateway::start(&[]);
    let (mut client, _) = gateway.hello("topics=other");
    let positions = push_many(&gateway, &json!({"topic": "t"}), 4);
    push_many(&gateway, &json!({"topic": "unrelated"}), 2);
    client.send_json(&json!({"type": "subscribe", "topics": ["t"], "since": positions[0], "id": 9}));
    assert_eq!(client.expect("subscribed")["id"], 9);
    assert_eq!(client.expect("resumed"), json!({"type": "resumed", "replayed": 3, "gap": false}));
    assert_data(&mut client, 1..4);
}

#[test]
fn contract_2_messages_cut_from_history_by_count_are_a_gap() {
    let gateway = Gateway::start(&["history.messages=4"]);
    let positions = push_many(&gateway, &json!({"topic": "t"}), 10);
    let (mut client, replayed, gap) = resume(&gateway, "topics=t", &positions[4]);
    assert_eq!((replayed, gap), (4, true));
    assert_data(&mut client, 6..10);
    let (mut client, replayed, gap) = resume(&gateway, "topics=t", &positions[5]);
    assert_eq!((replayed, gap), (4, false), "just what is held");
    assert_data(&mut client, 6..10);
}

#[test]
fn contract_2_messages_cut_from_history_by_bytes_are_a_gap() {
    let gateway = Gateway::start(&["history.bytes=4KiB"]);
    let to = json!({"user": "ann"});
    let positions: Vec<Value> =
        (0..10).map(|n| gateway.push(to.clone(), json!([n, "x".repeat(1000)]))["position"].clone()).collect();
    let (mut client, replayed, gap) = resume(&gateway, "user=ann", positions[0].as_str().unwrap());
    assert!(gap && (1..=4).contains(&replayed), "{replayed} of 1,005 bytes in 4 KiB");
    for n in 10 - replayed..10 {
        assert_eq!(client.expect("message")["data"][0], n);
    }
    let (_, replayed, gap) = resume(&gateway, "user=ann", positions[8].as_str().unwrap());
    assert_eq!((replayed, gap), (1, false));
}

#[test]
fn contract_2_messages_cut_from_history_by_age_are_a_gap() {
    let gateway = Gateway::start(&["history.age=50ms"]);
    for (to, query) in [(json!({"topic": "t"}), "topics=t"), (json!({"user": "ann"}), "user=ann")] {
        let positions = push_many(&gateway, &to, 3);
        gateway.until("history is empty", |totals| totals["tape_messages"] == 0);
        let (mut client, replayed, gap) = resume(&gateway, query, &positions[1]);
        assert_eq!((replayed, gap), (0, true), "{query}");
        client.nothing_waits();
        let (_, replayed, gap) = resume(&gateway, query, &positions[2]);
        assert_eq!((replayed, gap), (0, false), "{query}: the newest was seen");
    }
}

#[test]
fn contract_2_a_position_of_another_epoch_is_a_gap_and_all_that_is_held_comes() {
    let gateway = Gateway::start(&[]);
    let positions = push_many(&gateway, &json!({"topic": "t"}), 3);
    let epoch = u32::from_str_radix(&positions[0][..8], 16).unwrap();
    let other = format!("{:08x}-2", epoch ^ 1);
    let (mut client, replayed, gap) = resume(&gateway, "topics=t", &other);
    assert_eq!((replayed, gap), (3, true));
    assert_data(&mut client, 0..3);
}

#[test]
fn contract_2_a_position_that_was_never_given_out_is_a_gap() {
    let gateway = Gateway::start(&[]);
    let positions = push_many(&gateway, &json!({"topic": "t"}), 3);
    for (query, user) in [("topics=t".to_owned(), None), ("user=ann".to_owned(), Some("ann"))] {
        let (mut client, replayed, gap) = resume(&gateway, &query, &with_seq(&positions[0], 1000));
        assert_eq!((replayed, gap), (0, true));
        let to = user.map_or(json!({"topic": "t"}), |user| json!({"user": user}));
        gateway.push(to, json!("live"));
        assert_eq!(client.expect("message")["data"], "live");
    }
}

#[test]
fn contract_2_a_resume_finds_its_user_on_every_shard_wherever_it_lands() {
    let gateway = Gateway::start(&[]);
    for user in [gateway.user_on(0), gateway.user_on(1)] {
        let positions = push_many(&gateway, &json!({"user": user}), 6);
        // Several connections: the kernel spreads them over the shards' listeners.
        for _ in 0..12 {
            let (mut client, replayed, gap) = resume(&gateway, &format!("user={user}"), &positions[2]);
            assert_eq!((replayed, gap), (3, false));
            assert_data(&mut client, 3..6);
        }
    }
    let totals = gateway.totals();
    assert!(totals["moved_out"].as_u64() > Some(0), "{totals}");
    assert_eq!(totals["moved_out"], totals["moved_in"]);
}

#[test]
fn contract_2_pushes_to_user_topics_and_all_are_resumed_merged_in_order() {
    let gateway = Gateway::start(&[]);
    let (_, hello) = gateway.hello("");
    let targets = [
        json!({"topic": "t"}),
        json!({"user": "ann"}),
        json!({"all": true}),
        json!({"topic": "u"}),
        json!({"users": ["bob", "ann"]}),
    ];
    for n in 0..30 {
        gateway.push(targets[n % targets.len()].clone(), json!(n));
        gateway.push(json!({"user": "somebody-else"}), json!("not for ann"));
    }
    let since = hello["position"].as_str().unwrap();
    let (mut client, replayed, gap) = resume(&gateway, "user=ann&topics=t,u", since);
    assert_eq!((replayed, gap), (30, false));
    assert_data(&mut client, 0..30);
}

/// Runs `read` while pushes of 0, 1, 2, ... to topic `t` go on; ends with `count` of them.
fn while_pushing(gateway: &Gateway, count: u32, read: impl FnOnce()) {
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = gateway.client();
            for n in 0..count {
                let push = Push {
                    target: Target::Topic("t".parse().unwrap()),
                    kind: Kind::Json,
                    payload: n.to_string().into_bytes().into(),
                    event: None,
                    ttl_ms: None,
                    id: None,
                };
                if client.push(push).is_err() {
                    return failed.store(true, Ordering::Relaxed);
                }
            }
        });
        if let Err(panic) = catch_unwind(AssertUnwindSafe(read)) {
            // The pusher may wait for an answer: it has no deadline.
            gateway.signal(Signal::KILL);
            resume_unwind(panic);
        }
    });
    assert!(!failed.load(Ordering::Relaxed), "a push was refused");
}

#[test]
fn contract_2_a_client_that_comes_back_again_and_again_loses_nothing_and_gets_nothing_twice() {
    let gateway = Gateway::start(&["history.messages=100000"]);
    let (first, hello) = gateway.hello("topics=t");
    let count = 2000;
    while_pushing(&gateway, count, || {
        let mut position = hello["position"].as_str().unwrap().to_owned();
        drop(first);
        let mut expected = 0;
        while expected < count {
            let (mut client, _, gap) = resume(&gateway, "topics=t", &position);
            assert!(!gap);
            // Breaks off in the midst of it, without a close.
            for _ in 0..37.min(count - expected) {
                let message = client.expect("message");
                assert_eq!(message["data"], expected);
                expected += 1;
                position = message["position"].as_str().unwrap().to_owned();
            }
        }
    });
}

#[test]
fn contract_2_subscribing_with_since_while_pushes_go_on_loses_nothing_and_repeats_nothing() {
    let gateway = Gateway::start(&["history.messages=100000", "limits.uplinks_per_second=0"]);
    let (mut client, hello) = gateway.hello("");
    let count = 2000;
    while_pushing(&gateway, count, || {
        let mut position = hello["position"].clone();
        let mut expected = 0;
        while expected < count {
            client.send_json(&json!({"type": "subscribe", "topics": ["t"], "since": position}));
            client.expect("subscribed");
            assert_eq!(client.expect("resumed")["gap"], false);
            let next_stop = count.min(expected + 53);
            let mut subscribed = true;
            loop {
                let frame = client.json();
                if frame["type"] == "unsubscribed" {
                    break;
                }
                assert_eq!((&frame["type"], &frame["data"]), (&json!("message"), &json!(expected)));
                expected += 1;
                position = frame["position"].clone();
                if expected == next_stop && std::mem::take(&mut subscribed) {
                    client.send_json(&json!({"type": "unsubscribe", "topics": ["t"]}));
                }
            }
        }
    });
}
