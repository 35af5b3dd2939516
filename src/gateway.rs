//! Stands in for the gateway until it is merged.

use crate::config::Config;
use crate::fatal::Fatal;

/// Runs the gateway. Errors: `Fatal`.
pub fn serve(config: Config) -> Result<(), Fatal> {
    crate::fatal::check_host()?;
    let _ = config;
    Err(Fatal::ThreadStart { thread: "gateway".to_owned(), error: std::io::ErrorKind::Unsupported.into() })
}
