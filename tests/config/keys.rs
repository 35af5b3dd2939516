//! The files that `auth.keys` names (issue 6).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use corecast::auth::Algorithm;
use corecast::config::{self, Auth, AuthMode, Keys};

/// Reads one key: `of` is what stands before the path.
fn read(of: &str, octets: &[u8], mode: u32) -> Result<Keys, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    std::fs::write(&path, octets).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    read_path(of, &path)
}

fn read_path(of: &str, path: &Path) -> Result<Keys, String> {
    let keys = vec![format!("{of}:{}", path.display()).parse().unwrap()];
    let auth = Auth { mode: Some(AuthMode::Jwt), keys, ..Auth::default() };
    config::read_keys(&auth).map_err(|error| error.to_string())
}

#[test]
fn issue_6_a_key_file_that_cannot_be_used_is_refused_by_its_path_and_reason() {
    for (of, octets, why) in [
        ("HS256", &b"short"[..], "key has 5 bytes, HS256 needs at least 32"),
        ("ES256:kid", b"short", "key is not a public key in PEM"),
        ("jwks", b"{}", "key is not a JWK set"),
        ("jwks", br#"{"keys":[]}"#, "key has no key that verifies one of HS256"),
        ("HS256", &[b'x'; (1 << 20) + 1], "key cannot be read: it is longer than 1 MiB"),
    ] {
        let message = read(of, octets, 0o600).unwrap_err();
        assert!(message.starts_with("auth.keys: /") && message.contains(why), "{message}");
    }
    let message = read_path("HS256", Path::new("/nowhere/key")).unwrap_err();
    assert!(message.starts_with("auth.keys: /nowhere/key cannot be read: No such file"), "{message}");
}

#[test]
fn issue_6_a_secret_that_everybody_can_read_is_warned_of_and_a_public_key_is_not() {
    let public = include_bytes!("../spec/tokens/es256.public.pem");
    let set = br#"{"keys":[{"kty":"oct","alg":"HS256","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}"#;
    for (of, octets, mode, warnings) in [
        ("HS256", &[b'x'; 32][..], 0o640, 0),
        ("HS256", &[b'x'; 32], 0o644, 1),
        ("jwks", set, 0o644, 1),
        ("jwks", set, 0o600, 0),
        ("ES256", public, 0o644, 0),
    ] {
        let keys = read(of, octets, mode).unwrap();
        assert_eq!(keys.warnings.len(), warnings, "{of} {mode:o}: {:?}", keys.warnings);
        assert!(keys.warnings.iter().all(|warning| warning.contains("try: chmod o= /")));
    }
    let set = include_bytes!("../spec/tokens/jwks.json");
    let keys = read("jwks", set, 0o644).unwrap();
    assert!(
        keys.warnings[0].ends_with("2 of its keys are not for tokens served here"),
        "{:?}",
        keys.warnings
    );
}

#[test]
fn issue_6_at_most_64_keys_are_served() {
    let one = r#"{"kty":"oct","alg":"HS256","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#;
    let set = |count: usize| format!("{{\"keys\":[{}]}}", vec![one; count].join(","));
    let keys = read("jwks", set(64).as_bytes(), 0o600).unwrap();
    assert!(keys.ring.first_secret(Some(Algorithm::Hs256)).is_some());
    let message = read("jwks", set(65).as_bytes(), 0o600).unwrap_err();
    assert!(message.contains("makes it 65 keys, at most 64 are served"), "{message}");
}

#[test]
fn issue_6_in_other_modes_no_key_is_read() {
    let keys = vec!["HS256:/nowhere/key".parse().unwrap()];
    assert!(config::read_keys(&Auth { keys, ..Auth::default() }).is_ok());
}
