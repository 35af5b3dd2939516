//! How clients are heard: batches of `RECV`, bytes into the protocol machines, events into actions.
//!
//! A poll tells once, and is armed again when there is nothing more to read: one that lasted would have to be
//! cancelled at the end of each connection, and the kernel looks for it among all. A receive that fills its slice
//! means "read again". So does a poll that tells of the peer's end: data and end may come in one wake-up.

use std::borrow::Cow;

use bytes::Bytes;

use super::Shard;
use super::conn::{Replay, Slot, State, flag};
use super::ending::Answer;
use super::identity::forbidden;
use super::life::life;
use super::mailbox::{Act, Happening, Party, event_mask};
use super::opening::Resume;
use crate::message::{Kind, Position, Topic};
use crate::ring::{BATCH_MAX, Token};
use crate::stats::CloseReason;
use crate::wire::close::{ProtocolError, code};
use crate::wire::envelope::{self, ClientFrame, EchoId};
use crate::wire::proxy;
use crate::wire::session::Transport;
use crate::wire::websocket::{self, Decoder, Event};

/// Bytes that all receives of one batch can take together: few receivers get large slices, many small
/// ones. Small, because every page of it that was once used stays with the shard.
const AREA_BYTES: usize = 128 * 1024;
/// Receives in one batch.
const SLICES: usize = 64;
/// Clients received from in one turn. The others wait for the next, so that a storm of them holds up neither pushes
/// nor those who are there for as long as it takes to hear all of it.
const RECEIVES_PER_TURN: usize = 512;
/// Frames of one client heard in one turn. Those behind them wait for the next, so that a client that sends
/// thousands at once holds nobody up.
const FRAMES_PER_TURN: usize = 64;
/// Octets received at once from a WebSocket, beyond those that the frame which has begun lacks: as many may
/// have to wait unheard.
const FRAMES_BYTES: usize = 4096;

const _: () = assert!(SLICES <= BATCH_MAX);

/// The shard's one receive area, and the batch being received.
#[derive(Debug)]
pub(super) struct Receiver {
    area: Vec<u8>,
    /// Who, and how many octets at most.
    batch: Vec<(u32, usize)>,
    /// Who has frames that wait to be heard, and is not received from.
    waiting: Vec<u32>,
    received: Vec<std::io::Result<usize>>,
}

impl Receiver {
    pub(super) fn new() -> Self {
        // Not zero: zeroed memory comes without its pages, and these are there before the first client is.
        let area = vec![0xff; AREA_BYTES];
        let (batch, received) = (Vec::with_capacity(SLICES), Vec::with_capacity(SLICES));
        Self { area, batch, waiting: Vec::with_capacity(SLICES), received }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.area.capacity()
    }
}

impl Shard {
    pub(super) fn became_readable(&mut self, token: Token, ended: bool) {
        let Some(index) = self.table.find(token) else { return };
        self.table[index].clear(flag::POLLED);
        if ended {
            return self.heard_of_end(index);
        }
        self.want_read(index);
    }

    pub(super) fn has_ended(&mut self, token: Token) {
        let Some(index) = self.table.find(token) else { return };
        self.table[index].clear(flag::END_POLLED);
        self.heard_of_end(index);
    }

    fn heard_of_end(&mut self, index: u32) {
        self.table[index].set(flag::ENDING);
        if self.is_deaf(index) {
            return self.peer_ended(index);
        }
        self.want_read(index);
    }

    /// Whether what it sends is not read any more, and its end is known from the poll alone.
    fn is_deaf(&self, index: u32) -> bool {
        let slot = &self.table[index];
        let deaf = matches!(slot.transport, Transport::EventStream | Transport::LongPoll);
        deaf && slot.state == State::Open && slot.is(flag::PAUSED)
    }

    /// Reads again after a pause.
    pub(super) fn read_on(&mut self, index: u32) {
        let slot = &mut self.table[index];
        if !slot.is(flag::PAUSED) {
            return;
        }
        slot.clear(flag::PAUSED);
        if slot.is(flag::READABLE) {
            slot.clear(flag::READABLE);
            self.want_read(index);
        }
    }

    /// Puts slot `index` among those with something to receive.
    pub(super) fn want_read(&mut self, index: u32) {
        let slot = &mut self.table[index];
        if !slot.is(flag::READABLE) && !slot.is(flag::PEER_DONE) {
            slot.set(flag::READABLE);
            self.readable.push_back(index);
        }
    }

    /// Receives from those that were readable when the turn began, the first of them first.
    pub(super) fn receive(&mut self) {
        let mut due = self.readable.len().min(RECEIVES_PER_TURN);
        while due > 0 {
            let count = due.min(SLICES);
            due -= count;
            self.receive_batch(count);
        }
    }

    fn receive_batch(&mut self, count: usize) {
        let mut batch = std::mem::take(&mut self.receiver.batch);
        let mut waiting = std::mem::take(&mut self.receiver.waiting);
        for index in self.readable.drain(..count) {
            let slot = &mut self.table[index];
            // A slot may stand here twice when it was freed and used again: read it once.
            if slot.is(flag::READABLE) && slot.state != State::Free && !slot.is(flag::PAUSED) {
                slot.clear(flag::READABLE);
                if slot.has_unheard() {
                    waiting.push(index);
                    continue;
                }
                let room = room(slot, self.settings.head.head_bytes_max);
                batch.push((index, room));
            }
        }
        let mut area = std::mem::take(&mut self.receiver.area);
        let mut received = std::mem::take(&mut self.receiver.received);
        let slice_bytes = AREA_BYTES / batch.len().max(1);
        let jobs = batch.iter().zip(area.chunks_mut(slice_bytes));
        let jobs = jobs
            .map(|(&(index, room), slice)| (self.table[index].socket(), &mut slice[..room.min(slice_bytes)]));
        received.extend(self.ring.receive_all(jobs));
        for ((&(index, room), slice), result) in
            batch.iter().zip(area.chunks_mut(slice_bytes)).zip(received.drain(..))
        {
            self.received(index, &mut slice[..room.min(slice_bytes)], result);
        }
        batch.clear();
        self.send_refusals();
        waiting.drain(..).for_each(|index| self.hear_on(index));
        self.receiver.batch = batch;
        self.receiver.waiting = waiting;
        self.receiver.area = area;
        self.receiver.received = received;
    }

    fn received(&mut self, index: u32, slice: &mut [u8], result: std::io::Result<usize>) {
        // Letters that another client of this batch had us take (`catch_up_for`) may have ended it.
        if self.table[index].state == State::Free {
            return;
        }
        match result {
            Ok(0) => self.peer_ended(index),
            Ok(count) => {
                self.stats.received_bytes += count as u64;
                // A full slice may not be all of it.
                if count < slice.len() && self.refuse_early(index, &slice[..count]) {
                    return;
                }
                let generation = self.table[index].generation;
                self.hear(index, &mut slice[..count]);
                // What was heard may have ended the connection, and its slot may be free.
                let present =
                    self.table[index].generation == generation && self.table[index].state != State::Free;
                if present && self.is_deaf(index) {
                    self.await_end(index);
                } else if present && (count == slice.len() || self.table[index].is(flag::ENDING)) {
                    self.want_read(index);
                } else if present {
                    self.poll_if_needed(index);
                }
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {
                self.poll_if_needed(index);
            }
            Err(_) => self.peer_ended(index),
        }
    }

    /// Waits for the peer's end alone, until it is read on: what it sent meanwhile is looked for then.
    fn await_end(&mut self, index: u32) {
        let token = self.table.token(index);
        let slot = &mut self.table[index];
        slot.set(flag::READABLE);
        if !slot.is(flag::END_POLLED) {
            slot.set(flag::END_POLLED);
            self.ring.arm_end_poll(self.table[index].socket(), token);
        }
    }

    fn poll_if_needed(&mut self, index: u32) {
        let token = self.table.token(index);
        let slot = &mut self.table[index];
        if !slot.is(flag::POLLED) {
            slot.set(flag::POLLED);
            self.ring.arm_read_poll(self.table[index].socket(), token);
        }
    }

    pub(super) fn hear(&mut self, index: u32, input: &mut [u8]) {
        match self.table[index].state {
            State::Handshake if self.table[index].is(flag::PROXY_DUE) => self.hear_proxy(index, input),
            State::Handshake => self.hear_head(index, input),
            State::Open => match self.table[index].transport {
                Transport::EventStream => self.hear_nothing(index),
                Transport::LongPoll => self.keep_unread(index, input),
                Transport::WebSocketRaw | Transport::WebSocketJson | Transport::WebSocketEcho => {
                    self.hear_frames(index, input);
                }
            },
            // The peer's last words: the end is decided already.
            State::Closing | State::Free => {}
        }
    }

    /// The client of an event stream has nothing to say behind its request: what it sends is thrown away,
    /// one receive for each time that the clock comes by, so that it cannot keep us busy.
    fn hear_nothing(&mut self, index: u32) {
        if self.table[index].is(flag::ENDING) {
            return self.peer_ended(index);
        }
        self.table[index].set(flag::PAUSED);
    }

    /// Hears what waited since the turn before.
    fn hear_on(&mut self, index: u32) {
        // Letters that another client of this batch had us take may have ended it.
        let Some(rare) = self.table[index].rare.as_mut() else { return };
        let mut unheard = std::mem::take(&mut rare.unheard);
        let generation = self.table[index].generation;
        self.hear(index, &mut unheard);
        if self.table[index].generation == generation && self.table[index].state != State::Free {
            // What came meanwhile was told of while it was not received.
            self.want_read(index);
        }
    }

    /// Feeds octets to the client's decoder and does what comes out, for as many frames as a turn has.
    fn hear_frames(&mut self, index: u32, mut input: &mut [u8]) {
        let slot = &mut self.table[index];
        slot.clear(flag::PINGED);
        let kept = slot.rare.as_mut().and_then(|rare| rare.decoder.take());
        let queued_before = slot.rare.as_ref().map_or(0, |rare| rare.outbox.len());
        let mut decoder = kept.unwrap_or_default();
        let echo = slot.transport == Transport::WebSocketEcho;
        let limits = *self.settings.message_limits(echo);
        let traced = slot.is(flag::TRACED);
        for _ in 0..FRAMES_PER_TURN {
            if input.is_empty() {
                break;
            }
            if traced && let Some(header) = decoder.next_header(input) {
                self.trace(index, |_| Act::Frame { outward: false, header, position: None });
            }
            match decoder.handle_bytes(input, &limits) {
                Err(error) => return self.protocol_error(index, error),
                Ok((used, event)) => {
                    let event = event.map(|event| self.heard(index, event));
                    if event == Some(Heard::Ended) {
                        return;
                    }
                    input = &mut input[used..];
                }
            }
        }
        self.keep_decoder(index, decoder);
        if !input.is_empty() {
            self.keep_unheard(index, input, queued_before);
        }
    }

    /// Keeps frames for the next turn. Whoever sends so many at once gets one pong a turn: frames from number
    /// `queued_before` on were queued in this one.
    fn keep_unheard(&mut self, index: u32, input: &[u8], queued_before: usize) {
        self.stats.deferred += 1;
        let rare = self.table[index].rare();
        rare.unheard.extend_from_slice(input);
        rare.coalesce_pongs(queued_before);
        self.want_read(index);
    }

    fn keep_decoder(&mut self, index: u32, decoder: Decoder) {
        let deadline = self.clock.tick().after(self.settings.message_ticks);
        let slot = &mut self.table[index];
        if decoder.is_idle() {
            if let Some(rare) = slot.rare.as_mut() {
                rare.message_deadline = None;
                slot.tidy();
            }
            return;
        }
        let rare = slot.rare();
        if !decoder.in_message() {
            rare.message_deadline = None;
        } else if rare.message_deadline.is_none() {
            rare.message_deadline = Some(deadline);
        }
        rare.decoder = Some(decoder);
    }

    fn protocol_error(&mut self, index: u32, error: ProtocolError) {
        life!(DEBUG, self, connection = %self.id(index), "protocol error: {}", error.reason());
        let answer = Answer::Close { code: Some(error.close_code()), reason: error.reason().into() };
        self.finish(index, error.close_reason(), answer);
    }

    /// Acts on one event.
    fn heard(&mut self, index: u32, event: Event<'_>) -> Heard {
        match event {
            Event::Text(payload) => self.heard_message(index, Kind::Text, payload),
            Event::Binary(payload) => self.heard_message(index, Kind::Binary, payload),
            Event::Ping(_) => {
                self.queue(index, event.reply().unwrap_or_default());
                if self.table[index].is(flag::BLOCKED) {
                    // It takes no more for now: one pong waits, and not one a ping.
                    let rare = self.table[index].rare();
                    rare.coalesce_pongs(rare.outbox.len().saturating_sub(2).max(1));
                }
                self.still_heard(index)
            }
            Event::Pong => {
                self.stats.pongs += 1;
                Heard::Goes
            }
            Event::Close { code, .. } => {
                // Echoed, code and reason (RFC 6455 5.5.1).
                let frame = event.reply().unwrap_or_default();
                self.finish(index, CloseReason::PeerClosed, Answer::Frame { frame, code });
                Heard::Ended
            }
        }
    }

    /// Replies that a client does not read are bounded, too.
    fn still_heard(&mut self, index: u32) -> Heard {
        let waiting = self.table[index].rare.as_ref().map_or(0, |rare| rare.outbox_bytes);
        let echo = self.table[index].transport == Transport::WebSocketEcho;
        let limit = self.settings.lag_bytes_max;
        if waiting > limit && self.table[index].is(flag::BLOCKED) && !echo {
            let why = format_args!("{waiting} bytes of replies unread, limits.send_backlog_bytes is {limit}");
            self.close_slow(index, why);
        }
        if self.table[index].state == State::Open { Heard::Goes } else { Heard::Ended }
    }

    fn heard_message(&mut self, index: u32, kind: Kind, payload: Cow<'_, [u8]>) -> Heard {
        self.stats.uplinks += 1;
        life!(TRACE, self, connection = %self.id(index), bytes = payload.len(), "sends a message");
        if self.table[index].transport == Transport::WebSocketEcho {
            let (frame, _) = websocket::encode_message(kind, &payload);
            self.queue(index, frame);
            self.table[index].set(flag::PAUSED);
            return Heard::Goes;
        }
        if !self.take_uplink(index) {
            let answer = Answer::Close { code: Some(code::POLICY), reason: "too many messages".into() };
            self.finish(index, CloseReason::Policy, answer);
            return Heard::Ended;
        }
        if self.table[index].transport == Transport::WebSocketRaw {
            self.uplink(index, kind, None, || Bytes::copy_from_slice(&payload));
            return Heard::Goes;
        }
        if kind == Kind::Binary {
            self.queue(index, envelope::error("bad_request", "frames of corecast.v1 are text", &None));
        } else {
            match envelope::parse(&payload) {
                Ok(frame) => self.heard_client_frame(index, frame),
                Err(error) => self.queue(index, envelope::error(error.code, &error.message, &error.id)),
            }
        }
        self.still_heard(index)
    }

    /// `limits.uplinks_per_second` with a burst of two seconds, as one number: when the bucket is full.
    fn take_uplink(&mut self, index: u32) -> bool {
        let per_second = self.settings.uplinks_per_second;
        if per_second == 0 {
            return true;
        }
        let (now, burst_us) = (self.clock.us(), 2_000_000);
        let slot = &mut self.table[index];
        let ahead_us = slot.uplink_full_us.wrapping_sub(now);
        // Further ahead than a burst can be: the moment has passed, or the number has wrapped.
        let ahead_us = if ahead_us > burst_us { 0 } else { ahead_us } + 1_000_000 / per_second;
        if ahead_us > burst_us {
            return false;
        }
        slot.uplink_full_us = now.wrapping_add(ahead_us);
        true
    }

    fn uplink(&mut self, index: u32, kind: Kind, topic: Option<Topic>, data: impl FnOnce() -> Bytes) {
        if self.wants(event_mask::UPLINK) {
            let what = Happening::Uplink { topic, kind, data: data() };
            self.report(Some(self.id(index)), self.user_of(index), what);
        }
    }

    fn heard_client_frame(&mut self, index: u32, frame: ClientFrame) {
        match frame {
            ClientFrame::Ping { id } => self.queue(index, envelope::pong(&id)),
            ClientFrame::Refresh { token, id } => self.heard_refresh(index, token.reveal(), &id),
            ClientFrame::Uplink { data, topic, .. } => self.uplink(index, Kind::Json, topic, || data),
            ClientFrame::Unsubscribe { topics, id } => {
                life!(DEBUG, self, connection = %self.id(index), topics = topics.len(), "unsubscribes");
                self.unsubscribe_from(index, &topics);
                self.queue(index, envelope::unsubscribed(&topics, self.position(), &id));
            }
            ClientFrame::Subscribe { topics, since, id } => {
                if let Some(since) = since {
                    self.catch_up_for(index, since);
                }
                // What was caught up with may have ended it.
                if self.table[index].state == State::Open {
                    self.heard_subscribe(index, &topics, since, &id);
                }
            }
        }
    }

    /// Takes what the client has had from another shard, and what it says it has not, before its new topics
    /// begin at the head: the one would come twice, the other (`flag::AHEAD`) not at all.
    fn catch_up_for(&mut self, index: u32, since: Position) {
        let given_out = self.gate.last_seq.load(std::sync::atomic::Ordering::Acquire);
        let seq = if since.epoch == self.epoch { since.seq } else { 0 };
        if seq > given_out {
            // Nobody was ever given it, and nothing is sent again.
            return;
        }
        let slot = &self.table[index];
        let had = if slot.is(flag::AHEAD) { slot.cursor } else { 0 };
        self.catch_up(seq.max(had));
    }

    fn heard_subscribe(&mut self, index: u32, topics: &[Topic], since: Option<Position>, id: &EchoId) {
        let present: Vec<_> = self.topics.of(&self.table, index).collect();
        let is_new = |topic: &&Topic| self.topics.id(topic).is_none_or(|id| !present.contains(&id));
        let fresh: Vec<Topic> = topics.iter().filter(is_new).cloned().collect();
        if let Some(topic) = self.first_forbidden(index, &fresh) {
            return self.queue(index, envelope::error("forbidden_topic", &forbidden(topic), id));
        }
        if present.len() + fresh.len() > self.settings.topics_max {
            let message = format!(
                "{} topics would be {}, limits.topics_per_connection is {}",
                topics.len(),
                present.len() + fresh.len(),
                self.settings.topics_max
            );
            return self.queue(index, envelope::error("too_many_topics", &message, id));
        }
        life!(DEBUG, self, connection = %self.id(index), topics = fresh.len(), "subscribes");
        self.split_cursor(index);
        let mut ids = Vec::with_capacity(fresh.len());
        for topic in &fresh {
            let id = self.topics.intern(topic, &mut self.tape);
            self.topics.subscribe(&mut self.table, index, id);
            ids.push(id);
        }
        self.tell_subscribed(index, Party::Client, || fresh);
        self.queue(index, envelope::subscribed(topics, self.position(), id));
        if let Some(since) = since {
            let resume = self.replay(index, ids, since);
            self.count_resume(&resume);
            self.trace_resumed(index, Some(since), &resume);
            self.queue(index, envelope::resumed(resume.replayed, resume.gap));
        }
    }

    /// Replays topics that were just subscribed, from `since` to now, behind the word about it that the caller
    /// queues: a blocked client is not marked for it.
    fn replay(&mut self, index: u32, topics: Vec<u32>, since: Position) -> Resume {
        let until = self.tape.head();
        let given_out = self.gate.last_seq.load(std::sync::atomic::Ordering::Acquire);
        let same_epoch = since.epoch == self.epoch;
        if same_epoch && since.seq >= until {
            return Resume { replayed: 0, gap: since.seq > given_out };
        }
        let seq = if same_epoch { since.seq } else { 0 };
        let chains: Vec<_> = topics.iter().map(|&id| self.topics.chain(id)).collect();
        let gap = !same_epoch || self.tape.has_lost(&chains, seq);
        let replayed = self.count_replay(&chains, seq);
        if replayed > 0 {
            let replay = Replay { topics, whole: false, cursor: seq, until };
            self.table[index].rare().replays.push_back(replay);
            // It begins before what a blocked client was known to need.
            self.needs(index);
        }
        Resume { replayed, gap }
    }

    /// What is behind stays with the subscriptions it was behind with: new ones begin at the head.
    pub(super) fn split_cursor(&mut self, index: u32) {
        let until = self.tape.head();
        let slot = &self.table[index];
        if !slot.is(flag::BEHIND) || slot.cursor >= until {
            return;
        }
        let cursor = slot.cursor;
        let topics = self.topics.of(&self.table, index).collect();
        let slot = &mut self.table[index];
        slot.cursor = until;
        slot.rare().replays.push_back(Replay { topics, whole: true, cursor, until });
    }
}

/// Whether a connection goes on after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Goes,
    Ended,
}

/// Octets to take from `slot` at once. What a request head is kept in has a bound, and what is sent behind a
/// poll must not grow past it while the poll is held; what a turn does not hear of a WebSocket has one, too.
fn room(slot: &Slot, head_bytes_max: usize) -> usize {
    let rare = slot.rare.as_ref();
    match slot.state {
        State::Open if slot.transport == Transport::EventStream => usize::MAX,
        State::Open if slot.transport != Transport::LongPoll => {
            let decoder = rare.and_then(|rare| rare.decoder.as_ref());
            FRAMES_BYTES + decoder.map_or(0, Decoder::lacking_bytes)
        }
        State::Handshake | State::Open => {
            let kept = rare.map_or(0, |rare| rare.head.len());
            let bytes_max = if slot.is(flag::PROXY_DUE) { proxy::HEADER_BYTES_MAX } else { head_bytes_max };
            bytes_max.saturating_sub(kept).max(1)
        }
        State::Closing | State::Free => usize::MAX,
    }
}
