//! Who is cut when memory is short (issue 6).

use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use corecast::config::ByteSize;
use corecast::stats::CloseReason;

use crate::by_hand::{ByHand, read_more};
use crate::harness::eventually;
use crate::harness::websocket::connect;

const SEND_BYTES: u64 = 4096;

/// A shard, a client that is not behind, and three that read nothing: the later, the further behind.
fn behind() -> (ByHand, TcpStream, [TcpStream; 3]) {
    let mut shard = ByHand::start(|config| config.limits.socket_send_bytes = ByteSize(SEND_BYTES));
    let idle = shard.websocket("/ws");
    let clients = ["/ws?topics=t", "/ws?topics=t,b", "/ws?topics=t,b,c"];
    let clients = clients.map(|target| {
        let socket = connect(shard.address, Some(4096), None);
        shard.websocket_on(socket, target)
    });
    for _ in 0..10 {
        ["t", "b", "c"].into_iter().for_each(|topic| shard.push(topic, &[b'x'; 16 << 10]));
    }
    shard.until("they are blocked", |stats| stats.blocked == 3 && stats.pushes == 30);
    (shard, idle, clients)
}

fn tell_to_cut(shard: &ByHand, bytes: u64) {
    shard.gate.cut_bytes.store(bytes, Ordering::Relaxed);
    shard.gate.cuts_told.fetch_add(1, Ordering::Release);
}

/// The clock comes by everybody.
fn sweep(shard: &mut ByHand) {
    for _ in 0..10 {
        shard.pass(Duration::from_millis(160));
        shard.turn();
    }
}

/// Whether the connection ends, by a reset, too.
fn has_ended(client: &TcpStream) -> bool {
    let mut octets = [0; 16 << 10];
    !matches!(
        rustix::net::recv(client, &mut octets[..], rustix::net::RecvFlags::DONTWAIT),
        Ok((1.., _)) | Err(rustix::io::Errno::AGAIN)
    )
}

#[test]
fn issue_6_the_furthest_behind_are_cut_until_so_much_is_freed_and_nobody_else() {
    let (mut shard, _idle, _clients) = behind();
    // As much as one socket's buffer, and then as much as three.
    for (bytes, left) in [(SEND_BYTES, 3), (3 * SEND_BYTES, 1)] {
        tell_to_cut(&shard, bytes);
        let cut = 4 - left;
        assert_eq!(shard.turn().connections, left);
        assert_eq!(shard.turn().connections, left, "told once, done once");
        sweep(&mut shard);
        let stats = shard.until("its memory is free", |stats| stats.open == left);
        assert_eq!(stats.closed[CloseReason::Memory as usize], cut);
        assert_eq!(stats.accepted, stats.open + stats.closed_total());
    }
    tell_to_cut(&shard, u64::MAX);
    assert_eq!(shard.turn().connections, 1, "who is not behind stays");
}

#[test]
fn issue_6_the_one_that_is_cut_is_the_one_furthest_behind() {
    let (mut shard, _idle, clients) = behind();
    tell_to_cut(&shard, 1);
    sweep(&mut shard);
    eventually("its end", || has_ended(&clients[2]).then_some(()));
    assert!(!has_ended(&clients[0]) && !has_ended(&clients[1]));
}

#[test]
fn issue_6_who_reads_again_at_once_is_told_4000() {
    let (mut shard, _idle, mut clients) = behind();
    tell_to_cut(&shard, 1);
    let mut octets = Vec::new();
    // Time stands still: it has all of it.
    eventually("the close frame", || {
        shard.turn();
        read_more(&mut clients[2], &mut octets);
        octets.ends_with(b"memory is short").then_some(())
    });
    let close = &octets[octets.len() - 19..];
    assert_eq!(close[..4], [0x88, 17, 0x0f, 0xa0]);
}
