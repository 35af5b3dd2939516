//! Whatever comes over the control socket as the binary protocol: no panic, no more taken than was
//! there, and what decodes encodes to something that decodes to the same.

use corecast::control::codec;

const FRAME_BYTES_MAX: usize = 1024;

/// Reads `input` as frames, and as one frame.
pub fn check(input: &[u8]) {
    let _ = codec::is_binary(input);
    let _ = codec::decode_reply(input);
    // As one frame, so that the fuzzer need not guess the length field.
    holds(input);
    let mut rest = input;
    while let Ok(Some(frame)) = codec::frame(rest, FRAME_BYTES_MAX) {
        assert!(frame.len() <= FRAME_BYTES_MAX);
        holds(frame);
        rest = &rest[codec::LENGTH_BYTES + frame.len()..];
    }
}

fn holds(frame: &[u8]) {
    let Ok(request) = codec::decode_request(frame) else { return };
    let mut again = Vec::new();
    codec::encode_request(request.correlation, &request.command, &mut again);
    let frame = codec::frame(&again, usize::MAX).expect("short enough").expect("whole");
    let back = codec::decode_request(frame).expect("our own");
    assert_eq!(format!("{back:?}"), format!("{request:?}"));
    let longer = [frame, &[0]].concat();
    assert!(codec::decode_request(&longer).is_err(), "an octet is left over");
}
