//! `corecast-bench` run whole: the real binary, its exit status, what it says, and its `--json`.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};
use serde_json::Value;
use tempfile::TempDir;

use crate::planted::DEADLINE;

/// Times are measured alone; counts are right beside anything.
static MACHINE: RwLock<()> = RwLock::new(());

/// Nothing else runs meanwhile.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs beside others of its kind.
pub fn beside() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A run under way; it ends with this, its workers with it.
pub struct Running {
    child: Child,
    directory: Option<TempDir>,
}

/// A run that has ended.
pub struct Run {
    /// Its exit status.
    pub status: i32,
    /// What `--json` wrote; null where it wrote nothing.
    pub report: Value,
    pub stdout: String,
    pub stderr: String,
    /// Held for its end: the report's file is in it.
    directory: TempDir,
}

/// Runs a mode that connects to nobody and writes no report: `compare`, `page`, `size`.
#[track_caller]
pub fn offline(arguments: &[&str]) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_corecast-bench")).args(arguments).output().unwrap();
    let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    let status = output.status.code().unwrap_or(-1);
    Run { status, report: Value::Null, stdout, stderr, directory }
}

/// Starts a mode: `exact` are arguments as they are, `words` are taken apart at blanks.
pub fn start(mode: &str, exact: &[&str], words: &str) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| File::create(directory.path().join(name)).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_corecast-bench"))
        .arg(mode)
        .args(exact)
        .args(words.split_whitespace())
        .arg("--json")
        .arg(directory.path().join("report.json"))
        .env("TMPDIR", directory.path())
        .stdin(Stdio::null())
        .stdout(file("stdout"))
        .stderr(file("stderr"))
        .process_group(0)
        .spawn()
        .unwrap();
    Running { child, directory: Some(directory) }
}

/// Runs a mode to its end.
#[track_caller]
pub fn bench(mode: &str, exact: &[&str], words: &str) -> Run {
    start(mode, exact, words).ended()
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills its first process, and nothing else.
    pub fn kill(&self) {
        kill_process(Pid::from_child(&self.child), Signal::KILL).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn ended(mut self) -> Run {
        let status = wait(&mut self.child, 2 * DEADLINE);
        let directory = self.directory.take().unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap_or_default();
        let (stdout, stderr) = (read("stdout"), read("stderr"));
        let status = status.unwrap_or_else(|| panic!("it does not end:\n{stdout}\n{stderr}"));
        let report = serde_json::from_str(&read("report.json")).unwrap_or_default();
        Run { status, report, stdout, stderr, directory }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The exit status, once it has ended; none where it has not within `limit`, -1 where a signal ended it.
pub fn wait(child: &mut Child, limit: Duration) -> Option<i32> {
    let end = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
    let by = Instant::now() + limit;
    loop {
        let left = Timespec::try_from(by.saturating_duration_since(Instant::now())).unwrap();
        match poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&left)) {
            Ok(0) => return None,
            Ok(_) => return Some(child.wait().unwrap().code().unwrap_or(-1)),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

impl Run {
    /// The file of the report.
    pub fn json(&self) -> PathBuf {
        self.directory.path().join("report.json")
    }

    /// One of `totals`.
    #[track_caller]
    pub fn total(&self, name: &str) -> u64 {
        self.report["totals"][name].as_u64().unwrap_or_else(|| panic!("no total {name}: {}", self.said()))
    }

    /// How often something ended like this: `status 200`, `close 4000`, `error reset`.
    #[track_caller]
    pub fn outcome(&self, name: &str) -> u64 {
        assert!(self.report["outcomes"].is_object(), "no outcomes: {}", self.said());
        self.report["outcomes"][name].as_u64().unwrap_or_default()
    }

    /// A figure of something timed, in milliseconds: `time_ms("delivery", "p99")`.
    #[track_caller]
    pub fn time_ms(&self, timed: &str, figure: &str) -> f64 {
        let us = self.report["times"][timed][figure].as_f64();
        us.unwrap_or_else(|| panic!("no {timed} {figure}: {}", self.said())) / 1000.0
    }

    /// How many were timed.
    #[track_caller]
    pub fn timed(&self, timed: &str) -> u64 {
        self.report["times"][timed]["count"].as_u64().unwrap_or_default()
    }

    /// Everything there is, for a failure.
    pub fn said(&self) -> String {
        let Self { status, report, stdout, stderr, .. } = self;
        let of = |name: &str| format!("{name}: {}\n", report[name]);
        let report: String = ["totals", "outcomes", "rates", "verdict", "publisher"].map(of).concat();
        format!("exit status {status}\n{report}stdout:\n{stdout}\nstderr:\n{stderr}")
    }

    /// The totals are exactly these; the rest of them is not looked at.
    #[track_caller]
    pub fn has(&self, totals: &[(&str, u64)]) {
        for (name, expected) in totals {
            assert_eq!(self.total(name), *expected, "{name}: {}", self.said());
        }
    }

    /// The outcomes are exactly these, and no others.
    #[track_caller]
    pub fn ended_as(&self, outcomes: &[(&str, u64)]) {
        let expected: serde_json::Map<String, Value> =
            outcomes.iter().map(|(name, count)| ((*name).to_owned(), (*count).into())).collect();
        assert_eq!(self.report["outcomes"], Value::Object(expected), "{}", self.said());
    }

    /// Ended with this status, and the verdict says the same.
    #[track_caller]
    pub fn exits(&self, status: i32) {
        assert_eq!(self.status, status, "{}", self.said());
        if !self.report.is_null() {
            assert_eq!(self.report["verdict"]["exit_status"], status, "{}", self.said());
        }
    }
}
