//! What a shard tells of what it holds, as its sweep comes by.

use std::time::Duration;

use corecast::stats::MemoryClass;

use crate::by_hand::{ByHand, write_all};
use crate::harness::websocket::{CONTINUATION, TEXT, frame};

/// Bytes of `class` after the sweep has come by everybody: twice, because a pass may be under way.
fn memory(shard: &mut ByHand, class: MemoryClass) -> u64 {
    for _ in 0..16 {
        shard.pass(Duration::from_millis(160));
        shard.turn();
    }
    shard.turn().memory[class as usize]
}

#[test]
fn issue_7_a_message_that_is_being_put_together_counts_among_the_buffers() {
    let mut shard = ByHand::start(|_| {});
    let mut client = shard.websocket("/ws?user=ann");
    let before = memory(&mut shard, MemoryClass::Buffers);
    write_all(&mut client, &frame(false, TEXT, &[b'x'; 30_000]));
    shard.until("it is read", |stats| stats.received_bytes > 30_000);
    let during = memory(&mut shard, MemoryClass::Buffers);
    assert!((30_000..70_000).contains(&(during - before)), "{before} B, then {during} B");
    write_all(&mut client, &frame(true, CONTINUATION, b"x"));
    shard.until("it is whole", |stats| stats.uplinks == 1);
    assert_eq!(memory(&mut shard, MemoryClass::Buffers), before);
}
