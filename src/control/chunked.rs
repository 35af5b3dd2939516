//! The chunked transfer coding (RFC 9112 7.1), incoming and outgoing.
//!
//! Pure, fed arbitrary splits; holds no bytes but a size in progress.

/// Longest size line (extensions included) and longest trailer section, in bytes.
const LINE_BYTES_MAX: usize = 4096;

/// The octets are not chunked coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkError {
    /// A size is not hexadecimal, a line end is missing, or a line is too long.
    Malformed,
    /// The body is longer than allowed.
    TooLong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the digits of a size; whether there was one.
    Size {
        digits: u32,
    },
    /// In an extension, up to the line's end.
    Extension,
    /// The LF of a size line is due.
    SizeEnd,
    /// In the data.
    Data,
    /// The CR, then the LF, behind the data are due.
    DataCr,
    DataLf,
    /// In the trailer section; whether the line holds anything yet.
    Trailer {
        empty: bool,
    },
    TrailerLf {
        empty: bool,
    },
    Done,
}

/// Decodes one chunked body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    left: usize,
    line_bytes: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Size { digits: 0 }, left: 0, line_bytes: 0 }
    }
}

impl Decoder {
    /// Takes octets from the front of `input` and appends the data to `body`, which may grow to
    /// `body_bytes_max`. Gives how many octets were taken, and whether the body is complete.
    ///
    /// Errors: `Malformed`; `TooLong` as soon as a size says so.
    pub fn handle_bytes(
        &mut self,
        input: &[u8],
        body: &mut Vec<u8>,
        body_bytes_max: usize,
    ) -> Result<(usize, bool), ChunkError> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let take = self.left.min(input.len() - at);
                body.extend_from_slice(&input[at..at + take]);
                at += take;
                self.left -= take;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.handle_byte(input[at], body_bytes_max - body.len())?;
            at += 1;
        }
        Ok((at, self.state == State::Done))
    }

    fn handle_byte(&mut self, byte: u8, room: usize) -> Result<(), ChunkError> {
        self.line_bytes += 1;
        if self.line_bytes > LINE_BYTES_MAX {
            return Err(ChunkError::Malformed);
        }
        self.state = match (self.state, byte) {
            (State::Size { digits: 1.. }, b'\r') => State::SizeEnd,
            (State::Size { digits: 1.. }, b';' | b' ' | b'\t') => State::Extension,
            (State::Size { digits }, byte) => {
                let digit = (byte as char).to_digit(16).ok_or(ChunkError::Malformed)?;
                self.left = self.left.checked_mul(16).ok_or(ChunkError::TooLong)? + digit as usize;
                State::Size { digits: digits + 1 }
            }
            (State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, b'\n') => return Err(ChunkError::Malformed),
            (State::Extension, _) => State::Extension,
            (State::SizeEnd, b'\n') if self.left > room => return Err(ChunkError::TooLong),
            (State::SizeEnd, b'\n') => {
                self.line_bytes = 0;
                if self.left > 0 { State::Data } else { State::Trailer { empty: true } }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                self.line_bytes = 0;
                State::Size { digits: 0 }
            }
            (State::Trailer { empty }, b'\r') => State::TrailerLf { empty },
            (State::Trailer { .. }, b'\n') => return Err(ChunkError::Malformed),
            // Trailers are allowed and mean nothing to us.
            (State::Trailer { .. }, _) => State::Trailer { empty: false },
            (State::TrailerLf { empty: true }, b'\n') => State::Done,
            (State::TrailerLf { empty: false }, b'\n') => State::Trailer { empty: true },
            _ => return Err(ChunkError::Malformed),
        };
        Ok(())
    }
}

/// Appends `data`, which is not empty, as one chunk.
pub fn encode(data: &[u8], output: &mut Vec<u8>) {
    debug_assert!(!data.is_empty(), "an empty chunk would end the body");
    output.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    output.extend_from_slice(data);
    output.extend_from_slice(b"\r\n");
}

/// The end of a chunked body without trailers.
pub const END: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), ChunkError> {
        let (mut decoder, mut body, mut taken, mut done) = (Decoder::default(), Vec::new(), 0, false);
        for piece in pieces {
            let (used, whole) = decoder.handle_bytes(piece, &mut body, 32)?;
            taken += used;
            done = whole;
        }
        Ok((body, taken, done))
    }

    #[test]
    fn rfc9112_7_1_a_body_is_the_same_wherever_it_is_cut() {
        let input = b"5\r\nhello\r\n6;a=\"b\"\r\n world\r\n0\r\nx: y\r\n\r\nGET";
        let expected = (b"hello world".to_vec(), input.len() - 3, true);
        assert_eq!(decode(&[input]), Ok(expected.clone()));
        for cut in 0..input.len() {
            assert_eq!(decode(&[&input[..cut], &input[cut..]]), Ok(expected.clone()), "cut at {cut}");
        }
        let bytes: Vec<_> = input.chunks(1).collect();
        assert_eq!(decode(&bytes), Ok(expected));
    }

    #[test]
    fn rfc9112_7_1_what_is_not_chunked_coding_is_refused() {
        for input in ["\r\n", "g\r\n", "5\nhello", "1\r\nab\r\n", "0\r\nx\n", ";\r\n", "-1\r\n", " 1\r\n"] {
            assert_eq!(decode(&[input.as_bytes()]), Err(ChunkError::Malformed), "{input:?}");
        }
        let endless = format!("1;{}", "x".repeat(LINE_BYTES_MAX));
        assert_eq!(decode(&[endless.as_bytes()]), Err(ChunkError::Malformed));
    }

    #[test]
    fn a_body_at_the_limit_passes_and_a_size_beyond_it_is_refused_before_its_data() {
        let whole = format!("10\r\n{0}\r\n10\r\n{0}\r\n0\r\n\r\n", "x".repeat(16));
        assert!(decode(&[whole.as_bytes()]).is_ok_and(|(body, _, done)| body.len() == 32 && done));
        assert_eq!(decode(&[b"21\r\n"]), Err(ChunkError::TooLong));
        assert_eq!(decode(&[b"fffffffffffffffff\r\n"]), Err(ChunkError::TooLong));
    }

    #[test]
    fn what_encode_makes_decodes_to_itself() {
        let mut output = Vec::new();
        encode(b"one", &mut output);
        encode(b"two", &mut output);
        output.extend_from_slice(END);
        assert_eq!(decode(&[&output]), Ok((b"onetwo".to_vec(), output.len(), true)));
    }
}
