//! `wire::websocket`: RFC 6455 from the client's side.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{cuts, everywhere, fed, places};
use crate::wire::websocket::{
    BadFrame, Fault, Opcode, Refusal, accepted, close_code, decode, fragment, frame, header, pong,
    reconnect_after_ms, request,
};

const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame that owns its payload.
type Seen = (bool, Opcode, Vec<u8>);

fn seen(input: &[u8]) -> Result<Option<(Seen, usize)>, BadFrame> {
    Ok(decode(input)?.map(|(frame, length)| ((frame.fin, frame.opcode, frame.payload.to_vec()), length)))
}

/// Frames as a server sends them.
fn server(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ ..126 => frame.push(length as u8),
        length @ ..0x1_0000 => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

#[track_caller]
fn refused(answer: &str) -> Refusal {
    let bytes = answer.as_bytes();
    let refusal = accepted(bytes).unwrap_err();
    let decided = (0..bytes.len()).map(|cut| accepted(&bytes[..cut])).find(|part| *part != Ok(None));
    // Only what is not HTTP at all is seen before the end, and then for the same fault.
    assert!(decided.is_none_or(|early| early == Err(refusal)), "{decided:?}");
    refusal
}

#[test]
fn rfc6455_4_1_the_request_is_a_get_with_the_upgrade_and_what_the_user_adds() {
    let expected = "GET /ws?user=a HTTP/1.1\r\nHost: localhost:8080\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: corecast.v1\r\nX-One: 1\r\n\r\n";
    let written = request("localhost:8080", "/ws?user=a", "X-One: 1\r\n", Some("corecast.v1"));
    assert_eq!(String::from_utf8(written).unwrap(), expected);
}

#[test]
fn a_host_header_of_the_users_own_takes_the_place_of_ours() {
    let written = String::from_utf8(request("10.0.0.1", "/ws", "host: example.org\r\n", None)).unwrap();
    assert_eq!(written.to_lowercase().matches("host:").count(), 1);
    assert!(written.contains("host: example.org\r\n"));
}

#[test]
fn rfc6455_4_1_an_answer_is_accepted_where_it_ends_and_not_before() {
    for cut in 0..ANSWER.len() {
        assert_eq!(accepted(&ANSWER.as_bytes()[..cut]), Ok(None), "cut at {cut}");
    }
    assert_eq!(accepted(ANSWER.as_bytes()), Ok(Some(ANSWER.len())));
    let with_frame = [ANSWER.as_bytes(), &server(0x81, b"hello")].concat();
    assert_eq!(accepted(&with_frame), Ok(Some(ANSWER.len())));
}

#[test]
fn rfc6455_4_1_names_and_tokens_of_the_answer_are_in_any_case_and_in_lists() {
    let answer = ANSWER
        .replace("Upgrade: websocket", "upgrade: WebSocket")
        .replace("Connection: Upgrade", "connection: keep-alive, upgrade")
        .replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions:\r\n\r\n");
    assert_eq!(accepted(answer.as_bytes()), Ok(Some(answer.len())));
}

#[test]
fn rfc9110_15_2_an_interim_response_comes_before_the_answer() {
    let answer = format!("HTTP/1.1 100 Continue\r\n\r\n{ANSWER}");
    for cut in 0..answer.len() {
        assert_eq!(accepted(&answer.as_bytes()[..cut]), Ok(None), "cut at {cut}");
    }
    assert_eq!(accepted(answer.as_bytes()), Ok(Some(answer.len())));
}

#[test]
fn rfc6455_4_1_a_101_that_does_not_hold_is_no_upgrade() {
    let broken = [
        ("Upgrade: websocket", "Upgrade: h2c", Fault::Upgrade),
        ("Upgrade: websocket\r\n", "", Fault::Upgrade),
        ("Connection: Upgrade", "Connection: keep-alive", Fault::Connection),
        ("s3pPLM", "s3pplm", Fault::Accept),
        ("Sec-WebSocket-Accept", "X-Accept", Fault::Accept),
        ("Connection:", "Sec-WebSocket-Extensions: permessage-deflate\r\nConnection:", Fault::Extension),
    ];
    for (part, instead, fault) in broken {
        let answer = ANSWER.replacen(part, instead, 1);
        let expected = Refusal { status: None, retry_after_s: None, head_bytes: answer.len(), fault };
        assert_eq!(refused(&answer), expected, "{answer}");
    }
}

#[test]
fn a_refusal_has_the_status_when_to_come_back_and_where_its_head_ends() {
    let head = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\n";
    let refusal = accepted(format!("{head}busy").as_bytes()).unwrap_err();
    let expected = Refusal {
        status: Some(503),
        retry_after_s: Some(7),
        head_bytes: head.len(),
        fault: Fault::Status(503),
    };
    assert_eq!(refusal, expected);
    assert_eq!(refused(head), expected);
    assert_eq!(refused("HTTP/1.1 200 OK\r\n\r\n").status, Some(200));
}

#[test]
fn an_answer_that_is_not_http_is_refused_at_once() {
    let refusal = refused("SSH-2.0-OpenSSH_9.9\r\n");
    assert_eq!((refusal.status, refusal.head_bytes), (None, 0));
    assert!(refusal.fault.to_string().starts_with("the response is not HTTP"), "{}", refusal.fault);
}

#[test]
fn a_head_without_an_end_is_refused_at_64_kib() {
    let endless = format!("HTTP/1.1 101 Switching Protocols\r\nX: {}", "x".repeat(64 << 10));
    assert_eq!(accepted(&endless.as_bytes()[..64 << 10]), Ok(None));
    assert!(accepted(endless.as_bytes()).is_err());
}

#[test]
fn rfc6455_5_2_frames_of_all_three_lengths_are_told_when_they_are_whole() {
    let stream = [
        server(0x81, b""),
        server(0x82, &[b'a'; 125]),
        server(0x02, &[b'b'; 126]),
        server(0x80, b"c"),
        server(0x89, b"ping"),
        server(0x8a, b""),
        server(0x88, &[0x03, 0xe8, b'b', b'y', b'e']),
    ]
    .concat();
    let expected = vec![
        (true, Opcode::Text, vec![]),
        (true, Opcode::Binary, vec![b'a'; 125]),
        (false, Opcode::Binary, vec![b'b'; 126]),
        (true, Opcode::Continuation, b"c".to_vec()),
        (true, Opcode::Ping, b"ping".to_vec()),
        (true, Opcode::Pong, vec![]),
        (true, Opcode::Close, vec![0x03, 0xe8, b'b', b'y', b'e']),
    ];
    assert_eq!(everywhere(&stream, seen), (expected, None));
}

#[test]
fn rfc6455_5_2_a_long_frame_is_decoded_at_its_last_byte() {
    let stream = server(0x82, &[b'x'; 0x1_0000]);
    assert_eq!(decode(&stream[..stream.len() - 1]), Ok(None));
    let (whole, length) = decode(&stream).unwrap().unwrap();
    assert_eq!((whole.payload.len(), length), (0x1_0000, stream.len()));
}

#[test]
fn a_header_says_how_much_is_to_come() {
    assert_eq!(header(&[]), None);
    assert_eq!(header(&[0x81]), None);
    assert_eq!(header(&[0x81, 5]), Some((2, 5)));
    assert_eq!(header(&[0x81, 126, 1]), None);
    assert_eq!(header(&[0x81, 126, 1, 0]), Some((4, 256)));
    assert_eq!(header(&[0x81, 127, 0, 0, 0, 0, 0, 1, 0]), None);
    assert_eq!(header(&[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]), Some((10, 65_536)));
}

#[test]
fn rfc6455_5_what_a_server_must_not_send_is_named() {
    let broken: [(&[u8], BadFrame); 12] = [
        (&[0xc1, 0], BadFrame::ReservedBits),
        (&[0x91, 0], BadFrame::ReservedBits),
        (&[0x83, 0], BadFrame::UnknownOpcode),
        (&[0x8b, 0], BadFrame::UnknownOpcode),
        (&[0x81, 0x80, 1, 2, 3, 4], BadFrame::Masked),
        (&[0x89, 126, 0, 126], BadFrame::ControlTooLong),
        (&[0x88, 127], BadFrame::ControlTooLong),
        (&[0x09, 0], BadFrame::ControlFragmented),
        (&[0x82, 126, 0, 125], BadFrame::Length),
        (&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], BadFrame::Length),
        // The top bit of a 64-bit length.
        (&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], BadFrame::Length),
        (&[0x88, 1, 3], BadFrame::HalfACode),
    ];
    for (octets, fault) in broken {
        assert_eq!(everywhere(octets, seen), (vec![], Some(fault)), "{octets:02x?}");
        let after = [&server(0x81, b"ok")[..], octets].concat();
        let told = (vec![(true, Opcode::Text, b"ok".to_vec())], Some(fault));
        assert_eq!(everywhere(&after, seen), told, "{octets:02x?}");
    }
}

#[test]
fn rfc6455_5_2_the_longest_length_that_can_be_said_is_awaited() {
    let mut octets = vec![0x82, 127];
    octets.extend(i64::MAX.to_be_bytes());
    assert_eq!(decode(&octets), Ok(None));
    assert_eq!(header(&octets), Some((10, i64::MAX as u64)));
}

#[test]
fn rfc6455_5_5_1_a_close_has_a_code_and_a_reason_or_neither() {
    assert_eq!(close_code(&[0x03, 0xe8]), (1000, ""));
    assert_eq!(close_code(b"\x03\xf4reconnect after 1200 ms"), (1012, "reconnect after 1200 ms"));
    assert_eq!(close_code(b""), (1005, ""));
    assert_eq!(close_code(b"\x03"), (1005, ""));
    assert_eq!(close_code(b"\x0f\xa0bad \xff utf8"), (4000, "bad "));
}

#[test]
fn a_close_of_corecast_says_how_long_to_stay_away() {
    assert_eq!(reconnect_after_ms("reconnect after 1200 ms"), Some(1200));
    for other in ["", "bye", "reconnect after ms", "reconnect after -1 ms", "reconnect after 5 s"] {
        assert_eq!(reconnect_after_ms(other), None, "{other:?}");
    }
}

#[test]
fn rfc6455_5_5_control_frames_of_a_client_are_masked_and_whole() {
    let mut out = Vec::new();
    pong(&mut out, b"hi", MASK);
    frame(&mut out, Opcode::Close, &1000_u16.to_be_bytes(), MASK);
    let expected = [
        &[0x8a, 0x82][..],
        &MASK,
        &[b'h' ^ 0x37, b'i' ^ 0xfa],
        &[0x88, 0x82],
        &MASK,
        &[3 ^ 0x37, 0xe8 ^ 0xfa],
    ];
    assert_eq!(out, expected.concat());
}

#[test]
fn rfc6455_5_4_fragments_that_never_finish_have_no_fin() {
    let mut out = Vec::new();
    fragment(&mut out, true, b"a", MASK);
    fragment(&mut out, false, b"b", MASK);
    let expected = [&[0x01, 0x81][..], &MASK, &[b'a' ^ 0x37], &[0x00, 0x81], &MASK, &[b'b' ^ 0x37]];
    assert_eq!(out, expected.concat());
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![3 => Just(0x81u8), 2 => Just(0x02), 2 => Just(0x80), 1 => Just(0x89), 1 => Just(0x88),
        1 => any::<u8>()];
    let payload = prop_oneof![5 => vec(any::<u8>(), 0..8), 1 => vec(any::<u8>(), 120..300)];
    prop_oneof![
        9 => (first, payload).prop_map(|(first, payload)| server(first, &payload)),
        1 => vec(any::<u8>(), 1..12),
    ]
}

proptest! {
    #[test]
    fn design_6_rule_1_any_split_of_any_frames_gives_the_same(
        frames in vec(any_frame(), 0..8), cuts in cuts(),
    ) {
        let octets = frames.concat();
        let by_octet: Vec<usize> = (1..octets.len()).collect();
        let whole = fed(&octets, &[], seen);
        prop_assert_eq!(&fed(&octets, &by_octet, seen), &whole);
        prop_assert_eq!(&fed(&octets, &places(&octets, &cuts), seen), &whole);
    }

    #[test]
    fn rfc6455_5_3_a_message_is_masked_and_unmasks_to_itself(
        payload in prop_oneof![vec(any::<u8>(), 0..300), Just(vec![7; 70_000])], mask: [u8; 4],
    ) {
        let mut out = b"before".to_vec();
        frame(&mut out, Opcode::Binary, &payload, mask);
        let octets = &out[6..];
        prop_assert_eq!((octets[0], octets[1] & 0x80), (0x82, 0x80));
        let (header_bytes, payload_bytes) = header(octets).unwrap();
        let (sent_mask, masked) = octets[header_bytes..].split_at(4);
        prop_assert_eq!(sent_mask, &mask);
        prop_assert_eq!(masked.len() as u64, payload_bytes);
        let unmasked: Vec<u8> = masked.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        prop_assert_eq!(unmasked, payload);
    }
}
