//! `corecast-bench`: what it says and understands (`spec`), without sockets and in milliseconds.
//!
//! The tool is a program without a library, so its pure rooms are compiled here once more.

#[path = "../../bench/load/request/mod.rs"]
mod request;
#[path = "../../bench/load/wire/mod.rs"]
mod wire;

mod spec;
