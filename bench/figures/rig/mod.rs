//! Load and baselines: the processes that measure the gateway from outside, and what they read.
//!
//! Everything here runs in processes of its own, because one process may hold 20,000 descriptors and
//! because only a whole process can be charged for its CPU and memory: `receiver` is the client side
//! (a worker of corecast-bench: thousands of connections, one thread), `baseline` the bare server that the gateway is
//! compared with, `crowd` clients that may be refused, `lone_shard` a shard turned by hand, whose heap is watched. `process` starts and ends them
//! and the gateway; `pusher` keeps many pushes in flight. Nothing here knows a figure or its goal: next,
//! `figures`.

pub mod audience;
pub mod baseline;
pub mod crowd;
pub mod lone_shard;
pub mod process;
pub mod pusher;
pub mod receiver;

/// What went wrong, for people; a benchmark has nothing to decide by its kind.
pub type Outcome<T> = Result<T, crate::Failure>;

/// What each broadcast and push carries.
pub const PAYLOAD_BYTES: usize = 256;

/// So many in so many nanoseconds, as a rate per second.
pub fn per_second(count: u64, elapsed_ns: u64) -> f64 {
    count as f64 * 1e9 / elapsed_ns as f64
}
