//! `corecast events`: what happens, as it happens.

use std::io::Write;

use clap::{Args, ValueEnum};

use super::failure::Failure;
use super::{Gateway, print_line};
use crate::control::command::{Answer, Command, EventFilter};
use crate::message::{Topic, UserId};
use crate::shard::mailbox::event_mask;

/// `corecast events`
#[derive(Debug, Args)]
pub(super) struct EventsFlags {
    /// Which kinds, instead of all
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    types: Vec<EventKind>,
    /// Only events of topics that match one of these patterns: * is a segment, or at the end any rest
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    topic: Vec<Topic>,
    /// Only events of this user
    #[arg(long, value_name = "ID")]
    user: Option<UserId>,
    /// Accepted because every command has it: events are JSON anyway
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EventKind {
    /// A client was established
    Connect,
    /// An established client ended
    Disconnect,
    /// A client sent a message
    Uplink,
    /// A connection has more topics
    Subscribe,
    /// A connection has fewer topics
    Unsubscribe,
    /// A client fell behind, or was cut for it
    Slow,
    /// A client was not let in
    Refused,
}

impl EventKind {
    fn mask(self) -> u64 {
        match self {
            Self::Connect => event_mask::CONNECT,
            Self::Disconnect => event_mask::DISCONNECT,
            Self::Uplink => event_mask::UPLINK,
            Self::Subscribe => event_mask::SUBSCRIBE,
            Self::Unsubscribe => event_mask::UNSUBSCRIBE,
            Self::Slow => event_mask::SLOW,
            Self::Refused => event_mask::REFUSED,
        }
    }
}

/// Prints events until the reader or the gateway goes.
pub(super) fn events(flags: EventsFlags, gateway: &Gateway, out: &mut dyn Write) -> Result<(), Failure> {
    let kinds = if flags.types.is_empty() { EventKind::value_variants() } else { &flags.types };
    let mask = kinds.iter().fold(0, |mask, kind| mask | kind.mask());
    let filter = EventFilter { mask, topics: flags.topic, user: flags.user };
    let mut client = gateway.connect()?;
    let sent = client.send(&Command::EventsWhere(filter)).and_then(|_| client.flush());
    sent.map_err(|error| gateway.failed(error))?;
    loop {
        match client.receive().map_err(|error| gateway.failed(error))? {
            (_, Ok(Answer::Event(line))) => print_line(out, &terminal_safe(&line))?,
            (_, Ok(_)) => return Err(Failure::Answer),
            (_, Err(refused)) => return Err(Failure::Refused(refused)),
        }
    }
}

/// JSON may hold DEL and U+0080 to U+009F as they are; to some terminals they are commands, and an
/// uplink's text is a stranger's. Escaped they are the same JSON.
pub(super) fn terminal_safe(json: &str) -> String {
    let shown = |c: char| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    if json.chars().any(char::is_control) { json.chars().map(shown).collect() } else { json.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_4_events_knows_every_kind_by_the_name_of_the_control_socket() {
        let kinds = EventKind::value_variants().iter().map(|kind| {
            let name = kind.to_possible_value().expect("none is hidden").get_name().to_owned();
            (name, kind.mask())
        });
        let known = event_mask::KINDS.map(|(name, bit)| (name.to_owned(), bit));
        assert_eq!(kinds.collect::<Vec<_>>(), known);
    }

    #[test]
    fn an_event_cannot_command_the_terminal_and_stays_the_same_json() {
        let line = "{\"data\":\"\u{9b}31m\u{7f}\"}";
        let safe = terminal_safe(line);
        assert!(!safe.chars().any(char::is_control));
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(parse(&safe), parse(line));
    }
}
