//! The paths of contract section 3: an HTTP request to a command, an answer to JSON.
//!
//! Pure. The only place that knows a path; what a command does is the same over both protocols.

use serde::Deserialize;
use serde_json::json;

use super::command::{
    Answer, BatchAnswer, Command, CommandError, DrainProgress, ErrorCode, EventFilter, Push, Stats,
    TopicsPage,
};
use super::http::{self, Request};
use super::{chunked, log_levels, metrics, push, queries, tickets};
use crate::connections::{Session, SessionsEnd};
use crate::message::{ConnId, Kind, Target};
use crate::shard::mailbox::{Traced, event_mask};
use crate::wire::request::{self, percent_decode};

/// What a request comes to.
#[derive(Debug)]
pub enum Route {
    /// A command, and how its answer is shown.
    Command(Command, Shape),
    /// An NDJSON batch: its body.
    Lines(Vec<u8>),
    /// The dashboard's page, whole or its head alone. Of the admin listener only.
    Page {
        /// `HEAD`
        head_only: bool,
    },
}

/// How an answer is shown where the answer alone does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As it is.
    Plain,
    /// Presence of this user.
    User(String),
    /// One topic, not a list.
    OneTopic,
    /// Counters as Prometheus text, not JSON.
    Metrics,
}

/// A refusal: its answer.
type Refused = Box<http::Answer>;

fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, Refused> {
    Err(CommandError::new(code, message).into())
}

impl From<CommandError> for Refused {
    fn from(error: CommandError) -> Self {
        Box::new(http::Answer::refused(&error))
    }
}

/// Decides what `request` asks. Errors: the answer to give: 404, 405 (with `Allow`), or 400 for
/// arguments that make no sense.
pub fn route(request: Request) -> Result<Route, Refused> {
    let segments = segments(&request.path)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let Some(allow) = methods(&segments) else {
        return refuse(ErrorCode::NotFound, format!("no such path: {}", request.path));
    };
    if !allow.split(", ").any(|method| method == request.method) {
        let message = format!("{} is not for this path, {allow} is", request.method);
        let answer = http::Answer::refused(&CommandError::new(ErrorCode::MethodNotAllowed, message));
        return Err(Box::new(http::Answer { allow: Some(allow), ..answer }));
    }
    match (request.method.as_str(), &segments[..]) {
        ("POST", ["v1", "push"]) => push_body(request),
        ("POST", ["v1", "push", to @ ..]) => push_raw(to, &request),
        ("POST", ["v1", "tickets"]) => {
            Ok(Route::Command(Command::Ticket(tickets::parse(&request.body)?), Shape::Plain))
        }
        (method, ["v1", "log"]) => {
            Ok(Route::Command(Command::Log(log_levels::parse(method, &request.body)?), Shape::Plain))
        }
        ("POST", _) => drain(&request),
        (method, ["v1", "users", user, rest @ ..]) => of_user(method, user, rest, &request),
        (_, ["v1", "connections"]) => {
            Ok(Route::Command(Command::Connections(queries::connections(&request.query)?), Shape::Plain))
        }
        ("GET", ["v1", "connections", id]) => {
            Ok(Route::Command(Command::Connection(connection(id)?), Shape::Plain))
        }
        (_, ["v1", "sessions"]) => Ok(Route::Command(Command::Sessions, Shape::Plain)),
        (_, ["v1", "connections", id]) => {
            let connection = connection(id)?;
            let (code, reason) = close_arguments(&request)?;
            Ok(Route::Command(Command::KickConnection { connection, code, reason }, Shape::Plain))
        }
        (_, ["v1", "topics"]) => {
            Ok(Route::Command(Command::TopicsPage(queries::topics(&request.query)?), Shape::Plain))
        }
        (_, ["v1", "topics", topic]) => {
            Ok(Route::Command(Command::Topic(push::topic(topic)?), Shape::OneTopic))
        }
        (_, ["v1", "events"]) => Ok(Route::Command(Command::EventsWhere(filter(&request)?), Shape::Plain)),
        (_, ["v1", "trace"]) => Ok(Route::Command(Command::Trace(traced(&request)?), Shape::Plain)),
        (_, ["metrics"]) => Ok(Route::Command(Command::Stats, Shape::Metrics)),
        _ => Ok(Route::Command(stats(&request)?, Shape::Plain)),
    }
}

/// The methods of a path; `None` when there is no such path.
fn methods(segments: &[&str]) -> Option<&'static str> {
    match segments {
        ["v1", "push"] | ["v1", "push", "all"] | ["v1", "push", "user" | "topic", _] => Some("POST"),
        ["v1", "drain"] | ["v1", "tickets"] => Some("POST"),
        ["v1", "users", _] => Some("GET, DELETE"),
        ["v1", "log"] => Some("GET, POST, DELETE"),
        ["v1", "connections", _] => Some("GET, DELETE"),
        ["v1", "connections"] | ["v1", "sessions"] => Some("GET"),
        ["v1", "users", _, "topics", _] => Some("PUT, DELETE"),
        ["v1", "topics"] | ["v1", "topics", _] | ["v1", "stats"] | ["v1", "events"] | ["metrics"] => {
            Some("GET")
        }
        ["v1", "trace"] => Some("GET"),
        _ => None,
    }
}

/// The path's segments, each percent-decoded by itself, so that `%2F` belongs to a name.
fn segments(path: &str) -> Result<Vec<String>, Refused> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let decoded = path.split('/').map(percent_decode).collect::<Option<Vec<_>>>();
    decoded.map_or_else(|| refuse(ErrorCode::BadRequest, "the path has broken percent escapes"), Ok)
}

fn argument(request: &Request, key: &str) -> Result<Option<String>, Refused> {
    let query: &str = &request.query;
    let head = request::Request { method: "", path: "", query, http_1_1: true, headers: Vec::new() };
    head.query_value(key).map_err(|refusal| Box::new(http::Answer::from(&refusal)))
}

fn number<T: std::str::FromStr>(request: &Request, key: &str) -> Result<Option<T>, Refused> {
    let Some(text) = argument(request, key)? else { return Ok(None) };
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => refuse(ErrorCode::BadRequest, format!("{key} is not a number in range: {text:?}")),
    }
}

fn connection(text: &str) -> Result<ConnId, Refused> {
    text.parse().or_else(|error| refuse(ErrorCode::BadTarget, format!("a connection {error}")))
}

fn close_arguments(request: &Request) -> Result<(Option<u16>, Option<String>), Refused> {
    Ok((number(request, "code")?, argument(request, "reason")?))
}

fn of_user(method: &str, user: &str, rest: &[&str], request: &Request) -> Result<Route, Refused> {
    let name = push::parse_user(user)?;
    let (command, shape) = match (method, rest) {
        ("GET", _) => (Command::Presence(name), Shape::User(user.to_owned())),
        ("PUT", [_, topic]) => (Command::Bind { user: name, topic: push::topic(topic)? }, Shape::Plain),
        (_, [_, topic]) => (Command::Unbind { user: name, topic: push::topic(topic)? }, Shape::Plain),
        _ => {
            let (code, reason) = close_arguments(request)?;
            (Command::KickUser { user: name, code, reason }, Shape::Plain)
        }
    };
    Ok(Route::Command(command, shape))
}

fn push_body(request: Request) -> Result<Route, Refused> {
    let media = request.content_type.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case(http::NDJSON) {
        return Ok(Route::Lines(request.body));
    }
    Ok(Route::Command(Command::Push(push::parse(&request.body)?), Shape::Plain))
}

fn push_raw(to: &[&str], request: &Request) -> Result<Route, Refused> {
    let target = match to {
        ["user", user] => Target::User(push::parse_user(user)?),
        ["topic", topic] => Target::Topic(push::topic(topic)?),
        _ => Target::All,
    };
    let kind: Kind = push::kind_of(&request.content_type);
    let payload = bytes::Bytes::copy_from_slice(&request.body);
    let (event, id) = (argument(request, "event")?, argument(request, "id")?);
    let push = Push { target, kind, payload, event, ttl_ms: number(request, "ttl_ms")?, id };
    Ok(Route::Command(Command::Push(push), Shape::Plain))
}

fn drain(request: &Request) -> Result<Route, Refused> {
    #[derive(Default, Deserialize)]
    struct Body {
        within_ms: Option<u64>,
    }
    let body = if push::is_blank(&request.body) {
        Body::default()
    } else if !push::is_object(&request.body) {
        return refuse(ErrorCode::BadRequest, "not {\"within_ms\":number}");
    } else {
        serde_json::from_slice(&request.body).or_else(|error| {
            refuse(ErrorCode::BadRequest, format!("not {{\"within_ms\":number}}: {error}"))
        })?
    };
    Ok(Route::Command(Command::Drain { within_ms: body.within_ms }, Shape::Plain))
}

/// `types=`, `topic=` and `user=`.
fn filter(request: &Request) -> Result<EventFilter, Refused> {
    let topics = argument(request, "topic")?;
    let topics = topics.iter().flat_map(|topics| topics.split(',')).map(push::topic);
    Ok(EventFilter {
        mask: mask(argument(request, "types")?.as_deref())?,
        topics: topics.collect::<Result<_, _>>()?,
        user: argument(request, "user")?.map(|user| push::parse_user(&user)).transpose()?,
    })
}

/// `user=` or `connection=`.
fn traced(request: &Request) -> Result<Traced, Refused> {
    match (argument(request, "user")?, argument(request, "connection")?) {
        (Some(user), None) => Ok(Traced::User(push::parse_user(&user)?)),
        (None, Some(text)) => Ok(Traced::Connection(connection(&text)?)),
        _ => refuse(ErrorCode::BadTarget, "one of user= and connection= says who is traced"),
    }
}

/// `every=1s`: a stream of them; once without it.
fn stats(request: &Request) -> Result<Command, Refused> {
    let Some(every) = argument(request, "every")? else { return Ok(Command::Stats) };
    let every_ms =
        humantime::parse_duration(&every).ok().and_then(|every| u64::try_from(every.as_millis()).ok());
    every_ms.map(|every_ms| Command::StatsEvery { every_ms }).ok_or_else(|| {
        let message = format!("every is not a duration such as \"1s\" or \"500ms\": {every:?}");
        CommandError::new(ErrorCode::BadRequest, message).into()
    })
}

/// `connect,uplink` as bits; all of them without the argument.
fn mask(types: Option<&str>) -> Result<u64, Refused> {
    let all = event_mask::KINDS;
    let Some(types) = types else {
        return Ok(all.iter().map(|(_, bit)| bit).sum());
    };
    let mut mask = 0;
    for name in types.split(',').filter(|name| !name.is_empty()) {
        match all.iter().find(|(known, _)| *known == name) {
            Some((_, bit)) => mask |= bit,
            None => return refuse(ErrorCode::BadRequest, format!("no such event type: {name:?}")),
        }
    }
    if mask == 0 {
        return refuse(ErrorCode::BadRequest, "types names nothing");
    }
    Ok(mask)
}

/// An answer as it is shown over HTTP.
pub fn render(answer: &Answer, shape: &Shape) -> http::Answer {
    match (answer, shape) {
        (Answer::Stats(stats), Shape::Metrics) => metrics::text(stats),
        (Answer::Stats(stats), _) => http::Answer::json(&stats_json(stats)),
        (Answer::Presence(connections), Shape::User(user)) => {
            let online = !connections.is_empty();
            http::Answer::json(&json!({ "user": user, "online": online, "connections": connections }))
        }
        (Answer::Topics(topics), Shape::OneTopic) => match &topics[..] {
            [topic] => http::Answer::json(topic),
            _ => unreachable!("control asked for one topic"),
        },
        (Answer::Connections(listing), _) => http::Answer::json(listing),
        (answer, _) => http::Answer::json(&plain_json(answer)),
    }
}

fn plain_json(answer: &Answer) -> serde_json::Value {
    match answer {
        Answer::Pushed(pushed) => json!(pushed),
        Answer::Batch(batch) => batch_json(batch),
        Answer::Closed(closed) => json!({ "closed": closed }),
        Answer::Bound(connections) => json!({ "connections": connections }),
        Answer::Topics(topics) | Answer::TopicsPage(TopicsPage { topics, next: None }) => {
            json!({ "topics": topics })
        }
        Answer::TopicsPage(page) => json!(page),
        Answer::Presence(connections) => json!({ "connections": connections }),
        Answer::Stats(stats) => stats_json(stats),
        Answer::Event(line) | Answer::Step(line) => json!(line),
        Answer::Drain(progress) => json!(progress),
        Answer::Version(version) => json!({ "version": version }),
        Answer::Ticket(ticket) => json!(ticket),
        Answer::Log(log) => json!(log),
        Answer::Process { pid } => json!({ "pid": pid }),
        Answer::Connections(listing) => json!(listing),
        Answer::Connection(detail) => detail.to_json(),
        Answer::Sessions(sessions) => json!(sessions),
        Answer::SessionsEnd(end) => end.to_json(),
    }
}

/// Appends a piece of a dump: its lines in one chunk, behind them the end, where it is there.
pub fn session_lines(sessions: &[Session], end: Option<&SessionsEnd>, output: &mut Vec<u8>) {
    let mut lines = Vec::new();
    let mut line = |json: serde_json::Result<Vec<u8>>| {
        lines.extend(json.expect("our own types have string keys and encode"));
        lines.push(b'\n');
    };
    sessions.iter().for_each(|session| line(serde_json::to_vec(session)));
    end.into_iter().for_each(|end| line(serde_json::to_vec(&end.to_json())));
    if !lines.is_empty() {
        chunked::encode(&lines, output);
    }
}

fn batch_json(batch: &BatchAnswer) -> serde_json::Value {
    json!(batch)
}

/// One line of a drain's progress, without its end.
pub fn drain_line(progress: &DrainProgress) -> String {
    json!(progress).to_string()
}

/// The counters as `GET /v1/stats` shows them: control's own, `totals` over all shards, and each shard.
pub fn stats_json(stats: &Stats) -> serde_json::Value {
    let mut json = json!(stats);
    let shards: Vec<_> = stats.shards.iter().map(metrics::shard_json).collect();
    json["shards"] = shards.into();
    json["totals"] = metrics::totals_json(&stats.shards);
    json["requests"] = metrics::requests_json(&stats.requests);
    json
}
