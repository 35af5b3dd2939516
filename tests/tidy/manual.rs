//! tuning/manual.md: the tables that are made from the code, between their marks, and those that are held against it.
//!
//! `MANUAL=write cargo test --test tidy manual` rewrites what is made.

use std::collections::BTreeSet;
use std::fmt::Write;

use corecast::config::{self, Config};
use corecast::control::command::ErrorCode;
use corecast::control::http::status_of;
use corecast::control::metrics_reference;
use corecast::stats::RefusalReason;
use corecast::wire::close::Refusal;
use toml::{Table, Value};

use super::documents::{defaults, rows};
use super::source::{Source, sources};

const MANUAL: &str = include_str!("../../tuning/manual.md");
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tuning/manual.md");
const FILE: &str = include_str!("../../systemd/corecast.toml");
const FATAL: &str = include_str!("../../src/fatal.rs");
const CLOSE: &str = include_str!("../../src/wire/close.rs");
const COMMAND: &str = include_str!("../../src/control/command.rs");
const ROUTES: &str = include_str!("../../src/control/routes.rs");

/// What stands between the marks of each part that is made.
fn parts() -> [(&'static str, String); 6] {
    [
        ("keys", keys()),
        ("close codes", close_codes()),
        ("errors", errors()),
        ("exit statuses", exit_statuses()),
        ("commands", commands()),
        ("metrics", metrics()),
    ]
}

fn marks(part: &str) -> (String, String) {
    (format!("<!-- made from the code: {part} -->\n"), format!("<!-- end of {part} -->\n"))
}

/// The manual as the code has it.
fn rewritten() -> String {
    let mut manual = MANUAL.to_owned();
    for (part, text) in parts() {
        let (begin, end) = marks(part);
        let from = manual.find(&begin).unwrap_or_else(|| panic!("no mark: {begin}")) + begin.len();
        let to = manual.find(&end).unwrap_or_else(|| panic!("no mark: {end}"));
        manual.replace_range(from..to, &format!("\n{text}\n"));
    }
    manual
}

/// What the manual has between the headings `## heading` and the next.
#[track_caller]
fn section(heading: &str) -> &'static str {
    let begin = format!("\n## {heading}\n");
    let at = MANUAL.find(&begin).unwrap_or_else(|| panic!("the manual has no section {heading:?}"));
    let rest = &MANUAL[at + begin.len()..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

#[test]
fn the_manual_is_as_the_code_has_it() {
    let now = rewritten();
    if std::env::var_os("MANUAL").is_some_and(|verb| verb == "write") {
        return std::fs::write(PATH, now).unwrap();
    }
    let differs = now.lines().zip(MANUAL.lines()).find(|(now, then)| now != then);
    assert!(
        now == MANUAL,
        "tuning/manual.md is behind the code, from this line on: {differs:#?}\n\
         rewrite it: MANUAL=write cargo test --test tidy manual"
    );
}

/// `what` of a doc comment or a comment in TOML, as one line of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn key_comment(key: &str) -> String {
    let (section, name) = key.split_once('.').map_or(("", key), |(section, name)| (section, name));
    let mut here = String::new();
    for block in FILE.split("\n\n") {
        let lines: Vec<&str> = block.lines().collect();
        if let Some(head) = lines.iter().find(|line| line.starts_with('[')) {
            head.trim_matches(['[', ']']).clone_into(&mut here);
        }
        let is_it = |line: &&str| {
            let assigned = line.trim_start_matches("# ").split_once(" = ").map(|(key, _)| key);
            here == section && assigned == Some(name)
        };
        if let Some(at) = lines.iter().rposition(is_it) {
            let comments = lines[..at].iter().filter_map(|line| line.strip_prefix('#'));
            return cell(&comments.collect::<Vec<_>>().join(" "));
        }
    }
    panic!("systemd/corecast.toml has no {key}")
}

/// What the configuration says of a value beyond its bounds, tried with the smallest and the largest.
fn bounds(key: &str, default: &str) -> String {
    let tries: &[&str] = match default.trim_matches('"') {
        number if number.parse::<u64>().is_ok() => &["0", "18446744073709551615", "4294967295", "65535"],
        size if size.ends_with('B') => &["0B", "1TiB"],
        time if default.starts_with('"') && humantime_like(time) => &["0s", "3000days"],
        _ => &[],
    };
    let mut told = BTreeSet::new();
    for value in tries {
        let mut overrides = Table::new();
        config::assign(&mut overrides, &format!("{key}={value}")).unwrap();
        let Err(refused) = config::load(None, std::iter::empty(), overrides) else { continue };
        let refused = refused.to_string();
        let must = refused.lines().next().and_then(|line| line.split_once("must be ")).map(|(_, must)| must);
        told.extend(must.map(str::to_owned));
    }
    told.into_iter().collect::<Vec<_>>().join("; ")
}

fn humantime_like(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && text.ends_with(|c: char| c.is_ascii_lowercase())
}

/// Every key of the configuration.
fn keys() -> String {
    let mut table = "| key | default | bounds | a change | what it is, and what happens at the limit |\n|---|---|---|---|---|\n".to_owned();
    for (key, default) in defaults() {
        let comment = key_comment(&key);
        let restart = comment.contains("A change needs a restart");
        let what = comment.replace("A change needs a restart.", "").trim().to_owned();
        let bounds = bounds(&key, &default);
        let change = if restart { "restart" } else { "reload" };
        let _ = writeln!(table, "| `{key}` | `{default}` | {} | {change} | {what} |", cell(&bounds));
    }
    table
}

/// What stands between `begin` and its end: each line that has documentation, and that as a cell.
fn documented(text: &'static str, begin: &str) -> Vec<(&'static str, String)> {
    let (_, rest) = text.split_once(begin).unwrap();
    let (mut found, mut docs) = (Vec::new(), String::new());
    for line in rest[..rest.find("\n}").unwrap()].lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("/// ") {
            docs = format!("{docs} {doc}");
        } else if !docs.is_empty() {
            found.push((line, cell(&std::mem::take(&mut docs))));
        }
    }
    found
}

/// `/// What.` and `pub const NAME: u16 = 1000;`
fn close_codes() -> String {
    let mut table = "| code | means |\n|---|---|\n".to_owned();
    for (line, docs) in documented(CLOSE, "pub mod code {") {
        let (_, code) = line.split_once(": u16 = ").unwrap();
        let _ = writeln!(table, "| {} | {docs} |", code.trim_end_matches(';'));
    }
    table
}

/// The variants of `ErrorCode`, with their documentation and status.
fn errors() -> String {
    let mut table = "| code | HTTP status | means |\n|---|---|---|\n".to_owned();
    for (line, docs) in documented(COMMAND, "pub enum ErrorCode {") {
        let name = snake(line.trim_end_matches(','));
        let code: ErrorCode = serde_json::from_value(name.clone().into()).unwrap();
        assert_eq!(code.name(), name);
        let _ = writeln!(table, "| `{name}` | {} | {docs} |", status_of(code));
    }
    table
}

/// `TooLarge` as `too_large`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

fn exit_statuses() -> String {
    let mut table = "| status | what happened |\n|---|---|\n".to_owned();
    for (status, what) in [
        ("0", "done"),
        ("1", "it failed: refused by the gateway, or the connection broke; `check` found too little"),
        ("2", "wrong usage or configuration"),
        ("3", "no gateway answers on the control socket"),
    ] {
        let _ = writeln!(table, "| {status} | {what} |");
    }
    for cells in rows(FATAL) {
        // A cell comes without the backtick that it ends with.
        let end = if cells[2].matches('`').count() % 2 == 1 { "`" } else { "" };
        let _ = writeln!(table, "| {} | {}{end} |", cells[0], cells[2]);
    }
    table
}

/// Every command and every argument of it, as `--help` has them.
fn commands() -> String {
    let mut text = String::new();
    let mut program = corecast::cli::definition();
    program.build();
    for command in
        program.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
    {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, "**`corecast {}`**: {about}.\n", command.get_name());
        let of_its_own = |argument: &&clap::Arg| {
            let id = argument.get_id().as_str();
            !argument.is_hide_set() && !["help", "socket", "version"].contains(&id)
        };
        let arguments: Vec<&clap::Arg> = command.get_arguments().filter(of_its_own).collect();
        if arguments.is_empty() {
            continue;
        }
        text += "| argument | means |\n|---|---|\n";
        for argument in arguments {
            let _ = writeln!(text, "| `{}` | {} |", usage(argument), help(argument));
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

fn usage(argument: &clap::Arg) -> String {
    let value = argument
        .get_value_names()
        .map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    let value = value.filter(|_| argument.get_action().takes_values()).unwrap_or_default();
    match (argument.get_short(), argument.get_long()) {
        (None, None) => value,
        (short, long) => {
            let short = short.map(|short| format!("-{short}"));
            let long = long.map(|long| format!("--{long}"));
            let names: Vec<String> = short.into_iter().chain(long).collect();
            format!("{} {value}", names.join(", ")).trim_end().to_owned()
        }
    }
}

fn help(argument: &clap::Arg) -> String {
    let mut help = cell(&argument.get_help().map(ToString::to_string).unwrap_or_default());
    let values: Vec<String> =
        argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if !values.is_empty() && argument.get_action().takes_values() && values != ["`true`", "`false`"] {
        let _ = write!(help, ": {}", values.join(", "));
    }
    let defaults = argument.get_default_values();
    if let (Some(default), true) = (defaults.first(), argument.get_action().takes_values()) {
        let _ = write!(help, ". Default: `{}`", default.to_string_lossy());
    }
    help
}

fn metrics() -> String {
    format!("| metric | type | labels | what it is |\n|---|---|---|---|\n{}", metrics_reference())
}

#[test]
fn the_manual_has_every_path_of_the_control_socket_with_its_methods() {
    let (_, rest) = ROUTES.split_once("fn methods(").unwrap();
    let body = &rest[..rest.find("\n}").unwrap()];
    let mut served = BTreeSet::new();
    for arm in body.split("Some(\"").collect::<Vec<_>>().windows(2) {
        let patterns = arm[0].rsplit_once("match segments {").map_or(arm[0], |(_, patterns)| patterns);
        let methods = arm[1].split('"').next().unwrap();
        for pattern in patterns.split('[').skip(1) {
            let pattern = pattern.split(']').next().unwrap();
            for path in alternatives(pattern) {
                served.extend(methods.split(", ").map(|method| format!("{method} {path}")));
            }
        }
    }
    assert!(served.len() > 10, "src/control/routes.rs: where are the methods of a path now? {served:?}");
    let mut shown = BTreeSet::new();
    for cells in rows(section("The control socket")) {
        let (methods, path) = cells[0].split_once(" /").unwrap();
        let path = path.split('?').next().unwrap();
        let blank = path.split('/').map(|segment| if segment.starts_with('{') { "_" } else { segment });
        let path = blank.collect::<Vec<_>>().join("/");
        shown.extend(methods.split(", ").map(|method| format!("{method} /{path}")));
    }
    assert_eq!(shown, served, "tuning/manual.md, \"The control socket\", and src/control/routes.rs differ");
}

/// `"v1", "push", "user" | "topic", _` as `/v1/push/user/_` and `/v1/push/topic/_`.
fn alternatives(pattern: &str) -> Vec<String> {
    let mut paths = vec![String::new()];
    for segment in pattern.split(',') {
        let choices: Vec<&str> = segment.split('|').map(|choice| choice.trim().trim_matches('"')).collect();
        paths = paths
            .iter()
            .flat_map(|path| choices.iter().map(move |choice| format!("{path}/{choice}")))
            .collect();
    }
    paths
}

#[test]
fn the_manual_has_every_refusal_of_a_request() {
    let answers = RefusalReason::ALL.iter().map(|&reason| Refusal::new(reason, ""));
    let made: BTreeSet<String> =
        answers.map(|refusal| format!("{} {}", refusal.status, refusal.code)).collect();
    let rows = rows(section("Refused requests of clients"));
    let shown: BTreeSet<String> = rows.iter().map(|cells| format!("{} {}", cells[0], cells[1])).collect();
    assert_eq!(shown, made, "tuning/manual.md, \"Refused requests of clients\", and the code differ");
}

#[test]
fn the_manual_has_every_type_of_event() {
    let sources = sources(&["src/shard"]);
    let found = sources.iter().find_map(|source| source.text.split_once("pub mod event_mask {"));
    let (_, rest) = found.expect("where are the types of events now?");
    let rest = &rest[..rest.find("\n}").unwrap()];
    let consts =
        rest.lines().filter_map(|line| line.trim().strip_prefix("pub const ")?.split_once(": u64 = "));
    let mut told: BTreeSet<String> = consts.map(|(name, _)| name.to_lowercase()).collect();
    // Of the reader itself, so that no mask has it.
    told.insert("dropped".to_owned());
    let shown: BTreeSet<String> = rows(section("Events")).iter().map(|cells| cells[0].clone()).collect();
    assert_eq!(shown, told);
}

#[test]
fn the_manual_says_of_the_same_keys_as_the_code_that_they_need_a_restart() {
    let made = keys();
    for (key, default) in defaults() {
        let other = match default.parse::<Value>() {
            Ok(Value::Integer(number)) => (number + 1).to_string(),
            Ok(Value::Boolean(is)) => (!is).to_string(),
            _ => match &key[..] {
                "listen" => "127.0.0.1:1".to_owned(),
                "control.socket" => "/x".to_owned(),
                "control.mailbox_bytes" => "1MiB".to_owned(),
                "log.format" => "json".to_owned(),
                "log.level" => "debug".to_owned(),
                "timeouts.send" => "11s".to_owned(),
                _ => continue,
            },
        };
        let mut overrides = Table::new();
        config::assign(&mut overrides, &format!("{key}={other}")).unwrap();
        let changed = config::load(None, std::iter::empty(), overrides).unwrap();
        let change = config::Change::new(&Config::default(), changed);
        let row = made.lines().find(|line| line.starts_with(&format!("| `{key}` "))).unwrap();
        let restart = row.contains("| restart |");
        assert_eq!(
            (change.kept == [key.clone()], change.taken == [key.clone()]),
            (restart, !restart),
            "{key}"
        );
    }
}

#[test]
fn what_logs_can_be_named_as_a_target() {
    let logs = |source: &&Source| source.code.contains("tracing::") && source.code.contains("!(");
    let room = |source: &Source| source.path["src/".len()..].split(['/', '.']).next().unwrap().to_owned();
    let rooms: BTreeSet<String> = sources(&["src"]).iter().filter(logs).map(room).collect();
    let named: BTreeSet<String> = corecast::control::command::LOG_TARGETS.map(str::to_owned).into();
    assert_eq!(named, rooms);
}
