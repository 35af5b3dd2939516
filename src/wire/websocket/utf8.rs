//! UTF-8 as octets arrive, RFC 6455 8.1.
//!
//! Nothing is carried over: a character that a read cut in two stands at the end of the message's own
//! buffer, so the caller remembers only its length and shows it again with what follows. The standard
//! library's validator does the work (words at a time over ASCII) and tells a character that is cut off
//! from one that can never be completed.

use crate::wire::close::ProtocolError;

/// How many octets at the end of `text` begin a character that is not whole: 0 to 3.
///
/// Errors: `BadUtf8` as soon as no continuation could make `text` valid.
pub(super) fn unfinished_tail(text: &[u8]) -> Result<u8, ProtocolError> {
    match std::str::from_utf8(text) {
        Ok(_) => Ok(0),
        // At most 3: the fourth octet would have made it whole or wrong.
        Err(error) if error.error_len().is_none() => Ok((text.len() - error.valid_up_to()) as u8),
        Err(_) => Err(ProtocolError::BadUtf8),
    }
}

/// Checks `text` that is complete. Errors: `BadUtf8`.
pub(super) fn check_whole(text: &[u8]) -> Result<(), ProtocolError> {
    std::str::from_utf8(text).map(drop).map_err(|_| ProtocolError::BadUtf8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::unfinished_tail;

    /// Feeds `parts` one after the other as the decoder does.
    fn is_utf8_in_parts<'a>(parts: impl Iterator<Item = &'a [u8]>) -> bool {
        let (mut buffer, mut tail) = (Vec::new(), 0);
        for part in parts {
            let checked = buffer.len() - tail;
            buffer.extend_from_slice(part);
            match unfinished_tail(&buffer[checked..]) {
                Ok(unfinished) => tail = usize::from(unfinished),
                Err(_) => return false,
            }
        }
        tail == 0
    }

    /// Octets that are often UTF-8, often nearly so.
    fn almost_utf8() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            any::<char>().prop_map(|c| c.to_string().into_bytes()),
            proptest::collection::vec(any::<u8>(), 0..3),
            prop_oneof![Just(0xe0), Just(0xed), Just(0xf0), Just(0xf4), Just(0x80u8), Just(0x9f)]
                .prop_map(|octet| vec![octet]),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn rfc6455_8_1_text_in_parts_is_utf8_exactly_when_the_whole_is(text in almost_utf8()) {
            let whole = std::str::from_utf8(&text).is_ok();
            for size in 1..=text.len().max(1) {
                prop_assert_eq!(is_utf8_in_parts(text.chunks(size)), whole);
            }
            for cut in 0..=text.len() {
                let (left, right) = text.split_at(cut);
                prop_assert_eq!(is_utf8_in_parts([left, right].into_iter()), whole);
            }
        }

        #[test]
        fn rfc6455_8_1_the_first_octet_that_cannot_be_completed_is_refused(text in almost_utf8()) {
            // A prefix is refused exactly when no longer text with that prefix is valid. The longest
            // completion of a cut character is three octets, all in 0x80..=0xbf.
            for end in 0..=text.len() {
                let prefix = &text[..end];
                let completions = [vec![], vec![0x80], vec![0x80; 2], vec![0x80; 3], vec![0xbf], vec![0xbf; 2],
                    vec![0xbf; 3]];
                let completable = completions.iter()
                    .any(|rest| std::str::from_utf8(&[prefix, rest].concat()).is_ok());
                prop_assert_eq!(unfinished_tail(prefix).is_ok(), completable);
            }
        }
    }
}
