//! `/v1/events`: what happened to connections, one JSON line each.
//!
//! A reader that falls behind is told how many it missed and never slows anybody. Which events are
//! wanted at all is known to the shards by `Gate::events_wanted`, so that nobody pays for what
//! nobody reads; topics and users are looked at here (`Filter`).

use base64::Engine;
use serde::Serialize;
use serde_json::value::RawValue;

use super::command::{CommandError, ErrorCode, EventFilter};
use crate::auth::topics::Patterns;
use crate::message::{ConnId, Kind, Topic, UserId};
use crate::shard::mailbox::{Event, Happening, event_mask};

/// What one reader wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Of these kinds (`event_mask`).
    pub mask: u64,
    topics: Option<Patterns>,
    user: Option<UserId>,
}

impl Filter {
    /// All events of these kinds.
    pub fn kinds(mask: u64) -> Self {
        Self { mask, topics: None, user: None }
    }

    /// As asked. Errors: `bad_topic` for what is no list of patterns.
    pub fn new(filter: EventFilter) -> Result<Self, CommandError> {
        let EventFilter { mask, topics, user } = filter;
        let patterns = (!topics.is_empty()).then(|| Patterns::new(topics.iter().map(Topic::as_str)));
        let topics = patterns.transpose().map_err(|_| {
            let message = "not a list of topic patterns: * stands for a segment, or at the end for any rest";
            CommandError::new(ErrorCode::BadTopic, message)
        })?;
        Ok(Self { mask, topics, user })
    }

    /// Whether the reader wants `event`. With a pattern, events without a topic do not pass.
    pub fn passes(&self, event: &Event) -> bool {
        self.mask & bit(event) != 0
            && self.user.as_ref().is_none_or(|user| event.user.as_ref() == Some(user))
            && self.topics.as_ref().is_none_or(|patterns| topics(event).any(|topic| patterns.allow(topic)))
    }
}

/// What `event` names.
fn topics(event: &Event) -> impl Iterator<Item = &Topic> {
    let (one, some): (_, &[Topic]) = match &event.what {
        Happening::Connect { topics, .. }
        | Happening::Subscribe { topics, .. }
        | Happening::Unsubscribe { topics, .. } => (None, topics),
        Happening::Uplink { topic, .. } => (topic.as_ref(), &[]),
        Happening::Disconnect { .. } | Happening::Slow { .. } | Happening::Refused { .. } => (None, &[]),
    };
    one.into_iter().chain(some)
}

/// An event's bit among `event_mask`.
fn bit(event: &Event) -> u64 {
    match event.what {
        Happening::Connect { .. } => event_mask::CONNECT,
        Happening::Disconnect { .. } => event_mask::DISCONNECT,
        Happening::Uplink { .. } => event_mask::UPLINK,
        Happening::Subscribe { .. } => event_mask::SUBSCRIBE,
        Happening::Unsubscribe { .. } => event_mask::UNSUBSCRIBE,
        Happening::Slow { .. } => event_mask::SLOW,
        Happening::Refused { .. } => event_mask::REFUSED,
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Connect {
        connection: Option<ConnId>,
        user: Option<&'a UserId>,
        transport: &'a str,
        remote: &'a str,
        topics: &'a [Topic],
        at: u64,
    },
    Disconnect {
        connection: Option<ConnId>,
        user: Option<&'a UserId>,
        reason: &'a str,
        code: Option<u16>,
        at: u64,
    },
    Uplink {
        connection: Option<ConnId>,
        user: Option<&'a UserId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<&'a Topic>,
        kind: Kind,
        #[serde(skip_serializing_if = "Option::is_none")]
        encoding: Option<&'a str>,
        data: Data<'a>,
        at: u64,
    },
    Subscribe {
        connection: Option<ConnId>,
        user: Option<&'a UserId>,
        topics: &'a [Topic],
        by: &'a str,
        at: u64,
    },
    Unsubscribe {
        connection: Option<ConnId>,
        user: Option<&'a UserId>,
        topics: &'a [Topic],
        by: &'a str,
        at: u64,
    },
    Slow {
        connection: Option<ConnId>,
        user: Option<&'a UserId>,
        lag_bytes: u64,
        cut: bool,
        at: u64,
    },
    Refused {
        user: Option<&'a UserId>,
        status: Option<u16>,
        code: &'a str,
        remote: Option<&'a str>,
        count: u64,
        at: u64,
    },
    Dropped {
        count: u64,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Json(Box<RawValue>),
    Text(&'a str),
    Base64(String),
}

/// The event as its JSON line, without its end.
pub fn line(event: &Event) -> String {
    let (connection, user, at) = (event.connection, event.user.as_ref(), event.at_ms);
    encode(&match &event.what {
        Happening::Connect { transport, remote, topics } => {
            Line::Connect { connection, user, transport, remote, topics, at }
        }
        Happening::Disconnect { reason, code } => {
            Line::Disconnect { connection, user, reason: reason.name(), code: *code, at }
        }
        Happening::Uplink { topic, kind, data } => {
            let shown = data_of(*kind, data);
            let encoding = matches!(shown, Data::Base64(_)).then_some("base64");
            Line::Uplink { connection, user, topic: topic.as_ref(), kind: *kind, encoding, data: shown, at }
        }
        Happening::Subscribe { topics, by } => {
            Line::Subscribe { connection, user, topics, by: by.name(), at }
        }
        Happening::Unsubscribe { topics, by } => {
            Line::Unsubscribe { connection, user, topics, by: by.name(), at }
        }
        &Happening::Slow { lag_bytes, cut } => Line::Slow { connection, user, lag_bytes, cut, at },
        Happening::Refused { status, code, remote, count } => {
            let (status, remote, count) = (*status, remote.as_deref(), *count);
            Line::Refused { user, status, code, remote, count, at }
        }
    })
}

/// What a reader that fell behind is told: that `count` events were not written to it.
pub fn dropped_line(count: u64) -> String {
    encode(&Line::Dropped { count })
}

fn encode(line: &Line<'_>) -> String {
    serde_json::to_string(line).expect("our own types have string keys and encode")
}

/// A JSON payload as it stands, on one line: a line end in JSON is white space, never part of a string.
fn data_of(kind: Kind, data: &[u8]) -> Data<'_> {
    let text = std::str::from_utf8(data);
    match (kind, text) {
        (Kind::Json, Ok(text)) => match RawValue::from_string(text.replace(['\n', '\r'], " ")) {
            Ok(raw) => Data::Json(raw),
            Err(_) => Data::Text(text),
        },
        (Kind::Text, Ok(text)) => Data::Text(text),
        _ => Data::Base64(base64::engine::general_purpose::STANDARD.encode(data)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::shard::mailbox::Party;
    use crate::stats::CloseReason;

    fn event(what: Happening) -> Event {
        let connection = ConnId { shard: 1, index: 2, generation: 3 };
        Event { connection: Some(connection), user: Some(UserId::new("a").expect("valid")), at_ms: 5, what }
    }

    fn uplink(kind: Kind, data: &'static [u8]) -> serde_json::Value {
        let what = Happening::Uplink { topic: None, kind, data: Bytes::from_static(data) };
        serde_json::from_str(&line(&event(what))).expect("JSON")
    }

    #[test]
    fn contract_3_an_event_is_one_json_object() {
        let connect =
            Happening::Connect { transport: "ws", remote: "127.0.0.1:1".to_owned(), topics: Vec::new() };
        assert_eq!(
            line(&event(connect)),
            r#"{"type":"connect","connection":"1-2-3","user":"a","transport":"ws","remote":"127.0.0.1:1","topics":[],"at":5}"#
        );
        let disconnect = Happening::Disconnect { reason: CloseReason::PeerGone, code: None };
        assert_eq!(
            line(&event(disconnect)),
            r#"{"type":"disconnect","connection":"1-2-3","user":"a","reason":"peer_gone","code":null,"at":5}"#
        );
    }

    #[test]
    fn issue_7_changes_lag_and_refusals_are_one_json_object() {
        let topics = vec![Topic::new("t").expect("valid")];
        assert_eq!(
            line(&event(Happening::Subscribe { topics, by: Party::Control })),
            r#"{"type":"subscribe","connection":"1-2-3","user":"a","topics":["t"],"by":"control","at":5}"#
        );
        assert_eq!(
            line(&event(Happening::Slow { lag_bytes: 7, cut: true })),
            r#"{"type":"slow","connection":"1-2-3","user":"a","lag_bytes":7,"cut":true,"at":5}"#
        );
        let refused = Happening::Refused { status: Some(503), code: "overloaded", remote: None, count: 9 };
        assert_eq!(
            line(&Event { connection: None, user: None, at_ms: 5, what: refused }),
            r#"{"type":"refused","user":null,"status":503,"code":"overloaded","remote":null,"count":9,"at":5}"#
        );
    }

    #[test]
    fn contract_3_an_uplinks_data_is_shown_by_its_kind() {
        assert_eq!(uplink(Kind::Json, b"{\"x\":1}")["data"]["x"], 1);
        assert_eq!(uplink(Kind::Text, b"{\"x\":1}")["data"], "{\"x\":1}");
        let binary = uplink(Kind::Binary, &[0, 255]);
        assert_eq!((&binary["data"], &binary["encoding"]), (&"AP8=".into(), &"base64".into()));
    }

    #[test]
    fn an_event_stays_one_line_whatever_a_client_sends() {
        for data in [&b"{\n}"[..], b"1\r", b"{", b"\xff"] {
            let what = Happening::Uplink { topic: None, kind: Kind::Json, data: Bytes::from_static(data) };
            assert!(!line(&event(what)).contains(['\n', '\r']));
        }
    }
}
