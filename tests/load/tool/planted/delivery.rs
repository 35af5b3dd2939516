//! From a publish to what each connection is sent.

use std::sync::Arc;
use std::time::Instant;

use super::To;
use super::link::{Link, Purpose, State, What};
use super::octets::{self, BETWEEN};
use super::script::{End, Framing, Script, Writing, falls_on};
use super::service::Service;
use super::tally::{Seen, Tally};

/// A message as it is served: what is dropped is not in the log, what is sent twice is in it twice.
#[derive(Clone)]
pub struct Message {
    /// As it was published, from 1 up.
    number: u64,
    to: To,
    payload: Arc<[u8]>,
}

/// Everything that is served, in order.
#[derive(Default)]
pub struct Log {
    messages: Vec<Message>,
    /// Waits for the message that overtakes it.
    overtaken: Option<Message>,
}

impl Log {
    /// The position of the next message.
    pub fn end(&self) -> usize {
        self.messages.len()
    }
}

impl Service {
    /// `from` is the client whose message it is, where it is one's.
    pub(super) fn publish(&mut self, to: To, payload: Arc<[u8]>, from: Option<usize>, tally: &mut Tally) {
        tally.published += 1;
        let number = tally.published;
        let message = Message { number, to, payload };
        let concerned = |(id, link): &(&usize, &Link)| {
            from != Some(**id) && tally.connections[**id].is_open() && is_for(&message, link)
        };
        let receivers = self.links.iter().filter(concerned).count() as u64;
        if falls_on(self.script.drops, number) {
            tally.dropped += 1;
            tally.missed += receivers;
            return;
        }
        if falls_on(self.script.swaps, number) && self.log.overtaken.is_none() {
            tally.swapped += 1;
            self.log.overtaken = Some(message);
            return;
        }
        if falls_on(self.script.doubles, number) {
            tally.doubled += 1;
            tally.extra += receivers;
            self.serve(message.clone(), tally);
        }
        self.serve(message, tally);
        if let Some(overtaken) = self.log.overtaken.take() {
            self.serve(overtaken, tally);
        }
    }

    /// Puts a message into the log and hands it to everybody it is for.
    fn serve(&mut self, message: Message, tally: &mut Tally) {
        let position = self.log.end();
        self.log.messages.push(message.clone());
        let frames = Frames::of(&message, position, &self.script);
        let concerned = |link: &Link| is_for(&message, link);
        let ids: Vec<usize> =
            self.links.iter().filter(|(_, link)| concerned(link)).map(|(id, _)| *id).collect();
        for id in ids {
            let link = self.links.get_mut(&id).unwrap();
            match link.state {
                State::Poll(_) => self.serve_poll(id),
                State::EventStream => link.put_message(&message, frames.event.clone(), &self.script),
                State::WebSocket(Purpose::Subscriber | Purpose::Chat) => {
                    let seen = &mut tally.connections[id];
                    link.put_ping(message.number, &self.script, seen);
                    link.put_pings(vec![BETWEEN.to_vec(); frames.pings], seen);
                    link.put_message(&message, frames.websocket.clone(), &self.script);
                }
                _ => continue,
            }
            self.end_where_planted(id);
            self.flush(id, tally);
        }
    }

    /// Answers a held poll, where there is something for it.
    pub(super) fn serve_poll(&mut self, id: usize) {
        let link = self.links.get_mut(&id).unwrap();
        let State::Poll(since) = link.state else { return };
        let found: Vec<(usize, &Message)> =
            (since..).zip(self.log.messages.iter().skip(since)).filter(|(_, it)| is_for(it, link)).collect();
        let Some((_, last)) = found.last() else { return };
        let items: Vec<(usize, &[u8])> = found.iter().map(|(at, message)| (*at, &*message.payload)).collect();
        let octets = octets::poll_answer(&items, self.log.end(), self.script.framing);
        link.state = State::Head;
        link.queued += found.len() as u64;
        let due = Instant::now() + (self.script.delay)(last.number, link.number);
        link.put(due, What::Octets { octets: octets.into(), from: 0, messages: found.len() as u64 });
        if self.script.framing == Framing::UntilClose {
            link.put(due, What::End(End::Silent));
        }
    }
}

fn is_for(message: &Message, link: &Link) -> bool {
    match &message.to {
        To::All => true,
        To::User(user) => link.user.as_ref() == Some(user),
        To::Group(group) => link.group.as_ref() == Some(group),
    }
}

/// One message in the forms that several connections share.
struct Frames {
    websocket: Arc<[u8]>,
    /// Pings among `websocket`.
    pings: usize,
    event: Arc<[u8]>,
}

impl Frames {
    fn of(message: &Message, position: usize, script: &Script) -> Self {
        let text = std::str::from_utf8(&message.payload).is_ok();
        let opcode = if text { octets::TEXT } else { octets::BINARY };
        let (websocket, pings) = match script.writing {
            Writing::Fragments(count) => octets::fragments(opcode, &message.payload, count),
            _ => (octets::frame(true, opcode, &message.payload), 0),
        };
        let event = octets::streamed(&octets::event(position, &message.payload), script.framing);
        Self { websocket: websocket.into(), pings, event: event.into() }
    }
}

impl Link {
    fn put_message(&mut self, message: &Message, octets: Arc<[u8]>, script: &Script) {
        self.queued += 1;
        let due = Instant::now() + (script.delay)(message.number, self.number);
        self.put(due, What::Octets { octets, from: 0, messages: 1 });
    }

    /// A ping that has to be answered before anything else goes out, where the script wants it.
    fn put_ping(&mut self, number: u64, script: &Script, seen: &mut Seen) {
        if script.pings {
            let payload = number.to_string().into_bytes();
            self.put_octets(Instant::now(), octets::frame(true, octets::PING, &payload));
            self.put_pings([payload], seen);
            self.put(Instant::now(), What::AwaitPong(seen.pings));
        }
    }
}
