//! How long a client may take nothing, on a clock that stands still while the machine is busy with others.

use std::time::Duration;

use corecast::config::ByteSize;
use corecast::stats::{CloseReason, ShardStats};

use crate::by_hand::{ByHand, read_more};
use crate::harness::eventually;
use crate::harness::websocket::connect;

const MESSAGES: u64 = 400;

/// So long passes, and the clock comes by everybody several times.
fn wait(shard: &mut ByHand, ms: u64) -> ShardStats {
    for _ in 0..ms / 20 {
        shard.pass(Duration::from_millis(20));
        shard.turn();
    }
    shard.turn()
}

#[test]
fn contract_2_a_client_that_reads_slowly_but_reads_is_not_cut_by_timeouts_send() {
    let mut shard = ByHand::start(|config| {
        config.limits.socket_send_bytes = ByteSize(4096);
        config.timeouts.send = Duration::from_millis(500);
        config.timeouts.close = Duration::from_millis(500);
    });
    let socket = connect(shard.address, Some(4096), None);
    let mut client = shard.websocket_on(socket, "/ws?topics=t&heartbeat=600");
    let push = |shard: &mut ByHand| (0..MESSAGES).for_each(|_| shard.push("t", &[b'x'; 1024]));
    push(&mut shard);
    let mut stats = shard.until("it is blocked", |stats| stats.blocked == 1 && stats.pushes == MESSAGES);
    let (mut octets, mut waits) = (Vec::new(), 0);
    while stats.blocked == 1 {
        // It takes something, a step of the window, and then nothing for most of the time that it may.
        let before = stats.sent_bytes;
        eventually("something is taken", || {
            read_more(&mut client, &mut octets);
            (shard.turn().sent_bytes > before).then_some(())
        });
        stats = wait(&mut shard, 400);
        waits += 1;
        assert_eq!(stats.connections, 1, "after {waits} times 400 ms");
    }
    assert!(waits > 5, "in all well over timeouts.send: {waits} times 400 ms");
    eventually("the last of it", || {
        shard.turn();
        read_more(&mut client, &mut octets);
        (octets.len() as u64 == MESSAGES * (1024 + 4)).then_some(())
    });
    // The same client, once it takes nothing for longer. Its kernel may: the time is counted from there.
    push(&mut shard);
    shard.until("it is blocked", |stats| stats.blocked == 1 && stats.pushes == 2 * MESSAGES);
    let mut taken = 0;
    let stats = eventually("a time without progress", || {
        let stats = wait(&mut shard, 700);
        (std::mem::replace(&mut taken, stats.sent_bytes) == stats.sent_bytes).then_some(stats)
    });
    assert_eq!(stats.connections, 0);
    // The close frame is not taken either.
    let stats = wait(&mut shard, 700);
    assert_eq!((stats.open, stats.closed[CloseReason::SlowConsumer as usize]), (0, 1));
}
