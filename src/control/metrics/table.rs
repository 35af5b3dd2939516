//! Every metric: its name, what it tells, and where it is read. The one place that defines them.
//!
//! Names follow the conventions of Prometheus: `corecast_`, base units, `_total` for counters. Labels are closed
//! sets of `stats::kinds`, and the shard; never anything that a client chooses.

use crate::control::command::Stats;
use crate::control::tally::{RequestKind, RequestResult};
use crate::stats::{AcceptError, CloseReason, Histogram, MemoryClass, RefusalReason, ShardStats};

/// One metric.
pub struct Metric {
    /// `corecast_delivered_total`
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// One sentence, for `HELP` and the manual.
    pub help: &'static str,
    /// Where it is read.
    pub source: Source,
}

/// The values of labels, and the number that goes with them.
type Counted<V> = (V, u64);

/// Where a metric's samples come from, and so which labels they have.
pub enum Source {
    /// One number of the whole gateway.
    Gateway(fn(&Stats) -> u64),
    /// 1, with labels that tell something.
    Facts(&'static [&'static str], fn(&Stats) -> Vec<String>),
    /// One number for each pair of label values.
    Pairs([&'static str; 2], fn(&Stats) -> Vec<Counted<[&'static str; 2]>>),
    /// One number of each shard.
    Shard(fn(&ShardStats) -> u64),
    /// The same, told in milliseconds and shown in seconds.
    ShardMs(fn(&ShardStats) -> u64),
    /// One number of each shard for each value of a label.
    ShardBy(&'static str, fn(&ShardStats) -> Vec<Counted<&'static str>>),
    /// Times, of each shard, shown in seconds.
    Times(fn(&ShardStats) -> &Histogram),
}

impl Metric {
    /// Its labels, but for `le` of histograms.
    pub fn labels(&self) -> Vec<&'static str> {
        match &self.source {
            Source::Gateway(_) => vec![],
            Source::Facts(labels, _) => labels.to_vec(),
            Source::Pairs(labels, _) => labels.to_vec(),
            Source::Shard(_) | Source::ShardMs(_) | Source::Times(_) => vec!["shard"],
            Source::ShardBy(label, _) => vec!["shard", label],
        }
    }
}

const fn metric(name: &'static str, kind: &'static str, help: &'static str, source: Source) -> Metric {
    Metric { name, kind, help, source }
}

const fn counter(name: &'static str, help: &'static str, read: fn(&ShardStats) -> u64) -> Metric {
    metric(name, "counter", help, Source::Shard(read))
}

const fn gauge(name: &'static str, help: &'static str, read: fn(&ShardStats) -> u64) -> Metric {
    metric(name, "gauge", help, Source::Shard(read))
}

const fn times(name: &'static str, help: &'static str, read: fn(&ShardStats) -> &Histogram) -> Metric {
    metric(name, "histogram", help, Source::Times(read))
}

/// Of each shard, by the values of one label.
const fn by(
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    label: &'static str,
    read: fn(&ShardStats) -> Vec<Counted<&'static str>>,
) -> Metric {
    metric(name, kind, help, Source::ShardBy(label, read))
}

/// Of the whole gateway.
const fn all(name: &'static str, kind: &'static str, help: &'static str, read: fn(&Stats) -> u64) -> Metric {
    metric(name, kind, help, Source::Gateway(read))
}

/// Every metric, in the order in which it is shown.
pub fn every() -> impl Iterator<Item = &'static Metric> {
    [GATEWAY, CONNECTIONS, MESSAGES, MACHINERY].into_iter().flatten()
}

const GATEWAY: &[Metric] = &[
    metric(
        "corecast_build_info",
        "gauge",
        "1. What is running.",
        Source::Facts(&["version", "arch", "profile"], |s| {
            let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
            vec![s.version.clone(), std::env::consts::ARCH.to_owned(), profile.to_owned()]
        }),
    ),
    all("corecast_uptime_seconds", "gauge", "Seconds since start.", |s| s.uptime_s),
    all(
        "corecast_epoch",
        "gauge",
        "The number before the dash of positions; another one after each start.",
        |s| s.position.epoch.into(),
    ),
    all("corecast_position", "gauge", "Sequence number of the newest push.", |s| s.position.seq),
    all("corecast_draining", "gauge", "1 while the gateway drains.", |s| s.draining.into()),
    all("corecast_reloads_total", "counter", "Configurations taken over by a reload.", |s| s.reloads),
    all("corecast_reloads_refused_total", "counter", "Reloads refused for a bad configuration.", |s| {
        s.reloads_refused
    }),
    all(
        "corecast_descriptors",
        "gauge",
        "File descriptors open; before Linux 6.2 those of clients alone.",
        |s| s.descriptors,
    ),
    all(
        "corecast_descriptors_max",
        "gauge",
        "Most file descriptors that may be open (RLIMIT_NOFILE).",
        |s| s.descriptors_max,
    ),
    all("corecast_memory_bytes", "gauge", "Memory in use, where a limit is kept; else 0.", |s| {
        s.memory_used_bytes
    }),
    all("corecast_memory_limit_bytes", "gauge", "The limit that is nearest; 0 where there is none.", |s| {
        s.memory_limit_bytes
    }),
    all("corecast_control_clients", "gauge", "Clients of the control socket now.", |s| s.control_clients),
    all("corecast_admin_clients", "gauge", "Clients of the admin listener now.", |s| s.admin_clients),
    all(
        "corecast_admin_unauthorized_total",
        "counter",
        "Requests to the admin listener without the right token.",
        |s| s.admin_unauthorized,
    ),
    metric(
        "corecast_control_requests_total",
        "counter",
        "Requests on the control socket, by kind and by what became of them; a batch is one.",
        Source::Pairs(["kind", "result"], requests),
    ),
    all("corecast_pushes_accepted_total", "counter", "Pushes accepted.", |s| s.accepted),
    all("corecast_pushes_refused_total", "counter", "Pushes refused.", |s| s.refused),
    all("corecast_pushes_busy_total", "counter", "Pushes refused for want of room in a mailbox.", |s| s.busy),
    all("corecast_tickets", "gauge", "Tickets that wait to be used.", |s| s.tickets),
    all("corecast_counted_addresses", "gauge", "Addresses whose connections are counted for a limit.", |s| {
        s.counted_addresses
    }),
];

fn requests(stats: &Stats) -> Vec<Counted<[&'static str; 2]>> {
    let results = |&kind: &RequestKind| {
        let count =
            move |&result: &RequestResult| ([kind.name(), result.name()], stats.requests.of(kind, result));
        RequestResult::ALL.iter().map(count)
    };
    RequestKind::ALL.iter().flat_map(results).collect()
}

const CONNECTIONS: &[Metric] = &[
    gauge("corecast_open_sockets", "Sockets of clients open now, handshakes included.", |s| s.open),
    gauge(
        "corecast_handshakes",
        "Sockets whose request is not complete, as the sweep saw them at most 2.5 s ago.",
        |s| s.handshakes,
    ),
    by("corecast_connections", "gauge", "Clients established now, by transport.", "transport", |s| {
        vec![("ws", s.websockets), ("sse", s.event_streams), ("poll", s.polls)]
    }),
    gauge("corecast_users", "Users with a connection now.", |s| s.users),
    gauge("corecast_topics", "Topics with a subscriber now.", |s| s.topics),
    gauge("corecast_addresses", "Distinct client addresses kept, for a limit or a proxy.", |s| s.addresses),
    counter("corecast_accepted_total", "Sockets accepted.", |s| s.accepted),
    by("corecast_accept_errors_total", "counter", "Accepts that failed, by errno.", "errno", |s| {
        AcceptError::named(&s.accept_errors).collect()
    }),
    by("corecast_refused_total", "counter", "Requests answered with 4xx or 503, by reason.", "reason", |s| {
        RefusalReason::named(&s.refused).collect()
    }),
    counter(
        "corecast_refused_early_total",
        "Of the refused, those whose request was not parsed for it.",
        |s| s.refused_early,
    ),
    by("corecast_closed_total", "counter", "Connections ended, by reason.", "reason", |s| {
        CloseReason::named(&s.closed).collect()
    }),
    counter("corecast_unauthorized_total", "Requests and refreshes whose credential does not hold.", |s| {
        s.unauthorized
    }),
    counter("corecast_moved_out_total", "Connections moved to the shard that owns their user.", |s| {
        s.moved_out
    }),
    counter("corecast_moved_in_total", "Connections moved here from another shard.", |s| s.moved_in),
    counter("corecast_resumes_total", "Times that a client named a since.", |s| s.resumes),
    counter("corecast_gaps_total", "Resumes that were told of a gap.", |s| s.gaps),
    counter("corecast_polls_answered_total", "Polls answered.", |s| s.polls_answered),
    counter("corecast_pings_total", "Pings sent; those missed are closed with heartbeat_missed.", |s| {
        s.pings
    }),
    counter("corecast_pongs_total", "Pongs received.", |s| s.pongs),
];

const MESSAGES: &[Metric] = &[
    counter("corecast_shard_pushes_total", "Pushes taken from the mailbox.", |s| s.pushes),
    counter("corecast_handed_total", "Messages handed to live connections.", |s| s.handed),
    counter("corecast_replayed_total", "Messages due again because of a since.", |s| s.replayed),
    counter("corecast_delivered_total", "Messages written whole to a client.", |s| s.delivered),
    counter("corecast_expired_total", "Messages due whose time to live was over.", |s| s.expired),
    by("corecast_dropped_total", "counter", "Messages due and never sent, by reason.", "reason", |s| {
        s.dropped.by_reason().collect()
    }),
    gauge("corecast_pending", "Messages due and not sent yet.", |s| s.pending),
    times(
        "corecast_push_to_socket_seconds",
        "From when a push was accepted to when the kernel had taken it, for clients that keep up.",
        |s| &s.latency,
    ),
    counter("corecast_uplinks_total", "Data messages received from clients.", |s| s.uplinks),
    counter(
        "corecast_deferred_total",
        "Times that a client's frames beyond 64 waited for the next turn.",
        |s| s.deferred,
    ),
    counter("corecast_sent_bytes_total", "Bytes written to clients.", |s| s.sent_bytes),
    counter("corecast_received_bytes_total", "Bytes read from clients.", |s| s.received_bytes),
    gauge("corecast_blocked_connections", "Connections whose socket refuses bytes now.", |s| s.blocked),
    gauge(
        "corecast_lagging_connections",
        "Of these, those that messages wait for, as seen at most 2.5 s ago.",
        |s| s.lagging,
    ),
    gauge(
        "corecast_largest_lag_bytes",
        "How far the furthest of these is behind, as seen at most 2.5 s ago.",
        |s| s.lag_bytes_max,
    ),
    gauge("corecast_tape_messages", "Messages on the tape now.", |s| s.tape_messages),
    gauge("corecast_tape_bytes", "Their bytes, as history.bytes counts them.", |s| s.tape_bytes),
    metric(
        "corecast_tape_age_seconds",
        "gauge",
        "How long ago the oldest message on the tape was pushed.",
        Source::ShardMs(|s| s.tape_age_ms),
    ),
    counter("corecast_events_dropped_total", "Events that control did not take in time.", |s| {
        s.events_dropped
    }),
    counter("corecast_trace_dropped_total", "Lines of traces that control did not take in time.", |s| {
        s.trace_dropped
    }),
];

const MACHINERY: &[Metric] = &[
    counter("corecast_turns_total", "Turns of the shard's loop.", |s| s.turns),
    times(
        "corecast_turn_seconds",
        "How long each turn of the loop took, without the sleep before it.",
        |s| &s.turn_time,
    ),
    counter("corecast_send_batches_total", "Batches of sends submitted.", |s| s.send_batches),
    counter("corecast_ring_submissions_total", "Operations that the ring has taken.", |s| s.ring_submissions),
    counter("corecast_ring_completions_total", "Completions taken from the ring.", |s| s.ring_completions),
    counter("corecast_ring_enters_total", "System calls of the ring (io_uring_enter).", |s| s.ring_enters),
    gauge("corecast_mailbox_letters", "Pushes and commands waiting for the shard.", |s| s.mailbox_letters),
    gauge("corecast_mailbox_bytes", "Bytes of payload waiting for the shard.", |s| s.mailbox_bytes),
    counter("corecast_mailbox_refused_total", "Pushes and commands that found the mailbox full.", |s| {
        s.mailbox_refused
    }),
    by(
        "corecast_memory_class_bytes",
        "gauge",
        "Memory set aside, by what for; buffers of clients as seen at most 2.5 s ago.",
        "class",
        |s| MemoryClass::named(&s.memory).collect(),
    ),
];
