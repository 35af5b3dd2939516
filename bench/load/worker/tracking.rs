//! What one subscriber has heard of one publisher: losses, duplicates and order, from sequence numbers.
//!
//! A subscriber that got everything in order is one number. What is missing is a list of ranges, because
//! what is late may still come: only when the run ends is it lost. Eight bytes a hole, without a limit: a
//! publisher's run is finite.

/// How a message stands to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The next one, or a later one.
    New,
    /// After a later one.
    Reordered,
    /// Again.
    Duplicate,
}

/// What was heard of one publisher.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// Newest seq, 0 before the first.
    pub newest: u32,
    /// First and last of what is missing below it, ascending.
    pub missing: Vec<(u32, u32)>,
}

/// Takes seq `seq`; `newest` and `missing` are as in `Track`.
pub fn hear(newest: &mut u32, missing: &mut Vec<(u32, u32)>, seq: u32) -> Heard {
    if seq > *newest {
        if seq > *newest + 1 {
            missing.push((*newest + 1, seq - 1));
        }
        *newest = seq;
        return Heard::New;
    }
    let at = missing.partition_point(|(_, last)| *last < seq);
    let Some(&(first, last)) = missing.get(at).filter(|(first, _)| *first <= seq) else {
        return Heard::Duplicate;
    };
    missing.remove(at);
    if seq < last {
        missing.insert(at, (seq + 1, last));
    }
    if first < seq {
        missing.insert(at, (first, seq - 1));
    }
    Heard::Reordered
}

/// Messages of 1 to `last` that never came; what came beyond `last` is not counted.
pub fn lost(newest: u32, missing: &[(u32, u32)], last: u32) -> u64 {
    let within =
        |&(first, end): &(u32, u32)| u64::from(end.min(last).saturating_add(1).saturating_sub(first));
    u64::from(last.saturating_sub(newest)) + missing.iter().map(within).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heard(track: &mut Track, seqs: &[u32]) -> Vec<Heard> {
        seqs.iter().map(|&seq| hear(&mut track.newest, &mut track.missing, seq)).collect()
    }

    #[test]
    fn what_comes_in_order_is_one_number() {
        let mut track = Track::default();
        assert_eq!(heard(&mut track, &[1, 2, 3]), [Heard::New; 3]);
        assert_eq!(track, Track { newest: 3, missing: vec![] });
        assert_eq!(lost(track.newest, &track.missing, 5), 2);
    }

    #[test]
    fn what_is_late_is_reordered_once_and_then_a_duplicate() {
        let mut track = Track::default();
        use Heard::{Duplicate, New, Reordered};
        assert_eq!(heard(&mut track, &[5, 3, 3, 1, 5]), [New, Reordered, Duplicate, Reordered, Duplicate]);
        assert_eq!(track.missing, [(2, 2), (4, 4)]);
        assert_eq!(lost(track.newest, &track.missing, 5), 2);
    }

    proptest! {
        #[test]
        fn every_seq_counts_once(seqs in proptest::collection::vec(1_u32..60, 0..120)) {
            let mut track = Track::default();
            let mut seen = std::collections::BTreeSet::new();
            for seq in seqs {
                let newest = seen.last().copied().unwrap_or(0);
                let expected = match seq {
                    seq if !seen.insert(seq) => Heard::Duplicate,
                    seq if seq < newest => Heard::Reordered,
                    _ => Heard::New,
                };
                prop_assert_eq!(hear(&mut track.newest, &mut track.missing, seq), expected);
            }
            prop_assert_eq!(lost(track.newest, &track.missing, 60), 60 - seen.len() as u64);
        }
    }
}
