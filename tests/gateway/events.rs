//! `/v1/events`: each kind, the filters, and an uplink that is answered.

use std::net::TcpStream;

use corecast::client::Client;
use corecast::control::command::{Answer, Command, EventFilter, Push};
use corecast::message::{Kind, Target};
use serde_json::{Value, json};

use crate::harness::http::Events;
use crate::harness::websocket::{BINARY, TEXT, WebSocket, connect};
use crate::harness::{Gateway, stderr};

const MESSAGE_BYTES: usize = 1024;

/// Of `event`, what `names` name.
fn of(event: &Value, names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| event[name].clone()).collect()
}

#[test]
fn issue_7_events_tell_which_subscriptions_changed_and_who_changed_them() {
    let gateway = Gateway::start(&[]);
    let mut events = gateway.events("types=subscribe,unsubscribe");
    let (mut client, hello) = gateway.hello("user=ann&topics=first");
    let mut expect = |kind: &str, topics: Value, by: &str| {
        let event = events.next();
        assert_eq!(of(&event, &["type", "topics", "by"]), [json!(kind), topics, json!(by)]);
        assert_eq!(of(&event, &["connection", "user"]), [hello["connection"].clone(), json!("ann")]);
        assert!(event["at"].is_u64());
    };
    client.send_json(&json!({"type": "subscribe", "topics": ["first", "a", "b"]}));
    expect("subscribe", json!(["a", "b"]), "client");
    client.expect("subscribed");
    let change = |method: &str, topic: &str| {
        gateway.control(method, &format!("/v1/users/ann/topics/{topic}"), "", b"").ok()
    };
    change("PUT", "a");
    change("PUT", "c");
    expect("subscribe", json!(["c"]), "control");
    change("DELETE", "nothing");
    change("DELETE", "b");
    expect("unsubscribe", json!(["b"]), "control");
    client.send_json(&json!({"type": "unsubscribe", "topics": ["b", "c"]}));
    expect("unsubscribe", json!(["c"]), "client");
    client.send_json(&json!({"type": "unsubscribe", "topics": ["b"]}));
    client.send_json(&json!({"type": "subscribe", "topics": ["last"]}));
    expect("subscribe", json!(["last"]), "client");
}

#[test]
fn issue_7_a_topic_pattern_passes_events_with_a_topic_that_matches() {
    let gateway = Gateway::start(&[]);
    let mut events = gateway.events("topic=orders/*/state,news*");
    // Connects and ends without a topic, and then with another.
    drop(gateway.raw("user=ann"));
    drop(gateway.raw("user=ann&topics=orders/7"));
    let (mut client, hello) = gateway.hello("user=ann&topics=x,newsletter");
    let connect = events.next();
    assert_eq!(of(&connect, &["type", "connection"]), [json!("connect"), hello["connection"].clone()]);
    for topic in ["orders/7/state", "orders/7/other"] {
        client.send_json(&json!({"type": "uplink", "topic": topic, "data": 1}));
    }
    client.send_json(&json!({"type": "uplink", "data": 2}));
    client.send_json(&json!({"type": "subscribe", "topics": ["y", "news"]}));
    assert_eq!(of(&events.next(), &["type", "topic"]), [json!("uplink"), json!("orders/7/state")]);
    assert_eq!(of(&events.next(), &["type", "topics"]), [json!("subscribe"), json!(["y", "news"])]);
}

#[test]
fn issue_7_filters_of_type_topic_and_user_all_have_to_pass() {
    let gateway = Gateway::start(&[]);
    let mut of_ann = gateway.events("user=ann");
    let mut narrow = gateway.events("user=ann&types=uplink&topic=t");
    let (mut ann, _) = gateway.hello("user=ann");
    let (mut bob, _) = gateway.hello("user=bob");
    drop(gateway.raw(""));
    let uplink = |client: &mut WebSocket, topic: &str, n: u64| {
        client.send_json(&json!({"type": "uplink", "topic": topic, "data": n}));
    };
    uplink(&mut bob, "t", 1);
    uplink(&mut ann, "u", 2);
    uplink(&mut ann, "t", 3);
    assert_eq!(of(&narrow.next(), &["user", "topic", "data"]), [json!("ann"), json!("t"), json!(3)]);
    assert_eq!(of_ann.next()["type"], "connect");
    assert_eq!(of_ann.next()["data"], 2);
    assert_eq!(of_ann.next()["data"], 3);
    drop(ann);
    assert_eq!(of(&of_ann.next(), &["type", "user"]), [json!("disconnect"), json!("ann")]);
}

#[test]
fn issue_7_a_filter_that_is_none_is_refused_and_says_why() {
    let gateway = Gateway::start(&[]);
    for (query, code) in [
        ("types=birth", "bad_request"),
        ("types=", "bad_request"),
        ("topic=a*b", "bad_topic"),
        ("topic=a%20b", "bad_topic"),
        ("topic=", "bad_topic"),
        ("user=", "bad_user"),
    ] {
        let refusal = gateway.control("GET", &format!("/v1/events?{query}"), "", b"").refusal();
        assert_eq!(refusal, (400, code.to_owned()), "{query}");
    }
    let output = gateway.cli(&["events", "--topic", "a*b"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("corecast: refused: bad_topic: "), "{}", stderr(&output));
}

#[test]
fn issue_7_both_binary_commands_for_events_tell_them() {
    let gateway = Gateway::start(&[]);
    let (mut all, mut some) = (gateway.client(), gateway.client());
    all.send(&Command::Events { mask: 1 }).unwrap();
    all.flush().unwrap();
    some.send(&Command::EventsWhere(EventFilter {
        mask: 1,
        topics: vec!["t".parse().unwrap()],
        user: Some("ann".parse().unwrap()),
    }))
    .unwrap();
    some.flush().unwrap();
    gateway.until_stats("both listen", |stats| stats["requests"]["events"]["done"] == 2);
    gateway.totals();
    let _clients = [gateway.raw("user=bob&topics=t"), gateway.raw("user=ann&topics=t")];
    let user = |client: &mut Client| match client.receive().unwrap() {
        (_, Ok(Answer::Event(line))) => serde_json::from_str::<Value>(&line).unwrap()["user"].clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((user(&mut all), user(&mut all), user(&mut some)), (json!("bob"), json!("ann"), json!("ann")));
}

#[test]
fn contract_3_an_uplink_is_answered_by_a_push_to_the_connection_that_its_event_names() {
    let gateway = Gateway::start(&[]);
    let mut events = gateway.events("types=uplink");
    let answer = |event: &Value| {
        let pushed = gateway.push(json!({"connection": event["connection"]}), json!({"to": event["data"]}));
        assert_eq!(pushed["connections"], 1);
    };
    let (mut raw, mut other) = (gateway.raw("user=ann"), gateway.raw("user=ann"));
    raw.send(TEXT, b"one");
    let event = events.next();
    assert_eq!(of(&event, &["user", "kind", "data"]), [json!("ann"), json!("text"), json!("one")]);
    answer(&event);
    assert_eq!(raw.text(), r#"{"to":"one"}"#);
    raw.send(BINARY, &[0, 255]);
    let event = events.next();
    assert_eq!(of(&event, &["kind", "encoding", "data"]), [json!("binary"), json!("base64"), json!("AP8=")]);
    answer(&event);
    assert_eq!(raw.text(), r#"{"to":"AP8="}"#);
    let (mut client, _) = gateway.hello("");
    client.send_json(&json!({"type": "uplink", "topic": "t", "data": {"n": 1}}));
    let event = events.next();
    assert_eq!(of(&event, &["user", "topic", "data"]), [json!(null), json!("t"), json!({"n": 1})]);
    answer(&event);
    assert_eq!(client.expect("message")["data"], json!({"to": {"n": 1}}));
    other.nothing_waits();
}

/// A raw client whose kernel takes little before it is read.
fn sluggish(gateway: &Gateway) -> WebSocket {
    let stream = connect(gateway.address, Some(4096), None);
    WebSocket::open_on(stream, "/ws?topics=t&user=lazy&heartbeat=600", None)
}

/// Pushes to `t` until an event comes; gives it, and how many pushes there were.
fn push_until(pusher: &mut Client, events: &mut Events, gateway: &Gateway) -> (Value, usize) {
    for pushed in 1..2000 {
        let payload = vec![b'x'; MESSAGE_BYTES].into();
        let target = Target::Topic("t".parse().unwrap());
        pusher.push(Push { target, kind: Kind::Text, payload, event: None, ttl_ms: None, id: None }).unwrap();
        // Answered behind the events of that push.
        gateway.totals();
        if events.has_more() {
            return (events.next(), pushed);
        }
    }
    panic!("nothing happened");
}

#[test]
fn issue_7_a_client_that_falls_behind_is_told_of_once_until_it_has_caught_up_and_when_it_is_cut() {
    let limit = 128 << 10;
    let gateway = Gateway::start(&["limits.socket_send_bytes=4096", "limits.send_backlog_bytes=128KiB"]);
    let mut events = gateway.events("types=slow,disconnect");
    let mut pusher = gateway.client();
    let mut lazy = sluggish(&gateway);
    for _ in 0..2 {
        let (slow, pushed) = push_until(&mut pusher, &mut events, &gateway);
        assert_eq!(of(&slow, &["type", "user", "cut"]), [json!("slow"), json!("lazy"), json!(false)]);
        let lag = slow["lag_bytes"].as_u64().unwrap();
        assert!((limit / 4..limit).contains(&lag), "a quarter of the limit: {slow}");
        (0..pushed).for_each(|_| assert_eq!(lazy.text().len(), MESSAGE_BYTES));
        lazy.nothing_waits();
    }
    let (slow, _) = push_until(&mut pusher, &mut events, &gateway);
    assert_eq!(slow["cut"], false);
    let (cut, _) = push_until(&mut pusher, &mut events, &gateway);
    assert_eq!(of(&cut, &["type", "user", "cut"]), [json!("slow"), json!("lazy"), json!(true)]);
    assert!(cut["lag_bytes"].as_u64().unwrap() > limit, "{cut}");
    let end = events.next();
    assert_eq!(
        of(&end, &["type", "connection", "reason"])[1..],
        [cut["connection"].clone(), json!("slow_consumer")]
    );
}

#[test]
fn issue_7_a_client_that_is_not_let_in_is_told_of_with_status_code_and_address() {
    let gateway = Gateway::start(&["limits.connections_per_address=1"]);
    let _first = gateway.raw("user=ann");
    let mut events = gateway.events("types=refused");
    let stream = TcpStream::connect(gateway.address).unwrap();
    let remote = stream.local_addr().unwrap().to_string();
    assert!(WebSocket::try_open_on(stream, "/ws?user=bob", None).is_err());
    let refused = events.next();
    assert_eq!(
        of(&refused, &["type", "status", "code", "remote", "user", "count"]),
        [json!("refused"), json!(429), json!("too_many_connections"), json!(remote), json!("bob"), json!(1)]
    );
    gateway.ask("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(of(&events.next(), &["status", "user"]), [json!(404), json!(null)]);
}

#[test]
fn issue_7_a_client_closed_at_accept_is_told_of_without_a_status() {
    let gateway = Gateway::start(&["network.deny=127.0.0.1"]);
    let mut events = gateway.events("types=refused");
    let stream = TcpStream::connect(gateway.address).unwrap();
    let remote = stream.local_addr().unwrap().to_string();
    let refused = events.next();
    assert_eq!(
        of(&refused, &["status", "code", "remote"]),
        [json!(null), json!("forbidden_address"), json!(remote)]
    );
}

#[test]
fn rule_8_a_flood_of_refusals_is_few_events_that_count_all_of_them() {
    let gateway = Gateway::start(&["shards=1", "limits.connects_per_second=1"]);
    let mut events = gateway.events("types=refused");
    let sent = 200;
    let mut refused = 0;
    for n in 0..sent {
        let stream = TcpStream::connect(gateway.address).unwrap();
        refused += u64::from(WebSocket::try_open_on(stream, &format!("/ws?user=u{n}"), None).is_err());
    }
    let (mut told, mut lines) = (0, 0);
    while told < refused {
        let event = events.next();
        assert_eq!(of(&event, &["status", "code"]), [json!(503), json!("overloaded")]);
        let count = event["count"].as_u64().unwrap();
        assert_eq!(event["remote"].is_null(), count > 1, "{event}");
        (told, lines) = (told + count, lines + 1);
    }
    assert_eq!(told, refused);
    assert!(refused > 100 && lines < refused / 2, "{lines} lines for {refused}");
}
