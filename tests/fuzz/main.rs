//! The fuzz targets without the fuzzer: every input that `fuzz/corpus` keeps, and what we share with the
//! implementations of others, drawn at random.

mod corpus;
mod frames;
mod heads;
#[path = "../../fuzz/src/lib.rs"]
mod targets;
