//! What ends a run, by whose fault: the exit status says which.

use std::error::Error;
use std::fmt;

/// Why something could not be done. `Usage` and `Unreachable` have exit statuses of their own.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The command line is wrong: exit status 2.
#[derive(Debug)]
pub struct Usage(pub String);

/// Nobody answers at the target: exit status 3.
#[derive(Debug)]
pub struct Unreachable(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Usage {}
impl Error for Unreachable {}

/// A `Failure` from a format string.
#[macro_export]
macro_rules! failure {
    ($($text:tt)*) => { $crate::Failure::from(format!($($text)*)) };
}

/// The exit status of a failure.
pub fn exit_status(failure: &Failure) -> u8 {
    if failure.is::<Usage>() {
        2
    } else if failure.is::<Unreachable>() {
        3
    } else {
        1
    }
}
