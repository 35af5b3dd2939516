//! What a connection has yet to be sent: its outbox, then stretches of the past, then the tape.
//!
//! Looks at a shard's tables and changes nothing; `sending` sends what is gathered here and notes how far
//! it went. The gathering is the same for every transport; only the form of a message differs.

use std::time::Instant;

use bytes::Bytes;

use super::conn::{NONE, Replay, Slot, State, Table, flag};
use super::settings::Settings;
use super::tape::{ChainId, EVERYBODY, Encoder, Entry, Form, Tape};
use super::topics::{TopicId, Topics};
use super::users::Users;
use crate::ring::Pieces;
use crate::wire::session::Transport;
use crate::wire::{event_stream, websocket};

/// Bytes gathered for one send: more than a socket with the default `limits.socket_send_bytes` takes.
const GATHER_BYTES: usize = 96 * 1024;

/// What one send was made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) index: u32,
    pub(super) outbox_bytes: usize,
    pub(super) ping: bool,
    /// All bytes; what is neither outbox nor ping is of the tape.
    pub(super) bytes: usize,
    /// Seq up to which the tape part goes, where the tape was looked at.
    pub(super) through: Option<u64>,
    pub(super) messages: u64,
    /// Messages that were passed over because they have expired.
    pub(super) expired: u64,
    /// Whether more waited than was gathered.
    pub(super) more: bool,
    /// One whole message of the tape to a connection without rare state, and nothing else: what nearly
    /// every send of a broadcast is.
    pub(super) plain: bool,
    /// A poll: with what was gathered it has its answer, or it needs one that is made for it alone.
    pub(super) poll: Option<Poll>,
}

/// What of a batch of sends was just pushed, and goes to those who keep up: `ShardStats::latency`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fresh {
    /// When the oldest of it was accepted.
    pub(super) oldest: Option<Instant>,
    /// Sends, without those that only repeat one.
    pub(super) sends: u64,
}

impl Fresh {
    fn note(&mut self, slot: &Slot, accepted: Option<Instant>) {
        let keeps_up =
            slot.rare.as_ref().is_none_or(|rare| rare.send_deadline.is_none() && rare.lag_exempt == 0);
        if let (Some(accepted), true) = (accepted, keeps_up) {
            self.oldest = Some(self.oldest.map_or(accepted, |oldest| oldest.min(accepted)));
            self.sends += 1;
        }
    }
}

/// See `Plan::poll`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Poll {
    Answered,
    ToAnswer,
}

/// What the last plain plan of a transport sent: the next of its connections in a broadcast mostly needs
/// the same.
pub(super) struct Repeat<'s> {
    pub(super) topic: TopicId,
    pub(super) cursor: u64,
    pub(super) frame: &'s [u8],
    pub(super) through: u64,
    pub(super) expired: u64,
}

pub(super) fn form_of(transport: Transport) -> Form {
    match transport {
        Transport::WebSocketJson => Form::Envelope,
        Transport::WebSocketRaw | Transport::WebSocketEcho => Form::Raw,
        Transport::EventStream => Form::Event,
        Transport::LongPoll => Form::Answer,
    }
}

/// What keeps an idle connection alive.
pub(super) fn ping_of(transport: Transport) -> &'static [u8] {
    match transport {
        Transport::EventStream => event_stream::COMMENT,
        Transport::WebSocketJson | Transport::WebSocketRaw | Transport::WebSocketEcho => websocket::PING,
        Transport::LongPoll => &[],
    }
}

/// One per transport, so that a broadcast to many kinds of clients is as cheap as to one.
pub(super) type Repeats<'s> = [Option<Repeat<'s>>; Transport::COUNT];

/// Where a short send ended.
pub(super) struct BrokenOff {
    /// Seq of the last message of which anything went out.
    pub(super) through: u64,
    /// What is left of its frame.
    pub(super) rest: Option<Bytes>,
    /// Messages that went out whole, and those that were passed over because they have expired.
    pub(super) messages: u64,
    pub(super) expired: u64,
}

/// The parts of a shard that say what a connection has yet to be sent.
pub(super) struct Outlook<'s> {
    pub(super) table: &'s Table,
    pub(super) topics: &'s Topics,
    pub(super) tape: &'s Tape,
    pub(super) users: &'s Users,
    pub(super) encoder: Encoder<'s>,
    pub(super) now: Instant,
}

impl<'s> Outlook<'s> {
    /// Of the parts of a shard, so that its ring can be used meanwhile; `Shard::outlook` is of the whole.
    pub(super) fn new(
        table: &'s Table,
        topics: &'s Topics,
        tape: &'s Tape,
        users: &'s Users,
        settings: &'s Settings,
        epoch: u32,
        now: Instant,
    ) -> Self {
        let encoder = Encoder { epoch, poll_begin: &settings.poll_begin, encoded: tape.encoded() };
        Self { table, topics, tape, users, encoder, now }
    }

    /// Puts into `chains` those with anything after `after` for the stretch that slot `index` is at.
    pub(super) fn chains(&self, index: u32, replay: Option<&Replay>, after: u64, chains: &mut Vec<ChainId>) {
        chains.clear();
        let mut add = |chain: ChainId| {
            if self.tape.newest_seq(chain) > after {
                chains.push(chain);
            }
        };
        match replay {
            Some(replay) => replay.topics.iter().for_each(|&id| add(self.topics.chain(id))),
            None => self.topics.of(self.table, index).for_each(|id| add(self.topics.chain(id))),
        }
        if replay.is_some_and(|replay| !replay.whole) {
            return;
        }
        let slot = &self.table[index];
        if slot.user != NONE
            && self.tape.user_seq() > after
            && let Some(chain) = self.tape.user_chain(self.users.text(slot.user))
        {
            add(chain);
        }
        if slot.is(flag::ADDRESSED) {
            self.tape.connection_chain(index).into_iter().for_each(&mut add);
        }
        add(EVERYBODY);
    }

    /// Where slot `index` stands: the stretch being replayed, if any, and the seqs it lies between.
    pub(super) fn stretch(&self, slot: &'s Slot) -> Option<(Option<&'s Replay>, u64, u64)> {
        let replay = slot.rare.as_ref().and_then(|rare| rare.replays.front());
        match replay {
            Some(replay) => Some((Some(replay), replay.cursor, replay.until)),
            None if slot.is(flag::BEHIND) => Some((None, slot.cursor, u64::MAX)),
            None => None,
        }
    }

    /// Every stretch that slot `slot` has yet to be sent, in order; see `stretch`.
    pub(super) fn stretches(
        &self,
        slot: &'s Slot,
    ) -> impl Iterator<Item = (Option<&'s Replay>, u64, u64)> + use<'s> {
        let replays = slot.rare.iter().flat_map(|rare| &rare.replays);
        let replays = replays.map(|replay| (Some(replay), replay.cursor, replay.until));
        replays.chain(slot.is(flag::BEHIND).then_some((None, slot.cursor, u64::MAX)))
    }

    /// Shows what slot `index` has yet to be sent of the tape, in order and without what has expired, while
    /// `take` says so.
    pub(super) fn pending(&self, index: u32, mut take: impl FnMut(&'s Entry) -> bool) {
        let (mut chains, mut goes_on) = (Vec::new(), true);
        for (replay, after, until) in self.stretches(&self.table[index]) {
            self.chains(index, replay, after, &mut chains);
            self.tape.walk(&chains, after, until, |entry| {
                goes_on = entry.is_expired(self.now) || take(entry);
                goes_on
            });
            if !goes_on {
                return;
            }
        }
    }

    /// Whether slot `slot` is behind with the tape and has nothing else to be sent.
    pub(super) fn is_plain(&self, slot: &Slot) -> bool {
        slot.rare.is_none()
            && slot.state == State::Open
            && slot.flags & (flag::BEHIND | flag::PING_DUE | flag::ADDRESSED | flag::OWN_HEAD) == flag::BEHIND
            && (slot.user == NONE || self.tape.user_seq() <= slot.cursor)
    }

    /// As `gather`, for a connection that needs just what the one before it did.
    // As a call it takes 45 instructions a delivery more, of 490 (callgrind): left alone, chance decides.
    #[inline(always)]
    pub(super) fn gather_again(
        &self,
        index: u32,
        pieces: &mut Pieces<'_, 's>,
        repeats: &Repeats<'s>,
    ) -> Option<Plan> {
        let slot = &self.table[index];
        let repeat = repeats[slot.transport as usize].as_ref()?;
        let same = (slot.topic, slot.cursor) == (repeat.topic, repeat.cursor);
        if !same || !self.is_plain(slot) || !pieces.push(repeat.frame) {
            return None;
        }
        let (bytes, through) = (repeat.frame.len(), Some(repeat.through));
        Some(Plan {
            index,
            outbox_bytes: 0,
            ping: false,
            bytes,
            through,
            messages: 1,
            expired: repeat.expired,
            more: false,
            plain: true,
            poll: (slot.transport == Transport::LongPoll).then_some(Poll::Answered),
        })
    }

    /// Notes what `gather` did for `plan`, if others may need the same.
    pub(super) fn note(&self, plan: &Plan, frame: Option<&'s [u8]>, repeats: &mut Repeats<'s>) {
        let slot = &self.table[plan.index];
        let (true, Some(frame), Some(through)) = (plan.plain, frame, plan.through) else { return };
        let (topic, cursor, expired) = (slot.topic, slot.cursor, plan.expired);
        let repeat = Repeat { topic, cursor, frame, through, expired };
        repeats[slot.transport as usize] = Some(repeat);
    }

    /// Puts what slot `index` has to be sent into `pieces`, as much as one send should hold.
    pub(super) fn gather(
        &self,
        index: u32,
        pieces: &mut Pieces<'_, 's>,
        chains: &mut Vec<ChainId>,
        fresh: &mut Fresh,
    ) -> Plan {
        let slot = &self.table[index];
        let mut plan = Plan {
            index,
            outbox_bytes: 0,
            ping: false,
            bytes: 0,
            through: None,
            messages: 0,
            expired: 0,
            more: false,
            plain: false,
            poll: None,
        };
        for frame in slot.rare.iter().flat_map(|rare| &rare.outbox) {
            if pieces.bytes() >= GATHER_BYTES || !pieces.push(&frame.bytes) {
                plan.more = true;
                break;
            }
        }
        plan.outbox_bytes = pieces.bytes();
        plan.bytes = pieces.bytes();
        if slot.state != State::Open || plan.more {
            return plan;
        }
        plan.ping = slot.is(flag::PING_DUE) && pieces.push(ping_of(slot.transport));
        plan.bytes = pieces.bytes();
        let Some((replay, after, until)) = self.stretch(slot) else { return plan };
        self.chains(index, replay, after, chains);
        if slot.transport == Transport::LongPoll {
            self.gather_poll(slot, after, chains, pieces, &mut plan, fresh);
            return plan;
        }
        let (mut through, mut accepted) = (after, None);
        let form = form_of(slot.transport);
        self.tape.walk(chains, after, until, |entry| {
            if entry.is_expired(self.now) {
                plan.expired += 1;
            } else if pieces.bytes() >= GATHER_BYTES || !pieces.push(entry.form(form, &self.encoder)) {
                plan.more = true;
                return false;
            } else {
                // The first is the oldest. A test and no copy: a send to one who lags holds many.
                if plan.messages == 0 {
                    accepted = entry.accepted();
                }
                plan.messages += 1;
            }
            through = entry.seq();
            true
        });
        fresh.note(slot, accepted.filter(|_| replay.is_none()));
        plan.bytes = pieces.bytes();
        plan.through = Some(through);
        plan.plain = plan.messages == 1 && !plan.more && self.is_plain(slot);
        plan
    }

    /// The answer to a poll, if it is the one that all polls get for one message.
    fn gather_poll(
        &self,
        slot: &Slot,
        after: u64,
        chains: &[ChainId],
        pieces: &mut Pieces<'_, 's>,
        plan: &mut Plan,
        fresh: &mut Fresh,
    ) {
        let (mut message, mut alone, mut through, mut expired) = (None, self.is_plain(slot), after, 0);
        self.tape.walk(chains, after, u64::MAX, |entry| {
            through = entry.seq();
            if entry.is_expired(self.now) {
                expired += 1;
            } else {
                alone &= message.replace(entry).is_none();
            }
            alone
        });
        if !alone {
            plan.poll = Some(Poll::ToAnswer);
            return;
        }
        // Expired meanwhile: it goes on waiting.
        (plan.through, plan.expired) = (Some(through), expired);
        let Some(message) = message else { return };
        let pushed = pieces.push(message.form(Form::Answer, &self.encoder));
        assert!(pushed, "a send holds one piece");
        fresh.note(slot, message.accepted());
        (plan.bytes, plan.messages, plan.plain) = (pieces.bytes(), 1, true);
        plan.poll = Some(Poll::Answered);
    }

    /// Where a send broke off that put `tape_sent` bytes of the tape's part out.
    pub(super) fn broken_off(
        &self,
        index: u32,
        tape_sent: usize,
        chains: &mut Vec<ChainId>,
    ) -> Option<BrokenOff> {
        let slot = &self.table[index];
        let (replay, after, until) = self.stretch(slot)?;
        self.chains(index, replay, after, chains);
        let mut broken = BrokenOff { through: after, rest: None, messages: 0, expired: 0 };
        let mut left = tape_sent;
        let form = form_of(slot.transport);
        self.tape.walk(chains, after, until, |entry| {
            if entry.is_expired(self.now) {
                (broken.through, broken.expired) = (entry.seq(), broken.expired + 1);
                return true;
            }
            if left == 0 {
                return false;
            }
            let frame = entry.form(form, &self.encoder);
            broken.through = entry.seq();
            if left < frame.len() {
                broken.rest = Some(frame.slice(left..));
                return false;
            }
            (left, broken.messages) = (left - frame.len(), broken.messages + 1);
            true
        });
        Some(broken)
    }

    /// Frame bytes that slot `index` has yet to be sent, not counting what it asked for by resuming.
    pub(super) fn lag_bytes(&self, index: u32, chains: &mut Vec<ChainId>) -> usize {
        let slot = &self.table[index];
        let Some(rare) = &slot.rare else { return 0 };
        let mut lag = 0;
        for replay in rare.replays.iter().filter(|replay| replay.whole) {
            let after = replay.cursor.max(rare.lag_exempt);
            self.chains(index, Some(replay), after, chains);
            lag +=
                self.tape.lag_bytes(chains, after).saturating_sub(self.tape.lag_bytes(chains, replay.until));
        }
        if slot.is(flag::BEHIND) {
            let after = slot.cursor.max(rare.lag_exempt);
            self.chains(index, None, after, chains);
            lag += self.tape.lag_bytes(chains, after);
        }
        lag
    }

    /// Seq up to which slot `slot` was sent everything, unless it was sent all there is.
    pub(super) fn cursor(&self, slot: &'s Slot) -> Option<u64> {
        // Not only of the first stretch: a later one may be a topic's past and begin before it.
        self.stretches(slot).map(|(_, after, _)| after).min()
    }

    /// Every chain of slot `index`.
    pub(super) fn all_chains(&self, index: u32) -> Vec<ChainId> {
        let slot = &self.table[index];
        let mut chains: Vec<_> =
            self.topics.of(self.table, index).map(|id| self.topics.chain(id)).chain([EVERYBODY]).collect();
        if slot.user != NONE {
            chains.extend(self.tape.user_chain(self.users.text(slot.user)));
        }
        chains.extend(self.tape.connection_chain(index));
        chains
    }
}
