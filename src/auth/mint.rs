//! Making tokens for tests: `corecast token`. The gateway itself never signs one.

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value};

use super::keys::{Algorithm, BadKey, Key};

/// A key that signs.
pub struct Signer {
    algorithm: Algorithm,
    id: Option<String>,
    key: EncodingKey,
}

impl Signer {
    /// From the octets of a file: a secret, as `Key::new` takes it, or a private key in PEM (PKCS #8).
    ///
    /// Errors: `NotPrivatePem`, and a secret that `Key::new` refuses.
    pub fn new(algorithm: Algorithm, id: Option<String>, file: &[u8]) -> Result<Self, BadKey> {
        let key = match algorithm {
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => {
                return Self::of(&Key::new(algorithm, id, file)?).ok_or(BadKey::WrongKind(algorithm));
            }
            Algorithm::Rs256 => EncodingKey::from_rsa_pem(file),
            Algorithm::Es256 => EncodingKey::from_ec_pem(file),
            Algorithm::EdDsa => EncodingKey::from_ed_pem(file),
        };
        let key = key.map_err(|_| BadKey::NotPrivatePem(algorithm))?;
        Ok(Self { algorithm, id, key })
    }

    /// A key that verifies and signs; `None` where it only verifies.
    pub fn of(key: &Key) -> Option<Self> {
        Some(Self { algorithm: key.algorithm, id: key.id.clone(), key: key.signing()? })
    }

    /// The same under another `kid`.
    pub fn named(self, id: Option<String>) -> Self {
        Self { id: id.or(self.id), ..self }
    }

    /// A token with these claims. Errors: `NotPrivatePem` where the key turns out not to sign.
    pub fn sign(&self, claims: &Map<String, Value>) -> Result<String, BadKey> {
        let mut header = Header::new(self.algorithm.foreign());
        header.kid.clone_from(&self.id);
        jsonwebtoken::encode(&header, claims, &self.key).map_err(|_| BadKey::NotPrivatePem(self.algorithm))
    }
}
