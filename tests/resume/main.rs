//! Resume as a property: one model of what each client must receive, and random runs of everything that may
//! happen to clients, held against it twice.
//!
//! `model` is the specification. `operations` draws runs, `run` performs them and `hearing` judges what comes,
//! on shards turned by hand (`lone`) and on the real gateway (`process`), through the clients of `client`.
//! `past` has what went wrong in servers of others, and `found` the runs that once failed here.

mod client;
mod found;
mod hearing;
mod lone;
mod model;
mod operations;
mod past;
mod process;
mod run;

// Of the clients and the gateway there, not everything is used here.
#[allow(dead_code)]
#[path = "../gateway/harness/mod.rs"]
mod harness;

use lone::Lone;
use model::Limits;
use operations::{Operations, limits, operations};
use process::Process;
use proptest::prelude::*;
use run::Run;

/// As many as the variable PROPTEST_CASES says, if it is set.
fn cases(unless_set: u32) -> ProptestConfig {
    let set = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    // A run that fails is printed whole; it belongs into `found`, and not into a file.
    ProptestConfig {
        cases: set.unwrap_or(unless_set),
        failure_persistence: None,
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    }
}

/// A run on shards turned by hand.
fn perform_by_hand(
    limits: Limits,
    poll_bytes: usize,
    shards: u16,
    operations: &Operations,
) -> Result<(), String> {
    let limits = Limits { entry_bytes: lone::entry_bytes(), ..limits };
    let machine = Lone::start(&limits, poll_bytes, shards);
    Run::new(machine, limits, usize::from(shards)).perform(&operations.0)
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn contract_2_every_client_receives_what_the_model_says_from_shards_turned_by_hand(
        limits in limits(),
        poll_bytes in prop::sample::select(&[1 << 10, 256 << 10][..]),
        shards in 1..4u16,
        operations in operations(),
    ) {
        let done = perform_by_hand(limits, poll_bytes, shards, &operations);
        prop_assert!(done.is_ok(), "{}", done.unwrap_err());
    }
}

proptest! {
    #![proptest_config(cases(30))]

    #[test]
    fn contract_2_every_client_receives_what_the_model_says_from_a_gateway(
        messages in prop::sample::select(&[2usize, 5, 1000][..]),
        operations in operations(),
    ) {
        let (machine, limits) = Process::start(messages);
        // One shard to the model: what is kept of a target is the same wherever it lives.
        let done = Run::new(machine, limits, 1).perform(&operations.0);
        prop_assert!(done.is_ok(), "{}", done.unwrap_err());
    }
}
