//! Who signs tokens: a secret in a file that goes with the test, and tokens under it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use corecast::auth::Algorithm;
use corecast::auth::mint::Signer;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Gateway;

/// An issuer with a secret for HS256.
pub struct Issuer {
    signer: Signer,
    directory: TempDir,
}

/// Milliseconds of Unix time.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

impl Issuer {
    /// Whose secret is this octet, 32 times.
    pub fn new(octet: u8) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        std::fs::write(&file, [octet; 32]).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        Self { signer: Signer::new(Algorithm::Hs256, None, &[octet; 32]).unwrap(), directory }
    }

    pub fn file(&self) -> PathBuf {
        self.directory.path().join("secret")
    }

    /// As `--set` takes it.
    pub fn setting(&self) -> String {
        format!("auth.keys=HS256:{}", self.file().display())
    }

    /// A gateway that believes this issuer, with more settings.
    #[track_caller]
    pub fn gateway(&self, settings: &[&str]) -> Gateway {
        let keys = self.setting();
        Gateway::start(&[&["auth.mode=jwt", &keys], settings].concat())
    }

    /// A token with these claims.
    pub fn token(&self, claims: Value) -> String {
        self.signer.sign(claims.as_object().unwrap()).unwrap()
    }

    /// A token of this user that lasts a minute, with more claims.
    pub fn token_of(&self, user: &str, more: Value) -> String {
        let mut claims = json!({"sub": user, "exp": unix_ms() / 1000 + 60});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.token(claims)
    }

    /// `token=` for a query.
    pub fn query(&self, user: &str, more: Value) -> String {
        format!("token={}", self.token_of(user, more))
    }
}
