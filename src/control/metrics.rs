//! The counters, as Prometheus text (`GET /metrics`) and as JSON (`GET /v1/stats`).
//!
//! Pure. A new counter is one line in `PER_SHARD`; JSON takes it from the struct by itself.

use std::fmt::Write;

use serde_json::{Value, json};

use super::command::Stats;
use super::http;
use crate::stats::{CloseReason, ShardStats};

/// `Content-Type` of the Prometheus text format 0.0.4.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Name, type, help, and where it is read. Counters end in `_total`.
type PerShard = (&'static str, &'static str, &'static str, fn(&ShardStats) -> u64);

const PER_SHARD: &[PerShard] = &[
    ("corecast_open_sockets", "gauge", "Sockets open now, handshakes included.", |s| s.open),
    ("corecast_connections", "gauge", "Clients established now.", |s| s.connections),
    ("corecast_websockets", "gauge", "WebSockets among the established clients.", |s| s.websockets),
    ("corecast_event_streams", "gauge", "Event streams among the established clients.", |s| s.event_streams),
    ("corecast_polls", "gauge", "Polls held, among the established clients.", |s| s.polls),
    ("corecast_accepted_total", "counter", "Sockets accepted.", |s| s.accepted),
    ("corecast_accept_errors_total", "counter", "Accepts that failed.", |s| s.accept_errors),
    ("corecast_refused_rate_total", "counter", "Clients refused by limits.connects_per_second.", |s| {
        s.refused_rate
    }),
    ("corecast_refused_memory_total", "counter", "Clients refused for want of memory.", |s| s.refused_memory),
    (
        "corecast_refused_early_total",
        "counter",
        "Of these, those refused before their request was parsed.",
        |s| s.refused_early,
    ),
    ("corecast_handed_out_total", "counter", "Connections handed over to their owner shard.", |s| {
        s.handed_out
    }),
    ("corecast_handed_in_total", "counter", "Connections taken over from another shard.", |s| s.handed_in),
    (
        "corecast_unauthorized_total",
        "counter",
        "Requests and refreshes whose credential does not hold.",
        |s| s.unauthorized,
    ),
    ("corecast_shard_pushes_total", "counter", "Pushes taken from the mailbox.", |s| s.pushes),
    ("corecast_handed_total", "counter", "Messages handed to live connections.", |s| s.handed),
    ("corecast_replayed_total", "counter", "Messages due again because of a since.", |s| s.replayed),
    ("corecast_delivered_total", "counter", "Messages written whole to a client.", |s| s.delivered),
    ("corecast_expired_total", "counter", "Messages due whose time to live was over.", |s| s.expired),
    ("corecast_pending", "gauge", "Messages due and not sent yet.", |s| s.pending),
    ("corecast_sent_bytes_total", "counter", "Bytes written to clients.", |s| s.sent_bytes),
    ("corecast_received_bytes_total", "counter", "Bytes read from clients.", |s| s.received_bytes),
    ("corecast_polls_answered_total", "counter", "Polls answered.", |s| s.polls_answered),
    ("corecast_uplinks_total", "counter", "Data messages received from clients.", |s| s.uplinks),
    (
        "corecast_deferred_total",
        "counter",
        "Times that a client's frames beyond 64 waited for the next turn.",
        |s| s.deferred,
    ),
    ("corecast_pings_total", "counter", "Pings sent.", |s| s.pings),
    ("corecast_pongs_total", "counter", "Pongs received.", |s| s.pongs),
    ("corecast_blocked_connections", "gauge", "Connections whose socket refuses bytes now.", |s| s.blocked),
    ("corecast_addresses", "gauge", "Distinct client addresses kept, for a limit or a proxy.", |s| {
        s.addresses
    }),
    (
        "corecast_over_connections_per_address_total",
        "counter",
        "Clients refused for limits.connections_per_address.",
        |s| s.over_connections_per_address,
    ),
    (
        "corecast_over_connects_per_address_total",
        "counter",
        "Clients refused for limits.connects_per_address.",
        |s| s.over_connects_per_address,
    ),
    ("corecast_topics", "gauge", "Topics with a subscriber now.", |s| s.topics),
    ("corecast_users", "gauge", "Users with a connection now.", |s| s.users),
    ("corecast_tape_messages", "gauge", "Messages on the tape now.", |s| s.tape_messages),
    ("corecast_tape_bytes", "gauge", "Payload bytes on the tape now.", |s| s.tape_bytes),
    ("corecast_events_dropped_total", "counter", "Events that control did not take in time.", |s| {
        s.events_dropped
    }),
    ("corecast_turns_total", "counter", "Turns of the shard's loop.", |s| s.turns),
    ("corecast_send_batches_total", "counter", "Batches of sends submitted.", |s| s.send_batches),
];

/// The Prometheus text.
pub fn text(stats: &Stats) -> http::Answer {
    let mut text = String::new();
    let mut one = |name: &str, kind: &str, help: &str, value: u64| {
        head(&mut text, name, kind, help);
        let _ = writeln!(text, "{name} {value}");
    };
    one("corecast_pushes_accepted_total", "counter", "Pushes accepted.", stats.accepted);
    one("corecast_pushes_refused_total", "counter", "Pushes refused.", stats.refused);
    one("corecast_pushes_busy_total", "counter", "Pushes refused for want of room in a mailbox.", stats.busy);
    one("corecast_reloads_total", "counter", "Configurations taken over by a reload.", stats.reloads);
    let refused = stats.reloads_refused;
    one("corecast_reloads_refused_total", "counter", "Reloads refused for a bad configuration.", refused);
    one("corecast_position", "gauge", "Sequence number of the newest push.", stats.position.seq);
    one("corecast_control_clients", "gauge", "Clients of the control socket now.", stats.control_clients);
    one("corecast_admin_clients", "gauge", "Clients of the admin listener now.", stats.admin_clients);
    let refused = stats.admin_unauthorized;
    one("corecast_admin_unauthorized_total", "counter", "Its requests without the right token.", refused);
    let addresses = stats.counted_addresses;
    one("corecast_counted_addresses", "gauge", "Addresses whose connections are counted.", addresses);
    let used = stats.memory_used_bytes;
    one("corecast_memory_bytes", "gauge", "Memory in use, where a limit is kept; else 0.", used);
    let limit = stats.memory_limit_bytes;
    one("corecast_memory_limit_bytes", "gauge", "The limit that is nearest; 0 where there is none.", limit);
    one("corecast_tickets", "gauge", "Tickets that wait to be used.", stats.tickets);
    one("corecast_draining", "gauge", "1 while the gateway drains.", u64::from(stats.draining));
    one("corecast_uptime_seconds", "gauge", "Seconds since start.", stats.uptime_s);
    head(&mut text, "corecast_info", "gauge", "The gateway's version and epoch.");
    let _ = writeln!(
        text,
        "corecast_info{{version=\"{}\",epoch=\"{:08x}\"}} 1",
        stats.version, stats.position.epoch
    );
    for (name, kind, help, read) in PER_SHARD {
        head(&mut text, name, kind, help);
        for shard in &stats.shards {
            let _ = writeln!(text, "{name}{{shard=\"{}\"}} {}", shard.shard, read(shard));
        }
    }
    head(&mut text, "corecast_closed_total", "counter", "Connections ended, by reason.");
    for shard in &stats.shards {
        for (reason, count) in CloseReason::ALL.iter().zip(shard.closed) {
            let (shard, reason) = (shard.shard, reason.name());
            let _ = writeln!(text, "corecast_closed_total{{shard=\"{shard}\",reason=\"{reason}\"}} {count}");
        }
    }
    head(&mut text, "corecast_dropped_total", "counter", "Messages due and never sent, by reason.");
    for shard in &stats.shards {
        for (reason, count) in shard.dropped.by_reason() {
            let shard = shard.shard;
            let _ = writeln!(text, "corecast_dropped_total{{shard=\"{shard}\",reason=\"{reason}\"}} {count}");
        }
    }
    http::Answer { status: 200, content_type: PROMETHEUS, allow: None, body: text.into_bytes() }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// One shard's counters by name; `closed` and `dropped` by reason.
pub fn shard_json(stats: &ShardStats) -> Value {
    let mut json = json!(stats);
    let closed =
        CloseReason::ALL.iter().zip(stats.closed).map(|(reason, n)| (reason.name().to_owned(), n.into()));
    json["closed"] = Value::Object(closed.collect());
    let dropped = stats.dropped.by_reason().map(|(reason, n)| (reason.to_owned(), n.into()));
    json["dropped"] = Value::Object(dropped.collect());
    json
}

/// The shards' sum, as JSON like each of them.
pub fn totals_json(shards: &[ShardStats]) -> Value {
    let mut totals = shard_json(&ShardStats::default());
    for shard in shards {
        add(&mut totals, &shard_json(shard));
    }
    if let Some(totals) = totals.as_object_mut() {
        totals.remove("shard");
    }
    totals
}

fn add(total: &mut Value, more: &Value) {
    match total {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, field)| add(field, &more[name])),
        Value::Number(_) => {
            let sum = total.as_u64().unwrap_or(0).saturating_add(more.as_u64().unwrap_or(0));
            *total = sum.into();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Position;

    fn stats() -> Stats {
        let mut shards = vec![ShardStats { shard: 0, delivered: 3, ..Default::default() }; 2];
        shards[1].shard = 1;
        shards[1].count_close(CloseReason::SlowConsumer);
        shards[1].dropped.ended[CloseReason::SlowConsumer as usize] = 7;
        shards[0].dropped.unsubscribed = 2;
        Stats {
            version: "1.2.3".to_owned(),
            uptime_s: 5,
            uptime_ms: 5000,
            position: Position { epoch: 0xa1, seq: 9 },
            draining: false,
            accepted: 9,
            refused: 2,
            busy: 1,
            reloads: 1,
            reloads_refused: 0,
            memory_used_bytes: 3,
            memory_limit_bytes: 4,
            tickets: 0,
            control_clients: 1,
            admin_clients: 0,
            admin_unauthorized: 0,
            counted_addresses: 2,
            shards,
        }
    }

    #[test]
    fn every_metric_has_help_and_type_and_counters_end_in_total() {
        let text = String::from_utf8(text(&stats()).body).expect("text");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().expect("a name");
            assert!(text.contains(&format!("# HELP {name} ")), "{line}");
            let counter = text.contains(&format!("# TYPE {name} counter\n"));
            assert_eq!(counter, name.ends_with("_total"), "{line}");
        }
        assert!(text.contains("\ncorecast_delivered_total{shard=\"1\"} 3\n"));
        assert!(text.contains("\ncorecast_closed_total{shard=\"1\",reason=\"slow_consumer\"} 1\n"));
        assert!(text.contains("\ncorecast_dropped_total{shard=\"1\",reason=\"slow_consumer\"} 7\n"));
        assert!(text.contains("\ncorecast_dropped_total{shard=\"0\",reason=\"unsubscribed\"} 2\n"));
    }

    #[test]
    fn totals_add_up_every_counter_of_every_shard() {
        let totals = totals_json(&stats().shards);
        assert_eq!((&totals["delivered"], &totals["closed"]["slow_consumer"]), (&json!(6), &json!(1)));
        assert_eq!(totals["dropped"]["unsubscribed"], 2);
        assert!(totals.get("shard").is_none());
    }

    #[test]
    fn every_field_of_the_shards_counters_is_a_metric() {
        let fields = shard_json(&ShardStats::default()).as_object().expect("an object").len();
        // `shard` is the label, `closed` and `dropped` have their own.
        assert_eq!(PER_SHARD.len(), fields - 3);
    }
}
