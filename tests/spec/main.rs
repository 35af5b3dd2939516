//! The protocols as their specifications say, without sockets: one file per room and subject.

mod envelope;
mod request;
mod request_hostile;
mod session;
