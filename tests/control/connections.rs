//! Lists of connections and dumps of all: what control makes of many steps of many shards.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use corecast::client::{Client, ClientError};
use corecast::connections::{Query, SessionsEnd, Sort};
use corecast::control::command::{Answer, Command, ErrorCode};
use corecast::message::ConnId;
use serde_json::{Value, json};

use crate::shard::{CONNECTIONS, Gateway, SHARDS};

const ALL: usize = CONNECTIONS as usize * SHARDS as usize;

fn id(number: u32) -> ConnId {
    ConnId { shard: (number / CONNECTIONS) as u16, index: number % CONNECTIONS, generation: 0 }
}

fn list(gateway: &Gateway, query: &str) -> Value {
    let (status, body) = gateway.curl(&[], &format!("/v1/connections{query}"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

fn refusal(answer: (u16, String)) -> (u16, String) {
    let body: Value = serde_json::from_str(&answer.1).expect("JSON");
    (answer.0, body["error"]["message"].as_str().expect("a message").to_owned())
}

#[test]
fn issue_7_pages_by_id_go_over_all_shards_in_order() {
    let gateway = Gateway::default();
    let (mut ids, mut query) = (Vec::new(), "?limit=1000".to_owned());
    loop {
        let page = list(&gateway, &query);
        let rows = page["connections"].as_array().expect("a list");
        assert!(rows.len() <= 1000);
        ids.extend(rows.iter().map(|row| row["id"].as_str().expect("an id").parse::<ConnId>().expect("one")));
        let Some(next) = page["next"].as_str() else { break };
        query = format!("?limit=1000&after={next}");
    }
    assert_eq!(ids, (0..ALL as u32).map(id).collect::<Vec<_>>());
    assert!(gateway.looks.load(Ordering::SeqCst) < 2 * ALL / 256, "each page begins where the last ended");
}

#[test]
fn issue_7_a_list_is_100_connections_unless_it_is_limited_otherwise() {
    let gateway = Gateway::default();
    let page = list(&gateway, "");
    assert_eq!(page["connections"].as_array().map(Vec::len), Some(100));
    assert_eq!(page["next"], "id-0-0-99-0");
    let keys = |row: &Value| row.as_object().map(|row| row.keys().cloned().collect::<Vec<_>>());
    let expected = [
        "connected_at",
        "id",
        "idle_ms",
        "lag_bytes",
        "lag_messages",
        "reason",
        "remote",
        "topics",
        "transport",
        "user",
    ];
    assert_eq!(keys(&page["connections"][0]).expect("an object"), expected);
    for sort in ["lag", "idle", "age"] {
        let page = list(&gateway, &format!("?sort={sort}&limit=1"));
        assert_eq!(page["connections"][0]["id"], "0-0-0", "{sort}");
        assert!(page["next"].as_str().expect("more").starts_with(sort), "{page}");
    }
}

#[test]
fn issue_7_a_page_that_is_full_goes_on_in_whole_steps_where_others_may_come_before() {
    let gateway = Gateway::default();
    let page = list(&gateway, "?topic=t&limit=10");
    assert_eq!(page["connections"].as_array().map(Vec::len), Some(10));
    let looks = gateway.looks.load(Ordering::SeqCst);
    assert!(looks < 2 * ALL / 256, "{looks} steps for {ALL} connections");
}

#[test]
fn issue_7_arguments_that_make_no_sense_are_400_and_named() {
    let gateway = Gateway::default();
    for (query, name) in [
        ("?colour=red", "colour"),
        ("?limit=0", "limit"),
        ("?limit=1001", "limit"),
        ("?limit=100&limit=100", "limit"),
        ("?transport=tcp", "transport"),
        ("?remote=somewhere", "remote"),
        ("?lag_above=64KB", "lag_above"),
        ("?idle_above=30", "idle_above"),
        ("?sort=lag&after=id-0-0-99-0", "after"),
        ("?after=0-0-99", "after"),
    ] {
        let (status, message) = refusal(gateway.curl(&[], &format!("/v1/connections{query}")));
        assert!(status == 400 && message.contains(name), "{query}: {status} {message}");
    }
    assert_eq!(gateway.curl(&["-X", "DELETE"], "/v1/connections").0, 405);
    assert_eq!(gateway.curl(&["-d", ""], "/v1/connections/0-1-2").0, 405);
    assert_eq!(gateway.curl(&["-d", ""], "/v1/sessions").0, 405);
}

#[test]
fn issue_7_a_cursor_of_a_gateway_with_more_shards_is_the_end() {
    let gateway = Gateway::default();
    let page = list(&gateway, "?after=id-0-65535-4294967295-4294967295");
    assert_eq!(page, json!({"connections": [], "next": null}));
}

#[test]
fn rule_7_nobody_has_a_stale_id_and_what_is_no_id_is_bad_target() {
    let gateway = Gateway::default();
    for stale in ["0-1-3", "99-1-2"] {
        assert_eq!(gateway.curl(&[], &format!("/v1/connections/{stale}")).0, 404, "{stale}");
    }
    let (status, body) = gateway.curl(&[], "/v1/connections/x");
    assert!(status == 400 && body.contains("bad_target"), "{status} {body}");
    let unknown = Command::Connection("0-1-3".parse().expect("an id"));
    let refused = gateway.client().call(&unknown).expect_err("nobody");
    assert!(matches!(refused, ClientError::Refused(e) if e.code == ErrorCode::NotFound));
}

#[test]
fn issue_7_the_binary_protocol_has_the_same_lists() {
    let gateway = Gateway::default();
    let mut client = gateway.client();
    let query = Query { sort: Sort::Lag, limit: Some(2), ..Query::default() };
    let Ok(Answer::Connections(first)) = client.call(&Command::Connections(query.clone())) else { panic!() };
    let Ok(Answer::Connections(second)) =
        client.call(&Command::Connections(Query { after: first.next, ..query }))
    else {
        panic!()
    };
    let ids: Vec<_> = first.connections.iter().chain(&second.connections).map(|row| row.id).collect();
    assert_eq!(ids, (0..4).map(id).collect::<Vec<_>>());
    for bad in [Some(0), Some(1001)] {
        let refused = client.call(&Command::Connections(Query { limit: bad, ..Query::default() }));
        assert!(matches!(refused, Err(ClientError::Refused(e)) if e.code == ErrorCode::BadRequest));
    }
}

/// The dump that `receive` gives the next answer of, to its end.
fn dump(client: &mut Client, correlation: u64) -> (Vec<ConnId>, SessionsEnd) {
    let mut ids = Vec::new();
    loop {
        match client.receive().expect("answered") {
            (of, Ok(Answer::Sessions(piece))) if of == correlation => {
                ids.extend(piece.iter().map(|one| one.id))
            }
            (of, Ok(Answer::SessionsEnd(end))) if of == correlation => return (ids, end),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn issue_7_a_binary_client_gets_a_dump_and_goes_on_with_other_commands() {
    let gateway = Gateway::default();
    let mut client = gateway.client();
    for _ in 0..2 {
        let correlation = client.send(&Command::Sessions).expect("sent");
        let (ids, end) = dump(&mut client, correlation);
        assert_eq!(ids, (0..ALL as u32).map(id).collect::<Vec<_>>());
        assert_eq!((end.connections, end.position.to_string()), (ALL as u64, "000000a1-0".to_owned()));
    }
    assert!(matches!(client.call(&Command::Version), Ok(Answer::Version(_))));
}

#[test]
fn issue_7_sessions_are_one_json_object_a_line_and_an_end() {
    let gateway = Gateway::default();
    let (status, body) = gateway.curl(&[], "/v1/sessions");
    assert_eq!((status, body.lines().count()), (200, ALL + 1));
    let first: Value = serde_json::from_str(body.lines().next().expect("a line")).expect("JSON");
    let topics = vec!["t".repeat(128); 8];
    let expected = json!({"id": "0-0-0", "user": null, "transport": "ws", "remote": "127.0.0.1:9", "connected_at": 5,
        "topics": topics});
    assert_eq!(first, expected);
    let last = body.lines().last().expect("a line");
    assert_eq!(last, format!("{{\"connections\":{ALL},\"end\":true,\"position\":\"000000a1-0\"}}"));
}

#[test]
fn issue_7_a_reader_that_stops_stops_the_shards_from_looking_and_gets_the_rest_when_it_reads_on() {
    let gateway = Gateway::default();
    let mut socket = UnixStream::connect(gateway.path()).expect("connects");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    socket.write_all(b"GET /v1/sessions HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
    let mut reader = BufReader::with_capacity(1024, socket);
    let mut line = String::new();
    reader.read_line(&mut line).expect("the answer begins");
    assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
    // Every one of these is a turn of control, and would be another piece.
    let mut other = gateway.client();
    (0..200).for_each(|_| drop(other.call(&Command::Stats).expect("answered")));
    let looked = gateway.looks.load(Ordering::SeqCst);
    assert!((1..10).contains(&looked), "{looked} steps for a reader that does not read");
    let sessions =
        reader.lines().map(|line| line.expect("a line")).filter(|line| line.starts_with("{\"id\""));
    assert_eq!(sessions.count(), ALL);
}

#[test]
fn issue_7_streams_asked_for_by_clients_that_have_gone_hold_no_place() {
    let gateway = Gateway::default();
    for path in ["/v1/events", "/v1/sessions"] {
        for _ in 0..30 {
            let mut socket = UnixStream::connect(gateway.path()).expect("connects");
            write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
        }
        let mut client = gateway.client();
        let mut others = || match client.call(&Command::Stats) {
            Ok(Answer::Stats(stats)) => stats.control_clients - 1,
            other => panic!("{other:?}"),
        };
        let by = Instant::now() + Duration::from_secs(20);
        while others() > 0 {
            assert!(Instant::now() < by, "{path}: {} clients that have gone", others());
        }
    }
}

#[test]
fn issue_7_a_dump_whose_reader_goes_is_over() {
    let gateway = Gateway::default();
    for _ in 0..30 {
        let mut socket = UnixStream::connect(gateway.path()).expect("connects");
        socket.write_all(b"GET /v1/sessions HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
        drop(socket);
    }
    let mut client = gateway.client();
    // Those who have gone are found to have.
    while matches!(client.call(&Command::Stats), Ok(Answer::Stats(stats)) if stats.control_clients > 1) {}
    let before = gateway.looks.load(Ordering::SeqCst);
    (0..50).for_each(|_| drop(client.call(&Command::Stats).expect("answered")));
    let after = gateway.looks.load(Ordering::SeqCst);
    // One step of each shard may have been under way.
    assert!(after - before <= usize::from(SHARDS), "{before} {after}");
}

#[test]
fn issue_7_64_lists_at_once_and_one_more_is_busy() {
    let gateway = Gateway::default();
    let mut client = gateway.client();
    let query = Query { sort: Sort::Age, limit: Some(1), ..Query::default() };
    for _ in 0..200 {
        client.send(&Command::Connections(query.clone())).expect("sent");
    }
    let (mut listed, mut busy) = (0, 0);
    for _ in 0..200 {
        match client.receive().expect("answered") {
            (_, Ok(Answer::Connections(page))) if page.connections.len() == 1 => listed += 1,
            (_, Err(refused)) if refused.code == ErrorCode::Busy => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(listed >= 64 && busy > 0, "{listed} listed, {busy} busy");
}
