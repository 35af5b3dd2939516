//! Our frame decoder against `tungstenite`: each listed difference is there, and there is no other.

use proptest::prelude::*;

use super::targets::frames_differential::{Difference, difference};

/// A text frame as a client sends it, key 0.
fn text(payload: &[u8]) -> Vec<u8> {
    [&[0x81, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

fn close(payload: &[u8]) -> Vec<u8> {
    [&[0x88, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

#[test]
fn issue_6_what_both_take_or_refuse_alike_is_no_difference() {
    let long =
        |length: u16| [&[0x82, 0xfe][..], &length.to_be_bytes(), &[0; 4], &vec![7; length.into()]].concat();
    for (what, octets) in [
        ("nothing", vec![]),
        ("text", text(b"a")),
        (
            "two fragments with a ping between",
            [&[1, 0x81, 0, 0, 0, 0, b'a'][..], &[0x89, 0x80, 0, 0, 0, 0], &[0x80, 0x80, 0, 0, 0, 0]].concat(),
        ),
        ("a message at the limit", long(300)),
        ("a message over the limit", long(301)),
        ("bad UTF-8", text(&[0xff])),
        ("a close", close(&[3, 0xe8, b'x'])),
        ("half a close code", close(&[3])),
        ("an unmasked frame", vec![0x81, 1, b'a']),
        ("a continuation of nothing", vec![0x80, 0x80, 0, 0, 0, 0]),
        ("an unknown opcode", vec![0x83, 0x80, 0, 0, 0, 0]),
    ] {
        assert_eq!(difference(&octets), None, "{what}");
    }
}

#[test]
fn issue_6_each_difference_from_tungstenite_is_there() {
    for (octets, expected) in [
        (vec![0xc1], Difference::Sooner),
        (text(b"\xff rest")[..7].to_vec(), Difference::Sooner),
        (vec![0xc9, 0xfe, 0, 200], Difference::Sooner),
        (vec![0xc3, 0x80, 0, 0, 0, 0], Difference::AnotherFault),
        (vec![0x88, 0xfe, 0, 2, 0, 0, 0, 0, 3, 0xed], Difference::AnotherFault),
        (vec![0x81, 0xfe, 0, 1, 0, 0, 0, 0, b'a'], Difference::Length),
        (vec![0x81, 0xfe, 0, 1], Difference::Length),
        (vec![0x89, 0xfe, 0, 1, 0, 0, 0, 0, b'a'], Difference::Length),
        (close(&[3, 0xed]), Difference::CloseCode),
        (close(&[0x13, 0x88]), Difference::CloseCode),
        (close(&[3, 0xf6]), Difference::CloseCode1014),
    ] {
        assert_eq!(difference(&octets), Some(expected), "{octets:02x?}");
    }
}

/// A frame with whatever may be wrong with it.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let opcode = proptest::sample::select(vec![0u8, 0, 0, 1, 1, 1, 2, 2, 8, 8, 9, 9, 10, 3]);
    let reserved = prop_oneof![12 => Just(0u8), 1 => 1u8..8];
    let payload = prop_oneof![
        3 => "[a-zö🙂]{0,9}".prop_map(String::into_bytes),
        2 => proptest::collection::vec(any::<u8>(), 0..9),
        1 => (990u16..5010, "[a-zö]{0,5}")
            .prop_map(|(code, reason)| [&code.to_be_bytes(), reason.as_bytes()].concat()),
        1 => (100usize..310).prop_map(|length| vec![b'x'; length]),
    ];
    let form = prop_oneof![12 => Just(0usize), 1 => Just(2), 1 => Just(8)];
    let masked = prop_oneof![15 => Just(true), 1 => Just(false)];
    (any::<bool>(), opcode, reserved, payload, form, masked, any::<[u8; 4]>()).prop_map(
        |(fin, opcode, reserved, payload, form, masked, key)| {
            let mask = if masked { 0x80 } else { 0 };
            let mut frame = vec![u8::from(fin) << 7 | reserved << 4 | opcode];
            match (form, payload.len()) {
                (0, length @ 0..=125) => frame.push(mask | length as u8),
                (0 | 2, length) => {
                    frame.push(mask | 126);
                    frame.extend((length as u16).to_be_bytes());
                }
                (_, length) => {
                    frame.push(mask | 127);
                    frame.extend((length as u64).to_be_bytes());
                }
            }
            let key = if masked { key } else { [0; 4] };
            frame.extend(&key[..if masked { 4 } else { 0 }]);
            frame.extend(payload.iter().zip(key.iter().cycle()).map(|(octet, key)| octet ^ key));
            frame
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn issue_6_no_conversation_differs_from_tungstenite_but_as_listed(
        frames in proptest::collection::vec(any_frame(), 1..6), cut in 0usize..400,
    ) {
        let octets = frames.concat();
        difference(&octets);
        difference(&octets[..cut.min(octets.len())]);
    }
}
