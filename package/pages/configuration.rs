//! corecast.toml(5), from the file that the package installs: its comments are the manual.

use clap_mangen::roff::{Roff, bold, roman};

use crate::Page;
use crate::manual::inlines;

const FILE: &str = include_str!("../../systemd/corecast.toml");

/// One block of the file: comments, and the line that they are about. The file's head has none.
struct Block<'a> {
    comments: Vec<&'a str>,
    subject: Option<&'a str>,
}

/// The page.
pub fn page() -> Page {
    let mut roff = Roff::new();
    let source = concat!("corecast ", env!("CARGO_PKG_VERSION"));
    roff.control("TH", ["corecast.toml", "5", "", source, "Corecast"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("corecast.toml - the configuration of corecast(1)")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([roman("/etc/corecast/corecast.toml")]);
    roff.control("SH", ["DESCRIPTION"]);
    for block in FILE.split("\n\n").map(block) {
        match block.subject {
            None => {}
            Some(section) if section.starts_with('[') => {
                roff.control("SH", [section]);
            }
            Some(key) => {
                roff.control("TP", []);
                roff.text([bold(key)]);
            }
        }
        for comment in block.comments {
            roff.text(inlines(comment));
        }
        if block.subject.is_none() {
            roff.control("SH", ["KEYS"]);
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman("corecast(1), corecast-config(1)")]);
    Page { path: "man5/corecast.toml.5".to_owned(), text: roff.render() }
}

/// A key without a default stands in the file as a comment, `# mode = "open"`, below what is said of it.
fn block(text: &str) -> Block<'_> {
    let mut lines: Vec<&str> = text.trim_end().lines().collect();
    let is_commented_key = |line: &str| {
        let key = line.strip_prefix("# ").and_then(|line| line.split_once(" = "));
        key.is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let has_subject = lines.last().is_some_and(|line| !line.starts_with('#') || is_commented_key(line));
    let subject = if has_subject { lines.pop() } else { None };
    Block {
        comments: lines.into_iter().map(|line| line.trim_start_matches("# ")).collect(),
        subject: subject.map(|line| line.trim_start_matches("# ")),
    }
}
