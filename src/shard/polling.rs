//! Long polls: a request that is held until there is something to answer, and then the next one.
//!
//! A held poll is an established client like any other, with the moment at which it began and how long it
//! may last in its slot. Most are answered by `sending`, with octets that are the same for all of them; the
//! others here. Once answered, the connection leaves users and topics and waits for its next request
//! head, which may be there already.

use bytes::Bytes;

use super::Shard;
use super::clock::TICKS_PER_SECOND;
use super::conn::{State, flag};
use super::ending::Answer;
use super::tape::{Entry, Form};
use crate::message::Position;
use crate::stats::{CloseReason, RefusalReason};
use crate::wire::close::{Refusal, code};
use crate::wire::session::{Opening, Proof};
use crate::wire::{long_poll, session};

/// What an answer holds.
struct List<'s> {
    messages: Vec<&'s Entry>,
    /// Seq up to which nothing else is there for the client.
    next: u64,
}

impl Shard {
    /// Holds a poll that was just let in, unless there is an answer to it already. `gap`: it missed what is
    /// no longer held.
    pub(super) fn begin_poll(&mut self, index: u32, opening: &Opening, gap: bool) {
        let now = self.clock.tick();
        let slot = &mut self.table[index];
        (slot.opened, slot.origin) = (now, opening.origin);
        if opening.origin.is_some() {
            slot.set(flag::OWN_HEAD);
        }
        if !opening.keep_alive {
            slot.set(flag::LAST | flag::OWN_HEAD);
        }
        // What it missed and is still held is marked to be sent, and answers it in this turn.
        if gap || (slot.heartbeat_s == 0 && !slot.is(flag::BEHIND)) {
            self.answer_poll(index, gap);
        }
    }

    /// Answers a held poll whose time is over.
    pub(super) fn check_poll(&mut self, index: u32) {
        let slot = &self.table[index];
        // More and not as many: it may have begun late in its tick, and is never answered early.
        let over = self.clock.tick().since(slot.opened) > u32::from(slot.heartbeat_s) * TICKS_PER_SECOND;
        if over && !slot.is(flag::BEHIND) {
            self.answer_poll(index, false);
        }
    }

    /// Answers a poll that was marked, if what it was marked for has not expired meanwhile.
    pub(super) fn answer_marked_poll(&mut self, index: u32) {
        if !self.has_news(index) {
            return self.write_off(index, 0, CloseReason::Answered);
        }
        self.answer_poll(index, false);
    }

    fn has_news(&self, index: u32) -> bool {
        let mut news = false;
        self.outlook().pending(index, |_| {
            news = true;
            false
        });
        news
    }

    /// Answers with what is there, be it nothing.
    fn answer_poll(&mut self, index: u32, gap: bool) {
        if self.table[index].is(flag::LAST) {
            return self.close_poll(index, CloseReason::Answered, gap);
        }
        self.queue_answer(index, CloseReason::Answered, gap);
        self.poll_answered(index);
    }

    /// Answers a held poll before its time is over. One that was marked has its answer in this turn anyway.
    pub(super) fn cut_poll_short(&mut self, index: u32) {
        if !self.table[index].is(flag::BEHIND) {
            self.answer_poll(index, false);
        }
    }

    /// Answers with what is there and ends the connection for `reason`.
    pub(super) fn end_poll(&mut self, index: u32, reason: CloseReason) {
        self.table[index].set(flag::LAST | flag::OWN_HEAD);
        self.close_poll(index, reason, false);
    }

    fn close_poll(&mut self, index: u32, reason: CloseReason, gap: bool) {
        self.queue_answer(index, reason, gap);
        self.stats.polls_answered += 1;
        self.finish(index, reason, Answer::Queued);
    }

    /// A code that means "do not come back" has to be an error; after the others it may poll again.
    pub(super) fn kick_poll(&mut self, index: u32, code: u16, reason: &str) {
        if code < code::KICKED {
            return self.end_poll(index, CloseReason::Kicked);
        }
        self.forbid_poll(index, CloseReason::Kicked, RefusalReason::Kicked, reason);
    }

    /// Ends a poll for `reason` with the 403 of `refusal`, in a way that a page can read.
    pub(super) fn forbid_poll(
        &mut self,
        index: u32,
        reason: CloseReason,
        refusal: RefusalReason,
        message: &str,
    ) {
        self.stats.count_refusal(refusal);
        let fields = self.settings.policy.origins.refusal_fields(self.table[index].origin);
        let refusal = Refusal { fields, ..Refusal::new(refusal, message.to_owned()) };
        self.finish(index, reason, Answer::Http(session::refusal_response(&refusal)));
    }

    /// What one answer cannot hold is left out for `reason`: the next poll asks for it.
    fn queue_answer(&mut self, index: u32, reason: CloseReason, gap: bool) {
        let List { messages, next } = self.list(index);
        let encoder = self.outlook().encoder;
        let begin = self.poll_begin(index);
        let mut pieces = vec![begin];
        if let ([only], false) = (&messages[..], gap) {
            let answer = only.form(Form::Answer, &encoder);
            pieces.push(answer.slice(encoder.poll_begin.len()..));
        } else {
            let items = messages.iter().map(|entry| entry.form(Form::Item, &encoder).clone());
            let mut items: Vec<Bytes> = items.collect();
            if let Some(first) = items.first_mut() {
                *first = first.slice(1..);
            }
            let items_bytes = items.iter().map(Bytes::len).sum();
            pieces.push(long_poll::list_begin(Position { epoch: self.epoch, seq: next }, gap, items_bytes));
            pieces.append(&mut items);
            pieces.push(Bytes::from_static(long_poll::LIST_END));
        }
        let (count, last) = (messages.len(), pieces.pop().expect("an answer ends"));
        self.write_off(index, count as u64, reason);
        pieces.into_iter().for_each(|piece| self.queue(index, piece));
        self.queue_messages(index, last, count as u32);
    }

    /// What has to be told to a poll, as much as one answer holds, but one message at least.
    fn list(&self, index: u32) -> List<'_> {
        let outlook = self.outlook();
        let (mut messages, mut bytes, mut cut) = (Vec::new(), 0, false);
        outlook.pending(index, |entry| {
            let item_bytes = entry.form(Form::Item, &outlook.encoder).len();
            cut = !messages.is_empty() && bytes + item_bytes > self.settings.poll_bytes_max;
            if !cut {
                bytes += item_bytes;
                messages.push(entry);
            }
            !cut
        });
        let last = messages.last().map(|entry| entry.seq());
        let next = last.filter(|_| cut).unwrap_or_else(|| self.stands_at(index).seq);
        List { messages, next }
    }

    /// The poll has its answer, sent or queued: the connection waits for its next request.
    pub(super) fn poll_answered(&mut self, index: u32) {
        self.stats.polls_answered += 1;
        self.write_off(index, 0, CloseReason::Answered);
        self.leave_indexes(index, CloseReason::Answered, None);
        // A token comes with each poll; a ticket was for the connection.
        if self.proof() != Proof::Ticket {
            self.grants.clear(index);
        }
        let now = self.clock.tick();
        let slot = &mut self.table[index];
        slot.state = State::Handshake;
        slot.opened = now;
        slot.set(flag::SERVED);
        slot.clear(flag::AHEAD | flag::OWN_HEAD | flag::SLOW);
    }

    /// Keeps what a client sends before it is its turn, up to the length of one request head; the rest stays
    /// with the kernel.
    pub(super) fn keep_unread(&mut self, index: u32, input: &[u8]) {
        let slot = &mut self.table[index];
        let head = &mut slot.rare().head;
        head.extend_from_slice(input);
        if head.len() < self.settings.head.head_bytes_max {
            return;
        }
        // Not read any more: the end that was told of with these octets would not be found behind them.
        if slot.is(flag::ENDING) {
            return self.peer_ended(index);
        }
        slot.set(flag::PAUSED);
    }

    /// An answer has gone out whole: hears the request behind it, where there is one.
    pub(super) fn hear_next(&mut self, index: u32) {
        self.read_on(index);
        let now = self.clock.tick();
        let slot = &mut self.table[index];
        slot.opened = now;
        slot.tidy();
        if slot.has_head() {
            self.hear_head(index, &mut []);
        }
    }

    /// Status line and header lines of its own, up to where all answers are alike.
    fn poll_begin(&self, index: u32) -> Bytes {
        let slot = &self.table[index];
        if !slot.is(flag::OWN_HEAD) {
            return self.settings.poll_begin.clone();
        }
        let close = if slot.is(flag::LAST) { "Connection: close\r\n" } else { "" };
        long_poll::begin(&format!("{close}{}", self.settings.policy.origins.fields(slot.origin)))
    }
}
