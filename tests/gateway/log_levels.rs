//! The log while the gateway runs: levels for a while, what a connection's life looks like, and what never shows.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::websocket::upgrade;
use crate::harness::{Gateway, eventually, stderr, stdout};
use crate::reload::Reloaded;

fn set(gateway: &Gateway, body: Value) -> Value {
    gateway.control("POST", "/v1/log", "application/json", body.to_string().as_bytes()).ok()
}

/// All that it says until its end.
fn all_said(mut gateway: Gateway) -> String {
    gateway.signal(rustix::process::Signal::TERM);
    gateway.ended();
    gateway.said()
}

#[test]
fn issue_7_a_level_is_set_for_a_while_and_goes_back_by_itself() {
    let gateway = Gateway::start(&[]);
    gateway.raw("user=before").close();
    let answer = set(&gateway, json!({"level": "debug", "target": "shard", "for_ms": 1500}));
    assert_eq!((&answer["filter"], &answer["level"]), (&json!("info,corecast::shard=debug"), &json!("info")));
    assert_eq!(answer["overrides"][0]["target"], "shard");
    assert!(answer["overrides"][0]["until"].as_u64().is_some(), "{answer}");
    gateway.raw("user=during").close();
    // Not asked for while it waits: it is the clock that ends it.
    std::thread::sleep(Duration::from_millis(1600));
    let shown = gateway.get("/v1/log");
    assert_eq!(shown, json!({"filter": "info", "level": "info", "overrides": []}));
    gateway.raw("user=after").close();
    let said = all_said(gateway);
    assert!(said.contains("user=\"during\""), "{said}");
    assert!(!said.contains("user=\"before\"") && !said.contains("user=\"after\""), "{said}");
    assert!(said.contains("log levels set for 1500 ms") && said.contains("log levels set back"), "{said}");
}

#[test]
fn issue_7_a_level_that_is_set_stays_over_a_reload_for_its_time() {
    let setup = Reloaded::start("log.level = \"error\"\n");
    set(&setup.gateway, json!({"level": "debug", "target": "shard"}));
    setup.reload("log.level = \"warn\"\n");
    let shown = setup.gateway.get("/v1/log");
    assert_eq!((&shown["filter"], &shown["level"]), (&json!("warn,corecast::shard=debug"), &json!("warn")));
    let reset = setup.gateway.control("DELETE", "/v1/log", "", b"").ok();
    assert_eq!(reset, json!({"filter": "warn", "level": "warn", "overrides": []}));
}

#[test]
fn issue_7_the_command_shows_sets_and_resets_and_names_what_it_knows() {
    let gateway = Gateway::start(&[]);
    let run = |arguments: &[&str]| gateway.cli(&[&["log"], arguments].concat());
    let shown = "LEVEL  OF          UNTIL\ninfo   everything  log.level\n";
    assert_eq!(stdout(&run(&[])), shown);
    let printed = run(&["debug", "--target", "shard", "--for", "60s"]);
    let last = stdout(&printed).lines().last().unwrap();
    assert!(last.starts_with("debug  shard       ") && last.ends_with("from now"), "{last}");
    let json: Value = serde_json::from_str(stdout(&run(&["--json"]))).unwrap();
    assert_eq!(json, gateway.get("/v1/log"));
    assert_eq!(stdout(&run(&["--reset"])), shown);
    for (bad, known) in [
        (&["loud"][..], "off, error, warn, info, debug, trace"),
        (&["debug", "--target", "tape"], "cli, control, gateway, service, shard"),
        (&["--for", "60s"], "<LEVEL>"),
    ] {
        let refused = run(bad);
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains(known), "{}", stderr(&refused));
    }
    let refused = run(&["debug", "--for", "25h"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("for_ms must be 1 to 86400000"), "{}", stderr(&refused));
}

#[test]
fn issue_7_a_bad_level_or_target_is_400_and_changes_nothing() {
    let gateway = Gateway::start(&[]);
    for (body, names) in [
        (json!({"level": "loud"}), "off, error, warn, info, debug, trace"),
        (json!({"level": "debug", "target": "kernel"}), "cli, control, gateway, service, shard"),
        (json!({"level": "debug", "for_ms": 0}), "for_ms"),
        (json!({"level": "debug", "for": "60s"}), "unknown field `for`"),
        (json!(["debug"]), "a JSON object is due"),
    ] {
        let text = body.to_string();
        let answer = gateway.control("POST", "/v1/log", "application/json", text.as_bytes());
        assert_eq!(answer.refusal(), (400, "bad_request".to_owned()), "{text}");
        assert!(answer.text().contains(names), "{}", answer.text());
    }
    assert_eq!(gateway.control("PUT", "/v1/log", "", b"").header("allow"), Some("GET, POST, DELETE"));
    assert_eq!(gateway.get("/v1/log")["overrides"], json!([]));
}

#[test]
fn issue_7_at_debug_a_connection_has_one_line_for_each_thing_that_happens_to_it() {
    let mut gateway = Gateway::start(&["log.level=info,corecast::shard=debug", "shards=1"]);
    let (mut client, hello) = gateway.hello("user=ann&topics=a,b&since=00000000-1");
    client.send_json(&json!({"type": "subscribe", "topics": ["c"]}));
    client.expect("resumed");
    client.expect("subscribed");
    client.close();
    let name = format!("connection={}", hello["connection"].as_str().unwrap());
    let lines: Vec<String> = eventually("it is gone", || {
        let said = gateway.said();
        let lines = said.lines().filter(|line| line.contains(&format!("{name} ")));
        let lines: Vec<String> =
            lines.map(|line| line.split("corecast::shard: ").nth(1).unwrap().to_owned()).collect();
        lines.last().is_some_and(|line| line.starts_with("gone")).then_some(lines)
    });
    let told: Vec<&str> = lines.iter().map(|line| line.split(" shard=").next().unwrap()).collect();
    assert_eq!(told, ["accepted", "open", "subscribes", "ends", "gone"]);
    let open = "transport=\"ws\" user=\"ann\" topics=2 replayed=0 gap=true";
    assert!(lines[1].contains(open) && lines[1].contains("remote=\"127.0.0.1:"), "{}", lines[1]);
    assert!(lines[3].ends_with("reason=\"peer_closed\" code=1000"), "{}", lines[3]);
}

#[test]
fn issue_7_a_client_of_64_kib_makes_no_long_line_and_no_control_character_in_either_form() {
    for format in ["text", "json"] {
        let gateway = Gateway::start(&[
            "log.level=trace",
            &format!("log.format={format}"),
            "limits.head_bytes=256KiB",
            "limits.target_bytes=128KiB",
        ]);
        let long = "long".repeat(16 << 10);
        let agent = format!("User-Agent: {long}\r\n");
        gateway.ask(upgrade(&format!("/{long}"), ""));
        gateway.ask(upgrade(&format!("/ws?topics=news&user={long}"), &agent));
        gateway.ask(upgrade("/ws?topics=%1b%5b31m%0aforged&user=%0d%0aforged", &agent));
        gateway.ask(format!(
            "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: \u{9b}31m\r\n{agent}\r\n"
        ));
        let (mut client, _) = gateway.hello("user=ann&topics=news");
        client.send_json(&json!({"type": "subscribe", "topics": ["x\u{1b}[31m\n"]}));
        client.expect("error");
        client.send_json(&json!({"type": &long[..60_000]}));
        client.expect("error");
        client.close();
        let said = all_said(gateway);
        assert!(said.matches("accepted").count() == 5, "{said}");
        for line in said.lines() {
            assert!(line.len() < 2048 && !line.chars().any(char::is_control), "{line:?}");
            assert!(!line.starts_with("forged") && !line.contains("longlong"), "{line}");
        }
    }
}

#[test]
fn issue_7_at_trace_no_token_and_no_ticket_shows() {
    let gateway = Gateway::start(&["log.level=trace", "auth.mode=ticket"]);
    let ticket = |body: Value| {
        let made =
            gateway.control("POST", "/v1/tickets", "application/json", body.to_string().as_bytes()).ok();
        made["ticket"].as_str().unwrap().to_owned()
    };
    let (good, forbidden) = (ticket(json!({"user": "ann"})), ticket(json!({"user": "bob", "topics": ["a"]})));
    gateway.raw(&format!("ticket={good}")).close();
    let query = |query: &str, more: &str| gateway.ask(upgrade(&format!("/ws?{query}"), more)).status;
    assert_eq!(query(&format!("ticket={good}"), ""), 401, "it is burnt");
    assert_eq!(query(&format!("ticket={forbidden}&topics=b"), ""), 403);
    let strangers = ["c3RyYW5nZXItMQ.secret.c2lnbmVk", "c3RyYW5nZXItMg.secret.c2lnbmVk"];
    query(&format!("token={}", strangers[0]), "");
    query("", &format!("Authorization: Bearer {}\r\n", strangers[1]));
    let said = all_said(gateway);
    assert!(
        said.contains("status=401") && said.contains("status=403") && said.contains("user=\"ann\""),
        "{said}"
    );
    for secret in [&good[..], &forbidden, strangers[0], strangers[1]] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}

#[test]
fn rule_8_at_debug_a_rush_of_clients_has_200_lines_a_second_and_the_rest_is_counted() {
    let mut gateway = Gateway::start(&["log.level=debug", "shards=1"]);
    let begun = std::time::Instant::now();
    let left_out = eventually("some lines were left out", || {
        for _ in 0..50 {
            gateway.ask("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").text();
        }
        let said = gateway.said();
        let line = said.lines().find(|line| line.contains("lines were left out before this"))?;
        line.split("corecast::shard: ").nth(1)?.split(' ').next()?.parse::<u64>().ok()
    });
    // Those of whole seconds, and of the two that were begun; beside each one that counts.
    let lines = gateway.said().lines().filter(|line| line.contains(" corecast::shard: ")).count() as u64;
    let seconds = begun.elapsed().as_secs() + 2;
    assert!(left_out > 0 && lines <= 201 * seconds, "{lines} lines in {seconds} s, {left_out} left out");
}
