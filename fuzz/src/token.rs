//! Tokens: none that we did not sign is believed, and of those that we did each claim is kept to as it stands
//! (RFC 7519 4.1).
//!
//! The input is an octet with rules, then either a token as a stranger would send it, or claims that are signed here.

use corecast::auth::mint::Signer;
use corecast::auth::{Algorithm, BadToken, Identity, Key, KeyRing, Rules, Verifier};
use serde_json::{Map, Value};

use super::draw::Draw;

const SECRET: &[u8] = b"not a secret, and 32 bytes long.";
const NOW_MS: u64 = 1_800_000_000_000;

/// See the top of this file.
pub fn check(input: &[u8]) {
    let mut draw = Draw(input);
    let shape = draw.octet();
    let rules = Rules {
        issuer: (shape & 1 != 0).then(|| "us".to_owned()),
        audience: if shape & 2 != 0 { vec!["push".to_owned()] } else { Vec::new() },
        leeway_ms: if shape & 4 != 0 { 5_000 } else { 0 },
        anonymous: shape & 8 != 0,
    };
    let key = Key::new(Algorithm::Hs256, Some("k".to_owned()), SECRET).expect("long enough");
    let signer = Signer::of(&key).expect("a secret signs");
    let verifier = Verifier::new(rules.clone(), KeyRing::new(vec![key]));
    if shape & 16 != 0 {
        let text = String::from_utf8_lossy(draw.0);
        assert!(verifier.verify(&text, NOW_MS).is_err(), "believed a stranger");
        return;
    }
    let Ok(claims) = serde_json::from_slice::<Map<String, Value>>(draw.0) else { return };
    let token = signer.sign(&claims).expect("it signs");
    match verifier.verify(&token, NOW_MS) {
        Ok(identity) => holds(&identity, &claims, &rules, &verifier, &token),
        Err(BadToken::Malformed) => assert!(token.len() > corecast::auth::token::TOKEN_BYTES_MAX),
        Err(BadToken::Expired | BadToken::NotYet | BadToken::Claim(_)) => {}
        Err(BadToken::Issuer) => assert_ne!(claims.get("iss"), Some(&"us".into())),
        Err(BadToken::Audience) => assert_ne!(claims.get("aud"), Some(&"push".into())),
        Err(BadToken::Anonymous) => assert!(!claims.contains_key("sub")),
        Err(error) => panic!("signed here, and {error}"),
    }
}

fn holds(identity: &Identity, claims: &Map<String, Value>, rules: &Rules, verifier: &Verifier, token: &str) {
    assert_eq!(
        identity.user.as_ref().map(|user| user.as_str()),
        claims.get("sub").map(|sub| sub.as_str().unwrap())
    );
    assert_eq!(identity.expires_unix_ms.is_some(), claims.contains_key("exp"));
    assert_eq!(identity.topics.is_some(), claims.contains_key("topics"));
    assert_eq!(identity.connections_max.is_some(), claims.contains_key("max_connections"));
    assert_eq!(identity.single, claims.get("single").is_some_and(|single| single.as_bool().unwrap()));
    assert!(rules.issuer.is_none() || claims["iss"] == "us");
    assert!(identity.user.is_some() || rules.anonymous);
    if let Some(expires) = identity.expires_unix_ms {
        assert!(expires > NOW_MS);
        assert_eq!(verifier.verify(token, expires), Err(BadToken::Expired));
        assert!(verifier.verify(token, expires - 1).is_ok());
    }
    // One octet of the claims or the signature changed: another token.
    let (message, signature) = token.rsplit_once('.').expect("a token");
    for broken in [format!("{message}.{}", flipped(signature)), format!("{}.{signature}", flipped(message))] {
        assert!(verifier.verify(&broken, NOW_MS).is_err(), "{broken}");
    }
}

/// With another first character in its last part.
fn flipped(text: &str) -> String {
    let at = text.rfind('.').map_or(0, |dot| dot + 1);
    let other = if text[at..].starts_with('A') { "B" } else { "A" };
    format!("{}{other}{}", &text[..at], text.get(at + 1..).unwrap_or_default())
}
