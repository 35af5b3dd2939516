//! The whole tool: `corecast-bench` against servers whose behaviour is known, and against servers of others.

mod bench;
mod guest;
mod planted;
#[allow(dead_code, reason = "tests/gateway uses more of it")]
#[path = "../../gateway/harness/guest.rs"]
mod process;

mod behaviours;
mod chat;
mod endings;
mod interrupted;
mod latency;
mod messages;
mod opening;
mod overhead;
mod page;
mod requests;
mod storm;
mod strangers;
mod yardstick;
