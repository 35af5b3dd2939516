//! Programs of others: curl, Python's `websockets`, nginx, Chromium. They end with the test.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::bench::wait;
use crate::planted::DEADLINE;
use crate::process::{self, INSTALL, chromium_arguments};

/// Between two looks at something that cannot be waited for otherwise.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A process of its own group, with a directory of its own.
pub struct Guest {
    process: process::Guest,
    pub directory: TempDir,
}

impl Guest {
    /// Starts it; what it says goes to files of `directory`. Its standard input ends with this process.
    #[track_caller]
    pub fn start(command: &mut Command, directory: TempDir) -> Self {
        let file = |name: &str| File::create(directory.path().join(name)).unwrap();
        command.process_group(0).stdin(Stdio::piped()).stdout(file("stdout")).stderr(file("stderr"));
        let name = command.get_program().to_owned();
        let child = command.spawn().unwrap_or_else(|error| panic!("{name:?}: {error}; {INSTALL}"));
        Self { process: process::Guest(child), directory }
    }

    /// Waits for its end: its exit status and standard output.
    #[track_caller]
    pub fn ended(self) -> (i32, String) {
        let (status, stdout, _) = self.ended_with_errors();
        (status, stdout)
    }

    /// The same, and its standard error.
    #[track_caller]
    pub fn ended_with_errors(mut self) -> (i32, String, String) {
        let status = wait(&mut self.process.0, DEADLINE).unwrap_or_else(|| panic!("no end: {}", self.said()));
        let read = |name| std::fs::read(self.directory.path().join(name)).unwrap();
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| String::from_utf8(read(name)).unwrap());
        (status, stdout, stderr)
    }

    /// The first line it prints.
    #[track_caller]
    pub fn line(&mut self) -> String {
        eventually("it prints a line", || {
            let said = std::fs::read_to_string(self.directory.path().join("stdout")).unwrap();
            assert!(self.runs(), "it has ended: {}", self.said());
            said.split_once('\n').map(|(line, _)| line.to_owned())
        })
    }

    /// What it has said so far, for a failure.
    pub fn said(&self) -> String {
        let read = |name| std::fs::read(self.directory.path().join(name)).unwrap_or_default();
        ["stdout", "stderr"].map(|name| String::from_utf8_lossy(&read(name)).into_owned()).concat()
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Whether it is still there.
    pub fn runs(&mut self) -> bool {
        self.process.0.try_wait().unwrap().is_none()
    }
}

/// Looks until `look` gives something. Panics at the deadline.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let by = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < by, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Python of the virtual environment with `websockets`.
pub fn python() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-clients/bin/python");
    assert!(path.exists(), "{} with websockets is missing; {INSTALL}", path.display());
    path
}

/// Headless Chromium on `page`; prints the document as it is once its scripts have run, and what it logs on
/// standard error.
pub fn chromium(page: &Path) -> Guest {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("chromium");
    command
        .args(chromium_arguments(directory.path()))
        .args(["--enable-logging=stderr", "--virtual-time-budget=2000"])
        .arg("--dump-dom")
        .arg(format!("file://{}", page.display()));
    Guest::start(&mut command, directory)
}

/// curl, which gives up by itself.
pub fn curl(arguments: &[&str]) -> Guest {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--no-buffer", "--max-time", "15"]).args(arguments);
    Guest::start(&mut command, tempfile::tempdir().unwrap())
}
