//! One client as a 64-byte slot, and the table of all of them.
//!
//! An idle connection is its slot and nothing else: no buffer, no task, no timer. What is needed only
//! now and then (an unfinished head or message, bytes the socket refused, a second topic) is `Rare`,
//! boxed and dropped when over.

use std::collections::VecDeque;

use bytes::Bytes;

use super::clock::Tick;
use super::topics::TopicId;
use crate::ring::{GENERATION_MASK, Socket, Token};
use crate::stats::CloseReason;
use crate::wire::origin::OriginId;
use crate::wire::session::Transport;
use crate::wire::websocket::{Decoder, is_pong};

/// No slot, no name, no topic.
pub const NONE: u32 = u32::MAX;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// The slot is free.
    Free,
    /// The request head is not complete.
    Handshake,
    /// An established client.
    Open,
    /// Ended: the rest of the outbox goes out, input is discarded, until the peer ends it too.
    Closing,
}

/// Bits of a slot.
pub mod flag {
    /// In the list of those with something to send.
    pub const MARKED: u32 = 1;
    /// Not caught up: `cursor` says from where to send.
    pub const BEHIND: u32 = 2;
    /// The socket refused bytes; a write poll is armed.
    pub const BLOCKED: u32 = 4;
    /// In the list of those with something to receive.
    pub const READABLE: u32 = 8;
    /// A read poll is armed.
    pub const POLLED: u32 = 16;
    /// A ping waits for its pong.
    pub const PINGED: u32 = 32;
    /// Resumed from a position that this shard has not reached yet: skip up to `cursor`.
    pub const AHEAD: u32 = 64;
    /// Not read: an echo client until its outbox has drained, that of a poll until its answer has gone out,
    /// that of an event stream until the clock comes by.
    pub const PAUSED: u32 = 128;
    /// Pushes to this very connection are on the tape.
    pub const ADDRESSED: u32 = 256;
    /// Its outbox must go out, then the write side is shut down.
    pub const SHUT: u32 = 512;
    /// The peer has ended its side.
    pub const PEER_DONE: u32 = 1024;
    /// The address is counted (`limits.connections_per_address`), and kept in `Addresses`.
    pub const COUNTED: u32 = 2048;
    /// Came through a listener that is not loopback.
    pub const PUBLIC: u32 = 4096;
    /// A ping has to go out.
    pub const PING_DUE: u32 = 8192;
    /// The heartbeat period that was last seen is an odd one.
    pub const ODD_PERIOD: u32 = 16_384;
    /// The poll has told of the peer's end: read until it comes.
    pub const ENDING: u32 = 32_768;
    /// Has had an answer on this connection: what it waits for is the next request.
    pub const SERVED: u32 = 65_536;
    /// The connection ends with the answer to this poll.
    pub const LAST: u32 = 131_072;
    /// The answer to this poll has header lines of its own.
    pub const OWN_HEAD: u32 = 262_144;
    /// A PROXY header has to come first.
    pub const PROXY_DUE: u32 = 524_288;
    /// A poll for the peer's end alone is armed.
    pub const END_POLLED: u32 = 8_388_608;
    /// What keeps the socket open while it is armed.
    pub const ANY_POLL: u32 = POLLED | END_POLLED | BLOCKED;
    /// A PROXY header has come: who it is stands there, and nowhere else.
    pub const PROXIED: u32 = 1_048_576;
    /// Somebody traces it: `trail`.
    pub const TRACED: u32 = 2_097_152;
    /// Listeners were told that it is slow, and it has not caught up since.
    pub const SLOW: u32 = 4_194_304;
    /// What a connection has from the listener that it came through.
    pub const OF_LISTENER: u32 = PUBLIC | PROXIED;
}

/// One connection.
// Aligned: a slot is one cache line, not parts of two.
#[derive(Debug)]
#[repr(align(64))]
pub struct Slot {
    socket: Option<Socket>,
    /// Counts the slot's users (Rule 7).
    pub generation: u32,
    /// Bits of `flag`.
    pub flags: u32,
    /// Ping period in seconds; of a poll, how long it is held from `opened` on.
    pub heartbeat_s: u16,
    /// Where in its life.
    pub state: State,
    /// How it is spoken to.
    pub transport: Transport,
    /// When it was accepted; of a poll, when it began; after one, when its answer had gone out or the next
    /// head began.
    pub opened: Tick,
    /// Uplink rate: the moment (`Clock::us`) at which the bucket is full again.
    pub uplink_full_us: u32,
    /// Seq up to which everything was sent; meaningful while `BEHIND` or `AHEAD`.
    pub cursor: u64,
    /// User id in `Users`, or `NONE`.
    pub user: u32,
    /// Which of `web.origins` polls, where it is one.
    pub origin: Option<OriginId>,
    /// Neighbours in the list of the user's connections; `next` also links free slots.
    pub next: u32,
    /// See `next`.
    pub previous: u32,
    /// First subscription, or `NONE`.
    pub topic: TopicId,
    /// Its place among the topic's members.
    pub topic_place: u32,
    /// What only some have, for a while.
    pub rare: Option<Box<Rare>>,
}

const _: () = assert!(size_of::<Slot>() <= 64, "a million of these: design section 5");

/// State that an idle connection does not have.
#[derive(Debug, Default)]
pub struct Rare {
    /// An incomplete request head, or requests behind the one that is being answered.
    pub head: Vec<u8>,
    /// An incomplete frame or message.
    pub decoder: Option<Decoder>,
    /// Frames beyond what is heard in one turn: a client that has some is not received from.
    pub unheard: Vec<u8>,
    /// Frames of its own (replies, the rest of a frame that was begun), before anything of the tape.
    pub outbox: VecDeque<Frame>,
    /// Bytes in `outbox`.
    pub outbox_bytes: usize,
    /// Second and further subscriptions, with the place among each topic's members.
    pub topics: Vec<(TopicId, u32)>,
    /// Subscriptions that are being replayed, before the tape goes on.
    pub replays: VecDeque<Replay>,
    /// How far behind it is, in frame bytes, counted from when it fell behind.
    pub lag_bytes: usize,
    /// What was asked for by resuming does not count as lag: seq up to which. 0 once it is all sent.
    pub lag_exempt: u64,
    /// When the unfinished message must be complete.
    pub message_deadline: Option<Tick>,
    /// When bytes must have moved.
    pub send_deadline: Option<Tick>,
    /// When the peer must have ended the connection.
    pub close_deadline: Option<Tick>,
    /// Why it ends, once it does.
    pub ended: Option<CloseReason>,
}

/// Octets in an outbox.
#[derive(Debug)]
pub struct Frame {
    /// What is left of it.
    pub bytes: Bytes,
    /// Messages that are delivered once all of it has gone out (Rule 10).
    pub messages: u32,
    /// Something of it has gone out.
    pub begun: bool,
}

/// A stretch of the past that goes out before the tape goes on: topics subscribed with `since`, or what
/// was behind when the subscriptions changed.
#[derive(Debug)]
pub struct Replay {
    /// Whose messages.
    pub topics: Vec<TopicId>,
    /// Those to the user, to this connection and to everybody as well.
    pub whole: bool,
    /// Seq up to which they were sent.
    pub cursor: u64,
    /// Seq after which the next stretch, or the ordinary cursor, takes over.
    pub until: u64,
}

impl Rare {
    /// Whether nothing is left that needs keeping.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty()
            && self.decoder.is_none()
            && self.unheard.is_empty()
            && self.outbox.is_empty()
            && self.topics.is_empty()
            && self.replays.is_empty()
            && self.lag_exempt == 0
            && self.message_deadline.is_none()
            && self.send_deadline.is_none()
            && self.close_deadline.is_none()
            && self.ended.is_none()
    }

    /// Messages that end with the frames of the outbox from the `first` on.
    pub fn queued_messages(&self, first: usize) -> u64 {
        self.outbox.iter().skip(first).map(|frame| u64::from(frame.messages)).sum()
    }

    /// Bytes that it takes, with its buffers.
    pub fn memory_bytes(&self) -> usize {
        let lists = self.outbox.capacity() * size_of::<Frame>()
            + self.topics.capacity() * size_of::<(TopicId, u32)>()
            + self.replays.capacity() * size_of::<Replay>();
        let unfinished = self.decoder.as_ref().map_or(0, Decoder::buffer_bytes);
        let received = self.head.capacity() + self.unheard.capacity() + unfinished;
        size_of::<Self>() + received + self.outbox_bytes + lists
    }

    /// Puts a frame behind the others.
    pub fn queue(&mut self, frame: Frame) {
        self.outbox_bytes += frame.bytes.len();
        self.outbox.push_back(frame);
    }

    /// Of the pongs among the frames from number `from` on, keeps the newest (RFC 6455 5.5.3). The first frame
    /// may have been begun, and is not to be among them.
    pub fn coalesce_pongs(&mut self, from: usize) {
        let pongs = self.outbox.iter().skip(from).filter(|frame| is_pong(&frame.bytes)).count();
        let (mut number, mut older, mut bytes) = (0, pongs.saturating_sub(1), 0);
        self.outbox.retain(|frame| {
            let drop = number >= from && older > 0 && is_pong(&frame.bytes);
            (number, older) = (number + 1, older - usize::from(drop));
            bytes += if drop { frame.bytes.len() } else { 0 };
            !drop
        });
        self.outbox_bytes -= bytes;
    }
}

impl Slot {
    fn free(generation: u32, next: u32) -> Self {
        Self {
            socket: None,
            generation,
            flags: 0,
            heartbeat_s: 0,
            state: State::Free,
            transport: Transport::WebSocketRaw,
            opened: Tick(0),
            uplink_full_us: 0,
            cursor: 0,
            user: NONE,
            origin: None,
            next,
            previous: NONE,
            topic: NONE,
            topic_place: 0,
            rare: None,
        }
    }

    /// Whether bit `flag` is set.
    pub fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Sets bit `flag`.
    pub fn set(&mut self, flag: u32) {
        self.flags |= flag;
    }

    /// Clears bit `flag`.
    pub fn clear(&mut self, flag: u32) {
        self.flags &= !flag;
    }

    /// The socket. A slot in use has one.
    pub fn socket(&self) -> &Socket {
        self.socket.as_ref().expect("a slot in use has a socket")
    }

    /// The rare state, made if it is not there.
    pub fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Nothing of the tape is left for it.
    pub fn caught_up(&mut self) {
        self.clear(flag::BEHIND);
        if let Some(rare) = &mut self.rare {
            rare.replays.clear();
            rare.lag_exempt = 0;
        }
        self.tidy();
    }

    /// Drops the rare state if nothing in it is needed any more.
    pub fn tidy(&mut self) {
        if self.rare.as_ref().is_some_and(|rare| rare.is_empty()) {
            self.rare = None;
        }
    }

    /// Whether octets of a request are kept.
    pub fn has_head(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| !rare.head.is_empty())
    }

    /// Whether frames wait to be heard.
    pub fn has_unheard(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| !rare.unheard.is_empty())
    }

    /// Whether frames of its own wait.
    pub fn has_outbox(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| !rare.outbox.is_empty())
    }
}

/// Slots in one chunk: growth never copies and wastes at most one chunk.
pub(super) const CHUNK: usize = 1024;

/// All slots of a shard. Grows by chunks; a freed slot is used again first.
#[derive(Debug)]
pub struct Table {
    chunks: Vec<Vec<Slot>>,
    free: u32,
    used: u32,
}

impl Default for Table {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: NONE, used: 0 }
    }
}

impl Table {
    /// Slots in use.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Slots that exist, free ones included.
    pub fn slots(&self) -> u32 {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len()) as u32
    }

    /// Bytes that it takes.
    pub fn memory_bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<Slot>() + self.chunks.capacity() * size_of::<Vec<Slot>>()
    }

    /// Takes a slot for `socket`; gives its index.
    pub fn insert(&mut self, socket: Socket, opened: Tick) -> u32 {
        let index = if self.free != NONE {
            let index = self.free;
            self.free = self[index].next;
            index
        } else {
            self.grow()
        };
        let slot = &mut self[index];
        *slot = Slot::free(slot.generation, NONE);
        slot.socket = Some(socket);
        slot.state = State::Handshake;
        slot.opened = opened;
        self.used += 1;
        index
    }

    fn grow(&mut self) -> u32 {
        let index = self.slots();
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let last = self.chunks.last_mut().expect("pushed above");
        last.push(Slot::free(0, NONE));
        index
    }

    /// Frees the slot and gives its socket back.
    pub fn remove(&mut self, index: u32) -> Socket {
        let free = self.free;
        let slot = &mut self[index];
        let socket = slot.socket.take().expect("a slot in use has a socket");
        *slot = Slot::free(slot.generation.wrapping_add(1), free);
        self.free = index;
        self.used -= 1;
        socket
    }

    /// The slot that `token` means, unless it has a new user or none.
    pub fn find(&self, token: Token) -> Option<u32> {
        let slot = self.chunks.get(token.index as usize / CHUNK)?.get(token.index as usize % CHUNK)?;
        let current = slot.generation & GENERATION_MASK == token.generation & GENERATION_MASK;
        (current && slot.state != State::Free).then_some(token.index)
    }

    /// What the ring is told about slot `index`.
    pub fn token(&self, index: u32) -> Token {
        Token { index, generation: self[index].generation }
    }
}

impl std::ops::Index<u32> for Table {
    type Output = Slot;
    fn index(&self, index: u32) -> &Slot {
        &self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}

impl std::ops::IndexMut<u32> for Table {
    fn index_mut(&mut self, index: u32) -> &mut Slot {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}
