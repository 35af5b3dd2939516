//! What a log line looks like, as text and as JSON: one line for one event, whatever strangers have put into it.
//!
//! Control characters are escaped, line ends among them, and what is longer than a person reads is cut; `journal` does
//! the same.

use std::fmt::{self, Debug, Write};

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{DefaultFields, Writer, debug_fn};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Longest field. The rest is counted.
const FIELD_BYTES_MAX: usize = 1024;

/// Writes escaped text up to a limit, and counts what comes behind it.
struct Plain<'w> {
    out: &'w mut dyn Write,
    written: usize,
    cut: usize,
}

impl<'w> Plain<'w> {
    fn new(out: &'w mut dyn Write) -> Self {
        Self { out, written: 0, cut: 0 }
    }

    fn finish(self) -> fmt::Result {
        if self.cut > 0 { write!(self.out, "... ({} bytes more)", self.cut) } else { Ok(()) }
    }
}

impl Write for Plain<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let length = c.len_utf8();
            if self.cut > 0 || self.written + length > FIELD_BYTES_MAX {
                self.cut += length;
                continue;
            }
            self.written += length;
            if c.is_control() {
                write!(self.out, "{}", c.escape_default())?
            } else {
                self.out.write_char(c)?
            }
        }
        Ok(())
    }
}

/// Writes `value` escaped and cut.
pub(super) fn plain(out: &mut dyn Write, value: fmt::Arguments<'_>) -> fmt::Result {
    let mut plain = Plain::new(out);
    plain.write_fmt(value)?;
    plain.finish()
}

/// The fields of a line of text.
pub(super) fn text_fields() -> impl for<'w> FormatFields<'w> + 'static {
    use tracing_subscriber::field::MakeExt;
    let field = |writer: &mut Writer<'_>, field: &Field, value: &dyn Debug| {
        if field.name() != "message" {
            write!(writer, "{}=", field.name())?;
        }
        plain(writer, format_args!("{value:?}"))
    };
    debug_fn(field).delimited(" ")
}

/// One JSON object a line: `timestamp`, `level`, `fields`, `target`.
#[derive(Debug)]
pub(super) struct JsonLines;

impl<S> FormatEvent<S, DefaultFields> for JsonLines
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, DefaultFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut fields = JsonFields(Map::new());
        event.record(&mut fields);
        let metadata = event.metadata();
        let (level, target) = (metadata.level().as_str(), metadata.target());
        writeln!(
            writer,
            "{}",
            json!({ "timestamp": timestamp, "level": level, "fields": fields.0, "target": target })
        )
    }
}

struct JsonFields(Map<String, Value>);

impl JsonFields {
    fn text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = plain(&mut text, value);
        self.0.insert(field.name().to_owned(), text.into());
    }
}

impl Visit for JsonFields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'w> MakeWriter<'w> for Kept {
        type Writer = Self;

        fn make_writer(&'w self) -> Self {
            self.clone()
        }
    }

    /// What is written of `event`, as text and as JSON.
    fn lines(event: impl Fn()) -> [String; 2] {
        let (text, json) = (Kept::default(), Kept::default());
        let registry = tracing_subscriber::registry();
        let subscriber = registry.with(crate::cli::log::text(text.clone(), false));
        tracing::subscriber::with_default(subscriber, &event);
        let subscriber = tracing_subscriber::registry().with(crate::cli::log::json(json.clone()));
        tracing::subscriber::with_default(subscriber, &event);
        [text, json].map(|kept| String::from_utf8(kept.0.lock().unwrap().clone()).unwrap())
    }

    const HOSTILE: &str = "a\u{1b}[31m\r\nWARN forged\u{7f}\u{9b}\0\t\u{e4}";

    #[test]
    fn issue_7_control_characters_are_escaped_wherever_they_stand() {
        let lines = lines(|| tracing::warn!(user = HOSTILE, shown = %HOSTILE, debug = ?HOSTILE, "{HOSTILE}"));
        for line in &lines {
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert!(!line.trim_end_matches('\n').chars().any(char::is_control), "{line:?}");
            assert_eq!(line.matches('\u{e4}').count(), 4, "what is printable stays: {line}");
        }
        let json: Value = serde_json::from_str(&lines[1]).unwrap();
        let escaped = "a\\u{1b}[31m\\r\\nWARN forged\\u{7f}\\u{9b}\\u{0}\\t\u{e4}";
        assert_eq!((&json["fields"]["message"], &json["level"]), (&json!(escaped), &json!("WARN")));
        assert_eq!(json["fields"]["user"], json!(escaped));
    }

    #[test]
    fn issue_7_a_field_is_cut_at_1_kib_and_the_rest_is_counted() {
        let long = "x".repeat(64 << 10);
        for line in lines(|| tracing::warn!(user = %long, "{long}")) {
            assert!(line.len() < 2 * FIELD_BYTES_MAX + 300, "{} bytes", line.len());
            assert_eq!(line.matches("... (64512 bytes more)").count(), 2, "{line}");
        }
        let fits = "y".repeat(FIELD_BYTES_MAX);
        for line in lines(|| tracing::warn!("{fits}")) {
            assert!(line.contains(&fits) && !line.contains("bytes more"), "{line}");
        }
    }

    #[test]
    fn issue_7_json_keeps_numbers_and_names() {
        let [_, line] = lines(|| tracing::info!(shard = 3, delta = -1, on = true, "told"));
        let json: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["fields"], json!({"shard": 3, "delta": -1, "on": true, "message": "told"}));
        assert_eq!((&json["level"], &json["target"]), (&json!("INFO"), &json!(module_path!())));
        assert!(json["timestamp"].as_str().unwrap().ends_with('Z'));
    }
}
