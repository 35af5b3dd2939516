//! UTF-8 of a text message as its octets arrive (RFC 6455 8.1), against the standard library, which sees the
//! whole: the same texts pass, and what can never become UTF-8 is refused at the octet that breaks it.
//!
//! The first octet of the input is the size of the fragments, less one; the rest is the text.

use corecast::wire::close::ProtocolError;
use corecast::wire::websocket::{Decoder, Event, Limits};

use super::websocket_session::masked;

const LIMITS: Limits = Limits { message_bytes_max: 4096, fragments_max: 4096 };
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const HEADER_BYTES: usize = 6;
const TEXT: u8 = 1;
const FIN: u8 = 0x80;

/// See the top of this file.
pub fn check(input: &[u8]) {
    let Some((size, text)) = input.split_first() else { return };
    let text = &text[..text.len().min(LIMITS.message_bytes_max)];
    let size = usize::from(size % 64) + 1;
    let is_broken = |end: &usize| {
        let error = std::str::from_utf8(&text[..*end]).err();
        error.is_some_and(|error| error.error_len().is_some())
    };
    let broken_at = (1..=text.len()).find(is_broken);
    let expected = match std::str::from_utf8(text) {
        Ok(_) => Ok(text.to_vec()),
        Err(_) => Err(broken_at.unwrap_or(text.len())),
    };
    assert_eq!(received(text, size), expected);
}

/// The text that comes out of frames of `size` octets, read octet by octet; or how much of the text had been
/// read when it was refused.
fn received(text: &[u8], size: usize) -> Result<Vec<u8>, usize> {
    let mut decoder = Decoder::new();
    let mut pieces: Vec<&[u8]> = text.chunks(size).collect();
    if pieces.is_empty() {
        pieces.push(b"");
    }
    let mut read = 0;
    for (number, piece) in pieces.iter().enumerate() {
        let opcode = if number == 0 { TEXT } else { 0 };
        let fin = if number + 1 == pieces.len() { FIN } else { 0 };
        for (at, octet) in masked(opcode | fin, piece, KEY).into_iter().enumerate() {
            read += usize::from(at >= HEADER_BYTES);
            match decoder.handle_bytes(&mut [octet], &LIMITS) {
                Ok((1, None)) => {}
                Ok((1, Some(Event::Text(payload)))) => return Ok(payload.into_owned()),
                Err(ProtocolError::BadUtf8) => return Err(read),
                other => panic!("{other:?} from a text message"),
            }
        }
    }
    panic!("a whole message, and no event");
}
