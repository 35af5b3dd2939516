//! The counters at an interval: `GET /v1/stats?every=1s` and `Command::StatsEvery`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use corecast::client::{Client, ClientError};
use corecast::control::command::{Answer, Command, ErrorCode, Stats};
use serde_json::Value;

use crate::shard::Gateway;

const DEADLINE: Duration = Duration::from_secs(20);

fn next(client: &mut Client) -> Box<Stats> {
    match client.receive().expect("a reading") {
        (_, Ok(Answer::Stats(stats))) => stats,
        other => panic!("{other:?}"),
    }
}

/// A stream that is asked for, its head not read.
fn stream(gateway: &Gateway, query: &str) -> BufReader<UnixStream> {
    let mut socket = UnixStream::connect(gateway.path()).expect("connects");
    socket.set_read_timeout(Some(DEADLINE)).expect("set");
    write!(socket, "GET /v1/stats?{query} HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
    BufReader::new(socket)
}

/// The next reading: the next line that is a JSON object.
fn reading(stream: &mut BufReader<UnixStream>) -> Value {
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).expect("a line in time") > 0, "the stream ended");
        if line.starts_with('{') {
            return serde_json::from_str(&line).expect("JSON");
        }
    }
}

#[test]
fn issue_7_readings_come_at_once_and_then_at_their_interval_over_both_protocols() {
    let gateway = Gateway::default();
    let begun = Instant::now();
    let mut client = gateway.client();
    client.send(&Command::StatsEvery { every_ms: 150 }).expect("sent");
    let mut http = stream(&gateway, "every=150ms");
    for _ in 0..4 {
        assert_eq!(next(&mut client).shards.len(), 2);
        assert_eq!(reading(&mut http)["shards"].as_array().map(Vec::len), Some(2));
    }
    // Four readings are three intervals, the first up to 50 ms shorter.
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
}

#[test]
fn issue_7_other_commands_are_answered_between_readings() {
    let gateway = Gateway::default();
    let mut client = gateway.client();
    client.send(&Command::StatsEvery { every_ms: 100 }).expect("sent");
    next(&mut client);
    assert!(matches!(client.call(&Command::Version), Ok(Answer::Version(_))));
    next(&mut client);
}

#[test]
fn issue_7_an_interval_is_100_ms_to_an_hour() {
    let gateway = Gateway::default();
    for every in ["99ms", "0s", "1h1ms", "soon", "", "99999999999999years"] {
        let (status, body) = gateway.curl(&[], &format!("/v1/stats?every={every}"));
        assert!(status == 400 && body.contains("\"bad_request\""), "{every}: {status} {body}");
    }
    for every in ["100ms", "1h"] {
        reading(&mut stream(&gateway, &format!("every={every}")));
    }
    let refused = gateway.client().call(&Command::StatsEvery { every_ms: 99 }).expect_err("refused");
    assert!(matches!(refused, ClientError::Refused(e) if e.code == ErrorCode::BadRequest));
}

#[test]
fn issue_7_a_reader_that_takes_no_readings_misses_them_and_has_the_present_again_at_once() {
    let gateway = Gateway::default();
    let (mut slow, mut quick) = (stream(&gateway, "every=100ms"), gateway.client());
    reading(&mut slow);
    quick.send(&Command::StatsEvery { every_ms: 100 }).expect("sent");
    // The quick one's clock: 60 intervals that the slow one does not read.
    let begun = next(&mut quick).uptime_ms;
    let mut now = begun;
    while now < begun + 6000 {
        now = next(&mut quick).uptime_ms;
    }
    let mut stale = 0;
    while reading(&mut slow)["uptime_ms"].as_u64().expect("a number") < now {
        stale += 1;
    }
    assert!((1..=20).contains(&stale), "{stale} of 60 readings were kept for it");
}
