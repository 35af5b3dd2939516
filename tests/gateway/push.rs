//! Pushes over both protocols: whom they reach, what is refused, in which order they come.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use corecast::client::{Client, ClientError};
use corecast::control::command::{Answer, Command, ErrorCode, Push};
use corecast::message::{Kind, Position, Target};
use serde_json::{Value, json};

use crate::harness::Gateway;
use crate::harness::websocket::WebSocket;

fn to(target: Target, payload: impl ToString) -> Push {
    let payload = payload.to_string().into_bytes().into();
    Push { target, kind: Kind::Json, payload, event: None, ttl_ms: None, id: None }
}

fn topic(name: &str) -> Target {
    Target::Topic(name.parse().unwrap())
}

/// Two connections of ann, one of bob, one of nobody; the second of ann and bob's are subscribed to `t`.
fn audience(gateway: &Gateway) -> [(WebSocket, Value); 4] {
    ["user=ann", "user=ann&topics=t", "user=bob&topics=t,u", ""].map(|query| gateway.hello(query))
}

#[test]
fn contract_3_each_target_reaches_whom_it_names_and_the_reply_counts_them() {
    let gateway = Gateway::start(&[]);
    let mut audience = audience(&gateway);
    let connection = audience[3].1["connection"].clone();
    for (to, reached) in [
        (json!({"user": "ann"}), vec![0, 1]),
        (json!({"users": ["ann", "bob", "nobody"]}), vec![0, 1, 2]),
        (json!({"users": ["bob", "bob"]}), vec![2]),
        (json!({"topic": "t"}), vec![1, 2]),
        (json!({"connection": connection}), vec![3]),
        (json!({"all": true}), vec![0, 1, 2, 3]),
        (json!({"user": "nobody"}), vec![]),
        (json!({"topic": "nothing"}), vec![]),
        (json!({"connection": "1-999-0"}), vec![]),
        (json!({"connection": "999-0-0"}), vec![]),
    ] {
        let pushed = gateway.push(to.clone(), json!(1));
        assert_eq!(pushed["connections"], reached.len(), "{to}");
        for (number, (client, _)) in audience.iter_mut().enumerate() {
            if reached.contains(&number) {
                assert_eq!(client.expect("message")["position"], pushed["position"], "{to}");
            }
            client.nothing_waits();
        }
    }
}

#[test]
fn contract_3_the_rust_client_reaches_the_same_and_counts_them() {
    let gateway = Gateway::start(&[]);
    let mut audience = audience(&gateway);
    let connection = audience[3].1["connection"].as_str().unwrap().parse().unwrap();
    let mut client = gateway.client();
    let user = |name: &str| name.parse().unwrap();
    for (target, reached) in [
        (Target::User(user("ann")), vec![0, 1]),
        (Target::Users(vec![user("ann"), user("bob")]), vec![0, 1, 2]),
        (topic("t"), vec![1, 2]),
        (Target::Connection(connection), vec![3]),
        (Target::All, vec![0, 1, 2, 3]),
    ] {
        let pushed = client.push(to(target, 1)).unwrap();
        assert_eq!(pushed.connections, reached.len() as u64);
        for number in reached {
            assert_eq!(audience[number].0.expect("message")["position"], json!(pushed.position));
        }
    }
}

#[test]
fn contract_3_a_connection_that_has_gone_is_not_taken_for_the_one_in_its_place() {
    let gateway = Gateway::start(&["shards=1"]);
    let (client, hello) = gateway.hello("");
    client.close();
    gateway.until("gone", |totals| totals["open"] == 0);
    let (mut next, _) = gateway.hello("");
    assert_eq!(gateway.push(json!({"connection": hello["connection"]}), json!(1))["connections"], 0);
    next.nothing_waits();
}

#[test]
fn contract_3_the_path_names_the_target_and_the_content_type_the_kind() {
    let gateway = Gateway::start(&[]);
    let (mut client, _) = gateway.hello("user=a%2Fb&topics=t");
    for (path, kind, body, data) in [
        ("user/a%2Fb", "application/json", &b"{\"n\": 1}"[..], json!({"n": 1})),
        ("topic/t", "text/plain; charset=utf-8", b"{\"n\": 1}", json!("{\"n\": 1}")),
        ("all", "application/octet-stream", b"\xff", json!("/w==")),
        ("user/a%2Fb", "", b"", json!("")),
    ] {
        let answer = gateway.control("POST", &format!("/v1/push/{path}"), kind, body).ok();
        assert_eq!(answer["connections"], 1);
        assert_eq!(client.expect("message")["data"], data);
    }
}

#[test]
fn contract_3_each_refusal_has_its_status_and_code_and_nothing_is_pushed() {
    let gateway = Gateway::start(&[]);
    let mut client = gateway.raw("user=a&topics=t");
    let large = "x".repeat(65_535);
    for (body, status, code) in [
        ("nonsense".to_owned(), 400, "bad_request"),
        (r#"{"data":1}"#.to_owned(), 400, "bad_target"),
        (r#"{"to":{"user":"a","all":true},"data":1}"#.to_owned(), 400, "bad_target"),
        (r#"{"to":{"connection":"x"},"data":1}"#.to_owned(), 400, "bad_target"),
        (r#"{"to":{"user":"a b"},"data":1}"#.to_owned(), 400, "bad_user"),
        (r#"{"to":{"users":["a",""]},"data":1}"#.to_owned(), 400, "bad_user"),
        (r#"{"to":{"topic":""},"data":1}"#.to_owned(), 400, "bad_topic"),
        (r#"{"to":{"user":"a"}}"#.to_owned(), 400, "bad_payload"),
        (r#"{"to":{"user":"a"},"data":"?","encoding":"base64"}"#.to_owned(), 400, "bad_payload"),
        (r#"{"to":{"user":"a"},"data":1,"kind":"text"}"#.to_owned(), 400, "bad_payload"),
        (format!(r#"{{"to":{{"user":"a"}},"data":"{large}"}}"#), 413, "too_large"),
    ] {
        let answer = gateway.control("POST", "/v1/push", "application/json", body.as_bytes());
        assert_eq!(answer.refusal(), (status, code.to_owned()), "{}", &body[..body.len().min(80)]);
    }
    for (path, kind, body, code) in [
        ("user/a%20b", "text/plain", &b"x"[..], "bad_user"),
        ("topic/%20", "text/plain", b"x", "bad_topic"),
        ("user/a", "application/json", b"{", "bad_payload"),
        ("user/a", "text/plain", b"\xff", "bad_payload"),
    ] {
        let answer = gateway.control("POST", &format!("/v1/push/{path}"), kind, body);
        assert_eq!(answer.refusal(), (400, code.to_owned()), "{path}");
    }
    client.nothing_waits();
    assert_eq!(gateway.get("/v1/stats")["accepted"], 0);
}

#[test]
fn contract_2_a_push_of_message_bytes_passes_and_one_byte_more_is_too_large() {
    let gateway = Gateway::start(&[]);
    let mut listener = gateway.raw("topics=t");
    let mut client = gateway.client();
    let text = |bytes| Push { kind: Kind::Text, ..to(topic("t"), "x".repeat(bytes)) };
    client.push(text(65_536)).unwrap();
    assert_eq!(listener.text().len(), 65_536);
    let refused = client.push(text(65_537)).unwrap_err();
    assert!(matches!(refused, ClientError::Refused(error) if error.code == ErrorCode::TooLarge));
    listener.nothing_waits();
}

#[test]
fn contract_3_a_line_of_ndjson_is_accepted_or_refused_by_itself_and_in_order() {
    let gateway = Gateway::start(&[]);
    let (mut client, _) = gateway.hello("user=a&topics=t");
    let lines = "{\"to\":{\"user\":\"a\"},\"data\":1}\n\
        {\"to\":{\"user\":\"a b\"},\"data\":2}\n\
        not json\n\
        \n\
        {\"to\":{\"topic\":\"t\"},\"data\":3}\r\n\
        {\"to\":{\"all\":true},\"data\":4}";
    let answer = gateway.control("POST", "/v1/push", "application/x-ndjson", lines.as_bytes()).ok();
    assert_eq!((&answer["accepted"], &answer["refused"]), (&json!(3), &json!(2)), "{answer}");
    let refused: Vec<_> =
        answer["errors"].as_array().unwrap().iter().map(|e| (&e["line"], &e["code"])).collect();
    assert_eq!(refused, [(&json!(2), &json!("bad_user")), (&json!(3), &json!("bad_request"))]);
    let messages = [1, 3, 4].map(|n| {
        let message = client.expect("message");
        assert_eq!(message["data"], n);
        message
    });
    assert_eq!(messages[2]["position"], answer["position"]);
}

#[test]
fn contract_3_a_batch_of_the_rust_client_is_answered_once_with_every_refusal() {
    let gateway = Gateway::start(&[]);
    let mut listener = gateway.raw("topics=t");
    let bad = Push { payload: (&b"{"[..]).into(), ..to(topic("t"), 0) };
    let batch = vec![to(topic("t"), 1), bad, to(topic("t"), 2)];
    let Answer::Batch(answer) = gateway.client().call(&Command::PushBatch(batch)).unwrap() else { panic!() };
    assert_eq!((answer.accepted, answer.refused, answer.connections), (2, 1, 2));
    assert_eq!((answer.errors[0].line, answer.errors[0].code), (2, ErrorCode::BadPayload));
    assert_eq!((listener.text(), listener.text()), ("1".to_owned(), "2".to_owned()));
}

#[test]
fn contract_3_the_same_id_again_gives_the_first_answer_and_pushes_nothing() {
    let gateway = Gateway::start(&[]);
    let mut client = gateway.raw("user=a");
    let push = |data, id| gateway.push_with(json!({"to": {"user": "a"}, "data": data, "id": id}));
    let first = push(1, "order-1");
    assert_eq!(client.text(), "1");
    let _another = gateway.raw("user=a");
    assert_eq!(push(2, "order-1"), first);
    let Answer::Pushed(again) = gateway
        .client()
        .call(&Command::Push(Push { id: Some("order-1".to_owned()), ..to(Target::All, 3) }))
        .unwrap()
    else {
        panic!()
    };
    assert_eq!(json!(again), first, "over the other protocol, too");
    client.nothing_waits();
    assert_ne!(push(4, "order-2")["position"], first["position"]);
    assert_eq!(client.text(), "4");
}

#[test]
fn contract_3_what_is_older_than_its_ttl_is_neither_delivered_late_nor_resumed() {
    let gateway = Gateway::start(&["limits.socket_send_bytes=4096"]);
    let (_, hello) = gateway.hello("");
    let since = hello["position"].as_str().unwrap();
    // Blocked by what went before: the message waits in the gateway beyond its time.
    let stream = crate::harness::websocket::connect(gateway.address, Some(4096), None);
    let mut blocked = WebSocket::open_on(stream, "/ws?topics=t", None);
    let filler = "x".repeat(1000);
    (0..100).for_each(|_| drop(gateway.push(json!({"topic": "t"}), json!(filler))));
    assert_eq!(gateway.totals()["blocked"], 1);
    gateway.push_with(json!({"to": {"topic": "t"}, "data": "fleeting", "ttl_ms": 50}));
    gateway.push_with(json!({"to": {"topic": "t"}, "data": "lasting", "ttl_ms": 600_000}));
    // Its time is what passes here.
    std::thread::sleep(Duration::from_millis(60));
    (0..100).for_each(|_| assert_eq!(blocked.text().len(), 1002));
    assert_eq!(blocked.text(), r#""lasting""#);
    blocked.nothing_waits();
    let (mut resumed, _) = gateway.hello(&format!("topics=t&since={since}"));
    assert_eq!(resumed.expect("resumed"), json!({"type": "resumed", "replayed": 101, "gap": false}));
    (0..100).for_each(|_| drop(resumed.expect("message")));
    assert_eq!(resumed.expect("message")["data"], "lasting");
    resumed.nothing_waits();
}

#[test]
fn contract_3_who_reads_gets_a_message_with_a_ttl_at_once() {
    let gateway = Gateway::start(&[]);
    let mut client = gateway.raw("user=a");
    gateway.push_with(json!({"to": {"user": "a"}, "data": 1, "ttl_ms": 60_000}));
    assert_eq!(client.text(), "1");
}

#[test]
fn contract_1_positions_ascend_on_every_client_under_pushes_from_several_connections() {
    let gateway = Gateway::start(&[]);
    let (pushers, each) = (4, 250);
    let mut clients: Vec<_> = (0..6).map(|n| gateway.hello(&format!("user=u{n}&topics=t")).0).collect();
    let mut positions = BTreeSet::new();
    std::thread::scope(|scope| {
        let push = || {
            let mut client = gateway.client();
            let mut push = |n| client.push(to(topic("t"), n)).unwrap().position.seq;
            (0..each).map(&mut push).collect::<Vec<_>>()
        };
        let pushing: Vec<_> = (0..pushers).map(|_| scope.spawn(push)).collect();
        for pusher in pushing {
            let seqs = pusher.join().unwrap();
            assert!(seqs.is_sorted_by(|a, b| a < b), "answers ascend");
            positions.extend(seqs);
        }
    });
    assert_eq!(positions.iter().copied().collect::<Vec<_>>(), (1..=pushers * each).collect::<Vec<_>>());
    for client in &mut clients {
        for seq in 1..=pushers * each {
            let position: Position = client.expect("message")["position"].as_str().unwrap().parse().unwrap();
            assert_eq!(position.seq, seq);
        }
    }
}

/// Pushes many without waiting for answers, until some are refused as busy; gives the accepted numbers.
fn push_until_busy(client: &mut Client, target: &Target) -> BTreeSet<u64> {
    let (mut accepted, mut busy) = (BTreeSet::new(), 0);
    for thousand in 0..200 {
        let numbers = thousand * 1000..(thousand + 1) * 1000;
        let send = |n| (client.send(&Command::Push(to(target.clone(), n))).unwrap(), n);
        let sent: HashMap<u64, u64> = numbers.map(send).collect();
        // A refusal does not wait for the shards: it overtakes answers.
        for _ in 0..sent.len() {
            match client.receive().unwrap() {
                (correlation, Ok(Answer::Pushed(_))) => assert!(accepted.insert(sent[&correlation])),
                (_, Err(error)) if error.code == ErrorCode::Busy => busy += 1,
                other => panic!("{other:?}"),
            }
        }
        if busy > 0 {
            return accepted;
        }
    }
    panic!("the mailbox never was full");
}

#[test]
fn contract_3_a_full_mailbox_is_busy_and_then_nothing_of_that_push_went_anywhere() {
    let gateway = Gateway::start(&["control.mailbox_messages=1", "limits.send_backlog_bytes=64MiB"]);
    let users = [gateway.user_on(0), gateway.user_on(1)];
    let mut listeners = users.map(|user| gateway.raw(&format!("user={user}&topics=t")));
    let accepted = push_until_busy(&mut gateway.client(), &topic("t"));
    let stats = gateway.get("/v1/stats");
    assert_eq!(stats["accepted"], accepted.len());
    assert_eq!(stats["position"].as_str().unwrap().split_once('-').unwrap().1, accepted.len().to_string());
    assert!(stats["busy"].as_u64() > Some(0) && stats["busy"] == stats["refused"]);
    for listener in &mut listeners {
        accepted.iter().for_each(|number| assert_eq!(listener.text(), number.to_string()));
        listener.nothing_waits();
    }
}

#[test]
fn contract_3_busy_over_http_is_503_and_passes() {
    let gateway = Gateway::start(&["control.mailbox_messages=1"]);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let push = || gateway.control("POST", "/v1/push/all", "application/json", b"1");
    let refused = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = gateway.client();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                push_until_busy(&mut client, &Target::All);
            }
        });
        let refused =
            crate::harness::eventually("busy", || Some(push()).filter(|answer| answer.status != 200));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        refused
    });
    assert_eq!(refused.refusal(), (503, "busy".to_owned()));
    assert_eq!(push().status, 200);
}

#[test]
fn contract_3_a_batch_waits_for_room_and_is_accepted_whole() {
    let gateway = Gateway::start(&["control.mailbox_messages=1"]);
    let mut listener = gateway.raw("topics=t");
    let lines: String = (0..2000).map(|n| format!("{{\"to\":{{\"topic\":\"t\"}},\"data\":{n}}}\n")).collect();
    let answer = gateway.control("POST", "/v1/push", "application/x-ndjson", lines.as_bytes()).ok();
    assert_eq!((&answer["accepted"], &answer["refused"]), (&json!(2000), &json!(0)));
    (0..2000).for_each(|n| assert_eq!(listener.text(), n.to_string()));
}
