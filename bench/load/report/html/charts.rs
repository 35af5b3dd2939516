//! What the page draws: series of points with names, chosen and thinned here, drawn by `page.html`.
//!
//! Every chart has all runs in it. Times of day are seconds from the start of each run, so that two runs lie
//! over each other. Never more than `POINTS_MAX` points a series, however long the run.

use serde::Serialize;

use super::RUNS;
use crate::record::{Counts, Distribution, Timed};
use crate::report::summary::timed_name;
use crate::report::text::{bytes, grouped, number, time};
use crate::report::verdict::failures;
use crate::report::{Quantiles, Report, Second};

/// Points of a series; more than a chart has pixels is for nobody.
const POINTS_MAX: usize = 1200;

/// Points of a distribution for each nine.
const POINTS_PER_NINE: u32 = 40;

/// One chart.
#[derive(Clone, Debug, Serialize)]
pub struct Chart {
    /// Its heading.
    pub title: String,
    /// What it shows, in a sentence, for those who do not see it.
    pub description: String,
    /// What is on the x axis.
    pub x: X,
    /// What is on the y axis.
    pub y: Y,
    /// Lines, in the order of the legend.
    pub series: Vec<Series>,
    /// Phases of each run; none where x is not the time.
    pub phases: Vec<Vec<Band>>,
}

/// What is on the x axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum X {
    /// Seconds from the start.
    Seconds,
    /// Nines: 0 is p0, 1 is p90, 2 is p99; log10 of 1 / (1 - share).
    Nines,
}

/// What is on the y axis, and whether it is logarithmic (times are).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Y {
    /// So many.
    Count,
    /// Bytes.
    Bytes,
    /// Microseconds, on a logarithmic axis.
    Time,
}

/// One line.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// `p99`, or `after, p99` where there are two runs.
    pub name: String,
    /// Which colour: 0 to 3.
    pub colour: usize,
    /// How it is drawn.
    pub stroke: Stroke,
    /// Drawn broader: the first of two runs, so that it is seen beneath the second where both are the same.
    pub broad: bool,
    /// x and y; y is none where there was nothing.
    pub points: Vec<(f64, Option<f64>)>,
}

/// How a line is drawn, so that no reader needs the colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stroke {
    /// Drawn through.
    Solid,
    /// Long dashes.
    Dashed,
    /// Dots.
    Dotted,
}

/// A phase.
#[derive(Clone, Debug, Serialize)]
pub struct Band {
    /// Its name.
    pub name: String,
    /// Seconds from the start.
    pub from: f64,
    /// Seconds from the start.
    pub to: f64,
}

/// A line of a chart over time: its name and its figure in a stretch of seconds.
type Line = (&'static str, fn(&[Second]) -> Option<f64>);

const STROKES: [Stroke; 3] = [Stroke::Solid, Stroke::Dashed, Stroke::Dotted];

/// The colour of what is neither run.
const COLOUR_ASIDE: usize = 3;

/// Every chart that has something to show.
pub fn charts(reports: &[&Report]) -> Vec<Chart> {
    let mut charts = vec![connections(reports)];
    charts.extend(rates(reports));
    let timed = [Timed::Delivery, Timed::Response, Timed::Connect, Timed::Reconnect];
    charts.extend(timed.iter().filter_map(|timed| times(reports, *timed)));
    charts.extend(timed.iter().filter_map(|timed| distribution(reports, *timed)));
    charts.push(traffic(reports));
    charts
}

/// `before` and `after`; one run needs no name.
fn run_name(reports: &[&Report], run: usize) -> &'static str {
    if reports.len() == 1 { "" } else { RUNS[run] }
}

fn is_beneath(reports: &[&Report], run: usize) -> bool {
    reports.len() == 2 && run == 0
}

fn series_name(run: &str, line: &str) -> String {
    let parts: Vec<&str> = [run, line].into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(", ")
}

/// A chart over time with the same lines of every run.
fn over_time(reports: &[&Report], title: &str, y: Y, lines: &[Line]) -> Chart {
    let mut series = Vec::new();
    for (run, report) in reports.iter().enumerate() {
        for (index, (name, figure)) in lines.iter().enumerate() {
            series.push(Series {
                name: series_name(run_name(reports, run), name),
                // One run: a colour for each line. Two: a colour for each run.
                colour: if reports.len() == 1 { index } else { run },
                stroke: STROKES[index % STROKES.len()],
                broad: is_beneath(reports, run),
                points: thinned(&report.seconds, *figure),
            });
        }
    }
    let bands = |report: &&Report| {
        let band = |phase: &crate::report::Phase| Band {
            name: phase.name.clone(),
            from: rounded(phase.from_s),
            to: rounded(phase.to_s),
        };
        report.phases.iter().map(band).collect()
    };
    let description = described(&series, y);
    let phases = reports.iter().map(bands).collect();
    Chart { title: title.to_owned(), description, x: X::Seconds, y, series, phases }
}

/// One point for each second, or for each so many of them.
fn thinned(seconds: &[Second], figure: fn(&[Second]) -> Option<f64>) -> Vec<(f64, Option<f64>)> {
    let together = seconds.len().div_ceil(POINTS_MAX).max(1);
    let point = |stretch: &[Second]| {
        (stretch.last().map_or(0.0, |last| rounded(last.elapsed_s)), figure(stretch).map(rounded))
    };
    seconds.chunks(together).map(point).collect()
}

/// Three places: a page of a long run is megabytes otherwise.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Highest and last value of every line.
fn described(series: &[Series], y: Y) -> String {
    let text = |value: f64| match y {
        Y::Count => number(value),
        Y::Bytes => format!("{}/s", bytes(value)),
        Y::Time => time(value),
    };
    let sentence = |series: &Series| {
        let values: Vec<f64> = series.points.iter().filter_map(|(_, y)| *y).collect();
        let highest = values.iter().copied().fold(0.0, f64::max);
        let last = values.last().copied().unwrap_or(0.0);
        format!("{}: highest {}, last {}.", series.name, text(highest), text(last))
    };
    series.iter().map(sentence).collect::<Vec<_>>().join(" ")
}

fn connections(reports: &[&Report]) -> Chart {
    let lines: [Line; 1] = [("open", |seconds| seconds.last().map(|second| second.open as f64))];
    let mut chart = over_time(reports, "Open connections", Y::Count, &lines);
    // The run began with none.
    chart.series.iter_mut().for_each(|series| series.points.insert(0, (0.0, Some(0.0))));
    chart
}

fn per_second(seconds: &[Second], count: fn(&Counts) -> u64) -> Option<f64> {
    let wall_s: f64 = seconds.iter().map(|second| second.wall_s).sum();
    let counted: u64 = seconds.iter().map(|second| count(&second.counts)).sum();
    (wall_s > 0.0).then(|| counted as f64 / wall_s)
}

fn rates(reports: &[&Report]) -> Vec<Chart> {
    type Rate = (&'static str, fn(&Counts) -> u64, Line);
    let rates: [Rate; 4] = [
        (
            "Messages per second",
            |counts| counts.messages,
            ("messages/s", |seconds| per_second(seconds, |counts| counts.messages)),
        ),
        (
            "Responses per second",
            |counts| counts.succeeded + counts.unsuccessful,
            ("responses/s", |seconds| per_second(seconds, |counts| counts.succeeded + counts.unsuccessful)),
        ),
        (
            "Connects per second",
            |counts| counts.opened,
            ("connects/s", |seconds| per_second(seconds, |counts| counts.opened)),
        ),
        ("Failures per second", failures, ("failures/s", |seconds| per_second(seconds, failures))),
    ];
    let happened = |count: fn(&Counts) -> u64| reports.iter().any(|report| count(&report.totals) > 0);
    let shown = rates.into_iter().filter(|(_, count, _)| happened(*count));
    shown.map(|(title, _, line)| over_time(reports, title, Y::Count, &[line])).collect()
}

/// The worst of a stretch: a mean of percentiles is no percentile.
fn worst(seconds: &[Second], timed: Timed, figure: fn(&Quantiles) -> f64) -> Option<f64> {
    let times = seconds.iter().filter_map(|second| second.times.get(&timed)).filter(|times| times.count > 0);
    times.map(figure).max_by(f64::total_cmp)
}

/// `Delivery`
fn capitalised(timed: Timed) -> String {
    let name = timed_name(timed);
    name[..1].to_uppercase() + &name[1..]
}

fn was_timed(reports: &[&Report], timed: Timed) -> bool {
    reports.iter().any(|report| report.times.get(&timed).is_some_and(|times| times.quantiles.count > 0))
}

fn times(reports: &[&Report], timed: Timed) -> Option<Chart> {
    if !was_timed(reports, timed) {
        return None;
    }
    // Functions and no closures with `timed` in them: a line is plain data.
    macro_rules! lines {
        ($timed:expr) => {
            [
                ("p50", |seconds| worst(seconds, $timed, |times| times.p50)),
                ("p99", |seconds| worst(seconds, $timed, |times| times.p99)),
                ("max", |seconds| worst(seconds, $timed, |times| times.max)),
            ]
        };
    }
    let lines: [Line; 3] = match timed {
        Timed::Connect => lines!(Timed::Connect),
        Timed::Delivery => lines!(Timed::Delivery),
        Timed::Response => lines!(Timed::Response),
        Timed::Reconnect => lines!(Timed::Reconnect),
        Timed::LoopLag => lines!(Timed::LoopLag),
    };
    let title = format!("{} times, second by second", capitalised(timed));
    Some(over_time(reports, &title, Y::Time, &lines))
}

fn distribution(reports: &[&Report], timed: Timed) -> Option<Chart> {
    if !was_timed(reports, timed) {
        return None;
    }
    let mut series = Vec::new();
    for (run, report) in reports.iter().enumerate() {
        let of = |timed| report.times.get(&timed).map(|times| &times.distribution);
        let (run_name, broad) = (run_name(reports, run), is_beneath(reports, run));
        if let Some(found) = of(timed).filter(|found| !found.is_empty()) {
            let name = series_name(run_name, timed_name(timed));
            series.push(Series { name, colour: run, stroke: Stroke::Solid, broad, points: nines(found) });
        }
        // What of it may be the tool's own.
        if let Some(lag) = of(Timed::LoopLag).filter(|lag| !lag.is_empty()) {
            let name = series_name(run_name, timed_name(Timed::LoopLag));
            let stroke = STROKES[1 + run % 2];
            series.push(Series { name, colour: COLOUR_ASIDE, stroke, broad, points: nines(lag) });
        }
    }
    let figures = reports.iter().enumerate().filter_map(|(run, report)| {
        let times = report.times.get(&timed).filter(|times| times.quantiles.count > 0)?;
        let found = &times.quantiles;
        let [p50, p99, max] = [found.p50, found.p99, found.max].map(time);
        let name = series_name(run_name(reports, run), "");
        let name = if name.is_empty() { name } else { format!("{name}: ") };
        Some(format!("{name}p50 {p50}, p99 {p99}, max {max} of {}.", grouped(found.count)))
    });
    let description = figures.collect::<Vec<_>>().join(" ");
    let title = format!("{} times, distribution", capitalised(timed));
    Some(Chart { title, description, x: X::Nines, y: Y::Time, series, phases: Vec::new() })
}

/// Time at each share of the times, from the shortest to the one that only the longest exceeds.
fn nines(distribution: &Distribution) -> Vec<(f64, Option<f64>)> {
    let count = distribution.count();
    let last = (count.max(2) as f64).log10();
    let steps = (last * f64::from(POINTS_PER_NINE)).ceil() as u32;
    // One walk over the buckets: asking the histogram for each point would walk them every time.
    let mut buckets = distribution.buckets().into_iter();
    let (mut ns, mut passed) = buckets.next().unwrap_or_default();
    let point = |step: u32| {
        let nines = (f64::from(step) / f64::from(POINTS_PER_NINE)).min(last);
        let share = if step == steps { 1.0 } else { 1.0 - 10_f64.powf(-nines) };
        while (passed as f64) < share * count as f64 {
            let Some((value, more)) = buckets.next() else { break };
            (ns, passed) = (value, passed + more);
        }
        (rounded(nines), Some(rounded(ns as f64 / 1000.0)))
    };
    (0..=steps).map(point).collect()
}

fn traffic(reports: &[&Report]) -> Chart {
    let lines: [Line; 2] = [
        ("read", |seconds| per_second(seconds, |counts| counts.bytes_in)),
        ("written", |seconds| per_second(seconds, |counts| counts.bytes_out)),
    ];
    over_time(reports, "Bytes per second", Y::Bytes, &lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[track_caller]
    fn chart(charts: &[Chart], title: &str) -> Chart {
        charts.iter().find(|chart| chart.title == title).unwrap_or_else(|| panic!("no {title}")).clone()
    }

    #[test]
    fn a_fanout_has_connections_rates_times_distributions_and_bytes() {
        let titles: Vec<String> = charts(&[&sample::fanout()]).into_iter().map(|chart| chart.title).collect();
        assert_eq!(
            titles,
            [
                "Open connections",
                "Messages per second",
                "Connects per second",
                "Failures per second",
                "Delivery times, second by second",
                "Connect times, second by second",
                "Delivery times, distribution",
                "Connect times, distribution",
                "Bytes per second",
            ]
        );
    }

    #[test]
    fn a_second_without_times_is_a_gap_and_no_zero() {
        let chart = chart(&charts(&[&sample::fanout()]), "Delivery times, second by second");
        assert_eq!(chart.series[0].points[0], (1.0, None));
        assert!(chart.series[0].points[15].1.unwrap() > 100.0);
    }

    #[test]
    fn two_runs_differ_in_colour_and_their_lines_in_stroke() {
        let (before, after) = (sample::fanout(), sample::slower(2.0));
        let chart = chart(&charts(&[&before, &after]), "Delivery times, second by second");
        let looks: Vec<_> =
            chart.series.iter().map(|series| (series.name.as_str(), series.colour, series.stroke)).collect();
        assert_eq!(looks[0], ("before, p50", 0, Stroke::Solid));
        assert_eq!(looks[4], ("after, p99", 1, Stroke::Dashed));
        assert_eq!(chart.phases.len(), 2);
    }

    #[test]
    fn a_long_run_is_thinned_to_the_worst_of_each_stretch() {
        let mut report = sample::fanout();
        let one = report.seconds[19].clone();
        report.seconds =
            (0..5000).map(|second| Second { elapsed_s: f64::from(second) + 1.0, ..one.clone() }).collect();
        report.seconds[2].times.get_mut(&Timed::Delivery).unwrap().max = 9e9;
        let chart = chart(&charts(&[&report]), "Delivery times, second by second");
        let max = &chart.series[2].points;
        assert_eq!(max.len(), 1000);
        assert_eq!(max[0], (5.0, Some(9e9)));
        assert_eq!(max.last().unwrap().0, 5000.0);
    }

    #[test]
    fn a_distribution_ends_at_its_longest_time() {
        let mut distribution = Distribution::default();
        (1..=1000).for_each(|ms| distribution.record(ms * 1_000_000));
        let points = nines(&distribution);
        let at = |nines: f64| points.iter().find(|(x, _)| *x == nines).unwrap().1.unwrap() / 1000.0;
        assert!((at(1.0) - 900.0).abs() < 2.0, "p90 {}", at(1.0));
        assert!((at(2.0) - 990.0).abs() < 2.0, "p99 {}", at(2.0));
        assert!((at(3.0) - 1000.0).abs() < 2.0, "max {}", at(3.0));
        assert_eq!(points.last().unwrap().0, 3.0);
        assert!(points.windows(2).all(|pair| pair[0].1 <= pair[1].1));
    }

    #[test]
    fn every_chart_says_what_it_shows() {
        for chart in charts(&[&sample::fanout(), &sample::slower(2.0)]) {
            assert!(chart.description.contains("before") && chart.description.contains("after"), "{chart:?}");
        }
        let one = chart(&charts(&[&sample::fanout()]), "Open connections");
        assert_eq!(one.description, "open: highest 9,900, last 9,898.");
    }
}
