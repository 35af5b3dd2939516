//! The tables at the end of a run: what was done, what it took, what went wrong, what to do.
//!
//! `sections` decides what is said, `print` sets it in 80 columns; the page (`html`) sets the same sections as
//! tables. Where a number is missing (no publisher, no `--pid`) its line is missing, never a zero.

use std::io::{self, Write};

use super::text::{COLUMNS_MAX, bytes, counted, grouped, left, number, percent, right, time, wrapped};
use super::{Publisher, Quantiles, Report, ServerCost, advice};
use crate::record::{Counts, Outcome, Timed};

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Its title.
    pub title: String,
    /// Heads of the columns after the first; none where rows are name, value and note.
    pub heads: Vec<&'static str>,
    /// Rows, the name first. Without heads: name, value, note.
    pub rows: Vec<Vec<String>>,
}

impl Section {
    fn new(title: &str) -> Self {
        Self { title: title.to_owned(), ..Self::default() }
    }

    fn row(&mut self, name: &str, value: impl Into<String>, note: impl Into<String>) {
        self.rows.push(vec![name.to_owned(), value.into(), note.into()]);
    }

    /// A row for what is worth a line only when there was any.
    fn row_if_any(&mut self, name: &str, count: u64, note: &str) {
        if count > 0 {
            self.row(name, grouped(count), note);
        }
    }
}

/// What went wrong, how often, why probably, and what to type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// As `advice::name` calls it.
    pub name: String,
    /// How often.
    pub count: u64,
    /// Cause and hint.
    pub advice: advice::Advice,
}

/// Prints the whole summary.
pub fn print(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for line in head(report) {
        writeln!(out, "{line}")?;
    }
    for section in sections(report) {
        write!(out, "\n{}", set(&section))?;
    }
    for (index, trouble) in troubles(report).iter().enumerate() {
        if index == 0 {
            writeln!(out, "\nWHAT WENT WRONG")?;
        }
        write!(out, "{}", set_trouble(trouble))?;
    }
    let verdict = format!("{} (exit status {})", report.verdict.text, report.verdict.exit_status);
    writeln!(out, "\nVERDICT")?;
    for line in wrapped(&verdict, COLUMNS_MAX - 2) {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}

fn head(report: &Report) -> Vec<String> {
    let took = time(report.elapsed_s * 1e6);
    let mut lines = vec![format!("{} {}, {took}", report.tool, report.mode)];
    lines.extend(wrapped(&machine(report), COLUMNS_MAX - 2).into_iter().map(|line| format!("  {line}")));
    // The command is not wrapped at spaces of its own: it must stay fit for copying.
    lines.push(format!("  {}", report.command));
    lines
}

/// `2 cores of AMD EPYC 9B14, 16.0 GiB, Linux 6.18.0`
pub fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let cores = counted(machine.cores.into(), "core");
    let memory = bytes(machine.memory_bytes as f64);
    format!("{cores} of {}, {memory}, Linux {}", machine.processor, machine.kernel)
}

/// Every table that has something to say, in order.
pub fn sections(report: &Report) -> Vec<Section> {
    let mut sections = vec![connections(report)];
    sections.extend(messages(report));
    sections.extend(requests(report));
    sections.extend(times(report));
    sections.push(traffic(&report.totals));
    sections.extend(outcomes(report));
    sections.extend(report.server.as_ref().map(server));
    sections.push(tool(report));
    sections
}

fn rate(report: &Report, name: &str) -> String {
    report.rates.get(name).map_or_else(String::new, |rate| format!("{} {name}", number(*rate)))
}

fn connections(report: &Report) -> Section {
    let totals = &report.totals;
    let mut section = Section::new("CONNECTIONS");
    section.row("attempted", grouped(totals.attempted), "");
    section.row("opened", grouped(totals.opened), rate(report, "connects/s"));
    section.row("open at the end", grouped(report.open), "");
    section.row("failed", grouped(totals.failed), share_of(totals.failed, totals.attempted));
    section.row("dropped", grouped(totals.dropped), share_of(totals.dropped, totals.opened));
    section.row_if_any("pings answered", totals.pings, "");
    section
}

/// `1.02 %`, nothing for none.
fn share_of(part: u64, whole: u64) -> String {
    if part == 0 || whole == 0 { String::new() } else { percent(part as f64 / whole as f64) }
}

fn messages(report: &Report) -> Option<Section> {
    let totals = &report.totals;
    let mut section = Section::new("MESSAGES");
    if let Some(publisher) = &report.publisher {
        published(&mut section, publisher);
    }
    if report.publisher.is_none() && totals.messages + totals.lost == 0 {
        return None;
    }
    section.row("received", grouped(totals.messages), rate(report, "deliveries/s"));
    let expected = totals.messages + totals.lost;
    section.row("lost", grouped(totals.lost), share_of(totals.lost, expected));
    section.row("duplicated", grouped(totals.duplicated), share_of(totals.duplicated, expected));
    section.row("out of order", grouped(totals.reordered), share_of(totals.reordered, expected));
    section.row_if_any("without a stamp", totals.unstamped, "not looked at for losses and times");
    Some(section)
}

fn published(section: &mut Section, publisher: &Publisher) {
    let mut note = format!("by {}, in {}", publisher.by, time(publisher.took_s * 1e6));
    if publisher.took_s > 0.0 {
        note += &format!(", {}/s", number(publisher.accepted as f64 / publisher.took_s));
    }
    section.row("published", grouped(publisher.accepted), note);
    if publisher.late_us_max > 0.0 {
        section.row("latest publish", time(publisher.late_us_max), "after it was due");
    }
    section.row_if_any("told to try again", publisher.again, "and done");
    let first = publisher.first_error.as_deref().unwrap_or_default();
    section.row_if_any("refused", publisher.refused, first);
}

fn requests(report: &Report) -> Option<Section> {
    let totals = &report.totals;
    if totals.succeeded + totals.unsuccessful + totals.sent == 0 {
        return None;
    }
    let mut section = Section::new("REQUESTS");
    section.row("sent", grouped(totals.sent), "");
    if totals.succeeded + totals.unsuccessful > 0 {
        let finished = totals.succeeded + totals.unsuccessful;
        section.row("succeeded", grouped(totals.succeeded), rate(report, "requests/s"));
        let share = share_of(totals.unsuccessful, finished);
        section.row("unsuccessful", grouped(totals.unsuccessful), share);
    }
    Some(section)
}

/// What is timed, as it is called in tables.
pub fn timed_name(timed: Timed) -> &'static str {
    match timed {
        Timed::Connect => "connect",
        Timed::Delivery => "delivery",
        Timed::Response => "response",
        Timed::Reconnect => "reconnect",
        Timed::LoopLag => "tool's loop lag",
    }
}

fn times(report: &Report) -> Option<Section> {
    let mut section = Section::new("TIMES, µs");
    section.heads = Quantiles::FIGURES.map(|(name, _)| name).to_vec();
    for (timed, times) in &report.times {
        if times.quantiles.count > 0 && *timed != Timed::LoopLag {
            section.rows.push(quantile_row(timed_name(*timed), &times.quantiles));
        }
    }
    if report.tool_cost.loop_lag.count > 0 {
        section.rows.push(quantile_row(timed_name(Timed::LoopLag), &report.tool_cost.loop_lag));
    }
    (!section.rows.is_empty()).then_some(section)
}

fn quantile_row(name: &str, times: &Quantiles) -> Vec<String> {
    let figures = Quantiles::FIGURES.map(|(_, figure)| number(figure(times)));
    std::iter::once(name.to_owned()).chain(figures).collect()
}

fn traffic(totals: &Counts) -> Section {
    let mut section = Section::new("BYTES ON THE WIRE");
    let per_message = match totals.messages {
        0 => String::new(),
        messages => {
            let each = |bytes: u64| number(bytes as f64 / messages as f64);
            let (all, payload) = (each(totals.bytes_in), each(totals.payload_bytes));
            format!("{all} B a message in all, {payload} B payload")
        }
    };
    section.row("read", bytes(totals.bytes_in as f64), per_message);
    section.row("written", bytes(totals.bytes_out as f64), "");
    section
}

fn outcomes(report: &Report) -> Option<Section> {
    let mut section = Section::new("OUTCOMES");
    for (outcome, count) in &report.outcomes {
        let kind = match outcome {
            Outcome::Status(_) => "status",
            Outcome::Close(_) => "close",
            Outcome::Error(_) => "error",
        };
        section.row(&format!("{kind} {}", advice::name(*outcome)), grouped(*count), "");
    }
    (!section.rows.is_empty()).then_some(section)
}

fn server(cost: &ServerCost) -> Section {
    let mut section = Section::new(&format!("SERVER {} ({})", cost.name, cost.pid));
    let each = |count: f64| format!("{} B", number(count));
    let grown = format!("{} to {}", bytes(cost.rss_before_bytes as f64), bytes(cost.rss_open_bytes as f64));
    section.row("RSS per connection", each(cost.rss_per_connection), grown);
    section.row("PSS per connection", each(cost.pss_per_connection), "");
    if let Some(kernel) = cost.kernel_per_connection {
        section.row("kernel per connection", each(kernel), "both ends, where the tool runs here too");
    }
    section.row("CPU to connect", format!("{} s", number(cost.connect_cpu_s)), "");
    let cores = format!("{} cores", number(cost.work_cores));
    section.row("CPU of the work", format!("{} s", number(cost.work_cpu_s)), cores);
    if let Some(seconds) = cost.cpu_s_per_million {
        section.row("CPU per million", format!("{} s", number(seconds)), "messages that arrived");
    }
    section
}

fn tool(report: &Report) -> Section {
    let cost = &report.tool_cost;
    let mut section = Section::new("THE TOOL");
    section.row("workers", grouped(cost.workers.into()), "");
    section.row("per connection", format!("{} B", number(cost.bytes_per_connection)), "resident memory");
    section.row("busiest worker", percent(cost.cpu_max), "of a core, in its busiest second");
    let bottleneck = cost.bottleneck.as_deref();
    section.row(
        "bottleneck",
        if bottleneck.is_some() { "yes" } else { "no" },
        bottleneck.unwrap_or_default(),
    );
    section
}

/// Everything that went wrong and has advice, the most frequent first.
pub fn troubles(report: &Report) -> Vec<Trouble> {
    let advised = report.outcomes.iter().filter_map(|(outcome, count)| {
        let advice = advice::of(*outcome)?;
        Some(Trouble { name: advice::name(*outcome), count: *count, advice })
    });
    let mut troubles: Vec<Trouble> = advised.filter(|trouble| trouble.count > 0).collect();
    troubles.sort_by_key(|trouble| std::cmp::Reverse(trouble.count));
    troubles
}

fn set_trouble(trouble: &Trouble) -> String {
    let mut text = format!("  {}: {}\n", trouble.name, grouped(trouble.count));
    for (head, said) in [("likely cause: ", trouble.advice.cause), ("try: ", trouble.advice.hint)] {
        for (index, line) in wrapped(said, COLUMNS_MAX - 4 - head.len()).into_iter().enumerate() {
            let head = if index == 0 { head.to_owned() } else { " ".repeat(head.len()) };
            text += &format!("    {head}{line}\n");
        }
    }
    text
}

/// Least width of names and of values, so that the sections stand in line.
const NOTED_COLUMNS: [usize; 2] = [21, 10];

/// A section as text: names left, figures right, notes left and wrapped.
fn set(section: &Section) -> String {
    let mut text = String::new();
    let columns = section.rows.iter().map(Vec::len).max().unwrap_or(0);
    let has_notes = section.heads.is_empty();
    let head = |column: usize| match column {
        0 => section.title.as_str(),
        _ => section.heads.get(column - 1).copied().unwrap_or_default(),
    };
    let width = |column: usize| {
        let cells = section.rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        // The title of a section with notes stands alone in its line.
        let least = match NOTED_COLUMNS.get(column) {
            Some(columns) if has_notes => *columns,
            _ => head(column).chars().count(),
        };
        widest.max(least)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    if has_notes {
        text += &format!("{}\n", section.title);
    } else {
        // The names are indented by two, the title is not.
        let mut line = left(head(0), widths[0] + 2);
        (1..columns).for_each(|column| line += &format!("  {}", right(head(column), widths[column])));
        text += &format!("{line}\n");
    }
    for row in &section.rows {
        text += &set_row(row, &widths, has_notes);
    }
    text
}

fn set_row(row: &[String], widths: &[usize], has_notes: bool) -> String {
    let mut line = format!("  {}", left(&row[0], widths[0]));
    let figures = if has_notes { 2 } else { row.len() };
    for (cell, width) in row[..figures].iter().zip(widths).skip(1) {
        line += &format!("  {}", right(cell, *width));
    }
    let note = row.get(figures).filter(|note| !note.is_empty());
    let Some(note) = note else { return format!("{}\n", line.trim_end()) };
    let indent = line.chars().count() + 2;
    let lines = wrapped(note, COLUMNS_MAX.saturating_sub(indent).max(20));
    format!("{line}  {}\n", lines.join(&format!("\n{}", " ".repeat(indent))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn printed(report: &Report) -> String {
        let mut out = Vec::new();
        print(report, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_summary_of_a_fanout_is_this_one() {
        assert_eq!(printed(&sample::fanout()), include_str!("sample_summary.txt"));
    }

    #[test]
    fn it_fits_80_columns_but_for_the_command() {
        let report = sample::fanout();
        for line in printed(&report).lines().filter(|line| line.trim() != report.command) {
            assert!(line.chars().count() <= COLUMNS_MAX, "{line:?}");
        }
    }

    #[test]
    fn what_was_not_measured_is_not_printed() {
        let mut report = sample::fanout();
        report.server = None;
        report.publisher = None;
        report.totals.messages = 0;
        report.totals.lost = 0;
        report.times.clear();
        report.tool_cost.loop_lag = Quantiles::default();
        report.outcomes.clear();
        let text = printed(&report);
        for title in ["SERVER", "MESSAGES", "REQUESTS", "TIMES", "OUTCOMES", "WHAT WENT WRONG"] {
            assert!(!text.contains(title), "{title}:\n{text}");
        }
    }

    #[test]
    fn requests_are_counted_apart_from_messages() {
        let mut report = sample::fanout();
        report.totals = Counts { sent: 110, succeeded: 90, unsuccessful: 10, ..Counts::default() };
        report.rates.insert("requests/s".to_owned(), 9.0);
        let text = printed(&report);
        assert!(text.contains("succeeded                      90  9.00 requests/s\n"), "{text}");
        assert!(text.contains("unsuccessful                   10  10.0 %\n"), "{text}");
    }

    #[test]
    fn a_bottleneck_is_told_with_its_reason() {
        let mut report = sample::fanout();
        report.tool_cost.bottleneck = Some("a worker used 99 % of a core in second 12".to_owned());
        assert!(printed(&report).contains("yes  a worker used 99 % of a core in second 12\n"));
    }

    #[test]
    fn the_most_frequent_trouble_comes_first() {
        let names: Vec<String> =
            troubles(&sample::fanout()).into_iter().map(|trouble| trouble.name).collect();
        assert_eq!(names, ["address not available", "503 service unavailable", "4000 slow consumer"]);
    }
}
