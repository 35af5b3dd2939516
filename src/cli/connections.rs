//! Who is connected, who is behind and why: `connections`, `slow`, `sessions`.
//!
//! One connection is `connections ID` and not a command of its own: as `topics T`, and as the path is.

use std::cmp::Reverse;
use std::io::Write;
use std::time::Duration;

use clap::{ArgGroup, Args};

use super::failure::Failure;
use super::table::{age, aligned, bytes_text, counted, cut, grouped, listed, short_age, wrapped};
use super::{Gateway, print_json};
use crate::client::ClientError;
use crate::config::ByteSize;
use crate::connections::{
    Detail, Filter, LIMIT_DEFAULT, LIMIT_MAX, Listing, Query, Reason, Remote, Row, Sort, Transport,
};
use crate::control::command::{Answer, Command};
use crate::message::{ConnId, Topic, UserId};

/// `corecast connections`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("several").multiple(true).conflicts_with("connection"))]
pub(super) struct ConnectionsFlags {
    /// Only this one, with everything that is known of it
    connection: Option<ConnId>,
    /// Of this user
    #[arg(long, value_name = "ID", group = "several")]
    user: Option<UserId>,
    /// Subscribed to this topic
    #[arg(long, value_name = "T", group = "several")]
    topic: Option<Topic>,
    /// Spoken to like this: ws, sse, poll or echo
    #[arg(long, value_name = "NAME", group = "several")]
    transport: Option<Transport>,
    /// From this network (10.0.0.0/8) or address, or one that begins like this (10.1.)
    #[arg(long, value_name = "PREFIX", group = "several")]
    remote: Option<Remote>,
    /// More than this waits for it in the gateway, as 64KiB
    #[arg(long, value_name = "SIZE", group = "several")]
    lag_above: Option<ByteSize>,
    /// It has sent nothing for longer than this, as 30s
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, group = "several")]
    idle_above: Option<Duration>,
    /// It has been there for longer than this, as 1h
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, group = "several")]
    age_above: Option<Duration>,
    /// Something waits for it: the furthest behind first, with the reason
    #[arg(long, conflicts_with = "lag_above", group = "several")]
    lagging: bool,
    /// id, or the most first: lag, idle, age
    #[arg(long, value_name = "BY", group = "several")]
    sort: Option<Sort>,
    /// How many at most; 100 unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), group = "several")]
    limit: Option<u64>,
    /// All of them
    #[arg(long, conflicts_with = "limit", group = "several")]
    all: bool,
    /// Print JSON instead
    #[arg(long)]
    json: bool,
}

/// `corecast slow`
#[derive(Debug, Args)]
pub(super) struct SlowFlags {
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Print JSON instead
    #[arg(long)]
    json: bool,
}

/// `corecast sessions`
#[derive(Debug, Args)]
pub(super) struct SessionsFlags {
    /// Accepted because every command has it: sessions are JSON anyway
    #[arg(long)]
    json: bool,
}

/// Lists connections, or shows one.
pub(super) fn connections(
    flags: ConnectionsFlags,
    gateway: &Gateway,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if let Some(connection) = flags.connection {
        return one(connection, flags.json, gateway, out);
    }
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let filter = Filter {
        user: flags.user,
        topic: flags.topic,
        transport: flags.transport,
        remote: flags.remote,
        lag_above_bytes: flags.lag_above.map(|size| size.0).or(flags.lagging.then_some(0)),
        idle_above_ms: flags.idle_above.map(milliseconds),
        age_above_ms: flags.age_above.map(milliseconds),
    };
    let sort = flags.sort.unwrap_or(if flags.lagging { Sort::Lag } else { Sort::Id });
    let query = Query { filter, sort, limit: None, after: None };
    let wanted = (!flags.all).then_some(flags.limit.unwrap_or(LIMIT_DEFAULT.into()));
    let listing = list(gateway, query, wanted)?;
    if flags.json {
        return print_json(out, &listing);
    }
    let text = listing_text(&listing, flags.lagging || sort == Sort::Lag);
    write!(out, "{text}").map_err(Failure::Output)
}

/// At most `wanted` connections, or all, page by page.
///
/// All of them are fetched by id and sorted here: by id nobody is left out while others come, go and fall behind.
pub(super) fn list(gateway: &Gateway, query: Query, wanted: Option<u64>) -> Result<Listing, Failure> {
    let mut client = gateway.connect()?;
    let by_page = if wanted.is_some() { query.sort } else { Sort::Id };
    let mut listing = Listing { connections: Vec::new(), next: None };
    loop {
        let left = wanted.map_or(u64::MAX, |wanted| wanted - listing.connections.len() as u64);
        let limit = left.min(LIMIT_MAX.into()) as u32;
        let page = Query { limit: Some(limit), sort: by_page, after: listing.next, ..query.clone() };
        let answer = client.call(&Command::Connections(page)).map_err(|error| gateway.failed(error))?;
        let Answer::Connections(mut page) = answer else { return Err(Failure::Answer) };
        listing.connections.append(&mut page.connections);
        listing.next = page.next;
        if listing.next.is_none() || wanted.is_some_and(|wanted| listing.connections.len() as u64 >= wanted) {
            break;
        }
    }
    if by_page != query.sort {
        let rows = &mut listing.connections;
        match query.sort {
            Sort::Id => {}
            Sort::Lag => rows.sort_by_key(|row| (Reverse(row.lag_bytes), row.id)),
            Sort::Idle => rows.sort_by_key(|row| (Reverse(row.idle_ms), row.id)),
            Sort::Age => rows.sort_by_key(|row| (row.connected_at, row.id)),
        }
    }
    Ok(listing)
}

/// `why`: what holds them up, rather than how long they have been there.
fn listing_text(listing: &Listing, why: bool) -> String {
    if listing.connections.is_empty() {
        return "no connections\n".to_owned();
    }
    let heads: &[&str] =
        if why { &["REMOTE", "LAG", "WHY"] } else { &["TRANSPORT", "REMOTE", "AGE", "IDLE", "LAG"] };
    let now = now_ms();
    let cells = |row: &Row| {
        let lag = if row.lag_bytes == 0 { "-".to_owned() } else { bytes_text(row.lag_bytes) };
        if why {
            let reason = row.reason.map_or("-", Reason::name);
            return vec![row.remote.clone(), lag, reason.to_owned()];
        }
        let since = |ms: u64| short_age(Duration::from_millis(ms));
        let age = since(now.saturating_sub(row.connected_at));
        vec![row.transport.to_string(), row.remote.clone(), age, since(row.idle_ms), lag]
    };
    let text = table(&listing.connections, heads, cells);
    let more = if listing.next.is_some() { ", and more: --limit N, --all" } else { "" };
    format!("{}{more}\n{text}", counted(listing.connections.len() as u64, "connection"))
}

/// With the connection and its user before `heads`; a user's id takes what the others leave of the line.
fn table(rows: &[Row], heads: &[&str], cells: impl Fn(&Row) -> Vec<String>) -> String {
    let mut lines = vec![heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(cells));
    lines[0].insert(0, "CONNECTION".to_owned());
    for (line, row) in lines[1..].iter_mut().zip(rows) {
        line.insert(0, row.id.to_string());
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count() + 2).max().unwrap_or(0);
    let taken: usize = (0..=heads.len()).map(width).sum();
    lines[0].insert(1, "USER".to_owned());
    for (line, row) in lines[1..].iter_mut().zip(rows) {
        line.insert(1, cut(row.user.as_ref().map_or("-", |user| user.as_str()), taken));
    }
    aligned(&lines)
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as u64
}

fn one(connection: ConnId, json: bool, gateway: &Gateway, out: &mut dyn Write) -> Result<(), Failure> {
    let answer = gateway.ask(&Command::Connection(connection))?;
    let Answer::Connection(detail) = answer else { return Err(Failure::Answer) };
    if json {
        return print_json(out, &detail.to_json());
    }
    write!(out, "{}", detail_text(&detail)).map_err(Failure::Output)
}

fn detail_text(detail: &Detail) -> String {
    let row = &detail.row;
    let since = |ms: u64| age(Duration::from_millis(ms));
    let topics: Vec<&str> = row.topics.iter().map(Topic::as_str).collect();
    let subprotocol = if detail.is_json { ", corecast.v1" } else { "" };
    let lines = [
        ("connection", format!("{}, {}", row.id, detail.state)),
        ("user", row.user.as_ref().map_or("-".to_owned(), ToString::to_string)),
        ("transport", format!("{}{subprotocol}", row.transport)),
        ("remote", row.remote.clone()),
        ("age", since(detail.age_ms)),
        ("idle", format!("{}, since it last sent anything", since(row.idle_ms))),
        ("topics", if topics.is_empty() { "-".to_owned() } else { listed(&topics, 12) }),
        ("position", format!("sent everything up to {}", detail.position)),
        ("lag", format!("{}, {}", counted(row.lag_messages, "message"), bytes_text(row.lag_bytes))),
        ("outbox", format!("{}, of the lag", bytes_text(detail.outbox_bytes))),
        ("send queue", format!("{} in the kernel, not acknowledged", bytes_text(detail.send_queue_bytes))),
        ("round trip", format!("{} us, varies by {} us", grouped(detail.rtt_us), grouped(detail.rtt_var_us))),
        ("retransmits", grouped(detail.retransmits)),
        ("sent", bytes_text(detail.bytes_sent)),
        ("received", bytes_text(detail.bytes_received)),
        ("heartbeat", detail.heartbeat_s.map_or("-".to_owned(), |seconds| format!("{seconds}s"))),
    ];
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<11} {value}\n")).collect();
    if let Some(reason) = row.reason {
        text += &format!("\n{}", reason_text(None, reason));
    }
    text
}

/// `count` where it is about several.
fn reason_text(count: Option<usize>, reason: Reason) -> String {
    let count = count.map_or(String::new(), |count| format!("{} ", grouped(count as u64)));
    let meaning = wrapped(&format!("{count}{reason}: {}", reason.meaning()), 0);
    meaning + &wrapped(&format!("to do: {}", reason.advice()), 4)
}

/// Shows who is furthest behind, why, and what to do about it.
pub(super) fn slow(flags: &SlowFlags, gateway: &Gateway, out: &mut dyn Write) -> Result<(), Failure> {
    let filter = Filter { lag_above_bytes: Some(0), ..Filter::default() };
    let query = Query { filter, sort: Sort::Lag, ..Query::default() };
    let listing = list(gateway, query, Some(flags.limit))?;
    if flags.json {
        return print_json(out, &listing);
    }
    write!(out, "{}", slow_text(&listing)).map_err(Failure::Output)
}

fn slow_text(listing: &Listing) -> String {
    if listing.connections.is_empty() {
        return "nobody is behind\n".to_owned();
    }
    let mut text = listing_text(listing, true);
    for &reason in Reason::ALL {
        let count = listing.connections.iter().filter(|row| row.reason == Some(reason)).count();
        if count > 0 {
            text += &format!("\n{}", reason_text(Some(count), reason));
        }
    }
    text
}

/// Prints all established connections, one JSON object a line, and the end.
pub(super) fn sessions(
    _flags: &SessionsFlags,
    gateway: &Gateway,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut client = gateway.connect()?;
    let failed = |error: ClientError| gateway.failed(error);
    client.send(&Command::Sessions).and_then(|_| client.flush()).map_err(failed)?;
    loop {
        match client.receive().map_err(failed)? {
            (_, Ok(Answer::Sessions(piece))) => {
                let line = |session| serde_json::to_string(session).map(|line| line + "\n");
                let lines: Result<String, _> = piece.iter().map(line).collect();
                let lines = lines.expect("our own types have string keys and encode");
                write!(out, "{lines}").and_then(|()| out.flush()).map_err(Failure::Output)?;
            }
            (_, Ok(Answer::SessionsEnd(end))) => return print_json(out, &end.to_json()),
            (_, Ok(_)) => return Err(Failure::Answer),
            (_, Err(refused)) => return Err(Failure::Refused(refused)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::{Cursor, Key, State};
    use crate::message::Position;

    fn row(index: u32, user: Option<&str>, lag_bytes: u64, reason: Option<Reason>) -> Row {
        Row {
            id: ConnId { shard: 0, index, generation: 7 },
            user: user.map(|user| user.parse().unwrap()),
            transport: Transport::WebSocket,
            remote: "192.168.100.200:53412".to_owned(),
            connected_at: now_ms() - 3_700_000,
            topics: vec!["news".parse().unwrap()],
            lag_messages: 3,
            lag_bytes,
            idle_ms: 61_000,
            reason,
        }
    }

    #[test]
    fn issue_7_connections_are_listed_in_80_columns_whatever_their_user() {
        let long = "u".repeat(128);
        let rows =
            vec![row(5, Some("a"), 0, None), row(12345, Some(&long), 1_048_576, None), row(7, None, 1, None)];
        let next = Some(Cursor { sort: Sort::Id, key: Key::new(Sort::Id, 0, rows[2].id) });
        let text = listing_text(&Listing { connections: rows, next }, false);
        let expected = "3 connections, and more: --limit N, --all\n\
            CONNECTION  USER           TRANSPORT  REMOTE                 AGE  IDLE  LAG\n\
            0-5-7       a              ws         192.168.100.200:53412  1h   1m    -\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("1.00 MiB") && text.contains('…'), "{text}");
        assert_eq!(listing_text(&Listing { connections: Vec::new(), next: None }, false), "no connections\n");
    }

    #[test]
    fn issue_7_slow_says_why_and_what_to_do_in_80_columns() {
        let mut connections =
            vec![row(12345, Some(&"u".repeat(128)), 1_048_576, Some(Reason::NotAcknowledging))];
        connections.extend(Reason::ALL.iter().map(|&reason| row(5, Some("a"), 70_000, Some(reason))));
        let text = slow_text(&Listing { connections, next: None });
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("\n2 not_acknowledging: ") && text.contains("\n1 not_reading: "), "{text}");
        assert_eq!(text.matches("    to do: ").count(), Reason::ALL.len(), "{text}");
        assert_eq!(slow_text(&Listing { connections: Vec::new(), next: None }), "nobody is behind\n");
    }

    #[test]
    fn issue_7_one_connection_is_shown_a_line_for_each_fact() {
        let mut detail = Detail {
            row: row(5, None, 70_000, Some(Reason::NotReading)),
            state: State::Open,
            position: Position { epoch: 0xa1, seq: 3 },
            heartbeat_s: Some(60),
            send_queue_bytes: 35_840,
            rtt_us: 12_345,
            rtt_var_us: 4,
            retransmits: 0,
            bytes_sent: 129,
            bytes_received: 200,
            outbox_bytes: 1024,
            is_json: true,
            age_ms: 3_700_000,
        };
        detail.row.topics = (0..40).map(|n| format!("topic-{n}").parse().unwrap()).collect();
        let text = detail_text(&detail);
        assert!(text.contains("\nsend queue  35.0 KiB in the kernel, not acknowledged\n"), "{text}");
        assert!(text.contains("\nlag         3 messages, 68.4 KiB\n"), "{text}");
        assert!(text.contains("\nnot_reading: ") && text.contains("\n    to do: "), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
