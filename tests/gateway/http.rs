//! The client port as plain HTTP: what is served, and how strictly the rest is refused.

use std::io::{Read, Write};

use serde_json::json;

use crate::harness::event_stream::EventStream;
use crate::harness::http::{Response, read_to_end};
use crate::harness::poll::Poller;
use crate::harness::websocket::{WebSocket, connect, upgrade};
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
fn contract_2_other_methods_are_405_and_told_which_are_served() {
    let gateway = Gateway::start(&[]);
    for (path, allow) in [
        ("/healthz", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
        ("/sse", "GET, OPTIONS"),
        ("/poll", "GET, OPTIONS"),
        ("/ws", "GET"),
        ("/nothing", "GET"),
    ] {
        for method in ["POST", "PUT", "DELETE", "CONNECT", "BREW"] {
            let answer = gateway.ask(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
            assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
        }
    }
}

#[test]
fn rfc9110_9_3_2_head_gets_what_get_does_without_the_body() {
    let gateway = Gateway::start(&[]);
    for (path, status) in
        [("/healthz", 200), ("/readyz", 200), ("/ws", 405), ("/nothing", 405), ("/poll", 405)]
    {
        let answer = gateway.ask(format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{path}");
        assert!(answer.header("content-length").is_some_and(|length| length != "0"), "{path}");
    }
}

const PAGE: &str = "https://page.example";

/// A request of a page at `origin`.
fn of_page(method: &str, target: &str, origin: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nOrigin: {origin}\r\n\r\n")
}

#[test]
fn contract_2_a_page_of_a_listed_origin_reads_answers_and_refusals_and_another_is_403() {
    let gateway = Gateway::start(&["web.origins=https://page.example,http://localhost:3000", "shards=1"]);
    let mut answers = Vec::new();
    for (target, status) in [("/poll?timeout=0", 200), ("/poll?since=x", 400), ("/sse?user=a,b", 400)] {
        let answer = gateway.ask(of_page("GET", target, PAGE));
        assert_eq!(answer.status, status, "{target}");
        answers.push(answer);
        let refused = gateway.ask(of_page("GET", target, "https://other.example"));
        assert_eq!(refused.refusal(), (403, "forbidden_origin".to_owned()), "{target}");
        assert_eq!(refused.header("access-control-allow-origin"), None);
        assert_eq!(gateway.ask(of_page("GET", target, "null")).status, 403);
    }
    let preflight = gateway.ask(of_page("OPTIONS", "/sse", PAGE));
    assert_eq!((preflight.status, preflight.header("access-control-allow-methods")), (204, Some("GET")));
    answers.push(preflight);
    for answer in &answers {
        assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE), "{answer:?}");
        assert_eq!(answer.header("vary"), Some("Origin"), "{answer:?}");
    }
    assert_eq!(gateway.ask(of_page("OPTIONS", "/poll", "https://other.example")).status, 403);
    let stream = EventStream::open(gateway.address, "/sse", &format!("Origin: {PAGE}\r\n"));
    assert_eq!(stream.header("access-control-allow-origin"), Some(PAGE));
    let program = gateway.stream("");
    assert_eq!(
        (program.header("access-control-allow-origin"), program.header("vary")),
        (None, Some("Origin"))
    );
}

#[test]
fn contract_2_a_websocket_of_another_origin_is_403_before_the_upgrade() {
    let gateway = Gateway::start(&["web.origins=https://page.example"]);
    let status = |origin: &str| {
        let mut stream = connect(gateway.address, None, None);
        stream.write_all(upgrade("/ws", &format!("Origin: {origin}\r\n")).as_bytes()).unwrap();
        match WebSocket::opened(stream) {
            Ok(_) => (101, String::new()),
            Err(refused) => refused.refusal(),
        }
    };
    assert_eq!(status(PAGE).0, 101);
    assert_eq!(status("null"), (403, "forbidden_origin".to_owned()));
    assert_eq!(status("https://page.example.org"), (403, "forbidden_origin".to_owned()));
    drop(gateway.raw("user=program"));
}

#[test]
fn contract_2_without_a_list_any_page_reads_what_it_asked_for() {
    let gateway = Gateway::start(&["limits.connections=1"]);
    let mut client = gateway.stream("topics=t");
    assert_eq!(client.header("access-control-allow-origin"), Some("*"));
    let refused = gateway.ask(of_page("GET", "/poll", PAGE));
    assert_eq!(refused.refusal(), (503, "overloaded".to_owned()));
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
    assert_eq!(refused.header("access-control-expose-headers"), Some("Retry-After"));
    client.stream.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(!client.read());
    gateway.until("let go", |totals| totals["connections"] == 0);
    let answer = gateway.ask(of_page("GET", "/poll?timeout=0", "null"));
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")));
}

#[test]
fn contract_2_held_polls_of_pages_and_programs_get_each_its_own_header() {
    let gateway = Gateway::start(&["web.origins=https://page.example,http://localhost:3000", "shards=1"]);
    let asks = [Some(PAGE), None, Some("http://localhost:3000"), None];
    let mut clients = asks.map(|origin| {
        let line = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
        let mut client = Poller::connect(gateway.address);
        client.send(format!("GET /poll?topics=t HTTP/1.1\r\nHost: x\r\n{line}\r\n"));
        client
    });
    gateway.until("all are held", |totals| totals["polls"] == 4);
    gateway.push(json!({"topic": "t"}), json!({"n": 1}));
    for (client, origin) in clients.iter_mut().zip(asks) {
        let answer = client.answer();
        assert_eq!(answer.header("access-control-allow-origin"), origin);
        assert_eq!(answer.header("vary"), Some("Origin"));
        assert_eq!(answer.json()["messages"][0]["data"], json!({"n": 1}));
    }
}

const PATHS: [&str; 4] = ["/healthz", "/sse", "/poll", "/nothing"];

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
        for path in PATHS {
            let answer = gateway.ask(format!("GET {path} HTTP/1.1\r\n{lines}\r\n"));
            assert_eq!(answer.refusal(), (400, "bad_request".to_owned()), "{path} {lines:?}");
            assert_eq!(answer.header("connection"), Some("close"));
        }
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
    assert_eq!(totals["closed"]["refused"], 15 * PATHS.len() + 8);
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
