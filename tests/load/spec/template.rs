//! `request::template`: what becomes of `{{name}}`.

use std::borrow::Cow;

use proptest::prelude::*;

use crate::request::template::{BadTemplate, Fault, Template};

fn value(name: &str) -> Option<Cow<'static, str>> {
    match name {
        "number" => Some("42".into()),
        "user" => Some("J\u{fc}rgen & co".into()),
        "x-y.z_1" => Some("odd".into()),
        _ => None,
    }
}

#[track_caller]
fn rendered(text: &str) -> String {
    let mut out = b">".to_vec();
    Template::parse(text).unwrap().render(&value, &mut out);
    String::from_utf8(out).unwrap().strip_prefix('>').expect("what was there stays").to_owned()
}

#[track_caller]
fn bad(text: &str) -> BadTemplate {
    Template::parse(text).unwrap_err()
}

#[test]
fn variables_are_put_in_and_the_rest_stays() {
    assert_eq!(rendered("/ws?user=u{{number}}&n={{ number }}"), "/ws?user=u42&n=42");
    assert_eq!(rendered("{{x-y.z_1}}{{number}}"), "odd42");
    assert_eq!(rendered(""), "");
}

#[test]
fn numbers_are_padded_with_zeros() {
    assert_eq!(rendered("{{number:6}} {{number:06}} {{number:1}} {{ number : 3 }}"), "000042 000042 42 042");
}

#[test]
fn values_are_percent_encoded_for_urls() {
    assert_eq!(rendered("{{user}} {{user|url}}"), "J\u{fc}rgen & co J%C3%BCrgen%20%26%20co");
    assert_eq!(rendered("{{ number:4 | url }}"), "0042");
}

#[test]
fn braces_of_json_are_text() {
    let text = r#"{"a":{"b":{"c":"{{number}}"}},"d":{}}"#;
    assert_eq!(rendered(text), text.replace("{{number}}", "42"));
    assert_eq!(rendered("a}} { { }"), "a}} { { }");
}

#[test]
fn names_are_told_in_order() {
    let template = Template::parse("{{b}}-{{a|url}}{{number:3}}{{b}}").unwrap();
    assert_eq!(template.names().collect::<Vec<_>>(), ["b", "a", "number", "b"]);
}

#[test]
fn a_variable_without_a_value_is_left_out() {
    assert_eq!(rendered("/poll?since={{next}}&a=1"), "/poll?since=&a=1");
}

#[test]
fn an_error_shows_where() {
    let error = bad("abc {{user");
    assert_eq!((error.at, error.fault), (4, Fault::Unclosed));
    assert_eq!(error.to_string(), "{{user (at byte 4): no }} closes it");
    let error = bad("{{number}} {{user name and much more than that}}");
    assert_eq!(
        (error.at, error.shown.as_str(), error.fault),
        (11, "{{user name and much mor...", Fault::Name)
    );
}

#[test]
fn what_stands_between_braces_is_a_name_with_its_form() {
    let cases = [
        ("{{}}", Fault::Name),
        ("{{ }}", Fault::Name),
        ("{{{number}}}", Fault::Name),
        ("{{a{{b}}", Fault::Name),
        ("{{number:}}", Fault::Digits),
        ("{{number:0}}", Fault::Digits),
        ("{{number:21}}", Fault::Digits),
        ("{{number:+6}}", Fault::Digits),
        ("{{number:six}}", Fault::Digits),
        ("{{user:6}}", Fault::NoNumber),
        ("{{user|json}}", Fault::Encoding),
        ("{{user|}}", Fault::Encoding),
    ];
    for (text, fault) in cases {
        assert_eq!(bad(text).fault, fault, "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_compiled_or_refused(text in "[{}a:|6\u{e9} ]{0,24}") {
        if let Ok(template) = Template::parse(&text) {
            let mut out = Vec::new();
            template.render(&|_| Some("v".into()), &mut out);
            prop_assert_eq!(text.contains("{{"), template.names().count() > 0);
        }
    }
}
