//! The pure rooms of the tool, as their specifications tell them.

use std::fmt::Debug;

use proptest::prelude::*;
use proptest::sample::Index;

mod curl;
mod event_stream;
mod http;
mod long_poll;
mod stamp;
mod targets;
mod template;
mod values;
mod variables;
mod verify;
mod websocket;

/// What a decoder that is fed in pieces has come to: what it told, and the error it ended with.
type Told<T, E> = (Vec<T>, Option<E>);

/// Feeds `octets` to a decoder over a carry, read by read, cut at each of `cuts`.
///
/// `decode` takes the front of the carry: what it is and how long, `None` for "not yet".
fn fed<T, E>(
    octets: &[u8],
    cuts: &[usize],
    mut decode: impl FnMut(&[u8]) -> Result<Option<(T, usize)>, E>,
) -> Told<T, E> {
    let (mut told, mut carry, mut from) = (Vec::new(), Vec::new(), 0);
    for to in cuts.iter().copied().chain([octets.len()]) {
        carry.extend_from_slice(&octets[from..to]);
        from = to;
        loop {
            match decode(&carry) {
                Ok(Some((what, length))) => {
                    assert!(length > 0, "a decoder that takes nothing never ends");
                    carry.drain(..length);
                    told.push(what);
                }
                Ok(None) => break,
                Err(error) => return (told, Some(error)),
            }
        }
    }
    (told, None)
}

/// `fed` whole; checks that byte by byte, and cut in two anywhere, it comes to the same.
#[track_caller]
fn everywhere<T: Debug + PartialEq, E: Debug + PartialEq>(
    octets: &[u8],
    mut decode: impl FnMut(&[u8]) -> Result<Option<(T, usize)>, E>,
) -> Told<T, E> {
    let whole = fed(octets, &[], &mut decode);
    let by_octet: Vec<usize> = (1..octets.len()).collect();
    assert_eq!(fed(octets, &by_octet, &mut decode), whole, "byte by byte");
    for cut in by_octet {
        assert_eq!(fed(octets, &[cut], &mut decode), whole, "cut at {cut}");
    }
    whole
}

/// Places to cut at, in order.
fn places(octets: &[u8], cuts: &[Index]) -> Vec<usize> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(octets.len() + 1)).collect();
    places.sort_unstable();
    places
}

/// Where a test cuts its input.
fn cuts() -> impl Strategy<Value = Vec<Index>> {
    proptest::collection::vec(any::<Index>(), 0..12)
}
