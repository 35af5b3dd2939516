//! Who may connect by its address, and how many of one: on the client's own address, through proxies too.
//!
//! Loopback is a whole network: 127.0.0.1 is our proxy here, and the others are clients.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::Gateway;
use crate::harness::event_stream::EventStream;
use crate::harness::http::{Response, read_to_end};
use crate::harness::poll::Poller;
use crate::harness::websocket::{TEXT, WebSocket, connect, header, reset};
use crate::polls::assert_all_are_accounted_for;
use crate::reload::Reloaded;

const TRUSTED: &str = "network.trusted_proxies=127.0.0.1";

/// A connection from this address of the host's own network.
pub fn from(gateway: &Gateway, source: &str) -> TcpStream {
    connect(gateway.address, None, Some(SocketAddr::new(source.parse().unwrap(), 0)))
}

/// A WebSocket from there.
fn open_from(gateway: &Gateway, source: &str, query: &str) -> Result<WebSocket, Response> {
    WebSocket::try_open_on(from(gateway, source), &format!("/ws?{query}"), None)
}

/// An event stream by way of 127.0.0.1, for whom the header lines name.
fn for_whom(gateway: &Gateway, query: &str, lines: &str) -> Result<EventStream, Response> {
    let mut stream = from(gateway, "127.0.0.1");
    write!(stream, "GET /sse?{query} HTTP/1.1\r\nHost: x\r\n{lines}\r\n").unwrap();
    EventStream::opened(stream)
}

fn forwarded(gateway: &Gateway, query: &str, address: &str) -> Result<EventStream, Response> {
    for_whom(gateway, query, &format!("X-Forwarded-For: {address}\r\n"))
}

/// The status and code of a refusal.
#[track_caller]
fn refused<T>(outcome: Result<T, Response>) -> (u16, String) {
    outcome.err().expect("a refusal").refusal()
}

/// What presence says of the user's only connection.
#[track_caller]
pub fn remote(gateway: &Gateway, user: &str) -> String {
    let presence = gateway.get(&format!("/v1/users/{user}"));
    assert_eq!(presence["connections"].as_array().map(Vec::len), Some(1), "{presence}");
    presence["connections"][0]["remote"].as_str().unwrap().to_owned()
}

pub fn closed(totals: &Value, reason: &str) -> u64 {
    totals["closed"][reason].as_u64().unwrap()
}

/// All have gone, with one reason each, and no address is counted or kept.
#[track_caller]
pub fn assert_no_address_is_left(gateway: &Gateway) {
    assert_all_are_accounted_for(gateway);
    let stats = gateway.get("/v1/stats");
    assert_eq!((&stats["counted_addresses"], &stats["totals"]["addresses"]), (&json!(0), &json!(0)));
}

#[test]
fn issue_6_a_denied_peer_is_closed_at_accept_without_an_answer_and_counted() {
    let gateway = Gateway::start(&["network.deny=127.0.0.2,127.0.1.0/24"]);
    for source in ["127.0.0.2", "127.0.1.9"] {
        // Before it has said a word.
        assert_eq!(read_to_end(&mut from(&gateway, source)), b"");
    }
    open_from(&gateway, "127.0.0.3", "").ok().unwrap().close();
    gateway.raw("").close();
    let totals = gateway.until("all are gone", |totals| totals["open"] == 0);
    assert_eq!(closed(&totals, "forbidden_address"), 2);
    assert_no_address_is_left(&gateway);
}

#[test]
fn issue_6_with_allow_set_everybody_else_is_denied_and_deny_beats_allow() {
    let gateway = Gateway::start(&["network.allow=127.0.2.0/24", "network.deny=127.0.2.9"]);
    for (source, allowed) in [("127.0.2.1", true), ("127.0.2.9", false), ("127.0.0.1", false)] {
        let mut stream = from(&gateway, source);
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.set_read_timeout(Some(crate::harness::DEADLINE)).unwrap();
        let answer = read_to_end(&mut stream);
        assert_eq!(answer.starts_with(b"HTTP/1.1 200 "), allowed, "{source}");
        assert!(allowed || answer.is_empty(), "{source}");
    }
}

#[test]
fn issue_6_the_lists_change_while_it_runs_and_hold_for_who_connects_from_then_on() {
    let setup = Reloaded::start("");
    let gateway = &setup.gateway;
    let mut stays = open_from(gateway, "127.0.0.2", "topics=t").ok().unwrap();
    let mut polls = Poller::on(from(gateway, "127.0.0.2"));
    polls.poll("timeout=0");
    setup.reload("network.deny = [\"127.0.0.2\"]\nnetwork.trusted_proxies = [\"127.0.0.1\"]\n");
    assert_eq!(read_to_end(&mut from(gateway, "127.0.0.2")), b"");
    assert_eq!(refused(forwarded(gateway, "", "127.0.0.2")), (403, "forbidden_address".to_owned()));
    // The next request of one that is there already is judged as well.
    polls.send(crate::harness::poll::request("timeout=0"));
    assert_eq!(polls.answer().refusal(), (403, "forbidden_address".to_owned()));
    gateway.push(json!({"topic": "t"}), json!(1));
    assert_eq!(stays.text(), "1");
    setup.reload("");
    open_from(gateway, "127.0.0.2", "").ok().unwrap().close();
}

#[test]
fn issue_6_a_proxy_that_is_trusted_no_more_is_not_believed_on_a_connection_that_it_has() {
    let setup = Reloaded::start("network.trusted_proxies = [\"127.0.0.1\"]\n");
    let gateway = &setup.gateway;
    let mut proxy = Poller::on(from(gateway, "127.0.0.1"));
    let own = proxy.stream.local_addr().unwrap().to_string();
    for (file, expected) in [(None, "192.0.2.7:0"), (Some(""), &own[..])] {
        if let Some(file) = file {
            setup.reload(file);
        }
        proxy.send(poll_for("192.0.2.7", "user=ann&topics=t"));
        gateway.until("held", |totals| totals["polls"] == 1);
        assert_eq!(remote(gateway, "ann"), expected);
        gateway.push(json!({"topic": "t"}), json!(1));
        proxy.answer().ok();
    }
    drop(proxy);
    assert_no_address_is_left(gateway);
}

#[test]
fn issue_6_presence_and_events_name_the_client_and_not_its_proxy() {
    let gateway = Gateway::start(&[TRUSTED]);
    let mut events = gateway.events("types=connect");
    // So many users do not all live where they land: the address goes with those that are handed over.
    for round in 0..4 {
        let cases = [
            ("192.0.2.7", "192.0.2.7:0"),
            ("203.0.113.9, 192.0.2.7:4711", "192.0.2.7:4711"),
            ("2001:db8::7", "[2001:db8::7]:0"),
            ("[2001:db8::7]:80, 127.0.0.1", "[2001:db8::7]:80"),
            ("::ffff:192.0.2.7", "192.0.2.7:0"),
        ];
        for (case, (told, remote)) in cases.into_iter().enumerate() {
            // A name of its own for each: the client before may not be gone yet.
            let user = format!("{round}-{case}");
            let client = forwarded(&gateway, &format!("user={user}"), told).ok().unwrap();
            assert_eq!(self::remote(&gateway, &user), remote);
            assert_eq!(events.next()["remote"], remote);
            drop(client);
        }
    }
    let both = "X-Forwarded-For: 192.0.2.7\r\nForwarded: for=\"192.0.2.7:1\"\r\n";
    let _client = for_whom(&gateway, "user=both", both).ok().unwrap();
    assert_eq!(remote(&gateway, "both"), "192.0.2.7:0");
    assert!(gateway.totals()["moved_in"].as_u64() > Some(0));
}

#[test]
fn issue_6_whoever_is_no_trusted_proxy_is_not_believed() {
    let gateway = Gateway::start(&[TRUSTED, "network.deny=192.0.2.7"]);
    for lines in ["X-Forwarded-For: 192.0.2.7\r\n", "Forwarded: for=192.0.2.7\r\n", "Forwarded: \"\r\n"] {
        let stream = from(&gateway, "127.0.0.2");
        let own = stream.local_addr().unwrap();
        let _client = EventStream::open_on(stream, "/sse?user=ann", lines);
        assert_eq!(remote(&gateway, "ann"), own.to_string());
        drop(_client);
        gateway.until("gone", |totals| totals["users"] == 0);
    }
    assert_eq!(refused(forwarded(&gateway, "", "192.0.2.7")), (403, "forbidden_address".to_owned()));
    let totals = gateway.until("gone", |totals| totals["open"] == 0);
    assert_eq!(closed(&totals, "forbidden_address"), 1);
}

#[test]
fn issue_6_a_forwarded_address_that_is_malformed_or_disputed_is_400_on_every_path() {
    let gateway = Gateway::start(&[TRUSTED]);
    for lines in [
        "X-Forwarded-For: nonsense\r\n",
        "Forwarded: for\r\n",
        "X-Forwarded-For: 192.0.2.7\r\nForwarded: for=192.0.2.8\r\n",
    ] {
        assert_eq!(refused(for_whom(&gateway, "", lines)), (400, "bad_request".to_owned()), "{lines}");
        let answer = gateway.ask(format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{lines}\r\n"));
        assert_eq!(answer.status, 400);
    }
    assert_no_address_is_left(&gateway);
}

#[test]
fn issue_6_connections_are_counted_by_the_clients_address_and_ipv6_by_64() {
    let gateway = Gateway::start(&[TRUSTED, "limits.connections_per_address=2"]);
    let too_many = (429, "too_many_connections".to_owned());
    let open = |n: usize, address: &str| forwarded(&gateway, &format!("user=u{n}"), address);
    // Over both shards: these users live on either.
    let mut clients: Vec<_> = (0..2).map(|n| open(n, "192.0.2.7").ok().unwrap()).collect();
    (2..6).for_each(|n| assert_eq!(refused(open(n, "192.0.2.7")), too_many));
    clients.push(open(6, "192.0.2.8").ok().unwrap());
    clients.push(open(7, "2001:db8:0:1::1").ok().unwrap());
    clients.push(open(8, "2001:db8:0:1:ffff::2").ok().unwrap());
    (9..20).for_each(|n| assert_eq!(refused(open(n, &format!("2001:db8:0:1::{n}"))), too_many));
    clients.push(open(20, "2001:db8:0:2::1").ok().unwrap());
    let stats = gateway.get("/v1/stats");
    assert_eq!(stats["counted_addresses"], 4);
    assert_eq!(stats["totals"]["refused"]["connections_per_address"], 15);
    drop(clients);
    assert_no_address_is_left(&gateway);
    open(0, "192.0.2.7").ok().unwrap();
}

#[test]
fn issue_6_connects_of_one_address_pass_up_to_a_burst_of_twice_the_rate_and_more_are_429() {
    let gateway = Gateway::start(&[TRUSTED, "limits.connects_per_address=1", "limits.trusted=127.0.0.9"]);
    let _burst: Vec<_> =
        (0..2).map(|n| open_from(&gateway, "127.0.0.2", &format!("user=u{n}")).ok().unwrap()).collect();
    // A slow machine may be given another token or two meanwhile.
    let response = (0..100).find_map(|n| open_from(&gateway, "127.0.0.2", &format!("user=u{n}")).err());
    let response = response.expect("the burst is two, over both shards");
    assert_eq!(response.refusal(), (429, "too_many_connections".to_owned()));
    let seconds: u32 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=9).contains(&seconds));
    assert!(gateway.totals()["refused"]["connects_per_address"].as_u64() > Some(0));
    // The others notice nothing: another address, one behind a proxy, one that is exempt, a further poll.
    let others = [open_from(&gateway, "127.0.0.3", "").is_ok(), forwarded(&gateway, "", "192.0.2.7").is_ok()];
    assert_eq!(others, [true, true]);
    (0..10).for_each(|_| assert!(open_from(&gateway, "127.0.0.9", "").is_ok()));
    let mut polls = Poller::on(from(&gateway, "127.0.0.4"));
    (0..10).for_each(|n| drop(polls.poll(&format!("timeout=0&user=u{n}"))));
}

/// The request of a poll that a proxy sends for `address`.
fn poll_for(address: &str, query: &str) -> String {
    format!("GET /poll?{query} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {address}\r\n\r\n")
}

#[test]
fn issue_6_a_proxy_sends_the_polls_of_many_over_one_connection_and_each_counts_as_its_own() {
    let gateway = Gateway::start(&[TRUSTED, "limits.connections_per_address=1"]);
    let too_many = (429, "too_many_connections".to_owned());
    let mut proxy = Poller::on(from(&gateway, "127.0.0.1"));
    let clients = ["192.0.2.7", "192.0.2.7", "192.0.2.8", "2001:db8::1", "2001:db8::2"];
    for (n, address) in clients.iter().enumerate() {
        proxy.send(poll_for(address, &format!("timeout=0&user=u{n}")));
        proxy.answer().ok();
        // And whom it spoke for before has left.
        assert_eq!(gateway.get("/v1/stats")["counted_addresses"], 1);
        assert_eq!(refused(forwarded(&gateway, "", address)), too_many, "{address}");
    }
    let client = forwarded(&gateway, "", "192.0.2.99").ok().unwrap();
    proxy.send(poll_for("192.0.2.99", "timeout=0"));
    assert_eq!(proxy.answer().refusal(), too_many);
    drop((proxy, client));
    assert_no_address_is_left(&gateway);
}

#[test]
fn issue_6_another_client_on_the_connection_of_a_proxy_is_a_new_one_and_the_same_is_not() {
    let gateway = Gateway::start(&[TRUSTED, "limits.connects_per_address=1"]);
    let mut proxy = Poller::on(from(&gateway, "127.0.0.1"));
    let mut status = |address: &str| {
        proxy.send(poll_for(address, "timeout=0"));
        proxy.answer().status
    };
    assert!((0..20).all(|_| status("192.0.2.7") == 200));
    // Each time one of the two comes after the other; a slow machine gives a token or two meanwhile.
    let turns = ["192.0.2.8", "192.0.2.7"].repeat(50);
    let passed = turns.iter().take_while(|address| status(address) == 200).count();
    assert!((3..100).contains(&passed), "{passed}");
}

#[test]
fn issue_6_an_address_is_uncounted_once_however_its_connection_ends() {
    let settings = ["limits.connections_per_address=100", "web.echo=true", "timeouts.close=200ms"];
    let gateway = Gateway::start(&settings);
    let user = |n: u32| format!("user=u{n}");
    let counted = |count: u64| gateway.until("counted", |totals| totals["connections"] == count);
    let open = |n: u32| open_from(&gateway, "127.0.0.2", &user(n)).ok().unwrap();
    // By the client, with a close frame, a reset and half a word; by us, for what it says.
    open(0).close();
    reset(open(1).stream);
    open(2).octets(&header(0x80 | TEXT, 5));
    let mut wrong = open(3);
    wrong.octets(&[0xff, 0xff]);
    assert_eq!(wrong.closed().0, 1002);
    WebSocket::open_on(from(&gateway, "127.0.0.2"), "/echo", None).close();
    // By a command; while polls are held, and after one that was refused.
    let (mut kicked, mut held) = (open(4), Poller::on(from(&gateway, "127.0.0.2")));
    held.send(crate::harness::poll::request("user=u5"));
    counted(2);
    for user in ["u4", "u5"] {
        gateway.control("DELETE", &format!("/v1/users/{user}"), "", b"").ok();
    }
    assert_eq!((kicked.closed().0, held.answer().status), (4500, 403));
    drop(held);
    let mut polls = Poller::on(from(&gateway, "127.0.0.2"));
    polls.poll("timeout=0&user=u6");
    polls.send("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(polls.answer().status, 404);
    drop(polls);
    drop(EventStream::open_on(from(&gateway, "127.0.0.2"), "/sse?user=u7", ""));
    assert_no_address_is_left(&gateway);
}

#[test]
fn issue_6_an_address_is_uncounted_once_of_one_that_is_cut() {
    let gateway = Gateway::start(&[
        "limits.connections_per_address=100",
        "limits.socket_send_bytes=4096",
        "limits.send_backlog_bytes=64KiB",
        "timeouts.heartbeat_min=1s",
        "timeouts.heartbeat=1s",
        "timeouts.pong=300ms",
        "timeouts.handshake=300ms",
        "timeouts.close=200ms",
    ]);
    let stream = connect(gateway.address, Some(4096), Some("127.0.0.2:0".parse().unwrap()));
    let slow = WebSocket::open_on(stream, "/ws?topics=t", None);
    (0..20).for_each(|_| drop(gateway.push(json!({"topic": "t"}), json!("x".repeat(60_000)))));
    let silent = open_from(&gateway, "127.0.0.2", "").ok().unwrap();
    // Half a request behind a poll, and no request behind another.
    let mut half = Poller::on(from(&gateway, "127.0.0.2"));
    half.poll("timeout=0");
    half.send("GET /poll");
    let mut idle = Poller::on(from(&gateway, "127.0.0.2"));
    idle.poll("timeout=0");
    assert_no_address_is_left(&gateway);
    let totals = gateway.totals();
    let reasons = ["slow_consumer", "heartbeat_missed", "handshake_timeout", "answered"];
    assert_eq!(reasons.map(|reason| closed(&totals, reason)), [1; 4], "{totals}");
    drop((slow, silent, half, idle));
}

#[test]
fn issue_6_a_drain_uncounts_everybody() {
    let settings = ["limits.connections_per_address=100", "timeouts.drain=300ms", "timeouts.close=100ms"];
    let mut gateway = Gateway::start(&settings);
    let _clients: Vec<_> =
        (0..6).map(|n| open_from(&gateway, "127.0.0.2", &format!("user=u{n}")).ok().unwrap()).collect();
    assert_eq!(gateway.get("/v1/stats")["counted_addresses"], 1);
    gateway.signal(Signal::TERM);
    // Uncounting twice, or not at all, is an assertion.
    assert_eq!(gateway.ended().code(), Some(0), "{}", gateway.said());
}

#[test]
fn issue_6_switching_the_limit_off_and_on_loses_nobody() {
    let setup = Reloaded::start("limits.connections_per_address = 2\n");
    let gateway = &setup.gateway;
    let open = |n: usize| open_from(gateway, "127.0.0.2", &format!("user=u{n}"));
    let counted: Vec<_> = (0..2).map(|n| open(n).ok().unwrap()).collect();
    setup.reload("");
    let uncounted: Vec<_> = (2..6).map(|n| open(n).ok().unwrap()).collect();
    setup.reload("limits.connections_per_address = 3\n");
    let third = open(6).ok().unwrap();
    assert_eq!(refused(open(7)), (429, "too_many_connections".to_owned()));
    drop((counted, uncounted, third));
    assert_no_address_is_left(gateway);
}
