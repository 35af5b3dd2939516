//! Making tickets (`auth.mode = "ticket"`): what is asked, checked, and put where all shards find it.

use std::ops::DerefMut;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer};

use super::command::{Answer, CommandError, ErrorCode, TicketAnswer, TicketRequest};
use super::push::{is_object, parse_user, topic};
use crate::auth::tickets::{TTL_MAX, TicketId, text};
use crate::auth::{Identity, Patterns, Secret, Ticket, Tickets};
use crate::config::{Auth, AuthMode};

fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, CommandError> {
    Err(CommandError::new(code, message))
}

/// The body of `POST /v1/tickets`. Unknown fields are refused, and so is `null`: a restriction that is mistyped
/// must not be none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    user: String,
    #[serde(default, deserialize_with = "given")]
    topics: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    ttl_ms: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    connection_ttl_ms: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    max_connections: Option<u32>,
    #[serde(default)]
    single: bool,
}

fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// Parses one request for a ticket. Errors: `bad_request`, `bad_user`, `bad_topic`.
pub fn parse(json: &[u8]) -> Result<TicketRequest, CommandError> {
    if !is_object(json) {
        return refuse(ErrorCode::BadRequest, "a JSON object is due, such as {\"user\":\"alice\"}");
    }
    let body: Body = serde_json::from_slice(json)
        .or_else(|error| refuse(ErrorCode::BadRequest, format!("not a request for a ticket: {error}")))?;
    let Body { user, topics, ttl_ms, connection_ttl_ms, max_connections, single } = body;
    let topics = topics.map(|texts| texts.iter().map(|text| topic(text)).collect()).transpose()?;
    Ok(TicketRequest { user: parse_user(&user)?, topics, ttl_ms, connection_ttl_ms, max_connections, single })
}

/// Makes a ticket. Errors: `bad_request` (another auth mode, a time out of bounds), `bad_topic` (no pattern),
/// `busy` (`auth.tickets` wait already).
pub fn issue(
    request: TicketRequest,
    auth: &Auth,
    mut tickets: impl DerefMut<Target = Tickets>,
    now: Instant,
) -> Result<Answer, CommandError> {
    if auth.mode() != AuthMode::Ticket {
        return refuse(ErrorCode::BadRequest, "auth.mode is not ticket: no client could use one");
    }
    let ttl = request.ttl_ms.map_or(auth.ticket_ttl, Duration::from_millis);
    if ttl.is_zero() || ttl > TTL_MAX {
        let most = TTL_MAX.as_millis();
        return refuse(ErrorCode::BadRequest, format!("ttl_ms must be 1 to {most}"));
    }
    if request.connection_ttl_ms == Some(0) {
        return refuse(ErrorCode::BadRequest, "connection_ttl_ms must be at least 1");
    }
    let patterns = request.topics.map(|topics| Patterns::new(topics.iter().map(|topic| topic.as_str())));
    let Ok(topics) = patterns.transpose() else {
        let message = "topics must be patterns: * stands for one whole segment, or at the end";
        return refuse(ErrorCode::BadTopic, message);
    };
    let ticket = Ticket {
        identity: Identity {
            user: Some(request.user),
            expires_unix_ms: None,
            topics,
            connections_max: request.max_connections,
            single: request.single,
        },
        connection_ttl: request.connection_ttl_ms.map(Duration::from_millis),
    };
    let id = random();
    if tickets.issue(id, ticket, now + ttl, now, auth.tickets as usize).is_err() {
        let message = format!("{} tickets wait to be used (auth.tickets)", auth.tickets);
        return refuse(ErrorCode::Busy, message);
    }
    let expires_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + ttl;
    let expires_at = expires_at.as_millis() as u64;
    Ok(Answer::Ticket(TicketAnswer { ticket: Secret::new(text(&id)), expires_at }))
}

fn random() -> TicketId {
    let mut id = TicketId::default();
    let filled = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty());
    // getrandom(2): up to 256 bytes come whole, once the kernel has had its first entropy.
    assert_eq!(filled, Ok(id.len()), "the kernel gives random octets");
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(tickets: u32) -> Auth {
        Auth { mode: Some(AuthMode::Ticket), tickets, ..Auth::default() }
    }

    fn asked(json: &str, auth: &Auth, tickets: &mut Tickets) -> Result<Answer, ErrorCode> {
        let request = parse(json.as_bytes()).map_err(|refused| refused.code)?;
        issue(request, auth, tickets, Instant::now()).map_err(|refused| refused.code)
    }

    #[test]
    fn issue_6_a_request_that_is_mistyped_makes_no_ticket() {
        let mut tickets = Tickets::default();
        for (json, code) in [
            ("", ErrorCode::BadRequest),
            ("[\"a\"]", ErrorCode::BadRequest),
            ("{}", ErrorCode::BadRequest),
            (r#"{"user":null}"#, ErrorCode::BadRequest),
            (r#"{"user":"a b"}"#, ErrorCode::BadUser),
            (r#"{"user":"a","topic":["t"]}"#, ErrorCode::BadRequest),
            (r#"{"user":"a","topics":null}"#, ErrorCode::BadRequest),
            (r#"{"user":"a","topics":["a b"]}"#, ErrorCode::BadTopic),
            (r#"{"user":"a","topics":["a*b"]}"#, ErrorCode::BadTopic),
            (r#"{"user":"a","ttl_ms":0}"#, ErrorCode::BadRequest),
            (r#"{"user":"a","ttl_ms":3600001}"#, ErrorCode::BadRequest),
            (r#"{"user":"a","connection_ttl_ms":0}"#, ErrorCode::BadRequest),
            (r#"{"user":"a","max_connections":-1}"#, ErrorCode::BadRequest),
        ] {
            assert_eq!(asked(json, &auth(9), &mut tickets).err(), Some(code), "{json}");
        }
        let open = Auth::default();
        assert_eq!(asked(r#"{"user":"a"}"#, &open, &mut tickets).err(), Some(ErrorCode::BadRequest));
        assert!(tickets.is_empty());
    }

    #[test]
    fn issue_6_no_two_tickets_are_alike_and_one_too_many_is_busy() {
        let (mut tickets, auth) = (Tickets::default(), auth(2));
        let mut made = || asked(r#"{"user":"a","ttl_ms":3600000}"#, &auth, &mut tickets);
        let (Ok(Answer::Ticket(one)), Ok(Answer::Ticket(two))) = (made(), made()) else { panic!("two") };
        assert_ne!(one.ticket.reveal(), two.ticket.reveal());
        assert_eq!(made().err(), Some(ErrorCode::Busy));
    }
}
