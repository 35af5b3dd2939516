//! What control asks: messages onto the tape and to those they are for, and every other command.

use std::sync::Arc;

use super::Shard;
use super::conn::{NONE, State, Table, flag};
use super::ending::Answer;
use super::life::life;
use super::mailbox::{Act, Letter, Party, Presence, Reply, Report, Request};
use super::opening::transport_name;
use super::tape::{ChainId, EVERYBODY};
use super::topics::Topics;
use crate::message::{ConnId, Message, Position, Target, Topic, UserId};
use crate::ring::Token;
use crate::stats::CloseReason;
use crate::wire::session::Transport;

/// Letters taken in one turn.
const LETTERS_PER_TURN: usize = 1024;
/// Bytes appended ahead of the sends: beyond it letters wait in the mailbox, which then fills and says
/// `busy`, rather than on the tape, where they would push out what healthy connections have yet to get.
const UNSENT_BYTES_MAX: usize = 8 << 20;

impl Shard {
    /// Takes what the mailbox holds: connections handed over, then letters.
    pub(super) fn take_letters(&mut self) {
        while let Some(handover) = self.inbox.handover() {
            self.take_over(*handover);
        }
        for _ in 0..LETTERS_PER_TURN {
            if self.unsent_bytes > UNSENT_BYTES_MAX {
                return;
            }
            match self.inbox.letter() {
                None => return,
                Some(letter) => self.take_letter(letter),
            }
        }
    }

    /// Takes letters ahead of their time until the tape has come to `seq`, which a client has been given:
    /// by another shard, while our copies waited.
    pub(super) fn catch_up(&mut self, seq: u64) {
        while self.tape.head() < seq
            && let Some(letter) = self.inbox.letter()
        {
            self.take_letter(letter);
        }
    }

    fn take_letter(&mut self, letter: Letter) {
        match letter {
            Letter::Push { inquiry, message } => {
                let reached = self.deliver(&message);
                life!(TRACE, self, seq = message.seq, bytes = message.frame().len(), reached, "push");
                self.reply(inquiry, Reply::Delivered(reached));
            }
            Letter::Ask { inquiry, request } => {
                let reply = self.obey(request);
                self.reply(inquiry, reply);
            }
        }
    }

    fn reply(&self, inquiry: u64, reply: Reply) {
        // Control has gone only when the gateway ends.
        let _ = self.reports.send(Report::Reply { inquiry, reply });
    }

    /// Appends the message to its target's chain and marks those who have to get it. Gives how many.
    fn deliver(&mut self, message: &Arc<Message>) -> u32 {
        self.stats.pushes += 1;
        self.unsent_bytes += message.frame().len();
        let reached = match &message.target {
            Target::Topic(topic) => self.deliver_to_topic(topic, message),
            Target::All => self.deliver_to_all(message),
            Target::User(user) => self.deliver_to_user(user, message),
            Target::Users(users) => {
                let mut reached = 0;
                for user in users {
                    if self.owner.shard_of(user) == self.number {
                        reached += self.deliver_to_user(user, message);
                    }
                }
                reached
            }
            Target::Connection(connection) => self.deliver_to_connection(*connection, message),
        };
        self.tape.advance(message.seq);
        self.stats.handed += u64::from(reached);
        reached
    }

    fn append(&mut self, chain: ChainId, message: &Arc<Message>) {
        self.tape.append(chain, message.clone(), self.clock.tick());
    }

    fn deliver_to_topic(&mut self, topic: &Topic, message: &Arc<Message>) -> u32 {
        let id = self.topics.intern(topic, &mut self.tape);
        self.topics.count_push(id);
        self.append(self.topics.chain(id), message);
        self.hand(message, |hand, topics| topics.members(id).iter().for_each(|&index| hand.to(index)))
    }

    fn deliver_to_all(&mut self, message: &Arc<Message>) -> u32 {
        self.append(EVERYBODY, message);
        self.hand(message, |hand, _| (0..hand.table.slots()).for_each(|index| hand.to(index)))
    }

    fn deliver_to_user(&mut self, user: &UserId, message: &Arc<Message>) -> u32 {
        self.tape.append_to_user(user, message.clone(), self.clock.tick());
        let mut index = self.users.first(&self.table, user.as_str());
        self.hand(message, |hand, _| {
            while index != NONE {
                hand.to(index);
                index = hand.table[index].next;
            }
        })
    }

    fn deliver_to_connection(&mut self, connection: ConnId, message: &Arc<Message>) -> u32 {
        let Some(index) = self.find(connection) else { return 0 };
        if self.table[index].state != State::Open || self.table[index].transport == Transport::WebSocketEcho {
            return 0;
        }
        self.table[index].set(flag::ADDRESSED);
        self.tape.append_to_connection(index, message.clone(), self.clock.tick());
        self.hand(message, |hand, _| hand.to(index))
    }

    /// Hands the message to those that `give` names; gives how many there were.
    fn hand(&mut self, message: &Message, give: impl FnOnce(&mut Hand<'_>, &Topics)) -> u32 {
        let Self { topics, table, marked, .. } = self;
        let mut hand = Hand { table, marked, seq: message.seq, reached: 0, noted: Vec::new() };
        give(&mut hand, topics);
        let Hand { reached, noted, .. } = hand;
        self.look_after(&noted, message);
        reached
    }

    /// Those whose sockets refuse bytes fall further behind, until it is too far. Who is traced has it told.
    fn look_after(&mut self, noted: &[u32], message: &Message) {
        for &index in noted {
            let position = Position { epoch: self.epoch, seq: message.seq };
            self.trace(index, |_| Act::Handed { position });
            if !self.table[index].is(flag::BLOCKED) {
                continue;
            }
            self.table[index].rare().lag_bytes += message.frame().len();
            // What blocked it may have been frames of its own: it needed nothing of the tape until now.
            self.needs(index);
            self.cut_if_too_far_behind(index);
        }
    }

    pub(super) fn find(&self, connection: ConnId) -> Option<u32> {
        let ConnId { index, generation, .. } = connection;
        let index = self.table.find(Token { index, generation })?;
        (self.table[index].generation == generation).then_some(index)
    }

    fn obey(&mut self, request: Request) -> Reply {
        match request {
            Request::Presence(user) => Reply::Presence(self.presence(&user)),
            Request::KickUser { user, code, reason } => {
                let connections = self.connections_of(&user);
                connections.iter().for_each(|&index| self.kick(index, code, &reason));
                Reply::Closed(connections.len() as u32)
            }
            Request::KickConnection { connection, code, reason } => {
                let found = self.find(connection).filter(|&index| self.table[index].state == State::Open);
                if let Some(index) = found {
                    self.kick(index, code, &reason);
                }
                Reply::Closed(found.is_some().into())
            }
            Request::Bind { user, topic } => Reply::Bound(self.bind(&user, &topic)),
            Request::Unbind { user, topic } => Reply::Bound(self.unbind(&user, &topic)),
            Request::Topics(step) => Reply::TopicsFound(self.look_at_topics(&step)),
            Request::Topic(topic) => Reply::Topic(self.topics.id(&topic).map(|id| self.topic_count(id))),
            Request::Stats => Reply::Stats(Box::new(self.snapshot())),
            Request::Drain { within_ms } => {
                self.begin_drain(within_ms);
                Reply::Done
            }
            Request::Adopt(settings) => {
                self.adopt(&settings);
                Reply::Done
            }
            Request::Stop => self.stop(),
            Request::Trace { trace, of, begun } => Reply::Traced(self.begin_trace(trace, of, begun)),
            Request::EndTrace(trace) => {
                self.end_trace(trace);
                Reply::Done
            }
            Request::Look(step) => Reply::Found(self.look(&step)),
            Request::Detail(connection) => Reply::Detail(self.detail(connection).map(Box::new)),
        }
    }

    pub(super) fn connections_of(&self, user: &UserId) -> Vec<u32> {
        self.slots_of(user).collect()
    }

    /// The slots of a user's connections, in the order of their list.
    pub(super) fn slots_of(&self, user: &UserId) -> impl Iterator<Item = u32> {
        let next = |&index: &u32| Some(self.table[index].next).filter(|&next| next != NONE);
        let first = Some(self.users.first(&self.table, user.as_str())).filter(|&first| first != NONE);
        std::iter::successors(first, next)
    }

    fn presence(&self, user: &UserId) -> Vec<Presence> {
        let describe = |index: u32| Presence {
            id: self.id(index),
            transport: transport_name(self.table[index].transport).to_owned(),
            remote: self.remote(index),
            connected_at: self.clock.unix_ms_of(self.table[index].opened),
            topics: self.topics.of(&self.table, index).map(|id| self.topics.name(id).clone()).collect(),
        };
        self.connections_of(user).into_iter().map(describe).collect()
    }

    fn kick(&mut self, index: u32, code: u16, reason: &str) {
        if self.table[index].transport == Transport::LongPoll {
            return self.kick_poll(index, code, reason);
        }
        // What was pushed before, in this very turn perhaps, comes before the end. For one who does not read
        // the end would come behind it, or never.
        if !self.table[index].is(flag::BLOCKED) {
            self.queue_rest(index, CloseReason::Kicked);
        }
        let answer = Answer::Close { code: Some(code), reason: reason.to_owned().into() };
        self.finish(index, CloseReason::Kicked, answer);
    }

    /// Subscribes the user's connections; those at `limits.topics_per_connection` are left as they are.
    fn bind(&mut self, user: &UserId, topic: &Topic) -> u32 {
        let mut bound = 0;
        for index in self.connections_of(user) {
            if self.topics.of(&self.table, index).count() >= self.settings.topics_max {
                continue;
            }
            self.split_cursor(index);
            let id = self.topics.intern(topic, &mut self.tape);
            if self.topics.subscribe(&mut self.table, index, id) {
                bound += 1;
                self.tell_subscribed(index, Party::Control, || vec![topic.clone()]);
            }
        }
        bound
    }

    fn unbind(&mut self, user: &UserId, topic: &Topic) -> u32 {
        let mut unbound = 0;
        for index in self.connections_of(user) {
            if self.unsubscribe(index, topic) {
                unbound += 1;
                self.tell_unsubscribed(index, Party::Control, || vec![topic.clone()]);
            }
        }
        unbound
    }

    /// Ends one subscription; false if there was none.
    pub(super) fn unsubscribe(&mut self, index: u32, topic: &Topic) -> bool {
        let Some(id) = self.topics.id(topic) else { return false };
        self.write_off_topic(index, id);
        if let Some(rare) = self.table[index].rare.as_mut() {
            rare.replays.iter_mut().for_each(|replay| replay.topics.retain(|&present| present != id));
        }
        self.topics.unsubscribe(&mut self.table, index, id, &mut self.tape)
    }

    /// Ends subscriptions as the client wants it, or its token.
    pub(super) fn unsubscribe_from(&mut self, index: u32, topics: &[Topic]) {
        let ended: Vec<&Topic> = topics.iter().filter(|topic| self.unsubscribe(index, topic)).collect();
        self.tell_unsubscribed(index, Party::Client, || ended.into_iter().cloned().collect());
    }
}

/// Marks the connections that one message is for.
struct Hand<'s> {
    table: &'s mut Table,
    marked: &'s mut std::collections::VecDeque<u32>,
    seq: u64,
    reached: u32,
    /// Those that are blocked or traced: looked at afterwards, because they may have to be cut.
    noted: Vec<u32>,
}

impl Hand<'_> {
    fn to(&mut self, index: u32) {
        let slot = &mut self.table[index];
        if slot.state != State::Open || slot.transport == Transport::WebSocketEcho {
            return;
        }
        if slot.is(flag::AHEAD) {
            // Resumed from a position that had not come by here yet.
            if self.seq <= slot.cursor {
                return;
            }
            slot.clear(flag::AHEAD);
        }
        self.reached += 1;
        if slot.is(flag::BLOCKED | flag::TRACED) {
            self.noted.push(index);
        }
        if slot.is(flag::BEHIND) {
            return;
        }
        slot.cursor = self.seq - 1;
        slot.set(flag::BEHIND);
        if !slot.is(flag::BLOCKED | flag::MARKED) {
            slot.set(flag::MARKED);
            self.marked.push_back(index);
        }
    }
}
