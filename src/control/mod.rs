//! The control socket: commands in, answers out.
pub mod command;
