//! The control socket over HTTP: who may speak, presence, kick, bind, topics, counters, events.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use corecast::client::ClientError;
use corecast::control::command::{Command, ErrorCode};
use corecast::message::Position;
use serde_json::{Value, json};

use crate::harness::guest::Guest;
use crate::harness::http::read_to_end;
use crate::harness::websocket::{TEXT, connect, frame, reset};
use crate::harness::{DEADLINE, Gateway, stdout};

#[test]
fn contract_3_a_peer_that_allow_uids_does_not_name_is_refused_over_both_protocols() {
    let us = rustix::process::geteuid().as_raw();
    let gateway = Gateway::start(&[&format!("control.allow_uids={}", us + 1)]);
    let answer = gateway.control("GET", "/v1/stats", "", b"");
    assert_eq!(answer.refusal(), (403, "forbidden".to_owned()));
    let refused = gateway.client().call(&Command::Stats).unwrap_err();
    assert!(matches!(refused, ClientError::Refused(error) if error.code == ErrorCode::Forbidden));
}

#[test]
fn contract_3_a_peer_that_allow_uids_or_allow_gids_names_may_command() {
    let (us, ours) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let named = [format!("control.allow_uids={},{us}", us + 1), format!("control.allow_gids={ours}")];
    for setting in named {
        Gateway::start(&[&setting]).totals();
    }
}

#[test]
fn issue_5_a_peer_in_another_container_may_command() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    // From within its own namespace of process ids the gateway cannot see ours, and the kernel gives it as zero.
    let mut unshare = std::process::Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--pid", "--fork", "--kill-child", env!("CARGO_BIN_EXE_corecast")]);
    unshare.args(["serve", "--listen", "127.0.0.1:0", "--shards", "1", "--socket"]).arg(&socket);
    let _gateway = Guest::spawn(&mut unshare);
    crate::harness::eventually("it is answered", || {
        corecast::client::Client::connect(&socket).ok()?.call(&Command::Version).ok()
    });
}

#[test]
fn contract_3_one_control_client_more_than_control_clients_is_busy() {
    let gateway = Gateway::start(&["control.clients=2"]);
    let mut clients = [gateway.client(), gateway.client()];
    clients.iter_mut().for_each(|client| drop(client.call(&Command::Version).unwrap()));
    assert_eq!(gateway.control("GET", "/v1/stats", "", b"").refusal(), (503, "busy".to_owned()));
    drop(clients);
    crate::harness::eventually("there is room again", || {
        (gateway.control("GET", "/v1/stats", "", b"").status == 200).then_some(())
    });
}

#[test]
fn contract_2_half_a_control_request_is_closed_after_request_timeout() {
    let gateway = Gateway::start(&["control.request_timeout=200ms"]);
    for half in [&b"POST /v1/push HTTP/1.1\r\nHost: x\r\n"[..], &[40, 0, 0, 0, 1]] {
        let mut stream = UnixStream::connect(&gateway.socket).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(half).unwrap();
        read_to_end(&mut stream);
    }
}

#[test]
fn contract_2_a_control_body_of_body_bytes_passes_and_one_byte_more_is_413() {
    let gateway = Gateway::start(&["control.body_bytes=1KiB"]);
    let push = |bytes| gateway.control("POST", "/v1/push/all", "text/plain", &vec![b'x'; bytes]);
    assert_eq!(push(1024).status, 200);
    assert_eq!(push(1025).refusal(), (413, "too_large".to_owned()));
}

#[test]
fn contract_3_requests_on_one_connection_are_answered_in_order() {
    let gateway = Gateway::start(&[]);
    let mut stream = UnixStream::connect(&gateway.socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let push = "POST /v1/push/all HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1";
    let last = "GET /v1/topics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{push}{push}{last}").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let order = ["-1\"", "-2\"", "\"topics\""].map(|part| text.find(part).expect(&text));
    assert!(order.is_sorted(), "{text}");
}

#[test]
fn contract_3_presence_tells_each_connection_of_a_user() {
    let gateway = Gateway::start(&[]);
    assert_eq!(gateway.get("/v1/users/ann"), json!({"user": "ann", "online": false, "connections": []}));
    let (client, hello) = gateway.hello("user=ann&topics=b,a");
    let presence = gateway.get("/v1/users/ann");
    let connection = &presence["connections"][0];
    assert_eq!((&presence["online"], &connection["id"]), (&json!(true), &hello["connection"]));
    assert_eq!(connection["transport"], "ws");
    assert_eq!(connection["remote"], client.stream.local_addr().unwrap().to_string());
    let mut topics: Vec<_> = connection["topics"].as_array().unwrap().iter().map(Value::to_string).collect();
    topics.sort();
    assert_eq!(topics, ["\"a\"", "\"b\""]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let age_ms = now.abs_diff(connection["connected_at"].as_u64().unwrap());
    assert!(age_ms < DEADLINE.as_millis() as u64, "{age_ms} ms");
    let _second = gateway.raw("user=ann");
    assert_eq!(gateway.get("/v1/users/ann")["connections"].as_array().unwrap().len(), 2);
    client.close();
    crate::harness::eventually("one has gone", || {
        (gateway.get("/v1/users/ann")["connections"].as_array()?.len() == 1).then_some(())
    });
}

#[test]
fn contract_3_kick_closes_a_users_connections_with_4500_or_the_code_and_reason_given() {
    let gateway = Gateway::start(&[]);
    let kick = |target: &str| gateway.control("DELETE", target, "", b"");
    for (arguments, expected) in [
        ("", (4500, "kicked".to_owned())),
        ("?code=1000", (1000, "kicked".to_owned())),
        ("?code=4999&reason=go%20away", (4999, "go away".to_owned())),
    ] {
        let mut clients = [gateway.raw("user=ann"), gateway.raw("user=ann")];
        let mut bob = gateway.raw("user=bob");
        assert_eq!(kick(&format!("/v1/users/ann{arguments}")).ok(), json!({"closed": 2}));
        clients.iter_mut().for_each(|client| assert_eq!(client.closed(), expected));
        bob.nothing_waits();
    }
    assert_eq!(kick("/v1/users/ann").ok(), json!({"closed": 0}));
    let _ann = gateway.raw("user=ann");
    for arguments in ["?code=1001", "?code=3999", "?code=5000", "?code=x"] {
        let answer = kick(&format!("/v1/users/ann{arguments}"));
        assert_eq!(answer.refusal(), (400, "bad_request".to_owned()), "{arguments}");
    }
    assert_eq!(kick(&format!("/v1/users/ann?reason={}", "x".repeat(124))).status, 400);
}

#[test]
fn contract_3_kick_closes_one_connection_and_a_stale_id_closes_nobody() {
    let gateway = Gateway::start(&[]);
    let (mut client, hello) = gateway.hello("user=ann");
    let mut other = gateway.raw("user=ann");
    let target = format!("/v1/connections/{}?code=4123", hello["connection"].as_str().unwrap());
    assert_eq!(gateway.control("DELETE", &target, "", b"").ok(), json!({"closed": 1}));
    assert_eq!(client.closed().0, 4123);
    assert_eq!(gateway.control("DELETE", &target, "", b"").ok(), json!({"closed": 0}));
    other.nothing_waits();
    gateway.until("counted", |totals| totals["closed"]["kicked"] == 1);
    let bad = gateway.control("DELETE", "/v1/connections/x", "", b"");
    assert_eq!(bad.refusal(), (400, "bad_target".to_owned()));
}

#[test]
fn contract_3_bind_subscribes_all_of_a_users_connections_and_unbind_ends_it() {
    let gateway = Gateway::start(&["limits.topics_per_connection=2"]);
    let mut clients = [gateway.raw("user=ann"), gateway.raw("user=ann&topics=a,b")];
    let change =
        |method, topic| gateway.control(method, &format!("/v1/users/ann/topics/{topic}"), "", b"").ok();
    assert_eq!(change("PUT", "t"), json!({"connections": 1}), "the other has all that it may have");
    assert_eq!(gateway.push(json!({"topic": "t"}), json!(1))["connections"], 1);
    assert_eq!(clients[0].text(), "1");
    assert_eq!(change("PUT", "t"), json!({"connections": 0}), "it is bound already");
    assert_eq!(change("PUT", "a"), json!({"connections": 1}));
    assert_eq!(change("DELETE", "a"), json!({"connections": 2}));
    assert_eq!(gateway.push(json!({"topic": "a"}), json!(2))["connections"], 0);
    clients.iter_mut().for_each(|client| client.nothing_waits());
    let bad = gateway.control("PUT", "/v1/users/ann/topics/a%20b", "", b"");
    assert_eq!(bad.refusal(), (400, "bad_topic".to_owned()));
}

#[test]
fn contract_3_topics_tells_subscribers_over_all_shards_pushes_and_the_newest_position() {
    let gateway = Gateway::start(&[]);
    let users = [gateway.user_on(0), gateway.user_on(1)];
    let _clients = users.map(|user| gateway.raw(&format!("user={user}&topics=t,{user}")));
    gateway.push(json!({"topic": "t"}), json!(0));
    let pushed = gateway.push(json!({"topic": "t"}), json!(1));
    let topic = gateway.get("/v1/topics/t");
    assert_eq!(topic, json!({"topic": "t", "connections": 2, "position": pushed["position"], "pushes": 2}));
    let topics = gateway.get("/v1/topics");
    let topics = topics["topics"].as_array().unwrap();
    assert_eq!(topics.len(), 3, "{topics:?}");
    assert!(topics.contains(&topic));
    let nobody = gateway.get("/v1/topics/nobody");
    assert_eq!(nobody, json!({"topic": "nobody", "connections": 0, "position": null, "pushes": 0}));
}

#[test]
fn issue_7_topics_are_listed_by_name_a_page_at_a_time_and_corecast_topics_lists_all() {
    let gateway = Gateway::start(&[]);
    let name = |number: usize| format!("t{number:05}");
    // More than one page of the command line, and on every shard.
    let names: Vec<String> = (0..12_000).map(name).collect();
    let _clients: Vec<_> =
        names.chunks(100).map(|topics| gateway.raw(&format!("topics={}", topics.join(",")))).collect();
    let _again = gateway.raw(&format!("user={}&topics=t00001", gateway.user_on(0)));
    let _and_again = gateway.raw(&format!("user={}&topics=t00001", gateway.user_on(1)));
    let listed = |page: &Value| -> Vec<String> {
        page["topics"]
            .as_array()
            .unwrap()
            .iter()
            .map(|topic| topic["topic"].as_str().unwrap().to_owned())
            .collect()
    };
    let page = gateway.get("/v1/topics");
    assert_eq!((listed(&page), &page["next"]), (names[..1000].to_vec(), &json!("t00999")));
    assert_eq!(page["topics"][1]["connections"], 3);
    let page = gateway.get("/v1/topics?limit=2&after=t00999");
    assert_eq!((listed(&page), &page["next"]), (names[1000..1002].to_vec(), &json!("t01001")));
    let page = gateway.get("/v1/topics?after=t11997");
    assert_eq!((listed(&page), page.get("next")), (names[11_998..].to_vec(), None));
    for bad in ["limit=0", "limit=10001", "limit=x", "after=a%20b", "sort=pushes", "limit=1&limit=2"] {
        let refusal = gateway.control("GET", &format!("/v1/topics?{bad}"), "", b"").refusal();
        assert_eq!(refusal, (400, "bad_request".to_owned()), "{bad}");
    }
    let all: Value = serde_json::from_str(stdout(&gateway.cli(&["topics", "--json"]))).unwrap();
    assert_eq!(listed(&all), names);
}

#[test]
fn contract_3_an_unknown_path_is_404_and_a_wrong_method_405() {
    let gateway = Gateway::start(&[]);
    assert_eq!(gateway.control("GET", "/v2", "", b"").refusal(), (404, "not_found".to_owned()));
    let answer = gateway.control("GET", "/v1/push", "", b"");
    assert_eq!(answer.refusal(), (405, "method_not_allowed".to_owned()));
    assert_eq!(answer.header("allow"), Some("POST"));
}

#[test]
fn contract_3_events_tell_who_comes_who_goes_and_why() {
    let gateway = Gateway::start(&[]);
    let mut events = gateway.events("types=connect,disconnect");
    let (mut client, hello) = gateway.hello("user=ann&topics=t");
    client.send_json(&json!({"type": "uplink", "data": 1}));
    let remote = client.stream.local_addr().unwrap().to_string();
    let connect = events.next();
    assert_eq!(
        (&connect["type"], &connect["user"], &connect["topics"], &connect["remote"], &connect["transport"]),
        (&json!("connect"), &json!("ann"), &json!(["t"]), &json!(remote), &json!("ws"))
    );
    assert_eq!(connect["connection"], hello["connection"]);
    assert!(connect["at"].is_u64());
    gateway.control("DELETE", "/v1/users/ann", "", b"").ok();
    let disconnect = events.next();
    assert_eq!(
        (&disconnect["type"], &disconnect["connection"], &disconnect["reason"], &disconnect["code"]),
        (&json!("disconnect"), &hello["connection"], &json!("kicked"), &json!(4500))
    );
    drop(gateway.raw(""));
    assert_eq!(events.next()["user"], Value::Null);
    assert_eq!(events.next()["reason"], "peer_gone");
    assert_eq!(gateway.control("GET", "/v1/events?types=birth", "", b"").status, 400);
}

#[test]
fn a_reader_of_a_stream_that_goes_as_soon_as_it_has_asked_is_let_go() {
    let gateway = Gateway::start(&[]);
    for path in ["/v1/events", "/v1/trace?user=ann", "/v1/trace?connection=0-1-1"] {
        for _ in 0..20 {
            let mut stream = UnixStream::connect(&gateway.socket).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: corecast\r\n\r\n").unwrap();
        }
    }
    gateway.until_stats("only this one is left", |stats| stats["control_clients"] == 1);
    // Nor does a trace without a reader take the place of one that has.
    drop(gateway.listen("/v1/trace?user=ann"));
}

/// Ends connections in many ways; gives how many.
fn end_in_every_way(gateway: &Gateway) -> u64 {
    gateway.raw("user=a").close();
    drop(gateway.raw("user=b"));
    reset(gateway.raw("user=c").stream);
    let mut wrong = gateway.raw("user=d");
    wrong.octets(&frame(true, 0x3, b""));
    assert_eq!(wrong.closed().0, 1002);
    let mut bad_text = gateway.raw("user=e");
    bad_text.send(TEXT, b"\xff");
    assert_eq!(bad_text.closed().0, 1007);
    let mut kicked = gateway.raw("user=f");
    gateway.control("DELETE", "/v1/users/f", "", b"").ok();
    assert_eq!(kicked.closed().0, 4500);
    gateway.ask("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    gateway.ask("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n");
    drop(connect(gateway.address, None, None));
    9
}

#[test]
fn design_6_accepted_is_open_and_the_sum_of_closed_whatever_the_ends() {
    let gateway = Gateway::start(&[]);
    let ended = end_in_every_way(&gateway);
    let _stays = gateway.raw("user=stays");
    let totals =
        gateway.until("all have ended", |totals| totals["open"] == 1 && totals["accepted"] == ended + 1);
    let closed = totals["closed"].as_object().unwrap();
    assert_eq!(closed.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), ended, "{totals}");
    for (reason, count) in [
        ("peer_closed", 1),
        ("peer_gone", 3),
        ("protocol_error", 1),
        ("bad_utf8", 1),
        ("kicked", 1),
        ("answered", 1),
        ("refused", 1),
    ] {
        assert_eq!(closed[reason], count, "{reason}: {totals}");
    }
    assert_eq!((&totals["connections"], &totals["users"]), (&json!(1), &json!(1)));
}

#[test]
fn contract_3_stats_tell_control_totals_and_each_shard() {
    let gateway = Gateway::start(&["shards=3"]);
    let _client = gateway.raw("user=a&topics=t");
    gateway.push(json!({"topic": "t"}), json!(1));
    let stats = gateway.until_stats("delivered", |stats| stats["totals"]["delivered"] == 1);
    assert_eq!(stats["shards"].as_array().unwrap().len(), 3);
    assert_eq!((&stats["accepted"], &stats["draining"]), (&json!(1), &json!(false)));
    assert_eq!(stats["version"], env!("CARGO_PKG_VERSION"));
    let position: Position = stats["position"].as_str().unwrap().parse().unwrap();
    assert_eq!(position.seq, 1);
    let sum =
        |name: &str| stats["shards"].as_array().unwrap().iter().map(|s| s[name].as_u64().unwrap()).sum();
    for name in ["open", "connections", "accepted", "delivered", "pushes", "users"] {
        let sum: u64 = sum(name);
        assert_eq!(stats["totals"][name], sum, "{name}");
    }
}

#[test]
fn contract_3_metrics_are_prometheus_text_with_the_same_counters() {
    let gateway = Gateway::start(&[]);
    let _client = gateway.raw("user=a&topics=t");
    gateway.push(json!({"topic": "t"}), json!(1));
    gateway.until("delivered", |totals| totals["delivered"] == 1);
    let answer = gateway.control("GET", "/metrics", "", b"");
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let text = answer.text();
    let mut sums = std::collections::HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        // Prometheus exposition format: name, labels in braces, a space, a number.
        let (name, value) = line.rsplit_once(' ').expect(line);
        let name = name.split('{').next().unwrap();
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let has_type = |name: &str, kind: &str| text.contains(&format!("# TYPE {name} {kind}"));
        let typed = has_type(name, "") || histogram.is_some_and(|name| has_type(name, "histogram"));
        assert!(name.starts_with("corecast_") && typed, "{line}");
        *sums.entry(name).or_insert(0.0) += value.parse::<f64>().expect(line);
    }
    for (name, value) in [
        ("corecast_connections", 1.0),
        ("corecast_accepted_total", 1.0),
        ("corecast_delivered_total", 1.0),
        ("corecast_pushes_accepted_total", 1.0),
        ("corecast_closed_total", 0.0),
    ] {
        assert_eq!(sums[name], value, "{name}");
    }
}

#[test]
fn contract_3_a_reader_of_events_that_falls_behind_is_told_how_many_it_missed_and_holds_nobody_up() {
    let gateway = Gateway::start(&["control.reply_bytes=64KiB", "limits.uplinks_per_second=0"]);
    let mut late = gateway.events("types=uplink");
    let mut events = gateway.events("types=uplink");
    let mut client = gateway.raw("user=a");
    // More than the kernel holds for a reader, and 64 KiB.
    let count = 40;
    for n in 0..count {
        client.send(TEXT, &[b'x'; 32 << 10]);
        assert_eq!(events.next()["type"], "uplink", "{n}");
    }
    let mut received = 0;
    let missed = loop {
        let event = late.next();
        if event["type"] == "dropped" {
            break event["count"].as_u64().unwrap();
        }
        received += 1;
    };
    assert_eq!((received + missed, missed > 0), (count, true));
}
