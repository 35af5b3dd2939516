//! A full descriptor table: control goes on, and so does the gateway (issue 6).

use std::net::TcpStream;
use std::process::{Command, Stdio};

use bytes::Bytes;
use corecast::control::command::{Command as Asked, Push};
use corecast::message::{Kind, Name, Target};
use rustix::process::Signal;
use serde_json::json;

use crate::harness::websocket::connect;
use crate::harness::{Gateway, corecast, eventually, stdout};

/// A gateway that may have this many descriptors.
fn limited(nofile: u32, settings: &[&str]) -> Gateway {
    Gateway::prepared(settings, "127.0.0.1:0", |command| {
        let program = corecast().get_program().to_owned();
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut shell = Command::new("/bin/sh");
        shell.env_clear().stdin(Stdio::null());
        shell.args(["-c", &format!("ulimit -n {nofile}; exec \"$0\" \"$@\"")]).arg(program).args(arguments);
        *command = shell;
    })
}

/// Connects and says nothing, `count` times.
fn silent(gateway: &Gateway, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| connect(gateway.address, None, None)).collect()
}

#[test]
fn issue_6_control_works_while_client_sockets_fill_the_descriptor_limit() {
    let gateway = limited(600, &["timeouts.handshake=60s"]);
    let mut client = gateway.raw("user=a");
    let crowd = silent(&gateway, 600);
    let totals = gateway.until("all are accepted", |totals| totals["accepted"] == 601);
    // 600 less half of the reserve of 256.
    assert_eq!((&totals["open"], &totals["closed"]["refused"]), (&json!(472), &json!(129)));
    // As many clients of control as there may be, each with an answer.
    let mut clients: Vec<_> = (0..60).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.call(&Asked::Stats).unwrap();
    }
    assert_eq!(gateway.push(json!({"user": "a"}), json!("hello"))["connections"], 1);
    assert_eq!(client.text(), "\"hello\"");
    assert!(stdout(&gateway.cli(&["stats"])).contains("serving"));
    gateway.signal(Signal::HUP);
    gateway.until_stats("it is reloaded", |stats| stats["reloads"] == 1);
    drop((clients, crowd));
    gateway.until("they have gone", |totals| totals["open"] == 1);
    gateway.raw("user=b").close();
    client.close();
}

#[test]
fn issue_6_no_descriptor_left_to_accept_with_is_survived_under_load() {
    let mut gateway = limited(300, &["timeouts.handshake=60s", "shards=1"]);
    let mut client = gateway.raw("topics=t");
    let mut control = gateway.client();
    // More than there are descriptors, all accepted by the kernel in one go: the shard can close what is too
    // much only behind that.
    stop(&gateway);
    let crowd = silent(&gateway, 500);
    gateway.signal(Signal::CONT);
    // Who is there already goes on.
    for number in 0..200 {
        assert_eq!(control.push(push(number)).unwrap().connections, 1);
        assert_eq!(client.text(), number.to_string());
    }
    let totals = gateway.until("all are accepted", |totals| totals["accepted"] == 501);
    // 300 less half of the reserve of 256.
    assert_eq!((&totals["open"], &totals["closed"]["refused"]), (&json!(172), &json!(329)));
    drop(crowd);
    gateway.until("the crowd has gone", |totals| totals["open"] == 1);
    gateway.raw("user=late").close();
    client.close();
    let errors = gateway.totals()["accept_errors"]["EMFILE"].as_u64().unwrap();
    // Backing off: not once a turn.
    assert!((1..100).contains(&errors), "{errors}");
    // All that it has said is there once it has ended.
    gateway.signal(Signal::TERM);
    gateway.ended();
    let said = gateway.said();
    // The shard's lines: control, which was told the same meanwhile or not, has its own.
    let lines = said.matches("accepting: cannot accept: Too many open files").count();
    assert!((1..=1 + errors.ilog2() as usize + 1).contains(&lines), "{said}");
}

/// Stops every thread of the gateway. The signal alone only tells them to: one of them may go on accepting meanwhile.
#[track_caller]
fn stop(gateway: &Gateway) {
    gateway.signal(Signal::STOP);
    let stopped = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    };
    eventually("all threads are stopped", || {
        let mut tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
        tasks.all(stopped).then_some(())
    });
}

fn push(number: u32) -> Push {
    Push {
        target: Target::Topic(Name::new("t").unwrap()),
        kind: Kind::Text,
        payload: Bytes::from(number.to_string()),
        event: None,
        ttl_ms: None,
        id: None,
    }
}
