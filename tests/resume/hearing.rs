//! What a client heard, held against the model.

use std::collections::BTreeSet;

use corecast::message::{ConnId, Position};

use crate::client::{Client, Heard, Message};
use crate::model::{Seq, Transport};
use crate::run::{Machine, Outcome, Run, topic_name};

/// A client and what the test knows of it.
pub struct Peer {
    pub client: Client,
    pub transport: Transport,
    pub user: Option<u8>,
    pub topics: BTreeSet<u8>,
    /// Where it would resume.
    pub position: Option<Seq>,
    pub connection: Option<ConnId>,
    pub greeted: bool,
    /// Frames of its own that are not answered.
    pub unanswered: usize,
    pub sluggish: bool,
    pub reads: bool,
    pub kicked: bool,
    pub gone: bool,
}

impl<M: Machine> Run<M> {
    /// Takes what a client heard to the model.
    pub fn heard(&mut self, id: usize, heard: Heard) -> Outcome {
        let epoch = self.machine.epoch();
        let resuming = self.model.is_resuming(id);
        let peer = self.peers.get_mut(&id).expect("it was heard");
        match heard {
            Heard::Open => peer.greeted = true,
            Heard::Hello { connection, position } => {
                (peer.greeted, peer.connection) = (true, connection.parse().ok());
                if position.epoch != epoch || position.seq > self.model.newest() {
                    return Err(format!("hello tells {position}"));
                }
                peer.position = peer.position.or((!resuming).then_some(position.seq));
            }
            Heard::Resumed { replayed, gap } => self.model.resumed(id, gap, Some(replayed as usize))?,
            Heard::Replied if peer.unanswered == 0 => return Err("a reply to nothing".to_owned()),
            Heard::Replied => peer.unanswered -= 1,
            Heard::Message(message) => self.message(id, &message)?,
            Heard::Gap => self.model.resumed(id, true, None)?,
            Heard::Answer { next, gap, messages } => self.answered(id, next, gap, &messages)?,
            Heard::Refused(403) | Heard::Closed(4500) if peer.kicked => peer.gone = true,
            Heard::Closed(4000) => {
                peer.gone = true;
                self.model.cut(id)?;
            }
            Heard::End if peer.gone => {}
            Heard::Refused(_) | Heard::Closed(_) | Heard::End => return Err(format!("it hears {heard:?}")),
        }
        let peer = &self.peers[&id];
        if let (Transport::EventStream, Some(at)) = (peer.transport, peer.client.last_event_id()) {
            return self.would_resume_at(id, at);
        }
        Ok(())
    }

    fn message(&mut self, id: usize, message: &Message) -> Outcome {
        let transport = self.peers[&id].transport;
        if transport == Transport::EventStream && self.model.is_resuming(id) {
            // A gap would have been told before.
            self.model.resumed(id, false, None)?;
        }
        let text = message.data.as_str().expect("a string");
        let seq: Seq = text.split(' ').next().and_then(|seq| seq.parse().ok()).expect("a seq");
        let epoch = self.machine.epoch();
        if message.position.is_some_and(|position| position != Position { epoch, seq }) {
            return Err(format!("{seq} comes as {:?}", message.position));
        }
        let topic = self.model.is_to_topic(seq).map(|topic| topic_name(topic).to_string());
        if matches!(transport, Transport::Json | Transport::Poll) && message.topic != topic {
            return Err(format!("{seq} is of topic {topic:?}, and said to be of {:?}", message.topic));
        }
        self.model.received(id, seq)?;
        let peer = self.peers.get_mut(&id).expect("it was heard");
        peer.position = peer.position.max(Some(seq));
        Ok(())
    }

    fn answered(&mut self, id: usize, next: Position, gap: bool, messages: &[Message]) -> Outcome {
        if self.model.is_resuming(id) {
            self.model.resumed(id, gap, None)?;
        } else if gap {
            return Err("a gap that nobody asked about".to_owned());
        }
        messages.iter().try_for_each(|message| self.message(id, message))?;
        let last = messages.last().and_then(|message| message.position);
        if last.is_some_and(|last| last.seq > next.seq) {
            return Err(format!("next is {next}, behind {last:?}"));
        }
        self.would_resume_at(id, next)?;
        self.model.answered(id);
        Ok(())
    }

    fn would_resume_at(&mut self, id: usize, at: Position) -> Outcome {
        if at.epoch != self.machine.epoch() {
            return Err(format!("told {at}, of another epoch"));
        }
        self.model.stands_at(id, at.seq)?;
        self.peers.get_mut(&id).expect("it was heard").position = Some(at.seq);
        Ok(())
    }
}
