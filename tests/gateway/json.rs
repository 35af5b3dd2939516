//! `corecast.v1`: JSON frames told apart by `type`.

use serde_json::{Value, json};

use crate::harness::Gateway;
use crate::harness::websocket::{BINARY, WebSocket};

#[test]
fn contract_2_hello_is_the_first_frame_and_says_who_where_and_how_often() {
    let gateway = Gateway::start(&[]);
    let pushed = gateway.push(json!({"all": true}), json!(1));
    let (client, hello) = gateway.hello("user=ann");
    assert_eq!(client.header("sec-websocket-protocol"), Some("corecast.v1"));
    let presence = gateway.get("/v1/users/ann");
    assert_eq!(hello["connection"], presence["connections"][0]["id"]);
    assert_eq!(hello["position"], pushed["position"]);
    assert!(
        pushed["position"].as_str().unwrap().starts_with(&format!("{}-", hello["epoch"].as_str().unwrap()))
    );
    assert_eq!(hello["heartbeat"], 60);
    assert_eq!(hello.as_object().unwrap().len(), 5, "{hello}");
}

#[test]
fn contract_2_corecast_v1_is_chosen_among_others_and_an_unknown_one_alone_is_raw() {
    let gateway = Gateway::start(&[]);
    let open = |protocols| WebSocket::open(gateway.address, "/ws", Some(protocols));
    let mut client = open("mqtt, corecast.v1");
    assert_eq!(client.header("sec-websocket-protocol"), Some("corecast.v1"));
    client.expect("hello");
    let mut client = open("corecast.v2");
    assert_eq!(client.header("sec-websocket-protocol"), None);
    client.nothing_waits();
}

#[test]
fn contract_2_message_has_position_data_and_the_topic_it_was_pushed_to() {
    let gateway = Gateway::start(&[]);
    let (mut client, hello) = gateway.hello("user=ann&topics=t");
    let connection = hello["connection"].clone();
    for (to, topic) in [
        (json!({"topic": "t"}), Some("t")),
        (json!({"user": "ann"}), None),
        (json!({"all": true}), None),
        (json!({"connection": connection}), None),
    ] {
        let pushed = gateway.push(to, json!({"n": [1, null]}));
        let mut expected =
            json!({"type": "message", "position": pushed["position"], "data": {"n": [1, null]}});
        if let Some(topic) = topic {
            expected["topic"] = topic.into();
        }
        assert_eq!(client.json(), expected);
    }
}

#[test]
fn contract_2_text_is_a_string_and_binary_is_base64_and_says_so() {
    let gateway = Gateway::start(&[]);
    let (mut client, _) = gateway.hello("user=ann");
    gateway.push_with(json!({"to": {"user": "ann"}, "kind": "text", "data": "\"é\"\n\u{1}"}));
    let message = client.expect("message");
    assert_eq!((&message["data"], message.get("encoding")), (&json!("\"é\"\n\u{1}"), None));
    gateway.push_with(json!({"to": {"user": "ann"}, "encoding": "base64", "data": "AP8="}));
    let message = client.expect("message");
    assert_eq!((&message["data"], &message["encoding"]), (&json!("AP8="), &json!("base64")));
}

#[test]
fn contract_2_subscribe_and_unsubscribe_are_confirmed_with_topics_position_and_the_id() {
    let gateway = Gateway::start(&[]);
    let (mut client, _) = gateway.hello("user=ann");
    client.send_json(&json!({"type": "subscribe", "topics": ["a", "b"], "id": {"n": 7}}));
    let subscribed = client.expect("subscribed");
    assert_eq!((&subscribed["topics"], &subscribed["id"]), (&json!(["a", "b"]), &json!({"n": 7})));
    assert!(subscribed["position"].is_string());
    assert_eq!(gateway.push(json!({"topic": "a"}), json!(1))["connections"], 1);
    assert_eq!(client.expect("message")["topic"], "a");

    client.send_json(&json!({"type": "unsubscribe", "topics": ["a"]}));
    let unsubscribed = client.expect("unsubscribed");
    assert_eq!((&unsubscribed["topics"], unsubscribed.get("id")), (&json!(["a"]), None));
    assert_eq!(gateway.push(json!({"topic": "a"}), json!(2))["connections"], 0);
    assert_eq!(gateway.push(json!({"topic": "b"}), json!(3))["connections"], 1);
    assert_eq!(client.expect("message")["data"], 3);
}

#[test]
fn contract_2_a_topic_subscribed_twice_is_one_subscription() {
    let gateway = Gateway::start(&[]);
    let (mut client, _) = gateway.hello("topics=a,a");
    client.send_json(&json!({"type": "subscribe", "topics": ["a"]}));
    client.expect("subscribed");
    assert_eq!(gateway.push(json!({"topic": "a"}), json!(1))["connections"], 1);
    client.expect("message");
    client.nothing_waits();
}

#[test]
fn contract_2_ping_is_answered_with_pong_and_the_id_exactly() {
    let gateway = Gateway::start(&[]);
    let (mut client, _) = gateway.hello("");
    for id in [json!(1), json!("x"), json!([1.5, {"a": null}]), json!(null)] {
        client.send_json(&json!({"type": "ping", "id": id}));
        assert_eq!(client.json(), json!({"type": "pong", "id": id}));
    }
    client.send_json(&json!({"type": "ping"}));
    assert_eq!(client.json(), json!({"type": "pong"}));
}

#[test]
fn contract_2_an_uplink_appears_in_events_with_its_data_and_topic() {
    let gateway = Gateway::start(&[]);
    let mut events = gateway.events("types=uplink");
    let (mut client, hello) = gateway.hello("user=ann");
    client.send_json(&json!({"type": "uplink", "topic": "chat", "data": {"text": "hi"}, "id": 1}));
    let event = events.next();
    assert_eq!(event["connection"], hello["connection"]);
    assert_eq!((&event["user"], &event["topic"]), (&json!("ann"), &json!("chat")));
    assert_eq!(event["data"], json!({"text": "hi"}));
    client.send_json(&json!({"type": "uplink", "data": 5}));
    let event = events.next();
    assert_eq!((&event["data"], event.get("topic")), (&json!(5), None));
    // It is told to those who listen, and to nobody else.
    client.nothing_waits();
}

#[test]
fn contract_2_unknown_fields_are_ignored() {
    let gateway = Gateway::start(&[]);
    let (mut client, _) = gateway.hello("");
    client.send_json(&json!({"type": "ping", "id": 1, "colour": "blue", "topics": 7}));
    assert_eq!(client.json(), json!({"type": "pong", "id": 1}));
}

/// Sends `frame` and expects an `error` of `code` with `id`; the connection goes on.
#[track_caller]
fn assert_error(client: &mut WebSocket, frame: &Value, code: &str) {
    client.send_json(frame);
    let error = client.expect("error");
    assert_eq!(error["code"], code, "{frame}");
    assert!(error["message"].is_string());
    assert_eq!(error.get("id"), frame.get("id"));
    client.nothing_waits();
}

#[test]
fn contract_2_a_frame_that_makes_no_sense_is_an_error_and_the_connection_stays_open() {
    let gateway = Gateway::start(&["limits.uplinks_per_second=0"]);
    let (mut client, _) = gateway.hello("");
    let client = &mut client;
    assert_error(client, &json!({"type": "dance", "id": 1}), "bad_type");
    assert_error(client, &json!({"id": "no type"}), "bad_type");
    assert_error(client, &json!({"type": 7}), "bad_type");
    assert_error(client, &json!({"type": "subscribe", "topics": ["a b"], "id": 2}), "bad_topic");
    assert_error(client, &json!({"type": "subscribe", "topics": ["a", ""]}), "bad_topic");
    assert_error(client, &json!({"type": "unsubscribe", "topics": ["a,b"]}), "bad_topic");
    assert_error(client, &json!({"type": "subscribe", "topics": ["x".repeat(129)]}), "bad_topic");
    assert_error(client, &json!({"type": "uplink", "topic": "a b", "data": 1}), "bad_topic");
    assert_error(client, &json!({"type": "subscribe", "id": 3}), "bad_request");
    assert_error(client, &json!({"type": "subscribe", "topics": []}), "bad_request");
    assert_error(client, &json!({"type": "subscribe", "topics": ["a"], "since": "x"}), "bad_request");
    assert_error(client, &json!({"type": "uplink"}), "bad_request");
    assert_error(client, &json!(["type", "ping"]), "bad_request");
    client.send(BINARY, br#"{"type":"ping"}"#);
    assert_eq!(client.expect("error")["code"], "bad_request");
    client.send_json(&json!({"type": "subscribe", "topics": ["x".repeat(128)]}));
    client.expect("subscribed");
}
