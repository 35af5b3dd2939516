//! Answers that wait for shards: one inquiry per command posted, complete when every shard it concerns
//! has replied.
//!
//! A slab with generations: no allocation per push, and a reply to an inquiry long gone finds nobody.

use std::rc::Rc;

use super::command::TopicAnswer;
use super::scans::ScanId;
use super::topics::ListId;
use super::trace::Begun;
use crate::connections::{Detail, Found};
use crate::message::{Position, Topic};
use crate::shard::mailbox::{Inquiry, Presence, Reply, TopicCount, TopicsFound};
use crate::stats::ShardStats;

/// Names one client of the control socket; a stale one finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientId {
    /// Its slot.
    pub index: u32,
    /// How often the slot had been used before.
    pub generation: u32,
}

/// Who gets an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiter {
    /// A client, for one of its requests.
    Client {
        /// Which.
        client: ClientId,
        /// Its name for the request; 0 over HTTP.
        correlation: u64,
    },
    /// A batch of pushes, itself waited for.
    Batch(BatchId),
    /// The drain, which looks how many connections are left.
    Drain,
    /// The supervision, which tells the service manager how many there are.
    Supervision,
    /// Everybody who has the counters told at an interval, and is due.
    Readers,
    /// A reload, which is over when all shards have taken it.
    Reload,
    /// Nobody: it is enough that it is done.
    Nobody,
    /// A scan over the shards' connections.
    Scan(ScanId),
    /// A list of topics.
    Topics(ListId),
}

/// Names one running batch.
pub type BatchId = u32;

/// What is put together from the shards' replies.
#[derive(Debug)]
pub enum Gathering {
    /// `Answer::Pushed`
    Pushed {
        /// The position it got.
        seq: u64,
        /// Its idempotency key.
        key: Option<Rc<str>>,
    },
    /// `Answer::Presence`
    Presence(Vec<Presence>),
    /// `Answer::Closed`
    Closed,
    /// `Answer::Bound`
    Bound,
    /// `Answer::Topics` with this one.
    Topic(Topic, TopicSum),
    /// `Answer::Stats`, for the desk to complete.
    Stats(Vec<ShardStats>),
    /// A trace that begins.
    Traced(Begun),
    /// Nothing but that all have replied.
    Done,
    /// What a step of a scan found.
    Found(Option<Found>),
    /// What a step of a list of topics found.
    TopicsFound(Option<TopicsFound>),
    /// `Answer::Connection`, or nobody.
    Detail(Option<Box<Detail>>),
}

/// One topic over the shards that have replied.
#[derive(Debug, Default)]
pub struct TopicSum {
    connections: u64,
    /// The newest, 0 for none.
    seq: u64,
    /// Of the shard that has counted the most: a push to a topic goes to all of them.
    pushes: u32,
}

/// One inquiry.
#[derive(Debug)]
pub struct Pending {
    /// Who asked.
    pub waiter: Waiter,
    /// Who pushed with the same key meanwhile.
    pub also: Vec<Waiter>,
    /// Replies that are due.
    pub left: u16,
    /// Connections, over the replies that are there.
    pub sum: u64,
    /// The rest of the answer.
    pub gathering: Gathering,
}

impl Pending {
    /// Waits for `left` replies.
    pub fn new(waiter: Waiter, left: u16, gathering: Gathering) -> Self {
        Self { waiter, also: Vec::new(), left, sum: 0, gathering }
    }

    fn take(&mut self, reply: Reply) {
        match (reply, &mut self.gathering) {
            (Reply::Delivered(n) | Reply::Closed(n) | Reply::Bound(n), _) => self.sum += u64::from(n),
            (Reply::Presence(mut here), Gathering::Presence(all)) => all.append(&mut here),
            (Reply::Topic(here), Gathering::Topic(_, sum)) => here.iter().for_each(|count| sum.add(count)),
            (Reply::TopicsFound(here), Gathering::TopicsFound(found)) => *found = Some(here),
            (Reply::Stats(here), Gathering::Stats(all)) => all.push(*here),
            (Reply::Traced(mut here), Gathering::Traced(begun)) => begun.connections.append(&mut here),
            (Reply::Done, _) => {}
            (Reply::Found(here), Gathering::Found(found)) => *found = Some(here),
            (Reply::Detail(here), Gathering::Detail(detail)) => *detail = here,
            (reply, gathering) => debug_assert!(false, "{reply:?} does not answer {gathering:?}"),
        }
    }
}

impl TopicSum {
    /// Adds what one shard counts.
    pub fn add(&mut self, count: &TopicCount) {
        self.connections += count.connections;
        (self.seq, self.pushes) = (self.seq.max(count.seq), self.pushes.max(count.pushes));
    }
}

/// A topic over all shards as an answer.
pub fn topic_answer(topic: Topic, sum: &TopicSum, epoch: u32) -> TopicAnswer {
    let &TopicSum { connections, seq, pushes } = sum;
    TopicAnswer { topic, connections, position: (seq > 0).then_some(Position { epoch, seq }), pushes }
}

#[derive(Debug, Default)]
struct Entry {
    generation: u32,
    pending: Option<Pending>,
}

/// All inquiries.
#[derive(Debug, Default)]
pub struct Inquiries {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

impl Inquiries {
    /// Opens an inquiry.
    pub fn open(&mut self, pending: Pending) -> Inquiry {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            (self.entries.len() - 1) as u32
        });
        let entry = &mut self.entries[index as usize];
        entry.pending = Some(pending);
        u64::from(entry.generation) << 32 | u64::from(index)
    }

    /// The inquiry while it is open.
    pub fn pending(&mut self, inquiry: Inquiry) -> Option<&mut Pending> {
        let entry = self.entries.get_mut(inquiry as u32 as usize)?;
        (entry.generation == (inquiry >> 32) as u32).then_some(entry.pending.as_mut()).flatten()
    }

    /// Takes one shard's reply; gives the inquiry back when it was the last one due.
    pub fn reply(&mut self, inquiry: Inquiry, reply: Reply) -> Option<Pending> {
        let pending = self.pending(inquiry)?;
        pending.take(reply);
        pending.left -= 1;
        (pending.left == 0).then(|| self.close(inquiry))
    }

    fn close(&mut self, inquiry: Inquiry) -> Pending {
        let index = inquiry as u32;
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(index);
        entry.pending.take().expect("an open inquiry was looked up")
    }
}
