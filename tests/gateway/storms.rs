//! Many at once that do no good: the counters add up, and nothing of them stays.

use serde_json::{Value, json};

use crate::harness::Gateway;
use crate::harness::websocket::{TEXT, WebSocket, connect, frame, reset, upgrade};

fn descriptors(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count()
}

fn closed_sum(totals: &Value) -> u64 {
    totals["closed"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

/// Waits until `count` have come and gone without a trace.
#[track_caller]
fn assert_gone(gateway: &Gateway, count: u64, descriptors_before: usize) {
    let totals = gateway.until("all have gone", |totals| totals["accepted"] == count && totals["open"] == 0);
    assert_eq!(closed_sum(&totals), count, "{totals}");
    for name in ["connections", "users", "topics", "blocked"] {
        assert_eq!(totals[name], 0, "{name}: {totals}");
    }
    crate::harness::eventually("the descriptors are back", || {
        (descriptors(gateway) <= descriptors_before).then_some(())
    });
}

/// Without limits that would refuse them first. Descriptors before the first client: one control
/// connection was there and has gone.
fn gateway() -> (Gateway, usize) {
    let gateway = Gateway::start(&["limits.connects_per_second=0"]);
    gateway.totals();
    let settled = || (gateway.get("/v1/stats")["control_clients"] == 1).then(|| descriptors(&gateway));
    let before = crate::harness::eventually("control has one client", settled);
    (gateway, before)
}

#[test]
fn design_6_500_clients_that_reset_at_once_leave_nothing() {
    let (gateway, before) = gateway();
    let clients: Vec<WebSocket> =
        (0..500).map(|n| gateway.raw(&format!("user=u{n}&topics=t,t{n}"))).collect();
    assert_eq!(gateway.totals()["connections"], 500);
    clients.into_iter().for_each(|client| reset(client.stream));
    assert_gone(&gateway, 500, before);
}

#[test]
fn design_6_200_clients_that_vanish_in_the_handshake_leave_nothing() {
    let (gateway, before) = gateway();
    let head = upgrade("/ws?user=a", "");
    for n in 0..200 {
        use std::io::Write;
        let mut stream = connect(gateway.address, None, None);
        stream.write_all(&head.as_bytes()[..head.len() * (n % 20) / 20]).unwrap();
        if n % 2 == 0 { reset(stream) } else { drop(stream) }
    }
    assert_gone(&gateway, 200, before);
}

#[test]
fn design_6_clients_that_go_while_everybody_is_pushed_to_leave_nothing() {
    let (gateway, before) = gateway();
    let mut stays = gateway.raw("topics=t");
    let pushed = std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            for n in 0..300 {
                let mut client = gateway.raw(&format!("user=u{}&topics=t", n % 7));
                client.octets(&frame(n % 3 == 0, TEXT, b"half a message"));
                if n % 2 == 0 { reset(client.stream) } else { drop(client) }
            }
        });
        let mut pushed = 0;
        while !storm.is_finished() {
            gateway.push(json!({"topic": "t"}), json!(pushed));
            assert_eq!(stays.text(), pushed.to_string());
            pushed += 1;
        }
        pushed
    });
    assert!(pushed > 0);
    stays.nothing_waits();
    stays.close();
    assert_gone(&gateway, 301, before);
}

#[test]
fn contract_2_octets_of_noise_end_no_gateway() {
    let (gateway, before) = gateway();
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut noise = |length: usize| -> Vec<u8> {
        let next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    };
    for n in 0..100 {
        use std::io::Write;
        let mut stream = connect(gateway.address, None, None);
        let _ = stream.write_all(&noise(n * 10));
        drop(stream);
        let mut client = gateway.raw("");
        let _ = client.stream.write_all(&noise(n * 10 + 1));
    }
    assert_gone(&gateway, 200, before);
    gateway.raw("user=after").close();
}
