//! The page and `compare`, from real reports, in a real browser.

use std::fs;
use std::path::Path;

use crate::bench::{Run, bench, beside, offline};
use crate::guest::chromium;
use crate::planted::Planted;
use crate::planted::script::Script;

/// A run with losses, long enough for two points in time.
fn measured() -> Run {
    let server = Planted::start(Script { drops: 10, ..Script::default() });
    let exact = [&*server.ws("/ws"), "--publish", "http", "--publish-url", &server.publish_url()];
    let run = bench("fanout", &exact, "-c 20 -m 50 --rate 25/s --linger 500ms");
    run.exits(1);
    run
}

/// The document once its scripts have run; fails where the browser logs anything of the page.
#[track_caller]
fn drawn(page: &Path) -> String {
    let (status, dom, log) = chromium(page).ended_with_errors();
    assert_eq!(status, 0, "{log}");
    assert_eq!(complaints(&log), [""; 0], "{log}");
    without_scripts(&dom)
}

/// What stands on the page, without what drew it.
fn without_scripts(dom: &str) -> String {
    let parts = dom.split("<script");
    parts.map(|part| part.split_once("</script>").map_or(part, |(_, rest)| rest)).collect()
}

/// What a page has written to its console, its uncaught errors among it.
fn complaints(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("CONSOLE")).collect()
}

/// Words that the page has to show, and as many charts as there are.
#[track_caller]
fn shows(dom: &str, words: &[&str]) {
    let charts = dom.matches("<svg").count();
    assert!(charts >= 4, "{charts} charts");
    let lines = dom.matches("<path").count() + dom.matches("<polyline").count();
    assert!(lines >= charts, "{lines} lines in {charts} charts");
    for word in words {
        assert!(dom.contains(word), "{word:?} is not on the page");
    }
    assert!(!dom.contains("NaN") && !dom.contains("undefined"), "a figure that is none is on the page");
}

#[test]
fn a_page_that_fails_is_seen_to_fail() {
    let _machine = beside();
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    fs::write(&page, "<!doctype html><p id=p>before</p><script>p.textContent = 'after'; nobody()</script>")
        .unwrap();
    let (status, dom, log) = chromium(&page).ended_with_errors();
    assert_eq!((status, dom.contains("after")), (0, true), "{log}");
    assert_eq!(complaints(&log).len(), 1, "{log}");
}

#[test]
fn the_page_of_a_run_is_drawn_without_a_complaint_and_without_the_net() {
    let _machine = beside();
    let run = measured();
    let json = run.json();
    let page = json.with_file_name("page.html");
    let again = offline(&["page", json.to_str().unwrap(), page.to_str().unwrap()]);
    assert_eq!(again.status, 0, "{}", again.stderr);
    let text = fs::read_to_string(&page).unwrap();
    for outside in ["src=\"http", "href=\"http", "@import", "url(http", "fetch("] {
        assert!(!text.contains(outside), "{outside} in a page that stands alone");
    }
    shows(&drawn(&page), &["fanout", "p99", "100"]);
}

#[test]
fn two_runs_are_laid_over_each_other() {
    let _machine = beside();
    let (before, after) = (measured(), measured());
    let paths = [before.json(), after.json()].map(|path| path.to_str().unwrap().to_owned());
    let page = before.json().with_file_name("both.html");
    let compared = offline(&["compare", &paths[0], &paths[1], "--html", page.to_str().unwrap()]);
    assert_eq!(compared.status, 0, "{}", compared.stderr);
    assert!(compared.stdout.contains("deliver") && compared.stdout.contains("p99"), "{}", compared.stdout);
    shows(&drawn(&page), &["p99"]);
    let compared = offline(&["compare", &paths[0], &paths[1], "--json"]);
    let value: serde_json::Value = serde_json::from_str(&compared.stdout).unwrap();
    assert!(value.is_object(), "{value}");
}

#[test]
fn html_of_a_run_is_the_page_of_its_report() {
    let _machine = beside();
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    let server = Planted::start(Script::default());
    let exact = [&*server.ws("/ws"), "--html", page.to_str().unwrap()];
    let run = bench("hold", &exact, "-c 10 --for 1200ms");
    run.exits(0);
    let again = directory.path().join("again.html");
    offline(&["page", run.json().to_str().unwrap(), again.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&page).unwrap(), fs::read_to_string(&again).unwrap());
}

#[test]
fn a_file_that_is_no_report_is_refused() {
    let _machine = beside();
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    for (name, text) in [("other.json", r#"{"format":99}"#), ("broken.json", "{"), ("none.json", "")] {
        let file = directory.path().join(name);
        if !text.is_empty() {
            fs::write(&file, text).unwrap();
        }
        let run = offline(&["page", file.to_str().unwrap(), page.to_str().unwrap()]);
        assert!(run.status == 1 || run.status == 2, "{name}: {}", run.said());
        assert!(run.stderr.contains(name) && !run.stderr.contains("panicked"), "{name}: {}", run.stderr);
        assert!(!page.exists());
    }
}

#[test]
fn sizing_answers_the_issue_s_example() {
    let run = offline(&["size", "--page-views", "30000000", "--seconds", "86400", "--per-node", "69"]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(run.stdout.contains("21") && run.stdout.replace(',', "").contains("1389"), "{}", run.stdout);
    assert_eq!(offline(&["size"]).status, 2);
}
