//! Processes of others that end with the test.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

/// What to do about a client that is not there.
pub const INSTALL: &str = "install it with tests/gateway/install-clients.sh";

/// A process that ends with the test, and its children with it.
pub struct Guest(pub Child);

impl Guest {
    pub fn spawn(command: &mut Command) -> Self {
        let name = command.get_program().to_owned();
        let spawned = command.process_group(0).stderr(Stdio::null()).spawn();
        Self(spawned.unwrap_or_else(|error| panic!("{name:?}: {error}; {INSTALL}")))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// A server, where Debian puts them: outside the path of plain users.
pub fn server(program: &str) -> Command {
    let path = Path::new("/usr/sbin").join(program);
    Command::new(if path.exists() { path } else { program.into() })
}

/// The arguments of a Chromium without a window that keeps everything it writes in `directory`.
pub fn chromium_arguments(directory: &Path) -> Vec<String> {
    let profile = format!("--user-data-dir={}", directory.join("profile").display());
    let fixed = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
    ];
    fixed.map(str::to_owned).into_iter().chain([profile]).collect()
}
