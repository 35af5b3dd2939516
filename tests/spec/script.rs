//! A conversation with one established WebSocket client, written down and then held against the
//! decoder: whole, octet by octet, and cut at every boundary.
//!
//! Whatever the client's octets cause has to be listed behind them, in order, and nothing else may
//! happen. Runs when it goes out of scope. The server side here is what the shard does, without the
//! shard: it drops the decoder whenever that is idle, sends the replies that are due, and stops.

use corecast::stats::CloseReason;
use corecast::wire::close::ProtocolError;
use corecast::wire::websocket::{Decoder, Event, Limits, encode_close};

/// The limits of the contract, section 2.
pub const LIMITS: Limits = Limits { message_bytes_max: 64 * 1024, fragments_max: 4096 };

/// Conversations up to so many octets are cut everywhere, and up to `PAIRS_BYTES_MAX` twice.
const CUTS_BYTES_MAX: usize = 700;
const PAIRS_BYTES_MAX: usize = 48;

/// A frame as the specification draws it. Masked when a client sends it, plain when the server does.
#[derive(Clone, Debug)]
pub struct Frame {
    first: u8,
    payload: Vec<u8>,
}

/// The key of the examples in RFC 6455 5.7.
pub const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub fn text(payload: &str) -> Frame {
    octet_text(payload.as_bytes())
}

/// A text frame that need not be UTF-8.
pub fn octet_text(payload: &[u8]) -> Frame {
    Frame::new(1, payload)
}

pub fn binary(payload: &[u8]) -> Frame {
    Frame::new(2, payload)
}

/// The last frame of a fragmented message, unless `not_final`.
pub fn continuation(payload: &[u8]) -> Frame {
    Frame::new(0, payload)
}

pub fn ping(payload: &[u8]) -> Frame {
    Frame::new(9, payload)
}

pub fn pong(payload: &[u8]) -> Frame {
    Frame::new(10, payload)
}

pub fn close(code: u16, reason: &str) -> Frame {
    Frame::new(8, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

pub fn empty_close() -> Frame {
    Frame::new(8, b"")
}

impl Frame {
    pub fn new(opcode: u8, payload: &[u8]) -> Self {
        Self { first: 0x80 | opcode, payload: payload.to_vec() }
    }

    /// Without FIN.
    pub fn not_final(mut self) -> Self {
        self.first &= 0x7f;
        self
    }

    /// With the reserved bits `bits` (1 to 7; RSV1 is 4).
    pub fn reserved(mut self, bits: u8) -> Self {
        self.first |= bits << 4;
        self
    }

    /// As the server sends it.
    pub fn plain(&self) -> Vec<u8> {
        [&self.header(0), &self.payload[..]].concat()
    }

    /// As a client sends it. Octet by octet on purpose: the decoder's way is another.
    pub fn masked(&self, key: [u8; 4]) -> Vec<u8> {
        let payload = self.payload.iter().enumerate().map(|(i, octet)| octet ^ key[i % 4]);
        [self.header(0x80), key.to_vec(), payload.collect()].concat()
    }

    fn header(&self, mask: u8) -> Vec<u8> {
        let length = self.payload.len() as u64;
        match length {
            0..=125 => vec![self.first, mask | length as u8],
            126..=0xffff => [&[self.first, mask | 126][..], &(length as u16).to_be_bytes()].concat(),
            _ => [&[self.first, mask | 127][..], &length.to_be_bytes()].concat(),
        }
    }
}

/// What the client's octets cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Pong,
    Server(Vec<u8>),
    Failed(ProtocolError),
    Ended(CloseReason),
}

/// The server's end.
#[derive(Default)]
pub struct Server {
    decoder: Option<Decoder>,
    ended: bool,
}

impl Server {
    /// Takes one read's worth of octets.
    pub fn read(&mut self, octets: &[u8], limits: &Limits, outcomes: &mut Vec<Outcome>) {
        let mut octets = octets.to_vec();
        let mut rest = &mut octets[..];
        while !self.ended && !rest.is_empty() {
            let decoder = self.decoder.get_or_insert_default();
            let (taken, event) = match decoder.handle_bytes(rest, limits) {
                Ok(progress) => progress,
                Err(error) => return self.fail(error, outcomes),
            };
            let reply = event.as_ref().and_then(Event::reply);
            match event {
                Some(Event::Text(payload)) => outcomes.push(Outcome::Text(payload.into_owned())),
                Some(Event::Binary(payload)) => outcomes.push(Outcome::Binary(payload.into_owned())),
                Some(Event::Pong) => outcomes.push(Outcome::Pong),
                Some(Event::Ping(_)) => {}
                Some(Event::Close { .. }) => self.ended = true,
                None => assert!(taken > 0, "input is left, and nothing is taken"),
            }
            outcomes.extend(reply.map(|frame| Outcome::Server(frame.to_vec())));
            if self.ended {
                outcomes.push(Outcome::Ended(CloseReason::PeerClosed));
            }
            rest = &mut rest[taken..];
            self.decoder.take_if(|decoder| decoder.is_idle());
        }
    }

    fn fail(&mut self, error: ProtocolError, outcomes: &mut Vec<Outcome>) {
        outcomes.push(Outcome::Failed(error));
        outcomes.push(Outcome::Server(encode_close(Some(error.close_code()), error.reason()).to_vec()));
        outcomes.push(Outcome::Ended(error.close_reason()));
        self.ended = true;
    }

    /// Whether nothing is kept between messages.
    pub fn holds_nothing(&self) -> bool {
        self.decoder.is_none()
    }
}

/// What `octets` cause when they are read in pieces that end at `cuts` (ascending).
pub fn outcomes_of(octets: &[u8], cuts: &[usize], limits: &Limits) -> Vec<Outcome> {
    let (mut server, mut outcomes, mut from) = (Server::default(), Vec::new(), 0);
    for to in cuts.iter().copied().chain([octets.len()]) {
        server.read(&octets[from..to], limits, &mut outcomes);
        from = to;
    }
    outcomes
}

/// One turn: what the client sends, and all that it causes.
#[derive(Debug)]
struct Turn {
    client: Vec<u8>,
    outcomes: Vec<Outcome>,
}

/// A conversation; see the module.
#[derive(Debug)]
pub struct Script {
    limits: Limits,
    turns: Vec<Turn>,
}

impl Script {
    /// With the default limits.
    pub fn websocket() -> Self {
        Self::with_limits(LIMITS)
    }

    pub fn with_limits(limits: Limits) -> Self {
        Self { limits, turns: Vec::new() }
    }

    /// The client sends a frame.
    pub fn client(self, frame: Frame) -> Self {
        self.client_octets(frame.masked(KEY))
    }

    /// The client sends anything: part of a frame, or no frame at all.
    pub fn client_octets(mut self, octets: impl Into<Vec<u8>>) -> Self {
        self.turns.push(Turn { client: octets.into(), outcomes: Vec::new() });
        self
    }

    /// A text message has come in.
    pub fn hears_text(self, payload: &str) -> Self {
        self.causes(Outcome::Text(payload.into()))
    }

    /// A binary message has come in.
    pub fn hears_binary(self, payload: &[u8]) -> Self {
        self.causes(Outcome::Binary(payload.to_vec()))
    }

    /// A pong has come in.
    pub fn hears_pong(self) -> Self {
        self.causes(Outcome::Pong)
    }

    /// The server sends a frame.
    pub fn server(self, frame: Frame) -> Self {
        self.causes(Outcome::Server(frame.plain()))
    }

    /// The server closes because the client did this wrong; the error's own code and reason go out.
    pub fn fails(self, error: ProtocolError) -> Self {
        self.causes(Outcome::Failed(error))
            .server(close(error.close_code(), error.reason()))
            .ended(error.close_reason())
    }

    /// The connection is over.
    pub fn ended(self, reason: CloseReason) -> Self {
        self.causes(Outcome::Ended(reason))
    }

    /// Nothing comes of it. (Nothing unlisted may ever come; this says it aloud.)
    pub fn server_silent(self) -> Self {
        assert!(self.turns.last().is_some_and(|turn| turn.outcomes.is_empty()));
        self
    }

    fn causes(mut self, outcome: Outcome) -> Self {
        self.turns.last_mut().expect("the client speaks first").outcomes.push(outcome);
        self
    }

    fn run(&self) {
        self.run_turn_by_turn("whole", usize::MAX);
        self.run_turn_by_turn("octet by octet", 1);
        let octets = self.turns.iter().flat_map(|turn| turn.client.iter().copied()).collect::<Vec<_>>();
        let expected = self.turns.iter().flat_map(|turn| turn.outcomes.iter().cloned()).collect::<Vec<_>>();
        let cut_at = |cuts: &[usize]| {
            let outcomes = outcomes_of(&octets, cuts, &self.limits);
            assert!(
                outcomes == expected,
                "cut at {cuts:?}: {} instead of {}",
                brief(&outcomes),
                brief(&expected)
            );
        };
        cut_at(&[]);
        for first in self.cuts() {
            cut_at(&[first]);
            if octets.len() <= PAIRS_BYTES_MAX {
                (first + 1..octets.len()).for_each(|second| cut_at(&[first, second]));
            }
        }
    }

    fn run_turn_by_turn(&self, how: &str, piece_bytes: usize) {
        let mut server = Server::default();
        for (number, turn) in self.turns.iter().enumerate() {
            let mut outcomes = Vec::new();
            for piece in turn.client.chunks(piece_bytes) {
                server.read(piece, &self.limits, &mut outcomes);
            }
            let (got, expected) = (brief(&outcomes), brief(&turn.outcomes));
            assert!(outcomes == turn.outcomes, "{how}, turn {number}: {got} instead of {expected}");
        }
    }

    /// Everywhere in a short conversation; around the edges of the turns of a long one.
    fn cuts(&self) -> Vec<usize> {
        let octets = self.turns.iter().map(|turn| turn.client.len()).sum::<usize>();
        if octets <= CUTS_BYTES_MAX {
            return (1..octets).collect();
        }
        let mut cuts = Vec::new();
        let mut start = 0;
        for turn in &self.turns {
            let end = start + turn.client.len();
            cuts.extend(start + 1..end.min(start + 24));
            cuts.extend(end.saturating_sub(9).max(start)..end);
            start = end;
        }
        cuts.retain(|cut| *cut > 0);
        cuts
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.run();
        }
    }
}

/// Outcomes for people: long payloads are cut.
fn brief(outcomes: &[Outcome]) -> String {
    let mut text = format!("{outcomes:?}");
    if text.len() > 600 {
        text.truncate(text.floor_char_boundary(600));
        text.push('…');
    }
    text
}
