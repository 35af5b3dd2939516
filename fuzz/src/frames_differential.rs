//! What comes of a client's frames, here and in `tungstenite`: the same, or one of the differences that are
//! listed in `Difference`, each of which is shown to be what it says by a third reading of the frame
//! (`faults`, straight from RFC 6455).
//!
//! The input is what the client sends. Both have the same limit on frames and messages; our limit on fragments,
//! which `tungstenite` does not know, is out of reach.

use std::io::{self, Read, Write};

use corecast::wire::close::ProtocolError as Ours;
use corecast::wire::websocket::{Event, Limits};
use tungstenite::error::{CapacityError, Error, ProtocolError as Theirs};
use tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};

use super::frame_decoder::{Outcome, outcomes_of};

/// Above a control frame's longest payload, so that both limits on one can be reached.
const MESSAGE_BYTES_MAX: usize = 300;
const LIMITS: Limits = Limits { message_bytes_max: MESSAGE_BYTES_MAX, fragments_max: u32::MAX };

/// Where we and `tungstenite` differ, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// We refuse by what has come of a frame, they when all of it has: a peer that announces what is not
    /// allowed need not be read to the end. Once the frame is whole, they refuse it for the same fault.
    Sooner,
    /// The frame has several faults, and they name another. The close code may differ, the end does not.
    AnotherFault,
    /// We refuse a length that is not in its shortest form (a "MUST" of RFC 6455 5.2), in a control frame by its
    /// form alone; they take it.
    Length,
    /// We refuse a close code that must not be sent, with 1002 and a count; they hand the caller a close frame
    /// with 1002 that the peer did not send. The code that goes back is the same.
    CloseCode,
    /// 1014 (bad gateway) came into IANA's registry after the RFC; they take it for unassigned.
    CloseCode1014,
}

/// What one of the two makes of the octets: events, then why there are no more.
#[derive(Debug, PartialEq)]
struct Reading {
    events: Vec<Event<'static>>,
    end: End,
}

#[derive(Debug, PartialEq)]
enum End {
    /// More octets are due.
    Open,
    /// After a close frame.
    Closed,
    Failed(Ours),
}

/// Panics where the two differ in a way that is not listed.
pub fn check(input: &[u8]) {
    let _ = difference(input);
}

/// How the two differ on `octets`. Panics where that is not listed.
pub fn difference(octets: &[u8]) -> Option<Difference> {
    let (ours, theirs) = (ours(octets), theirs(octets));
    if ours == theirs {
        return None;
    }
    let frame = Frame::faulty(octets);
    let faults = frame.faults();
    let unlisted = || panic!("unlisted: {ours:?}, they: {theirs:?}, faults {faults:?} of {octets:02x?}");
    match (&ours.end, &theirs.end) {
        (End::Failed(fault), _) if !faults.contains(fault) => unlisted(),
        // Nothing else was wrong: they went on, or wait for the next frame.
        (End::Failed(Ours::BadLength | Ours::ControlTooLong), _) if frame.is_only_long() => {
            assert!(theirs.events.starts_with(&ours.events));
            Some(Difference::Length)
        }
        (End::Failed(_), End::Open) if ours.events == theirs.events => {
            let completed = frame.completed();
            assert_ne!(completed, octets, "they pass over {:?} in {octets:02x?}", ours.end);
            difference(&completed).or(Some(Difference::Sooner))
        }
        (End::Failed(_), End::Failed(other)) if ours.events == theirs.events => {
            assert!(faults.contains(other), "{other:?} is no fault of {octets:02x?}");
            Some(Difference::AnotherFault)
        }
        (End::Failed(Ours::BadCloseCode), End::Closed) if theirs.ends_with_1002(&ours.events) => {
            Some(Difference::CloseCode)
        }
        (End::Failed(_), End::Closed)
            if faults.contains(&Ours::BadCloseCode) && theirs.ends_with_1002(&ours.events) =>
        {
            Some(Difference::AnotherFault)
        }
        (End::Closed, End::Closed) => match ours.events.split_last() {
            Some((Event::Close { code: Some(1014), .. }, before)) if theirs.ends_with_1002(before) => {
                Some(Difference::CloseCode1014)
            }
            _ => unlisted(),
        },
        _ => unlisted(),
    }
}

impl Reading {
    /// `before`, and the close frame that `tungstenite` makes of one that it does not allow.
    fn ends_with_1002(&self, before: &[Event<'static>]) -> bool {
        let reason = b"Protocol violation"[..].into();
        self.events.split_last() == Some((&Event::Close { code: Some(1002), reason }, before))
    }
}

fn ours(octets: &[u8]) -> Reading {
    let (mut events, mut end) = (Vec::new(), End::Open);
    for outcome in outcomes_of(octets, &[], &LIMITS) {
        match outcome {
            Outcome::Failed(error) => end = End::Failed(error),
            Outcome::Event(event) => {
                let is_close = matches!(event, Event::Close { .. });
                events.push(event);
                if is_close {
                    end = End::Closed;
                    // Nothing after it counts.
                    break;
                }
            }
        }
    }
    Reading { events, end }
}

/// A connection that ends behind `octets`, and takes whatever is written.
struct Connection<'a>(&'a [u8]);

impl Read for Connection<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Connection<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn theirs(octets: &[u8]) -> Reading {
    let config = WebSocketConfig::default()
        .read_buffer_size(1024)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut socket = WebSocket::from_raw_socket(Connection(octets), Role::Server, Some(config));
    let mut events = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Close(frame)) => {
                let (code, reason) = match frame {
                    Some(frame) => (Some(frame.code.into()), frame.reason.as_bytes().to_vec()),
                    None => (None, Vec::new()),
                };
                events.push(Event::Close { code, reason: reason.into() });
                return Reading { events, end: End::Closed };
            }
            Ok(message) => events.push(match message {
                Message::Text(text) => Event::Text(text.as_bytes().to_vec().into()),
                Message::Binary(payload) => Event::Binary(payload.to_vec().into()),
                Message::Ping(payload) => Event::Ping(payload.to_vec().into()),
                Message::Pong(_) => Event::Pong,
                other => panic!("{other:?} is read"),
            }),
            Err(Error::Protocol(Theirs::ResetWithoutClosingHandshake)) => {
                return Reading { events, end: End::Open };
            }
            Err(error) => return Reading { events, end: End::Failed(named(&error)) },
        }
    }
}

/// Their error by our name.
fn named(error: &Error) -> Ours {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Ours::TooBig,
        Error::Utf8(_) => Ours::BadUtf8,
        Error::Protocol(error) => match error {
            Theirs::NonZeroReservedBits => Ours::ReservedBits,
            Theirs::UnmaskedFrameFromClient => Ours::Unmasked,
            Theirs::FragmentedControlFrame => Ours::ControlFragmented,
            Theirs::ControlFrameTooBig => Ours::ControlTooLong,
            Theirs::InvalidOpcode(_) => Ours::UnknownOpcode,
            Theirs::UnexpectedContinueFrame => Ours::UnexpectedContinuation,
            Theirs::ExpectedFragment(_) => Ours::ExpectedContinuation,
            Theirs::InvalidCloseSequence => Ours::BadCloseCode,
            other => panic!("{other:?} was never seen here"),
        },
        other => panic!("{other:?} was never seen here"),
    }
}

/// One frame as RFC 6455 5.2 draws it, as much of it as is there, and the message that it meets.
struct Frame<'a> {
    octets: &'a [u8],
    /// Where it begins.
    at: usize,
    /// The text (true) or binary message that was begun, unmasked.
    begun: Option<(bool, Vec<u8>)>,
}

impl<'a> Frame<'a> {
    /// The first frame that has a fault or is not whole; the end of `octets` where there is none.
    fn faulty(octets: &'a [u8]) -> Self {
        let mut frame = Self { octets, at: 0, begun: None };
        while frame.is_whole() && frame.faults().is_empty() {
            let (first, payload) = (frame.octet(0).unwrap_or_default(), frame.payload());
            let end = frame.at + frame.bytes().unwrap_or_default();
            let begun = match (first & 0x0f, frame.begun.take()) {
                (0, Some((is_text, before))) => Some((is_text, [before, payload].concat())),
                (opcode @ 1..=2, None) => Some((opcode == 1, payload)),
                (_, begun) => begun,
            };
            let is_over = first & 0x88 == 0x80;
            frame = Self { octets, at: end, begun: begun.filter(|_| !is_over) };
        }
        frame
    }

    fn octet(&self, at: usize) -> Option<u8> {
        self.octets.get(self.at + at).copied()
    }

    /// The length of its length field beyond the 7 bits, and what both say.
    fn length(&self) -> Option<(usize, u64)> {
        let more = match self.octet(1)? & 0x7f {
            126 => 2,
            127 => 8,
            short => return Some((0, u64::from(short))),
        };
        let mut value = 0;
        for at in 0..more {
            value = value << 8 | u64::from(self.octet(2 + at)?);
        }
        Some((more, value))
    }

    fn key_at(&self) -> Option<usize> {
        Some(2 + self.length()?.0)
    }

    /// All of it: header, key, payload.
    fn bytes(&self) -> Option<usize> {
        let key_bytes = if self.octet(1)? & 0x80 == 0 { 0 } else { 4 };
        usize::try_from(self.length()?.1).ok()?.checked_add(self.key_at()? + key_bytes)
    }

    fn is_whole(&self) -> bool {
        self.bytes().is_some_and(|bytes| self.octets.len() - self.at >= bytes)
    }

    /// Whether it is whole and its length could be written shorter, and that is all.
    fn is_only_long(&self) -> bool {
        let faults = self.faults();
        let is_form = |fault: &Ours| matches!(fault, Ours::BadLength | Ours::ControlTooLong);
        self.is_whole() && faults.contains(&Ours::BadLength) && faults.iter().all(is_form)
    }

    /// As much of the payload as is there, unmasked.
    fn payload(&self) -> Vec<u8> {
        let Some(key_at) = self.key_at() else { return Vec::new() };
        let Some((&key, after)) = self.octets[self.at + key_at..].split_first_chunk::<4>() else {
            return Vec::new();
        };
        let length = self.length().map_or(0, |(_, length)| length).min(after.len() as u64) as usize;
        after[..length].iter().zip(key.iter().cycle()).map(|(octet, key)| octet ^ key).collect()
    }

    /// Whatever is wrong with what is there of it (RFC 6455 5.1, 5.2, 5.4, 5.5, 7.4, 8.1).
    fn faults(&self) -> Vec<Ours> {
        let mut faults = Vec::new();
        let Some(first) = self.octet(0) else { return faults };
        let (opcode, is_final) = (first & 0x0f, first & 0x80 != 0);
        let mut fault = |is_so: bool, error: Ours| faults.extend(is_so.then_some(error));
        fault(first & 0x70 != 0, Ours::ReservedBits);
        fault(matches!(opcode, 3..=7 | 11..=15), Ours::UnknownOpcode);
        fault(opcode >= 8 && !is_final, Ours::ControlFragmented);
        fault(opcode == 0 && self.begun.is_none(), Ours::UnexpectedContinuation);
        fault(matches!(opcode, 1 | 2) && self.begun.is_some(), Ours::ExpectedContinuation);
        fault(self.octet(1).is_some_and(|second| second & 0x80 == 0), Ours::Unmasked);
        fault(self.octet(1).is_some_and(|second| opcode >= 8 && second & 0x7f > 125), Ours::ControlTooLong);
        if let Some((more, length)) = self.length() {
            let shortest = [0, 0, 126, 0, 0, 0, 0, 0, 0x1_0000][more];
            fault(length < shortest || length > i64::MAX as u64, Ours::BadLength);
            let before = self.begun.as_ref().filter(|_| opcode < 8).map_or(0, |(_, before)| before.len());
            fault(length > (MESSAGE_BYTES_MAX - before) as u64, Ours::TooBig);
        }
        let payload = self.payload();
        let broken = |text: &[u8], is_final: bool| {
            std::str::from_utf8(text).is_err_and(|error| is_final || error.error_len().is_some())
        };
        let is_final = is_final && self.is_whole();
        match (opcode, &self.begun) {
            (1, None) => fault(broken(&payload, is_final), Ours::BadUtf8),
            (0, Some((true, before))) => {
                fault(broken(&[&before[..], &payload].concat(), is_final), Ours::BadUtf8);
            }
            (8, _) if self.is_whole() && !payload.is_empty() => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                let is_sent = |code| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
                fault(!code.is_some_and(is_sent), Ours::BadCloseCode);
                fault(payload.get(2..).is_some_and(|reason| broken(reason, true)), Ours::BadUtf8);
            }
            _ => {}
        }
        faults
    }

    /// All octets up to here and this frame, with zeros for what is missing of it. As it is where it announces
    /// more than the limit: then its header is enough for anybody.
    fn completed(&self) -> Vec<u8> {
        let mut octets = self.octets.to_vec();
        while octets.len() < self.at + 2 {
            octets.push(0x80);
        }
        loop {
            let frame = Frame { octets: &octets, at: self.at, begun: None };
            let header_bytes = frame.key_at().map(|key_at| key_at + 4);
            let has_header = header_bytes.is_some_and(|bytes| octets.len() - self.at >= bytes);
            let is_big = frame.length().is_some_and(|(_, length)| length > MESSAGE_BYTES_MAX as u64);
            if frame.is_whole() || (has_header && is_big) {
                return octets;
            }
            octets.push(0);
        }
    }
}
