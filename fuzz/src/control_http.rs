//! Whatever comes over the control socket as HTTP: no panic, the same requests wherever it is cut, and
//! every body parsed as a push that is then checked.

use corecast::control::http::{Event, Limits, Reader, Request};
use corecast::control::push;
use corecast::wire::request::HeadLimits;

const LIMITS: Limits = Limits {
    head: HeadLimits { head_bytes_max: 512, header_lines_max: 8, target_bytes_max: 128 },
    body_bytes_max: 256,
};

/// The requests in `octets`, read in pieces of `read_bytes`, and the status of a refusal.
fn requests_of(octets: &[u8], read_bytes: usize) -> (Vec<Request>, Option<u16>) {
    let (mut reader, mut input, mut requests) = (Reader::default(), Vec::new(), Vec::new());
    for piece in octets.chunks(read_bytes) {
        input.extend_from_slice(piece);
        loop {
            match reader.handle_bytes(&input, &LIMITS) {
                Err(refusal) => return (requests, Some(refusal.status)),
                Ok((taken, event)) => {
                    input.drain(..taken);
                    let nothing = event.is_none() && (taken == 0 || input.is_empty());
                    if let Some(Event::Request(request)) = event {
                        requests.push(request);
                    }
                    if nothing {
                        break;
                    }
                }
            }
        }
    }
    (requests, None)
}

/// The first octet chooses the size of the reads.
pub fn check(input: &[u8]) {
    let Some((read_bytes, octets)) = input.split_first() else { return };
    let whole = requests_of(octets, octets.len().max(1));
    assert_eq!(requests_of(octets, usize::from(*read_bytes) + 1), whole);
    assert_eq!(requests_of(octets, 1), whole);
    for body in whole.0.iter().map(|request| &request.body[..]).chain([octets]) {
        assert!(body.len() <= LIMITS.body_bytes_max || body == octets);
        let mut at = 0;
        while let Some((line, next)) = push::next_line(body, at) {
            assert!(next > at);
            at = next;
            let _ = push::parse(line).and_then(|push| push::check(&push, 64));
        }
    }
}
