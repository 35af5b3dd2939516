//! Heartbeats: as often as asked for within bounds, answered or cut.

use serde_json::json;

use crate::harness::Gateway;
use crate::harness::websocket::{PING, PONG};

const EVERY_SECOND: &str = "timeouts.heartbeat_min=1s";

#[test]
fn contract_2_pings_come_every_heartbeat_seconds_and_a_pong_keeps_alive() {
    let gateway = Gateway::start(&[EVERY_SECOND, "timeouts.pong=500ms"]);
    let mut client = gateway.raw("heartbeat=1");
    let begun = std::time::Instant::now();
    for _ in 0..3 {
        let ping = client.try_frame().expect("alive");
        assert_eq!(ping.opcode, PING);
        client.send(PONG, &ping.payload);
    }
    // The first within a second, at the slot's own phase; the others a second apart.
    let elapsed = begun.elapsed().as_secs_f64();
    assert!((1.5..6.0).contains(&elapsed), "three pings within {elapsed} s");
    client.nothing_waits();
    let totals = gateway.until("pongs are counted", |totals| totals["pongs"].as_u64() >= Some(3));
    assert_eq!(totals["closed"]["heartbeat_missed"], 0);
}

#[test]
fn contract_2_a_missed_heartbeat_closes_with_4001() {
    let gateway = Gateway::start(&[EVERY_SECOND, "timeouts.pong=200ms"]);
    let mut client = gateway.raw("heartbeat=1");
    assert_eq!(client.try_frame().unwrap().opcode, PING);
    assert_eq!(client.closed().0, 4001);
    gateway.until("counted", |totals| totals["closed"]["heartbeat_missed"] == 1);
}

#[test]
fn contract_2_whatever_a_client_sends_answers_a_ping() {
    let gateway = Gateway::start(&[EVERY_SECOND, "timeouts.pong=500ms"]);
    let mut client = gateway.raw("heartbeat=1");
    for _ in 0..2 {
        assert_eq!(client.try_frame().unwrap().opcode, PING);
        client.send(crate::harness::websocket::TEXT, b"alive");
    }
    assert_eq!(client.try_frame().unwrap().opcode, PING);
}

#[test]
fn contract_2_heartbeat_is_clamped_to_the_bounds_and_hello_says_to_what() {
    let gateway = Gateway::start(&[]);
    for (query, seconds) in [
        ("", 60),
        ("heartbeat=9", 10),
        ("heartbeat=10", 10),
        ("heartbeat=599", 599),
        ("heartbeat=600", 600),
        ("heartbeat=601", 600),
        ("heartbeat=0", 10),
        ("heartbeat=99999999999999999999", 600),
    ] {
        let (_, hello) = gateway.hello(query);
        assert_eq!(hello["heartbeat"], json!(seconds), "{query}");
    }
}

#[test]
fn contract_2_a_heartbeat_that_is_no_number_is_400() {
    let gateway = Gateway::start(&[]);
    for value in ["", "-1", "1.5", "soon"] {
        let request = crate::harness::websocket::upgrade(&format!("/ws?heartbeat={value}"), "");
        assert_eq!(gateway.ask(request).refusal(), (400, "bad_request".to_owned()), "{value:?}");
    }
}
