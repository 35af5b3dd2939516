//! The request head parser never panics, and a head cut anywhere is "not yet" until it is whole.

use corecast::wire::request::{HeadLimits, parse_head};

const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 512, header_lines_max: 8, target_bytes_max: 64 };

/// Parses `input` whole, and cut everywhere.
pub fn check(input: &[u8]) {
    let whole = parse_head(input, &LIMITS);
    for cut in 0..input.len() {
        let part = parse_head(&input[..cut], &LIMITS);
        match &whole {
            Ok(Some((_, length))) => {
                let part = part.expect("a part of a good head is not refused").map(|(_, length)| length);
                assert_eq!(part, (cut >= *length).then_some(*length));
            }
            Ok(None) => assert!(matches!(part, Ok(None))),
            Err(refusal) => assert!(matches!(part, Ok(None)) || part.is_err_and(|early| early == *refusal)),
        }
    }
    let Ok(Some((request, length))) = whole else { return };
    assert!(length <= LIMITS.head_bytes_max && request.headers.len() <= LIMITS.header_lines_max);
    let _ = (request.query_value("topics"), request.keep_alive(), request.expects_continue());
}
