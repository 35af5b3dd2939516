//! What the values of a configuration must be, after everything is merged.
//!
//! Refuses what cannot work or would not do what it says; never adjusts a value quietly. Each refusal
//! names the key and both numbers. Where a value came from is `load`'s to add.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use super::admin::why_no_token;
use super::{Admin, Auth, AuthMode, ByteSize, Config, LOG_LEVELS};
use crate::auth::tickets::TTL_MAX;

/// Most shards: more than any machine has cores to pin them to.
const SHARDS_MAX: u16 = 1024;
/// Longest duration anywhere: deadlines are counted in ticks of 32 bits.
const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longest message, body or buffer: frame offsets and lengths are 32 bits wide inside.
const BYTES_MAX: ByteSize = ByteSize(1 << 30);
/// Most origins: each request of a page is compared with them.
const ORIGINS_MAX: usize = 1024;
/// More is a clock that is wrong, and no skew.
const LEEWAY_MAX: Duration = Duration::from_secs(300);
/// Most networks in one list: a file of 1 MiB holds few more.
const NETWORKS_MAX: usize = 65_536;
/// Longest path of a Unix socket: `sun_path` holds 108 bytes with its NUL (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A value that cannot be.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Its key, as in `limits.message_bytes`.
    pub key: &'static str,
    /// What it must be, with the numbers.
    pub message: String,
}

/// Looks at every key that has bounds. Errors: the first that is out of them.
pub(super) fn check(config: &Config) -> Result<(), Wrong> {
    listeners(config)?;
    networks(config)?;
    sizes(config)?;
    counts(config)?;
    durations(config)?;
    heartbeat(config)?;
    auth(&config.auth)?;
    origins(&config.web.origins)?;
    admin(&config.admin, &config.listen)?;
    log_filter(&config.log.level)
}

fn wrong<T>(key: &'static str, message: String) -> Result<T, Wrong> {
    Err(Wrong { key, message })
}

fn within<T: PartialOrd + Display>(key: &'static str, value: T, least: T, most: T) -> Result<(), Wrong> {
    if value < least || value > most {
        return wrong(key, format!("is {value}, must be {least} to {most}"));
    }
    Ok(())
}

fn listeners(config: &Config) -> Result<(), Wrong> {
    if config.listen.is_empty() {
        return wrong(
            "listen",
            "is empty, must name at least one address such as \"127.0.0.1:8080\"".to_owned(),
        );
    }
    let mut seen = BTreeSet::new();
    // Twice the same would not be refused by the kernel: SO_REUSEPORT lets one process share with itself.
    if let Some(twice) = config.listen.iter().find(|address| address.port() != 0 && !seen.insert(**address)) {
        return wrong("listen", format!("names {twice} twice"));
    }
    within("shards", config.shards, 0, SHARDS_MAX)?;
    let socket = config.control.socket.as_os_str().as_encoded_bytes();
    if socket.len() > SOCKET_PATH_BYTES_MAX {
        let length = socket.len();
        return wrong(
            "control.socket",
            format!("is {length} bytes long, must be at most {SOCKET_PATH_BYTES_MAX} (the kernel's limit)"),
        );
    }
    if socket.contains(&0) {
        return wrong("control.socket", "holds a NUL byte".to_owned());
    }
    Ok(())
}

fn networks(config: &Config) -> Result<(), Wrong> {
    let network = &config.network;
    for (key, networks) in [
        ("limits.trusted", &config.limits.trusted),
        ("network.trusted_proxies", &network.trusted_proxies),
        ("network.allow", &network.allow),
        ("network.deny", &network.deny),
    ] {
        within(key, networks.len(), 0, NETWORKS_MAX)?;
    }
    if let Some(stray) = network.proxy_protocol.iter().find(|address| !config.listen.contains(address)) {
        return wrong("network.proxy_protocol", format!("names {stray}, which listen does not name"));
    }
    if !network.proxy_protocol.is_empty() && network.trusted_proxies.is_empty() {
        return wrong(
            "network.proxy_protocol",
            "needs network.trusted_proxies: without it nobody is believed there, and all are closed"
                .to_owned(),
        );
    }
    Ok(())
}

fn sizes(config: &Config) -> Result<(), Wrong> {
    let (control, limits) = (&config.control, &config.limits);
    within("control.reply_bytes", control.reply_bytes, ByteSize(1), BYTES_MAX)?;
    within("control.body_bytes", control.body_bytes, ByteSize(1), BYTES_MAX)?;
    within("control.mailbox_bytes", control.mailbox_bytes, ByteSize(1), ByteSize(i64::MAX as u64))?;
    // Below 64 bytes not even `GET /ws HTTP/1.1` with a Host and a key fits.
    within("limits.head_bytes", limits.head_bytes, ByteSize(64), ByteSize(1 << 20))?;
    within("limits.target_bytes", limits.target_bytes, ByteSize(1), ByteSize(1 << 20))?;
    within("limits.message_bytes", limits.message_bytes, ByteSize(1), BYTES_MAX)?;
    // 4 KiB is near what the kernel raises a smaller SO_SNDBUF to (socket(7)); it stores twice the value
    // in an int.
    within("limits.socket_send_bytes", limits.socket_send_bytes, ByteSize(4096), ByteSize((1 << 30) - 1))?;
    within("limits.poll_bytes", limits.poll_bytes, ByteSize(1), BYTES_MAX)?;
    within("limits.send_backlog_bytes", limits.send_backlog_bytes, ByteSize(1), BYTES_MAX)?;
    within("history.bytes", config.history.bytes, ByteSize(1), ByteSize(i64::MAX as u64))?;
    let (backlog, message) = (limits.send_backlog_bytes, limits.message_bytes);
    if backlog < message {
        return wrong(
            "limits.send_backlog_bytes",
            format!("is {backlog}, must be at least limits.message_bytes, which is {message}"),
        );
    }
    Ok(())
}

fn counts(config: &Config) -> Result<(), Wrong> {
    let (control, limits) = (&config.control, &config.limits);
    within("control.clients", control.clients, 1, 65_536)?;
    within("control.mailbox_messages", control.mailbox_messages, 1, 1 << 24)?;
    within("limits.header_lines", limits.header_lines, 1, 1024)?;
    within("limits.fragments", limits.fragments, 1, u32::MAX)?;
    within("limits.topics_per_connection", limits.topics_per_connection, 1, 65_535)?;
    within("history.messages", config.history.messages, 1, u32::MAX)
}

fn durations(config: &Config) -> Result<(), Wrong> {
    let timeouts = &config.timeouts;
    let durations = [
        ("control.request_timeout", config.control.request_timeout),
        ("timeouts.handshake", timeouts.handshake),
        ("timeouts.message", timeouts.message),
        ("timeouts.send", timeouts.send),
        ("timeouts.close", timeouts.close),
        ("timeouts.pong", timeouts.pong),
        ("timeouts.drain", timeouts.drain),
        ("history.age", config.history.age),
    ];
    for (key, duration) in durations {
        if duration < Duration::from_millis(1) || duration > DURATION_MAX {
            let is = humantime::format_duration(duration);
            return wrong(key, format!("is {is}, must be 1ms to 7days"));
        }
    }
    Ok(())
}

/// The period is told to clients in whole seconds and kept in 16 bits per connection.
fn heartbeat(config: &Config) -> Result<(), Wrong> {
    let timeouts = &config.timeouts;
    let (least, period, most) = (timeouts.heartbeat_min, timeouts.heartbeat, timeouts.heartbeat_max);
    let written = humantime::format_duration;
    for (key, duration) in
        [("timeouts.heartbeat_min", least), ("timeouts.heartbeat", period), ("timeouts.heartbeat_max", most)]
    {
        if duration.subsec_nanos() != 0 || !(1..=u64::from(u16::MAX)).contains(&duration.as_secs()) {
            return wrong(key, format!("is {}, must be whole seconds from 1s to 65535s", written(duration)));
        }
    }
    if least > most {
        return wrong(
            "timeouts.heartbeat_min",
            format!(
                "is {}, must be at most timeouts.heartbeat_max, which is {}",
                written(least),
                written(most)
            ),
        );
    }
    if period < least || period > most {
        return wrong(
            "timeouts.heartbeat",
            format!(
                "is {}, must be from timeouts.heartbeat_min ({}) to timeouts.heartbeat_max ({})",
                written(period),
                written(least),
                written(most)
            ),
        );
    }
    Ok(())
}

fn auth(auth: &Auth) -> Result<(), Wrong> {
    if auth.mode() == AuthMode::Jwt && auth.keys.is_empty() {
        let message =
            "is empty, and auth.mode \"jwt\" needs at least one, such as \"ES256:/etc/corecast/key.pem\"";
        return wrong("auth.keys", message.to_owned());
    }
    within("auth.tickets", auth.tickets, 1, 1 << 24)?;
    let written = humantime::format_duration;
    if auth.leeway > LEEWAY_MAX {
        return wrong(
            "auth.leeway",
            format!("is {}, must be 0s to {}", written(auth.leeway), written(LEEWAY_MAX)),
        );
    }
    if auth.ticket_ttl < Duration::from_millis(1) || auth.ticket_ttl > TTL_MAX {
        let (is, most) = (written(auth.ticket_ttl), written(TTL_MAX));
        return wrong("auth.ticket_ttl", format!("is {is}, must be 1ms to {most}"));
    }
    Ok(())
}

fn admin(admin: &Admin, listen: &[SocketAddr]) -> Result<(), Wrong> {
    within("admin.clients", admin.clients, 1, 1024)?;
    let (token, file) = (admin.token.reveal(), &admin.token_file);
    if let Some(why) = why_no_token(token).filter(|_| !token.is_empty()) {
        return wrong("admin.token", why);
    }
    let has_file = !file.as_os_str().is_empty();
    if has_file && !token.is_empty() {
        return wrong("admin.token_file", "is set beside admin.token, must be one of them".to_owned());
    }
    if has_file && !file.is_absolute() {
        return wrong("admin.token_file", "must be an absolute path".to_owned());
    }
    match admin.listen.filter(|address| address.port() != 0 && listen.contains(address)) {
        Some(twice) => wrong("admin.listen", format!("is {twice}, which listen names for clients")),
        None => Ok(()),
    }
}

/// As browsers write them (RFC 6454 6.2): compared octet by octet, so that one they never send would allow
/// nobody.
fn origins(origins: &[String]) -> Result<(), Wrong> {
    within("web.origins", origins.len(), 0, ORIGINS_MAX)?;
    match origins.iter().find(|origin| !is_origin(origin)) {
        Some(bad) => wrong(
            "web.origins",
            format!(
                "\"{}\" is not an origin as browsers send it: lower case, no path, no default port, as in \
                 \"https://example.org\" or \"http://localhost:3000\"",
                bad.escape_debug()
            ),
        ),
        None => Ok(()),
    }
}

fn is_origin(origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let is_scheme = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    // A colon inside brackets is of an IPv6 address.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_host = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._~[]:".contains(c);
    let is_port = |port: &str| {
        let default = matches!((scheme, port), ("http", "80") | ("https", "443"));
        !port.starts_with('0')
            && !default
            && port.parse::<u16>().is_ok_and(|number| number.to_string() == port)
    };
    scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.chars().all(is_scheme)
        && !host.is_empty()
        && host.chars().all(is_host)
        && (host.starts_with('[') || !host.contains(':'))
        && port.is_none_or(is_port)
}

/// Stricter than the filter's own parser, which takes a mistyped level for the name of a module and
/// then logs nothing at all.
fn log_filter(filter: &str) -> Result<(), Wrong> {
    let level = |word: &str| LOG_LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let bad = filter.split(',').find(|part| match part.rsplit_once('=') {
        Some((target, word)) => target.is_empty() || !level(word),
        None => !level(part),
    });
    if let Some(bad) = bad {
        return wrong(
            "log.level",
            format!(
                "\"{}\" is neither a level ({}) nor a module with one, as in \"corecast::shard=debug,info\"",
                bad.escape_debug(),
                LOG_LEVELS.join(", ")
            ),
        );
    }
    match tracing_subscriber::EnvFilter::try_new(filter) {
        Ok(_) => Ok(()),
        Err(error) => wrong("log.level", format!("\"{}\": {error}", filter.escape_debug())),
    }
}
