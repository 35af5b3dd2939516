//! One connection as a slot of 64 bytes, and what only some have for a while.
//!
//! A connection that waits is its slot and nothing else; `Rare` is boxed and dropped when empty, so that a
//! million held connections are 64 MB here.

use std::collections::BTreeMap;

use rustix::fd::OwnedFd;

use super::tracking::Track;
use crate::plan::Behaviour;
use crate::wire::http::Chunks;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Not begun, given up, or ended for good.
    Idle,
    /// Comes back later: a timer runs.
    Waiting,
    /// `connect` is under way.
    Connecting,
    /// The request is sent, its answer not complete.
    Handshake,
    /// Established.
    Open,
}

/// Bits of a slot.
pub mod flag {
    /// A request waits for its response, or for its connection.
    pub const ASKED: u16 = 1;
    /// Comes back after a loss: its handshake is timed from the loss.
    pub const BACK: u16 = 2;
    /// Counted among the handshakes under way.
    pub const UNDER_WAY: u16 = 4;
    /// Among the connections that have settled: open or failed once.
    pub const SETTLED: u16 = 8;
    /// Its event stream comes in chunks.
    pub const CHUNKED: u16 = 16;
    /// The response of this request is read until the connection ends.
    pub const UNTIL_CLOSE: u16 = 32;
    /// The connection ends with this response.
    pub const LAST_RESPONSE: u16 = 64;
    /// Its poll was answered and it has not asked again.
    pub const SATED: u16 = 256;
    /// In the list of those that can take the next request.
    pub const LISTED: u16 = 128;
}

/// One connection.
#[derive(Debug)]
pub struct Slot {
    /// The socket, while there is one.
    pub socket: Option<OwnedFd>,
    /// Its number over all workers.
    pub number: u32,
    /// When the connect began, in nanoseconds.
    pub began_ns: u64,
    /// When the request that waits was due, or when the connection was lost that comes back.
    pub since_ns: u64,
    /// By when the handshake or response must be complete, in ms since the worker's start; on an open event
    /// stream the `retry:` that the server has told, in ms.
    pub deadline_ms: u32,
    /// Newest seq of `publisher`.
    pub seq: u32,
    /// Position for the next poll.
    pub next: Option<Box<str>>,
    /// See `Rare`.
    pub rare: Option<Box<Rare>>,
    /// The first publisher it heard of; others are in `Rare`.
    pub publisher: u16,
    /// Counts the connections of this slot, so that an old timer finds nobody.
    pub generation: u16,
    /// Which target.
    pub target: u16,
    /// Bits of `flag`.
    pub flags: u16,
    /// Where in its life.
    pub state: State,
    /// How it behaves.
    pub behaviour: Behaviour,
    /// Failed attempts in a row.
    pub failures: u8,
}

const _: () = assert!(size_of::<Slot>() <= 80, "a million of these");

/// State that a waiting connection does not have.
#[derive(Debug, Default)]
pub struct Rare {
    /// Bytes that are not yet a whole frame, event, head or body.
    pub carry: Vec<u8>,
    /// Bytes that the socket has not taken yet.
    pub unsent: Vec<u8>,
    /// Fragments of a message; the opcode is of no interest.
    pub fragments: Option<Vec<u8>>,
    /// De-chunking.
    pub chunks: Chunks,
    /// De-chunked text of an event stream, or the body of a response.
    pub body: Vec<u8>,
    /// The status of the response whose body is under way.
    pub status: Option<u16>,
    /// Bytes of a body to skip.
    pub skip: u64,
    /// What is missing of `Slot::publisher`.
    pub missing: Vec<(u32, u32)>,
    /// Further publishers.
    pub others: BTreeMap<u16, Track>,
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.carry.is_empty()
            && self.unsent.is_empty()
            && self.fragments.is_none()
            && self.body.is_empty()
            && self.status.is_none()
            && self.skip == 0
            && self.missing.is_empty()
            && self.others.is_empty()
    }
}

impl Slot {
    /// One that has not begun.
    pub fn new(number: u32) -> Self {
        Self {
            socket: None,
            number,
            began_ns: 0,
            since_ns: 0,
            deadline_ms: 0,
            seq: 0,
            next: None,
            rare: None,
            publisher: NOBODY,
            generation: 0,
            target: 0,
            flags: 0,
            state: State::Idle,
            behaviour: Behaviour::Well,
            failures: 0,
        }
    }

    /// Whether one of `bits` is set.
    pub fn is(&self, bits: u16) -> bool {
        self.flags & bits != 0
    }

    /// Sets `bits`.
    pub fn set(&mut self, bits: u16) {
        self.flags |= bits;
    }

    /// Clears `bits`.
    pub fn clear(&mut self, bits: u16) {
        self.flags &= !bits;
    }

    /// `Rare`, made when there is none.
    pub fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// What was heard of a publisher; what is missing of it is given away with it.
    pub fn take_track(&mut self, publisher: u16) -> Track {
        let rare = self.rare.as_mut();
        if self.publisher == publisher || self.publisher == NOBODY {
            let missing = rare.map(|rare| std::mem::take(&mut rare.missing)).unwrap_or_default();
            return Track { newest: self.seq, missing };
        }
        rare.and_then(|rare| rare.others.remove(&publisher)).unwrap_or_default()
    }

    /// What was heard stays when the connection goes; everything else of `Rare` goes with it.
    pub fn keep_tracks(&mut self) {
        let Some(rare) = self.rare.take() else { return };
        if !rare.missing.is_empty() || !rare.others.is_empty() {
            self.rare =
                Some(Box::new(Rare { missing: rare.missing, others: rare.others, ..Rare::default() }));
        }
    }

    /// Drops `Rare` when it holds nothing. A chunked stream keeps it: its state is there.
    pub fn slim(&mut self) {
        if !self.is(flag::CHUNKED) && self.rare.as_ref().is_some_and(|rare| rare.is_empty()) {
            self.rare = None;
        }
    }
}

/// `Slot::publisher` before the first stamp.
pub const NOBODY: u16 = u16::MAX;
