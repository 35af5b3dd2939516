//! `auth`: which tokens are believed, and what they say (RFC 7515, 7519, 8725). The keys and tokens in
//! `tokens/` were made by PyJWT (`tokens/make.py`).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use corecast::auth::keys::parse_jwks;
use corecast::auth::mint::Signer;
use corecast::auth::token::TOKEN_BYTES_MAX;
use corecast::auth::{Algorithm, BadKey, BadToken, Identity, Key, KeyRing, Patterns, Rules, Verifier};
use corecast::message::UserId;
use proptest::prelude::*;
use serde_json::{Value, json};

const SECRET: &[u8] = &[b'k'; 64];
/// 2026-01-01, in milliseconds of Unix time.
const NOW_MS: u64 = 1_767_225_600_000;
const NOW: u64 = NOW_MS / 1000;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/spec/tokens/", $name))
    };
}

fn key(algorithm: Algorithm, id: Option<&str>, file: &[u8]) -> Key {
    Key::new(algorithm, id.map(str::to_owned), file).unwrap()
}

fn verifier(keys: impl Into<Vec<Key>>) -> Verifier {
    Verifier::new(Rules { anonymous: true, ..Rules::default() }, KeyRing::new(keys.into()))
}

/// A token of PyJWT's, by its name.
fn made_by_others(name: &str) -> String {
    let tokens: Value = serde_json::from_slice(fixture!("tokens.json")).unwrap();
    tokens[name].as_str().unwrap().to_owned()
}

fn others_secret() -> Vec<u8> {
    [&b"0123456789abcdef".repeat(4)[..], b"\n"].concat()
}

/// What all of PyJWT's tokens say.
fn alice() -> Identity {
    Identity {
        user: Some(UserId::new("alice").unwrap()),
        expires_unix_ms: Some(4_102_444_800_000),
        topics: Some(Patterns::new(["news", "orders/*"]).unwrap()),
        connections_max: Some(3),
        single: true,
    }
}

/// A token of ours with these claims, HS256 under `SECRET`.
fn signed(claims: &Value) -> String {
    let signer = Signer::new(Algorithm::Hs256, None, SECRET).unwrap();
    signer.sign(claims.as_object().unwrap()).unwrap()
}

/// What comes of claims under `rules` at `NOW_MS`.
fn judged(rules: Rules, claims: &Value) -> Result<Identity, BadToken> {
    let keys = KeyRing::new(vec![key(Algorithm::Hs256, None, SECRET)]);
    Verifier::new(rules, keys).verify(&signed(claims), NOW_MS)
}

fn claims(claims: &Value) -> Result<Identity, BadToken> {
    judged(Rules { anonymous: true, ..Rules::default() }, claims)
}

/// A token with this header that is signed all the same.
fn with_header(header: &str) -> String {
    let token = signed(&json!({"sub": "alice"}));
    let (_, rest) = token.split_once('.').unwrap();
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header))
}

#[test]
fn rfc7515_a_1_the_example_with_hmac_holds_until_it_expires() {
    let secret = URL_SAFE_NO_PAD
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                 eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                 dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let verifier = verifier([key(Algorithm::Hs256, None, &secret)]);
    let identity = verifier.verify(token, 1_300_819_379_999).unwrap();
    assert_eq!(identity, Identity { expires_unix_ms: Some(1_300_819_380_000), ..Identity::default() });
    assert_eq!(verifier.verify(token, 1_300_819_380_000), Err(BadToken::Expired));
}

#[test]
fn rfc7515_a_2_the_example_with_rsa_holds() {
    let jwks = br#"{"keys":[{"kty":"RSA","alg":"RS256","e":"AQAB",
        "n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]}"#;
    let token = "eyJhbGciOiJSUzI1NiJ9.\
                 eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                 cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let verifier = verifier(parse_jwks(jwks).unwrap().0);
    assert!(verifier.verify(token, 0).is_ok());
}

#[test]
fn rfc7515_a_3_the_example_with_p_256_holds() {
    let jwks = br#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    let token = "eyJhbGciOiJFUzI1NiJ9.\
                 eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                 DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let verifier = verifier(parse_jwks(jwks).unwrap().0);
    assert!(verifier.verify(token, 0).is_ok());
}

#[test]
fn issue_6_tokens_of_another_library_are_believed_under_each_algorithm() {
    for (name, algorithm, octets) in [
        ("hs256", Algorithm::Hs256, &others_secret()[..]),
        ("hs384", Algorithm::Hs384, &others_secret()),
        ("hs512", Algorithm::Hs512, &others_secret()),
        ("rs256", Algorithm::Rs256, fixture!("rs256.public.pem")),
        ("es256", Algorithm::Es256, fixture!("es256.public.pem")),
        ("eddsa", Algorithm::EdDsa, fixture!("eddsa.public.pem")),
    ] {
        let verifier = verifier([key(algorithm, None, octets)]);
        assert_eq!(verifier.verify(&made_by_others(name), NOW_MS), Ok(alice()), "{name}");
    }
}

#[test]
fn issue_6_a_set_of_keys_serves_what_it_can_and_counts_the_rest() {
    let (keys, others) = parse_jwks(fixture!("jwks.json")).unwrap();
    assert_eq!((keys.len(), others), (3, 2));
    let verifier = verifier(keys);
    for name in ["rs256", "es256", "eddsa"] {
        assert_eq!(verifier.verify(&made_by_others(name), NOW_MS), Ok(alice()), "{name}");
    }
    assert_eq!(verifier.verify(&made_by_others("hs256"), NOW_MS), Err(BadToken::NoKey));
}

#[test]
fn rfc8725_2_1_a_token_without_a_signature_and_one_signed_with_the_public_key_are_refused() {
    let rsa = key(Algorithm::Rs256, None, fixture!("rs256.public.pem"));
    let secret = key(Algorithm::Hs256, None, &others_secret());
    let both = verifier([rsa.clone(), secret]);
    assert_eq!(both.verify(&made_by_others("none"), NOW_MS), Err(BadToken::Algorithm));
    assert_eq!(both.verify(&made_by_others("confused"), NOW_MS), Err(BadToken::Signature));
    assert_eq!(verifier([rsa]).verify(&made_by_others("confused"), NOW_MS), Err(BadToken::NoKey));
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"None"}"#, r#"{"alg":"hs256"}"#, r#"{"alg":7}"#, "{}"] {
        assert_eq!(both.verify(&with_header(header), NOW_MS), Err(BadToken::Algorithm), "{header}");
    }
}

#[test]
fn issue_6_any_octet_changed_is_refused() {
    let secret = verifier([key(Algorithm::Hs256, None, SECRET)]);
    let token = signed(&json!({"sub": "alice"}));
    assert!(secret.verify(&token, NOW_MS).is_ok());
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(secret.verify(&changed, NOW_MS).is_err(), "{changed}");
        assert!(secret.verify(&token[..at], NOW_MS).is_err(), "cut at {at}");
    }
    let other = verifier([key(Algorithm::Hs256, None, &[b'o'; 64])]);
    assert_eq!(other.verify(&token, NOW_MS), Err(BadToken::Signature));
}

#[test]
fn rfc7515_4_1_4_a_kid_chooses_among_the_keys_and_a_key_without_one_is_tried_for_all() {
    let old = key(Algorithm::Hs256, Some("old"), &[b'o'; 32]);
    let new = key(Algorithm::Hs256, Some("new"), &[b'n'; 32]);
    let bare = key(Algorithm::Hs256, None, SECRET);
    let by = |key: &Key, id: &str| {
        let signer = Signer::of(key).unwrap().named(Some(id.to_owned()));
        signer.sign(json!({"sub": "alice"}).as_object().unwrap()).unwrap()
    };
    let two = verifier([old.clone(), new.clone()]);
    assert!(two.verify(&by(&old, "old"), NOW_MS).is_ok() && two.verify(&by(&new, "new"), NOW_MS).is_ok());
    assert_eq!(two.verify(&by(&old, "new"), NOW_MS), Err(BadToken::Signature));
    assert_eq!(two.verify(&by(&old, "else"), NOW_MS), Err(BadToken::NoKey));
    let three = verifier([old.clone(), new, bare.clone()]);
    assert!(three.verify(&by(&bare, "else"), NOW_MS).is_ok());
    assert_eq!(three.verify(&by(&old, "else"), NOW_MS), Err(BadToken::Signature));
    // Without a kid in the token, every key of the algorithm.
    let signer = Signer::new(Algorithm::Hs256, None, &[b'o'; 32]).unwrap();
    assert!(two.verify(&signer.sign(json!({}).as_object().unwrap()).unwrap(), NOW_MS).is_ok());
}

#[test]
fn rfc7515_4_1_11_an_extension_that_must_be_understood_is_refused() {
    let verifier = verifier([key(Algorithm::Hs256, None, SECRET)]);
    for header in [r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, r#"{"alg":"HS256","crit":null}"#] {
        assert_eq!(verifier.verify(&with_header(header), NOW_MS), Err(BadToken::Critical));
    }
}

#[test]
fn rfc7519_7_2_what_is_no_token_is_refused() {
    let verifier = verifier([key(Algorithm::Hs256, None, SECRET)]);
    let long = format!("{}.e30.AAAA", "A".repeat(TOKEN_BYTES_MAX));
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    for bad in ["", ".", "..", "a.b", "a.b.c", "e30=.e30.A", "e30.e30.e30.e30", "é.é.é", "WzFd.e30.A", &long]
    {
        assert!(verifier.verify(bad, NOW_MS).is_err(), "{bad}");
    }
    assert_eq!(verifier.verify(&format!("{header}.e30"), NOW_MS), Err(BadToken::Malformed));
    assert_eq!(verifier.verify(&format!("{header}.e30."), NOW_MS), Err(BadToken::Signature));
    assert_eq!(verifier.verify(&with_header(r#"{"alg":"HS256","kid":7}"#), NOW_MS), Err(BadToken::Malformed));
}

#[test]
fn rfc7519_4_1_4_a_token_ends_at_exp_and_4_1_5_begins_at_nbf() {
    assert_eq!(claims(&json!({"exp": NOW})), Err(BadToken::Expired));
    assert_eq!(claims(&json!({"exp": NOW + 1})).unwrap().expires_unix_ms, Some(NOW_MS + 1000));
    // A fraction of a second is never cut short.
    assert_eq!(claims(&json!({"exp": NOW as f64 + 0.5})).unwrap().expires_unix_ms, Some(NOW_MS + 500));
    assert_eq!(claims(&json!({"exp": 0})), Err(BadToken::Expired));
    assert_eq!(claims(&json!({"exp": -1})), Err(BadToken::Expired));
    assert_eq!(claims(&json!({"exp": 1e300})).unwrap().expires_unix_ms, Some(u64::MAX));
    assert_eq!(claims(&json!({"exp": u64::MAX})).unwrap().expires_unix_ms, Some(u64::MAX));
    assert!(claims(&json!({"nbf": NOW})).is_ok());
    assert_eq!(claims(&json!({"nbf": NOW + 1})), Err(BadToken::NotYet));
}

#[test]
fn issue_6_the_leeway_holds_for_both_ends() {
    let rules = || Rules { leeway_ms: 5000, anonymous: true, ..Rules::default() };
    assert_eq!(judged(rules(), &json!({"exp": NOW - 5})), Err(BadToken::Expired));
    assert_eq!(judged(rules(), &json!({"exp": NOW - 4})).unwrap().expires_unix_ms, Some(NOW_MS + 1000));
    assert!(judged(rules(), &json!({"nbf": NOW + 5})).is_ok());
    assert_eq!(judged(rules(), &json!({"nbf": NOW + 6})), Err(BadToken::NotYet));
}

#[test]
fn rfc7519_4_1_1_and_4_1_3_issuer_and_audience_must_be_those_that_are_configured() {
    let rules = || Rules {
        issuer: Some("https://a".to_owned()),
        audience: vec!["push".to_owned(), "all".to_owned()],
        anonymous: true,
        ..Rules::default()
    };
    for aud in [json!("push"), json!(["else", "all"])] {
        assert!(judged(rules(), &json!({"iss": "https://a", "aud": aud})).is_ok());
    }
    for iss in [json!({"aud": "push"}), json!({"aud": "push", "iss": "https://a/"})] {
        assert_eq!(judged(rules(), &iss), Err(BadToken::Issuer));
    }
    for aud in [
        json!({"iss": "https://a"}),
        json!({"iss": "https://a", "aud": []}),
        json!({"iss": "https://a", "aud": "x"}),
    ] {
        assert_eq!(judged(rules(), &aud), Err(BadToken::Audience));
    }
    assert!(claims(&json!({"iss": "anybody", "aud": "anything"})).is_ok());
}

#[test]
fn issue_6_a_claim_of_the_wrong_shape_is_no_claim_that_is_absent() {
    for (name, values) in [
        ("sub", vec![json!(null), json!(7), json!(""), json!("a b"), json!("x".repeat(129))]),
        ("exp", vec![json!(null), json!("1"), json!([])]),
        ("nbf", vec![json!(null), json!("1")]),
        ("topics", vec![json!(null), json!("news"), json!([7]), json!(["a*b"]), json!([""])]),
        ("max_connections", vec![json!(null), json!(-1), json!(1.5), json!("1")]),
        ("single", vec![json!(null), json!(1), json!("true")]),
    ] {
        for value in values {
            let refused = claims(&json!({ name: value }));
            assert_eq!(refused, Err(BadToken::Claim(name)), "{name}: {value}");
        }
    }
    let rules = Rules { issuer: Some("a".to_owned()), ..Rules::default() };
    assert_eq!(judged(rules, &json!({"iss": null})), Err(BadToken::Claim("iss")));
    let rules = Rules { audience: vec!["a".to_owned()], ..Rules::default() };
    assert_eq!(judged(rules, &json!({"aud": null})), Err(BadToken::Claim("aud")));
}

#[test]
fn issue_6_a_token_without_a_user_is_anonymous_where_that_is_allowed() {
    assert_eq!(claims(&json!({})), Ok(Identity::default()));
    assert_eq!(judged(Rules::default(), &json!({})), Err(BadToken::Anonymous));
    assert!(judged(Rules::default(), &json!({"sub": "alice"})).is_ok());
}

#[test]
fn issue_6_a_reason_never_repeats_the_token() {
    let verifier = verifier([key(Algorithm::Hs256, None, SECRET)]);
    for token in [made_by_others("hs256"), made_by_others("none"), signed(&json!({"sub": "x y"}))] {
        let reason = verifier.verify(&token, NOW_MS).unwrap_err();
        let said = format!("{reason} {reason:?}");
        assert!(token.split('.').all(|part| part.is_empty() || !said.contains(part)), "{said}");
    }
}

#[test]
fn rfc7518_3_2_a_secret_is_as_long_as_its_hash_and_a_line_end_is_no_part_of_it() {
    for (algorithm, bytes) in [(Algorithm::Hs256, 32), (Algorithm::Hs384, 48), (Algorithm::Hs512, 64)] {
        assert!(Key::new(algorithm, None, &vec![b'x'; bytes]).is_ok());
        for file in [vec![b'x'; bytes - 1], [vec![b'x'; bytes - 1], b"\r\n".to_vec()].concat()] {
            let refused = Key::new(algorithm, None, &file).unwrap_err();
            assert_eq!(refused, BadKey::ShortSecret { algorithm, bytes: bytes - 1 });
        }
    }
}

#[test]
fn issue_6_a_file_with_another_key_than_it_is_said_to_hold_is_refused() {
    let refused = |algorithm, file: &[u8]| Key::new(algorithm, None, file).unwrap_err();
    use Algorithm::{EdDsa, Es256, Rs256};
    for (algorithm, right) in [
        (Rs256, &fixture!("rs256.public.pem")[..]),
        (Es256, fixture!("es256.public.pem")),
        (EdDsa, fixture!("eddsa.public.pem")),
    ] {
        for other in [Rs256, Es256, EdDsa].into_iter().filter(|other| *other != algorithm) {
            assert_eq!(refused(other, right), BadKey::WrongKind(other), "{algorithm} as {other}");
        }
        assert_eq!(refused(algorithm, SECRET), BadKey::NotPublicPem);
        assert_eq!(refused(algorithm, &right[..right.len() / 2]), BadKey::WrongKind(algorithm));
    }
    for (algorithm, private) in [
        (Rs256, &fixture!("rs256.private.pem")[..]),
        (Es256, fixture!("es256.private.pem")),
        (EdDsa, fixture!("eddsa.private.pem")),
    ] {
        assert_eq!(refused(algorithm, private), BadKey::Private);
    }
    assert_eq!(refused(Rs256, fixture!("short-rsa.public.pem")), BadKey::ShortRsa(1024));
    assert_eq!(refused(Es256, fixture!("p384.public.pem")), BadKey::WrongKind(Es256));
}

#[test]
fn rfc7517_5_a_set_that_is_none_or_has_no_key_for_us_is_refused() {
    let refused = |text: &str| parse_jwks(text.as_bytes()).unwrap_err();
    for bad in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[7]}"#] {
        assert_eq!(refused(bad), BadKey::NotJwks, "{bad}");
    }
    assert_eq!(refused(r#"{"keys":[]}"#), BadKey::NoneUsable);
    let in_set = |why| BadKey::InSet { place: 1, why: Box::new(why) };
    assert_eq!(refused(r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#), in_set(BadKey::NoAlgorithm));
    let short = BadKey::ShortSecret { algorithm: Algorithm::Hs256, bytes: 3 };
    assert_eq!(refused(r#"{"keys":[{"kty":"oct","alg":"HS256","k":"AAAA"}]}"#), in_set(short));
    let weak = r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#;
    assert_eq!(refused(weak), in_set(BadKey::ShortRsa(24)));
    let mixed = r#"{"keys":[{"kty":"oct","alg":"RS256","k":"AAAA"}]}"#;
    assert_eq!(refused(mixed), in_set(BadKey::WrongKind(Algorithm::Rs256)));
}

proptest! {
    #[test]
    fn rule_6_whatever_is_sent_is_refused_and_panics_nothing(
        header in r#"\{"alg":"(HS256|RS256|ES256|EdDSA|none)"(,"kid":"?[a-z]{0,3}"?)?\}"#,
        payload in proptest::collection::vec(any::<u8>(), 0..80),
        signature in proptest::collection::vec(any::<u8>(), 0..300),
        text in ".{0,80}",
    ) {
        let (keys, _) = parse_jwks(fixture!("jwks.json")).unwrap();
        let verifier = verifier([&keys[..], &[key(Algorithm::Hs256, None, SECRET)]].concat());
        let [header, payload, signature] =
            [header.as_bytes(), &payload, &signature].map(|part| URL_SAFE_NO_PAD.encode(part));
        let message = format!("{header}.{payload}");
        for token in [format!("{message}.{signature}"), format!("{message}.{text}"), text] {
            prop_assert!(verifier.verify(&token, NOW_MS).is_err());
        }
    }
}

#[test]
fn issue_6_what_a_private_key_signs_its_public_key_verifies() {
    let minted = json!({"sub": "alice", "exp": NOW + 60});
    for (algorithm, private, public) in [
        (Algorithm::Rs256, &fixture!("rs256.private.pem")[..], &fixture!("rs256.public.pem")[..]),
        (Algorithm::Es256, fixture!("es256.private.pem"), fixture!("es256.public.pem")),
        (Algorithm::EdDsa, fixture!("eddsa.private.pem"), fixture!("eddsa.public.pem")),
    ] {
        let token = Signer::new(algorithm, None, private).unwrap().sign(minted.as_object().unwrap()).unwrap();
        assert!(verifier([key(algorithm, None, public)]).verify(&token, NOW_MS).is_ok(), "{algorithm}");
        let no_signer = Signer::new(algorithm, None, SECRET).map(|_| ()).unwrap_err();
        assert_eq!(no_signer, BadKey::NotPrivatePem(algorithm));
    }
}
