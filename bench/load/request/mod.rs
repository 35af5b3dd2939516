//! What is sent, and what must come back: texts with variables, targets, cURL, checks. No socket, no clock.

pub mod curl;
mod shell;
pub mod targets;
pub mod template;
pub mod values;
pub mod variables;
pub mod verify;

impl std::error::Error for targets::BadTargets {}
impl std::error::Error for targets::BadUrl {}
impl std::error::Error for template::BadTemplate {}
impl std::error::Error for variables::BadVariables {}
impl std::error::Error for verify::BadCheck {}
