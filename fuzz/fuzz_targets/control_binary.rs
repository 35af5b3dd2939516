//! Whatever comes over the control socket as the binary protocol: no panic, no more taken than was
//! there, and what decodes encodes to something that decodes to the same.

#![no_main]

use corecast::control::codec;
use libfuzzer_sys::fuzz_target;

const FRAME_BYTES_MAX: usize = 1024;

fuzz_target!(|input: &[u8]| {
    let _ = codec::is_binary(input);
    let _ = codec::decode_reply(input);
    // As one frame, so that the fuzzer need not guess the length field.
    check(input);
    let mut rest = input;
    while let Ok(Some(frame)) = codec::frame(rest, FRAME_BYTES_MAX) {
        assert!(frame.len() <= FRAME_BYTES_MAX);
        check(frame);
        rest = &rest[codec::LENGTH_BYTES + frame.len()..];
    }
});

fn check(frame: &[u8]) {
    let Ok(request) = codec::decode_request(frame) else { return };
    let mut again = Vec::new();
    codec::encode_request(request.correlation, &request.command, &mut again);
    let frame = codec::frame(&again, usize::MAX).expect("short enough").expect("whole");
    let back = codec::decode_request(frame).expect("our own");
    assert_eq!(format!("{back:?}"), format!("{request:?}"));
}
