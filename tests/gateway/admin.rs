//! The admin listener (issue 7): what it shows to whom, and that it keeps nobody from the control socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::http::{Response, exchange_tcp, read_to_end};
use crate::harness::{DEADLINE, Gateway, eventually, refused_start, stdout};

const TOKEN: &str = "a-token-of-32-characters-for-test";

/// A gateway with an admin listener, and where that is.
#[track_caller]
pub fn start(settings: &[&str]) -> (Gateway, SocketAddr) {
    let mut gateway = Gateway::start(&[&["admin.listen=127.0.0.1:0"], settings].concat());
    let address = address(&mut gateway);
    (gateway, address)
}

#[track_caller]
pub fn address(gateway: &mut Gateway) -> SocketAddr {
    eventually("it says where the admin listener is", || {
        let said = gateway.said();
        let line = said.lines().find_map(|line| line.strip_prefix("corecast: admin     http://"))?;
        Some(line.strip_suffix('/')?.parse().unwrap())
    })
}

/// One request, `fields` being header lines with their ends; to the end of the connection.
#[track_caller]
fn ask(address: SocketAddr, method: &str, target: &str, fields: &str, body: &str) -> Response {
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{fields}\
         Content-Length: {length}\r\n\r\n{body}"
    );
    exchange_tcp(address, request.as_bytes())
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n")
}

#[test]
fn issue_7_without_admin_listen_there_is_no_admin_listener() {
    let mut gateway = Gateway::start(&[]);
    gateway.signal(Signal::TERM);
    gateway.ended();
    assert!(!gateway.said().contains("corecast: admin"));
}

#[test]
fn issue_7_the_admin_listener_gives_the_same_counters_as_the_control_socket() {
    let (gateway, admin) = start(&[]);
    let _client = gateway.hello("user=a");
    let stats = ask(admin, "GET", "/v1/stats", "", "").ok();
    assert_eq!((&stats["totals"]["connections"], &stats["admin_clients"]), (&json!(1), &json!(1)));
    assert_eq!(stats["control_clients"], 0);
    let metrics = ask(admin, "GET", "/metrics", "", "");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(metrics.text().contains("\ncorecast_admin_clients 1\n"));
}

#[test]
fn issue_7_the_page_comes_whole_with_a_policy_that_allows_only_itself() {
    let (_gateway, admin) = start(&[]);
    let (page, head) = (ask(admin, "GET", "/", "", ""), ask(admin, "HEAD", "/", "", ""));
    assert_eq!((page.status, head.status, head.body.len()), (200, 200, 0));
    assert_eq!(page.headers, head.headers);
    assert!(page.text().starts_with("<!doctype html>"));
    let policy = page.header("content-security-policy").unwrap();
    for rule in ["default-src 'none'", "connect-src 'self'", "script-src 'sha256-", "frame-ancestors 'none'"]
    {
        assert!(policy.contains(rule), "{policy}");
    }
}

#[test]
fn issue_7_push_and_kick_are_done_with_the_token_and_refused_without_it() {
    let (gateway, admin) = start(&[&format!("admin.token={TOKEN}")]);
    let (mut client, hello) = gateway.hello("user=a");
    let body = json!({"to": {"user": "a"}, "data": 7}).to_string();
    let connection = hello["connection"].as_str().unwrap();
    let kick = format!("/v1/connections/{connection}");
    for wrong in ["", &bearer("another-token-of-some-length"), "Authorization: Basic YTpi\r\n"] {
        let answer = ask(admin, "POST", "/v1/push", wrong, &body);
        assert_eq!(answer.refusal(), (401, "unauthorized".to_owned()), "{wrong}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert_eq!(ask(admin, "DELETE", &kick, wrong, "").status, 401);
    }
    let pushed = ask(admin, "POST", "/v1/push", &bearer(TOKEN), &body).ok();
    assert_eq!(pushed["connections"], 1);
    assert_eq!(client.json()["data"], 7);
    assert_eq!(ask(admin, "DELETE", &kick, &bearer(TOKEN), "").ok(), json!({"closed": 1}));
    assert_eq!(client.closed().0, 4500);
    assert_eq!(gateway.get("/v1/stats")["admin_unauthorized"], 6);
}

#[test]
fn issue_7_wrong_tokens_are_logged_at_most_once_a_second_and_never_shown() {
    let (mut gateway, admin) = start(&[&format!("admin.token={TOKEN}")]);
    for _ in 0..20 {
        assert_eq!(ask(admin, "DELETE", "/v1/users/a", &bearer("guess-guess-guess"), "").status, 401);
    }
    assert_eq!(
        ask(admin, "DELETE", "/v1/users/a", &bearer(TOKEN), "").ok(),
        json!({"closed": 0}),
        "no lock-out"
    );
    gateway.signal(Signal::TERM);
    gateway.ended();
    let said = gateway.said();
    let lines = said.matches("a request without the right token was refused").count();
    assert!((1..=5).contains(&lines), "{lines} lines for 20 requests:\n{said}");
    assert!(!said.contains("guess-guess") && !said.contains(TOKEN), "{said}");
}

#[test]
fn issue_7_a_page_elsewhere_reads_nothing_and_changes_nothing() {
    let (_gateway, admin) = start(&[&format!("admin.token={TOKEN}")]);
    let rebound =
        exchange_tcp(admin, b"GET /v1/stats HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert_eq!(rebound.refusal(), (403, "forbidden_host".to_owned()));
    let fields = bearer(TOKEN) + "Origin: http://evil.example\r\n";
    let crossed = ask(admin, "DELETE", "/v1/users/a", &fields, "");
    assert_eq!(crossed.refusal(), (403, "forbidden_origin".to_owned()));
    let own = format!("{}Origin: http://{admin}\r\n", bearer(TOKEN));
    assert_eq!(ask(admin, "DELETE", "/v1/users/a", &own, "").status, 200);
    let preflight = ask(admin, "OPTIONS", "/v1/users/a", "Origin: http://evil.example\r\n", "");
    assert_eq!(preflight.status, 405);
    assert!(preflight.headers.iter().all(|(name, _)| !name.starts_with("access-control")), "{preflight:?}");
}

#[test]
fn issue_7_what_is_not_for_the_admin_listener_is_404_and_the_binary_protocol_is_no_request() {
    let (_gateway, admin) = start(&[&format!("admin.token={TOKEN}")]);
    for (method, path) in
        [("POST", "/v1/drain"), ("GET", "/v1/events"), ("POST", "/v1/tickets"), ("GET", "/v1/topics")]
    {
        let answer = ask(admin, method, path, &bearer(TOKEN), "");
        assert_eq!(answer.refusal(), (404, "not_found".to_owned()), "{path}");
    }
    assert_eq!(exchange_tcp(admin, b"\x01\0\0\0\x0b\r\n\r\n").status, 400);
}

#[test]
fn issue_7_clients_of_the_admin_listener_are_bounded_and_use_up_nothing_of_control_clients() {
    let (gateway, admin) = start(&["admin.clients=2", "control.clients=1"]);
    let held: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(admin).unwrap()).collect();
    gateway.until_stats("both are in", |stats| stats["admin_clients"] == 2);
    assert_eq!(ask(admin, "GET", "/v1/stats", "", "").refusal(), (503, "busy".to_owned()));
    // And the other way round.
    drop(held);
    eventually("both are gone, and nobody is on the control socket", || {
        let answer = ask(admin, "GET", "/v1/stats", "", "");
        (answer.status == 200 && answer.json()["control_clients"] == 0).then_some(())
    });
    let mut local = gateway.client();
    local.call(&corecast::control::command::Command::Version).unwrap();
    assert_eq!(gateway.control("GET", "/v1/stats", "", b"").refusal(), (503, "busy".to_owned()));
    assert!(ask(admin, "GET", "/v1/stats", "", "").ok()["control_clients"].as_u64() >= Some(1));
}

#[test]
fn issue_7_a_flood_on_the_admin_listener_leaves_the_control_socket_as_it_is() {
    let (gateway, admin) = start(&[]);
    let mut client = gateway.raw("user=a");
    let flood: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(admin).unwrap()).collect();
    // 32 are served, 16 are told that it is too many, and the others are closed.
    gateway.until_stats("they are in", |stats| stats["admin_clients"].as_u64() >= Some(32));
    for n in 0..20 {
        assert_eq!(gateway.push(json!({"user": "a"}), json!(n))["connections"], 1);
        assert_eq!(client.text(), n.to_string());
    }
    assert!(gateway.get("/v1/stats")["admin_clients"].as_u64() <= Some(48));
    drop(flood);
    gateway.until_stats("they are gone", |stats| stats["admin_clients"] == 0);
}

#[test]
fn issue_7_a_client_of_the_admin_listener_that_asks_for_nothing_is_let_go() {
    let (_gateway, admin) = start(&["control.request_timeout=300ms"]);
    let mut silent = TcpStream::connect(admin).unwrap();
    silent.set_read_timeout(Some(DEADLINE)).unwrap();
    assert!(read_to_end(&mut silent).is_empty());
    let mut kept = TcpStream::connect(admin).unwrap();
    kept.set_read_timeout(Some(DEADLINE)).unwrap();
    kept.write_all(b"GET /v1/stats HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(read_to_end(&mut kept).starts_with(b"HTTP/1.1 200 OK\r\n"));
}

#[test]
fn issue_7_a_body_longer_than_1_mib_is_refused_by_its_length() {
    let (_gateway, admin) = start(&[&format!("admin.token={TOKEN}")]);
    let head = |length: usize| {
        format!("POST /v1/push HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n")
    };
    assert_eq!(exchange_tcp(admin, head((1 << 20) + 1).as_bytes()).refusal(), (413, "too_large".to_owned()));
    let mut waits = TcpStream::connect(admin).unwrap();
    waits.write_all(head(1 << 20).as_bytes()).unwrap();
    waits.set_nonblocking(true).unwrap();
    let unanswered = waits.read(&mut [0; 16]).unwrap_err();
    assert_eq!(unanswered.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn issue_7_beyond_loopback_the_start_is_refused_without_a_token_with_what_to_type() {
    let (status, said) = refused_start(|command| {
        command.args(["--set", "admin.listen=0.0.0.0:0"]);
    });
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("admin.listen: 0.0.0.0:0 is not a loopback address"), "{said}");
    assert!(said.contains("try: (umask 027; openssl rand -base64 32 >/etc/corecast/admin.token)"), "{said}");
}

#[test]
fn issue_7_a_port_that_is_taken_is_status_14() {
    let (_gateway, admin) = start(&[]);
    let (status, said) = refused_start(|command| {
        command.args(["--listen", "127.0.0.1:0", "--socket", "/nowhere/x.sock", "--set"]);
        command.arg(format!("admin.listen={admin}"));
    });
    assert_eq!(status, 14, "{said}");
    assert!(said.contains(&format!("cannot listen on {admin}: the port is taken")), "{said}");
}

#[test]
fn issue_7_a_token_file_is_read_at_the_start_and_at_a_reload_and_a_bad_one_refuses_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write(&format!("{TOKEN}\n"));
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    let (mut gateway, admin) = start(&[&format!("admin.token_file={}", path.display())]);
    let status = |token: &str| ask(admin, "DELETE", "/v1/users/a", &bearer(token), "").status;
    assert_eq!((status(TOKEN), status("another-token-of-32-characters")), (200, 401));
    write("another-token-of-32-characters\n");
    gateway.signal(Signal::HUP);
    gateway.until_stats("reloaded", |stats| stats["reloads"] == 1);
    assert_eq!((status(TOKEN), status("another-token-of-32-characters")), (401, 200));
    write("short");
    gateway.signal(Signal::HUP);
    gateway.until_stats("refused", |stats| stats["reloads_refused"] == 1);
    assert_eq!(status("another-token-of-32-characters"), 200);
    let said = gateway.said();
    assert!(said.contains("holds no token: has 5 characters, must have 16 to 512"), "{said}");
    assert!(!said.contains("another-token"), "{said}");
}

#[test]
fn issue_7_the_configuration_is_shown_without_the_token_and_what_is_shown_is_none() {
    let gateway = Gateway::start(&[]);
    for arguments in [&["config"][..], &["config", "--json"]] {
        let shown = gateway.cli(&[arguments, &["--set", &format!("admin.token={TOKEN}")]].concat());
        assert!(stdout(&shown).contains("<hidden>") && !stdout(&shown).contains(TOKEN), "{}", stdout(&shown));
    }
    let (status, said) = refused_start(|command| {
        command.args(["--set", "admin.token=<hidden>"]);
    });
    assert_eq!(status, 2);
    assert!(said.contains("<hidden> is what `corecast config` shows in place of a token"), "{said}");
}

#[test]
fn issue_7_counters_at_an_interval_come_over_the_admin_listener_too() {
    let (gateway, admin) = start(&[]);
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET /v1/stats?every=100ms HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut lines = crate::harness::http::Lines::begin(stream);
    let first: Value = lines.next();
    let _client = gateway.hello("user=a");
    let seen = (0..50).map(|_| lines.next()).find(|stats| stats["totals"]["connections"] == 1);
    assert!(seen.expect("within 5 s")["uptime_ms"].as_u64() > first["uptime_ms"].as_u64());
    drop(lines);
    gateway.until_stats("the reader's place is free again", |stats| stats["admin_clients"] == 0);
}
