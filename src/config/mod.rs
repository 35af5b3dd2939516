//! The configuration: one typed struct, parsed once at the edge (Rule 9).
//!
//! Every key is optional. `systemd/corecast.toml` shows each with its default; a test keeps the two
//! equal. Flags beat `CORECAST_*` variables beat the file.
//! Read again on SIGHUP (`reload`: what of it a running gateway takes over). Next: `load` for where values come
//! from and who is blamed for a bad one, `check` for what they must be, `keys` for the key files that it
//! names, `admin` for the admin listener and its token, `size` for `"64KiB"`.

mod admin;
mod check;
mod keys;
mod load;
mod reload;
mod size;

pub use admin::Admin;
pub use keys::{KeySource, Keys, read_keys};
pub use load::{ConfigError, Origin, assign, environment, load};
pub use reload::{Change, LogFilter, Read, Source};
pub use size::{BadByteSize, ByteSize};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Client addresses; every shard listens on each.
    #[serde(with = "addresses")]
    pub listen: Vec<SocketAddr>,
    /// How many shards; 0 is one per available core.
    pub shards: u16,
    /// The Unix socket.
    pub control: Control,
    /// Sizes and counts.
    pub limits: Limits,
    /// Durations.
    pub timeouts: Timeouts,
    /// Addresses: who may connect, and who speaks for others.
    pub network: Network,
    /// What is kept for resuming.
    pub history: History,
    /// Who may connect.
    pub auth: Auth,
    /// Browser-facing switches.
    pub web: Web,
    /// What is logged.
    pub log: Log,
    /// The admin listener.
    pub admin: Admin,
}

/// `[control]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Path; empty is the default for this user (contract section 3).
    pub socket: PathBuf,
    /// Peers' uids that may command; with `allow_gids` empty too, whoever may open the socket.
    pub allow_uids: Vec<u32>,
    /// Peers' gids that may command.
    pub allow_gids: Vec<u32>,
    /// Most clients at once; one more is answered `busy`.
    pub clients: u32,
    /// Most reply bytes a client may leave unread before it is closed.
    pub reply_bytes: ByteSize,
    /// Longest line, body or binary frame.
    pub body_bytes: ByteSize,
    /// Longest wait for the rest of a request that has begun.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// Most commands waiting for one shard; one more is answered `busy`.
    pub mailbox_messages: u32,
    /// Most payload bytes waiting for one shard; more is answered `busy`.
    pub mailbox_bytes: ByteSize,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Longest request head.
    pub head_bytes: ByteSize,
    /// Most header lines.
    pub header_lines: u32,
    /// Longest request target.
    pub target_bytes: ByteSize,
    /// Longest message, in either direction.
    pub message_bytes: ByteSize,
    /// Most fragments of one message.
    pub fragments: u32,
    /// Most topics of one connection.
    pub topics_per_connection: u32,
    /// How far a connection may lag.
    pub send_backlog_bytes: ByteSize,
    /// Longest list of messages in one answer to a poll, unless a single one is longer.
    pub poll_bytes: ByteSize,
    /// SO_SNDBUF, set on the listener.
    pub socket_send_bytes: ByteSize,
    /// Most established clients; 0 is what the descriptor limit leaves (contract section 2).
    pub connections: u32,
    /// Most connections from one address; 0 is no limit.
    pub connections_per_address: u32,
    /// New connections per second from one address, with a burst of twice that; 0 is no limit.
    pub connects_per_address: u32,
    /// Networks exempt from `connections_per_address` and `connects_per_address`.
    #[serde(with = "networks")]
    pub trusted: Vec<IpNet>,
    /// Memory that the gateway may use, beside what its cgroup allows; 0 is the cgroup's limit alone.
    pub memory: ByteSize,
    /// New connections per second and shard, with a burst of twice that; 0 is no limit.
    pub connects_per_second: u32,
    /// Data messages per second from one client, with a burst of twice that; 0 is no limit.
    pub uplinks_per_second: u32,
}

/// `[timeouts]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Accept to complete request head and known identity.
    #[serde(with = "duration")]
    pub handshake: Duration,
    /// First to last fragment of one message.
    #[serde(with = "duration")]
    pub message: Duration,
    /// No progress while bytes wait to be sent.
    #[serde(with = "duration")]
    pub send: Duration,
    /// Our close frame or refusal to the peer's end of the connection.
    #[serde(with = "duration")]
    pub close: Duration,
    /// Ping period where the client asks for none.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    /// Shortest period a client may ask for.
    #[serde(with = "duration")]
    pub heartbeat_min: Duration,
    /// Longest period a client may ask for.
    #[serde(with = "duration")]
    pub heartbeat_max: Duration,
    /// Ping to pong.
    #[serde(with = "duration")]
    pub pong: Duration,
    /// Over how long a drain spreads the clients' return.
    #[serde(with = "duration")]
    pub drain: Duration,
}

/// `[network]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Which addresses of `listen` speak the PROXY protocol.
    #[serde(with = "addresses")]
    pub proxy_protocol: Vec<SocketAddr>,
    /// Peers that are believed when they say for whom they speak.
    #[serde(with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Who may connect; empty is everybody.
    #[serde(with = "networks")]
    pub allow: Vec<IpNet>,
    /// Who may not; beats `allow`.
    #[serde(with = "networks")]
    pub deny: Vec<IpNet>,
}

/// `[history]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// Messages kept per topic or user.
    pub messages: u32,
    /// Payload bytes kept per shard.
    pub bytes: ByteSize,
    /// How long a message is kept.
    #[serde(with = "duration")]
    pub age: Duration,
}

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// It is believed: `user=` in the query.
    Open,
    /// By a JSON Web Token.
    Jwt,
    /// By a ticket that was made over the control socket.
    Ticket,
}

/// `[auth]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Absent is `open`, and refused at start on a listener that is not loopback: there the file has
    /// to name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<AuthMode>,
    /// Whether a client without a user may connect: in mode `open` one that names none, in mode `jwt` one
    /// whose token does not.
    pub anonymous: bool,
    /// Where the keys of tokens are.
    pub keys: Vec<KeySource>,
    /// What `iss` of a token must be; empty is anything.
    pub issuer: String,
    /// `aud` of a token must name one of these; empty is anything.
    pub audience: Vec<String>,
    /// How far the issuer's clock may differ from ours.
    #[serde(with = "duration")]
    pub leeway: Duration,
    /// How long a ticket waits to be used, where its maker does not say.
    #[serde(with = "duration")]
    pub ticket_ttl: Duration,
    /// Most tickets that wait to be used; one more is answered `busy`.
    pub tickets: u32,
}

/// `[web]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Web {
    /// Origins whose pages may connect, as `https://example.org`; empty is any.
    pub origins: Vec<String>,
    /// Serve the demo page, `GET /`.
    pub demo: bool,
    /// Serve `GET /echo`, on loopback listeners.
    pub echo: bool,
    /// Serve `GET /echo` on every listener.
    pub echo_public: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// The levels of log lines, from none to all.
pub const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A tracing filter: `info`, `debug`, `corecast::shard=debug,info`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Durations, written as `"30s"`, `"10min"`, `"500ms"`.
mod duration {
    use std::fmt;
    use std::time::Duration;

    pub fn serialize<S: serde::Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_str(Written)
    }

    struct Written;

    impl serde::de::Visitor<'_> for Written {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration with its unit, such as \"30s\", \"10min\" or \"500ms\"")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Duration, E> {
            humantime::parse_duration(text).map_err(|error| {
                let text = text.escape_debug();
                E::custom(format_args!("\"{text}\" is not a duration such as \"30s\" or \"10min\": {error}"))
            })
        }
    }
}

impl Auth {
    /// The mode in effect.
    pub fn mode(&self) -> AuthMode {
        self.mode.unwrap_or(AuthMode::Open)
    }
}

/// Addresses with their ports, no names: what a name stands for may change between start and restart.
mod addresses {
    use std::net::SocketAddr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(addresses: &[SocketAddr], serializer: S) -> Result<S::Ok, S::Error> {
        addresses.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
        Vec::<String>::deserialize(deserializer)?.iter().map(|text| parse(text)).collect()
    }

    pub fn parse<E: Error>(text: &str) -> Result<SocketAddr, E> {
        text.parse().map_err(|_| {
            let text = text.escape_debug();
            E::custom(format_args!("\"{text}\" is not an address with its port such as \"127.0.0.1:8080\""))
        })
    }
}

/// Networks, written as `"10.0.0.0/8"`, or as one address.
mod networks {
    use std::net::IpAddr;

    use ipnet::IpNet;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(networks: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
        networks.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
        let parse = |text: String| {
            let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            network.map_err(|_| {
                let text = text.escape_debug();
                D::Error::custom(format_args!(
                    "\"{text}\" is neither a network such as \"10.0.0.0/8\" nor an address"
                ))
            })
        };
        Vec::<String>::deserialize(deserializer)?.into_iter().map(parse).collect()
    }
}

impl Config {
    /// As TOML that `load` reads back to an equal configuration. Keys without a value (`auth.mode`
    /// where it is absent) are left out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every key is a plain TOML value")
    }

    /// The same, to be shown: a secret in it is replaced by a word that no configuration takes.
    pub fn without_secrets(&self) -> Self {
        Self { admin: self.admin.without_secrets(), ..self.clone() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            shards: 0,
            control: Control::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            network: Network::default(),
            history: History::default(),
            auth: Auth::default(),
            web: Web::default(),
            log: Log::default(),
            admin: Admin::default(),
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self {
            socket: PathBuf::new(),
            allow_uids: Vec::new(),
            allow_gids: Vec::new(),
            clients: 64,
            reply_bytes: ByteSize(MIB),
            body_bytes: ByteSize(16 * MIB),
            request_timeout: Duration::from_secs(10),
            mailbox_messages: 65_536,
            mailbox_bytes: ByteSize(64 * MIB),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: ByteSize(8 * KIB),
            header_lines: 64,
            target_bytes: ByteSize(2 * KIB),
            message_bytes: ByteSize(64 * KIB),
            fragments: 4096,
            topics_per_connection: 128,
            send_backlog_bytes: ByteSize(MIB),
            poll_bytes: ByteSize(256 * KIB),
            socket_send_bytes: ByteSize(32 * KIB),
            connections: 0,
            connections_per_address: 0,
            connects_per_address: 0,
            trusted: Vec::new(),
            memory: ByteSize(0),
            connects_per_second: 2000,
            uplinks_per_second: 20,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            message: Duration::from_secs(30),
            send: Duration::from_secs(10),
            close: Duration::from_secs(5),
            heartbeat: Duration::from_secs(60),
            heartbeat_min: Duration::from_secs(10),
            heartbeat_max: Duration::from_secs(600),
            pong: Duration::from_secs(10),
            drain: Duration::from_secs(30),
        }
    }
}

impl Default for History {
    fn default() -> Self {
        Self { messages: 1024, bytes: ByteSize(64 * MIB), age: Duration::from_secs(600) }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            mode: None,
            anonymous: true,
            keys: Vec::new(),
            issuer: String::new(),
            audience: Vec::new(),
            leeway: Duration::ZERO,
            ticket_ttl: Duration::from_secs(30),
            tickets: 65_536,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}
