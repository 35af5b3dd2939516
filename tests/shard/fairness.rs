//! No client holds up the others by how much it sends (issue 6).

use std::io::Write;
use std::net::TcpStream;

use crate::by_hand::{ByHand, read_more, write_all};
use crate::harness::websocket::{BINARY, CONTINUATION, PING, PONG, TEXT, frame, upgrade};

/// Frames of one client that a turn hears.
const FRAMES_PER_TURN: u64 = 64;

/// Clients that a turn receives from.
const RECEIVES_PER_TURN: u64 = 512;

fn shard() -> ByHand {
    ByHand::start(|config| {
        config.limits.uplinks_per_second = 0;
        config.limits.fragments = 1 << 20;
        config.web.echo = true;
    })
}

/// The frames in `octets`, as opcode and payload; all of them short.
fn frames(mut octets: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [first, length, ..] = *octets {
        let (frame, rest) = octets.split_at(2 + usize::from(length));
        frames.push((first & 0xf, frame[2..].to_vec()));
        octets = rest;
    }
    frames
}

#[test]
fn issue_6_a_turn_hears_64_frames_of_a_client_that_sends_10000_at_once() {
    let mut shard = shard();
    let mut flood = shard.websocket("/ws");
    write_all(&mut flood, &frame(true, TEXT, b"").repeat(10_000));
    let (mut heard, mut turns) = (0, 0);
    while heard < 10_000 {
        let uplinks = shard.turn().uplinks;
        turns += 1;
        assert!(uplinks - heard <= FRAMES_PER_TURN, "{} in turn {turns}", uplinks - heard);
        heard = uplinks;
        assert!(turns < 1000, "{heard} heard");
    }
    assert!(turns >= 10_000 / FRAMES_PER_TURN);
    let stats = shard.turn();
    assert!(stats.deferred > 0 && (stats.uplinks, stats.connections) == (10_000, 1), "{stats:?}");
}

#[test]
fn issue_6_the_neighbours_of_a_flood_are_heard_within_three_turns() {
    let mut shard = shard();
    let (mut flood, mut neighbour) = (shard.websocket("/ws"), shard.websocket("/ws"));
    write_all(&mut flood, &frame(true, TEXT, b"").repeat(10_000));
    let mut rounds = 0;
    while shard.turn().uplinks < 9_000 {
        write_all(&mut neighbour, &frame(true, PING, b"?"));
        let (mut octets, mut turns) = (Vec::new(), 0);
        while octets.is_empty() {
            // To be told of it, to hear it, and one to spare.
            assert!(turns < 3);
            shard.turn();
            turns += 1;
            read_more(&mut neighbour, &mut octets);
        }
        assert_eq!(frames(&octets), [(PONG, b"?".to_vec())]);
        rounds += 1;
    }
    assert!(rounds > 10, "the flood was over after {rounds} rounds");
}

#[test]
fn issue_6_a_turn_hears_512_of_a_storm_and_pushes_go_out_meanwhile() {
    let mut shard = ByHand::start(|config| config.limits.connects_per_second = 0);
    let mut listener = shard.websocket("/ws?topics=t");
    let storm = (0..2_000).map(|_| {
        let mut stream = TcpStream::connect(shard.address).unwrap();
        stream.write_all(upgrade("/ws", "").as_bytes()).unwrap();
        stream
    });
    let storm: Vec<_> = storm.collect();
    let (mut connections, mut turns) = (1, 0);
    while connections < 1 + storm.len() as u64 {
        shard.push("t", b"meanwhile");
        let now = shard.turn().connections;
        assert!(now - connections <= RECEIVES_PER_TURN, "{} in turn {turns}", now - connections);
        let mut octets = Vec::new();
        read_more(&mut listener, &mut octets);
        assert_eq!(frames(&octets), [(BINARY, b"meanwhile".to_vec())], "in turn {turns}");
        (connections, turns) = (now, turns + 1);
        assert!(turns < 100, "{connections} are in");
    }
    assert!(turns >= storm.len() / RECEIVES_PER_TURN as usize, "{turns}");
}

#[test]
fn issue_6_fragments_count_as_frames() {
    let mut shard = shard();
    let mut flood = shard.websocket("/ws");
    let fragments = 1000;
    let last = frame(true, CONTINUATION, b"");
    let message = [frame(false, TEXT, b""), frame(false, CONTINUATION, b"").repeat(fragments), last].concat();
    write_all(&mut flood, &message);
    let mut turns = 0;
    while shard.turn().uplinks == 0 {
        turns += 1;
        assert!(turns < 1000);
    }
    assert!(turns >= fragments / FRAMES_PER_TURN as usize, "{turns}");
}

#[test]
fn issue_6_64_pings_at_once_get_64_pongs_in_their_order() {
    let mut shard = shard();
    let mut clients = ["/ws", "/echo"].map(|target| shard.websocket(target));
    for client in &mut clients {
        let payloads: Vec<_> = (10..74).map(|n: u8| n.to_string().into_bytes()).collect();
        let pings: Vec<u8> = payloads.iter().flat_map(|payload| frame(true, PING, payload)).collect();
        write_all(client, &pings);
        let pongs = frames(&shard.read(client, 64 * 4));
        assert_eq!(pongs, payloads.into_iter().map(|payload| (PONG, payload)).collect::<Vec<_>>());
    }
}

#[test]
fn rfc6455_5_5_3_a_flood_of_pings_gets_one_pong_a_turn_and_the_last_is_to_the_newest() {
    let mut shard = shard();
    let mut client = shard.websocket("/ws");
    let count = 9_000;
    let pings: Vec<u8> =
        (1000..1000 + count).flat_map(|n| frame(true, PING, n.to_string().as_bytes())).collect();
    write_all(&mut client, &pings);
    let newest = (1000 + count - 1).to_string().into_bytes();
    let mut octets = Vec::new();
    let mut turns = 0;
    while !octets.ends_with(&newest) {
        shard.turn();
        turns += 1;
        assert!(read_more(&mut client, &mut octets) && turns < 1000);
    }
    let pongs = frames(&octets);
    let numbers: Vec<u32> =
        pongs.iter().map(|(_, payload)| String::from_utf8_lossy(payload).parse().unwrap()).collect();
    assert!(numbers.is_sorted() && pongs.iter().all(|(opcode, _)| *opcode == PONG));
    // What is not more than a turn hears is answered one by one: the rest of each receive.
    let receives = pings.len().div_ceil(4096);
    assert!(pongs.len() <= turns + receives * FRAMES_PER_TURN as usize, "{} in {turns} turns", pongs.len());
    assert!(pongs.len() < count as usize / 4, "{} pongs", pongs.len());
}

#[test]
fn rfc6455_5_5_3_one_pong_waits_for_a_client_that_pings_and_does_not_read() {
    let mut shard = ByHand::start(|config| {
        config.limits.socket_send_bytes = corecast::config::ByteSize(4096);
        config.limits.send_backlog_bytes = config.limits.message_bytes;
    });
    let mut client = shard.websocket("/ws");
    let ping = frame(true, PING, &[b'p'; 125]).repeat(60);
    let mut sent = 0;
    while shard.turn().blocked == 0 {
        write_all(&mut client, &ping);
        sent += 60;
    }
    // Thrice as much as may wait for it, were it to wait.
    for _ in 0..3 * (64 << 10) / (60 * 127) + 1 {
        write_all(&mut client, &ping);
        shard.until("it is heard", |stats| stats.received_bytes as usize % ping.len() < 1024);
        sent += 60;
    }
    let stats = shard.turn();
    assert_eq!((stats.connections, stats.blocked), (1, 1), "{stats:?} after {sent} pings");
    write_all(&mut client, &frame(true, PING, b"newest"));
    let mut octets = Vec::new();
    while !octets.ends_with(b"newest") {
        shard.turn();
        assert!(read_more(&mut client, &mut octets));
    }
    assert!(frames(&octets).len() < sent, "{} pongs to {sent} pings", frames(&octets).len());
}
