//! The command line, as typed. What it comes to is a `Plan` per worker (`coordinator::scenario`).
//!
//! One struct per mode, and groups that several modes share: where to (`Where`), how connections are
//! opened (`Opening`), what is written at the end (`Output`). Values are parsed here into types and
//! checked against each other in `coordinator::scenario`.

mod modes;
mod values;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

use crate::plan::{Behaviour, Check, Transport};

pub use modes::{
    Chat, ChatShape, Compare, Echo, Fanout, Hold, Page, RequestMode, Size, StampMode, Storm, Unicast,
    WorkerArguments,
};
pub use values::{Amount, Mix, PerSecond, Rate, Sources};

/// Finds out what a push gateway can take: this one, or any WebSocket, SSE, long-poll or HTTP server.
///
/// Exit status: 0 all well, 1 losses or failures above --tolerate, 2 wrong usage, 3 target unreachable.
#[derive(Debug, Parser)]
#[command(name = "corecast-bench", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub mode: Mode,
}

/// The modes.
#[derive(Debug, Subcommand)]
pub enum Mode {
    /// Open connections and hold them.
    Hold(Hold),
    /// Hold subscribers, publish to all of them, time each delivery.
    Fanout(Fanout),
    /// Hold users, publish to single ones at random, time each delivery.
    Unicast(Unicast),
    /// Send messages over WebSockets that the server sends back, time each.
    Echo(Echo),
    /// Send HTTP requests, time and check each response.
    Request(RequestMode),
    /// Clients write to clients, through the server's own messages.
    Chat(Chat),
    /// Cut all connections at once and watch them come back.
    Storm(Storm),
    /// Lay two reports over each other.
    Compare(Compare),
    /// Draw the page of a report again.
    Page(Page),
    /// Estimate peak rates, nodes and memory.
    Size(Size),
    /// Print one payload with a stamp, for publishers of your own.
    Stamp(StampMode),
    /// A process of connections, started by the tool itself.
    #[command(hide = true)]
    Worker(WorkerArguments),
}

/// Where to connect, and as whom.
#[derive(Clone, Debug, Default, Args)]
pub struct Where {
    /// Where to: ws://host:port/path?query, or http://. May hold variables: {{number}} is the connection's
    /// number, {{number:6}} the same with six digits, others come from --csv.
    // Not `required_unless_present`: --curl, which only `request` has, does without it too.
    pub url: Option<String>,
    /// How to speak to it; without it ws:// is ws, and http:// is sse for a path that ends in /sse, poll for
    /// one that ends in /poll, else http.
    #[arg(long)]
    pub transport: Option<Transport>,
    /// Several transports on one server: ws=60,sse=30,poll=10 are shares. The URL gives host and query, the
    /// paths are --ws-path, --sse-path and --poll-path.
    #[arg(long, conflicts_with = "transport")]
    pub mix: Option<Mix>,
    /// Path for --mix.
    #[arg(long, default_value = "/ws")]
    pub ws_path: String,
    /// Path for --mix.
    #[arg(long, default_value = "/sse")]
    pub sse_path: String,
    /// Path for --mix.
    #[arg(long, default_value = "/poll")]
    pub poll_path: String,
    /// Several targets, one a line: WEIGHT URL, or WEIGHT METHOD URL; # begins a comment.
    #[arg(long, conflicts_with_all = ["url", "mix"])]
    pub targets: Option<PathBuf>,
    /// A header of each request, `Name: value`; may be given often, may hold variables.
    #[arg(short = 'H', long = "header")]
    pub headers: Vec<String>,
    /// WebSocket subprotocol to offer.
    #[arg(long)]
    pub subprotocol: Option<String>,
    /// Message to send as soon as a WebSocket is open; may be given often, may hold variables.
    #[arg(long = "greeting")]
    pub greetings: Vec<String>,
    /// Variables for each connection: a header line with their names, then one line per connection, used in
    /// turn.
    #[arg(long)]
    pub csv: Option<PathBuf>,
}

/// How connections are opened, and by how many workers.
#[derive(Clone, Debug, Args)]
pub struct Opening {
    /// Connections.
    #[arg(short = 'c', long, default_value = "100")]
    pub connections: Amount,
    /// How many are opened a second, as 1000/s; without it as fast as they go.
    #[arg(long, conflicts_with = "step")]
    pub ramp: Option<PerSecond>,
    /// So many at once, again --every.
    #[arg(long, requires = "every")]
    pub step: Option<Amount>,
    /// From step to step.
    #[arg(long, value_parser = humantime::parse_duration, requires = "step")]
    pub every: Option<Duration>,
    /// Handshakes under way at once, at most, over all workers.
    #[arg(long, default_value = "256")]
    pub connecting: u32,
    /// Local addresses to connect from, in turn: 127.0.0.2-127.0.0.60, or a comma-separated list. One address
    /// has about 28,000 ports. Without it a loopback target is reached from as many loopback addresses as
    /// are needed.
    #[arg(long)]
    pub sources: Option<Sources>,
    /// Processes that hold connections; one may hold as many as its descriptor limit says. 0 is as many as
    /// are needed.
    #[arg(long, default_value_t = 0)]
    pub processes: u16,
    /// Threads of each process.
    #[arg(long, default_value_t = 1)]
    pub threads: u16,
    /// Cores to pin the workers to, in turn, as 1 or 2,3.
    #[arg(long, value_delimiter = ',')]
    pub pin: Vec<usize>,
    /// Longest wait for a handshake, and for a response.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30s")]
    pub timeout: Duration,
    /// Share of the clients that misbehave, as slow-reader=5% ; may be given often.
    #[arg(long = "behaviour", value_parser = values::behaviour)]
    pub behaviours: Vec<(Behaviour, u32)>,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What the run is judged by and what is written.
#[derive(Clone, Debug, Args)]
pub struct Output {
    /// Share of losses and failures that is no failure of the run: 0.1% or 0.001.
    #[arg(long, value_parser = values::share, default_value = "0")]
    pub tolerate: f64,
    /// The server's process on this host: what the run costs it is measured.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Write everything there.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write a page with charts there.
    #[arg(long)]
    pub html: Option<PathBuf>,
    /// Print the summary only.
    #[arg(short, long)]
    pub quiet: bool,
}

/// Who publishes, in `fanout` and `unicast`.
#[derive(Clone, Debug, Args)]
pub struct Publishing {
    /// Who publishes.
    #[arg(long = "publish", value_enum, default_value = "corecast")]
    pub by: PublishBy,
    /// corecast: the control socket; without it the default of this user.
    #[arg(long)]
    pub socket: Option<PathBuf>,
    /// corecast: the topic (fanout).
    #[arg(long, default_value = "news")]
    pub topic: String,
    /// http: the request's URL; may hold {{payload}}, and {{user}} in unicast.
    #[arg(long, required_if_eq("by", "http"))]
    pub publish_url: Option<String>,
    /// http: its method.
    #[arg(long, default_value = "POST")]
    pub publish_method: String,
    /// http: its body; may hold the same.
    #[arg(long, default_value = "{{payload}}")]
    pub publish_body: String,
    /// http: a header of it, `Name: value`; may be given often.
    #[arg(long = "publish-header")]
    pub publish_headers: Vec<String>,
    /// command: run by sh for every message, with {{payload}} and {{user}} as above.
    #[arg(long, required_if_eq("by", "command"))]
    pub publish_command: Option<String>,
    /// Messages to publish.
    #[arg(short = 'm', long, default_value = "100")]
    pub messages: Amount,
    /// Bytes of each payload, at least 34.
    #[arg(short = 's', long, default_value = "256")]
    pub size: Amount,
    /// Messages a second, as 100/s; max for as fast as they are accepted; lockstep: the next when all have
    /// the one before.
    #[arg(long, default_value = "10/s")]
    pub rate: Rate,
    /// How long to wait for what is still on its way after the last.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    pub linger: Duration,
    /// Payloads without stamps: nothing is timed and only the count is checked, but receiving costs less.
    #[arg(long)]
    pub unstamped: bool,
}

/// Who publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PublishBy {
    /// This gateway's control socket.
    Corecast,
    /// An HTTP request for each message.
    Http,
    /// A command for each message.
    Command,
    /// Somebody else, for as long as --linger says; payloads with stamps are timed (corecast-bench stamp prints one).
    None,
}

/// How requests are paced and judged, in `echo` and `request`.
#[derive(Clone, Debug, Args)]
pub struct Requests {
    /// Requests in all; 0 is no end, then --for ends it.
    #[arg(short = 'n', long, default_value = "0")]
    pub requests: Amount,
    /// Open loop: so many a second whatever the server does, timed from when each was due. Without it closed
    /// loop: every connection sends the next when it has its response.
    #[arg(long)]
    pub rate: Option<PerSecond>,
    /// How long, where -n does not end it.
    #[arg(long = "for", value_parser = humantime::parse_duration, default_value = "10s")]
    pub duration: Duration,
    /// What a response must be: status=200, json:$.ok=true, contains=text; may be given often. A status of 400
    /// or more is a failure unless a check names it.
    #[arg(long = "check", value_parser = values::check)]
    pub checks: Vec<Check>,
}
