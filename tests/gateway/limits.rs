//! Limits on an open WebSocket: each just kept, each reached.

use serde_json::json;

use crate::harness::Gateway;
use crate::harness::websocket::{BINARY, CONTINUATION, PING, TEXT, WebSocket, frame, header};

#[test]
fn contract_2_a_message_of_message_bytes_passes_and_one_byte_more_is_1009_before_it_is_read() {
    let gateway = Gateway::start(&["limits.message_bytes=1KiB"]);
    let mut events = gateway.events("types=uplink");
    let mut client = gateway.raw("");
    client.send(TEXT, &[b'x'; 1024]);
    assert_eq!(events.next()["data"], "x".repeat(1024));
    // Nothing but the length: it is judged at once.
    client.octets(&header(0x80 | TEXT, 1025));
    assert_eq!(client.closed().0, 1009);
    gateway.until("counted", |totals| totals["closed"]["too_big"] == 1);
}

#[test]
fn contract_2_fragments_are_added_up_for_message_bytes() {
    let gateway = Gateway::start(&["limits.message_bytes=1KiB"]);
    let mut events = gateway.events("types=uplink");
    let mut client = gateway.raw("");
    client.octets(&frame(false, BINARY, &[b'x'; 1000]));
    client.octets(&frame(true, CONTINUATION, &[b'x'; 24]));
    assert_eq!(events.next()["type"], "uplink");
    client.octets(&frame(false, BINARY, &[b'x'; 1000]));
    client.octets(&header(0x80 | CONTINUATION, 25));
    assert_eq!(client.closed().0, 1009);
}

#[test]
fn contract_2_a_huge_announced_length_is_1009_or_1002_and_costs_no_memory() {
    let gateway = Gateway::start(&[]);
    for (length, code) in [(1 << 40, 1009), (i64::MAX as u64, 1009), (u64::MAX, 1002)] {
        let mut client = gateway.raw("");
        client.octets(&header(0x80 | BINARY, length));
        assert_eq!(client.closed().0, code, "{length}");
    }
}

fn fragments(client: &mut WebSocket, count: usize) {
    client.octets(&frame(count == 1, TEXT, b"x"));
    for n in 2..=count {
        client.octets(&frame(n == count, CONTINUATION, b"x"));
    }
}

#[test]
fn contract_2_a_message_in_limits_fragments_passes_and_one_more_is_1008() {
    let gateway = Gateway::start(&["limits.fragments=8"]);
    let mut events = gateway.events("types=uplink");
    let mut client = gateway.raw("");
    fragments(&mut client, 8);
    assert_eq!(events.next()["data"], "xxxxxxxx");
    fragments(&mut client, 9);
    assert_eq!(client.closed().0, 1008);
    gateway.until("counted", |totals| totals["closed"]["policy"] == 1);
}

#[test]
fn contract_2_a_message_unfinished_after_timeouts_message_is_1008() {
    let gateway = Gateway::start(&["timeouts.message=300ms"]);
    let mut client = gateway.raw("");
    client.octets(&frame(false, TEXT, b"begun"));
    assert_eq!(client.closed().0, 1008);
}

#[test]
fn contract_2_pings_between_fragments_do_not_stretch_timeouts_message() {
    let gateway = Gateway::start(&["timeouts.message=300ms"]);
    let mut client = gateway.raw("");
    client.octets(&frame(false, TEXT, b"begun"));
    let begun = std::time::Instant::now();
    loop {
        use std::io::Write;
        let _ = client.stream.write_all(&frame(true, PING, b""));
        let Some(answer) = client.try_next() else { panic!("closed without a close frame") };
        if answer.opcode == crate::harness::websocket::CLOSE {
            assert_eq!(answer.payload[..2], 1008u16.to_be_bytes());
            return;
        }
        assert!(begun.elapsed() < crate::harness::DEADLINE);
    }
}

#[test]
fn contract_2_one_topic_more_than_topics_per_connection_is_an_error_frame_and_changes_nothing() {
    let gateway = Gateway::start(&["limits.topics_per_connection=3"]);
    let (mut client, _) = gateway.hello("topics=a,b");
    client.send_json(&json!({"type": "subscribe", "topics": ["c", "d"], "id": 1}));
    let error = client.expect("error");
    assert_eq!((&error["code"], &error["id"]), (&json!("too_many_topics"), &json!(1)));
    assert_eq!(gateway.push(json!({"topic": "c"}), json!(1))["connections"], 0);
    client.send_json(&json!({"type": "subscribe", "topics": ["a", "b", "c"]}));
    client.expect("subscribed");
    client.send_json(&json!({"type": "unsubscribe", "topics": ["a"]}));
    client.expect("unsubscribed");
    client.send_json(&json!({"type": "subscribe", "topics": ["d"]}));
    client.expect("subscribed");
    assert_eq!(gateway.push(json!({"topic": "d"}), json!(1))["connections"], 1);
}

#[test]
fn contract_2_uplinks_pass_up_to_a_burst_of_twice_the_rate_and_more_are_1008() {
    let gateway = Gateway::start(&["limits.uplinks_per_second=2"]);
    let mut events = gateway.events("types=uplink");
    let mut client = gateway.raw("");
    client.octets(&frame(true, TEXT, b"x").repeat(4));
    (0..4).for_each(|_| assert_eq!(events.next()["data"], "x"));
    client.nothing_waits();
    // A slow machine gives another token or two meanwhile, never a hundred.
    client.octets(&frame(true, TEXT, b"x").repeat(100));
    assert_eq!(client.closed().0, 1008);
}

#[test]
fn contract_2_control_frames_are_no_uplinks_and_0_is_no_limit() {
    let gateway = Gateway::start(&["limits.uplinks_per_second=1"]);
    let mut client = gateway.raw("");
    client.octets(&frame(true, PING, b"x").repeat(50));
    (0..50).for_each(|_| assert_eq!(client.next().opcode, crate::harness::websocket::PONG));
    client.nothing_waits();
    let gateway = Gateway::start(&["limits.uplinks_per_second=0"]);
    let mut client = gateway.raw("");
    client.octets(&frame(true, TEXT, b"x").repeat(500));
    gateway.until("all are heard", |totals| totals["uplinks"] == 500);
    client.nothing_waits();
}
