//! The lines above the shards. Where the screen is too narrow, numbers are shortened first, and then what matters
//! least is left out: the parts of a line stand in the order of what they matter.

use std::time::Duration;

use super::asking::Reading;
use super::figures::{bytes, latencies, scaled, time};
use crate::cli::span::Span;
use crate::cli::table::{age, counted, grouped};
use crate::control::command::Stats;
use crate::stats::{CloseReason, RefusalReason, ShardStats};

/// How many lines there are.
pub(super) const HEAD_ROWS: u16 = 6;

/// All of them, for a screen of so many columns.
pub(super) fn lines(
    reading: &Reading,
    span: Option<Span<'_>>,
    columns: usize,
) -> [String; HEAD_ROWS as usize] {
    let stats = &reading.stats;
    [
        title(stats, columns),
        counts(stats, columns),
        span.map_or("rates: with the next reading".to_owned(), |span| rates(span, columns)),
        pressure(stats, columns),
        latency(reading, columns),
        span.map_or(String::new(), |span| ends(span, columns)),
    ]
}

/// As many of `parts` as fit, from the first one on.
fn joined(parts: &[String], columns: usize) -> String {
    let fits = |count: &usize| parts[..*count].join(", ").chars().count() <= columns;
    let count = (1..=parts.len()).rev().find(fits).unwrap_or(1);
    parts[..count].join(", ")
}

fn sum(stats: &Stats, count: fn(&ShardStats) -> u64) -> u64 {
    stats.shards.iter().map(count).sum()
}

fn title(stats: &Stats, columns: usize) -> String {
    let state = if stats.draining { "draining" } else { "serving" };
    let up = age(Duration::from_secs(stats.uptime_s));
    let parts = [
        format!("corecast {}", stats.version),
        state.to_owned(),
        format!("up {up}"),
        format!("position {}", stats.position),
    ];
    joined(&parts, columns)
}

fn counts(stats: &Stats, columns: usize) -> String {
    let of = |count: fn(&ShardStats) -> u64| sum(stats, count);
    let transports = [
        (of(|shard| shard.websockets), "websocket", "ws"),
        (of(|shard| shard.event_streams), "event stream", "sse"),
        (of(|shard| shard.polls), "poll", "poll"),
    ];
    let (clients, users, topics) =
        (of(|shard| shard.connections), of(|shard| shard.users), of(|shard| shard.topics));
    let nouned = |number: u64, noun: &str| {
        let plural = if number == 1 { "" } else { "s" };
        format!("{} {noun}{plural}", scaled(number))
    };
    let line = |number: &dyn Fn(u64, &str) -> String, transports: &[String]| {
        let clients = format!("{}: {}", number(clients, "client"), transports.join(", "));
        [format!("{clients}; {}", number(users, "user")), number(topics, "topic")]
    };
    let long = line(&counted, &transports.map(|(count, noun, _)| counted(count, noun)));
    let shorter = line(&nouned, &transports.map(|(count, noun, _)| nouned(count, noun)));
    let short = line(&nouned, &transports.map(|(count, _, name)| format!("{} {name}", scaled(count))));
    let fits = |parts: &[String; 2]| parts.join(", ").len() <= columns;
    joined([&long, &shorter].into_iter().find(|parts| fits(parts)).unwrap_or(&short), columns)
}

/// The shards have columns of the last two.
fn rates(span: Span<'_>, columns: usize) -> String {
    let parts = [
        format!("accepted {}/s", scaled(span.total(|shard| shard.accepted))),
        format!("closed {}/s", scaled(span.total(ShardStats::closed_total))),
        format!("pushes {}/s", scaled(span.rate(|stats| stats.accepted))),
        format!("messages {}/s", scaled(span.total(|shard| shard.delivered))),
        format!("sent {}/s", bytes(span.total(|shard| shard.sent_bytes))),
    ];
    joined(&parts, columns)
}

fn pressure(stats: &Stats, columns: usize) -> String {
    let (pending, blocked) = (sum(stats, |shard| shard.pending), sum(stats, |shard| shard.blocked));
    let memory = match (stats.memory_used_bytes, stats.memory_limit_bytes) {
        (_, 0) => None,
        (used, limit) => Some(format!("memory {} of {}", bytes(used), bytes(limit))),
    };
    let parts = |number: fn(u64) -> String| {
        let mut parts = vec![format!("pending {}", scaled(pending)), format!("blocked {}", number(blocked))];
        parts.extend(memory.clone());
        parts.push(format!("{} pushes refused", number(stats.refused)));
        parts.push(format!("{} busy", number(stats.busy)));
        parts
    };
    let long = parts(grouped);
    if long.join(", ").len() <= columns { long.join(", ") } else { joined(&parts(scaled), columns) }
}

fn latency(reading: &Reading, columns: usize) -> String {
    let shares = [0.5, 0.99, 0.999];
    let found = reading.before.as_deref().and_then(|before| latencies(before, &reading.stats, shares));
    let Some(bounds) = found else { return "latency: no data".to_owned() };
    let at_most = |us| match us {
        u64::MAX => "over the last bucket".to_owned(),
        us => format!("<= {}", time(us)),
    };
    let [half, most, nearly_all] = bounds.map(at_most);
    joined(&[format!("latency: p50 {half}"), format!("p99 {most}"), format!("p99.9 {nearly_all}")], columns)
}

/// Why clients were refused and connections ended since the last reading, the most first.
fn ends(span: Span<'_>, columns: usize) -> String {
    let refused = RefusalReason::ALL.iter();
    let refused = refused.map(|&reason| (reason.name(), span.total(|shard| shard.refused_for(reason))));
    let closed = CloseReason::ALL.iter();
    let closed = closed.map(|&reason| (reason.name(), span.total(|shard| shard.closed[reason as usize])));
    let (mut refused, mut closed) = (largest_first(refused), largest_first(closed));
    loop {
        let texts = [&refused, &closed].map(|list| list.join(", "));
        let line = format!("refused/s: {}; closed/s: {}", texts[0], texts[1]);
        let longer = if texts[0].len() >= texts[1].len() { &mut refused } else { &mut closed };
        if line.len() <= columns || longer.len() < 2 {
            return line;
        }
        let more = longer.last().is_some_and(|last| last == MORE);
        longer.truncate(longer.len() - 1 - usize::from(more));
        longer.push(MORE.to_owned());
    }
}

/// For the reasons that there was no room for.
const MORE: &str = "...";

fn largest_first<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> Vec<String> {
    let mut counts: Vec<_> = counts.filter(|(_, count)| *count > 0).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    if counts.is_empty() {
        return vec!["none".to_owned()];
    }
    counts.iter().map(|(name, count)| format!("{name} {}", scaled(*count))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::consumers::Consumers;
    use super::*;
    use crate::cli::span::tests::reading as stats;

    /// Two shards with half of it each, a second after they had nothing.
    fn of(shard: &ShardStats, change: impl FnOnce(&mut Stats)) -> Reading {
        let before = stats(10_000, &ShardStats::default());
        let mut after = stats(11_000, shard);
        change(&mut after);
        let consumers = Consumers::Listed(Vec::new());
        Reading { stats: Box::new(after), before: Some(Box::new(before)), consumers, topics: None }
    }

    fn drawn(reading: &Reading, columns: usize) -> [String; HEAD_ROWS as usize] {
        let span = reading.before.as_deref().and_then(|before| Span::new(before, &reading.stats));
        lines(reading, span, columns)
    }

    #[test]
    fn issue_7_a_million_connections_of_100_000_users_fit_into_80_columns() {
        let shard = ShardStats {
            connections: 500_000,
            websockets: 450_000,
            event_streams: 40_000,
            polls: 10_000,
            users: 50_000,
            topics: 1,
            ..ShardStats::default()
        };
        let lines = drawn(&of(&shard, |_| {}), 80);
        assert_eq!(lines[1], "1.00M clients: 900k ws, 80,000 sse, 20,000 poll; 100k users, 2 topics");
        let lines = drawn(&of(&shard, |_| {}), 120);
        assert!(
            lines[1].starts_with("1,000,000 clients: 900,000 websockets, 80,000 event streams"),
            "{lines:?}"
        );
    }

    #[test]
    fn issue_7_no_line_above_the_shards_is_longer_than_the_screen() {
        let mut shard = ShardStats {
            connections: 49_999,
            websockets: 49_999,
            event_streams: 49_999,
            polls: 49_999,
            users: 49_999,
            topics: 49_999,
            accepted: 49_999,
            delivered: 49_999,
            sent_bytes: 499_000_000,
            blocked: 49_999,
            pending: 49_999,
            ..ShardStats::default()
        };
        RefusalReason::ALL.iter().for_each(|&reason| (0..20_000).for_each(|_| shard.count_refusal(reason)));
        shard.closed.fill(20_000);
        let reading = of(&shard, |stats| {
            (stats.refused, stats.busy, stats.accepted) = (99_999, 99_999, 99_999);
            (stats.memory_used_bytes, stats.memory_limit_bytes) = (u64::MAX, u64::MAX);
            stats.position.seq = u64::MAX;
            stats.uptime_s = 400 * 86_400;
        });
        for columns in [80, 100, 132] {
            for line in drawn(&reading, columns) {
                assert!(line.chars().count() <= columns, "{columns}: {line}");
            }
        }
        let lines = drawn(&reading, 80);
        assert_eq!(
            lines[1],
            "99,998 clients: 99,998 ws, 99,998 sse, 99,998 poll; 99,998 users, 99,998 topics"
        );
        let ends = &lines[5];
        assert!(ends.contains(", ...; closed/s: ") && ends.ends_with(", ..."), "{ends}");
    }

    #[test]
    fn issue_7_what_matters_least_is_left_out_first() {
        let parts = ["one", "two", "three"].map(str::to_owned);
        for (columns, text) in
            [(15, "one, two, three"), (14, "one, two"), (8, "one, two"), (7, "one"), (1, "one")]
        {
            assert_eq!(joined(&parts, columns), text);
        }
    }
}
