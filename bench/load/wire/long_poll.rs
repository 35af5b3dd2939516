//! What a held HTTP request was answered with: Corecast's `{"next":…,"messages":[…]}` or somebody else's.
//!
//! Ours is taken apart where it lies, its messages undecoded. A body that is not ours is one message, unless
//! it is empty.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Where the position to ask from next stands, as a JSON pointer (RFC 6901), unless told otherwise.
pub const NEXT_POINTER: &str = "/next";

/// A decoded body.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The position to ask from next; a number as it is written.
    pub next: Option<Cow<'a, str>>,
    messages: Messages<'a>,
}

#[derive(Debug)]
enum Messages<'a> {
    Ours(Vec<&'a RawValue>),
    Whole(&'a [u8]),
}

/// Our body. Other fields are passed over.
#[derive(Deserialize)]
struct Ours<'a> {
    #[serde(borrow)]
    next: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

impl Answer<'_> {
    /// How many messages there are.
    pub fn count(&self) -> usize {
        self.messages().count()
    }

    /// Each message as it stands in the body: JSON where the body is ours, else the body.
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let (ours, whole) = match &self.messages {
            Messages::Ours(messages) => (&messages[..], None),
            Messages::Whole(body) => (&[][..], Some(*body).filter(|body| !body.is_empty())),
        };
        ours.iter().map(|message| message.get().as_bytes()).chain(whole)
    }
}

/// Decodes a whole body. `next_pointer` says where `next` stands; empty is nowhere.
pub fn decode<'a>(body: &'a [u8], next_pointer: &str) -> Answer<'a> {
    let body = body.trim_ascii();
    let ours: Option<Ours<'a>> = serde_json::from_slice(body).ok();
    let next = match &ours {
        Some(ours) if next_pointer == NEXT_POINTER => ours.next.and_then(text),
        _ => pointed(body, next_pointer),
    };
    let messages = ours.map_or(Messages::Whole(body), |ours| Messages::Ours(ours.messages));
    Answer { next, messages }
}

/// A string's content, a number's digits.
fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let json = value.get();
    match json.as_bytes()[0] {
        b'"' if !json.contains('\\') => Some(Cow::Borrowed(&json[1..json.len() - 1])),
        b'"' => serde_json::from_str(json).ok(),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(json)),
        _ => None,
    }
}

fn pointed<'a>(body: &'a [u8], pointer: &str) -> Option<Cow<'a, str>> {
    if pointer.is_empty() {
        return None;
    }
    let value: Value = serde_json::from_slice(body).ok()?;
    match value.pointer(pointer)? {
        Value::String(text) => Some(Cow::Owned(text.clone())),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}
