//! The configuration as a shard uses it: plain numbers, computed once.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::clock::Tick;
use super::networks::Networks;
use super::refusing::Answers;
use super::tape::TapeLimits;
use crate::auth::{KeyRing, Rules, Verifier};
use crate::config::{Auth, AuthMode, Config, Timeouts};
use crate::wire::origin::Origins;
use crate::wire::request::HeadLimits;
use crate::wire::session::{Policy, Proof};
use crate::wire::{long_poll, websocket};

/// No ping to an echo client before this many seconds.
pub const ECHO_QUIET_S: u32 = 120;

/// What the whole gateway may hold.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Established clients: one more is answered 503.
    pub clients_max: u64,
    /// Client sockets, handshakes included: one more is closed unread, so that those who say nothing
    /// cannot take the descriptors that control and the listeners need.
    pub sockets_max: u64,
}

/// What a shard needs to know of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) head: HeadLimits,
    pub(super) messages: websocket::Limits,
    pub(super) policy: Policy,
    /// Of tokens.
    pub(super) verifier: Arc<Verifier>,
    /// `GET /echo` is served: on loopback, on every listener.
    pub(super) echo: (bool, bool),
    pub(super) topics_max: usize,
    pub(super) lag_bytes_max: usize,
    pub(super) poll_bytes_max: usize,
    /// `long_poll::begin` of the polls that have no header lines of their own.
    pub(super) poll_begin: Bytes,
    pub(super) connections_max: u64,
    pub(super) sockets_max: u64,
    pub(super) connections_per_address_max: u32,
    pub(super) connects_per_address: u32,
    /// Not counted by address.
    pub(super) uncounted: Networks,
    /// Believed when they say for whom they speak.
    pub(super) proxies: Networks,
    /// Who may connect (everybody where it is empty), and who may not.
    pub(super) allow: Networks,
    /// See `allow`.
    pub(super) deny: Networks,
    pub(super) connects_per_second: u32,
    /// Early refusals, ready to be sent.
    pub(super) answers: Answers,
    pub(super) uplinks_per_second: u32,
    pub(super) timeouts: Timeouts,
    pub(super) handshake_ticks: u32,
    pub(super) message_ticks: u32,
    pub(super) send_ticks: u32,
    pub(super) close_ticks: u32,
    pub(super) pong_ticks: u32,
    /// Between two polls on one connection: as long as another client may be silent.
    pub(super) idle_ticks: u32,
    /// When the kernel gives up a peer that confirms nothing, in milliseconds: `Listener::give_up_after`.
    pub(super) unconfirmed_ms_max: u32,
    /// SO_SNDBUF of new clients.
    pub(super) socket_send_bytes: usize,
    pub(super) tape: TapeLimits,
}

impl Settings {
    /// From the effective configuration and what the descriptor limit leaves room for.
    pub fn new(config: &Config, room: Room) -> Self {
        let (limits, timeouts) = (&config.limits, &config.timeouts);
        let origins = Origins::new(&config.web.origins);
        let seconds = |duration: std::time::Duration| u16::try_from(duration.as_secs()).unwrap_or(u16::MAX);
        Self {
            head: HeadLimits {
                head_bytes_max: limits.head_bytes.bytes(),
                header_lines_max: limits.header_lines as usize,
                target_bytes_max: limits.target_bytes.bytes(),
            },
            messages: websocket::Limits {
                message_bytes_max: limits.message_bytes.bytes(),
                fragments_max: limits.fragments,
            },
            policy: Policy {
                proof: match config.auth.mode() {
                    AuthMode::Open => Proof::Nothing,
                    AuthMode::Jwt => Proof::Token,
                    AuthMode::Ticket => Proof::Ticket,
                },
                identified: false,
                anonymous: config.auth.anonymous,
                heartbeat_s: seconds(timeouts.heartbeat),
                heartbeat_min_s: seconds(timeouts.heartbeat_min),
                heartbeat_max_s: seconds(timeouts.heartbeat_max),
                topics_max: limits.topics_per_connection,
                origins: origins.clone(),
                echo: false,
                demo: config.web.demo,
            },
            verifier: Arc::default(),
            echo: (config.web.echo, config.web.echo && config.web.echo_public),
            topics_max: limits.topics_per_connection as usize,
            lag_bytes_max: limits.send_backlog_bytes.bytes(),
            poll_bytes_max: limits.poll_bytes.bytes(),
            poll_begin: long_poll::begin(&origins.fields(None)),
            connections_max: room.clients_max,
            sockets_max: room.sockets_max,
            connections_per_address_max: limits.connections_per_address,
            connects_per_address: limits.connects_per_address,
            uncounted: Networks::new(&limits.trusted),
            proxies: Networks::new(&config.network.trusted_proxies),
            allow: Networks::new(&config.network.allow),
            deny: Networks::new(&config.network.deny),
            answers: Answers::new(&origins),
            connects_per_second: limits.connects_per_second,
            uplinks_per_second: limits.uplinks_per_second,
            handshake_ticks: Tick::count(timeouts.handshake),
            message_ticks: Tick::count(timeouts.message),
            send_ticks: Tick::count(timeouts.send),
            close_ticks: Tick::count(timeouts.close),
            pong_ticks: Tick::count(timeouts.pong),
            idle_ticks: Tick::count(timeouts.heartbeat),
            unconfirmed_ms_max: unconfirmed_ms_max(timeouts),
            timeouts: timeouts.clone(),
            socket_send_bytes: limits.socket_send_bytes.bytes(),
            tape: TapeLimits {
                messages_max: config.history.messages as usize,
                bytes_max: config.history.bytes.bytes(),
                bytes_hard_max: config.history.bytes.bytes()
                    + limits.send_backlog_bytes.bytes().max(config.history.bytes.bytes() / 2),
                age_ticks_max: Tick::count(config.history.age),
            },
        }
    }

    /// The same, with the keys of `auth.mode = "jwt"`.
    pub fn with_keys(self, auth: &Auth, keys: KeyRing) -> Self {
        let rules = Rules {
            issuer: Some(auth.issuer.clone()).filter(|issuer| !issuer.is_empty()),
            audience: auth.audience.clone(),
            leeway_ms: auth.leeway.as_millis() as u64,
            anonymous: auth.anonymous,
        };
        Self { verifier: Arc::new(Verifier::new(rules, keys)), ..self }
    }

    /// What one client may send.
    pub(super) fn message_limits(&self, echo: bool) -> &websocket::Limits {
        if echo { &websocket::ECHO_LIMITS } else { &self.messages }
    }

    /// Whether there is anybody who may not connect.
    pub(super) fn judges(&self) -> bool {
        !self.allow.is_empty() || !self.deny.is_empty()
    }

    /// Whether `address` may connect.
    pub(super) fn permits(&self, address: IpAddr) -> bool {
        !self.deny.contains(address) && (self.allow.is_empty() || self.allow.contains(address))
    }
}

/// As long as a missed heartbeat takes to be noticed on a WebSocket: an event stream has no pong, and what
/// is sent into the void must not be waited for any longer there. The kernel counts a peer that takes
/// nothing (zero window) as well, on every kind of connection; so never before `timeouts.send`
/// and the last words after it are over, or a slow consumer would count as one that has gone. The one who
/// may pause for longer is an echo client: it is cut then.
fn unconfirmed_ms_max(timeouts: &Timeouts) -> u32 {
    let longest = (timeouts.heartbeat + timeouts.pong).max(timeouts.send + timeouts.close);
    u32::try_from(longest.as_millis()).unwrap_or(u32::MAX).min(i32::MAX as u32)
}
