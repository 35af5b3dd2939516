//! RFC 6455 after the handshake, by section.

mod close;
mod encode;
mod fragmentation;
mod framing;
mod memory;
mod properties;
mod utf8;
