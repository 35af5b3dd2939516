//! Connections and topics as control lists them: a step at a time, so that no list holds up a turn.
//!
//! Looks at the tables and changes nothing. What can be seen in a slot is looked at first, what costs a system call
//! last, and only of those who are to be told of: their addresses, and what the kernel knows of their sockets. Idle
//! time and octets are the kernel's: a slot keeps neither.

use std::net::SocketAddr;
use std::time::Instant;

use super::Shard;
use super::conn::{NONE, Slot, State, flag};
use super::mailbox::{TopicCount, TopicsFound, TopicsStep};
use super::tape::ChainId;
use super::topics::TopicId;
use crate::connections::{self, Detail, Filter, Found, Key, ListingStep, Place, Reason, Row, Sort};
use crate::message::{ConnId, Position, UserId};
use crate::ring::TcpInfo;
use crate::wire::session::Transport;

/// Slots looked at between two looks at the clock, while none of them took long.
const QUICK_LOOKS: u32 = 64;
/// Connections of one user that are looked at by themselves; of a user with more, the whole table is.
const USER_CONNECTIONS_MAX: usize = 256;

/// Topics looked at in one step: 0.2 ms where all of them are told.
const TOPICS_PER_STEP: usize = 2048;

/// Whom a step looks at.
enum Walk {
    /// Every slot, ascending.
    Slots,
    /// These slots, ascending.
    Few(Vec<u32>),
    /// The members of a topic, from the last to the first: who leaves is replaced by the last (`Topics`), so that
    /// nobody who stays is passed over.
    Members(TopicId),
}

/// What waits for a connection in the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lag {
    messages: u64,
    bytes: u64,
}

impl Shard {
    /// Takes one step of a list.
    pub fn look(&self, step: &ListingStep) -> Found {
        let filter = &step.query.filter;
        let walk = self.walk(filter);
        let mut place = step.place.unwrap_or_else(|| self.begin(step, &walk));
        let mut found = Found {
            shard: self.number,
            rows: Vec::new(),
            next: None,
            in_id_order: !matches!(walk, Walk::Members(_)),
        };
        // Not the turn's time: what it takes itself is the question.
        let begun = Instant::now();
        let (mut looks, mut quick) = (0, 0);
        while let Some((index, next)) = self.next(&walk, place) {
            let over = quick >= QUICK_LOOKS && begun.elapsed() >= step.budget.time;
            if looks > 0 && (over || looks >= step.budget.looks || found.rows.len() >= step.budget.rows) {
                found.next = Some(place);
                break;
            }
            (place, looks, quick) = (next, looks + 1, if quick < QUICK_LOOKS { quick + 1 } else { 1 });
            if self.table[index].rare.is_some() {
                quick = QUICK_LOOKS;
            }
            if let Some(row) = self.found(index, step) {
                found.rows.push(row);
                quick = QUICK_LOOKS;
            }
        }
        found
    }

    /// Takes one step of a list of topics.
    pub fn look_at_topics(&self, step: &TopicsStep) -> TopicsFound {
        let (ids, next) = self.topics.some(step.from, TOPICS_PER_STEP);
        let is_wanted = |id: &TopicId| {
            let name = self.topics.name(*id);
            let behind = step.after.as_ref().is_none_or(|after| name > after);
            behind && step.bound.as_ref().is_none_or(|bound| name <= bound)
        };
        TopicsFound { topics: ids.filter(is_wanted).map(|id| self.topic_count(id)).collect(), next }
    }

    pub(super) fn topic_count(&self, id: TopicId) -> TopicCount {
        TopicCount {
            topic: self.topics.name(id).clone(),
            connections: self.topics.members(id).len() as u64,
            seq: self.tape.newest_seq(self.topics.chain(id)),
            pushes: self.topics.pushes(id),
        }
    }

    fn walk(&self, filter: &Filter) -> Walk {
        if let Some(user) = &filter.user {
            return self.few_of(user).map_or(Walk::Slots, Walk::Few);
        }
        match filter.topic.as_ref().map(|topic| self.topics.id(topic)) {
            None => Walk::Slots,
            Some(None) => Walk::Few(Vec::new()),
            Some(Some(id)) => Walk::Members(id),
        }
    }

    /// The slots of a user, ascending, unless they are many.
    fn few_of(&self, user: &UserId) -> Option<Vec<u32>> {
        let mut slots: Vec<u32> = self.slots_of(user).take(USER_CONNECTIONS_MAX + 1).collect();
        slots.sort_unstable();
        Some(slots).filter(|slots| slots.len() <= USER_CONNECTIONS_MAX)
    }

    fn begin(&self, step: &ListingStep, walk: &Walk) -> Place {
        if let Walk::Members(id) = walk {
            return Place { next: 0, end: self.topics.members(*id).len() as u32 };
        }
        // By id, whoever comes before the cursor was listed already.
        let after = step.query.after.filter(|after| after.sort == Sort::Id).map(|after| after.key.id);
        let next = after.filter(|id| id.shard == self.number).map_or(0, |id| id.index);
        Place { next, end: self.table.slots() }
    }

    /// The slot to look at, and where to go on behind it.
    fn next(&self, walk: &Walk, place: Place) -> Option<(u32, Place)> {
        let behind = |index: u32| (index, Place { next: index + 1, ..place });
        match walk {
            Walk::Slots => (place.next < place.end).then(|| behind(place.next)),
            Walk::Few(slots) => {
                let at = slots.partition_point(|&slot| slot < place.next);
                slots.get(at).filter(|&&slot| slot < place.end).map(|&slot| behind(slot))
            }
            Walk::Members(id) => {
                let members = self.topics.members(*id);
                let left = members.len().min(place.end.saturating_sub(place.next) as usize);
                let index = *members.get(left.checked_sub(1)?)?;
                Some((index, Place { next: place.end - (left as u32 - 1), ..place }))
            }
        }
    }

    /// Slot `index` as a row, if it is wanted.
    fn found(&self, index: u32, step: &ListingStep) -> Option<(Key, Row)> {
        let (slot, filter, id) = (&self.table[index], &step.query.filter, self.id(index));
        if slot.state != State::Open || !self.is_meant(index, slot, filter) {
            return None;
        }
        let connected_at = self.clock.unix_ms_of(slot.opened);
        let mut chains = Vec::new();
        let lag = self.lag(index, &mut chains);
        let above = |limit: Option<u64>, value: u64| limit.is_none_or(|limit| value > limit);
        if !above(filter.age_above_ms, self.clock.unix_ms() - connected_at)
            || !above(filter.lag_above_bytes, lag.bytes)
        {
            return None;
        }
        let sort = step.query.sort;
        let key = |value: u64| Some(Key::new(sort, value, id)).filter(|key| step.wants(*key));
        let mut at = match sort {
            Sort::Id => Some(key(0)?),
            Sort::Lag => Some(key(lag.bytes)?),
            Sort::Age => Some(key(connected_at)?),
            Sort::Idle => None,
        };
        let client = self.client(index);
        if let Some(remote) = &filter.remote
            && !client.is_some_and(|client| remote.contains(client))
        {
            return None;
        }
        let info = if step.ask_sockets { slot.socket().info() } else { TcpInfo::default() };
        let idle_ms = u64::from(info.idle_ms);
        if !above(filter.idle_above_ms, idle_ms) {
            return None;
        }
        if at.is_none() {
            at = Some(key(self.clock.unix_ms().saturating_sub(idle_ms))?);
        }
        at.map(|key| (key, self.row(index, client, lag, &info)))
    }

    /// What a slot itself says of who is wanted.
    fn is_meant(&self, index: u32, slot: &Slot, filter: &Filter) -> bool {
        let is_users = |user: &UserId| slot.user != NONE && self.users.text(slot.user) == user.as_str();
        let is_subscribed = |id: TopicId| self.topics.of(&self.table, index).any(|present| present == id);
        filter.transport.is_none_or(|wanted| wanted == transport(slot.transport))
            && filter.user.as_ref().is_none_or(is_users)
            && filter.topic.as_ref().is_none_or(|topic| self.topics.id(topic).is_some_and(is_subscribed))
    }

    fn row(&self, index: u32, client: Option<SocketAddr>, lag: Lag, info: &TcpInfo) -> Row {
        let slot = &self.table[index];
        Row {
            id: self.id(index),
            user: self.user_of(index),
            transport: transport(slot.transport),
            remote: client.map(|client| client.to_string()).unwrap_or_default(),
            connected_at: self.clock.unix_ms_of(slot.opened),
            topics: self.topics.of(&self.table, index).map(|id| self.topics.name(id).clone()).collect(),
            lag_messages: lag.messages,
            lag_bytes: lag.bytes,
            idle_ms: info.idle_ms.into(),
            reason: reason(slot, lag, info),
        }
    }

    fn lag(&self, index: u32, chains: &mut Vec<ChainId>) -> Lag {
        let (slot, outlook, mut lag) = (&self.table[index], self.outlook(), Lag::default());
        if slot.state == State::Open {
            for (replay, after, until) in outlook.stretches(slot) {
                outlook.chains(index, replay, after, chains);
                let (messages, bytes) = self.tape.span(chains, after, until);
                (lag.messages, lag.bytes) = (lag.messages + messages, lag.bytes + bytes);
            }
        }
        if let Some(rare) = &slot.rare {
            lag.messages += rare.queued_messages(0);
            lag.bytes += rare.outbox_bytes as u64;
        }
        lag
    }

    /// Everything about a connection, whatever state it is in.
    pub(super) fn detail(&self, connection: ConnId) -> Option<Detail> {
        let index = self.find(connection)?;
        let slot = &self.table[index];
        let (info, lag) = (slot.socket().info(), self.lag(index, &mut Vec::new()));
        let connected_at = self.clock.unix_ms_of(slot.opened);
        let seq = self.outlook().cursor(slot);
        Some(Detail {
            row: self.row(index, self.client(index), lag, &info),
            state: match slot.state {
                State::Free | State::Handshake => connections::State::Handshake,
                State::Open => connections::State::Open,
                State::Closing => connections::State::Closing,
            },
            position: seq.map_or_else(|| self.stands_at(index), |seq| Position { epoch: self.epoch, seq }),
            heartbeat_s: (slot.transport != Transport::LongPoll).then_some(slot.heartbeat_s),
            send_queue_bytes: slot.socket().send_queue_bytes().into(),
            rtt_us: info.rtt_us.into(),
            rtt_var_us: info.rtt_var_us.into(),
            retransmits: info.retransmits.into(),
            bytes_sent: info.bytes_acked,
            bytes_received: info.bytes_received,
            outbox_bytes: slot.rare.as_ref().map_or(0, |rare| rare.outbox_bytes as u64),
            is_json: slot.transport == Transport::WebSocketJson,
            age_ms: self.clock.unix_ms() - connected_at,
        })
    }
}

fn transport(transport: Transport) -> connections::Transport {
    match transport {
        Transport::WebSocketRaw | Transport::WebSocketJson => connections::Transport::WebSocket,
        Transport::WebSocketEcho => connections::Transport::Echo,
        Transport::EventStream => connections::Transport::EventStream,
        Transport::LongPoll => connections::Transport::LongPoll,
    }
}

/// Why something waits for the connection in `slot`, whose socket says `info`.
fn reason(slot: &Slot, lag: Lag, info: &TcpInfo) -> Option<Reason> {
    if slot.state == State::Closing {
        return Some(Reason::Closing);
    }
    let catches_up = |rare: &super::conn::Rare| {
        !rare.replays.is_empty() || (slot.is(flag::BEHIND) && slot.cursor < rare.lag_exempt)
    };
    let replaying = slot.rare.as_ref().is_some_and(|rare| catches_up(rare));
    if !slot.is(flag::BLOCKED) {
        let waits = if replaying { Reason::Replaying } else { Reason::Sending };
        return (lag != Lag::default()).then_some(waits);
    }
    // Once is everyday: a segment was lost.
    if info.unanswered > 1 {
        return Some(Reason::NotAcknowledging);
    }
    // Everything that went out was acknowledged, and yet nothing goes out.
    if info.unsent_bytes > 0 && (info.unacked == 0 || info.window_bytes == 0) {
        return Some(Reason::NotReading);
    }
    Some(if replaying { Reason::Replaying } else { Reason::SocketFull })
}
