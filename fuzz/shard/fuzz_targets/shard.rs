//! A run of `tests/simulation`, its chances drawn by the fuzzer: what happens to the shards, and what their ring
//! does to them. Everything is checked that is checked there. What it finds becomes a test there, too.
#![no_main]

#[path = "../../../tests/simulation/client.rs"]
mod client;
#[path = "../../../tests/simulation/run.rs"]
mod run;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    let chance = corecast::ring::simulated::Dice::Octets(octets.to_vec().into());
    run::Run::new(chance).perform();
});
