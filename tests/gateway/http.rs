//! The client port as plain HTTP: what is served, and how strictly the rest is refused.

use std::io::{Read, Write};

use crate::harness::http::{Response, read_to_end};
use crate::harness::websocket::{connect, upgrade};
use crate::harness::{DEADLINE, Gateway};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

#[test]
fn contract_2_healthz_and_readyz_are_200_while_it_serves() {
    let gateway = Gateway::start(&[]);
    for path in ["/healthz", "/readyz"] {
        let answer = gateway.ask(get(path));
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-length").is_some());
    }
    gateway.until("counted", |totals| totals["closed"]["answered"] == 2);
}

#[test]
fn contract_2_other_paths_are_404_and_echo_is_one_of_them_unless_switched_on() {
    let gateway = Gateway::start(&[]);
    for path in ["/nothing", "/ws/", "/WS", "//ws", "/v1/stats", "/v1/push", "/metrics"] {
        assert_eq!(gateway.ask(get(path)).refusal(), (404, "not_found".to_owned()), "{path}");
    }
    assert_eq!(gateway.ask(upgrade("/echo", "")).refusal(), (404, "not_found".to_owned()));
}

#[test]
fn contract_2_ws_without_an_upgrade_is_426_and_says_to_what() {
    let gateway = Gateway::start(&[]);
    let answer = gateway.ask(get("/ws"));
    assert_eq!(answer.refusal(), (426, "upgrade_required".to_owned()));
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    let old = upgrade("/ws", "").replace("Version: 13", "Version: 8");
    let answer = gateway.ask(old);
    assert_eq!((answer.status, answer.header("sec-websocket-version")), (426, Some("13")));
    let http_1_0 = upgrade("/ws", "").replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(gateway.ask(http_1_0).status, 426, "HTTP/1.0 never upgrades");
}

#[test]
fn contract_2_only_get_is_served() {
    let gateway = Gateway::start(&[]);
    for method in ["POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "BREW"] {
        let answer = gateway.ask(format!("{method} /healthz HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")), "{method}");
    }
}

#[test]
fn contract_2_each_malformed_request_is_400_and_a_close() {
    let gateway = Gateway::start(&[]);
    for lines in [
        "Host: x\r\nContent-Length: 3\r\n",
        "Host: x\r\nTransfer-Encoding: chunked\r\n",
        "Host: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n",
        "Host: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Host: x\r\nContent-Length: -1\r\n",
        "Host: x\r\nTransfer-Encoding: gzip, chunked\r\n",
        "Host : x\r\n",
        "Host: x\r\nA\r\n",
        "Host: x\r\nA: b\rc\r\n",
        "Host: x\r\nA: b\0c\r\n",
        "Host: x\r\nA: b\r\n folded\r\n",
        "Host: x\nA: b\r\n",
        "Host: x\r\n: b\r\n",
        "",
        "Host: x\r\nHost: x\r\n",
    ] {
        let answer = gateway.ask(format!("GET /healthz HTTP/1.1\r\n{lines}\r\n"));
        assert_eq!(answer.refusal(), (400, "bad_request".to_owned()), "{lines:?}");
        assert_eq!(answer.header("connection"), Some("close"));
    }
    for request in [
        "GET /healthz HTTP/1.1\nHost: x\n\n",
        "GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n",
        "GET  /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03",
        " GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        assert_eq!(gateway.ask(request).refusal(), (400, "bad_request".to_owned()), "{request:?}");
    }
    let totals = gateway.until("all ended", |totals| totals["open"] == 0);
    assert_eq!(totals["closed"]["refused"], 23);
}

#[test]
fn rfc6455_4_2_1_each_broken_handshake_is_refused() {
    let gateway = Gateway::start(&[]);
    let good = upgrade("/ws", "");
    for (was, is, status) in [
        ("Upgrade: websocket", "Upgrade: h2c", 426),
        ("Connection: Upgrade", "Connection: close", 400),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: short", 400),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ("Sec-WebSocket-Version: 13\r\n", "", 426),
    ] {
        assert!(good.contains(was));
        assert_eq!(gateway.ask(good.replace(was, is)).status, status, "{is:?}");
    }
}

#[test]
fn contract_2_a_refusal_reaches_a_client_that_is_still_sending() {
    let gateway = Gateway::start(&[]);
    let mut stream = connect(gateway.address, None, None);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // Far more than is read before the answer: closing at once would reset it away.
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n").unwrap();
    let _ = stream.write_all(&[b'x'; 100_000]);
    assert_eq!(Response::parse(&read_to_end(&mut stream)).status, 405);
}

#[test]
fn contract_2_a_head_that_comes_octet_by_octet_is_the_same() {
    let gateway = Gateway::start(&[]);
    let mut stream = connect(gateway.address, None, None);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    for octet in upgrade("/ws?user=ann&topics=t", "").bytes() {
        stream.write_all(&[octet]).unwrap();
    }
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 101");
}

#[test]
fn contract_2_listens_on_ipv6_too() {
    let gateway = Gateway::listening(&[], "[::1]:0");
    assert_eq!(gateway.ask(get("/healthz")).status, 200);
}
