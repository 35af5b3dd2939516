//! `GET /echo`: the subscribers' own path, with limits for conformance suites.

use std::io::Write;

use serde_json::json;

use crate::harness::Gateway;
use crate::harness::websocket::{
    BINARY, CONTINUATION, Frame, PING, PONG, TEXT, WebSocket, frame, header, upgrade,
};

fn echo() -> Gateway {
    Gateway::start(&["web.echo=true", "limits.message_bytes=1KiB", "limits.fragments=4"])
}

fn open(gateway: &Gateway) -> WebSocket {
    WebSocket::open(gateway.address, "/echo", None)
}

fn octets(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + n / 251) as u8).collect()
}

/// Sends while the answer is read: a long one has to be read before all of the question is taken.
fn exchange(client: &mut WebSocket, question: Vec<u8>) -> Frame {
    let mut writer = client.stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(&question).unwrap());
        client.next()
    })
}

#[test]
fn contract_2_echo_gives_back_text_and_binary_of_every_size_whatever_message_bytes_is() {
    let gateway = echo();
    let mut client = open(&gateway);
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537, 1 << 20] {
        for (opcode, payload) in [(BINARY, octets(length)), (TEXT, vec![b't'; length])] {
            let answer = exchange(&mut client, frame(true, opcode, &payload));
            assert!(answer == Frame { opcode, payload }, "{length} octets, opcode {opcode}");
        }
    }
    client.close();
}

#[test]
fn contract_2_echo_gives_back_a_message_of_20_mib() {
    let gateway = echo();
    let mut client = open(&gateway);
    let payload = octets(20 << 20);
    let answer = exchange(&mut client, frame(true, BINARY, &payload));
    assert!(answer == Frame { opcode: BINARY, payload }, "{} octets", answer.payload.len());
}

#[test]
fn contract_2_echo_takes_messages_to_32_mib_and_one_byte_more_is_1009() {
    let gateway = echo();
    let mut client = open(&gateway);
    client.octets(&header(0x80 | BINARY, (32 << 20) + 1));
    assert_eq!(client.closed().0, 1009);
}

#[test]
fn contract_2_echo_joins_fragments_and_answers_pings_between_them() {
    let gateway = echo();
    let mut client = open(&gateway);
    client.octets(&frame(false, TEXT, "é".as_bytes()));
    for n in 0..1000 {
        client.octets(&frame(false, CONTINUATION, format!(" {n}").as_bytes()));
    }
    client.send(PING, b"between");
    assert_eq!(client.next(), Frame { opcode: PONG, payload: b"between".to_vec() });
    client.octets(&frame(true, CONTINUATION, b"."));
    let expected: String = (0..1000).map(|n| format!(" {n}")).collect();
    assert_eq!(client.text(), format!("é{expected}."));
}

#[test]
fn contract_2_echo_pauses_reading_instead_of_cutting_who_does_not_read() {
    let gateway = echo();
    let mut client = open(&gateway);
    let message = frame(true, BINARY, &octets(64 << 10));
    let mut writer = client.stream.try_clone().unwrap();
    let count = 200;
    std::thread::scope(|scope| {
        scope.spawn(move || (0..count).for_each(|_| writer.write_all(&message).unwrap()));
        gateway.until("it is blocked", |totals| totals["blocked"] == 1);
        (0..count).for_each(|_| assert!(client.next().payload == octets(64 << 10)));
    });
    client.close();
}

#[test]
fn contract_2_echo_clients_get_no_pushes_and_are_counted_as_clients() {
    let gateway = echo();
    let mut client = open(&gateway);
    assert_eq!(gateway.push(json!({"all": true}), json!(1))["connections"], 0);
    client.nothing_waits();
    assert_eq!(gateway.totals()["connections"], 1);
}

#[test]
fn contract_2_echo_is_for_loopback_unless_echo_public() {
    let gateway = Gateway::listening(&["web.echo=true"], "0.0.0.0:0");
    assert_eq!(gateway.ask(upgrade("/echo", "")).status, 404);
    let gateway = Gateway::listening(&["web.echo=true", "web.echo_public=true"], "0.0.0.0:0");
    open(&gateway).close();
}

#[test]
fn contract_2_echo_is_for_loopback_on_a_connection_that_moved_between_shards_too() {
    let gateway = Gateway::listening(&["web.echo=true"], "0.0.0.0:0");
    let mut client = crate::polls::poller(&gateway);
    // So many users do not all live where they land.
    (0..24).for_each(|n| drop(client.poll(&format!("timeout=0&user=u{n}"))));
    assert!(gateway.totals()["moved_in"].as_u64() > Some(0));
    client.send(upgrade("/echo", ""));
    assert_eq!(client.answer().status, 404);
}
