//! A wall clock that is set while clients are connected (issue 6). libfaketime sets it for the gateway alone;
//! `tests/gateway/install-clients.sh` installs it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::harness::issuer::{Issuer, unix_ms};
use crate::harness::{Gateway, eventually};

/// The library, wherever this machine's architecture has it.
fn library() -> PathBuf {
    let directories = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let candidates = directories.map(|directory| directory.join("faketime/libfaketimeMT.so.1"));
    candidates.into_iter().find(|path| path.exists()).expect("libfaketime: tests/gateway/install-clients.sh")
}

/// A gateway whose wall clock is off by what `file` says, as in `+10y`.
fn gateway(issuer: &Issuer, file: &Path) -> Gateway {
    let keys = issuer.setting();
    Gateway::prepared(&["auth.mode=jwt", &keys], "127.0.0.1:0", |command| {
        command.env("LD_PRELOAD", library()).env("FAKETIME_TIMESTAMP_FILE", file);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    })
}

/// The status of a request with this token.
fn status(gateway: &Gateway, token: &str) -> u16 {
    gateway
        .ask(format!("GET /poll?timeout=0&token={token} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
        .status
}

#[test]
fn issue_6_a_wall_clock_that_is_set_ends_no_connection_early_or_late_and_judges_new_tokens() {
    let (issuer, directory) = (Issuer::new(b'k'), tempfile::tempdir().unwrap());
    let clock = directory.path().join("clock");
    fs::write(&clock, "+0").unwrap();
    let gateway = gateway(&issuer, &clock);
    let now = unix_ms() / 1000;
    let until = |exp: u64| format!("token={}", issuer.token(json!({"sub": "ann", "exp": exp})));
    let mut first = gateway.raw(&until(now + 3));
    let mut longer = gateway.raw(&until(now + 600));

    // A day back: what has expired is good again for who comes now; the others keep their end.
    fs::write(&clock, "-1d").unwrap();
    let expired = issuer.token(json!({"exp": now - 60}));
    eventually("the clock is a day back", || (status(&gateway, &expired) == 200).then_some(()));
    let early = issuer.token(json!({"nbf": now}));
    assert_eq!(status(&gateway, &early), 401);
    assert_eq!(first.closed().0, 4002);
    let late_ms = unix_ms() as i64 - (now as i64 + 3) * 1000;
    assert!((0..1000).contains(&late_ms), "{late_ms} ms after exp");

    // Ten years on: nobody is ended by it, and a token that would have lasted an hour has expired.
    fs::write(&clock, "+10y").unwrap();
    let hour = issuer.token(json!({"exp": now + 3600}));
    eventually("the clock is ten years on", || (status(&gateway, &hour) == 401).then_some(()));
    longer.nothing_waits();
    assert_eq!(gateway.totals()["closed"]["token_expired"], 1);
}
