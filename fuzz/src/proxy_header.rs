//! Whatever a peer sends where a PROXY header is due: no panic, and the same outcome wherever it is cut.

use corecast::wire::proxy::{HEADER_BYTES_MAX, parse};

/// Reads `input` whole, and cut everywhere.
pub fn check(input: &[u8]) {
    let whole = parse(input);
    for cut in 0..input.len() {
        match parse(&input[..cut]) {
            Ok(None) => {}
            settled => assert_eq!(settled, whole),
        }
    }
    match whole {
        Ok(Some((_, length))) => {
            assert!(length <= input.len().min(HEADER_BYTES_MAX));
            assert_eq!(parse(&input[..length]), whole, "what is behind the header is not looked at");
            assert_eq!(parse(&input[..length - 1]), Ok(None));
        }
        Ok(None) => assert!(input.len() < HEADER_BYTES_MAX),
        Err(_) => {}
    }
}
