//! `wire::session`: what the client port serves and refuses (contract section 2, RFC 6455 4).

use bytes::Bytes;
use corecast::message::Position;
use corecast::stats::RefusalReason;
use corecast::wire::close::Refusal;
use corecast::wire::demo;
use corecast::wire::origin::Origins;
use corecast::wire::request::parse_head;
use corecast::wire::session::{
    Opening, Policy, Proof, Route, Transport, head_of, plain_response, preflight_response, refusal_response,
    route,
};
use proptest::prelude::*;

use super::request::LIMITS;

pub const POLICY: Policy = Policy {
    proof: Proof::Nothing,
    identified: false,
    anonymous: true,
    heartbeat_s: 60,
    heartbeat_min_s: 10,
    heartbeat_max_s: 600,
    topics_max: 3,
    origins: Origins::ANY,
    echo: true,
    demo: false,
};

/// Every line that a handshake needs, one to be left out or changed.
pub const HANDSHAKE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn routed(policy: &Policy, line: &str, headers: &str) -> Result<Route, Refusal> {
    let input = format!("{line}\r\nHost: localhost\r\n{headers}\r\n");
    let (request, _) = parse_head(input.as_bytes(), &LIMITS)?.expect("complete");
    route(&request, policy)
}

fn refused(line: &str, headers: &str) -> (u16, &'static str) {
    let refusal = routed(&POLICY, line, headers).expect_err(line);
    (refusal.status, refusal.code)
}

pub fn opened_by(policy: &Policy, target: &str, headers: &str) -> Result<Opening, Refusal> {
    match routed(policy, &format!("GET {target} HTTP/1.1"), headers)? {
        Route::Open(opening) => Ok(opening),
        other => panic!("{target} came to {other:?}"),
    }
}

/// Opens `/ws` with a query.
fn ws(query: &str) -> Result<Opening, Refusal> {
    opened_by(&POLICY, &format!("/ws?{query}"), HANDSHAKE)
}

fn ws_refused(query: &str) -> (u16, &'static str) {
    let refusal = ws(query).expect_err(query);
    (refusal.status, refusal.code)
}

fn names(opening: &Opening) -> Vec<&str> {
    opening.topics.iter().map(|topic| topic.as_str()).collect()
}

/// The lines of a response's head, and its body.
fn response(octets: &Bytes) -> (Vec<String>, String) {
    let text = String::from_utf8(octets.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("a blank line");
    (head.split("\r\n").map(str::to_owned).collect(), body.to_owned())
}

#[test]
fn contract_2_healthz_and_readyz_are_served_and_other_paths_are_404() {
    assert_eq!(routed(&POLICY, "GET /healthz HTTP/1.1", ""), Ok(Route::Health));
    assert_eq!(routed(&POLICY, "GET /healthz?x HTTP/1.0", ""), Ok(Route::Health));
    assert_eq!(routed(&POLICY, "GET /readyz HTTP/1.1", ""), Ok(Route::Ready));
    for path in ["/", "/?x", "/index.html", "/ws/", "/WS", "//ws", "/w%73", "/healthz/", "/sse/", "/SSE"] {
        assert_eq!(refused(&format!("GET {path} HTTP/1.1"), HANDSHAKE), (404, "not_found"), "{path}");
    }
}

#[test]
fn contract_2_only_get_is_served_but_for_head_of_checks_and_options_of_what_pages_ask_for() {
    let allow = |path: &str, method: &str| {
        let refusal = routed(&POLICY, &format!("{method} {path} HTTP/1.1"), "").expect_err(path);
        assert_eq!((refusal.status, refusal.code), (405, "method_not_allowed"), "{method} {path}");
        refusal.allow
    };
    for method in ["POST", "PUT", "DELETE", "get", "PATCH", "CONNECT"] {
        for path in ["/ws", "/echo", "/nothing", "/"] {
            assert_eq!(allow(path, method), "GET");
        }
        assert_eq!((allow("/healthz", method), allow("/readyz", method)), ("GET, HEAD", "GET, HEAD"));
        assert_eq!((allow("/sse", method), allow("/poll", method)), ("GET, OPTIONS", "GET, OPTIONS"));
    }
    for (path, method) in [("/ws", "HEAD"), ("/sse", "HEAD"), ("/poll", "HEAD"), ("/ws", "OPTIONS")] {
        allow(path, method);
    }
    allow("/healthz", "OPTIONS");
    assert_eq!(refused("OPTIONS * HTTP/1.1", ""), (405, "method_not_allowed"));
    assert_eq!(routed(&POLICY, "HEAD /healthz HTTP/1.1", ""), Ok(Route::Health));
    assert_eq!(routed(&POLICY, "HEAD /readyz HTTP/1.0", ""), Ok(Route::Ready));
    assert_eq!(routed(&POLICY, "OPTIONS /sse HTTP/1.1", ""), Ok(Route::Preflight(None)));
    assert_eq!(routed(&POLICY, "OPTIONS /poll?x HTTP/1.1", ""), Ok(Route::Preflight(None)));
}

#[test]
fn contract_2_the_demo_page_is_served_where_it_is_on() {
    let policy = Policy { demo: true, ..POLICY };
    assert_eq!(routed(&policy, "GET / HTTP/1.1", ""), Ok(Route::Demo));
    assert_eq!(routed(&policy, "HEAD /?user=ann HTTP/1.0", ""), Ok(Route::Demo));
    let refusal = routed(&policy, "POST / HTTP/1.1", "").unwrap_err();
    assert_eq!((refusal.status, refusal.allow), (405, "GET, HEAD"));
    assert_eq!(routed(&policy, "GET / HTTP/1.1", "Content-Length: 1\r\n").unwrap_err().status, 400);
    assert_eq!(routed(&policy, "GET // HTTP/1.1", "").unwrap_err().status, 404);
}

/// What could fetch something, or send somebody away.
#[test]
fn contract_2_the_demo_page_names_nothing_outside_itself() {
    let head = String::from_utf8(demo::head().to_vec()).unwrap();
    assert!(head.ends_with(&format!("\r\nContent-Length: {}\r\n\r\n", demo::PAGE.len())), "{head}");
    for outside in ["http:", "https:", "//cdn", "src=", "url(", "@import", "import(", "innerHTML"] {
        assert!(!demo::PAGE.contains(outside), "{outside}");
    }
    let links = demo::PAGE.matches("href=").count();
    assert_eq!((links, demo::PAGE.matches("href=\"data:,\"").count()), (1, 1));
}

#[test]
fn contract_2_a_request_with_a_body_is_refused() {
    for body in ["Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n"] {
        for path in ["/ws", "/sse", "/poll", "/healthz", "/nothing"] {
            let line = format!("GET {path} HTTP/1.1");
            assert_eq!(refused(&line, &format!("{body}{HANDSHAKE}")), (400, "bad_request"), "{line} {body}");
        }
    }
    assert_eq!(routed(&POLICY, "GET /healthz HTTP/1.1", "Content-Length: 0\r\n"), Ok(Route::Health));
}

#[test]
fn rfc6455_1_3_the_key_is_answered_as_in_the_example() {
    let opening = opened_by(&POLICY, "/ws", HANDSHAKE).unwrap();
    let (lines, body) = response(&opening.response());
    assert_eq!(
        lines,
        [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        ]
    );
    assert_eq!(body, "");
}

#[test]
fn rfc6455_4_2_1_tokens_have_no_case_and_stand_in_lists() {
    let headers = "upgrade: h2c, WebSocket\r\nconnection: keep-alive\r\nConnection: foo, upgrade\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert!(opened_by(&POLICY, "/ws", headers).is_ok());
}

#[test]
fn rfc6455_4_2_1_without_an_upgrade_to_websocket_it_is_426() {
    let without = HANDSHAKE.replace("Upgrade: websocket\r\n", "");
    assert_eq!(refused("GET /ws HTTP/1.1", &without), (426, "upgrade_required"));
    assert_eq!(refused("GET /ws HTTP/1.1", ""), (426, "upgrade_required"));
    let other = HANDSHAKE.replace("websocket\r\n", "h2c\r\n");
    assert_eq!(refused("GET /echo HTTP/1.1", &other), (426, "upgrade_required"));
}

#[test]
fn contract_2_http_1_0_never_upgrades() {
    assert_eq!(refused("GET /ws HTTP/1.0", HANDSHAKE), (426, "upgrade_required"));
}

#[test]
fn rfc6455_4_2_1_connection_names_the_upgrade() {
    for connection in ["", "Connection: keep-alive\r\n", "Connection: Upgraded\r\n"] {
        let headers = HANDSHAKE.replace("Connection: Upgrade\r\n", connection);
        assert_eq!(refused("GET /ws HTTP/1.1", &headers), (400, "bad_request"), "{connection}");
    }
}

#[test]
fn rfc6455_4_4_another_version_is_426() {
    for version in ["", "8", "12", "14", "013", "13, 8", "13\r\nSec-WebSocket-Version: 13", "x"] {
        let headers = HANDSHAKE.replace("Version: 13", &format!("Version: {version}"));
        assert_eq!(refused("GET /ws HTTP/1.1", &headers), (426, "upgrade_required"), "{version}");
    }
    let headers = HANDSHAKE.replace("Sec-WebSocket-Version: 13\r\n", "");
    assert_eq!(refused("GET /ws HTTP/1.1", &headers), (426, "upgrade_required"));
}

#[test]
fn rfc6455_4_1_the_key_is_16_bytes_in_base64_exactly_once() {
    let good = "dGhlIHNhbXBsZSBub25jZQ==";
    let twice = format!("{good}\r\nSec-WebSocket-Key: {good}");
    let bad = [
        "",
        "=",
        "AAAA",
        "SGVsbG8sIHdvcmxkIQ==",
        "AAAAAAAAAAAAAAAAAAAAAAA=",
        "AAAAAAAAAAAAAAAAAAAAAAAA",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZS!ub25jZQ==",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhl IHNhbXBsZSBub25jZ==",
        "dGhlIHNhbXBsZS_-b25jZQ==",
        "========================",
        &twice,
    ];
    for key in bad {
        let headers = HANDSHAKE.replace(good, key);
        assert_eq!(refused("GET /ws HTTP/1.1", &headers), (400, "bad_request"), "{key}");
    }
    for key in ["AAAAAAAAAAAAAAAAAAAAAA==", "+/+/+/+/+/+/+/+/+/+/+w==", "xxxxxxxxxxxxxxxxxxxxxx=="] {
        let headers = HANDSHAKE.replace(good, key);
        assert!(opened_by(&POLICY, "/ws", &headers).is_ok(), "{key}");
    }
}

#[test]
fn contract_2_corecast_v1_is_chosen_wherever_it_is_offered() {
    let offers = [
        "Sec-WebSocket-Protocol: corecast.v1\r\n",
        "Sec-WebSocket-Protocol: mqtt , corecast.v1\r\n",
        "Sec-WebSocket-Protocol: mqtt\r\nsec-websocket-protocol: soap,corecast.v1,x\r\n",
    ];
    for offer in offers {
        let opening = opened_by(&POLICY, "/ws", &format!("{HANDSHAKE}{offer}")).unwrap();
        assert_eq!(opening.transport, Transport::WebSocketJson, "{offer}");
        let (lines, _) = response(&opening.response());
        assert_eq!(lines.last().unwrap(), "Sec-WebSocket-Protocol: corecast.v1");
    }
}

#[test]
fn rfc6455_4_2_2_a_protocol_or_extension_that_is_not_spoken_is_not_answered() {
    let offers = [
        "Sec-WebSocket-Protocol: corecast.v2, Corecast.V1, corecast.v1.x\r\n",
        "Sec-WebSocket-Protocol:\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
    ];
    for offer in offers {
        let opening = opened_by(&POLICY, "/ws", &format!("{HANDSHAKE}{offer}")).unwrap();
        assert_eq!(opening.transport, Transport::WebSocketRaw, "{offer}");
        assert_eq!(response(&opening.response()).0.len(), 4, "{offer}");
    }
}

#[test]
fn contract_2_without_a_query_a_client_is_anonymous_with_the_default_heartbeat() {
    let opening = opened_by(&POLICY, "/ws", HANDSHAKE).unwrap();
    assert_eq!((opening.user, opening.topics, opening.since, opening.heartbeat_s), (None, vec![], None, 60));
}

#[test]
fn contract_2_a_client_without_a_user_is_401_where_anonymous_is_off() {
    let policy = Policy { anonymous: false, ..POLICY };
    let refusal = opened_by(&policy, "/ws?topics=a", HANDSHAKE).unwrap_err();
    assert_eq!((refusal.status, refusal.code), (401, "unauthorized"));
    assert!(opened_by(&policy, "/ws?user=u", HANDSHAKE).is_ok());
}

#[test]
fn contract_2_in_open_mode_the_query_names_the_user_and_a_token_is_not_looked_at() {
    let user = |query| ws(query).unwrap().user.map(String::from);
    assert_eq!(user("user=gr%C3%B6%C3%9Fe%2F1").as_deref(), Some("größe/1"));
    assert_eq!(user("token=%ff&user=u").as_deref(), Some("u"));
    assert_eq!(user("token=u"), None);
}

#[test]
fn contract_1_a_bad_user_id_is_refused() {
    assert!(ws(&format!("user={}", "u".repeat(128))).is_ok());
    let too_long = "u".repeat(129);
    for user in ["", "a%20b", "a+b", "a,b", "a%2Cb", "%00", "%7f", "a%0a", &too_long] {
        assert_eq!(ws_refused(&format!("user={user}")), (400, "bad_user"), "{user}");
    }
    assert_eq!(ws_refused("user=%f"), (400, "bad_request"));
}

#[test]
fn contract_2_topics_are_split_at_commas_encoded_or_not_and_each_counts_once() {
    for query in ["topics=a,b%2Fc,a", "topics=a%2cb/c%2Ca"] {
        assert_eq!(names(&ws(query).unwrap()), ["a", "b/c"], "{query}");
    }
}

#[test]
fn contract_1_a_bad_topic_is_refused() {
    let too_long = format!("a,{}", "t".repeat(129));
    for topics in ["", ",", "a,", ",a", "a,,b", "a+b", "a,%20", "a%00", &too_long] {
        assert_eq!(ws_refused(&format!("topics={topics}")), (400, "bad_topic"), "{topics}");
    }
    assert_eq!(ws_refused("topics=%"), (400, "bad_request"));
}

#[test]
fn contract_2_topics_to_the_limit_are_served_and_one_more_is_400() {
    assert_eq!(names(&ws("topics=a,b,c,a").unwrap()), ["a", "b", "c"]);
    assert_eq!(ws_refused("topics=a,b,c,d"), (400, "bad_request"));
}

#[test]
fn contract_2_since_is_a_position() {
    assert_eq!(ws("since=000000a1-18").unwrap().since, Some(Position { epoch: 0xa1, seq: 18 }));
    for since in ["", "18", "A1-18", "000000A1-18", "000000a1-", "000000a1-99999999999999999999"] {
        assert_eq!(ws_refused(&format!("since={since}")), (400, "bad_request"), "{since}");
    }
}

/// Opens `/sse` with a query and header lines: where it resumes, and whether it asked for what is no position.
fn sse_resumes(query: &str, headers: &str) -> (Option<String>, bool) {
    let opening = opened_by(&POLICY, &format!("/sse?{query}"), headers).unwrap();
    assert_eq!(opening.transport, Transport::EventStream);
    (opening.since.map(|since| since.to_string()), opening.lost)
}

#[test]
fn contract_2_an_event_stream_has_the_query_of_a_websocket_and_needs_no_upgrade() {
    let line = "/sse?user=u&topics=a,b&heartbeat=5";
    let opening = opened_by(&POLICY, line, "").unwrap();
    assert_eq!(opening.transport, Transport::EventStream);
    assert_eq!(opening.user.as_ref().map(|user| user.as_str()), Some("u"));
    assert_eq!((names(&opening), opening.heartbeat_s), (vec!["a", "b"], 10));
    assert_eq!((opening.since, opening.lost), (None, false));
    assert!(matches!(routed(&POLICY, "GET /sse HTTP/1.0", ""), Ok(Route::Open(_))));
    assert_eq!(refused("GET /sse?user=a,b HTTP/1.1", ""), (400, "bad_user"));
    assert_eq!(refused("GET /sse?topics=a,,b HTTP/1.1", ""), (400, "bad_topic"));
}

#[test]
fn contract_2_an_event_stream_resumes_from_the_header_else_last_event_id_else_since() {
    let at = |seq: u32| (Some(format!("000000a1-{seq}")), false);
    let header = "Last-Event-ID: 000000a1-1\r\n";
    assert_eq!(sse_resumes("since=000000a1-3&last_event_id=000000a1-2", header), at(1));
    assert_eq!(sse_resumes("since=000000a1-3&last_event_id=000000a1-2", ""), at(2));
    assert_eq!(sse_resumes("since=000000a1-3", ""), at(3));
    assert_eq!(sse_resumes("since=000000a1-3&last_event_id=", "Last-Event-ID:\r\n"), at(3));
}

#[test]
fn contract_2_a_malformed_event_id_is_a_gap_and_a_malformed_since_400() {
    for header in ["x", "000000A1-1", "\u{e9}", "000000a1-1\r\nLast-Event-ID: 000000a1-2"] {
        assert_eq!(sse_resumes("", &format!("Last-Event-ID: {header}\r\n")), (None, true), "{header}");
    }
    assert_eq!(sse_resumes("last_event_id=17", ""), (None, true));
    assert_eq!(refused("GET /sse?since=17 HTTP/1.1", ""), (400, "bad_request"));
}

#[test]
fn contract_2_a_poll_has_the_same_query_and_a_timeout() {
    let poll = |query: &str| opened_by(&POLICY, &format!("/poll?{query}"), "").unwrap();
    let opening = poll("user=u&topics=a&since=000000a1-18&heartbeat=1");
    assert_eq!(opening.transport, Transport::LongPoll);
    assert_eq!((opening.since, opening.keep_alive), (Some(Position { epoch: 0xa1, seq: 18 }), true));
    for (asked, expected) in [("", 25), ("timeout=0", 0), ("timeout=300", 300), ("timeout=301", 300)] {
        assert_eq!(poll(asked).heartbeat_s, expected, "{asked}");
    }
    assert_eq!(poll("timeout=99999999999999999999").heartbeat_s, 300);
    for bad in ["timeout=", "timeout=x", "timeout=-1", "timeout=1.5", "heartbeat=x", "since=17"] {
        assert_eq!(refused(&format!("GET /poll?{bad} HTTP/1.1"), ""), (400, "bad_request"), "{bad}");
    }
}

#[test]
fn rfc9112_9_3_a_poll_keeps_the_connection_in_http_1_1_unless_it_says_close() {
    let keeps = |line: &str, headers: &str| match routed(&POLICY, line, headers).unwrap() {
        Route::Open(opening) => opening.keep_alive,
        other => panic!("{other:?}"),
    };
    assert!(keeps("GET /poll HTTP/1.1", ""));
    assert!(!keeps("GET /poll HTTP/1.1", "Connection: x, Close\r\n"));
    assert!(!keeps("GET /poll HTTP/1.0", "Connection: keep-alive\r\n"));
}

fn listed() -> Policy {
    let origins = ["https://a.example", "http://localhost:3000"].map(str::to_owned);
    Policy { origins: Origins::new(&origins), ..POLICY }
}

#[test]
fn contract_2_an_origin_that_is_not_listed_is_403_on_every_transport() {
    for origin in [
        "null",
        "https://b.example",
        "http://a.example",
        "https://a.example:8443",
        "https://a.example.evil",
        "https://A.example",
        "",
    ] {
        for (path, headers) in [("/ws", HANDSHAKE), ("/echo", HANDSHAKE), ("/sse", ""), ("/poll", "")] {
            let headers = format!("{headers}Origin: {origin}\r\n");
            let refusal = routed(&listed(), &format!("GET {path} HTTP/1.1"), &headers).expect_err(origin);
            assert_eq!((refusal.status, refusal.code), (403, "forbidden_origin"), "{path} {origin}");
            assert_eq!(refusal.fields, "Vary: Origin\r\n");
        }
    }
    let twice = "Origin: https://a.example\r\nOrigin: https://a.example\r\n";
    let refusal = routed(&listed(), "GET /poll HTTP/1.1", twice).unwrap_err();
    assert_eq!((refusal.status, refusal.code), (400, "bad_request"));
}

#[test]
fn contract_2_a_listed_origin_and_a_request_without_one_pass_and_an_empty_list_is_any() {
    for (path, headers) in [("/ws", HANDSHAKE), ("/sse", ""), ("/poll", "")] {
        let origin = |policy: &Policy, line: &str| {
            opened_by(policy, path, &format!("{headers}{line}")).unwrap().origin
        };
        assert_eq!(origin(&listed(), "Origin: http://localhost:3000\r\n"), Some(1));
        assert_eq!(origin(&listed(), ""), None);
        assert_eq!(origin(&POLICY, "Origin: https://b.example\r\n"), None);
        assert_eq!(origin(&POLICY, "Origin: null\r\n"), None);
    }
}

#[test]
fn fetch_3_2_answers_and_refusals_say_which_page_may_read_them() {
    let any = "Access-Control-Allow-Origin: *\r\n";
    let one = "Access-Control-Allow-Origin: http://localhost:3000\r\nVary: Origin\r\n";
    let origins = listed().origins;
    assert_eq!(
        (Origins::ANY.fields(None), origins.fields(None)),
        (any.to_owned(), "Vary: Origin\r\n".to_owned())
    );
    assert_eq!(origins.fields(Some(1)), one);
    let expose = "Access-Control-Expose-Headers: Retry-After\r\n";
    for line in ["GET /sse?user=a,b HTTP/1.1", "POST /poll HTTP/1.1", "GET /poll?since=x HTTP/1.1"] {
        assert_eq!(routed(&POLICY, line, "").unwrap_err().fields, format!("{any}{expose}"), "{line}");
        let refusal = routed(&listed(), line, "Origin: http://localhost:3000\r\n").unwrap_err();
        assert_eq!(refusal.fields, format!("{one}{expose}"), "{line}");
        let (lines, _) = response(&refusal_response(&refusal));
        assert!(
            lines.contains(&"Access-Control-Allow-Origin: http://localhost:3000".to_owned()),
            "{lines:?}"
        );
    }
    assert_eq!(routed(&POLICY, "GET /ws HTTP/1.1", "").unwrap_err().fields, "");
}

#[test]
fn fetch_3_2_a_preflight_is_204_with_what_a_page_may_send() {
    for (policy, origin, id, allowed) in
        [(&POLICY, "null", None, "*"), (&listed(), "https://a.example", Some(0), "https://a.example")]
    {
        let headers = format!("Origin: {origin}\r\nAccess-Control-Request-Method: GET\r\n");
        assert_eq!(routed(policy, "OPTIONS /sse HTTP/1.1", &headers), Ok(Route::Preflight(id)));
        let (lines, body) = response(&preflight_response(&policy.origins.preflight_fields(id)));
        let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        lines[1..].sort_unstable();
        assert_eq!(
            lines,
            [
                "HTTP/1.1 204 No Content",
                "Access-Control-Allow-Headers: Authorization, Cache-Control, Last-Event-ID",
                "Access-Control-Allow-Methods: GET",
                &format!("Access-Control-Allow-Origin: {allowed}"),
                "Access-Control-Max-Age: 7200",
                "Allow: GET, OPTIONS",
                "Connection: close",
                "Vary: Origin",
            ]
        );
        assert_eq!(body, "");
    }
}

#[test]
fn rfc9110_9_3_2_head_is_the_answer_to_get_without_its_body() {
    let whole = plain_response(200, "ok\n");
    let head = head_of(&whole);
    assert!(whole.starts_with(&head) && head.ends_with(b"Content-Length: 3\r\n\r\n"));
}

#[test]
fn contract_2_heartbeat_is_seconds_clamped_to_the_bounds() {
    let cases = [
        ("0", 10),
        ("9", 10),
        ("10", 10),
        ("11", 11),
        ("600", 600),
        ("601", 600),
        ("99999999999999999999", 600),
    ];
    for (asked, expected) in cases {
        assert_eq!(ws(&format!("heartbeat={asked}")).unwrap().heartbeat_s, expected, "{asked}");
    }
    for bad in ["", "x", "1.5", "-1", "%2B1", "30s"] {
        assert_eq!(ws_refused(&format!("heartbeat={bad}")), (400, "bad_request"), "{bad}");
    }
}

#[test]
fn contract_2_echo_is_served_where_it_is_on_and_asks_for_no_user() {
    let policy = Policy { anonymous: false, ..POLICY };
    let headers = format!("{HANDSHAKE}Sec-WebSocket-Protocol: corecast.v1\r\n");
    let opening = opened_by(&policy, "/echo?user=a,b&topics=,", &headers).unwrap();
    assert_eq!(opening.transport, Transport::WebSocketEcho);
    assert_eq!((&opening.user, &opening.topics), (&None, &vec![]));
    assert_eq!(response(&opening.response()).0.len(), 4);

    let off = Policy { echo: false, ..POLICY };
    assert_eq!(opened_by(&off, "/echo", HANDSHAKE).unwrap_err().status, 404);
}

#[test]
fn contract_2_a_refusal_is_a_json_error_object_and_a_close() {
    let (lines, body) = response(&refusal_response(&Refusal::new(RefusalReason::BadRequest, "a \"b\"\r\nc")));
    assert_eq!(
        lines,
        [
            "HTTP/1.1 400 Bad Request".to_owned(),
            "Connection: close".to_owned(),
            "Content-Type: application/json".to_owned(),
            format!("Content-Length: {}", body.len()),
        ]
    );
    let object: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(object, serde_json::json!({"error": {"code": "bad_request", "message": "a \"b\"\r\nc"}}));
}

#[test]
fn rfc9110_15_5_a_refusal_carries_the_fields_of_its_status() {
    let fields: [(u16, &[&str]); 5] = [
        (401, &["Connection: close", "WWW-Authenticate: Bearer"]),
        (405, &["Connection: close", "Allow: GET"]),
        (426, &["Connection: close, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]),
        (431, &["Connection: close"]),
        (503, &["Connection: close"]),
    ];
    for (status, expected) in fields {
        let refusal = Refusal { status, ..Refusal::new(RefusalReason::BadRequest, "m") };
        let (lines, _) = response(&refusal_response(&refusal));
        assert!(lines[0].starts_with(&format!("HTTP/1.1 {status} ")), "{lines:?}");
        assert_eq!(lines[1..lines.len() - 2], *expected, "{status}");
    }
}

#[test]
fn rfc9110_10_2_3_a_refusal_says_when_to_come_back_where_it_knows() {
    let refusal = Refusal { retry_after_s: Some(7), ..Refusal::new(RefusalReason::Connections, "too many") };
    let (lines, _) = response(&refusal_response(&refusal));
    assert!(lines.contains(&"Retry-After: 7".to_owned()), "{lines:?}");
}

#[test]
fn rfc9112_4_every_status_of_the_contract_has_its_phrase() {
    for status in [400, 401, 403, 404, 405, 408, 413, 414, 426, 429, 431, 503] {
        let refusal = Refusal { status, ..Refusal::new(RefusalReason::BadRequest, "m") };
        let (lines, _) = response(&refusal_response(&refusal));
        assert!(lines[0].len() > "HTTP/1.1 400 ".len(), "{}", lines[0]);
    }
}

#[test]
fn a_plain_answer_is_text_and_a_close() {
    let (lines, body) = response(&plain_response(503, "draining\n"));
    assert_eq!(
        lines,
        [
            "HTTP/1.1 503 Service Unavailable",
            "Connection: close",
            "Content-Type: text/plain; charset=utf-8",
            "Content-Length: 9",
        ]
    );
    assert_eq!(body, "draining\n");
    assert_eq!(response(&plain_response(200, "ok\n")).0[0], "HTTP/1.1 200 OK");
}

proptest! {
    #[test]
    fn any_query_is_served_or_refused_with_a_4xx(query in "[!-\"$-~]{0,60}", path in "/(ws|sse|poll|echo|healthz|x)") {
        match routed(&POLICY, &format!("GET {path}?{query} HTTP/1.1"), HANDSHAKE) {
            Ok(Route::Open(opening)) => prop_assert!(opening.topics.len() <= POLICY.topics_max as usize),
            Ok(_) => {}
            Err(refusal) => prop_assert!((400..500).contains(&refusal.status)),
        }
    }

    #[test]
    fn any_user_and_topics_come_through_percent_encoding(
        user in "[a-zö/:=&?%+#]{1,20}", topics in proptest::collection::btree_set("[a-zö/:=&?%+#]{1,20}", 1..4),
    ) {
        let encoded = |text: &str| text.bytes().map(|octet| format!("%{octet:02x}")).collect::<String>();
        let list: Vec<String> = topics.iter().map(|topic| encoded(topic)).collect();
        let opening = ws(&format!("topics={}&user={}", list.join(","), encoded(&user))).unwrap();
        prop_assert_eq!(opening.user.as_ref().map(|user| user.as_str()), Some(&*user));
        prop_assert_eq!(names(&opening), topics.iter().collect::<Vec<_>>());
    }
}
