//! Verifying a JSON Web Token (RFC 7519) in the compact form of a JWS (RFC 7515).
//!
//! The order is fixed: form, key, signature, and only then what the claims say. Nothing of a token whose
//! signature does not hold is believed or repeated.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::keys::{Algorithm, KeyRing};
use super::{Identity, Patterns};
use crate::message::UserId;

/// Longest token, in bytes: a larger one is of no use in a request head.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What a token must say beyond its signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// `iss` must be this.
    pub issuer: Option<String>,
    /// `aud` must name one of these; with none of them it is not looked at.
    pub audience: Vec<String>,
    /// How far the issuer's clock may differ from ours, in milliseconds, for `exp` and `nbf` alike.
    pub leeway_ms: u64,
    /// Whether a token without `sub` is one.
    pub anonymous: bool,
}

/// Keys and rules.
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    rules: Rules,
    keys: KeyRing,
}

/// Why a token is refused. Says which check failed, never what the token holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadToken {
    /// Not three parts of base64url, the first two JSON objects.
    Malformed,
    /// Another algorithm than those served, `none` among them.
    Algorithm,
    /// Asks for an extension (`crit`, RFC 7515 4.1.11), of which there is none.
    Critical,
    /// No key for its algorithm and `kid`.
    NoKey,
    /// The signature is not of such a key.
    Signature,
    /// This claim is not of the right shape.
    Claim(&'static str),
    /// `exp` has passed.
    Expired,
    /// `nbf` is still to come.
    NotYet,
    /// Not from `auth.issuer`.
    Issuer,
    /// Not for one of `auth.audience`.
    Audience,
    /// No `sub`, and anonymous clients are not served.
    Anonymous,
}

impl fmt::Display for BadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the token is not a JSON Web Token",
            Self::Algorithm => "the token's algorithm is not served",
            Self::Critical => "the token asks for an extension (crit)",
            Self::NoKey => "there is no key for the token's algorithm and kid",
            Self::Signature => "the token's signature does not hold",
            Self::Claim(name) => return write!(f, "the token's claim {name} is malformed"),
            Self::Expired => "the token has expired (exp)",
            Self::NotYet => "the token is not valid yet (nbf)",
            Self::Issuer => "the token is of another issuer (iss)",
            Self::Audience => "the token is for another audience (aud)",
            Self::Anonymous => "the token names no user (sub), and anonymous clients are not served",
        })
    }
}

impl std::error::Error for BadToken {}

/// A token that is refused, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The first check that failed.
    pub why: BadToken,
    /// `sub`, where the signature holds: by the issuer's word, though not for here and now.
    pub user: Option<UserId>,
}

impl From<BadToken> for Refused {
    fn from(why: BadToken) -> Self {
        Self { why, user: None }
    }
}

impl Verifier {
    /// With `keys` under `rules`.
    pub fn new(rules: Rules, keys: KeyRing) -> Self {
        Self { rules, keys }
    }

    /// Who the bearer of `token` is, at `now_unix_ms` (milliseconds of Unix time).
    ///
    /// The identity expires at `exp` and the leeway. Errors: the first check that failed.
    ///
    /// Source: RFC 7519 4.1, 7.2; RFC 8725 3.1, 3.2 (the algorithm is the key's).
    pub fn verify(&self, token: &str, now_unix_ms: u64) -> Result<Identity, BadToken> {
        self.judge(token, now_unix_ms).map_err(|refused| refused.why)
    }

    /// As `verify`. Errors: tell, too, whose token it is where that is certain.
    pub fn judge(&self, token: &str, now_unix_ms: u64) -> Result<Identity, Refused> {
        let claims = self.claims(token)?;
        self.identity(&claims, now_unix_ms).map_err(|why| {
            let user = text(&claims, "sub").ok().flatten().and_then(|sub| UserId::new(sub).ok());
            Refused { why, user }
        })
    }

    /// What a token whose signature holds says.
    fn claims(&self, token: &str) -> Result<Map<String, Value>, BadToken> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(BadToken::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(BadToken::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(BadToken::Malformed)?;
        let header = object(header)?;
        if header.contains_key("crit") {
            return Err(BadToken::Critical);
        }
        let algorithm = text(&header, "alg").ok().flatten();
        let algorithm: Algorithm = algorithm.and_then(|name| name.parse().ok()).ok_or(BadToken::Algorithm)?;
        let id = text(&header, "kid").map_err(|_| BadToken::Malformed)?;
        self.check_signature(algorithm, id, message, signature)?;
        object(payload)
    }

    fn check_signature(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
        message: &str,
        signature: &str,
    ) -> Result<(), BadToken> {
        let mut candidates = self.keys.candidates(algorithm, id).peekable();
        candidates.peek().ok_or(BadToken::NoKey)?;
        let holds = |key: &super::Key| {
            let (message, key) = (message.as_bytes(), &key.verifying);
            jsonwebtoken::crypto::verify(signature, message, key, algorithm.foreign()).unwrap_or(false)
        };
        if candidates.any(holds) { Ok(()) } else { Err(BadToken::Signature) }
    }

    fn identity(&self, claims: &Map<String, Value>, now_unix_ms: u64) -> Result<Identity, BadToken> {
        let Rules { issuer, audience, leeway_ms, anonymous } = &self.rules;
        let expires_unix_ms = time_ms(claims, "exp")?.map(|exp| exp.saturating_add(*leeway_ms));
        if expires_unix_ms.is_some_and(|expires| expires <= now_unix_ms) {
            return Err(BadToken::Expired);
        }
        if time_ms(claims, "nbf")?.is_some_and(|nbf| nbf > now_unix_ms.saturating_add(*leeway_ms)) {
            return Err(BadToken::NotYet);
        }
        if issuer.is_some() && text(claims, "iss")? != issuer.as_deref() {
            return Err(BadToken::Issuer);
        }
        if !audience.is_empty() && !names_one_of(claims, audience)? {
            return Err(BadToken::Audience);
        }
        let user = text(claims, "sub")?.map(UserId::new).transpose().map_err(|_| BadToken::Claim("sub"))?;
        if user.is_none() && !anonymous {
            return Err(BadToken::Anonymous);
        }
        Ok(Identity {
            user,
            expires_unix_ms,
            topics: topics(claims)?,
            connections_max: connections_max(claims)?,
            single: single(claims)?,
        })
    }
}

fn object(part: &str) -> Result<Map<String, Value>, BadToken> {
    let octets = URL_SAFE_NO_PAD.decode(part).map_err(|_| BadToken::Malformed)?;
    serde_json::from_slice(&octets).map_err(|_| BadToken::Malformed)
}

// A claim that is there with another shape, `null` included, is never taken for one that is absent: where
// it restricts something, that would lift the restriction.

fn text<'c>(claims: &'c Map<String, Value>, name: &'static str) -> Result<Option<&'c str>, BadToken> {
    claims.get(name).map(|value| value.as_str().ok_or(BadToken::Claim(name))).transpose()
}

/// A NumericDate (RFC 7519 2: seconds, perhaps with a fraction) in milliseconds, rounded up.
fn time_ms(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, BadToken> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    if let Some(seconds) = value.as_u64() {
        return Ok(Some(seconds.saturating_mul(1000)));
    }
    let seconds = value.as_f64().ok_or(BadToken::Claim(name))?;
    // Saturates: what lies before 1970 has passed.
    Ok(Some((seconds * 1000.0).ceil() as u64))
}

fn names_one_of(claims: &Map<String, Value>, audience: &[String]) -> Result<bool, BadToken> {
    let is_ours = |value: &Value| value.as_str().is_some_and(|named| audience.iter().any(|one| one == named));
    match claims.get("aud") {
        None => Ok(false),
        Some(one @ Value::String(_)) => Ok(is_ours(one)),
        Some(Value::Array(several)) => Ok(several.iter().any(is_ours)),
        Some(_) => Err(BadToken::Claim("aud")),
    }
}

fn topics(claims: &Map<String, Value>) -> Result<Option<Patterns>, BadToken> {
    let wrong = BadToken::Claim("topics");
    let Some(value) = claims.get("topics") else { return Ok(None) };
    let texts: Option<Vec<&str>> = value.as_array().ok_or(wrong)?.iter().map(Value::as_str).collect();
    Patterns::new(texts.ok_or(wrong)?).map(Some).map_err(|_| wrong)
}

fn connections_max(claims: &Map<String, Value>) -> Result<Option<u32>, BadToken> {
    let number = |value: &Value| value.as_u64().map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    let value = claims.get("max_connections");
    value.map(|value| number(value).ok_or(BadToken::Claim("max_connections"))).transpose()
}

fn single(claims: &Map<String, Value>) -> Result<bool, BadToken> {
    claims.get("single").map_or(Ok(false), |value| value.as_bool().ok_or(BadToken::Claim("single")))
}
