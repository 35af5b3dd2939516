//! What is sent, and what must come back: texts with variables, targets, cURL, checks. No socket, no clock.

pub mod curl;
mod shell;
pub mod targets;
pub mod template;
pub mod variables;
pub mod verify;
