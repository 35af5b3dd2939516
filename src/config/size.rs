//! Sizes in bytes, written `"64KiB"`.
//!
//! Binary units only: whether `"64KB"` means 64,000 or 65,536 is a guess that a limit must not rest on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A size in bytes; written `"64KiB"`, `"1MiB"`, or a plain number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// The text is not a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadByteSize {
    /// Does not begin with a decimal number.
    Number,
    /// The unit is none of B, KiB, MiB, GiB, TiB.
    Unit,
    /// More than 2^63 - 1 bytes (what TOML can hold).
    TooBig,
}

impl fmt::Display for BadByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "must be a whole number of bytes, or one with a unit such as \"64KiB\"",
            Self::Unit => "the unit must be B, KiB, MiB, GiB or TiB",
            Self::TooBig => "must be less than 2^63 bytes",
        })
    }
}

impl std::error::Error for BadByteSize {}

/// From the largest down, so that printing takes the first that divides.
const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    /// As a length in memory.
    pub fn bytes(self) -> usize {
        self.0 as usize
    }
}

impl FromStr for ByteSize {
    type Err = BadByteSize;

    fn from_str(text: &str) -> Result<Self, BadByteSize> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(BadByteSize::Number);
        }
        let unit = unit.strip_prefix(' ').unwrap_or(unit);
        let factor = match UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
            Some((_, factor)) => *factor,
            None if text.len() == digits => 1,
            None => return Err(BadByteSize::Unit),
        };
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        match bytes {
            Some(bytes) if i64::try_from(bytes).is_ok() => Ok(Self(bytes)),
            _ => Err(BadByteSize::TooBig),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        let (name, factor) = exact.unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

struct Written;

impl serde::de::Visitor<'_> for Written {
    type Value = ByteSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"64KiB\", \"1MiB\" or a plain number of bytes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
        text.parse().map_err(|error| {
            let text = text.escape_debug();
            E::custom(format_args!("\"{text}\" is not a size: {error}"))
        })
    }

    fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
        Ok(ByteSize(bytes))
    }

    fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
        u64::try_from(bytes).map(ByteSize).map_err(|_| E::custom(format_args!("{bytes} bytes is below 0")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_5_a_size_is_a_number_with_a_binary_unit_or_plain_bytes() {
        let sizes = [
            ("0", 0),
            ("1", 1),
            ("64KiB", 65_536),
            ("64 kib", 65_536),
            ("1MiB", 1 << 20),
            ("3GiB", 3 << 30),
            ("7B", 7),
        ];
        for (text, bytes) in sizes {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn a_size_without_number_with_a_decimal_unit_or_over_2_63_is_refused() {
        for text in ["", "KiB", "-1", " 1", "+1"] {
            assert_eq!(text.parse::<ByteSize>(), Err(BadByteSize::Number), "{text}");
        }
        for text in ["64KB", "64k", "1.5MiB", "1MiB ", "1  KiB", "1 "] {
            assert_eq!(text.parse::<ByteSize>(), Err(BadByteSize::Unit), "{text}");
        }
        for text in ["9223372036854775808", "8388608TiB", "99999999999999999999999"] {
            assert_eq!(text.parse::<ByteSize>(), Err(BadByteSize::TooBig), "{text}");
        }
        assert_eq!("9223372036854775807".parse(), Ok(ByteSize(i64::MAX as u64)));
    }

    #[test]
    fn a_size_is_printed_in_the_largest_unit_that_divides_it_and_reads_back() {
        for (bytes, text) in
            [(0, "0B"), (1, "1B"), (1024, "1KiB"), (1536, "1536B"), (65_536, "64KiB"), (1 << 26, "64MiB")]
        {
            assert_eq!(ByteSize(bytes).to_string(), text);
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
        }
    }
}
