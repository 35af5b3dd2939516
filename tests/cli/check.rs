//! `corecast check`: this host as it is, and `--prove` against a gateway of its own.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{assert_usage, corecast, run, stderr, stdout};

/// For anything that is waited for, a proof on a busy host included.
const DEADLINE: Duration = Duration::from_secs(60);

/// Looks until `look` gives something.
#[track_caller]
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let by = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < by, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn finding<'a>(report: &'a Value, name: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("no {name}: {report}"))
}

#[test]
fn contract_4_a_host_that_has_enough_is_status_0_and_names_the_next_limit() {
    let output = run(&["check", "--connections", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("\nenough for 1 connection; the first limit above is "));
    assert!(output.stderr.is_empty());
    assert!(stdout(&output).lines().all(|line| line.len() <= 110), "{}", stdout(&output));
}

#[test]
fn contract_4_a_host_that_has_too_little_is_status_1_and_says_what_to_type() {
    let output = run(&["check", "--connections", "4294967295"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output)
            .starts_with("corecast: too little for 4,294,967,295 connections: the first limit is ")
    );
    assert!(stdout(&output).contains("\n  try: "), "{}", stdout(&output));
    let report = run(&["check", "--connections", "4294967295", "--json"]);
    assert_eq!(report.status.code(), Some(1));
    let report = json(stdout(&report));
    assert_eq!(report["enough"], false);
    assert!(stderr(&output).contains(report["first_limit"]["name"].as_str().unwrap()));
}

#[test]
fn the_number_is_that_of_the_configuration_or_what_the_descriptor_limit_leaves() {
    let report = json(stdout(&run(&["check", "--json", "--set", "limits.connections=77"])));
    assert_eq!(report["connections"], 77);
    let limited = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 3000; exec \"$0\" check --json", env!("CARGO_BIN_EXE_corecast")])
        .output()
        .unwrap();
    let report = json(stdout(&limited));
    assert_eq!(report["connections"], 3000 - 256);
    assert_eq!(finding(&report, "RLIMIT_NOFILE")["value"], 3000);
    assert_eq!(report["first_limit"]["name"], "RLIMIT_NOFILE");
}

#[test]
fn the_configuration_counts_in_what_is_needed() {
    let of = |settings: &[&str]| {
        let mut arguments = vec!["check", "--json", "--connections", "1000"];
        arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        json(stdout(&run(&arguments)))
    };
    let settings = ["shards=3", "history.bytes=1MiB", "limits.socket_send_bytes=64KiB", "timeouts.drain=10s"];
    let report = of(&settings);
    assert_eq!(finding(&report, "cgroup pids.max")["needed"], 11);
    assert_eq!(finding(&report, "net.core.wmem_max")["needed"], 65_536);
    assert_eq!(finding(&report, "net.core.somaxconn")["needed"], 100);
    let history = finding(&of(&["shards=3", "history.bytes=2MiB"]), "memory")["needed"].as_u64().unwrap();
    assert_eq!(history - finding(&report, "memory")["needed"].as_u64().unwrap(), 3 << 20);
}

#[test]
fn another_processs_limits_are_looked_at_with_pid() {
    let mut sleeper = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 500; echo; exec sleep 60"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The line comes after the limit is set.
    BufReader::new(sleeper.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    let output = run(&["check", "--json", "--pid", &sleeper.id().to_string()]);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert_eq!(finding(&json(stdout(&output)), "RLIMIT_NOFILE")["value"], 500);
}

#[test]
fn contract_4_wrong_usage_of_check_is_status_2() {
    assert_usage(&["check", "--connections", "0"], "--connections");
    assert_usage(&["check", "--prove", "1", "--connections", "1"], "cannot be used with");
    assert_usage(&["check", "--pid", "4294967295"], "no such process");
    assert_usage(&["check", "--set", "limits.connection=1"], "unknown key");
}

/// A directory for temporary files, to see what is left in it.
fn prove(connections: &str, limits: &str) -> (Child, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("sh");
    let script = format!("{limits} exec \"$0\" check --json --prove {connections}");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_corecast")]);
    command.env_clear().env("TMPDIR", directory.path()).env("PATH", "/usr/bin:/bin");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    (child, directory)
}

fn is_empty(directory: &TempDir) -> bool {
    std::fs::read_dir(directory.path()).unwrap().next().is_none()
}

/// The gateway that `prove` has started, once its control socket answers.
fn its_gateway(directory: &TempDir) -> (PathBuf, u32) {
    eventually("the gateway of --prove answers", || {
        let path = std::fs::read_dir(directory.path()).unwrap().next()?.unwrap().path().join("control.sock");
        let socket = std::os::unix::net::UnixStream::connect(&path).ok()?;
        let peer = rustix::net::sockopt::socket_peercred(&socket).unwrap();
        Some((path, peer.pid.as_raw_nonzero().get() as u32))
    })
}

fn is_gone(pid: u32) -> bool {
    !PathBuf::from(format!("/proc/{pid}/exe")).exists()
}

#[test]
fn prove_measures_connections_and_leaves_nothing_behind() {
    // One after the other, and again while other tests open and close sockets on this host: it says so
    // itself.
    let (output, directory) = eventually("nobody disturbs", || {
        let (child, directory) = prove("1500", "");
        let output = child.wait_with_output().unwrap();
        (!stderr(&output).contains("other programs opened or closed")).then_some((output, directory))
    });
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let proof = json(stdout(&output));
    assert_eq!(proof["connections"], 1500);
    let kernel = proof["kernel_bytes"].as_i64().unwrap();
    // A socket with its inode, dentry and file is 3.7 KB and more; twice that would be both ends.
    assert!((2500..6500).contains(&kernel), "{proof}");
    assert!(proof["user_bytes"].as_i64().unwrap() < 2000, "{proof}");
    assert!(is_empty(&directory), "{directory:?}");
}

#[test]
fn prove_of_more_than_the_descriptors_allow_says_how_many_they_do() {
    let (child, directory) = prove("2000", "ulimit -n 1000;");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("cannot open 2000 connections here: 1000 descriptors allow 644"), "{said}");
    assert!(said.contains("corecast check --prove 644") && is_empty(&directory), "{said}");
}

#[test]
fn prove_with_a_gateway_that_does_not_start_says_what_it_said() {
    let (child, directory) = prove("10", "ulimit -l 64;");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("did not start:\ncorecast: cannot start: 65536 bytes"),
        "{}",
        stderr(&output)
    );
    assert!(is_empty(&directory));
}

#[test]
fn prove_that_is_interrupted_takes_its_gateway_along() {
    let (child, directory) = prove("5000", "");
    let (_, gateway) = its_gateway(&directory);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stderr(&output).contains("interrupted"), "{}", stderr(&output));
    assert!(is_gone(gateway) && is_empty(&directory));
}

#[test]
fn prove_that_is_killed_takes_its_gateway_along() {
    let (mut child, directory) = prove("5000", "");
    let (_, gateway) = its_gateway(&directory);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the gateway ends", || is_gone(gateway).then_some(()));
}

#[test]
fn a_gateway_does_not_run_for_a_parent_that_is_none() {
    let output = corecast(&["serve", "--with-parent", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--with-parent 1: not the parent"), "{}", stderr(&output));
}
