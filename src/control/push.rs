//! From what a caller wrote to a `Push`, and whether a `Push` may be accepted.
//!
//! Pure. Both protocols end in `check`, so that a push is refused for the same reasons whichever way
//! it came. Next: `sequencer` for what becomes of an accepted one.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::command::{CommandError, ErrorCode, Push};
use crate::message::{Kind, Target, Topic, UserId};

/// Longest event name and idempotency key, in bytes: both are kept beside the message.
pub const LABEL_BYTES_MAX: usize = 256;

/// The standard alphabet, padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, CommandError> {
    Err(CommandError::new(code, message))
}

/// The body of `POST /v1/push`. Unknown fields are ignored.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(default)]
    to: Option<Value>,
    /// `Some` for `null`, too: that is a JSON value like any other.
    #[serde(default, borrow, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(default, borrow)]
    encoding: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    event: Option<String>,
    #[serde(default)]
    ttl_ms: Option<u64>,
    #[serde(default)]
    id: Option<String>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Parses one JSON push (contract section 3).
///
/// `data` is taken exactly as it was sent, unless its kind or encoding asks for the content of the
/// string that it is. Errors: `bad_request` (not such an object), `bad_target`, `bad_user`,
/// `bad_topic`, `bad_payload`. Limits are for `check`.
pub fn parse(json: &[u8]) -> Result<Push, CommandError> {
    // Serde would take a list for the fields in their order, too.
    if !is_object(json) {
        return refuse(ErrorCode::BadRequest, "not a push: a JSON object is due");
    }
    let body: Body<'_> = match serde_json::from_slice(json) {
        Ok(body) => body,
        Err(error) => return refuse(ErrorCode::BadRequest, format!("not a push: {error}")),
    };
    let target = parse_target(body.to.as_ref())?;
    let Some(data) = body.data else {
        return refuse(ErrorCode::BadPayload, "data is missing");
    };
    let kind = match body.kind.as_deref() {
        None => None,
        Some("json") => Some(Kind::Json),
        Some("text") => Some(Kind::Text),
        Some("binary") => Some(Kind::Binary),
        Some(_) => return refuse(ErrorCode::BadRequest, "kind must be json, text or binary"),
    };
    let (kind, payload) = match body.encoding.as_deref() {
        None => match kind.unwrap_or(Kind::Json) {
            Kind::Json => (Kind::Json, Bytes::copy_from_slice(data.get().as_bytes())),
            kind => (kind, Bytes::from(string(data, "unless kind is json")?.into_owned())),
        },
        Some("base64") => {
            let text = string(data, "when encoding is base64")?;
            match BASE64.decode(text.as_bytes()) {
                Ok(bytes) => (kind.unwrap_or(Kind::Binary), Bytes::from(bytes)),
                Err(error) => return refuse(ErrorCode::BadPayload, format!("data is not base64: {error}")),
            }
        }
        Some(_) => return refuse(ErrorCode::BadRequest, "encoding must be base64"),
    };
    Ok(Push { target, kind, payload, event: body.event, ttl_ms: body.ttl_ms, id: body.id })
}

fn string<'a>(data: &'a RawValue, when: &str) -> Result<Cow<'a, str>, CommandError> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    match serde_json::from_str::<Text<'a>>(data.get()) {
        Ok(Text(text)) => Ok(text),
        Err(_) => refuse(ErrorCode::BadPayload, format!("data must be a string {when}")),
    }
}

fn parse_target(to: Option<&Value>) -> Result<Target, CommandError> {
    let bad = |message: &str| refuse(ErrorCode::BadTarget, message);
    let one = || "to must name one of user, users, topic, connection, all";
    let Some(Value::Object(to)) = to else {
        return bad(one());
    };
    let (Some((key, value)), 1) = (to.iter().next(), to.len()) else {
        return bad(one());
    };
    match (key.as_str(), value) {
        ("user", value) => Ok(Target::User(user(value)?)),
        ("users", Value::Array(users)) => users.iter().map(user).collect::<Result<_, _>>().map(Target::Users),
        ("users", _) => bad("to.users must be a list of users"),
        ("topic", Value::String(text)) => topic(text).map(Target::Topic),
        ("topic", _) => refuse(ErrorCode::BadTopic, "to.topic must be a string"),
        ("connection", Value::String(text)) => match text.parse() {
            Ok(connection) => Ok(Target::Connection(connection)),
            Err(error) => bad(&format!("to.connection {error}")),
        },
        ("connection", _) => bad("to.connection must be a string"),
        ("all", Value::Bool(true)) => Ok(Target::All),
        ("all", _) => bad("to.all must be true"),
        _ => bad(one()),
    }
}

fn user(value: &Value) -> Result<UserId, CommandError> {
    match value {
        Value::String(text) => parse_user(text),
        _ => refuse(ErrorCode::BadUser, "a user must be a string"),
    }
}

/// A user id. Errors: `bad_user`.
pub fn parse_user(text: &str) -> Result<UserId, CommandError> {
    UserId::new(text).or_else(|error| refuse(ErrorCode::BadUser, format!("a user id {error}")))
}

/// A topic. Errors: `bad_topic`.
pub fn topic(text: &str) -> Result<Topic, CommandError> {
    Topic::new(text).or_else(|error| refuse(ErrorCode::BadTopic, format!("a topic {error}")))
}

/// The kind of a raw body by its `Content-Type`: `application/json` is json, `text/*` is text, else
/// (and without one) binary.
pub fn kind_of(content_type: &str) -> Kind {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/json") {
        Kind::Json
    } else if media.get(..5).is_some_and(|prefix| prefix.eq_ignore_ascii_case("text/")) {
        Kind::Text
    } else {
        Kind::Binary
    }
}

/// Whether a push may be accepted: payload as its kind says and at most `message_bytes_max`, labels
/// short and clean, somebody to send to.
///
/// Errors: `too_large`, `bad_payload`, `bad_target`, `bad_request`.
pub fn check(push: &Push, message_bytes_max: usize) -> Result<(), CommandError> {
    let bytes = push.payload.len();
    if bytes > message_bytes_max {
        let message = format!("the payload has {bytes} bytes, limits.message_bytes is {message_bytes_max}");
        return refuse(ErrorCode::TooLarge, message);
    }
    let text = || std::str::from_utf8(&push.payload);
    match push.kind {
        Kind::Binary => {}
        Kind::Text => {
            if text().is_err() {
                return refuse(ErrorCode::BadPayload, "a text payload must be UTF-8");
            }
        }
        Kind::Json => {
            let valid = text().is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
            if !valid {
                return refuse(ErrorCode::BadPayload, "a json payload must be one JSON value");
            }
        }
    }
    let unfit = |event: &String| event.len() > LABEL_BYTES_MAX || event.contains(['\r', '\n', '\0']);
    if push.event.as_ref().is_some_and(unfit) {
        let message = format!("an event name has at most {LABEL_BYTES_MAX} bytes, and no CR, LF or NUL");
        return refuse(ErrorCode::BadPayload, message);
    }
    if push.id.as_ref().is_some_and(|id| id.is_empty() || id.len() > LABEL_BYTES_MAX) {
        return refuse(ErrorCode::BadRequest, format!("an id has 1 to {LABEL_BYTES_MAX} bytes"));
    }
    if push.ttl_ms == Some(0) {
        return refuse(ErrorCode::BadRequest, "ttl_ms must be at least 1");
    }
    if matches!(&push.target, Target::Users(users) if users.is_empty()) {
        return refuse(ErrorCode::BadTarget, "to.users is empty");
    }
    Ok(())
}

/// The next line of an NDJSON body from `at`: the line without its end, and where the next begins.
/// `None` behind the last. A blank line is a line, for whoever counts.
pub fn next_line(body: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = body.get(at..).filter(|rest| !rest.is_empty())?;
    let (line, next) = match rest.iter().position(|&byte| byte == b'\n') {
        Some(end) => (&rest[..end], at + end + 1),
        None => (rest, body.len()),
    };
    Some((line.strip_suffix(b"\r").unwrap_or(line), next))
}

/// Whether JSON is an object, if it is JSON at all.
pub fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().first() == Some(&b'{')
}

/// Whether a line holds nothing.
pub fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(json: &str) -> ErrorCode {
        parse(json.as_bytes()).and_then(|push| check(&push, 64)).expect_err(json).code
    }

    fn parsed(json: &str) -> Push {
        let push = parse(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"));
        check(&push, 64).unwrap_or_else(|error| panic!("{json}: {error}"));
        push
    }

    #[test]
    fn contract_3_data_is_taken_exactly_as_sent() {
        let push = parsed(r#"{"data": {"b" : 1.0,"a":"\u00e9"} , "to":{"user":"u"}}"#);
        assert_eq!(&push.payload[..], r#"{"b" : 1.0,"a":"\u00e9"}"#.as_bytes());
        assert_eq!((push.kind, push.target), (Kind::Json, Target::User(UserId::new("u").expect("valid"))));
        assert_eq!(&parsed(r#"{"to":{"all":true},"data":null}"#).payload[..], b"null");
    }

    #[test]
    fn contract_3_text_is_the_strings_content_and_base64_is_decoded_first() {
        let push = parsed(r#"{"to":{"topic":"t"},"data":"a\n\u00e9","kind":"text"}"#);
        assert_eq!((push.kind, &push.payload[..]), (Kind::Text, "a\né".as_bytes()));
        let push = parsed(r#"{"to":{"topic":"t"},"data":"AAH/","encoding":"base64"}"#);
        assert_eq!((push.kind, &push.payload[..]), (Kind::Binary, &[0, 1, 255][..]));
        let push = parsed(r#"{"to":{"topic":"t"},"data":"eyJhIjoxfQ","encoding":"base64","kind":"json"}"#);
        assert_eq!((push.kind, &push.payload[..]), (Kind::Json, &br#"{"a":1}"#[..]));
    }

    #[test]
    fn contract_3_every_refusal_has_its_code() {
        use ErrorCode::*;
        for (json, expected) in [
            ("", BadRequest),
            ("[]", BadRequest),
            (r#"{"to":{"user":"a"},"data":1} x"#, BadRequest),
            (r#"{"to":{"user":"a"},"data":1,"kind":"xml"}"#, BadRequest),
            (r#"{"to":{"user":"a"},"data":"","encoding":"hex"}"#, BadRequest),
            (r#"{"to":{"user":"a"},"data":1,"ttl_ms":-1}"#, BadRequest),
            (r#"{"to":{"user":"a"},"data":1,"ttl_ms":0}"#, BadRequest),
            (r#"{"to":{"user":"a"},"data":1,"id":""}"#, BadRequest),
            (r#"{"data":1}"#, BadTarget),
            (r#"{"to":{},"data":1}"#, BadTarget),
            (r#"{"to":"a","data":1}"#, BadTarget),
            (r#"{"to":{"user":"a","topic":"t"},"data":1}"#, BadTarget),
            (r#"{"to":{"users":[]},"data":1}"#, BadTarget),
            (r#"{"to":{"all":false},"data":1}"#, BadTarget),
            (r#"{"to":{"connection":"1-2"},"data":1}"#, BadTarget),
            (r#"{"to":{"user":""},"data":1}"#, BadUser),
            (r#"{"to":{"users":["a","b c"]},"data":1}"#, BadUser),
            (r#"{"to":{"topic":"a,b"},"data":1}"#, BadTopic),
            (r#"{"to":{"user":"a"}}"#, BadPayload),
            (r#"{"to":{"user":"a"},"data":1,"kind":"text"}"#, BadPayload),
            (r#"{"to":{"user":"a"},"data":"?","encoding":"base64"}"#, BadPayload),
            (r#"{"to":{"user":"a"},"data":"/w==","encoding":"base64","kind":"text"}"#, BadPayload),
            (r#"{"to":{"user":"a"},"data":"ew==","encoding":"base64","kind":"json"}"#, BadPayload),
            (r#"{"to":{"user":"a"},"data":1,"event":"a\nb"}"#, BadPayload),
        ] {
            assert_eq!(code(json), expected, "{json}");
        }
    }

    #[test]
    fn contract_2_a_payload_at_the_limit_passes_and_one_byte_more_is_too_large() {
        let push = |bytes| Push {
            target: Target::All,
            kind: Kind::Binary,
            payload: Bytes::from(vec![0; bytes]),
            event: None,
            ttl_ms: None,
            id: None,
        };
        assert!(check(&push(64), 64).is_ok());
        assert_eq!(check(&push(65), 64).expect_err("over").code, ErrorCode::TooLarge);
    }

    #[test]
    fn contract_3_the_content_type_picks_the_kind() {
        assert_eq!(kind_of("application/json; charset=utf-8"), Kind::Json);
        assert_eq!(kind_of("Text/HTML"), Kind::Text);
        assert_eq!(kind_of("application/x-www-form-urlencoded"), Kind::Binary);
        assert_eq!(kind_of(""), Kind::Binary);
    }

    #[test]
    fn lines_end_with_lf_or_crlf_and_the_last_may_lack_its_end() {
        let body = b"a\r\n\nb";
        let mut lines = Vec::new();
        let mut at = 0;
        while let Some((line, next)) = next_line(body, at) {
            lines.push(line);
            at = next;
        }
        assert_eq!(lines, [&b"a"[..], b"", b"b"]);
        assert!(next_line(b"", 0).is_none());
    }
}
