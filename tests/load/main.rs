//! `corecast-bench`: what it says and understands (`spec`), without sockets and in milliseconds.
//!
//! The tool is a program without a library, so its pure rooms are compiled here once more.

// The checks that `request::verify` compiles are words of the plan; the rest of it is not looked at here.
#[allow(dead_code, reason = "the tool's, and it uses more of it")]
#[path = "../../bench/load/plan.rs"]
mod plan;
#[allow(dead_code, reason = "the tool's, and it uses more of it")]
#[path = "../../bench/load/record.rs"]
mod record;
#[allow(dead_code, reason = "the tool's, and it uses more of it")]
#[path = "../../bench/load/request/mod.rs"]
mod request;
#[path = "../../bench/load/wire/mod.rs"]
mod wire;

mod spec;
