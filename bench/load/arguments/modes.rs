//! The modes' own arguments.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::values::{self, Amount, PerSecond};
use super::{Opening, Output, Publishing, Requests, Where};

/// `corecast-bench hold`
#[derive(Clone, Debug, Args)]
pub struct Hold {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Where,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub opening: Opening,
    /// How long to hold once all are open.
    #[arg(long = "for", value_parser = humantime::parse_duration, default_value = "10s")]
    pub duration: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: Output,
}

/// `corecast-bench fanout`
#[derive(Clone, Debug, Args)]
pub struct Fanout {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Where,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub opening: Opening,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub publishing: Publishing,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: Output,
}

/// `corecast-bench unicast`
#[derive(Clone, Debug, Args)]
pub struct Unicast {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Where,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub opening: Opening,
    /// The user that connection {{number}} is; the URL must name the same.
    #[arg(long, default_value = "u{{number}}")]
    pub user: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub publishing: Publishing,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: Output,
}

/// `corecast-bench echo`
#[derive(Clone, Debug, Args)]
pub struct Echo {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Where,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub opening: Opening,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub requests: Requests,
    /// The message; may hold variables. {{payload}} is --size bytes.
    #[arg(long, default_value = "{{payload}}")]
    pub message: String,
    /// Bytes of {{payload}}.
    #[arg(short = 's', long, default_value = "256")]
    pub size: Amount,
    /// Send binary frames.
    #[arg(long)]
    pub binary: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: Output,
}

/// `corecast-bench request`
#[derive(Clone, Debug, Args)]
pub struct RequestMode {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Where,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub opening: Opening,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub requests: Requests,
    /// GET without a body, POST with one, unless given.
    #[arg(short = 'X', long)]
    pub method: Option<String>,
    /// The body; @FILE reads it from a file; may hold variables.
    #[arg(short = 'd', long)]
    pub body: Option<String>,
    /// A request as a browser's "copy as cURL" gives it: its URL, method, headers and body.
    #[arg(long, conflicts_with_all = ["url", "targets"])]
    pub curl: Option<PathBuf>,
    /// A new connection for each request.
    #[arg(long)]
    pub no_keep_alive: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: Output,
}

/// Who writes to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ChatShape {
    /// Each sender to one receiver of its own.
    Pairs,
    /// All senders to one group of all.
    Group,
    /// Each sender to each of --groups groups in turn.
    Groups,
}

/// `corecast-bench chat`
#[derive(Clone, Debug, Args)]
pub struct Chat {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Where,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub opening: Opening,
    /// How many of the connections send.
    #[arg(long, default_value = "10")]
    pub senders: Amount,
    /// Who writes to whom.
    #[arg(long, value_enum, default_value = "pairs")]
    pub shape: ChatShape,
    /// Groups for --shape groups; connection N is in group N modulo this ({{group}}).
    #[arg(long, default_value_t = 10)]
    pub groups: u32,
    /// A message as the server under test wants it, with {{payload}} and {{to}}.
    #[arg(long)]
    pub message: String,
    /// What {{to}} becomes: for pairs {{number}} is the receiver's, for groups {{group}}.
    #[arg(long, default_value = "{{number}}")]
    pub to: String,
    /// Messages per sender and second.
    #[arg(long, default_value = "1/s")]
    pub rate: PerSecond,
    /// Messages of each sender.
    #[arg(short = 'm', long, default_value = "10")]
    pub messages: Amount,
    /// Bytes of {{payload}}, at least 34.
    #[arg(short = 's', long, default_value = "128")]
    pub size: Amount,
    /// How long to wait for what is still on its way after the last.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    pub linger: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: Output,
}

/// `corecast-bench storm`
#[derive(Clone, Debug, Args)]
pub struct Storm {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Where,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub opening: Opening,
    /// How they come back: none, fixed:1s, exponential:500ms..30s, as-told.
    #[arg(long, default_value = "exponential:500ms..30s", value_parser = values::back_off)]
    pub back_off: crate::plan::BackOff,
    /// Storms, one after another.
    #[arg(long, default_value_t = 1)]
    pub rounds: u32,
    /// How long to hold before each.
    #[arg(long = "for", value_parser = humantime::parse_duration, default_value = "2s")]
    pub duration: Duration,
    /// Cut with RST instead of FIN.
    #[arg(long)]
    pub reset: bool,
    /// Let the server end the connections (a restart, a drain), and wait so long for it.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub by_server: Option<Duration>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: Output,
}

/// `corecast-bench compare`
#[derive(Clone, Debug, Args)]
pub struct Compare {
    /// A report, as --json wrote it.
    pub before: PathBuf,
    /// Another one.
    pub after: PathBuf,
    /// Write a page with both laid over each other there.
    #[arg(long)]
    pub html: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `corecast-bench page`
#[derive(Clone, Debug, Args)]
pub struct Page {
    /// A report, as --json wrote it.
    pub report: PathBuf,
    /// Where to write the page.
    pub html: PathBuf,
}

/// `corecast-bench size`
#[derive(Clone, Debug, Args)]
pub struct Size {
    /// Page views (or requests) in the time: 80 % of them come in 20 % of it.
    #[arg(long, requires = "per_node")]
    pub page_views: Option<f64>,
    /// The time.
    #[arg(long, default_value_t = 86_400.0)]
    pub seconds: f64,
    /// Requests a second that one node serves.
    #[arg(long)]
    pub per_node: Option<f64>,
    /// Long-lived connections.
    #[arg(long)]
    pub connections: Option<Amount>,
    /// From heartbeat to heartbeat.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "60s")]
    pub heartbeat: Duration,
    /// Share of the connections that come back in an hour (phones, deployments): 10% or 0.1.
    #[arg(long, value_parser = values::share, default_value = "10%")]
    pub reconnect_share: f64,
    /// User and kernel memory of one connection from this report (--json of hold --pid) instead of the
    /// built-in figures.
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `corecast-bench stamp`
#[derive(Clone, Debug, Args)]
pub struct StampMode {
    /// The publisher's number.
    #[arg(long, default_value_t = 1)]
    pub publisher: u16,
    /// The message's number, from 1 up for each receiver.
    #[arg(long, default_value_t = 1)]
    pub seq: u32,
    /// By the wall clock: the receiver is another host, with a synchronised clock.
    #[arg(long)]
    pub wall: bool,
    /// Bytes of the payload, at least 34.
    #[arg(short = 's', long, default_value = "64")]
    pub size: Amount,
}

/// `corecast-bench worker`
#[derive(Clone, Debug, Args)]
pub struct WorkerArguments {
    /// Socket of the coordinator.
    pub socket: PathBuf,
    /// Number of the first worker.
    #[arg(long)]
    pub first: u16,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    pub threads: u16,
    /// Cores, one per thread; empty is unpinned.
    #[arg(long, value_delimiter = ',')]
    pub pin: Vec<usize>,
}
