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
pub(crate) use kinds;

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
        /// The HTTP request was refused (4xx or 503); `ShardStats::refused` counts why.
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

kinds! {
    /// Why a request of a client was answered with 4xx or 503, or its socket let go for want of descriptors.
    ///
    /// Finer than the `code` in the answer: who refused for which limit is the operator's business.
    RefusalReason {
        /// Malformed, or an argument that makes no sense (400).
        BadRequest = "bad_request",
        /// `user=` is no user id (400).
        BadUser = "bad_user",
        /// `topics=` names what is no topic (400).
        BadTopic = "bad_topic",
        /// No credential that holds (401).
        Unauthorized = "unauthorized",
        /// The page's origin is not in `web.origins` (403).
        ForbiddenOrigin = "forbidden_origin",
        /// Its token or ticket does not allow the topic (403).
        ForbiddenTopic = "forbidden_topic",
        /// `network.allow` or `network.deny`, behind a proxy (403).
        ForbiddenAddress = "forbidden_address",
        /// A held poll that was kicked, not to come back (403).
        Kicked = "kicked",
        /// A held poll that a newer connection of its user replaced (403).
        Replaced = "replaced",
        /// No such path (404).
        NotFound = "not_found",
        /// The path is there for other methods (405).
        MethodNotAllowed = "method_not_allowed",
        /// Half a request within `timeouts.handshake` (408).
        HandshakeTimeout = "handshake_timeout",
        /// Over `limits.target_bytes` (414).
        TargetTooLong = "target_too_long",
        /// `/ws` without a WebSocket handshake (426).
        UpgradeRequired = "upgrade_required",
        /// `max_connections` of its token or ticket (429).
        ConnectionsPerUser = "connections_per_user",
        /// `limits.connections_per_address` (429).
        ConnectionsPerAddress = "connections_per_address",
        /// `limits.connects_per_address` (429).
        ConnectsPerAddress = "connects_per_address",
        /// Over `limits.head_bytes` or `limits.header_lines` (431).
        HeadTooLarge = "head_too_large",
        /// `limits.connects_per_second` (503).
        ConnectsPerSecond = "connects_per_second",
        /// `limits.connections` (503).
        Connections = "connections",
        /// `limits.memory`, or the cgroup's limit (503).
        Memory = "memory",
        /// The shard that owns the user takes no more connections for now (503).
        ShardBusy = "shard_busy",
        /// The gateway drains (503).
        Draining = "draining",
        /// So few descriptors are left that it was closed at accept, without an answer.
        Descriptors = "descriptors",
    }
}

kinds! {
    /// What an accept failed with, as errno names it (accept4(2)).
    AcceptError {
        /// The process has used up its descriptors.
        Emfile = "EMFILE",
        /// The machine has.
        Enfile = "ENFILE",
        /// No memory for socket buffers.
        Enobufs = "ENOBUFS",
        /// No memory.
        Enomem = "ENOMEM",
        /// The client went before it was accepted.
        Econnaborted = "ECONNABORTED",
        /// Any other.
        Other = "other",
    }
}

kinds! {
    /// What a shard's memory is for.
    MemoryClass {
        /// The table of connections.
        Slots = "slots",
        /// The index of users, and their ids.
        Users = "users",
        /// Topics, their names and their subscribers.
        Topics = "topics",
        /// Messages, as `history.bytes` counts them.
        Tape = "tape",
        /// What is being received, sent, or waits to be written to single connections.
        Buffers = "buffers",
        /// Kept addresses of clients, and what tokens and tickets allow.
        Addresses = "addresses",
    }
}
