//! How clients are written to: batches of `SEND`, gathered from each one's outbox and the tape.
//!
//! A short send leaves the connection *blocked* at its cursor, with the rest of the frame that was begun
//! at the front of its outbox: a frame that was begun is always finished first. When the socket takes
//! bytes again, as many messages as fit go out in one call.

use std::collections::HashMap;
use std::time::Instant;

use bytes::{Buf, Bytes};

use super::Shard;
use super::conn::{NONE, Replay, Slot, State, Table, flag};
use super::ending::Answer;
use super::tape::{ChainId, EVERYBODY, Form, Owner, Tape};
use super::topics::{TopicId, Topics};
use super::users::Users;
use crate::message::UserId;
use crate::ring::{BATCH_MAX, Pieces, Token};
use crate::stats::CloseReason;
use crate::wire::session::Transport;
use crate::wire::websocket;

/// Sends in one turn, so that a broadcast to many does not keep others from being heard.
const SENDS_PER_TURN: usize = 4096;
/// Bytes gathered for one send: more than a socket with the default `limits.socket_send_bytes` takes.
const GATHER_BYTES: usize = 96 * 1024;

/// What is kept between batches, so that none of them allocates.
#[derive(Debug, Default)]
pub(super) struct Sender {
    batch: Vec<u32>,
    plans: Vec<Plan>,
    results: Vec<std::io::Result<usize>>,
    chains: Vec<ChainId>,
    /// Plans of those that needed nothing.
    empty: Vec<Plan>,
}

/// What one send was made of.
#[derive(Clone, Copy, Debug)]
struct Plan {
    index: u32,
    outbox_bytes: usize,
    ping: bool,
    /// All bytes; what is neither outbox nor ping is of the tape.
    bytes: usize,
    /// Seq up to which the tape part goes, where the tape was looked at.
    through: Option<u64>,
    messages: u64,
    /// Whether more waited than was gathered.
    more: bool,
    /// One whole message of the tape to a connection without rare state, and nothing else: what nearly
    /// every send of a broadcast is.
    plain: bool,
}

/// What the last plain plan sent: the next connection of a broadcast mostly needs the same.
struct Repeat<'s> {
    topic: TopicId,
    cursor: u64,
    transport: Transport,
    frame: &'s [u8],
    through: u64,
}

fn form_of(transport: Transport) -> Form {
    match transport {
        Transport::WebSocketJson => Form::Envelope,
        Transport::WebSocketRaw | Transport::WebSocketEcho => Form::Raw,
    }
}

/// Where a short send ended.
struct BrokenOff {
    /// Seq of the last message of which anything went out.
    through: u64,
    /// What is left of its frame.
    rest: Option<Bytes>,
    /// Messages of which anything went out.
    begun: u64,
}

/// The parts of a shard that say what a connection has yet to be sent.
struct Outlook<'s> {
    table: &'s Table,
    topics: &'s Topics,
    tape: &'s Tape,
    users: &'s Users,
    user_chains: &'s HashMap<UserId, ChainId>,
    connection_chains: &'s HashMap<u32, ChainId>,
    user_seq: u64,
    epoch: u32,
    now: Instant,
}

impl<'s> Outlook<'s> {
    /// Puts into `chains` those with anything after `after` for the stretch that slot `index` is at.
    fn chains(&self, index: u32, replay: Option<&Replay>, after: u64, chains: &mut Vec<ChainId>) {
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
            && self.user_seq > after
            && let Some(&chain) = self.user_chains.get(self.users.text(slot.user))
        {
            add(chain);
        }
        if slot.is(flag::ADDRESSED) {
            add(self.connection_chains[&index]);
        }
        add(EVERYBODY);
    }

    /// Where slot `index` stands: the stretch being replayed, if any, and the seqs it lies between.
    fn stretch(&self, slot: &'s Slot) -> Option<(Option<&'s Replay>, u64, u64)> {
        let replay = slot.rare.as_ref().and_then(|rare| rare.replays.front());
        match replay {
            Some(replay) => Some((Some(replay), replay.cursor, replay.until)),
            None if slot.is(flag::BEHIND) => Some((None, slot.cursor, u64::MAX)),
            None => None,
        }
    }

    /// Whether slot `slot` is behind with the tape and has nothing else to be sent.
    fn is_plain(&self, slot: &Slot) -> bool {
        slot.rare.is_none()
            && slot.state == State::Open
            && slot.flags & (flag::BEHIND | flag::PING_DUE | flag::ADDRESSED) == flag::BEHIND
            && (slot.user == NONE || self.user_seq <= slot.cursor)
    }

    /// As `gather`, for a connection that needs just what the one before it did.
    fn gather_again(&self, index: u32, pieces: &mut Pieces<'_, 's>, repeat: &Repeat<'s>) -> Option<Plan> {
        let slot = &self.table[index];
        let same =
            (slot.topic, slot.cursor, slot.transport) == (repeat.topic, repeat.cursor, repeat.transport);
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
            more: false,
            plain: true,
        })
    }

    /// What `gather` did for `plan`, if others may need the same.
    fn repeat(&self, plan: &Plan, frame: Option<&'s [u8]>) -> Option<Repeat<'s>> {
        let slot = &self.table[plan.index];
        let (frame, through) = (frame?, plan.through?);
        plan.plain.then_some(Repeat {
            topic: slot.topic,
            cursor: slot.cursor,
            transport: slot.transport,
            frame,
            through,
        })
    }

    /// Puts what slot `index` has to be sent into `pieces`, as much as one send should hold.
    fn gather(&self, index: u32, pieces: &mut Pieces<'_, 's>, chains: &mut Vec<ChainId>) -> Plan {
        let slot = &self.table[index];
        let mut plan = Plan {
            index,
            outbox_bytes: 0,
            ping: false,
            bytes: 0,
            through: None,
            messages: 0,
            more: false,
            plain: false,
        };
        for frame in slot.rare.iter().flat_map(|rare| &rare.outbox) {
            if pieces.bytes() >= GATHER_BYTES || !pieces.push(frame) {
                plan.more = true;
                break;
            }
        }
        plan.outbox_bytes = pieces.bytes();
        plan.bytes = pieces.bytes();
        if slot.state != State::Open || plan.more {
            return plan;
        }
        plan.ping = slot.is(flag::PING_DUE) && pieces.push(websocket::PING);
        plan.bytes = pieces.bytes();
        let Some((replay, after, until)) = self.stretch(slot) else { return plan };
        self.chains(index, replay, after, chains);
        let mut through = after;
        let form = form_of(slot.transport);
        self.tape.walk(chains, after, until, |entry| {
            if !entry.is_expired(self.now) {
                if pieces.bytes() >= GATHER_BYTES || !pieces.push(entry.form(form, self.epoch)) {
                    plan.more = true;
                    return false;
                }
                plan.messages += 1;
            }
            through = entry.seq();
            true
        });
        plan.bytes = pieces.bytes();
        plan.through = Some(through);
        plan.plain = plan.messages == 1 && !plan.more && self.is_plain(slot);
        plan
    }

    /// Where a send broke off that put `tape_sent` bytes of the tape's part out.
    fn broken_off(&self, index: u32, tape_sent: usize, chains: &mut Vec<ChainId>) -> Option<BrokenOff> {
        let slot = &self.table[index];
        let (replay, after, until) = self.stretch(slot)?;
        self.chains(index, replay, after, chains);
        let (mut through, mut rest, mut begun, mut left) = (after, None, 0, tape_sent);
        let form = form_of(slot.transport);
        self.tape.walk(chains, after, until, |entry| {
            if entry.is_expired(self.now) {
                through = entry.seq();
                return true;
            }
            if left == 0 {
                return false;
            }
            let frame = entry.form(form, self.epoch);
            (through, begun) = (entry.seq(), begun + 1);
            if left < frame.len() {
                rest = Some(frame.slice(left..));
            }
            left = left.saturating_sub(frame.len());
            rest.is_none()
        });
        Some(BrokenOff { through, rest, begun })
    }

    /// Frame bytes that slot `index` has yet to be sent, not counting what it asked for by resuming.
    fn lag_bytes(&self, index: u32, chains: &mut Vec<ChainId>) -> usize {
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

    /// Whether the tape no longer holds something that slot `index` had yet to be sent.
    fn has_lost(&self, index: u32) -> bool {
        let slot = &self.table[index];
        let Some((_, after, _)) = self.stretch(slot) else { return false };
        self.tape.may_have_lost(after) && self.tape.has_lost(&self.all_chains(index), after)
    }

    /// Every chain of slot `index`.
    fn all_chains(&self, index: u32) -> Vec<ChainId> {
        let slot = &self.table[index];
        let mut chains: Vec<_> =
            self.topics.of(self.table, index).map(|id| self.topics.chain(id)).chain([EVERYBODY]).collect();
        if slot.user != NONE {
            chains.extend(self.user_chains.get(self.users.text(slot.user)));
        }
        chains.extend(self.connection_chains.get(&index));
        chains
    }
}

impl Shard {
    fn outlook(&self) -> Outlook<'_> {
        Outlook {
            table: &self.table,
            topics: &self.topics,
            tape: &self.tape,
            users: &self.users,
            user_chains: &self.user_chains,
            connection_chains: &self.connection_chains,
            user_seq: self.user_seq,
            epoch: self.epoch,
            now: self.clock.now(),
        }
    }

    /// Every chain that holds messages for slot `index`.
    pub(super) fn chains_of(&self, index: u32) -> Vec<ChainId> {
        self.outlook().all_chains(index)
    }

    /// Whether the tape holds messages to this slot's user.
    pub(super) fn has_user_chain(&self, index: u32) -> bool {
        self.user_chains.contains_key(self.users.text(self.table[index].user))
    }

    /// Queues a frame of the connection's own.
    pub(super) fn queue(&mut self, index: u32, frame: Bytes) {
        let slot = &mut self.table[index];
        slot.rare().queue(frame);
        if !slot.is(flag::BLOCKED) {
            self.mark(index);
        }
    }

    pub(super) fn became_writable(&mut self, token: Token) {
        let Some(index) = self.table.find(token) else { return };
        if self.table[index].is(flag::BLOCKED) {
            self.table[index].clear(flag::BLOCKED);
            self.stats.blocked -= 1;
            self.mark(index);
        }
    }

    /// Sends to those that are marked.
    pub(super) fn send(&mut self) {
        let mut budget = SENDS_PER_TURN;
        while budget > 0 && !self.marked.is_empty() {
            budget -= self.send_batch().min(budget);
        }
        self.trim();
    }

    /// Sends one batch; gives how many marks it took.
    fn send_batch(&mut self) -> usize {
        let mut sender = std::mem::take(&mut self.sender);
        let taken = self.marked.len().min(BATCH_MAX);
        for index in self.marked.drain(..taken) {
            let slot = &mut self.table[index];
            // A slot may stand here twice when it was freed and used again: send once.
            if slot.is(flag::MARKED) {
                slot.clear(flag::MARKED);
                sender.batch.push(index);
            }
        }
        let gathered = self.submit(&mut sender);
        self.stats.send_batches += 1;
        for at in 0..sender.plans.len() {
            self.sent(sender.plans[at], &sender.results[at], &mut sender.chains);
        }
        for at in 0..sender.empty.len() {
            self.sent(sender.empty[at], &Ok(0), &mut sender.chains);
        }
        // What did not fit into this batch goes into the next.
        for &index in &sender.batch[gathered..] {
            self.mark(index);
        }
        sender.batch.clear();
        self.sender = sender;
        taken
    }

    /// Gathers and submits; gives how many of the batch were looked at. Leaves a plan and a result for
    /// each that was sent something, and a plan for each that needed nothing.
    fn submit(&mut self, sender: &mut Sender) -> usize {
        let Sender { batch, plans, empty, results, chains } = sender;
        plans.clear();
        empty.clear();
        results.clear();
        let outlook = Outlook {
            table: &self.table,
            topics: &self.topics,
            tape: &self.tape,
            users: &self.users,
            user_chains: &self.user_chains,
            connection_chains: &self.connection_chains,
            user_seq: self.user_seq,
            epoch: self.epoch,
            now: self.clock.now(),
        };
        let (mut next, mut repeat) = (0, None);
        results.extend(self.ring.send_all(|pieces| {
            loop {
                let &index = batch.get(next)?;
                next += 1;
                let again = repeat.as_ref().and_then(|repeat| outlook.gather_again(index, pieces, repeat));
                let plan = again.unwrap_or_else(|| {
                    let plan = outlook.gather(index, pieces, chains);
                    repeat = outlook.repeat(&plan, pieces.last());
                    plan
                });
                if plan.bytes > 0 {
                    plans.push(plan);
                    return Some(outlook.table[index].socket());
                }
                empty.push(plan);
            }
        }));
        next
    }

    fn sent(&mut self, plan: Plan, result: &std::io::Result<usize>, chains: &mut Vec<ChainId>) {
        let index = plan.index;
        match result {
            Ok(sent) if plan.plain && *sent == plan.bytes => {
                self.stats.sent_bytes += *sent as u64;
                self.stats.delivered += 1;
                self.table[index].clear(flag::BEHIND);
            }
            Ok(sent) => {
                self.stats.sent_bytes += *sent as u64;
                self.take_from_outbox(index, (*sent).min(plan.outbox_bytes));
                if *sent == plan.bytes {
                    self.sent_whole(plan);
                } else {
                    self.sent_partly(plan, sent.saturating_sub(plan.outbox_bytes), chains);
                    self.blocked(index, *sent > 0, chains);
                }
            }
            Err(error) if is_passing(error) => self.blocked(index, false, chains),
            Err(_) if self.table[index].state == State::Closing => self.drop_connection(index),
            Err(_) => self.finish(index, CloseReason::PeerGone, Answer::Nothing),
        }
    }

    fn take_from_outbox(&mut self, index: u32, mut sent: usize) {
        if sent == 0 {
            return;
        }
        let rare = self.table[index].rare();
        rare.outbox_bytes -= sent;
        while let Some(front) = rare.outbox.front_mut() {
            if sent < front.len() {
                front.advance(sent);
                return;
            }
            sent -= front.len();
            rare.outbox.pop_front();
        }
    }

    fn sent_whole(&mut self, plan: Plan) {
        self.stats.delivered += plan.messages;
        let slot = &mut self.table[plan.index];
        if plan.ping {
            slot.clear(flag::PING_DUE);
        }
        let mut again = plan.more;
        if let Some(through) = plan.through {
            match slot.rare.as_mut().filter(|rare| !rare.replays.is_empty()) {
                Some(rare) if plan.more => rare.replays[0].cursor = through,
                Some(rare) => {
                    rare.replays.pop_front();
                    again = !rare.replays.is_empty() || slot.is(flag::BEHIND);
                }
                None if plan.more => slot.cursor = through,
                None => slot.clear(flag::BEHIND),
            }
        }
        if again {
            self.mark(plan.index);
        }
        self.settle(plan.index);
    }

    fn sent_partly(&mut self, plan: Plan, mut sent: usize, chains: &mut Vec<ChainId>) {
        if sent == 0 {
            return;
        }
        if plan.ping {
            self.table[plan.index].clear(flag::PING_DUE);
            if sent < websocket::PING.len() {
                self.begun(plan.index, Bytes::from_static(&websocket::PING[sent..]));
                return;
            }
            sent -= websocket::PING.len();
        }
        let Some(BrokenOff { through, rest, begun }) = self.outlook().broken_off(plan.index, sent, chains)
        else {
            return;
        };
        self.stats.delivered += begun;
        let slot = &mut self.table[plan.index];
        match slot.rare.as_mut().and_then(|rare| rare.replays.front_mut()) {
            Some(replay) => replay.cursor = through,
            None => slot.cursor = through,
        }
        if let Some(rest) = rest {
            self.begun(plan.index, rest);
        }
    }

    /// The rest of a frame that was begun goes before everything else.
    fn begun(&mut self, index: u32, rest: Bytes) {
        let rare = self.table[index].rare();
        rare.outbox_bytes += rest.len();
        rare.outbox.push_front(rest);
    }

    /// The socket takes no more for now.
    fn blocked(&mut self, index: u32, progress: bool, chains: &mut Vec<ChainId>) {
        let token = self.table.token(index);
        let deadline = self.clock.tick().after(self.settings.send_ticks);
        if !self.table[index].is(flag::BLOCKED) {
            self.table[index].set(flag::BLOCKED);
            self.stats.blocked += 1;
            self.ring.arm_write_poll(self.table[index].socket(), token);
        }
        let rare = self.table[index].rare();
        if progress || rare.send_deadline.is_none() {
            rare.send_deadline = Some(deadline);
        }
        if self.table[index].state != State::Open {
            return;
        }
        let lag_bytes = self.outlook().lag_bytes(index, chains);
        self.table[index].rare().lag_bytes = lag_bytes;
        self.needs(index);
        self.cut_if_too_far_behind(index);
    }

    /// Notes that the tape has to keep what slot `index` has yet to be sent.
    pub(super) fn needs(&mut self, index: u32) {
        let slot = &self.table[index];
        let replay = slot.rare.as_ref().and_then(|rare| rare.replays.front());
        let cursor = replay.map(|replay| replay.cursor).or(slot.is(flag::BEHIND).then_some(slot.cursor));
        let Some(cursor) = cursor else { return };
        self.needed_after = self.needed_after.min(cursor);
        self.needed_after_next = self.needed_after_next.min(cursor);
    }

    pub(super) fn cut_if_too_far_behind(&mut self, index: u32) {
        let lag_bytes = self.table[index].rare.as_ref().map_or(0, |rare| rare.lag_bytes);
        let limit_bytes = self.settings.lag_bytes_max;
        if lag_bytes > limit_bytes {
            let why = format_args!("{lag_bytes} bytes behind, limits.send_backlog_bytes is {limit_bytes}");
            self.close_slow(index, why);
        } else if self.outlook().has_lost(index) {
            let limit_bytes = self.settings.tape.bytes_max;
            let why = format_args!("at a message no longer held, history.bytes is {limit_bytes}");
            self.close_slow(index, why);
        }
    }

    /// After everything gathered went out.
    fn settle(&mut self, index: u32) {
        let slot = &mut self.table[index];
        if let Some(rare) = slot.rare.as_mut() {
            rare.send_deadline = None;
            rare.lag_bytes = 0;
        }
        if slot.has_outbox() {
            return;
        }
        if slot.state == State::Closing {
            return self.last_words_sent(index);
        }
        if slot.is(flag::PAUSED) {
            slot.clear(flag::PAUSED);
            if slot.is(flag::READABLE) {
                slot.clear(flag::READABLE);
                self.want_read(index);
            }
        }
        let slot = &mut self.table[index];
        let caught_up =
            !slot.is(flag::BEHIND) && slot.rare.as_ref().is_none_or(|rare| rare.replays.is_empty());
        if caught_up && slot.is(flag::ADDRESSED) {
            slot.clear(flag::ADDRESSED);
            let chain = self.connection_chains.remove(&index).expect("an addressed slot has a chain");
            self.tape.close_chain(chain);
        }
        self.table[index].tidy();
    }

    /// Lets the tape forget what nobody needs.
    fn trim(&mut self) {
        if !self.marked.is_empty() {
            return;
        }
        self.unsent_bytes = 0;
        if self.tape.is_empty() {
            return;
        }
        if self.stats.blocked == 0 {
            self.needed_after = u64::MAX;
        }
        self.tape.trim(self.needed_after, self.clock.tick());
        while let Some((chain, owner)) = self.tape.emptied() {
            match owner {
                Owner::Topic(id) => self.topics.forget_if_unused(id, &mut self.tape),
                Owner::User(user) => {
                    self.user_chains.remove(&user);
                    self.tape.close_chain(chain);
                }
                Owner::Connection(_) | Owner::Everybody => {}
            }
        }
    }
}

/// Errors that pass when there is room again.
fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM))
}
