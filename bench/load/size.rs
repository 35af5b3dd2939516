//! `corecast-bench size`: how much to expect and how much of it one node bears. Pure arithmetic.
//!
//! Every figure is printed with its formula, the numbers put in, so that a reader can check it and change
//! an assumption. Nothing is measured here; what is measured says where.

use std::io::{self, Write};

use serde::Serialize;

use crate::arguments::Size;
use crate::report::Report;
use crate::report::text::{bytes, grouped, number};

/// The 80/20 rule: so much of the work comes ...
const PEAK_WORK: f64 = 0.8;

/// ... in so much of the time.
const PEAK_TIME: f64 = 0.2;

/// User memory of one idle WebSocket of Corecast, in bytes (README, "Figures").
const USER_BYTES: f64 = 126.0;

/// Kernel memory of one idle accepted TCP socket: 3.9 KiB (Linux 6.18, /proc/slabinfo).
const SOCKET_BYTES: f64 = 3994.0;

/// What the kernel keeps to wait for it by a multishot poll of io_uring (README, "Figures").
const WAIT_BYTES: f64 = 256.0;

/// The estimate; a part that was not asked for is none.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Of `--page-views`.
    pub page_views: Option<PageViews>,
    /// Of `--connections`.
    pub connections: Option<Connections>,
}

/// Requests and the nodes they need.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PageViews {
    /// As given.
    pub page_views: f64,
    /// As given.
    pub seconds: f64,
    /// As given.
    pub per_node: f64,
    /// Over the whole time.
    pub average_per_second: f64,
    /// In the busy fifth of it.
    pub peak_per_second: f64,
    /// Nodes that bear the peak.
    pub nodes: u64,
}

/// Long-lived connections and what they cost while nothing is sent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Connections {
    /// As given.
    pub connections: u64,
    /// As given.
    pub heartbeat_s: f64,
    /// As given, of the connections, an hour.
    pub reconnect_share: f64,
    /// Pings a second, and as many pongs.
    pub heartbeats_per_second: f64,
    /// Spread evenly over the hour.
    pub reconnects_per_second: f64,
    /// When 80 % of them come in 20 % of the hour.
    pub reconnects_peak_per_second: f64,
    /// The server process, per connection.
    pub user_bytes_per_connection: f64,
    /// The kernel, per connection, the server's end only.
    pub kernel_bytes_per_connection: f64,
    /// Both, of all connections.
    pub memory_bytes: f64,
    /// Where the two figures come from.
    pub source: String,
}

/// Memory of one connection and who says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    user_bytes: f64,
    kernel_bytes: f64,
    source: String,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            user_bytes: USER_BYTES,
            kernel_bytes: SOCKET_BYTES + WAIT_BYTES,
            source: "Corecast's own figures: an idle WebSocket with a user and a topic 126 B (README), its \
                     socket about 3.9 KiB and 256 B to wait for it (Linux 6.18)"
                .to_owned(),
        }
    }
}

impl Memory {
    /// What `hold --pid` measured. The error is a whole message for people.
    pub fn of_report(report: &Report) -> Result<Self, String> {
        let server = report.server.as_ref().filter(|server| server.rss_per_connection > 0.0);
        let server = server.ok_or(
            "the report has no memory per connection\n\
             try: corecast-bench hold URL -c 10k --pid PID --json FILE",
        )?;
        let user_bytes = server.rss_per_connection;
        let user = format!("RSS of {} per connection", server.name);
        Ok(match server.kernel_per_connection {
            // Client and server were on one host: its caches grew for both ends.
            Some(both) => {
                let source =
                    format!("the report: {user}, and half of the kernel's {} B for both ends", number(both));
                Self { user_bytes, kernel_bytes: both / 2.0, source }
            }
            None => {
                let source =
                    format!("the report: {user}; for the kernel about 3.9 KiB and 256 B (Linux 6.18)");
                Self { user_bytes, kernel_bytes: SOCKET_BYTES + WAIT_BYTES, source }
            }
        })
    }
}

/// Answers what was asked. The error is a usage error, a whole message for people.
pub fn estimate(asked: &Size, memory: &Memory) -> Result<Estimate, String> {
    let positive = [
        ("--page-views", asked.page_views),
        ("--seconds", Some(asked.seconds)),
        ("--per-node", asked.per_node),
        ("--heartbeat", Some(asked.heartbeat.as_secs_f64())),
    ];
    for (name, value) in positive {
        if value.is_some_and(|value| !(value.is_finite() && value > 0.0)) {
            return Err(format!("{name} must be more than 0"));
        }
    }
    let page_views = match (asked.page_views, asked.per_node) {
        (Some(views), Some(per_node)) => Some(page_views(views, asked.seconds, per_node)),
        _ => None,
    };
    let connections = asked.connections.map(|connections| {
        let heartbeat_s = asked.heartbeat.as_secs_f64();
        of_connections(connections.0, heartbeat_s, asked.reconnect_share, memory)
    });
    if page_views.is_none() && connections.is_none() {
        return Err("nothing to estimate\n\
                    try: corecast-bench size --page-views 30000000 --per-node 69\n\
                    try: corecast-bench size --connections 1m --heartbeat 60s"
            .to_owned());
    }
    Ok(Estimate { page_views, connections })
}

/// What comes in a second of the busy time, of `count` in `seconds`.
fn peak(count: f64, seconds: f64) -> f64 {
    count * PEAK_WORK / (seconds * PEAK_TIME)
}

fn page_views(page_views: f64, seconds: f64, per_node: f64) -> PageViews {
    let peak_per_second = peak(page_views, seconds);
    PageViews {
        page_views,
        seconds,
        per_node,
        average_per_second: page_views / seconds,
        peak_per_second,
        nodes: (peak_per_second / per_node).ceil() as u64,
    }
}

fn of_connections(connections: u64, heartbeat_s: f64, reconnect_share: f64, memory: &Memory) -> Connections {
    let count = connections as f64;
    let an_hour = count * reconnect_share;
    Connections {
        connections,
        heartbeat_s,
        reconnect_share,
        heartbeats_per_second: count / heartbeat_s,
        reconnects_per_second: an_hour / 3600.0,
        reconnects_peak_per_second: peak(an_hour, 3600.0),
        user_bytes_per_connection: memory.user_bytes,
        kernel_bytes_per_connection: memory.kernel_bytes,
        memory_bytes: count * (memory.user_bytes + memory.kernel_bytes),
        source: memory.source.clone(),
    }
}

/// A number as it was given: whole ones without a fraction, others as measured ones.
fn given(value: f64) -> String {
    // Shares come as 0.07 and are 7.000000000000001 in the hundred.
    let value = (value * 1e9).round() / 1e9;
    if value.fract() == 0.0 { grouped(value as u64) } else { number(value) }
}

/// Prints the formulas with the numbers put in.
pub fn print(estimate: &Estimate, out: &mut impl Write) -> io::Result<()> {
    if let Some(views) = &estimate.page_views {
        print_page_views(views, out)?;
    }
    if estimate.page_views.is_some() && estimate.connections.is_some() {
        writeln!(out)?;
    }
    estimate.connections.iter().try_for_each(|connections| print_connections(connections, out))
}

fn print_page_views(views: &PageViews, out: &mut impl Write) -> io::Result<()> {
    let [count, seconds, per_node] = [views.page_views, views.seconds, views.per_node].map(given);
    let [average, peak] = [views.average_per_second, views.peak_per_second].map(number);
    writeln!(out, "PAGE VIEWS (80 % of them come in 20 % of the time)")?;
    writeln!(out, "  average     {count} / {seconds} s = {average}/s")?;
    writeln!(out, "  peak        {count} * 0.8 / ({seconds} s * 0.2) = {peak}/s")?;
    let nodes = number(views.peak_per_second / views.per_node);
    writeln!(
        out,
        "  nodes       {peak}/s / {per_node}/s each = {nodes}, rounded up: {}",
        grouped(views.nodes)
    )
}

fn print_connections(of: &Connections, out: &mut impl Write) -> io::Result<()> {
    let count = grouped(of.connections);
    let share = format!("{} %", given(of.reconnect_share * 100.0));
    let (heartbeat, heartbeats) = (given(of.heartbeat_s), number(of.heartbeats_per_second));
    let [reconnects, reconnects_peak] = [of.reconnects_per_second, of.reconnects_peak_per_second].map(number);
    let all = |each: f64| bytes(of.connections as f64 * each);
    let (user, kernel) = (of.user_bytes_per_connection, of.kernel_bytes_per_connection);
    writeln!(out, "CONNECTIONS ({share} of them come back in an hour)")?;
    writeln!(out, "  heartbeats  {count} / {heartbeat} s = {heartbeats}/s, and as many answers")?;
    writeln!(out, "  reconnects  {count} * {share} / 3,600 s = {reconnects}/s when they come evenly")?;
    writeln!(out, "  peak        {count} * {share} * 0.8 / (3,600 s * 0.2) = {reconnects_peak}/s by 80/20")?;
    writeln!(out, "  user        {count} * {} B = {}", number(user), all(user))?;
    writeln!(out, "  kernel      {count} * {} B = {}", number(kernel), all(kernel))?;
    writeln!(out, "  memory      {}, idle, without buffers and history", bytes(of.memory_bytes))?;
    for (index, line) in crate::report::text::wrapped(&of.source, 66).iter().enumerate() {
        writeln!(out, "  {:<12}{line}", if index == 0 { "source" } else { "" })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::arguments::Amount;

    fn asked() -> Size {
        Size {
            page_views: None,
            seconds: 86_400.0,
            per_node: None,
            connections: None,
            heartbeat: Duration::from_secs(60),
            reconnect_share: 0.1,
            report: None,
            json: false,
        }
    }

    fn printed(asked: &Size) -> String {
        let mut out = Vec::new();
        print(&estimate(asked, &Memory::default()).unwrap(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn thirty_million_page_views_a_day_are_1389_a_second_and_21_nodes_of_69() {
        let asked = Size { page_views: Some(30e6), per_node: Some(69.0), ..asked() };
        let views = estimate(&asked, &Memory::default()).unwrap().page_views.unwrap();
        assert_eq!((views.peak_per_second.round(), views.nodes), (1389.0, 21));
        assert_eq!(
            printed(&asked),
            "PAGE VIEWS (80 % of them come in 20 % of the time)\n  \
             average     30,000,000 / 86,400 s = 347/s\n  \
             peak        30,000,000 * 0.8 / (86,400 s * 0.2) = 1,389/s\n  \
             nodes       1,389/s / 69/s each = 20.1, rounded up: 21\n"
        );
    }

    #[test]
    fn nodes_that_bear_the_peak_exactly_are_not_rounded_up() {
        let asked = Size { page_views: Some(1000.0), seconds: 4.0, per_node: Some(100.0), ..asked() };
        assert_eq!(estimate(&asked, &Memory::default()).unwrap().page_views.unwrap().nodes, 10);
    }

    #[test]
    fn a_million_connections_beat_16667_times_a_second_and_take_4_gigabytes() {
        let asked = Size { connections: Some(Amount(1_000_000)), ..asked() };
        let found = estimate(&asked, &Memory::default()).unwrap().connections.unwrap();
        assert_eq!(found.heartbeats_per_second.round(), 16_667.0);
        assert_eq!(found.reconnects_per_second.round(), 28.0);
        assert_eq!(found.reconnects_peak_per_second.round(), 111.0);
        assert_eq!(found.memory_bytes, 1e6 * (126.0 + 3994.0 + 256.0));
        let text = printed(&asked);
        assert!(text.contains("  heartbeats  1,000,000 / 60 s = 16,667/s, and as many answers\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn memory_of_a_report_counts_the_servers_end_only() {
        let report = crate::report::sample::fanout();
        let memory = Memory::of_report(&report).unwrap();
        assert_eq!((memory.user_bytes, memory.kernel_bytes), (128.0, 3945.0));
        let without = Report { server: None, ..report };
        assert!(Memory::of_report(&without).unwrap_err().contains("--pid"));
    }

    #[test]
    fn nothing_asked_and_nothing_sensible_are_usage_errors() {
        let refused = |asked: Size| estimate(&asked, &Memory::default()).unwrap_err();
        assert!(refused(asked()).starts_with("nothing to estimate\ntry: "));
        let views = Size { page_views: Some(1.0), per_node: Some(1.0), ..asked() };
        assert_eq!(refused(Size { per_node: Some(0.0), ..views.clone() }), "--per-node must be more than 0");
        assert_eq!(
            refused(Size { page_views: Some(-1.0), ..views.clone() }),
            "--page-views must be more than 0"
        );
        assert_eq!(refused(Size { seconds: f64::NAN, ..views.clone() }), "--seconds must be more than 0");
        assert_eq!(refused(Size { heartbeat: Duration::ZERO, ..views }), "--heartbeat must be more than 0");
    }
}
