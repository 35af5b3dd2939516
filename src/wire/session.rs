//! From a request head to what the client wants: one place that decides what is served and refused.
//!
//! Pure. Knows the client port's paths and methods, the WebSocket handshake (RFC 6455 4.2) and the answers as they
//! look on the wire; knows no limits of the gateway as a whole (`overloaded`, `draining`), which the
//! shard adds. `shard::opening` performs what is decided here; the head comes from `request`.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::close::Refusal;
use super::origin::{OriginId, Origins};
use super::request::Request;
use crate::auth::{Credential, Identity, Secret};
use crate::message::{BadName, BadPosition, Position, Topic, UserId};
use crate::stats::RefusalReason;

/// How an established client is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Transport {
    /// WebSocket, each push one frame holding exactly the payload.
    WebSocketRaw,
    /// WebSocket with the `corecast.v1` JSON subprotocol.
    WebSocketJson,
    /// `GET /echo`.
    WebSocketEcho,
    /// `GET /sse`.
    EventStream,
    /// `GET /poll`.
    LongPoll,
}

impl Transport {
    /// How many there are.
    pub const COUNT: usize = Self::LongPoll as usize + 1;
}

/// A client that may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// How to speak to it.
    pub transport: Transport,
    /// Who it is; `None` is anonymous, or not known before `credential` is checked.
    pub user: Option<UserId>,
    /// How it proves who it is, until that is checked (`shard::identity`).
    pub credential: Credential,
    /// What came of that.
    pub identity: Option<Arc<Identity>>,
    /// First subscriptions, without duplicates.
    pub topics: Vec<Topic>,
    /// Where to resume.
    pub since: Option<Position>,
    /// It asked to resume from what is no position: whatever it missed is a gap.
    pub lost: bool,
    /// Ping period in seconds, clamped to the configured bounds. A poll has none: how long it is held.
    pub heartbeat_s: u16,
    /// Which of `web.origins` it comes from, where it does.
    pub origin: Option<OriginId>,
    /// Whether the connection goes on after the answer (a poll's).
    pub keep_alive: bool,
    /// `Sec-WebSocket-Accept` (RFC 6455 4.2.2); zeros where it is no WebSocket.
    pub accept: [u8; 28],
}

/// What a client has to show (`auth.mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: `user=` is believed.
    Nothing,
    /// A JSON Web Token.
    Token,
    /// A ticket.
    Ticket,
}

/// What the configuration says about requests, as plain numbers.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What a client has to show.
    pub proof: Proof,
    /// Whether this connection has shown it before: in mode `ticket` a poll need not do it again.
    pub identified: bool,
    /// Whether a client without a user may connect.
    pub anonymous: bool,
    /// Period where the client asks for none, and the bounds, in seconds.
    pub heartbeat_s: u16,
    /// See `heartbeat_s`.
    pub heartbeat_min_s: u16,
    /// See `heartbeat_s`.
    pub heartbeat_max_s: u16,
    /// Most topics of one connection.
    pub topics_max: u32,
    /// Whose pages may connect.
    pub origins: Origins,
    /// Whether `GET /echo` is served on this listener.
    pub echo: bool,
    /// Whether `GET /` is the demo page.
    pub demo: bool,
}

/// What a request comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// A client.
    Open(Opening),
    /// `GET /healthz`: 200.
    Health,
    /// `GET /readyz`: 200, or 503 while the gateway drains.
    Ready,
    /// `GET /`: the demo page.
    Demo,
    /// `OPTIONS` of what a page may ask for: 204.
    Preflight(Option<OriginId>),
}

/// The WebSocket subprotocol with JSON frames (`envelope`).
const JSON_SUBPROTOCOL: &str = "corecast.v1";

/// Decides what `request` comes to. Errors: the refusal to send (contract section 2).
pub fn route(request: &Request<'_>, policy: &Policy) -> Result<Route, Refusal> {
    match request.path {
        "/sse" | "/poll" => {
            let origin = policy.origins.admit(request)?;
            // A page may read why it is refused.
            let readable = |refusal| Refusal { fields: policy.origins.refusal_fields(origin), ..refusal };
            route_page(request, policy, origin).map_err(readable)
        }
        "/healthz" | "/readyz" => {
            check_method(request, "GET, HEAD")?;
            Ok(if request.path == "/healthz" { Route::Health } else { Route::Ready })
        }
        "/" if policy.demo => {
            check_method(request, "GET, HEAD")?;
            Ok(Route::Demo)
        }
        path => {
            check_method(request, "GET")?;
            match path {
                "/ws" => open_push(request, policy).map(Route::Open),
                "/echo" if policy.echo => open_echo(request, policy).map(Route::Open),
                _ => Err(Refusal::new(RefusalReason::NotFound, "no such path")),
            }
        }
    }
}

/// Whether `input` is one whole request of a client, by its first and last octets alone: for who is refused
/// whatever else it says.
pub fn is_whole_opening(input: &[u8]) -> bool {
    const BEGINNINGS: [&[u8]; 4] = [b"GET /ws", b"GET /sse", b"GET /poll", b"GET /echo"];
    let begins = |beginning: &&[u8]| {
        let behind = input.strip_prefix(*beginning).and_then(<[u8]>::first);
        behind.is_some_and(|octet| b"? ".contains(octet))
    };
    input.ends_with(b"\r\n\r\n") && BEGINNINGS.iter().any(begins)
}

/// Whether this head may name the origin of a page.
pub fn names_origin(head: &[u8]) -> bool {
    const ORIGIN: &[u8] = b"\norigin:";
    head.windows(ORIGIN.len()).any(|octets| octets.eq_ignore_ascii_case(ORIGIN))
}

/// What pages of other origins may ask for, too.
fn route_page(request: &Request<'_>, policy: &Policy, origin: Option<OriginId>) -> Result<Route, Refusal> {
    check_method(request, "GET, OPTIONS")?;
    if request.method == "OPTIONS" {
        return Ok(Route::Preflight(origin));
    }
    let open = if request.path == "/sse" { open_stream } else { open_poll };
    open(request, policy, origin).map(Route::Open)
}

/// Errors: 405 for another method than those of `allow`, 400 for a request with a body.
fn check_method(request: &Request<'_>, allow: &'static str) -> Result<(), Refusal> {
    if !allow.split(", ").any(|method| method == request.method) {
        let refusal = Refusal::new(RefusalReason::MethodNotAllowed, format!("served here: {allow}"));
        return Err(Refusal { allow, ..refusal });
    }
    if request.content_length()?.is_some_and(|bytes| bytes > 0) || request.is_chunked()? {
        return Err(bad_request("a request with a body"));
    }
    Ok(())
}

fn bad_request(message: &'static str) -> Refusal {
    Refusal::new(RefusalReason::BadRequest, message)
}

fn open_push(request: &Request<'_>, policy: &Policy) -> Result<Opening, Refusal> {
    let origin = policy.origins.admit(request)?;
    let accept = handshake(request)?;
    let json =
        request.header_items("sec-websocket-protocol").any(|offer| offer == JSON_SUBPROTOCOL.as_bytes());
    let (user, credential) = who(request, policy)?;
    Ok(Opening {
        transport: if json { Transport::WebSocketJson } else { Transport::WebSocketRaw },
        user,
        credential,
        identity: None,
        topics: topics(request, policy)?,
        since: since(request)?,
        lost: false,
        heartbeat_s: heartbeat_s(request, policy)?,
        origin,
        keep_alive: false,
        accept,
    })
}

fn open_echo(request: &Request<'_>, policy: &Policy) -> Result<Opening, Refusal> {
    let origin = policy.origins.admit(request)?;
    Ok(Opening {
        transport: Transport::WebSocketEcho,
        user: None,
        credential: Credential::None,
        identity: None,
        topics: Vec::new(),
        since: None,
        lost: false,
        heartbeat_s: policy.heartbeat_s,
        origin,
        keep_alive: false,
        accept: handshake(request)?,
    })
}

fn open_stream(request: &Request<'_>, policy: &Policy, origin: Option<OriginId>) -> Result<Opening, Refusal> {
    let (since, lost) = last_event(request)?;
    let (user, credential) = who(request, policy)?;
    Ok(Opening {
        transport: Transport::EventStream,
        user,
        credential,
        identity: None,
        topics: topics(request, policy)?,
        since,
        lost,
        heartbeat_s: heartbeat_s(request, policy)?,
        origin,
        keep_alive: false,
        accept: [0; 28],
    })
}

/// How long a poll is held where it does not say, and the longest, in seconds (contract section 2).
const POLL_S: u16 = 25;
const POLL_S_MAX: u16 = 300;

fn open_poll(request: &Request<'_>, policy: &Policy, origin: Option<OriginId>) -> Result<Opening, Refusal> {
    // The same query as elsewhere, though nobody pings a poll.
    heartbeat_s(request, policy)?;
    let timeout_s = seconds(request, "timeout")?.unwrap_or(POLL_S);
    let (user, credential) = match policy.proof {
        Proof::Ticket if is_of_the_same(request, policy) && request.query_value("ticket")?.is_none() => {
            (None, Credential::Kept)
        }
        _ => who(request, policy)?,
    };
    Ok(Opening {
        transport: Transport::LongPoll,
        user,
        credential,
        identity: None,
        topics: topics(request, policy)?,
        since: since(request)?,
        lost: false,
        heartbeat_s: timeout_s.min(POLL_S_MAX),
        origin,
        keep_alive: request.http_1_1 && request.keep_alive(),
        accept: [0; 28],
    })
}

/// Where an event stream resumes, and whether what it named is no position: `Last-Event-ID`, else
/// `last_event_id=`, else `since=`.
///
/// A malformed event id is a gap and no error: an EventSource that is refused never comes back, and the id
/// may be of another server that stood here before (WHATWG HTML 9.2.3).
fn last_event(request: &Request<'_>) -> Result<(Option<Position>, bool), Refusal> {
    let header: Vec<&[u8]> = request.header_values("last-event-id").collect();
    let header = (!header.is_empty()).then(|| String::from_utf8_lossy(&header.concat()).into_owned());
    let query = request.query_value("last_event_id")?;
    // An empty one is what a client without an id may send.
    match header.into_iter().chain(query).find(|id| !id.is_empty()) {
        Some(id) => Ok(id.parse().map_or((None, true), |position| (Some(position), false))),
        None => Ok((since(request)?, false)),
    }
}

/// Checks the client's opening handshake and answers its key. Extensions offered are declined by silence.
///
/// Errors: 426 without an upgrade to `websocket` or for another version, 400 for the rest.
///
/// Source: RFC 6455 4.2.1, 4.2.2, 4.4; RFC 9110 7.8 (an Upgrade in HTTP/1.0 is none).
fn handshake(request: &Request<'_>) -> Result<[u8; 28], Refusal> {
    if !request.http_1_1 || !request.header_has_token("upgrade", "websocket") {
        let message = "WebSocket only: HTTP/1.1 with Upgrade: websocket";
        return Err(Refusal::new(RefusalReason::UpgradeRequired, message));
    }
    if !request.header_has_token("connection", "upgrade") {
        return Err(bad_request("Connection does not name the upgrade"));
    }
    if request.header("sec-websocket-version") != Some(b"13") {
        return Err(Refusal::new(RefusalReason::UpgradeRequired, "Sec-WebSocket-Version must be 13"));
    }
    let key = request.header("sec-websocket-key").filter(|key| is_nonce(key));
    key.map(accept_key).ok_or_else(|| bad_request("Sec-WebSocket-Key must be 16 bytes in base64, once"))
}

/// Whether `key` is 16 octets in base64 (RFC 6455 4.1). The last digit's unused bits may be anything
/// (RFC 4648 3.5 leaves that to us): some clients fill them at random.
fn is_nonce(key: &[u8]) -> bool {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let mut nonce = [0; 18];
    LENIENT.decode_slice(key, &mut nonce) == Ok(16)
}

/// `Sec-WebSocket-Accept` for a key, as sent (RFC 6455 4.2.2).
fn accept_key(key: &[u8]) -> [u8; 28] {
    let digest =
        Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    let mut accept = [0; 28];
    let written = STANDARD.encode_slice(digest, &mut accept);
    assert_eq!(written, Ok(28), "20 octets are 28 base64 digits");
    accept
}

/// Who it is, or how it proves that. Each auth mode looks at its own and ignores the others'.
fn who(request: &Request<'_>, policy: &Policy) -> Result<(Option<UserId>, Credential), Refusal> {
    Ok(match policy.proof {
        Proof::Nothing => (user(request, policy)?, Credential::None),
        Proof::Token => (None, Credential::Token(token(request)?)),
        Proof::Ticket => (None, Credential::Ticket(ticket(request)?)),
    })
}

/// The one token. Errors: 400 for two of them (RFC 6750 2), 401 for none.
fn token(request: &Request<'_>) -> Result<Secret, Refusal> {
    let in_query = request.query_value("token")?.map(Secret::new);
    match (in_query, request.bearer()?) {
        (Some(_), Some(_)) => Err(bad_request("a token both in the query and in Authorization")),
        (Some(token), None) | (None, Some(token)) => Ok(token),
        (None, None) => {
            let message =
                "no token: give token= in the query or Authorization: Bearer; user= is not believed";
            Err(Refusal::new(RefusalReason::Unauthorized, message))
        }
    }
}

/// Errors: 401 for none.
fn ticket(request: &Request<'_>) -> Result<Secret, Refusal> {
    let ticket = request.query_value("ticket")?.map(Secret::new);
    let message = "no ticket: give ticket= in the query, each once; user= is not believed";
    ticket.ok_or_else(|| Refusal::new(RefusalReason::Unauthorized, message))
}

/// Whether the request comes from whom the connection has identified. A proxy may send the requests of
/// several clients over one connection, and says so in one of these (RFC 7239 4, RFC 9110 7.6.3).
fn is_of_the_same(request: &Request<'_>, policy: &Policy) -> bool {
    let by_proxy = ["forwarded", "x-forwarded-for", "via"];
    policy.identified && by_proxy.iter().all(|name| request.header_values(name).next().is_none())
}

/// Auth mode `open`: the user is whom the query names; a token is not looked at.
fn user(request: &Request<'_>, policy: &Policy) -> Result<Option<UserId>, Refusal> {
    match request.query_value("user")? {
        Some(text) => {
            UserId::new(&text).map(Some).map_err(|bad| bad_name(RefusalReason::BadUser, "user", bad))
        }
        None if policy.anonymous => Ok(None),
        None => Err(Refusal::new(
            RefusalReason::Unauthorized,
            "no user given, and anonymous clients are not served",
        )),
    }
}

/// The user that a request of a client names, where its word is taken for it (auth mode `open`): for those that are
/// refused before they are looked at further.
pub fn named_user(request: &Request<'_>, policy: &Policy) -> Option<UserId> {
    let is_client = matches!(request.path, "/ws" | "/sse" | "/poll");
    if is_client && policy.proof == Proof::Nothing { user(request, policy).ok().flatten() } else { None }
}

fn topics(request: &Request<'_>, policy: &Policy) -> Result<Vec<Topic>, Refusal> {
    let mut topics = Vec::new();
    let Some(list) = request.query_value("topics")? else { return Ok(topics) };
    for item in list.split(',') {
        let topic =
            Topic::new(item).map_err(|bad| bad_name(RefusalReason::BadTopic, "each of topics", bad))?;
        if topics.contains(&topic) {
            continue;
        }
        if topics.len() == policy.topics_max as usize {
            let message = format!("more than {} topics", policy.topics_max);
            return Err(Refusal::new(RefusalReason::BadRequest, message));
        }
        topics.push(topic);
    }
    Ok(topics)
}

fn bad_name(reason: RefusalReason, what: &str, bad: BadName) -> Refusal {
    Refusal::new(reason, format!("{what} {bad}"))
}

fn since(request: &Request<'_>) -> Result<Option<Position>, Refusal> {
    let parse = |text: String| {
        text.parse()
            .map_err(|bad: BadPosition| Refusal::new(RefusalReason::BadRequest, format!("since {bad}")))
    };
    request.query_value("since")?.map(parse).transpose()
}

fn heartbeat_s(request: &Request<'_>, policy: &Policy) -> Result<u16, Refusal> {
    let Some(asked_s) = seconds(request, "heartbeat")? else { return Ok(policy.heartbeat_s) };
    Ok(asked_s.max(policy.heartbeat_min_s).min(policy.heartbeat_max_s))
}

fn seconds(request: &Request<'_>, key: &str) -> Result<Option<u16>, Refusal> {
    let Some(text) = request.query_value(key)? else { return Ok(None) };
    if text.is_empty() || !text.bytes().all(|octet| octet.is_ascii_digit()) {
        let message = format!("{key} must be a whole number of seconds");
        return Err(Refusal::new(RefusalReason::BadRequest, message));
    }
    // Digits that overflow are a long time; the bound is the answer to that.
    Ok(Some(text.parse().unwrap_or(u16::MAX)))
}

impl Opening {
    /// The 101 response to a WebSocket, whole (RFC 6455 4.2.2).
    pub fn response(&self) -> Bytes {
        let mut out = Vec::with_capacity(176);
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        );
        out.extend_from_slice(b"Sec-WebSocket-Accept: ");
        out.extend_from_slice(&self.accept);
        if self.transport == Transport::WebSocketJson {
            out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
            out.extend_from_slice(JSON_SUBPROTOCOL.as_bytes());
        }
        out.extend_from_slice(b"\r\n\r\n");
        out.into()
    }
}

/// A refusal as a whole HTTP response with `Connection: close` and the JSON error object.
///
/// With what the status calls for: `Allow` (405), `Upgrade` and `Sec-WebSocket-Version` (426),
/// `WWW-Authenticate` (401), and `Retry-After` where the refusal says one (RFC 9110 15.5, RFC 6455 4.4).
pub fn refusal_response(refusal: &Refusal) -> Bytes {
    let error = serde_json::json!({"error": {"code": refusal.code, "message": refusal.message}});
    let mut fields = match refusal.status {
        401 => "Connection: close\r\nWWW-Authenticate: Bearer\r\n",
        // RFC 9110 7.8: who sends Upgrade names it in Connection.
        426 => "Connection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        _ => "Connection: close\r\n",
    }
    .to_owned();
    if refusal.status == 405 {
        fields.push_str(&format!("Allow: {}\r\n", refusal.allow));
    }
    if let Some(seconds) = refusal.retry_after_s {
        fields.push_str(&format!("Retry-After: {seconds}\r\n"));
    }
    fields.push_str(&refusal.fields);
    response(refusal.status, &fields, "application/json", &error.to_string())
}

/// The answer to a preflight, whole; `fields` are those of `Origins::preflight_fields`.
pub fn preflight_response(fields: &str) -> Bytes {
    format!("HTTP/1.1 204 No Content\r\nConnection: close\r\nAllow: GET, OPTIONS\r\n{fields}\r\n").into()
}

/// A response without its body, as HEAD gets it (RFC 9110 9.3.2).
pub fn head_of(response: &Bytes) -> Bytes {
    let blank_line = response.windows(4).position(|octets| octets == b"\r\n\r\n");
    response.slice(..blank_line.expect("a response of ours has a blank line") + 4)
}

/// A short answer (`healthz`, `readyz`) as a whole HTTP response with `Connection: close`.
pub fn plain_response(status: u16, body: &str) -> Bytes {
    response(status, "Connection: close\r\n", "text/plain; charset=utf-8", body)
}

/// `fields` are header lines, each with its CR LF.
fn response(status: u16, fields: &str, content_type: &str, body: &str) -> Bytes {
    let (reason, length) = (reason_phrase(status), body.len());
    let head = format!("HTTP/1.1 {status} {reason}\r\n{fields}Content-Type: {content_type}\r\n");
    format!("{head}Content-Length: {length}\r\n\r\n{body}").into()
}

/// RFC 9110 15; empty for a status that we do not send, which the grammar allows.
fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "",
    }
}
