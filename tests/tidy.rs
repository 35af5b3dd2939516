//! The rules of style that a machine can keep: layers, lengths, names, and documents in step with the
//! code. The map in `src/lib.rs` says what the layers are; here is what each room may see.

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/manual.rs"]
mod manual;
#[path = "tidy/source.rs"]
mod source;

use source::{Source, functions, line_of, paths, sources, words};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Everything in Rust that is kept in the repository.
const ALL: &[&str] = &["src", "tests", "bench", "fuzz", "package"];

/// What each room may name of the others. A path allows what lies under it.
const SEES: &[(&str, &[&str])] = &[
    ("main", &["cli", "gateway"]),
    (
        "cli",
        &[
            "auth",
            "client",
            "config",
            "connections",
            "control",
            "fatal",
            "host",
            "message",
            "shard::mailbox",
            "stats",
        ],
    ),
    (
        "gateway",
        &["auth", "config", "control", "fatal", "host", "message", "ring", "service", "shard", "stats"],
    ),
    ("client", &["connections", "control::codec", "control::command", "message", "stats"]),
    (
        "control",
        &[
            "auth",
            "config",
            "connections",
            "fatal",
            "message",
            "ring",
            "service",
            "shard::mailbox",
            "stats",
            "wire",
        ],
    ),
    ("shard", &["auth", "config", "connections", "message", "ring", "stats", "wire"]),
    ("wire", &["auth", "message", "stats"]),
    ("auth", &["message"]),
    ("ring", &[]),
    ("service", &[]),
    ("host", &["fatal"]),
    ("fatal", &[]),
    ("config", &["auth"]),
    ("connections", &["message"]),
    ("message", &[]),
    ("stats", &[]),
];

/// Ways to the outside: sockets, files and clocks. A `Duration` is a number and reads nothing.
const OUTSIDE: &[&str] =
    &["std::net", "std::io", "std::fs", "std::os", "std::thread", "std::process", "std::env"];
const OUTSIDE_CRATES: &[&str] = &["glommio", "io_uring", "rustix", "libc", "flume"];

/// What breaks a rule, as `path:line: what`, all of it at once.
#[track_caller]
fn assert_none(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

/// `src/shard/conn.rs` is of `shard`, `src/gateway.rs` is `gateway`.
fn room(path: &str) -> &str {
    let path = path.strip_prefix("src/").unwrap();
    path.split(['/', '.']).next().unwrap()
}

fn is_under(path: &str, allowed: &str) -> bool {
    path.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// What `source` names of other rooms, by whichever root.
fn foreign_paths(source: &Source) -> Vec<(usize, String)> {
    let root = if source.path == "src/main.rs" { "corecast" } else { "crate" };
    let mut found = paths(&source.code, root);
    let depth = source.path.trim_end_matches("/mod.rs").matches('/').count();
    let climb = vec!["super"; depth].join("::");
    // `super` as often as the file is deep is the crate itself.
    found.extend(
        paths(&source.code, &climb)
            .into_iter()
            .filter(|(_, path)| SEES.iter().any(|(room, _)| is_under(path, room))),
    );
    found.retain(|(_, path)| !is_under(path, room(&source.path)));
    found
}

#[test]
fn imports_point_one_way() {
    let mut broken = Vec::new();
    for source in sources(&["src"]).iter().filter(|source| source.path != "src/lib.rs") {
        let room = room(&source.path);
        let row = SEES.iter().find(|(name, _)| *name == room);
        let (_, sees) = row.unwrap_or_else(|| panic!("SEES has no row for {room} ({})", source.path));
        for (line, path) in foreign_paths(source) {
            if !sees.iter().any(|allowed| is_under(&path, allowed)) {
                broken.push(format!("{}:{line}: {room} sees {path}", source.path));
            }
        }
    }
    assert_none("each room sees only what SEES allows", broken);
}

#[test]
fn what_a_room_sees_never_sees_it() {
    let seen_by = |room: &str| SEES.iter().find(|(name, _)| *name == room).unwrap().1;
    let name = |path: &&str| path.split("::").next().unwrap().to_owned();
    for (room, sees) in SEES {
        let mut reached: Vec<String> = sees.iter().map(name).collect();
        let mut at = 0;
        while let Some(next) = reached.get(at).cloned() {
            assert_ne!(next, *room, "{room} sees itself through others");
            for further in seen_by(&next).iter().map(name) {
                if !reached.contains(&further) {
                    reached.push(further);
                }
            }
            at += 1;
        }
    }
}

#[test]
fn rule_1_wire_does_no_io_and_reads_no_clock() {
    let mut broken = Vec::new();
    for source in sources(&["src/wire", "bench/load/wire"]) {
        for (line, path) in paths(&source.code, "std") {
            if OUTSIDE.iter().any(|outside| is_under(&format!("std::{path}"), outside)) {
                broken.push(format!("{}:{line}: std::{path}", source.path));
            }
        }
        for word in OUTSIDE_CRATES.iter().chain(&["Instant", "SystemTime"]) {
            broken.extend(words(&source.code, word).map(|at| at_line(&source, at, word)));
        }
    }
    assert_none("wire is pure", broken);
}

fn at_line(source: &Source, at: usize, what: &str) -> String {
    format!("{}:{}: {what}", source.path, line_of(&source.code, at))
}

#[test]
fn auth_does_no_io_and_takes_its_times_as_arguments() {
    let mut broken = Vec::new();
    for source in sources(&["src/auth"]) {
        for (line, path) in paths(&source.code, "std") {
            if OUTSIDE.iter().any(|outside| is_under(&format!("std::{path}"), outside)) {
                broken.push(format!("{}:{line}: std::{path}", source.path));
            }
        }
        // `jsonwebtoken` reads the clock where it is given a `Validation`.
        for word in OUTSIDE_CRATES.iter().chain(&["SystemTime", "Validation"]) {
            broken.extend(words(&source.code, word).map(|at| at_line(&source, at, word)));
        }
    }
    assert_none("auth is pure", broken);
}

#[test]
fn unsafe_stands_in_one_file() {
    let mut broken = Vec::new();
    let mut fenced = 0;
    for source in sources(ALL) {
        for word in ["unsafe", "unsafe_code"] {
            let found: Vec<usize> = words(&source.code, word).collect();
            if source.path == "src/ring/kernel.rs" {
                fenced += found.len();
            } else {
                broken.extend(found.into_iter().map(|at| at_line(&source, at, word)));
            }
        }
    }
    assert_none("only src/ring/kernel.rs is unsafe, or allows it", broken);
    assert!(fenced > 0, "the file of `unsafe` has moved: say where");
}

#[test]
fn what_only_the_load_generator_needs_does_not_reach_the_gateway() {
    let cargo: toml::Table =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap().parse().unwrap();
    let is_optional =
        |value: &toml::Value| value.get("optional").and_then(toml::Value::as_bool) == Some(true);
    // Unit tests may use what is there for tests.
    let of_tests = cargo["dev-dependencies"].as_table().unwrap();
    let crates = cargo["dependencies"].as_table().unwrap().iter();
    let crates = crates.filter(|(name, value)| is_optional(value) && !of_tests.contains_key(*name));
    let crates: Vec<String> = crates.map(|(name, _)| name.replace('-', "_")).collect();
    assert!(!crates.is_empty(), "the load generator has crates of its own: say where they stand now");
    let mut broken = Vec::new();
    for source in sources(&["src"]) {
        for name in &crates {
            broken.extend(words(&source.code, name).map(|at| at_line(&source, at, name)));
        }
    }
    assert_none("the gateway names no crate of the load generator", broken);
}

#[test]
fn no_file_is_longer_than_600_lines_and_no_function_than_70() {
    let mut broken = Vec::new();
    for source in sources(ALL) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            broken.push(format!("{}: {lines} lines", source.path));
        }
        for function in functions(&source.code).iter().filter(|f| f.lines > FUNCTION_LINES_MAX) {
            let (path, line) = (&source.path, function.line);
            broken.push(format!("{path}:{line}: fn {} has {} lines", function.name, function.lines));
        }
    }
    assert_none("what is longer does two things", broken);
}

#[test]
fn no_room_is_named_after_nothing() {
    const NAMES: [&str; 4] = ["utils", "common", "helpers", "manager"];
    let mut broken = Vec::new();
    for source in sources(ALL) {
        let mut segments = source.path.trim_end_matches(".rs").split('/');
        broken.extend(segments.any(|segment| NAMES.contains(&segment)).then(|| source.path.clone()));
        for at in words(&source.code, "mod") {
            let rest = source.code[at + 3..].trim_start();
            let name = rest.split(|c| !source::is_word(c)).next().unwrap_or_default();
            broken.extend(NAMES.contains(&name).then(|| at_line(&source, at, name)));
        }
    }
    assert_none("a module's name says what it holds", broken);
}

#[test]
fn every_file_of_the_program_says_what_it_is() {
    let silent = sources(&["src"]).into_iter().filter(|source| !source.text.starts_with("//! "));
    assert_none("a file begins with //!", silent.map(|source| source.path).collect());
}

#[test]
fn sizes_that_are_promised_are_asserted() {
    let promised = [
        ("src/shard/conn.rs", "const _: () = assert!(size_of::<Slot>() <= 64"),
        ("src/shard/tape.rs", "const _: () = assert!(size_of::<Link>() == 16"),
        ("src/shard/tape.rs", "const _: () = assert!(size_of::<Entry>() <= 80"),
    ];
    let sources = sources(&["src/shard"]);
    for (path, assertion) in promised {
        let source = sources.iter().find(|source| source.path == path).unwrap();
        assert!(source.code.contains(assertion), "{path} has no `{assertion}`");
    }
}

#[test]
fn the_map_shows_every_room_and_states_every_rule_that_is_cited() {
    let sources = sources(ALL);
    let map = &sources.iter().find(|source| source.path == "src/lib.rs").unwrap().text;
    for (room, _) in SEES {
        assert!(
            map.contains(&format!("//! | [`{room}`]")) || *room == "main",
            "src/lib.rs: no line for {room}"
        );
    }
    for source in &sources {
        for (at, _) in source.text.match_indices("Rule ") {
            let number: String = source.text[at + 5..].chars().take_while(char::is_ascii_digit).collect();
            let stated = number.is_empty() || map.contains(&format!("//! {number}. "));
            assert!(stated, "{}:{}: there is no Rule {number}", source.path, line_of(&source.text, at));
        }
    }
}
