//! Raw mode: each push one frame holding exactly the payload, each data frame an uplink.

use corecast::client::Client;
use corecast::control::command::Push;
use corecast::message::{Kind, Target};
use serde_json::json;

use crate::harness::Gateway;
use crate::harness::websocket::{BINARY, CONTINUATION, Frame, TEXT, frame};

fn push(client: &mut Client, kind: Kind, payload: &[u8]) {
    let target = Target::Topic("t".parse().unwrap());
    let payload = payload.to_vec().into();
    client.push(Push { target, kind, payload, event: None, ttl_ms: None, id: None }).unwrap();
}

#[test]
fn contract_2_raw_json_and_text_come_as_text_frames_binary_as_binary_ones() {
    let gateway = Gateway::start(&[]);
    let mut client = gateway.raw("topics=t");
    assert_eq!(client.header("sec-websocket-protocol"), None);
    let mut pusher = gateway.client();
    for (kind, opcode, payload) in [
        (Kind::Json, TEXT, &br#"{"b" : 1.0, "a":"\u00e9"}"#[..]),
        (Kind::Text, TEXT, "é\n\0".as_bytes()),
        (Kind::Binary, BINARY, &[0, 255, 0x80]),
        (Kind::Text, TEXT, b""),
        (Kind::Binary, BINARY, b""),
    ] {
        push(&mut pusher, kind, payload);
        assert_eq!(client.next(), Frame { opcode, payload: payload.to_vec() });
    }
}

#[test]
fn rfc6455_5_2_payloads_of_every_length_form_arrive_exactly() {
    let gateway = Gateway::start(&["limits.message_bytes=128KiB"]);
    let mut client = gateway.raw("topics=t");
    let mut pusher = gateway.client();
    for length in [1, 125, 126, 127, 65_535, 65_536, 128 << 10] {
        let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
        push(&mut pusher, Kind::Binary, &payload);
        assert_eq!(client.next(), Frame { opcode: BINARY, payload });
    }
}

#[test]
fn contract_2_raw_each_data_frame_is_an_uplink_with_its_kind_and_exact_payload() {
    let gateway = Gateway::start(&[]);
    let mut events = gateway.events("types=uplink");
    let mut client = gateway.raw("user=ann");
    client.send(TEXT, r#"{"x":1}"#.as_bytes());
    let event = events.next();
    assert_eq!(
        (&event["type"], &event["user"], &event["kind"], &event["data"]),
        (&json!("uplink"), &json!("ann"), &json!("text"), &json!(r#"{"x":1}"#))
    );
    client.send(BINARY, &[0, 255]);
    let event = events.next();
    assert_eq!(
        (&event["kind"], &event["encoding"], &event["data"]),
        (&json!("binary"), &json!("base64"), &json!("AP8="))
    );
    client.octets(&frame(false, TEXT, b"in "));
    client.octets(&frame(false, CONTINUATION, b"three "));
    client.octets(&frame(true, CONTINUATION, b"pieces"));
    assert_eq!(events.next()["data"], "in three pieces");
}

#[test]
fn contract_2_the_raw_answer_to_the_upgrade_comes_alone_without_a_greeting() {
    let gateway = Gateway::start(&[]);
    gateway.raw("user=a&topics=t").nothing_waits();
}

#[test]
fn contract_2_what_is_sent_right_behind_the_request_head_is_heard() {
    use crate::harness::websocket::{PING, PONG, WebSocket, connect, upgrade};
    use std::io::Write;
    let gateway = Gateway::start(&[]);
    // Both shards own one of these users: one of them is handed over with its unread bytes.
    for user in [gateway.user_on(0), gateway.user_on(1)] {
        let mut stream = connect(gateway.address, None, None);
        let head = upgrade(&format!("/ws?user={user}"), "");
        stream.write_all(&[head.as_bytes(), &frame(true, PING, b"early")].concat()).unwrap();
        let mut client = WebSocket::opened(stream).unwrap();
        assert_eq!(client.next(), Frame { opcode: PONG, payload: b"early".to_vec() });
    }
}

#[test]
fn rfc6455_5_5_1_a_close_is_echoed_and_ends_the_connection() {
    let gateway = Gateway::start(&[]);
    gateway.raw("user=a").close();
    gateway.until("counted", |totals| totals["closed"]["peer_closed"] == 1);
}

#[test]
fn contract_2_each_protocol_error_closes_with_its_code() {
    let gateway = Gateway::start(&[]);
    for (octets, code) in [
        (frame(true, TEXT | 0x40, b"x"), 1002),
        (frame(true, 0x3, b"x"), 1002),
        (frame(true, CONTINUATION, b"x"), 1002),
        (frame(false, 0x9, b"x"), 1002),
        (vec![0x81, 0x01, b'x'], 1002),
        (frame(true, 0x8, b"x"), 1002),
        (frame(true, TEXT, b"\xff"), 1007),
        (frame(false, TEXT, b"\xed\xa0\x80"), 1007),
    ] {
        let mut client = gateway.raw("");
        client.octets(&octets);
        assert_eq!(client.closed().0, code, "{octets:?}");
    }
    let totals = gateway.until("all ended", |totals| totals["open"] == 0);
    assert_eq!((&totals["closed"]["protocol_error"], &totals["closed"]["bad_utf8"]), (&json!(6), &json!(2)));
}
