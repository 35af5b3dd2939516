//! `corecast trace`: what one user or connection does and has done to it, as it happens.

use std::io::Write;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::events::terminal_safe;
use super::failure::Failure;
use super::{Gateway, print_line};
use crate::control::command::{Answer, Command};
use crate::message::{ConnId, UserId};
use crate::shard::mailbox::Traced;

/// `corecast trace`
#[derive(Debug, Args)]
pub(super) struct TraceFlags {
    #[command(flatten)]
    whom: Followed,
    /// Stop after this long
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    span: Option<Duration>,
    /// Print JSON instead, one object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Followed {
    /// All connections of this user, those that come later too
    #[arg(long, value_name = "ID")]
    user: Option<UserId>,
    /// This connection, until it has gone
    #[arg(long, value_name = "C")]
    connection: Option<ConnId>,
}

/// Prints a trace until the reader, the gateway or the only connection goes, or the time is over.
pub(super) fn trace(flags: TraceFlags, gateway: &Gateway, out: &mut dyn Write) -> Result<(), Failure> {
    let of = match (flags.whom.user, flags.whom.connection) {
        (Some(user), _) => Traced::User(user),
        (None, Some(connection)) => Traced::Connection(connection),
        (None, None) => return Err(Failure::Usage("give --user ID or --connection C".to_owned())),
    };
    let alone = matches!(of, Traced::Connection(_));
    let by = flags.span.and_then(|span| Instant::now().checked_add(span));
    let mut client = gateway.connect()?;
    let sent = client.send(&Command::Trace(of)).and_then(|_| client.flush());
    sent.map_err(|error| gateway.failed(error))?;
    loop {
        let line = match client.receive_by(by).map_err(|error| gateway.failed(error))? {
            Some((_, Ok(Answer::Step(line)))) => line,
            Some((_, Ok(_))) => return Err(Failure::Answer),
            Some((_, Err(refused))) => return Err(Failure::Refused(refused)),
            None => return Ok(()),
        };
        let step: Value = serde_json::from_str(&line).map_err(|_| Failure::Answer)?;
        let shown = if flags.json { line } else { step_text(&step) };
        print_line(out, &terminal_safe(&shown))?;
        if alone && step["type"] == "gone" {
            return Ok(());
        }
    }
}

/// `   0.001500s  1-2-3  frame in text fin=true compressed=false bytes=7`
fn step_text(step: &Value) -> String {
    let text = |value: &Value| match value {
        // Quoted where it could be taken for more than one field; the escapes of JSON keep it on the line.
        Value::String(text) if !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') => {
            text.clone()
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| item.as_str().unwrap_or_default()).collect();
            items.join(",")
        }
        value => value.to_string(),
    };
    let after_us = step["after_us"].as_u64().unwrap_or_default();
    let seconds = Duration::from_micros(after_us).as_secs_f64();
    let mut line =
        format!("{seconds:>12.6}s  {:<12}  {}", text_or_dash(&step["connection"]), text(&step["type"]));
    if step["type"] == "frame" {
        line += &format!(" {} {}", text(&step["direction"]), text(&step["opcode"]));
    }
    let shown = ["after_us", "connection", "type", "direction", "opcode"];
    for (name, value) in step.as_object().into_iter().flatten() {
        if !shown.contains(&name.as_str()) && !value.is_null() {
            line += &format!(" {name}={}", text(value));
        }
    }
    line
}

fn text_or_dash(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn shown(json: &str) -> String {
        step_text(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn issue_7_a_step_is_a_line_for_people() {
        let frame = r#"{"after_us":1500,"connection":"1-2-3","type":"frame","direction":"in","opcode":"text","fin":true,"bytes":7}"#;
        assert_eq!(shown(frame), "    0.001500s  1-2-3         frame in text bytes=7 fin=true");
        let opened =
            r#"{"after_us":61000000,"connection":"1-2-3","type":"opened","topics":["a","b"],"since":null}"#;
        assert_eq!(shown(opened), "   61.000000s  1-2-3         opened topics=a,b");
        let begun = r#"{"after_us":0,"type":"begun","connections":[]}"#;
        assert_eq!(shown(begun), "    0.000000s  -             begun connections=");
    }

    #[test]
    fn issue_7_what_a_stranger_wrote_is_one_field_of_one_line() {
        let closed =
            r#"{"after_us":0,"connection":"1-2-3","type":"closed","message":"a b=c\n\u001b[31m\u009b\""}"#;
        let line = terminal_safe(&shown(closed));
        assert!(line.ends_with(r#" message="a b=c\n\u001b[31m\u009b\"""#), "{line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}
