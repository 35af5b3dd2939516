//! A conversation of well-formed frames and the faults between them, against a model that knows what each
//! frame has to cause (RFC 6455 5.4, 5.5, 7.4, 8.1), whole and split.
//!
//! The first octets of the input are limits and the sizes of the reads; each frame is an octet for what it is
//! and a piece for what it holds.

use std::borrow::Cow;

use corecast::wire::close::ProtocolError;
use corecast::wire::websocket::{Event, Limits};

use super::draw::Draw;
use super::frame_decoder::{Outcome, outcomes_of};

const FIN: u8 = 0x80;
const CONTROL_BYTES_MAX: usize = 125;

/// One frame as a client sends it.
pub(crate) fn masked(first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
    }
    frame.extend(key);
    frame.extend(payload.iter().enumerate().map(|(at, octet)| octet ^ key[at % 4]));
    frame
}

/// The message that the frames so far have begun.
struct Begun {
    is_text: bool,
    payload: Vec<u8>,
    fragments: u32,
}

struct Model {
    limits: Limits,
    begun: Option<Begun>,
    outcomes: Vec<Outcome>,
    is_over: bool,
}

/// See the top of this file.
pub fn check(input: &[u8]) {
    let mut draw = Draw(input);
    let limits = Limits {
        message_bytes_max: usize::from(draw.octet()) * 2,
        fragments_max: u32::from(draw.octet() % 8),
    };
    let reads = [draw.octet(), draw.octet()];
    let mut model = Model { limits, begun: None, outcomes: Vec::new(), is_over: false };
    let mut octets = Vec::new();
    while !draw.is_over() && !model.is_over {
        let (what, payload) = (draw.octet(), draw.piece());
        let key = [what, 0x5a, payload.len() as u8, 0xff];
        let first = model.next(what, payload);
        octets.extend(masked(first, payload, key));
    }
    assert_eq!(outcomes_of(&octets, &[], &limits), model.outcomes);
    assert_eq!(outcomes_of(&octets, &reads, &limits), model.outcomes);
    assert_eq!(outcomes_of(&octets, &[0], &limits), model.outcomes);
}

impl Model {
    /// The first octet of the next frame, once what it causes is written down.
    fn next(&mut self, what: u8, payload: &[u8]) -> u8 {
        let fin = if what & 0x80 != 0 { FIN } else { 0 };
        match what % 8 {
            0 => self.control(9, payload),
            1 => self.control(10, payload),
            2 => self.control(8, payload),
            3 if what & 0x40 != 0 => self.unexpected(fin),
            odd => match self.begun.is_some() {
                true => self.data(0, fin, payload),
                false => self.data(1 + odd % 2, fin, payload),
            },
        }
    }

    fn fail(&mut self, error: ProtocolError) {
        self.outcomes.push(Outcome::Failed(error));
        self.is_over = true;
    }

    fn event(&mut self, event: Event<'static>) {
        self.outcomes.push(Outcome::Event(event));
    }

    /// A continuation of nothing, or a beginning in the middle.
    fn unexpected(&mut self, fin: u8) -> u8 {
        if self.begun.is_some() {
            self.fail(ProtocolError::ExpectedContinuation);
            fin | 2
        } else {
            self.fail(ProtocolError::UnexpectedContinuation);
            fin
        }
    }

    fn control(&mut self, opcode: u8, payload: &[u8]) -> u8 {
        let owned = || Cow::Owned(payload.to_vec());
        match (opcode, payload) {
            _ if payload.len() > CONTROL_BYTES_MAX => self.fail(ProtocolError::ControlTooLong),
            (9, _) => self.event(Event::Ping(owned())),
            (10, _) => self.event(Event::Pong),
            (_, []) => {
                self.event(Event::Close { code: None, reason: Cow::Borrowed(b"") });
                self.is_over = true;
            }
            (_, [high, low, reason @ ..]) => {
                let code = u16::from_be_bytes([*high, *low]);
                let is_sent = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
                match std::str::from_utf8(reason) {
                    _ if !is_sent => self.fail(ProtocolError::BadCloseCode),
                    Err(_) => self.fail(ProtocolError::BadUtf8),
                    Ok(_) => {
                        let reason = Cow::Owned(reason.to_vec());
                        self.event(Event::Close { code: Some(code), reason });
                        self.is_over = true;
                    }
                }
            }
            (_, [_]) => self.fail(ProtocolError::BadCloseCode),
        }
        FIN | opcode
    }

    fn data(&mut self, opcode: u8, fin: u8, payload: &[u8]) -> u8 {
        let continues = self.begun.is_some();
        let mut begun =
            self.begun.take().unwrap_or(Begun { is_text: opcode == 1, payload: Vec::new(), fragments: 0 });
        begun.payload.extend(payload);
        begun.fragments += 1;
        let text = std::str::from_utf8(&begun.payload);
        // The end of the message settles what a cut character was.
        let is_broken = text.is_err_and(|error| fin != 0 || error.error_len().is_some());
        if continues && begun.fragments > self.limits.fragments_max {
            self.fail(ProtocolError::TooManyFragments);
        } else if begun.payload.len() > self.limits.message_bytes_max {
            self.fail(ProtocolError::TooBig);
        } else if begun.is_text && is_broken {
            self.fail(ProtocolError::BadUtf8);
        } else if fin == 0 {
            self.begun = Some(begun);
        } else if begun.is_text {
            self.event(Event::Text(begun.payload.into()));
        } else {
            self.event(Event::Binary(begun.payload.into()));
        }
        fin | opcode
    }
}
