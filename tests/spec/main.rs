//! The protocols as their specifications say, without sockets or a clock: one file per room and subject.

mod envelope;
mod request;
mod request_hostile;
mod script;
mod sequencer;
mod session;
mod websocket;
