//! The process that a user starts: makes plans, starts workers, publishes, adds up, reports.
//!
//! It holds no connection itself. `scenario` turns arguments into plans, `crew` is the workers, `session`
//! one run with its phases, `modes` what each mode does, `publisher` who publishes, `ledger` the sums.

#[allow(dead_code, reason = "bench/figures uses more of it")]
mod crew;
mod ledger;
pub mod modes;
mod publisher;
mod scenario;
mod session;
