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
//! | `offline` | modes that read reports and connect to nobody; `size` is one |
//! | `size` | estimates without a run |
//! | `server` | what the run costs the server's process |

mod arguments;
mod coordinator;
#[allow(dead_code, reason = "bench/figures uses more of it")]
mod cpu;
mod failure;
#[allow(dead_code, reason = "bench/figures uses more of it")]
mod memory;
mod offline;
mod plan;
mod record;
mod report;
mod request;
mod server;
mod size;
mod wire;
mod worker;

use std::io;
use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Mode};
use coordinator::modes;
pub use failure::Failure;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().mode {
        Mode::Hold(arguments) => modes::hold(&arguments),
        Mode::Fanout(arguments) => modes::fanout(&arguments),
        Mode::Unicast(arguments) => modes::unicast(&arguments),
        Mode::Echo(arguments) => modes::echo(&arguments),
        Mode::Request(arguments) => modes::request(&arguments),
        Mode::Chat(arguments) => modes::chat(&arguments),
        Mode::Storm(arguments) => modes::storm(&arguments),
        Mode::Compare(arguments) => offline::compare(&arguments).map(|()| 0),
        Mode::Page(arguments) => offline::page(&arguments).map(|()| 0),
        Mode::Size(arguments) => offline::size(&arguments).map(|()| 0),
        Mode::Stamp(arguments) => offline::stamp(&arguments).map(|()| 0),
        Mode::Worker(arguments) => worker::run(&arguments).map(|()| 0),
    };
    match outcome {
        Ok(status) => ExitCode::from(status),
        // `corecast-bench compare a b | head` did what it was asked for.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corecast-bench: {error}");
            ExitCode::from(failure::exit_status(&error))
        }
    }
}

fn is_broken_pipe(failure: &Failure) -> bool {
    failure.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
