//! Arguments to command to exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    abort_on_panic();
    corecast::cli::run(std::env::args_os(), corecast::gateway::serve)
}

/// Rule 6: a panic anywhere ends the process, so that no core is left dead. By a hook and not by
/// `panic = "abort"`: tests and benchmarks then share one build of everything with the program.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}
