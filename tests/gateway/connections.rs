//! Who is connected, who is behind and why: lists, one connection in full, and dumps (issue 7).

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use corecast::client::Client;
use corecast::control::command::Push;
use corecast::message::{Kind, Target};
use serde_json::{Value, json};

use crate::harness::websocket::{WebSocket, connect};
use crate::harness::{DEADLINE, Gateway, eventually, stderr, stdout};

fn list(gateway: &Gateway, query: &str) -> Vec<Value> {
    gateway.get(&format!("/v1/connections?{query}"))["connections"].as_array().expect("a list").clone()
}

fn ids(gateway: &Gateway, query: &str) -> Vec<String> {
    list(gateway, query).iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn done(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = gateway.cli(arguments);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    stdout(&output).to_owned()
}

fn id_of(hello: &Value) -> String {
    hello["connection"].as_str().expect("an id").to_owned()
}

fn push_to(client: &mut Client, topic: &str, bytes: usize) {
    let payload = vec![b'x'; bytes].into();
    let target = Target::Topic(topic.parse().unwrap());
    client.push(Push { target, kind: Kind::Text, payload, event: None, ttl_ms: None, id: None }).unwrap();
}

/// A WebSocket at `target` whose kernel takes little before it is read.
fn sluggish(gateway: &Gateway, target: &str) -> WebSocket {
    WebSocket::open_on(connect(gateway.address, Some(4096), None), target, None)
}

const SMALL_BUFFERS: &str = "limits.socket_send_bytes=4096";

#[test]
fn issue_7_each_filter_finds_those_it_is_about() {
    let gateway = Gateway::start(&["web.echo=true"]);
    let (ann, ann_hello) = gateway.hello("user=ann&topics=news,sport");
    let (_bob, bob_hello) = gateway.hello("user=bob&topics=news");
    let _stream = gateway.stream("user=ann&topics=sport");
    let _echo = WebSocket::open(gateway.address, "/echo", None);
    let (ann_id, bob_id) = (id_of(&ann_hello), id_of(&bob_hello));
    assert_eq!(list(&gateway, "").len(), 4);
    assert_eq!(list(&gateway, "user=ann").len(), 2);
    assert_eq!(ids(&gateway, "user=ann&transport=ws"), [&ann_id[..]]);
    assert_eq!(ids(&gateway, "topic=news&user=bob"), [&bob_id[..]]);
    assert_eq!(list(&gateway, "topic=news").len(), 2);
    assert_eq!(list(&gateway, "transport=sse").len(), 1);
    assert_eq!(list(&gateway, "transport=echo")[0]["user"], Value::Null);
    let port = ann.stream.local_addr().unwrap();
    assert_eq!(ids(&gateway, &format!("remote={port}")), [&ann_id[..]]);
    for everybody in ["remote=127.0.0.0/8", "remote=127.0.", "remote=127.0.0.1", "age_above=0s"] {
        assert_eq!(list(&gateway, everybody).len(), 4, "{everybody}");
    }
    for nobody in [
        "remote=10.0.0.0/8",
        "remote=128.",
        "lag_above=0",
        "idle_above=1h",
        "age_above=1h",
        "user=nobody",
        "topic=x",
    ] {
        assert_eq!(list(&gateway, nobody), Vec::<Value>::new(), "{nobody}");
    }
    let row = &list(&gateway, "user=ann&transport=ws")[0];
    let presence = &gateway.get("/v1/users/ann")["connections"];
    let same = presence.as_array().unwrap().iter().find(|one| one["id"] == row["id"]).unwrap();
    for (field, value) in same.as_object().unwrap() {
        assert_eq!(&row[field], value, "{field}, as presence has it");
    }
    assert_eq!((&row["user"], &row["lag_bytes"], &row["reason"]), (&json!("ann"), &json!(0), &Value::Null));
}

#[test]
fn issue_7_lists_are_sorted_and_paged_while_clients_come_and_go() {
    let gateway = Gateway::start(&[]);
    let steady: Vec<_> = (0..30).map(|n| gateway.hello(&format!("user=u{n}&topics=t"))).collect();
    let wanted: HashSet<String> = steady.iter().map(|(_, hello)| id_of(hello)).collect();
    for sort in ["id", "age"] {
        let mut passing: Vec<_> = (0..10).map(|_| gateway.raw("topics=t")).collect();
        let (mut seen, mut query) = (Vec::new(), format!("topic=t&sort={sort}&limit=7"));
        loop {
            let page = gateway.get(&format!("/v1/connections?{query}"));
            let rows = page["connections"].as_array().unwrap();
            assert!(rows.len() <= 7);
            seen.extend(rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            query = format!("topic=t&sort={sort}&limit=7&after={next}");
            if let Some(client) = passing.pop() {
                client.close();
            }
            let open = gateway.get("/v1/stats")["totals"]["connections"].as_u64();
            drop(gateway.raw("topics=t"));
            assert!(open >= Some(30));
            assert!(seen.len() < 1000, "endless");
        }
        let found: HashSet<String> = seen.iter().cloned().collect();
        assert_eq!(found.len(), seen.len(), "by {sort} nobody comes twice");
        assert!(wanted.is_subset(&found), "by {sort} nobody who stays is left out");
    }
}

#[test]
fn issue_7_by_age_and_idle_the_longest_come_first() {
    let gateway = Gateway::start(&[]);
    let mut clients: Vec<_> = (0..3).map(|n| gateway.hello(&format!("user=u{n}"))).collect();
    let in_order: Vec<String> = clients.iter().map(|(_, hello)| id_of(hello)).collect();
    let by_age = list(&gateway, "sort=age");
    let connected_at: Vec<_> = by_age.iter().map(|row| row["connected_at"].as_u64().unwrap()).collect();
    assert!(connected_at.is_sorted(), "{connected_at:?}");
    // The first one speaks up when the last has been silent for longer than a tick of the kernel.
    eventually("all are idle", || (list(&gateway, "idle_above=50ms").len() == 3).then_some(()));
    clients[0].0.send_json(&json!({"type": "ping", "id": 1}));
    clients[0].0.expect("pong");
    let by_idle = ids(&gateway, "sort=idle");
    assert_eq!(by_idle.last(), Some(&in_order[0]), "{by_idle:?}");
    assert!(!ids(&gateway, "idle_above=50ms").contains(&in_order[0]));
}

#[test]
fn issue_7_a_client_that_stops_reading_is_in_slow_with_its_send_queue_and_the_reason() {
    let gateway = Gateway::start(&[SMALL_BUFFERS, "timeouts.send=10m"]);
    let mut neighbour = gateway.raw("user=bob&topics=t");
    let mut lazy = sluggish(&gateway, "/ws?user=ann&topics=t&heartbeat=600");
    assert_eq!(done(&gateway, &["slow"]), "nobody is behind\n");
    let mut pusher = gateway.client();
    for _ in 0..64 {
        push_to(&mut pusher, "t", 1024);
        neighbour.text();
    }
    let slow = || list(&gateway, "lag_above=0&sort=lag");
    // Its kernel may still take some: what is looked at in turn agrees once it takes no more.
    let row = eventually("the kernel knows why", || {
        let row = slow().first().filter(|row| row["reason"] == "not_reading").cloned()?;
        (gateway.totals()["pending"] == row["lag_messages"]
            && slow().first().is_some_and(|again| again["lag_bytes"] == row["lag_bytes"]))
        .then_some(row)
    });
    assert_eq!((slow().len(), &row["user"]), (1, &json!("ann")));
    let (messages, bytes) = (row["lag_messages"].as_u64().unwrap(), row["lag_bytes"].as_u64().unwrap());
    assert!((messages - 1) * 1028 < bytes && bytes <= messages * 1028, "{messages} messages, {bytes} bytes");
    let id = row["id"].as_str().unwrap();
    let detail = gateway.get(&format!("/v1/connections/{id}"));
    assert_eq!((&detail["reason"], &detail["lag_bytes"]), (&json!("not_reading"), &row["lag_bytes"]));
    assert!(detail["send_queue_bytes"].as_u64() > Some(1024), "{detail}");
    let text = done(&gateway, &["slow"]);
    assert!(text.starts_with("1 connection\nCONNECTION "), "{text}");
    for part in
        [id, "  ann  ", "  not_reading\n", "\n1 not_reading: the client does not read", "\n    to do: "]
    {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let json: Value = serde_json::from_str(&done(&gateway, &["slow", "--json"])).unwrap();
    assert_eq!(json["connections"][0]["id"], id);
    let lagging = done(&gateway, &["connections", "--lagging"]);
    assert!(text.starts_with(&lagging), "{lagging}");
    assert!(done(&gateway, &["who", "ann"]).contains(" KiB "));
    // It reads on: nothing waits any more.
    (0..64).for_each(|_| drop(lazy.text()));
    eventually("nobody is behind", || slow().is_empty().then_some(()));
    let detail = gateway.get(&format!("/v1/connections/{id}"));
    assert_eq!((&detail["reason"], &detail["send_queue_bytes"]), (&Value::Null, &json!(0)));
}

#[test]
fn issue_7_a_connection_in_full_has_its_position_round_trip_and_octets() {
    let gateway = Gateway::start(&[]);
    let (mut client, hello) = gateway.hello("user=ann&topics=t&heartbeat=120");
    let position = gateway.push(json!({"topic": "t"}), json!(1))["position"].clone();
    client.expect("message");
    let path = format!("/v1/connections/{}", id_of(&hello));
    let detail = eventually("it is acknowledged", || {
        Some(gateway.get(&path)).filter(|detail| detail["send_queue_bytes"] == 0)
    });
    assert_eq!((&detail["state"], &detail["subprotocol"]), (&json!("open"), &json!("corecast.v1")));
    assert_eq!((&detail["position"], &detail["heartbeat_s"]), (&position, &json!(120)));
    assert_eq!((&detail["outbox_bytes"], &detail["reason"]), (&json!(0), &Value::Null));
    assert_eq!(detail["topics"], json!(["t"]));
    assert!(detail["rtt_us"].as_u64() > Some(0), "{detail}");
    assert!(detail["age_ms"].is_u64() && detail["idle_ms"].is_u64(), "{detail}");
    let octets = |detail: &Value, name: &str| detail[name].as_u64().unwrap();
    let ping = json!({"type": "ping", "id": 1});
    client.send_json(&ping);
    let pong = client.expect("pong").to_string().len() as u64;
    let after = eventually("it is acknowledged", || {
        Some(gateway.get(&path)).filter(|after| octets(after, "bytes_sent") > octets(&detail, "bytes_sent"))
    });
    // Header and mask of a short frame from a client are 6 octets, the header of one to it 2.
    let came = octets(&after, "bytes_received") - octets(&detail, "bytes_received");
    assert_eq!(came, ping.to_string().len() as u64 + 6);
    assert_eq!(octets(&after, "bytes_sent") - octets(&detail, "bytes_sent"), pong + 2);
    let text = done(&gateway, &["connections", &id_of(&hello)]);
    assert!(text.starts_with(&format!("connection  {}, open\n", id_of(&hello))), "{text}");
    assert!(text.contains(&format!("sent everything up to {}", position.as_str().unwrap())), "{text}");
}

#[test]
fn rule_7_a_connection_that_has_gone_is_404_and_status_1() {
    let gateway = Gateway::start(&[]);
    let (client, hello) = gateway.hello("user=ann");
    let (id, path) = (id_of(&hello), format!("/v1/connections/{}", id_of(&hello)));
    client.close();
    gateway.until("it has gone", |totals| totals["open"] == 0);
    assert_eq!(gateway.control("GET", &path, "", b"").refusal(), (404, "not_found".to_owned()));
    let (_next, next_hello) = gateway.hello("user=ann");
    assert_ne!(id, id_of(&next_hello));
    assert_eq!(gateway.control("GET", &path, "", b"").status, 404, "the slot is used again");
    let output = gateway.cli(&["connections", &id]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
    assert!(stderr(&output).starts_with("corecast: refused: not_found: "), "{}", stderr(&output));
}

#[test]
fn issue_7_who_is_told_to_go_is_closing_until_it_has_gone() {
    let gateway = Gateway::start(&["timeouts.close=10m"]);
    let (client, hello) = gateway.hello("user=ann");
    let path = format!("/v1/connections/{}", id_of(&hello));
    gateway.control("DELETE", &path, "", b"").ok();
    let detail = gateway.get(&path);
    assert_eq!((&detail["state"], &detail["reason"]), (&json!("closing"), &json!("closing")));
    assert_eq!(list(&gateway, ""), Vec::<Value>::new(), "a list has established clients only");
    drop(client);
}

#[test]
fn issue_7_held_polls_are_listed_from_when_they_began() {
    let gateway = Gateway::start(&[]);
    let mut stream = std::net::TcpStream::connect(gateway.address).unwrap();
    stream.write_all(b"GET /poll?user=ann&topics=t&timeout=60 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let row = eventually("it is held", || list(&gateway, "transport=poll").pop());
    assert_eq!((&row["user"], &row["topics"]), (&json!("ann"), &json!(["t"])));
    let detail = gateway.get(&format!("/v1/connections/{}", row["id"].as_str().unwrap()));
    assert_eq!((&detail["heartbeat_s"], &detail["connected_at"]), (&Value::Null, &row["connected_at"]));
}

#[test]
fn issue_7_sessions_are_all_connections_over_http_and_on_the_command_line() {
    let gateway = Gateway::start(&[]);
    let clients: Vec<_> = (0..300).map(|n| gateway.raw(&format!("user=u{n}&topics=t"))).collect();
    gateway.push(json!({"topic": "t"}), json!(1));
    let body = gateway.control("GET", "/v1/sessions", "", b"");
    assert_eq!(body.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> = body.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (end, sessions) = lines.split_last().unwrap();
    assert_eq!((&end["end"], &end["connections"]), (&json!(true), &json!(300)));
    assert!(end["position"].as_str().unwrap().ends_with("-1"), "{end}");
    let users: HashSet<_> = sessions.iter().map(|session| session["user"].to_string()).collect();
    assert_eq!((sessions.len(), users.len()), (300, 300));
    assert_eq!(sessions[0].as_object().unwrap().len(), 6);
    let printed = done(&gateway, &["sessions"]);
    assert_eq!(
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>(),
        lines
    );
    drop(clients);
    gateway.until("all have gone", |totals| totals["connections"] == 0);
    let body = gateway.control("GET", "/v1/sessions", "", b"");
    assert_eq!((body.status, body.text().lines().count()), (200, 1));
}

#[test]
fn issue_7_the_command_line_limits_pages_and_takes_all() {
    let gateway = Gateway::start(&[]);
    let _clients: Vec<_> = (0..120).map(|n| gateway.raw(&format!("user=u{n}"))).collect();
    let lines =
        |arguments: &[&str]| done(&gateway, &[&["connections"], arguments].concat()).lines().count() - 2;
    assert_eq!((lines(&[]), lines(&["--limit", "7"]), lines(&["--all"])), (100, 7, 120));
    assert_eq!((lines(&["--all", "--sort", "idle"]), lines(&["--limit", "5000"])), (120, 120));
    assert_eq!((lines(&["--user", "u5"]), lines(&["--remote", "127.", "--transport", "ws"])), (1, 100));
    let text = done(&gateway, &["connections"]);
    assert!(text.starts_with("100 connections, and more: --limit N, --all\n"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let json: Value =
        serde_json::from_str(&done(&gateway, &["connections", "--all", "--sort", "age", "--json"])).unwrap();
    let connected_at: Vec<_> =
        json["connections"].as_array().unwrap().iter().map(|row| row["connected_at"].as_u64()).collect();
    assert!(connected_at.len() == 120 && connected_at.is_sorted());
    assert_eq!(done(&gateway, &["connections", "--user", "nobody"]), "no connections\n");
    let mut child = gateway.cli_command(&["sessions"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("{\"id\":"), "{first}");
    assert_eq!(child.wait().unwrap().code(), Some(0), "`| head -1` did what it was asked for");
}

#[test]
fn issue_7_a_stopped_reader_of_sessions_holds_up_nobody() {
    let gateway = Gateway::start(&[]);
    let topics: Vec<String> = (0..64).map(|n| format!("{}{n}", "t".repeat(100))).collect();
    let mut clients: Vec<_> =
        (0..200).map(|n| gateway.hello(&format!("user=u{n}&topics={}", topics[..16].join(","))).0).collect();
    let mut reader = UnixStream::connect(&gateway.socket).unwrap();
    reader.set_read_timeout(Some(DEADLINE)).unwrap();
    reader.write_all(b"GET /v1/sessions HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    gateway.push(json!({"all": true}), json!(1));
    clients.iter_mut().for_each(|client| drop(client.expect("message")));
    assert_eq!(list(&gateway, "limit=1000").len(), 200);
    let rest = reader.lines().map(Result::unwrap).filter(|line| line.starts_with("{\"id\""));
    assert_eq!(rest.count(), 200);
}
