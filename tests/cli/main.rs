//! The command line as a user meets it: the real binary, its output and its exit status (contract
//! section 4). What needs a running gateway is in tests/gateway.

mod check;
mod token;
mod tune;

use std::process::{Command, Output, Stdio};

use corecast::config::Config;
use tempfile::TempDir;

/// The binary with nothing of this process's environment.
fn corecast(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    corecast(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// A directory with a configuration file of this text.
fn file(text: &str) -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("corecast.toml");
    std::fs::write(&path, text).unwrap();
    (directory, path.to_str().unwrap().to_owned())
}

#[track_caller]
fn assert_usage(arguments: &[&str], part: &str) {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert!(stderr(&output).contains(part), "{arguments:?}: {}", stderr(&output));
}

#[test]
fn contract_4_wrong_usage_is_status_2_on_stderr() {
    assert_usage(&[], "Usage: corecast");
    assert_usage(&["dance"], "dance");
    assert_usage(&["push", "hi"], "--user");
    assert_usage(&["push", "--user", "a", "--all", "hi"], "cannot be used with");
    assert_usage(&["push", "--all", "--json", "--binary", "hi"], "cannot be used with");
    assert_usage(&["push", "--all", "--lines", "hi"], "cannot be used with");
    assert_usage(&["push", "--all", "--lines", "--id", "k"], "cannot be used with");
    assert_usage(&["push", "--all", "--ttl", "60", "hi"], "--ttl");
    assert_usage(&["push", "--connection", "7", "hi"], "three decimal numbers");
    assert_usage(&["connections", "7"], "three decimal numbers");
    assert_usage(&["connections", "0-5-1", "--all"], "cannot be used with");
    assert_usage(&["connections", "--all", "--limit", "5"], "cannot be used with");
    assert_usage(&["connections", "--lagging", "--lag-above", "1KiB"], "cannot be used with");
    assert_usage(&["connections", "--limit", "0"], "--limit");
    assert_usage(&["connections", "--transport", "udp"], "must be one of ws, sse, poll, echo");
    assert_usage(&["connections", "--remote", "example.org"], "10.0.0.0/8");
    assert_usage(&["slow", "--limit", "x"], "--limit");
    assert_usage(&["who"], "<USER>");
    assert_usage(&["who", "a b"], "without control characters, spaces or commas");
    assert_usage(&["kick"], "--user");
    assert_usage(&["bind", "a"], "<TOPIC>");
    assert_usage(&["events", "--types", "birth"], "connect");
    assert_usage(&["drain", "--within", "soon"], "--within");
    assert_usage(&["serve", "--listen", "localhost"], "--listen");
}

#[test]
fn contract_2_kick_takes_1000_and_4000_to_4999_and_123_bytes_of_reason() {
    for code in ["999", "1001", "3999", "5000"] {
        assert_usage(&["kick", "--user", "a", "--code", code], "must be 1000, or 4000 to 4999");
    }
    assert_usage(&["kick", "--user", "a", "--reason", &"x".repeat(124)], "must be at most 123");
    for code in ["1000", "4000", "4999"] {
        let reason = "x".repeat(123);
        let missing =
            ["--socket", "/nonexistent/s", "kick", "--user", "a", "--code", code, "--reason", &reason];
        assert_eq!(run(&missing).status.code(), Some(3), "{code}");
    }
}

#[test]
fn contract_4_help_is_status_0_on_stdout() {
    for arguments in [&["--help"][..], &["push", "--help"], &["serve", "--help"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("Usage: corecast") && output.stderr.is_empty());
    }
}

#[test]
fn contract_4_version_prints_the_version_without_a_gateway() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(stdout(&run(&["version"])), format!("corecast {version}\n"));
    assert_eq!(stdout(&run(&["version", "--json"])), format!("{{\"version\":\"{version}\"}}\n"));
}

#[test]
fn contract_4_without_a_gateway_each_command_that_asks_one_is_status_3() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("none.sock");
    let socket = socket.to_str().unwrap();
    for arguments in [
        &["push", "--user", "a", "hi"][..],
        &["push", "--all", "--lines"],
        &["who", "a"],
        &["connections"],
        &["connections", "0-5-1"],
        &["slow"],
        &["sessions"],
        &["topics"],
        &["topics", "t"],
        &["kick", "--user", "a"],
        &["bind", "a", "t"],
        &["unbind", "a", "t"],
        &["events"],
        &["stats", "--json"],
        &["drain"],
    ] {
        let output = corecast(arguments).args(["--socket", socket]).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
        assert!(
            stderr(&output).starts_with(&format!("corecast: no gateway answers on {socket}: ")),
            "{}",
            stderr(&output)
        );
        assert!(stderr(&output).contains("\nlikely cause: ") && stderr(&output).contains("\ntry: "));
    }
}

#[test]
fn contract_3_the_socket_is_the_flag_else_the_variable_else_the_users_default() {
    let asked = |command: &mut Command| stderr(&command.output().unwrap()).to_owned();
    let by_variable = asked(corecast(&["stats"]).env("CORECAST_SOCKET", "/nonexistent/variable"));
    assert!(by_variable.contains("answers on /nonexistent/variable:"), "{by_variable}");
    let flags = ["stats", "--socket", "/nonexistent/flag"];
    let by_flag = asked(corecast(&flags).env("CORECAST_SOCKET", "/nonexistent/variable"));
    assert!(by_flag.contains("answers on /nonexistent/flag:"), "{by_flag}");
    if !rustix::process::geteuid().is_root() {
        let by_default = asked(corecast(&["stats"]).env("XDG_RUNTIME_DIR", "/nonexistent"));
        assert!(by_default.contains("answers on /nonexistent/corecast/control.sock:"), "{by_default}");
    }
}

#[test]
fn contract_4_config_prints_the_defaults_as_toml_that_reads_back() {
    let output = run(&["config"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), Config::default().to_toml());
    let (_directory, path) = file(stdout(&output));
    let again = run(&["config", "--config", &path]);
    assert_eq!(stdout(&again), stdout(&output));
}

#[test]
fn contract_5_config_shows_flags_over_variables_over_the_file() {
    let (_directory, path) = file("shards = 1\nlimits.fragments = 1\nlimits.header_lines = 1\n");
    let output =
        corecast(&["config", "--json", "--config", &path, "--shards", "3", "--socket", "/tmp/f.sock"])
            .args(["--listen", "127.0.0.1:1", "--listen", "[::1]:1", "--set", "log.level=debug"])
            .env("CORECAST_SHARDS", "2")
            .env("CORECAST_LIMITS_FRAGMENTS", "2")
            .output()
            .unwrap();
    let config: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(config["shards"], 3);
    assert_eq!(config["limits"]["fragments"], 2);
    assert_eq!(config["limits"]["header_lines"], 1);
    assert_eq!(config["control"]["socket"], "/tmp/f.sock");
    assert_eq!(config["listen"], serde_json::json!(["127.0.0.1:1", "[::1]:1"]));
    assert_eq!(config["log"]["level"], "debug");
}

#[test]
fn contract_4_a_wrong_configuration_is_status_2_for_serve_and_config() {
    let (_directory, path) = file("shards = 1\nshard = 2\n");
    for verb in ["serve", "config"] {
        assert_usage(&[verb, "--config", &path], &format!("corecast: {path} line 2: shard: unknown key"));
        assert_usage(
            &[verb, "--config", "/nonexistent/c"],
            "cannot read the configuration file /nonexistent/c",
        );
        assert_usage(
            &[verb, "--set", "log.level=inof"],
            "command line: log.level: \"inof\" is neither a level",
        );
        assert_usage(&[verb, "--listen", "0.0.0.0:0"], "not a loopback address");
        let output = corecast(&[verb]).env("CORECAST_SHRADS", "1").output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("CORECAST_SHRADS"), "{}", stderr(&output));
    }
}

#[test]
fn contract_4_a_closed_stdout_ends_a_command_quietly() {
    for arguments in [&["config"][..], &["config", "--json"], &["version"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = corecast(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        assert!(output.stderr.is_empty(), "{}", stderr(&output));
    }
}

#[test]
fn contract_4_a_full_stdout_is_a_failure() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = corecast(&["config"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot write standard output"), "{}", stderr(&output));
}

#[test]
fn a_payload_over_64_mib_on_stdin_is_refused_before_anything_is_sent() {
    let zeros = std::fs::File::open("/dev/zero").unwrap();
    let output =
        corecast(&["push", "--all", "-", "--socket", "/nonexistent/s"]).stdin(zeros).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("longer than 67,108,864 bytes"), "{}", stderr(&output));
}
