//! What a reload changes: which keys differ, which of them a running gateway takes over, and which it
//! cannot.

use std::collections::BTreeMap;
use std::fmt;

use toml::{Table, Value};

use super::load::leaves;
use super::{Config, ConfigError};

/// Reads the configuration again as it was read at the start: `load` with the same file, variables and
/// flags. Errors: every `ConfigError`.
pub type Read = Box<dyn Fn() -> Result<Config, ConfigError> + Send>;

/// Where the configuration comes from, and what of it lies outside the gateway's rooms.
pub struct Source {
    /// Reads it again.
    pub read: Read,
    /// Filters the log.
    pub log_filter: LogFilter,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

/// What is logged, while the gateway runs.
pub struct LogFilter(Box<dyn Fn(&str) + Send>);

impl LogFilter {
    /// `filter` takes a text such as `log.level` is, checked already.
    pub fn new(filter: impl Fn(&str) + Send + 'static) -> Self {
        Self(Box::new(filter))
    }

    /// Filters by `text` from now on.
    pub fn set(&self, text: &str) {
        (self.0)(text);
    }
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogFilter").finish_non_exhaustive()
    }
}

/// A configuration to go on with, and how it differs from the one before.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    /// The new one, with the old values of `kept`.
    pub config: Config,
    /// Keys that have a new value.
    pub taken: Vec<String>,
    /// Keys that would have one after a restart: sockets, threads and their mailboxes are there already.
    pub kept: Vec<String>,
}

impl Change {
    /// From `old` to `new`.
    pub fn new(old: &Config, new: Config) -> Self {
        let mut config = new;
        let wanted = flat(&config);
        config.listen.clone_from(&old.listen);
        config.shards = old.shards;
        config.control.socket.clone_from(&old.control.socket);
        config.control.mailbox_messages = old.control.mailbox_messages;
        config.control.mailbox_bytes = old.control.mailbox_bytes;
        config.network.proxy_protocol.clone_from(&old.network.proxy_protocol);
        config.log.format = old.log.format;
        config.admin.listen = old.admin.listen;
        // Who is connected was let in by the old mode, and the keys of one mode are nothing to another.
        if config.auth.mode() != old.auth.mode() {
            config.auth.clone_from(&old.auth);
        }
        let (before, after) = (flat(old), flat(&config));
        Self { taken: differing(&before, &after), kept: differing(&after, &wanted), config }
    }
}

fn flat(config: &Config) -> BTreeMap<String, Value> {
    leaves(Table::try_from(config).expect("every key is a plain TOML value")).into_iter().collect()
}

/// Keys with another value, or with one on one side only.
fn differing(a: &BTreeMap<String, Value>, b: &BTreeMap<String, Value>) -> Vec<String> {
    let mut keys: Vec<_> = a.keys().chain(b.keys()).filter(|key| a.get(*key) != b.get(*key)).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter().cloned().collect()
}
