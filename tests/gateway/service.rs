//! The gateway under a service manager: what it is told over NOTIFY_SOCKET (sd_notify(3)).

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::http::exchange_unix;
use crate::harness::websocket::{WebSocket, connect};
use crate::harness::{DEADLINE, Gateway, eventually};

/// Stands in for systemd: a socket, and a gateway that it has started.
struct Manager {
    socket: UnixDatagram,
    directory: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        Self { socket, directory }
    }

    /// With a gateway, its watchdog at `watchdog_us` where that is not 0.
    fn start(settings: &[&str], watchdog_us: u64) -> (Self, Gateway) {
        let manager = Self::new();
        let gateway = manager.starts(settings, watchdog_us);
        (manager, gateway)
    }

    fn starts(&self, settings: &[&str], watchdog_us: u64) -> Gateway {
        Gateway::prepared(settings, "127.0.0.1:0", |command| {
            command.env("NOTIFY_SOCKET", self.path());
            if watchdog_us > 0 {
                command.env("WATCHDOG_USEC", watchdog_us.to_string());
            }
        })
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("notify")
    }

    /// What it is told next, without the end of the line.
    #[track_caller]
    fn told(&self) -> String {
        self.socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut note = [0; 4096];
        let length = self.socket.recv(&mut note).expect("the manager is told something");
        String::from_utf8(note[..length].to_vec()).unwrap().trim_end().to_owned()
    }

    /// Reads until it is told that the gateway is ready: before that it is given the listeners to keep.
    #[track_caller]
    fn ready(&self) {
        let (before, _) = self.until(|note| note == "READY=1");
        assert_eq!(before, ["FDSTOREREMOVE=1\nFDNAME=clients", "FDSTORE=1\nFDNAME=clients"]);
    }

    /// Reads until it is told this; gives what came before.
    #[track_caller]
    fn until(&self, wanted: impl Fn(&str) -> bool) -> (Vec<String>, String) {
        let by = Instant::now() + DEADLINE;
        let mut before = Vec::new();
        loop {
            let note = self.told();
            if wanted(&note) {
                return (before, note);
            }
            before.push(note);
            assert!(Instant::now() < by, "the manager was told only {before:?}");
        }
    }
}

#[test]
fn issue_5_ready_is_told_first_and_then_the_status() {
    let (manager, gateway) = Manager::start(&[], 0);
    manager.ready();
    assert_eq!(manager.told(), "STATUS=0 connections");
    let _client = gateway.raw("user=ann");
    let (_, status) = manager.until(|note| note.starts_with("STATUS=1 "));
    assert_eq!(status, "STATUS=1 connection, 0 messages/s");
}

#[test]
fn issue_5_the_watchdog_is_fed_at_a_third_of_its_time_while_the_shards_turn() {
    let (manager, _gateway) = Manager::start(&[], 600_000);
    let begun = Instant::now();
    for _ in 0..5 {
        manager.until(|note| note == "WATCHDOG=1");
    }
    // Five thirds of 600 ms, and no faster than asked; a machine under load may be slower.
    assert!(begun.elapsed().as_millis() >= 800, "{:?}", begun.elapsed());
}

#[test]
fn issue_5_a_drain_tells_stopping_and_asks_for_the_time_that_it_takes() {
    let (manager, mut gateway) = Manager::start(&["timeouts.drain=60s", "timeouts.close=60s"], 0);
    manager.ready();
    let client = gateway.raw("user=ann");
    gateway.signal(Signal::TERM);
    let (before, _) = manager.until(|note| note == "STOPPING=1");
    assert!(before.iter().all(|note| note.starts_with("STATUS=")), "{before:?}");
    // The client does not answer the close, so that the drain goes on.
    for _ in 0..2 {
        manager.until(|note| note == "EXTEND_TIMEOUT_USEC=15000000");
    }
    manager.until(|note| note == "STATUS=draining, 1 connections left");
    drop(client);
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn issue_5_a_drain_without_clients_tells_stopping_before_the_process_ends() {
    let (manager, mut gateway) = Manager::start(&[], 0);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0));
    manager.until(|note| note == "STOPPING=1");
}

#[test]
fn issue_5_a_manager_that_does_not_read_keeps_nobody_waiting() {
    let manager = Manager::new();
    let filler = UnixDatagram::unbound().unwrap();
    filler.connect(manager.path()).unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send(b"X=1").is_ok() {}
    let mut gateway = manager.starts(&[], 30_000);
    let mut client = gateway.raw("topics=t");
    gateway.push(serde_json::json!({"topic": "t"}), serde_json::json!(1));
    assert_eq!(client.text(), "1");
    drop(client);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn issue_5_a_reload_tells_reloading_with_the_time_and_then_ready() {
    let (manager, gateway) = Manager::start(&[], 0);
    manager.ready();
    gateway.signal(Signal::HUP);
    let (_, reloading) = manager.until(|note| note.starts_with("RELOADING=1\n"));
    let (_, time_us) = reloading.split_once("\nMONOTONIC_USEC=").expect("the time of CLOCK_MONOTONIC");
    assert!(time_us.parse::<u64>().is_ok_and(|time_us| time_us > 0), "{reloading}");
    manager.until(|note| note == "READY=1");
}

#[test]
fn issue_5_a_refused_reload_tells_why_in_the_status_and_that_it_goes_on() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let manager = Manager::new();
    let gateway = Gateway::prepared(&[], "127.0.0.1:0", |command| {
        command.env("NOTIFY_SOCKET", manager.path()).arg("--config").arg(file.path());
    });
    manager.ready();
    std::fs::write(file.path(), "limits.fragments = 0\n").unwrap();
    gateway.signal(Signal::HUP);
    manager.until(|note| note.starts_with("RELOADING=1\n"));
    let refused = format!("reload refused: {} line 1: limits.fragments: is 0", file.path().display());
    manager.until(|note| note.starts_with(&format!("STATUS={refused}")));
    manager.until(|note| note == "READY=1");
    // The next lines still tell it, until a reload is good.
    manager.until(|note| note.starts_with("STATUS=0 connections") && note.contains(&refused));
}

/// As systemd starts it again: two listeners of one port and the control socket are open already, a descriptor
/// each from 3 up, and blocking. Says the port, and waits for a line.
const START_WITH_SOCKETS: &str = r#"
import os, socket, sys
binary, path = sys.argv[1:]
given = [socket.socket(), socket.socket(), socket.socket(socket.AF_UNIX)]
port = 0
for listener in given[:2]:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    port = listener.getsockname()[1]
given[2].bind(path)
for number, listener in enumerate(given):
    listener.listen(1024)
    os.dup2(listener.fileno(), 100 + number)
for number in range(len(given)):
    os.dup2(100 + number, 3 + number)
    os.close(100 + number)
print(port, flush=True)
sys.stdin.readline()
os.environ.update(LISTEN_FDS="3", LISTEN_PID=str(os.getpid()))
os.execv(binary, [binary, "serve", "--shards", "2", "--listen", f"127.0.0.1:{port}", "--socket", path])
"#;

/// A gateway that systemd starts again, and the sockets that it is given.
struct Kept {
    child: Child,
    path: PathBuf,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Kept {
    /// Waits to be started, with this limit of descriptors then.
    fn new(nofile: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            &format!("ulimit -n {nofile}; exec python3 -c \"$@\""),
            "sh",
            START_WITH_SOCKETS,
        ]);
        command.arg(env!("CARGO_BIN_EXE_corecast")).arg(&path);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = piped.spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port.trim().parse().unwrap()));
        Self { child, path, address, _directory: directory }
    }

    fn start(&mut self) {
        self.child.stdin.take().unwrap().write_all(b"\n").unwrap();
    }

    /// Drains it, and waits for a good end.
    #[track_caller]
    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let ended = eventually("it ends", || self.child.try_wait().unwrap());
        assert_eq!(ended.code(), Some(0));
        assert!(self.path.exists(), "the file is the manager's");
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn issue_5_who_connects_before_the_start_waits_in_the_sockets_that_the_manager_kept() {
    let mut kept = Kept::new(1024);
    // The kernel spreads them over both listeners.
    let waiting: Vec<_> = (0..8).map(|_| connect(kept.address, None, None)).collect();
    let pusher = std::os::unix::net::UnixStream::connect(&kept.path).unwrap();
    kept.start();
    let mut clients: Vec<_> =
        waiting.into_iter().map(|stream| WebSocket::open_on(stream, "/ws?topics=t", None)).collect();
    let pushed = exchange_unix(&kept.path, "POST", "/v1/push/topic/t", "text/plain", b"hello").ok();
    assert_eq!(pushed["connections"], 8);
    clients.iter_mut().for_each(|client| assert_eq!(client.text(), "hello"));
    drop((clients, pusher));
    kept.stop();
}

#[test]
fn issue_6_a_crowd_that_waits_for_the_start_takes_no_descriptor_that_the_gateway_itself_needs() {
    let mut kept = Kept::new(300);
    // Accepted in one go, before what is too much can be closed: more than there are descriptors.
    let crowd: Vec<_> = (0..600).map(|_| connect(kept.address, None, None)).collect();
    kept.start();
    let stats = || exchange_unix(&kept.path, "GET", "/v1/stats", "", b"").ok();
    eventually("all are accepted", || (stats()["totals"]["accepted"] == 600).then_some(()));
    drop(crowd);
    eventually("all have gone", || (stats()["totals"]["open"] == 0).then_some(()));
    kept.stop();
}
