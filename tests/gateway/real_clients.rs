//! The main job end to end with clients that nobody here wrote: curl pushes; Python's `websockets` and
//! headless Chromium listen.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::guest::{Guest, INSTALL, chromium_arguments};
use crate::harness::{DEADLINE, Gateway};

/// What is answered to curl on the control socket.
fn curl(gateway: &Gateway, arguments: &[&str]) -> Value {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail-with-body", "--max-time", "10", "--unix-socket"])
        .arg(&gateway.socket)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("curl: {error}; {INSTALL}"));
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Pushes to a user, a topic and all, in the ways that the README and `serve` tell of.
fn push_with_curl(gateway: &Gateway) {
    let push = |body: &str| curl(gateway, &["-d", body, "http://localhost/v1/push"]);
    assert_eq!(push(r#"{"to":{"user":"alice"},"data":{"n":1}}"#)["connections"], 1);
    assert_eq!(push(r#"{"to":{"topic":"news"},"data":{"n":2}}"#)["connections"], 1);
    assert_eq!(push(r#"{"to":{"all":true},"data":{"n":3}}"#)["connections"], 1);
    let raw = |kind: &str, data: &str, path: &str| {
        let url = format!("http://localhost/v1/push/{path}");
        curl(gateway, &["-H", &format!("Content-Type: {kind}"), "--data-binary", data, &url])
    };
    assert_eq!(raw("text/plain", "plain é", "user/alice")["connections"], 1);
    assert_eq!(raw("application/octet-stream", "octets", "topic/news")["connections"], 1);
}

#[test]
fn contract_3_a_user_online_is_seen_by_curl() {
    let gateway = Gateway::start(&[]);
    let _client = gateway.raw("user=alice");
    let presence = curl(&gateway, &["http://localhost/v1/users/alice"]);
    assert_eq!(presence["online"], true);
    let closed = curl(&gateway, &["-X", "DELETE", "http://localhost/v1/users/alice"]);
    assert_eq!(closed, json!({"closed": 1}));
}

/// Raw: prints each message as JSON, binary as a list of octets. Then one uplink, and a close.
const PYTHON: &str = r#"
import asyncio, json, sys, websockets

async def main(url):
    async with websockets.connect(url) as raw:
        print("open", flush=True)
        for _ in range(5):
            message = await raw.recv()
            print(json.dumps(message if isinstance(message, str) else list(message)), flush=True)
        await raw.send("thanks")
        pong = await raw.ping()
        await pong
    print(raw.close_code, flush=True)

asyncio.run(asyncio.wait_for(main(sys.argv[1]), 30))
"#;

/// Python of the virtual environment with `websockets`.
fn python() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-clients/bin/python");
    assert!(path.exists(), "{} with websockets is missing; {INSTALL}", path.display());
    path
}

#[test]
fn contract_2_python_websockets_gets_what_curl_pushes() {
    let gateway = Gateway::start(&[]);
    let mut events = gateway.events("types=uplink,disconnect");
    let url = format!("ws://{}/ws?user=alice&topics=news", gateway.address);
    let mut guest = Guest::spawn(
        Command::new(python()).args(["-c", PYTHON, &url]).stdin(Stdio::null()).stdout(Stdio::piped()),
    );
    let mut lines = BufReader::new(guest.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("open"));
    push_with_curl(&gateway);
    for expected in [json!(r#"{"n":1}"#), json!(r#"{"n":2}"#), json!(r#"{"n":3}"#), json!("plain é")] {
        assert_eq!(serde_json::from_str::<Value>(&lines.next().unwrap()).unwrap(), expected);
    }
    assert_eq!(lines.next().unwrap(), format!("{:?}", b"octets"));
    assert_eq!(events.next()["data"], "thanks");
    let disconnect = events.next();
    assert_eq!((&disconnect["reason"], &disconnect["code"]), (&json!("peer_closed"), &json!(1000)));
    assert_eq!(lines.next().as_deref(), Some("1000"));
    assert!(guest.0.wait().unwrap().success());
}

/// Says that it is there, takes five messages, closes, and sends what it saw by a second WebSocket.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><script>
const seen = [];
const socket = new WebSocket("ws://ADDRESS/ws?user=alice&topics=news", ["corecast.v1"]);
const uplink = (socket, data) => socket.send(JSON.stringify({type: "uplink", data}));
socket.onopen = () => { seen.push(["open", socket.protocol]); uplink(socket, "here"); };
socket.onmessage = event => {
  const frame = JSON.parse(event.data);
  seen.push([frame.type, frame.topic || null, frame.data || null]);
  if (seen.length === 7) { socket.close(1000, "enough"); }
};
socket.onclose = event => {
  seen.push(["close", event.code, event.reason, event.wasClean]);
  const second = new WebSocket("ws://ADDRESS/ws?user=alice", ["corecast.v1"]);
  second.onopen = () => uplink(second, seen);
};
</script>"#;

/// Chromium on `page`, with a profile of its own beside it.
fn chromium(page: &Path) -> Guest {
    let directory = page.parent().unwrap();
    let mut command = Command::new("chromium");
    command
        .args(chromium_arguments(directory))
        .arg(format!("file://{}", page.display()))
        .env("TMPDIR", directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    Guest::spawn(&mut command)
}

#[test]
fn contract_2_chromium_gets_what_curl_pushes() {
    let gateway = Gateway::start(&[]);
    let mut events = gateway.events("types=uplink");
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    std::fs::write(&page, PAGE.replace("ADDRESS", &gateway.address.to_string())).unwrap();
    let _guest = chromium(&page);
    // A browser takes its time to start.
    let uplink = events.next_within(3 * DEADLINE);
    assert_eq!((&uplink["user"], &uplink["data"]), (&json!("alice"), &json!("here")));
    push_with_curl(&gateway);
    let expected = json!([
        ["open", "corecast.v1"],
        ["hello", null, null],
        ["message", null, {"n": 1}],
        ["message", "news", {"n": 2}],
        ["message", null, {"n": 3}],
        ["message", null, "plain é"],
        ["message", "news", "b2N0ZXRz"],
        ["close", 1000, "enough", true],
    ]);
    assert_eq!(events.next()["data"], expected);
}

/// Tells what its EventSource sees, one uplink for each, over a WebSocket of its own.
const STREAM_PAGE: &str = r#"<!doctype html><meta charset="utf-8"><script>
const socket = new WebSocket("ws://ADDRESS/ws?user=report", ["corecast.v1"]);
const tell = data => socket.send(JSON.stringify({type: "uplink", data}));
socket.onopen = () => {
  const stream = new EventSource("http://ADDRESS/sse?user=alice&topics=news");
  stream.onopen = () => tell(["open"]);
  stream.onmessage = event => tell([event.lastEventId, event.data]);
  stream.addEventListener("price", event => tell([event.lastEventId, "price " + event.data]));
  stream.addEventListener("corecast.gap", event => tell(["gap"]));
  stream.addEventListener("corecast.close", event => tell(["close", JSON.parse(event.data).code]));
};
fetch("http://ADDRESS/poll?user=alice&timeout=0", {headers: {Authorization: "Bearer x"}});
</script>"#;

#[test]
fn contract_2_chromiums_event_source_comes_back_by_itself_and_misses_nothing() {
    let gateway = Gateway::start(&[]);
    let mut events = gateway.events("types=uplink");
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    std::fs::write(&page, STREAM_PAGE.replace("ADDRESS", &gateway.address.to_string())).unwrap();
    let _guest = chromium(&page);
    let mut told = || events.next_within(3 * DEADLINE)["data"].clone();
    assert_eq!(told(), json!(["open"]));
    let push = |body: Value| curl(&gateway, &["-d", &body.to_string(), "http://localhost/v1/push"]);
    let first = push(json!({"to": {"user": "alice"}, "data": "a\n  b", "kind": "text"}));
    assert_eq!(told(), json!([first["position"], "a\n  b"]));
    let second = push(json!({"to": {"topic": "news"}, "data": 1, "event": "price"}));
    assert_eq!(told(), json!([second["position"], "price 1"]));
    // Sent away, and pushed to while it waits for its `retry`.
    curl(&gateway, &["-X", "DELETE", "http://localhost/v1/users/alice?code=4000"]);
    let missed: Vec<Value> = (0..3).map(|n| push(json!({"to": {"topic": "news"}, "data": n}))).collect();
    assert_eq!(missed[0]["connections"], 0);
    assert_eq!(told(), json!(["close", 4000]));
    assert_eq!(told(), json!(["open"]));
    for (n, pushed) in missed.iter().enumerate() {
        assert_eq!(told(), json!([pushed["position"], n.to_string()]));
    }
    // The page's poll with a header of its own was preflighted, and answered.
    assert!(gateway.totals()["polls_answered"].as_u64() >= Some(1));
}
