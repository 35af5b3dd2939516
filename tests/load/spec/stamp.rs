//! `wire::stamp`: what a publisher writes and a subscriber finds.

use proptest::prelude::*;

use crate::wire::stamp::{LENGTH, Stamp, find, payload};

const STAMP: Stamp = Stamp { publisher: 0x00a7, seq: 0x1234, at_ns: 0x0102_0304_0506_0708, wall: false };
const TEXT: &str = "~cb1m00a7000012340102030405060708~";

#[test]
fn a_stamp_is_34_bytes_of_text_with_its_clock_named() {
    let mut text = [0; LENGTH];
    STAMP.write(&mut text);
    assert_eq!(std::str::from_utf8(&text), Ok(TEXT));
    Stamp { wall: true, ..STAMP }.write(&mut text);
    assert_eq!(std::str::from_utf8(&text), Ok("~cb1r00a7000012340102030405060708~"));
}

#[test]
fn a_stamp_passes_unchanged_through_json_and_urls() {
    assert_eq!(serde_json::to_string(TEXT).unwrap(), format!("\"{TEXT}\""));
    // RFC 3986 2.3: what needs no percent-encoding.
    assert!(TEXT.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)));
}

#[test]
fn a_payload_is_the_stamp_and_padding() {
    assert_eq!(payload(STAMP, LENGTH), TEXT.as_bytes());
    assert_eq!(payload(STAMP, 40), format!("{TEXT}xxxxxx").into_bytes());
}

#[test]
#[should_panic = "a payload of 33 bytes has no room for a stamp of 34"]
fn a_payload_without_room_for_the_stamp_is_the_callers_mistake() {
    payload(STAMP, 33);
}

#[test]
fn a_stamp_is_found_at_the_front_and_within_an_envelope() {
    assert_eq!(find(TEXT.as_bytes()), Some(STAMP));
    let envelope = format!(r#"{{"type":"message","position":"00000000-1","data":"{TEXT}xxx"}}"#);
    assert_eq!(find(envelope.as_bytes()), Some(STAMP));
}

#[test]
fn a_stamp_is_looked_for_in_the_first_4_kib() {
    let behind = |bytes: usize| format!("{}{TEXT}", " ".repeat(bytes));
    assert_eq!(find(behind(4095).as_bytes()), Some(STAMP));
    assert_eq!(find(behind(4096).as_bytes()), None);
}

#[test]
fn what_only_looks_like_a_stamp_is_passed_over() {
    for broken in [
        "",
        "~cb1",
        "~cb1m00a70000123401020304050607~",
        "~cb1x00a7000012340102030405060708~",
        "~cb2m00a7000012340102030405060708~",
        "~cb1m00g7000012340102030405060708~",
        "~cb1m00A7000012340102030405060708~",
        "~cb1m00a7+00012340102030405060708~",
        "~cb1m00a7000012340102030405060708 ",
        &TEXT[..LENGTH - 1],
    ] {
        assert_eq!(find(broken.as_bytes()), None, "{broken:?}");
        assert_eq!(find(format!("{broken}{TEXT}").as_bytes()), Some(STAMP), "after {broken:?}");
    }
}

proptest! {
    #[test]
    fn a_stamp_comes_out_as_it_went_in(
        publisher: u16, seq: u32, at_ns: u64, wall: bool, before in "[ -}]{0,60}", size in LENGTH..200,
    ) {
        let stamp = Stamp { publisher, seq, at_ns, wall };
        let message = [before.as_bytes(), &payload(stamp, size)].concat();
        prop_assert_eq!(find(&message), Some(stamp));
    }

    #[test]
    fn any_bytes_can_be_searched(message in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(find(&message), None);
    }
}
