//! Who is subscribed to what, on this shard.
//!
//! A topic's members are slot numbers in one vector; each slot knows its place in it, so that leaving
//! costs nothing. A topic nobody is subscribed to and the tape holds nothing of is forgotten.

use std::collections::HashMap;

use super::conn::{NONE, Table};
use super::tape::{ChainId, Owner, Tape};
use crate::message::Topic;

/// A topic of this shard; reused once the topic is forgotten.
pub type TopicId = u32;

/// All topics of one shard.
#[derive(Debug, Default)]
pub struct Topics {
    ids: HashMap<Topic, TopicId>,
    records: Vec<Option<Record>>,
    free: Vec<TopicId>,
    subscribed: usize,
    /// Bytes of all names and lists of members.
    record_bytes: usize,
}

#[derive(Debug)]
struct Record {
    topic: Topic,
    members: Vec<u32>,
    chain: ChainId,
    /// Pushes to it since it is known, wrapping.
    pushes: u32,
}

const _: () = assert!(size_of::<Option<Record>>() <= 48, "as many of these as there are topics");

/// The counts before the text of a `Topic`: it is shared.
const NAME_HEAD_BYTES: usize = 2 * size_of::<usize>();

impl Topics {
    /// Bytes that it takes.
    pub fn memory_bytes(&self) -> usize {
        // A control byte for each place of the index, and an eighth of the places stay free.
        let indexed = (self.ids.capacity() * 8).div_ceil(7) * (size_of::<(Topic, TopicId)>() + 1);
        let records = self.records.capacity() * size_of::<Option<Record>>();
        indexed + records + self.free.capacity() * size_of::<TopicId>() + self.record_bytes
    }

    /// Topics with at least one subscriber.
    pub fn subscribed(&self) -> usize {
        self.subscribed
    }

    /// The topic's number, if it is known here.
    pub fn id(&self, topic: &Topic) -> Option<TopicId> {
        self.ids.get(topic).copied()
    }

    /// The topic's number; it is made known.
    pub fn intern(&mut self, topic: &Topic, tape: &mut Tape) -> TopicId {
        if let Some(id) = self.id(topic) {
            return id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.records.push(None);
            self.records.len() as TopicId - 1
        });
        let chain = tape.open_chain(Owner::Topic(id));
        self.records[id as usize] =
            Some(Record { topic: topic.clone(), members: Vec::new(), chain, pushes: 0 });
        self.ids.insert(topic.clone(), id);
        self.record_bytes += topic.as_str().len() + NAME_HEAD_BYTES;
        id
    }

    fn record(&self, id: TopicId) -> &Record {
        self.records[id as usize].as_ref().expect("a topic in use is known")
    }

    fn record_mut(&mut self, id: TopicId) -> &mut Record {
        self.records[id as usize].as_mut().expect("a topic in use is known")
    }

    /// Its name.
    pub fn name(&self, id: TopicId) -> &Topic {
        &self.record(id).topic
    }

    /// Where the tape holds its messages.
    pub fn chain(&self, id: TopicId) -> ChainId {
        self.record(id).chain
    }

    /// Slots subscribed to it.
    pub fn members(&self, id: TopicId) -> &[u32] {
        &self.record(id).members
    }

    /// Counts a push to it.
    pub fn count_push(&mut self, id: TopicId) {
        let record = self.record_mut(id);
        record.pushes = record.pushes.wrapping_add(1);
    }

    /// Pushes to it since it is known here; from 0 again after `u32::MAX`.
    pub fn pushes(&self, id: TopicId) -> u32 {
        self.record(id).pushes
    }

    /// Those with a subscriber among the `count` topics from number `from` on, and where it goes on.
    pub fn some(&self, from: TopicId, count: usize) -> (impl Iterator<Item = TopicId>, Option<TopicId>) {
        let from = (from as usize).min(self.records.len());
        let end = self.records.len().min(from + count);
        let records = self.records[from..end].iter().zip(from as TopicId..);
        let subscribed = records.filter(|(record, _)| record.as_ref().is_some_and(|r| !r.members.is_empty()));
        (subscribed.map(|(_, id)| id), (end < self.records.len()).then_some(end as TopicId))
    }

    /// What slot `index` is subscribed to, in the order of subscribing.
    pub fn of<'t>(&self, table: &'t Table, index: u32) -> impl Iterator<Item = TopicId> + use<'t> {
        let slot = &table[index];
        let first = (slot.topic != NONE).then_some(slot.topic);
        let others = slot.rare.iter().flat_map(|rare| rare.topics.iter().map(|&(id, _)| id));
        first.into_iter().chain(others)
    }

    /// Subscribes slot `index`; false if it was already.
    pub fn subscribe(&mut self, table: &mut Table, index: u32, id: TopicId) -> bool {
        if self.of(table, index).any(|present| present == id) {
            return false;
        }
        let members = &mut self.record_mut(id).members;
        let (place, room) = (members.len() as u32, members.capacity());
        members.push(index);
        let grown = members.capacity() - room;
        self.record_bytes += grown * size_of::<u32>();
        self.subscribed += usize::from(place == 0);
        let slot = &mut table[index];
        if slot.topic == NONE {
            (slot.topic, slot.topic_place) = (id, place);
        } else {
            slot.rare().topics.push((id, place));
        }
        true
    }

    /// Unsubscribes slot `index`; false if it was not subscribed.
    pub fn unsubscribe(&mut self, table: &mut Table, index: u32, id: TopicId, tape: &mut Tape) -> bool {
        let slot = &mut table[index];
        let place = if slot.topic == id {
            let place = slot.topic_place;
            let second =
                slot.rare.as_mut().filter(|rare| !rare.topics.is_empty()).map(|rare| rare.topics.remove(0));
            (slot.topic, slot.topic_place) = second.unwrap_or((NONE, 0));
            place
        } else {
            let Some(rare) = slot.rare.as_mut() else { return false };
            let Some(at) = rare.topics.iter().position(|&(present, _)| present == id) else { return false };
            rare.topics.remove(at).1
        };
        slot.tidy();
        self.leave(table, id, place);
        self.forget_if_unused(id, tape);
        true
    }

    /// Unsubscribes slot `index` from everything.
    pub fn unsubscribe_all(&mut self, table: &mut Table, index: u32, tape: &mut Tape) {
        while table[index].topic != NONE {
            let id = table[index].topic;
            self.unsubscribe(table, index, id, tape);
        }
    }

    fn leave(&mut self, table: &mut Table, id: TopicId, place: u32) {
        let members = &mut self.record_mut(id).members;
        members.swap_remove(place as usize);
        let moved = members.get(place as usize).copied();
        self.subscribed -= usize::from(members.is_empty());
        let Some(moved) = moved else { return };
        let slot = &mut table[moved];
        if slot.topic == id {
            slot.topic_place = place;
            return;
        }
        let rare = slot.rare.as_mut().expect("a second subscription is in the rare state");
        let entry = rare.topics.iter_mut().find(|(present, _)| *present == id);
        entry.expect("a member is subscribed").1 = place;
    }

    /// Forgets the topic if nobody is subscribed and the tape holds nothing of it.
    pub fn forget_if_unused(&mut self, id: TopicId, tape: &mut Tape) {
        let Some(record) = self.records[id as usize].as_ref() else { return };
        if !record.members.is_empty() || !tape.is_chain_empty(record.chain) {
            return;
        }
        tape.close_chain(record.chain);
        let members_bytes = record.members.capacity() * size_of::<u32>();
        self.record_bytes -= record.topic.as_str().len() + NAME_HEAD_BYTES + members_bytes;
        self.ids.remove(&record.topic);
        self.records[id as usize] = None;
        self.free.push(id);
    }
}
