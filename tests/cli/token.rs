//! `corecast token`: what it prints is believed, and what it needs is said (issue 6).

use corecast::auth::{Algorithm, Identity, Key, KeyRing, Rules, Verifier};
use serde_json::Value;

use super::{assert_usage, file, run, stderr, stdout};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const TOKENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/spec/tokens");

fn minted(arguments: &[&str]) -> String {
    let output = run(&[&["token"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    assert_eq!(stderr(&output), "");
    stdout(&output).strip_suffix('\n').expect("one line").to_owned()
}

/// What the token comes to under this key, now.
fn identity(token: &str, algorithm: Algorithm, key: &[u8]) -> Identity {
    let rules = Rules { anonymous: true, ..Rules::default() };
    let keys = KeyRing::new(vec![Key::new(algorithm, None, key).unwrap()]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Verifier::new(rules, keys).verify(token, now.as_millis() as u64).unwrap()
}

/// Header and claims.
fn parts(token: &str) -> [Value; 2] {
    use base64::Engine;
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let mut parts = token.split('.').map(|part| serde_json::from_slice(&engine.decode(part).unwrap()));
    [parts.next().unwrap().unwrap(), parts.next().unwrap().unwrap()]
}

#[test]
fn issue_6_a_token_says_what_the_flags_say() {
    let token = minted(&[
        "--secret",
        SECRET,
        "--user",
        "ann",
        "--ttl",
        "10m",
        "--topics",
        "news,orders/*",
        "--single",
        "--max-connections",
        "2",
        "--kid",
        "k",
        "--claim",
        "role=admin",
        "--claim",
        "n=7",
    ]);
    let identity = identity(&token, Algorithm::Hs256, SECRET.as_bytes());
    assert_eq!(identity.user.map(String::from).as_deref(), Some("ann"));
    assert_eq!((identity.single, identity.connections_max), (true, Some(2)));
    let [header, claims] = parts(&token);
    assert_eq!((&header["alg"], &header["kid"]), (&"HS256".into(), &"k".into()));
    assert_eq!((&claims["role"], &claims["n"]), (&"admin".into(), &7.into()));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 600);
}

#[test]
fn issue_6_a_key_file_is_taken_for_what_it_is() {
    for (name, algorithm) in
        [("rs256", Algorithm::Rs256), ("es256", Algorithm::Es256), ("eddsa", Algorithm::EdDsa)]
    {
        let token = minted(&["--key", &format!("{TOKENS}/{name}.private.pem"), "--user", "ann"]);
        let public = std::fs::read(format!("{TOKENS}/{name}.public.pem")).unwrap();
        identity(&token, algorithm, &public);
    }
}

#[test]
fn issue_6_without_a_key_the_first_secret_of_the_configuration_signs_and_its_rules_are_met() {
    let (directory, secret) = file(SECRET);
    let config = directory.path().join("c.toml");
    let text = format!(
        "[auth]\nmode = \"jwt\"\nissuer = \"us\"\naudience = [\"push\", \"x\"]\n\
         keys = [\"ES256:{TOKENS}/es256.public.pem\", \"HS256:old:{secret}\"]\n"
    );
    std::fs::write(&config, text).unwrap();
    let [header, claims] = parts(&minted(&["--config", config.to_str().unwrap(), "--user", "ann"]));
    assert_eq!((&header["alg"], &header["kid"]), (&"HS256".into(), &"old".into()));
    assert_eq!((&claims["iss"], &claims["aud"]), (&"us".into(), &"push".into()));
}

#[test]
fn issue_6_what_does_not_sign_is_refused_with_its_reason() {
    assert_usage(&["token", "--user", "ann"], "auth.keys has no secret for it; give --key");
    assert_usage(&["token", "--secret", "short"], "--secret has 5 bytes, HS256 needs at least 32");
    assert_usage(&["token", "--secret", SECRET, "--alg", "HS512"], "has 32 bytes, HS512 needs at least 64");
    assert_usage(&["token", "--secret", SECRET, "--alg", "ES256"], "is not a private key for ES256");
    assert_usage(&["token", "--key", "/nowhere/key"], "--key /nowhere/key: No such file");
    assert_usage(&["token", "--key", &format!("{TOKENS}/es256.public.pem")], "is not a private key");
    assert_usage(&["token", "--secret", SECRET, "--alg", "none"], "the algorithm must be one of HS256");
    assert_usage(&["token", "--secret", SECRET, "--claim", "a"], "must be NAME=VALUE");
    assert_usage(&["token", "--secret", SECRET, "--topics", "a*b"], "--topics: * stands for");
    assert_usage(&["token", "--secret", SECRET, "--key", "/a"], "cannot be used with");
}
