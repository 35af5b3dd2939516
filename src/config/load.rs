//! Where the configuration comes from: defaults, then the file, then `CORECAST_*` variables, then the
//! command line, each later one winning key by key.
//!
//! Every part is read by itself first, so that a bad value is blamed on the line, the variable or the
//! flag that holds it. Never touches the network or the control socket. Next: `check` for bounds.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::{AuthMode, Config, check};

/// Longest configuration file; beyond it the path names something else.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What every variable of ours begins with.
const PREFIX: &str = "CORECAST_";
/// Names the file, where `--config` does not.
const FILE_VARIABLE: &str = "CORECAST_CONFIG";
/// Short for `CORECAST_CONTROL_SOCKET`; the client commands read it too.
const SOCKET_VARIABLE: &str = "CORECAST_SOCKET";

/// Who set a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of the file.
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable, by name.
    Variable(String),
    /// A flag or `--set`.
    CommandLine,
    /// Nobody: the value is the default, and does not go with one that was set.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::CommandLine => f.write_str("command line"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Why there is no configuration; the process ends with status 2.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Not TOML, an unknown key, a wrong type, or a value out of its bounds.
    Value {
        /// The key, where one is concerned: `limits.message_bytes`.
        key: Option<String>,
        /// Who set it.
        origin: Origin,
        /// What is wrong and what would be right, with the numbers.
        message: String,
    },
    /// A `CORECAST_*` variable that names no key.
    UnknownVariable {
        /// The variable.
        name: String,
    },
    /// A listener is not loopback, and the file does not say that everybody may be anybody there.
    OpenListener {
        /// The listener.
        listener: SocketAddr,
        /// The file that was read, if any.
        file: Option<PathBuf>,
    },
    /// The admin listener is not loopback, and there is no token.
    OpenAdmin {
        /// The listener.
        listener: SocketAddr,
    },
    /// The file that `admin.token_file` names holds no token.
    AdminToken {
        /// The file.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// A file that `auth.keys` names holds no key that can be used.
    Key {
        /// The file.
        file: PathBuf,
        /// Why.
        why: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } => {
                writeln!(f, "cannot read the configuration file {}: {error}", path.display())?;
                write!(f, "try: ls -l {}, or name another with --config FILE", path.display())
            }
            Self::Value { key, origin, message } => {
                write!(f, "{origin}: ")?;
                if let Some(key) = key {
                    write!(f, "{}: ", printable(key))?;
                }
                writeln!(f, "{}", printable(message))?;
                write!(f, "try: env -i corecast config, which prints every key with its default")
            }
            Self::UnknownVariable { name } => {
                writeln!(f, "{}: no key has this variable", printable(name))?;
                writeln!(f, "likely cause: a typing error, or a key of another version")?;
                write!(f, "try: unset {}; the name is CORECAST_<SECTION>_<KEY>", printable(name))?;
                write!(f, ", as in CORECAST_LIMITS_MESSAGE_BYTES")
            }
            Self::Key { file, why } => {
                writeln!(f, "auth.keys: {} {why}", file.display())?;
                write!(
                    f,
                    "try: ls -l {}; the keys are read as the user that runs the gateway",
                    file.display()
                )
            }
            Self::OpenAdmin { listener } => {
                write!(f, "admin.listen: {listener} is not a loopback address, and without a token ")?;
                writeln!(f, "everybody who reaches it could read what this gateway does")?;
                writeln!(f, "likely cause: neither admin.token nor admin.token_file is set")?;
                write!(
                    f,
                    "try: (umask 027; openssl rand -base64 32 >/etc/corecast/admin.token), give the file "
                )?;
                write!(
                    f,
                    "to the gateway's group,\n  and set admin.token_file = \"/etc/corecast/admin.token\"; "
                )?;
                write!(f, "or listen on 127.0.0.1")
            }
            Self::AdminToken { file, why } => {
                writeln!(f, "admin.token_file: {} {why}", file.display())?;
                write!(f, "try: (umask 027; openssl rand -base64 32 >{})", file.display())?;
                write!(f, "; it is read as the user that runs the gateway")
            }
            Self::OpenListener { listener, file } => {
                write!(f, "listen: {listener} is not a loopback address, and in auth mode \"open\" ")?;
                writeln!(f, "every client that reaches it is whoever it says it is")?;
                writeln!(
                    f,
                    "likely cause: auth.mode is not set in the file (variables and flags do not count)"
                )?;
                let path = Path::new("/etc/corecast/corecast.toml");
                let path = file.as_deref().unwrap_or(path).display();
                write!(f, "try: if that is meant, put these two lines into {path}")?;
                if file.is_none() {
                    write!(f, " and give it with --config")?;
                }
                write!(f, ":\n    [auth]\n    mode = \"open\"\n  or listen on 127.0.0.1")
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// The process's `CORECAST_*` variables, for `load`. Errors: `Value` for one that is not UTF-8.
pub fn environment() -> Result<Vec<(String, String)>, ConfigError> {
    let ours = std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    ours.map(|(name, value)| {
        let name = name.to_string_lossy().into_owned();
        value.into_string().map(|value| (name.clone(), value)).map_err(|_| ConfigError::Value {
            key: None,
            origin: Origin::Variable(name),
            message: "is not UTF-8".to_owned(),
        })
    })
    .collect()
}

/// Reads `section.key=value`, as `--set` takes it, into `overrides`; lists are comma-separated.
///
/// Errors: `Value` for an assignment without `=`, or a key that does not exist. The value is judged
/// by `load`.
pub fn assign(overrides: &mut Table, assignment: &str) -> Result<(), ConfigError> {
    let refused = |key: Option<&str>, message: &str| ConfigError::Value {
        key: key.map(str::to_owned),
        origin: Origin::CommandLine,
        message: message.to_owned(),
    };
    let (key, text) =
        assignment.split_once('=').ok_or_else(|| refused(Some(assignment), "must be section.key=value"))?;
    let sample = samples().remove(key).ok_or_else(|| refused(Some(key), "unknown key"))?;
    put(overrides, key, read(&sample, text));
    Ok(())
}

/// The effective configuration: `overrides` (a table shaped like the file) beat `env` beat `file`.
///
/// Of `env` only names that begin with `CORECAST_` count: section, then key, upper case
/// (`CORECAST_LISTEN`, `CORECAST_LIMITS_MESSAGE_BYTES`), `CORECAST_SOCKET` for `control.socket`, and
/// `CORECAST_CONFIG` for the file where `file` is `None`; the last two count as unset when empty. Without
/// either no file is read. What Kubernetes sets for a service of our name counts as not there.
///
/// Errors: every `ConfigError`.
pub fn load(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    overrides: Table,
) -> Result<Config, ConfigError> {
    let (variable_file, variables) = read_variables(env)?;
    let file = file.map(Path::to_owned).or(variable_file);
    let (mut merged, mut origins) = match &file {
        Some(path) => read_file(path)?,
        None => Default::default(),
    };
    let mode_in_file = merged.get("auth").is_some_and(|auth| auth.get("mode").is_some());
    let flags = leaves(overrides).into_iter().map(|(key, value)| (key, value, Origin::CommandLine));
    for (key, value, origin) in variables.into_iter().chain(flags) {
        let mut alone = Table::new();
        put(&mut alone, &key, value.clone());
        if let Err(error) = alone.try_into::<Config>() {
            return Err(ConfigError::Value { key: Some(key), origin, message: in_our_words(&error) });
        }
        put(&mut merged, &key, value);
        origins.insert(key, origin);
    }
    let config: Config = merged.try_into().expect("each part was read by itself");
    check::check(&config).map_err(|wrong| ConfigError::Value {
        key: Some(wrong.key.to_owned()),
        origin: origins.get(wrong.key).cloned().unwrap_or(Origin::Default),
        message: wrong.message,
    })?;
    refuse_open_listener(&config, mode_in_file, file)?;
    refuse_open_admin(&config)?;
    Ok(config)
}

/// Contract section 5: mode `open` where strangers can connect only if the file names it.
fn refuse_open_listener(
    config: &Config,
    mode_in_file: bool,
    file: Option<PathBuf>,
) -> Result<(), ConfigError> {
    let open = config.auth.mode() == AuthMode::Open;
    let public = config.listen.iter().find(|listener| !listener.ip().to_canonical().is_loopback());
    match public {
        Some(&listener) if open && !mode_in_file => Err(ConfigError::OpenListener { listener, file }),
        _ => Ok(()),
    }
}

/// Whether Kubernetes set the variable, as it does in every container for each service, here one whose name begins
/// with `corecast`: `<NAME>_SERVICE_HOST`, `<NAME>_SERVICE_PORT…`, and `<NAME>_PORT…` as Docker's links had them.
fn is_of_a_service(name: &str) -> bool {
    let of_port = |(_, rest): (&str, &str)| {
        let mut parts = rest.split('_');
        let number = parts.next().is_some_and(|part| part.parse::<u16>().is_ok());
        number && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.split_once("_PORT_").is_some_and(of_port)
}

/// Beyond loopback nobody is told anything without the token.
fn refuse_open_admin(config: &Config) -> Result<(), ConfigError> {
    let public = config.admin.listen.filter(|listener| !listener.ip().to_canonical().is_loopback());
    match public {
        Some(listener) if !config.admin.has_token() => Err(ConfigError::OpenAdmin { listener }),
        _ => Ok(()),
    }
}

type Variables = Vec<(String, Value, Origin)>;

/// The file that the environment names, and the keys that it sets.
fn read_variables(
    env: impl Iterator<Item = (String, String)>,
) -> Result<(Option<PathBuf>, Variables), ConfigError> {
    let samples = samples();
    let name_of = |key: &str| format!("{PREFIX}{}", key.replace('.', "_").to_uppercase());
    let keys: BTreeMap<String, &String> = samples.keys().map(|key| (name_of(key), key)).collect();
    let socket_key = "control.socket".to_owned();
    let (mut file, mut variables) = (None, Variables::new());
    for (name, text) in env.filter(|(name, _)| name.starts_with(PREFIX)) {
        let key = match name.as_str() {
            FILE_VARIABLE | SOCKET_VARIABLE if text.is_empty() => continue,
            FILE_VARIABLE => {
                file = Some(PathBuf::from(text));
                continue;
            }
            SOCKET_VARIABLE => &socket_key,
            _ => match keys.get(&name) {
                Some(key) => *key,
                None if is_of_a_service(&name) => continue,
                None => return Err(ConfigError::UnknownVariable { name }),
            },
        };
        let origin = Origin::Variable(name);
        if let Some((key, _, other)) = variables.iter().find(|(other, ..)| other == key) {
            let message = format!("is set by {other} too; unset one of them");
            return Err(ConfigError::Value { key: Some(key.clone()), origin, message });
        }
        variables.push((key.clone(), read(&samples[key], &text), origin));
    }
    Ok((file, variables))
}

/// The file's keys, and the line of each.
fn read_file(path: &Path) -> Result<(Table, BTreeMap<String, Origin>), ConfigError> {
    let unreadable = |error| ConfigError::Unreadable { path: path.to_owned(), error };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable(io::Error::other("it is longer than 1 MiB")));
    }
    let origin = |offset: usize| Origin::File {
        path: path.to_owned(),
        line: 1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count(),
    };
    let mut lines = BTreeMap::new();
    let refused = |error: toml::de::Error| {
        let offset = error.span().map_or(0, |span| span.start);
        let key = DeTable::parse(&text).ok().and_then(|table| key_at(table.get_ref(), offset));
        ConfigError::Value { key, origin: origin(offset), message: in_our_words(&error) }
    };
    toml::from_str::<Config>(&text).map_err(refused)?;
    let table = toml::from_str::<Table>(&text).map_err(refused)?;
    let spanned = DeTable::parse(&text).map_err(refused)?;
    for_each_key(spanned.get_ref(), "", &mut |key, offset| {
        lines.insert(key, origin(offset));
    });
    Ok((table, lines))
}

/// Calls `see` with the path and the offset of every key, sections included.
fn for_each_key(table: &DeTable<'_>, section: &str, see: &mut impl FnMut(String, usize)) {
    for (name, value) in table {
        let key = join(section, name.get_ref());
        if let DeValue::Table(inner) = value.get_ref() {
            for_each_key(inner, &key, see);
        }
        see(key, name.span().start);
    }
}

/// The key whose name or value stands at `offset`, the innermost one.
fn key_at(table: &DeTable<'_>, offset: usize) -> Option<String> {
    table.iter().find_map(|(name, value)| {
        if let DeValue::Table(inner) = value.get_ref()
            && let Some(below) = key_at(inner, offset)
        {
            return Some(join(name.get_ref(), &below));
        }
        let stands = name.span().contains(&offset) || value.span().contains(&offset);
        stands.then(|| name.get_ref().to_string())
    })
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// serde says "field", the documentation says "key".
fn in_our_words(error: &toml::de::Error) -> String {
    error.message().replace("unknown field", "unknown key").replace("no fields", "no keys")
}

/// Every key with its default, as an example of its type.
fn samples() -> BTreeMap<String, Value> {
    let mut config = Config::default();
    // Absent by default, and so would be missing here.
    config.auth.mode = Some(AuthMode::Open);
    let table = Table::try_from(config).expect("every key is a plain TOML value");
    leaves(table).into_iter().collect()
}

/// `text` as a value of the sample's type; left as text where it is not one, for serde to refuse.
fn read(sample: &Value, text: &str) -> Value {
    let integer = |text: &str| text.parse().map_or_else(|_| Value::from(text), Value::Integer);
    match sample {
        Value::Integer(_) => integer(text.trim()),
        Value::Boolean(_) => text.trim().parse().map_or_else(|_| Value::from(text), Value::Boolean),
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(integer).collect())
        }
        _ => Value::from(text),
    }
}

/// Every key below `table` with its value.
pub(super) fn leaves(table: Table) -> Vec<(String, Value)> {
    let below = |(name, value): (String, Value)| match value {
        Value::Table(inner) => {
            let inner = leaves(inner).into_iter();
            inner.map(|(key, value)| (join(&name, &key), value)).collect()
        }
        value => vec![(name, value)],
    };
    table.into_iter().flat_map(below).collect()
}

fn put(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, key)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                put(inner, key, value);
            }
        }
    }
}

/// A file may hold terminal controls inside its keys; a message must not.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}
