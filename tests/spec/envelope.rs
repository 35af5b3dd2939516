//! `wire::envelope`: the frames of `corecast.v1`, field by field (contract section 2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use corecast::message::{ConnId, Kind, Message, Position, Target, Topic};
use corecast::wire::envelope::{self, ClientFrame, EchoId, FrameError};
use proptest::prelude::*;
use serde_json::{Value, json};

const POSITION: Position = Position { epoch: 0xa1, seq: 18 };

/// The payload of a server's text frame: FIN, no mask, its length in the shortest form (RFC 6455 5.2).
fn payload(frame: &Bytes) -> &[u8] {
    assert_eq!(frame[0], 0x81, "FIN and opcode text");
    let (header, length) = match frame[1] {
        126 => (4, usize::from(u16::from_be_bytes([frame[2], frame[3]]))),
        127 => (10, u64::from_be_bytes(frame[2..10].try_into().unwrap()) as usize),
        length => (2, usize::from(length)),
    };
    let shortest = match length {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    assert_eq!(header, shortest, "length in its shortest form");
    assert_eq!(frame.len(), header + length, "the frame is whole and alone");
    &frame[header..]
}

fn text(frame: &Bytes) -> &str {
    str::from_utf8(payload(frame)).expect("UTF-8")
}

fn value(frame: &Bytes) -> Value {
    serde_json::from_str(text(frame)).expect("JSON")
}

fn pushed(target: Target, kind: Kind, payload: impl AsRef<[u8]>) -> Message {
    Message::new(18, target, kind, Bytes::copy_from_slice(payload.as_ref()), 0)
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn id(raw: &str) -> EchoId {
    Some(serde_json::from_str(raw).unwrap())
}

fn raw(id: &EchoId) -> Option<&str> {
    id.as_deref().map(|raw| raw.get())
}

fn parse(text: impl AsRef<[u8]>) -> Result<ClientFrame, FrameError> {
    envelope::parse(text.as_ref())
}

fn names(topics: &[Topic]) -> Vec<&str> {
    topics.iter().map(|topic| topic.as_str()).collect()
}

/// Each is answered with an error of this code, and with the id that it carries.
fn refused(code: &str, shapes: &[&str]) {
    for shape in shapes {
        let error = parse(shape).expect_err(shape);
        assert_eq!(error.code, code, "{shape}: {}", error.message);
        assert_eq!(raw(&error.id), shape.contains(r#""id":7"#).then_some("7"), "{shape}");
    }
}

#[test]
fn contract_2_subscribe_has_topics_and_may_have_since_and_id() {
    let input = r#" {"type":"subscribe","topics":["a","b/c","a"],"since":"000000a1-18","id":{"n": 1}} "#;
    let ClientFrame::Subscribe { topics, since, id } = parse(input).unwrap() else { panic!() };
    assert_eq!((names(&topics), since, raw(&id)), (vec!["a", "b/c"], Some(POSITION), Some(r#"{"n": 1}"#)));

    let input = r#"{"topics":["a"],"type":"subscribe"}"#;
    let ClientFrame::Subscribe { topics, since, id } = parse(input).unwrap() else { panic!() };
    assert_eq!((names(&topics), since, raw(&id)), (vec!["a"], None, None));
}

#[test]
fn contract_2_unsubscribe_has_topics_and_may_have_an_id() {
    let input = r#"{"type":"unsubscribe","topics":["b","a","b"],"id":7}"#;
    let ClientFrame::Unsubscribe { topics, id } = parse(input).unwrap() else { panic!() };
    assert_eq!((names(&topics), raw(&id)), (vec!["b", "a"], Some("7")));
}

#[test]
fn contract_2_uplink_has_data_exactly_as_sent_and_may_have_topic_and_id() {
    let input = r#"{"type":"uplink","data": {"b":1.0e2, "a" : [ ] } ,"topic":"t","id":7}"#;
    let ClientFrame::Uplink { data, topic, id } = parse(input).unwrap() else { panic!() };
    assert_eq!(data, r#"{"b":1.0e2, "a" : [ ] }"#);
    assert_eq!((topic.as_ref().map(Topic::as_str), raw(&id)), (Some("t"), Some("7")));

    let ClientFrame::Uplink { data, topic, .. } = parse(r#"{"type":"uplink","data":null}"#).unwrap() else {
        panic!()
    };
    assert_eq!((&*data, topic), (&b"null"[..], None));
}

#[test]
fn contract_2_ping_may_have_an_id() {
    let ClientFrame::Ping { id } = parse(r#"{"type":"ping","id":"x"}"#).unwrap() else { panic!() };
    assert_eq!(raw(&id), Some(r#""x""#));
    let ClientFrame::Ping { id } = parse(r#"{"type":"ping"}"#).unwrap() else { panic!() };
    assert_eq!(raw(&id), None);
}

#[test]
fn an_id_is_any_json_value_and_is_echoed_exactly_as_sent() {
    for sent in ["7", "1e400", "-0.0", "null", "false", r#""a\u0062""#, "[1, [ ]]", r#"{"b":1,"a":2,"b":3}"#]
    {
        let ClientFrame::Ping { id } = parse(format!(r#"{{"type":"ping","id": {sent} }}"#)).unwrap() else {
            panic!()
        };
        assert_eq!(text(&envelope::pong(&id)), format!(r#"{{"type":"pong","id":{sent}}}"#));
        let FrameError { id, .. } = parse(format!(r#"{{"id":{sent}}}"#)).unwrap_err();
        let echoed = envelope::error("bad_type", "m", &id);
        assert_eq!(
            text(&echoed),
            format!(r#"{{"type":"error","code":"bad_type","message":"m","id":{sent}}}"#)
        );
    }
}

#[test]
fn contract_2_unknown_fields_are_ignored() {
    assert!(parse(r#"{"type":"ping","more":{"type":1},"topics":5,"since":[],"":null}"#).is_ok());
}

#[test]
fn contract_2_an_unknown_or_missing_type_is_bad_type() {
    refused(
        "bad_type",
        &[
            r#"{}"#,
            r#"{"id":7}"#,
            r#"{"type":"Subscribe","topics":["a"],"id":7}"#,
            r#"{"type":"hello","id":7}"#,
            r#"{"type":"","id":7}"#,
            r#"{"type":5,"id":7}"#,
            r#"{"type":null,"id":7}"#,
            r#"{"type":["ping"],"id":7}"#,
        ],
    );
}

#[test]
fn what_is_not_one_json_object_is_bad_request() {
    refused(
        "bad_request",
        &[
            "",
            " ",
            "5",
            "null",
            r#""ping""#,
            "[]",
            r#"["ping",1,null,null,null,null]"#,
            "{",
            r#"{"type":"ping""#,
            r#"{"type":"ping"}}"#,
            r#"{"type":"ping"}{}"#,
            r#"{type:"ping"}"#,
            r#"{"type":"ping",}"#,
            "{'type':'ping'}",
            r#"{"type":"ping","type":"ping"}"#,
            "\u{feff}{}",
            r#"{"type":"ping","x":01}"#,
        ],
    );
    for octets in [&b"\xff"[..], b"{\"type\":\"ping\",\"id\":\"\xff\"}", b"{\"type\":\"ping\",\"x\":\"\0\"}"]
    {
        assert_eq!(parse(octets).unwrap_err().code, "bad_request");
    }
}

#[test]
fn a_field_that_is_missing_or_of_the_wrong_shape_is_bad_request() {
    refused(
        "bad_request",
        &[
            r#"{"type":"subscribe","id":7}"#,
            r#"{"type":"subscribe","topics":[],"id":7}"#,
            r#"{"type":"subscribe","topics":null,"id":7}"#,
            r#"{"type":"subscribe","topics":"a","id":7}"#,
            r#"{"type":"subscribe","topics":["a",5],"id":7}"#,
            r#"{"type":"subscribe","topics":{"a":1},"id":7}"#,
            r#"{"type":"unsubscribe","id":7}"#,
            r#"{"type":"unsubscribe","topics":[],"id":7}"#,
            r#"{"type":"subscribe","topics":["a"],"since":18,"id":7}"#,
            r#"{"type":"subscribe","topics":["a"],"since":"18","id":7}"#,
            r#"{"type":"subscribe","topics":["a"],"since":"","id":7}"#,
            r#"{"type":"uplink","id":7}"#,
            r#"{"type":"uplink","data":1,"topic":5,"id":7}"#,
        ],
    );
}

#[test]
fn null_in_an_optional_field_is_as_good_as_none() {
    assert!(parse(r#"{"type":"subscribe","topics":["a"],"since":null}"#).is_ok());
    assert!(parse(r#"{"type":"uplink","data":1,"topic":null}"#).is_ok());
}

#[test]
fn contract_1_a_bad_topic_is_bad_topic() {
    let too_long = format!(r#"{{"type":"subscribe","topics":["{}"],"id":7}}"#, "t".repeat(129));
    refused(
        "bad_topic",
        &[
            r#"{"type":"subscribe","topics":["a",""],"id":7}"#,
            r#"{"type":"subscribe","topics":["a b"],"id":7}"#,
            r#"{"type":"unsubscribe","topics":["a,b"],"id":7}"#,
            r#"{"type":"uplink","data":1,"topic":"a\u0000","id":7}"#,
            &too_long,
        ],
    );
}

#[test]
fn values_nested_however_deep_do_not_overflow_the_stack() {
    let deep = "[".repeat(32_000) + &"]".repeat(32_000);
    for field in ["data", "id", "topics", "type", "other"] {
        let _ = parse(format!(r#"{{"type":"uplink","data":1,"{field}":{deep}}}"#));
        let _ = parse(format!(r#"{{"type":"subscribe","{field}":{deep}}}"#));
        let _ = parse(format!(r#"{{"{field}":{deep}}}"#));
    }
}

#[test]
fn a_message_full_of_names_is_read_in_one_pass() {
    let many: Vec<String> = (0..10_000).map(|n| format!("t{n}")).collect();
    let twice: Vec<&String> = many.iter().chain(&many).collect();
    let input = json!({"type": "subscribe", "topics": twice}).to_string();
    let ClientFrame::Subscribe { topics, .. } = parse(input).unwrap() else { panic!() };
    assert_eq!(names(&topics), many);
}

#[test]
fn contract_2_hello_says_who_where_and_how_often() {
    let connection = ConnId { shard: 1, index: 1841, generation: 7 };
    let expected = r#"{"type":"hello","connection":"1-1841-7","epoch":"000000a1","position":"000000a1-18","heartbeat":60}"#;
    assert_eq!(text(&envelope::hello(connection, POSITION, 60)), expected);
}

#[test]
fn contract_2_a_message_has_position_and_data_and_a_topic_only_where_it_was_pushed_to_one() {
    let others = [Target::All, Target::User(topic("u")), Target::Users(vec![topic("u")])];
    for target in others {
        let frame = envelope::message(&pushed(target, Kind::Json, "[1]"), 0xa1);
        assert_eq!(text(&frame), r#"{"type":"message","position":"000000a1-18","data":[1]}"#);
    }
    let frame = envelope::message(&pushed(Target::Topic(topic("a\"b\\ö")), Kind::Json, "{ }"), 0xa1);
    assert_eq!(text(&frame), r#"{"type":"message","position":"000000a1-18","topic":"a\"b\\ö","data":{ }}"#);
}

#[test]
fn contract_2_a_text_payload_is_a_string_and_a_binary_one_base64() {
    let frame = envelope::message(&pushed(Target::All, Kind::Text, "a\"\n\u{1}ö"), 1);
    assert_eq!(text(&frame), r#"{"type":"message","position":"00000001-18","data":"a\"\n\u0001ö"}"#);
    let frame = envelope::message(&pushed(Target::All, Kind::Binary, [0xff, 0]), 1);
    assert_eq!(
        text(&frame),
        r#"{"type":"message","position":"00000001-18","encoding":"base64","data":"/wA="}"#
    );
}

#[test]
fn contract_2_resumed_says_how_many_and_whether_some_are_gone() {
    assert_eq!(text(&envelope::resumed(3, true)), r#"{"type":"resumed","replayed":3,"gap":true}"#);
}

#[test]
fn contract_2_subscribed_and_unsubscribed_list_topics_position_and_id() {
    let topics = [topic("a"), topic("b")];
    let frame = envelope::subscribed(&topics, POSITION, &id("7"));
    let expected = r#"{"type":"subscribed","topics":["a","b"],"position":"000000a1-18","id":7}"#;
    assert_eq!(text(&frame), expected);
    let frame = envelope::unsubscribed(&topics, POSITION, &None);
    assert_eq!(text(&frame), r#"{"type":"unsubscribed","topics":["a","b"],"position":"000000a1-18"}"#);
}

#[test]
fn contract_2_pong_and_error_have_an_id_only_where_one_was_sent() {
    assert_eq!(text(&envelope::pong(&None)), r#"{"type":"pong"}"#);
    let frame = envelope::error("bad_type", "say \"what\"", &None);
    assert_eq!(text(&frame), r#"{"type":"error","code":"bad_type","message":"say \"what\""}"#);
}

#[test]
fn contract_2_reconnect_says_when_and_why() {
    let frame = envelope::reconnect(1500, "draining");
    assert_eq!(text(&frame), r#"{"type":"reconnect","after_ms":1500,"reason":"draining"}"#);
}

#[test]
fn rfc6455_5_2_a_frame_of_any_length_has_its_shortest_header() {
    let empty = payload(&envelope::reconnect(0, "")).len();
    for length in [empty, 125, 126, 127, 65_535, 65_536, 100_000] {
        let frame = envelope::reconnect(0, &"r".repeat(length - empty));
        assert_eq!(payload(&frame).len(), length);
    }
}

proptest! {
    #[test]
    fn any_text_payload_reads_back(sent in ".{0,300}", seq in 1u64..) {
        let message = Message::new(seq, Target::All, Kind::Text, Bytes::from(sent.clone()), 0);
        let frame = value(&envelope::message(&message, 7));
        prop_assert_eq!(frame, json!({"type": "message", "position": format!("00000007-{seq}"), "data": sent}));
    }

    #[test]
    fn any_binary_payload_reads_back(sent in proptest::collection::vec(any::<u8>(), 0..300)) {
        let frame = value(&envelope::message(&pushed(Target::Topic(topic("t")), Kind::Binary, &sent), 7));
        prop_assert_eq!(&frame["encoding"], "base64");
        prop_assert_eq!(&frame["topic"], "t");
        prop_assert_eq!(STANDARD.decode(frame["data"].as_str().unwrap()).unwrap(), sent);
    }

    #[test]
    fn any_json_payload_reads_back(text in ".{0,100}", number in any::<i64>(), flag in any::<Option<bool>>()) {
        let sent = json!({"text": [text], "number": number, "flag": flag});
        let frame = value(&envelope::message(&pushed(Target::All, Kind::Json, sent.to_string()), 7));
        prop_assert_eq!(&frame["data"], &sent);
        prop_assert_eq!(frame.get("encoding"), None);
    }

    #[test]
    fn any_id_is_echoed_exactly(text in ".{0,40}", number in any::<f64>(), deep in 0usize..20) {
        let inner = json!([text, number]).to_string();
        let sent = format!("{}{inner}{}", "[ ".repeat(deep), " ]".repeat(deep));
        let ClientFrame::Ping { id } = parse(format!(r#"{{"id":{sent},"type":"ping"}}"#)).unwrap() else { panic!() };
        prop_assert_eq!(raw(&id), Some(&*sent));
        prop_assert_eq!(envelope::pong(&id).ends_with(format!("\"id\":{sent}}}").as_bytes()), true);
    }

    #[test]
    fn any_octets_are_a_frame_or_an_error(octets in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = parse(octets);
    }

    #[test]
    fn any_shuffled_json_is_a_frame_or_an_error_that_can_be_answered(
        pieces in proptest::collection::vec(proptest::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"type\"", "\"ping\"", "\"id\"", "\"topics\"", "\"uplink\"", "null", "1", " ",
        ]), 0..20),
    ) {
        if let Err(error) = parse(pieces.concat()) {
            let answer = value(&envelope::error(error.code, &error.message, &error.id));
            prop_assert_eq!(&answer["code"], error.code);
        }
    }
}
