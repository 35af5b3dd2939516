//! The words everybody shares: users, topics, positions, pushes and the message made from one.
//!
//! Everything here is parsed once, at the edge, and trusted afterwards (Rule 9). The bottom layer:
//! imports nothing of ours, does no I/O. Next: `wire` for how a message looks to a client,
//! `shard::tape` for where it waits.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Serde by text: written as it displays, parsed straight from the borrowed text. Never through an
/// owned `String`, for which bincode would allocate whatever length a peer claims.
macro_rules! serde_by_text {
    ($type:ty, $shape:literal) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($shape)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

pub(crate) use serde_by_text;

serde_by_text!(Name, "a user id or topic");
serde_by_text!(Position, "a position");
serde_by_text!(ConnId, "a connection id");

/// Serde without believing a length: bincode allocates an owned `String` or buffer by the length that a
/// peer claims, before it looks whether so many bytes are there. Borrowed ones it checks first.
pub(crate) mod borrowed {
    use std::fmt;

    use bytes::Bytes;
    use serde::de::{Error, Visitor};
    use serde::{Deserialize, Deserializer};

    pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = String;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
                Ok(text.to_owned())
            }
        }
        deserializer.deserialize_str(Text)
    }

    pub(crate) fn optional_text<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<String>, D::Error> {
        #[derive(Deserialize)]
        struct Owned(#[serde(deserialize_with = "text")] String);
        Ok(Option::<Owned>::deserialize(deserializer)?.map(|Owned(text)| text))
    }

    pub(crate) fn payload<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Bytes::copy_from_slice)
    }
}

/// Longest user id or topic name, in bytes (contract section 1).
pub const NAME_BYTES_MAX: usize = 128;

/// A user id or a topic name: 1 to 128 bytes of UTF-8 without control characters, spaces or commas.
///
/// Cheap to clone; the text is shared.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// A user's id, as authenticated.
pub type UserId = Name;
/// A topic that connections subscribe to.
pub type Topic = Name;

/// The text is not a user id or topic: empty, too long, or with a control character, space or comma.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadName;

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "must be 1 to {NAME_BYTES_MAX} bytes of UTF-8 without control characters, spaces or commas")
    }
}

impl std::error::Error for BadName {}

impl Name {
    /// Checks `text` and copies it. Errors: `BadName`.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let refused = |c: char| c.is_control() || c.is_whitespace() || c == ',';
        if text.is_empty() || text.len() > NAME_BYTES_MAX || text.chars().any(refused) {
            return Err(BadName);
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

/// Where a message stands in the gateway's one sequence, written `<epoch>-<seq>`: 8 lower-case hex
/// digits chosen at start, then a decimal u64 from 1 up. `seq` 0 is the place before the first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Tells one run of the gateway from another.
    pub epoch: u32,
    /// Ascends by one for every accepted push.
    pub seq: u64,
}

/// The text is not a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPosition;

impl fmt::Display for BadPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be <epoch>-<seq>: 8 lower-case hex digits, a dash, a decimal number")
    }
}

impl std::error::Error for BadPosition {}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.epoch, self.seq)
    }
}

impl FromStr for Position {
    type Err = BadPosition;
    fn from_str(text: &str) -> Result<Self, BadPosition> {
        let (epoch, seq) = text.split_once('-').ok_or(BadPosition)?;
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if epoch.len() != 8 || !epoch.bytes().all(hex) || !seq.bytes().all(|b| b.is_ascii_digit()) {
            return Err(BadPosition);
        }
        let epoch = u32::from_str_radix(epoch, 16).map_err(|_| BadPosition)?;
        Ok(Self { epoch, seq: seq.parse().map_err(|_| BadPosition)? })
    }
}

impl TryFrom<String> for Position {
    type Error = BadPosition;
    fn try_from(text: String) -> Result<Self, BadPosition> {
        text.parse()
    }
}

impl From<Position> for String {
    fn from(position: Position) -> Self {
        position.to_string()
    }
}

/// Names one connection: shard, slot, and the slot's generation, so that a stale id finds nobody
/// (Rule 7). Written `1-1841-7`; ordered by these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// The shard that owns the connection.
    pub shard: u16,
    /// The slot in that shard's table.
    pub index: u32,
    /// How often the slot had been used before, wrapping.
    pub generation: u32,
}

/// The text is not a connection id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadConnId;

impl fmt::Display for BadConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be <shard>-<slot>-<generation>, three decimal numbers")
    }
}

impl std::error::Error for BadConnId {}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.shard, self.index, self.generation)
    }
}

impl FromStr for ConnId {
    type Err = BadConnId;
    fn from_str(text: &str) -> Result<Self, BadConnId> {
        let mut parts = text.split('-');
        let mut number = || parts.next().ok_or(BadConnId);
        let shard = number()?.parse().map_err(|_| BadConnId)?;
        let index = number()?.parse().map_err(|_| BadConnId)?;
        let generation = number()?.parse().map_err(|_| BadConnId)?;
        if parts.next().is_some() {
            return Err(BadConnId);
        }
        Ok(Self { shard, index, generation })
    }
}

impl TryFrom<String> for ConnId {
    type Error = BadConnId;
    fn try_from(text: String) -> Result<Self, BadConnId> {
        text.parse()
    }
}

impl From<ConnId> for String {
    fn from(id: ConnId) -> Self {
        id.to_string()
    }
}

/// What a payload is. Decides the WebSocket opcode (text, text, binary) and how JSON clients see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One JSON value; checked when the push is accepted.
    Json,
    /// UTF-8; checked when the push is accepted.
    Text,
    /// Any octets.
    Binary,
}

/// Whom a push is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Every connection of one user.
    User(UserId),
    /// Every connection of each of these users, once each.
    Users(Vec<UserId>),
    /// Every subscriber of the topic.
    Topic(Topic),
    /// One connection.
    Connection(ConnId),
    /// Every connection, anonymous ones included.
    All,
}

/// One accepted push on its way to clients. Shared by all shards behind an `Arc` that is touched
/// once per shard, never once per connection.
#[derive(Debug)]
pub struct Message {
    /// The sequence number part of its position; the epoch is the gateway's.
    pub seq: u64,
    /// Whom it is for.
    pub target: Target,
    /// What the payload is.
    pub kind: Kind,
    /// The event name, for event streams.
    pub event: Option<Box<str>>,
    /// When control accepted the push, where somebody wants to know how long it takes from there.
    pub accepted: Option<Instant>,
    /// After this moment it is no longer delivered to anybody.
    pub expires: Option<Instant>,
    /// The raw WebSocket frame, server to client (unmasked, FIN): header, then payload. Built once
    /// for all shards, so that the most common form costs no encoding anywhere.
    frame: Bytes,
    header_bytes: u8,
}

impl Message {
    /// Wraps `frame`, a whole raw WebSocket frame whose payload starts at `header_bytes`
    /// (`wire::websocket::encode_message` makes it).
    pub fn new(seq: u64, target: Target, kind: Kind, frame: Bytes, header_bytes: u8) -> Self {
        debug_assert!(usize::from(header_bytes) <= frame.len());
        Self { seq, target, kind, event: None, accepted: None, expires: None, frame, header_bytes }
    }

    /// The raw WebSocket frame: header and payload.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The payload exactly as pushed.
    pub fn payload(&self) -> &[u8] {
        &self.frame[usize::from(self.header_bytes)..]
    }

    /// The topic it was pushed to, where it was.
    pub fn topic(&self) -> Option<&Topic> {
        match &self.target {
            Target::Topic(topic) => Some(topic),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_1_a_name_is_1_to_128_bytes_without_controls_spaces_or_commas() {
        assert!(Name::new(&"a".repeat(128)).is_ok());
        assert!(Name::new("größe/1:x").is_ok());
        for bad in ["", "a b", "a,b", "a\n", "a\u{7f}", "\u{a0}", &"a".repeat(129)] {
            assert_eq!(Name::new(bad), Err(BadName), "{bad:?}");
        }
    }

    #[test]
    fn contract_1_a_position_is_eight_hex_digits_and_a_number() {
        let position = Position { epoch: 0xa1, seq: 18 };
        assert_eq!(position.to_string(), "000000a1-18");
        assert_eq!("000000a1-18".parse(), Ok(position));
        for bad in
            ["a1-18", "000000A1-18", "000000a1-", "000000a1-+1", "000000a1", "000000a1-99999999999999999999"]
        {
            assert_eq!(bad.parse::<Position>(), Err(BadPosition), "{bad:?}");
        }
    }
}
