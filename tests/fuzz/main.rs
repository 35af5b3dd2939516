//! The fuzz targets without the fuzzer: every input that `fuzz/corpus` keeps.

mod corpus;
#[path = "../../fuzz/src/lib.rs"]
mod targets;
