//! `/v1/trace`: what one user or connection does and has done to it, one JSON line a step, until the reader goes.
//!
//! A trace is asked of every shard, because nobody knows where the user will land, and it begins once all of them
//! have said so. It ends with its reader: what no stream shows is ended here. Lines come through the same channel as
//! events, and a reader that falls behind is told how many it missed.

use std::time::Instant;

use serde::Serialize;

use super::command::{CommandError, ErrorCode};
use super::inquiries::{ClientId, Waiter};
use super::sequencer::Sequencer;
use super::{Control, Peer};
use crate::message::{ConnId, Position, Topic};
use crate::shard::mailbox::{Act, Request, Step, TraceId, Traced};
use crate::stats::CloseReason;

/// Traces at once, over all readers.
pub const TRACES_MAX: usize = 16;
/// Longest message of a line, in bytes.
const MESSAGE_BYTES_MAX: usize = 256;

/// All traces that run.
#[derive(Debug, Default)]
pub struct Traces {
    running: Vec<Running>,
    last: TraceId,
}

#[derive(Debug)]
struct Running {
    trace: TraceId,
    /// All shards have answered: from here on a stream shows it, or it ends.
    begun: bool,
}

/// A trace that all shards have begun.
#[derive(Clone, Debug)]
pub struct Begun {
    /// Which.
    pub trace: TraceId,
    /// Of whom.
    pub of: Traced,
    /// The connections that there are now.
    pub connections: Vec<ConnId>,
}

impl Traces {
    /// Asks all shards. The answer comes as `Begun`. Errors: `busy`.
    pub fn begin(
        &mut self,
        of: Traced,
        sequencer: &mut Sequencer,
        waiter: Waiter,
        now: Instant,
    ) -> Result<(), CommandError> {
        if self.running.len() >= TRACES_MAX {
            let message = format!("{TRACES_MAX} traces run, and no more may at once");
            return Err(CommandError::new(ErrorCode::Busy, message));
        }
        let trace = self.last + 1;
        sequencer.ask_all(Request::Trace { trace, of, begun: now }, waiter)?;
        self.last = trace;
        self.running.push(Running { trace, begun: false });
        Ok(())
    }

    /// Whether there are any: then somebody has to look whether they have readers.
    pub fn run(&self) -> bool {
        !self.running.is_empty()
    }

    fn has_begun(&mut self, trace: TraceId) {
        self.running
            .iter_mut()
            .filter(|running| running.trace == trace)
            .for_each(|running| running.begun = true);
    }

    /// Ends those that nobody reads. False where a shard had no room for the letter: try again.
    fn end_unread(&mut self, is_read: impl Fn(TraceId) -> bool, sequencer: &mut Sequencer) -> bool {
        let unread = |running: &Running| running.begun && !is_read(running.trace);
        self.running.retain(|running| {
            let ended = unread(running)
                && sequencer.ask_all(Request::EndTrace(running.trace), Waiter::Nobody).is_ok();
            !ended
        });
        !self.running.iter().any(unread)
    }
}

impl Begun {
    /// Why there is nothing to trace. A user may come yet; a connection that has gone will not.
    pub fn refusal(&self) -> Option<CommandError> {
        match (&self.of, &self.connections[..]) {
            (Traced::Connection(connection), []) => {
                let message = format!("there is no connection {connection}");
                Some(CommandError::new(ErrorCode::NotFound, message))
            }
            _ => None,
        }
    }

    /// The first line.
    pub fn line(&self) -> String {
        encode(&First { after_us: 0, r#type: "begun", connections: &self.connections })
    }
}

impl Control {
    /// Tells the reader that its trace has begun.
    pub(super) fn begin_trace(&mut self, client: ClientId, correlation: u64, begun: &Begun, now: Instant) {
        self.desk.traces.has_begun(begun.trace);
        let peer = self.peers[client.index as usize].peer.as_mut();
        if let Some(peer) = peer.filter(|peer| peer.id() == client) {
            peer.begin_trace(correlation, begun, now);
        }
    }

    pub(super) fn tell_step(&mut self, step: &Step) {
        let mut line = None;
        self.peers().for_each(|peer| peer.tell_step(step, &mut line));
    }

    /// Ends traces whose readers have gone. False where that has to be tried again.
    pub(super) fn end_unread_traces(&mut self) -> bool {
        let Self { peers, desk, .. } = self;
        if !desk.traces.run() {
            return true;
        }
        let present = || peers.iter().filter_map(|slot| slot.peer.as_ref());
        let is_read = |trace| present().any(|peer: &Peer| peer.reads_trace(trace));
        let ended = desk.traces.end_unread(is_read, &mut desk.sequencer);
        desk.sequencer.wake_shards();
        ended
    }
}

#[derive(Serialize)]
struct First<'a> {
    after_us: u64,
    r#type: &'a str,
    connections: &'a [ConnId],
}

#[derive(Serialize)]
struct Line<'a> {
    after_us: u64,
    connection: ConnId,
    #[serde(flatten)]
    shown: Shown<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Shown<'a> {
    Asked {
        transport: &'a str,
        remote: &'a str,
        topics: &'a [Topic],
        since: Option<Position>,
    },
    Refused {
        status: u16,
        code: &'a str,
        message: &'a str,
    },
    HandedOver {
        shard: u16,
    },
    Opened {
        transport: &'a str,
        remote: &'a str,
        topics: &'a [Topic],
        heartbeat_s: u16,
    },
    Resumed {
        since: Option<Position>,
        replayed: u64,
        gap: bool,
    },
    Subscribed {
        topics: &'a [Topic],
        by: &'a str,
    },
    Unsubscribed {
        topics: &'a [Topic],
        by: &'a str,
    },
    Handed {
        position: Position,
    },
    Frame {
        direction: &'a str,
        opcode: &'a str,
        fin: bool,
        compressed: bool,
        bytes: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        position: Option<Position>,
    },
    Response {
        status: u16,
        bytes: usize,
    },
    Octets {
        bytes: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        position: Option<Position>,
    },
    Blocked {
        lag_bytes: usize,
        outbox_bytes: usize,
        send_queue_bytes: u32,
    },
    Writable,
    Closed {
        reason: &'a str,
        by: &'a str,
        code: Option<u16>,
        message: Option<&'a str>,
    },
    Gone,
}

/// The step as its JSON line, without its end.
pub fn line(step: &Step) -> String {
    let after_us = u64::try_from(step.after.as_micros()).unwrap_or(u64::MAX);
    encode(&Line { after_us, connection: step.connection, shown: shown(&step.what) })
}

fn shown(act: &Act) -> Shown<'_> {
    match act {
        Act::Asked { transport, remote, topics, since } => {
            Shown::Asked { transport, remote, topics, since: *since }
        }
        Act::Refused { status, code, message } => {
            Shown::Refused { status: *status, code, message: cut(message) }
        }
        &Act::HandedOver { shard } => Shown::HandedOver { shard },
        Act::Opened { transport, remote, topics, heartbeat_s } => {
            Shown::Opened { transport, remote, topics, heartbeat_s: *heartbeat_s }
        }
        &Act::Resumed { since, replayed, gap } => Shown::Resumed { since, replayed, gap },
        Act::Subscribed { topics, by } => Shown::Subscribed { topics, by: by.name() },
        Act::Unsubscribed { topics, by } => Shown::Unsubscribed { topics, by: by.name() },
        &Act::Handed { position } => Shown::Handed { position },
        Act::Frame { outward, header, position } => Shown::Frame {
            direction: if *outward { "out" } else { "in" },
            opcode: header.opcode_name(),
            fin: header.fin,
            compressed: header.compressed,
            bytes: header.payload_bytes,
            position: *position,
        },
        &Act::Response { status, bytes } => Shown::Response { status, bytes },
        &Act::Octets { bytes, position } => Shown::Octets { bytes, position },
        &Act::Blocked { lag_bytes, outbox_bytes, send_queue_bytes } => {
            Shown::Blocked { lag_bytes, outbox_bytes, send_queue_bytes }
        }
        Act::Writable => Shown::Writable,
        Act::Closed { reason, code, message } => Shown::Closed {
            reason: reason.name(),
            by: ended_by(*reason),
            code: *code,
            message: message.as_deref().map(cut),
        },
        Act::Gone => Shown::Gone,
    }
}

/// Who ended a connection: the client, a program on the control socket, or the gateway by its rules.
fn ended_by(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::PeerClosed | CloseReason::PeerGone => "client",
        CloseReason::Kicked => "control",
        _ => "gateway",
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)]
}

fn encode(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("our own types have string keys and encode")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::websocket::Header;

    fn step(what: Act) -> String {
        let connection = ConnId { shard: 1, index: 2, generation: 3 };
        line(&Step { trace: 1, after: Duration::from_micros(1500), connection, what })
    }

    #[test]
    fn issue_7_a_step_is_one_json_object_with_the_time_since_the_trace_began() {
        let header = Header { fin: true, compressed: false, opcode: 1, payload_bytes: 7 };
        assert_eq!(
            step(Act::Frame { outward: false, header, position: None }),
            r#"{"after_us":1500,"connection":"1-2-3","type":"frame","direction":"in","opcode":"text","fin":true,"compressed":false,"bytes":7}"#
        );
        assert_eq!(step(Act::Gone), r#"{"after_us":1500,"connection":"1-2-3","type":"gone"}"#);
        let closed =
            Act::Closed { reason: CloseReason::Kicked, code: Some(4500), message: Some("go".into()) };
        assert_eq!(
            step(closed),
            r#"{"after_us":1500,"connection":"1-2-3","type":"closed","reason":"kicked","by":"control","code":4500,"message":"go"}"#
        );
    }

    #[test]
    fn issue_7_what_people_are_told_is_cut_and_escaped() {
        let message = format!("\n\u{1b}[31m{}", "ä".repeat(500));
        let told: serde_json::Value =
            serde_json::from_str(&step(Act::Refused { status: 403, code: "x", message })).expect("JSON");
        let told = told["message"].as_str().expect("text");
        assert!(told.len() <= MESSAGE_BYTES_MAX && told.starts_with("\n\u{1b}[31mää"), "{told:?}");
        let line = step(Act::Refused { status: 403, code: "x", message: "\n\u{1b}[31m".to_owned() });
        assert!(!line.contains(['\n', '\u{1b}']), "{line}");
    }
}
