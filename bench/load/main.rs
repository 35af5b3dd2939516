//! `corecast-bench`: a load generator for push gateways, ours and others'.
//!
//! ```text
//!  arguments ──► coordinator ── Order ──► worker   (one thread, one epoll, thousands of connections)
//!                │    ▲  └── publisher    │  worker
//!                │    └────── News ◄──────┘  worker   ... in as many processes as are needed
//!                ▼
//!              report ──► table, --json, --html, compare
//! ```
//!
//! | room | does |
//! |---|---|
//! | `arguments` | the command line |
//! | `plan` | the words between coordinator and workers |
//! | `coordinator` | starts workers, runs the phases, publishes, adds up |
//! | `worker` | the connections: no task and no buffer for one that waits |
//! | `wire` | protocols from the client's side, without I/O |
//! | `request` | what is sent: templates, variables, targets, cURL; and what a response must be |
//! | `record` | counters, outcomes, distributions |
//! | `report` | what is printed and written |
//! | `size` | estimates without a run |
//! | `server` | what the run costs the server's process |

mod arguments;
mod plan;
mod record;
mod report;
mod size;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use arguments::{Arguments, Compare, Mode, Page, Size};

/// Why a mode did not do what was asked, with words for people.
enum Failure {
    /// Arguments, or a file that they name, make no sense: status 2.
    Usage(String),
    /// Something could not be written: status 1.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Output(error)
    }
}

fn main() -> ExitCode {
    let done = match Arguments::parse().mode {
        Mode::Compare(asked) => compare(&asked),
        Mode::Page(asked) => page(&asked),
        Mode::Size(asked) => size(&asked),
        _ => Err(Failure::Usage("this mode is not built yet".to_owned())),
    };
    let (status, message) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        // `corecast-bench compare a b | head` did what it was asked for.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        Err(Failure::Output(error)) => (1, format!("cannot write: {error}")),
        Err(Failure::Usage(message)) => (2, message),
    };
    eprintln!("corecast-bench: {message}");
    ExitCode::from(status)
}

fn compare(asked: &Compare) -> Result<(), Failure> {
    let before = report::file::read(&asked.before).map_err(Failure::Usage)?;
    let after = report::file::read(&asked.after).map_err(Failure::Usage)?;
    let comparison = report::compare::compare(&before, &after);
    if let Some(html) = &asked.html {
        write_page(html, &[&before, &after])?;
    }
    let mut out = io::stdout().lock();
    if asked.json {
        return Ok(writeln!(out, "{}", serde_json::json!(comparison))?);
    }
    Ok(report::compare::print(&comparison, &mut out)?)
}

fn page(asked: &Page) -> Result<(), Failure> {
    let report = report::file::read(&asked.report).map_err(Failure::Usage)?;
    write_page(&asked.html, &[&report])
}

fn write_page(path: &Path, reports: &[&report::Report]) -> Result<(), Failure> {
    let written = report::file::replace(path, report::html::page(reports).as_bytes());
    written.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())).into())
}

fn size(asked: &Size) -> Result<(), Failure> {
    let memory = match &asked.report {
        Some(path) => {
            let report = report::file::read(path).map_err(Failure::Usage)?;
            size::Memory::of_report(&report).map_err(Failure::Usage)?
        }
        None => size::Memory::default(),
    };
    let estimate = size::estimate(asked, &memory).map_err(Failure::Usage)?;
    let mut out = io::stdout().lock();
    if asked.json {
        return Ok(writeln!(out, "{}", serde_json::json!(estimate))?);
    }
    Ok(size::print(&estimate, &mut out)?)
}
