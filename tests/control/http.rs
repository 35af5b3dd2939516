//! Contract section 3, HTTP: what curl sends and what it prints.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::shard::Gateway;

fn json_of(answer: (u16, String)) -> (u16, Value) {
    let (status, body) = answer;
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("not JSON: {body}")))
}

fn code_of(answer: (u16, String)) -> (u16, String) {
    let (status, body) = json_of(answer);
    assert!(body["error"]["message"].is_string(), "{body}");
    (status, body["error"]["code"].as_str().expect("a code").to_owned())
}

fn push(gateway: &Gateway, json: &str) -> (u16, Value) {
    json_of(gateway.curl(&["--data-binary", json], "/v1/push"))
}

#[test]
fn contract_3_a_push_answers_its_position_and_the_connections_reached() {
    let gateway = Gateway::default();
    let user = push(&gateway, r#"{"to":{"user":"a"},"data":{"x":1}}"#);
    assert_eq!(user, (200, json!({"position": "000000a1-1", "connections": 1})));
    let all = push(&gateway, r#"{"to":{"all":true},"data":1}"#);
    assert_eq!(all, (200, json!({"position": "000000a1-2", "connections": 2})));
    let nobody = push(&gateway, r#"{"to":{"user":"nobody"},"data":1}"#);
    assert_eq!(nobody, (200, json!({"position": "000000a1-3", "connections": 0})));
}

#[test]
fn contract_3_the_same_id_again_gives_the_first_answer() {
    let gateway = Gateway::default();
    let body = r#"{"to":{"user":"a"},"data":1,"id":"k"}"#;
    let first = push(&gateway, body);
    assert_eq!(push(&gateway, body), first);
}

#[test]
fn contract_3_raw_bodies_go_to_a_user_a_topic_and_all() {
    let gateway = Gateway::default();
    for path in ["/v1/push/user/a%2Fb?event=e&ttl_ms=1000&id=k", "/v1/push/topic/t", "/v1/push/all"] {
        let (status, body) = json_of(gateway.curl(&["--data-binary", "hello"], path));
        assert_eq!((status, body["position"].is_string()), (200, true), "{path}: {body}");
    }
    let broken = ["--data-binary", "{", "-H", "Content-Type: application/json"];
    assert_eq!(code_of(gateway.curl(&broken, "/v1/push/all")), (400, "bad_payload".to_owned()));
}

#[test]
fn contract_3_ndjson_is_one_push_a_line_and_a_line_refused_is_told_by_its_number() {
    let gateway = Gateway::default();
    let lines = "{\"to\":{\"user\":\"a\"},\"data\":1}\n\n{\"to\":{\"user\":\"\"},\"data\":1}\nx\n{\"to\":{\"all\":true},\"data\":2}";
    let (status, body) = json_of(
        gateway.curl(&["--data-binary", lines, "-H", "Content-Type: application/x-ndjson"], "/v1/push"),
    );
    assert_eq!(status, 200);
    assert_eq!(
        (&body["accepted"], &body["refused"], &body["position"]),
        (&json!(2), &json!(2), &json!("000000a1-2"))
    );
    let errors: Vec<_> =
        body["errors"].as_array().expect("a list").iter().map(|e| (&e["line"], &e["code"])).collect();
    assert_eq!(errors, [(&json!(3), &json!("bad_user")), (&json!(4), &json!("bad_request"))]);
}

#[test]
fn contract_3_a_chunked_body_is_a_body() {
    let gateway = Gateway::default();
    let chunked =
        ["--data-binary", "{\"to\":{\"user\":\"a\"},\"data\":1}", "-H", "Transfer-Encoding: chunked"];
    assert_eq!(gateway.curl(&chunked, "/v1/push").0, 200);
}

#[test]
fn contract_3_presence_is_online_with_connections_or_offline_with_none() {
    let gateway = Gateway::default();
    let connection = json!({"id": "0-1-2", "transport": "ws", "remote": "127.0.0.1:9", "connected_at": 5, "topics": ["t"]});
    let online = json!({"user": "a", "online": true, "connections": [connection]});
    assert_eq!(json_of(gateway.curl(&[], "/v1/users/a")), (200, online));
    let offline = json!({"user": "b", "online": false, "connections": []});
    assert_eq!(json_of(gateway.curl(&[], "/v1/users/b")), (200, offline));
}

#[test]
fn contract_3_a_kick_counts_whom_it_closed_and_a_stale_connection_is_nobody() {
    let gateway = Gateway::default();
    let kick = |path: &str| json_of(gateway.curl(&["-X", "DELETE"], path));
    assert_eq!(kick("/v1/users/a?code=4999&reason=bye%20bye"), (200, json!({"closed": 1})));
    assert_eq!(kick("/v1/users/b"), (200, json!({"closed": 0})));
    assert_eq!(kick("/v1/connections/0-1-2"), (200, json!({"closed": 1})));
    assert_eq!(kick("/v1/connections/0-1-3"), (200, json!({"closed": 0})));
    assert_eq!(kick("/v1/connections/99-1-3"), (200, json!({"closed": 0})));
    for bad in ["code=1001", "code=x", "code=70000", "reason=%ff"] {
        let refused = code_of(gateway.curl(&["-X", "DELETE"], &format!("/v1/users/a?{bad}")));
        assert_eq!(refused, (400, "bad_request".to_owned()), "{bad}");
    }
}

#[test]
fn contract_3_bind_and_unbind_count_connections() {
    let gateway = Gateway::default();
    for method in ["PUT", "DELETE"] {
        let bound = json_of(gateway.curl(&["-X", method], "/v1/users/a/topics/news"));
        assert_eq!(bound, (200, json!({"connections": 1})));
    }
}

#[test]
fn contract_3_topics_are_added_up_and_an_unknown_one_has_nobody() {
    let gateway = Gateway::default();
    let t = json!({"topic": "t", "connections": 6, "position": "000000a1-5", "pushes": 8});
    assert_eq!(json_of(gateway.curl(&[], "/v1/topics/t")), (200, t.clone()));
    assert_eq!(json_of(gateway.curl(&[], "/v1/topics")), (200, json!({"topics": [t]})));
    let none = json!({"topic": "none", "connections": 0, "position": null, "pushes": 0});
    assert_eq!(json_of(gateway.curl(&[], "/v1/topics/none")), (200, none));
}

#[test]
fn contract_3_stats_and_metrics_tell_the_counters() {
    let gateway = Gateway::default();
    push(&gateway, r#"{"to":{"all":true},"data":1}"#);
    let (status, stats) = json_of(gateway.curl(&[], "/v1/stats"));
    assert_eq!((status, &stats["accepted"], &stats["totals"]["pushes"]), (200, &json!(1), &json!(2)));
    assert_eq!(stats["shards"].as_array().map(Vec::len), Some(2));
    let (status, metrics) = gateway.curl(&[], "/metrics");
    assert_eq!(status, 200);
    assert!(metrics.contains("\ncorecast_shard_pushes_total{shard=\"1\"} 1\n"), "{metrics}");
}

#[test]
fn contract_3_unknown_paths_are_404_and_wrong_methods_405() {
    let gateway = Gateway::default();
    for path in ["/", "/v1", "/v1/push/nobody", "/v1/users/", "/v2/push"] {
        let (status, _) = gateway.curl(&["-d", "1"], path);
        assert!(matches!(status, 404 | 405), "{path}: {status}");
    }
    assert_eq!(code_of(gateway.curl(&[], "/nowhere")), (404, "not_found".to_owned()));
    assert_eq!(code_of(gateway.curl(&[], "/v1/push")), (405, "method_not_allowed".to_owned()));
    assert_eq!(code_of(gateway.curl(&["-d", ""], "/v1/stats")).0, 405);
}

#[test]
fn contract_3_refusals_carry_the_error_object() {
    let gateway = Gateway::default();
    for (json, code) in [
        (r#"{"to":{},"data":1}"#, "bad_target"),
        (r#"{"to":{"user":"a b"},"data":1}"#, "bad_user"),
        (r#"{"to":{"topic":""},"data":1}"#, "bad_topic"),
        (r#"{"to":{"user":"a"}}"#, "bad_payload"),
        ("{", "bad_request"),
    ] {
        let refused = code_of(gateway.curl(&["--data-binary", json], "/v1/push"));
        assert_eq!(refused, (400, code.to_owned()), "{json}");
    }
    assert_eq!(code_of(gateway.curl(&[], "/v1/users/a%2Cb")), (400, "bad_user".to_owned()));
}

#[test]
fn contract_3_events_come_one_a_line_until_the_reader_goes() {
    let gateway = Gateway::default();
    let mut curl = Command::new("curl")
        .args(["-sN", "--max-time", "20", "--unix-socket"])
        .arg(gateway.path())
        .arg("http://corecast/v1/events?types=uplink")
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl is installed");
    let mut lines = BufReader::new(curl.stdout.take().expect("piped")).lines();
    while gateway.gate.events_wanted.load(std::sync::atomic::Ordering::SeqCst) != 4 {
        std::thread::yield_now();
    }
    push(&gateway, r#"{"to":{"topic":"uplink"},"data":{"x": 1}}"#);
    assert_eq!(
        lines.next().expect("a line").expect("text"),
        r#"{"type":"uplink","connection":"0-1-2","user":"a","kind":"json","data":{"x": 1},"at":1}"#
    );
    curl.kill().expect("it runs");
    curl.wait().expect("it ends");
    while gateway.gate.events_wanted.load(std::sync::atomic::Ordering::SeqCst) != 0 {
        std::thread::yield_now();
    }
}

#[test]
fn contract_3_a_drain_tells_its_progress_and_ends_control() {
    let mut gateway = Gateway::default();
    let (status, lines) = gateway.curl(&["-d", r#"{"within_ms":5000}"#], "/v1/drain");
    assert_eq!(status, 200);
    let last: Value = serde_json::from_str(lines.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["connections"], 0);
    gateway.join();
    assert!(!gateway.path().exists());
}

#[test]
fn rfc9112_9_3_2_pipelined_requests_are_answered_in_order_on_one_connection() {
    let gateway = Gateway::default();
    let mut socket = UnixStream::connect(gateway.path()).expect("connects");
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n");
    let requests =
        get("/v1/users/a", "") + &get("/nowhere", "") + &get("/v1/users/b", "Connection: close\r\n");
    socket.write_all(requests.as_bytes()).expect("written");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("closed after the last");
    let order = ["\"online\":true", "HTTP/1.1 404", "\"online\":false"].map(|part| text.find(part));
    assert!(order.is_sorted() && order.iter().all(Option::is_some), "{text}");
}
