//! `corecast.v1` (contract section 2): what a client's text is taken for, against `serde_json`'s own reading of
//! it; and that what goes back is one whole frame of JSON with the id exactly as it was sent.
//!
//! The input is one client frame to its first LF, and messages behind it.

use std::collections::BTreeMap;

use corecast::message::Position;
use corecast::wire::envelope::{self, ClientFrame, EchoId};
use serde_json::value::RawValue;

use super::draw::Draw;
use super::long_poll::{Item, is_message};

type Object<'a> = BTreeMap<String, &'a RawValue>;

const AT: Position = Position { epoch: 0xa1, seq: 9 };

/// See the top of this file.
pub fn check(input: &[u8]) {
    let mut draw = Draw(input);
    // What is not UTF-8 never comes so far: the decoder refuses it with 1007.
    if let Ok(text) = std::str::from_utf8(draw.line()) {
        client_frame(text.as_bytes());
    }
    for seq in 1.. {
        if draw.is_over() {
            break;
        }
        let Some(message) = draw.message(seq) else { continue };
        let frame = envelope::message(&message, AT.epoch);
        let object = object(&frame);
        assert_eq!(object["type"].get(), r#""message""#);
        let item: Item<'_> = serde_json::from_slice(json(&frame)).expect("JSON");
        is_message(&item, &message);
    }
}

fn client_frame(text: &[u8]) {
    let theirs = serde_json::from_slice::<Object<'_>>(text);
    let (kind, id) = match envelope::parse(text) {
        Err(error) => {
            let frame = object_with_id(&envelope::error(error.code, &error.message, &error.id), &error.id);
            assert_eq!(frame, "error");
            assert!(matches!(error.code, "bad_request" | "bad_type" | "bad_topic"));
            return;
        }
        Ok(ClientFrame::Subscribe { topics, id, .. }) => {
            assert!(!topics.is_empty());
            assert_eq!(object_with_id(&envelope::subscribed(&topics, AT, &id), &id), "subscribed");
            ("subscribe", id)
        }
        Ok(ClientFrame::Unsubscribe { topics, id }) => {
            assert!(!topics.is_empty());
            assert_eq!(object_with_id(&envelope::unsubscribed(&topics, AT, &id), &id), "unsubscribed");
            ("unsubscribe", id)
        }
        Ok(ClientFrame::Uplink { data, id, .. }) => {
            assert_eq!(data, theirs.as_ref().expect("an object")["data"].get());
            ("uplink", id)
        }
        Ok(ClientFrame::Ping { id }) => {
            assert_eq!(object_with_id(&envelope::pong(&id), &id), "pong");
            ("ping", id)
        }
        Ok(ClientFrame::Refresh { id, .. }) => {
            assert_eq!(object_with_id(&envelope::refreshed(Some(1), &id), &id), "refreshed");
            ("refresh", id)
        }
    };
    let theirs = theirs.expect("an object");
    assert_eq!(serde_json::from_str::<String>(theirs["type"].get()).expect("a string"), kind);
    assert_eq!(id.as_ref().map(|id| id.get()), theirs.get("id").map(|id| id.get()));
}

/// The `type` of `frame`, whose id is `id`.
fn object_with_id(frame: &[u8], id: &EchoId) -> String {
    let object = object(frame);
    assert_eq!(object.get("id").map(|id| id.get()), id.as_ref().map(|id| id.get()));
    serde_json::from_str(object["type"].get()).expect("a string")
}

fn object(frame: &[u8]) -> Object<'_> {
    serde_json::from_slice(json(frame)).expect("a JSON object")
}

/// The payload of one whole, unmasked text frame.
fn json(frame: &[u8]) -> &[u8] {
    let (length, payload) = match frame {
        [0x81, 126, high, low, payload @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), payload),
        [0x81, length @ 0..=125, payload @ ..] => (usize::from(*length), payload),
        _ => panic!("no text frame of at most 64 KiB: {frame:?}"),
    };
    assert_eq!(payload.len(), length);
    payload
}
