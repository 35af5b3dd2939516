//! What is refused before a client is let in, each with its status, and each limit just kept.

use std::io::Write;
use std::net::SocketAddr;

use serde_json::json;

use crate::harness::Gateway;
use crate::harness::http::{Response, read_to_end};
use crate::harness::websocket::{WebSocket, connect, reset, upgrade};

/// Opens `/ws` with these header lines more; the status.
#[track_caller]
fn status(gateway: &Gateway, target: &str, more: &str) -> (u16, String) {
    let mut stream = connect(gateway.address, None, None);
    let _ = stream.write_all(upgrade(target, more).as_bytes());
    match WebSocket::opened(stream) {
        Ok(_) => (101, String::new()),
        Err(refused) => refused.refusal(),
    }
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn established() -> (u16, String) {
    (101, String::new())
}

#[test]
fn contract_2_half_a_head_within_timeouts_handshake_is_408() {
    let gateway = Gateway::start(&["timeouts.handshake=300ms"]);
    let mut stream = connect(gateway.address, None, None);
    stream.set_read_timeout(Some(crate::harness::DEADLINE)).unwrap();
    stream.write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\n").unwrap();
    let response = Response::parse(&read_to_end(&mut stream));
    assert_eq!(response.refusal(), refused(408, "handshake_timeout"));
    drop(stream);
    gateway.until("counted", |totals| totals["closed"]["handshake_timeout"] == 1);
}

#[test]
fn contract_2_who_says_nothing_within_timeouts_handshake_is_closed_without_a_word() {
    let gateway = Gateway::start(&["timeouts.handshake=300ms"]);
    let mut stream = connect(gateway.address, None, None);
    stream.set_read_timeout(Some(crate::harness::DEADLINE)).unwrap();
    assert_eq!(read_to_end(&mut stream), b"");
}

#[test]
fn contract_2_the_handshake_deadline_is_absolute_not_since_the_last_octet() {
    let gateway = Gateway::start(&["timeouts.handshake=500ms"]);
    let mut stream = connect(gateway.address, None, None);
    let begun = std::time::Instant::now();
    let head = upgrade("/ws", &format!("X: {}\r\n", "x".repeat(4000)));
    // A trickle that never pauses for long: it is cut off all the same.
    let trickled = head.bytes().take_while(|&octet| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        stream.write_all(&[octet]).is_ok() && begun.elapsed() < crate::harness::DEADLINE
    });
    assert!(trickled.count() < head.len());
    assert!(begun.elapsed() < crate::harness::DEADLINE);
}

#[test]
fn contract_2_a_head_of_head_bytes_passes_and_one_byte_more_is_431() {
    let gateway = Gateway::start(&["limits.head_bytes=512"]);
    let padding = |total: usize| {
        let empty = upgrade("/ws", "X-Padding: \r\n").len();
        format!("X-Padding: {}\r\n", "x".repeat(total - empty))
    };
    assert_eq!(status(&gateway, "/ws", &padding(512)), established());
    assert_eq!(status(&gateway, "/ws", &padding(513)), refused(431, "head_too_large"));
}

#[test]
fn contract_2_header_lines_pass_up_to_the_limit_and_one_more_is_431() {
    let gateway = Gateway::start(&[]);
    let own = upgrade("/ws", "").lines().count() - 2;
    assert_eq!(status(&gateway, "/ws", &"X: y\r\n".repeat(64 - own)), established());
    assert_eq!(status(&gateway, "/ws", &"X: y\r\n".repeat(65 - own)), refused(431, "head_too_large"));
}

#[test]
fn contract_2_a_target_of_target_bytes_passes_and_one_byte_more_is_414() {
    let gateway = Gateway::start(&[]);
    let target = |bytes: usize| format!("/ws?x={}", "x".repeat(bytes - "/ws?x=".len()));
    assert_eq!(status(&gateway, &target(2048), ""), established());
    assert_eq!(status(&gateway, &target(2049), ""), refused(414, "target_too_long"));
}

#[test]
fn contract_2_topics_of_a_request_pass_up_to_topics_per_connection_and_one_more_is_400() {
    let gateway = Gateway::start(&[]);
    let topics = |count| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>().join(",");
    assert_eq!(status(&gateway, &format!("/ws?topics={}", topics(128)), ""), established());
    assert_eq!(status(&gateway, &format!("/ws?topics={}", topics(129)), ""), refused(400, "bad_request"));
}

#[test]
fn contract_1_user_and_topics_are_1_to_128_bytes_without_spaces_commas_or_controls() {
    let gateway = Gateway::start(&[]);
    for (query, expected) in [
        (format!("user={}", "x".repeat(128)), established()),
        (format!("user={}", "x".repeat(129)), refused(400, "bad_user")),
        ("user=".to_owned(), refused(400, "bad_user")),
        ("user=a%20b".to_owned(), refused(400, "bad_user")),
        ("user=a%2Cb".to_owned(), refused(400, "bad_user")),
        ("user=a%0Ab".to_owned(), refused(400, "bad_user")),
        ("user=%ff".to_owned(), refused(400, "bad_request")),
        ("user=%C3%A9%2F".to_owned(), established()),
        (format!("topics=a,{}", "x".repeat(128)), established()),
        (format!("topics=a,{}", "x".repeat(129)), refused(400, "bad_topic")),
        ("topics=a,,b".to_owned(), refused(400, "bad_topic")),
        ("topics=a%20b".to_owned(), refused(400, "bad_topic")),
        ("since=yesterday".to_owned(), refused(400, "bad_request")),
    ] {
        assert_eq!(status(&gateway, &format!("/ws?{query}"), ""), expected, "{query}");
    }
}

#[test]
fn contract_2_an_anonymous_client_is_401_where_the_mode_does_not_allow_it() {
    let gateway = Gateway::start(&["auth.anonymous=false"]);
    assert_eq!(status(&gateway, "/ws", ""), refused(401, "unauthorized"));
    assert_eq!(status(&gateway, "/ws?user=a", ""), established());
}

#[test]
fn contract_2_one_client_more_than_limits_connections_is_503_until_one_leaves() {
    let gateway = Gateway::start(&["limits.connections=3"]);
    // Over all shards, not for each.
    let users = [gateway.user_on(0), gateway.user_on(1), "anybody".to_owned()];
    gateway.until("those have left", |totals| totals["connections"] == 0);
    let mut clients: Vec<_> = users.iter().map(|user| gateway.raw(&format!("user={user}"))).collect();
    let stream = connect(gateway.address, None, None);
    let response = WebSocket::try_open_on(stream, "/ws", None).err().expect("one too many");
    assert_eq!(response.refusal(), refused(503, "overloaded"));
    let seconds: u32 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    clients.pop().unwrap().close();
    gateway.until("one has left", |totals| totals["connections"] == 2);
    gateway.raw("user=next");
}

/// Upgrades from this address of the host's own network.
fn from(gateway: &Gateway, source: &str) -> Result<WebSocket, Response> {
    let source: SocketAddr = format!("{source}:0").parse().unwrap();
    WebSocket::try_open_on(connect(gateway.address, None, Some(source)), "/ws", None)
}

#[test]
fn contract_2_one_connection_more_than_connections_per_address_is_429_over_all_shards() {
    let gateway = Gateway::start(&["limits.connections_per_address=3"]);
    let clients: Vec<_> = (0..3).map(|_| from(&gateway, "127.0.0.2").ok().unwrap()).collect();
    let response = from(&gateway, "127.0.0.2").err().expect("one too many");
    assert_eq!(response.refusal(), refused(429, "too_many_connections"));
    assert!(from(&gateway, "127.0.0.3").is_ok(), "another address is another");
    drop(clients);
    gateway.until("they have left", |totals| totals["connections"] == 0);
    assert!(from(&gateway, "127.0.0.2").is_ok());
}

#[test]
fn contract_2_addresses_in_limits_trusted_are_not_counted() {
    let gateway =
        Gateway::start(&["limits.connections_per_address=1", "limits.trusted=10.0.0.0/8,127.0.0.2/32"]);
    let trusted: Vec<_> = (0..5).map(|_| from(&gateway, "127.0.0.2")).collect();
    assert!(trusted.iter().all(Result::is_ok));
    let _one = from(&gateway, "127.0.0.3").ok().unwrap();
    assert!(from(&gateway, "127.0.0.3").is_err());
}

#[test]
fn contract_2_more_than_connects_per_second_with_its_burst_are_503_with_retry_after() {
    let gateway = Gateway::start(&["shards=1", "limits.connects_per_second=1"]);
    let _burst = (gateway.raw(""), gateway.raw(""));
    // A slow machine may be given another token or two meanwhile.
    let response = (0..100)
        .find_map(|_| WebSocket::try_open_on(connect(gateway.address, None, None), "/ws", None).err());
    let response = response.expect("the burst is two");
    assert_eq!(response.refusal(), refused(503, "overloaded"));
    assert!(response.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
}

#[test]
fn contract_2_a_refused_client_that_resets_is_counted_once_as_refused() {
    let gateway = Gateway::start(&[]);
    let mut stream = connect(gateway.address, None, None);
    stream.write_all(b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    reset(stream);
    let totals = gateway.until("ended", |totals| totals["accepted"] == 1 && totals["open"] == 0);
    let closed: u64 = totals["closed"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(closed, 1, "{totals}");
    assert_eq!(totals["connections"], json!(0));
}
