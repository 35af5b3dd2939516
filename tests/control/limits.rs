//! The limits of contract section 2's last control row: each reached, each with its named outcome.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use corecast::client::ClientError;
use corecast::config::{ByteSize, Config};
use corecast::control::command::{Command, ErrorCode};

use crate::shard::Gateway;

fn with(change: impl FnOnce(&mut Config)) -> Gateway {
    let mut config = Config::default();
    change(&mut config);
    Gateway::start(config)
}

fn connect(gateway: &Gateway) -> UnixStream {
    let socket = UnixStream::connect(gateway.path()).expect("connects");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    socket
}

/// What comes until the gateway closes.
fn until_closed(socket: &mut UnixStream) -> String {
    let mut text = Vec::new();
    // A close with our bytes unread is a reset: what came before it counts.
    let _ = socket.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn one_client_more_than_control_clients_is_told_busy_and_closed_in_either_protocol() {
    let gateway = with(|config| config.control.clients = 1);
    let mut first = gateway.client();
    first.call(&Command::Version).expect("answered");
    let (status, body) = gateway.curl(&[], "/v1/stats");
    assert!(status == 503 && body.contains("\"busy\""), "{body}");
    let refused = gateway.client().call(&Command::Version).expect_err("refused");
    assert!(matches!(refused, ClientError::Refused(e) if e.code == ErrorCode::Busy));
    let silent = until_closed(&mut connect(&gateway));
    assert!(silent.starts_with("HTTP/1.1 503 "), "{silent}");
    first.call(&Command::Version).expect("undisturbed");
}

#[test]
fn a_peer_that_is_not_allowed_is_forbidden() {
    let gateway = with(|config| config.control.allow_uids = vec![u32::MAX - 7]);
    let (status, body) = gateway.curl(&[], "/v1/stats");
    assert!(status == 403 && body.contains("\"forbidden\""), "{body}");
    let refused = gateway.client().call(&Command::Version).expect_err("refused");
    assert!(matches!(refused, ClientError::Refused(e) if e.code == ErrorCode::Forbidden));
}

#[test]
fn a_body_over_control_body_bytes_is_413_and_one_at_the_limit_is_not() {
    let gateway = with(|config| config.control.body_bytes = ByteSize(100));
    let body = |n: usize| format!("{{\"to\":{{\"all\":true}},\"data\":\"{}\"}}", "x".repeat(n - 29));
    assert_eq!(body(100).len(), 100);
    assert_eq!(gateway.curl(&["--data-binary", &body(100)], "/v1/push").0, 200);
    let (status, answer) = gateway.curl(&["--data-binary", &body(101)], "/v1/push");
    assert!(status == 413 && answer.contains("\"too_large\""), "{answer}");
}

#[test]
fn a_payload_over_limits_message_bytes_is_too_large() {
    let gateway = with(|config| config.limits.message_bytes = ByteSize(8));
    assert_eq!(gateway.curl(&["--data-binary", "12345678"], "/v1/push/all").0, 200);
    let (status, answer) = gateway.curl(&["--data-binary", "123456789"], "/v1/push/all");
    assert!(status == 413 && answer.contains("\"too_large\""), "{answer}");
}

#[test]
fn half_a_request_longer_than_control_request_timeout_is_closed() {
    let gateway = with(|config| config.control.request_timeout = Duration::from_millis(100));
    for half in [
        &b"G"[..],
        b"GET / HTTP/1.1\r\n",
        b"POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n1",
        &[9, 0],
    ] {
        let mut socket = connect(&gateway);
        socket.write_all(half).expect("written");
        assert_eq!(until_closed(&mut socket), "", "{half:?}");
    }
}

#[test]
fn a_client_that_never_reads_its_answers_is_closed() {
    let gateway = with(|config| config.control.reply_bytes = ByteSize(64 * 1024));
    let mut socket = connect(&gateway);
    socket.set_write_timeout(Some(Duration::from_secs(20))).expect("set");
    let requests = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    let closed = (0..1000).find_map(|_| socket.write_all(requests.as_bytes()).err());
    let kind = closed.expect("closed before it could send them all").kind();
    assert!(matches!(kind, std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset), "{kind}");
}

#[test]
fn a_client_that_pauses_in_its_last_answer_still_gets_all_of_it() {
    let gateway = Gateway::default();
    let mut socket = connect(&gateway);
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n";
    // More than the socket holds, so that the last answer waits in the gateway.
    let requests = format!("{request}\r\n").repeat(19) + request + "Connection: close\r\n\r\n";
    socket.write_all(requests.as_bytes()).expect("written");
    // Longer than a client is waited for that only has to go; the pause is what is tested.
    std::thread::sleep(Duration::from_millis(1500));
    let answers = until_closed(&mut socket);
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 20);
    let last = answers.rsplit("\r\n\r\n").next().expect("a body");
    assert!(last.starts_with("# HELP ") && last.ends_with('\n'), "{last}");
    let length = answers.rsplit("Content-Length: ").next().and_then(|rest| rest.split("\r\n").next());
    assert_eq!(length, Some(last.len().to_string().as_str()));
}

#[test]
fn a_malformed_frame_closes_its_client_and_no_other() {
    let gateway = Gateway::default();
    let mut neighbour = gateway.client();
    neighbour.call(&Command::Version).expect("answered");
    for bytes in [&[255; 4][..], &[2, 0, 0, 0, 200, 200], &[0, 0, 0, 0]] {
        let mut socket = connect(&gateway);
        socket.write_all(bytes).expect("written");
        assert_eq!(until_closed(&mut socket), "", "{bytes:?}");
    }
    neighbour.call(&Command::Version).expect("undisturbed");
}

#[test]
fn a_client_that_shut_down_its_sending_half_still_gets_its_answers() {
    let gateway = Gateway::default();
    let mut socket = connect(&gateway);
    socket.write_all(b"GET /v1/users/a HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
    socket.shutdown(std::net::Shutdown::Write).expect("shut down");
    assert!(until_closed(&mut socket).contains("\"online\":true"));
}
