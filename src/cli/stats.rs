//! `corecast stats`: the counters, in total and per shard.

use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::failure::Failure;
use super::span::Span;
use super::table::{age, aligned, counted, grouped};
use super::{Gateway, print_json, print_line};
use crate::control::command::{Answer, Command, Stats};
use crate::control::stats_json;
use crate::stats::{AcceptError, CloseReason, Histogram, RefusalReason, ShardStats};

/// `corecast stats`
#[derive(Debug, Args)]
pub(super) struct StatsFlags {
    /// Print JSON instead, with every counter
    #[arg(long)]
    json: bool,
    /// Show what happens a second, one line each interval, until interrupted; 100ms to 1h
    #[arg(long, value_name = "INTERVAL", value_parser = humantime::parse_duration)]
    every: Option<Duration>,
}

/// Shows the counters: once, or how they change.
pub(super) fn stats(flags: &StatsFlags, gateway: &Gateway, out: &mut dyn Write) -> Result<(), Failure> {
    if let Some(every) = flags.every {
        return follow(every, flags.json, gateway, out);
    }
    let Answer::Stats(stats) = gateway.ask(&Command::Stats)? else { return Err(Failure::Answer) };
    if flags.json {
        return print_json(out, &stats_json(&stats));
    }
    let at = gateway.path().display();
    writeln!(out, "{}gateway at {at}", stats_text(&stats)).map_err(Failure::Output)
}

/// Prints a line for each reading until the reader or the gateway goes.
fn follow(every: Duration, json: bool, gateway: &Gateway, out: &mut dyn Write) -> Result<(), Failure> {
    let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
    let mut client = gateway.connect()?;
    let sent = client.send(&Command::StatsEvery { every_ms }).and_then(|_| client.flush());
    sent.map_err(|error| gateway.failed(error))?;
    let (mut before, mut lines): (Option<Box<Stats>>, usize) = (None, 0);
    loop {
        let stats = match client.receive().map_err(|error| gateway.failed(error))? {
            (_, Ok(Answer::Stats(stats))) => stats,
            (_, Ok(_)) => return Err(Failure::Answer),
            (_, Err(refused)) => return Err(Failure::Refused(refused)),
        };
        if json {
            print_json(out, &stats_json(&stats))?;
        } else if let Some(span) = before.as_deref().and_then(|before| Span::new(before, &stats)) {
            if lines.is_multiple_of(LINES_PER_HEAD) {
                print_line(out, &FOLLOWED.map(|(head, width, _)| format!("{head:>width$}")).join(" "))?;
            }
            lines += 1;
            let cells =
                FOLLOWED.map(|(_, width, value)| format!("{:>width$}", grouped(value(&span, &stats))));
            print_line(out, &cells.join(" "))?;
        }
        before = Some(stats);
    }
}

/// How often the heads are printed again: a terminal shows about as many lines.
const LINES_PER_HEAD: usize = 20;

/// One column of `--every`: its head, width and value.
type Followed = (&'static str, usize, fn(&Span<'_>, &Stats) -> u64);

/// Together 80 columns wide.
const FOLLOWED: [Followed; 8] = [
    ("CLIENTS", 9, |_, stats| stats.shards.iter().map(|shard| shard.connections).sum()),
    ("ACCEPTED/s", 10, |span, _| span.total(|shard| shard.accepted)),
    ("CLOSED/s", 8, |span, _| span.total(ShardStats::closed_total)),
    ("PUSHES/s", 9, |span, _| span.rate(|stats| stats.accepted)),
    ("MESSAGES/s", 10, |span, _| span.total(|shard| shard.delivered)),
    ("BYTES/s", 13, |span, _| span.total(|shard| shard.sent_bytes)),
    ("PENDING", 7, |_, stats| stats.shards.iter().map(|shard| shard.pending).sum()),
    ("BLOCKED", 7, |_, stats| stats.shards.iter().map(|shard| shard.blocked).sum()),
];

/// One column of the table.
type Column = (&'static str, fn(&ShardStats) -> u64);

/// What an operator looks at first; the rest is in `--json` and `GET /metrics`.
const NOW: [Column; 7] = [
    ("CLIENTS", |shard| shard.connections),
    ("SOCKETS", |shard| shard.open),
    ("HANDSHAKES", |shard| shard.handshakes),
    ("USERS", |shard| shard.users),
    ("TOPICS", |shard| shard.topics),
    ("HELD", |shard| shard.tape_messages),
    ("HELD BYTES", |shard| shard.tape_bytes),
];

/// What holds it up: clients that do not read, or a shard that does not keep up.
const BEHIND: [Column; 4] = [
    ("BLOCKED", |shard| shard.blocked),
    ("LAGGING", |shard| shard.lagging),
    ("WAITING", |shard| shard.mailbox_letters),
    ("BUSY", |shard| shard.mailbox_refused),
];

const BY_TRANSPORT: [Column; 3] = [
    ("WEBSOCKETS", |shard| shard.websockets),
    ("EVENT STREAMS", |shard| shard.event_streams),
    ("POLLS", |shard| shard.polls),
];

const SINCE_START: [Column; 5] = [
    ("ACCEPTED", |shard| shard.accepted),
    ("CLOSED", ShardStats::closed_total),
    ("PUSHES", |shard| shard.pushes),
    ("SENT BYTES", |shard| shard.sent_bytes),
    ("UPLINKS", |shard| shard.uplinks),
];

/// Rule 10: the first two are the sum of the others.
const MESSAGES: [Column; 6] = [
    ("HANDED", |shard| shard.handed),
    ("REPLAYED", |shard| shard.replayed),
    ("DELIVERED", |shard| shard.delivered),
    ("EXPIRED", |shard| shard.expired),
    ("DROPPED", |shard| shard.dropped.total()),
    ("PENDING", |shard| shard.pending),
];

fn stats_text(stats: &Stats) -> String {
    let up = age(Duration::from_secs(stats.uptime_s));
    let state = if stats.draining { "draining" } else { "serving" };
    let mut text = format!("corecast {}, {state}, up {up}, position {}\n", stats.version, stats.position);
    text += &format!(
        "{} accepted, {} refused, of these {} busy; {}\n",
        counted_push(stats.accepted),
        grouped(stats.refused),
        grouped(stats.busy),
        counted(stats.control_clients, "control client"),
    );
    if stats.memory_limit_bytes > 0 {
        let (used, limit) = (stats.memory_used_bytes, stats.memory_limit_bytes);
        text += &format!("memory {} of {} bytes\n", grouped(used), grouped(limit));
    }
    let (open, most) = (stats.descriptors, stats.descriptors_max);
    text += &format!("descriptors {} of {}", grouped(open), grouped(most));
    let furthest = stats.shards.iter().map(|shard| shard.lag_bytes_max).max().unwrap_or(0);
    text += &format!("; the furthest behind lags {} bytes\n", grouped(furthest));
    let tables = [
        ("now", &NOW[..]),
        ("behind now; BUSY since start", &BEHIND),
        ("clients by transport", &BY_TRANSPORT[..]),
        ("since start", &SINCE_START[..]),
        ("messages, once for each connection: HANDED + REPLAYED = the others", &MESSAGES),
    ];
    for (title, columns) in tables {
        text += &format!("\n{title}\n{}", aligned(&rows(stats, columns)));
    }
    text += &format!("\nmicroseconds since start\n{}", aligned(&times(stats)));
    text += &by_reason(stats, ["CLOSED BECAUSE", "SOCKETS"], |s| CloseReason::named(&s.closed).collect());
    text += &by_reason(stats, ["REFUSED BECAUSE", "CLIENTS"], |s| RefusalReason::named(&s.refused).collect());
    let errors = |shard: &ShardStats| AcceptError::named(&shard.accept_errors).collect();
    text += &by_reason(stats, ["ACCEPT FAILED WITH", "TIMES"], errors);
    text += &by_reason(stats, ["DROPPED BECAUSE", "MESSAGES"], |shard| shard.dropped.by_reason().collect());
    text + "\n"
}

/// Sums over all shards, those that are not 0; nothing where all are.
fn by_reason(
    stats: &Stats,
    head: [&str; 2],
    counts: impl Fn(&ShardStats) -> Vec<(&'static str, u64)>,
) -> String {
    let mut sums = counts(&ShardStats::default());
    for shard in &stats.shards {
        sums.iter_mut().zip(counts(shard)).for_each(|(sum, count)| sum.1 += count.1);
    }
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let counted = sums.into_iter().filter(|(_, count)| *count > 0);
    rows.extend(counted.map(|(reason, count)| vec![reason.to_owned(), grouped(count)]));
    if rows.len() > 1 { format!("\n{}", aligned(&rows)) } else { String::new() }
}

/// From a push to the socket, and turns of the loop: a row per shard, and one of all together.
fn times(stats: &Stats) -> Vec<Vec<String>> {
    let head = ["SHARD", "PUSH P50", "P90", "P99", "LONGEST", "TURN P50", "P99", "LONGEST"];
    let row = |name: String, latency: &Histogram, turn: &Histogram| {
        let (push, turn) = (latency.percentiles(), turn.percentiles());
        let times = [push.p50, push.p90, push.p99, push.max, turn.p50, turn.p99, turn.max];
        std::iter::once(name).chain(times.map(grouped)).collect::<Vec<String>>()
    };
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut all = ShardStats::default();
    for shard in &stats.shards {
        rows.push(row(shard.shard.to_string(), &shard.latency, &shard.turn_time));
        all.latency.merge(&shard.latency);
        all.turn_time.merge(&shard.turn_time);
    }
    rows.push(row("all".to_owned(), &all.latency, &all.turn_time));
    rows
}

fn counted_push(pushes: u64) -> String {
    format!("{} push{}", grouped(pushes), if pushes == 1 { "" } else { "es" })
}

/// A row per shard, and one with their sums.
fn rows(stats: &Stats, columns: &[Column]) -> Vec<Vec<String>> {
    let row = |name: String, value: &dyn Fn(&Column) -> u64| {
        let values = columns.iter().map(|column| grouped(value(column)));
        std::iter::once(name).chain(values).collect::<Vec<String>>()
    };
    let mut rows = vec![
        std::iter::once("SHARD").chain(columns.iter().map(|column| column.0)).map(str::to_owned).collect(),
    ];
    rows.extend(stats.shards.iter().map(|shard| row(shard.shard.to_string(), &|column| column.1(shard))));
    rows.push(row("all".to_owned(), &|column| stats.shards.iter().map(column.1).sum()));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::span::tests::reading;

    fn two_shards() -> Stats {
        let mut shard = ShardStats { connections: 7500, open: 7501, accepted: 9000, ..ShardStats::default() };
        shard.closed[CloseReason::Kicked as usize] = 1499;
        shard.dropped.ended[CloseReason::Kicked as usize] = 4000;
        shard.count_refusal(RefusalReason::Connections);
        shard.accept_errors[AcceptError::Emfile as usize] = 3;
        shard.lag_bytes_max = 90_000;
        shard.latency.observe(Duration::from_micros(150));
        shard.turn_time.observe(Duration::from_micros(2));
        let second = ShardStats { shard: 1, sent_bytes: 1 << 40, tape_bytes: 64 << 20, ..shard.clone() };
        Stats { shards: vec![shard, second], ..reading(3_720_000, &ShardStats::default()) }
    }

    #[test]
    fn stats_shows_totals_and_each_shard_in_80_columns() {
        let text = stats_text(&two_shards());
        let head = "corecast 0.1.0, serving, up 1h 2m, position 1a2b3c4d-17\n\
                    17 pushes accepted, 3 refused, of these 1 busy; 1 control client\n";
        assert!(text.starts_with(head), "{text}");
        let all: Vec<&str> =
            text.lines().find(|line| line.starts_with("all")).unwrap().split_whitespace().collect();
        assert_eq!(all[..3], ["all", "15,000", "15,002"]);
        assert!(text.contains("\ndescriptors 15,040 of 1,048,576; the furthest behind lags 90,000 bytes\n"));
        assert!(text.contains("\nkicked            2,998\n"), "{text}");
        assert!(text.contains("\nconnections            2\n"), "{text}");
        assert!(text.contains("\nEMFILE                  6\n"), "{text}");
        let last = text.lines().rfind(|line| line.starts_with("all")).unwrap();
        let times: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(times, ["all", "150", "150", "150", "150", "2", "2", "2"]);
        assert!(text.contains("\nkicked              8,000\n"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }

    #[test]
    fn stats_as_json_names_every_reason_and_keeps_every_counter() {
        let value = stats_json(&two_shards());
        let closed = value["shards"][0]["closed"].as_object().unwrap();
        assert_eq!(closed.len(), CloseReason::COUNT);
        assert_eq!(closed["kicked"], 1499);
        assert_eq!(value["shards"][0]["dropped"]["kicked"], 4000);
        assert_eq!(value["shards"][1]["sent_bytes"], 1u64 << 40);
        assert_eq!(value["position"], "1a2b3c4d-17");
        assert_eq!(value["totals"]["connections"], 15_000);
        assert_eq!(value["totals"]["closed"]["kicked"], 2998);
        assert_eq!(value["totals"].get("shard"), None);
    }
}
