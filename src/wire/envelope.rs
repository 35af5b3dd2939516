//! The `corecast.v1` JSON subprotocol (contract section 2): frames in and out.
//!
//! Every encoder gives a whole WebSocket text frame, ready to send. What a client sent as `id` or `data`
//! is kept as its text, never parsed into values: it comes back, or goes on, exactly as it was sent.
//! Decides nothing about subscriptions or limits; `shard` does, and answers with these encoders.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::auth::Secret;
use crate::message::{BadPosition, ConnId, Kind, Message, Position, Topic};

/// The `id` of a client's frame, any JSON value, echoed exactly as sent.
pub type EchoId = Option<Box<RawValue>>;

/// What a client asks.
#[derive(Debug)]
pub enum ClientFrame {
    /// `subscribe`
    Subscribe {
        /// Without duplicates, each valid.
        topics: Vec<Topic>,
        /// Replay these topics from here.
        since: Option<Position>,
        /// Echoed.
        id: EchoId,
    },
    /// `unsubscribe`
    Unsubscribe {
        /// Without duplicates, each valid.
        topics: Vec<Topic>,
        /// Echoed.
        id: EchoId,
    },
    /// `uplink`
    Uplink {
        /// One JSON value, exactly as sent.
        data: Bytes,
        /// Where it names one.
        topic: Option<Topic>,
        /// Echoed in an error.
        id: EchoId,
    },
    /// `ping`
    Ping {
        /// Echoed.
        id: EchoId,
    },
    /// `refresh`
    Refresh {
        /// A new token of the same user.
        token: Secret,
        /// Echoed.
        id: EchoId,
    },
}

/// A frame that is answered with `error`; the connection stays open.
#[derive(Debug)]
pub struct FrameError {
    /// `bad_request` (not an object, a field of the wrong shape), `bad_type`, `bad_topic`, ...
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// Echoed where it could be read.
    pub id: EchoId,
}

/// A client's object with its values as text. A field that is there with `null` is `Some("null")`.
#[derive(Default, Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default, rename = "type", deserialize_with = "present")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    topics: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    topic: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    since: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    token: Option<&'a RawValue>,
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(value: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

/// What is wrong with a frame: code and message. The id joins it in `parse`.
type Wrong = (&'static str, String);

/// Parses one text message. Unknown fields are ignored; `null` in an optional field is as good as none.
///
/// Errors: `FrameError` with `bad_request` (not one JSON object, a field missing or of the wrong shape, no
/// topics), `bad_type` (missing or unknown), `bad_topic`. Its `id` is there where the object was JSON.
pub fn parse(text: &[u8]) -> Result<ClientFrame, FrameError> {
    // Without this, a JSON array of values would do for a struct's fields.
    let object = text.trim_ascii_start().starts_with(b"{");
    let fields = match serde_json::from_slice::<Fields<'_>>(text) {
        Ok(fields) if object => fields,
        Ok(_) => return Err(FrameError::bad_request("not a JSON object")),
        Err(error) => return Err(FrameError::bad_request(format!("not a JSON object: {error}"))),
    };
    let id: EchoId = fields.id.map(ToOwned::to_owned);
    let kind: Option<String> = fields.kind.and_then(|raw| serde_json::from_str(raw.get()).ok());
    let frame = match kind.as_deref() {
        Some("subscribe") => topics(&fields)
            .and_then(|topics| Ok(ClientFrame::Subscribe { topics, since: since(&fields)?, id: id.clone() })),
        Some("unsubscribe") => {
            topics(&fields).map(|topics| ClientFrame::Unsubscribe { topics, id: id.clone() })
        }
        Some("uplink") => uplink(&fields, &id),
        Some("ping") => Ok(ClientFrame::Ping { id: id.clone() }),
        Some("refresh") => refresh(&fields, &id),
        _ => Err(("bad_type", "type must be subscribe, unsubscribe, uplink, ping or refresh".to_owned())),
    };
    frame.map_err(|(code, message)| FrameError { code, message, id })
}

impl FrameError {
    fn bad_request(message: impl Into<String>) -> Self {
        Self { code: "bad_request", message: message.into(), id: None }
    }
}

fn uplink(fields: &Fields<'_>, id: &EchoId) -> Result<ClientFrame, Wrong> {
    let data = fields.data.ok_or_else(|| ("bad_request", "uplink needs data".to_owned()))?;
    let topic = optional_text(fields.topic, "topic")?;
    let topic = topic.map(|text| Topic::new(&text).map_err(|bad| ("bad_topic", format!("topic {bad}"))));
    let data = Bytes::copy_from_slice(data.get().as_bytes());
    Ok(ClientFrame::Uplink { data, topic: topic.transpose()?, id: id.clone() })
}

fn refresh(fields: &Fields<'_>, id: &EchoId) -> Result<ClientFrame, Wrong> {
    let token = optional_text(fields.token, "token")?;
    let token = token.ok_or_else(|| ("bad_request", "refresh needs token".to_owned()))?;
    Ok(ClientFrame::Refresh { token: Secret::new(token), id: id.clone() })
}

fn topics(fields: &Fields<'_>) -> Result<Vec<Topic>, Wrong> {
    let names: Option<Vec<String>> = fields.topics.and_then(|raw| serde_json::from_str(raw.get()).ok());
    let names = names.filter(|names| !names.is_empty());
    let names =
        names.ok_or_else(|| ("bad_request", "topics must be a list of at least one string".to_owned()))?;
    // A set, because one message has room for 16,000 names.
    let mut seen = HashSet::with_capacity(names.len());
    let mut topics = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let topic = Topic::new(name).map_err(|bad| ("bad_topic", format!("topics[{index}] {bad}")))?;
        if seen.insert(name) {
            topics.push(topic);
        }
    }
    Ok(topics)
}

fn since(fields: &Fields<'_>) -> Result<Option<Position>, Wrong> {
    let wrong = |bad: BadPosition| ("bad_request", format!("since {bad}"));
    optional_text(fields.since, "since")?.map(|text| text.parse().map_err(wrong)).transpose()
}

fn optional_text(field: Option<&RawValue>, name: &str) -> Result<Option<String>, Wrong> {
    let Some(raw) = field else { return Ok(None) };
    serde_json::from_str(raw.get()).map_err(|_| ("bad_request", format!("{name} must be a string")))
}

/// What the gateway says, except `message`: the contract's table, field by field.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum ServerFrame<'a> {
    Hello {
        connection: ConnId,
        epoch: String,
        position: Position,
        heartbeat: u16,
    },
    Resumed {
        replayed: u64,
        gap: bool,
    },
    Subscribed {
        topics: &'a [Topic],
        position: Position,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
    },
    Unsubscribed {
        topics: &'a [Topic],
        position: Position,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
    },
    Refreshed {
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_at: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
    },
    Reconnect {
        after_ms: u64,
        reason: &'a str,
    },
    Error {
        code: &'a str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
    },
}

impl ServerFrame<'_> {
    fn encode(&self) -> Bytes {
        let mut frame = TextFrame::with_capacity(160);
        push_json(&mut frame.0, self);
        frame.finish()
    }
}

/// A WebSocket text frame in the making: the JSON grows behind room for the longest header, so that the
/// header can go in front of it without a copy.
struct TextFrame(Vec<u8>);

/// A server's frame header: 2 octets and a 64-bit length (RFC 6455 5.2).
const HEADER_BYTES_MAX: usize = 10;

impl TextFrame {
    fn with_capacity(json_bytes: usize) -> Self {
        let mut octets = Vec::with_capacity(HEADER_BYTES_MAX + json_bytes);
        octets.resize(HEADER_BYTES_MAX, 0);
        Self(octets)
    }

    fn raw(&mut self, json: &[u8]) {
        self.0.extend_from_slice(json);
    }

    fn finish(mut self) -> Bytes {
        const FIN_TEXT: u8 = 0x81;
        let length = self.0.len() - HEADER_BYTES_MAX;
        let start = match length {
            0..=125 => {
                self.0[8..10].copy_from_slice(&[FIN_TEXT, length as u8]);
                8
            }
            126..=0xffff => {
                self.0[6..8].copy_from_slice(&[FIN_TEXT, 126]);
                self.0[8..10].copy_from_slice(&(length as u16).to_be_bytes());
                6
            }
            _ => {
                self.0[..2].copy_from_slice(&[FIN_TEXT, 127]);
                self.0[2..10].copy_from_slice(&(length as u64).to_be_bytes());
                0
            }
        };
        Bytes::from(self.0).slice(start..)
    }
}

/// `hello`
pub fn hello(connection: ConnId, position: Position, heartbeat_s: u16) -> Bytes {
    let epoch = format!("{:08x}", position.epoch);
    ServerFrame::Hello { connection, epoch, position, heartbeat: heartbeat_s }.encode()
}

fn push_json(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("names and numbers are JSON, and a Vec has room");
}

fn push_base64(out: &mut Vec<u8>, payload: &[u8]) {
    let at = out.len();
    let digits = base64::encoded_len(payload.len(), true).expect("a payload fits in memory in base64");
    out.resize(at + digits, 0);
    let written = STANDARD.encode_slice(payload, &mut out[at..]);
    assert_eq!(written, Ok(digits), "base64 has the length it says");
}

/// `message`: `data` is the payload as it stands (json), a string (text) or base64 with
/// `"encoding":"base64"` (binary).
pub fn message(message: &Message, epoch: u32) -> Bytes {
    let payload = message.payload();
    let payload_bytes = if message.kind == Kind::Binary { payload.len() / 3 * 4 + 4 } else { payload.len() };
    let topic_bytes = message.topic().map_or(0, |topic| topic.as_str().len());
    let mut frame = TextFrame::with_capacity(112 + topic_bytes + payload_bytes);
    frame.raw(br#"{"type":"message","#);
    push_message(&mut frame.0, message, None, epoch);
    frame.finish()
}

/// A message's fields as every JSON client gets them, and the end of the object; `event` where its name is
/// to be among them.
pub(super) fn push_message(out: &mut Vec<u8>, message: &Message, event: Option<&str>, epoch: u32) {
    let payload = message.payload();
    out.extend_from_slice(br#""position":"#);
    push_json(out, &format_args!("{}", Position { epoch, seq: message.seq }));
    if let Some(topic) = message.topic() {
        out.extend_from_slice(br#","topic":"#);
        push_json(out, &topic.as_str());
    }
    if let Some(event) = event {
        out.extend_from_slice(br#","event":"#);
        push_json(out, &event);
    }
    match message.kind {
        Kind::Json => {
            out.extend_from_slice(br#","data":"#);
            out.extend_from_slice(payload);
            out.push(b'}');
        }
        Kind::Text => {
            out.extend_from_slice(br#","data":"#);
            // Checked when the push was accepted; replacing is for our own mistake only.
            push_json(out, &String::from_utf8_lossy(payload));
            out.push(b'}');
        }
        Kind::Binary => {
            out.extend_from_slice(br#","encoding":"base64","data":""#);
            push_base64(out, payload);
            out.extend_from_slice(br#""}"#);
        }
    }
}

/// `resumed`
pub fn resumed(replayed: u64, gap: bool) -> Bytes {
    ServerFrame::Resumed { replayed, gap }.encode()
}

/// `subscribed`
pub fn subscribed(topics: &[Topic], position: Position, id: &EchoId) -> Bytes {
    ServerFrame::Subscribed { topics, position, id: id.as_deref() }.encode()
}

/// `unsubscribed`
pub fn unsubscribed(topics: &[Topic], position: Position, id: &EchoId) -> Bytes {
    ServerFrame::Unsubscribed { topics, position, id: id.as_deref() }.encode()
}

/// `pong`
pub fn pong(id: &EchoId) -> Bytes {
    ServerFrame::Pong { id: id.as_deref() }.encode()
}

/// `refreshed`: when the connection ends now, in milliseconds of Unix time, where it does.
pub fn refreshed(expires_at: Option<u64>, id: &EchoId) -> Bytes {
    ServerFrame::Refreshed { expires_at, id: id.as_deref() }.encode()
}

/// `reconnect`
pub fn reconnect(after_ms: u64, reason: &str) -> Bytes {
    ServerFrame::Reconnect { after_ms, reason }.encode()
}

/// `error`
pub fn error(code: &str, message: &str, id: &EchoId) -> Bytes {
    ServerFrame::Error { code, message, id: id.as_deref() }.encode()
}
