//! `request::verify`: what a response must be.

use serde_json::{Value, json};

use crate::plan::Check;
use crate::request::verify::{Checks, Failed};

const BODY: &[u8] = br#"{"ok":true,"count":3,"items":[{"id":"a"},{"id":"b"}],"big":9007199254740993}"#;

fn equals(path: &str, value: Value) -> Check {
    Check::JsonEquals(path.to_owned(), value)
}

fn contains(text: &str) -> Check {
    Check::Contains(text.to_owned())
}

#[track_caller]
fn judged(checks: &[Check], status: Option<u16>, body: &[u8]) -> Result<(), Failed> {
    Checks::compile(checks).unwrap().judge(status, body)
}

#[track_caller]
fn fault(check: Check, body: &[u8]) -> String {
    judged(&[check], Some(200), body).unwrap_err().to_string()
}

#[test]
fn without_checks_all_is_well() {
    assert_eq!(judged(&[], Some(500), b""), Ok(()));
    assert_eq!(judged(&[], None, b"\xff"), Ok(()));
}

#[test]
fn a_status_is_this_one() {
    assert_eq!(judged(&[Check::Status(200)], Some(200), b""), Ok(()));
    let failed = judged(&[Check::Status(200)], Some(503), b"").unwrap_err();
    assert_eq!(failed, Failed::Status { wanted: 200, found: Some(503) });
    assert_eq!(failed.to_string(), "status is 503, not 200");
    let failed = judged(&[Check::Status(200)], None, b"").unwrap_err();
    assert_eq!(failed.to_string(), "there is no status, it should be 200");
}

#[test]
fn a_body_contains_a_text_anywhere() {
    assert_eq!(judged(&[contains("\"ok\":true"), contains("993}"), contains("")], None, BODY), Ok(()));
    assert_eq!(fault(contains("nope"), b"hello\r\nworld"), "no \"nope\" in hello  world");
    assert_eq!(fault(contains("nope"), b""), "no \"nope\" in an empty body");
}

#[test]
fn rfc9535_the_value_at_a_path_is_this_one() {
    let right = [
        equals("$.ok", json!(true)),
        equals("$.items[1].id", json!("b")),
        equals("$.items[0]", json!({"id": "a"})),
        equals("$.count", json!(3.0)),
        equals("$.big", json!(9_007_199_254_740_993_u64)),
    ];
    assert_eq!(judged(&right, Some(200), BODY), Ok(()));
    assert_eq!(fault(equals("$.ok", json!(false)), BODY), "$.ok is not false: true");
    assert_eq!(fault(equals("$.count", json!("3")), BODY), "$.count is not \"3\": 3");
    assert_eq!(fault(equals("$.none", json!(null)), BODY), "$.none is not null: nothing is there");
    assert!(fault(equals("$.big", json!(9_007_199_254_740_992_u64)), BODY).ends_with(": 9007199254740993"));
}

#[test]
fn several_values_at_a_path_are_all_this_one() {
    assert_eq!(judged(&[equals("$[*].a", json!(1))], None, br#"[{"a":1},{"a":1}]"#), Ok(()));
    assert!(judged(&[equals("$[*].a", json!(1))], None, br#"[{"a":1},{"a":2}]"#).is_err());
}

#[test]
fn a_body_that_is_no_json_has_no_value() {
    assert_eq!(fault(equals("$.ok", json!(true)), b"<html>"), "$.ok is not true: no JSON: <html>");
    assert_eq!(fault(equals("$.ok", json!(true)), b""), "$.ok is not true: no JSON: an empty body");
}

#[test]
fn all_checks_must_hold_and_the_first_that_does_not_is_told() {
    let checks = [equals("$.ok", json!(true)), contains("count"), Check::Status(200)];
    assert_eq!(judged(&checks, Some(200), BODY), Ok(()));
    assert!(matches!(judged(&checks, Some(201), b"x"), Err(Failed::Status { .. })));
    assert!(matches!(judged(&checks, Some(200), b"{\"ok\":true}"), Err(Failed::Contains { .. })));
    assert!(matches!(judged(&checks, Some(200), b"count"), Err(Failed::JsonEquals { .. })));
}

#[test]
fn what_was_found_is_cut_short() {
    let long = "x".repeat(100_000);
    assert!(fault(contains("y"), long.as_bytes()).len() < 100);
    let fault = fault(equals("$", json!(1)), format!("\"{long}\"").as_bytes());
    assert!(fault.len() < 100 && fault.ends_with("..."), "{fault}");
}

#[test]
fn a_path_that_is_none_is_refused_by_name() {
    let bad = Checks::compile(&[equals("$.[", json!(1))]).unwrap_err().to_string();
    assert!(bad.starts_with("\"$.[\" is no JSON path: "), "{bad}");
}
