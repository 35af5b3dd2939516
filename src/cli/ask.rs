//! The commands that only look: `who`, `topics`.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::json;

use super::connections::list;
use super::failure::Failure;
use super::table::{age, aligned, bytes_text, counted, grouped, listed};
use super::{Gateway, print_json};
use crate::connections::{Filter, Listing, Query, Row};
use crate::control::command::{Answer, Command, TopicAnswer, TopicsQuery};
use crate::control::topics::LIMIT_MAX;
use crate::message::{Topic, UserId};

/// `corecast who`
#[derive(Debug, Args)]
pub(super) struct WhoFlags {
    user: UserId,
    /// Print JSON instead
    #[arg(long)]
    json: bool,
}

/// `corecast topics`
#[derive(Debug, Args)]
pub(super) struct TopicsFlags {
    /// Only this one
    topic: Option<Topic>,
    /// Print JSON instead
    #[arg(long)]
    json: bool,
}

/// Lists a user's connections. A user without any is no failure.
pub(super) fn who(flags: WhoFlags, gateway: &Gateway, out: &mut dyn Write) -> Result<(), Failure> {
    let filter = Filter { user: Some(flags.user.clone()), ..Filter::default() };
    let Listing { connections, .. } = list(gateway, Query { filter, ..Query::default() }, None)?;
    if flags.json {
        let online = !connections.is_empty();
        return print_json(out, &json!({ "user": flags.user, "online": online, "connections": connections }));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    write!(out, "{}", presence_text(&flags.user, &connections, now)).map_err(Failure::Output)
}

/// `now` is the time since the Unix epoch.
fn presence_text(user: &UserId, connections: &[Row], now: Duration) -> String {
    if connections.is_empty() {
        return format!("{user}: no connections\n");
    }
    let mut rows = vec![["CONNECTION", "TRANSPORT", "REMOTE", "AGE", "LAG"].map(str::to_owned).to_vec()];
    rows.extend(connections.iter().map(|connection| {
        let since = now.saturating_sub(Duration::from_millis(connection.connected_at));
        let lag = if connection.lag_bytes == 0 { "-".to_owned() } else { bytes_text(connection.lag_bytes) };
        let (id, transport) = (connection.id.to_string(), connection.transport.to_string());
        vec![id, transport, connection.remote.clone(), age(since), lag]
    }));
    // Topics may be many: they take what the others leave of the line.
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let taken = (0..5).map(|column| width(column) + 2).sum();
    rows[0].push("TOPICS".to_owned());
    for (row, connection) in rows[1..].iter_mut().zip(connections) {
        let topics: Vec<&str> = connection.topics.iter().map(Topic::as_str).collect();
        row.push(if topics.is_empty() { "(none)".to_owned() } else { listed(&topics, taken) });
    }
    format!("{user}: {}\n{}", counted(connections.len() as u64, "connection"), aligned(&rows))
}

/// Lists topics with their subscribers.
pub(super) fn topics(flags: TopicsFlags, gateway: &Gateway, out: &mut dyn Write) -> Result<(), Failure> {
    let one = flags.topic.is_some();
    let topics = match flags.topic {
        Some(topic) => match gateway.ask(&Command::Topic(topic))? {
            Answer::Topics(topics) => topics,
            _ => return Err(Failure::Answer),
        },
        None => all_topics(gateway)?,
    };
    if flags.json {
        return match topics.first() {
            Some(topic) if one => print_json(out, topic),
            _ => print_json(out, &json!({ "topics": topics })),
        };
    }
    write!(out, "{}", topics_text(&topics)).map_err(Failure::Output)
}

/// Every topic with a subscriber, by name.
pub(super) fn all_topics(gateway: &Gateway) -> Result<Vec<TopicAnswer>, Failure> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let query = TopicsQuery { after, limit: Some(LIMIT_MAX) };
        let Answer::TopicsPage(page) = gateway.ask(&Command::TopicsPage(query))? else {
            return Err(Failure::Answer);
        };
        all.extend(page.topics);
        after = page.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

fn topics_text(topics: &[TopicAnswer]) -> String {
    if topics.is_empty() {
        return "no topics\n".to_owned();
    }
    let mut rows = vec![["TOPIC", "CONNECTIONS", "PUSHES", "NEWEST"].map(str::to_owned).to_vec()];
    rows.extend(topics.iter().map(|topic| {
        let newest = topic.position.map_or("-".to_owned(), |position| position.to_string());
        let (connections, pushes) = (grouped(topic.connections), grouped(topic.pushes.into()));
        vec![topic.topic.to_string(), connections, pushes, newest]
    }));
    aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::Transport;
    use crate::message::Position;

    fn name(text: &str) -> Topic {
        text.parse().unwrap()
    }

    #[test]
    fn who_lists_id_transport_remote_age_lag_and_topics_in_80_columns() {
        let row = |id: &str, topics: &[&str], lag_bytes: u64| Row {
            id: id.parse().unwrap(),
            user: "a".parse().ok(),
            transport: Transport::WebSocket,
            remote: "127.0.0.1:53412".to_owned(),
            connected_at: 1_000_000,
            topics: topics.iter().map(|topic| name(topic)).collect(),
            lag_messages: lag_bytes / 1000,
            lag_bytes,
            idle_ms: 0,
            reason: None,
        };
        let many = ["a-long-name"; 6];
        let connections =
            [row("0-1841-7", &["news", "sport"], 0), row("1-2-0", &[], 70_000), row("1-3-0", &many, 0)];
        let text = presence_text(&name("a"), &connections, Duration::from_secs(1062));
        let expected = "a: 3 connections\n\
            CONNECTION  TRANSPORT  REMOTE           AGE    LAG       TOPICS\n\
            0-1841-7    ws         127.0.0.1:53412  1m 2s  -         news, sport\n\
            1-2-0       ws         127.0.0.1:53412  1m 2s  68.4 KiB  (none)\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(
            text.ends_with("a-long-name, and 5 more\n") && text.lines().all(|line| line.len() <= 80),
            "{text}"
        );
        assert_eq!(presence_text(&name("a"), &[], Duration::ZERO), "a: no connections\n");
    }

    #[test]
    fn topics_lists_subscribers_pushes_and_the_newest_position() {
        let position = Some(Position { epoch: 0x1a2b_3c4d, seq: 17 });
        let topics = [
            TopicAnswer { topic: name("news"), connections: 1200, position, pushes: 31_415 },
            TopicAnswer { topic: name("x"), connections: 1, position: None, pushes: 0 },
        ];
        let expected = "TOPIC  CONNECTIONS  PUSHES  NEWEST\n\
                        news         1,200  31,415  1a2b3c4d-17\n\
                        x                1       0  -\n";
        assert_eq!(topics_text(&topics), expected);
    }
}
