//! Clients that misbehave, as the server sees them; and that their neighbours do not suffer in the report.

use std::time::Duration;

use crate::bench::{Run, bench, beside, start};
use crate::planted::octets;
use crate::planted::script::Script;
use crate::planted::tally::{Ended, Role, Seen, Tally};
use crate::planted::{Planted, To};

/// Holds 20 connections, 6 of which misbehave, for `held`; what the server saw in the end.
fn hold(behaviour: &str, held: &str) -> (Run, Tally) {
    let server = Planted::start(Script::default());
    let run = bench("hold", &[&server.ws("/ws")], &format!("-c 20 --behaviour {behaviour}=30% --for {held}"));
    let tally = server.until("all have gone", |tally| tally.clients().all(|seen| seen.ended.is_some()));
    (run, tally)
}

/// Exactly so many connections are like this.
#[track_caller]
fn count(tally: &Tally, expected: usize, like: impl Fn(&Seen) -> bool) {
    let found = tally.clients().filter(|seen| like(seen)).count();
    let all: String = tally.clients().map(|seen| format!("{seen:?}\n")).collect();
    assert_eq!(found, expected, "{all}");
}

/// Opened, sent nothing but its request and perhaps a close, and stayed to the end.
fn behaved(seen: &Seen) -> bool {
    let quiet = seen.messages + seen.fragments + seen.pings_from_client == 0 && seen.breach.is_none();
    let stayed = matches!(seen.ended, Some((_, Ended::Finished | Ended::Planted)));
    quiet && stayed && seen.role == Role::WebSocket
}

#[test]
fn half_open_clients_connect_and_say_nothing() {
    let _machine = beside();
    let (_, tally) = hold("half-open", "500ms");
    assert_eq!(tally.connections.len(), 20);
    count(&tally, 6, |seen| seen.role == Role::Silent && seen.bytes_in == 0);
    count(&tally, 14, behaved);
}

#[test]
fn a_byte_a_second_is_one() {
    let _machine = beside();
    let (_, tally) = hold("byte-a-second", "2500ms");
    let drips = |seen: &Seen| seen.role == Role::Silent && seen.reads == seen.bytes_in;
    count(&tally, 6, |seen| drips(seen) && (2..=5).contains(&seen.bytes_in));
    count(&tally, 14, behaved);
}

#[test]
fn resetting_clients_reset_every_second_and_come_back() {
    let _machine = beside();
    let (_, tally) = hold("resets", "2500ms");
    let resets = tally.ended(Ended::Reset);
    assert!((12..=24).contains(&resets), "{resets} resets by six clients in two and a half seconds");
    // The six are open again when it ends, as the others have been all the time.
    count(&tally, 20, behaved);
    for seen in tally.clients().filter(|seen| matches!(seen.ended, Some((_, Ended::Reset)))) {
        let lived = seen.ended.unwrap().0 - seen.opened_at.unwrap();
        assert!(lived < Duration::from_millis(1500), "{lived:?}");
    }
}

#[test]
fn garbage_is_a_kibibyte_that_is_no_frame() {
    let _machine = beside();
    let (_, tally) = hold("garbage", "500ms");
    let behaved_bytes = tally.clients().filter(|seen| behaved(seen)).map(|seen| seen.bytes_in).max().unwrap();
    // A kibibyte in the place of the close frame; what is random may be a frame, but not many of them.
    count(&tally, 6, |seen| seen.bytes_in >= behaved_bytes - 16 + 1024);
    let breached = tally.clients().filter(|seen| seen.breach.is_some()).count();
    assert!((4..=6).contains(&breached), "{breached} of 6");
    count(&tally, 14, behaved);
}

#[test]
fn endless_fragments_never_make_a_message() {
    let _machine = beside();
    let (_, tally) = hold("endless-fragments", "1s");
    count(&tally, 6, |seen| seen.fragments >= 5 && seen.messages == 0 && seen.breach.is_none());
    count(&tally, 14, behaved);
}

#[test]
fn a_flood_of_pings_is_one() {
    let _machine = beside();
    let (_, tally) = hold("ping-flood", "700ms");
    count(&tally, 6, |seen| seen.pings_from_client > 500 && seen.breach.is_none());
    count(&tally, 14, behaved);
}

/// 200 messages of 64 KiB: more than any socket holds.
fn flooded(behaviour: &str) -> (Run, Tally, Duration) {
    let script = Script { socket_send_bytes: Some(64 * 1024), ..Script::default() };
    let server = Planted::start(script);
    let words = format!("-c 10 --behaviour {behaviour}=30% --for 2500ms");
    let running = start("hold", &[&server.ws("/ws")], &words);
    let opened = server.until("ten are open", |tally| tally.open() == 10);
    for _ in 0..200 {
        server.publish(To::All, vec![b'x'; 65_536]);
    }
    server.until("seven have all", |tally| tally.clients().filter(|seen| seen.delivered == 200).count() == 7);
    let run = running.ended();
    let tally = server.until("all have gone", |tally| tally.open() == 0);
    let lived = tally.connections[0].ended.unwrap().0 - opened.connections[0].opened_at.unwrap();
    (run, tally, lived)
}

#[test]
fn slow_readers_take_a_little_and_others_take_all() {
    let _machine = beside();
    let (run, tally, lived) = flooded("slow-reader");
    count(&tally, 3, |seen| seen.delivered < 200 && seen.unsent > 0);
    // 10 KiB a second each, beside 7 times 200 messages with 10 octets of header.
    let others = 7 * 200 * (65_536 + 10);
    let slow = run.total("bytes_in") as f64 - others as f64;
    let expected = 3.0 * 10_240.0 * lived.as_secs_f64();
    assert!((0.4 * expected..1.5 * expected).contains(&slow), "{slow} of {expected} bytes: {}", run.said());
}

#[test]
fn who_never_reads_takes_nothing_and_others_take_all() {
    let _machine = beside();
    let (run, tally, _) = flooded("never-reads");
    count(&tally, 3, |seen| seen.delivered < 200 && seen.unsent > 0);
    // Nothing but its own 101, and what came in the same read: the tool reads 256 KiB at a time.
    let heads = 10 * octets::switching("").len() as u64;
    let beyond = run.total("bytes_in") - 7 * 200 * (65_536 + 10) - heads;
    assert!(beyond < 3 * 256 * 1024, "{beyond} bytes: {}", run.said());
}
