//! Measures what the gateway promises, each figure beside its goal and limit: `bench/run --help`.
//!
//! A driver: it starts the gateway, the bare baseline and the receivers as processes of their own
//! (`rig`), lets them work in pairs, and prints ratios of the same run. `bench/README.md` says how each
//! figure is measured and how to read it. One module per way of measuring: `space` (memory),
//! `delivery` (pushes out), `arrival` (connections in), `waiting` (latency and rest), `listing` (lists beside
//! pushes), `allocations` (a shard's heap).

#[allow(dead_code, reason = "the tool's, and it uses more of it")]
#[path = "../load/cpu.rs"]
mod cpu;
#[allow(dead_code, reason = "the tool's, and it uses more of it")]
#[path = "../load/coordinator/crew.rs"]
mod crew;
#[allow(dead_code, reason = "the tool's, and it uses more of it")]
#[path = "../load/failure.rs"]
mod failure;
#[allow(dead_code, reason = "the tool's, and it uses more of it")]
#[path = "../load/memory.rs"]
mod memory;
#[allow(dead_code, reason = "the tool's, and it uses more of it")]
#[path = "../load/plan.rs"]
mod plan;
#[allow(dead_code, reason = "the tool's, and it uses more of it")]
#[path = "../load/record.rs"]
mod record;

mod allocations;
mod arrival;
mod delivery;
mod listing;
mod rig;
mod space;
mod streams;
mod table;
mod waiting;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use cpu::raise_descriptor_limit;
pub use failure::Failure;
use rig::Outcome;
use rig::process::Role;
use table::{Reading, Verdict};

/// Measures what the gateway promises, beside goals and limits.
#[derive(Debug, Parser)]
#[command(name = "bench/run", bin_name = "bench/run")]
struct Arguments {
    /// Which figures; all unless given.
    figures: Vec<Figure>,
    /// Exit with status 1 when a limit is broken.
    #[arg(long)]
    check: bool,
    /// How often each is measured; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Write the readings there too, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Cargo says so; it is one.
    #[arg(long, hide = true)]
    bench: bool,
    /// What this process is, when it was started by itself.
    #[arg(long, hide = true, requires = "core")]
    role: Option<Role>,
    /// Where it stays then.
    #[arg(long, hide = true)]
    core: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// What the bare kernel does here, without the gateway.
    Machine,
    /// User memory of one idle connection.
    Memory,
    /// User memory of one idle event stream, and of one held poll.
    Streams,
    /// Kernel memory of one idle connection beyond its socket.
    Kernel,
    /// CPU per delivered broadcast, one at a time.
    Fanout,
    /// CPU per delivered broadcast to all transports.
    Mixed,
    /// Clients that come back and miss messages.
    Resume,
    /// Deliveries per second, broadcasts as fast as they go.
    Saturated,
    /// Connections accepted and upgraded per second.
    Accept,
    /// CPU of a connect that is refused.
    Refusal,
    /// Pushes to single users per second.
    Unicast,
    /// Push to receipt.
    Latency,
    /// CPU of idle connections.
    Idle,
    /// A broadcast beside a list of connections.
    Listing,
    /// Heap allocations of a warm shard.
    Allocations,
}

impl Figure {
    fn measure(self, runs: u32) -> Outcome<Vec<Reading>> {
        match self {
            Figure::Machine => Ok([delivery::machine(runs)?, arrival::machine(runs)?].concat()),
            Figure::Memory => space::memory(runs),
            Figure::Streams => space::memory_by_transport(runs),
            Figure::Mixed => streams::mixed(runs),
            Figure::Resume => streams::resume(runs),
            Figure::Kernel => space::kernel(runs),
            Figure::Fanout => delivery::fanout(runs),
            Figure::Saturated => delivery::saturated(runs),
            Figure::Accept => arrival::accept(runs),
            Figure::Refusal => arrival::refusal(runs),
            Figure::Unicast => delivery::unicast(runs),
            Figure::Latency => waiting::latency(runs),
            Figure::Idle => waiting::idle(),
            Figure::Listing => listing::listing(runs),
            Figure::Allocations => allocations::allocations(),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let (Some(role), Some(core)) = (arguments.role, arguments.core) {
        return match role.run(core) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{role:?}: {error}");
                ExitCode::FAILURE
            }
        };
    }
    match drive(&arguments) {
        Ok(broken) if broken && arguments.check => ExitCode::from(1),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench/run: {error}");
            ExitCode::from(2)
        }
    }
}

/// Measures and prints; whether a limit was broken. A figure that cannot be measured is not skipped:
/// that ends the run.
fn drive(arguments: &Arguments) -> Outcome<bool> {
    raise_descriptor_limit()?;
    let figures = match arguments.figures.as_slice() {
        [] => Figure::value_variants(),
        chosen => chosen,
    };
    println!("{}", table::heading());
    let mut readings = Vec::new();
    for figure in figures {
        let measured = figure.measure(arguments.runs).map_err(|error| format!("{figure:?}: {error}"))?;
        for reading in measured {
            println!("{}", reading.line());
            readings.push(reading);
        }
    }
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&readings)?)?;
    }
    Ok(readings.iter().any(|reading| reading.verdict() == Verdict::Broken))
}
