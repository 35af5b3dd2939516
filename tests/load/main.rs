//! `corecast-bench`: what it says and understands (`spec`), without sockets and in milliseconds.
//!
//! The tool is a program without a library, so its pure rooms are compiled here once more.

#[expect(dead_code, reason = "`request::verify` names the checks of a plan and nothing else in it")]
#[path = "../../bench/load/plan.rs"]
mod plan;
#[expect(dead_code, reason = "a plan's news hold it")]
#[path = "../../bench/load/record.rs"]
mod record;
#[path = "../../bench/load/request/mod.rs"]
mod request;
#[path = "../../bench/load/wire/mod.rs"]
mod wire;

mod spec;
