//! Where log lines go: standard error, as text or JSON, filtered by `log.level`.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, reload};

use crate::config::{self, ConfigError, LogFormat, Origin};

/// Filters the log by another `log.level`.
type Filter = Box<dyn Fn(&config::Log) + Send>;

/// Starts logging for the rest of the process, and gives what changes its filter. Colours only where a
/// terminal reads; controls in what is logged are escaped by the formatter. Errors: `ConfigError::Value` for
/// `log.level`, which `config::load` has refused already.
pub(super) fn start(log: &config::Log) -> Result<Filter, ConfigError> {
    let (filter, handle) = reload::Layer::new(parse(log)?);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    // Fails only where a test in this process has started one before.
    let _ = match log.format {
        LogFormat::Text => registry.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init(),
        LogFormat::Json => registry.with(lines.json().with_ansi(false)).try_init(),
    };
    Ok(Box::new(move |log| {
        // Neither can be: the level was checked, and the log lives as long as the process.
        if let Ok(filter) = parse(log) {
            let _ = handle.reload(filter);
        }
    }))
}

fn parse(log: &config::Log) -> Result<EnvFilter, ConfigError> {
    EnvFilter::try_new(&log.level).map_err(|error| ConfigError::Value {
        key: Some("log.level".to_owned()),
        origin: Origin::Default,
        message: error.to_string(),
    })
}
