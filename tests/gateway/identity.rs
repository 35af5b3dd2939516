//! `auth.mode = "jwt"`: who may connect, as whom, and to which topics (issue 6).

use std::net::TcpStream;

use serde_json::{Value, json};

use crate::harness::event_stream::EventStream;
use crate::harness::http::Response;
use crate::harness::issuer::{Issuer, unix_ms};
use crate::harness::poll::{self, Poller};
use crate::harness::websocket::{WebSocket, upgrade};
use crate::harness::{Gateway, eventually};

/// The refusal of each transport for this query; all must be alike.
#[track_caller]
fn refused(gateway: &Gateway, query: &str, headers: &str) -> (u16, String, String) {
    let asked = |request: String| {
        let answer: Response = gateway.ask(request);
        let (status, code) = answer.refusal();
        (status, code, answer.json()["error"]["message"].as_str().unwrap().to_owned())
    };
    let get = |path: &str| format!("GET /{path}?{query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    let refusal = asked(upgrade(&format!("/ws?{query}"), headers));
    assert_eq!(asked(get("sse")), refusal);
    assert_eq!(asked(get("poll")), refusal);
    refusal
}

/// The users that are online, of these.
fn online(gateway: &Gateway, users: &[&str]) -> Vec<String> {
    let is_online = |user: &&&str| gateway.get(&format!("/v1/users/{user}"))["online"] == true;
    users.iter().filter(is_online).map(|user| user.to_string()).collect()
}

/// Everything that is open is closed again, and every end has a reason.
#[track_caller]
fn all_gone(gateway: &Gateway) -> Value {
    gateway.until("everybody has gone", |totals| totals["open"] == 0 && totals["connections"] == 0)
}

fn closed_total(totals: &Value) -> u64 {
    totals["closed"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

#[test]
fn issue_6_the_token_says_who_it_is_over_every_transport_on_every_shard() {
    let issuer = Issuer::new(b'k');
    let gateway = issuer.gateway(&["shards=2"]);
    for user in ["ann", "bob", "cyd", "dan", "eve", "fay"] {
        let query = format!("{}&user=mallory&topics=t", issuer.query(user, json!({})));
        let _raw = gateway.raw(&query);
        let (_json, _) = gateway.hello(&query);
        let _stream = gateway.stream(&query);
        let mut poller = Poller::connect(gateway.address);
        let bearer = format!("Authorization: Bearer {}\r\n", issuer.token_of(user, json!({})));
        poller.send(format!("GET /poll?user=mallory HTTP/1.1\r\nHost: x\r\n{bearer}\r\n"));
        let connections = eventually("all four are there", || {
            let presence = gateway.get(&format!("/v1/users/{user}"));
            presence["connections"].as_array().filter(|all| all.len() == 4).cloned()
        });
        let mut transports: Vec<_> =
            connections.iter().map(|one| one["transport"].as_str().unwrap().to_owned()).collect();
        transports.sort();
        assert_eq!(transports, ["poll", "sse", "ws", "ws"]);
    }
    assert_eq!(online(&gateway, &["mallory"]), [""; 0]);
    all_gone(&gateway);
}

#[test]
fn issue_6_a_token_that_does_not_hold_is_unauthorized_and_told_why_but_never_shown() {
    let (issuer, other) = (Issuer::new(b'k'), Issuer::new(b'o'));
    let gateway = issuer.gateway(&["auth.issuer=us", "auth.audience=push", "auth.anonymous=false"]);
    let now = unix_ms() / 1000;
    let good = json!({"sub": "ann", "iss": "us", "aud": "push"});
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        issuer.token(claims)
    };
    for (token, why) in [
        ("a.b.c".to_owned(), "is not a JSON Web Token"),
        (other.token(good.clone()), "signature does not hold"),
        (with("exp", json!(now - 1)), "has expired (exp)"),
        (with("nbf", json!(now + 60)), "not valid yet (nbf)"),
        (with("iss", json!("them")), "of another issuer (iss)"),
        (with("aud", json!("mail")), "for another audience (aud)"),
        (with("sub", json!("")), "claim sub is malformed"),
        (issuer.token(json!({"iss": "us", "aud": "push"})), "names no user (sub)"),
    ] {
        for (query, headers) in [
            (format!("token={token}"), String::new()),
            (String::new(), format!("Authorization: Bearer {token}\r\n")),
        ] {
            let (status, code, message) = refused(&gateway, &query, &headers);
            assert_eq!((status, code.as_str()), (401, "unauthorized"), "{message}");
            assert!(message.contains(why) && !message.contains(&token), "{message}");
        }
    }
    let (status, _, message) = refused(&gateway, "user=ann", "");
    assert!(status == 401 && message.contains("user= is not believed"), "{message}");
    let both =
        refused(&gateway, &format!("token={}", issuer.token(good.clone())), "Authorization: Bearer x\r\n");
    assert_eq!((both.0, both.1.as_str()), (400, "bad_request"));
    let totals = all_gone(&gateway);
    assert_eq!((&totals["unauthorized"], &totals["closed"]["refused"]), (&json!(51), &json!(54)));
    gateway.raw(&format!("token={}", issuer.token(good))).close();
}

#[test]
fn issue_6_a_token_without_a_user_is_anonymous_where_that_is_allowed_and_no_token_never_is() {
    let issuer = Issuer::new(b'k');
    let gateway = issuer.gateway(&[]);
    let mut client = gateway.raw(&format!("topics=t&token={}", issuer.token(json!({}))));
    gateway.push(json!({"topic": "t"}), json!(1));
    assert_eq!(client.text(), "1");
    assert_eq!(refused(&gateway, "topics=t", "").0, 401);
}

#[test]
fn issue_6_topics_that_the_token_does_not_allow_are_refused_by_name() {
    let issuer = Issuer::new(b'k');
    let gateway = issuer.gateway(&[]);
    let query = issuer.query("ann", json!({"topics": ["news", "orders/*/state"]}));
    let (status, code, message) = refused(&gateway, &format!("{query}&topics=news,orders/7"), "");
    assert_eq!((status, code.as_str()), (403, "forbidden_topic"));
    assert!(message.ends_with("the topic orders/7"), "{message}");

    let (mut client, _) = gateway.hello(&format!("{query}&topics=news,orders/7/state"));
    client.send_json(&json!({"type": "subscribe", "topics": ["orders/8/state", "sport"], "id": 1}));
    let error = client.expect("error");
    assert_eq!((&error["code"], &error["id"]), (&json!("forbidden_topic"), &json!(1)));
    assert!(error["message"].as_str().unwrap().ends_with("the topic sport"), "{error}");
    client.send_json(&json!({"type": "subscribe", "topics": ["orders/8/state"]}));
    client.expect("subscribed");
    let topics = |gateway: &Gateway| gateway.get("/v1/users/ann")["connections"][0]["topics"].clone();
    assert_eq!(topics(&gateway), json!(["news", "orders/7/state", "orders/8/state"]));

    // The operator's word is not held against the token.
    gateway.control("PUT", "/v1/users/ann/topics/sport", "", b"").ok();
    gateway.push(json!({"topic": "sport"}), json!("bound"));
    assert_eq!(client.expect("message")["data"], "bound");
}

#[test]
fn issue_6_an_empty_list_of_topics_allows_none_and_messages_to_the_user_still_come() {
    let issuer = Issuer::new(b'k');
    let gateway = issuer.gateway(&[]);
    let query = issuer.query("ann", json!({"topics": []}));
    assert_eq!(refused(&gateway, &format!("{query}&topics=news"), "").0, 403);
    let mut client = gateway.raw(&query);
    gateway.push(json!({"user": "ann"}), json!(1));
    assert_eq!(client.text(), "1");
}

#[test]
fn issue_6_a_user_has_as_many_connections_as_the_token_allows() {
    let issuer = Issuer::new(b'k');
    let gateway = issuer.gateway(&[]);
    for user in [gateway_user(&gateway, &issuer, 0), gateway_user(&gateway, &issuer, 1)] {
        let query = issuer.query(&user, json!({"max_connections": 2}));
        let first = gateway.raw(&query);
        let mut poller = Poller::connect(gateway.address);
        poller.send(poll::request(&query));
        eventually("the poll is held", || {
            let presence = gateway.get(&format!("/v1/users/{user}"));
            (presence["connections"].as_array().unwrap().len() == 2).then_some(())
        });
        let (status, code, _) = refused(&gateway, &query, "");
        assert_eq!((status, code.as_str()), (429, "too_many_connections"));
        // Others are not concerned, and a place that is given back is one.
        gateway.raw(&issuer.query("somebody-else", json!({"max_connections": 1}))).close();
        first.close();
        gateway.raw(&query).close();
    }
    let totals = all_gone(&gateway);
    assert_eq!(totals["accepted"].as_u64().unwrap(), closed_total(&totals));
}

/// A user that lives on `shard`.
fn gateway_user(gateway: &Gateway, issuer: &Issuer, shard: u16) -> String {
    let lives_there = |user: &String| {
        let (_, hello) = gateway.hello(&issuer.query(user, json!({})));
        hello["connection"].as_str().unwrap().starts_with(&format!("{shard}-"))
    };
    (0..64).map(|n| format!("user-{n}")).find(lives_there).expect("every shard has users")
}

#[test]
fn issue_6_a_single_connection_replaces_the_users_others() {
    let issuer = Issuer::new(b'k');
    let gateway = issuer.gateway(&[]);
    let any = issuer.query("ann", json!({}));
    let single = issuer.query("ann", json!({"single": true, "max_connections": 1}));
    let (mut raw, mut stream, mut poller) =
        (gateway.raw(&any), gateway.stream(&any), Poller::connect(gateway.address));
    poller.send(poll::request(&any));
    let mut other = gateway.raw(&issuer.query("bob", json!({})));
    gateway.until("all are there", |totals| totals["connections"] == 4);
    let mut alone = gateway.raw(&single);
    assert_eq!(raw.closed(), (4501, "replaced by a newer connection".to_owned()));
    assert_eq!(stream.expect("corecast.close")["code"], 4501);
    stream.ended();
    assert_eq!(poller.answer().refusal(), (403, "replaced".to_owned()));
    let mut next = gateway.raw(&single);
    assert_eq!(alone.closed().0, 4501);
    // One that does not insist on being alone leaves it be.
    let mut second = gateway.raw(&any);
    for client in [&mut next, &mut second, &mut other] {
        client.nothing_waits();
    }
    drop((stream, poller));
    gateway.until("all four are counted", |totals| totals["closed"]["replaced"] == 4);
}

#[test]
fn issue_6_a_page_can_read_why_its_token_is_refused() {
    let issuer = Issuer::new(b'k');
    let gateway = issuer.gateway(&["web.origins=https://a.example"]);
    for path in ["sse", "poll"] {
        let get =
            |origin: &str| format!("GET /{path}?token=x HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n\r\n");
        let answer = gateway.ask(get("https://a.example"));
        assert_eq!(answer.refusal(), (401, "unauthorized".to_owned()));
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert_eq!(gateway.ask(get("null")).refusal(), (403, "forbidden_origin".to_owned()));
    }
    let answer = gateway.ask(upgrade("/ws", "Origin: null\r\n"));
    assert_eq!(answer.refusal(), (403, "forbidden_origin".to_owned()));
}

#[test]
fn issue_6_no_token_reaches_the_log_or_the_events_whatever_becomes_of_it() {
    let (issuer, other) = (Issuer::new(b'k'), Issuer::new(b'o'));
    let mut gateway = issuer.gateway(&["log.level=trace"]);
    let mut events = gateway.events("");
    let mut tokens = Vec::new();
    let mut minted = |issuer: &Issuer, claims: Value| {
        tokens.push(issuer.token_of("ann", claims));
        tokens.last().unwrap().clone()
    };
    let good = minted(&issuer, json!({"topics": ["t"]}));
    let (mut client, _) = gateway.hello(&format!("token={good}&topics=t"));
    client.send_json(&json!({"type": "refresh", "token": minted(&issuer, json!({"jti": 1}))}));
    client.expect("refreshed");
    client.send_json(&json!({"type": "refresh", "token": minted(&other, json!({"jti": 2}))}));
    assert_eq!(client.expect("error")["code"], "unauthorized");
    client.close();
    for bad in [minted(&issuer, json!({"exp": 1})), minted(&other, json!({}))] {
        refused(&gateway, &format!("token={bad}"), "");
        refused(&gateway, "", &format!("Authorization: Bearer {bad}\r\n"));
        let target = format!("GET /ws?token={bad}&x=\u{1} HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(gateway.ask(target).status, 400);
    }
    let bearer = format!("Authorization: Bearer {good}\r\n");
    drop(EventStream::open(gateway.address, "/sse", &bearer));
    drop(WebSocket::opened(slow_request(&gateway, &format!("/ws?token={good}"))));
    // Two come, one of them goes, and six are refused.
    let told: String = (0..9).map(|_| events.next().to_string()).collect();
    let shown = gateway.get("/v1/stats").to_string() + &gateway.get("/v1/users/ann").to_string() + &told;
    gateway.signal(rustix::process::Signal::TERM);
    gateway.ended();
    let said = gateway.said() + &shown;
    assert!(said.contains("refused"), "trace says something: {said}");
    for token in tokens {
        for part in token.split('.').skip(1) {
            assert!(!said.contains(part), "{part} in {said}");
        }
    }
}

/// A request that comes octet by octet.
fn slow_request(gateway: &Gateway, target: &str) -> TcpStream {
    use std::io::Write;
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream.set_nodelay(true).unwrap();
    for octets in upgrade(target, "").as_bytes().chunks(50) {
        stream.write_all(octets).unwrap();
    }
    stream
}
