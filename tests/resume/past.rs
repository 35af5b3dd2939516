//! What went wrong in servers of others, by name.

use corecast::control::command::{Command, Push};
use corecast::message::{Kind, Target};
use serde_json::{Value, json};

use crate::harness::Gateway;
use crate::harness::event_stream::EventStream;
use crate::harness::poll::Poller;
use crate::harness::websocket::{WebSocket, connect};
use crate::run::name;

/// 32 MB in all, with what is around them.
const MANY: usize = 100_000;
const MANY_BYTES: usize = 320;
const BATCH: usize = 1000;

/// A gateway whose topic `t` holds so many messages, and the position before the first.
fn full_gateway() -> (Gateway, String) {
    gateway_with(MANY, MANY_BYTES)
}

fn gateway_with(many: usize, bytes: usize) -> (Gateway, String) {
    let gateway = Gateway::start(&["history.messages=1000000", "history.bytes=256MiB"]);
    let since = gateway.hello("").1["position"].as_str().unwrap().to_owned();
    let mut client = gateway.client();
    for first in (0..many).step_by(BATCH) {
        let pushes = (first..first + BATCH).map(|n| Push {
            target: Target::Topic(name("t")),
            kind: Kind::Json,
            payload: format!("\"{n:<bytes$}\"").into_bytes().into(),
            event: None,
            ttl_ms: None,
            id: None,
        });
        client.call(&Command::PushBatch(pushes.collect())).expect("accepted");
    }
    gateway.until("held", |totals| totals["tape_messages"] == 2 * many);
    (gateway, since)
}

fn number(data: &Value) -> usize {
    data.as_str().unwrap().trim().parse().unwrap()
}

/// Reads nothing until the gateway can send no more; then all of it, a push in between.
fn reads_slowly(gateway: &Gateway, many: usize, mut next: impl FnMut() -> Value) {
    gateway.until("blocked", |totals| totals["blocked"] == 1);
    for n in 0..many {
        assert_eq!(number(&next()), n);
        if n == many / 2 {
            gateway.push(json!({"topic": "t"}), json!(many.to_string()));
        }
    }
    assert_eq!(number(&next()), many);
    let totals = gateway.totals();
    assert_eq!(totals["closed"]["slow_consumer"], 0, "{totals}");
}

#[test]
fn a_raw_resume_of_100_000_messages_through_a_slow_reader_comes_whole() {
    let (gateway, since) = full_gateway();
    let mut client = gateway.raw(&format!("topics=t&since={since}"));
    reads_slowly(&gateway, MANY, || serde_json::from_str(&client.text()).unwrap());
}

/// Several sends go out whole before the first that does not.
#[test]
fn a_resume_of_many_small_messages_is_no_lag_however_long_it_takes() {
    let many = 200_000;
    let (gateway, since) = gateway_with(many, 6);
    let mut client = gateway.raw(&format!("topics=t&since={since}"));
    reads_slowly(&gateway, many, || serde_json::from_str(&client.text()).unwrap());
}

#[test]
fn a_json_resume_of_100_000_messages_through_a_slow_reader_comes_whole() {
    let (gateway, since) = full_gateway();
    let stream = connect(gateway.address, Some(64 << 10), None);
    let target = format!("/ws?topics=t&since={since}");
    let mut client = WebSocket::open_on(stream, &target, Some("corecast.v1"));
    client.expect("hello");
    assert_eq!(client.expect("resumed"), json!({"type": "resumed", "replayed": MANY, "gap": false}));
    reads_slowly(&gateway, MANY, || client.expect("message")["data"].clone());
}

#[test]
fn an_event_stream_resumes_100_000_messages_through_a_slow_reader() {
    let (gateway, since) = full_gateway();
    let mut client = gateway.stream(&format!("topics=t&since={since}"));
    reads_slowly(&gateway, MANY, || client.expect("message"));
}

#[test]
fn polls_resume_100_000_messages_in_answers_of_bounded_size() {
    let (gateway, mut since) = full_gateway();
    let mut client = Poller::connect(gateway.address);
    let (mut received, mut answers) = (0, 0);
    while received < MANY {
        let answer = client.poll(&format!("topics=t&since={since}"));
        assert_eq!(answer["gap"], false);
        for message in answer["messages"].as_array().unwrap() {
            assert_eq!(number(&message["data"]), received);
            received += 1;
        }
        since = answer["next"].as_str().unwrap().to_owned();
        answers += 1;
    }
    // `limits.poll_bytes` is 256 KiB.
    assert!((120..400).contains(&answers), "{answers}");
}

/// The same gateway's positions that it cannot know: never given out, of another epoch.
fn unknown(position: &str) -> [String; 2] {
    let (epoch, seq) = position.split_once('-').unwrap();
    let other = u32::from_str_radix(epoch, 16).unwrap() ^ 1;
    [format!("{epoch}-1000000"), format!("{other:08x}-{seq}")]
}

#[test]
fn a_position_that_nobody_knows_is_answered_at_once_on_each_transport() {
    for (which, replayed) in [(0, 0), (1, 1)] {
        let gateway = Gateway::start(&[]);
        let topic = json!({"topic": "t"});
        let pushed = gateway.push(topic.clone(), json!("held"))["position"].clone();
        let query = format!("topics=t&since={}", unknown(pushed.as_str().unwrap())[which]);
        let mut raw = gateway.raw(&query);
        let (mut json, _) = gateway.hello(&query);
        let resumed = json!({"type": "resumed", "replayed": replayed, "gap": true});
        assert_eq!(json.expect("resumed"), resumed);
        let mut stream = gateway.stream(&query);
        assert_eq!(stream.expect("corecast.gap"), json!({"gap": true}));
        let mut poller = Poller::connect(gateway.address);
        let answer = poller.poll(&query);
        assert_eq!((&answer["gap"], &answer["next"]), (&json!(true), &pushed));
        assert_eq!(answer["messages"].as_array().unwrap().len(), replayed);
        let live = gateway.push(topic, json!("live"))["position"].clone();
        for expected in ["held", "live"].into_iter().skip(1 - replayed) {
            assert_eq!(raw.text(), format!("\"{expected}\""));
            assert_eq!(json.expect("message")["data"], expected);
            assert_eq!(stream.expect("message"), expected);
        }
        let answer = poller.poll(&format!("topics=t&since={}", pushed.as_str().unwrap()));
        assert_eq!((&answer["gap"], &answer["next"]), (&json!(false), &live));
        assert_eq!(answer["messages"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn a_new_epoch_is_never_paired_with_an_old_offset() {
    let (old, new) = (Gateway::start(&[]), Gateway::start(&[]));
    let topic = json!({"topic": "t"});
    for n in 0..9 {
        old.push(topic.clone(), json!(n));
    }
    let since = old.push(topic.clone(), json!(9))["position"].as_str().unwrap().to_owned();
    let newest = new.push(topic.clone(), json!("new"))["position"].as_str().unwrap().to_owned();
    // Past the old offset, so that a mixture would be believed.
    let query = format!("topics=t&since={since}");
    let (mut json, hello) = new.hello(&query);
    assert_eq!(hello["position"], newest);
    assert_eq!(json.expect("resumed")["gap"], true);
    assert_eq!(json.expect("message")["position"], newest);
    let mut stream = EventStream::open(new.address, "/sse?topics=t", &format!("Last-Event-ID: {since}\r\n"));
    stream.expect("corecast.gap");
    stream.expect("message");
    assert_eq!(stream.parser.last_event_id, newest);
    let answer = Poller::connect(new.address).poll(&query);
    assert_eq!((&answer["gap"], &answer["next"]), (&json!(true), &json!(newest)));
    // A stream without a message to send has told where it stands, too.
    let mut idle = EventStream::open(new.address, "/sse?topics=u", &format!("Last-Event-ID: {since}\r\n"));
    idle.expect("corecast.gap");
    assert_eq!(idle.parser.last_event_id, newest);
    for _ in 0..20 {
        new.push(topic.clone(), json!("more"));
    }
    let (mut json, _) = new.hello(&format!("topics=t&since={newest}"));
    assert_eq!(json.expect("resumed"), json!({"type": "resumed", "replayed": 20, "gap": false}));
}

#[test]
fn a_poll_beside_a_live_connection_of_the_same_user_doubles_nothing() {
    let gateway = Gateway::start(&[]);
    let (mut live, hello) = gateway.hello("user=ann&topics=t");
    let mut since = hello["position"].as_str().unwrap().to_owned();
    let mut poller = Poller::connect(gateway.address);
    let mut polled = Vec::new();
    let targets = [json!({"user": "ann"}), json!({"topic": "t"}), json!({"all": true})];
    for n in 0..60 {
        // Held, or late by one message, or by two.
        let late = n % 3;
        if late == 0 {
            poller.send(crate::harness::poll::request(&format!("user=ann&topics=t&since={since}")));
            gateway.until("held", |totals| totals["connections"] == 2);
        }
        let pushed = gateway.push(targets[n % 3].clone(), json!(n));
        assert_eq!(pushed["connections"], if late == 0 { 2 } else { 1 }, "{n}");
        assert_eq!(live.expect("message")["data"], n);
        if late == 0 {
            take(&poller.answer().ok(), &mut polled, &mut since);
        } else if late == 2 {
            take(&poller.poll(&format!("user=ann&topics=t&since={since}")), &mut polled, &mut since);
        }
    }
    assert_eq!(polled, (0..60).collect::<Vec<u64>>());
    live.nothing_waits();
}

fn take(answer: &Value, polled: &mut Vec<u64>, since: &mut String) {
    assert_eq!(answer["gap"], false, "{answer}");
    polled.extend(answer["messages"].as_array().unwrap().iter().map(|m| m["data"].as_u64().unwrap()));
    *since = answer["next"].as_str().unwrap().to_owned();
}
