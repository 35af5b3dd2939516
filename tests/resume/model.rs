//! What each client must receive: pushes in their order, what of them each shard holds, and what each
//! connection is due.
//!
//! Written from the contract and not from the tape: lists that are walked from one end to the other. Where more
//! than one thing is right (a reader that stands still, a target of which nothing was held), the model says
//! what is certain, and what may be. Time is a `Duration` since the run began.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub type Seq = u64;

/// Whose message it is. A push to several users is one to each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    All,
    Topic(u8),
    User(u8),
    Client(usize),
}

/// Where a client says that it was.
#[derive(Clone, Copy, Debug)]
pub enum Since {
    At(Seq),
    /// A position of another epoch.
    Foreign(Seq),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Raw,
    Json,
    EventStream,
    Poll,
}

/// `history.*` and `limits.send_backlog_bytes`, with what a message costs beside its frame.
#[derive(Clone, Debug)]
pub struct Limits {
    pub messages: usize,
    pub bytes: usize,
    pub age: Duration,
    pub backlog_bytes: usize,
    pub entry_bytes: usize,
    /// What the socket of a client surely takes before it is read: of a sluggish one, of the others.
    pub socket_bytes: [usize; 2],
}

impl Limits {
    /// Beyond it, not even those who stand still are waited for.
    fn bytes_hard(&self) -> usize {
        self.bytes + self.backlog_bytes.max(self.bytes / 2)
    }
}

/// Whether a resume is told of a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    Yes,
    No,
    /// Both are right.
    Either,
}

#[derive(Debug)]
struct Push {
    to: Vec<Target>,
    frame_bytes: usize,
    expires: Option<Duration>,
}

/// A message to one target on one shard.
#[derive(Debug)]
struct Entry {
    seq: Seq,
    target: Target,
    bytes: usize,
    added: Duration,
    held: bool,
}

/// The history of one shard.
#[derive(Debug, Default)]
struct Shard {
    entries: Vec<Entry>,
    /// Newest seq that came by.
    head: Seq,
    /// Newest seq no longer held.
    lost: Seq,
    /// Targets with something held or with subscribers, each with `lost` at the time when that began: what
    /// a target lost before nobody remembers, so a resume from before may be told of a gap.
    known: BTreeMap<Target, Seq>,
    /// Somebody stood still here: more may have been held for him, and less for others because of it.
    loose: bool,
    appended_bytes: usize,
}

/// A message that a connection has yet to receive.
#[derive(Clone, Copy, Debug)]
struct Due {
    seq: Seq,
    /// It is held for certain.
    held: bool,
    /// It expired, or its topic was left, while the client stood still: it may have been sent before.
    void: bool,
    /// The resume that it came with.
    resume: Option<usize>,
    /// It may come before what is replayed, or as part of it: `Model::catching_up`.
    early: bool,
}

impl Due {
    fn is_certain(self) -> bool {
        self.held && !self.void
    }
}

/// What a client must be told about a resume.
#[derive(Clone, Copy, Debug)]
struct Resumed {
    number: usize,
    gap: Gap,
    replayed_min: usize,
    replayed: usize,
    replayed_max: usize,
}

/// Who is established.
#[derive(Clone, Debug)]
pub struct Comer {
    /// Where it lives.
    pub shard: usize,
    pub user: Option<u8>,
    pub topics: BTreeSet<u8>,
    pub transport: Transport,
    pub sluggish: bool,
}

/// An established client.
#[derive(Debug)]
pub struct Connection {
    shard: usize,
    pub user: Option<u8>,
    pub topics: BTreeSet<u8>,
    pub transport: Transport,
    due: VecDeque<Due>,
    resumes: VecDeque<Resumed>,
    /// Has had everything of a target up to here already.
    ahead: BTreeMap<Target, Seq>,
    /// Does not read.
    pub stalled: bool,
    /// Frame bytes that came since it was caught up, and the shard's `appended_bytes` when it was.
    lag_bytes: usize,
    caught_up_at_bytes: usize,
    socket_bytes: usize,
    /// A poll is held; the others are always heard.
    pub open: bool,
}

impl Connection {
    fn targets(&self, id: usize) -> Vec<Target> {
        let topics = self.topics.iter().map(|&topic| Target::Topic(topic));
        topics.chain(self.user.map(Target::User)).chain([Target::All, Target::Client(id)]).collect()
    }

    /// Whether it has been told everything that is certain.
    pub fn is_satisfied(&self) -> bool {
        let told = match self.transport {
            Transport::Json => self.resumes.is_empty(),
            Transport::EventStream | Transport::Poll => {
                self.resumes.iter().all(|resume| resume.gap != Gap::Yes)
            }
            Transport::Raw => true,
        };
        told && !self.due.iter().any(|due| due.is_certain())
    }

    /// Whether a held poll may have been answered already, or not yet: both are right.
    pub fn may_be_answered(&self) -> bool {
        self.transport == Transport::Poll
            && (!self.due.is_empty() || self.resumes.iter().any(|resume| resume.gap != Gap::No))
    }
}

#[derive(Debug)]
pub struct Model {
    limits: Limits,
    pushes: Vec<Push>,
    shards: Vec<Shard>,
    pub connections: BTreeMap<usize, Connection>,
    resumes: usize,
    now: Duration,
    /// Somebody subscribed on a shard that has yet to take what is delivered: it may take some of it before
    /// the subscription, and replay after it.
    pub catching_up: bool,
}

impl Model {
    pub fn new(limits: Limits, shards: usize) -> Self {
        let shards = (0..shards).map(|_| Shard::default()).collect();
        let now = Duration::ZERO;
        Self {
            limits,
            pushes: Vec::new(),
            shards,
            connections: BTreeMap::new(),
            resumes: 0,
            now,
            catching_up: false,
        }
    }

    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    pub fn newest(&self) -> Seq {
        self.pushes.len() as Seq
    }

    pub fn is_to_topic(&self, seq: Seq) -> Option<u8> {
        match self.push_of(seq).to[..] {
            [Target::Topic(topic)] => Some(topic),
            _ => None,
        }
    }

    pub fn shard_of(&self, id: usize) -> usize {
        self.connections[&id].shard
    }

    fn push_of(&self, seq: Seq) -> &Push {
        &self.pushes[seq as usize - 1]
    }

    fn is_expired(&self, seq: Seq) -> bool {
        self.push_of(seq).expires.is_some_and(|expires| expires <= self.now)
    }

    /// A push is accepted; gives its seq. It comes to the shards by `deliver`.
    pub fn accept(&mut self, to: Vec<Target>, frame_bytes: usize, ttl: Option<Duration>) -> Seq {
        let expires = ttl.map(|ttl| self.now + ttl);
        self.pushes.push(Push { to, frame_bytes, expires });
        self.newest()
    }

    /// Push `seq` comes to `shard`, which owns those users for whom `owns` says so. Gives how many
    /// connections it is handed to, at least and at most.
    pub fn deliver(&mut self, shard: usize, seq: Seq, owns: impl Fn(u8) -> bool) -> (usize, usize) {
        let Self { pushes, shards, connections, limits, now, catching_up, .. } = self;
        let frame_bytes = |seq: Seq| pushes[seq as usize - 1].frame_bytes;
        let push = &pushes[seq as usize - 1];
        let history = &mut shards[shard];
        for &target in &push.to {
            if !matches!(target, Target::User(user) if !owns(user)) {
                history.append(seq, target, push.frame_bytes + limits.entry_bytes, *now);
            }
        }
        let (mut certain, mut possible) = (0, 0);
        for (&id, connection) in connections.iter_mut().filter(|(_, c)| c.shard == shard && c.open) {
            let target = connection.targets(id).into_iter().find(|target| push.to.contains(target));
            let Some(target) = target else { continue };
            if connection.ahead.get(&target).is_some_and(|&ahead| seq <= ahead) {
                continue;
            }
            possible += 1;
            certain += usize::from(!connection.stalled && !connection.may_be_answered());
            connection.lag_bytes += push.frame_bytes;
            let due_bytes: usize = connection.due.iter().map(|due| frame_bytes(due.seq)).sum();
            history.loose |= due_bytes + push.frame_bytes > connection.socket_bytes;
            connection.due.push_back(Due { seq, held: true, void: false, resume: None, early: *catching_up });
        }
        history.head = seq;
        (certain, possible)
    }

    /// What a shard does after it has sent: `history.*` are kept.
    pub fn trim(&mut self) {
        for (number, shard) in self.shards.iter_mut().enumerate() {
            shard.trim(&self.limits, self.now);
            let subscribed = |target: &Target| match target {
                Target::Topic(topic) => {
                    self.connections.values().any(|c| c.shard == number && c.open && c.topics.contains(topic))
                }
                Target::All => true,
                Target::User(_) | Target::Client(_) => false,
            };
            let Shard { entries, known, .. } = shard;
            let held = |target: &Target| entries.iter().any(|entry| entry.held && entry.target == *target);
            known.retain(|target, _| held(target) || subscribed(target));
        }
    }

    /// Time goes on: what expires is due to nobody any more.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        let expired: Vec<bool> = (1..=self.newest()).map(|seq| self.is_expired(seq)).collect();
        for due in self.connections.values_mut().flat_map(|connection| &mut connection.due) {
            due.void |= expired[due.seq as usize - 1];
        }
        self.trim();
    }

    /// A client is established, or polls again.
    pub fn connect(&mut self, id: usize, comer: Comer, since: Option<Since>) {
        let Comer { shard, user, topics, transport, sluggish } = comer;
        let connection = Connection {
            shard,
            user,
            topics,
            transport,
            due: VecDeque::new(),
            resumes: VecDeque::new(),
            ahead: BTreeMap::new(),
            stalled: false,
            lag_bytes: 0,
            caught_up_at_bytes: self.shards[shard].appended_bytes,
            socket_bytes: self.limits.socket_bytes[usize::from(!sluggish)],
            open: true,
        };
        connection.topics.iter().for_each(|&topic| self.shards[shard].meet(Target::Topic(topic)));
        let targets = connection.targets(id);
        self.connections.insert(id, connection);
        if let Some(since) = since {
            self.resume(id, &targets, since);
        }
    }

    fn resume(&mut self, id: usize, targets: &[Target], since: Since) {
        let number = self.resumes;
        self.resumes += 1;
        let (given_out, shard) = (self.newest(), self.connections[&id].shard);
        let history = &self.shards[shard];
        let after = match since {
            Since::At(seq) => seq,
            Since::Foreign(_) => 0,
        };
        let (dues, gap) = if after > given_out {
            (Vec::new(), Gap::Yes)
        } else {
            let (mut dues, gap) = history.after(targets, after, &self.limits, self.now);
            dues.retain(|due| !self.is_expired(due.seq));
            (dues, if matches!(since, Since::Foreign(_)) { Gap::Yes } else { gap })
        };
        let head = history.head;
        let connection = self.connections.get_mut(&id).expect("it is connected");
        if after > head && after <= given_out {
            connection.ahead.extend(targets.iter().map(|&target| (target, after)));
        }
        connection.resumes.push_back(Resumed {
            number,
            gap,
            replayed_min: dues.iter().filter(|due| due.held).count(),
            replayed: dues.len(),
            // What waits for the shard may come as part of it.
            replayed_max: dues.len() + (given_out - head) as usize,
        });
        connection.due.extend(dues.into_iter().map(|due| Due { resume: Some(number), ..due }));
    }

    /// New topics of a connection, from `since` on; those that it has already are left as they are.
    pub fn subscribe(&mut self, id: usize, topics: &BTreeSet<u8>, since: Option<Since>) {
        let connection = self.connections.get_mut(&id).expect("it is connected");
        let fresh: Vec<u8> = topics.difference(&connection.topics).copied().collect();
        connection.topics.extend(&fresh);
        let shard = connection.shard;
        let targets: Vec<Target> = fresh.into_iter().map(Target::Topic).collect();
        targets.iter().for_each(|&target| self.shards[shard].meet(target));
        if let Some(since) = since {
            self.resume(id, &targets, since);
        }
        if !since.is_some_and(|since| self.is_known(since)) {
            // From now on, and for a client that resumed from ahead that is later.
            let connection = self.connections.get_mut(&id).expect("it is connected");
            let resumed_at = connection.ahead.values().copied().max().unwrap_or(0);
            connection.ahead.extend(targets.into_iter().map(|target| (target, resumed_at)));
        }
    }

    /// Whether there is anything after this position, be it of another epoch.
    fn is_known(&self, since: Since) -> bool {
        matches!(since, Since::Foreign(_)) || matches!(since, Since::At(seq) if seq <= self.newest())
    }

    /// What was on its way for a topic may be lost with it.
    pub fn unsubscribe(&mut self, id: usize, topics: &BTreeSet<u8>) {
        let Self { connections, pushes, .. } = self;
        let connection = connections.get_mut(&id).expect("it is connected");
        connection.topics.retain(|topic| !topics.contains(topic));
        for due in &mut connection.due {
            let to = &pushes[due.seq as usize - 1].to;
            due.void |=
                to.iter().any(|target| matches!(target, Target::Topic(topic) if topics.contains(topic)));
        }
        self.trim();
    }

    pub fn disconnect(&mut self, id: usize) {
        self.connections.remove(&id);
        self.trim();
    }

    /// From here on it does not read.
    pub fn stall(&mut self, id: usize) {
        let connection = self.connections.get_mut(&id).expect("it is connected");
        let shard = &mut self.shards[connection.shard];
        shard.loose = true;
        connection.stalled = true;
    }

    /// Everybody who reads has had what is due to him.
    pub fn settled(&mut self) {
        for connection in self.connections.values_mut().filter(|connection| !connection.stalled) {
            let appended_bytes = self.shards[connection.shard].appended_bytes;
            (connection.lag_bytes, connection.caught_up_at_bytes) = (0, appended_bytes);
        }
    }

    /// It reads on, and has been sent everything.
    pub fn read_on(&mut self, id: usize) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.stalled = false;
            connection.due.retain(|due| due.is_certain());
        }
    }

    /// A message came to a client.
    pub fn received(&mut self, id: usize, seq: Seq) -> Result<(), String> {
        let connection = self.connections.get_mut(&id).ok_or("a message behind the end")?;
        if !connection.due.iter().any(|due| due.seq == seq) {
            return Err(format!("{seq} is not due (twice, out of order or not for it): {connection:?}"));
        }
        let at = connection.due.iter().position(|due| due.seq == seq).expect("looked for above");
        let may_wait = |due: &Due| due.resume.is_some() || due.early || !due.is_certain();
        if connection.due[at].early && connection.due.iter().take(at).all(may_wait) {
            connection.due.remove(at);
            return Ok(());
        }
        while let Some(due) = connection.due.pop_front() {
            if due.seq == seq {
                // On its way when its topic was left, and replayed when it was subscribed again: one came, and
                // nobody can say which.
                let again = connection.due.iter_mut().find(|again| again.seq == seq);
                if let Some(again) = again.filter(|_| !due.is_certain()) {
                    again.void = true;
                }
                return Ok(());
            }
            if due.is_certain() {
                return Err(format!("{} is lost: {seq} came: {connection:?}", due.seq));
            }
        }
        unreachable!("it is due");
    }

    /// A client is told what its oldest resume came to; `replayed` where the transport says it.
    pub fn resumed(&mut self, id: usize, gap: bool, replayed: Option<usize>) -> Result<(), String> {
        let connection = self.connections.get_mut(&id).ok_or("told behind the end")?;
        let Some(resume) = connection.resumes.pop_front() else {
            return Err("told of a resume that was not asked for".to_owned());
        };
        let right = match resume.gap {
            Gap::Yes => gap,
            Gap::No => !gap,
            Gap::Either => true,
        };
        // No gap: then all of it is held.
        let least = if gap { resume.replayed_min } else { resume.replayed };
        if !right || replayed.is_some_and(|count| !(least..=resume.replayed_max).contains(&count)) {
            return Err(format!("told gap {gap}, replayed {replayed:?}; it is {resume:?}"));
        }
        if !gap {
            let with_it = |due: &&mut Due| due.resume == Some(resume.number);
            connection.due.iter_mut().filter(with_it).for_each(|due| due.held = true);
        }
        Ok(())
    }

    /// Whether `resumed` is still to come.
    pub fn is_resuming(&self, id: usize) -> bool {
        self.connections.get(&id).is_some_and(|connection| !connection.resumes.is_empty())
    }

    /// A client would resume from here: nothing that it has yet to receive may lie before.
    pub fn stands_at(&self, id: usize, seq: Seq) -> Result<(), String> {
        let Some(connection) = self.connections.get(&id) else { return Ok(()) };
        if seq > self.newest() {
            return Err(format!("told position {seq}, the newest is {}", self.newest()));
        }
        match connection.due.iter().find(|due| due.is_certain() && due.seq <= seq) {
            Some(due) => Err(format!("told position {seq}, but {} is not received: {connection:?}", due.seq)),
            None => Ok(()),
        }
    }

    /// A poll has its answer: what else there is comes with the next.
    pub fn answered(&mut self, id: usize) {
        let connection = self.connections.get_mut(&id).expect("it polls");
        connection.open = false;
        connection.due.clear();
        connection.resumes.clear();
        self.trim();
    }

    /// A connection was cut for being slow: only one that was too far behind.
    pub fn cut(&mut self, id: usize) -> Result<(), String> {
        let connection = &self.connections[&id];
        let appended = self.shards[connection.shard].appended_bytes - connection.caught_up_at_bytes;
        let too_far = connection.lag_bytes > self.limits.backlog_bytes;
        let pushed_out = appended > self.limits.bytes_hard() - self.limits.bytes;
        if !(too_far || pushed_out) {
            return Err(format!("cut as slow, and is not ({appended} bytes came): {connection:?}"));
        }
        self.disconnect(id);
        Ok(())
    }
}

impl Shard {
    /// `target` has something held, or a subscriber.
    fn meet(&mut self, target: Target) {
        self.known.entry(target).or_insert(self.lost);
    }

    fn append(&mut self, seq: Seq, target: Target, bytes: usize, now: Duration) {
        // What is for one connection goes with it: nobody resumes it.
        let held = !matches!(target, Target::Client(_));
        if held {
            self.meet(target);
        }
        self.appended_bytes += bytes;
        self.entries.push(Entry { seq, target, bytes, added: now, held });
    }

    /// The oldest go, until every limit is kept.
    fn trim(&mut self, limits: &Limits, now: Duration) {
        let mut newer: BTreeMap<Target, usize> = BTreeMap::new();
        for entry in self.entries.iter_mut().rev().filter(|entry| entry.held) {
            let newer = newer.entry(entry.target).or_default();
            *newer += 1;
            entry.held = *newer <= limits.messages && now - entry.added < limits.age;
        }
        let mut bytes: usize = self.entries.iter().filter(|entry| entry.held).map(|entry| entry.bytes).sum();
        for entry in self.entries.iter_mut().filter(|entry| entry.held) {
            if bytes <= limits.bytes {
                break;
            }
            bytes -= entry.bytes;
            entry.held = false;
        }
        let lost = self.entries.iter().filter(|e| !e.held && !matches!(e.target, Target::Client(_)));
        self.lost = lost.map(|entry| entry.seq).max().unwrap_or(0);
    }

    /// What of `targets` came after `after`, and whether there is a gap.
    fn after(&self, targets: &[Target], after: Seq, limits: &Limits, now: Duration) -> (Vec<Due>, Gap) {
        let sure = self.surely_held(limits, now);
        let mut dues = Vec::new();
        let (mut own_lost, mut any_lost) = (false, false);
        for (entry, &sure) in self.entries.iter().zip(&sure).filter(|(entry, _)| entry.seq > after) {
            let own = targets.contains(&entry.target) && !matches!(entry.target, Target::Client(_));
            let held = if self.loose { sure } else { entry.held };
            own_lost |= own && !held;
            any_lost |= !held && !matches!(entry.target, Target::Client(_));
            if own && (held || self.loose) {
                dues.push(Due { seq: entry.seq, held, void: false, resume: None, early: false });
            }
        }
        let known_since = |target: &Target| match target {
            Target::All | Target::Client(_) => 0,
            target => self.known.get(target).copied().unwrap_or(self.lost),
        };
        let gap = match (self.loose, own_lost) {
            (true, _) if any_lost => Gap::Either,
            (false, true) => Gap::Yes,
            _ if targets.iter().map(known_since).any(|since| since > after) => Gap::Either,
            _ => Gap::No,
        };
        (dues, gap)
    }

    /// What is held whoever stands still: everything that came is counted as if it were held.
    fn surely_held(&self, limits: &Limits, now: Duration) -> Vec<bool> {
        let (mut newer, mut bytes) = (BTreeMap::<Target, usize>::new(), 0);
        let mut sure: Vec<bool> = Vec::new();
        for entry in self.entries.iter().rev() {
            let newer = newer.entry(entry.target).or_default();
            *newer += 1;
            bytes += entry.bytes;
            let young = now - entry.added < limits.age;
            sure.push(*newer <= limits.messages && bytes <= limits.bytes && young);
        }
        sure.reverse();
        sure
    }
}
