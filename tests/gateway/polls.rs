//! `GET /poll`: what is answered at once, what is held, and what an answer holds.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::poll::{Poller, request};
use crate::harness::{DEADLINE, Gateway};

pub fn poller(gateway: &Gateway) -> Poller {
    Poller::connect(gateway.address)
}

/// A connection with a poll that is held.
#[track_caller]
pub fn held(gateway: &Gateway, query: &str) -> Poller {
    let before = gateway.totals()["polls"].as_u64().unwrap();
    let mut client = poller(gateway);
    client.send(request(query));
    gateway.until("held", |totals| totals["polls"] == before + 1);
    client
}

fn push_many(gateway: &Gateway, to: &Value, count: u32) -> Vec<String> {
    let push = |n| gateway.push(to.clone(), json!(n))["position"].as_str().unwrap().to_owned();
    (0..count).map(push).collect()
}

/// What the messages of an answer hold.
pub fn data(answer: &Value) -> Vec<Value> {
    answer["messages"].as_array().unwrap().iter().map(|message| message["data"].clone()).collect()
}

fn closed(totals: &Value, reason: &str) -> u64 {
    totals["closed"][reason].as_u64().unwrap()
}

/// Rule 5.
#[track_caller]
pub fn assert_all_are_accounted_for(gateway: &Gateway) {
    let totals = gateway.until("all let go", |totals| totals["open"] == 0);
    let closed: u64 = totals["closed"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!((&totals["accepted"], &totals["connections"]), (&json!(closed), &json!(0)), "{totals}");
    assert_eq!((&totals["polls"], &totals["users"], &totals["topics"]), (&json!(0), &json!(0), &json!(0)));
}

#[test]
fn contract_2_without_since_a_poll_waits_for_the_next_message() {
    let gateway = Gateway::start(&[]);
    gateway.push(json!({"topic": "t"}), json!("earlier"));
    let mut client = held(&gateway, "user=ann&topics=t");
    let pushed = gateway.push_with(json!({"to": {"topic": "t"}, "data": {"n": 1}, "event": "news"}));
    assert_eq!(pushed["connections"], 1);
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("connection"), None);
    let position = pushed["position"].clone();
    assert_eq!(
        answer.json(),
        json!({"next": position, "gap": false, "messages":
            [{"position": position, "topic": "t", "event": "news", "data": {"n": 1}}]})
    );
}

#[test]
fn contract_2_with_since_a_poll_answers_at_once_with_all_that_came_after_it() {
    let gateway = Gateway::start(&[]);
    let mut client = poller(&gateway);
    let begin = client.poll("timeout=0")["next"].as_str().unwrap().to_owned();
    let targets =
        [json!({"topic": "t"}), json!({"user": "ann"}), json!({"all": true}), json!({"topic": "u"})];
    for n in 0..12 {
        gateway.push(targets[n % targets.len()].clone(), json!(n));
    }
    let last = gateway.push(json!({"topic": "v"}), json!("not for ann"))["position"].clone();
    let answer = client.poll(&format!("user=ann&topics=t,u&since={begin}"));
    assert_eq!(data(&answer), (0..12).map(Value::from).collect::<Vec<_>>());
    assert_eq!((&answer["gap"], &answer["next"]), (&json!(false), &last), "nothing else up to there");
    let mut behind = held(&gateway, &format!("user=ann&topics=t,u&since={}", last.as_str().unwrap()));
    gateway.push(json!({"user": "ann"}), json!("live"));
    assert_eq!(data(&behind.answer().ok()), ["live"]);
}

#[test]
fn contract_2_an_answer_at_the_timeout_is_an_empty_list_and_never_early() {
    let gateway = Gateway::start(&["timeouts.close=300ms"]);
    let position = gateway.push(json!({"topic": "other"}), json!(1))["position"].clone();
    let mut client = poller(&gateway);
    let begun = Instant::now();
    let answer = client.poll("topics=t&timeout=1");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(answer, json!({"next": position, "gap": false, "messages": []}));
    assert_eq!(client.poll("timeout=0")["messages"], json!([]));
    for bad in ["", "-1", "1.5", "soon"] {
        let answer = gateway.ask(request(&format!("timeout={bad}")));
        assert_eq!(answer.refusal(), (400, "bad_request".to_owned()), "{bad:?}");
    }
}

#[test]
fn rfc9112_9_3_polls_follow_each_other_on_one_connection_and_may_be_sent_ahead() {
    let gateway = Gateway::start(&[]);
    let ids = push_many(&gateway, &json!({"topic": "t"}), 3);
    let mut client = poller(&gateway);
    // Four at once, cut in the middle of the third.
    let all = [
        request("topics=t&timeout=0"),
        request(&format!("topics=t&since={}", ids[0])),
        request(&format!("topics=t&since={}", ids[1])),
        request("topics=t"),
    ]
    .concat();
    client.send(&all[..all.len() - 90]);
    assert_eq!(data(&client.answer().ok()), [] as [i32; 0]);
    assert_eq!(data(&client.answer().ok()), [1, 2]);
    client.send(&all[all.len() - 90..]);
    assert_eq!(data(&client.answer().ok()), [2]);
    gateway.until("the fourth is held", |totals| totals["polls"] == 1);
    // The fifth comes while the fourth is held.
    client.send(request("topics=u"));
    gateway.push(json!({"topic": "t"}), json!(3));
    assert_eq!(data(&client.answer().ok()), [3]);
    gateway.until("the fifth is held", |totals| totals["polls"] == 1 && totals["polls_answered"] == 4);
    gateway.push(json!({"topic": "u"}), json!(4));
    assert_eq!(data(&client.answer().ok()), [4]);
    drop(client);
    assert_all_are_accounted_for(&gateway);
    assert_eq!(gateway.totals()["accepted"], 1);
}

#[test]
fn contract_2_a_request_that_comes_octet_by_octet_behind_an_answer_is_the_same() {
    let gateway = Gateway::start(&[]);
    let mut client = poller(&gateway);
    for _ in 0..2 {
        for octet in request("topics=t&timeout=0").bytes() {
            client.send([octet]);
        }
        assert_eq!(client.answer().ok()["messages"], json!([]));
    }
}

#[test]
fn contract_2_messages_between_two_polls_are_not_lost_and_none_comes_twice() {
    let gateway = Gateway::start(&["history.messages=100000"]);
    let count = 1500;
    let mut client = poller(&gateway);
    let mut since = client.poll("timeout=0")["next"].as_str().unwrap().to_owned();
    std::thread::scope(|scope| {
        scope.spawn(|| push_many(&gateway, &json!({"topic": "t"}), count));
        let (mut expected, mut polls) = (0, 0);
        while expected < count {
            let answer = client.poll(&format!("topics=t&since={since}"));
            assert_eq!(answer["gap"], false);
            for message in data(&answer) {
                assert_eq!(message, expected);
                expected += 1;
            }
            since = answer["next"].as_str().unwrap().to_owned();
            polls += 1;
            // Every so often by a new connection, which may land on another shard.
            if polls % 10 == 0 {
                client = poller(&gateway);
            }
        }
    });
    drop(client);
    assert_all_are_accounted_for(&gateway);
}

#[test]
fn issue_4_next_never_steps_back_wherever_a_poll_lands() {
    let gateway = Gateway::start(&[]);
    let seq = |position: &Value| -> u64 { position.as_str().unwrap()[9..].parse().unwrap() };
    let mut clients: Vec<_> = (0..8).map(|_| poller(&gateway)).collect();
    for n in 0..50 {
        // Told to one client before the other shard has seen it.
        let position = gateway.push(json!({"topic": "t"}), json!(n))["position"].clone();
        for client in &mut clients {
            let query = format!("topics=t&timeout=0&since={}", position.as_str().unwrap());
            let answer = client.poll(&query);
            assert_eq!((&answer["messages"], &answer["gap"]), (&json!([]), &json!(false)));
            assert!(seq(&answer["next"]) >= seq(&position), "{answer} after {position}");
        }
    }
}

#[test]
fn contract_2_an_answer_holds_poll_bytes_and_next_points_at_the_rest() {
    let gateway = Gateway::start(&["limits.poll_bytes=4KiB"]);
    let mut client = poller(&gateway);
    let mut since = client.poll("timeout=0")["next"].as_str().unwrap().to_owned();
    let payload = |n: usize| json!([n, "x".repeat(1000)]);
    (0..10).for_each(|n| drop(gateway.push(json!({"topic": "t"}), payload(n))));
    gateway.push(json!({"topic": "t"}), json!("y".repeat(10_000)));
    gateway.push(json!({"topic": "t"}), json!("last"));
    let mut lists = Vec::new();
    loop {
        let answer = client.poll(&format!("topics=t&timeout=0&since={since}"));
        since = answer["next"].as_str().unwrap().to_owned();
        if data(&answer).is_empty() {
            break;
        }
        assert_eq!(answer["gap"], false);
        lists.push(data(&answer));
    }
    let sizes: Vec<usize> = lists.iter().map(Vec::len).collect();
    assert_eq!(sizes, [3, 3, 3, 1, 1, 1], "one is always told, however long");
    let all: Vec<Value> = lists.concat();
    assert_eq!(all[..10], (0..10).map(payload).collect::<Vec<_>>());
    assert_eq!(all[11], "last");
}

#[test]
fn contract_2_a_position_no_longer_held_of_another_epoch_or_never_given_out_is_a_gap_at_once() {
    let gateway = Gateway::start(&["history.messages=4"]);
    let ids = push_many(&gateway, &json!({"topic": "t"}), 10);
    let epoch = u32::from_str_radix(&ids[0][..8], 16).unwrap();
    let mut client = poller(&gateway);
    let next = &ids[9];
    for (since, held) in [
        (ids[2].clone(), 6..10),
        (format!("{:08x}-8", epoch ^ 1), 6..10),
        (format!("{:08x}-1000", epoch ^ 1), 6..10),
        (format!("{epoch:08x}-1000"), 0..0),
    ] {
        let answer = client.poll(&format!("topics=t&since={since}"));
        assert_eq!(answer["gap"], true, "{since}");
        assert_eq!(data(&answer), held.map(Value::from).collect::<Vec<_>>(), "{since}");
        assert_eq!(&answer["next"], next, "{since}: of this epoch, and the gap is told once");
        assert_eq!(client.poll(&format!("topics=t&timeout=0&since={next}"))["gap"], false);
    }
    assert_eq!(data(&client.poll(&format!("topics=t&since={}", ids[5]))), [6, 7, 8, 9]);
    let answer = gateway.ask(request("since=17"));
    assert_eq!(answer.refusal(), (400, "bad_request".to_owned()));
}

#[test]
fn contract_2_what_is_lost_is_a_gap_even_where_nothing_is_left_to_tell() {
    let gateway = Gateway::start(&["history.age=50ms"]);
    let ids = push_many(&gateway, &json!({"topic": "t"}), 3);
    gateway.until("history is empty", |totals| totals["tape_messages"] == 0);
    let answer = poller(&gateway).poll(&format!("topics=t&since={}", ids[0]));
    assert_eq!(answer, json!({"next": ids[2], "gap": true, "messages": []}));
}

#[test]
fn contract_3_an_expired_message_is_skipped() {
    let gateway = Gateway::start(&[]);
    let mut client = poller(&gateway);
    let since = client.poll("timeout=0")["next"].as_str().unwrap().to_owned();
    gateway.push_with(json!({"to": {"topic": "t"}, "data": "short", "ttl_ms": 1}));
    gateway.push(json!({"topic": "t"}), json!("long"));
    let query = format!("topics=t&timeout=0&since={since}");
    crate::harness::eventually("it has expired", || (data(&client.poll(&query)) == ["long"]).then_some(()));
}

#[test]
fn contract_3_a_held_poll_is_seen_bound_addressed_and_counted_like_any_connection() {
    let gateway = Gateway::start(&[]);
    let mut events = gateway.events("types=connect,disconnect");
    let mut client = held(&gateway, "user=ann&topics=t");
    let connect = events.next();
    assert_eq!((&connect["transport"], &connect["topics"]), (&json!("poll"), &json!(["t"])));
    let connection = gateway.get("/v1/users/ann")["connections"][0].clone();
    assert_eq!((&connection["transport"], &connection["id"]), (&json!("poll"), &connect["connection"]));
    gateway.control("PUT", "/v1/users/ann/topics/u", "", b"").ok();
    assert_eq!(gateway.push(json!({"topic": "u"}), json!(1))["connections"], 1);
    assert_eq!(data(&client.answer().ok()), [1]);
    assert_eq!(events.next()["reason"], "answered");
    assert_eq!(gateway.get("/v1/users/ann")["online"], false, "between two polls it is not there");
    assert_eq!(gateway.push(json!({"user": "ann"}), json!(2))["connections"], 0);

    client.send(request("user=ann"));
    let again = events.next();
    assert_eq!(gateway.push(json!({"connection": again["connection"]}), json!(3))["connections"], 1);
    assert_eq!(data(&client.answer().ok()), [3]);
    drop(client);
    assert_all_are_accounted_for(&gateway);
    let totals = gateway.totals();
    assert_eq!((closed(&totals, "answered"), &totals["polls_answered"]), (1, &json!(2)));
}

#[test]
fn contract_2_each_poll_of_a_connection_may_be_another_user_on_another_shard() {
    let gateway = Gateway::start(&[]);
    let users = [gateway.user_on(0), gateway.user_on(1)];
    gateway.until("alone", |totals| totals["open"] == 0);
    let mut clients: Vec<_> = (0..4).map(|_| poller(&gateway)).collect();
    for round in 0..4 {
        let user = &users[round % 2];
        clients.iter_mut().for_each(|client| client.send(request(&format!("user={user}"))));
        gateway.until("all are held", |totals| totals["polls"] == 4);
        assert_eq!(gateway.push(json!({"user": user}), json!(round))["connections"], 4);
        clients.iter_mut().for_each(|client| assert_eq!(data(&client.answer().ok()), [round]));
    }
    drop(clients);
    assert_all_are_accounted_for(&gateway);
    let totals = gateway.totals();
    assert!(totals["moved_out"].as_u64() >= Some(12), "{totals}");
    assert_eq!(totals["moved_out"], totals["moved_in"]);
}

#[test]
fn contract_2_a_broadcast_answers_every_poll_and_what_follows_closely_is_not_lost() {
    let gateway = Gateway::start(&[]);
    let mut clients: Vec<_> = (0..100).map(|_| poller(&gateway)).collect();
    let since = clients[0].poll("timeout=0")["next"].as_str().unwrap().to_owned();
    let query = request(&format!("topics=t&since={since}"));
    clients.iter_mut().for_each(|client| client.send(&query));
    gateway.until("all are held", |totals| totals["polls"] == 100);
    let lines: String = (0..5).map(|n| json!({"to": {"topic": "t"}, "data": n}).to_string() + "\n").collect();
    let pushed = gateway.control("POST", "/v1/push", "application/x-ndjson", lines.as_bytes()).ok();
    for client in &mut clients {
        let mut answer = client.answer().ok();
        let mut got = data(&answer);
        while got.len() < 5 {
            answer = client.poll(&format!("topics=t&since={}", answer["next"].as_str().unwrap()));
            got.extend(data(&answer));
        }
        assert_eq!(got, [0, 1, 2, 3, 4]);
        assert_eq!(answer["next"], pushed["position"]);
    }
    gateway.until("counted", |totals| totals["delivered"] == 500);
}

#[test]
fn contract_2_a_poll_and_a_live_connection_of_one_user_get_each_message_once() {
    let gateway = Gateway::start(&[]);
    let (mut live, _) = gateway.hello("user=ann&topics=t");
    let mut client = poller(&gateway);
    let mut since = client.poll("user=ann&topics=t&timeout=0")["next"].as_str().unwrap().to_owned();
    for n in 0..20 {
        client.send(request(&format!("user=ann&topics=t&since={since}")));
        let to = if n % 2 == 0 { json!({"user": "ann"}) } else { json!({"topic": "t"}) };
        gateway.push(to, json!(n));
        let answer = client.answer().ok();
        assert_eq!(data(&answer), [n]);
        since = answer["next"].as_str().unwrap().to_owned();
        assert_eq!(live.expect("message")["data"], n);
    }
    live.nothing_waits();
}

#[test]
fn issue_4_a_poll_for_1_000_messages_goes_out_in_at_most_three_batches() {
    let gateway = Gateway::start(&["shards=1"]);
    let mut client = poller(&gateway);
    let since = client.poll("timeout=0")["next"].as_str().unwrap().to_owned();
    push_many(&gateway, &json!({"topic": "t"}), 1000);
    let before = gateway.totals()["send_batches"].as_u64().unwrap();
    let answer = client.poll(&format!("topics=t&since={since}"));
    assert_eq!(data(&answer), (0..1000).map(Value::from).collect::<Vec<_>>());
    let batches = gateway.totals()["send_batches"].as_u64().unwrap() - before;
    assert!(batches <= 3, "{batches} batches");
}

#[test]
fn issue_4_replay_goes_on_far_beyond_what_one_send_or_one_answer_holds() {
    let gateway = Gateway::start(&["history.messages=20000"]);
    let mut client = poller(&gateway);
    let mut since = client.poll("timeout=0")["next"].as_str().unwrap().to_owned();
    let lines: String =
        (0..12_000).map(|n| json!({"to": {"topic": "t"}, "data": n}).to_string() + "\n").collect();
    gateway.control("POST", "/v1/push", "application/x-ndjson", lines.as_bytes()).ok();
    let (mut expected, begun) = (0, Instant::now());
    while expected < 12_000 {
        let answer = client.poll(&format!("topics=t&since={since}"));
        since = answer["next"].as_str().unwrap().to_owned();
        data(&answer).iter().for_each(|n| {
            assert_eq!(*n, expected);
            expected += 1;
        });
        assert!(begun.elapsed() < DEADLINE);
    }
}
