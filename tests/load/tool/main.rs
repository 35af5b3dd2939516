//! The whole tool: `corecast-bench` against servers whose behaviour is known, and against servers of others.

mod bench;
mod guest;
mod planted;

mod behaviours;
mod chat;
mod endings;
mod latency;
mod messages;
mod opening;
mod overhead;
mod page;
mod requests;
mod storm;
mod strangers;
mod yardstick;
