//! The journal: each event one datagram of fields, by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).
//!
//! Values are escaped and cut as those of lines are, so that a field is a line `NAME=value` and a datagram is short.

use std::ffi::OsStr;
use std::fmt::{Debug, Write};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::log_lines::plain;

const SOCKET: &str = "/run/systemd/journal/socket";

/// Where events go; a level becomes its PRIORITY, a field `shard` is CORECAST_SHARD.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// The journal, where standard error leads there. `None` too where its socket is not to be had: then lines are
    /// better than nothing.
    pub(super) fn of_stderr() -> Option<Self> {
        let stream = std::env::var_os("JOURNAL_STREAM")?;
        let stderr = rustix::fs::fstat(io::stderr()).ok()?;
        if !is_stream(&stream, stderr.st_dev, stderr.st_ino) {
            return None;
        }
        Self::at(SOCKET).ok()
    }

    /// Errors: nobody listens there.
    fn at(path: impl Into<PathBuf>) -> io::Result<Self> {
        let journal = Self { socket: UnixDatagram::unbound()?, path: path.into() };
        // What is empty is thrown away there.
        journal.socket.send_to(b"", &journal.path)?;
        Ok(journal)
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = Fields(String::with_capacity(256));
        fields.put("PRIORITY", &priority(*metadata.level()));
        fields.put("SYSLOG_IDENTIFIER", &"corecast");
        fields.put("TARGET", &metadata.target());
        fields.put("CODE_FILE", &metadata.file().unwrap_or_default());
        fields.put("CODE_LINE", &metadata.line().unwrap_or_default());
        event.record(&mut fields);
        // By name each time: the journal may have been started anew. A line that it does not take is lost.
        let _ = self.socket.send_to(fields.0.as_bytes(), &self.path);
    }
}

/// syslog(3)'s levels: trace is its debug.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 5,
        Level::DEBUG => 6,
        Level::TRACE => 7,
    }
}

/// `NAME=value`, each on a line.
struct Fields(String);

impl Fields {
    fn put(&mut self, name: &str, value: &dyn std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{name}=");
        let _ = plain(&mut self.0, format_args!("{value}"));
        self.0.push('\n');
    }

    fn put_field(&mut self, field: &Field, value: &dyn std::fmt::Display) {
        match field.name() {
            "message" => self.put("MESSAGE", value),
            name => self.put(&format!("CORECAST_{}", name.to_ascii_uppercase()), value),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_field(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put_field(field, &format_args!("{value:?}"));
    }
}

/// Whether JOURNAL_STREAM, `<device>:<inode>` in decimal, names this file (systemd.exec(5)): inherited by a
/// process whose standard error leads elsewhere, it does not.
fn is_stream(stream: &OsStr, device: u64, inode: u64) -> bool {
    stream.to_str() == Some(&format!("{device}:{inode}"))
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn issue_5_the_journal_is_meant_only_where_standard_error_is_its_pipe() {
        assert!(is_stream(OsStr::new("8:1234"), 8, 1234));
        for other in ["8:12345", "9:1234", "8:1234 ", "8", "", "1234:8"] {
            assert!(!is_stream(OsStr::new(other), 8, 1234), "{other}");
        }
    }

    /// What the journal gets of `event`.
    fn datagram(event: impl FnOnce()) -> String {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("socket")).unwrap();
        let journal = Journal::at(directory.path().join("socket")).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), event);
        let mut datagram = vec![0; 65_536];
        assert_eq!(socket.recv(&mut datagram).unwrap(), 0, "whether it is there");
        let length = socket.recv(&mut datagram).unwrap();
        String::from_utf8(datagram[..length].to_vec()).unwrap()
    }

    #[test]
    fn issue_7_the_journal_gets_level_message_and_fields() {
        let told = datagram(|| tracing::warn!(shard = 3, user = "ann", remote = %"a:1", "slow"));
        for line in ["PRIORITY=4", "SYSLOG_IDENTIFIER=corecast", "MESSAGE=slow", "CORECAST_SHARD=3"] {
            assert!(told.lines().any(|told| told == line), "{line}: {told}");
        }
        assert!(told.contains("\nCORECAST_USER=ann\nCORECAST_REMOTE=a:1\n"), "{told}");
        assert!(told.contains(&format!("\nTARGET={}\n", module_path!())), "{told}");
    }

    #[test]
    fn issue_7_no_value_makes_a_field_of_its_own_nor_a_long_one() {
        let hostile = "a\nPRIORITY=0\r\u{1b}[31m\u{9b}\0";
        let long = "x".repeat(64 << 10);
        let told = datagram(|| tracing::info!(user = hostile, debug = ?hostile, long, "{hostile}"));
        let priorities: Vec<&str> = told.lines().filter(|line| line.starts_with("PRIORITY=")).collect();
        assert_eq!(priorities, ["PRIORITY=5"]);
        assert!(!told.chars().any(|c| c.is_control() && c != '\n'), "{told:?}");
        assert!(told.contains("\nMESSAGE=a\\nPRIORITY=0\\r\\u{1b}[31m\\u{9b}\\u{0}\n"), "{told}");
        assert!(told.len() < 2048 && told.contains("x... (64512 bytes more)\n"), "{} bytes", told.len());
    }
}
