//! `wire::event_stream`: WHATWG HTML 9.2, cut anywhere.

use std::convert::Infallible;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{cuts, everywhere, fed, places};
use crate::wire::event_stream::{Event, decode};

/// An event that owns its text.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    id: Option<String>,
    event: Option<String>,
    data: Option<String>,
    retry_ms: Option<u64>,
    comment: bool,
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let Event { id, event, data, retry_ms, comment } = event;
        Self { id: id.map(text), event: event.map(text), data: data.as_deref().map(text), retry_ms, comment }
    }
}

fn seen(input: &[u8]) -> Result<Option<(Option<Seen>, usize)>, Infallible> {
    Ok(decode(input).map(|(event, length)| ((!event.is_empty()).then(|| event.into()), length)))
}

/// What is in a stream, cut at `cuts`, events without anything left out.
fn events_cut(octets: &[u8], cuts: &[usize]) -> Vec<Seen> {
    fed(octets, cuts, seen).0.into_iter().flatten().collect()
}

/// What is in a stream, the same however it is cut.
#[track_caller]
fn events(stream: &str) -> Vec<Seen> {
    let octets = stream.as_bytes();
    let whole = events_cut(octets, &[]);
    let by_octet: Vec<usize> = (1..octets.len()).collect();
    assert_eq!(events_cut(octets, &by_octet), whole, "byte by byte");
    for cut in by_octet {
        assert_eq!(events_cut(octets, &[cut]), whole, "cut at {cut}");
    }
    whole
}

fn data(data: &str) -> Seen {
    Seen { data: Some(data.to_owned()), ..Seen::default() }
}

fn comment() -> Seen {
    Seen { comment: true, ..Seen::default() }
}

#[test]
fn html_9_2_6_lines_end_with_lf_cr_or_crlf() {
    let stream = "id: 1\nevent: e\nretry: 5\ndata: a\ndata: b\n\ndata: c\n\n";
    let first =
        Seen { id: Some("1".to_owned()), event: Some("e".to_owned()), retry_ms: Some(5), ..data("a\\nb") };
    let expected = vec![first, data("c")];
    assert_eq!(events(stream), expected);
    assert_eq!(events(&stream.replace('\n', "\r\n")), expected);
    assert_eq!(events(&stream.replace('\n', "\r")), expected);
}

#[test]
fn html_9_2_6_the_examples_of_the_standard() {
    let first =
        ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
    let id = |id: &str, data: Seen| Seen { id: Some(id.to_owned()), ..data };
    let expected =
        vec![comment(), id("1", data("first event")), id("", data("second event")), data(" third event")];
    assert_eq!(events(first), expected);
    assert_eq!(events("data\n\ndata\ndata\n\ndata:"), [data(""), data("\\n")]);
    assert_eq!(events("data:test\n\ndata: test\n\n"), [data("test"), data("test")]);
}

#[test]
fn contract_2_a_stream_of_corecast_begins_with_its_retry_time_and_position() {
    let stream = "retry: 1000\nid: 95405b06-0\n\nid: 95405b06-1\ndata: one\ndata: two\n\n:\n\n\
        event: corecast.gap\ndata: {\"gap\":true}\n\n";
    let id = |id: &str| Some(id.to_owned());
    let expected = [
        Seen { id: id("95405b06-0"), retry_ms: Some(1000), ..Seen::default() },
        Seen { id: id("95405b06-1"), ..data("one\\ntwo") },
        comment(),
        Seen { event: Some("corecast.gap".to_owned()), ..data("{\\\"gap\\\":true}") },
    ];
    assert_eq!(events(stream), expected);
}

#[test]
fn an_event_that_ends_with_crlf_leaves_nothing() {
    let (_, length) = decode(b"data: a\r\n\r\n").unwrap();
    assert_eq!(length, 11);
    assert_eq!(everywhere(b"data: a\n\n", seen), (vec![Some(data("a"))], None));
}

#[test]
fn a_cr_at_the_end_of_the_input_ends_the_event_and_its_lf_comes_as_nothing() {
    let cut = b"data: a\r\n\r";
    let (event, length) = decode(cut).unwrap();
    assert_eq!((Seen::from(event), length), (data("a"), cut.len()));
    let (rest, length) = decode(b"\ndata: b\n\n").unwrap();
    assert_eq!((rest.is_empty(), length), (true, 1));
}

#[test]
fn a_comment_before_an_event_is_told_at_once_with_its_blank_line() {
    let (event, length) = decode(b":\n\n").unwrap();
    assert_eq!((Seen::from(event), length), (comment(), 3));
    let (event, length) = decode(b": ping\ndata: a").unwrap();
    assert_eq!((Seen::from(event), length), (comment(), 7));
    assert_eq!(decode(b": pi"), None);
    assert_eq!(events(": a\n: b\n\n:\r\n\r\ndata: x\n\n"), [comment(), comment(), comment(), data("x")]);
}

#[test]
fn a_comment_within_an_event_belongs_to_it() {
    assert_eq!(events("data: a\n: note\n\n"), [Seen { comment: true, ..data("a") }]);
}

#[test]
fn html_9_2_6_a_block_without_data_is_no_message() {
    let told = events("retry: 3000\n\nid: 7\n\nevent: e\n\n");
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|event| event.data.is_none()));
    assert_eq!((told[0].retry_ms, told[1].id.as_deref()), (Some(3000), Some("7")));
}

#[test]
fn html_9_2_6_what_a_field_must_not_hold_is_passed_over() {
    let stream = "retry: 1x\nretry:\nretry: -1\nretry: 99999999999999999999\nid: a\0b\nData: x\n data: y\n\
        other: z\ndata: ok\n\n";
    assert_eq!(events(stream), [data("ok")]);
    assert_eq!(events("retry: 7\nretry: x\nid: a\nid: b\0\ndata: ok\n\n")[0].retry_ms, Some(7));
}

#[test]
fn html_9_2_5_a_byte_order_mark_stands_before_the_stream() {
    assert_eq!(events("\u{feff}data: a\n\ndata: b\n\n"), [data("a"), data("b")]);
    assert_eq!(events("\u{feff}: hello\n\n"), [comment()]);
}

#[test]
fn an_event_that_is_not_utf_8_is_taken_as_it_is() {
    let (event, _) = decode(b"data: \xff\xfe\n\n").unwrap();
    assert_eq!(event.data.as_deref(), Some(&b"\xff\xfe"[..]));
}

#[test]
fn one_line_of_data_is_borrowed_and_more_are_joined() {
    use std::borrow::Cow;
    assert!(matches!(decode(b"data: a\n\n").unwrap().0.data, Some(Cow::Borrowed(b"a"))));
    assert!(matches!(decode(b"data: a\ndata: b\n\n").unwrap().0.data, Some(Cow::Owned(_))));
}

proptest! {
    #[test]
    fn design_6_rule_1_any_split_of_any_stream_gives_the_same(
        lines in vec((prop_oneof![
            4 => "data: ?[a-z]{0,4}",
            2 => Just(String::new()),
            1 => ":[a-z]{0,3}",
            1 => "id: [0-9]{1,2}",
            1 => "[a-z:\u{feff}]{0,4}",
        ], prop_oneof!["\n", "\r", "\r\n"]), 0..20),
        cuts in cuts(),
    ) {
        let octets: Vec<u8> = lines.into_iter().flat_map(|(line, end)| (line + &end).into_bytes()).collect();
        let by_octet: Vec<usize> = (1..octets.len()).collect();
        let whole = events_cut(&octets, &[]);
        prop_assert_eq!(&events_cut(&octets, &by_octet), &whole);
        prop_assert_eq!(&events_cut(&octets, &places(&octets, &cuts)), &whole);
    }

    #[test]
    fn a_message_of_many_lines_comes_out_as_it_went_in(
        lines in vec("[ -~]{0,20}", 1..5), end in prop_oneof!["\n", "\r", "\r\n"],
    ) {
        let stream: String = lines.iter().map(|line| format!("data: {line}{end}")).collect();
        let stream = stream + &end;
        let (event, length) = decode(stream.as_bytes()).unwrap();
        prop_assert_eq!(length, stream.len());
        let joined = lines.join("\n");
        prop_assert_eq!(event.data.as_deref(), Some(joined.as_bytes()));
    }
}
