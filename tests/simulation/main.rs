//! Shards, mailboxes, the sequencer and clients of every transport on one thread, from one seed: the same seed
//! is the same run, octet by octet. Pushes, subscriptions, kicks, hand-overs, drains and reloads happen in any
//! order, over a ring (`corecast::ring::simulated`) where everything goes wrong that a kernel can do wrong.
//!
//! `run` performs a run and checks it after every turn; `client` is a client. A seed that fails says so, and
//! `SEED=n` runs it alone. `SEEDS=n` runs so many.

mod client;
mod run;

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use corecast::ring::simulated::Dice;
use corecast::stats::ShardStats;
use run::{Run, Story};

/// Seeds of one run of the tests, from 1.
const SEEDS: u64 = 1000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// Performs the run of `seed`.
#[track_caller]
fn simulate(seed: u64) -> Story {
    catch_unwind(|| Run::new(Dice::Seed(seed)).perform()).unwrap_or_else(|_| {
        panic!(
            "seed {seed} failed; again: SEED={seed} cargo test --release --features simulation --test simulation seeds"
        )
    })
}

type Count = fn(&ShardStats) -> u64;

/// What has to happen in some of so many runs, or they prove little.
const HAPPENS: [(&str, Count); 8] = [
    ("accept errors", |stats| stats.accept_errors.iter().sum()),
    ("hand-overs", |stats| stats.moved_in),
    ("replayed", |stats| stats.replayed),
    ("expired", |stats| stats.expired),
    ("polls answered", |stats| stats.polls_answered),
    ("pongs", |stats| stats.pongs),
    ("handed", |stats| stats.handed),
    ("delivered", |stats| stats.delivered),
];
const DROPPED: [&str; 8] = [
    "peer_closed",
    "peer_gone",
    "protocol_error",
    "slow_consumer",
    "kicked",
    "drained",
    "answered",
    "unsubscribed",
];

fn assert_everything_happened(shards: &[ShardStats]) {
    for (what, of) in HAPPENS {
        assert!(shards.iter().map(of).sum::<u64>() > 0, "never: {what}");
    }
    let dropped = |reason: &str| -> u64 {
        let all = shards.iter().flat_map(|stats| stats.dropped.by_reason());
        all.filter(|(name, _)| *name == reason).map(|(_, count)| count).sum()
    };
    for reason in DROPPED {
        assert!(dropped(reason) > 0, "no message was ever dropped because of {reason}");
    }
}

#[test]
fn issue_6_whatever_happens_every_message_is_accounted_for_and_everything_is_given_back_seeds() {
    if let Some(seed) = variable("SEED") {
        let Story { pushes, clients, shards } = simulate(seed);
        return println!("{pushes} pushes, {clients} clients: {shards:#?}");
    }
    let stories = Mutex::new(Vec::new());
    let (next, last) = (AtomicU64::new(1), variable("SEEDS").unwrap_or(SEEDS));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > last {
                        return;
                    }
                    stories.lock().expect("no panic here").extend(simulate(seed).shards);
                }
            });
        }
    });
    if last >= SEEDS {
        assert_everything_happened(&stories.into_inner().expect("no panic here"));
    }
}

/// As `fuzz/shard` does it: behind a fuzzer's octets nothing goes wrong any more.
#[test]
fn issue_6_a_run_whose_chances_are_used_up_ends_as_well() {
    for seed in 0..100 {
        let mut chance = Dice::Seed(seed);
        let octets = (0..chance.below(4096)).map(|_| chance.below(256) as u8).collect();
        Run::new(Dice::Octets(octets)).perform();
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let story = |seed| format!("{:?}", Run::new(Dice::Seed(seed)).perform());
    for seed in [1, 2, 3] {
        assert_eq!(story(seed), story(seed), "seed {seed}");
    }
    assert_ne!(story(1), story(2));
}
