//! The way out: who is told what, who is refused, and when the process ends.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use corecast::control::command::{Command, Push};
use corecast::message::{Kind, Name, Target};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::websocket::{CLOSE, TEXT, WebSocket, connect, frame, upgrade};
use crate::harness::{DEADLINE, Gateway};

/// The delay in `reconnect after N ms`.
#[track_caller]
fn delay_ms(closed: &(u16, String)) -> u64 {
    let (code, reason) = closed;
    assert_eq!(*code, 1012, "{reason}");
    let number = reason.strip_prefix("reconnect after ").and_then(|rest| rest.strip_suffix(" ms"));
    number.unwrap_or_else(|| panic!("{reason:?}")).parse().unwrap()
}

#[test]
fn contract_2_sigterm_tells_every_client_1012_with_delays_spread_over_the_drain() {
    let mut gateway = Gateway::start(&["timeouts.drain=4s"]);
    let mut clients: Vec<_> = (0..40).map(|n| gateway.raw(&format!("user=u{n}"))).collect();
    gateway.signal(Signal::TERM);
    let delays: Vec<u64> = clients.iter_mut().map(|client| delay_ms(&client.closed())).collect();
    assert!(delays.iter().all(|&delay| delay < 4000), "{delays:?}");
    for quarter in 0..4 {
        let range = quarter * 1000..(quarter + 1) * 1000;
        let there = delays.iter().filter(|delay| range.contains(*delay)).count();
        assert!((4..=20).contains(&there), "{there} of 40 in {range:?}: {delays:?}");
    }
    assert!(delays.iter().collect::<HashSet<_>>().len() > 30, "{delays:?}");
    assert_eq!(gateway.ended().code(), Some(0));
    let said = gateway.said();
    assert!(said.contains("draining") && said.contains("stopped"), "{said}");
}

#[test]
fn contract_2_corecast_v1_gets_a_reconnect_frame_before_the_close_with_the_same_delay() {
    let mut gateway = Gateway::start(&["timeouts.drain=2s"]);
    let (mut client, _) = gateway.hello("user=ann");
    gateway.signal(Signal::TERM);
    let reconnect = client.expect("reconnect");
    assert!(reconnect["reason"].is_string());
    assert_eq!(json!(delay_ms(&client.closed())), reconnect["after_ms"]);
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn contract_2_what_was_pushed_before_the_drain_arrives_before_the_close() {
    let mut gateway = Gateway::start(&[]);
    let mut client = gateway.raw("topics=t");
    (0..50).for_each(|n| drop(gateway.push(json!({"topic": "t"}), json!(n))));
    gateway.signal(Signal::TERM);
    (0..50).for_each(|n| assert_eq!(client.text(), n.to_string()));
    delay_ms(&client.closed());
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn contract_2_what_was_pushed_together_with_the_drain_arrives_before_the_close() {
    let mut gateway = Gateway::start(&["shards=1"]);
    let mut raw: Vec<_> = (0..20).map(|_| gateway.raw("topics=t")).collect();
    let mut stream = gateway.stream("topics=t");
    let mut control = gateway.client();
    // One write, so that a shard finds all of it in one turn.
    for n in 0..10 {
        let target = Target::Topic(Name::new("t").unwrap());
        let payload = Bytes::from(n.to_string());
        let push = Push { target, kind: Kind::Text, payload, event: None, ttl_ms: None, id: None };
        control.send(&Command::Push(push)).unwrap();
    }
    control.send(&Command::Drain { within_ms: Some(1000) }).unwrap();
    control.flush().unwrap();
    for client in &mut raw {
        (0..10).for_each(|n| assert_eq!(client.text(), n.to_string()));
        delay_ms(&client.closed());
    }
    (0..10).for_each(|n| assert_eq!(stream.next().data, n.to_string()));
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn contract_2_who_comes_during_a_drain_is_503_draining_with_retry_after() {
    let mut gateway = Gateway::start(&["shards=1", "timeouts.drain=5s", "timeouts.close=5s"]);
    // Came before the drain, asks during it.
    let mut late = connect(gateway.address, None, None);
    late.write_all(b"GET /ws HTTP/1.1\r\n").unwrap();
    let mut ready = connect(gateway.address, None, None);
    ready.write_all(b"GET /readyz HTTP/1.1\r\n").unwrap();
    gateway.until("both are accepted", |totals| totals["open"] == 2);
    let mut client = gateway.raw("user=a");
    gateway.signal(Signal::TERM);
    let frame = client.next();
    assert_eq!((frame.opcode, &frame.payload[..2]), (CLOSE, &1012u16.to_be_bytes()[..]));
    let head = upgrade("/ws", "");
    late.write_all(head.split_once("\r\n").unwrap().1.as_bytes()).unwrap();
    let refused = WebSocket::opened(late).err().expect("a refusal");
    assert_eq!(refused.refusal(), (503, "draining".to_owned()));
    assert!(refused.header("retry-after").is_some());
    ready.set_read_timeout(Some(DEADLINE)).unwrap();
    ready.write_all(b"Host: x\r\n\r\n").unwrap();
    assert_eq!(Response::parse(&crate::harness::http::read_to_end(&mut ready)).status, 503);
    drop(client);
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn contract_2_retry_after_is_within_the_time_that_the_drain_was_given() {
    let mut gateway = Gateway::start(&["shards=1", "timeouts.drain=1h"]);
    let mut late = connect(gateway.address, None, None);
    late.write_all(b"GET /ws HTTP/1.1\r\n").unwrap();
    gateway.until("it is accepted", |totals| totals["open"] == 1);
    let mut client = gateway.raw("user=a");
    let mut drain = gateway.cli_command(&["drain", "--within", "3s"]);
    let mut drain = drain.stdout(std::process::Stdio::null()).spawn().unwrap();
    delay_ms(&{
        let frame = client.next();
        let (code, reason) = frame.payload.split_at(2);
        (u16::from_be_bytes([code[0], code[1]]), String::from_utf8(reason.to_vec()).unwrap())
    });
    late.write_all(upgrade("/ws", "").split_once("\r\n").unwrap().1.as_bytes()).unwrap();
    let refused = WebSocket::opened(late).err().expect("a refusal");
    let seconds: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3).contains(&seconds), "{seconds}");
    drop(client);
    assert_eq!(gateway.ended().code(), Some(0));
    drain.wait().unwrap();
}

#[test]
fn issue_6_those_refused_one_after_the_other_during_a_drain_are_spread_over_it() {
    let mut gateway = Gateway::start(&["shards=1", "timeouts.drain=60s", "timeouts.close=60s"]);
    let mut stays = gateway.raw("user=a");
    gateway.signal(Signal::TERM);
    assert_eq!(stays.next().opcode, CLOSE);
    let refused = (0..30).map(|_| {
        let mut stream = connect(gateway.address, None, None);
        stream.write_all(upgrade("/ws", "").as_bytes()).unwrap();
        let refused = WebSocket::opened(stream).err().expect("a refusal");
        refused.header("retry-after").unwrap().parse::<u32>().unwrap()
    });
    let seconds: HashSet<u32> = refused.collect();
    assert!(seconds.iter().all(|seconds| (1..=60).contains(seconds)) && seconds.len() > 20, "{seconds:?}");
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn issue_6_drain_as_json_tells_progress_a_line_and_who_does_not_go_is_cut_at_the_end() {
    let mut gateway = Gateway::start(&["timeouts.close=60s"]);
    let mut goes = gateway.raw("user=a");
    // Reads why, and stays.
    let mut stays = gateway.raw("user=b");
    let mut drain = gateway.cli_command(&["drain", "--within", "1s", "--json"]);
    let drain = drain.stdout(std::process::Stdio::piped()).spawn().unwrap();
    delay_ms(&goes.closed());
    assert_eq!(stays.next().opcode, CLOSE);
    let output = drain.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let lines = String::from_utf8(output.stdout).unwrap();
    let progress: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let left: Vec<u64> = progress.iter().map(|line| line["connections"].as_u64().unwrap()).collect();
    assert!(left.is_sorted_by(|earlier, later| earlier >= later), "{left:?}");
    assert!(left.len() > 3 && left.contains(&1) && left.last() == Some(&0), "{left:?}");
    let took_ms = progress.last().unwrap()["elapsed_ms"].as_u64().unwrap();
    assert!((1000..8000).contains(&took_ms), "{took_ms}");
    assert!(stays.try_frame().is_none(), "it is cut");
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn contract_2_who_does_not_answer_the_close_is_cut_at_the_end_of_the_drain() {
    let mut gateway = Gateway::start(&["timeouts.drain=300ms", "timeouts.close=60s"]);
    let mut client = gateway.raw("user=a");
    let begun = Instant::now();
    gateway.signal(Signal::TERM);
    assert_eq!(client.next().opcode, CLOSE);
    assert_eq!(gateway.ended().code(), Some(0));
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[test]
fn contract_2_who_sends_all_the_while_still_reads_why_it_is_closed() {
    let mut gateway = Gateway::start(&["limits.uplinks_per_second=0", "timeouts.drain=5s"]);
    let mut client = gateway.raw("user=a");
    let mut writer = client.stream.try_clone().unwrap();
    let message = frame(true, TEXT, &[b'x'; 1000]);
    std::thread::scope(|scope| {
        scope.spawn(move || while writer.write_all(&message).is_ok() {});
        gateway.until("it is heard", |totals| totals["uplinks"].as_u64() > Some(10));
        gateway.signal(Signal::TERM);
        // Unread input at the end of a socket would reset it, and take the close frame with it.
        let frame = client.next();
        assert_eq!((frame.opcode, &frame.payload[..2]), (CLOSE, &1012u16.to_be_bytes()[..]));
        client.stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn issue_2_sigterm_twice_ends_at_once_with_status_0() {
    let mut gateway = Gateway::start(&["timeouts.drain=60s", "timeouts.close=60s"]);
    let mut clients = [gateway.raw("user=a"), gateway.raw("user=b")];
    gateway.signal(Signal::TERM);
    clients.iter_mut().for_each(|client| assert_eq!(client.next().opcode, CLOSE));
    // Neither has answered the close: the drain waits for them.
    assert!(gateway.get("/v1/stats")["draining"] == true);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn issue_2_sigint_drains_as_sigterm_does() {
    let mut gateway = Gateway::start(&[]);
    let mut client = gateway.raw("user=a");
    gateway.signal(Signal::INT);
    delay_ms(&client.closed());
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn issue_2_a_gateway_without_clients_ends_at_once() {
    let mut gateway = Gateway::start(&["timeouts.drain=60s"]);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn contract_3_drain_over_http_tells_progress_as_ndjson_until_the_gateway_has_gone() {
    let mut gateway = Gateway::start(&[]);
    let mut client = gateway.raw("user=a");
    let mut stream = UnixStream::connect(&gateway.socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let body = json!({"within_ms": 1500}).to_string();
    let length = body.len();
    write!(stream, "POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    assert!(delay_ms(&client.closed()) < 1500);
    let lines: Vec<String> = BufReader::new(stream).lines().map(Result::unwrap).collect();
    assert_eq!(lines[0], "HTTP/1.1 200 OK");
    let progress = lines.iter().filter(|line| line.starts_with('{'));
    let progress: Vec<Value> = progress.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(progress.iter().all(|line| line["elapsed_ms"].is_u64()), "{lines:?}");
    assert_eq!(progress.last().unwrap()["connections"], 0);
    assert_eq!(lines.iter().rev().find(|line| !line.is_empty()).unwrap(), "0", "the last chunk");
    assert_eq!(gateway.ended().code(), Some(0));
}
