//! Where the keys of `auth.mode = "jwt"` are, and reading them.
//!
//! An entry of `auth.keys` is one line of text, so that a variable or a flag can set it as well as the file:
//! algorithm, perhaps a `kid`, and the path. Secrets have files only: a configuration is printed and mailed
//! around.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Auth, AuthMode, ConfigError};
use crate::auth::keys::{KEYS_MAX, parse_jwks};
use crate::auth::{Algorithm, BadKey, Key, KeyRing};

/// Longest key file: a set of 64 large RSA keys has 50 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Stands for the algorithm where the file is a set of keys that name theirs.
const JWKS: &str = "jwks";

/// One entry of `auth.keys`: `ES256:/path`, `ES256:kid:/path` or `jwks:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// `None` is a JWK set.
    pub algorithm: Option<Algorithm>,
    /// The key's `kid`.
    pub id: Option<String>,
    /// Absolute.
    pub file: PathBuf,
}

impl FromStr for KeySource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let algorithm = match name {
            JWKS => None,
            name => Some(name.parse::<Algorithm>().map_err(|_| wrong(text))?),
        };
        let (id, file) = match rest.split_once(":/") {
            _ if rest.starts_with('/') => (None, rest.to_owned()),
            Some((id, file)) if algorithm.is_some() && !id.is_empty() => {
                (Some(id.to_owned()), format!("/{file}"))
            }
            _ => return Err(wrong(text)),
        };
        Ok(Self { algorithm, id, file: file.into() })
    }
}

fn wrong(text: &str) -> String {
    let names = Algorithm::ALL.map(Algorithm::name).join(", ");
    format!(
        "\"{}\" is not a key such as \"ES256:/etc/corecast/key.pem\", \"ES256:kid:/etc/corecast/key.pem\" or \
         \"jwks:/etc/corecast/keys.json\": one of {names} or jwks, and an absolute path",
        text.escape_debug()
    )
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm.map_or(JWKS, Algorithm::name))?;
        self.id.iter().try_for_each(|id| write!(f, ":{id}"))?;
        write!(f, ":{}", self.file.display())
    }
}

impl Serialize for KeySource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeySource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The keys as they are now, and what an operator should know about their files.
#[derive(Debug, Default)]
pub struct Keys {
    /// Empty in every auth mode but `jwt`.
    pub ring: KeyRing,
    /// One line each.
    pub warnings: Vec<String>,
}

/// Reads every file of `auth.keys`. Errors: `Key`, with the file and what is wrong with it.
pub fn read_keys(auth: &Auth) -> Result<Keys, ConfigError> {
    let (mut keys, mut warnings) = (Vec::new(), Vec::new());
    let sources = if auth.mode() == AuthMode::Jwt { &auth.keys[..] } else { &[] };
    for source in sources {
        let refused = |why: String| ConfigError::Key { file: source.file.clone(), why };
        let (octets, mode) =
            read(&source.file).map_err(|error| refused(format!("cannot be read: {error}")))?;
        let bad = |bad: BadKey| refused(bad.to_string());
        let (read, others) = match source.algorithm {
            Some(algorithm) => (vec![Key::new(algorithm, source.id.clone(), &octets).map_err(bad)?], 0),
            None => parse_jwks(&octets).map_err(bad)?,
        };
        let file = source.file.display();
        if others > 0 {
            warnings.push(format!("auth.keys: {file}: {others} of its keys are not for tokens served here"));
        }
        if mode & 0o007 != 0 && read.iter().any(Key::is_secret) {
            warnings.push(format!(
                "auth.keys: {file} holds a secret and is open to every user of this host (mode {:04o}); \
                 try: chmod o= {file}",
                mode & 0o7777
            ));
        }
        keys.extend(read);
        if keys.len() > KEYS_MAX {
            return Err(refused(format!("makes it {} keys, at most {KEYS_MAX} are served", keys.len())));
        }
    }
    Ok(Keys { ring: KeyRing::new(keys), warnings })
}

/// The file's octets and its mode.
pub(super) fn read(path: &Path) -> std::io::Result<(Vec<u8>, u32)> {
    let file = std::fs::File::open(path)?;
    let mode = file.metadata()?.mode();
    let mut octets = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other("it is longer than 1 MiB"));
    }
    Ok((octets, mode))
}
