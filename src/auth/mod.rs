//! Who a client is, and what it may do: tokens, tickets, and the topics that they allow.
//!
//! Pure: octets and a time in, an `Identity` or the reason for a refusal out. Reads no file (`config` reads
//! the keys), no clock and no randomness, and knows neither HTTP nor connections: `wire::session` finds the
//! credential in a request, `shard::identity` has it checked and keeps to what it allows.

pub mod keys;
pub mod mint;
pub mod tickets;
pub mod token;
pub mod topics;

use std::fmt;
use std::hint::black_box;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use keys::{Algorithm, BadKey, Key, KeyRing};
pub use tickets::{Ticket, TicketId, Tickets};
pub use token::{BadToken, Rules, Verifier};
pub use topics::Patterns;

use crate::message::{UserId, borrowed};

/// Who a client is, as its token or ticket says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `None` is anonymous.
    pub user: Option<UserId>,
    /// When the connection ends, in milliseconds of Unix time; `None` is never.
    pub expires_unix_ms: Option<u64>,
    /// What the client may subscribe to; `None` is anything.
    pub topics: Option<Patterns>,
    /// Most connections of the user at once, this one included.
    pub connections_max: Option<u32>,
    /// This connection replaces the user's others.
    pub single: bool,
}

/// What a client proves itself with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credential {
    /// Nothing: auth mode `open`, or who it is has been found out.
    #[default]
    None,
    /// A JSON Web Token (RFC 7519), still to be verified.
    Token(Secret),
    /// A ticket, still to be burnt.
    Ticket(Secret),
    /// What it proved itself with when it polled on this connection before.
    Kept,
}

/// A text that must not reach a log: it shows itself to nobody who formats it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself. Not for messages.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `text` is the same. Takes as long for any text of the same length: how long a refusal took must
    /// not tell how much of a guess was right.
    pub fn is(&self, text: &str) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), text.as_bytes());
        let differs = ours.iter().zip(theirs).fold(0, |differs, (a, b)| black_box(differs | (a ^ b)));
        ours.len() == theirs.len() && differs == 0
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        borrowed::text(deserializer).map(Self)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issue_7_a_secret_is_itself_and_nothing_shorter_longer_or_other() {
        let secret = Secret::new("0123456789abcdef".to_owned());
        assert!(secret.is("0123456789abcdef"));
        for other in ["", "0", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeF", "1123456789abcdef"]
        {
            assert!(!secret.is(other), "{other}");
        }
    }

    #[test]
    fn issue_6_a_secret_is_not_shown_by_debug() {
        let credential = Credential::Token(Secret::new("eyJhbGciOi".to_owned()));
        assert_eq!(format!("{credential:?} {credential:#?}").matches("eyJ").count(), 0);
    }
}
