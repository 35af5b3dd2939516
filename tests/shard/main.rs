//! One shard turned by hand: what it does within one turn, and what it does when time passes.
//!
//! Real sockets and a real ring, no process and no executor (`by_hand`): a rule about turns can be seen turn by
//! turn. What clients see of the whole gateway is in tests/gateway.

mod admission;
mod by_hand;
mod ends;
mod expiry;
mod fairness;
mod listing;
mod measuring;
mod shedding;
mod slow;
mod trail;

// Of the clients there, not everything is used here.
#[allow(dead_code)]
#[path = "../gateway/harness/mod.rs"]
mod harness;
