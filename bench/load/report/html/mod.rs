//! The page: one file that needs nothing else, with tables set here and charts drawn by a little script.
//!
//! `page.html` is the frame: its style, its script, and places in double braces. What stands in the places
//! is escaped here: names of servers, errors and commands come from outside. A browser without the script
//! shows the tables and, for each chart, a sentence.

mod charts;

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::compare::{Comparison, Judgement, cells, compare};
use super::summary::{Section, machine, sections, troubles};
use super::text::{grouped, percent, time};
use super::{Quantiles, Report, advice};
use crate::record::{Outcome, Timed};

const FRAME: &str = include_str!("page.html");

/// The last moment of the year 9999.
const YEAR_9999_UNIX_MS: u64 = 253_402_300_799_999;

/// What two runs are called.
const RUNS: [&str; 2] = ["before", "after"];

/// What the script draws from.
#[derive(Serialize)]
struct Data<'a> {
    charts: &'a [charts::Chart],
}

/// The page of one run, or of two laid over each other (`before`, `after`).
///
/// Panics on any other number: that is the caller's mistake.
pub fn page(reports: &[&Report]) -> String {
    assert!(matches!(reports.len(), 1 | 2), "a page shows one run or two");
    let charts = charts::charts(reports);
    let comparison = (reports.len() == 2).then(|| compare(reports[0], reports[1]));
    let mut figures = String::new();
    charts.iter().enumerate().for_each(|(index, chart)| figures += &figure(index, chart));
    let tables = match &comparison {
        None => sections(reports[0]).iter().map(section_table).collect(),
        Some(comparison) => comparison_table(comparison) + &outcomes_table(reports),
    };
    filled(&[
        ("title", escaped(&title(reports))),
        ("head", head(reports, comparison.as_ref())),
        ("cards", cards(reports)),
        ("charts", figures),
        ("tables", tables),
        ("troubles", troubles_list(reports)),
        ("data", data(&charts)),
    ])
}

/// The frame with its places filled. A place in what is filled in stays as it is.
fn filled(places: &[(&str, String)]) -> String {
    let mut page =
        String::with_capacity(FRAME.len() + places.iter().map(|(_, text)| text.len()).sum::<usize>());
    let mut rest = FRAME;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").expect("page.html closes its braces");
        let (_, text) = places.iter().find(|(place, _)| *place == name).expect("page.html names a place");
        page += before;
        page += text;
        rest = after;
    }
    page + rest
}

/// `text` fit for an element or a quoted attribute.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// `text` fit for an element, its `--flags` kept whole: browsers break a line after a dash.
fn prose(text: &str) -> String {
    let word = |word: &str| match word.starts_with('-') && word.len() > 1 {
        true => format!("<span class=\"flag\">{}</span>", escaped(word)),
        false => escaped(word),
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// JSON fit for a script element: `</script>` and `<!--` cannot occur without a `<`.
fn data(charts: &[charts::Chart]) -> String {
    let json = serde_json::to_string(&Data { charts }).expect("plain data");
    json.replace('<', "\\u003c")
}

fn title(reports: &[&Report]) -> String {
    match reports {
        [report] => format!("{} {}", report.tool, report.mode),
        _ => format!("{} compared", reports[0].mode),
    }
}

fn head(reports: &[&Report], comparison: Option<&Comparison>) -> String {
    let mut html = format!("<h1>{}</h1>\n", escaped(&title(reports)));
    html += "<div class=\"runs\">\n";
    for (run, report) in reports.iter().enumerate() {
        let name = if reports.len() == 1 { "" } else { RUNS[run] };
        html += &run_head(name, run, report);
    }
    html += "</div>\n";
    if let Some(comparison) = comparison.filter(|comparison| !comparison.warnings.is_empty()) {
        html += "<div class=\"warnings\"><h2>Before you believe the difference</h2><ul>\n";
        for warning in &comparison.warnings {
            let _ = writeln!(html, "<li>{}</li>", prose(warning));
        }
        html += "</ul></div>\n";
    }
    html
}

fn run_head(name: &str, run: usize, report: &Report) -> String {
    let status = report.verdict.exit_status;
    let class = if status == 0 { "well" } else { "wrong" };
    let heading = match name {
        "" => String::new(),
        name => format!("<h2><span class=\"swatch c{run}\"></span>{name}</h2>\n"),
    };
    // The crate writes no date after the year 9999, and a report is a file that anyone may have edited.
    let started = UNIX_EPOCH + Duration::from_millis(report.started_unix_ms.min(YEAR_9999_UNIX_MS));
    let started = humantime::format_rfc3339_seconds(started);
    format!(
        "<section class=\"run\">\n{heading}<p class=\"verdict {class}\"><strong>{mark}</strong> {verdict} \
         <span class=\"aside\">(exit status {status})</span></p>\n<pre><code>{command}</code></pre>\n\
         <p class=\"aside\">{started}, {took}, {machine}, {tool}</p>\n</section>\n",
        mark = if status == 0 { "Passed:" } else { "Failed:" },
        verdict = prose(&report.verdict.text),
        command = command(&report.command),
        took = time(report.elapsed_s * 1e6),
        machine = escaped(&machine(report)),
        tool = escaped(&report.tool),
    )
}

/// Words in boxes of their own, so that `--ramp` is not broken after its first dash.
fn command(command: &str) -> String {
    let word = |word: &str| format!("<span>{}</span>", escaped(word));
    command.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The few figures that are read first.
fn cards(reports: &[&Report]) -> String {
    let mut html = String::new();
    let mut card = |name: &str, value: &dyn Fn(&Report) -> Option<String>| {
        let values: Vec<Option<String>> = reports.iter().map(|report| value(report)).collect();
        if values.iter().all(Option::is_none) {
            return;
        }
        let _ = write!(html, "<div class=\"card\"><dt>{}</dt>", escaped(name));
        for (run, value) in values.iter().enumerate() {
            let value = escaped(value.as_deref().unwrap_or("-"));
            let _ = match reports.len() {
                1 => write!(html, "<dd>{value}</dd>"),
                _ => {
                    let name = RUNS[run];
                    write!(html, "<dd class=\"c{run}\"><span class=\"unseen\">{name} </span>{value}</dd>")
                }
            };
        }
        html += "</div>\n";
    };
    card("open connections", &|report| Some(grouped(report.open)));
    let rates = ["deliveries/s", "requests/s", "connects/s"];
    for rate in rates {
        card(rate, &|report| report.rates.get(rate).map(|rate| super::text::number(*rate)));
    }
    let timed = main_timed(reports);
    for (name, figure) in
        Quantiles::FIGURES.into_iter().filter(|(name, _)| ["p50", "p99", "max"].contains(name))
    {
        let name = format!("{} {name}", super::summary::timed_name(timed));
        let of = |report: &Report| Some(time(figure(&report.times.get(&timed)?.quantiles)));
        card(&name, &of);
    }
    card("failures", &|report| Some(percent(report.verdict.failure_share)));
    html
}

/// What the run was made for.
fn main_timed(reports: &[&Report]) -> Timed {
    let timed = [Timed::Delivery, Timed::Response, Timed::Reconnect];
    let was = |timed: &Timed| reports.iter().any(|report| report.times.contains_key(timed));
    timed.into_iter().find(was).unwrap_or(Timed::Connect)
}

/// A place for the script to draw in, with its sentence.
fn figure(index: usize, chart: &charts::Chart) -> String {
    let title = escaped(&chart.title);
    let description = escaped(&chart.description);
    format!(
        "<figure data-chart=\"{index}\">\n<figcaption><h3 id=\"chart-{index}\">{title}</h3></figcaption>\n\
         <div class=\"plot\"></div>\n<p class=\"description\" id=\"description-{index}\">{description}</p>\n\
         </figure>\n"
    )
}

fn section_table(section: &Section) -> String {
    let has_notes = section.heads.is_empty();
    let title = escaped(&section.title);
    let mut html = format!("<div class=\"table\"><table><caption>{title}</caption>\n");
    let heads: &[&str] = if has_notes { &["value", "note"] } else { &section.heads };
    let class = if has_notes { " class=\"unseen\"" } else { "" };
    let _ = write!(html, "<thead{class}><tr><th scope=\"col\"><span class=\"unseen\">name</span></th>");
    heads.iter().for_each(|head| html += &format!("<th scope=\"col\">{}</th>", escaped(head)));
    html += "</tr></thead>\n<tbody>\n";
    for row in &section.rows {
        let _ = write!(html, "<tr><th scope=\"row\">{}</th>", escaped(&row[0]));
        for (column, cell) in row.iter().enumerate().skip(1) {
            let class = if has_notes && column == 2 { " class=\"note\"" } else { "" };
            let _ = write!(html, "<td{class}>{}</td>", prose(cell));
        }
        html += "</tr>\n";
    }
    html + "</tbody></table></div>\n"
}

fn comparison_table(comparison: &Comparison) -> String {
    let mut html =
        String::from("<div class=\"table wide\"><table><caption>BEFORE AND AFTER</caption>\n<thead><tr>");
    html += "<th scope=\"col\"><span class=\"unseen\">name</span></th><th scope=\"col\" class=\"c0\">before</th>\
             <th scope=\"col\" class=\"c1\">after</th><th scope=\"col\">ratio</th>\
             <th scope=\"col\">seconds</th><th scope=\"col\">difference</th></tr></thead>\n<tbody>\n";
    for row in &comparison.rows {
        let [name, values @ .., judgement] = cells(row);
        let _ = write!(html, "<tr><th scope=\"row\">{}</th>", escaped(&name));
        values.iter().for_each(|value| html += &format!("<td>{}</td>", escaped(value)));
        let class = match row.judgement {
            Judgement::Better => "well",
            Judgement::Worse => "wrong",
            Judgement::Within | Judgement::Unknown => "aside",
        };
        let _ = writeln!(html, "<td class=\"{class}\">{judgement}</td></tr>");
    }
    html += "</tbody></table>\n";
    html + &format!("<p class=\"aside\">{}</p></div>\n", prose(comparison.method))
}

/// How things ended in both runs.
fn outcomes_table(reports: &[&Report]) -> String {
    let mut outcomes: Vec<Outcome> =
        reports.iter().flat_map(|report| report.outcomes.keys().copied()).collect();
    outcomes.sort();
    outcomes.dedup();
    let mut section = Section { title: "OUTCOMES".to_owned(), heads: RUNS.to_vec(), rows: Vec::new() };
    for outcome in outcomes {
        let counts =
            reports.iter().map(|report| grouped(report.outcomes.get(&outcome).copied().unwrap_or(0)));
        section.rows.push(std::iter::once(advice::name(outcome)).chain(counts).collect());
    }
    if section.rows.is_empty() { String::new() } else { section_table(&section) }
}

/// What went wrong in any run, once each, with advice.
fn troubles_list(reports: &[&Report]) -> String {
    let mut html = String::new();
    let mut named = Vec::new();
    for trouble in reports.iter().flat_map(|report| troubles(report)) {
        if named.contains(&trouble.name) {
            continue;
        }
        let counts: Vec<String> = reports
            .iter()
            .map(|report| {
                let found = troubles(report).into_iter().find(|other| other.name == trouble.name);
                grouped(found.map_or(0, |found| found.count))
            })
            .collect();
        let _ = writeln!(
            html,
            "<div class=\"trouble\"><h3>{} <span class=\"count\">{}</span></h3>\n<p>Likely cause: {}.</p>\n\
             <p>Try: {}</p></div>",
            escaped(&trouble.name),
            counts.join(", then "),
            prose(trouble.advice.cause),
            prose(trouble.advice.hint),
        );
        named.push(trouble.name);
    }
    if html.is_empty() { html } else { format!("<section>\n<h2>What went wrong</h2>\n{html}</section>\n") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn every_place_of_the_frame_is_filled() {
        let page = page(&[&sample::fanout()]);
        assert!(!page.contains("{{") && page.ends_with("</html>\n"));
    }

    #[test]
    fn what_comes_from_outside_cannot_become_markup() {
        let mut report = sample::fanout();
        report.command = "corecast-bench hold '</script><img src=x onerror=alert(1)>{{data}}'".to_owned();
        report.phases[0].name = "</script><!--".to_owned();
        report.server.as_mut().unwrap().name = "<b>\"x\"".to_owned();
        let page = page(&[&report]);
        assert_eq!(page.matches("</script>").count(), FRAME.matches("</script>").count());
        assert!(!page.contains("<img") && !page.contains("<b>") && !page.contains("</script><!--"));
        assert!(page.contains("&lt;img</span>") && page.contains("onerror=alert(1)&gt;{{data}}"));
    }

    #[test]
    fn a_report_with_nothing_in_it_is_a_page_all_the_same() {
        let mut report = sample::fanout();
        report.seconds.clear();
        report.phases.clear();
        report.times.clear();
        report.outcomes.clear();
        report.totals = crate::record::Counts::default();
        report.started_unix_ms = u64::MAX;
        assert!(page(&[&report]).contains("9999-12-31T23:59:59Z"));
        assert!(page(&[&report, &sample::fanout()]).contains("BEFORE AND AFTER"));
    }

    #[test]
    fn the_page_asks_for_nothing_from_outside() {
        let page = page(&[&sample::fanout(), &sample::slower(2.0)]);
        for part in ["src=", "href=\"http", "@import", "url(", "fetch("] {
            assert!(!page.contains(part), "{part}");
        }
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn the_data_is_json_that_holds_every_chart() {
        let page = page(&[&sample::fanout()]);
        let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
        let (json, _) = rest.split_once("</script>").unwrap();
        let data: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(data["charts"].as_array().unwrap().len(), page.matches("<figure ").count());
        assert_eq!(data["charts"][0]["series"][0]["points"].as_array().unwrap().len(), 31);
    }

    #[test]
    fn one_run_has_its_tables_and_two_have_the_difference() {
        let one = page(&[&sample::fanout()]);
        assert!(one.contains("<caption>CONNECTIONS</caption>") && !one.contains("BEFORE AND AFTER"));
        assert!(one.contains("address not available <span class=\"count\">60</span>"));
        let two = page(&[&sample::fanout(), &sample::slower(2.0)]);
        assert!(two.contains("BEFORE AND AFTER") && two.contains("<td class=\"wrong\">worse</td>"));
        assert!(two.contains("<span class=\"count\">60, then 60</span>"));
    }
}
