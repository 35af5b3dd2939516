//! A parser of event streams, written from the specification and from nothing of ours (WHATWG HTML 9.2.5,
//! 9.2.6). Takes the stream in pieces of any length. The gateway's tests read with it, too.

use std::collections::VecDeque;

/// A dispatched event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `message` where the stream gives none.
    pub name: String,
    pub data: String,
    /// The last event id at this event.
    pub id: String,
}

#[derive(Debug, Default)]
pub struct Parser {
    /// The beginning of a line.
    line: Vec<u8>,
    after_cr: bool,
    begun: bool,
    name: String,
    data: String,
    /// The id buffer, and the last event id that a reconnect would send.
    id: String,
    pub last_event_id: String,
    /// Reconnection time in milliseconds.
    pub retry: Option<u64>,
    pub comments: usize,
    pub events: VecDeque<Event>,
}

impl Parser {
    pub fn feed(&mut self, octets: &[u8]) {
        for &octet in octets {
            let ends_crlf = std::mem::take(&mut self.after_cr) && octet == b'\n';
            match octet {
                b'\n' if ends_crlf => {}
                b'\r' | b'\n' => {
                    self.after_cr = octet == b'\r';
                    let line = std::mem::take(&mut self.line);
                    self.line(&String::from_utf8_lossy(&line));
                }
                _ => self.line.push(octet),
            }
        }
    }

    fn line(&mut self, line: &str) {
        let first = !std::mem::replace(&mut self.begun, true);
        let line = if first { line.strip_prefix('\u{feff}').unwrap_or(line) } else { line };
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.comments += 1,
            "event" => value.clone_into(&mut self.name),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if !value.is_empty() && value.bytes().all(|octet| octet.is_ascii_digit()) => {
                self.retry = value.parse().ok();
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        self.last_event_id.clone_from(&self.id);
        let (mut data, name) = (std::mem::take(&mut self.data), std::mem::take(&mut self.name));
        if data.is_empty() {
            return;
        }
        data.pop();
        let name = if name.is_empty() { "message".to_owned() } else { name };
        self.events.push_back(Event { name, data, id: self.last_event_id.clone() });
    }
}
