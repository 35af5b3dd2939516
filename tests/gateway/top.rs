//! `corecast top` (issue 7): one frame for scripts, and the live screen in a terminal of 80 columns by 24 rows,
//! which Python's `pty` plays.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::guest::{Guest, INSTALL};
use crate::harness::{Gateway, stderr, stdout};

/// Runs a command in a terminal of 80x24. Each line on standard input is a step: `await TEXT` until the screen
/// has had TEXT, `type TEXT`, `size ROWS COLUMNS`, `signal N`, `end`. Each step prints a line when it is done;
/// `end` prints the status, whether the terminal is as it was, and the last octets.
const TERMINAL: &str = r#"
import fcntl, json, os, pty, select, signal, struct, sys, termios, time

def size(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

master, slave = pty.openpty()
size(master, 24, 80)
before = termios.tcgetattr(slave)
child = os.fork()
if child == 0:
    os.login_tty(slave)
    os.execve(sys.argv[1], sys.argv[1:], {"TERM": "xterm-256color"})
seen = b""

def take(seconds):
    global seen
    if select.select([master], [], [], seconds)[0]:
        seen += os.read(master, 65536)
        return True
    return False

by = time.monotonic() + 60
for step in sys.stdin:
    verb, _, rest = step.rstrip("\n").partition(" ")
    if verb == "await":
        while rest.encode() not in seen:
            take(1)
            if time.monotonic() > by:
                sys.exit(f"never seen: {rest!r} in {seen!r}")
        print("seen", flush=True)
    elif verb == "type":
        seen = b""
        os.write(master, rest.encode().decode("unicode_escape").encode())
        print("typed", flush=True)
    elif verb == "size":
        seen = b""
        size(master, *map(int, rest.split()))
        print("sized", flush=True)
    elif verb == "signal":
        os.kill(child, int(rest))
        print("sent", flush=True)
    elif verb == "end":
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            take(0.02)
            if done:
                break
            if time.monotonic() > by:
                os.kill(child, signal.SIGKILL)
                sys.exit("it does not end")
        while take(0):
            pass
        print(json.dumps({
            "status": os.waitstatus_to_exitcode(status),
            "restored": termios.tcgetattr(slave) == before,
            "left": b"\x1b[?1049l" in seen,
            "cursor": b"\x1b[?25h" in seen,
            "said": seen.decode(errors="replace")[-600:],
        }), flush=True)
"#;

/// `corecast top` in its terminal.
struct Terminal {
    guest: Guest,
    to: ChildStdin,
    from: BufReader<std::process::ChildStdout>,
}

impl Terminal {
    #[track_caller]
    fn open(gateway: &Gateway, arguments: &[&str]) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", TERMINAL, env!("CARGO_BIN_EXE_corecast"), "top"]).args(arguments);
        command.arg("--socket").arg(&gateway.socket).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut guest = Guest::spawn(&mut command);
        let child: &mut Child = &mut guest.0;
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { guest, to, from }
    }

    /// Does one step and gives what it printed.
    #[track_caller]
    fn step(&mut self, step: &str) -> String {
        writeln!(self.to, "{step}").unwrap_or_else(|error| panic!("python3: {error}; {INSTALL}"));
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "{step}: {:?}", self.guest.0.try_wait());
        line
    }

    /// Its end: status, and that the terminal is as it was.
    #[track_caller]
    fn ended(mut self) -> (i64, String) {
        let end: Value = serde_json::from_str(&self.step("end")).unwrap();
        assert_eq!(
            (&end["restored"], &end["left"], &end["cursor"]),
            (&json!(true), &json!(true), &json!(true)),
            "{end}"
        );
        (end["status"].as_i64().unwrap(), end["said"].as_str().unwrap().to_owned())
    }
}

#[test]
fn issue_7_top_once_prints_one_frame_of_80_columns_without_escapes() {
    let gateway = Gateway::start(&[]);
    let _clients: Vec<_> = (0..3).map(|n| gateway.raw(&format!("user=u{n}&topics=news"))).collect();
    let output = gateway.cli(&["top", "--once", "--every", "100ms"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    for part in [
        ", serving, up ",
        "3 clients: 3 websockets",
        "messages 0/s",
        "HOTTEST TOPICS",
        "news",
        "SLOWEST CONSUMERS",
        "u2",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(text.lines().count() <= 24 && text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

#[test]
fn issue_7_the_hottest_topic_of_top_is_pushed_to_most_often_whoever_has_more_subscribers() {
    let gateway = Gateway::start(&[]);
    let _clients: Vec<_> = ["crowd", "crowd", "crowd,busy"]
        .iter()
        .enumerate()
        .map(|(n, topics)| gateway.raw(&format!("user=u{n}&topics={topics}")))
        .collect();
    gateway.push(json!({"topic": "crowd"}), json!(0));
    let mut command = gateway.cli_command(&["top", "--once", "--every", "200ms"]);
    let mut guest = Guest::spawn(command.stdout(Stdio::piped()));
    while guest.0.try_wait().unwrap().is_none() {
        gateway.push(json!({"topic": "busy"}), json!(1));
    }
    let mut text = String::new();
    guest.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    // Its columns are the last three.
    let listed: Vec<Vec<&str>> = text
        .lines()
        .skip_while(|line| !line.contains("HOTTEST TOPICS"))
        .skip(1)
        .map(|line| line.split_whitespace().rev().take(3).collect())
        .take(2)
        .collect();
    assert!(matches!(listed[0][..], ["1", rate, "busy"] if !["-", "0"].contains(&rate)), "{text}");
    assert_eq!(listed[1], ["3", "0", "crowd"], "{text}");
}

#[test]
fn issue_7_top_without_a_terminal_says_what_to_use_and_without_a_gateway_ends_with_3() {
    let mut gateway = Gateway::start(&[]);
    let output = gateway.cli(&["top"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--once prints one frame"), "{}", stderr(&output));
    let output = gateway.cli(&["top", "--once", "--every", "99ms"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("every is 99 ms, must be 100 ms to 1 h"), "{}", stderr(&output));
    gateway.signal(Signal::TERM);
    gateway.ended();
    let output = gateway.cli(&["top", "--once"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
}

#[test]
fn issue_7_top_shows_what_happens_obeys_keys_and_resizes() {
    let gateway = Gateway::start(&[]);
    let _client = gateway.raw("user=ann&topics=a-topic-of-this-test");
    let mut terminal = Terminal::open(&gateway, &["--every", "100ms"]);
    terminal.step("await a-topic-of-this-test");
    let _second = gateway.raw("user=bob&topics=another-topic");
    terminal.step("await another-topic");
    terminal.step("type ?");
    terminal.step("await clients, beside those of the fullest shard");
    terminal.step("type ?");
    terminal.step("type s");
    terminal.step("type /nobody\\r");
    terminal.step("type p");
    // Of a line that changes only what differs is drawn: capitals do.
    terminal.step("await PAUSED");
    // Another size is drawn whole: what stands there then is what the keys have done.
    terminal.step("size 40 120");
    terminal.step("await \x1b[40;1H");
    terminal.step("await PAUSED every 100ms, only \"nobody\"");
    terminal.step("type q");
    assert_eq!(terminal.ended().0, 0);
}

#[test]
fn issue_7_top_gives_the_terminal_back_after_control_c_and_after_sigterm() {
    let gateway = Gateway::start(&[]);
    for end in ["type \\x03", "signal 15", "signal 1"] {
        let mut terminal = Terminal::open(&gateway, &[]);
        terminal.step("await SHARD");
        terminal.step(end);
        assert_eq!(terminal.ended().0, 0, "{end}");
    }
}

#[test]
fn issue_7_top_gives_the_terminal_back_when_the_gateway_goes_and_ends_with_3() {
    let mut gateway = Gateway::start(&[]);
    let mut terminal = Terminal::open(&gateway, &[]);
    terminal.step("await SHARD");
    gateway.signal(Signal::KILL);
    gateway.ended();
    let (status, said) = terminal.ended();
    assert_eq!(status, 3, "{said}");
    assert!(said.contains("no gateway answers on"), "{said}");
}

/// Runs a command at a terminal that is not its session's, as under `nohup` or `setsid`, which then goes: no signal
/// tells of it. Prints the exit status.
const ABANDONED: &str = r#"
import os, pty, subprocess, sys
master, slave = pty.openpty()
child = subprocess.Popen(sys.argv[1:], stdin=slave, stdout=slave, stderr=slave, env={"TERM": "xterm-256color"})
os.close(slave)
os.read(master, 65536)
os.close(master)
try:
    print(child.wait(timeout=30))
except subprocess.TimeoutExpired:
    child.kill()
    sys.exit("it does not end")
"#;

#[test]
fn issue_7_top_ends_when_its_terminal_goes_and_no_signal_tells() {
    let gateway = Gateway::start(&[]);
    let mut command = Command::new("python3");
    command.args(["-c", ABANDONED, env!("CARGO_BIN_EXE_corecast"), "top", "--socket"]).arg(&gateway.socket);
    let output = command.output().unwrap_or_else(|error| panic!("python3: {error}; {INSTALL}"));
    assert_eq!((output.status.code(), stdout(&output).trim()), (Some(0), "1"), "{}", stderr(&output));
}
