//! What happens as memory gets short: the whole way from the process's pages to the clients (issue 6).

use std::io::Write;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::Gateway;
use crate::harness::websocket::{WebSocket, connect, upgrade};

/// A gateway whose `limits.memory` can be set while it runs.
struct Limited {
    gateway: Gateway,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Limited {
    /// Comes with much in use already, so that pages touched for the first time move it by less than a hundredth.
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("memory.toml");
        std::fs::write(&file, "limits.memory = \"1TiB\"\n").unwrap();
        let gateway = Gateway::prepared(&["limits.send_backlog_bytes=64MiB"], "127.0.0.1:0", |command| {
            command.arg("--config").arg(&file);
        });
        let limited = Self { gateway, file, _directory: directory };
        limited.connect().unwrap().close();
        for _ in 0..500 {
            limited.gateway.push(json!({"topic": "history"}), json!("x".repeat(60_000)));
        }
        // What was looked at before all that is of no use.
        limited.set_limit(2 << 40);
        limited
    }

    /// Sets the limit, and waits until memory was looked at under it.
    #[track_caller]
    fn set_limit(&self, bytes: u64) {
        std::fs::write(&self.file, format!("limits.memory = {bytes}\n")).unwrap();
        self.gateway.signal(Signal::HUP);
        self.looked(|stats| stats["memory_limit_bytes"] == bytes);
    }

    /// Sets the limit so that this many hundredths of it are in use, and waits until that is seen.
    #[track_caller]
    fn use_up(&self, percent: u64) {
        let used = self.looked(|_| true)["memory_used_bytes"].as_u64().unwrap();
        self.set_limit(used * 100 / percent);
    }

    /// The counters, once memory has been looked at and they are so.
    #[track_caller]
    fn looked(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let looked = |stats: &Value| stats["memory_used_bytes"].as_u64() > Some(0) && wanted(stats);
        self.gateway.until_stats("memory is looked at", looked)
    }

    fn connect(&self) -> Result<WebSocket, (u16, String)> {
        let mut stream = connect(self.gateway.address, None, None);
        stream.write_all(upgrade("/ws", "").as_bytes()).unwrap();
        WebSocket::opened(stream).map_err(|refused| refused.refusal())
    }
}

#[test]
fn issue_6_memory_at_80_percent_is_logged_at_90_refuses_and_lets_in_again_below_85() {
    let mut limited = Limited::start();
    let mut stays = limited.connect().unwrap();
    limited.use_up(82);
    limited.connect().unwrap().close();
    limited.use_up(92);
    assert_eq!(limited.connect().err(), Some((503, "overloaded".to_owned())));
    stays.nothing_waits();
    // Hysteresis: what was reached is left 5 % lower.
    limited.use_up(87);
    assert!(limited.connect().is_err());
    limited.use_up(50);
    limited.connect().unwrap().close();
    stays.close();
    let totals = limited.gateway.totals();
    assert_eq!((&totals["refused"]["memory"], &totals["closed"]["memory"]), (&json!(2), &json!(0)));
    let said = limited.gateway.said();
    assert_eq!(said.matches("memory: 8").count(), 1, "{said}");
    assert!(said.contains("memory: 9") && said.contains("limits.memory"), "{said}");
    let metrics = limited.gateway.control("GET", "/metrics", "", b"");
    assert!(metrics.text().contains("\ncorecast_memory_limit_bytes "));
}

#[test]
fn issue_6_memory_at_95_percent_cuts_who_does_not_read_and_nobody_else() {
    let limited = Limited::start();
    let mut reads = limited.connect().unwrap();
    let stuck = WebSocket::open_on(connect(limited.gateway.address, Some(4096), None), "/ws?topics=t", None);
    for _ in 0..40 {
        limited.gateway.push(json!({"topic": "t"}), json!("x".repeat(60_000)));
    }
    limited.gateway.until("it is behind", |totals| totals["blocked"] == 1);
    limited.use_up(97);
    let totals = limited.gateway.until("it is cut", |totals| totals["closed"]["memory"] == 1);
    assert_eq!((&totals["connections"], &totals["blocked"]), (&json!(1), &json!(0)));
    reads.nothing_waits();
    drop(stuck);
}
