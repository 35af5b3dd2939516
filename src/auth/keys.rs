//! Keys that tokens are signed with, from the octets of their files.
//!
//! A key has one algorithm, which the operator or the key itself names: what a token says about it only
//! chooses among the keys. Signatures are checked by `jsonwebtoken` over AWS-LC.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyOperations, PublicKeyUse};
use jsonwebtoken::{DecodingKey, EncodingKey};

/// Most keys: a token without `kid` is tried with each of its algorithm.
pub const KEYS_MAX: usize = 64;
/// Shortest RSA modulus (RFC 7518 3.3).
const RSA_BITS_MIN: usize = 2048;

/// How a token is signed (RFC 7518 3.1; EdDSA with Ed25519, RFC 8037 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSA, PKCS #1 v1.5, with SHA-256.
    Rs256,
    /// ECDSA over P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

/// The text names no algorithm that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownAlgorithm;

impl Algorithm {
    /// Every one.
    pub const ALL: [Self; 6] = [Self::Hs256, Self::Hs384, Self::Hs512, Self::Rs256, Self::Es256, Self::EdDsa];

    /// As tokens name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Where one secret both signs and verifies, its least length in bytes: that of the hash
    /// (RFC 7518 3.2).
    pub fn secret_bytes_min(self) -> Option<usize> {
        match self {
            Self::Hs256 => Some(32),
            Self::Hs384 => Some(48),
            Self::Hs512 => Some(64),
            Self::Rs256 | Self::Es256 | Self::EdDsa => None,
        }
    }

    pub(super) fn foreign(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Hs384 => jsonwebtoken::Algorithm::HS384,
            Self::Hs512 => jsonwebtoken::Algorithm::HS512,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;
    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == text).ok_or(UnknownAlgorithm)
    }
}

impl fmt::Display for UnknownAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Algorithm::ALL.map(Algorithm::name);
        write!(f, "the algorithm must be one of {}", names.join(", "))
    }
}

impl std::error::Error for UnknownAlgorithm {}

/// Why octets are no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadKey {
    /// A secret that is easier to guess than its hash.
    ShortSecret {
        /// For which algorithm.
        algorithm: Algorithm,
        /// How long it is.
        bytes: usize,
    },
    /// Neither `PUBLIC KEY` nor `RSA PUBLIC KEY` in PEM.
    NotPublicPem,
    /// A private key, which only who signs should have.
    Private,
    /// Not a private key in PEM for this algorithm.
    NotPrivatePem(Algorithm),
    /// A key of another kind than the algorithm takes, or broken.
    WrongKind(Algorithm),
    /// An RSA key of so many bits.
    ShortRsa(usize),
    /// Not `{"keys":[…]}` (RFC 7517 5).
    NotJwks,
    /// A key of the set is refused.
    InSet {
        /// Which, counted from 1.
        place: usize,
        /// Why.
        why: Box<BadKey>,
    },
    /// A set without a key that could verify a token.
    NoneUsable,
    /// A symmetric key of a set without `alg`.
    NoAlgorithm,
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShortSecret { algorithm, bytes } => {
                let bytes_min = algorithm.secret_bytes_min().unwrap_or_default();
                write!(f, "has {bytes} bytes, {algorithm} needs at least {bytes_min}; ")?;
                write!(f, "openssl rand -base64 {bytes_min} makes one")
            }
            Self::NotPublicPem => f.write_str("is not a public key in PEM (BEGIN PUBLIC KEY)"),
            Self::Private => f.write_str(
                "is a private key, and the gateway needs only the public one: \
                 openssl pkey -in PRIVATE -pubout writes it",
            ),
            Self::NotPrivatePem(algorithm) => {
                write!(f, "is not a private key for {algorithm} in PEM (BEGIN PRIVATE KEY)")
            }
            Self::WrongKind(algorithm) => write!(f, "is not a key for {algorithm}"),
            Self::ShortRsa(bits) => write!(f, "has {bits} bits, RSA needs at least {RSA_BITS_MIN}"),
            Self::NotJwks => f.write_str("is not a JWK set, {\"keys\":[…]}"),
            Self::InSet { place, why } => write!(f, "key {place} of the set {why}"),
            Self::NoneUsable => {
                let names = Algorithm::ALL.map(Algorithm::name);
                write!(f, "has no key that verifies one of {}", names.join(", "))
            }
            Self::NoAlgorithm => f.write_str("is symmetric and has no alg"),
        }
    }
}

impl std::error::Error for BadKey {}

/// One key that verifies tokens.
#[derive(Clone)]
pub struct Key {
    /// The one algorithm that it is for.
    pub algorithm: Algorithm,
    /// Its `kid`.
    pub id: Option<String>,
    pub(super) verifying: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("algorithm", &self.algorithm)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// From the octets of a file: a secret, of which one line end at the end is not part, or a public key
    /// in PEM. Errors: what is wrong with it.
    pub fn new(algorithm: Algorithm, id: Option<String>, file: &[u8]) -> Result<Self, BadKey> {
        let verifying = match algorithm.secret_bytes_min() {
            Some(_) => DecodingKey::from_secret(without_line_end(file)),
            None => public_key(algorithm, file)?,
        };
        Self { algorithm, id, verifying }.checked()
    }

    /// Whether the key also signs, so that its file must be kept from others.
    pub fn is_secret(&self) -> bool {
        self.algorithm.secret_bytes_min().is_some()
    }

    /// The key for `mint`; `None` where only its public half is here.
    pub(super) fn signing(&self) -> Option<EncodingKey> {
        let secret = self.verifying.try_get_as_bytes().ok().filter(|_| self.is_secret())?;
        Some(EncodingKey::from_secret(secret))
    }

    /// Of the right kind, and long enough.
    fn checked(self) -> Result<Self, BadKey> {
        let algorithm = self.algorithm;
        let wrong = || BadKey::WrongKind(algorithm);
        let jwk = Jwk::from_decoding_key(&self.verifying, None).map_err(|_| wrong())?;
        match (algorithm, jwk.algorithm) {
            (Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512, AlgorithmParameters::OctetKey(_)) => {
                let bytes = self.verifying.try_get_as_bytes().map_or(0, <[u8]>::len);
                if algorithm.secret_bytes_min().is_some_and(|bytes_min| bytes < bytes_min) {
                    return Err(BadKey::ShortSecret { algorithm, bytes });
                }
            }
            (Algorithm::Rs256, AlgorithmParameters::RSA(rsa)) => {
                let bits = modulus_bits(&rsa.n);
                if bits < RSA_BITS_MIN {
                    return Err(BadKey::ShortRsa(bits));
                }
            }
            (Algorithm::Es256, AlgorithmParameters::EllipticCurve(ec)) if ec.curve == EllipticCurve::P256 => {
            }
            (Algorithm::EdDsa, AlgorithmParameters::OctetKeyPair(_)) => {}
            _ => return Err(wrong()),
        }
        Ok(self)
    }
}

/// Bits of a modulus as JWK writes it (RFC 7518 6.3.1.1), in whole octets.
fn modulus_bits(n: &str) -> usize {
    let octets = URL_SAFE_NO_PAD.decode(n).unwrap_or_default();
    octets.iter().skip_while(|octet| **octet == 0).count() * 8
}

/// What an editor or `openssl rand` puts behind a secret.
fn without_line_end(file: &[u8]) -> &[u8] {
    let file = file.strip_suffix(b"\n").unwrap_or(file);
    file.strip_suffix(b"\r").unwrap_or(file)
}

fn public_key(algorithm: Algorithm, pem: &[u8]) -> Result<DecodingKey, BadKey> {
    let has = |text: &str| pem.windows(text.len()).any(|octets| octets == text.as_bytes());
    if has("PRIVATE KEY-----") {
        return Err(BadKey::Private);
    }
    // A certificate holds several keys' worth of octets, and the library would take the first.
    if !has("-----BEGIN PUBLIC KEY-----") && !has("-----BEGIN RSA PUBLIC KEY-----") {
        return Err(BadKey::NotPublicPem);
    }
    let key = match algorithm {
        Algorithm::Rs256 => DecodingKey::from_rsa_pem(pem),
        Algorithm::Es256 => DecodingKey::from_ec_pem(pem),
        _ => DecodingKey::from_ed_pem(pem),
    };
    key.map_err(|_| BadKey::WrongKind(algorithm))
}

/// The usable keys of a JWK set (RFC 7517), and how many others it has: of algorithms that are not served
/// here, or for encryption.
///
/// Errors: `NotJwks`, `NoneUsable`, and `InSet` for one that could be used but is too short or broken.
pub fn parse_jwks(file: &[u8]) -> Result<(Vec<Key>, usize), BadKey> {
    let set: JwkSet = serde_json::from_slice(file).map_err(|_| BadKey::NotJwks)?;
    let (mut keys, mut others) = (Vec::new(), 0);
    for (number, jwk) in set.keys.iter().enumerate() {
        let in_set = |why| BadKey::InSet { place: number + 1, why: Box::new(why) };
        let Some(algorithm) = algorithm_of(jwk).map_err(in_set)? else {
            others += 1;
            continue;
        };
        let verifying = DecodingKey::from_jwk(jwk).map_err(|_| in_set(BadKey::WrongKind(algorithm)))?;
        let key = Key { algorithm, id: jwk.common.key_id.clone(), verifying };
        keys.push(key.checked().map_err(in_set)?);
    }
    if keys.is_empty() { Err(BadKey::NoneUsable) } else { Ok((keys, others)) }
}

/// What the key says that it is for; without a word, the one algorithm that its kind can mean. `None` where
/// that is none of ours. Errors: `NoAlgorithm`.
fn algorithm_of(jwk: &Jwk) -> Result<Option<Algorithm>, BadKey> {
    let foreign_use = jwk.common.public_key_use.as_ref().is_some_and(|of| *of != PublicKeyUse::Signature);
    let verifies = [KeyOperations::Verify, KeyOperations::Sign];
    let operations = jwk.common.key_operations.as_ref();
    if foreign_use || operations.is_some_and(|all| !all.iter().any(|one| verifies.contains(one))) {
        return Ok(None);
    }
    if let Some(named) = jwk.common.key_algorithm {
        return Ok(named.to_string().parse().ok());
    }
    Ok(match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Some(Algorithm::Rs256),
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => Some(Algorithm::Es256),
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            Some(Algorithm::EdDsa)
        }
        AlgorithmParameters::OctetKey(_) => return Err(BadKey::NoAlgorithm),
        _ => None,
    })
}

/// All keys.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    keys: Vec<Key>,
}

impl KeyRing {
    /// Of `keys`, at most `KEYS_MAX`.
    pub fn new(keys: Vec<Key>) -> Self {
        debug_assert!(keys.len() <= KEYS_MAX);
        Self { keys }
    }

    /// The keys that a token may be signed with: those of its algorithm, and where both have a `kid` only
    /// the same.
    pub fn candidates<'k>(
        &'k self,
        algorithm: Algorithm,
        id: Option<&'k str>,
    ) -> impl Iterator<Item = &'k Key> {
        let named = move |key: &&Key| match (key.id.as_deref(), id) {
            (Some(key), Some(wanted)) => key == wanted,
            _ => true,
        };
        self.keys.iter().filter(move |key| key.algorithm == algorithm).filter(named)
    }

    /// The first that signs as well, for `algorithm` where it matters.
    pub fn first_secret(&self, algorithm: Option<Algorithm>) -> Option<&Key> {
        let fits = |key: &&Key| algorithm.is_none_or(|algorithm| key.algorithm == algorithm);
        self.keys.iter().filter(|key| key.is_secret()).find(fits)
    }
}
