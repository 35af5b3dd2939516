//! Lists of topics: a page of them by name, gathered from all shards.
//!
//! A shard is asked for one short step at a time and tells only what may be on the page, so that a list of a
//! million topics holds up neither a shard nor control. No I/O; what is found comes in by `take`.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::command::{Answer, CommandError, ErrorCode, TopicsPage, TopicsQuery};
use super::inquiries::{ClientId, TopicSum, Waiter, topic_answer};
use super::queries;
use super::sequencer::Sequencer;
use crate::message::Topic;
use crate::shard::mailbox::{Request, TopicCount, TopicsFound, TopicsStep};

/// Topics on a page, unless it is said how many.
pub const LIMIT_DEFAULT: u32 = 1000;
/// Topics on a page, at most.
pub const LIMIT_MAX: u32 = 10_000;
/// Lists at once. One more is `busy`.
const LISTS_MAX: usize = 64;

/// Names one list.
pub type ListId = u64;

#[derive(Debug)]
struct List {
    client: ClientId,
    correlation: u64,
    /// Answered as `Answer::Topics`, which tells of no next page.
    alone: bool,
    after: Option<Topic>,
    page: TopicPage,
    /// The shard that is looked at, and where it stands there.
    shard: u16,
    from: u32,
}

/// All lists that are made.
#[derive(Debug, Default)]
pub struct TopicLists {
    running: HashMap<ListId, List>,
    next_id: ListId,
    /// Those with a step to be asked for, in order.
    queue: VecDeque<ListId>,
    /// A step is under way: one at a time, of all lists.
    looking: bool,
}

impl TopicLists {
    /// Begins a page for one request of `waiter`. Errors: `bad_request` for a limit out of range, `busy` when too
    /// many are made.
    pub fn begin(&mut self, query: TopicsQuery, waiter: Waiter) -> Result<(), CommandError> {
        let limit = queries::limit(query.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
        self.insert(query.after, limit, false, waiter)
    }

    /// The first `LIMIT_MAX` by name, for `Command::Topics`. Errors: `busy`.
    pub fn begin_first(&mut self, waiter: Waiter) -> Result<(), CommandError> {
        self.insert(None, LIMIT_MAX, true, waiter)
    }

    fn insert(
        &mut self,
        after: Option<Topic>,
        limit: u32,
        alone: bool,
        waiter: Waiter,
    ) -> Result<(), CommandError> {
        if self.running.len() >= LISTS_MAX {
            let message = format!("{LISTS_MAX} lists of topics are being made, try again");
            return Err(CommandError::new(ErrorCode::Busy, message));
        }
        let Waiter::Client { client, correlation } = waiter else { return Ok(()) };
        let page = TopicPage::new(limit as usize);
        let list = List { client, correlation, alone, after, page, shard: 0, from: 0 };
        self.running.insert(self.next_id, list);
        self.queue.push_back(self.next_id);
        self.next_id += 1;
        Ok(())
    }

    /// Whether a step waits for room in a mailbox, so that time alone may change something.
    pub fn is_held(&self) -> bool {
        !self.queue.is_empty() && !self.looking
    }

    /// Asks for the next step, unless one is under way.
    pub fn ask(&mut self, sequencer: &mut Sequencer) {
        while !self.looking {
            let Some(id) = self.queue.pop_front() else { return };
            // Who asked may have gone.
            let Some(list) = self.running.get(&id) else { continue };
            let step = TopicsStep { from: list.from, after: list.after.clone(), bound: list.page.bound() };
            if sequencer.ask_one(list.shard, Request::Topics(step), Waiter::Topics(id)).is_err() {
                return self.queue.push_front(id);
            }
            self.looking = true;
        }
    }

    /// Takes what a step of list `id` found. Gives the answer once the page is complete, and who asked.
    pub fn take(
        &mut self,
        id: ListId,
        found: TopicsFound,
        sequencer: &Sequencer,
    ) -> Option<(Waiter, Answer)> {
        self.looking = false;
        let list = self.running.get_mut(&id)?;
        found.topics.into_iter().for_each(|count| list.page.take(count));
        match found.next {
            Some(next) => list.from = next,
            None => (list.shard, list.from) = (list.shard + 1, 0),
        }
        if usize::from(list.shard) < sequencer.shard_count() {
            self.queue.push_back(id);
            return None;
        }
        let list = self.running.remove(&id)?;
        let page = list.page.finish(sequencer.position().epoch);
        let answer = if list.alone { Answer::Topics(page.topics) } else { Answer::TopicsPage(page) };
        Some((Waiter::Client { client: list.client, correlation: list.correlation }, answer))
    }

    /// Ends what a client has asked for: it is gone.
    pub fn forget(&mut self, client: ClientId) {
        self.running.retain(|_, list| list.client != client);
    }
}

/// A page that is gathered: the first by name of all that were found so far.
#[derive(Debug)]
struct TopicPage {
    /// One more than are asked for, so that it is seen whether the list goes on.
    topics_max: usize,
    topics: BTreeMap<Topic, TopicSum>,
}

impl TopicPage {
    fn new(limit: usize) -> Self {
        Self { topics_max: limit + 1, topics: BTreeMap::new() }
    }

    /// Nothing behind this is of use any more; anything while there is room.
    fn bound(&self) -> Option<Topic> {
        let last = self.topics.last_key_value().filter(|_| self.topics.len() == self.topics_max);
        last.map(|(topic, _)| topic.clone())
    }

    fn take(&mut self, count: TopicCount) {
        self.topics.entry(count.topic.clone()).or_default().add(&count);
        if self.topics.len() > self.topics_max {
            self.topics.pop_last();
        }
    }

    fn finish(mut self, epoch: u32) -> TopicsPage {
        let goes_on = self.topics.len() == self.topics_max;
        if goes_on {
            self.topics.pop_last();
        }
        let next = self.topics.last_key_value().filter(|_| goes_on).map(|(topic, _)| topic.clone());
        let topics = self.topics.into_iter().map(|(topic, sum)| topic_answer(topic, &sum, epoch)).collect();
        TopicsPage { topics, next }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn count(number: u16, connections: u64) -> TopicCount {
        let topic = format!("t{number:05}").parse().expect("a name");
        TopicCount { topic, connections, seq: 0, pushes: 0 }
    }

    proptest! {
        #[test]
        fn issue_7_a_page_has_the_first_by_name_with_the_sums_of_all_shards(
            shards in prop::collection::vec(prop::collection::btree_set(0..60u16, 0..40), 1..4),
            limit in 1..30usize,
        ) {
            let mut page = TopicPage::new(limit);
            for number in shards.iter().flatten() {
                page.take(count(*number, 1));
            }
            let all: BTreeSet<u16> = shards.iter().flatten().copied().collect();
            let expected: Vec<_> = all.iter().take(limit).map(|&number| {
                (count(number, 0).topic, shards.iter().filter(|shard| shard.contains(&number)).count() as u64)
            }).collect();
            let TopicsPage { topics, next } = page.finish(1);
            prop_assert_eq!(next.is_some(), all.len() > limit);
            prop_assert_eq!(next.is_none_or(|next| next == expected[limit - 1].0), true);
            let got: Vec<_> = topics.into_iter().map(|topic| (topic.topic, topic.connections)).collect();
            prop_assert_eq!(got, expected);
        }
    }
}
