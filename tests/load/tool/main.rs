//! The whole tool: `corecast-bench` against servers whose behaviour is known, and against servers of others.

mod bench;
mod guest;
mod planted;

mod yardstick;
