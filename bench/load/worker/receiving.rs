//! What sockets say: events, bytes, and the frames, events and responses in them.
//!
//! Bytes are taken apart where they were received; only what is not yet whole is carried over. An edge comes
//! once, so a socket is read until it is empty.

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::sockopt;

use super::opening::error_of;
use super::slots::{NOBODY, Slot, State, flag};
use super::tracking::{self, Heard};
use super::{BUFFER_BYTES, MASK, Worker};
use crate::plan::{Behaviour, Transport, Work};
use crate::record::{Error, Outcome, Timed};
use crate::wire::stamp::{self, Stamp};
use crate::wire::websocket::Opcode;
use crate::wire::{event_stream, http, long_poll, websocket};
use crate::{cpu, wire};

/// What is not yet whole may be this long, or the server breaks its protocol.
const CARRY_BYTES_MAX: usize = 64 << 20;

/// What became of the bytes that a connection was given.
enum Taken {
    /// So many were used; the rest waits for more.
    Used(usize),
    /// The connection has ended, in whatever way.
    Ended,
}

impl Worker {
    pub(super) fn handle_event(&mut self, index: usize, flags: EventFlags) {
        // A connection that ended in this batch may have an event left.
        let Some(socket) = &self.slots[index].socket else { return };
        if self.slots[index].state == State::Connecting {
            match sockopt::socket_error(socket) {
                Ok(Ok(())) if flags.contains(EventFlags::OUT) => self.connected(index),
                Ok(Ok(())) => return,
                Ok(Err(error)) | Err(error) => return self.end(index, Some(error_of(error))),
            }
        } else if flags.contains(EventFlags::OUT) {
            self.write_rest(index);
        }
        let ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        if !ended && !flags.contains(EventFlags::IN) {
            return;
        }
        match self.slots[index].behaviour {
            // Once it is open it looks at its socket by its own clock.
            Behaviour::SlowReader | Behaviour::NeverReads
                if self.slots[index].state == State::Open && !flags.contains(EventFlags::ERR) => {}
            _ => self.read(index, ended),
        }
    }

    /// A read shorter than the buffer has emptied the socket, and the next bytes are a new edge; only an end
    /// that has come already is no longer told.
    fn read(&mut self, index: usize, ended: bool) {
        while self.slots[index].socket.is_some() {
            match self.receive(index, BUFFER_BYTES) {
                Ok(0) => self.ended(index),
                Ok(read) => {
                    self.take(index, read);
                    if read < BUFFER_BYTES && !ended {
                        break;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(error) => self.end(index, Some(error_of(error))),
            }
        }
    }

    /// The server has ended the connection.
    fn ended(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        if slot.is(flag::UNTIL_CLOSE) {
            let rare = slot.rare();
            let (body, status) = (std::mem::take(&mut rare.body), rare.status.take());
            slot.set(flag::LAST_RESPONSE);
            self.response(index, status.unwrap_or(0), &body);
        } else if slot.state == State::Open && self.is_between_requests(index) {
            // A server may end a connection that it has nothing to answer on (RFC 9112 9.5).
            self.end(index, None);
        } else {
            self.end(index, Some(Error::Ended));
        }
    }

    fn is_between_requests(&self, index: usize) -> bool {
        let slot = &self.slots[index];
        let http = self.scene.aims[usize::from(slot.target)].transport == Transport::Http;
        http && !slot.is(flag::ASKED)
    }

    /// Takes the first `read` bytes of the buffer for the connection.
    pub(super) fn take(&mut self, index: usize, read: usize) {
        let buffer = std::mem::take(&mut self.buffer);
        let carry = self.slots[index].rare.as_mut().map(|rare| std::mem::take(&mut rare.carry));
        match carry.filter(|carry| !carry.is_empty()) {
            None => match self.consume(index, &buffer[..read]) {
                Taken::Used(used) if used < read => {
                    self.slots[index].rare().carry = buffer[used..read].to_vec();
                }
                Taken::Used(_) => self.slots[index].slim(),
                Taken::Ended => {}
            },
            Some(mut carry) => {
                carry.extend_from_slice(&buffer[..read]);
                match self.consume(index, &carry) {
                    Taken::Used(_) if carry.len() > CARRY_BYTES_MAX => {
                        self.end(index, Some(Error::BadProtocol))
                    }
                    Taken::Used(used) => {
                        carry.drain(..used);
                        if !carry.is_empty() {
                            self.slots[index].rare().carry = carry;
                        }
                        self.slots[index].slim();
                    }
                    Taken::Ended => {}
                }
            }
        }
        self.buffer = buffer;
    }

    /// Takes apart as much of `input` as is whole.
    fn consume(&mut self, index: usize, input: &[u8]) -> Taken {
        let generation = self.slots[index].generation;
        let mut used = 0;
        while used < input.len() {
            let slot = &self.slots[index];
            let transport = self.scene.aims[usize::from(slot.target)].transport;
            let rest = &input[used..];
            let taken = match (slot.state, transport) {
                (_, Transport::Tcp) | (State::Idle | State::Waiting | State::Connecting, _) => rest.len(),
                (State::Handshake, Transport::WebSocket) => self.take_upgrade(index, rest),
                (State::Handshake, _) => self.take_stream_head(index, rest),
                (State::Open, Transport::WebSocket) => self.take_frames(index, rest),
                (State::Open, Transport::EventStream) => self.take_stream(index, rest),
                (State::Open, Transport::LongPoll | Transport::Http) => self.take_response(index, rest),
            };
            if self.slots[index].generation != generation {
                return Taken::Ended;
            }
            if taken == 0 {
                break;
            }
            used += taken;
        }
        Taken::Used(used)
    }

    fn take_upgrade(&mut self, index: usize, input: &[u8]) -> usize {
        match websocket::accepted(input) {
            Ok(None) => 0,
            Ok(Some(length)) => {
                self.established(index);
                length
            }
            Err(refusal) => {
                self.refused(index, refusal.status, refusal.retry_after_s);
                0
            }
        }
    }

    /// The handshake was answered with something else than what was asked for.
    fn refused(&mut self, index: usize, status: Option<u16>, retry_after_s: Option<u64>) {
        match status {
            Some(status) => self.tally.outcome(Outcome::Status(status)),
            None => self.tally.error(Error::BadHandshake),
        }
        self.close(index, true, retry_after_s.map(|seconds| seconds * 1000));
    }

    fn take_stream_head(&mut self, index: usize, input: &[u8]) -> usize {
        match http::head(input, "GET") {
            Ok(None) => 0,
            Ok(Some(head)) if head.status == 200 && head.event_stream => {
                if head.body == http::Body::Chunked {
                    self.slots[index].set(flag::CHUNKED);
                    self.slots[index].rare();
                }
                self.established(index);
                head.length_bytes
            }
            Ok(Some(head)) => {
                self.refused(index, Some(head.status), head.retry_after_s);
                0
            }
            Err(_) => {
                self.refused(index, None, None);
                0
            }
        }
    }

    fn take_frames(&mut self, index: usize, input: &[u8]) -> usize {
        let generation = self.slots[index].generation;
        let mut used = 0;
        loop {
            let (frame, length) = match websocket::decode(&input[used..]) {
                Ok(Some(whole)) => whole,
                Ok(None) => return used,
                Err(_) => {
                    self.end(index, Some(Error::BadProtocol));
                    return used;
                }
            };
            used += length;
            match frame.opcode {
                Opcode::Ping => {
                    self.tally.counts.pings += 1;
                    let mut pong = Vec::with_capacity(frame.payload.len() + 6);
                    websocket::pong(&mut pong, frame.payload, MASK);
                    self.write(index, &pong);
                }
                Opcode::Pong => {}
                Opcode::Close => {
                    self.closed(index, frame.payload);
                    return used;
                }
                _ => self.take_fragment(index, &frame),
            }
            if self.slots[index].generation != generation {
                return used;
            }
        }
    }

    fn take_fragment(&mut self, index: usize, frame: &websocket::Frame<'_>) {
        let slot = &mut self.slots[index];
        let begun = slot.rare.as_mut().and_then(|rare| rare.fragments.take());
        match (begun, frame.opcode == Opcode::Continuation, frame.fin) {
            (None, false, true) => self.message(index, frame.payload),
            (None, false, false) => slot.rare().fragments = Some(frame.payload.to_vec()),
            (Some(mut message), true, fin) => {
                message.extend_from_slice(frame.payload);
                if fin {
                    self.message(index, &message);
                } else {
                    slot.rare().fragments = Some(message);
                }
            }
            (Some(_), false, _) | (None, true, _) => self.end(index, Some(Error::BadProtocol)),
        }
    }

    /// A close frame: answered, as RFC 6455 5.5.1 wants it, and then let go.
    fn closed(&mut self, index: usize, payload: &[u8]) {
        let (code, reason) = websocket::close_code(payload);
        let told_ms = websocket::reconnect_after_ms(reason);
        self.tally.outcome(Outcome::Close(code));
        let mut answer = Vec::with_capacity(payload.len() + 6);
        websocket::frame(&mut answer, Opcode::Close, payload, MASK);
        self.write(index, &answer);
        self.close(index, true, told_ms);
    }

    fn take_stream(&mut self, index: usize, input: &[u8]) -> usize {
        if !self.slots[index].is(flag::CHUNKED) {
            return self.take_events(index, input);
        }
        let generation = self.slots[index].generation;
        let mut rest = input;
        while !rest.is_empty() {
            let rare = self.slots[index].rare();
            match rare.chunks.take(&mut rest) {
                Ok(http::Piece::Data(data)) => rare.body.extend_from_slice(data),
                Ok(http::Piece::More) => break,
                Ok(http::Piece::End) => {
                    self.end(index, Some(Error::Ended));
                    return input.len();
                }
                Err(_) => {
                    self.end(index, Some(Error::BadProtocol));
                    return input.len();
                }
            }
            let mut text = std::mem::take(&mut self.slots[index].rare().body);
            let used = self.take_events(index, &text);
            if self.slots[index].generation != generation {
                return input.len();
            }
            text.drain(..used);
            self.slots[index].rare().body = text;
        }
        input.len() - rest.len()
    }

    fn take_events(&mut self, index: usize, input: &[u8]) -> usize {
        let mut used = 0;
        while let Some((event, length)) = event_stream::decode(&input[used..]) {
            used += length;
            if event.is_empty() {
                continue;
            }
            if let Some(retry_ms) = event.retry_ms {
                self.slots[index].deadline_ms = u32::try_from(retry_ms).unwrap_or(u32::MAX);
            }
            if let Some(data) = &event.data {
                self.message(index, data);
            } else if event.comment {
                self.tally.counts.pings += 1;
            }
        }
        used
    }

    /// A response: of a poll, or to a request.
    fn take_response(&mut self, index: usize, input: &[u8]) -> usize {
        let status = self.slots[index].rare.as_ref().and_then(|rare| rare.status);
        if status.is_some() {
            return self.take_body(index, input);
        }
        let aim = &self.scene.aims[usize::from(self.slots[index].target)];
        let method = if aim.transport == Transport::Http { aim.method.as_str() } else { "GET" };
        let head = match http::head(input, method) {
            Ok(None) => return 0,
            Ok(Some(head)) => head,
            Err(_) => {
                self.end(index, Some(Error::BadProtocol));
                return 0;
            }
        };
        // An interim response announces another one (RFC 9110 15.2).
        if (100..200).contains(&head.status) {
            return head.length_bytes;
        }
        let slot = &mut self.slots[index];
        if !head.keep_alive {
            slot.set(flag::LAST_RESPONSE);
        }
        if let (Transport::LongPoll, Some(seconds)) =
            (self.scene.aims[usize::from(slot.target)].transport, head.retry_after_s)
        {
            slot.deadline_ms = u32::try_from(seconds * 1000).unwrap_or(u32::MAX);
        }
        match head.body {
            http::Body::None => self.response(index, head.status, b""),
            http::Body::Length(length) => {
                let whole = head.length_bytes.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
                if input.len() >= whole {
                    self.response(index, head.status, &input[head.length_bytes..whole]);
                    return whole;
                }
                if length <= CARRY_BYTES_MAX as u64 / 2 {
                    return 0;
                }
                slot.rare().status = Some(head.status);
                slot.rare().skip = length;
            }
            http::Body::Chunked => {
                slot.rare().status = Some(head.status);
                slot.rare().chunks = http::Chunks::default();
            }
            http::Body::UntilClose => {
                slot.set(flag::UNTIL_CLOSE);
                slot.rare().status = Some(head.status);
            }
        }
        head.length_bytes
    }

    /// More of a body that does not come in one piece.
    fn take_body(&mut self, index: usize, input: &[u8]) -> usize {
        let slot = &mut self.slots[index];
        let until_close = slot.is(flag::UNTIL_CLOSE);
        let rare = slot.rare();
        if rare.skip > 0 {
            let skipped = (input.len() as u64).min(rare.skip);
            rare.skip -= skipped;
            if rare.skip == 0 {
                let status = rare.status.take().unwrap_or(0);
                self.response(index, status, b"");
            }
            return skipped as usize;
        }
        if until_close {
            rare.body.extend_from_slice(input);
            return input.len();
        }
        let mut rest = input;
        while !rest.is_empty() {
            match rare.chunks.take(&mut rest) {
                Ok(http::Piece::Data(data)) => rare.body.extend_from_slice(data),
                Ok(http::Piece::More) => break,
                Ok(http::Piece::End) => {
                    let (body, status) = (std::mem::take(&mut rare.body), rare.status.take());
                    self.response(index, status.unwrap_or(0), &body);
                    break;
                }
                Err(_) => {
                    self.end(index, Some(Error::BadProtocol));
                    return input.len();
                }
            }
        }
        input.len() - rest.len()
    }

    /// A whole response has come.
    fn response(&mut self, index: usize, status: u16, body: &[u8]) {
        let slot = &self.slots[index];
        let transport = self.scene.aims[usize::from(slot.target)].transport;
        if transport == Transport::LongPoll {
            return self.polled(index, status, body);
        }
        if !slot.is(flag::ASKED) {
            // Nobody asked: 408 before the end of an idle connection, say.
            return self.end(index, None);
        }
        self.tally.outcome(Outcome::Status(status));
        self.tally.counts.messages += 1;
        self.tally.counts.payload_bytes += body.len() as u64;
        self.answered(index, Some(status), body);
    }

    /// A poll was answered: counts what it brought and asks for what comes after it.
    fn polled(&mut self, index: usize, status: u16, body: &[u8]) {
        if status != 200 {
            let told_ms = Some(u64::from(self.slots[index].deadline_ms)).filter(|&told_ms| told_ms > 0);
            self.tally.outcome(Outcome::Status(status));
            return self.close(index, true, told_ms);
        }
        let poll = long_poll::decode(body, long_poll::NEXT_POINTER);
        for item in poll.messages() {
            self.message(index, item);
        }
        if poll.count() == 0 {
            self.tally.counts.pings += 1;
        }
        let slot = &mut self.slots[index];
        slot.deadline_ms = 0;
        if let Some(next) = poll.next {
            slot.next = Some(next.as_ref().into());
        }
        if slot.is(flag::LAST_RESPONSE) {
            // The next poll needs a connection of its own; nobody was dropped.
            self.end(index, None);
            if self.slots[index].state == State::Idle {
                self.connect(index);
            }
        } else if self.scene.polls_again {
            self.poll(index);
        } else {
            slot.set(flag::SATED);
        }
    }

    /// Asks for what comes next.
    pub(super) fn poll(&mut self, index: usize) {
        let request = self.opening_request(index);
        self.write(index, &request);
    }

    /// A message has come, by whatever transport.
    pub(super) fn message(&mut self, index: usize, payload: &[u8]) {
        let request = matches!(self.scene.work, Work::Request { .. });
        self.tally.counts.messages += 1;
        self.tally.counts.payload_bytes += payload.len() as u64;
        if self.scene.verify && self.slots[index].behaviour == Behaviour::Well {
            match stamp::find(payload) {
                Some(stamp) => self.verify(index, &stamp),
                None => self.tally.counts.unstamped += 1,
            }
        } else {
            self.tally.last_message_ns = self.now_ns;
        }
        if request && self.slots[index].is(flag::ASKED) {
            self.answered(index, None, payload);
        }
    }

    /// Times a stamped message and puts it in its publisher's order.
    fn verify(&mut self, index: usize, stamp: &Stamp) {
        let now_ns = cpu::now_ns();
        self.tally.last_message_ns = now_ns;
        let took_ns = if stamp.wall { cpu::unix_ns() } else { now_ns }.saturating_sub(stamp.at_ns);
        let slot = &mut self.slots[index];
        if self.asking.is_own(slot.number, stamp.publisher) {
            // A sender that hears itself: whether it does is the server's choice.
            self.tally.counts.messages -= 1;
            return;
        }
        self.tally.time(Timed::Delivery, took_ns);
        match hear(slot, stamp) {
            Heard::New => {}
            Heard::Reordered => self.tally.counts.reordered += 1,
            Heard::Duplicate => self.tally.counts.duplicated += 1,
        }
    }
}

fn hear(slot: &mut Slot, stamp: &wire::stamp::Stamp) -> Heard {
    if slot.publisher == NOBODY {
        slot.publisher = stamp.publisher;
    }
    if slot.publisher != stamp.publisher {
        let track = slot.rare().others.entry(stamp.publisher).or_default();
        return tracking::hear(&mut track.newest, &mut track.missing, stamp.seq);
    }
    // The commonest case: the next one, and nothing missing.
    if stamp.seq == slot.seq + 1 {
        slot.seq = stamp.seq;
        return Heard::New;
    }
    let mut newest = slot.seq;
    let heard = tracking::hear(&mut newest, &mut slot.rare().missing, stamp.seq);
    slot.seq = newest;
    slot.slim();
    heard
}
