//! Where log lines go: standard error, as text or JSON, filtered by `log.level`; or the journal with their
//! fields, where standard error is its pipe and text is wanted.

use std::ffi::OsStr;
use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, reload};

use super::log_lines;
use crate::config::{self, ConfigError, LogFilter, LogFormat, Origin};

/// Starts logging for the rest of the process, and gives what changes its filter. Colours only where a
/// terminal reads. Errors: `ConfigError::Value` for
/// `log.level`, which `config::load` has refused already.
pub(super) fn start(log: &config::Log) -> Result<LogFilter, ConfigError> {
    let (filter, handle) = reload::Layer::new(parse(&log.level)?);
    let registry = tracing_subscriber::registry().with(filter);
    // Fails only where a test in this process has started one before.
    let _ = match log.format {
        LogFormat::Text if let Some(journal) = journal() => registry.with(journal).try_init(),
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

/// The journal, where standard error leads there: a level becomes its PRIORITY, a field `shard` is
/// CORECAST_SHARD. `None` too where its socket is not to be had: then lines are better than nothing.
fn journal() -> Option<tracing_journald::Layer> {
    let stream = std::env::var_os("JOURNAL_STREAM")?;
    let stderr = rustix::fs::fstat(std::io::stderr()).ok()?;
    if !is_stream(&stream, stderr.st_dev, stderr.st_ino) {
        return None;
    }
    let journal = tracing_journald::layer().ok()?;
    Some(journal.with_field_prefix(Some("CORECAST".to_owned())))
}

/// Whether JOURNAL_STREAM, `<device>:<inode>` in decimal, names this file (systemd.exec(5)): inherited by a
/// process whose standard error leads elsewhere, it does not.
fn is_stream(stream: &OsStr, device: u64, inode: u64) -> bool {
    stream.to_str() == Some(&format!("{device}:{inode}"))
}

fn parse(filter: &str) -> Result<EnvFilter, ConfigError> {
    EnvFilter::try_new(filter).map_err(|error| ConfigError::Value {
        key: Some("log.level".to_owned()),
        origin: Origin::Default,
        message: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issue_5_the_journal_is_meant_only_where_standard_error_is_its_pipe() {
        assert!(is_stream(OsStr::new("8:1234"), 8, 1234));
        for other in ["8:12345", "9:1234", "8:1234 ", "8", "", "1234:8"] {
            assert!(!is_stream(OsStr::new(other), 8, 1234), "{other}");
        }
    }
}
