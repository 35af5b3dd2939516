//! `GET /sse`: what a browser's EventSource gets, what it resumes from, and how a stream ends.

use std::io::Write;
use std::net::Shutdown;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use corecast::client::ClientError;
use corecast::control::command::{ErrorCode, Push};
use corecast::message::{Kind, Target};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::event_stream::EventStream;
use crate::harness::websocket::connect;
use crate::harness::{DEADLINE, Gateway, stderr};

/// Pushes `0..count` to `to` and gives their positions.
fn push_many(gateway: &Gateway, to: &Value, count: u32) -> Vec<String> {
    let push = |n| gateway.push(to.clone(), json!(n))["position"].as_str().unwrap().to_owned();
    (0..count).map(push).collect()
}

/// A stream that comes back with this `Last-Event-ID`.
#[track_caller]
fn resume(gateway: &Gateway, query: &str, id: &str) -> EventStream {
    EventStream::open(gateway.address, &format!("/sse?{query}"), &format!("Last-Event-ID: {id}\r\n"))
}

#[track_caller]
fn assert_data(client: &mut EventStream, expected: impl IntoIterator<Item = u32>) {
    expected.into_iter().for_each(|n| assert_eq!(client.expect("message"), n));
}

/// Nothing was sent to this client but what it has read: the next event is one pushed now.
#[track_caller]
fn nothing_waits(gateway: &Gateway, client: &mut EventStream) {
    gateway.push(json!({"all": true}), json!("nothing?"));
    assert_eq!(client.expect("message"), "nothing?");
}

fn closed(totals: &Value, reason: &str) -> u64 {
    totals["closed"][reason].as_u64().unwrap()
}

#[test]
fn contract_2_a_stream_begins_with_retry_and_is_neither_cached_nor_buffered() {
    let gateway = Gateway::start(&[]);
    let client = gateway.stream("topics=t");
    assert_eq!(client.header("content-type"), Some("text/event-stream"));
    assert_eq!(client.header("cache-control"), Some("no-cache"));
    assert_eq!(client.header("x-accel-buffering"), Some("no"));
    assert!(client.body.starts_with(b"retry: "), "{:?}", String::from_utf8_lossy(&client.body));
    assert!((1000..2000).contains(&client.parser.retry.unwrap()));
}

#[test]
fn contract_2_streams_that_break_together_come_back_spread() {
    let gateway = Gateway::start(&["shards=1"]);
    let clients: Vec<_> = (0..20).map(|_| gateway.stream("")).collect();
    let retries: std::collections::HashSet<_> = clients.iter().map(|client| client.parser.retry).collect();
    assert!(retries.len() > 15, "{retries:?}");
}

#[test]
fn contract_2_each_push_is_an_event_with_its_position_its_name_and_its_payload() {
    let gateway = Gateway::start(&[]);
    let mut client = gateway.stream("user=ann&topics=t");
    for (to, event) in [(json!({"user": "ann"}), None), (json!({"topic": "t"}), Some("news"))] {
        let pushed = gateway.push_with(json!({"to": to, "data": {"a": 1}, "event": event}));
        assert_eq!(pushed["connections"], 1);
        let got = client.next();
        assert_eq!(got.name, event.unwrap_or("message"));
        assert_eq!(
            (got.data.as_str(), json!(got.id)),
            (r#"{"a": 1}"#.replace(' ', "").as_str(), pushed["position"].clone())
        );
    }
    gateway.push_with(json!({"to": {"all": true}, "data": "one\n two\n", "kind": "text"}));
    assert_eq!(client.next().data, "one\n two\n");
    gateway.push_with(json!({"to": {"all": true}, "data": "AA0K/w==", "encoding": "base64"}));
    let binary = client.next();
    assert_eq!(
        (binary.name.as_str(), STANDARD.decode(binary.data).unwrap()),
        ("corecast.binary", vec![0, 13, 10, 255])
    );
}

#[test]
fn contract_2_an_http_1_0_client_and_one_that_sends_its_head_octet_by_octet_are_served() {
    let gateway = Gateway::start(&[]);
    let mut stream = connect(gateway.address, None, None);
    stream.set_nodelay(true).unwrap();
    for octet in b"GET /sse?topics=t HTTP/1.0\r\n\r\n" {
        stream.write_all(&[*octet]).unwrap();
    }
    let mut client = EventStream::opened(stream).unwrap();
    gateway.push(json!({"topic": "t"}), json!(1));
    assert_data(&mut client, [1]);
}

#[test]
fn contract_3_a_stream_is_seen_bound_addressed_and_counted_like_any_connection() {
    let gateway = Gateway::start(&[]);
    let mut events = gateway.events("types=connect,disconnect");
    let mut client = gateway.stream("user=ann&topics=t");
    let connect = events.next();
    assert_eq!((&connect["transport"], &connect["topics"]), (&json!("sse"), &json!(["t"])));
    let presence = gateway.get("/v1/users/ann");
    let connection = presence["connections"][0].clone();
    assert_eq!((&connection["transport"], &connection["id"]), (&json!("sse"), &connect["connection"]));
    let totals = gateway.totals();
    let counted = ["connections", "event_streams", "websockets"].map(|name| totals[name].as_u64());
    assert_eq!(counted, [Some(1), Some(1), Some(0)]);

    assert_eq!(gateway.push(json!({"connection": connection["id"]}), json!(1))["connections"], 1);
    gateway.control("PUT", "/v1/users/ann/topics/u", "", b"").ok();
    assert_eq!(gateway.push(json!({"topic": "u"}), json!(2))["connections"], 1);
    gateway.control("DELETE", "/v1/users/ann/topics/t", "", b"").ok();
    assert_eq!(gateway.push(json!({"topic": "t"}), json!(3))["connections"], 0);
    assert_data(&mut client, [1, 2]);
    drop(client);
    assert_eq!(events.next()["reason"], "peer_gone");
    let totals = gateway.until("let go", |totals| totals["open"] == 0);
    assert_eq!((&totals["event_streams"], closed(&totals, "peer_gone")), (&json!(0), 1));
}

#[test]
fn contract_2_a_stream_lands_on_any_shard_and_is_served_by_its_users() {
    let gateway = Gateway::start(&[]);
    for user in [gateway.user_on(0), gateway.user_on(1)] {
        let mut clients: Vec<_> = (0..8).map(|_| gateway.stream(&format!("user={user}"))).collect();
        assert_eq!(gateway.push(json!({"user": user}), json!(1))["connections"], 8);
        clients.iter_mut().for_each(|client| assert_data(client, [1]));
    }
    assert!(gateway.totals()["moved_in"].as_u64() > Some(0));
}

#[test]
fn contract_2_last_event_id_resumes_several_topics_and_the_users_own_in_order() {
    let gateway = Gateway::start(&[]);
    let first = gateway.stream("user=ann&topics=t,u");
    let targets =
        [json!({"topic": "t"}), json!({"user": "ann"}), json!({"all": true}), json!({"topic": "u"})];
    let mut ids = Vec::new();
    for n in 0..20 {
        let pushed = gateway.push(targets[n % targets.len()].clone(), json!(n));
        ids.push(pushed["position"].as_str().unwrap().to_owned());
        gateway.push(json!({"user": "somebody-else"}), json!("not for ann"));
    }
    drop(first);
    let mut client = resume(&gateway, "user=ann&topics=t,u", &ids[6]);
    for (n, id) in ids.iter().enumerate().skip(7) {
        let event = client.next();
        assert_eq!((event.data, &event.id), (n.to_string(), id));
    }
    nothing_waits(&gateway, &mut client);
    let mut by_query = gateway.stream(&format!("user=ann&topics=t,u&last_event_id={}", ids[18]));
    assert_data(&mut by_query, [19]);
    let mut by_since = gateway.stream(&format!("user=ann&topics=t,u&since={}", ids[18]));
    assert_data(&mut by_since, [19]);
}

#[test]
fn issue_4_a_stream_that_breaks_before_its_first_event_misses_nothing_when_it_comes_back() {
    let gateway = Gateway::start(&[]);
    let first = gateway.stream("topics=t");
    let id = first.parser.last_event_id.clone();
    assert!(!id.is_empty(), "where to resume is said at once");
    drop(first);
    push_many(&gateway, &json!({"topic": "t"}), 3);
    let mut client = resume(&gateway, "topics=t", &id);
    assert_data(&mut client, 0..3);
    nothing_waits(&gateway, &mut client);
}

#[test]
fn contract_2_messages_no_longer_held_are_a_gap_before_those_that_are() {
    let gateway = Gateway::start(&["history.messages=4"]);
    let ids = push_many(&gateway, &json!({"topic": "t"}), 10);
    let mut client = resume(&gateway, "topics=t", &ids[2]);
    let gap = client.next();
    assert_eq!((gap.name.as_str(), gap.data.as_str()), ("corecast.gap", r#"{"gap":true}"#));
    assert_eq!(gap.id, "", "breaking off here must not skip what is still held");
    assert_data(&mut client, 6..10);
    nothing_waits(&gateway, &mut client);
    let mut client = resume(&gateway, "topics=t", &ids[5]);
    assert_data(&mut client, 6..10);
}

#[test]
fn contract_2_an_unknown_position_is_a_gap_and_never_a_refusal() {
    let gateway = Gateway::start(&[]);
    let ids = push_many(&gateway, &json!({"topic": "t"}), 3);
    let epoch = u32::from_str_radix(&ids[0][..8], 16).unwrap();
    let other_epoch = format!("{:08x}-2", epoch ^ 1);
    for id in [other_epoch.as_str(), "17", "a b", "\u{e9}"] {
        let mut client = resume(&gateway, "topics=t", id);
        client.expect("corecast.gap");
        assert_data(&mut client, 0..3);
        nothing_waits(&gateway, &mut client);
    }
    let mut ahead = resume(&gateway, "topics=t", &format!("{epoch:08x}-1000"));
    ahead.expect("corecast.gap");
    nothing_waits(&gateway, &mut ahead);
    let refused = gateway.ask("GET /sse?since=17 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(refused.refusal(), (400, "bad_request".to_owned()));
}

#[test]
fn issue_4_a_gap_is_not_told_for_ever() {
    let gateway = Gateway::start(&["history.age=50ms"]);
    let ids = push_many(&gateway, &json!({"topic": "t"}), 3);
    gateway.until("history is empty", |totals| totals["tape_messages"] == 0);
    let mut client = resume(&gateway, "topics=t", &ids[0]);
    client.expect("corecast.gap");
    let id = client.parser.last_event_id.clone();
    assert_eq!(id, ids[2], "nothing follows the gap: it says where it ends");
    let mut client = resume(&gateway, "topics=t", &id);
    nothing_waits(&gateway, &mut client);
}

#[test]
fn contract_2_a_stream_that_comes_back_again_and_again_loses_nothing_and_gets_nothing_twice() {
    let gateway = Gateway::start(&["history.messages=100000"]);
    let mut id = gateway.stream("topics=t").parser.last_event_id;
    let count = 1500;
    std::thread::scope(|scope| {
        scope.spawn(|| push_many(&gateway, &json!({"topic": "t"}), count));
        let mut expected = 0;
        while expected < count {
            let mut client = resume(&gateway, "topics=t", &id);
            for _ in 0..37.min(count - expected) {
                let event = client.next();
                assert_eq!((event.name.as_str(), event.data), ("message", expected.to_string()));
                (expected, id) = (expected + 1, event.id);
            }
        }
    });
}

#[test]
fn issue_4_a_resume_of_1_000_messages_goes_out_in_at_most_three_batches() {
    let gateway = Gateway::start(&["shards=1"]);
    let (_, hello) = gateway.hello("");
    let since = hello["position"].as_str().unwrap().to_owned();
    gateway.until("alone", |totals| totals["open"] == 0);
    let ids = push_many(&gateway, &json!({"topic": "t"}), 1000);
    let before = gateway.totals()["send_batches"].as_u64().unwrap();
    let mut client = resume(&gateway, "topics=t", &since);
    assert_data(&mut client, 0..1000);
    assert_eq!(client.parser.last_event_id, ids[999]);
    let batches = gateway.totals()["send_batches"].as_u64().unwrap() - before;
    assert!(batches <= 3, "{batches} batches");
}

#[test]
fn contract_2_comments_keep_a_stream_alive_and_nobody_has_to_answer_them() {
    let gateway = Gateway::start(&["timeouts.heartbeat_min=1s", "timeouts.pong=100ms"]);
    let mut client = gateway.stream("heartbeat=1");
    while client.parser.comments < 3 {
        assert!(client.read(), "closed after {} comments", client.parser.comments);
    }
    assert!(client.parser.events.is_empty());
    let totals = gateway.totals();
    assert_eq!((closed(&totals, "heartbeat_missed"), &totals["pings"]), (0, &json!(0)));
}

#[test]
fn issue_4_a_peer_that_has_vanished_is_found() {
    let gateway = Gateway::start(&[
        "timeouts.heartbeat_min=1s",
        "timeouts.heartbeat=1s",
        "timeouts.pong=100ms",
        "timeouts.send=500ms",
        "timeouts.close=500ms",
    ]);
    let client = gateway.stream("");
    // From here on its kernel sees nothing that the gateway sends, and so confirms nothing.
    let drop_all = [socket2::SockFilter::new(0x06, 0, 0, 0)];
    socket2::SockRef::from(&client.stream).attach_filter(&drop_all).unwrap();
    let totals = gateway.until("given up", |totals| totals["open"] == 0);
    assert_eq!(closed(&totals, "peer_gone"), 1);
}

#[test]
fn issue_4_what_a_client_sends_behind_its_request_is_thrown_away_slowly_and_its_end_is_seen() {
    // The clock looks at each connection every half second.
    let gateway = Gateway::start(&["shards=1", "timeouts.close=4s"]);
    let mut client = gateway.stream("topics=t");
    client.stream.set_nonblocking(true).unwrap();
    let (noise, mut sent) = (vec![b'x'; 64 * 1024], 0);
    while sent < 1 << 20 {
        let Ok(count) = client.stream.write(&noise) else { break };
        sent += count;
    }
    client.stream.set_nonblocking(false).unwrap();
    let received = gateway.totals()["received_bytes"].as_u64().unwrap() as usize;
    assert!(sent > 512 * 1024 && received < sent / 2, "{sent} sent, {received} read");
    gateway.push(json!({"topic": "t"}), json!(1));
    assert_data(&mut client, [1]);
    client.stream.shutdown(Shutdown::Both).unwrap();
    let totals = gateway.until("let go", |totals| totals["open"] == 0);
    assert_eq!(closed(&totals, "peer_gone"), 1);
}

#[test]
fn contract_2_a_client_that_ends_its_side_has_gone() {
    let gateway = Gateway::start(&[]);
    let mut client = gateway.stream("");
    client.stream.shutdown(Shutdown::Write).unwrap();
    client.ended();
    gateway.until("let go", |totals| totals["open"] == 0);
}

const SMALL_BUFFERS: &str = "limits.socket_send_bytes=4096";

/// A stream whose kernel takes little before it is read.
fn sluggish(gateway: &Gateway) -> EventStream {
    EventStream::open_on(connect(gateway.address, Some(4096), None), "/sse?topics=t", "")
}

#[test]
fn contract_2_an_event_that_is_sent_in_pieces_arrives_whole() {
    let gateway = Gateway::start(&[SMALL_BUFFERS]);
    let mut client = sluggish(&gateway);
    let payloads: Vec<String> = (0..8).map(|n| format!("{n}\n").repeat(20_000)).collect();
    for payload in &payloads {
        gateway.control("POST", "/v1/push/topic/t", "text/plain", payload.as_bytes()).ok();
    }
    gateway.until("blocked", |totals| totals["blocked"] == 1);
    payloads.iter().for_each(|payload| assert_eq!(&client.next().data, payload));
    gateway.until("counted", |totals| totals["delivered"] == 8);
}

#[test]
fn contract_2_a_stream_that_is_not_read_is_closed_as_a_slow_consumer() {
    let gateway =
        Gateway::start(&[SMALL_BUFFERS, "limits.send_backlog_bytes=128KiB", "timeouts.close=300ms"]);
    let _lazy = sluggish(&gateway);
    let mut neighbour = gateway.stream("topics=t");
    let payload = json!("x".repeat(4000));
    let begun = Instant::now();
    while gateway.totals()["connections"] == 2 {
        gateway.push(json!({"topic": "t"}), payload.clone());
        assert_eq!(neighbour.expect("message"), payload);
        assert!(begun.elapsed() < DEADLINE);
    }
    let totals = gateway.until("cut", |totals| totals["open"] == 1);
    assert_eq!(closed(&totals, "slow_consumer"), 1);
}

#[test]
fn contract_3_a_kick_is_an_event_with_code_and_reason_and_then_the_end() {
    let gateway = Gateway::start(&[]);
    let mut client = gateway.stream("user=ann");
    gateway.control("DELETE", "/v1/users/ann?code=4501&reason=a%20%22b%22", "", b"").ok();
    assert_eq!(client.expect("corecast.close"), json!({"code": 4501, "reason": "a \"b\""}));
    client.ended();
    drop(client);
    let totals = gateway.until("let go", |totals| totals["open"] == 0);
    assert_eq!(closed(&totals, "kicked"), 1);
}

#[test]
fn contract_2_a_drain_gives_each_stream_a_fresh_retry_spread_over_it() {
    let mut gateway = Gateway::start(&["timeouts.drain=60s"]);
    let mut clients: Vec<_> = (0..20).map(|n| gateway.stream(&format!("user=u{n}"))).collect();
    gateway.signal(Signal::TERM);
    let mut retries = Vec::new();
    for client in &mut clients {
        client.ended();
        retries.push(client.parser.retry.unwrap());
    }
    assert!(retries.iter().all(|&retry| retry < 60_000), "{retries:?}");
    for quarter in 0..4 {
        let range = quarter * 15_000..(quarter + 1) * 15_000;
        assert!(retries.iter().any(|retry| range.contains(retry)), "none in {range:?}: {retries:?}");
    }
    drop(clients);
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn issue_4_cr_lf_and_nul_in_an_event_name_are_refused_on_every_way_in() {
    let gateway = Gateway::start(&[]);
    let mut client = gateway.stream("topics=t");
    let mut rust = gateway.client();
    for name in ["a\rb", "\n", "a\0"] {
        let push = json!({"to": {"topic": "t"}, "data": 1, "event": name}).to_string();
        let refused = gateway.control("POST", "/v1/push", "application/json", push.as_bytes()).refusal();
        assert_eq!(refused, (400, "bad_payload".to_owned()), "{name:?}");
        let lines = gateway.control("POST", "/v1/push", "application/x-ndjson", push.as_bytes()).ok();
        assert_eq!(lines["errors"][0]["code"], "bad_payload", "{name:?}");
        let refused = rust.push(Push {
            target: Target::Topic("t".parse().unwrap()),
            kind: Kind::Json,
            payload: "1".into(),
            event: Some(name.to_owned()),
            ttl_ms: None,
            id: None,
        });
        assert!(matches!(refused, Err(ClientError::Refused(error)) if error.code == ErrorCode::BadPayload));
        // No argument holds a NUL.
        if !name.contains('\0') {
            let output = gateway.cli(&["push", "--topic", "t", "--event", name, "x"]);
            assert_eq!(output.status.code(), Some(1));
            assert!(stderr(&output).contains("CR, LF or NUL"), "{}", stderr(&output));
        }
    }
    nothing_waits(&gateway, &mut client);
}

#[test]
fn what_was_encoded_for_event_streams_is_bounded_by_history_bytes_too() {
    let gateway = Gateway::start(&["shards=1", "history.bytes=1MiB"]);
    let mut stream = gateway.stream("topics=t");
    // Each line end becomes a line of an event: seven times as long.
    let payload = "\n".repeat(60 * 1024);
    for _ in 0..40 {
        gateway.push_with(json!({"to": {"topic": "t"}, "data": payload, "kind": "text"}));
        assert_eq!(stream.next().data, payload);
    }
    let held = gateway.totals()["tape_bytes"].as_u64().unwrap();
    assert!((512 << 10..2200 << 10).contains(&held), "{held} bytes");
}
