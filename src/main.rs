//! Arguments to command to exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    corecast::cli::run(std::env::args_os(), corecast::gateway::serve)
}
