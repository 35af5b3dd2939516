//! `wire::long_poll`: our answer (contract section 2), and what others send.

use crate::wire::long_poll::{NEXT_POINTER, decode};
use crate::wire::stamp::{Stamp, find, payload};

const STAMP: Stamp = Stamp { publisher: 1, seq: 2, at_ns: 3, wall: false };

fn next(body: &str, pointer: &str) -> Option<String> {
    decode(body.as_bytes(), pointer).next.map(Into::into)
}

fn messages(body: &str) -> Vec<String> {
    let answer = decode(body.as_bytes(), NEXT_POINTER);
    assert_eq!(answer.count(), answer.messages().count());
    answer.messages().map(|message| String::from_utf8(message.to_vec()).unwrap()).collect()
}

#[test]
fn our_answer_has_messages_and_where_to_go_on() {
    let body = r#" {"next":"0badcafe-7","gap":false,"messages":[{"position":"0badcafe-6","data":1},{"data":"]"}]}
        "#;
    assert_eq!(next(body, NEXT_POINTER).as_deref(), Some("0badcafe-7"));
    assert_eq!(messages(body), [r#"{"position":"0badcafe-6","data":1}"#, r#"{"data":"]"}"#]);
}

#[test]
fn our_answer_at_the_timeout_has_no_message() {
    let body = r#"{"next":"0badcafe-7","gap":false,"messages":[]}"#;
    assert_eq!(next(body, NEXT_POINTER).as_deref(), Some("0badcafe-7"));
    assert_eq!(messages(body), [""; 0]);
}

#[test]
fn each_message_of_our_answer_is_looked_into_for_its_stamp() {
    let stamped = String::from_utf8(payload(STAMP, 60)).unwrap();
    let body = format!(r#"{{"next":"0badcafe-7","messages":[{{"data":"{stamped}"}},{{"data":"none"}}]}}"#);
    let answer = decode(body.as_bytes(), NEXT_POINTER);
    assert_eq!(answer.messages().map(find).collect::<Vec<_>>(), [Some(STAMP), None]);
}

#[test]
fn what_is_not_ours_is_one_message_unless_it_is_empty() {
    for body in [
        "hello",
        "[]",
        "{}",
        r#"{"messages":7}"#,
        r#"{"messages":[1}"#,
        r#"{"messages":[1]} and more"#,
        r#"{"events":[1,2]}"#,
    ] {
        assert_eq!(messages(body), [body]);
    }
    for body in ["", " \r\n"] {
        assert_eq!(messages(body), [""; 0]);
    }
    let answer = decode(b"\xff\xfe", NEXT_POINTER);
    assert_eq!(answer.messages().collect::<Vec<_>>(), [b"\xff\xfe"]);
    let stamped = payload(STAMP, 60);
    assert_eq!(decode(&stamped, NEXT_POINTER).messages().map(find).collect::<Vec<_>>(), [Some(STAMP)]);
}

#[test]
fn next_is_a_string_or_a_number_and_nothing_else() {
    let cases = [
        (r#""a\"bé""#, Some("a\"bé")),
        (r#""""#, Some("")),
        ("17", Some("17")),
        ("-1.50", Some("-1.50")),
        ("null", None),
        ("true", None),
        (r#"{"a":1}"#, None),
    ];
    for (value, expected) in cases {
        assert_eq!(next(&format!(r#"{{"next":{value},"messages":[]}}"#), NEXT_POINTER).as_deref(), expected);
    }
    assert_eq!(next(r#"{"messages":[]}"#, NEXT_POINTER), None);
    assert_eq!(next("hello", NEXT_POINTER), None);
}

#[test]
fn rfc6901_next_stands_where_the_pointer_says() {
    let body = r#"{"next":"not this","meta":{"cursor":{"a/b":41}},"list":["x","y"],"messages":[1]}"#;
    assert_eq!(next(body, "/meta/cursor/a~1b").as_deref(), Some("41"));
    assert_eq!(next(body, "/list/1").as_deref(), Some("y"));
    assert_eq!(next(body, "/meta"), None);
    assert_eq!(next(body, ""), None);
    assert_eq!(decode(body.as_bytes(), "/list/1").count(), 1, "the messages are still ours");
    assert_eq!(next(r#"{"next":5,"events":[]}"#, NEXT_POINTER).as_deref(), Some("5"), "of others too");
}
