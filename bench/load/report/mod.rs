//! Everything a run has found, as it is written to `--json`; the table, the page and `compare` read it.
//!
//! Numbers are in the units their names say; times in microseconds, with fractions. Next: `progress` (while
//! it runs), `summary` (the table at the end), `html` (the page), `compare` (two runs), `file` (on disk),
//! `advice` (what to do about errors), `host` (what this host must have), `verdict` (the exit status).

pub mod advice;
pub mod compare;
pub mod file;
pub mod host;
pub mod html;
pub mod progress;
#[cfg(test)]
pub mod sample;
pub mod summary;
pub mod text;
pub mod verdict;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::{Counts, Distribution, Outcome, Timed};

/// Version of the JSON; a reader refuses others.
pub const FORMAT: u32 = 1;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// `FORMAT`.
    pub format: u32,
    /// `corecast-bench 0.1.0`.
    pub tool: String,
    /// The command line, as it was typed.
    pub command: String,
    /// `hold`, `fanout`, ...
    pub mode: String,
    /// Start, in milliseconds of the Unix epoch.
    pub started_unix_ms: u64,
    /// From the first connect to the end.
    pub elapsed_s: f64,
    /// What ran it.
    pub machine: Machine,
    /// Stretches of the run, in order.
    pub phases: Vec<Phase>,
    /// What happened in each second.
    pub seconds: Vec<Second>,
    /// Sums over the run.
    pub totals: Counts,
    /// How responses and connections ended, over the run.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Connections open just before the end.
    pub open: u64,
    /// What was timed, over the run.
    pub times: BTreeMap<Timed, Times>,
    /// Completions over wall time, by name and unit: `deliveries/s`, `requests/s`, `connects/s`.
    pub rates: BTreeMap<String, f64>,
    /// What the publisher did, where there was one.
    pub publisher: Option<Publisher>,
    /// What it cost the server, where `--pid` names it.
    pub server: Option<ServerCost>,
    /// What it cost the tool, and whether it was itself the bottleneck.
    pub tool_cost: ToolCost,
    /// Exit status and why.
    pub verdict: Verdict,
}

/// The machine the tool ran on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// `6.18.0`.
    pub kernel: String,
    /// The processor's name.
    pub processor: String,
    /// Cores that the tool could use.
    pub cores: u32,
    /// Main memory.
    pub memory_bytes: u64,
}

/// A stretch of the run: `connect`, `hold`, `publish`, `drain`, `storm`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Seconds from the start of the run.
    pub from_s: f64,
    /// Seconds from the start of the run.
    pub to_s: f64,
}

/// One line of the timeline.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Second {
    /// Seconds from the start of the run to its end.
    pub elapsed_s: f64,
    /// How long it was.
    pub wall_s: f64,
    /// The phase it ended in.
    pub phase: String,
    /// Connections open at its end.
    pub open: u64,
    /// What was counted in it.
    pub counts: Counts,
    /// How things ended in it.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// What was timed in it, without the distribution.
    pub times: BTreeMap<Timed, Quantiles>,
}

/// The usual figures of a distribution, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many.
    pub count: u64,
    /// Shortest.
    pub min: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90 of 100 took at most this long.
    pub p90: f64,
    /// 95 of 100.
    pub p95: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p99_9: f64,
    /// Longest.
    pub max: f64,
}

/// One figure of a distribution, with its name.
pub type Figure = (&'static str, fn(&Quantiles) -> f64);

impl Quantiles {
    /// Those that are printed, in order.
    pub const FIGURES: [Figure; 6] = [
        ("p50", |times| times.p50),
        ("p90", |times| times.p90),
        ("p95", |times| times.p95),
        ("p99", |times| times.p99),
        ("p99.9", |times| times.p99_9),
        ("max", |times| times.max),
    ];
}

/// A distribution with its usual figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Times {
    /// The usual figures.
    #[serde(flatten)]
    pub quantiles: Quantiles,
    /// `[nanoseconds, how many]`, ascending.
    pub distribution: Distribution,
}

impl From<&Distribution> for Quantiles {
    fn from(times: &Distribution) -> Self {
        let us = |ns: u64| ns as f64 / 1000.0;
        Self {
            count: times.count(),
            min: us(times.min()),
            mean: times.mean() / 1000.0,
            p50: us(times.quantile(0.5)),
            p90: us(times.quantile(0.9)),
            p95: us(times.quantile(0.95)),
            p99: us(times.quantile(0.99)),
            p99_9: us(times.quantile(0.999)),
            max: us(times.max()),
        }
    }
}

/// What the publisher did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Publisher {
    /// `corecast`, `http`, `command`, `none`.
    pub by: String,
    /// Messages sent and accepted.
    pub accepted: u64,
    /// Messages refused for good.
    pub refused: u64,
    /// How often one was told to try again, and did.
    pub again: u64,
    /// First to last, in seconds.
    pub took_s: f64,
    /// Longest that a message went out after it was due, in microseconds.
    pub late_us_max: f64,
    /// The first refusal, for people.
    pub first_error: Option<String>,
}

/// What the run cost the server's process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServerCost {
    /// Which process, with its command name.
    pub pid: u32,
    /// Its command name.
    pub name: String,
    /// Resident memory before the first connection, in bytes.
    pub rss_before_bytes: u64,
    /// Resident memory with all connections open.
    pub rss_open_bytes: u64,
    /// Growth of resident memory per open connection.
    pub rss_per_connection: f64,
    /// The same of the proportional set size.
    pub pss_per_connection: f64,
    /// Growth of the kernel's caches (both ends where the tool runs on the same host) per open connection;
    /// none where /proc/slabinfo cannot be read.
    pub kernel_per_connection: Option<f64>,
    /// CPU seconds while connections were opened.
    pub connect_cpu_s: f64,
    /// CPU seconds while the work went on.
    pub work_cpu_s: f64,
    /// CPU seconds of the work per million messages that arrived; none without messages.
    pub cpu_s_per_million: Option<f64>,
    /// CPU of the work in cores: 1.0 is one core all the time.
    pub work_cores: f64,
}

/// What the run cost the tool itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ToolCost {
    /// Processes and threads that held connections.
    pub workers: u32,
    /// Resident memory of the tool per connection, in bytes.
    pub bytes_per_connection: f64,
    /// CPU of the busiest worker in its busiest second, 1.0 is a whole core.
    pub cpu_max: f64,
    /// How late the workers' loops came to their work.
    pub loop_lag: Quantiles,
    /// Why the figures may be the tool's own and not the server's; none if they are not.
    pub bottleneck: Option<String>,
}

/// What it all comes to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// 0 all well, 1 losses or failures above `--tolerate`, 3 target unreachable.
    pub exit_status: u8,
    /// The share of the connections, messages, requests or publishes that went wrong, whichever is the
    /// largest (`verdict::judge`).
    pub failure_share: f64,
    /// `--tolerate`.
    pub tolerated_share: f64,
    /// One sentence.
    pub text: String,
}
