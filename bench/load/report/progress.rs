//! What is shown while a run goes on: a line for every second, and a bar for the phase below them.
//!
//! On standard error, so that standard output holds the summary only. The bar is there only where standard
//! error is a terminal; lines are there in a log file too. `--quiet` shows neither.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::text::{bytes, right, short, time};
use super::verdict::failures;
use super::{Quantiles, Second};
use crate::record::{Counts, Error, Outcome, Timed};

/// Lines between two headings.
const HEADING_EVERY: u32 = 20;

/// Columns where nothing is known about the terminal, and at most.
const COLUMNS_MAX: usize = 120;

/// Between two columns; most numbers are narrower than theirs.
const GAP: &str = " ";

/// Room for the codes, where columns have to be left out: `503:40 1012:12`.
const CODES_COLUMNS_MIN: usize = 14;

/// When a phase is through; the bar shows how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// So many connections open.
    Connections(u64),
    /// So many messages, or responses, since the phase began.
    Messages(u64),
    /// So many seconds since the phase began.
    Seconds(u64),
}

/// The display of one run.
pub struct Progress {
    quiet: bool,
    columns: usize,
    phases: Vec<(String, Goal)>,
    bar: ProgressBar,
    /// How far the current phase is to go, and where its count began.
    goal: Goal,
    begun: (Counts, f64),
    lines: Lines,
}

/// The lines alone, without a terminal.
#[derive(Default)]
struct Lines {
    since_heading: u32,
    shown: Option<&'static str>,
    totals: Counts,
    outcomes: BTreeMap<Outcome, u64>,
    elapsed_s: f64,
}

impl Progress {
    /// `phases` are those that will come, in order, so that a bar can say `2 of 3`; one that comes without
    /// being named here has no number.
    pub fn new(quiet: bool, phases: &[(&str, Goal)]) -> Self {
        let named = phases.iter().map(|(name, goal)| ((*name).to_owned(), *goal));
        Self {
            quiet,
            columns: columns(),
            phases: named.collect(),
            bar: ProgressBar::hidden(),
            goal: Goal::Seconds(0),
            begun: (Counts::default(), 0.0),
            lines: Lines::default(),
        }
    }

    /// Ends the bar of the phase before and starts one for `name`.
    pub fn phase(&mut self, name: &str, goal: Goal) {
        self.bar.finish_and_clear();
        self.goal = goal;
        self.begun = (self.lines.totals, self.lines.elapsed_s);
        if self.quiet || !io::stderr().is_terminal() {
            return;
        }
        let (length, unit) = match goal {
            Goal::Connections(count) => (count, "connections"),
            Goal::Messages(count) => (count, "messages"),
            Goal::Seconds(count) => (count, "s"),
        };
        self.bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
        let template = "{prefix} [{wide_bar}] {human_pos} of {human_len} {msg}, {eta} to go";
        let style = ProgressStyle::with_template(template).expect("a template that the crate knows");
        self.bar.set_style(style.progress_chars("=> "));
        self.bar.set_prefix(self.numbered(name));
        self.bar.set_message(unit);
        self.bar.enable_steady_tick(Duration::from_millis(250));
    }

    fn numbered(&self, name: &str) -> String {
        match self.phases.iter().position(|(phase, _)| phase == name) {
            Some(index) if self.phases.len() > 1 => format!("{}/{} {name}", index + 1, self.phases.len()),
            _ => name.to_owned(),
        }
    }

    /// Shows one second. `latency` is what this phase times; it also says what counts as succeeded.
    /// While connections are opened, that is the connect, whatever the run goes on to time.
    pub fn second(&mut self, second: &Second, latency: Option<Timed>) {
        let latency = match (self.goal, latency) {
            (Goal::Connections(_), Some(Timed::Reconnect)) => Some(Timed::Reconnect),
            (Goal::Connections(_), _) => Some(Timed::Connect),
            (_, latency) => latency,
        };
        let lines = self.lines.second(second, latency, self.columns);
        if !self.quiet {
            self.say(&lines);
        }
        self.bar.set_position(self.position(second));
    }

    fn position(&self, second: &Second) -> u64 {
        let counts = self.lines.totals.since(&self.begun.0);
        match self.goal {
            Goal::Connections(_) => second.open,
            Goal::Messages(_) => counts.messages.max(counts.succeeded + counts.unsuccessful),
            Goal::Seconds(_) => (second.elapsed_s - self.begun.1) as u64,
        }
    }

    /// Says something beside the seconds: a warning, a finding about the host.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.say(&[text.to_owned()]);
        }
    }

    fn say(&self, lines: &[String]) {
        self.bar.suspend(|| {
            let mut out = io::stderr().lock();
            for line in lines {
                // Who closed standard error does not want to read it; the run goes on.
                let _ = writeln!(out, "{line}");
            }
        });
    }

    /// Takes the bar away, so that the summary stands alone.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// As wide as the terminal, at most 120; 120 where it is none.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    match size {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col).min(COLUMNS_MAX),
        _ => COLUMNS_MAX,
    }
}

/// One column: head, width, and how readily it is left out (0 is never).
struct Column {
    head: &'static str,
    width: usize,
    spare: u8,
    text: String,
}

impl Lines {
    /// The line of a second, with a heading before it where one is due.
    fn second(&mut self, second: &Second, latency: Option<Timed>, columns_max: usize) -> Vec<String> {
        self.totals.add(&second.counts);
        for (outcome, count) in &second.outcomes {
            *self.outcomes.entry(*outcome).or_default() += count;
        }
        self.elapsed_s = second.elapsed_s;
        let columns = fitting(self.columns(second, latency), columns_max);
        let taken: usize = columns.iter().map(|column| column.width + GAP.len()).sum();
        let codes_columns = columns_max.saturating_sub(taken);
        let mut lines = Vec::new();
        let done = done_name(latency);
        // What the third column counts has changed: say so.
        if self.since_heading == 0 || self.shown != Some(done) {
            let heads = columns.iter().map(|column| right(column.head, column.width));
            let codes = if codes_columns >= "codes".len() { "codes" } else { "" };
            lines.push(join(heads.chain([codes.to_owned()])));
            self.since_heading = HEADING_EVERY;
            self.shown = Some(done);
        }
        self.since_heading -= 1;
        let cells = columns.iter().map(|column| right(&column.text, column.width));
        lines.push(join(cells.chain([self.codes(codes_columns)])));
        lines
    }

    fn columns(&self, second: &Second, latency: Option<Timed>) -> Vec<Column> {
        let times = latency.and_then(|timed| second.times.get(&timed)).filter(|times| times.count > 0);
        let took = |pick: fn(&Quantiles) -> f64| {
            times.map_or_else(|| "-".to_owned(), |times| joined(time(pick(times))))
        };
        let all_bytes = |counts: &Counts| (counts.bytes_in + counts.bytes_out) as f64;
        let per_second = |count: f64| if second.wall_s > 0.0 { count / second.wall_s } else { 0.0 };
        let column = |head, width, spare, text| Column { head, width, spare, text };
        vec![
            column("time", 6, 0, elapsed(second.elapsed_s)),
            column("open", 9, 0, super::text::grouped(second.open)),
            column(done_name(latency), 9, 0, short(done(&self.totals, latency) as f64)),
            column("failed", 7, 0, short(failures(&self.totals) as f64)),
            column("rate/s", 8, 0, short(per_second(done(&second.counts, latency) as f64).round())),
            column("max", 7, 1, took(|times| times.max)),
            column("min", 7, 4, took(|times| times.min)),
            column("mean", 7, 3, took(|times| times.mean)),
            column("p99", 7, 0, took(|times| times.p99)),
            column("bytes", 8, 5, joined(bytes(all_bytes(&self.totals)))),
            column("bytes/s", 8, 2, joined(bytes(per_second(all_bytes(&second.counts))))),
        ]
    }

    /// `503:40 address:60 101:9900`: what went wrong first, then by frequency; `...` where not all fit.
    fn codes(&self, columns_max: usize) -> String {
        let is_good = |outcome: &Outcome| matches!(outcome, Outcome::Status(100..=299));
        let mut outcomes: Vec<_> = self.outcomes.iter().collect();
        outcomes.sort_by_key(|(outcome, count)| (is_good(outcome), std::cmp::Reverse(**count)));
        let codes: Vec<String> = outcomes
            .into_iter()
            .map(|(outcome, count)| format!("{}:{}", label(*outcome), short(*count as f64)))
            .collect();
        let all = codes.join(" ");
        if all.len() <= columns_max {
            return all;
        }
        let mut text = String::new();
        for code in &codes {
            if text.len() + code.len() + " ...".len() > columns_max {
                break;
            }
            text += &format!("{code} ");
        }
        if text.is_empty() { text } else { text + "..." }
    }
}

/// Leaves out the readiest until the rest fits beside a few codes.
fn fitting(mut columns: Vec<Column>, columns_max: usize) -> Vec<Column> {
    let width = |columns: &[Column]| columns.iter().map(|column| column.width + GAP.len()).sum::<usize>();
    while width(&columns) + CODES_COLUMNS_MIN > columns_max {
        let Some(readiest) = columns.iter().map(|column| column.spare).max().filter(|spare| *spare > 0)
        else {
            break;
        };
        columns.retain(|column| column.spare != readiest);
    }
    columns
}

/// One word for what the summary names in full.
fn label(outcome: Outcome) -> String {
    let word = match outcome {
        Outcome::Status(code) | Outcome::Close(code) => return code.to_string(),
        Outcome::Error(error) => match error {
            Error::TooManyFiles => "files",
            Error::AddressNotAvailable => "address",
            Error::Refused => "refused",
            Error::Reset => "reset",
            Error::Unreachable => "route",
            Error::ConnectTimedOut => "connect",
            Error::HandshakeTimedOut => "late",
            Error::ResponseTimedOut => "timeout",
            Error::Ended => "ended",
            Error::BadHandshake => "handshake",
            Error::BadProtocol => "protocol",
            Error::WrongStatus => "status",
            Error::CheckFailed => "check",
            Error::System => "system",
        },
    };
    word.to_owned()
}

fn join(cells: impl Iterator<Item = String>) -> String {
    cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
}

/// Number and unit without a gap: columns are narrow.
fn joined(text: String) -> String {
    text.replace(' ', "")
}

/// Tenths as long as they fit: the last second of a phase is a short one.
fn elapsed(seconds: f64) -> String {
    if seconds < 1000.0 { format!("{seconds:.1}s") } else { format!("{seconds:.0}s") }
}

fn done_name(latency: Option<Timed>) -> &'static str {
    match latency {
        Some(Timed::Connect | Timed::Reconnect) => "opened",
        Some(Timed::Response) => "responses",
        Some(Timed::Delivery | Timed::LoopLag) | None => "messages",
    }
}

fn done(counts: &Counts, latency: Option<Timed>) -> u64 {
    match done_name(latency) {
        "opened" => counts.opened,
        "responses" => counts.succeeded,
        _ => counts.messages,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    /// Every line that the sample report's seconds give.
    fn printed(columns_max: usize) -> Vec<String> {
        let mut lines = Lines::default();
        let seconds = sample::fanout().seconds;
        let timed = |second: &Second| second.times.keys().next().copied();
        seconds.iter().flat_map(|second| lines.second(second, timed(second), columns_max)).collect()
    }

    #[test]
    fn at_120_columns_everything_is_shown() {
        let lines = printed(120);
        assert_eq!(
            lines[..2],
            [
                "  time      open    opened  failed   rate/s     max     min    mean     p99    bytes  bytes/s codes",
                "  1.0s     1,000     1,000       0    1,000  27.0ms   209µs  1.06ms  3.18ms   302KiB   302KiB \
                 101:1,000",
            ]
        );
    }

    #[test]
    fn a_heading_comes_every_20_lines_and_when_something_else_is_counted() {
        let lines = printed(120);
        let headings: Vec<usize> =
            (0..lines.len()).filter(|line| lines[*line].trim_start().starts_with("time ")).collect();
        assert_eq!(headings, [0, 11]);
        assert!(lines[0].contains("opened") && lines[11].contains("messages"));
        let mut long = Lines::default();
        let second = &sample::fanout().seconds[0];
        let lines: Vec<String> = (0..41).flat_map(|_| long.second(second, None, 120)).collect();
        assert_eq!(lines.iter().filter(|line| line.contains("open")).count(), 3);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for columns in [80, 100, 120] {
            for line in printed(columns) {
                assert!(line.chars().count() <= columns, "{columns}: {line:?}");
            }
        }
    }

    #[test]
    fn a_narrow_terminal_loses_the_least_needed_columns_first() {
        let heading = &printed(80)[0];
        for kept in ["time", "open", "failed", "rate/s", "p99"] {
            assert!(heading.contains(kept), "{kept}: {heading}");
        }
        assert!(!heading.contains("min") && !heading.contains("mean"), "{heading}");
    }

    #[test]
    fn totals_run_on_and_the_rate_is_of_the_second() {
        let lines = printed(120);
        let cells: Vec<&str> = lines[2].split_whitespace().collect();
        assert_eq!(cells[..5], ["2.0s", "2,000", "2,000", "0", "1,000"]);
    }

    #[test]
    fn what_went_wrong_is_named_before_what_went_well() {
        assert!(printed(120)[10].ends_with(" address:60 503:40 ..."), "{}", printed(120)[10]);
        let wide = printed(130);
        assert!(wide[10].ends_with(" address:60 503:40 101:9,900"), "{}", wide[10]);
        assert!(wide.last().unwrap().contains(" address:60 503:40 4000:2"), "{wide:?}");
    }
}
