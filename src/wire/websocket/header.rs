//! Frame headers of either direction as they are, for those who only look on. Nothing is judged here: `frame` does
//! that, for what clients send.

use super::frame::FIN;

/// Set in the first frame of a message that is compressed (RFC 7692 6).
const RSV1: u8 = 0x40;
const MASKED: u8 = 0x80;
/// Octets of a mask.
const MASK_BYTES: usize = 4;

/// One frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether the message ends with it.
    pub fin: bool,
    /// Whether the message is compressed.
    pub compressed: bool,
    /// 0 to 15.
    pub opcode: u8,
    /// Announced payload.
    pub payload_bytes: u64,
}

impl Header {
    /// Reads one off the front of `octets`; gives it and its length, 2 to 14 bytes, and the mask counts.
    ///
    /// `None` while `octets` is shorter than that. Source: RFC 6455 5.2.
    pub fn read(octets: &[u8]) -> Option<(Self, usize)> {
        let &[first, second, ref after @ ..] = octets else { return None };
        let (payload_bytes, length_bytes) = match second & !MASKED {
            126 => (u64::from(u16::from_be_bytes(*after.first_chunk()?)), 2),
            127 => (u64::from_be_bytes(*after.first_chunk()?), 8),
            short => (u64::from(short), 0),
        };
        let mask_bytes = if second & MASKED == 0 { 0 } else { MASK_BYTES };
        let header_bytes = 2 + length_bytes + mask_bytes;
        let (fin, compressed) = (first & FIN != 0, first & RSV1 != 0);
        let header = Self { fin, compressed, opcode: first & 0x0f, payload_bytes };
        (octets.len() >= header_bytes).then_some((header, header_bytes))
    }

    /// What the opcode means (RFC 6455 11.8).
    pub fn opcode_name(&self) -> &'static str {
        match self.opcode {
            0 => "continuation",
            1 => "text",
            2 => "binary",
            8 => "close",
            9 => "ping",
            10 => "pong",
            _ => "reserved",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Kind;
    use crate::wire::websocket::{Decoder, Limits, encode_message};

    #[test]
    fn rfc6455_5_2_a_header_is_read_once_all_of_it_is_there() {
        for (length, header_bytes) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let (frame, _) = encode_message(Kind::Text, &vec![b'x'; length]);
            let header = Header { fin: true, compressed: false, opcode: 1, payload_bytes: length as u64 };
            assert_eq!(Header::read(&frame), Some((header, header_bytes)));
            assert_eq!(Header::read(&frame[..header_bytes - 1]), None);
        }
        let masked = [0xc1, 0xfe, 1, 0, 9, 9, 9, 9];
        let header = Header { fin: true, compressed: true, opcode: 1, payload_bytes: 256 };
        assert_eq!(Header::read(&masked), Some((header, 8)));
        assert_eq!(Header::read(&masked[..7]), None);
        assert_eq!(Header::read(&[0x03, 0]).map(|(header, _)| header.opcode_name()), Some("reserved"));
    }

    #[test]
    fn issue_7_a_decoder_shows_each_header_once_wherever_the_input_is_cut() {
        let masked = |first: u8, length: u16| {
            let length_octets = length.to_be_bytes();
            let short = if length < 126 { vec![MASKED | length as u8] } else { vec![MASKED | 126] };
            let long: &[u8] = if length < 126 { &[] } else { &length_octets };
            [&[first], &short[..], long, &[0; 4], &vec![b'x'; length.into()]].concat()
        };
        let frames = [(0x01, 3), (0x89, 0), (0x80, 200), (0x82, 0)];
        let input: Vec<u8> = frames.iter().flat_map(|&(first, length)| masked(first, length)).collect();
        let limits = Limits { message_bytes_max: 1000, fragments_max: 10 };
        for cut in 1..=input.len() {
            let (mut decoder, mut seen) = (Decoder::new(), Vec::new());
            for piece in input.clone().chunks_mut(cut) {
                let mut rest = piece;
                while !rest.is_empty() {
                    seen.extend(decoder.next_header(rest).map(|header| header.payload_bytes));
                    let used = decoder.handle_bytes(rest, &limits).expect("good frames").0;
                    rest = &mut rest[used..];
                }
            }
            assert_eq!(seen, [3, 0, 200, 0], "cut into pieces of {cut}");
        }
    }
}
