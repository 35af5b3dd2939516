//! Closed sets of kinds that something is counted by: each kind has its place in an array, and its name as label.
//!
//! Nothing here grows with what clients do: a label has as many values as its set has kinds.

use serde::{Deserialize, Serialize};

/// Declares a set of kinds, each with its name in metrics, events and logs.
macro_rules! kinds {
    ($(#[$set_doc:meta])* $set:ident { $($(#[$doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$set_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum $set { $($(#[$doc])* $variant,)* }

        impl $set {
            /// Every kind, in the order of its counters.
            pub const ALL: &'static [$set] = &[$($set::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in metrics, events and logs.
            pub fn name(self) -> &'static str {
                match self { $($set::$variant => $name,)* }
            }

            /// Each kind's name and its place in `counts`.
            pub fn named(counts: &[u64; Self::COUNT]) -> impl Iterator<Item = (&'static str, u64)> {
                Self::ALL.iter().map(|kind| kind.name()).zip(*counts)
            }
        }
    };
}
kinds! {
    /// Why a connection ended: exactly one per connection (Rule 5).
    CloseReason {
        /// The peer sent a WebSocket close frame.
        PeerClosed = "peer_closed",
        /// The peer closed or reset TCP without a close frame.
        PeerGone = "peer_gone",
        /// The peer broke RFC 6455 (1002).
        ProtocolError = "protocol_error",
        /// A text message was not UTF-8 (1007).
        BadUtf8 = "bad_utf8",
        /// A message or frame over the limit (1009).
        TooBig = "too_big",
        /// Too many fragments, uplinks, or an unfinished message (1008).
        Policy = "policy",
        /// The HTTP request was refused (4xx or 503); `refused` counts which.
        Refused = "refused",
        /// No complete request within `timeouts.handshake` (408).
        HandshakeTimeout = "handshake_timeout",
        /// Too far behind, or no progress within `timeouts.send` (4000).
        SlowConsumer = "slow_consumer",
        /// Memory was short, and it was among those furthest behind (4000).
        Memory = "memory",
        /// No answer to a ping (4001).
        HeartbeatMissed = "heartbeat_missed",
        /// Closed by a command (4500 or the code given).
        Kicked = "kicked",
        /// Its token ended (4002).
        TokenExpired = "token_expired",
        /// A newer connection of its user took its place (4501).
        Replaced = "replaced",
        /// The gateway drained (1012).
        Drained = "drained",
        /// An HTTP answer was given, and the connection was closed after it or not used again.
        Answered = "answered",
        /// Its address may not connect (`network.allow`, `network.deny`).
        ForbiddenAddress = "forbidden_address",
        /// On a listener of `network.proxy_protocol`: no PROXY header, or not from a trusted proxy.
        ProxyHeader = "proxy_header",
    }
}
