//! The protocols as their specifications tell them: no sockets, no clock, milliseconds.

mod script;
mod websocket;
