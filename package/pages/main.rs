//! Writes the manual pages and the shell completions of both programs, from their command lines.
//!
//! ```text
//! cargo run --example pages -- DIRECTORY     writes man1/, man5/, bash/, zsh/, fish/ there
//! ```
//!
//! `package/build` runs it before it packs, `systemd/install.sh` takes what it wrote. An example and no
//! subcommand: the gateway does not grow by what is wanted once, where it is built.

#[allow(dead_code, unused_imports, reason = "the tool's; only its definition is of interest here")]
#[path = "../../bench/load/arguments/mod.rs"]
mod arguments;
#[allow(dead_code, reason = "the tool's, and its arguments name it")]
#[path = "../../bench/load/plan.rs"]
mod plan;
#[allow(dead_code, reason = "the tool's, and its plan names it")]
#[path = "../../bench/load/record.rs"]
mod record;

mod completions;
mod configuration;
mod manual;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;

/// One file: where it goes below the directory, and what is in it.
struct Page {
    path: String,
    text: String,
}

/// The two programs.
fn programs() -> [clap::Command; 2] {
    [corecast::cli::definition(), arguments::Arguments::command()]
}

/// Everything that is written.
fn pages() -> Vec<Page> {
    let mut pages = vec![configuration::page()];
    for program in programs() {
        pages.extend(manual::pages(&program));
        pages.extend(completions::pages(&program));
    }
    pages
}

fn write_all(directory: &Path) -> io::Result<()> {
    for page in pages() {
        let path = directory.join(&page.path);
        fs::create_dir_all(path.parent().unwrap_or(directory))?;
        fs::write(path, page.text)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(directory), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: cargo run --example pages -- DIRECTORY");
        return ExitCode::from(2);
    };
    match write_all(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pages: cannot write below {}: {error}", Path::new(&directory).display());
            ExitCode::FAILURE
        }
    }
}
