//! The one place that gives positions, and posts to the shards in that order.
//!
//! A push is accepted whole or not at all: every shard it concerns is asked for room before it gets its
//! position, and control is the only sender, so the room stays (Rule 3). Answers come out of
//! `poll_answer` when all shards have replied. No I/O; time is an argument.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::batches::Batches;
use super::command::{Answer, CommandError, ErrorCode, Push, Pushed};
use super::inquiries::{BatchId, Gathering, Inquiries, Pending, TopicSum, Waiter, topic_answer};
use super::keys::{Keys, Known};
use super::push;
use super::trace::Begun;
use crate::connections::{Detail, Found};
use crate::message::{Message, Position, Target};
use crate::shard::mailbox::{Gate, Inquiry, Letter, Mailbox, Owner, Reply, Request, TopicsFound};
use crate::stats::ShardStats;
use crate::wire::websocket;

/// Letters posted before the shards are woken, at the latest: a wake-up for each would cost more than
/// the push itself, and one for all would leave the shards idle while a long burst is read.
const UNWOKEN_LETTERS_MAX: usize = 64;

/// All shards, as control reaches them.
#[derive(Debug)]
pub struct Shards {
    /// One per shard, by number.
    pub mailboxes: Vec<Mailbox>,
    /// Which shard a user lives on.
    pub owner: Owner,
}

/// What comes out for a waiter.
#[derive(Debug)]
pub enum Outcome {
    /// The answer to a command.
    Answer(Answer),
    /// The shards' counters, to be completed with control's own.
    Stats(Vec<ShardStats>),
    /// All shards trace.
    Traced(Begun),
    /// All shards have done it.
    Done,
    /// What a step of a scan found.
    Found(Found),
    /// What a step of a list of topics found.
    TopicsFound(TopicsFound),
    /// One connection, unless nobody has that id.
    Detail(Option<Box<Detail>>),
}

/// What the sequencer has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pushes accepted.
    pub accepted: u64,
    /// Pushes refused.
    pub refused: u64,
    /// Of `refused`: for want of room.
    pub busy: u64,
}

/// Gives positions and joins answers.
#[derive(Debug)]
pub struct Sequencer {
    epoch: u32,
    seq: u64,
    message_bytes_max: usize,
    shards: Shards,
    gate: Arc<Gate>,
    inquiries: Inquiries,
    keys: Keys,
    batches: Batches,
    outcomes: VecDeque<(Waiter, Outcome)>,
    counts: Counts,
    /// Refused for want of room, by the shard whose mailbox had none.
    refused_by_mailbox: Vec<u64>,
    /// Shards that have a letter and were not woken, by number; and how many letters that are.
    unwoken: Vec<bool>,
    unwoken_letters: usize,
    /// The shards end: nothing is accepted any more.
    stopped: bool,
}

/// Which shards a letter goes to.
enum Concerned {
    Nobody,
    One(u16),
    Some(Vec<u16>),
    All,
}

impl Sequencer {
    /// Starts behind position `<epoch>-0`.
    pub fn new(epoch: u32, message_bytes_max: usize, shards: Shards, gate: Arc<Gate>) -> Self {
        assert!(!shards.mailboxes.is_empty(), "a gateway has a shard");
        let unwoken = vec![false; shards.mailboxes.len()];
        let refused_by_mailbox = vec![0; shards.mailboxes.len()];
        Self {
            epoch,
            seq: 0,
            message_bytes_max,
            shards,
            gate,
            inquiries: Inquiries::default(),
            keys: Keys::default(),
            batches: Batches::default(),
            outcomes: VecDeque::new(),
            counts: Counts::default(),
            refused_by_mailbox,
            unwoken,
            unwoken_letters: 0,
            stopped: false,
        }
    }

    /// Takes pushes up to this size from now on.
    pub fn limit_messages(&mut self, message_bytes_max: usize) {
        self.message_bytes_max = message_bytes_max;
    }

    /// The newest position given out.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.seq }
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Pushes and commands that found no room, by the shard whose mailbox had none.
    pub fn refused_by_mailbox(&self) -> &[u64] {
        &self.refused_by_mailbox
    }

    /// How many shards there are.
    pub fn shard_count(&self) -> usize {
        self.shards.mailboxes.len()
    }

    /// The shard that owns `user`.
    pub fn shard_of(&self, user: &crate::message::UserId) -> u16 {
        self.shards.owner.shard_of(user)
    }

    /// The next finished answer.
    pub fn poll_answer(&mut self) -> Option<(Waiter, Outcome)> {
        self.outcomes.pop_front()
    }

    /// Accepts a push, or says why not; the answer comes out of `poll_answer`.
    ///
    /// A key that is known gives the first push's answer, and pushes nothing. Errors: those of
    /// `push::check`, and `busy` when a shard it concerns has no room: then no position was used and
    /// nothing was posted anywhere.
    pub fn push(&mut self, push: Push, waiter: Waiter, now: Instant) -> Result<(), CommandError> {
        let taken = self.try_push(push, waiter, now);
        if let Err(refused) = &taken {
            self.counts.refused += 1;
            self.counts.busy += u64::from(refused.code == ErrorCode::Busy);
        }
        taken
    }

    fn try_push(&mut self, mut push: Push, waiter: Waiter, now: Instant) -> Result<(), CommandError> {
        push::check(&push, self.message_bytes_max)?;
        if let Some(known) = push.id.as_deref().and_then(|key| self.keys.find(key, now)) {
            self.repeat(known, waiter);
            return Ok(());
        }
        let concerned = self.concerned(&mut push.target);
        if !self.takes(&concerned, push.payload.len()) {
            return Err(CommandError::new(
                ErrorCode::Busy,
                "a shard's mailbox is full; nothing was pushed, try again",
            ));
        }
        self.seq += 1;
        // Before the first shard can show the message to anybody (`hello` tells this position).
        self.gate.last_seq.store(self.seq, Ordering::SeqCst);
        self.counts.accepted += 1;
        let key: Option<Rc<str>> = push.id.take().map(Into::into);
        let gathering = Gathering::Pushed { seq: self.seq, key: key.clone() };
        let message = Arc::new(self.message(push, now));
        let inquiry = self.post(&concerned, waiter, gathering, |inquiry| Letter::Push {
            inquiry,
            message: message.clone(),
        });
        if let Some(key) = key {
            let known = match inquiry {
                Some(inquiry) => Known::Waiting(inquiry),
                None => Known::Answered(Pushed { position: self.position(), connections: 0 }),
            };
            self.keys.remember(key, known, now);
        }
        Ok(())
    }

    fn repeat(&mut self, known: Known, waiter: Waiter) {
        match known {
            Known::Answered(pushed) => self.finish(waiter, pushed),
            Known::Waiting(inquiry) => {
                let first = self.inquiries.pending(inquiry).expect("a key that waits has an open inquiry");
                first.also.push(waiter);
            }
        }
    }

    fn message(&self, push: Push, now: Instant) -> Message {
        let (frame, header_bytes) = websocket::encode_message(push.kind, &push.payload);
        let mut message = Message::new(self.seq, push.target, push.kind, frame, header_bytes);
        message.event = push.event.map(String::into_boxed_str);
        message.accepted = Some(now);
        // A time so far off that the clock cannot hold it is never.
        message.expires = push.ttl_ms.and_then(|ttl| now.checked_add(Duration::from_millis(ttl)));
        message
    }

    /// The shards that `target` concerns; folds users named twice.
    fn concerned(&self, target: &mut Target) -> Concerned {
        match target {
            Target::User(user) => Concerned::One(self.shard_of(user)),
            Target::Users(users) => {
                users.sort_unstable();
                users.dedup();
                let mut shards: Vec<_> = users.iter().map(|user| self.shard_of(user)).collect();
                shards.sort_unstable();
                shards.dedup();
                Concerned::Some(shards)
            }
            Target::Connection(id) if usize::from(id.shard) < self.shard_count() => Concerned::One(id.shard),
            Target::Connection(_) => Concerned::Nobody,
            Target::Topic(_) | Target::All => Concerned::All,
        }
    }

    /// The numbers of the shards concerned.
    fn numbers<'a>(&self, concerned: &'a Concerned) -> impl Iterator<Item = usize> + use<'a> {
        let (some, all): (&[u16], usize) = match concerned {
            Concerned::Nobody => (&[], 0),
            Concerned::One(shard) => (std::slice::from_ref(shard), 0),
            Concerned::Some(shards) => (shards, 0),
            Concerned::All => (&[], self.shard_count()),
        };
        some.iter().map(|&shard| usize::from(shard)).chain(0..all)
    }

    fn mailboxes<'a>(&'a self, concerned: &'a Concerned) -> impl Iterator<Item = &'a Mailbox> {
        self.numbers(concerned).map(|shard| &self.shards.mailboxes[shard])
    }

    fn has_room(&self, concerned: &Concerned, payload_bytes: usize) -> bool {
        !self.stopped && self.mailboxes(concerned).all(|mailbox| mailbox.has_room(payload_bytes))
    }

    /// As `has_room`, for what is refused without it: counted at the first shard whose mailbox is full.
    fn takes(&mut self, concerned: &Concerned, payload_bytes: usize) -> bool {
        let is_full = |&shard: &usize| !self.shards.mailboxes[shard].has_room(payload_bytes);
        let full = self.numbers(concerned).find(is_full);
        if let Some(shard) = full {
            self.refused_by_mailbox[shard] += 1;
        }
        full.is_none() && !self.stopped
    }

    /// Posts to all that are concerned; there must be room. `None` when nobody is: then it is finished.
    fn post(
        &mut self,
        concerned: &Concerned,
        waiter: Waiter,
        gathering: Gathering,
        letter: impl Fn(Inquiry) -> Letter,
    ) -> Option<Inquiry> {
        let count = self.mailboxes(concerned).count() as u16;
        let pending = Pending::new(waiter, count, gathering);
        if count == 0 {
            self.complete(0, pending);
            return None;
        }
        let inquiry = self.inquiries.open(pending);
        for mailbox in self.mailboxes(concerned) {
            let posted = mailbox.put(letter(inquiry));
            assert!(posted.is_ok(), "there was room, and control is the only sender");
        }
        match concerned {
            Concerned::Nobody => {}
            Concerned::One(shard) => self.unwoken[usize::from(*shard)] = true,
            Concerned::Some(shards) => {
                shards.iter().for_each(|&shard| self.unwoken[usize::from(shard)] = true)
            }
            Concerned::All => self.unwoken.fill(true),
        }
        self.unwoken_letters += 1;
        if self.unwoken_letters >= UNWOKEN_LETTERS_MAX {
            self.wake_shards();
        }
        Some(inquiry)
    }

    /// Wakes every shard that was posted to since the last call. Due before control sleeps.
    pub fn wake_shards(&mut self) {
        if std::mem::take(&mut self.unwoken_letters) > 0 {
            for (mailbox, unwoken) in self.shards.mailboxes.iter().zip(&mut self.unwoken) {
                if std::mem::take(unwoken) {
                    mailbox.wake();
                }
            }
        }
    }

    /// Asks one shard. A shard that does not exist has nobody. Errors: `busy`.
    pub fn ask_one(&mut self, shard: u16, request: Request, waiter: Waiter) -> Result<(), CommandError> {
        let exists = usize::from(shard) < self.shard_count();
        self.ask(if exists { Concerned::One(shard) } else { Concerned::Nobody }, request, waiter)
    }

    /// Asks every shard. Errors: `busy`, and then none was asked.
    pub fn ask_all(&mut self, request: Request, waiter: Waiter) -> Result<(), CommandError> {
        self.ask(Concerned::All, request, waiter)
    }

    fn ask(&mut self, concerned: Concerned, request: Request, waiter: Waiter) -> Result<(), CommandError> {
        if !self.takes(&concerned, 0) {
            return Err(CommandError::new(ErrorCode::Busy, "a shard's mailbox is full, try again"));
        }
        let gathering = match &request {
            Request::Presence(_) => Gathering::Presence(Vec::new()),
            Request::KickUser { .. } | Request::KickConnection { .. } => Gathering::Closed,
            Request::Bind { .. } | Request::Unbind { .. } => Gathering::Bound,
            Request::Topics(_) => Gathering::TopicsFound(None),
            Request::Topic(topic) => Gathering::Topic(topic.clone(), TopicSum::default()),
            Request::Stats => Gathering::Stats(Vec::new()),
            Request::Trace { trace, of, .. } => {
                Gathering::Traced(Begun { trace: *trace, of: of.clone(), connections: Vec::new() })
            }
            Request::Drain { .. } | Request::Adopt(_) | Request::Stop | Request::EndTrace(_) => {
                Gathering::Done
            }
            Request::Look(_) => Gathering::Found(None),
            Request::Detail(_) => Gathering::Detail(None),
        };
        self.stopped |= matches!(request, Request::Stop);
        self.post(&concerned, waiter, gathering, |inquiry| Letter::Ask { inquiry, request: request.clone() });
        Ok(())
    }

    /// Asks every shard for a sign that its loop turns.
    pub fn ask_for_signs_of_life(&self) {
        self.shards.mailboxes.iter().for_each(Mailbox::ask_for_sign_of_life);
    }

    /// Whether every shard's loop has turned since.
    pub fn have_given_signs_of_life(&self) -> bool {
        self.shards.mailboxes.iter().all(Mailbox::has_given_sign_of_life)
    }

    /// Takes a shard's reply.
    pub fn handle_reply(&mut self, inquiry: Inquiry, reply: Reply) {
        if let Some(pending) = self.inquiries.reply(inquiry, reply) {
            self.complete(inquiry, pending);
        }
    }

    fn complete(&mut self, inquiry: Inquiry, pending: Pending) {
        let Pending { waiter, also, sum, gathering, .. } = pending;
        let outcome = match gathering {
            Gathering::Pushed { seq, key } => {
                let pushed = Pushed { position: Position { epoch: self.epoch, seq }, connections: sum };
                if let Some(key) = key {
                    self.keys.answer(&key, inquiry, pushed);
                }
                self.finish(waiter, pushed);
                also.into_iter().for_each(|waiter| self.finish(waiter, pushed));
                return;
            }
            Gathering::Presence(all) => Outcome::Answer(Answer::Presence(all)),
            Gathering::Closed => Outcome::Answer(Answer::Closed(sum)),
            Gathering::Bound => Outcome::Answer(Answer::Bound(sum)),
            Gathering::Topic(topic, sum) => {
                Outcome::Answer(Answer::Topics(vec![topic_answer(topic, &sum, self.epoch)]))
            }
            Gathering::TopicsFound(found) => found.map_or(Outcome::Done, Outcome::TopicsFound),
            Gathering::Stats(mut all) => {
                all.sort_by_key(|stats| stats.shard);
                Outcome::Stats(all)
            }
            Gathering::Traced(begun) => Outcome::Traced(begun),
            Gathering::Done => Outcome::Done,
            Gathering::Found(found) => found.map_or(Outcome::Done, Outcome::Found),
            Gathering::Detail(detail) => Outcome::Detail(detail),
        };
        self.outcomes.push_back((waiter, outcome));
    }

    fn finish(&mut self, waiter: Waiter, pushed: Pushed) {
        match waiter {
            Waiter::Batch(batch) => {
                self.batches.pushed(batch, pushed);
                self.settle(batch);
            }
            waiter => self.outcomes.push_back((waiter, Outcome::Answer(Answer::Pushed(pushed)))),
        }
    }

    /// Begins a batch, whose answer goes to `waiter` once `close_batch` was called and every push of
    /// it has its answer.
    pub fn open_batch(&mut self, waiter: Waiter) -> BatchId {
        self.batches.open(waiter)
    }

    /// Whether a batch's next push would find room; a batch waits for it rather than be refused.
    pub fn would_take(&self, push: &Push) -> bool {
        let mut target = push.target.clone();
        self.has_room(&self.concerned(&mut target), push.payload.len())
    }

    /// The batch's push of `line`, or why it is none: refused or accepted by itself.
    pub fn batch_push(&mut self, batch: BatchId, line: u64, push: Result<Push, CommandError>, now: Instant) {
        self.batches.posted(batch);
        let taken = match push {
            Ok(push) => self.push(push, Waiter::Batch(batch), now),
            Err(refused) => {
                self.counts.refused += 1;
                Err(refused)
            }
        };
        if let Err(refused) = taken {
            self.batches.refused(batch, line, refused);
        }
    }

    /// Nothing more comes in this batch.
    pub fn close_batch(&mut self, batch: BatchId) {
        self.batches.close(batch);
        self.settle(batch);
    }

    fn settle(&mut self, batch: BatchId) {
        if let Some((waiter, answer)) = self.batches.settle(batch) {
            self.outcomes.push_back((waiter, Outcome::Answer(Answer::Batch(answer))));
        }
    }
}
