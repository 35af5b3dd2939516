//! Two reports side by side: each figure of both, the ratio, and whether the seconds explain the difference.
//!
//! A run has one p99 and one rate, and says nothing about how far the next run would be off. Its seconds do,
//! a little: a figure is called better or worse only where the middle halves of the two runs' seconds (from
//! their 25th to their 75th percentile) do not overlap. Figures that a run has once only (memory, CPU,
//! counts) are shown and not judged. Never reads files; see `file`.

use std::io::{self, Write};

use serde::Serialize;

use super::summary::{machine, timed_name};
use super::text::{COLUMNS_MAX, bytes, grouped, left, number, percent, right, time, wrapped};
use super::{Quantiles, Report, Second};
use crate::record::{Counts, Timed};

/// Seconds of each run that a judgement needs at least.
const SECONDS_MIN: usize = 5;

/// More than this apart are two amounts of work and not one.
const WORK_SHARE_MAX: f64 = 0.01;

/// How the judgement is made, for people.
pub const METHOD: &str = "ratio is after over before, of the whole runs; seconds is the ratio of the medians \
    of their seconds. Better or worse: the middle halves (25th to 75th percentile) of the two runs' seconds \
    do not overlap; within: they do. The first and the last second of a stretch are left out, and five must \
    remain. What a run has once only is not judged. One pair of runs proves little: repeat them in turn.";

/// What two reports have in common and what not.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The command lines.
    pub commands: [String; 2],
    /// Why the two may not be comparable.
    pub warnings: Vec<String>,
    /// The figures that either has.
    pub rows: Vec<Row>,
    /// `METHOD`.
    pub method: &'static str,
}

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A time in microseconds.
    Microseconds,
    /// Seconds of CPU.
    Seconds,
    /// Bytes.
    Bytes,
    /// So many a second.
    PerSecond,
    /// So many.
    Count,
    /// A share of one.
    Share,
    /// Cores.
    Cores,
}

impl Unit {
    /// `value` as people read it.
    pub fn text(self, value: f64) -> String {
        match self {
            Unit::Microseconds => time(value),
            Unit::Seconds => format!("{} s", number(value)),
            Unit::Bytes => bytes(value),
            Unit::PerSecond => format!("{}/s", number(value)),
            Unit::Count => grouped(value as u64),
            Unit::Share => percent(value),
            Unit::Cores => number(value),
        }
    }
}

/// Which side of a figure is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Good {
    /// A rate.
    More,
    /// Times, memory, CPU, failures.
    Less,
}

/// Whether a difference is more than the seconds explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// Better in `after`.
    Better,
    /// Worse in `after`.
    Worse,
    /// The seconds of the two runs overlap.
    Within,
    /// The runs have this figure once, or too few seconds.
    Unknown,
}

impl Judgement {
    /// One word; nothing where nothing is known.
    pub fn name(self) -> &'static str {
        match self {
            Judgement::Better => "better",
            Judgement::Worse => "worse",
            Judgement::Within => "within",
            Judgement::Unknown => "",
        }
    }
}

/// Quartiles of a figure over the seconds of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// A quarter of the seconds is at most this.
    pub p25: f64,
    /// The median.
    pub p50: f64,
    /// Three quarters.
    pub p75: f64,
}

/// One figure of both runs.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `delivery p99`.
    pub name: String,
    /// What it is counted in.
    pub unit: Unit,
    /// Which side is good.
    pub good: Good,
    /// Of the whole first run.
    pub before: Option<f64>,
    /// Of the whole second run.
    pub after: Option<f64>,
    /// After over before; none where before is not above 0, or either is missing or negative.
    pub ratio: Option<f64>,
    /// The seconds of both runs, where there are enough.
    pub spreads: Option<[Spread; 2]>,
    /// The ratio of the medians of the seconds.
    pub seconds_ratio: Option<f64>,
    /// Whether the difference is more than they explain.
    pub judgement: Judgement,
}

impl Row {
    fn new(name: impl Into<String>, unit: Unit, good: Good, values: [Option<f64>; 2]) -> Self {
        let [before, after] = values;
        let ratio = ratio(before, after);
        let (name, judgement) = (name.into(), Judgement::Unknown);
        Self { name, unit, good, before, after, ratio, spreads: None, seconds_ratio: None, judgement }
    }

    /// The same, judged by the figure in each second of both runs.
    fn judged(mut self, seconds: [Vec<f64>; 2]) -> Self {
        let [before, after] = seconds.map(spread);
        let (Some(before), Some(after)) = (before, after) else { return self };
        self.seconds_ratio = ratio(Some(before.p50), Some(after.p50));
        let is_more = after.p25 > before.p75;
        let is_less = after.p75 < before.p25;
        self.judgement = match self.good {
            _ if !is_more && !is_less => Judgement::Within,
            Good::More if is_more => Judgement::Better,
            Good::Less if is_less => Judgement::Better,
            _ => Judgement::Worse,
        };
        self.spreads = Some([before, after]);
        self
    }
}

fn ratio(before: Option<f64>, after: Option<f64>) -> Option<f64> {
    let (before, after) = (before?, after?);
    // Memory may have shrunk below what it was: no ratio says anything then.
    (before > 0.0 && after >= 0.0).then(|| after / before)
}

/// Quartiles of what is left without the first and the last, which were cut off by the clock.
fn spread(values: Vec<f64>) -> Option<Spread> {
    let mut whole = values.get(1..values.len().max(2) - 1)?.to_vec();
    if whole.len() < SECONDS_MIN {
        return None;
    }
    whole.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * (whole.len() - 1) as f64;
        let (below, above) = (whole[place.floor() as usize], whole[place.ceil() as usize]);
        below + (above - below) * place.fract()
    };
    Some(Spread { p25: at(0.25), p50: at(0.5), p75: at(0.75) })
}

/// Lays `after` beside `before`.
pub fn compare(before: &Report, after: &Report) -> Comparison {
    let both = [before, after];
    let mut rows = rates(both);
    rows.extend(latencies(both));
    rows.extend(costs(both));
    rows.extend(failures(both));
    Comparison {
        commands: both.map(|report| report.command.clone()),
        warnings: warnings(both),
        rows,
        method: METHOD,
    }
}

fn warnings([before, after]: [&Report; 2]) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut differ = |what: &str, one: String, other: String| {
        if one != other {
            warnings.push(format!("{what} differs: {one}, then {other}"));
        }
    };
    differ("the mode", before.mode.clone(), after.mode.clone());
    differ("the machine", machine(before), machine(after));
    differ("the version of the tool", before.tool.clone(), after.tool.clone());
    let by = |report: &Report| report.publisher.as_ref().map_or("nobody".to_owned(), |from| from.by.clone());
    differ("the publisher", by(before), by(after));
    type Amount = (&'static str, fn(&Report) -> f64);
    let amounts: [Amount; 2] = [
        ("the number of connections", |report| report.totals.opened as f64),
        ("the payload of a message, in bytes,", |report| {
            report.totals.payload_bytes as f64 / report.totals.messages.max(1) as f64
        }),
    ];
    for (what, amount) in amounts {
        let (one, other) = (amount(before), amount(after));
        if (one - other).abs() > WORK_SHARE_MAX * one.max(other) {
            differ(what, number(one), number(other));
        }
    }
    for (which, report) in [("first", before), ("second", after)] {
        if let Some(why) = &report.tool_cost.bottleneck {
            warnings.push(format!("in the {which} run the tool was itself the bottleneck: {why}"));
        }
        if report.verdict.exit_status != 0 {
            warnings.push(format!("the {which} run was not well: {}", report.verdict.text));
        }
    }
    warnings
}

fn rates(both: [&Report; 2]) -> Vec<Row> {
    let mut names: Vec<&String> = both.iter().flat_map(|report| report.rates.keys()).collect();
    names.sort();
    names.dedup();
    let row = |name: &String| {
        let row =
            Row::new(name, Unit::PerSecond, Good::More, both.map(|report| report.rates.get(name).copied()));
        match counter(name) {
            Some(count) => row.judged(both.map(|report| per_second(report, count))),
            None => row,
        }
    };
    names.into_iter().map(row).collect()
}

/// What of `Counts` a rate is made of.
fn counter(rate: &str) -> Option<fn(&Counts) -> u64> {
    match rate {
        "connects/s" => Some(|counts| counts.opened),
        "deliveries/s" | "messages/s" => Some(|counts| counts.messages),
        "requests/s" | "responses/s" => Some(|counts| counts.succeeded + counts.unsuccessful),
        _ => None,
    }
}

fn per_second(report: &Report, count: fn(&Counts) -> u64) -> Vec<f64> {
    let active = report.seconds.iter().filter(|second| count(&second.counts) > 0 && second.wall_s > 0.0);
    active.map(|second| count(&second.counts) as f64 / second.wall_s).collect()
}

fn latencies(both: [&Report; 2]) -> Vec<Row> {
    let mut rows = Vec::new();
    for timed in [Timed::Connect, Timed::Delivery, Timed::Response, Timed::Reconnect] {
        let whole = both.map(|report| report.times.get(&timed).filter(|times| times.quantiles.count > 0));
        if whole.iter().all(Option::is_none) {
            continue;
        }
        for (name, figure) in Quantiles::FIGURES {
            let name = format!("{} {name}", timed_name(timed));
            let values = whole.map(|times| times.map(|times| figure(&times.quantiles)));
            let in_second =
                |second: &Second| second.times.get(&timed).filter(|times| times.count > 0).map(figure);
            let seconds = both.map(|report| report.seconds.iter().filter_map(in_second).collect());
            rows.push(Row::new(name, Unit::Microseconds, Good::Less, values).judged(seconds));
        }
    }
    rows
}

fn costs(both: [&Report; 2]) -> Vec<Row> {
    type Cost = (&'static str, Unit, fn(&Report) -> Option<f64>);
    let costs: [Cost; 10] = [
        ("server RSS per connection", Unit::Bytes, |report| Some(report.server.as_ref()?.rss_per_connection)),
        ("server PSS per connection", Unit::Bytes, |report| Some(report.server.as_ref()?.pss_per_connection)),
        ("kernel per connection", Unit::Bytes, |report| report.server.as_ref()?.kernel_per_connection),
        ("server CPU to connect", Unit::Seconds, |report| Some(report.server.as_ref()?.connect_cpu_s)),
        ("server CPU of the work", Unit::Seconds, |report| Some(report.server.as_ref()?.work_cpu_s)),
        ("server CPU per million", Unit::Seconds, |report| report.server.as_ref()?.cpu_s_per_million),
        ("server cores", Unit::Cores, |report| Some(report.server.as_ref()?.work_cores)),
        ("bytes read per message", Unit::Bytes, |report| {
            let totals = &report.totals;
            (totals.messages > 0).then(|| totals.bytes_in as f64 / totals.messages as f64)
        }),
        ("tool per connection", Unit::Bytes, |report| Some(report.tool_cost.bytes_per_connection)),
        ("tool loop lag p99", Unit::Microseconds, |report| {
            (report.tool_cost.loop_lag.count > 0).then_some(report.tool_cost.loop_lag.p99)
        }),
    ];
    let rows = costs.map(|(name, unit, cost)| Row::new(name, unit, Good::Less, both.map(cost)));
    rows.into_iter().filter(|row| row.before.is_some() || row.after.is_some()).collect()
}

fn failures(both: [&Report; 2]) -> Vec<Row> {
    type Failure = (&'static str, fn(&Counts) -> u64);
    let counts: [Failure; 6] = [
        ("failed connects", |counts| counts.failed),
        ("dropped connections", |counts| counts.dropped),
        ("unsuccessful requests", |counts| counts.unsuccessful),
        ("lost messages", |counts| counts.lost),
        ("duplicated messages", |counts| counts.duplicated),
        ("messages out of order", |counts| counts.reordered),
    ];
    let row = |(name, count): Failure| {
        Row::new(name, Unit::Count, Good::Less, both.map(|report| Some(count(&report.totals) as f64)))
    };
    let share = both.map(|report| Some(report.verdict.failure_share));
    let share = Row::new("failure share", Unit::Share, Good::Less, share);
    let happened = |row: &Row| [row.before, row.after].iter().flatten().any(|count| *count > 0.0);
    counts.into_iter().map(row).filter(happened).chain([share]).collect()
}

/// Prints the comparison in 80 columns.
pub fn print(comparison: &Comparison, out: &mut impl Write) -> io::Result<()> {
    for (which, command) in ["before", "after"].iter().zip(&comparison.commands) {
        writeln!(out, "{which:<7} {command}")?;
    }
    for warning in &comparison.warnings {
        let lines = wrapped(warning, COLUMNS_MAX - "warning: ".len());
        writeln!(out, "warning: {}", lines.join("\n         "))?;
    }
    let heads = ["", "before", "after", "ratio", "seconds", ""].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(heads).chain(comparison.rows.iter().map(cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    writeln!(out)?;
    for row in &rows {
        let mut line = left(&row[0], widths[0]);
        (1..5).for_each(|column| line += &format!("  {}", right(&row[column], widths[column])));
        writeln!(out, "{}", format!("{line}  {}", row[5]).trim_end())?;
    }
    writeln!(out, "\n{}", wrapped(comparison.method, COLUMNS_MAX).join("\n"))
}

/// Name, before, after, ratio, ratio of the seconds, judgement.
pub fn cells(row: &Row) -> [String; 6] {
    let value = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| row.unit.text(value));
    let times = |ratio: Option<f64>| ratio.map_or_else(String::new, |ratio| format!("{}x", number(ratio)));
    [
        row.name.clone(),
        value(row.before),
        value(row.after),
        times(row.ratio),
        times(row.seconds_ratio),
        row.judgement.name().to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[track_caller]
    fn row<'a>(comparison: &'a Comparison, name: &str) -> &'a Row {
        comparison.rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no row {name}"))
    }

    #[test]
    fn a_run_is_within_itself() {
        let comparison = compare(&sample::fanout(), &sample::fanout());
        for row in &comparison.rows {
            assert!(row.ratio.is_none_or(|ratio| ratio == 1.0), "{row:?}");
            assert!(matches!(row.judgement, Judgement::Within | Judgement::Unknown), "{row:?}");
        }
        assert_eq!(row(&comparison, "delivery p99").judgement, Judgement::Within);
    }

    #[test]
    fn times_twice_as_long_are_worse_and_half_are_better() {
        let (fast, slow) = (sample::fanout(), sample::slower(2.0));
        let worse = compare(&fast, &slow);
        assert_eq!(row(&worse, "delivery p50").judgement, Judgement::Worse);
        assert_eq!(row(&worse, "deliveries/s").judgement, Judgement::Worse);
        assert_eq!(row(&worse, "connects/s").judgement, Judgement::Within);
        let better = compare(&slow, &fast);
        assert_eq!(row(&better, "delivery p50").judgement, Judgement::Better);
        assert_eq!(row(&better, "deliveries/s").judgement, Judgement::Better);
        let ratio = row(&better, "delivery p50").seconds_ratio.unwrap();
        assert!((0.49..0.51).contains(&ratio), "{ratio}");
    }

    #[test]
    fn a_difference_that_the_seconds_explain_is_within() {
        // The sample's medians differ by up to 8 % from second to second.
        let comparison = compare(&sample::fanout(), &sample::slower(1.02));
        assert_eq!(row(&comparison, "delivery p50").judgement, Judgement::Within);
    }

    #[test]
    fn quartiles_leave_out_the_first_and_the_last_second() {
        let found = spread(vec![1000.0, 1.0, 2.0, 3.0, 4.0, 5.0, 1000.0]).unwrap();
        assert_eq!(found, Spread { p25: 2.0, p50: 3.0, p75: 4.0 });
        assert_eq!(spread(vec![1.0; 6]), None);
        assert_eq!(spread(vec![]), None);
    }

    #[test]
    fn what_a_run_has_once_is_not_judged() {
        let mut after = sample::fanout();
        after.server.as_mut().unwrap().rss_per_connection = 256.0;
        let comparison = compare(&sample::fanout(), &after);
        let row = row(&comparison, "server RSS per connection");
        assert_eq!((row.ratio, row.judgement), (Some(2.0), Judgement::Unknown));
    }

    #[test]
    fn runs_that_cannot_be_compared_are_warned_of() {
        let before = sample::fanout();
        let well = |mut report: Report| {
            report.verdict.exit_status = 0;
            report
        };
        assert_eq!(compare(&well(before.clone()), &well(before.clone())).warnings, Vec::<String>::new());
        let mut after = sample::fanout();
        after.mode = "unicast".to_owned();
        after.machine.cores = 64;
        after.totals.opened = 5000;
        after.tool_cost.bottleneck = Some("its CPU was full".to_owned());
        let warnings = compare(&well(before), &after).warnings.join("\n");
        for part in [
            "the mode differs: fanout, then unicast",
            "the machine differs: 2 cores of",
            "the number of connections differs: 9,900, then 5,000",
            "in the second run the tool was itself the bottleneck: its CPU was full",
            "the second run was not well: of 10,000 connections",
        ] {
            assert!(warnings.contains(part), "{part}:\n{warnings}");
        }
    }

    #[test]
    fn the_table_fits_80_columns_and_its_json_holds_the_rows() {
        let comparison = compare(&sample::fanout(), &sample::slower(2.0));
        let mut out = Vec::new();
        print(&comparison, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for line in text.lines().filter(|line| !line.contains("corecast-bench fanout")) {
            assert!(line.chars().count() <= COLUMNS_MAX, "{line:?}");
        }
        assert!(text.lines().any(|line| line.starts_with("delivery p50 ") && line.ends_with("2.00x  worse")));
        let json = serde_json::to_value(&comparison).unwrap();
        assert_eq!(json["rows"].as_array().unwrap().len(), comparison.rows.len());
        assert_eq!(json["rows"][0]["unit"], "per_second");
    }
}
