//! A run: operations one after the other, each on the gateway and on the model, and after each every client that
//! reads must have received what the model says, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use corecast::control::command::{Answer, Command, Push as PushCommand};
use corecast::message::{self, Kind, Name, Position};
use corecast::wire::websocket::encode_message;
use serde_json::json;

use crate::client::Client;
use crate::hearing::Peer;
use crate::model::{Comer, Limits, Model, Seq, Since, Target, Transport};
use crate::operations::{Connect, From, Operation, Push, TOPICS, To, Topics, USERS};

/// Rounds in which nobody hears anything, before it is believed that nothing more comes.
const QUIET_ROUNDS: usize = 3;
const PEERS_MAX: usize = 10;
/// A reader that is to stand still takes no more at once while it waits for its greeting.
const SIP_BYTES: usize = 256;

/// What a run is held against: shards turned by hand, or a gateway.
pub trait Machine {
    /// How long what is due may take to arrive, in real time.
    const PATIENCE: Duration;
    fn epoch(&self) -> u32;
    /// Where the model has this user live.
    fn shard_of(&self, user: &Name) -> usize;
    /// Where to connect, and the shard on which an anonymous client then lives.
    fn address(&self, landing: usize, sluggish: bool) -> (SocketAddr, usize);
    /// Works, or waits for those who read to have something to read.
    fn turn(&mut self, readers: &[&TcpStream]);
    fn order(&mut self, command: Command);
    /// The answer to the oldest order.
    fn answer(&mut self) -> Option<Answer>;
    /// Established clients.
    fn connections(&mut self) -> usize;
    /// All that the shards count, to be read where a run has failed.
    fn counted(&mut self) -> String;
    /// Whether `turn`, `pass` and `freeze` decide what happens when.
    fn is_by_hand(&self) -> bool;
    /// Puts the clock forward.
    fn pass(&mut self, time: Duration);
    /// One shard stands still until it is told otherwise.
    fn freeze(&mut self, shard: Option<usize>);
}

pub struct Run<M> {
    pub machine: M,
    pub model: Model,
    pub peers: BTreeMap<usize, Peer>,
    users: Vec<Name>,
    next_id: usize,
    /// What each order must be answered with.
    expected: Vec<Expected>,
}

#[derive(Debug)]
enum Expected {
    Pushed {
        seq: Seq,
        connections: RangeInclusive<usize>,
    },
    /// `closed` or `bound`.
    Count(RangeInclusive<usize>),
}

impl Expected {
    fn is_met_by(&self, answer: &Answer) -> bool {
        match (self, answer) {
            (Self::Pushed { seq, connections }, Answer::Pushed(pushed)) => {
                pushed.position.seq == *seq && connections.contains(&(pushed.connections as usize))
            }
            (Self::Count(range), Answer::Closed(count) | Answer::Bound(count)) => {
                range.contains(&(*count as usize))
            }
            _ => false,
        }
    }
}

pub type Outcome = Result<(), String>;

impl<M: Machine> Run<M> {
    pub fn new(machine: M, limits: Limits, shards: usize) -> Self {
        let users = (0..USERS).map(|user| {
            let mut names = (0..).map(|n| name(&format!("user-{user}-{n}")));
            let there = |name: &Name| machine.shard_of(name) == usize::from(user) % shards;
            names.find(there).expect("endless")
        });
        let users = users.collect();
        let model = Model::new(limits, shards);
        Self { machine, model, peers: BTreeMap::new(), users, next_id: 0, expected: Vec::new() }
    }

    /// Performs all of `operations`, and checks after each; then everybody reads on and gets a last message.
    pub fn perform(&mut self, operations: &[Operation]) -> Outcome {
        for (number, operation) in operations.iter().enumerate() {
            let done = self.operate(operation).and_then(|()| self.settle());
            done.map_err(|error| format!("operation {number}, {operation:?}: {error}"))?;
        }
        let stalled: Vec<usize> = self.ids(|peer| !peer.reads);
        let read_on = stalled.into_iter().try_for_each(|id| self.read_on(id));
        read_on.map_err(|error| format!("at the end, reading on: {error}"))?;
        self.push(&[Push { to: To::All, bytes: 8, ttl_s: None }]);
        self.settle().map_err(|error| format!("at the end: {error}"))
    }

    fn operate(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Push(pushes) => self.push(pushes),
            Operation::Connect(connect) => self.connect(connect)?,
            Operation::Poll { who, since } => self.poll(*who, *since),
            Operation::Resume { who, transport, landing } => self.resume(*who, *transport, *landing)?,
            Operation::Disconnect { who } => {
                if let Some(id) = self.pick(*who, |_| true) {
                    self.drop_peer(id);
                }
            }
            Operation::Subscribe { who, topics, since } => self.subscribe(*who, topics, *since),
            Operation::Unsubscribe { who, topics } => self.unsubscribe(*who, topics),
            Operation::Bind { user, topic } => self.bind(*user, *topic),
            Operation::Unbind { user, topic } => self.unbind(*user, *topic),
            Operation::Kick { user } => self.kick(*user),
            Operation::Stall { who } => {
                let can = |peer: &Peer| peer.reads && peer.sluggish && peer.transport != Transport::Poll;
                if let Some(id) = self.pick(*who, can) {
                    self.stall(id);
                }
            }
            Operation::ReadOn { who } => {
                if let Some(id) = self.pick(*who, |peer| !peer.reads) {
                    self.read_on(id)?;
                }
            }
            Operation::Pass { seconds } => {
                if self.machine.is_by_hand() {
                    let time = Duration::from_secs(u64::from(*seconds));
                    self.machine.pass(time);
                    self.model.pass(time);
                }
            }
            Operation::Lag { shard, pushes, then } => self.lag(*shard, pushes, then)?,
        }
        Ok(())
    }

    fn ids(&self, wanted: impl Fn(&Peer) -> bool) -> Vec<usize> {
        self.peers.iter().filter(|(_, peer)| wanted(peer)).map(|(&id, _)| id).collect()
    }

    fn pick(&self, who: u8, wanted: impl Fn(&Peer) -> bool) -> Option<usize> {
        let ids = self.ids(wanted);
        (!ids.is_empty()).then(|| ids[usize::from(who) % ids.len()])
    }

    /// The shard on which `user` lives.
    fn owner(&self, user: u8) -> usize {
        usize::from(user) % self.model.shard_count()
    }

    fn push(&mut self, pushes: &[Push]) {
        for push in pushes {
            let Some((seq, concerned)) = self.accept(push) else { continue };
            let mut reached = (0, 0);
            for shard in concerned {
                let (least, most) = self.deliver(shard, seq);
                reached = (reached.0 + least, reached.1 + most);
            }
            self.expected.push(Expected::Pushed { seq, connections: reached.0..=reached.1 });
        }
        self.model.trim();
    }

    fn deliver(&mut self, shard: usize, seq: Seq) -> (usize, usize) {
        let shards = self.model.shard_count();
        self.model.deliver(shard, seq, |user| usize::from(user) % shards == shard)
    }

    /// Orders a push; gives its seq and the shards that it concerns. `None` where there is nobody to name.
    fn accept(&mut self, push: &Push) -> Option<(Seq, Vec<usize>)> {
        let all: Vec<usize> = (0..self.model.shard_count()).collect();
        let user = |user: &u8| self.users[usize::from(*user)].clone();
        let (to, target, concerned) = match &push.to {
            To::All => (vec![Target::All], message::Target::All, all),
            To::Topic(topic) => {
                (vec![Target::Topic(*topic)], message::Target::Topic(topic_name(*topic)), all)
            }
            To::User(id) => (vec![Target::User(*id)], message::Target::User(user(id)), vec![self.owner(*id)]),
            To::Users(ids) => {
                let shards: BTreeSet<usize> = ids.iter().map(|&id| self.owner(id)).collect();
                let to = ids.iter().copied().map(Target::User).collect();
                let target = message::Target::Users(ids.iter().map(user).collect());
                (to, target, shards.into_iter().collect())
            }
            To::Client(who) => {
                let id = self.pick(*who, |peer| peer.connection.is_some())?;
                let connection = self.peers[&id].connection?;
                let shard = usize::from(connection.shard) % self.model.shard_count();
                (vec![Target::Client(id)], message::Target::Connection(connection), vec![shard])
            }
        };
        let seq = self.model.newest() + 1;
        let payload = format!("\"{seq} {:.<width$}\"", "", width = push.bytes).into_bytes();
        // Between two whole seconds, so that no clock's rounding decides. A clock that nobody puts forward never
        // gets as far as an hour.
        let more = if self.machine.is_by_hand() { 500 } else { 3_600_000 };
        let ttl = push.ttl_s.map(|seconds| Duration::from_millis(u64::from(seconds) * 1000 + more));
        self.model.accept(to, encode_message(Kind::Json, &payload).0.len(), ttl);
        self.machine.order(Command::Push(PushCommand {
            target,
            kind: Kind::Json,
            payload: payload.into(),
            event: None,
            ttl_ms: ttl.map(|ttl| ttl.as_millis() as u64),
            id: None,
        }));
        Some((seq, concerned))
    }

    fn since(&self, since: Option<From>, own: Option<Seq>) -> Option<Since> {
        let newest = self.model.newest();
        Some(match since? {
            From::Last => Since::At(own.unwrap_or(newest)),
            From::Newest { back } => Since::At(newest.saturating_sub(u64::from(back))),
            From::Start => Since::At(0),
            From::Foreign { back } => Since::Foreign(newest.saturating_sub(u64::from(back))),
            From::Ahead { by } => Since::At(newest + 1 + u64::from(by)),
        })
    }

    fn position_text(&self, since: Since) -> String {
        let (epoch, seq) = match since {
            Since::At(seq) => (self.machine.epoch(), seq),
            Since::Foreign(seq) => (self.machine.epoch() ^ 1, seq),
        };
        Position { epoch, seq }.to_string()
    }

    fn query(&self, user: Option<u8>, topics: &BTreeSet<u8>, since: Option<Since>) -> String {
        let user = user.map(|user| format!("user={}", self.users[usize::from(user)]));
        let topics: Vec<String> = topics.iter().map(|&topic| topic_name(topic).to_string()).collect();
        let topics = (!topics.is_empty()).then(|| format!("topics={}", topics.join(",")));
        let since = since.map(|since| format!("since={}", self.position_text(since)));
        user.into_iter().chain(topics).chain(since).collect::<Vec<_>>().join("&")
    }

    fn connect(&mut self, connect: &Connect) -> Outcome {
        if self.peers.len() < PEERS_MAX {
            let id = self.open(connect, self.since(connect.since, None));
            if connect.sluggish && connect.stalls && connect.transport != Transport::Poll {
                return self.greet_and_stall(id);
            }
        }
        Ok(())
    }

    /// A new client, which has sent its request.
    fn open(&mut self, connect: &Connect, since: Option<Since>) -> usize {
        let Connect { transport, user, landing, sluggish, .. } = *connect;
        let topics = connect.topics.set();
        let (address, landed) = self.machine.address(usize::from(landing), sluggish);
        let client = Client::connect(address, sluggish, transport, &self.query(user, &topics, since));
        let shard = user.map_or(landed, |user| self.owner(user));
        let id = self.next_id;
        self.next_id += 1;
        self.model.connect(id, Comer { shard, user, topics: topics.clone(), transport, sluggish }, since);
        let position = match since {
            Some(Since::At(seq)) if seq <= self.model.newest() => Some(seq),
            _ => None,
        };
        let peer = Peer {
            client,
            transport,
            user,
            topics,
            position,
            connection: None,
            // A poll is greeted by its answer.
            greeted: transport == Transport::Poll,
            unanswered: 0,
            sluggish,
            reads: true,
            kicked: false,
            gone: false,
        };
        self.peers.insert(id, peer);
        id
    }

    fn greet_and_stall(&mut self, id: usize) -> Outcome {
        let by = Instant::now() + M::PATIENCE;
        while !self.peers[&id].greeted {
            self.machine.turn(&[&self.peers[&id].client.stream]);
            let heard = self.peers.get_mut(&id).and_then(|peer| peer.client.hear(SIP_BYTES));
            heard.map_or(Ok(()), |heard| self.heard(id, heard))?;
            if Instant::now() > by {
                return Err(format!("client {id} is not answered"));
            }
        }
        self.stall(id);
        Ok(())
    }

    fn stall(&mut self, id: usize) {
        self.model.stall(id);
        self.peers.get_mut(&id).expect("picked").reads = false;
    }

    fn read_on(&mut self, id: usize) -> Outcome {
        self.peers.get_mut(&id).expect("picked").reads = true;
        self.settle()?;
        self.model.read_on(id);
        Ok(())
    }

    fn poll(&mut self, who: u8, since: Option<From>) {
        let idle = |id: &usize| {
            let held = self.model.connections.get(id).is_some_and(|connection| connection.open);
            self.peers[id].transport == Transport::Poll && !held
        };
        let ids: Vec<usize> = self.peers.keys().copied().filter(idle).collect();
        let Some(&id) = ids.get(usize::from(who) % ids.len().max(1)) else { return };
        let (user, topics) = (self.peers[&id].user, self.peers[&id].topics.clone());
        let since = self.since(since, self.peers[&id].position);
        let query = self.query(user, &topics, since);
        let shard = self.model.shard_of(id);
        let peer = self.peers.get_mut(&id).expect("listed");
        peer.client.poll(&query);
        let sluggish = peer.sluggish;
        let comer = Comer { shard, user, topics, transport: Transport::Poll, sluggish };
        self.model.connect(id, comer, since);
    }

    /// Breaks off and comes back by another transport, with the same subscriptions.
    fn resume(&mut self, who: u8, transport: Transport, landing: u8) -> Outcome {
        let Some(id) = self.pick(who, |_| true) else { return Ok(()) };
        let (user, position) = (self.peers[&id].user, self.peers[&id].position);
        let topics = self.model.connections.get(&id).map(|connection| connection.topics.clone());
        let topics = Topics::of(&topics.unwrap_or_else(|| self.peers[&id].topics.clone()));
        self.drop_peer(id);
        self.settle()?;
        let connect =
            Connect { transport, user, topics, since: None, landing, sluggish: false, stalls: false };
        self.open(&connect, position.map(Since::At));
        Ok(())
    }

    fn drop_peer(&mut self, id: usize) {
        self.peers.remove(&id);
        self.model.disconnect(id);
    }

    /// Of a client that speaks; one that does not read is only known to be heard where shards are turned by hand.
    fn speaker(&mut self, who: u8) -> Option<usize> {
        let by_hand = self.machine.is_by_hand();
        self.pick(who, |peer| peer.transport == Transport::Json && (peer.reads || by_hand))
    }

    fn subscribe(&mut self, who: u8, topics: &Topics, since: Option<From>) {
        let Some(id) = self.speaker(who) else { return };
        let topics = topics.set();
        let since = self.since(since, self.peers[&id].position);
        let mut frame = json!({"type": "subscribe", "topics": names(&topics), "id": 1});
        if let Some(since) = since {
            frame["since"] = self.position_text(since).into();
        }
        let peer = self.peers.get_mut(&id).expect("picked");
        peer.client.say(&frame);
        peer.unanswered += 1;
        self.model.subscribe(id, &topics, since);
    }

    fn unsubscribe(&mut self, who: u8, topics: &Topics) {
        let Some(id) = self.speaker(who) else { return };
        let topics = topics.set();
        let peer = self.peers.get_mut(&id).expect("picked");
        peer.client.say(&json!({"type": "unsubscribe", "topics": names(&topics), "id": 1}));
        peer.unanswered += 1;
        self.model.unsubscribe(id, &topics);
    }

    /// The user's connections, and how many of them are there for certain.
    fn connections_of(&self, user: u8) -> (Vec<usize>, usize) {
        let of_user = self.model.connections.iter().filter(|(_, c)| c.user == Some(user) && c.open);
        let certain = of_user.clone().filter(|(_, c)| !c.stalled && !c.may_be_answered()).count();
        (of_user.map(|(&id, _)| id).collect(), certain)
    }

    fn bind(&mut self, user: u8, topic: u8) {
        let (ids, _) = self.connections_of(user);
        let (stalled, sure): (Vec<usize>, Vec<usize>) =
            ids.into_iter().filter(|id| !self.model.connections[id].topics.contains(&topic)).partition(
                |id| self.model.connections[id].stalled || self.model.connections[id].may_be_answered(),
            );
        let name = self.users[usize::from(user)].clone();
        self.machine.order(Command::Bind { user: name, topic: topic_name(topic) });
        self.expected.push(Expected::Count(sure.len()..=sure.len() + stalled.len()));
        for id in sure.into_iter().chain(stalled) {
            self.model.subscribe(id, &[topic].into(), None);
        }
    }

    fn unbind(&mut self, user: u8, topic: u8) {
        let (ids, _) = self.connections_of(user);
        let bound: Vec<usize> =
            ids.into_iter().filter(|id| self.model.connections[id].topics.contains(&topic)).collect();
        let unsure = bound
            .iter()
            .filter(|id| self.model.connections[id].stalled || self.model.connections[id].may_be_answered());
        let unsure = unsure.count();
        let name = self.users[usize::from(user)].clone();
        self.machine.order(Command::Unbind { user: name, topic: topic_name(topic) });
        self.expected.push(Expected::Count(bound.len() - unsure..=bound.len()));
        bound.into_iter().for_each(|id| self.model.unsubscribe(id, &[topic].into()));
    }

    fn kick(&mut self, user: u8) {
        let (ids, certain) = self.connections_of(user);
        let name = self.users[usize::from(user)].clone();
        self.machine.order(Command::KickUser { user: name, code: Some(4500), reason: None });
        self.expected.push(Expected::Count(certain..=ids.len()));
        for id in ids {
            self.model.disconnect(id);
            let peer = self.peers.get_mut(&id).expect("a connection has a peer");
            peer.kicked = true;
            // What it has not been sent is gone with it, and the word about it comes behind the rest.
            peer.gone = !peer.reads;
        }
    }

    /// One shard stands still while pushes come by the others; who comes to it then is there before they are.
    fn lag(&mut self, shard: u8, pushes: &[Push], then: &[Operation]) -> Outcome {
        let shard = usize::from(shard) % self.model.shard_count();
        if !self.machine.is_by_hand() {
            self.push(pushes);
            self.settle()?;
            return then.iter().try_for_each(|then| self.operate(then).and_then(|()| self.settle()));
        }
        self.machine.freeze(Some(shard));
        let mut waiting = Vec::new();
        for push in pushes {
            let Some((seq, concerned)) = self.accept(push) else { continue };
            let mut reached = (0, 0);
            for &other in concerned.iter().filter(|&&concerned| concerned != shard) {
                let (least, most) = self.deliver(other, seq);
                reached = (reached.0 + least, reached.1 + most);
            }
            waiting.push((seq, reached, concerned.contains(&shard)));
        }
        self.model.trim();
        self.settle_but_for_answers()?;
        let subscribes = then.iter().any(|then| matches!(then, Operation::Subscribe { .. }));
        // A subscription may have the pushes taken before who comes from nowhere is there.
        let nowhere = |since| matches!(since, None | Some(From::Ahead { .. }));
        for then in then {
            match then {
                // Its greeting comes when the shard goes on.
                Operation::Connect(connect) => {
                    let here = subscribes && nowhere(connect.since);
                    let since = if here { Some(From::Newest { back: 0 }) } else { connect.since };
                    self.connect(&Connect { stalls: false, since, ..connect.clone() })?;
                }
                then => self.operate(then)?,
            }
        }
        // Those who landed elsewhere are handed over while the shard still stands.
        (0..QUIET_ROUNDS).for_each(|_| self.machine.turn(&[]));
        self.model.catching_up = subscribes;
        for (seq, mut reached, concerned) in waiting {
            if concerned {
                let (least, most) = self.deliver(shard, seq);
                // What a subscription brings along is not handed to anybody, but replayed.
                reached = (reached.0 + if subscribes { 0 } else { least }, reached.1 + most);
            }
            self.expected.push(Expected::Pushed { seq, connections: reached.0..=reached.1 });
        }
        self.model.catching_up = false;
        self.machine.freeze(None);
        self.model.trim();
        Ok(())
    }

    /// Until everybody who reads has what is due to him, and nothing more comes.
    fn settle(&mut self) -> Outcome {
        self.settle_but_for_answers()?;
        self.model.settled();
        self.check_answers()
    }

    fn settle_but_for_answers(&mut self) -> Outcome {
        let by = Instant::now() + M::PATIENCE;
        let mut quiet = 0;
        while quiet < QUIET_ROUNDS {
            let readers = self.peers.values().filter(|peer| peer.reads).map(|peer| &peer.client.stream);
            self.machine.turn(&readers.collect::<Vec<_>>());
            quiet += 1;
            for id in self.ids(|peer| peer.reads && !peer.gone) {
                while let Some(heard) = self.peers.get_mut(&id).and_then(|p| p.client.hear(usize::MAX)) {
                    self.heard(id, heard).map_err(|error| format!("client {id}: {error}"))?;
                    quiet = 0;
                }
            }
            self.peers.retain(|_, peer| !peer.gone);
            if let Err(missing) = self.is_settled() {
                quiet = 0;
                if Instant::now() > by {
                    return Err(missing);
                }
            }
        }
        Ok(())
    }

    fn is_settled(&mut self) -> Outcome {
        for (id, peer) in self.peers.iter().filter(|(_, peer)| peer.reads) {
            let connection = self.model.connections.get(id);
            let satisfied = connection.is_none_or(|connection| connection.is_satisfied());
            if !satisfied || !peer.greeted || peer.unanswered > 0 || peer.kicked {
                let Peer { greeted, unanswered, kicked, .. } = peer;
                return Err(format!(
                    "client {id} waits: greeted {greeted}, unanswered {unanswered}, kicked {kicked}, {connection:?}"
                ));
            }
        }
        let open = self.model.connections.values().filter(|connection| connection.open);
        let unsure = open.clone().filter(|c| c.stalled || c.may_be_answered()).count();
        let (most, there) = (open.count(), self.machine.connections());
        if !(most - unsure..=most).contains(&there) {
            let (came, counted) = (self.next_id, self.machine.counted());
            return Err(format!(
                "{there} connections are established; {most}, {unsure} of them perhaps; {came} came: {counted}"
            ));
        }
        Ok(())
    }

    /// Each order is answered once. Answers overtake each other where shards differ.
    fn check_answers(&mut self) -> Outcome {
        let mut answers: Vec<Answer> = std::iter::from_fn(|| self.machine.answer()).collect();
        for expected in std::mem::take(&mut self.expected) {
            let Some(at) = answers.iter().position(|answer| expected.is_met_by(answer)) else {
                return Err(format!("answered {answers:?}, due was {expected:?}"));
            };
            answers.swap_remove(at);
        }
        if answers.is_empty() { Ok(()) } else { Err(format!("answered too much: {answers:?}")) }
    }
}

pub fn name(text: &str) -> Name {
    Name::new(text).expect("valid")
}

pub fn topic_name(topic: u8) -> Name {
    assert!(topic < TOPICS);
    name(&format!("t{topic}"))
}

fn names(topics: &BTreeSet<u8>) -> Vec<String> {
    topics.iter().map(|&topic| topic_name(topic).to_string()).collect()
}
