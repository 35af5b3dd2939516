//! RFC 6455 5.1, 5.2, 5.5: what goes out.

use corecast::message::Kind;
use corecast::wire::websocket::{PING, encode_close, encode_message, encode_pong};

use crate::script::{binary, close, empty_close, ping, pong, text};

#[test]
fn rfc6455_5_2_a_message_goes_out_in_the_shortest_header() {
    for (length, header) in [(0, 2), (125, 2), (126, 4), (127, 4), (65535, 4), (65536, 10), (70_000, 10)] {
        let payload = "x".repeat(length);
        let (frame, header_bytes) = encode_message(Kind::Text, payload.as_bytes());
        assert_eq!(frame, text(&payload).plain(), "{length} bytes");
        assert_eq!(header_bytes, header, "{length} bytes");
    }
}

#[test]
fn rfc6455_5_6_the_kind_decides_the_opcode() {
    assert_eq!(encode_message(Kind::Json, b"{}").0, text("{}").plain());
    assert_eq!(encode_message(Kind::Text, b"{}").0, text("{}").plain());
    assert_eq!(encode_message(Kind::Binary, b"{}").0, binary(b"{}").plain());
}

#[test]
fn rfc6455_5_7_the_unmasked_hello_of_the_examples_goes_out() {
    assert_eq!(encode_message(Kind::Text, b"Hello").0, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f].as_slice());
}

#[test]
fn rfc6455_5_5_1_a_close_carries_code_and_reason() {
    assert_eq!(encode_close(Some(1001), "going away"), close(1001, "going away").plain());
    assert_eq!(encode_close(Some(4999), ""), close(4999, "").plain());
    assert_eq!(encode_close(None, "unsaid"), empty_close().plain());
}

#[test]
fn rfc6455_5_5_a_reason_is_cut_to_123_bytes_between_characters() {
    assert_eq!(encode_close(Some(1000), &"*".repeat(123)), close(1000, &"*".repeat(123)).plain());
    assert_eq!(encode_close(Some(1000), &"*".repeat(124)), close(1000, &"*".repeat(123)).plain());
    // 122 bytes, then characters of two, three and four that would not fit.
    for too_wide in ["ö", "€", "🚀"] {
        let start = "*".repeat(122);
        assert_eq!(encode_close(Some(1000), &format!("{start}{too_wide}")), close(1000, &start).plain());
    }
}

#[test]
fn rfc6455_7_4_1_codes_that_stand_for_no_code_never_go_out() {
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
        assert_eq!(encode_close(Some(code), "reason"), empty_close().plain(), "{code}");
    }
}

#[test]
fn rfc6455_5_5_2_pings_and_pongs_go_out() {
    assert_eq!(PING, ping(b"").plain());
    assert_eq!(encode_pong(b""), pong(b"").plain());
    assert_eq!(encode_pong(&[7; 125]), pong(&[7; 125]).plain());
}
