//! What a shard takes from the heap once it is warm: nothing.

use crate::rig::Outcome;
use crate::rig::lone_shard::LoneShard;
use crate::table::{Bound, Reading};

const SHARD_CORE: usize = 0;
const CLIENTS: u32 = 10_000;
const PAYLOAD_BYTES: usize = 256;
/// More than the harness lets the tape keep, so that every further one pushes one out.
const WARM_UP_BROADCASTS: u32 = 40;
const BROADCASTS: u32 = 20;
/// Until the last of the broadcasts is too old for the tape, and everybody has been pinged.
const WARM_UP_S: u64 = 700;
const HOUR_S: u64 = 3600;
const WAKES: u32 = 1000;

/// Heap allocations on the shard's thread, in its turns: per broadcast to 10,000 that keep up, beyond
/// the message itself, and in an hour in which the same 10,000 are only pinged. Measured once, because
/// it is counted, and because one allocation in all that would break the limit.
pub fn allocations() -> Outcome<Vec<Reading>> {
    let mut shard = LoneShard::start(SHARD_CORE)?;
    shard.connect(CLIENTS)?;
    shard.broadcast(WARM_UP_BROADCASTS, PAYLOAD_BYTES)?;
    let broadcast = shard.broadcast(BROADCASTS, PAYLOAD_BYTES)?;
    shard.pass(WARM_UP_S)?;
    let hour = shard.pass(HOUR_S)?;
    let woken = shard.wake(WAKES)?;
    shard.stop()?;
    let per = |allocations: u64, count: u32| allocations as f64 / f64::from(count);
    let promised = |name, value, unit, note: String| {
        Reading::detail(name, value, unit, note).goal(Bound::AtMost(0.0)).limit(Bound::AtMost(0.0))
    };
    let broadcasts = format!("{BROADCASTS} to {CLIENTS} each, in {} turns", broadcast.turns);
    let pings = format!("{} pings answered by {CLIENTS} clients", hour.pings);
    Ok(vec![
        promised("allocations.broadcast", per(broadcast.allocations, BROADCASTS), "a broadcast", broadcasts),
        promised("allocations.heartbeats", hour.allocations as f64, "an hour", pings),
        Reading::detail(
            "allocations.wake",
            per(woken.allocations, WAKES),
            "a wake-up",
            "the executor's, however many connections there are",
        ),
    ])
}
