//! The stamp in a payload: who published it, which of theirs it is, and when.
//!
//! `~cb1m` `pppp` `ssssssss` `tttttttttttttttt` `~`: 34 bytes of publisher, sequence number and nanoseconds
//! in lower-case hex. `m` says CLOCK_MONOTONIC, `r` CLOCK_REALTIME, for a publisher on another host. Every
//! byte passes unchanged through JSON strings, event-stream lines and URLs.

use memchr::memmem;

/// A stamp in bytes.
pub const LENGTH: usize = 34;
/// A message is searched this far from its front, in bytes: envelopes are shorter.
const SEARCH_BYTES_MAX: usize = 4096;

const MARK: &[u8] = b"~cb1";
const END: u8 = b'~';
/// Value of each byte as a lower-case hex digit; `NO_DIGIT` for the rest.
const DIGITS: [u8; 256] = digits();
const NO_DIGIT: u8 = 0xff;

/// What a publisher writes at the front of each payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The publisher's number.
    pub publisher: u16,
    /// Which of its messages this is, from 1 up.
    pub seq: u32,
    /// The intended send time in nanoseconds.
    pub at_ns: u64,
    /// Whether `at_ns` is of CLOCK_REALTIME, not CLOCK_MONOTONIC.
    pub wall: bool,
}

impl Stamp {
    /// Writes the text over the first `LENGTH` bytes of `out`, which must have as many.
    pub fn write(&self, out: &mut [u8]) {
        out[..MARK.len()].copy_from_slice(MARK);
        out[4] = if self.wall { b'r' } else { b'm' };
        write_hex(u64::from(self.publisher), &mut out[5..9]);
        write_hex(u64::from(self.seq), &mut out[9..17]);
        write_hex(self.at_ns, &mut out[17..33]);
        out[33] = END;
    }

    /// The stamp at the very front of `text`.
    fn read(text: &[u8]) -> Option<Self> {
        let text: &[u8; LENGTH] = text.first_chunk()?;
        let wall = match text[4] {
            b'm' => false,
            b'r' => true,
            _ => return None,
        };
        if !text.starts_with(MARK) || text[33] != END {
            return None;
        }
        let publisher = read_hex(&text[5..9])? as u16;
        Some(Self { publisher, seq: read_hex(&text[9..17])? as u32, at_ns: read_hex(&text[17..33])?, wall })
    }
}

/// The first stamp that begins in the first 4 KiB of `message`. What only looks like one is passed over.
pub fn find(message: &[u8]) -> Option<Stamp> {
    // A raw payload has it at the front.
    if let Some(stamp) = Stamp::read(message) {
        return Some(stamp);
    }
    let searched = &message[..message.len().min(SEARCH_BYTES_MAX + MARK.len() - 1)];
    memmem::find_iter(searched, MARK).find_map(|at| Stamp::read(&message[at..]))
}

/// A payload of `size` bytes: the stamp, then `x`. `size` is at least `LENGTH`.
pub fn payload(stamp: Stamp, size: usize) -> Vec<u8> {
    assert!(size >= LENGTH, "a payload of {size} bytes has no room for a stamp of {LENGTH}");
    let mut payload = vec![b'x'; size];
    stamp.write(&mut payload);
    payload
}

const fn digits() -> [u8; 256] {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    digits
}

fn write_hex(value: u64, out: &mut [u8]) {
    for (place, digit) in out.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(value >> (4 * place)) as usize & 0xf];
    }
}

fn read_hex(text: &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut seen = 0;
    for byte in text {
        let digit = DIGITS[usize::from(*byte)];
        seen |= digit;
        value = value << 4 | u64::from(digit);
    }
    (seen != NO_DIGIT).then_some(value)
}
