//! Minting a token for tests: `token`.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::{Map, Value};

use super::failure::Failure;
use super::print_line;
use super::serve::ConfigFlags;
use crate::auth::mint::Signer;
use crate::auth::{Algorithm, Patterns};
use crate::config::{self, Auth, AuthMode};
use crate::message::{Topic, UserId};

/// `corecast token`
#[derive(Debug, Args)]
pub(super) struct TokenFlags {
    #[command(flatten)]
    config: ConfigFlags,
    /// Sign with this file, a secret or a private key in PEM, instead of the configuration's first secret
    #[arg(long, value_name = "FILE", conflicts_with = "secret")]
    key: Option<PathBuf>,
    /// Sign with this secret; others on this host may see it among the processes
    #[arg(long, value_name = "TEXT")]
    secret: Option<String>,
    /// HS256, HS384, HS512, RS256, ES256 or EdDSA; without it what the key is for, HS256 for a secret
    #[arg(long, value_name = "NAME")]
    alg: Option<Algorithm>,
    /// Name the key so in the header
    #[arg(long, value_name = "ID")]
    kid: Option<String>,
    /// The user (sub); without it the token is anonymous
    #[arg(long, value_name = "ID")]
    user: Option<UserId>,
    /// How long it lasts
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// Patterns of topics that it may subscribe to; without it any
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    topics: Option<Vec<Topic>>,
    /// A connection with it replaces the user's others
    #[arg(long)]
    single: bool,
    /// Most connections of the user
    #[arg(long, value_name = "N")]
    max_connections: Option<u32>,
    /// Another claim; VALUE is JSON, or else a string. Beats every other flag. May be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = claim)]
    claim: Vec<(String, Value)>,
}

fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((name.to_owned(), value))
}

/// Prints a token.
pub(super) fn token(flags: &TokenFlags, out: &mut dyn Write) -> Result<(), Failure> {
    let config = flags.config.load(None)?;
    let token = signer(flags, &config.auth)?.sign(&claims(flags, &config.auth)?);
    print_line(out, &token.map_err(|bad| Failure::Usage(format!("the key {bad}")))?)
}

fn signer(flags: &TokenFlags, auth: &Auth) -> Result<Signer, Failure> {
    let (named, octets) = match (&flags.key, &flags.secret) {
        (Some(file), _) => {
            let name = format!("--key {}", file.display());
            let octets = std::fs::read(file);
            (name.clone(), octets.map_err(|error| Failure::Usage(format!("{name}: {error}")))?)
        }
        (None, Some(secret)) => ("--secret".to_owned(), secret.clone().into_bytes()),
        (None, None) => return configured_signer(flags, auth),
    };
    let signer = |algorithm| Signer::new(algorithm, flags.kid.clone(), &octets);
    let is_pem = octets.starts_with(b"-----BEGIN ");
    let private = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];
    let guessed = private.into_iter().filter(|_| is_pem).find(|algorithm| signer(*algorithm).is_ok());
    let algorithm = flags.alg.or(guessed).unwrap_or(if is_pem { Algorithm::Rs256 } else { Algorithm::Hs256 });
    signer(algorithm).map_err(|bad| Failure::Usage(format!("{named} {bad}")))
}

fn configured_signer(flags: &TokenFlags, auth: &Auth) -> Result<Signer, Failure> {
    let keys = config::read_keys(&Auth { mode: Some(AuthMode::Jwt), ..auth.clone() })?;
    let first = keys.ring.first_secret(flags.alg).and_then(Signer::of);
    let none = "auth.keys has no secret for it; give --key PRIVATE.pem, --secret TEXT, or --config FILE";
    Ok(first.ok_or_else(|| Failure::Usage(none.to_owned()))?.named(flags.kid.clone()))
}

/// With what the configuration asks for, so that the token passes there.
fn claims(flags: &TokenFlags, auth: &Auth) -> Result<Map<String, Value>, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut claims = Map::new();
    claims.insert("iat".to_owned(), now.as_secs().into());
    claims.insert("exp".to_owned(), (now + flags.ttl).as_secs().into());
    let mut put = |name: &str, value: Option<Value>| {
        value.map(|value| claims.insert(name.to_owned(), value));
    };
    put("sub", flags.user.as_ref().map(|user| user.as_str().into()));
    put("iss", Some(auth.issuer.as_str()).filter(|issuer| !issuer.is_empty()).map(Value::from));
    put("aud", auth.audience.first().map(|audience| audience.as_str().into()));
    if let Some(topics) = &flags.topics {
        let topics: Vec<&str> = topics.iter().map(|topic| topic.as_str()).collect();
        let wrong = "--topics: * stands for one whole segment, or at the end";
        Patterns::new(topics.iter().copied()).map_err(|_| Failure::Usage(wrong.to_owned()))?;
        put("topics", Some(topics.into()));
    }
    put("max_connections", flags.max_connections.map(Value::from));
    put("single", flags.single.then(|| true.into()));
    flags.claim.iter().for_each(|(name, value)| put(name, Some(value.clone())));
    Ok(claims)
}
