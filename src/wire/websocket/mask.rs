//! Masking, RFC 6455 5.3: XOR with a four-octet key that repeats. Its own inverse.
//!
//! Eight octets at a step, which the compiler widens further to the machine's vectors. Nothing is kept:
//! the caller says where in the frame the octets stand.

/// Unmasks (or masks) `payload` in place. `offset` is how many octets of the frame's payload came
/// before it, in earlier reads.
pub(super) fn unmask(payload: &mut [u8], mut key: [u8; 4], offset: usize) {
    key.rotate_left(offset % 4);
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (octet, key) in tail.iter_mut().zip(wide.to_ne_bytes()) {
        *octet ^= key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::unmask;

    proptest! {
        #[test]
        fn rfc6455_5_3_wide_masking_is_masking_octet_by_octet_in_any_phase(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            key in any::<[u8; 4]>(),
            offset in 0..64usize,
        ) {
            let by_octet: Vec<u8> =
                payload.iter().enumerate().map(|(i, octet)| octet ^ key[(offset + i) % 4]).collect();
            let mut wide = payload;
            unmask(&mut wide, key, offset);
            prop_assert_eq!(wide, by_octet);
        }
    }
}
