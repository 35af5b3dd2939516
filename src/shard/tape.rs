//! The log of everything this shard has to deliver or may be asked to resume, in position order.
//!
//! A connection owns no queue: it is a cursor into this tape. Each entry stands in the one chain of its
//! target (a topic, a user, one connection, everybody) and in the list of all entries by age. Bounded in
//! messages per chain, bytes and age; `trim` says what a cursor may still need.
//! Never writes to a socket. Encodes a message at most once per form (Rule 4).

use std::cell::{Cell, OnceCell};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::clock::{TICK, Tick};
use super::conn::NONE;
use super::forms::HttpForms;
pub use super::forms::{Encoder, Form};
use super::topics::TopicId;
use crate::message::{Message, UserId};
use crate::wire::{envelope, event_stream, long_poll};

/// A chain of this tape; reused once closed.
pub type ChainId = u32;
type EntryId = u32;

/// The chain of messages to everybody.
pub const EVERYBODY: ChainId = 0;

/// What one entry costs beside its payload, for `history.bytes`.
const ENTRY_BYTES: usize = size_of::<Entry>() + size_of::<Link>() + size_of::<Message>();

/// How many messages a connection has yet to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// To be sent.
    pub live: u64,
    /// To be passed over: their time to live is over.
    pub expired: u64,
}

/// Limits of a tape.
#[derive(Clone, Copy, Debug)]
pub struct TapeLimits {
    /// Messages kept per chain.
    pub messages_max: usize,
    /// Bytes kept in all, payload and bookkeeping.
    pub bytes_max: usize,
    /// Bytes up to which messages are kept beyond `bytes_max` because a slow connection needs them. Then
    /// `trim` asks for as many to be given up as brings the bytes halfway back to `bytes_max`.
    pub bytes_hard_max: usize,
    /// Age, in ticks.
    pub age_ticks_max: u32,
}

/// One message on the tape.
#[derive(Debug)]
pub struct Entry {
    message: Arc<Message>,
    envelope: OnceCell<Bytes>,
    http: OnceCell<Box<HttpForms>>,
    added: Tick,
    chain: ChainId,
    /// Bytes accounted for it.
    bytes: u32,
    /// Bytes of the forms made so far, but for the raw one.
    encoded: Cell<u32>,
    older: EntryId,
    newer: EntryId,
}

const _: () = assert!(size_of::<Entry>() <= 80, "thousands of these, beside payloads of a few bytes");

impl Entry {
    /// Its place in the sequence.
    pub fn seq(&self) -> u64 {
        self.message.seq
    }

    /// The bytes to send, encoded at most once while they are kept (`Tape::trim`).
    pub fn form(&self, form: Form, encoder: &Encoder<'_>) -> &Bytes {
        let (message, epoch) = (&self.message, encoder.epoch);
        let http = || self.http.get_or_init(Box::default);
        let counted = |bytes: Bytes| {
            self.encoded.set(self.encoded.get() + bytes.len() as u32);
            encoder.encoded.set(encoder.encoded.get() + bytes.len());
            bytes
        };
        match form {
            Form::Raw => message.frame(),
            Form::Envelope => self.envelope.get_or_init(|| counted(envelope::message(message, epoch))),
            Form::Event => http().event.get_or_init(|| counted(event_stream::message(message, epoch))),
            Form::Item => http().item.get_or_init(|| counted(long_poll::item(message, epoch))),
            Form::Answer => {
                let answer = || long_poll::answer(message, epoch, encoder.poll_begin);
                http().answer.get_or_init(|| counted(answer()))
            }
        }
    }

    /// Drops the forms; gives their bytes. Who is being sent one keeps it.
    fn strip(&mut self) -> usize {
        self.envelope.take();
        self.http.take();
        self.encoded.take() as usize
    }

    /// When its push was accepted, where that is known.
    pub fn accepted(&self) -> Option<Instant> {
        self.message.accepted
    }

    /// Whether its time to live is over.
    pub fn is_expired(&self, now: Instant) -> bool {
        self.message.expires.is_some_and(|expires| expires <= now)
    }
}

/// An entry in its chain. `bytes_before` is the sum of frame bytes of all earlier entries of the
/// chain, wrapping: a lag is a subtraction.
#[derive(Clone, Copy, Debug)]
struct Link {
    seq: u64,
    entry: EntryId,
    bytes_before: u32,
}

const _: () = assert!(size_of::<Link>() == 16, "four to a cache line: a lag is read from two");

#[derive(Debug, Default)]
struct Chain {
    links: VecDeque<Link>,
    bytes_total: u32,
    /// Newest seq that was here and is no longer held.
    forgotten: u64,
    owner: Option<Owner>,
}

/// Whose messages a chain holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// All connections.
    Everybody,
    /// A topic's subscribers.
    Topic(TopicId),
    /// A user's connections.
    User(UserId),
    /// The connection in this slot.
    Connection(u32),
}

/// The tape of one shard.
#[derive(Debug)]
pub struct Tape {
    entries: Vec<Option<Entry>>,
    free: Vec<EntryId>,
    oldest: EntryId,
    newest: EntryId,
    chains: Vec<Chain>,
    /// Chains of pushes to users, to single connections, and the newest seq among the former.
    users: HashMap<UserId, ChainId>,
    connections: HashMap<u32, ChainId>,
    user_seq: u64,
    free_chains: Vec<ChainId>,
    bytes: usize,
    /// Bytes of all forms but the raw ones: what was encoded for those who speak otherwise.
    encoded: Cell<usize>,
    head: u64,
    /// Newest seq forgotten together with its chain.
    forgotten: u64,
    limits: TapeLimits,
    /// Chains over `messages_max`, to be looked at by `trim`.
    long: Vec<ChainId>,
    /// Chains that `trim` emptied, to be closed.
    emptied: Vec<ChainId>,
}

impl Tape {
    /// An empty tape.
    pub fn new(limits: TapeLimits) -> Self {
        let everybody = Chain { owner: Some(Owner::Everybody), ..Chain::default() };
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            chains: vec![everybody],
            users: HashMap::new(),
            connections: HashMap::new(),
            user_seq: 0,
            free_chains: Vec::new(),
            bytes: 0,
            encoded: Cell::new(0),
            head: 0,
            forgotten: 0,
            limits,
            long: Vec::new(),
            emptied: Vec::new(),
        }
    }

    /// Newest seq that this shard has seen.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Messages held.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Bytes held, payload and bookkeeping.
    pub fn bytes(&self) -> usize {
        self.bytes + self.encoded.get()
    }

    /// How long ago the oldest message was appended; 0 where none is held.
    pub fn age(&self, now: Tick) -> Duration {
        let ticks = if self.is_empty() { 0 } else { now.since(self.entry(self.oldest).added) };
        TICK * ticks
    }

    /// Makes a chain for `owner`, who has none.
    pub fn open_chain(&mut self, owner: Owner) -> ChainId {
        let id = self.free_chains.pop().unwrap_or_else(|| {
            self.chains.push(Chain::default());
            self.chains.len() as ChainId - 1
        });
        let chain = &mut self.chains[id as usize];
        // What the owner had before, under a chain that was closed, may be among the forgotten.
        (chain.owner, chain.forgotten) = (Some(owner), self.forgotten);
        id
    }

    /// Where the tape holds messages to this user, if it does.
    pub fn user_chain(&self, user: &str) -> Option<ChainId> {
        self.users.get(user).copied()
    }

    /// Newest seq of a message to any user.
    pub fn user_seq(&self) -> u64 {
        self.user_seq
    }

    /// Where the tape holds messages to the connection in slot `index`, if it does.
    pub fn connection_chain(&self, index: u32) -> Option<ChainId> {
        self.connections.get(&index).copied()
    }

    /// Forgets what was for the connection in slot `index`, which has had it or goes.
    pub fn close_connection(&mut self, index: u32) {
        let chain = self.connections.remove(&index).expect("an addressed slot has a chain");
        self.close_chain(chain);
    }

    /// Forgets a chain and what it still holds. A later resume of its target from before is told.
    pub fn close_chain(&mut self, id: ChainId) {
        while let Some(link) = self.chains[id as usize].links.front().copied() {
            self.evict(link.entry);
        }
        let chain = std::mem::take(&mut self.chains[id as usize]);
        // A connection's own messages cannot be resumed: nobody misses them.
        if !matches!(chain.owner, Some(Owner::Connection(_))) {
            self.forgotten = self.forgotten.max(chain.forgotten);
        }
        self.free_chains.push(id);
    }

    /// Whether the chain holds nothing.
    pub fn is_chain_empty(&self, id: ChainId) -> bool {
        self.chains[id as usize].links.is_empty()
    }

    /// Newest seq held in the chain, 0 where none is.
    pub fn newest_seq(&self, id: ChainId) -> u64 {
        self.chains[id as usize].links.back().map_or(0, |link| link.seq)
    }

    /// Notes that everything up to `seq` has come by.
    pub fn advance(&mut self, seq: u64) {
        debug_assert!(seq >= self.head, "the sequencer posts in order");
        self.head = seq;
    }

    /// Appends a message to the chain of its target.
    pub fn append(&mut self, chain: ChainId, message: Arc<Message>, now: Tick) {
        let (seq, frame_bytes) = (message.seq, message.frame().len());
        let bytes = frame_bytes + ENTRY_BYTES;
        let entry = Entry {
            message,
            envelope: OnceCell::new(),
            http: OnceCell::new(),
            added: now,
            chain,
            bytes: bytes as u32,
            encoded: Cell::new(0),
            older: self.newest,
            newer: NONE,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id as usize] = Some(entry);
                id
            }
            None => {
                self.entries.push(Some(entry));
                self.entries.len() as EntryId - 1
            }
        };
        match self.newest {
            NONE => self.oldest = id,
            newest => self.entry_mut(newest).newer = id,
        }
        self.newest = id;
        self.bytes += bytes;
        let links = &mut self.chains[chain as usize];
        links.links.push_back(Link { seq, entry: id, bytes_before: links.bytes_total });
        links.bytes_total = links.bytes_total.wrapping_add(frame_bytes as u32);
        if links.links.len() == self.limits.messages_max + 1 {
            self.long.push(chain);
        }
        self.advance(seq);
    }

    /// Appends a message to this user.
    pub fn append_to_user(&mut self, user: &UserId, message: Arc<Message>, now: Tick) {
        let chain = self.user_chain(user.as_str()).unwrap_or_else(|| {
            let chain = self.open_chain(Owner::User(user.clone()));
            self.users.insert(user.clone(), chain);
            chain
        });
        self.user_seq = message.seq;
        self.append(chain, message, now);
    }

    /// Appends a message to the connection in slot `index`.
    pub fn append_to_connection(&mut self, index: u32, message: Arc<Message>, now: Tick) {
        let chain = self.connection_chain(index).unwrap_or_else(|| {
            let chain = self.open_chain(Owner::Connection(index));
            self.connections.insert(index, chain);
            chain
        });
        self.append(chain, message, now);
    }

    fn entry(&self, id: EntryId) -> &Entry {
        self.entries[id as usize].as_ref().expect("linked entries are held")
    }

    fn entry_mut(&mut self, id: EntryId) -> &mut Entry {
        self.entries[id as usize].as_mut().expect("linked entries are held")
    }

    /// Drops entry `id`, the oldest of its chain.
    fn evict(&mut self, id: EntryId) {
        let entry = self.entries[id as usize].take().expect("linked entries are held");
        self.free.push(id);
        self.bytes -= entry.bytes as usize;
        self.encoded.set(self.encoded.get() - entry.encoded.get() as usize);
        match entry.older {
            NONE => self.oldest = entry.newer,
            older => self.entry_mut(older).newer = entry.newer,
        }
        match entry.newer {
            NONE => self.newest = entry.older,
            newer => self.entry_mut(newer).older = entry.older,
        }
        let chain = &mut self.chains[entry.chain as usize];
        let link = chain.links.pop_front().expect("an entry stands in its chain");
        debug_assert_eq!(link.entry, id, "the oldest of all is the oldest of its chain");
        chain.forgotten = link.seq;
        if chain.links.is_empty() {
            chain.links.shrink_to(0);
            self.emptied.push(entry.chain);
        }
    }

    /// Keeps other limits from the next `trim` on.
    pub fn adopt(&mut self, limits: TapeLimits) {
        self.limits = limits;
        // `append` notes a chain when it grows past the limit: those that are past the new one already.
        let long = |chain: &ChainId| self.chains[*chain as usize].links.len() > limits.messages_max;
        self.long = (0..self.chains.len() as ChainId).filter(long).collect();
    }

    /// Forgets whole answers to polls: they begin otherwise now.
    pub fn forget_answers(&mut self) {
        for entry in self.entries.iter_mut().flatten() {
            if let Some(answer) = entry.http.get_mut().and_then(|http| http.answer.take()) {
                entry.encoded.set(entry.encoded.get() - answer.len() as u32);
                self.encoded.set(self.encoded.get() - answer.len());
            }
        }
    }

    /// Keeps the limits, but drops nothing that a cursor at `needed_after` has yet to send.
    ///
    /// Gives the seq up to which that has to be given up, where the bytes are over `bytes_hard_max`: to be
    /// called again with it once nobody needs anything before.
    pub fn trim(&mut self, needed_after: u64, now: Tick) -> Option<u64> {
        let mut long = std::mem::take(&mut self.long);
        long.retain(|&chain| {
            while self.chains[chain as usize].links.len() > self.limits.messages_max {
                let link = self.chains[chain as usize].links[0];
                if link.seq > needed_after {
                    return true;
                }
                self.evict(link.entry);
            }
            false
        });
        self.long = long;
        while self.oldest != NONE {
            let entry = self.entry(self.oldest);
            let old = now.since(entry.added) >= self.limits.age_ticks_max;
            if !(old || self.bytes > self.limits.bytes_max) || entry.seq() > needed_after {
                break;
            }
            self.evict(self.oldest);
        }
        if self.encoded.get() > self.limits.bytes_max {
            self.strip();
        }
        (self.bytes > self.limits.bytes_hard_max).then(|| self.to_be_given_up())
    }

    fn to_be_given_up(&self) -> u64 {
        let aim = self.limits.bytes_max.midpoint(self.limits.bytes_hard_max);
        let (mut id, mut bytes, mut seq) = (self.oldest, self.bytes, 0);
        while id != NONE && bytes > aim {
            let entry = self.entry(id);
            (id, bytes, seq) = (entry.newer, bytes - entry.bytes as usize, entry.seq());
        }
        seq
    }

    /// Drops forms of the oldest entries until they take half of what they may: a message that is asked for
    /// once more is encoded once more. A payload of line ends is seven times as long as an event.
    fn strip(&mut self) {
        let mut id = self.oldest;
        while id != NONE && self.encoded.get() > self.limits.bytes_max / 2 {
            let entry = self.entry_mut(id);
            let (stripped, newer) = (entry.strip(), entry.newer);
            self.encoded.set(self.encoded.get() - stripped);
            id = newer;
        }
    }

    /// Where `Entry::form` counts.
    pub fn encoded(&self) -> &Cell<usize> {
        &self.encoded
    }

    /// A topic whose chain has become empty, for `Topics` to close; those of users are closed here.
    pub fn emptied(&mut self) -> Option<TopicId> {
        while let Some(id) = self.emptied.pop() {
            let chain = &self.chains[id as usize];
            match &chain.owner {
                Some(Owner::Topic(topic)) if chain.links.is_empty() => return Some(*topic),
                Some(Owner::User(user)) if chain.links.is_empty() => {
                    self.users.remove(user.as_str());
                    self.close_chain(id);
                }
                _ => {}
            }
        }
        None
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.oldest == NONE
    }

    /// Place of the first link after `seq`. Cursors are mostly near the end.
    fn place(&self, chain: ChainId, seq: u64) -> usize {
        let links = &self.chains[chain as usize].links;
        let near = links.iter().rev().take(4).take_while(|link| link.seq > seq).count();
        if near < 4 {
            return links.len() - near;
        }
        links.partition_point(|link| link.seq <= seq)
    }

    /// Whether a message of one of `chains` after `seq` is no longer held.
    pub fn has_lost(&self, chains: &[ChainId], seq: u64) -> bool {
        chains.iter().any(|&chain| self.chains[chain as usize].forgotten > seq)
    }

    /// Whether messages after `seq` of a target that has no chain may have been forgotten with it.
    pub fn has_forgotten(&self, seq: u64) -> bool {
        self.forgotten > seq
    }

    /// Frame bytes in `chains` after `seq`.
    pub fn lag_bytes(&self, chains: &[ChainId], seq: u64) -> usize {
        let lag = |&id: &ChainId| {
            let chain = &self.chains[id as usize];
            let first = chain.links.get(self.place(id, seq));
            first.map_or(0, |link| chain.bytes_total.wrapping_sub(link.bytes_before) as usize)
        };
        chains.iter().map(lag).sum()
    }

    /// Messages and frame bytes in `chains` after seq `after` up to seq `until`, expired ones included: by their
    /// places, so that many take no longer than few.
    pub fn span(&self, chains: &[ChainId], after: u64, until: u64) -> (u64, u64) {
        let mut span = (0, 0);
        for &id in chains {
            let (first, end) = (self.place(id, after), self.place(id, until));
            let chain = &self.chains[id as usize];
            let before = |place| chain.links.get(place).map_or(chain.bytes_total, |link| link.bytes_before);
            span.0 += end.saturating_sub(first) as u64;
            span.1 += u64::from(before(end.max(first)).wrapping_sub(before(first)));
        }
        span
    }

    /// Messages in `chains` after seq `after` up to seq `until`.
    pub fn count(&self, chains: &[ChainId], after: u64, until: u64, now: Instant) -> Due {
        let mut due = Due::default();
        self.walk(chains, after, until, |entry| {
            match entry.is_expired(now) {
                true => due.expired += 1,
                false => due.live += 1,
            }
            true
        });
        due
    }

    /// Shows the entries of `chains` after seq `after` up to seq `until`, ascending, while `take` says
    /// so. An entry for which it says no is shown again next time.
    pub fn walk<'t>(
        &'t self,
        chains: &[ChainId],
        after: u64,
        until: u64,
        mut take: impl FnMut(&'t Entry) -> bool,
    ) {
        if let [chain] = chains {
            let links = &self.chains[*chain as usize].links;
            for link in links.range(self.place(*chain, after)..) {
                if link.seq > until || !take(self.entry(link.entry)) {
                    return;
                }
            }
            return;
        }
        // Most connections have few chains with anything new: no allocation for those.
        let mut few = [(0, 0); 8];
        let mut many = Vec::new();
        let heads: &mut [(ChainId, usize)] = if chains.len() <= few.len() {
            &mut few[..chains.len()]
        } else {
            many.resize(chains.len(), (0, 0));
            &mut many
        };
        for (head, &chain) in heads.iter_mut().zip(chains) {
            *head = (chain, self.place(chain, after));
        }
        loop {
            let link_of = |&(chain, place): &(ChainId, usize)| self.chains[chain as usize].links.get(place);
            let next = heads.iter_mut().filter_map(|head| link_of(head).map(|link| (*link, head)));
            let Some((link, head)) = next.min_by_key(|(link, _)| link.seq) else { return };
            if link.seq > until || !take(self.entry(link.entry)) {
                return;
            }
            head.1 += 1;
        }
    }
}
