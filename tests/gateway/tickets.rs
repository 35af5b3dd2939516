//! `auth.mode = "ticket"`: one connection for one ticket (issue 6).

use std::net::TcpStream;
use std::sync::Barrier;

use corecast::control::command::{Answer, Command, TicketRequest};
use corecast::message::Name;
use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::issuer::unix_ms;
use crate::harness::poll::{self, Poller};
use crate::harness::websocket::{WebSocket, upgrade};
use crate::harness::{DEADLINE, Gateway, eventually, stderr, stdout};

fn start(settings: &[&str]) -> Gateway {
    Gateway::start(&[&["auth.mode=ticket"], settings].concat())
}

fn asked(gateway: &Gateway, body: Value) -> Response {
    gateway.control("POST", "/v1/tickets", "application/json", body.to_string().as_bytes())
}

/// `ticket=` with a new one.
#[track_caller]
fn ticket(gateway: &Gateway, body: Value) -> String {
    format!("ticket={}", asked(gateway, body).ok()["ticket"].as_str().unwrap())
}

#[track_caller]
fn refusal(gateway: &Gateway, path: &str) -> (u16, String) {
    gateway.ask(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).refusal()
}

fn unauthorized() -> (u16, String) {
    (401, "unauthorized".to_owned())
}

#[test]
fn issue_6_a_ticket_opens_one_connection_of_its_user_over_each_transport() {
    let gateway = start(&[]);
    for user in ["ann", "bob", "cyd", "dan"] {
        let one = |_| ticket(&gateway, json!({ "user": user }));
        let tickets = [0; 4].map(one);
        let _raw = gateway.raw(&tickets[0]);
        let (_json, _) = gateway.hello(&tickets[1]);
        let _stream = gateway.stream(&tickets[2]);
        let mut poller = Poller::connect(gateway.address);
        poller.send(poll::request(&format!("{}&user=mallory", tickets[3])));
        eventually("all four are there", || {
            let presence = gateway.get(&format!("/v1/users/{user}"));
            (presence["connections"].as_array().unwrap().len() == 4).then_some(())
        });
        for ticket in tickets {
            assert_eq!(refusal(&gateway, &format!("/sse?{ticket}")), unauthorized());
        }
    }
    assert_eq!(refusal(&gateway, "/sse?user=ann"), unauthorized());
    assert_eq!(refusal(&gateway, "/sse?ticket=AAAAAAAAAAAAAAAAAAAAAA"), unauthorized());
    assert_eq!(gateway.get("/v1/stats")["tickets"], 0);
}

#[test]
fn issue_6_a_ticket_is_burnt_once_over_all_shards() {
    let gateway = start(&["shards=2"]);
    for _ in 0..20 {
        let target = format!("/ws?{}", ticket(&gateway, json!({"user": "ann"})));
        let barrier = Barrier::new(8);
        let opened = |_| {
            let stream = TcpStream::connect(gateway.address).unwrap();
            barrier.wait();
            WebSocket::try_open_on(stream, &target, None)
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || opened(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        for refused in results.into_iter().filter_map(Result::err) {
            assert_eq!(refused.refusal(), unauthorized());
        }
    }
}

#[test]
fn issue_6_a_ticket_waits_for_its_time_and_no_longer() {
    let gateway = start(&["auth.ticket_ttl=1h"]);
    let before = unix_ms();
    let long = asked(&gateway, json!({"user": "ann"})).ok();
    let expires_at = long["expires_at"].as_u64().unwrap();
    assert!((before + 3_600_000..=unix_ms() + 3_600_000).contains(&expires_at), "{long}");
    let short = asked(&gateway, json!({"user": "ann", "ttl_ms": 1})).ok();
    eventually("it has ended", || (unix_ms() > short["expires_at"].as_u64().unwrap() + 1).then_some(()));
    let query = |answer: &Value| format!("/sse?ticket={}", answer["ticket"].as_str().unwrap());
    assert_eq!(refusal(&gateway, &query(&short)), unauthorized());
    gateway.stream(&query(&long)["/sse?".len()..]);
}

/// Never early. That an idle machine is not a tenth late, tests/shard/expiry.rs shows turn by turn; a busy one may be.
#[track_caller]
fn assert_ended_after_1500_ms(begun_unix_ms: u64) {
    let after_ms = unix_ms() - begun_unix_ms;
    assert!((1500..DEADLINE.as_millis() as u64).contains(&after_ms), "after {after_ms} ms");
}

#[test]
fn issue_6_a_connection_by_ticket_has_the_end_topics_and_number_that_were_asked_for() {
    let gateway = start(&[]);
    let before = unix_ms();
    let mut client = gateway.raw(&ticket(&gateway, json!({"user": "ann", "connection_ttl_ms": 1500})));
    assert_eq!(client.closed().0, 4002);
    assert_ended_after_1500_ms(before);

    let query = ticket(&gateway, json!({"user": "ann", "topics": ["a/*"]}));
    assert_eq!(refusal(&gateway, &format!("/sse?{query}&topics=b")), (403, "forbidden_topic".to_owned()));
    // Burnt all the same.
    assert_eq!(refusal(&gateway, &format!("/sse?{query}&topics=a/1")), unauthorized());

    let mut first = gateway.raw(&ticket(&gateway, json!({"user": "ann"})));
    let most = ticket(&gateway, json!({"user": "ann", "max_connections": 1}));
    assert_eq!(refusal(&gateway, &format!("/sse?{most}")), (429, "too_many_connections".to_owned()));
    let mut single = gateway.raw(&ticket(&gateway, json!({"user": "ann", "single": true})));
    assert_eq!(first.closed().0, 4501);
    single.nothing_waits();
}

#[test]
fn issue_6_polls_go_on_as_the_same_user_on_the_connection_that_showed_the_ticket() {
    let gateway = start(&[]);
    for user in ["ann", "bob", "cyd", "dan"] {
        let query = ticket(&gateway, json!({"user": user, "topics": ["a"]}));
        let mut poller = Poller::connect(gateway.address);
        let first = poller.poll(&format!("{query}&timeout=0"));
        let since = format!("since={}", first["next"].as_str().unwrap());
        gateway.push(json!({ "user": user }), json!(1));
        let second = poller.poll(&format!("{since}&topics=a"));
        assert_eq!(second["messages"][0]["data"], 1, "{second}");
        poller.send(poll::request("topics=b"));
        assert_eq!(poller.answer().refusal(), (403, "forbidden_topic".to_owned()));
        let mut stranger = Poller::connect(gateway.address);
        stranger.send(poll::request(&since));
        assert_eq!(stranger.answer().refusal(), unauthorized());
    }
}

#[test]
fn issue_6_polls_end_with_the_time_of_their_connection() {
    let gateway = start(&[]);
    let mut poller = Poller::connect(gateway.address);
    let begun = unix_ms();
    poller
        .poll(&format!("{}&timeout=0", ticket(&gateway, json!({"user": "ann", "connection_ttl_ms": 1500}))));
    // A new poll does not put the end off.
    assert_eq!(poller.poll("timeout=60")["messages"], json!([]));
    assert_ended_after_1500_ms(begun);
    poller.send(poll::request("timeout=60"));
    assert_eq!(poller.answer().refusal(), unauthorized());
}

#[test]
fn issue_6_no_more_tickets_wait_than_may_and_a_used_one_makes_room() {
    let gateway = start(&["auth.tickets=2"]);
    let first = ticket(&gateway, json!({"user": "ann"}));
    ticket(&gateway, json!({"user": "ann"}));
    assert_eq!(asked(&gateway, json!({"user": "ann"})).refusal(), (503, "busy".to_owned()));
    assert_eq!(gateway.get("/v1/stats")["tickets"], 2);
    gateway.raw(&first).close();
    ticket(&gateway, json!({"user": "ann"}));
}

#[test]
fn issue_6_tickets_are_made_by_the_binary_protocol_and_the_command_line_too() {
    let gateway = start(&[]);
    let request = TicketRequest {
        user: Name::new("ann").unwrap(),
        topics: Some(vec![Name::new("a").unwrap()]),
        ttl_ms: None,
        connection_ttl_ms: None,
        max_connections: None,
        single: false,
    };
    let Ok(Answer::Ticket(made)) = gateway.client().call(&Command::Ticket(request)) else {
        panic!("a ticket")
    };
    gateway.raw(&format!("topics=a&ticket={}", made.ticket.reveal())).close();
    let printed = gateway.cli(&["ticket", "ann", "--topics", "a,b/*", "--single"]);
    assert!(printed.status.success(), "{}", stderr(&printed));
    gateway.raw(&format!("topics=b/1&ticket={}", stdout(&printed).trim_end())).close();
    let printed = gateway.cli(&["ticket", "ann", "--json", "--ttl", "10s"]);
    let answer: Value = serde_json::from_str(stdout(&printed)).unwrap();
    assert!(answer["expires_at"].as_u64().unwrap() <= unix_ms() + 10_000);
    let refused = gateway.cli(&["ticket", "ann", "--ttl", "2h"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("ttl_ms must be 1 to 3600000"), "{}", stderr(&refused));
}

#[test]
fn issue_6_without_that_mode_there_are_no_tickets() {
    let gateway = Gateway::start(&[]);
    assert_eq!(asked(&gateway, json!({"user": "ann"})).refusal(), (400, "bad_request".to_owned()));
    assert_eq!(gateway.control("GET", "/v1/tickets", "", b"").status, 405);
}

#[test]
fn issue_6_no_ticket_reaches_the_log() {
    let mut gateway = start(&["log.level=trace"]);
    let tickets = [0; 3].map(|_| ticket(&gateway, json!({"user": "ann"})));
    gateway.raw(&tickets[0]).close();
    refusal(&gateway, &format!("/poll?{}", tickets[0]));
    assert_eq!(gateway.ask(upgrade(&format!("/ws?{}&since=x", tickets[1]), "")).status, 400);
    gateway.signal(rustix::process::Signal::TERM);
    gateway.ended();
    let said = gateway.said();
    assert!(said.contains("refused"), "trace says something: {said}");
    for ticket in tickets {
        assert!(!said.contains(&ticket["ticket=".len()..]), "{said}");
    }
}
