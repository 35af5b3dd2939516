//! What holds for any input and any split.

use corecast::message::Kind;
use corecast::wire::websocket::{Limits, encode_message};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::script::{Frame, Outcome, binary, continuation, octet_text, outcomes_of, ping};

/// Small, so that they are reached.
const LIMITS: Limits = Limits { message_bytes_max: 300, fragments_max: 4 };

/// Mostly valid frames, so that conversations get somewhere.
fn frame() -> impl Strategy<Value = Frame> {
    let opcode = prop_oneof![4 => Just(0u8), 4 => Just(1), 2 => Just(2), 1 => Just(8), 2 => Just(9),
        1 => Just(10), 1 => 0..16u8];
    let payload = prop_oneof![
        6 => "\\PC{0,12}".prop_map(String::into_bytes),
        2 => vec(any::<u8>(), 0..8),
        1 => vec(Just(b'x'), 100..400),
        1 => Just(vec![0x03, 0xe8, b'o', b'k']),
    ];
    (opcode, payload, any::<bool>(), prop_oneof![20 => Just(0u8), 1 => 0..8u8]).prop_map(
        |(opcode, payload, fin, reserved)| {
            let frame = Frame::new(opcode, &payload).reserved(reserved);
            if fin || opcode >= 8 { frame } else { frame.not_final() }
        },
    )
}

/// What a client may send: frames, now and then other octets.
fn octets() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        12 => (frame(), any::<[u8; 4]>()).prop_map(|(frame, key)| frame.masked(key)),
        1 => vec(any::<u8>(), 1..20),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn cuts(octets: &[u8], cuts: &[Index]) -> Vec<usize> {
    let mut cuts = cuts.iter().map(|cut| cut.index(octets.len() + 1)).collect::<Vec<_>>();
    cuts.sort_unstable();
    cuts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn design_6_rule_1_any_split_of_any_input_gives_the_same_events_and_the_same_error(
        octets in octets(),
        splits in vec(vec(any::<Index>(), 0..12), 1..6),
    ) {
        let whole = outcomes_of(&octets, &[], &LIMITS);
        let by_octet = (1..octets.len()).collect::<Vec<_>>();
        prop_assert_eq!(&outcomes_of(&octets, &by_octet, &LIMITS), &whole);
        for split in &splits {
            let cuts = cuts(&octets, split);
            prop_assert_eq!(&outcomes_of(&octets, &cuts, &LIMITS), &whole, "cut at {:?}", cuts);
        }
    }

    #[test]
    fn rfc6455_5_a_masked_message_in_any_fragments_and_reads_comes_out_as_it_went_in(
        payload in ".{0,200}",
        is_text: bool,
        fragment_cuts in vec(any::<Index>(), 0..4),
        read_cuts in vec(any::<Index>(), 0..8),
        key: [u8; 4],
        pings: bool,
    ) {
        let limits = Limits { message_bytes_max: 1000, fragments_max: 5 };
        let payload = payload.into_bytes();
        let mut octets = Vec::new();
        let mut from = 0;
        let ends = cuts(&payload, &fragment_cuts).into_iter().chain([payload.len()]).collect::<Vec<_>>();
        for (number, to) in ends.iter().copied().enumerate() {
            let part = &payload[from..to];
            let frame = match number {
                0 if is_text => octet_text(part),
                0 => binary(part),
                _ => continuation(part),
            };
            let last = number + 1 == ends.len();
            octets.extend(if last { frame } else { frame.not_final() }.masked(key));
            if pings && !last {
                octets.extend(ping(&[number as u8]).masked(key));
            }
            from = to;
        }
        let outcomes = outcomes_of(&octets, &cuts(&octets, &read_cuts), &limits);
        let message = if is_text { Outcome::Text(payload) } else { Outcome::Binary(payload) };
        prop_assert_eq!(outcomes.last(), Some(&message));
        prop_assert_eq!(outcomes.len(), if pings { ends.len() } else { 1 });
    }

    #[test]
    fn rfc6455_5_2_a_message_that_goes_out_is_header_and_payload(
        payload in prop_oneof![vec(any::<u8>(), 0..300), (0..70_000usize).prop_map(|length| vec![0xa5; length])],
    ) {
        let (frame, header_bytes) = encode_message(Kind::Binary, &payload);
        prop_assert_eq!(&frame[usize::from(header_bytes)..], &payload[..]);
        prop_assert_eq!(frame.to_vec(), binary(&payload).plain());
    }
}
