//! `wire::session`: where a client's token or ticket stands in its request (contract section 2, RFC 6750 2).

use corecast::auth::{Credential, Secret};
use corecast::wire::close::Refusal;
use corecast::wire::envelope::{self, ClientFrame};
use corecast::wire::origin::Origins;
use corecast::wire::request::parse_head;
use corecast::wire::session::{Opening, Policy, Proof};

use super::request::LIMITS;
use super::session::{HANDSHAKE, POLICY, opened_by};

const JWT: Policy = Policy { proof: Proof::Token, ..POLICY };
const TICKET: Policy = Policy { proof: Proof::Ticket, ..POLICY };

/// Opens each path that knows users with a query and more header lines; all must come to the same.
fn opened(policy: &Policy, query: &str, headers: &str) -> Result<Opening, Refusal> {
    let ws = opened_by(policy, &format!("/ws?{query}"), &format!("{HANDSHAKE}{headers}"));
    for path in ["sse", "poll"] {
        let other = opened_by(policy, &format!("/{path}?{query}"), headers);
        match (&ws, &other) {
            (Ok(ws), Ok(other)) => assert_eq!((&ws.user, &ws.credential), (&other.user, &other.credential)),
            (Err(ws), Err(other)) => assert_eq!((ws.status, &ws.message), (other.status, &other.message)),
            _ => panic!("{ws:?} {other:?}"),
        }
    }
    ws
}

fn credential(policy: &Policy, query: &str, headers: &str) -> Credential {
    opened(policy, query, headers).unwrap().credential
}

fn refused(policy: &Policy, query: &str, headers: &str) -> (u16, &'static str) {
    let refusal = opened(policy, query, headers).unwrap_err();
    (refusal.status, refusal.code)
}

fn token(text: &str) -> Credential {
    Credential::Token(Secret::new(text.to_owned()))
}

#[test]
fn contract_2_a_token_stands_in_the_query_or_behind_bearer() {
    assert_eq!(credential(&JWT, "token=a.b.c", ""), token("a.b.c"));
    assert_eq!(credential(&JWT, "topics=t&token=a%2Eb.c&x", ""), token("a.b.c"));
    for header in
        ["Authorization: Bearer a.b.c", "authorization: bearer a.b.c", "AUTHORIZATION: BEARER   a.b.c"]
    {
        assert_eq!(credential(&JWT, "", &format!("{header}\r\n")), token("a.b.c"), "{header}");
    }
    // Credentials for somebody else, perhaps a proxy.
    assert_eq!(credential(&JWT, "token=a.b.c", "Authorization: Basic YTpi\r\n"), token("a.b.c"));
}

#[test]
fn rfc6750_2_two_tokens_are_refused_and_none_is_unauthorized() {
    assert_eq!(refused(&JWT, "token=a", "Authorization: Bearer a\r\n"), (400, "bad_request"));
    let twice = "Authorization: Bearer a\r\nAuthorization: Bearer a\r\n";
    assert_eq!(refused(&JWT, "", twice), (400, "bad_request"));
    for headers in ["", "Authorization: Basic YTpi\r\n", "Authorization: Bearer\r\n", "Authorization: B\r\n"]
    {
        assert_eq!(refused(&JWT, "", headers), (401, "unauthorized"), "{headers}");
    }
    // The other modes' words mean nothing.
    assert_eq!(refused(&JWT, "user=alice", ""), (401, "unauthorized"));
    assert_eq!(refused(&JWT, "ticket=a", ""), (401, "unauthorized"));
}

#[test]
fn issue_6_a_client_never_chooses_its_user_where_it_has_to_show_something() {
    for (policy, query) in [(&JWT, "user=bob&token=a"), (&TICKET, "user=bob&ticket=a")] {
        assert_eq!(opened(policy, query, "").unwrap().user, None, "{query}");
    }
}

#[test]
fn issue_6_a_ticket_stands_in_the_query() {
    assert_eq!(credential(&TICKET, "ticket=abc", ""), Credential::Ticket(Secret::new("abc".to_owned())));
    for query in ["", "user=alice", "token=a"] {
        assert_eq!(refused(&TICKET, query, "Authorization: Bearer a\r\n"), (401, "unauthorized"), "{query}");
    }
}

#[test]
fn issue_6_a_poll_on_a_connection_that_has_shown_a_ticket_needs_no_other() {
    let kept = Policy { identified: true, ..TICKET };
    let credential = |policy: &Policy, path: &str, headers: &str| {
        opened_by(policy, path, headers).map(|opening| opening.credential).map_err(|refusal| refusal.status)
    };
    assert_eq!(credential(&kept, "/poll", ""), Ok(Credential::Kept));
    assert_eq!(credential(&kept, "/poll?ticket=a", ""), Ok(Credential::Ticket(Secret::new("a".to_owned()))));
    assert_eq!(credential(&kept, "/ws", HANDSHAKE), Err(401));
    assert_eq!(credential(&kept, "/sse", ""), Err(401));
    assert_eq!(credential(&Policy { identified: true, ..JWT }, "/poll", ""), Err(401));
}

#[test]
fn issue_6_a_poll_that_a_proxy_may_have_put_onto_another_clients_connection_needs_a_ticket() {
    let kept = Policy { identified: true, ..TICKET };
    for header in ["Forwarded: for=192.0.2.1", "X-Forwarded-For: 192.0.2.1", "Via: 1.1 proxy"] {
        let refusal = opened_by(&kept, "/poll", &format!("{header}\r\n")).unwrap_err();
        assert_eq!((refusal.status, refusal.code), (401, "unauthorized"), "{header}");
    }
}

#[test]
fn issue_6_the_origin_is_looked_at_before_the_token() {
    let listed = Origins::new(&["https://a.example".to_owned()]);
    for (query, headers) in [("", "Origin: null\r\n"), ("token=a", "Origin: https://a.example:8443\r\n")] {
        let policy = Policy { origins: listed.clone(), ..JWT };
        assert_eq!(refused(&policy, query, headers), (403, "forbidden_origin"));
    }
}

#[test]
fn issue_6_what_is_formatted_of_a_request_holds_no_token() {
    let head =
        "GET /ws?token=SECRET&ticket=SECRET HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer SECRET\r\n\r\n";
    let (request, _) = parse_head(head.as_bytes(), &LIMITS).unwrap().unwrap();
    let opening = opened(&JWT, "token=SECRET", "").unwrap();
    let frame = envelope::parse(br#"{"type":"refresh","token":"SECRET"}"#).unwrap();
    let shown = format!("{request:?} {request:#?} {opening:?} {frame:?}");
    assert!(!shown.contains("SECRET"), "{shown}");
    assert!(shown.contains("Authorization"), "{shown}");
}

#[test]
fn issue_6_refresh_carries_a_token() {
    let frame = envelope::parse(br#"{"type":"refresh","token":"a.b.c","id":7}"#).unwrap();
    let ClientFrame::Refresh { token, id } = frame else { panic!("{frame:?}") };
    assert_eq!((token.reveal(), id.unwrap().get()), ("a.b.c", "7"));
    for bad in
        [r#"{"type":"refresh"}"#, r#"{"type":"refresh","token":7}"#, r#"{"type":"refresh","token":null}"#]
    {
        assert_eq!(envelope::parse(bad.as_bytes()).unwrap_err().code, "bad_request", "{bad}");
    }
}
