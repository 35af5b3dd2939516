//! A connection ends with its token: never early, and in the turn in which the time is there (issue 6). That the
//! gateway takes these turns in time, tests/gateway shows as far as a busy machine lets it.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use corecast::auth::{Algorithm, Key, KeyRing};
use corecast::config::AuthMode;
use serde_json::json;

use crate::by_hand::{ByHand, read_more};
use crate::harness::issuer::{Issuer, unix_ms};

/// How late an end may be: ends are kept in tenths of a second, rounded up.
const LATE: Duration = Duration::from_millis(102);

/// A shard that believes `issuer`, and what is to be shown to it: a token of 20 s, in which nothing else is due.
fn shard() -> (ByHand, Expiry) {
    let issuer = Issuer::new(b'k');
    let keys = KeyRing::new(vec![Key::new(Algorithm::Hs256, None, &[b'k'; 32]).unwrap()]);
    let shard = ByHand::start_with(keys, |config| config.auth.mode = Some(AuthMode::Jwt));
    let exp = unix_ms() / 1000 + 20;
    // Between the two the clock on the wall was read.
    let before = Instant::now();
    let left = Duration::from_millis(exp * 1000 - unix_ms());
    let (earliest, latest) = (before + left, Instant::now() + left);
    let query = format!("token={}", issuer.token(json!({"sub": "ann", "exp": exp})));
    (shard, Expiry { query, earliest, latest })
}

/// A token, and when it ends by the clock that the shard goes by.
struct Expiry {
    query: String,
    earliest: Instant,
    latest: Instant,
}

impl Expiry {
    fn turn_just_before(&self, shard: &mut ByHand) {
        shard.pass(self.earliest - shard.now() - Duration::from_millis(1));
        shard.turn();
    }

    fn turn_just_after(&self, shard: &mut ByHand) {
        shard.pass(self.latest - shard.now() + LATE);
        shard.turn();
    }
}

#[test]
fn issue_6_a_websocket_is_told_4002_in_the_turn_in_which_its_token_ends() {
    let (mut shard, expiry) = shard();
    let mut client = shard.websocket(&format!("/ws?{}", expiry.query));
    expiry.turn_just_before(&mut shard);
    let mut heard = Vec::new();
    assert!(read_more(&mut client, &mut heard));
    assert_eq!(heard, b"");
    expiry.turn_just_after(&mut shard);
    let told = shard.read(&mut client, 17);
    assert_eq!(told, [&[0x88, 15, 0x0f, 0xa2], &b"token expired"[..]].concat());
}

#[test]
fn issue_6_a_held_poll_has_its_answer_in_the_turn_in_which_its_token_ends() {
    let (mut shard, expiry) = shard();
    let mut poll = TcpStream::connect(shard.address).unwrap();
    let request = format!("GET /poll?{}&timeout=300 HTTP/1.1\r\nHost: x\r\n\r\n", expiry.query);
    poll.write_all(request.as_bytes()).unwrap();
    shard.until("it is held", |stats| stats.polls == 1);
    expiry.turn_just_before(&mut shard);
    assert_eq!(shard.turn().polls, 1);
    expiry.turn_just_after(&mut shard);
    poll.set_nonblocking(true).unwrap();
    let answer = shard.read(&mut poll, 12);
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}
