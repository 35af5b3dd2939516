//! The protocols, as pure state machines: bytes and ticks in, events and bytes out.
//!
//! No I/O, no clock, no allocation for an idle connection (Rule 1). The same input split anywhere gives
//! the same output. Used by `shard` (clients) and by `control` (the request head parser).

pub mod close;
pub mod demo;
pub mod envelope;
pub mod event_stream;
pub mod forwarded;
pub mod long_poll;
pub mod origin;
pub mod proxy;
pub mod request;
pub mod session;
pub mod websocket;
