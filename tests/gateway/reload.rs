//! SIGHUP: the file is read again, and what can change does, for clients that stay.

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::poll::Poller;
use crate::harness::websocket::TEXT;
use crate::harness::{Gateway, eventually};

/// A gateway with a file that is written anew.
pub struct Reloaded {
    pub gateway: Gateway,
    file: PathBuf,
    /// Held for its end.
    _directory: tempfile::TempDir,
}

impl Reloaded {
    pub fn start(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("corecast.toml");
        std::fs::write(&file, text).unwrap();
        let gateway = Gateway::prepared(&[], "127.0.0.1:0", |command| {
            command.arg("--config").arg(&file);
        });
        Self { gateway, file, _directory: directory }
    }

    /// Writes the file, sends SIGHUP, and waits until the counter named has grown.
    #[track_caller]
    fn hup(&self, text: &str, counter: &str) {
        let before = self.gateway.get("/v1/stats")[counter].as_u64().unwrap();
        std::fs::write(&self.file, text).unwrap();
        self.gateway.signal(Signal::HUP);
        self.gateway.until_stats("the reload is over", |stats| stats[counter] == before + 1);
    }

    /// With a good file.
    #[track_caller]
    pub fn reload(&self, text: &str) {
        self.hup(text, "reloads");
    }

    /// Waits until it has said this, and gives the line.
    #[track_caller]
    fn line(&mut self, what: &str) -> String {
        eventually(what, || self.gateway.said().lines().find(|line| line.contains(what)).map(str::to_owned))
    }
}

#[test]
fn issue_5_limits_hold_at_once_for_clients_that_stay_and_for_pushes() {
    let setup = Reloaded::start("limits.message_bytes = \"1KiB\"\n");
    let mut clients: Vec<_> = (0..8).map(|n| setup.gateway.raw(&format!("user=u{n}&topics=t"))).collect();
    let push = |bytes: usize| {
        let body = json!({"to": {"topic": "t"}, "kind": "text", "data": "x".repeat(bytes)}).to_string();
        setup.gateway.control("POST", "/v1/push", "application/json", body.as_bytes())
    };
    push(1000).ok();
    setup.reload("limits.message_bytes = \"100\"\n");
    assert_eq!(push(101).refusal(), (413, "too_large".to_owned()));
    setup.reload("limits.message_bytes = \"2KiB\"\n");
    push(2000).ok();
    for client in &mut clients {
        assert_eq!((client.text().len(), client.text().len()), (1000, 2000));
    }
    assert_eq!(setup.gateway.totals()["connections"], 8);
    // Inbound as well: the first is shorter than the new limit, the second is not.
    setup.reload("limits.message_bytes = \"100\"\n");
    clients[0].send(TEXT, "y".repeat(100).as_bytes());
    setup.gateway.until("it is heard", |totals| totals["uplinks"] == 1);
    clients[0].send(TEXT, "y".repeat(101).as_bytes());
    assert_eq!(clients[0].closed().0, 1009);
}

#[test]
fn issue_5_a_bad_file_is_refused_whole_with_its_line_and_the_old_one_stays() {
    let mut setup = Reloaded::start("limits.message_bytes = \"100\"\n");
    let mut client = setup.gateway.raw("topics=t");
    for bad in [
        "limits.message_bytes = \"1KiB\"\nlimits.fragments = 0\n",
        "limits.message_bytes = \"1KiB\"\nlimits.fragment = 7\n",
        "limits.message_bytes = \"1KiB\"\nlimits.fragments =\n",
    ] {
        setup.hup(bad, "reloads_refused");
    }
    let file = setup.file.display().to_string();
    let line = setup.line("reload refused, the old configuration stays: ");
    assert!(line.contains(&format!("{file} line 2: limits.fragments: is 0")), "{line}");
    let said = setup.gateway.said();
    assert!(said.contains("unknown key `fragment`"), "{said}");
    let body = json!({"to": {"topic": "t"}, "data": "x".repeat(200)}).to_string();
    let answer = setup.gateway.control("POST", "/v1/push", "application/json", body.as_bytes());
    assert_eq!(answer.refusal(), (413, "too_large".to_owned()));
    setup.gateway.push(json!({"topic": "t"}), json!("kept"));
    assert_eq!(client.text(), "\"kept\"");
}

#[test]
fn issue_5_a_file_that_is_gone_is_refused() {
    let mut setup = Reloaded::start("");
    std::fs::remove_file(&setup.file).unwrap();
    setup.gateway.signal(Signal::HUP);
    let line = setup.line("reload refused");
    assert!(line.contains("cannot read the configuration file"), "{line}");
}

#[test]
fn issue_5_keys_that_need_a_restart_are_named_and_the_others_are_taken_over() {
    let mut setup = Reloaded::start("");
    setup.reload("control.mailbox_messages = 7\nlog.format = \"json\"\nlimits.topics_per_connection = 1\n");
    let line = setup.line("a restart is needed for: ");
    assert!(line.contains("control.mailbox_messages, log.format; they stay as they were"), "{line}");
    setup.line("changed=\"limits.topics_per_connection\"");
    let answer = setup.gateway.ask("GET /sse?topics=a,b HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(answer.status, 400, "{answer:?}");
}

#[test]
fn issue_5_more_clients_than_descriptors_are_refused_in_a_reload_too() {
    let mut setup = Reloaded::start("");
    setup.hup("limits.connections = 4000000000\n", "reloads_refused");
    let line = setup.line("reload refused");
    assert!(
        line.contains("limits.connections and control.clients need 40") && line.contains("the limit is"),
        "{line}"
    );
}

#[test]
fn issue_5_a_shorter_timeout_holds_for_those_who_wait_already() {
    let setup = Reloaded::start("timeouts.handshake = \"1h\"\n");
    let silent = crate::harness::websocket::connect(setup.gateway.address, None, None);
    setup.gateway.until("it is accepted", |totals| totals["open"] == 1);
    setup.reload("timeouts.handshake = \"100ms\"\n");
    setup.gateway.until("it is closed", |totals| totals["closed"]["handshake_timeout"] == 1);
    drop(silent);
}

#[test]
fn issue_5_less_history_is_kept_and_a_resume_is_told_of_the_gap() {
    let setup = Reloaded::start("history.messages = 100\n");
    let (_keeper, hello) = setup.gateway.hello("topics=t");
    let since = hello["position"].as_str().unwrap().to_owned();
    (0..20).for_each(|n| drop(setup.gateway.push(json!({"topic": "t"}), json!(n))));
    let resumed = || {
        let mut client = setup.gateway.hello(&format!("topics=t&since={since}")).0;
        let resumed = client.expect("resumed");
        (resumed["replayed"].clone(), resumed["gap"].clone())
    };
    assert_eq!(resumed(), (json!(20), json!(false)));
    setup.reload("history.messages = 3\n");
    setup.gateway.push(json!({"topic": "t"}), json!(20));
    setup.gateway.until("it is trimmed", |totals| totals["tape_messages"].as_u64() <= Some(2 * 3));
    assert_eq!(resumed(), (json!(3), json!(true)));
}

#[test]
fn issue_5_a_held_poll_is_answered_to_its_own_origin_whatever_becomes_of_the_list() {
    let setup = Reloaded::start("web.origins = [\"https://a.example\", \"https://b.example\"]\n");
    let mut polls: Vec<_> = ["https://a.example", "https://b.example"]
        .map(|origin| {
            let mut poll = Poller::connect(setup.gateway.address);
            poll.send(format!("GET /poll?topics=t HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n\r\n"));
            poll
        })
        .into();
    // One without an origin: all such share their answer.
    let mut program = Poller::connect(setup.gateway.address);
    program.send(crate::harness::poll::request("topics=t"));
    setup.gateway.until("they are held", |totals| totals["polls"] == 3);
    setup.reload("web.origins = [\"https://b.example\"]\n");
    setup.gateway.push(json!({"topic": "t"}), json!(1));
    let allowed = |poll: &mut Poller| {
        let answer = poll.answer();
        let allowed = answer.header("access-control-allow-origin").map(str::to_owned);
        assert_eq!(answer.ok()["messages"][0]["data"], 1);
        allowed
    };
    assert_eq!(allowed(&mut polls[0]), None, "it is not listed any more");
    assert_eq!(allowed(&mut polls[1]).as_deref(), Some("https://b.example"));
    assert_eq!(allowed(&mut program), None);
}

#[test]
fn issue_5_the_log_level_changes_while_it_runs() {
    let mut setup = Reloaded::start("log.level = \"error\"\n");
    setup.reload("log.level = \"error\"\ntimeouts.send = \"9s\"\n");
    setup.reload("log.level = \"info\"\ntimeouts.send = \"9s\"\n");
    setup.reload("log.level = \"info\"\ntimeouts.send = \"8s\"\n");
    setup.line("configuration reloaded changed=\"timeouts.send\"");
    let said = setup.gateway.said();
    assert_eq!(said.matches("configuration reloaded").count(), 1, "{said}");
}

#[test]
fn issue_5_every_client_stays_over_many_reloads_under_load() {
    let setup = Reloaded::start("");
    let transports = |n: usize| match n % 2 {
        0 => "limits.uplinks_per_second = 7\nlimits.connects_per_second = 9000\n[history]\nmessages = 10\n",
        _ => {
            "timeouts.heartbeat = \"20s\"\nlimits.socket_send_bytes = \"64KiB\"\nweb.origins = [\"https://a.b\"]\n"
        }
    };
    let mut sockets: Vec<_> = (0..20).map(|n| setup.gateway.raw(&format!("user=u{n}&topics=t"))).collect();
    let mut streams: Vec<_> = (0..10).map(|_| setup.gateway.stream("topics=t")).collect();
    for n in 0..20 {
        setup.reload(transports(n));
        setup.gateway.push(json!({"topic": "t"}), json!(n));
    }
    for n in 0..20 {
        sockets.iter_mut().for_each(|socket| assert_eq!(socket.text(), n.to_string()));
        streams.iter_mut().for_each(|stream| assert_eq!(stream.next().data, n.to_string()));
    }
    let totals = setup.gateway.totals();
    assert_eq!((&totals["connections"], &totals["accepted"]), (&Value::from(30), &Value::from(30)));
}
