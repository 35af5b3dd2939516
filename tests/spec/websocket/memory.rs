//! Design 5 and Rule 3: what the decoder holds, and when.

use std::borrow::Cow;

use corecast::wire::websocket::{Decoder, Event, Limits};

use crate::script::{KEY, LIMITS, Server, binary, close, continuation, ping, pong, text};

/// Feeds all of `octets`; gives how many events came.
fn feed(decoder: &mut Decoder, octets: &[u8]) -> usize {
    let (mut octets, mut taken, mut events) = (octets.to_vec(), 0, 0);
    while taken < octets.len() {
        let (more, event) = decoder.handle_bytes(&mut octets[taken..], &LIMITS).expect("valid");
        taken += more;
        events += usize::from(event.is_some());
    }
    events
}

#[test]
fn design_5_a_frame_that_arrives_whole_is_borrowed_and_nothing_is_kept() {
    let mut decoder = Decoder::new();
    for frame in [text("hello"), binary(&[1; 5000]), ping(b"hi"), text(""), close(1000, "bye")] {
        let mut octets = frame.masked(KEY);
        let length = octets.len();
        let (taken, event) = decoder.handle_bytes(&mut octets, &LIMITS).expect("valid");
        let payload = match event.expect("a whole frame") {
            Event::Text(payload) | Event::Binary(payload) | Event::Ping(payload) => payload,
            Event::Close { reason, .. } => reason,
            Event::Pong => unreachable!("none was sent"),
        };
        assert!(matches!(payload, Cow::Borrowed(_)));
        assert_eq!(taken, length);
        assert_eq!((decoder.kept_bytes(), decoder.is_idle()), (0, true));
    }
}

#[test]
fn design_5_a_payload_that_arrives_whole_behind_its_header_is_borrowed_too() {
    let mut octets = binary(&[9; 300]).masked(KEY);
    let (header, payload) = octets.split_at_mut(8);
    let mut decoder = Decoder::new();
    assert_eq!(decoder.handle_bytes(header, &LIMITS), Ok((8, None)));
    let (taken, event) = decoder.handle_bytes(payload, &LIMITS).expect("valid");
    assert_eq!(taken, 300);
    assert!(matches!(event, Some(Event::Binary(Cow::Borrowed(_)))));
    assert!(decoder.is_idle());
}

#[test]
fn issue_6_one_call_takes_one_frame_at_most_and_says_what_a_frame_that_has_begun_still_lacks() {
    let frames = [
        text("a").not_final().masked(KEY),
        ping(b"between").masked(KEY),
        continuation(b"").not_final().masked(KEY),
        continuation(b"bc").masked(KEY),
    ];
    let mut octets = frames.concat();
    let (mut decoder, mut rest) = (Decoder::new(), &mut octets[..]);
    for (frame, completes) in frames.iter().zip([false, true, false, true]) {
        let (taken, event) = decoder.handle_bytes(rest, &LIMITS).expect("valid");
        assert_eq!((taken, event.is_some(), decoder.lacking_bytes()), (frame.len(), completes, 0));
        rest = &mut rest[taken..];
    }
    // 8 octets of header, 100 of 300.
    let mut octets = binary(&[1; 300]).masked(KEY);
    assert_eq!(decoder.handle_bytes(&mut octets[..108], &LIMITS), Ok((108, None)));
    assert_eq!(decoder.lacking_bytes(), 200);
}

#[test]
fn design_5_the_decoder_is_idle_exactly_between_messages() {
    let message =
        [text("a").not_final().masked(KEY), ping(b"between").masked(KEY), continuation(b"b").masked(KEY)]
            .concat();
    let mut decoder = Decoder::new();
    assert!(decoder.is_idle());
    for octet in &message[..message.len() - 1] {
        feed(&mut decoder, &[*octet]);
        assert!(!decoder.is_idle());
    }
    feed(&mut decoder, &message[message.len() - 1..]);
    assert_eq!((decoder.kept_bytes(), decoder.is_idle()), (0, true));
}

#[test]
fn design_5_a_finished_message_leaves_nothing_behind() {
    let mut server = Server::default();
    let mut outcomes = Vec::new();
    for frame in [text("a").not_final(), ping(&[1; 100]), continuation(&[b'b'; 1000]), text("c")] {
        frame.masked(KEY).iter().for_each(|octet| server.read(&[*octet], &LIMITS, &mut outcomes));
    }
    assert_eq!(outcomes.len(), 3);
    assert!(server.holds_nothing());
}

#[test]
fn design_5_a_control_frame_in_pieces_leaves_nothing_behind() {
    for frame in [ping(&[1; 100]), pong(&[1; 100]), close(1000, "leaving")] {
        let octets = frame.masked(KEY);
        let (left, right) = octets.split_at(octets.len() - 1);
        let mut decoder = Decoder::new();
        assert_eq!(feed(&mut decoder, left), 0);
        assert!(!decoder.is_idle());
        assert_eq!(feed(&mut decoder, right), 1);
        assert_eq!((decoder.kept_bytes(), decoder.is_idle()), (0, true));
    }
}

#[test]
fn rule_3_an_announced_length_costs_nothing_until_it_arrives() {
    let octets = binary(&vec![0; LIMITS.message_bytes_max]).masked(KEY);
    let mut decoder = Decoder::new();
    assert_eq!(feed(&mut decoder, &octets[..14]), 0);
    assert_eq!(decoder.kept_bytes(), 0);
    assert_eq!(feed(&mut decoder, &octets[14..114]), 0);
    assert!((100..=200).contains(&decoder.kept_bytes()), "{} bytes", decoder.kept_bytes());
}

#[test]
fn rule_3_what_is_kept_stays_below_twice_what_came_and_below_the_limit() {
    let octets = binary(&vec![0; LIMITS.message_bytes_max]).masked(KEY);
    let mut decoder = Decoder::new();
    let mut arrived = 0;
    for piece in octets[..octets.len() - 1].chunks(700) {
        feed(&mut decoder, piece);
        arrived += piece.len();
        let kept = decoder.kept_bytes();
        assert!(kept <= 2 * arrived && kept <= LIMITS.message_bytes_max, "{kept} bytes after {arrived}");
    }
}

#[test]
fn rule_3_a_control_frame_in_pieces_between_fragments_does_not_copy_the_message_each_time() {
    let limits = Limits { message_bytes_max: 1 << 20, fragments_max: u32::MAX };
    let mut decoder = Decoder::new();
    let mut feed = |octets: &[u8]| {
        decoder.handle_bytes(&mut octets.to_vec(), &limits).expect("valid");
        decoder.kept_bytes()
    };
    feed(&binary(&[0; 125]).not_final().masked(KEY));
    let (mut kept, mut growths) = (0, 0);
    for _ in 0..2000 {
        for octets in [ping(&[1; 125]).masked(KEY), continuation(&[2; 125]).not_final().masked(KEY)] {
            let (left, right) = octets.split_at(octets.len() - 1);
            let after = feed(left).max(feed(right));
            growths += usize::from(after > kept);
            kept = kept.max(after);
        }
    }
    // 250,000 bytes by doubling from 125.
    assert!(growths <= 14, "{growths} growths");
}

#[test]
fn contract_2_a_message_is_timed_from_its_first_octet_to_its_last() {
    let mut decoder = Decoder::new();
    let message =
        [text("a").not_final(), ping(b"x"), continuation(b"b")].map(|frame| frame.masked(KEY)).concat();
    assert!(!decoder.in_message());
    for octet in &message[..message.len() - 1] {
        feed(&mut decoder, &[*octet]);
        assert!(decoder.in_message());
    }
    feed(&mut decoder, &message[message.len() - 1..]);
    assert!(!decoder.in_message());
}

#[test]
fn contract_2_a_control_frame_in_pieces_is_no_message() {
    let mut decoder = Decoder::new();
    for octet in ping(b"slowly").masked(KEY) {
        feed(&mut decoder, &[octet]);
        assert!(!decoder.in_message());
    }
}
