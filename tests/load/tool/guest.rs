//! Programs of others: curl, Python's `websockets`, nginx, Chromium. They end with the test.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::bench::wait;
use crate::planted::DEADLINE;

const INSTALL: &str = "install it with tests/gateway/install-clients.sh";

/// A process of its own group, with a directory of its own.
pub struct Guest {
    child: Child,
    pub directory: TempDir,
}

impl Guest {
    /// Starts it; what it says goes to files of `directory`.
    #[track_caller]
    pub fn start(command: &mut Command, directory: TempDir) -> Self {
        let file = |name: &str| File::create(directory.path().join(name)).unwrap();
        command.process_group(0).stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        let name = command.get_program().to_owned();
        let child = command.spawn().unwrap_or_else(|error| panic!("{name:?}: {error}; {INSTALL}"));
        Self { child, directory }
    }

    /// Waits for its end: its exit status and standard output.
    #[track_caller]
    pub fn ended(mut self) -> (i32, String) {
        let status = wait(&mut self.child, DEADLINE).unwrap_or_else(|| panic!("no end: {}", self.said()));
        (status, std::fs::read_to_string(self.directory.path().join("stdout")).unwrap())
    }

    /// What it has said so far, for a failure.
    pub fn said(&self) -> String {
        let read = |name| std::fs::read(self.directory.path().join(name)).unwrap_or_default();
        ["stdout", "stderr"].map(|name| String::from_utf8_lossy(&read(name)).into_owned()).concat()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is still there.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Python of the virtual environment with `websockets`.
pub fn python() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-clients/bin/python");
    assert!(path.exists(), "{} with websockets is missing; {INSTALL}", path.display());
    path
}

/// curl, which gives up by itself.
pub fn curl(arguments: &[&str]) -> Guest {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--no-buffer", "--max-time", "15"]).args(arguments);
    Guest::start(&mut command, tempfile::tempdir().unwrap())
}
