//! The command line against a running gateway: output and exit statuses. What needs none is in tests/cli.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Output, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Gateway, stderr, stdout};

/// Standard output of a command that must succeed.
#[track_caller]
fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    assert_eq!(stderr(output), "");
    stdout(output).to_owned()
}

#[track_caller]
fn done_json(output: &Output) -> Value {
    serde_json::from_str(&done(output)).unwrap()
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn contract_4_push_delivers_and_prints_position_and_reach() {
    let gateway = Gateway::start(&[]);
    let (mut client, hello) = gateway.hello("user=ann&topics=t");
    let connection = hello["connection"].as_str().unwrap();
    for to in [
        &["--user", "ann"][..],
        &["--users", "ann,bob"],
        &["--topic", "t"],
        &["--connection", connection],
        &["--all"],
    ] {
        let printed = done(&gateway.cli(&[&["push"], to, &["hello"]].concat()));
        let message = client.expect("message");
        assert_eq!(message["data"], "hello");
        assert_eq!(printed, format!("position {}, 1 connection\n", message["position"].as_str().unwrap()));
    }
    assert!(done(&gateway.cli(&["push", "--user", "nobody", "x"])).ends_with(", 0 connections\n"));
}

#[test]
fn issue_7_stats_every_prints_what_happens_a_second_until_the_gateway_goes() {
    let mut gateway = Gateway::start(&[]);
    let follow = |arguments: &[&str]| {
        let arguments = [&["stats", "--every", "100ms"], arguments].concat();
        let mut command = gateway.cli_command(&arguments);
        let mut child = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        (child, lines)
    };
    let (_text, mut text) = follow(&[]);
    let (mut json, mut lines) = follow(&["--json"]);
    let head = text.next().unwrap();
    assert!(head.ends_with("PENDING BLOCKED") && head.chars().count() == 80, "{head}");
    assert_eq!(text.next().unwrap().split_whitespace().collect::<Vec<_>>(), ["0"; 8]);
    let _client = gateway.raw("user=ann");
    let seen = |line: String| serde_json::from_str::<Value>(&line).unwrap()["totals"]["connections"] == 1;
    assert!(lines.by_ref().take(50).any(seen));
    assert!(text.by_ref().take(50).any(|line| line.split_whitespace().next() == Some("1")));
    gateway.signal(Signal::KILL);
    gateway.ended();
    assert!(lines.all(|line| line.starts_with('{')));
    let status = json.0.wait().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn contract_4_push_takes_kinds_input_id_and_prints_json() {
    let gateway = Gateway::start(&[]);
    let (mut client, _) = gateway.hello("user=ann");
    let printed =
        done_json(&gateway.cli(&["push", "--user", "ann", "--json", "--output", "json", r#"{"n":1}"#]));
    let message = client.expect("message");
    assert_eq!((&message["data"], &message["position"]), (&json!({"n": 1}), &printed["position"]));
    assert_eq!(printed["connections"], 1);
    let mut child = gateway
        .cli_command(&["push", "--user", "ann", "--binary", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"\0\xff").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(client.expect("message")["data"], "AP8=");
    let keyed = || done(&gateway.cli(&["push", "--user", "ann", "--id", "k", "--ttl", "60s", "once"]));
    assert_eq!(keyed(), keyed());
    assert_eq!(client.expect("message")["data"], "once");
    client.nothing_waits();
}

#[test]
fn contract_4_a_refused_push_is_status_1_and_says_why_on_stderr() {
    let gateway = Gateway::start(&["limits.message_bytes=8"]);
    for (arguments, code) in
        [(&["--all", "--json", "{"][..], "bad_payload"), (&["--all", "123456789"], "too_large")]
    {
        let output = gateway.cli(&[&["push"], arguments].concat());
        assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
        assert!(stderr(&output).starts_with(&format!("corecast: refused: {code}: ")), "{}", stderr(&output));
    }
}

#[test]
fn contract_4_push_lines_pushes_each_line_as_it_comes_and_tells_the_refused_ones() {
    let gateway = Gateway::start(&[]);
    let mut client = gateway.raw("topics=t");
    let mut command = gateway.cli_command(&["push", "--topic", "t", "--json", "--lines"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // Each is there before the next is written.
    for n in 0..3 {
        writeln!(input, "{n}").unwrap();
        assert_eq!(client.text(), n.to_string());
    }
    write!(input, "not json\n\n[\"last\"]").unwrap();
    drop(input);
    assert_eq!(client.text(), "[\"last\"]");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("line 4") && stderr(&output).contains("bad_payload"),
        "{}",
        stderr(&output)
    );
    assert!(stderr(&output).contains("1 of 5 pushes"), "{}", stderr(&output));
}

#[test]
fn contract_4_push_lines_takes_many_lines_in_order() {
    let gateway = Gateway::start(&["limits.send_backlog_bytes=16MiB"]);
    let mut client = gateway.raw("topics=t");
    let mut command = gateway.cli_command(&["push", "--topic", "t", "--lines", "--output", "json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines: String = (0..5000).map(|n| format!("line {n}\n")).collect();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    (0..5000).for_each(|n| assert_eq!(client.text(), format!("line {n}")));
    let output = child.wait_with_output().unwrap();
    let printed = done_json(&Output { stderr: Vec::new(), ..output });
    assert_eq!((&printed["accepted"], &printed["refused"]), (&json!(5000), &json!(0)), "{printed}");
}

#[test]
fn contract_4_who_and_topics_list_what_is_there() {
    let gateway = Gateway::start(&[]);
    assert_eq!(done(&gateway.cli(&["who", "ann"])), "ann: no connections\n");
    assert_eq!(done(&gateway.cli(&["topics"])), "no topics\n");
    let (_client, hello) = gateway.hello("user=ann&topics=news");
    let who = done(&gateway.cli(&["who", "ann"]));
    assert!(who.starts_with("ann: 1 connection\n"), "{who}");
    assert!(who.contains(hello["connection"].as_str().unwrap()) && who.ends_with("news\n"), "{who}");
    let who = done_json(&gateway.cli(&["who", "ann", "--json"]));
    assert_eq!((&who["online"], &who["connections"][0]["id"]), (&json!(true), &hello["connection"]));
    let topics = done(&gateway.cli(&["topics"]));
    assert_eq!(
        topics.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>(),
        ["news", "1", "0", "-"]
    );
    let topic = done_json(&gateway.cli(&["topics", "news", "--json"]));
    assert_eq!(topic, json!({"topic": "news", "connections": 1, "position": null, "pushes": 0}));
}

#[test]
fn contract_4_kick_bind_and_unbind_do_and_count() {
    let gateway = Gateway::start(&[]);
    let (mut client, hello) = gateway.hello("user=ann");
    assert_eq!(done(&gateway.cli(&["bind", "ann", "t"])), "bound 1 connection\n");
    assert_eq!(gateway.push(json!({"topic": "t"}), json!(1))["connections"], 1);
    client.expect("message");
    assert_eq!(done(&gateway.cli(&["unbind", "ann", "t"])), "unbound 1 connection\n");
    assert_eq!(gateway.push(json!({"topic": "t"}), json!(1))["connections"], 0);
    let id = hello["connection"].as_str().unwrap();
    let kicked = gateway.cli(&["kick", "--connection", id, "--code", "4600", "--reason", "bye"]);
    assert_eq!(done(&kicked), "closed 1 connection\n");
    assert_eq!(client.closed(), (4600, "bye".to_owned()));
    let mut client = gateway.raw("user=ann");
    assert_eq!(done_json(&gateway.cli(&["kick", "--user", "ann", "--json"])), json!({"closed": 1}));
    assert_eq!(client.closed().0, 4500);
}

#[test]
fn contract_4_events_prints_one_json_object_a_line_until_the_gateway_goes() {
    let mut gateway = Gateway::start(&[]);
    let mut command =
        gateway.cli_command(&["events", "--types", "connect,uplink", "--user", "ann", "--topic", "news/*"]);
    let mut child = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    gateway.until_stats("it listens", |stats| stats["requests"]["events"]["done"] == 1);
    gateway.totals();
    let _others = [gateway.raw("user=bob&topics=news/1"), gateway.raw("user=ann&topics=sport")];
    let (mut client, _) = gateway.hello("user=ann&topics=news/1");
    client.send_json(&json!({"type": "uplink", "topic": "news/2", "data": "hi"}));
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap()).unwrap();
    let (connect, uplink) = (next(), next());
    assert_eq!((&connect["type"], &connect["user"]), (&json!("connect"), &json!("ann")));
    assert_eq!((&uplink["type"], &uplink["data"]), (&json!("uplink"), &json!("hi")));
    gateway.signal(Signal::KILL);
    gateway.ended();
    assert_eq!(child.0.wait().unwrap().code(), Some(1), "it did not end because it was asked to");
}

#[test]
fn contract_4_stats_shows_the_counters() {
    let gateway = Gateway::start(&[]);
    let _client = gateway.raw("user=ann");
    let text = done(&gateway.cli(&["stats"]));
    assert!(
        text.contains(env!("CARGO_PKG_VERSION")) && text.contains(gateway.socket.to_str().unwrap()),
        "{text}"
    );
    let stats = done_json(&gateway.cli(&["stats", "--json"]));
    let connections =
        stats["shards"].as_array().unwrap().iter().map(|shard| shard["connections"].as_u64().unwrap());
    assert_eq!(connections.sum::<u64>(), 1);
    assert_eq!(stats["shards"][0]["closed"]["kicked"], 0);
}

#[test]
fn contract_3_the_environment_names_the_socket_and_the_flag_beats_it() {
    let gateway = Gateway::start(&[]);
    let mut command = crate::harness::corecast();
    assert_eq!(
        command.arg("topics").env("CORECAST_SOCKET", &gateway.socket).output().unwrap().status.code(),
        Some(0)
    );
    let mut command = gateway.cli_command(&["topics"]);
    assert_eq!(command.env("CORECAST_SOCKET", "/nonexistent").output().unwrap().status.code(), Some(0));
}

#[test]
fn contract_4_drain_shows_progress_and_ends_with_the_gateway() {
    let mut gateway = Gateway::start(&[]);
    let mut clients: Vec<_> = (0..10).map(|n| gateway.raw(&format!("user=u{n}"))).collect();
    let child = gateway
        .cli_command(&["drain", "--within", "1s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for client in &mut clients {
        let (code, reason) = client.closed();
        let delay: u64 = reason
            .strip_prefix("reconnect after ")
            .and_then(|rest| rest.strip_suffix(" ms"))
            .unwrap()
            .parse()
            .unwrap();
        assert!(code == 1012 && delay < 1000, "{code} {reason}");
    }
    let output = child.wait_with_output().unwrap();
    assert!(done(&output).contains("0 connections left after "), "{output:?}");
    assert_eq!(gateway.ended().code(), Some(0));
}
