//! The protocols as their specifications tell them: no sockets, no clock, milliseconds.

mod credential;
mod envelope;
mod event_stream;
mod forwarded;
mod long_poll;
mod proxy;
mod request;
mod request_hostile;
mod script;
mod sequencer;
mod session;
mod token;
mod websocket;
mod whatwg;
