//! From a request head to what it comes to: whatever the head, the answer is one well-formed HTTP response as
//! `httparse` reads it, and a client that comes in keeps the limits (contract section 2).
//!
//! The first octet chooses the policy; the rest is the head.

use std::collections::BTreeSet;

use bytes::Bytes;
use corecast::auth::Credential;
use corecast::wire::origin::Origins;
use corecast::wire::request::{HeadLimits, parse_head};
use corecast::wire::session::{Opening, Policy, Proof, Route, Transport, refusal_response, route};

const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 2048, header_lines_max: 32, target_bytes_max: 1024 };
const TOPICS_MAX: u32 = 3;

fn policy(choice: u8) -> Policy {
    let origins = [String::from("https://a.example"), String::from("null")];
    Policy {
        proof: match choice >> 4 & 3 {
            1 => Proof::Token,
            2 => Proof::Ticket,
            _ => Proof::Nothing,
        },
        identified: choice & 64 != 0,
        anonymous: choice & 1 != 0,
        heartbeat_s: 60,
        heartbeat_min_s: 10,
        heartbeat_max_s: 600,
        topics_max: TOPICS_MAX,
        origins: if choice & 2 != 0 { Origins::new(&origins) } else { Origins::ANY },
        echo: choice & 4 != 0,
        demo: choice & 8 != 0,
    }
}

/// See the top of this file.
pub fn check(input: &[u8]) {
    let Some((&choice, octets)) = input.split_first() else { return };
    let policy = policy(choice);
    let request = match parse_head(octets, &LIMITS) {
        Ok(None) => return,
        Ok(Some((request, _))) => request,
        Err(refusal) => return is_response(&refusal_response(&refusal), refusal.status),
    };
    match route(&request, &policy) {
        Err(refusal) => is_response(&refusal_response(&refusal), refusal.status),
        Ok(Route::Open(opening)) => {
            keeps_limits(&opening, &policy);
            if !matches!(opening.transport, Transport::EventStream | Transport::LongPoll) {
                is_response(&opening.response(), 101);
            }
        }
        Ok(Route::Health | Route::Ready | Route::Preflight(_)) => {}
        Ok(Route::Demo) => assert!(policy.demo),
    }
}

fn keeps_limits(opening: &Opening, policy: &Policy) {
    let distinct: BTreeSet<_> = opening.topics.iter().collect();
    assert!(distinct.len() == opening.topics.len() && distinct.len() <= TOPICS_MAX as usize);
    match opening.transport {
        Transport::LongPoll => assert!(opening.heartbeat_s <= 300),
        _ => assert!((10..=600).contains(&opening.heartbeat_s)),
    }
    let is_echo = opening.transport == Transport::WebSocketEcho;
    assert!(policy.echo || !is_echo);
    if policy.proof == Proof::Nothing {
        assert!(policy.anonymous || is_echo || opening.user.is_some());
    } else {
        // Nobody is who it says before it has shown something.
        assert!(opening.user.is_none() && is_echo == (opening.credential == Credential::None));
    }
}

/// Holds a response against what its reader sees: known header lines only, and a body as long as was said.
fn is_response(octets: &Bytes, status: u16) {
    const FIELDS: [&str; 14] = [
        "Access-Control-Allow-Origin",
        "Access-Control-Expose-Headers",
        "Allow",
        "Connection",
        "Content-Length",
        "Content-Type",
        "Retry-After",
        "Sec-WebSocket-Accept",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Version",
        "Upgrade",
        "Vary",
        "WWW-Authenticate",
        "Cache-Control",
    ];
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let body = &octets[response.parse(octets).expect("a head").unwrap()..];
    assert_eq!(response.code, Some(status));
    let unknown = response.headers.iter().find(|header| !FIELDS.contains(&header.name));
    assert!(unknown.is_none(), "{unknown:?}");
    if status == 101 {
        return assert!(body.is_empty());
    }
    let length = response.headers.iter().find(|header| header.name == "Content-Length").expect("a length");
    assert_eq!(length.value, body.len().to_string().as_bytes());
    let error: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    assert!(error["error"]["code"].is_string() && error["error"]["message"].is_string());
}
