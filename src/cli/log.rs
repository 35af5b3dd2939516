//! Where log lines go: standard error, as text or JSON, filtered by `log.level`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{self, ConfigError, LogFormat, Origin};

/// Starts logging for the rest of the process. Colours only where a terminal reads; controls in what is
/// logged are escaped by the formatter. Errors: `ConfigError::Value` for `log.level`, which `config::load`
/// has refused already.
pub(super) fn start(log: &config::Log) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&log.level).map_err(|error| ConfigError::Value {
        key: Some("log.level".to_owned()),
        origin: Origin::Default,
        message: error.to_string(),
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Fails only where a test in this process has started one before.
    let _ = match log.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().with_ansi(false).try_init(),
    };
    Ok(())
}
