//! The protocols from the client's side: bytes in, what they say out. No socket, no clock.
//!
//! A decoder is a function over the carry: what was left from before and what is new, as one slice. It says
//! how much of it is used up; the rest is given again with what comes next. So a connection that waits
//! keeps nothing, and one in the middle of something keeps that part only. `http::Chunks` is the one
//! exception, 16 bytes. What is decoded borrows from the input. The same input split anywhere gives the same.

pub mod event_stream;
pub mod http;
pub mod long_poll;
pub mod stamp;
pub mod websocket;

impl std::error::Error for http::BadHead {}
