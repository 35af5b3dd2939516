//! Numbers of the screen: sizes, latencies, and text that comes from clients.

use std::time::Duration;

use serde_json::Value;

use crate::cli::table::grouped;
use crate::control::command::Stats;
use crate::control::stats_json;

/// `1,234` up to five digits, then three of them: `123k`, `12.3M`, `1.23G`. At most six columns.
pub(super) fn scaled(number: u64) -> String {
    if number < 100_000 {
        return grouped(number);
    }
    let (value, unit) = with_unit(number, &["", "k", "M", "G", "T", "P", "E"]);
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$}{unit}")
}

/// A rate, with one digit behind the point below 10: `0`, `<0.1`, `2.5`, `123k`.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0".to_owned(),
        ..0.05 => "<0.1".to_owned(),
        ..9.95 => format!("{per_second:.1}"),
        _ => scaled(per_second.round() as u64),
    }
}

/// `999 B`, `1.2 kB`, `12 MB`.
pub(super) fn bytes(number: u64) -> String {
    let (value, unit) = with_unit(number, &[" B", " kB", " MB", " GB", " TB", " PB", " EB"]);
    let digits = usize::from(number > 999 && value < 9.95);
    format!("{value:.digits$}{unit}")
}

fn with_unit(number: u64, units: &[&'static str]) -> (f64, &'static str) {
    let (mut value, mut unit) = (number as f64, 0);
    while value >= 999.5 && unit + 1 < units.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    (value, units[unit])
}

/// `850 us`, `12 ms`, `3.2 s`.
pub(super) fn time(us: u64) -> String {
    match us {
        0..1000 => format!("{us} us"),
        1000..10_000 => format!("{:.1} ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{} ms", us / 1000),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

/// An age of one column's width: `850ms`, `12s`, `3m`, `5h`, `2d`.
pub(super) fn short_age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0 => format!("{}ms", age.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Text of a client, as it may be shown in a terminal: nothing in it commands the terminal, or turns the rest of
/// the line round.
pub(super) fn printable(text: &str) -> String {
    let is_command = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|c| if is_command(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

/// How long a push took to the socket: for each share of the messages between two readings, the upper bound of
/// its bucket in microseconds, `u64::MAX` for the last bucket. `None` without a message, or without the figures.
///
/// Source: `latency_buckets` of the totals, cumulative `[[le_us, count], …]`.
pub(super) fn latencies<const N: usize>(before: &Stats, after: &Stats, shares: [f64; N]) -> Option<[u64; N]> {
    let (before, after) = (buckets(before)?, buckets(after)?);
    if before.len() != after.len() {
        return None;
    }
    let grown = after.iter().zip(&before).map(|(after, before)| (after.0, after.1.saturating_sub(before.1)));
    let grown: Vec<(u64, u64)> = grown.collect();
    let total = grown.last()?.1;
    let within = |share: f64| {
        let wanted = (total as f64 * share).ceil() as u64;
        grown.iter().find(|(_, count)| *count >= wanted).map_or(u64::MAX, |(bound, _)| *bound)
    };
    (total > 0).then(|| shares.map(within))
}

fn buckets(stats: &Stats) -> Option<Vec<(u64, u64)>> {
    of_totals(&stats_json(stats)["totals"]["latency_buckets"])
}

fn of_totals(buckets: &Value) -> Option<Vec<(u64, u64)>> {
    let pair = |pair: &Value| Some((pair[0].as_u64().unwrap_or(u64::MAX), pair[1].as_u64()?));
    buckets.as_array()?.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_have_few_columns_and_their_unit() {
        for (number, text) in
            [(0, "0"), (99_999, "99,999"), (123_456, "123k"), (1_000_000, "1.00M"), (12_345_678, "12.3M")]
        {
            assert_eq!(scaled(number), text);
        }
        let sizes =
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_999, "1.0 MB"), (12_345_678, "12 MB")];
        for (number, text) in sizes {
            assert_eq!(bytes(number), text);
        }
        assert_eq!((scaled(u64::MAX).as_str(), bytes(u64::MAX).as_str()), ("18.4E", "18 EB"));
        for (number, text) in [(0.0, "0"), (0.001, "<0.1"), (0.2, "0.2"), (9.96, "10"), (123_456.7, "123k")] {
            assert_eq!(rate(number), text);
        }
        for (us, text) in [(850, "850 us"), (1500, "1.5 ms"), (12_345, "12 ms"), (3_200_000, "3.2 s")] {
            assert_eq!(time(us), text);
        }
    }

    #[test]
    fn issue_7_text_of_a_client_commands_no_terminal() {
        assert_eq!(
            printable("a\x1b[2J\u{9b}31m\u{202e}x\r\n"),
            "a\\u{1b}[2J\\u{9b}31m\\u{202e}x\\u{d}\\u{a}"
        );
        assert_eq!(printable("größe 東"), "größe 東");
    }

    #[test]
    fn issue_7_buckets_are_pairs_and_the_last_one_has_no_bound() {
        let pairs = of_totals(&json!([[100, 1], [200, 3], [null, 4]]));
        assert_eq!(pairs, Some(vec![(100, 1), (200, 3), (u64::MAX, 4)]));
        assert_eq!(of_totals(&Value::Null), None);
        assert_eq!(of_totals(&json!([[100, "x"]])), None);
    }
}
