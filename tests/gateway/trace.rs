//! `/v1/trace` and `corecast trace`: every frame header and decision for one user or connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use corecast::control::command::Push;
use corecast::message::{Kind, Target};
use serde_json::{Value, json};

use crate::harness::event_stream::EventStream;
use crate::harness::http::Events;
use crate::harness::issuer::Issuer;
use crate::harness::poll::{Poller, request};
use crate::harness::websocket::{
    BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, WebSocket, connect, frame, upgrade,
};
use crate::harness::{Gateway, eventually, stderr, stdout};

const ONE_SHARD: &str = "shards=1";

/// A trace that has begun, and its first line.
#[track_caller]
fn trace(gateway: &Gateway, query: &str) -> (Events, Value) {
    let mut trace = gateway.listen(&format!("/v1/trace?{query}"));
    let begun = trace.next();
    assert_eq!((&begun["type"], &begun["after_us"]), (&json!("begun"), &json!(0)));
    (trace, begun)
}

/// A step in a few words.
fn brief(step: &Value) -> String {
    let text = |name: &str| step[name].as_str().unwrap_or_default().to_owned();
    match step["type"].as_str().unwrap() {
        "frame" if step["fin"] == false => format!("{} {}...", text("direction"), text("opcode")),
        "frame" => format!("{} {}", text("direction"), text("opcode")),
        "response" => format!("response {}", step["status"]),
        "refused" => format!("refused {} {}", step["status"], text("code")),
        "closed" => format!("closed {} by {}", text("reason"), text("by")),
        "subscribed" | "unsubscribed" => format!("{} {} by {}", text("type"), step["topics"], text("by")),
        other => other.to_owned(),
    }
}

/// The next steps are these.
#[track_caller]
fn expect(trace: &mut Events, steps: &[&str]) -> Vec<Value> {
    let told: Vec<Value> = steps.iter().map(|_| trace.next()).collect();
    assert_eq!(told.iter().map(brief).collect::<Vec<_>>(), steps, "{told:#?}");
    told
}

#[test]
fn issue_7_a_trace_tells_the_whole_life_of_a_websocket() {
    let gateway = Gateway::start(&[ONE_SHARD, "timeouts.heartbeat_min=1s"]);
    let (mut trace, begun) = trace(&gateway, "user=ann");
    assert_eq!(begun["connections"], json!([]), "it comes later");
    let _bob = gateway.raw("user=bob&topics=t");
    let (mut client, hello) = gateway.hello("user=ann&topics=t");
    let steps = expect(&mut trace, &["asked", "opened", "response 101", "out text"]);
    assert!(steps.iter().all(|step| step["connection"] == hello["connection"]), "{steps:?}");
    let remote = client.stream.local_addr().unwrap().to_string();
    let opened = json!({"transport": "ws", "remote": remote, "topics": ["t"]});
    for (name, value) in opened.as_object().unwrap() {
        assert_eq!((&steps[0][name], &steps[1][name]), (value, value));
    }
    assert_eq!(steps[3]["bytes"], hello.to_string().len());

    client.send_json(&json!({"type": "subscribe", "topics": ["u"]}));
    client.expect("subscribed");
    expect(&mut trace, &["in text", "subscribed [\"u\"] by client", "out text"]);
    gateway.control("PUT", "/v1/users/ann/topics/v", "", b"").ok();
    gateway.control("DELETE", "/v1/users/ann/topics/v", "", b"").ok();
    expect(&mut trace, &["subscribed [\"v\"] by control", "unsubscribed [\"v\"] by control"]);

    let pushed = gateway.push(json!({"topic": "u"}), json!("payload"));
    client.expect("message");
    let steps = expect(&mut trace, &["handed", "out text"]);
    assert!(steps.iter().all(|step| step["position"] == pushed["position"]), "{steps:?}");

    client.send(PING, b"12345");
    assert_eq!(client.next().opcode, PONG);
    let steps = expect(&mut trace, &["in ping", "out pong"]);
    assert!(steps.iter().all(|step| step["bytes"] == 5 && step["compressed"] == false), "{steps:?}");

    let after: Vec<u64> = steps.iter().map(|step| step["after_us"].as_u64().unwrap()).collect();
    assert!(after.is_sorted() && after[0] > 0 && after[1] < 60_000_000, "{after:?}");
    gateway.control("DELETE", "/v1/users/ann?code=4600&reason=bye%0a", "", b"").ok();
    assert_eq!(client.closed().0, 4600);
    let steps = expect(&mut trace, &["closed kicked by control", "out close", "gone"]);
    assert_eq!((&steps[0]["code"], &steps[0]["message"]), (&json!(4600), &json!("bye\n")));

    // Another of the same user, which closes by itself.
    let mut client = gateway.raw("user=ann&heartbeat=1");
    expect(&mut trace, &["asked", "opened", "response 101"]);
    let ping = client.try_frame().unwrap();
    client.send(PONG, &ping.payload);
    expect(&mut trace, &["out ping", "in pong"]);
    client.close();
    let close = ["in close", "closed peer_closed by client", "out close", "gone"];
    let steps = expect(&mut trace, &close);
    assert_eq!(steps[1]["code"], 1000);
}

#[test]
fn issue_7_each_frame_is_told_once_however_it_comes_and_one_that_breaks_the_protocol_too() {
    let gateway = Gateway::start(&[ONE_SHARD]);
    let mut client = gateway.raw("user=ann");
    let (mut trace, begun) = trace(&gateway, "user=ann");
    let connection = &gateway.get("/v1/users/ann")["connections"][0]["id"];
    assert_eq!(begun["connections"], json!([connection]), "it is there already");
    let mut events = gateway.events("types=uplink");
    let begin = frame(false, TEXT, &[b'x'; 300]);
    for octet in &begin {
        client.octets(std::slice::from_ref(octet));
        std::thread::yield_now();
    }
    client.octets(&[frame(true, PING, b""), frame(true, CONTINUATION, b"y")].concat());
    assert_eq!(events.next()["data"].as_str().unwrap().len(), 301);
    let steps = expect(&mut trace, &["in text...", "in ping", "in continuation", "out pong"]);
    assert_eq!((&steps[0]["bytes"], &steps[2]["bytes"]), (&json!(300), &json!(1)));
    let mut compressed = frame(true, BINARY, b"z");
    compressed[0] |= 0x40;
    client.octets(&compressed);
    assert_eq!(client.next().opcode, PONG);
    assert_eq!(client.closed().0, 1002);
    let steps = expect(&mut trace, &["in binary", "closed protocol_error by gateway", "out close", "gone"]);
    assert_eq!(steps[0]["compressed"], true);
    assert_eq!(steps[1]["code"], 1002);
}

#[test]
fn issue_7_a_trace_tells_why_a_client_of_the_user_was_refused() {
    let issuer = Issuer::new(b'k');
    let gateway = issuer.gateway(&[ONE_SHARD]);
    let (mut trace, _) = trace(&gateway, "user=ann");
    let ask = |claims: Value, query: &str| {
        let query = format!("/ws?{}{query}", issuer.query("ann", claims));
        gateway.ask(upgrade(&query, "")).status
    };
    assert_eq!(ask(json!({"topics": ["t"]}), "&topics=u"), 403);
    let refused =
        ["asked", "refused 403 forbidden_topic", "closed refused by gateway", "response 403", "gone"];
    let steps = expect(&mut trace, &refused);
    assert_eq!(steps[1]["message"], "this client may not subscribe to the topic u");
    let _first = gateway.raw(&issuer.query("ann", json!({})));
    expect(&mut trace, &["asked", "opened", "response 101"]);
    assert_eq!(ask(json!({"max_connections": 1}), ""), 429);
    let refused =
        ["asked", "refused 429 too_many_connections", "closed refused by gateway", "response 429", "gone"];
    expect(&mut trace, &refused);
}

#[test]
fn issue_7_a_token_that_its_issuer_signed_names_the_user_though_it_is_refused() {
    let issuer = Issuer::new(b'k');
    let gateway = issuer.gateway(&["auth.audience=here", ONE_SHARD]);
    let (mut trace, _) = trace(&gateway, "user=ann");
    let ask = |token: &str| gateway.ask(upgrade(&format!("/ws?token={token}"), ""));
    let forged = Issuer::new(b'o').token_of("ann", json!({"aud": "here"}));
    assert_eq!(ask(&forged).refusal(), (401, "unauthorized".to_owned()));
    for (claims, why) in [
        (json!({"aud": "here", "exp": 1}), "the token has expired (exp)"),
        (json!({"aud": "here", "nbf": u32::MAX}), "the token is not valid yet (nbf)"),
        (json!({"aud": "elsewhere"}), "the token is for another audience (aud)"),
    ] {
        assert_eq!(ask(&issuer.token_of("ann", claims)).refusal(), (401, "unauthorized".to_owned()));
        let refused =
            ["asked", "refused 401 unauthorized", "closed refused by gateway", "response 401", "gone"];
        assert_eq!(expect(&mut trace, &refused)[1]["message"], why);
    }
}

#[test]
fn issue_7_where_a_name_is_taken_at_its_word_early_refusals_are_in_its_trace() {
    let gateway = Gateway::start(&["web.origins=https://a.example", ONE_SHARD]);
    let (mut trace, _) = trace(&gateway, "user=ann");
    let ask = |target: &str, more: &str| gateway.ask(upgrade(target, more)).refusal();
    let other = "Origin: https://b.example\r\n";
    assert_eq!(ask("/ws?user=bob", other), (403, "forbidden_origin".to_owned()));
    for (target, more, status, code) in [
        ("/ws?user=ann", other, 403, "forbidden_origin"),
        ("/ws?user=ann&topics=a%20b", "", 400, "bad_topic"),
        ("/sse?user=ann&since=x", "", 400, "bad_request"),
    ] {
        assert_eq!(ask(target, more), (status, code.to_owned()));
        let (refused, response) = (format!("refused {status} {code}"), format!("response {status}"));
        expect(&mut trace, &[&refused, "closed refused by gateway", &response, "gone"]);
    }
}

#[test]
fn issue_7_nobody_else_is_told_of_and_no_token_or_payload() {
    let issuer = Issuer::new(b'k');
    let gateway = issuer.gateway(&[ONE_SHARD]);
    let (mut trace, _) = trace(&gateway, "user=ann");
    let tokens: Vec<String> = (0..2).map(|n| issuer.token_of("ann", json!({"jti": n}))).collect();
    let other = Issuer::new(b'o').token_of("ann", json!({}));
    assert_eq!(gateway.ask(upgrade(&format!("/ws?token={other}"), "")).status, 401);
    let _bob = gateway.raw(&issuer.query("bob", json!({})));
    let (mut client, _) = gateway.hello(&format!("token={}", tokens[0]));
    client.send_json(&json!({"type": "refresh", "token": tokens[1]}));
    client.expect("refreshed");
    client.send_json(&json!({"type": "uplink", "data": "the-uplink"}));
    gateway.push(json!({"user": "ann"}), json!("the-push"));
    client.expect("message");
    client.close();
    let mut told = String::new();
    while !told.contains("\"gone\"") {
        told += &trace.next().to_string();
    }
    for secret in [&tokens[0], &tokens[1], &other, "the-uplink", "the-push"] {
        assert!(!told.contains(secret), "{told}");
    }
    assert!(!told.contains("unauthorized"), "whose token does not hold is nobody: {told}");
}

#[test]
fn issue_7_a_user_is_followed_from_whichever_shard_its_connections_land_on() {
    let gateway = Gateway::start(&["shards=2"]);
    let (mut ann, mut bob) = (trace(&gateway, "user=ann").0, trace(&gateway, "user=bob").0);
    let clients: Vec<_> =
        (0..8).flat_map(|_| [gateway.hello("user=ann"), gateway.hello("user=bob")]).collect();
    let mut handed_over = 0;
    for (trace, of) in [(&mut ann, 0), (&mut bob, 1)] {
        // What one shard tells of a connection comes in order, and the other shard's between that.
        let (mut of_connection, mut greeted) = (BTreeMap::<String, Vec<Value>>::new(), 0);
        while greeted < 8 {
            let step = trace.next();
            greeted += usize::from(brief(&step) == "out text");
            of_connection.entry(step["connection"].as_str().unwrap().to_owned()).or_default().push(step);
        }
        for (_, hello) in clients.iter().skip(of).step_by(2) {
            let steps = of_connection.remove(hello["connection"].as_str().unwrap()).unwrap();
            let steps: Vec<_> = steps.iter().map(brief).collect();
            let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
            let end = ["opened", "response 101", "out text"];
            handed_over += u64::from(steps == end);
            assert!(steps == end || steps == ["asked", "opened", "response 101", "out text"], "{steps:?}");
        }
        let owner = clients[of].1["connection"].as_str().unwrap().split('-').next().unwrap();
        for steps in of_connection.values() {
            // Where it landed it had another name.
            assert_eq!(steps.iter().map(brief).collect::<Vec<_>>(), ["asked", "handed_over"]);
            assert_eq!(steps[1]["shard"].to_string(), owner);
        }
    }
    assert_eq!(gateway.totals()["moved_out"], handed_over);
    // Two connections at once, each told under its own name.
    let (_again, begun) = trace(&gateway, "user=ann");
    assert_eq!(begun["connections"].as_array().map(Vec::len), Some(8));
    gateway.push(json!({"user": "ann"}), json!(1));
    let mut told: Vec<Value> = expect(&mut ann, &["handed"; 8]);
    told.extend(expect(&mut ann, &["out text"; 8]));
    for (_, hello) in clients.iter().step_by(2) {
        let steps = told.iter().filter(|step| step["connection"] == hello["connection"]);
        assert_eq!(steps.map(brief).collect::<Vec<_>>(), ["handed", "out text"]);
    }
}

#[test]
fn issue_7_event_streams_and_polls_are_traced_and_resuming_too() {
    let gateway = Gateway::start(&[ONE_SHARD]);
    let first = gateway.push(json!({"topic": "t"}), json!(1));
    gateway.push(json!({"topic": "t"}), json!(2));
    let since = first["position"].as_str().unwrap();
    let (mut trace, _) = trace(&gateway, "user=ann");
    let stream = EventStream::open(gateway.address, &format!("/sse?user=ann&topics=t&since={since}"), "");
    let steps = expect(&mut trace, &["asked", "opened", "resumed", "response 200", "octets", "octets"]);
    assert_eq!((&steps[0]["transport"], &steps[0]["since"]), (&json!("sse"), &json!(since)));
    let resumed = &steps[2];
    let expected = (&json!(since), &json!(1), &json!(false));
    assert_eq!((&resumed["since"], &resumed["replayed"], &resumed["gap"]), expected);
    assert_eq!((&steps[4]["position"], steps[5]["position"].is_string()), (&Value::Null, true));
    drop(stream);
    expect(&mut trace, &["closed peer_gone by client", "gone"]);
    let mut poller = Poller::connect(gateway.address);
    poller.send(request("user=ann&topics=t"));
    expect(&mut trace, &["asked", "opened"]);
    gateway.push(json!({"topic": "t"}), json!(3));
    poller.try_answer().unwrap();
    expect(&mut trace, &["handed", "response 200"]);
    // The next request on the same connection, of somebody else and of the user again.
    for (user, steps) in [("bob", &[][..]), ("ann", &["asked", "opened", "response 200"])] {
        poller.send(request(&format!("user={user}&topics=t&timeout=0")));
        poller.try_answer().unwrap();
        expect(&mut trace, steps);
    }
}

/// A raw client of `lazy` whose kernel takes little before it is read.
fn sluggish(gateway: &Gateway) -> WebSocket {
    let stream = connect(gateway.address, Some(4096), None);
    WebSocket::open_on(stream, "/ws?topics=t&user=lazy&heartbeat=600", None)
}

#[test]
fn issue_7_a_trace_tells_when_the_socket_refuses_bytes_and_takes_them_again() {
    let gateway = Gateway::start(&[ONE_SHARD, "limits.socket_send_bytes=4096"]);
    let mut lazy = sluggish(&gateway);
    let (mut trace, _) = trace(&gateway, "user=lazy");
    let mut pusher = gateway.client();
    let mut pushed = 0;
    while gateway.totals()["blocked"] == 0 {
        let payload = vec![b'x'; 1024].into();
        let target = Target::Topic("t".parse().unwrap());
        pusher.push(Push { target, kind: Kind::Text, payload, event: None, ttl_ms: None, id: None }).unwrap();
        pushed += 1;
        assert!(pushed < 2000, "it is never blocked");
    }
    let mut frames = 0;
    let blocked = loop {
        let step = trace.next();
        frames += u64::from(brief(&step) == "out text");
        if step["type"] == "blocked" {
            break step;
        }
    };
    let waiting = |name: &str| blocked[name].as_u64().unwrap();
    assert!(
        waiting("lag_bytes") + waiting("outbox_bytes") > 0 && waiting("send_queue_bytes") > 0,
        "{blocked}"
    );
    (0..pushed).for_each(|_| assert_eq!(lazy.text().len(), 1024));
    let mut writable = 0;
    while frames < pushed {
        let step = trace.next();
        frames += u64::from(brief(&step) == "out text");
        writable += u64::from(step["type"] == "writable");
    }
    assert!(frames == pushed && writable > 0, "each frame once: {frames} of {pushed}");
}

#[test]
fn issue_7_a_reader_of_a_trace_that_stops_is_told_how_many_lines_it_missed_and_holds_nobody_up() {
    let gateway = Gateway::start(&[ONE_SHARD, "control.reply_bytes=4KiB", "limits.uplinks_per_second=0"]);
    let mut client = gateway.raw("user=ann");
    let (mut late, _) = trace(&gateway, "user=ann");
    let sent = 20_000;
    let frames: Vec<u8> = (0..1000).flat_map(|_| frame(true, TEXT, b"x")).collect();
    (0..sent / 1000).for_each(|_| client.octets(&frames));
    gateway.until("all are heard", |totals| totals["uplinks"] == sent);
    let (mut received, mut missed) = (0, 0);
    while received + missed < sent {
        let step = late.next();
        match step["type"].as_str().unwrap() {
            "dropped" => missed += step["count"].as_u64().unwrap(),
            _ => received += u64::from(brief(&step) == "in text"),
        }
    }
    assert!(received + missed == sent && missed > 0, "{received} received, {missed} missed");
    client.nothing_waits();
    expect(&mut late, &["in ping", "out pong"]);
}

#[test]
fn issue_7_sixteen_traces_run_at_once_and_one_ends_with_its_reader() {
    let gateway = Gateway::start(&[]);
    let mut client = gateway.raw("user=ann");
    let mut readers: Vec<_> = (0..16).map(|_| trace(&gateway, "user=ann").0).collect();
    let refused = || gateway.control("GET", "/v1/trace?user=ann", "", b"");
    let answer = refused();
    assert_eq!(answer.refusal(), (503, "busy".to_owned()));
    assert!(answer.text().contains("16 traces run"), "{}", answer.text());
    client.nothing_waits();
    readers.iter_mut().for_each(|reader| drop(expect(reader, &["in ping", "out pong"])));
    readers.truncate(15);
    let (mut another, _) = eventually("the place of the one that went", || {
        let listed = gateway.until_stats("it has gone", |stats| stats["control_clients"] == 16);
        listed.is_object().then(|| trace(&gateway, "user=ann"))
    });
    client.nothing_waits();
    expect(&mut another, &["in ping", "out pong"]);
    drop((readers, another));
    gateway.until_stats("all have gone", |stats| stats["control_clients"] == 1);
    client.nothing_waits();
    drop(trace(&gateway, "user=ann"));
}

#[test]
fn issue_7_a_trace_of_nobody_is_refused_and_says_why() {
    let gateway = Gateway::start(&[]);
    let (client, hello) = gateway.hello("user=ann");
    let id = hello["connection"].as_str().unwrap();
    for (query, expected) in [
        ("", (400, "bad_target")),
        (&*format!("user=ann&connection={id}"), (400, "bad_target")),
        ("connection=x", (400, "bad_target")),
        ("user=a%20b", (400, "bad_user")),
        ("connection=9-9-9", (404, "not_found")),
        ("connection=0-9999-0", (404, "not_found")),
    ] {
        let refusal = gateway.control("GET", &format!("/v1/trace?{query}"), "", b"").refusal();
        assert_eq!((refusal.0, &refusal.1[..]), expected, "{query}");
    }
    let (mut trace, begun) = trace(&gateway, &format!("connection={id}"));
    assert_eq!(begun["connections"], json!([id]));
    client.close();
    expect(&mut trace, &["in close", "closed peer_closed by client", "out close", "gone"]);
    let output = gateway.cli(&["trace", "--connection", id]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("corecast: refused: not_found: "), "{}", stderr(&output));
    // None of those that were refused is left.
    gateway.until_stats("they have gone", |stats| stats["control_clients"] == 2);
    let _all: Vec<_> = (0..15).map(|_| self::trace(&gateway, "user=ann")).collect();
}

#[test]
fn issue_7_corecast_trace_prints_steps_until_the_connection_goes_or_the_time_is_over() {
    let gateway = Gateway::start(&[]);
    let (mut client, hello) = gateway.hello("user=ann");
    let id = hello["connection"].as_str().unwrap();
    let mut command = gateway.cli_command(&["trace", "--connection", id]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut printed = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let words =
        |line: String| line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>().join(" ");
    assert_eq!(printed.next().map(words).unwrap(), format!("- begun connections={id}"));
    client.send(PING, b"");
    assert_eq!(client.next().opcode, PONG);
    client.send(CLOSE, &1000u16.to_be_bytes());
    assert_eq!(client.closed().0, 1000);
    let lines: Vec<String> = printed.map(words).collect();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    assert_eq!(lines[0], format!("{id} frame in ping bytes=0 compressed=false fin=true"));
    assert_eq!(lines.last(), Some(&format!("{id} gone")));
    let begun = Instant::now();
    let output = gateway.cli(&["trace", "--user", "nobody", "--for", "300ms", "--json"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let lines: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, [json!({"after_us": 0, "type": "begun", "connections": []})]);
}
