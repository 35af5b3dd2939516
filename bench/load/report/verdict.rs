//! What a run comes to: one share of failures, one exit status, one sentence.
//!
//! Connections, messages, requests and publishes are each judged by their own number, and the worst share
//! counts. One sum over all of them would let ten million good messages hide a thousand lost connections.

use super::text::{counted, grouped, percent};
use super::{Publisher, Verdict};
use crate::record::Counts;

/// Things of one kind, and how many of them went wrong.
struct Kind {
    noun: &'static str,
    wrong: u64,
    of: u64,
    details: String,
}

impl Kind {
    /// 0 to 1. Something wrong without anything tried counts as all wrong.
    fn share(&self) -> f64 {
        match (self.wrong, self.of) {
            (0, _) => 0.0,
            (wrong, of) => wrong.min(of.max(1)) as f64 / of.max(1) as f64,
        }
    }
}

/// Everything that went wrong, of whatever kind.
pub fn failures(counts: &Counts) -> u64 {
    counts.failed + counts.dropped + counts.unsuccessful + counts.lost + counts.duplicated + counts.reordered
}

/// Judges a run. `tolerated` is `--tolerate`, 0 to 1; `unreachable` is that no connection was ever made and
/// none can be expected.
///
/// | kind | wrong | of |
/// |---|---|---|
/// | connections | failed, dropped | attempted: each attempt fails, or opens and may be dropped once |
/// | messages | lost, duplicated, reordered | arrived and lost |
/// | requests | unsuccessful | succeeded and unsuccessful: what is under way at the end is neither |
/// | publishes | refused for good | accepted and refused |
///
/// `failure_share` is the largest of the four shares. Exit status 3 when unreachable, else 1 when it is
/// above `tolerated`, else 0.
pub fn judge(totals: &Counts, publisher: Option<&Publisher>, tolerated: f64, unreachable: bool) -> Verdict {
    let kinds = kinds(totals, publisher);
    let failure_share = kinds.iter().map(Kind::share).fold(0.0, f64::max);
    let (exit_status, text) = if unreachable {
        (3, "the target could not be reached: no connection was ever open".to_owned())
    } else if failure_share > tolerated {
        (1, format!("{}; {} tolerated", complaint(&kinds), tolerated_text(tolerated)))
    } else if failure_share > 0.0 {
        (0, format!("well enough: {}; {} tolerated", complaint(&kinds), percent(tolerated)))
    } else {
        (0, praise(totals, publisher))
    };
    Verdict { exit_status, failure_share, tolerated_share: tolerated, text }
}

fn tolerated_text(tolerated: f64) -> String {
    if tolerated == 0.0 { "none is".to_owned() } else { format!("{} is", percent(tolerated)) }
}

fn kinds(totals: &Counts, publisher: Option<&Publisher>) -> Vec<Kind> {
    let mut kinds = vec![
        kind("connection", totals.attempted, &[("failed", totals.failed), ("dropped", totals.dropped)]),
        kind(
            "message",
            totals.messages + totals.lost,
            &[
                ("lost", totals.lost),
                ("came again", totals.duplicated),
                ("came out of order", totals.reordered),
            ],
        ),
        kind(
            "request",
            totals.succeeded + totals.unsuccessful,
            &[("without a right response", totals.unsuccessful)],
        ),
    ];
    if let Some(publisher) = publisher {
        let offered = publisher.accepted + publisher.refused;
        kinds.push(kind("publish", offered, &[("refused", publisher.refused)]));
    }
    kinds
}

fn kind(noun: &'static str, of: u64, wrongs: &[(&str, u64)]) -> Kind {
    let named = wrongs.iter().filter(|(_, count)| *count > 0);
    let details: Vec<String> = named.map(|(name, count)| format!("{} {name}", grouped(*count))).collect();
    let wrong = wrongs.iter().map(|(_, count)| count).sum();
    Kind { noun, wrong, of, details: details.join(", ") }
}

/// `of 10,000 connections 3 failed (0.03 %)`
fn complaint(kinds: &[Kind]) -> String {
    let wrong = kinds.iter().filter(|kind| kind.wrong > 0);
    let texts: Vec<String> = wrong
        .map(|kind| format!("of {} {} ({})", plural(kind), kind.details, percent(kind.share())))
        .collect();
    texts.join("; ")
}

fn plural(kind: &Kind) -> String {
    if kind.noun == "publish" && kind.of != 1 {
        return format!("{} publishes", grouped(kind.of));
    }
    counted(kind.of, kind.noun)
}

fn praise(totals: &Counts, publisher: Option<&Publisher>) -> String {
    let done: Vec<String> = kinds(totals, publisher).iter().filter(|kind| kind.of > 0).map(plural).collect();
    match done.is_empty() {
        true => "nothing was attempted".to_owned(),
        false => format!("all well: {}, nothing failed", done.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> Counts {
        Counts { attempted: 1000, opened: 1000, messages: 1_000_000, ..Counts::default() }
    }

    #[test]
    fn a_run_without_failures_is_well_and_says_of_what() {
        let verdict = judge(&counts(), None, 0.0, false);
        assert_eq!(verdict.exit_status, 0);
        assert_eq!(verdict.failure_share, 0.0);
        assert_eq!(verdict.text, "all well: 1,000 connections, 1,000,000 messages, nothing failed");
    }

    #[test]
    fn every_kind_of_failure_alone_fails_the_run() {
        let cases: [fn(&mut Counts); 6] = [
            |counts| counts.failed = 1,
            |counts| counts.dropped = 1,
            |counts| counts.lost = 1,
            |counts| counts.duplicated = 1,
            |counts| counts.reordered = 1,
            |counts| counts.unsuccessful = 1,
        ];
        for (number, spoil) in cases.into_iter().enumerate() {
            let mut counts = counts();
            spoil(&mut counts);
            assert_eq!(judge(&counts, None, 0.0, false).exit_status, 1, "case {number}");
        }
        let publisher = Publisher { accepted: 99, refused: 1, ..Publisher::default() };
        assert_eq!(judge(&counts(), Some(&publisher), 0.0, false).exit_status, 1);
    }

    #[test]
    fn many_good_messages_do_not_hide_lost_connections() {
        let verdict = judge(&Counts { dropped: 500, ..counts() }, None, 0.01, false);
        assert_eq!(verdict.failure_share, 0.5);
        assert_eq!(verdict.exit_status, 1);
        assert_eq!(verdict.text, "of 1,000 connections 500 dropped (50.0 %); 1.00 % is tolerated");
    }

    #[test]
    fn a_share_at_the_limit_is_tolerated_and_one_above_is_not() {
        let with = |lost| {
            let counts = Counts { messages: 1000 - lost, lost, ..Counts::default() };
            judge(&counts, None, 0.001, false)
        };
        assert_eq!(with(1).failure_share, 0.001);
        assert_eq!(with(1).exit_status, 0);
        assert_eq!(with(1).text, "well enough: of 1,000 messages 1 lost (0.10 %); 0.10 % tolerated");
        assert_eq!(with(2).exit_status, 1);
    }

    #[test]
    fn lost_messages_are_counted_among_those_that_should_have_come() {
        let verdict = judge(&Counts { lost: 100, ..Counts::default() }, None, 0.0, false);
        assert_eq!(verdict.failure_share, 1.0);
        assert_eq!(verdict.text, "of 100 messages 100 lost (100 %); none is tolerated");
    }

    #[test]
    fn requests_under_way_at_the_end_are_no_failures() {
        let counts = Counts { sent: 110, succeeded: 90, unsuccessful: 10, ..Counts::default() };
        assert_eq!(judge(&counts, None, 0.0, false).failure_share, 0.1);
    }

    #[test]
    fn a_share_is_never_above_one() {
        let counts = Counts { messages: 1, duplicated: 1, reordered: 1, dropped: 1, ..Counts::default() };
        assert_eq!(judge(&counts, None, 1.0, false).failure_share, 1.0);
    }

    #[test]
    fn an_unreachable_target_is_status_3_whatever_is_tolerated() {
        let counts = Counts { attempted: 10, failed: 10, ..Counts::default() };
        let verdict = judge(&counts, None, 1.0, true);
        assert_eq!(verdict.exit_status, 3);
        assert_eq!(verdict.failure_share, 1.0);
    }
}
