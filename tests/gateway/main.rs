//! The gateway as clients, pushers and operators meet it: the real binary on real sockets.
//!
//! One file per subject; each test starts a gateway of its own through `harness`. The machines inside
//! have their own specification in tests/spec, which needs no sockets.

mod addresses;
mod admin;
mod cli;
mod connections;
mod conservation;
mod control;
mod dashboard;
mod demo;
mod descriptors;
mod drain;
mod echo;
mod event_streams;
mod events;
mod expiry;
mod handshake;
mod harness;
mod heartbeat;
mod http;
mod identity;
mod json;
mod limits;
mod log_levels;
mod memory;
mod metrics;
mod poll_connections;
mod polls;
mod profile;
mod proxies;
mod push;
mod raw;
mod real_clients;
mod reload;
mod resume;
mod service;
mod slow;
mod start;
mod storms;
mod tickets;
mod top;
mod trace;
mod wall_clock;
