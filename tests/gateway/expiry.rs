//! The end of a token on a live connection, and `refresh` (issue 6).

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::issuer::{Issuer, unix_ms};
use crate::harness::poll::{self, Poller};
use crate::harness::websocket::CLOSE;
use crate::harness::{DEADLINE, Gateway, eventually};

/// So many seconds from now, whole ones, as `exp` counts.
fn in_seconds(seconds: u64) -> u64 {
    unix_ms() / 1000 + seconds
}

/// It is `exp` now or later, by what a busy machine may take. That a shard takes a tenth of a second,
/// tests/shard/expiry.rs shows turn by turn.
#[track_caller]
fn assert_on_time(exp: u64) {
    let late_ms = unix_ms() as i64 - (exp * 1000) as i64;
    assert!((0..DEADLINE.as_millis() as i64).contains(&late_ms), "{late_ms} ms after exp");
}

/// A query with a token of this user that ends at `exp`.
fn until(issuer: &Issuer, user: &str, exp: u64) -> String {
    format!("token={}", issuer.token(json!({"sub": user, "exp": exp})))
}

fn refresh(token: &str) -> Value {
    json!({"type": "refresh", "token": token, "id": 7})
}

#[test]
fn issue_6_a_connection_ends_with_its_token_on_every_transport_and_never_early() {
    let issuer = Issuer::new(b'k');
    let gateway = issuer.gateway(&[]);
    // Users on both shards, so that some were handed over.
    let users = ["a", "b", "c", "d", "e", "f"];
    let exp = in_seconds(2);
    let mut raw: Vec<_> = users.map(|user| gateway.raw(&until(&issuer, user, exp))).into();
    let mut json: Vec<_> = users.map(|user| gateway.hello(&until(&issuer, user, exp)).0).into();
    let mut streams: Vec<_> = users.map(|user| gateway.stream(&until(&issuer, user, exp))).into();
    let mut longer = gateway.raw(&until(&issuer, "a", exp + 3600));
    let mut endless = gateway.raw(&format!("token={}", issuer.token(json!({"sub": "a"}))));
    for client in raw.iter_mut().chain(&mut json) {
        assert_eq!(client.closed(), (4002, "token expired".to_owned()));
        assert_on_time(exp);
    }
    for stream in &mut streams {
        assert_eq!(stream.expect("corecast.close"), json!({"code": 4002, "reason": "token expired"}));
        stream.ended();
        assert_on_time(exp);
    }
    longer.nothing_waits();
    endless.nothing_waits();
    let totals = gateway.until("they have gone", |totals| totals["open"] == 2);
    assert_eq!((&totals["closed"]["token_expired"], &totals["connections"]), (&json!(18), &json!(2)));
}

#[test]
fn issue_6_a_poll_ends_with_its_token_by_its_normal_answer_and_the_next_is_unauthorized() {
    let issuer = Issuer::new(b'k');
    let gateway = issuer.gateway(&[]);
    let exp = in_seconds(2);
    let query = format!("{}&timeout=60", until(&issuer, "ann", exp));
    let mut poller = Poller::connect(gateway.address);
    poller.send(poll::request(&query));
    let answer = poller.answer();
    assert_on_time(exp);
    assert_eq!((answer.ok()["messages"].clone(), answer.header("connection")), (json!([]), None));
    poller.send(poll::request(&query));
    assert_eq!(poller.answer().refusal(), (401, "unauthorized".to_owned()));
    // The token of an earlier poll ends nothing of a later one.
    let mut poller = Poller::connect(gateway.address);
    let (short, long) = (until(&issuer, "bob", in_seconds(1)), until(&issuer, "bob", in_seconds(60)));
    poller.poll(&format!("{short}&timeout=0"));
    let begun = unix_ms();
    poller.poll(&format!("{long}&timeout=2"));
    assert!(unix_ms() - begun >= 2000, "answered after {} ms", unix_ms() - begun);
    assert_eq!(gateway.totals()["closed"]["token_expired"], 0);
}

#[test]
fn issue_6_the_leeway_counts_for_a_live_connection_too() {
    let issuer = Issuer::new(b'k');
    let gateway = issuer.gateway(&["auth.leeway=2s"]);
    let exp = in_seconds(0);
    let mut client = gateway.raw(&until(&issuer, "ann", exp));
    assert_eq!(client.closed().0, 4002);
    assert_on_time(exp + 2);
}

#[test]
fn issue_6_refresh_goes_on_under_another_token_of_the_same_user() {
    let issuer = Issuer::new(b'k');
    let gateway = issuer.gateway(&[]);
    let (exp, later) = (in_seconds(1), in_seconds(3));
    let (mut client, _) = gateway.hello(&until(&issuer, "ann", exp));
    let token = issuer.token(json!({"sub": "ann", "exp": later}));
    client.send_json(&refresh(&token));
    assert_eq!(client.expect("refreshed"), json!({"type": "refreshed", "expires_at": later * 1000, "id": 7}));
    assert_eq!(client.closed().0, 4002);
    assert_on_time(later);
    // Without an end in the new one, there is none.
    let (mut client, _) = gateway.hello(&until(&issuer, "ann", in_seconds(1)));
    client.send_json(&refresh(&issuer.token(json!({"sub": "ann"}))));
    assert_eq!(client.expect("refreshed"), json!({"type": "refreshed", "id": 7}));
    let mut witness = gateway.raw(&until(&issuer, "bob", in_seconds(2)));
    witness.closed();
    client.nothing_waits();
}

#[test]
fn issue_6_more_tokens_than_are_ended_in_one_turn_end_all_the_same() {
    let issuer = Issuer::new(b'k');
    let gateway = issuer.gateway(&["shards=1"]);
    let query = format!("token={}", issuer.token(json!({"sub": "ann"})));
    let mut clients: Vec<_> = (0..1100).map(|_| gateway.hello(&query).0).collect();
    let exp = in_seconds(4);
    let token = issuer.token(json!({"sub": "ann", "exp": exp}));
    for client in &mut clients {
        client.send_json(&refresh(&token));
    }
    for client in &mut clients {
        client.expect("refreshed");
    }
    assert_eq!(clients[0].next().opcode, CLOSE);
    assert_on_time(exp);
    // All of them are ended where the first is read, or soon after.
    gateway.until("all are ended", |totals| totals["connections"] == 0);
    assert_on_time(exp);
    drop(clients);
    gateway.until("all are counted", |totals| totals["closed"]["token_expired"] == 1100);
}

#[test]
fn issue_6_refresh_with_a_token_that_does_not_hold_is_an_error_and_the_old_one_counts_on() {
    let issuer = Issuer::new(b'k');
    let gateway = issuer.gateway(&[]);
    let exp = in_seconds(2);
    let (mut client, _) = gateway.hello(&until(&issuer, "ann", exp));
    for (token, why) in [
        (issuer.token(json!({"sub": "bob"})), "of another user"),
        (issuer.token(json!({})), "of another user"),
        (Issuer::new(b'o').token(json!({"sub": "ann"})), "signature does not hold"),
        (issuer.token(json!({"sub": "ann", "exp": 1})), "has expired"),
    ] {
        client.send_json(&refresh(&token));
        let error = client.expect("error");
        assert_eq!((&error["code"], &error["id"]), (&json!("unauthorized"), &json!(7)));
        assert!(error["message"].as_str().unwrap().contains(why), "{error}");
    }
    assert_eq!(client.closed().0, 4002);
    assert_on_time(exp);
    assert_eq!(gateway.totals()["unauthorized"], 4);
}

#[test]
fn issue_6_refresh_takes_over_the_topics_and_leaves_those_that_were_bound_beyond_the_old_ones() {
    let issuer = Issuer::new(b'k');
    let gateway = issuer.gateway(&[]);
    let token = |topics: Value| issuer.token_of("ann", json!({"topics": topics}));
    let (mut client, _) = gateway.hello(&format!("token={}&topics=a,b,c", token(json!(["a", "b", "c"]))));
    gateway.control("PUT", "/v1/users/ann/topics/bound", "", b"").ok();
    client.send_json(&refresh(&token(json!(["b", "d"]))));
    client.expect("refreshed");
    let unsubscribed = client.expect("unsubscribed");
    assert_eq!((&unsubscribed["topics"], unsubscribed.get("id")), (&json!(["a", "c"]), None));
    let topics = |gateway: &Gateway| gateway.get("/v1/users/ann")["connections"][0]["topics"].clone();
    assert_eq!(topics(&gateway), json!(["b", "bound"]));
    for (topic, answer) in [("a", "error"), ("d", "subscribed")] {
        client.send_json(&json!({"type": "subscribe", "topics": [topic]}));
        client.expect(answer);
    }
    // Without the claim, anything again.
    client.send_json(&refresh(&issuer.token_of("ann", json!({}))));
    client.expect("refreshed");
    client.send_json(&json!({"type": "subscribe", "topics": ["a"]}));
    client.expect("subscribed");
    client.nothing_waits();
}

#[test]
fn issue_6_in_other_modes_there_is_nothing_to_refresh() {
    let gateway = Gateway::start(&[]);
    let (mut client, _) = gateway.hello("user=ann");
    client.send_json(&refresh("a.b.c"));
    assert_eq!(client.expect("error")["code"], "bad_request");
    client.nothing_waits();
}

#[test]
fn issue_6_a_reload_reads_the_key_files_again_and_refuses_one_that_holds_none() {
    let (issuer, next) = (Issuer::new(b'k'), Issuer::new(b'n'));
    let mut gateway = issuer.gateway(&[]);
    let mut present = gateway.raw(&issuer.query("ann", json!({})));
    let reload = |gateway: &Gateway, counter: &str| {
        let before = gateway.get("/v1/stats")[counter].as_u64().unwrap();
        gateway.signal(Signal::HUP);
        gateway.until_stats("the reload is over", |stats| stats[counter] == before + 1);
    };
    fs::write(issuer.file(), "short").unwrap();
    reload(&gateway, "reloads_refused");
    let line = eventually("it is told", || {
        gateway.said().lines().find(|line| line.contains("reload refused")).map(str::to_owned)
    });
    let why = format!("auth.keys: {} has 5 bytes, HS256 needs at least 32", issuer.file().display());
    assert!(line.contains(&why), "{line}");
    gateway.raw(&issuer.query("ann", json!({}))).close();
    // The secret of the next issuer in the place of the old one.
    fs::write(issuer.file(), [b'n'; 32]).unwrap();
    reload(&gateway, "reloads");
    gateway.raw(&next.query("ann", json!({}))).close();
    let get = format!("GET /sse?{} HTTP/1.1\r\nHost: x\r\n\r\n", issuer.query("ann", json!({})));
    assert_eq!(gateway.ask(get).refusal(), (401, "unauthorized".to_owned()));
    // Who is connected stays.
    present.nothing_waits();
}

#[test]
fn issue_6_another_auth_mode_waits_for_a_restart() {
    let issuer = Issuer::new(b'k');
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("corecast.toml");
    let jwt = format!("auth.mode = \"jwt\"\nauth.keys = [\"HS256:{}\"]\n", issuer.file().display());
    fs::write(&file, jwt).unwrap();
    let mut gateway = Gateway::prepared(&[], "127.0.0.1:0", |command| {
        command.arg("--config").arg(&file);
    });
    fs::write(&file, "auth.mode = \"open\"\n").unwrap();
    gateway.signal(Signal::HUP);
    gateway.until_stats("the reload is over", |stats| stats["reloads"] == 1);
    eventually("it is told", || {
        gateway.said().contains("a restart is needed for: auth.keys, auth.mode").then_some(())
    });
    assert_eq!(gateway.ask("GET /sse?user=ann HTTP/1.1\r\nHost: x\r\n\r\n").status, 401);
    gateway.raw(&issuer.query("ann", json!({}))).close();
}

#[test]
fn issue_6_a_key_file_without_a_key_keeps_the_gateway_from_starting() {
    let issuer = Issuer::new(b'k');
    fs::write(issuer.file(), "short").unwrap();
    let (status, said) = crate::harness::refused_start(|command| {
        command.args(["--set", "auth.mode=jwt", "--set", &issuer.setting()]);
    });
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("has 5 bytes, HS256 needs at least 32") && said.contains("try: "), "{said}");
    let (status, said) = crate::harness::refused_start(|command| {
        command.args(["--set", "auth.mode=jwt"]);
    });
    assert_eq!(status, 2, "{said}");
    assert!(
        said.contains("command line: auth.keys: is empty") || said.contains("auth.keys: is empty"),
        "{said}"
    );
}
