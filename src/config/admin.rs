//! `[admin]`: where the admin listener is, and the token that opens what is behind it.
//!
//! The token stands in the configuration or in a file of its own, which is read where the keys of clients are
//! read (`read_keys`): at the start and at each reload, by the user that runs the gateway.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::keys::read;
use crate::auth::Secret;

/// Shortest token: 16 characters that `openssl rand -base64` makes are 96 bits.
pub(super) const TOKEN_CHARS_MIN: usize = 16;
/// Longest token: it has to fit into a request's head with everything else.
pub(super) const TOKEN_CHARS_MAX: usize = 512;
/// Stands for a token where the configuration is shown. No token itself, so that nobody takes it for one.
const HIDDEN: &str = "<hidden>";

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where it listens; `None`, written `""`, is nowhere.
    #[serde(with = "listener")]
    pub listen: Option<SocketAddr>,
    /// What opens the paths that tell of clients or act on them; empty is none.
    pub token: Secret,
    /// The same in a file; empty is none.
    pub token_file: PathBuf,
    /// Most clients at once; one more is answered `busy`.
    pub clients: u32,
    /// The token in effect, once `read_token` has found it.
    #[serde(skip)]
    pub bearer: Option<Secret>,
}

impl Default for Admin {
    fn default() -> Self {
        let (token, token_file) = (Secret::default(), PathBuf::new());
        Self { listen: None, token, token_file, clients: 32, bearer: None }
    }
}

impl Admin {
    /// Whether there is to be a token.
    pub fn has_token(&self) -> bool {
        !self.token.reveal().is_empty() || !self.token_file.as_os_str().is_empty()
    }

    /// Finds the token in effect. Gives what an operator should know about its file, one line each.
    ///
    /// Errors: `AdminToken`, with the file and what is wrong with it.
    pub fn read_token(&mut self) -> Result<Vec<String>, ConfigError> {
        let mut warnings = Vec::new();
        self.bearer = match (self.token.reveal(), &self.token_file) {
            ("", file) if file.as_os_str().is_empty() => None,
            ("", file) => {
                let refused = |why| ConfigError::AdminToken { file: file.clone(), why };
                let (octets, mode) =
                    read(file).map_err(|error| refused(format!("cannot be read: {error}")))?;
                let text = String::from_utf8_lossy(&octets);
                let text = text.trim_end_matches(['\n', '\r']);
                if let Some(why) = why_no_token(text) {
                    return Err(refused(format!("holds no token: {why}")));
                }
                if mode & 0o007 != 0 {
                    let (file, mode) = (file.display(), mode & 0o7777);
                    warnings.push(format!(
                        "admin.token_file: {file} is open to every user of this host (mode {mode:04o}); \
                         try: chmod o= {file}"
                    ));
                }
                Some(Secret::new(text.to_owned()))
            }
            (_, _) => Some(self.token.clone()),
        };
        Ok(warnings)
    }

    /// The same, to be shown.
    pub(super) fn without_secrets(&self) -> Self {
        let shown = if self.token.reveal().is_empty() { "" } else { HIDDEN };
        Self { token: Secret::new(shown.to_owned()), bearer: None, ..self.clone() }
    }
}

/// What keeps `text` from being a token (`b64token` of RFC 6750 2.1); never shows it.
pub(super) fn why_no_token(text: &str) -> Option<String> {
    let is_token_char = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    let length = text.chars().count();
    if text == HIDDEN {
        Some(format!("{HIDDEN} is what `corecast config` shows in place of a token"))
    } else if !(TOKEN_CHARS_MIN..=TOKEN_CHARS_MAX).contains(&length) {
        Some(format!("has {length} characters, must have {TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX}"))
    } else if !text.chars().all(is_token_char) {
        Some("has a character that is none of A-Z a-z 0-9 - . _ ~ + / =".to_owned())
    } else {
        None
    }
}

/// An address, or `""`.
mod listener {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::config::addresses;

    pub fn serialize<S: Serializer>(listener: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
        match listener {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str(""),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(None);
        }
        addresses::parse(&text).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issue_7_a_token_has_16_to_512_characters_of_a_bearer_token() {
        for good in ["0123456789abcdef", "Zm9vYmFyYmF6cXV4Zm9v+/==", &"x".repeat(512)] {
            assert_eq!(why_no_token(good), None, "{good}");
        }
        for bad in ["", "0123456789abcde", &"x".repeat(513), "0123456789 abcdef", "0123456789abcdeé", HIDDEN]
        {
            assert!(why_no_token(bad).is_some(), "{bad}");
        }
    }
}
