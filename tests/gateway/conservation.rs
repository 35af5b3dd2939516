//! Nothing is lost in silence (Rule 10): whatever becomes of a message that was handed to a connection is
//! counted once, and the counts are those that pushers and clients see.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use corecast::control::command::{Answer, Command, Push};
use corecast::message::{Kind, Target};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::websocket::{CLOSE, TEXT, WebSocket, connect, frame, upgrade};
use crate::harness::{Gateway, sum};

const SMALL_BUFFERS: &str = "limits.socket_send_bytes=4096";
const RECEIVE_BYTES: usize = 4096;
const MESSAGE_BYTES: usize = 1024;
/// Far more than lies between the gateway and a client that does not read, far less than it may lag.
const MANY: u64 = 64;

/// A client of ann's that does not read, with `MANY` messages to topic `t` on their way to it.
fn blocked(gateway: &Gateway) -> WebSocket {
    let stream = connect(gateway.address, Some(RECEIVE_BYTES), None);
    let client = WebSocket::open_on(stream, "/ws?user=ann&topics=t&heartbeat=600", None);
    (0..MANY).for_each(|n| assert_eq!(push(gateway, n, None)["connections"], 1));
    gateway.until("blocked", |totals| totals["blocked"] == 1 && totals["pending"].as_u64() > Some(0));
    client
}

fn message(n: u64) -> String {
    format!("{n:<MESSAGE_BYTES$}")
}

#[track_caller]
fn push(gateway: &Gateway, n: u64, ttl_ms: Option<u64>) -> Value {
    gateway.push_with(json!({"to": {"topic": "t"}, "data": message(n), "kind": "text", "ttl_ms": ttl_ms}))
}

/// Reads to the end: the messages, in order, that came before it.
fn heard(client: &mut WebSocket) -> u64 {
    let mut count = 0;
    while let Some(frame) = client.try_next() {
        if frame.opcode == CLOSE {
            break;
        }
        assert_eq!(String::from_utf8(frame.payload).unwrap(), message(count));
        count += 1;
    }
    count
}

#[test]
fn issue_6_handed_is_what_pushers_are_told_and_delivered_what_clients_hear() {
    let gateway = Gateway::start(&[]);
    let (mut json, _) = gateway.hello("user=ann&topics=t");
    let mut raw = gateway.raw("user=bob&topics=t,u");
    let mut stream = gateway.stream("topics=t");
    let mut told = 0;
    for n in 0..30 {
        let to = [json!({"topic": "t"}), json!({"users": ["ann", "bob", "carol"]}), json!({"all": true})];
        told += gateway.push(to[n % 3].clone(), json!(n))["connections"].as_u64().unwrap();
    }
    (0..30).for_each(|n| assert_eq!(json.expect("message")["data"], n));
    (0..30).for_each(|n| assert_eq!(raw.text(), n.to_string()));
    (0..30).filter(|n| n % 3 != 1).for_each(|n| assert_eq!(stream.next().data, n.to_string()));
    let totals = gateway.at_rest();
    assert_eq!((told, &totals["handed"], &totals["delivered"]), (80, &json!(80), &json!(80)));
    assert_eq!((&totals["expired"], sum(&totals["dropped"])), (&json!(0), 0));
}

#[test]
fn issue_6_what_a_connection_had_not_been_sent_when_it_ended_is_dropped_for_that_reason() {
    type End = fn(&Gateway, &mut WebSocket);
    let ends: [(&str, End); 6] = [
        ("peer_gone", |_, client| client.stream.shutdown(std::net::Shutdown::Both).unwrap()),
        ("peer_closed", |_, client| client.send(CLOSE, &1000u16.to_be_bytes())),
        ("protocol_error", |_, client| client.octets(&[0xff; 8])),
        ("too_big", |_, client| client.octets(&frame(true, TEXT, &[b'x'; 70_000])[..14])),
        ("kicked", |gateway, _| {
            assert_eq!(gateway.control("DELETE", "/v1/users/ann", "", b"").ok()["closed"], 1);
        }),
        ("slow_consumer", |gateway, _| {
            (0..1024).for_each(|n| drop(push(gateway, n, None)));
        }),
    ];
    for (reason, end) in ends {
        let gateway = Gateway::start(&[SMALL_BUFFERS, "timeouts.close=5s"]);
        let mut client = blocked(&gateway);
        end(&gateway, &mut client);
        gateway.until(reason, |totals| totals["connections"] == 0);
        let came = heard(&mut client);
        drop(client);
        gateway.until("the socket is let go", |totals| totals["open"] == 0);
        let totals = gateway.at_rest();
        let [handed, delivered] = ["handed", "delivered"].map(|name| totals[name].as_u64().unwrap());
        assert!(handed >= MANY && delivered < handed, "{reason}: {totals}");
        assert_eq!(totals["dropped"][reason], handed - delivered, "{reason}: {totals}");
        // A reset takes along what the kernel had taken.
        assert!(came == delivered || reason == "peer_gone", "{reason}: {came} came: {totals}");
    }
}

#[test]
fn issue_6_a_frame_that_was_begun_and_not_finished_is_dropped_and_not_delivered() {
    let gateway = Gateway::start(&[SMALL_BUFFERS, "timeouts.send=300ms", "timeouts.close=300ms"]);
    let stream = connect(gateway.address, Some(RECEIVE_BYTES), None);
    let client = WebSocket::open_on(stream, "/ws?topics=t&heartbeat=600", None);
    // One message, far longer than what lies between.
    let data = "x".repeat(60_000);
    assert_eq!(gateway.push(json!({"topic": "t"}), json!(data))["connections"], 1);
    let totals = gateway.until("cut and let go", |totals| totals["open"] == 0);
    assert_eq!((&totals["delivered"], &totals["dropped"]["slow_consumer"]), (&json!(0), &json!(1)));
    gateway.at_rest();
    drop(client);
}

#[test]
fn issue_6_what_expires_while_a_client_does_not_read_is_counted_as_expired() {
    let gateway = Gateway::start(&[SMALL_BUFFERS]);
    let mut client = blocked(&gateway);
    (0..5).for_each(|_| drop(push(&gateway, 999, Some(1))));
    assert_eq!(push(&gateway, MANY, None)["connections"], 1);
    // Longer than their time to live.
    std::thread::sleep(Duration::from_millis(5));
    (0..=MANY).for_each(|n| assert_eq!(client.text(), message(n)));
    let totals = gateway.at_rest();
    assert_eq!((&totals["expired"], &totals["delivered"]), (&json!(5), &json!(MANY + 1)), "{totals}");
}

#[test]
fn issue_6_what_was_on_its_way_for_a_topic_that_is_left_is_dropped_as_unsubscribed() {
    let gateway = Gateway::start(&[SMALL_BUFFERS]);
    let mut client = blocked(&gateway);
    assert_eq!(gateway.push(json!({"user": "ann"}), json!("own"))["connections"], 1);
    assert_eq!(gateway.control("DELETE", "/v1/users/ann/topics/t", "", b"").ok()["connections"], 1);
    let mut came = 0;
    while client.text() != "\"own\"" {
        came += 1;
    }
    let totals = gateway.at_rest();
    assert_eq!(totals["delivered"], came + 1);
    assert_eq!(totals["dropped"]["unsubscribed"], MANY - came, "{totals}");
}

#[test]
fn issue_6_what_is_kept_no_longer_than_history_bytes_is_dropped_with_the_reader_who_needed_it() {
    let gateway = Gateway::start(&[SMALL_BUFFERS, "history.bytes=64KiB", "limits.send_backlog_bytes=64KiB"]);
    let mut client = blocked(&gateway);
    // Others' messages push out what it has yet to be sent.
    for _ in 0..200 {
        gateway.push(json!({"topic": "other"}), json!("x".repeat(1000)));
    }
    let came = heard(&mut client);
    gateway.until("the socket is let go", |totals| totals["open"] == 0);
    let totals = gateway.at_rest();
    assert_eq!(totals["delivered"], came);
    assert_eq!(totals["dropped"]["slow_consumer"], MANY - came, "{totals}");
}

#[test]
fn issue_6_what_is_sent_again_after_a_break_is_replayed_and_counted_apart() {
    let gateway = Gateway::start(&[]);
    let first = push(&gateway, 0, None)["position"].as_str().unwrap().to_owned();
    (1..4).for_each(|n| assert_eq!(push(&gateway, n, None)["connections"], 0));
    // Over before anybody asks for it.
    assert_eq!(push(&gateway, 9, Some(1))["connections"], 0);
    std::thread::sleep(Duration::from_millis(5));
    let mut client = gateway.raw(&format!("topics=t&since={first}"));
    (1..4).for_each(|n| assert_eq!(client.text(), message(n)));
    let totals = gateway.at_rest();
    assert_eq!((&totals["handed"], &totals["replayed"]), (&json!(0), &json!(4)));
    assert_eq!((&totals["delivered"], &totals["expired"]), (&json!(3), &json!(1)));
}

#[test]
fn issue_6_what_does_not_fit_into_the_answer_to_a_poll_comes_with_the_next_and_is_counted_as_replayed() {
    let gateway = Gateway::start(&["shards=1", "limits.poll_bytes=1KiB"]);
    let mut client = crate::polls::held(&gateway, "topics=t");
    let mut control = gateway.client();
    // One write, so that the shard finds all of it in one turn.
    for n in 0..3 {
        control.send(&Command::Push(to_topic(&message(n)))).unwrap();
    }
    control.flush().unwrap();
    let mut next = client.answer().ok()["next"].as_str().unwrap().to_owned();
    for _ in 0..2 {
        next = client.poll(&format!("topics=t&since={next}"))["next"].as_str().unwrap().to_owned();
    }
    let totals = gateway.at_rest();
    // All three handed to the first poll, or fewer where the first was answered before they came.
    let left_out = totals["dropped"]["answered"].as_u64().unwrap();
    assert_eq!(totals["delivered"], 3, "{totals}");
    assert!(totals["replayed"].as_u64() >= Some(2) && left_out >= 1, "{totals}");
}

fn to_topic(payload: &str) -> Push {
    let target = Target::Topic("t".parse().unwrap());
    let payload = Bytes::from(payload.to_owned());
    Push { target, kind: Kind::Text, payload, event: None, ttl_ms: None, id: None }
}

#[test]
fn issue_6_what_was_pushed_together_with_a_kick_arrives_before_the_close() {
    let gateway = Gateway::start(&["shards=1"]);
    let mut client = gateway.raw("user=ann&topics=t");
    let mut stream = gateway.stream("user=ann&topics=t");
    let mut poll = crate::polls::held(&gateway, "user=ann&topics=t");
    let mut control = gateway.client();
    // One write, so that the shard finds all of it in one turn.
    for n in 0..10 {
        control.send(&Command::Push(to_topic(&n.to_string()))).unwrap();
    }
    let user = "ann".parse().unwrap();
    control.send(&Command::KickUser { user, code: Some(4000), reason: None }).unwrap();
    control.flush().unwrap();
    (0..10).for_each(|n| assert_eq!(client.text(), n.to_string()));
    assert_eq!(client.closed().0, 4000);
    (0..10).for_each(|n| assert_eq!(stream.next().data, n.to_string()));
    assert_eq!(stream.expect("corecast.close")["code"], 4000);
    assert_eq!(poll.answer().status, 200);
    let totals = gateway.at_rest();
    // The poll's answer may hold fewer, where a turn came between: then it was held for no more.
    assert_eq!(sum(&totals["dropped"]), 0, "{totals}");
}

#[test]
fn issue_6_what_a_drained_client_does_not_take_is_dropped_as_drained() {
    let mut gateway = Gateway::start(&[SMALL_BUFFERS, "timeouts.close=300ms"]);
    let client = blocked(&gateway);
    // A handshake under way: the drain waits for it.
    let mut late = connect(gateway.address, None, None);
    late.write_all(upgrade("/ws", "").trim_end().as_bytes()).unwrap();
    gateway.until("it is accepted", |totals| totals["open"] == 2);
    gateway.signal(Signal::TERM);
    gateway.until("let go", |totals| totals["open"] == 1);
    let totals = gateway.at_rest();
    let delivered = totals["delivered"].as_u64().unwrap();
    assert_eq!(totals["dropped"]["drained"], MANY - delivered, "{totals}");
    drop((client, late));
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn issue_6_of_a_batch_only_what_was_accepted_is_handed_to_anybody() {
    let gateway = Gateway::start(&["limits.message_bytes=64"]);
    let mut client = gateway.raw("topics=t");
    let good = r#"{"to":{"topic":"t"},"data":1}"#;
    let lines = [good, r#"{"to":{"topic":"a b"},"data":1}"#, good, "{", good].join("\n");
    let batch = gateway.control("POST", "/v1/push", "application/x-ndjson", lines.as_bytes()).ok();
    assert_eq!((&batch["accepted"], &batch["refused"]), (&json!(3), &json!(2)));
    let pushes = ["2", &"x".repeat(65), "2"].map(to_topic);
    let answer = gateway.client().call(&Command::PushBatch(pushes.to_vec())).unwrap();
    let Answer::Batch(batch) = answer else { panic!("{answer:?}") };
    assert_eq!((batch.accepted, batch.refused), (2, 1));
    ["1", "1", "1", "2", "2"].iter().for_each(|data| assert_eq!(client.text(), *data));
    client.nothing_waits();
    let totals = gateway.at_rest();
    assert_eq!((&totals["handed"], &totals["delivered"]), (&json!(5), &json!(5)));
}
