//! RFC 6455 8.1, 5.6: text is UTF-8, judged as octets arrive. The sequences are those of Markus Kuhn's
//! stress test, as the Autobahn suite sends them (6.x).

use corecast::wire::close::ProtocolError::BadUtf8;

use crate::script::{
    Frame, KEY, LIMITS, Outcome, Script, binary, continuation, octet_text, outcomes_of, text,
};

const KOSME: &[u8] = "κόσμε".as_bytes();
/// One more than the last code point.
const BEYOND_UNICODE: &[u8] = &[0xf4, 0x90, 0x80, 0x80];

/// Holds one payload against the decoder in every shape: one frame, two fragments cut anywhere, a
/// fragment an octet, all with text around it; each also read in pieces by the script.
fn in_every_shape(payload: &[u8], check: impl Fn(Script)) {
    let script = |frames: &[Frame]| {
        frames.iter().cloned().fold(Script::websocket(), |script, frame| script.client(frame))
    };
    check(script(&[octet_text(payload)]));
    for cut in 0..=payload.len().min(16) {
        let (left, right) = payload.split_at(cut);
        check(script(&[octet_text(left).not_final(), continuation(right)]));
    }
    // Invalid text ends the script at the octet that breaks it, so the rest is one turn with it.
    let octets = payload.iter().flat_map(|octet| continuation(&[*octet]).not_final().masked(KEY));
    let framed = [text("").not_final().masked(KEY), octets.collect(), continuation(b"").masked(KEY)].concat();
    check(Script::websocket().client_octets(framed));
}

fn accepts(payload: &[u8]) {
    let expected = std::str::from_utf8(payload).expect("valid");
    in_every_shape(payload, |script| drop(script.hears_text(expected)));
}

/// Where in the frames it is noticed differs from shape to shape; that it is, does not. So the turns
/// are joined here.
fn refuses(payload: &[u8]) {
    for payload in [payload.to_vec(), [b"before ", payload].concat(), [payload, b" behind"].concat()] {
        let whole = octet_text(&payload).masked(KEY);
        let in_fragments = |cut: usize| {
            let (left, right) = payload.split_at(cut);
            [octet_text(left).not_final().masked(KEY), continuation(right).masked(KEY)].concat()
        };
        let shapes = (0..=payload.len().min(16)).map(in_fragments).chain([whole]);
        shapes.for_each(|octets| drop(Script::websocket().client_octets(octets).fails(BadUtf8)));
    }
}

#[test]
fn rfc6455_8_1_valid_text_arrives_however_it_is_fragmented() {
    accepts(b"");
    accepts(KOSME);
    accepts("Hello-µ@ßöäüàá-UTF-8!!".as_bytes());
}

#[test]
fn rfc3629_3_the_first_and_last_code_point_of_every_length_are_valid() {
    for text in ["\0", "\u{80}", "\u{800}", "\u{10000}", "\u{7f}", "\u{7ff}", "\u{ffff}", "\u{10ffff}"] {
        accepts(text.as_bytes());
    }
}

#[test]
fn rfc3629_3_the_neighbours_of_the_surrogates_are_valid() {
    for text in ["\u{d7ff}", "\u{e000}", "\u{fffd}"] {
        accepts(text.as_bytes());
    }
}

#[test]
fn rfc3629_3_noncharacters_are_valid() {
    for plane in 0..=16 {
        for low in [0xfffe, 0xffff] {
            let noncharacter = char::from_u32(plane << 16 | low).expect("a code point");
            accepts(noncharacter.to_string().as_bytes());
        }
    }
}

#[test]
fn rfc3629_3_sequences_of_five_and_six_octets_are_refused() {
    refuses(&[0xf8, 0x88, 0x80, 0x80, 0x80]);
    refuses(&[0xfc, 0x84, 0x80, 0x80, 0x80, 0x80]);
    refuses(&[0xfb, 0xbf, 0xbf, 0xbf, 0xbf]);
    refuses(&[0xfd, 0xbf, 0xbf, 0xbf, 0xbf, 0xbf]);
}

#[test]
fn rfc3629_3_code_points_beyond_10ffff_are_refused() {
    refuses(BEYOND_UNICODE);
    refuses(&[0xf7, 0xbf, 0xbf, 0xbf]);
    refuses(&[0xf5, 0x80, 0x80, 0x80]);
}

#[test]
fn rfc3629_3_continuation_octets_alone_are_refused() {
    refuses(&[0x80]);
    refuses(&[0xbf]);
    for length in 2..=7 {
        let alternating = [0x80, 0xbf].into_iter().cycle().take(length).collect::<Vec<_>>();
        refuses(&alternating);
    }
    (0x80..=0xbf).for_each(|octet| refuses(&[octet]));
}

#[test]
fn rfc3629_3_start_octets_alone_are_refused() {
    for start in 0xc0..=0xfd {
        refuses(&[start, b' ']);
    }
}

#[test]
fn rfc3629_3_sequences_without_their_last_octet_are_refused() {
    let unfinished: [&[u8]; 10] = [
        &[0xc0],
        &[0xe0, 0x80],
        &[0xf0, 0x80, 0x80],
        &[0xf8, 0x80, 0x80, 0x80],
        &[0xfc, 0x80, 0x80, 0x80, 0x80],
        &[0xdf],
        &[0xef, 0xbf],
        &[0xf7, 0xbf, 0xbf],
        &[0xfb, 0xbf, 0xbf, 0xbf],
        &[0xfd, 0xbf, 0xbf, 0xbf, 0xbf],
    ];
    unfinished.iter().for_each(|sequence| refuses(sequence));
    refuses(&unfinished.concat());
}

#[test]
fn rfc3629_3_impossible_octets_are_refused() {
    refuses(&[0xfe]);
    refuses(&[0xff]);
    refuses(&[0xfe, 0xfe, 0xff, 0xff]);
}

#[test]
fn rfc3629_3_overlong_forms_are_refused() {
    let slash: [&[u8]; 5] = [
        &[0xc0, 0xaf],
        &[0xe0, 0x80, 0xaf],
        &[0xf0, 0x80, 0x80, 0xaf],
        &[0xf8, 0x80, 0x80, 0x80, 0xaf],
        &[0xfc, 0x80, 0x80, 0x80, 0x80, 0xaf],
    ];
    let longest: [&[u8]; 5] = [
        &[0xc1, 0xbf],
        &[0xe0, 0x9f, 0xbf],
        &[0xf0, 0x8f, 0xbf, 0xbf],
        &[0xf8, 0x87, 0xbf, 0xbf, 0xbf],
        &[0xfc, 0x83, 0xbf, 0xbf, 0xbf, 0xbf],
    ];
    let nul: [&[u8]; 5] = [
        &[0xc0, 0x80],
        &[0xe0, 0x80, 0x80],
        &[0xf0, 0x80, 0x80, 0x80],
        &[0xf8, 0x80, 0x80, 0x80, 0x80],
        &[0xfc, 0x80, 0x80, 0x80, 0x80, 0x80],
    ];
    [slash, longest, nul].iter().flatten().for_each(|sequence| refuses(sequence));
}

#[test]
fn rfc3629_3_surrogates_are_refused_alone_and_in_pairs() {
    let high: [&[u8]; 4] =
        [&[0xed, 0xa0, 0x80], &[0xed, 0xad, 0xbf], &[0xed, 0xae, 0x80], &[0xed, 0xaf, 0xbf]];
    let low: [&[u8]; 3] = [&[0xed, 0xb0, 0x80], &[0xed, 0xbe, 0x80], &[0xed, 0xbf, 0xbf]];
    high.iter().chain(&low).for_each(|sequence| refuses(sequence));
    for high in high {
        low.iter().for_each(|low| refuses(&[high, low].concat()));
    }
}

#[test]
fn rfc6455_8_1_text_that_ends_inside_a_character_is_refused_with_its_last_octet() {
    for end in 1..KOSME.len() {
        let prefix = &KOSME[..end];
        match std::str::from_utf8(prefix) {
            Ok(_) => accepts(prefix),
            Err(_) => refuses_at_the_end(prefix),
        }
    }
}

/// While more may come nothing is wrong; the frame that ends the message makes it so.
fn refuses_at_the_end(payload: &[u8]) {
    Script::websocket().client(octet_text(payload)).fails(BadUtf8);
    Script::websocket()
        .client(octet_text(payload).not_final())
        .server_silent()
        .client(continuation(b""))
        .fails(BadUtf8);
}

#[test]
fn rfc6455_8_1_binary_messages_are_not_judged() {
    Script::websocket()
        .client(binary(BEYOND_UNICODE))
        .hears_binary(BEYOND_UNICODE)
        .client(binary(&[0xff]).not_final())
        .client(continuation(&[0xfe]))
        .hears_binary(&[0xff, 0xfe]);
}

#[test]
fn autobahn_6_4_1_a_bad_fragment_fails_before_the_message_ends() {
    Script::websocket()
        .client(octet_text(KOSME).not_final())
        .server_silent()
        .client(continuation(BEYOND_UNICODE).not_final())
        .fails(BadUtf8)
        .client(continuation(b"edited"))
        .server_silent();
}

#[test]
fn autobahn_6_4_2_a_character_broken_by_the_next_fragment_fails_with_it() {
    Script::websocket()
        .client(octet_text(&[KOSME, &[0xf4]].concat()).not_final())
        .server_silent()
        .client(continuation(&[0x90]).not_final())
        .fails(BadUtf8)
        .client(continuation(&[0x80, 0x80]).not_final())
        .server_silent();
}

#[test]
fn autobahn_6_4_3_a_frame_fails_at_its_bad_octet_before_it_is_complete() {
    let payload = [KOSME, BEYOND_UNICODE, b"edited"].concat();
    let octets = octet_text(&payload).masked(KEY);
    // The header, the valid text and the 0xf4 may still become something; with the 0x90 it cannot.
    let bad = octets.len() - payload.len() + KOSME.len() + 1;
    Script::websocket()
        .client_octets(&octets[..bad])
        .server_silent()
        .client_octets(&octets[bad..=bad])
        .fails(BadUtf8)
        .client_octets(&octets[bad + 1..])
        .server_silent();
}

#[test]
fn autobahn_6_4_4_a_whole_frame_and_a_frame_in_pieces_fail_alike() {
    let payload = [KOSME, BEYOND_UNICODE, b"edited"].concat();
    let octets = octet_text(&payload).masked(KEY);
    let whole = outcomes_of(&octets, &[], &LIMITS);
    assert_eq!(whole.first(), Some(&Outcome::Failed(BadUtf8)));
    for cut in 1..octets.len() {
        assert_eq!(outcomes_of(&octets, &[cut], &LIMITS), whole, "cut at {cut}");
    }
}
