//! One core's executor with all that it owns.
pub mod mailbox;
