//! Tracing: every frame header and decision of those who are traced, told to control.
//!
//! Who is traced has a bit in its slot (`flag::TRACED`), and everybody else costs a test of it. A connection is
//! found by its user as soon as that is known, on whichever shard it lands, and keeps its traces until its slot is
//! free: its user leaves it earlier. Never waits for control: steps that it does not take in time are counted, and
//! told once there is room again. Never tells a token or a payload.

use std::collections::HashMap;
use std::time::Instant;

use super::Shard;
use super::conn::flag;
use super::mailbox::{Act, Report, Step, TraceId, Traced};
use super::opening::{Resume, transport_name};
use super::outlook::{Plan, form_of, ping_of};
use super::tape::ChainId;
use crate::message::{ConnId, Position, UserId};
use crate::wire::session::{Opening, Transport};
use crate::wire::websocket::Header;

/// Who is traced here.
#[derive(Debug, Default)]
pub(super) struct Trails {
    trails: Vec<Trail>,
    /// Slots with `flag::TRACED`, and the traces of each.
    followed: HashMap<u32, Vec<TraceId>>,
    /// Sum of `Trail::lost`.
    lost: u64,
}

#[derive(Debug)]
struct Trail {
    trace: TraceId,
    of: Traced,
    begun: Instant,
    /// Steps that control did not take, and was not told of.
    lost: u64,
}

impl Trails {
    /// The traces of a connection that is the user's.
    fn of(&self, connection: ConnId, user: Option<&UserId>) -> Vec<TraceId> {
        let concerns = |trail: &&Trail| match &trail.of {
            Traced::User(traced) => Some(traced) == user,
            Traced::Connection(traced) => *traced == connection,
        };
        self.trails.iter().filter(concerns).map(|trail| trail.trace).collect()
    }

    fn followed_by(&self, index: u32) -> &[TraceId] {
        self.followed.get(&index).map_or(&[], Vec::as_slice)
    }

    fn trail(&mut self, trace: TraceId) -> Option<&mut Trail> {
        self.trails.iter_mut().find(|trail| trail.trace == trace)
    }

    /// Whether steps were lost that nobody was told of.
    pub(super) fn have_lost(&self) -> bool {
        self.lost > 0
    }

    /// How many steps of each trace were lost since the last call.
    fn take_lost(&mut self) -> impl Iterator<Item = (TraceId, u64)> {
        self.lost = 0;
        let lost = self.trails.iter_mut().map(|trail| (trail.trace, std::mem::take(&mut trail.lost)));
        lost.filter(|&(_, count)| count > 0)
    }
}

impl Shard {
    /// Traces from now on; gives the connections that there are. Times are counted from `begun`.
    pub(super) fn begin_trace(&mut self, trace: TraceId, of: Traced, begun: Instant) -> Vec<ConnId> {
        let present = match &of {
            Traced::User(user) => self.connections_of(user),
            Traced::Connection(connection) if connection.shard == self.number => {
                self.find(*connection).into_iter().collect()
            }
            Traced::Connection(_) => Vec::new(),
        };
        self.trails.trails.push(Trail { trace, of, begun, lost: 0 });
        for &index in &present {
            self.table[index].set(flag::TRACED);
            self.trails.followed.entry(index).or_default().push(trace);
        }
        present.into_iter().map(|index| self.id(index)).collect()
    }

    /// Traces no more.
    pub(super) fn end_trace(&mut self, trace: TraceId) {
        let Self { trails, table, .. } = self;
        trails.trails.retain(|trail| trail.trace != trace);
        trails.followed.retain(|&index, traces| {
            traces.retain(|&other| other != trace);
            if traces.is_empty() {
                table[index].clear(flag::TRACED);
            }
            !traces.is_empty()
        });
    }

    /// Finds out whether a connection whose request was heard is traced, and tells of it.
    pub(super) fn notice(&mut self, index: u32, opening: &Opening) {
        self.follow(index, opening.user.as_ref());
        self.trace(index, |shard| Act::Asked {
            transport: transport_name(opening.transport),
            remote: shard.remote(index),
            topics: opening.topics.clone(),
            since: opening.since,
        });
    }

    /// Finds out who traces a connection that is the user's now: between two polls it may have become another's.
    pub(super) fn follow(&mut self, index: u32, user: Option<&UserId>) {
        if self.trails.trails.is_empty() {
            return;
        }
        self.forget_trail(index);
        let traces = self.trails.of(self.id(index), user);
        if !traces.is_empty() {
            self.table[index].set(flag::TRACED);
            self.trails.followed.insert(index, traces);
        }
    }

    /// The same for a request that is refused before anything is known of it but a name.
    pub(super) fn follow_named(&mut self, index: u32, user: impl FnOnce() -> Option<UserId>) {
        if self.trails.trails.is_empty() {
            return;
        }
        if let user @ Some(_) = user() {
            self.follow(index, user.as_ref());
        }
    }

    /// Slot `index` is traced no more.
    pub(super) fn forget_trail(&mut self, index: u32) {
        if self.table[index].is(flag::TRACED) {
            self.table[index].clear(flag::TRACED);
            self.trails.followed.remove(&index);
        }
    }

    /// Tells what slot `index` did or had done to it, if it is traced.
    pub(super) fn trace(&mut self, index: u32, act: impl FnOnce(&Self) -> Act) {
        if self.table[index].is(flag::TRACED) {
            let act = act(self);
            self.tell_step(index, &act);
        }
    }

    #[cold]
    fn tell_step(&mut self, index: u32, act: &Act) {
        let (connection, now) = (self.id(index), self.clock.now());
        let has_room = self.has_room_for_reports();
        if has_room {
            self.tell_lost_steps();
        }
        for at in 0..self.trails.followed_by(index).len() {
            let trace = self.trails.followed_by(index)[at];
            let trail = self.trails.trail(trace).expect("no slot has a trace that has ended");
            if !has_room {
                trail.lost += 1;
                self.trails.lost += 1;
                self.stats.trace_dropped += 1;
                continue;
            }
            let after = now.saturating_duration_since(trail.begun);
            // Control has gone only when the gateway ends.
            let _ = self.reports.send(Report::Step(Step { trace, after, connection, what: act.clone() }));
        }
    }

    /// Tells readers of traces what they lost.
    pub(super) fn tell_lost_steps(&mut self) {
        if self.trails.have_lost() {
            for (trace, count) in self.trails.take_lost() {
                let _ = self.reports.send(Report::StepsLost { trace, count });
            }
        }
    }

    /// Tells what the socket of a traced slot took: `sent` octets of what `plan` has gathered, nothing of which
    /// is taken off yet. Frames are told of once, with their first octet.
    #[cold]
    pub(super) fn trace_sent(&mut self, plan: &Plan, sent: usize, chains: &mut Vec<ChainId>) {
        let (outlook, slot) = (self.outlook(), &self.table[plan.index]);
        let (mut acts, mut left) = (Vec::new(), sent);
        let mut take = |bytes: usize| {
            let some = left > 0;
            left = left.saturating_sub(bytes);
            some
        };
        for frame in slot.rare.iter().flat_map(|rare| &rare.outbox) {
            if take(frame.bytes.len()) && !frame.begun {
                outward(slot.transport, &frame.bytes, None, &mut acts);
            }
        }
        let ping = ping_of(slot.transport);
        if plan.ping && take(ping.len()) {
            outward(slot.transport, ping, None, &mut acts);
        }
        if plan.through.is_some()
            && let Some((replay, after, until)) = outlook.stretch(slot)
        {
            outlook.chains(plan.index, replay, after, chains);
            outlook.tape.walk(chains, after, until, |entry| {
                if entry.is_expired(outlook.now) {
                    return true;
                }
                let frame = entry.form(form_of(slot.transport), &outlook.encoder);
                let begun = take(frame.len());
                if begun {
                    let position = Position { epoch: self.epoch, seq: entry.seq() };
                    outward(slot.transport, frame, Some(position), &mut acts);
                }
                begun
            });
        }
        acts.iter().for_each(|act| self.tell_step(plan.index, act));
    }

    /// Slot `index` went on from what it named.
    pub(super) fn trace_resumed(&mut self, index: u32, since: Option<Position>, resume: &Resume) {
        let Resume { replayed, gap } = *resume;
        self.trace(index, |_| Act::Resumed { since, replayed, gap });
    }

    /// The socket of slot `index` has begun to refuse bytes.
    pub(super) fn trace_blocked(&mut self, index: u32) {
        self.trace(index, |shard| {
            let slot = &shard.table[index];
            let rare = slot.rare.as_ref();
            let (lag_bytes, outbox_bytes) = rare.map_or((0, 0), |rare| (rare.lag_bytes, rare.outbox_bytes));
            Act::Blocked { lag_bytes, outbox_bytes, send_queue_bytes: slot.socket().send_queue_bytes() }
        });
    }
}

/// What whole `octets` to a client are.
fn outward(transport: Transport, mut octets: &[u8], position: Option<Position>, acts: &mut Vec<Act>) {
    if let Some(status) = status_of(octets) {
        let is_stream = status == 101 || status == 200 && transport == Transport::EventStream;
        let head_end = octets.windows(4).position(|window| window == b"\r\n\r\n");
        let bytes = head_end.filter(|_| is_stream).map_or(octets.len(), |end| end + 4);
        acts.push(Act::Response { status, bytes });
        octets = &octets[bytes..];
    }
    if matches!(transport, Transport::EventStream | Transport::LongPoll) {
        if !octets.is_empty() {
            acts.push(Act::Octets { bytes: octets.len(), position });
        }
        return;
    }
    while let Some((header, header_bytes)) = Header::read(octets) {
        acts.push(Act::Frame { outward: true, header, position });
        octets = octets.get(header_bytes + header.payload_bytes as usize..).unwrap_or_default();
    }
}

/// Of octets that begin a response.
fn status_of(octets: &[u8]) -> Option<u16> {
    let digits = octets.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Kind;
    use crate::stats::RefusalReason;
    use crate::wire::close::Refusal;
    use crate::wire::{event_stream, long_poll, session, websocket};

    fn acts(transport: Transport, octets: &[u8]) -> Vec<Act> {
        let mut acts = Vec::new();
        outward(transport, octets, None, &mut acts);
        acts
    }

    fn text(payload_bytes: u64) -> Act {
        let header = Header { fin: true, compressed: false, opcode: 1, payload_bytes };
        Act::Frame { outward: true, header, position: None }
    }

    #[test]
    fn issue_7_an_answer_with_frames_behind_it_is_told_of_as_each_of_them() {
        let upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
        let frame = |length| websocket::encode_message(Kind::Text, &vec![b'x'; length]).0;
        let octets = [upgrade.as_slice(), &frame(3), &frame(300)].concat();
        let bytes = upgrade.len();
        let expected = [Act::Response { status: 101, bytes }, text(3), text(300)];
        assert_eq!(acts(Transport::WebSocketJson, &octets), expected);
    }

    #[test]
    fn issue_7_a_refusal_is_one_response_whatever_the_client_would_have_become() {
        let octets = session::refusal_response(&Refusal::new(RefusalReason::ForbiddenTopic, "no"));
        let expected = [Act::Response { status: 403, bytes: octets.len() }];
        for transport in [Transport::WebSocketRaw, Transport::EventStream, Transport::LongPoll] {
            assert_eq!(acts(transport, &octets), expected, "{transport:?}");
        }
    }

    #[test]
    fn issue_7_event_streams_and_polls_are_told_of_by_their_octets() {
        let head = event_stream::head("");
        let octets = head.clone() + &event_stream::begin(1, None);
        let rest = Act::Octets { bytes: octets.len() - head.len(), position: None };
        let expected = [Act::Response { status: 200, bytes: head.len() }, rest];
        assert_eq!(acts(Transport::EventStream, octets.as_bytes()), expected);
        let begin = long_poll::begin("");
        assert_eq!(acts(Transport::LongPoll, &begin), [Act::Response { status: 200, bytes: begin.len() }]);
        let end = Act::Octets { bytes: 3, position: None };
        assert_eq!(acts(Transport::LongPoll, b"]}\n"), [end]);
    }
}
