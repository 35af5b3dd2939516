//! What becomes of the connection of a poll: kept, read ahead, idle, left, kicked, drained.

use std::collections::HashSet;
use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::Gateway;
use crate::harness::poll::{Poller, request};
use crate::harness::websocket::{WebSocket, connect, upgrade};
use crate::polls::{assert_all_are_accounted_for, data, held, poller};

fn closed(totals: &Value, reason: &str) -> u64 {
    totals["closed"][reason].as_u64().unwrap()
}

#[test]
fn rfc9112_9_3_http_1_0_and_connection_close_end_with_the_answer() {
    let gateway = Gateway::start(&[]);
    for head in [
        "GET /poll?timeout=0 HTTP/1.0\r\n\r\n",
        "GET /poll?timeout=0 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "GET /poll?timeout=0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ] {
        let answer = gateway.ask(head);
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{head}");
    }
    let mut client = poller(&gateway);
    client.send("GET /poll?topics=t HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    gateway.until("held", |totals| totals["polls"] == 1);
    gateway.push(json!({"topic": "t"}), json!(1));
    assert_eq!(data(&client.answer().ok()), [1]);
    client.ended();
    drop(client);
    assert_all_are_accounted_for(&gateway);
    assert_eq!(closed(&gateway.totals(), "answered"), 4);
}

#[test]
fn contract_2_the_connection_of_a_poll_may_ask_for_anything_next() {
    let gateway = Gateway::start(&[]);
    let mut client = poller(&gateway);
    client.poll("timeout=0");
    client.send("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.answer().refusal(), (404, "not_found".to_owned()));
    client.ended();
    let mut client = poller(&gateway);
    client.poll("timeout=0");
    let mut socket = WebSocket::open_on(client.stream, "/ws?topics=t", None);
    gateway.push(json!({"topic": "t"}), json!(1));
    assert_eq!(socket.text(), "1");
    let mut client = poller(&gateway);
    client.send([request("timeout=0"), upgrade("/ws?topics=t", "")].concat());
    client.answer().ok();
    assert!(client.octets(13) == b"HTTP/1.1 101 ");
}

#[test]
fn contract_2_a_kept_connection_may_idle_for_timeouts_heartbeat_and_then_a_head_has_its_own_time() {
    let settings =
        ["timeouts.heartbeat_min=1s", "timeouts.heartbeat=1s", "timeouts.handshake=300ms", "shards=1"];
    let gateway = Gateway::start(&settings);
    let mut idle = poller(&gateway);
    // Before the request: when the gateway has answered it is for nobody here to see.
    let begun = Instant::now();
    idle.poll("timeout=0");
    let mut slow = poller(&gateway);
    slow.poll("timeout=0");
    // Longer than a first head may take; the pause is what is tested.
    std::thread::sleep(Duration::from_millis(600));
    slow.send("GET /poll?timeout=0 HT");
    assert_eq!(slow.answer().refusal(), (408, "handshake_timeout".to_owned()));
    idle.ended();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    drop((idle, slow));
    let totals = gateway.until("let go", |totals| totals["open"] == 0);
    assert_eq!((closed(&totals, "answered"), closed(&totals, "handshake_timeout")), (1, 1));
}

#[test]
fn issue_4_what_is_sent_behind_a_held_poll_is_read_to_the_length_of_one_head() {
    let gateway = Gateway::start(&["shards=1", "limits.head_bytes=1KiB"]);
    let mut client = held(&gateway, "topics=t");
    let one = request("topics=t&timeout=0");
    let many = one.repeat(400);
    client.stream.set_nonblocking(true).unwrap();
    let sent = client.stream.write(many.as_bytes()).unwrap();
    client.stream.set_nonblocking(false).unwrap();
    gateway.until("read", |totals| totals["received_bytes"].as_u64() >= Some(1024));
    let received = gateway.totals()["received_bytes"].as_u64().unwrap();
    assert!(sent > 8 * 1024 && received <= 2048, "{sent} sent, {received} read");
    gateway.push(json!({"topic": "t"}), json!(1));
    assert_eq!(data(&client.answer().ok()), [1]);
    for _ in 0..sent / one.len() {
        assert_eq!(client.answer().ok()["messages"], json!([]));
    }
    drop(client);
    assert_all_are_accounted_for(&gateway);
}

#[test]
fn issue_4_a_client_that_asks_and_never_reads_is_cut_and_holds_one_answer() {
    let gateway = Gateway::start(&["limits.socket_send_bytes=4096", "timeouts.send=500ms", "shards=1"]);
    let begin = poller(&gateway).poll("timeout=0")["next"].as_str().unwrap().to_owned();
    (0..40).for_each(|_| drop(gateway.push(json!({"topic": "t"}), json!("x".repeat(10_000)))));
    let mut client = Poller::on(connect(gateway.address, Some(4096), None));
    client.send(request(&format!("topics=t&since={begin}")).repeat(3));
    let totals = gateway.until("cut", |totals| closed(totals, "slow_consumer") == 1);
    assert_eq!(totals["polls_answered"], 2, "the second waits for the first to be taken");
    assert_all_are_accounted_for(&gateway);
}

#[test]
fn contract_2_an_answer_that_is_sent_in_pieces_arrives_whole() {
    let gateway = Gateway::start(&["limits.socket_send_bytes=4096"]);
    let payload = json!("x".repeat(60_000));
    let mut client = Poller::on(connect(gateway.address, Some(4096), None));
    client.send(request("topics=t"));
    gateway.until("held", |totals| totals["polls"] == 1);
    let first = gateway.push(json!({"topic": "t"}), payload.clone())["position"].clone();
    gateway.push(json!({"topic": "t"}), payload.clone());
    client.send(request(&format!("topics=t&since={}", first.as_str().unwrap())));
    gateway.until("blocked", |totals| totals["blocked"] == 1);
    for _ in 0..2 {
        assert_eq!(data(&client.answer().ok()), std::slice::from_ref(&payload));
    }
}

#[test]
fn contract_2_a_peer_that_leaves_is_gone_from_a_held_poll_and_just_done_between_two() {
    let gateway = Gateway::start(&[]);
    let client = held(&gateway, "user=ann");
    drop(client);
    let totals = gateway.until("let go", |totals| totals["open"] == 0);
    assert_eq!(closed(&totals, "peer_gone"), 1);
    let mut client = poller(&gateway);
    client.poll("timeout=0");
    drop(client);
    assert_all_are_accounted_for(&gateway);
    assert_eq!(closed(&gateway.totals(), "answered"), 1);
    // Half a close with the request: what is answered in time is still read.
    let mut client = poller(&gateway);
    client.send(request("timeout=0"));
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.answer().ok()["messages"], json!([]));
    client.ended();
    assert_all_are_accounted_for(&gateway);
}

#[test]
fn contract_3_a_kick_that_means_stay_away_is_403_and_any_other_an_answer_and_a_close() {
    let gateway = Gateway::start(&[]);
    for (query, expected) in
        [("", 403), ("?code=4502&reason=no", 403), ("?code=4000", 200), ("?code=1000", 200)]
    {
        let mut client = held(&gateway, "user=ann");
        let kicked = gateway.control("DELETE", &format!("/v1/users/ann{query}"), "", b"").ok();
        assert_eq!(kicked["closed"], 1);
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (expected, Some("close")), "{query}");
        if expected == 403 {
            assert_eq!(answer.refusal().1, "kicked");
        } else {
            assert_eq!(answer.json()["messages"], json!([]));
        }
        client.ended();
    }
    assert_all_are_accounted_for(&gateway);
    assert_eq!(closed(&gateway.totals(), "kicked"), 4);
}

#[test]
fn contract_2_a_drain_gives_each_poll_its_normal_answer_and_refuses_the_next() {
    let mut gateway = Gateway::start(&["timeouts.drain=20s", "shards=1"]);
    let mut clients: Vec<_> = (0..10).map(|n| held(&gateway, &format!("user=u{n}"))).collect();
    // Their requests are begun before the drain: no listener accepts after it.
    let mut late: Vec<_> = (0..10).map(|_| poller(&gateway)).collect();
    late.iter_mut().for_each(|client| client.send("GET /poll HTTP/1.1\r\n"));
    gateway.until("all are accepted", |totals| totals["open"] == 20);
    let keeper = gateway.raw("");
    gateway.signal(Signal::TERM);
    for client in &mut clients {
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        assert_eq!(answer.json()["messages"], json!([]));
        client.ended();
    }
    let mut waits = HashSet::new();
    for client in &mut late {
        client.send("Host: x\r\n\r\n");
        let answer = client.answer();
        assert_eq!(answer.refusal(), (503, "draining".to_owned()));
        waits.insert(answer.header("retry-after").unwrap().parse::<u32>().unwrap());
    }
    assert!(waits.len() > 4 && waits.iter().all(|wait| (1..=20).contains(wait)), "{waits:?}");
    drop(keeper);
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn contract_2_a_drain_does_not_wait_for_connections_between_two_polls() {
    let mut gateway = Gateway::start(&["timeouts.drain=60s"]);
    let mut client = poller(&gateway);
    client.poll("timeout=0");
    gateway.signal(Signal::TERM);
    client.ended();
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn contract_2_polls_on_kept_connections_take_nothing_of_connects_per_second() {
    let gateway = Gateway::start(&["limits.connects_per_second=1", "shards=1"]);
    let mut client = poller(&gateway);
    (0..50).for_each(|_| drop(client.poll("timeout=0")));
    let refused = (0..10).filter(|_| {
        gateway.ask(request("timeout=0").replace("Host", "Connection: close\r\nHost")).status == 503
    });
    assert!(refused.count() >= 5, "a connection for each poll is a new client each time");
}

#[test]
fn contract_2_a_kept_connection_counts_once_for_its_address_between_polls_too() {
    let gateway = Gateway::start(&["limits.connections_per_address=1"]);
    let mut client = poller(&gateway);
    // Users of both shards, so that the connection is handed to and fro.
    for round in 0..8 {
        client.poll(&format!("timeout=0&user=u{round}"));
        let refused = gateway.ask(request("timeout=0"));
        assert_eq!(refused.refusal(), (429, "too_many_connections".to_owned()));
    }
    drop(client);
    assert_all_are_accounted_for(&gateway);
    poller(&gateway).poll("timeout=0");
}
