//! Where log lines go: standard error, as text or JSON, filtered by `log.level`; or the journal with their
//! fields, where standard error is its pipe and text is wanted.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, reload};

use super::journal::Journal;
use super::log_lines;
use crate::config::{self, ConfigError, LogFilter, LogFormat, Origin};

/// Starts logging for the rest of the process, and gives what changes its filter. Colours only where a
/// terminal reads. Errors: `ConfigError::Value` for `log.level`, which `config::load` has refused already.
pub(super) fn start(log: &config::Log) -> Result<LogFilter, ConfigError> {
    let (filter, handle) = reload::Layer::new(parse(&log.level)?);
    let registry = tracing_subscriber::registry().with(filter);
    // Fails only where a test in this process has started one before.
    let _ = match log.format {
        LogFormat::Text if let Some(journal) = Journal::of_stderr() => registry.with(journal).try_init(),
        LogFormat::Text => registry.with(text(std::io::stderr, std::io::stderr().is_terminal())).try_init(),
        LogFormat::Json => registry.with(json(std::io::stderr)).try_init(),
    };
    Ok(LogFilter::new(move |text| {
        // Neither can be: the text was checked, and the log lives as long as the process.
        if let Ok(filter) = parse(text) {
            let _ = handle.reload(filter);
        }
    }))
}

/// Lines for people.
pub(super) fn text<S, W>(writer: W, colours: bool) -> impl Layer<S>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    fmt::layer().with_writer(writer).with_ansi(colours).fmt_fields(log_lines::text_fields())
}

/// Lines for programs.
pub(super) fn json<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    fmt::layer().with_writer(writer).event_format(log_lines::JsonLines)
}

fn parse(filter: &str) -> Result<EnvFilter, ConfigError> {
    EnvFilter::try_new(filter).map_err(|error| ConfigError::Value {
        key: Some("log.level".to_owned()),
        origin: Origin::Default,
        message: error.to_string(),
    })
}
