//! How clients are written to: batches of `SEND`, gathered from each one's outbox and the tape.
//!
//! A short send leaves the connection *blocked* at its cursor, with the rest of the frame that was begun
//! at the front of its outbox: a frame that was begun is always finished first. When the socket takes
//! bytes again, as many messages as fit go out in one call.

use bytes::{Buf, Bytes};

use super::Shard;
use super::conn::{Frame, State, flag};
use super::ending::Answer;
use super::life::life;
use super::mailbox::{Act, SLOW_PART};
use super::outlook::{BrokenOff, Fresh, Outlook, Plan, Poll, Repeats, ping_of};
use super::tape::ChainId;
use crate::ring::{BATCH_MAX, Token};
use crate::stats::CloseReason;
use crate::wire::session::Transport;

/// Sends in one turn, so that a broadcast to many does not keep others from being heard.
const SENDS_PER_TURN: usize = 4096;

/// What is kept between batches, so that none of them allocates.
#[derive(Debug, Default)]
pub(super) struct Sender {
    batch: Vec<u32>,
    plans: Vec<Plan>,
    results: Vec<std::io::Result<usize>>,
    chains: Vec<ChainId>,
    /// Plans of those that needed nothing.
    empty: Vec<Plan>,
    fresh: Fresh,
}

impl Sender {
    pub(super) fn memory_bytes(&self) -> usize {
        (self.plans.capacity() + self.empty.capacity()) * size_of::<Plan>()
            + self.results.capacity() * size_of::<std::io::Result<usize>>()
            + self.batch.capacity() * size_of::<u32>()
    }
}

impl Shard {
    pub(super) fn outlook(&self) -> Outlook<'_> {
        let Self { table, topics, tape, users, settings, .. } = self;
        Outlook::new(table, topics, tape, users, settings, self.epoch, self.clock.now())
    }

    /// Every chain that holds messages for slot `index`.
    pub(super) fn chains_of(&self, index: u32) -> Vec<ChainId> {
        self.outlook().all_chains(index)
    }

    /// Whether the tape holds messages to this slot's user.
    pub(super) fn has_user_chain(&self, index: u32) -> bool {
        self.tape.user_chain(self.users.text(self.table[index].user)).is_some()
    }

    /// Queues a frame of the connection's own.
    pub(super) fn queue(&mut self, index: u32, bytes: Bytes) {
        self.queue_messages(index, bytes, 0);
    }

    /// Queues octets with which `messages` messages of the tape are delivered.
    pub(super) fn queue_messages(&mut self, index: u32, bytes: Bytes, messages: u32) {
        let slot = &mut self.table[index];
        slot.rare().queue(Frame { bytes, messages, begun: false });
        if !slot.is(flag::BLOCKED) {
            self.mark(index);
        }
    }

    pub(super) fn became_writable(&mut self, token: Token) {
        let Some(index) = self.table.find(token) else { return };
        if self.table[index].is(flag::BLOCKED) {
            self.table[index].clear(flag::BLOCKED);
            self.stats.blocked -= 1;
            life!(TRACE, self, connection = %self.id(index), "its socket takes bytes again");
            self.trace(index, |_| Act::Writable);
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
        let (taken_at, blocked_before) =
            (sender.fresh.oldest.map(|_| self.clock.reading()), self.stats.blocked);
        for at in 0..sender.plans.len() {
            self.sent(sender.plans[at], &sender.results[at], &mut sender.chains);
        }
        for at in 0..sender.empty.len() {
            self.sent(sender.empty[at], &Ok(0), &mut sender.chains);
        }
        if let (Some(oldest), Some(taken_at)) = (sender.fresh.oldest, taken_at) {
            // By the oldest of the batch, so that no delivery is made shorter than it was; without those whose
            // socket took nothing, or not all.
            let refused = self.stats.blocked.saturating_sub(blocked_before);
            let latency = taken_at.saturating_duration_since(oldest);
            self.stats.latency.observe_times(latency, sender.fresh.sends.saturating_sub(refused));
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
        let Sender { batch, plans, empty, results, chains, fresh } = sender;
        plans.clear();
        empty.clear();
        results.clear();
        let Self { ring, table, topics, tape, users, settings, epoch, clock, .. } = self;
        let outlook = Outlook::new(table, topics, tape, users, settings, *epoch, clock.now());
        let (mut next, mut repeats, mut gathered) = (0, Repeats::default(), 0);
        *fresh = Fresh::default();
        results.extend(ring.send_all(|pieces| {
            loop {
                let &index = batch.get(next)?;
                next += 1;
                let again = outlook.gather_again(index, pieces, &repeats);
                let plan = again.unwrap_or_else(|| {
                    let plan = outlook.gather(index, pieces, chains, fresh);
                    gathered += usize::from(plan.bytes > 0);
                    outlook.note(&plan, pieces.last(), &mut repeats);
                    plan
                });
                if plan.bytes > 0 {
                    plans.push(plan);
                    return Some(outlook.table[index].socket());
                }
                empty.push(plan);
            }
        }));
        fresh.sends += (plans.len() - gathered) as u64;
        next
    }

    fn sent(&mut self, plan: Plan, result: &std::io::Result<usize>, chains: &mut Vec<ChainId>) {
        let index = plan.index;
        if self.table[index].is(flag::TRACED) {
            self.trace_sent(&plan, result.as_ref().copied().unwrap_or(0), chains);
        }
        match result {
            Ok(sent) if plan.plain && *sent == plan.bytes => {
                self.stats.sent_bytes += *sent as u64;
                self.stats.delivered += 1;
                self.stats.expired += plan.expired;
                self.table[index].clear(flag::BEHIND | flag::SLOW);
                if plan.poll.is_some() {
                    self.poll_answered(index);
                }
            }
            Ok(_) if plan.poll == Some(Poll::ToAnswer) => self.answer_marked_poll(index),
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
            if sent < front.bytes.len() {
                front.bytes.advance(sent);
                front.begun = true;
                return;
            }
            sent -= front.bytes.len();
            self.stats.delivered += u64::from(front.messages);
            rare.outbox.pop_front();
        }
    }

    fn sent_whole(&mut self, plan: Plan) {
        self.stats.delivered += plan.messages;
        self.stats.expired += plan.expired;
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
            let ping = ping_of(self.table[plan.index].transport);
            if sent < ping.len() {
                self.begun(
                    plan.index,
                    Frame { bytes: Bytes::from_static(&ping[sent..]), messages: 0, begun: true },
                );
                return;
            }
            sent -= ping.len();
        }
        let Some(broken) = self.outlook().broken_off(plan.index, sent, chains) else { return };
        let BrokenOff { through, rest, messages, expired } = broken;
        self.stats.delivered += messages;
        self.stats.expired += expired;
        let slot = &mut self.table[plan.index];
        match slot.rare.as_mut().and_then(|rare| rare.replays.front_mut()) {
            Some(replay) => replay.cursor = through,
            None => slot.cursor = through,
        }
        if let Some(bytes) = rest {
            self.begun(plan.index, Frame { bytes, messages: 1, begun: true });
        }
        if plan.poll.is_some() {
            self.poll_answered(plan.index);
        }
    }

    /// The rest of a frame that was begun goes before everything else.
    fn begun(&mut self, index: u32, rest: Frame) {
        let rare = self.table[index].rare();
        rare.outbox_bytes += rest.bytes.len();
        rare.outbox.push_front(rest);
    }

    /// The socket takes no more for now.
    fn blocked(&mut self, index: u32, progress: bool, chains: &mut Vec<ChainId>) {
        let token = self.table.token(index);
        let deadline = self.clock.tick().after(self.settings.send_ticks);
        let newly = !self.table[index].is(flag::BLOCKED);
        if newly {
            self.table[index].set(flag::BLOCKED);
            self.stats.blocked += 1;
            life!(TRACE, self, connection = %self.id(index), "its socket is full");
            self.ring.arm_write_poll(self.table[index].socket(), token);
        }
        let rare = self.table[index].rare();
        if progress || rare.send_deadline.is_none() {
            rare.send_deadline = Some(deadline);
        }
        let is_open = self.table[index].state == State::Open;
        if is_open {
            let lag_bytes = self.outlook().lag_bytes(index, chains);
            self.table[index].rare().lag_bytes = lag_bytes;
        }
        if newly {
            self.trace_blocked(index);
        }
        if !is_open {
            return;
        }
        self.needs(index);
        self.cut_if_too_far_behind(index);
    }

    /// Notes that the tape has to keep what slot `index` has yet to be sent.
    pub(super) fn needs(&mut self, index: u32) {
        let Some(cursor) = self.outlook().cursor(&self.table[index]) else { return };
        self.needed_after = self.needed_after.min(cursor);
        self.needed_after_next = self.needed_after_next.min(cursor);
    }

    pub(super) fn cut_if_too_far_behind(&mut self, index: u32) {
        let lag_bytes = self.table[index].rare.as_ref().map_or(0, |rare| rare.lag_bytes);
        let limit_bytes = self.settings.lag_bytes_max;
        if lag_bytes > limit_bytes {
            let why = format_args!("{lag_bytes} bytes behind, limits.send_backlog_bytes is {limit_bytes}");
            self.close_slow(index, why);
        } else if lag_bytes > limit_bytes / SLOW_PART {
            self.tell_slow(index);
        }
    }

    /// Ends those who have yet to be sent anything up to seq `until`: it is to be forgotten now.
    fn cut_those_who_need(&mut self, until: u64) {
        for index in 0..self.table.slots() {
            if self.table[index].state == State::Open && self.outlook().needs_any(index, until) {
                let limit_bytes = self.settings.tape.bytes_max;
                let why = format_args!("at a message no longer held, history.bytes is {limit_bytes}");
                self.close_slow(index, why);
            }
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
        if slot.transport == Transport::LongPoll {
            if slot.state == State::Handshake {
                self.hear_next(index);
            }
            return;
        }
        self.read_on(index);
        let slot = &mut self.table[index];
        let caught_up =
            !slot.is(flag::BEHIND) && slot.rare.as_ref().is_none_or(|rare| rare.replays.is_empty());
        if caught_up {
            slot.clear(flag::SLOW);
            if let Some(rare) = slot.rare.as_mut() {
                rare.lag_exempt = 0;
            }
        }
        if caught_up && slot.is(flag::ADDRESSED) {
            slot.clear(flag::ADDRESSED);
            self.tape.close_connection(index);
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
        let tick = self.clock.tick();
        if let Some(until) = self.tape.trim(self.needed_after, tick) {
            self.cut_those_who_need(until);
            self.tape.trim(until, tick);
        }
        while let Some(topic) = self.tape.emptied() {
            self.topics.forget_if_unused(topic, &mut self.tape);
        }
    }
}

/// Errors that pass when there is room again.
fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM))
}
