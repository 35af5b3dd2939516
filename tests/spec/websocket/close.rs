//! RFC 6455 5.5.1, 7: the close handshake, its codes and reasons.

use corecast::stats::CloseReason;
use corecast::wire::close::ProtocolError;

use crate::script::{Frame, Script, binary, close, continuation, empty_close, ping, text};

#[test]
fn rfc6455_5_5_1_a_close_is_echoed_once_and_nothing_follows() {
    Script::websocket()
        .client(close(1000, "bye"))
        .server(close(1000, "bye"))
        .ended(CloseReason::PeerClosed)
        .client(close(1000, "bye"))
        .server_silent();
}

#[test]
fn rfc6455_5_5_1_a_message_before_the_close_is_heard() {
    Script::websocket()
        .client(text("last words"))
        .hears_text("last words")
        .client(close(1000, ""))
        .server(close(1000, ""))
        .ended(CloseReason::PeerClosed);
}

#[test]
fn rfc6455_5_5_1_nothing_after_a_close_counts() {
    for frame in [text("too late"), binary(b"too late"), ping(b"too late"), continuation(b"too late")] {
        Script::websocket()
            .client(close(1000, ""))
            .server(close(1000, ""))
            .ended(CloseReason::PeerClosed)
            .client(frame)
            .server_silent();
    }
}

#[test]
fn rfc6455_5_5_1_an_empty_close_is_answered_with_1000() {
    Script::websocket().client(empty_close()).server(close(1000, "")).ended(CloseReason::PeerClosed);
}

#[test]
fn rfc6455_5_5_1_a_close_of_one_octet_is_refused() {
    for octet in [0, 3, 0xff] {
        Script::websocket().client(Frame::new(8, &[octet])).fails(ProtocolError::BadCloseCode);
    }
}

#[test]
fn rfc6455_5_5_1_a_reason_may_fill_the_frame() {
    let reason = "*".repeat(123);
    Script::websocket()
        .client(close(1000, &reason))
        .server(close(1000, &reason))
        .ended(CloseReason::PeerClosed);
}

#[test]
fn rfc6455_5_5_a_reason_of_124_bytes_makes_the_frame_too_long() {
    Script::websocket().client(close(1000, &"*".repeat(124))).fails(ProtocolError::ControlTooLong);
}

#[test]
fn rfc6455_5_5_1_a_reason_that_is_not_utf8_is_refused_with_1007() {
    for reason in [&[0xff][..], &[0xce, 0xba, 0xe1, 0xbd], &[0xed, 0xa0, 0x80], &[0xf4, 0x90, 0x80, 0x80]] {
        let payload = [&1000u16.to_be_bytes()[..], b"reason ", reason].concat();
        Script::websocket().client(Frame::new(8, &payload)).fails(ProtocolError::BadUtf8);
    }
}

#[test]
fn rfc6455_5_5_1_a_reason_in_any_script_is_echoed() {
    Script::websocket()
        .client(close(3000, "Καλημέρα κόσμε 🚀"))
        .server(close(3000, "Καλημέρα κόσμε 🚀"))
        .ended(CloseReason::PeerClosed);
}

#[test]
fn rfc6455_7_4_codes_that_may_be_sent_are_echoed() {
    let codes =
        [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999];
    for code in codes {
        for reason in ["", "reason"] {
            Script::websocket()
                .client(close(code, reason))
                .server(close(code, reason))
                .ended(CloseReason::PeerClosed);
        }
    }
}

#[test]
fn rfc6455_7_4_codes_that_must_not_be_sent_are_refused() {
    let codes = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535];
    for code in codes {
        for reason in ["", "reason"] {
            Script::websocket().client(close(code, reason)).fails(ProtocolError::BadCloseCode);
        }
    }
}

#[test]
fn rfc6455_7_4_1_every_fault_closes_with_its_own_code() {
    let faults = [
        (ProtocolError::ReservedBits, 1002),
        (ProtocolError::UnknownOpcode, 1002),
        (ProtocolError::ControlTooLong, 1002),
        (ProtocolError::ControlFragmented, 1002),
        (ProtocolError::Unmasked, 1002),
        (ProtocolError::BadLength, 1002),
        (ProtocolError::UnexpectedContinuation, 1002),
        (ProtocolError::ExpectedContinuation, 1002),
        (ProtocolError::BadCloseCode, 1002),
        (ProtocolError::BadUtf8, 1007),
        (ProtocolError::TooBig, 1009),
        (ProtocolError::TooManyFragments, 1008),
    ];
    for (fault, code) in faults {
        assert_eq!(fault.close_code(), code, "{fault:?}");
    }
}
