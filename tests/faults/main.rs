//! Faults, each beside good clients that are watched (issue 6): `tests/faults/run` runs them as large as they
//! are meant, on a quiet machine, and prints a table; the tests here are their short forms.
//!
//! `scene` is the gateway with its good ones, `crowd` thousands of clients on a thread, `table` what comes
//! out. README.md says how to read it.

mod crowd;
#[allow(dead_code, reason = "tests/gateway uses more of it")]
#[path = "../gateway/harness/mod.rs"]
mod harness;
mod scene;
mod table;

mod clock;
mod control;
mod frozen;
mod hostile;
mod leaving;
mod memory;
mod network;
mod readers;
mod storms;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use scene::Form;
use table::{HEAD, Row};

/// One fault at a time: each measures, and counts descriptors.
static MACHINE: Mutex<()> = Mutex::new(());

/// Plants it, and says what came of it.
type Fault = fn(Form) -> Row;

/// Every fault by the name that `FAULTS` may choose it by.
const FAULTS: [(&str, Fault); 16] = [
    ("storm", storms::storm),
    ("cap", storms::over_the_cap),
    ("reading", readers::stop_reading),
    ("vanish", network::vanish),
    ("emfile", storms::no_descriptors),
    ("memory", memory::capped),
    ("sigterm", leaving::sigterm),
    ("frozen-1", |form| frozen::frozen(form, 1)),
    ("frozen-10", |form| frozen::frozen(form, 10)),
    ("frozen-60", |form| frozen::frozen(form, 60)),
    ("control", control::misused),
    ("resets", storms::resets),
    ("pushes", readers::too_many_pushes),
    ("clock", clock::jumps),
    ("slowhttp", hostile::slow_http),
    ("hostile", hostile::websockets),
];

#[track_caller]
fn short(name: &str) {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let (_, run) = FAULTS.iter().find(|(other, _)| *other == name).unwrap();
    run(Form::Short).assert_holds();
}

/// One test for each, by the rule that it holds.
macro_rules! short_forms {
    ($($rule:ident = $name:literal,)*) => { $(#[test] fn $rule() { short($name); })* };
}

short_forms! {
    issue_6_a_storm_of_new_clients_gets_in_beside_the_old_ones = "storm",
    issue_6_who_comes_above_the_limit_is_told_503_and_nobody_else_notices = "cap",
    issue_6_who_stops_reading_is_cut_and_the_others_get_everything = "reading",
    issue_6_who_vanishes_without_fin_is_missed_within_its_heartbeat = "vanish",
    issue_6_without_descriptors_those_that_are_in_stay_in = "emfile",
    issue_6_at_the_memory_limit_the_gateway_lives = "memory",
    issue_6_sigterm_tells_everybody_and_ends_in_time = "sigterm",
    issue_6_a_frozen_shard_delays_nobody_on_the_others = "frozen-1",
    issue_6_a_misused_control_socket_delays_no_push = "control",
    issue_6_resets_at_once_leave_nothing = "resets",
    issue_6_pushes_beyond_what_is_drained_are_busy_and_the_rest_arrives = "pushes",
    issue_6_a_jump_of_the_wall_clock_ends_nobody = "clock",
    issue_6_slow_requests_and_readers_are_ended_in_time = "slowhttp",
    issue_6_hostile_websockets_disturb_nobody = "hostile",
}

/// All of them, or those that `FAULTS` names, as issue 6 has them: the table on standard output.
#[test]
#[ignore = "a quarter of an hour on a quiet machine: tests/faults/run"]
fn full() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let chosen = std::env::var("FAULTS").unwrap_or_default();
    let chosen: Vec<&str> = chosen.split_whitespace().collect();
    for name in &chosen {
        assert!(FAULTS.iter().any(|(other, _)| other == name), "no fault is called {name}");
    }
    println!("{HEAD}");
    let mut broken = Vec::new();
    for (name, run) in FAULTS.iter().filter(|(name, _)| chosen.is_empty() || chosen.contains(name)) {
        let row = catch_unwind(AssertUnwindSafe(|| run(Form::Full))).unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            Row::broke_off(name, words.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?").to_owned())
        });
        println!("{row}");
        broken.extend((!row.holds()).then_some(*name));
    }
    assert!(broken.is_empty(), "did not hold: {}", broken.join(" "));
}
