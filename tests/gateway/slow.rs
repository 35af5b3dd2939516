//! Clients that do not read: cut with 4000 when they are too far behind, and nobody else notices.

use corecast::client::Client;
use corecast::control::command::Push;
use corecast::message::{Kind, Target};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::Gateway;
use crate::harness::websocket::{CLOSE, WebSocket, connect};

/// Small enough that a few dozen messages fill what lies between the gateway and a client.
const RECEIVE_BYTES: usize = 4096;
const SMALL_BUFFERS: &str = "limits.socket_send_bytes=4096";
const MESSAGE_BYTES: usize = 1024;

/// A raw client whose kernel takes little before it is read.
fn sluggish(gateway: &Gateway) -> WebSocket {
    let stream = connect(gateway.address, Some(RECEIVE_BYTES), None);
    WebSocket::open_on(stream, "/ws?topics=t&heartbeat=600", None)
}

fn message(n: usize) -> String {
    format!("{n:<MESSAGE_BYTES$}")
}

fn push(client: &mut Client, n: usize) {
    client
        .push(Push {
            target: Target::Topic("t".parse().unwrap()),
            kind: Kind::Text,
            payload: message(n).into_bytes().into(),
            event: None,
            ttl_ms: None,
            id: None,
        })
        .unwrap();
}

fn slow_consumers(totals: &Value) -> u64 {
    totals["closed"]["slow_consumer"].as_u64().unwrap()
}

#[test]
fn contract_2_a_client_that_stops_reading_is_closed_and_its_neighbours_notice_nothing() {
    let gateway = Gateway::start(&[SMALL_BUFFERS, "limits.send_backlog_bytes=128KiB"]);
    let mut lazy = sluggish(&gateway);
    let mut neighbours: Vec<_> = (0..4).map(|n| gateway.raw(&format!("topics=t&user=u{n}"))).collect();
    let mut pusher = gateway.client();
    let mut pushed = 0;
    while gateway.totals()["connections"] == 5 {
        for _ in 0..20 {
            push(&mut pusher, pushed);
            for neighbour in &mut neighbours {
                assert_eq!(neighbour.text(), message(pushed));
            }
            pushed += 1;
        }
        assert!(pushed < 2000, "nobody was cut");
    }
    assert!(pushed * MESSAGE_BYTES > 128 << 10, "cut after {pushed} KiB, the limit is 128 KiB");
    // It reads on: what was sent comes whole and in order, and then why it ends.
    let mut expected = 0;
    loop {
        let frame = lazy.next();
        if frame.opcode == CLOSE {
            assert_eq!(frame.payload[..2], 4000u16.to_be_bytes());
            break;
        }
        assert_eq!(String::from_utf8(frame.payload).unwrap(), message(expected));
        expected += 1;
    }
    assert!(expected < pushed);
    lazy.ended();
    let totals = gateway.until("the sockets are let go", |totals| totals["open"] == 4);
    assert_eq!((slow_consumers(&totals), totals["blocked"].as_u64()), (1, Some(0)));
    neighbours.iter_mut().for_each(WebSocket::nothing_waits);
}

#[test]
fn contract_2_a_lag_just_below_send_backlog_bytes_survives_and_comes_in_order() {
    let gateway = Gateway::start(&[SMALL_BUFFERS, "limits.send_backlog_bytes=256KiB"]);
    let mut lazy = sluggish(&gateway);
    let mut pusher = gateway.client();
    // A frame of 1,024 bytes has a header of 4: all of them together are below the limit.
    let count = (256 << 10) / (MESSAGE_BYTES + 4);
    (0..count).for_each(|n| push(&mut pusher, n));
    let totals = gateway.totals();
    assert_eq!((slow_consumers(&totals), totals["blocked"].as_u64()), (0, Some(1)));
    (0..count).for_each(|n| assert_eq!(lazy.text(), message(n)));
    lazy.nothing_waits();
    push(&mut pusher, count);
    assert_eq!(lazy.text(), message(count));
}

#[test]
fn contract_2_a_client_that_takes_nothing_for_timeouts_send_is_cut_however_little_it_lags() {
    let gateway = Gateway::start(&[SMALL_BUFFERS, "timeouts.send=300ms", "timeouts.close=300ms"]);
    let _lazy = sluggish(&gateway);
    let mut reader = gateway.raw("topics=t");
    let mut pusher = gateway.client();
    // Far less than `limits.send_backlog_bytes`, far more than its kernel takes.
    for n in 0..64 {
        push(&mut pusher, n);
        assert_eq!(reader.text(), message(n));
    }
    gateway.until("cut", |totals| slow_consumers(totals) == 1);
    // Its close frame is not read either: the socket is let go all the same.
    gateway.until("let go", |totals| totals["open"] == 1);
    reader.nothing_waits();
}

#[test]
fn issue_6_many_slow_consumers_at_once_write_one_line_a_second_and_shard() {
    let settings = [SMALL_BUFFERS, "limits.send_backlog_bytes=64KiB", "shards=1"];
    let mut gateway = Gateway::start(&settings);
    let lazy: Vec<_> = (0..20).map(|_| sluggish(&gateway)).collect();
    let mut pusher = gateway.client();
    let begun = std::time::Instant::now();
    (0..).take_while(|_| slow_consumers(&gateway.totals()) < 20).for_each(|n| push(&mut pusher, n));
    let seconds = begun.elapsed().as_secs() as usize;
    drop(lazy);
    gateway.signal(Signal::TERM);
    gateway.ended();
    let lines = gateway.said().matches("slow consumer: closed").count();
    assert!((1..=1 + seconds).contains(&lines), "{lines} lines in {seconds} s:\n{}", gateway.said());
}

#[test]
fn design_4_what_waited_for_a_client_goes_out_many_messages_in_one_send() {
    let gateway = Gateway::start(&["shards=1"]);
    let mut lazy = sluggish(&gateway);
    let mut pusher = gateway.client();
    let count = 600;
    (0..count).for_each(|n| push(&mut pusher, n));
    let before = gateway.until("blocked", |totals| totals["blocked"] == 1);
    (0..count).for_each(|n| assert_eq!(lazy.text(), message(n)));
    let after = gateway.until("all delivered", |totals| totals["delivered"] == count);
    let during = |name: &str| after[name].as_u64().unwrap() - before[name].as_u64().unwrap();
    let (messages, batches) = (during("delivered"), during("send_batches"));
    assert!(messages > 100 && batches < messages, "{messages} messages in {batches} batches");
}

#[test]
fn issue_6_who_pings_and_does_not_read_is_cut_by_timeouts_send_though_one_pong_waits_at_most() {
    let settings = [SMALL_BUFFERS, "timeouts.send=300ms", "timeouts.close=300ms"];
    let gateway = Gateway::start(&settings);
    let mut lazy = sluggish(&gateway);
    let pings = crate::harness::websocket::frame(true, 0x9, &[b'p'; 125]).repeat(100);
    use std::io::Write;
    lazy.stream.set_write_timeout(Some(crate::harness::DEADLINE)).unwrap();
    while lazy.stream.write_all(&pings).is_ok() && gateway.totals()["connections"] == 1 {}
    gateway.until("cut", |totals| slow_consumers(totals) == 1);
    gateway.until("let go", |totals| totals["open"] == 0);
}

#[test]
fn contract_2_replies_that_a_client_does_not_read_are_bounded_too() {
    let settings = [SMALL_BUFFERS, "timeouts.close=300ms", "limits.uplinks_per_second=0"];
    let gateway = Gateway::start(&settings);
    let stream = connect(gateway.address, Some(RECEIVE_BYTES), None);
    let mut lazy = WebSocket::open_on(stream, "/ws", Some("corecast.v1"));
    // Not those of RFC 6455, of which one pong waits at most: each of these has its own answer, which is not read.
    let ping = serde_json::json!({"type": "ping", "id": "p".repeat(100)}).to_string();
    let pings = crate::harness::websocket::frame(true, 0x1, ping.as_bytes()).repeat(100);
    // Writing fails when the gateway has had enough.
    use std::io::Write;
    lazy.stream.set_write_timeout(Some(crate::harness::DEADLINE)).unwrap();
    let mut sent = 0;
    while lazy.stream.write_all(&pings).is_ok() && gateway.totals()["connections"] == 1 {
        sent += pings.len();
        assert!(sent < 8 << 20, "{sent} bytes of pings, and nobody was cut");
    }
    gateway.until("cut", |totals| slow_consumers(totals) == 1);
    gateway.until("let go", |totals| totals["open"] == 0);
}
