//! Which keys a running gateway takes over.

use corecast::config::{Change, Config};
use toml::Table;

/// What cannot change while the gateway runs.
const KEPT: [&str; 8] = [
    "admin.listen",
    "control.mailbox_bytes",
    "control.mailbox_messages",
    "control.socket",
    "listen",
    "log.format",
    "network.proxy_protocol",
    "shards",
];

/// Every key at another value than its default.
const OTHER: &str = r#"
listen = ["127.0.0.1:1"]
shards = 3
[control]
socket = "/a"
allow_uids = [1]
allow_gids = [1]
clients = 1
reply_bytes = 1
body_bytes = 1
request_timeout = "1s"
mailbox_messages = 1
mailbox_bytes = 1
[limits]
head_bytes = 64
header_lines = 1
target_bytes = 1
message_bytes = 1
fragments = 1
topics_per_connection = 1
send_backlog_bytes = 1
poll_bytes = 1
socket_send_bytes = 4096
connections = 1
connections_per_address = 1
connects_per_address = 1
trusted = ["10.0.0.0/8"]
memory = "1GiB"
connects_per_second = 1
uplinks_per_second = 1
[timeouts]
handshake = "1s"
message = "1s"
send = "1s"
close = "1s"
heartbeat = "1s"
heartbeat_min = "1s"
heartbeat_max = "1s"
pong = "1s"
drain = "1s"
[network]
proxy_protocol = ["127.0.0.1:1"]
trusted_proxies = ["10.0.0.1"]
allow = ["10.0.0.0/8"]
deny = ["10.0.0.2"]
[history]
messages = 1
bytes = 1
age = "1s"
[auth]
mode = "open"
anonymous = false
keys = ["ES256:/a"]
issuer = "a"
audience = ["a"]
leeway = "1s"
ticket_ttl = "1s"
tickets = 1
[web]
origins = ["https://a"]
demo = true
echo = true
echo_public = true
[log]
level = "off"
format = "json"
[admin]
listen = "127.0.0.1:2"
token = "0123456789abcdef"
token_file = "/a"
clients = 1
"#;

fn keys(table: &Table) -> Vec<String> {
    let mut keys = Vec::new();
    for (name, value) in table {
        match value.as_table() {
            Some(inner) => keys.extend(inner.keys().map(|key| format!("{name}.{key}"))),
            None => keys.push(name.clone()),
        }
    }
    keys.sort();
    keys
}

#[test]
fn issue_5_every_key_is_taken_over_or_named_as_one_that_needs_a_restart() {
    let other: Config = toml::from_str(OTHER).unwrap();
    let every = keys(&toml::from_str(&other.to_toml()).unwrap());
    let change = Change::new(&Config::default(), other.clone());
    assert_eq!(change.kept, KEPT);
    let mut named = [change.taken, change.kept].concat();
    named.sort();
    assert_eq!(named, every);
    let effective = toml::from_str::<Table>(&change.config.to_toml()).unwrap();
    let (old, new) = (Config::default().to_toml(), other.to_toml());
    let (old, new) = (old.parse::<Table>().unwrap(), new.parse::<Table>().unwrap());
    let value = |table: &Table, key: &str| match key.split_once('.') {
        Some((section, key)) => table[section].get(key).cloned(),
        None => table.get(key).cloned(),
    };
    for key in every {
        let from = if KEPT.contains(&key.as_str()) { &old } else { &new };
        assert_eq!(value(&effective, &key), value(from, &key), "{key}");
    }
}

#[test]
fn issue_5_the_same_configuration_changes_nothing() {
    let change = Change::new(&Config::default(), Config::default());
    assert_eq!((change.taken.len(), change.kept.len()), (0, 0));
}

#[test]
fn issue_6_another_auth_mode_waits_for_a_restart_with_all_that_belongs_to_it() {
    let jwt = "[auth]\nmode = \"jwt\"\nkeys = [\"ES256:/a\"]\n";
    let (jwt, open): (Config, Config) = (toml::from_str(jwt).unwrap(), Config::default());
    for (old, new) in [(&jwt, &open), (&open, &jwt)] {
        let change = Change::new(old, new.clone());
        assert_eq!(change.config.auth, old.auth);
        assert_eq!(
            (change.taken, change.kept),
            (vec![], vec!["auth.keys".to_owned(), "auth.mode".to_owned()])
        );
    }
    let named: Config = toml::from_str("auth.mode = \"open\"\nauth.anonymous = false\n").unwrap();
    assert_eq!(Change::new(&open, named).taken, ["auth.anonymous", "auth.mode"], "the mode is the same");
}
