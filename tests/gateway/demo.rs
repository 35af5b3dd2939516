//! The demo page, driven in Chromium as a user would.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use corecast::wire::demo::PAGE;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::browser::Browser;
use crate::harness::cable::Cable;
use crate::harness::http::Response;
use crate::harness::{Gateway, eventually};

fn ask(gateway: &Gateway, method: &str) -> Response {
    gateway.ask(format!("{method} /?x HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

#[test]
fn contract_2_the_demo_page_is_404_unless_web_demo_is_on() {
    let gateway = Gateway::start(&[]);
    assert_eq!(ask(&gateway, "GET").refusal(), (404, "not_found".to_owned()));
    assert_eq!(ask(&gateway, "HEAD").status, 405);
}

#[test]
fn contract_2_the_demo_page_comes_whole_with_a_policy_that_allows_only_itself() {
    let gateway = Gateway::start(&["web.demo=true"]);
    let (answer, head) = (ask(&gateway, "GET"), ask(&gateway, "HEAD"));
    assert_eq!((answer.status, answer.text()), (200, PAGE));
    assert_eq!((head.status, head.body.len(), &head.headers), (200, 0, &answer.headers));
    assert_eq!(answer.header("content-length"), Some(PAGE.len().to_string().as_str()));
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    let policy = answer.header("content-security-policy").unwrap();
    for rule in ["default-src 'none'", "connect-src 'self'", "script-src 'sha256-"] {
        assert!(policy.contains(rule), "{policy}");
    }
    let refused = ask(&gateway, "POST");
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
    gateway.until("counted", |totals| totals["closed"]["answered"] == 2 && totals["open"] == 0);
}

/// The page, with what a user does to it.
struct Demo(Browser);

/// Class and cells of each row, the oldest first.
const ROWS: &str = "[...log.rows].reverse().map((row) => [row.className, ...[...row.cells].map((cell) => cell.textContent)])";

impl Demo {
    #[track_caller]
    fn open(address: SocketAddr) -> Self {
        let browser = Browser::open(&format!("http://{address}/"));
        assert_eq!(browser.complaints, [""; 0], "a script that was refused: the hash is in src/wire/demo.rs");
        Self(browser)
    }

    #[track_caller]
    fn click(&mut self, selector: &str) {
        self.0.run(&format!("document.querySelector({selector:?}).click()"));
    }

    #[track_caller]
    fn connect(&mut self, transport: &str) {
        self.click(&format!("[value={transport}]"));
        self.click("#connect");
        self.reaches("open");
    }

    /// Waits for one of the states: idle, opening, open, waiting, ended. Gives its text.
    #[track_caller]
    fn reaches(&mut self, state: &str) -> String {
        let found = self
            .0
            .until(&format!("field('state').dataset.state === {state:?} && field('state').textContent"));
        found.as_str().unwrap().to_owned()
    }

    /// Forgets rows and position.
    fn forget(&mut self) {
        self.0.run("field('clear').click(); field('since').value = ''");
    }

    /// Waits for `count` messages. Gives each one's position, without its epoch, its data's `n`, and whether
    /// it was replayed.
    #[track_caller]
    fn messages(&mut self, count: usize) -> Vec<(u64, i64, bool)> {
        let rows =
            self.0.until(&format!("document.querySelectorAll('tr.message').length >= {count} && {ROWS}"));
        let message = |row: &Value| {
            let class = row[0].as_str().unwrap().strip_prefix("message")?;
            let position = row[1].as_str().unwrap().trim_end_matches("replayed");
            let seq = position.split_once('-').map_or(0, |(_, seq)| seq.parse().unwrap());
            let data: Value = serde_json::from_str(row[4].as_str().unwrap()).unwrap();
            Some((seq, data["n"].as_i64().unwrap(), class == " replayed"))
        };
        rows.as_array().unwrap().iter().filter_map(message).collect()
    }

    /// The text of the notes between the messages, the oldest first.
    fn notes(&mut self) -> Vec<String> {
        let rows = self.0.run(ROWS);
        let notes =
            rows.as_array().unwrap().iter().filter(|row| row[0].as_str().unwrap().starts_with("note"));
        notes.map(|row| row[1].as_str().unwrap().to_owned()).collect()
    }

    /// Waits for a note that begins so, and gives the last such.
    #[track_caller]
    fn noted(&mut self, begin: &str) -> String {
        self.0.until(&format!("[...log.rows].some((row) => row.innerText.trim().startsWith({begin:?}))"));
        self.notes().into_iter().rfind(|note| note.starts_with(begin)).unwrap()
    }
}

fn push(gateway: &Gateway, n: i64) -> u64 {
    let pushed = gateway.push(json!({"topic": "news"}), json!({ "n": n }));
    let (_, seq) = pushed["position"].as_str().unwrap().split_once('-').unwrap();
    seq.parse().unwrap()
}

#[test]
fn contract_2_the_demo_page_shows_what_is_pushed_by_each_transport() {
    let gateway = Gateway::start(&["web.demo=true"]);
    let mut uplinks = gateway.events("types=uplink");
    let mut demo = Demo::open(gateway.address);
    for (transport, topic, event) in
        [("json", "news", ""), ("raw", "", ""), ("stream", "", "price"), ("poll", "news", "price")]
    {
        demo.forget();
        demo.connect(transport);
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let data = json!({"sent_at_ms": now_ms, "text": "<b>"});
        let pushed = gateway.push_with(json!({"to": {"topic": "news"}, "data": data, "event": "price"}));
        let row = demo.0.until(&format!("log.querySelector('tr.message') && {ROWS}.at(-1)"));
        let position = if transport == "raw" { &json!("") } else { &pushed["position"] };
        assert_eq!(
            row.as_array().unwrap()[..4],
            [json!("message"), position.clone(), json!(topic), json!(event)]
        );
        assert_eq!(serde_json::from_str::<Value>(row[4].as_str().unwrap()).unwrap(), data);
        let latency_ms: u64 = row[5].as_str().unwrap().strip_suffix(" ms").unwrap().parse().unwrap();
        assert!(latency_ms < 60_000, "{row}");
        let has_uplink = ["json", "raw"].contains(&transport);
        assert_eq!(demo.0.run("!field('send').disabled"), has_uplink, "{transport}");
        if has_uplink {
            demo.click("#send");
            let uplink = uplinks.next();
            assert_eq!((&uplink["user"], &uplink["data"]), (&json!("alice"), &json!("hello")));
        }
        demo.click("#disconnect");
        gateway.until("gone", |totals| totals["connections"] == 0);
    }
    assert_eq!(demo.0.complaints, [""; 0]);
}

#[test]
fn contract_2_the_demo_page_subscribes_and_unsubscribes_by_each_transport() {
    let gateway = Gateway::start(&["web.demo=true"]);
    let mut demo = Demo::open(gateway.address);
    for transport in ["json", "raw", "stream", "poll"] {
        demo.connect(transport);
        demo.0.run("field('topic').value = 'sport'; field('subscription').requestSubmit()");
        let subscribed = |count: u64| {
            let topics = gateway.get("/v1/topics/sport");
            (topics["connections"] == count).then_some(())
        };
        eventually("subscribed", || subscribed(1));
        demo.reaches("open");
        demo.0.until("field('topics').children.length === 2");
        demo.click("#topics li:last-child button");
        eventually("unsubscribed", || subscribed(0));
        demo.0.until("field('topics').children.length === 1");
        demo.reaches("open");
        let again = demo.notes().iter().filter(|note| note.contains("connecting again")).count();
        assert_eq!(again, if transport == "json" { 0 } else { 2 }, "{transport}");
        demo.click("#disconnect");
        demo.forget();
    }
    assert_eq!(demo.0.complaints, [""; 0]);
}

#[test]
fn contract_2_the_demo_page_shows_what_was_missed_as_replayed_and_a_gap_as_a_gap() {
    let gateway = Gateway::start(&["web.demo=true", "history.messages=3"]);
    let mut demo = Demo::open(gateway.address);
    for transport in ["json", "stream", "poll"] {
        demo.forget();
        // Nothing has come before the end: it resumes from where it began.
        demo.connect(transport);
        demo.click("#disconnect");
        gateway.until("gone", |totals| totals["connections"] == 0);
        let missed: Vec<u64> = (0..3).map(|n| push(&gateway, n)).collect();
        demo.click("#connect");
        assert_eq!(
            demo.messages(3),
            [(missed[0], 0, true), (missed[1], 1, true), (missed[2], 2, true)],
            "{transport}"
        );
        demo.reaches("open");
        gateway.until("there", |totals| totals["connections"] == 1);
        let live = push(&gateway, 3);
        assert_eq!(demo.messages(4)[3], (live, 3, false), "{transport}");
        assert!(!demo.notes().iter().any(|note| note.starts_with("gap")), "{transport}");

        demo.click("#disconnect");
        gateway.until("gone", |totals| totals["connections"] == 0);
        let held: Vec<u64> = (4..8).map(|n| push(&gateway, n)).skip(1).collect();
        demo.click("#connect");
        let messages = demo.messages(7);
        assert_eq!(
            messages[4..],
            [(held[0], 5, true), (held[1], 6, true), (held[2], 7, true)],
            "{transport}"
        );
        demo.noted("gap");
        demo.click("#disconnect");
    }
    assert_eq!(demo.0.complaints, [""; 0]);
}

#[test]
fn whatwg_9_2_an_event_source_that_was_cut_resumes_by_last_event_id_once_and_in_order() {
    let gateway = Gateway::start(&["web.demo=true"]);
    let cable = Cable::to(gateway.address);
    let mut demo = Demo::open(cable.address);
    demo.connect("stream");
    let first = push(&gateway, 1);
    assert_eq!(demo.messages(1), [(first, 1, false)]);
    let at = demo.0.run("field('since').value").as_str().unwrap().to_owned();
    cable.cut();
    demo.reaches("waiting");
    gateway.until("gone", |totals| totals["event_streams"] == 0);
    let missed = [push(&gateway, 2), push(&gateway, 3)];
    cable.mend();
    gateway.until("back", |totals| totals["event_streams"] == 1);
    demo.reaches("open");
    demo.messages(3);
    let live = push(&gateway, 4);
    let seqs: Vec<(u64, i64)> = demo.messages(4).iter().map(|&(seq, n, _)| (seq, n)).collect();
    assert_eq!(seqs, [(first, 1), (missed[0], 2), (missed[1], 3), (live, 4)]);
    let streams = cable.requests("/sse");
    assert_eq!(streams.len(), 2, "{streams:?}");
    assert!(streams[1].contains(&format!("\r\nLast-Event-ID: {at}\r\n")), "{}", streams[1]);
}

#[test]
fn contract_2_a_websocket_and_a_poll_that_were_cut_back_off_and_resume() {
    let gateway = Gateway::start(&["web.demo=true"]);
    let cable = Cable::to(gateway.address);
    let mut demo = Demo::open(cable.address);
    for transport in ["json", "poll"] {
        demo.forget();
        demo.connect(transport);
        let first = push(&gateway, 1);
        demo.messages(1);
        cable.cut();
        demo.reaches("waiting");
        gateway.until("gone", |totals| totals["connections"] == 0);
        let missed = push(&gateway, 2);
        cable.mend();
        assert_eq!(demo.messages(2), [(first, 1, false), (missed, 2, true)], "{transport}");
        assert!(demo.noted("ended by 1006: connection lost").contains("It comes back in "), "{transport}");
        demo.click("#disconnect");
    }
}

#[test]
fn contract_2_the_demo_page_obeys_close_codes() {
    let mut gateway = Gateway::start(&["web.demo=true", "timeouts.drain=1s"]);
    let mut demo = Demo::open(gateway.address);
    let kick = |code: u16| {
        let target = format!("/v1/users/alice?code={code}&reason=because");
        assert_eq!(gateway.control("DELETE", &target, "", b"").ok(), json!({"closed": 1}));
    };
    for transport in ["json", "raw", "stream"] {
        demo.forget();
        demo.connect(transport);
        kick(4000);
        let told = if transport == "stream" { "4000" } else { "ended by 4000" };
        assert!(demo.noted(told).contains("slow consumer: because"));
        demo.reaches("open");
        gateway.until("back", |totals| totals["connections"] == 1);
        kick(4500);
        assert_eq!(demo.reaches("ended"), "ended by 4500: kicked: because");
        assert_eq!(demo.0.run("session.line === null && session.timer === undefined"), true);
        gateway.until("gone", |totals| totals["connections"] == 0);
    }
    demo.connect("poll");
    gateway.until("held", |totals| totals["polls"] == 1);
    kick(4500);
    assert_eq!(demo.reaches("ended"), "ended by 403 kicked: because");

    demo.forget();
    demo.connect("json");
    gateway.signal(Signal::TERM);
    let note = demo.noted("ended by 1012: restart: reconnect after ");
    let asked_ms = note.split("reconnect after ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(note.ends_with(&format!("It comes back in {asked_ms} ms.")), "{note}");
    gateway.ended();
}

#[test]
fn contract_2_the_demo_page_says_why_it_was_refused() {
    let gateway = Gateway::start(&["web.demo=true", "auth.anonymous=false"]);
    let mut demo = Demo::open(gateway.address);
    for transport in ["json", "stream", "poll"] {
        demo.0.run("field('user').value = ''");
        demo.click(&format!("[value={transport}]"));
        demo.click("#connect");
        assert!(demo.reaches("ended").starts_with("ended by 401 unauthorized: "), "{transport}");
        demo.forget();
    }
}

#[test]
fn contract_2_the_demo_page_hints_at_web_origins_where_its_websocket_is_refused() {
    let gateway = Gateway::start(&["web.demo=true", "web.origins=https://page.example"]);
    let mut demo = Demo::open(gateway.address);
    demo.click("#connect");
    assert!(demo.noted("ended by 1006").contains("may be missing in web.origins"));
    demo.click("#disconnect");
    demo.connect("stream");
}

#[test]
fn the_demo_page_can_be_used_by_keyboard_and_every_control_has_a_name() {
    let gateway = Gateway::start(&["web.demo=true"]);
    let mut demo = Demo::open(gateway.address);
    let nameless = demo.0.run(
        "[...document.querySelectorAll('input, button')].filter((control) => \
           !(control.labels?.length || control.ariaLabel || control.textContent.trim())).map((it) => it.outerHTML)",
    );
    assert_eq!(nameless, json!([]));
    demo.0.run("field('user').focus()");
    demo.0.press("Enter", 13, "\r");
    demo.reaches("open");
    assert_eq!(demo.0.run("document.activeElement.id"), "disconnect");
    demo.0.press("Enter", 13, "\r");
    demo.reaches("idle");
}
