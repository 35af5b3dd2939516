//! A gateway of its own for each test: the real binary, a real port, a directory that goes with it.
//!
//! Ready when it has said where it listens, never after a sleep. Waiting is for an event, with one
//! deadline for all. Whatever happens to the test, the process and its files go; where the test failed,
//! what the gateway said is printed. Next: `websocket`, `event_stream`, `poll` and `http`
//! for the clients, `browser` and `guest` for those of others.

pub mod browser;
pub mod cable;
pub mod event_stream;
pub mod guest;
pub mod http;
pub mod issuer;
pub mod poll;
pub mod websocket;
#[path = "../../spec/whatwg.rs"]
pub mod whatwg;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use event_stream::EventStream;
use http::Response;
use websocket::WebSocket;

/// How long anything may take that is waited for.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at something that cannot be waited for otherwise.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The binary, with nothing of this process's environment.
pub fn corecast() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    command.env_clear().stdin(Stdio::null());
    command
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

/// A running gateway.
pub struct Gateway {
    child: Child,
    /// Where clients connect.
    pub address: SocketAddr,
    /// The control socket.
    pub socket: PathBuf,
    /// What it has said so far.
    stderr: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    /// Held for its end.
    _directory: TempDir,
}

/// A gateway's process, its directory, and its lines on standard error.
struct Started {
    child: Child,
    directory: TempDir,
    socket: PathBuf,
    stderr: Arc<Mutex<String>>,
    lines: Receiver<String>,
    reader: JoinHandle<()>,
}

fn start(settings: &[&str], listen: &str, prepare: impl FnOnce(&mut Command)) -> Started {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("run/control.sock");
    let mut command = corecast();
    command.arg("serve").arg("--socket").arg(&socket).args(["--listen", listen]);
    if listen.starts_with("0.0.0.0") {
        // Only a file may say that clients are believed on such an address.
        let file = directory.path().join("corecast.toml");
        std::fs::write(&file, "[auth]\nmode = \"open\"\n").unwrap();
        command.arg("--config").arg(file);
    }
    if !settings.iter().any(|setting| setting.starts_with("shards=")) {
        command.args(["--shards", "2"]);
    }
    command.args(settings.iter().flat_map(|setting| ["--set", setting]));
    prepare(&mut command);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let said = Arc::new(Mutex::new(String::new()));
    let (tell, lines) = mpsc::channel();
    let pipe = BufReader::new(child.stderr.take().unwrap());
    let kept = said.clone();
    let reader = std::thread::spawn(move || {
        for line in pipe.lines().map_while(Result::ok) {
            kept.lock().unwrap().push_str(&format!("{line}\n"));
            // The test may have heard enough.
            let _ = tell.send(line);
        }
    });
    Started { child, directory, socket, stderr: said, lines, reader }
}

impl Gateway {
    /// Two shards, and each of `settings` as in `limits.message_bytes=1KiB`.
    pub fn start(settings: &[&str]) -> Self {
        Self::listening(settings, "127.0.0.1:0")
    }

    /// The same on another address.
    #[track_caller]
    pub fn listening(settings: &[&str], listen: &str) -> Self {
        Self::prepared(settings, listen, |_| {})
    }

    /// The same with a command that `prepare` has had: variables, a file.
    #[track_caller]
    pub fn prepared(settings: &[&str], listen: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let Started { mut child, directory, socket, stderr, lines, reader } =
            start(settings, listen, prepare);
        let by = Instant::now() + DEADLINE;
        let address = loop {
            let left = by.saturating_duration_since(Instant::now());
            let Ok(line) = lines.recv_timeout(left) else {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the gateway does not start:\n{}", stderr.lock().unwrap());
            };
            if let Some(rest) = line.strip_prefix("corecast: clients   ws://") {
                break rest.split('/').next().unwrap().parse().unwrap();
            }
        };
        Self { child, address, socket, stderr, reader: Some(reader), _directory: directory }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the gateway ends", || self.child.try_wait().unwrap())
    }

    /// What it has said so far; all of it once it has ended.
    pub fn said(&mut self) -> String {
        if self.child.try_wait().unwrap().is_some() {
            self.reader.take().map(JoinHandle::join);
        }
        self.stderr.lock().unwrap().clone()
    }

    /// A raw WebSocket; `query` is what follows `/ws?`.
    #[track_caller]
    pub fn raw(&self, query: &str) -> WebSocket {
        WebSocket::open(self.address, &format!("/ws?{query}"), None)
    }

    /// A WebSocket under `corecast.v1`, before its `hello` is read.
    #[track_caller]
    pub fn json(&self, query: &str) -> WebSocket {
        WebSocket::open(self.address, &format!("/ws?{query}"), Some("corecast.v1"))
    }

    /// The same, and its `hello`.
    #[track_caller]
    pub fn hello(&self, query: &str) -> (WebSocket, Value) {
        let mut client = self.json(query);
        let hello = client.json();
        assert_eq!(hello["type"], "hello", "{hello}");
        (client, hello)
    }

    /// An event stream, its `retry` read; `query` is what follows `/sse?`.
    #[track_caller]
    pub fn stream(&self, query: &str) -> EventStream {
        EventStream::open(self.address, &format!("/sse?{query}"), "")
    }

    /// Sends `request` on the client port and reads to the end of the connection.
    #[track_caller]
    pub fn ask(&self, request: impl AsRef<[u8]>) -> Response {
        http::exchange_tcp(self.address, request.as_ref())
    }

    /// A request on the control socket.
    #[track_caller]
    pub fn control(&self, method: &str, target: &str, content_type: &str, body: &[u8]) -> Response {
        http::exchange_unix(&self.socket, method, target, content_type, body)
    }

    /// `GET` on the control socket; must be answered 200.
    #[track_caller]
    pub fn get(&self, target: &str) -> Value {
        self.control("GET", target, "", b"").ok()
    }

    /// `POST /v1/push` of `data` as JSON to `to`; must be answered 200.
    #[track_caller]
    pub fn push(&self, to: Value, data: Value) -> Value {
        self.push_with(json!({ "to": to, "data": data }))
    }

    /// `POST /v1/push` of this body; must be answered 200.
    #[track_caller]
    pub fn push_with(&self, body: Value) -> Value {
        self.control("POST", "/v1/push", "application/json", body.to_string().as_bytes()).ok()
    }

    /// The sums of the shards' counters.
    #[track_caller]
    pub fn totals(&self) -> Value {
        self.get("/v1/stats")["totals"].clone()
    }

    /// Looks at the counters until `wanted` holds for their sums, and gives them.
    #[track_caller]
    pub fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let by = Instant::now() + DEADLINE;
        loop {
            let totals = self.totals();
            if wanted(&totals) {
                return totals;
            }
            assert!(Instant::now() < by, "not within {DEADLINE:?}: {what}: {totals}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until nothing is pending, and gives the sums: every message that was due to a connection was
    /// delivered, has expired or was dropped for a reason (Rule 10).
    #[track_caller]
    pub fn at_rest(&self) -> Value {
        let totals = self.until("nothing is pending", |totals| totals["pending"] == 0);
        let count = |name: &str| totals[name].as_u64().unwrap();
        let due = count("handed") + count("replayed");
        let became = count("delivered") + count("expired") + sum(&totals["dropped"]);
        assert_eq!(due, became, "{totals}");
        totals
    }

    /// Looks at `/v1/stats` until `wanted` holds, and gives it.
    #[track_caller]
    pub fn until_stats(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || Some(self.get("/v1/stats")).filter(&wanted))
    }

    /// Runs a command of the command line against this gateway.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.cli_command(arguments).output().unwrap()
    }

    /// The same, to be run by the test.
    pub fn cli_command(&self, arguments: &[&str]) -> Command {
        let mut command = corecast();
        command.args(arguments).arg("--socket").arg(&self.socket);
        command
    }

    /// The Rust client.
    pub fn client(&self) -> corecast::client::Client {
        corecast::client::Client::connect(&self.socket).unwrap()
    }

    /// A user that lives on `shard`: found by asking.
    #[track_caller]
    pub fn user_on(&self, shard: u16) -> String {
        let users = (0..).map(|n| format!("user-{n}"));
        let lives_there = |user: &String| {
            let (_, hello) = self.hello(&format!("user={user}"));
            hello["connection"].as_str().unwrap().starts_with(&format!("{shard}-"))
        };
        users.take(64).find(lives_there).expect("every shard has users")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = self.said();
            eprintln!("--- the gateway said:\n{said}---");
        }
    }
}

/// What became of a gateway that is not to start: its exit status and what it said.
#[track_caller]
pub fn refused_start(prepare: impl FnOnce(&mut Command)) -> (i32, String) {
    let mut command = corecast();
    command.arg("serve").stdout(Stdio::null()).stderr(Stdio::piped());
    prepare(&mut command);
    let mut child = command.spawn().unwrap();
    let by = Instant::now() + DEADLINE;
    while child.try_wait().unwrap().is_none() && Instant::now() < by {
        std::thread::sleep(LOOK_EVERY);
    }
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap_or_else(|| panic!("it started:\n{said}")), said)
}

/// Of an object of numbers.
pub fn sum(counts: &Value) -> u64 {
    counts.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

/// Standard output as text.
pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// Standard error as text.
pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}
