//! Whatever a client sends after the handshake: no panic, and the same events and the same error
//! however the octets were split over reads.
//!
//! The first octets of the input choose small limits and the sizes of the reads; the rest is the client.

use corecast::wire::close::ProtocolError;
use corecast::wire::websocket::{Decoder, Event, Limits};

/// An event without its borrow, or the end.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    Event(Event<'static>),
    Failed(ProtocolError),
}

fn owned(event: Event<'_>) -> Event<'static> {
    match event {
        Event::Text(payload) => Event::Text(payload.into_owned().into()),
        Event::Binary(payload) => Event::Binary(payload.into_owned().into()),
        Event::Ping(payload) => Event::Ping(payload.into_owned().into()),
        Event::Pong => Event::Pong,
        Event::Close { code, reason } => Event::Close { code, reason: reason.into_owned().into() },
    }
}

/// Reads `octets` in pieces of `read_bytes`, over and over. Drops the decoder where it is idle, as the
/// shard does.
pub fn outcomes_of(octets: &[u8], read_bytes: &[u8], limits: &Limits) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut decoder = Decoder::new();
    let mut left = octets;
    let mut sizes = read_bytes.iter().cycle();
    while !left.is_empty() {
        let size = sizes.next().map_or(left.len(), |size| usize::from(*size) + 1);
        let (read, after) = left.split_at(size.min(left.len()));
        left = after;
        let mut read = read.to_vec();
        let mut rest = &mut read[..];
        while !rest.is_empty() {
            let rest_bytes = rest.len();
            match decoder.handle_bytes(rest, limits) {
                Err(error) => {
                    outcomes.push(Outcome::Failed(error));
                    return outcomes;
                }
                Ok((taken, event)) => {
                    assert!((1..=rest_bytes).contains(&taken));
                    if let Some(event) = event {
                        let _ = event.reply();
                        outcomes.push(Outcome::Event(owned(event)));
                    }
                    rest = &mut rest[taken..];
                }
            }
            assert!(decoder.kept_bytes() <= (limits.message_bytes_max + 125).min(2 * octets.len()));
            if decoder.is_idle() {
                assert!(decoder.kept_bytes() == 0 && !decoder.in_message());
                decoder = Decoder::new();
            }
        }
    }
    outcomes
}

/// See the top of this file.
pub fn check(input: &[u8]) {
    let Some(([bytes, fragments, reads, more_reads], octets)) = input.split_first_chunk() else { return };
    let limits =
        Limits { message_bytes_max: usize::from(*bytes) * 4, fragments_max: u32::from(*fragments % 8) };
    let whole = outcomes_of(octets, &[], &limits);
    assert_eq!(outcomes_of(octets, &[*reads, *more_reads], &limits), whole);
    assert_eq!(outcomes_of(octets, &[0], &limits), whole);
}
