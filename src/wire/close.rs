//! The peer's fault and its wire answers: WebSocket close codes and HTTP refusals.

use std::borrow::Cow;

use crate::stats::{CloseReason, RefusalReason};

/// WebSocket close codes that we send (RFC 6455 7.4.1; ours from 4000, contract section 2).
pub mod code {
    /// Normal closure.
    pub const NORMAL: u16 = 1000;
    /// Protocol error.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// Bad UTF-8.
    pub const BAD_UTF8: u16 = 1007;
    /// Policy violation.
    pub const POLICY: u16 = 1008;
    /// Message too big.
    pub const TOO_BIG: u16 = 1009;
    /// Service restart: the gateway drains.
    pub const RESTART: u16 = 1012;
    /// Slow consumer: come back, with back-off.
    pub const SLOW_CONSUMER: u16 = 4000;
    /// Heartbeat missed: come back.
    pub const HEARTBEAT_MISSED: u16 = 4001;
    /// Token expired: come back with another.
    pub const TOKEN_EXPIRED: u16 = 4002;
    /// Kicked: do not come back.
    pub const KICKED: u16 = 4500;
    /// Replaced by a newer connection of the same user: do not come back.
    pub const REPLACED: u16 = 4501;
}

/// What a peer did wrong on an established WebSocket. Carries its own close code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// RSV1 to RSV3 set without an extension (RFC 6455 5.2).
    ReservedBits,
    /// Opcode 3 to 7 or 11 to 15.
    UnknownOpcode,
    /// A control frame over 125 bytes (5.5).
    ControlTooLong,
    /// A control frame without FIN (5.5).
    ControlFragmented,
    /// A frame from a client without a mask (5.1).
    Unmasked,
    /// A length not in its shortest form, or over 2^63 (5.2).
    BadLength,
    /// A continuation frame with nothing to continue (5.4).
    UnexpectedContinuation,
    /// A new data frame inside a fragmented message (5.4).
    ExpectedContinuation,
    /// A close frame with one byte of payload, or a code that must not be sent (7.4).
    BadCloseCode,
    /// Text or a close reason that is not UTF-8 (8.1).
    BadUtf8,
    /// Frame or message over `limits.message_bytes`.
    TooBig,
    /// More than `limits.fragments` fragments.
    TooManyFragments,
}

impl ProtocolError {
    /// The close code to send.
    pub fn close_code(self) -> u16 {
        match self {
            Self::BadUtf8 => code::BAD_UTF8,
            Self::TooBig => code::TOO_BIG,
            Self::TooManyFragments => code::POLICY,
            _ => code::PROTOCOL_ERROR,
        }
    }

    /// What it counts as.
    pub fn close_reason(self) -> CloseReason {
        match self {
            Self::BadUtf8 => CloseReason::BadUtf8,
            Self::TooBig => CloseReason::TooBig,
            Self::TooManyFragments => CloseReason::Policy,
            _ => CloseReason::ProtocolError,
        }
    }

    /// The reason text of the close frame.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved bits set",
            Self::UnknownOpcode => "unknown opcode",
            Self::ControlTooLong => "control frame over 125 bytes",
            Self::ControlFragmented => "fragmented control frame",
            Self::Unmasked => "unmasked frame",
            Self::BadLength => "bad frame length",
            Self::UnexpectedContinuation => "nothing to continue",
            Self::ExpectedContinuation => "unfinished message",
            Self::BadCloseCode => "bad close code",
            Self::BadUtf8 => "not UTF-8",
            Self::TooBig => "message too big",
            Self::TooManyFragments => "too many fragments",
        }
    }
}

/// An HTTP request that is refused: status, code and message of the error object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What it is counted as.
    pub reason: RefusalReason,
    /// HTTP status, 400 to 503.
    pub status: u16,
    /// Machine-readable, from the contract (`bad_request`, `overloaded`, ...).
    pub code: &'static str,
    /// For people.
    pub message: Cow<'static, str>,
    /// `Retry-After`, in seconds.
    pub retry_after_s: Option<u32>,
    /// `Allow` of a 405.
    pub allow: &'static str,
    /// More header lines, each with its CR LF (`origin`).
    pub fields: String,
}

impl Refusal {
    /// A refusal without `Retry-After` or more header lines, where only GET is allowed.
    pub fn new(reason: RefusalReason, message: impl Into<Cow<'static, str>>) -> Self {
        let (status, code) = status_and_code(reason);
        Self {
            reason,
            status,
            code,
            message: message.into(),
            retry_after_s: None,
            allow: "GET",
            fields: String::new(),
        }
    }
}

/// How a client is answered (contract section 2). What several limits refuse alike has one code.
fn status_and_code(reason: RefusalReason) -> (u16, &'static str) {
    use RefusalReason as Reason;
    let status = match reason {
        Reason::BadRequest | Reason::BadUser | Reason::BadTopic => 400,
        Reason::Unauthorized => 401,
        Reason::ForbiddenOrigin | Reason::ForbiddenTopic | Reason::ForbiddenAddress => 403,
        Reason::Kicked | Reason::Replaced => 403,
        Reason::NotFound => 404,
        Reason::MethodNotAllowed => 405,
        Reason::HandshakeTimeout => 408,
        Reason::TargetTooLong => 414,
        Reason::UpgradeRequired => 426,
        Reason::ConnectionsPerUser | Reason::ConnectionsPerAddress | Reason::ConnectsPerAddress => {
            return (429, "too_many_connections");
        }
        Reason::HeadTooLarge => 431,
        Reason::Draining => 503,
        Reason::ConnectsPerSecond
        | Reason::Connections
        | Reason::Memory
        | Reason::ShardBusy
        | Reason::Descriptors => return (503, "overloaded"),
    };
    (status, reason.name())
}
