//! RFC 6455 5.4: fragmented messages, what may come in between, and how much of it.

use corecast::stats::CloseReason;
use corecast::wire::close::ProtocolError;
use corecast::wire::websocket::{ECHO_LIMITS, Limits};

use crate::script::{
    Frame, KEY, LIMITS, Outcome, Script, binary, close, continuation, octet_text, outcomes_of, ping, pong,
    text,
};

#[test]
fn rfc6455_5_4_fragments_make_one_message() {
    Script::websocket()
        .client(text("frag").not_final())
        .client(continuation(b"men").not_final())
        .client(continuation(b"ts"))
        .hears_text("fragments");
    Script::websocket()
        .client(binary(&[0xff, 0]).not_final())
        .client(continuation(&[0xfe]))
        .hears_binary(&[0xff, 0, 0xfe]);
}

#[test]
fn rfc6455_5_4_fragments_may_be_empty() {
    Script::websocket()
        .client(text("").not_final())
        .client(continuation(b"").not_final())
        .client(continuation(b""))
        .hears_text("");
    Script::websocket()
        .client(text("").not_final())
        .client(continuation(b"middle").not_final())
        .client(continuation(b""))
        .hears_text("middle");
}

#[test]
fn rfc6455_5_4_a_ping_between_fragments_is_answered_before_the_message() {
    Script::websocket()
        .client(text("frag1").not_final())
        .client(ping(b"ping"))
        .server(pong(b"ping"))
        .client(continuation(b"frag2"))
        .hears_text("frag1frag2");
    Script::websocket()
        .client(text("").not_final())
        .client(ping(b"p"))
        .server(pong(b"p"))
        .client(continuation(b""))
        .hears_text("");
}

#[test]
fn rfc6455_5_4_control_frames_between_many_fragments_leave_the_message_alone() {
    Script::websocket()
        .client(text("f1").not_final())
        .client(continuation(b"f2").not_final())
        .client(ping(b"one"))
        .server(pong(b"one"))
        .client(pong(b"an answer"))
        .hears_pong()
        .client(continuation("f3ö".as_bytes()).not_final())
        .client(continuation(b"f4").not_final())
        .client(ping(b"two"))
        .server(pong(b"two"))
        .client(continuation(b"f5"))
        .hears_text("f1f2f3öf4f5");
}

#[test]
fn rfc6455_5_4_a_control_frame_may_stand_inside_a_cut_character() {
    let [first, second, third] = [&[0xe2][..], &[0x82], &[0xac]];
    Script::websocket()
        .client(octet_text(first).not_final())
        .client(ping(&[0xff; 3]))
        .server(pong(&[0xff; 3]))
        .client(continuation(second).not_final())
        .client(ping(b""))
        .server(pong(b""))
        .client(continuation(third))
        .hears_text("€");
}

#[test]
fn rfc6455_5_4_a_close_between_fragments_ends_the_conversation() {
    Script::websocket()
        .client(text("never finished").not_final())
        .client(close(1001, "leaving"))
        .server(close(1001, "leaving"))
        .ended(CloseReason::PeerClosed)
        .client(continuation(b"too late"))
        .server_silent();
}

#[test]
fn rfc6455_5_4_a_continuation_with_nothing_to_continue_is_refused() {
    for frame in [continuation(b"hm"), continuation(b"hm").not_final(), continuation(b"")] {
        Script::websocket()
            .client(frame)
            .fails(ProtocolError::UnexpectedContinuation)
            .client(text("ignored"))
            .server_silent();
    }
}

#[test]
fn rfc6455_5_4_a_continuation_after_a_finished_message_is_refused() {
    Script::websocket()
        .client(text("a").not_final())
        .client(continuation(b"b"))
        .hears_text("ab")
        .client(continuation(b"c").not_final())
        .fails(ProtocolError::UnexpectedContinuation);
    Script::websocket()
        .client(text("whole"))
        .hears_text("whole")
        .client(continuation(b""))
        .fails(ProtocolError::UnexpectedContinuation);
}

#[test]
fn rfc6455_5_4_a_new_message_inside_an_unfinished_one_is_refused() {
    for frame in [text("new"), binary(b"new"), text("new").not_final(), Frame::new(2, b"").not_final()] {
        Script::websocket()
            .client(text("old").not_final())
            .client(frame)
            .fails(ProtocolError::ExpectedContinuation);
    }
}

#[test]
fn rfc6455_5_4_one_message_follows_another() {
    let script = (0..4).fold(Script::websocket(), |script, number| {
        script
            .client(text("a").not_final())
            .client(ping(&[number]))
            .server(pong(&[number]))
            .client(continuation(b"b"))
            .hears_text("ab")
    });
    script.client(binary(b"c")).hears_binary(b"c");
}

#[test]
fn contract_2_the_limit_holds_for_all_fragments_together() {
    let limits = Limits { message_bytes_max: 8, ..LIMITS };
    Script::with_limits(limits)
        .client(binary(b"1234").not_final())
        .client(continuation(b"567").not_final())
        .client(continuation(b"8"))
        .hears_binary(b"12345678");
    let over = continuation(b"89").masked(KEY);
    // The length is enough; the key and the payload are not awaited.
    Script::with_limits(limits)
        .client(binary(b"1234").not_final())
        .client(continuation(b"567").not_final())
        .client_octets(&over[..2])
        .fails(ProtocolError::TooBig)
        .client_octets(&over[2..])
        .server_silent();
}

#[test]
fn contract_2_every_message_has_the_whole_limit_for_itself() {
    Script::with_limits(Limits { message_bytes_max: 4, ..LIMITS })
        .client(binary(b"12").not_final())
        .client(continuation(b"34"))
        .hears_binary(b"1234")
        .client(binary(b"5678"))
        .hears_binary(b"5678")
        .client(binary(b"9").not_final())
        .client(continuation(b"abc"))
        .hears_binary(b"9abc");
}

#[test]
fn contract_2_a_message_may_have_as_many_fragments_as_the_limit_says() {
    Script::with_limits(Limits { fragments_max: 3, ..LIMITS })
        .client(text("a").not_final())
        .client(continuation(b"b").not_final())
        .client(ping(b"does not count"))
        .server(pong(b"does not count"))
        .client(continuation(b"c"))
        .hears_text("abc")
        .client(text("a").not_final())
        .client(continuation(b"b").not_final())
        .client(continuation(b"c"))
        .hears_text("abc");
}

#[test]
fn contract_2_one_fragment_too_many_is_refused_by_its_first_octet() {
    Script::with_limits(Limits { fragments_max: 3, ..LIMITS })
        .client(text("a").not_final())
        .client(continuation(b"").not_final())
        .client(continuation(b"").not_final())
        .client_octets([0x80])
        .fails(ProtocolError::TooManyFragments);
}

#[test]
fn autobahn_9_a_message_of_many_megabytes_arrives_whole_or_in_fragments() {
    let limits = ECHO_LIMITS;
    let payload = "größe!".repeat((4 << 20) / 8);
    let cuts = |octets: &[u8], step| (step..octets.len()).step_by(step).collect::<Vec<_>>();
    let whole = text(&payload).masked(KEY);
    for read_bytes in [1 << 12, 1 << 16, usize::MAX] {
        let outcomes = outcomes_of(&whole, &cuts(&whole, read_bytes), &limits);
        assert!(outcomes == [Outcome::Text(payload.clone().into())], "in reads of {read_bytes}");
    }
    for fragment_bytes in [64, 1 << 10, 1 << 16, 1 << 20] {
        let fragments = fragmented(payload.as_bytes(), fragment_bytes);
        let outcomes = outcomes_of(&fragments, &cuts(&fragments, 1 << 14), &limits);
        assert!(outcomes == [Outcome::Text(payload.clone().into())], "in fragments of {fragment_bytes}");
    }
}

#[test]
fn autobahn_9_3_1_and_9_4_1_end_4_mib_in_fragments_of_64_with_an_empty_one() {
    let payload = vec![0x2a; 4 << 20];
    let mut octets: Vec<u8> = octet_text(&payload[..64]).not_final().masked(KEY);
    for part in payload[64..].chunks(64) {
        octets.extend(continuation(part).not_final().masked(KEY));
    }
    octets.extend(continuation(b"").masked(KEY));
    let cuts = (1 << 14..octets.len()).step_by(1 << 14).collect::<Vec<_>>();
    assert!(outcomes_of(&octets, &cuts, &ECHO_LIMITS) == [Outcome::Text(payload)]);
}

#[test]
fn autobahn_9_a_message_of_16_mib_arrives() {
    let limits = Limits { message_bytes_max: 16 << 20, fragments_max: 1 };
    let payload = vec![0x5a; 16 << 20];
    let octets = binary(&payload).masked(KEY);
    let cuts = (65_536..octets.len()).step_by(65_536).collect::<Vec<_>>();
    assert!(outcomes_of(&octets, &cuts, &limits) == [Outcome::Binary(payload)]);
}

#[test]
fn autobahn_10_a_message_that_its_sender_fragments_by_itself_arrives() {
    let payload = "*".repeat(LIMITS.message_bytes_max);
    Script::websocket().client_octets(fragmented(payload.as_bytes(), 1300)).hears_text(&payload);
}

/// A text message in frames of `fragment_bytes`.
fn fragmented(payload: &[u8], fragment_bytes: usize) -> Vec<u8> {
    let count = payload.len().div_ceil(fragment_bytes);
    let fragments = payload.chunks(fragment_bytes).enumerate().flat_map(|(number, part)| {
        let frame = if number == 0 { octet_text(part) } else { continuation(part) };
        if number + 1 == count { frame.masked(KEY) } else { frame.not_final().masked(KEY) }
    });
    fragments.collect()
}
