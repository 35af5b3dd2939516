//! README, SECURITY.md and `.ci/run` say what the code does.

use corecast::config::Config;
use corecast::stats::CloseReason;
use toml::{Table, Value};

use super::source::{is_word, sources, words};

const README: &str = include_str!("../../README.md");
const SECURITY: &str = include_str!("../../SECURITY.md");
const CI: &str = include_str!("../../.ci/run");
const TEST_COMMAND: &str = include_str!("../run");
const FATAL: &str = include_str!("../../src/fatal.rs");
const CARGO: &str = include_str!("../../Cargo.toml");

/// What the README has under `## heading`.
#[track_caller]
fn section(heading: &str) -> &'static str {
    let begin = format!("\n## {heading}\n");
    let at = README.find(&begin).unwrap_or_else(|| panic!("README has no section {heading:?}"));
    let rest = &README[at + begin.len()..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

/// Rows of the tables in `text`, heads and rules left out; cells without their backticks.
pub fn rows(text: &str) -> Vec<Vec<String>> {
    let lines: Vec<&str> = text.lines().map(|line| line.trim_start_matches("//! ")).collect();
    let is_row = |line: &str| line.starts_with('|');
    let is_rule = |line: &str| line.starts_with("|--");
    let mut rows = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let is_head = lines.get(number + 1).is_some_and(|next| is_rule(next));
        if is_row(line) && !is_rule(line) && !is_head {
            let cells =
                line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`').to_owned());
            rows.push(cells.collect());
        }
    }
    rows
}

/// `limits.fragments` and `4096`, as TOML writes it, for every key.
pub fn defaults() -> Vec<(String, String)> {
    let table: Table = toml::from_str(&Config::default().to_toml()).unwrap();
    let mut keys = Vec::new();
    for (name, value) in table {
        match value {
            Value::Table(section) => {
                keys.extend(section.iter().map(|(key, value)| (format!("{name}.{key}"), value.to_string())));
            }
            value => keys.push((name, value.to_string())),
        }
    }
    // The one key without a value unless it is set.
    keys.push(("auth.mode".to_owned(), "unset".to_owned()));
    keys.sort();
    keys
}

#[test]
fn the_table_of_the_configuration_has_every_key_with_its_default() {
    let rows = rows(section("Configuration"));
    let mut shown: Vec<_> = rows.iter().map(|cells| (cells[0].clone(), cells[1].clone())).collect();
    shown.sort();
    assert_eq!(shown, defaults());
    assert!(rows.iter().all(|cells| cells.len() == 3 && !cells[2].is_empty()), "what happens at the limit?");
}

#[test]
fn the_table_of_exit_statuses_is_the_one_of_the_code() {
    let code = rows(FATAL);
    for cells in &code {
        let arm = format!("Self::{} {{ .. }} => {},", cells[1], cells[0]);
        assert!(FATAL.contains(&arm), "src/fatal.rs: its table and `status` differ: no `{arm}`");
    }
    let arms = FATAL.lines().filter(|line| {
        let status = line.trim().strip_prefix("Self::").and_then(|arm| arm.split_once("{ .. } => "));
        status.is_some_and(|(_, status)| status.trim_end_matches(',').parse::<u8>().is_ok())
    });
    assert_eq!(arms.count(), code.len(), "src/fatal.rs: `status` has more than its table");
    let at_start: Vec<_> = code.iter().map(|cells| [cells[0].clone(), cells[2].clone()]).collect();
    let shown = rows(section("Exit status"));
    assert_eq!(shown[..4].iter().map(|cells| &cells[0][..]).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    assert_eq!(shown[4..], at_start);
}

#[test]
fn the_table_of_close_reasons_is_the_one_of_the_code() {
    let rows = rows(section("Why a connection ended"));
    let shown: Vec<&str> = rows.iter().map(|cells| &cells[0][..]).collect();
    let code: Vec<&str> = CloseReason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(shown, code);
}

#[test]
fn the_two_commands_are_run_and_test_and_ci_runs_the_same_test() {
    let commands: Vec<&str> = section("The two commands")
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .map(|line| line.split('#').next().unwrap().trim())
        .collect();
    assert_eq!(commands, ["cargo run --release -- serve", "tests/run"]);
    assert!(CI.lines().any(|line| line == commands[1]), ".ci/run does not run `{}`", commands[1]);
    assert!(TEST_COMMAND.lines().any(|line| line.contains("cargo test --release")));
}

#[test]
fn every_test_is_declared_and_so_run() {
    // `autotests` is off: a file that nothing names would be a test that never runs.
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let is_test = path.join("main.rs").exists() || path.extension().is_some_and(|end| end == "rs");
        assert!(!is_test || CARGO.contains(&format!("name = \"{name}\"")), "Cargo.toml has no test {name}");
    }
}

#[test]
fn every_promise_of_security_md_names_tests_that_are_there() {
    let tests = sources(&["src", "tests"]);
    let is_there = |name: &str| {
        let begins = |code: &str, at: usize| code[..at].ends_with("fn ");
        tests.iter().any(|source| words(&source.code, name).any(|at| begins(&source.code, at)))
    };
    let promises = rows(SECURITY);
    assert!(!promises.is_empty());
    for cells in promises {
        let named: Vec<&str> = cells[1].split(|c| !is_word(c)).filter(|word| !word.is_empty()).collect();
        assert!(!named.is_empty(), "no test holds: {}", cells[0]);
        let gone: Vec<&&str> = named.iter().filter(|name| !is_there(name)).collect();
        assert!(gone.is_empty(), "SECURITY.md: no test is named {gone:?}");
    }
}
