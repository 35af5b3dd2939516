//! RFC 6455 5.1, 5.2, 5.5.2, 5.5.3, 5.6: single frames, lengths, reserved bits, opcodes, pings.

use corecast::wire::close::ProtocolError;
use corecast::wire::websocket::Limits;

use crate::script::{Frame, KEY, LIMITS, Script, binary, close, continuation, octet_text, ping, pong, text};

/// Every length around which the header changes its form.
const LENGTHS: [usize; 9] = [0, 1, 125, 126, 127, 128, 65535, 65536, 70_000];
const RAISED: Limits = Limits { message_bytes_max: 1 << 20, fragments_max: 16 };

/// A header with the length in the form that `short` says, and a key; no payload.
fn header(first: u8, short: u8, extended: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | short], extended, &KEY].concat()
}

#[test]
fn rfc6455_5_6_a_text_frame_of_every_length_form_arrives() {
    for length in LENGTHS {
        let payload = "*".repeat(length);
        Script::with_limits(RAISED).client(text(&payload)).hears_text(&payload);
    }
}

#[test]
fn rfc6455_5_6_a_binary_frame_of_every_length_form_arrives() {
    for length in LENGTHS {
        let payload = vec![0xfe; length];
        Script::with_limits(RAISED).client(binary(&payload)).hears_binary(&payload);
    }
}

#[test]
fn rfc6455_5_7_the_masked_hello_of_the_examples_arrives() {
    Script::websocket()
        .client_octets([0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58])
        .hears_text("Hello");
}

#[test]
fn rfc6455_5_3_every_frame_has_its_own_key() {
    Script::websocket()
        .client_octets(text("one").masked([1, 2, 3, 4]))
        .hears_text("one")
        .client_octets(text("two").masked([0, 0, 0, 0]))
        .hears_text("two")
        .client_octets(text("three").masked([255, 254, 253, 252]))
        .hears_text("three");
}

#[test]
fn rfc6455_5_1_a_frame_without_a_mask_is_refused() {
    Script::websocket().client_octets(text("hi").plain()).fails(ProtocolError::Unmasked);
    Script::websocket().client_octets(ping(b"").plain()).fails(ProtocolError::Unmasked);
}

#[test]
fn rfc6455_5_2_a_frame_without_a_mask_is_refused_by_its_second_octet() {
    Script::websocket()
        .client_octets([0x81])
        .server_silent()
        .client_octets([0x05])
        .fails(ProtocolError::Unmasked);
}

#[test]
fn rfc6455_5_2_a_length_must_be_in_its_shortest_form() {
    for length in [0u16, 1, 125] {
        Script::websocket()
            .client_octets(header(0x82, 126, &length.to_be_bytes()))
            .fails(ProtocolError::BadLength);
    }
    for length in [0u64, 125, 126, 65535] {
        Script::websocket()
            .client_octets(header(0x82, 127, &length.to_be_bytes()))
            .fails(ProtocolError::BadLength);
    }
}

#[test]
fn rfc6455_5_2_the_top_bit_of_a_64_bit_length_must_be_zero() {
    for length in [1u64 << 63, u64::MAX] {
        Script::websocket()
            .client_octets(header(0x82, 127, &length.to_be_bytes()))
            .fails(ProtocolError::BadLength);
    }
}

#[test]
fn contract_2_a_message_of_exactly_the_limit_arrives() {
    let payload = vec![7; LIMITS.message_bytes_max];
    Script::websocket().client(binary(&payload)).hears_binary(&payload);
    let payload = "x".repeat(10);
    Script::with_limits(Limits { message_bytes_max: 10, ..LIMITS })
        .client(text(&payload))
        .hears_text(&payload);
}

#[test]
fn contract_2_a_message_one_byte_over_the_limit_is_refused_by_its_length_alone() {
    let over = LIMITS.message_bytes_max as u64 + 1;
    // No key, no payload: the length decides.
    Script::websocket()
        .client_octets([&[0x82, 0xff][..], &over.to_be_bytes()].concat())
        .fails(ProtocolError::TooBig);
    Script::with_limits(Limits { message_bytes_max: 10, ..LIMITS })
        .client_octets([0x81, 0x80 | 11])
        .fails(ProtocolError::TooBig);
    Script::websocket()
        .client_octets([&[0x82, 0xff][..], &(i64::MAX as u64).to_be_bytes()].concat())
        .fails(ProtocolError::TooBig);
}

#[test]
fn contract_2_control_frames_do_not_count_as_message_bytes() {
    Script::with_limits(Limits { message_bytes_max: 4, ..LIMITS })
        .client(ping(&[9; 125]))
        .server(pong(&[9; 125]))
        .client(text("ab").not_final())
        .client(ping(&[8; 125]))
        .server(pong(&[8; 125]))
        .client(continuation(b"cd"))
        .hears_text("abcd");
}

#[test]
fn rfc6455_5_5_2_a_ping_is_answered_with_a_pong_of_the_same_payload() {
    for payload in [&b""[..], b"Hello, world!", &[0x00, 0xff, 0xfe, 0xfd, 0x00], &[0xfe; 125]] {
        Script::websocket().client(ping(payload)).server(pong(payload));
    }
}

#[test]
fn rfc6455_5_5_2_pings_are_answered_in_order() {
    let script = (0..10)
        .fold(Script::websocket(), |script, number| script.client(ping(&[number])).server(pong(&[number])));
    script.client(text("still here")).hears_text("still here");
}

#[test]
fn rfc6455_5_5_3_an_unsolicited_pong_is_heard_and_not_answered() {
    Script::websocket()
        .client(pong(b""))
        .hears_pong()
        .client(pong(b"unsolicited"))
        .hears_pong()
        .client(ping(b"and now"))
        .server(pong(b"and now"));
}

#[test]
fn rfc6455_5_5_a_control_frame_over_125_bytes_is_refused_by_its_second_octet() {
    for opcode in [8, 9, 10] {
        for short in [126, 127] {
            Script::websocket()
                .client_octets([0x80 | opcode, 0x80 | short])
                .fails(ProtocolError::ControlTooLong);
        }
        Script::websocket().client(Frame::new(opcode, &[0xfe; 126])).fails(ProtocolError::ControlTooLong);
    }
}

#[test]
fn rfc6455_5_5_a_control_frame_must_not_be_fragmented() {
    for opcode in [8, 9, 10] {
        Script::websocket()
            .client(Frame::new(opcode, b"").not_final())
            .fails(ProtocolError::ControlFragmented)
            .client(continuation(b"rest"))
            .server_silent();
    }
}

#[test]
fn rfc6455_5_2_reserved_bits_are_refused_on_every_opcode() {
    for bits in 1..=7 {
        for opcode in [0, 1, 2, 8, 9, 10] {
            Script::websocket()
                .client(Frame::new(opcode, b"").reserved(bits))
                .fails(ProtocolError::ReservedBits);
        }
    }
}

#[test]
fn rfc6455_5_2_what_came_before_reserved_bits_still_counts() {
    Script::websocket()
        .client(text("good"))
        .hears_text("good")
        .client(text("bad").reserved(4))
        .fails(ProtocolError::ReservedBits)
        .client(ping(b""))
        .server_silent();
}

#[test]
fn rfc6455_5_2_unknown_opcodes_are_refused_by_the_first_octet() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        Script::websocket().client_octets([0x80 | opcode]).fails(ProtocolError::UnknownOpcode);
        Script::websocket()
            .client(text("good"))
            .hears_text("good")
            .client(Frame::new(opcode, b"payload"))
            .fails(ProtocolError::UnknownOpcode)
            .client(ping(b""))
            .server_silent();
    }
}

#[test]
fn rfc6455_5_4_frames_that_share_a_read_are_all_heard() {
    let octets = [text("a"), ping(b"b"), binary(b"c"), pong(b""), octet_text(b""), close(1000, "")]
        .map(|frame| frame.masked(KEY))
        .concat();
    Script::websocket()
        .client_octets(octets)
        .hears_text("a")
        .server(pong(b"b"))
        .hears_binary(b"c")
        .hears_pong()
        .hears_text("")
        .server(close(1000, ""))
        .ended(corecast::stats::CloseReason::PeerClosed);
}
