//! How a client comes in: request head, hand-over to the owner, first answer.
//!
//! What a request comes to is decided by `wire::session`; here it is performed.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Shard;
use super::admission::overloaded;
use super::clock::spread;
use super::conn::{NONE, State, flag};
use super::ending::Answer;
use super::life::life;
use super::mailbox::{Act, Handover, Happening, event_mask};
use super::settings::Settings;
use crate::auth::Credential;
use crate::message::{Position, UserId};
use crate::stats::{CloseReason, RefusalReason};
use crate::wire::close::Refusal;
use crate::wire::request::{Request, parse_head};
use crate::wire::session::{self, Opening, Policy, Route, Transport};
use crate::wire::{demo, envelope, event_stream};

/// An event stream that breaks comes back after this long and up to as long again, spread by slot.
const STREAM_RETRY_MS: u32 = 1000;

/// What resuming from a position comes to.
pub(super) struct Resume {
    /// Messages that will be sent again.
    pub(super) replayed: u64,
    /// Some are no longer held.
    pub(super) gap: bool,
}

impl Shard {
    /// Takes bytes of a request head, perhaps the last.
    pub(super) fn hear_head(&mut self, index: u32, input: &mut [u8]) {
        let now = self.clock.tick();
        let slot = &mut self.table[index];
        if slot.has_outbox() {
            // The answer before this one has to be taken first: nobody is owed two.
            return self.keep_unread(index, input);
        }
        if slot.is(flag::SERVED) && !slot.has_head() {
            slot.opened = now;
        }
        let kept = self.table[index].rare.as_mut().map(|rare| std::mem::take(&mut rare.head));
        let mut kept = kept.unwrap_or_default();
        if kept.is_empty() {
            let used = self.try_head(index, input);
            if let Some(used) = used {
                self.after_head(index, &mut input[used..]);
            } else if self.table[index].state == State::Handshake {
                self.table[index].rare().head = input.to_vec();
            }
            return;
        }
        kept.extend_from_slice(input);
        match self.try_head(index, &kept) {
            Some(used) => self.after_head(index, &mut kept[used..]),
            None if self.table[index].state == State::Handshake => self.table[index].rare().head = kept,
            None => {}
        }
    }

    /// What the head asks for is done, but the bytes behind it: gives how long the head is, if the client
    /// is now established here. A head that is incomplete leaves the state as it is.
    fn try_head(&mut self, index: u32, input: &[u8]) -> Option<usize> {
        let policy = self.policy(index);
        let (request, length) = match parse_head(input, &self.settings.head) {
            Ok(None) => return None,
            Ok(Some(head)) => head,
            Err(refusal) => {
                self.refuse(index, &refusal);
                return None;
            }
        };
        let refuse = if request.method == "HEAD" { Self::refuse_head } else { Self::refuse };
        let refuse_named = |shard: &mut Self, refusal: &Refusal| {
            shard.follow_named(index, || session::named_user(&request, &policy));
            refuse(shard, index, refusal);
        };
        let another = match self.learn_client(index, &request) {
            Ok(another) => another,
            Err(refusal) => {
                refuse_named(self, &refusal);
                return None;
            }
        };
        match session::route(&request, &policy) {
            Err(refusal) => refuse_named(self, &refusal),
            Ok(Route::Ready) if self.is_draining() => refuse(self, index, &self.draining(index)),
            Ok(Route::Health) => self.answer(index, &request, session::plain_response(200, "ok\n")),
            Ok(Route::Ready) => self.answer(index, &request, session::plain_response(200, "ready\n")),
            Ok(Route::Demo) => self.answer_demo(index, &request),
            Ok(Route::Preflight(origin)) => {
                let fields = policy.origins.preflight_fields(origin);
                self.answer(index, &request, session::preflight_response(&fields));
            }
            Ok(Route::Open(opening)) => {
                return self.admit(index, opening, &input[length..], another).then_some(length);
            }
        }
        None
    }

    fn after_head(&mut self, index: u32, rest: &mut [u8]) {
        if !rest.is_empty() {
            self.hear(index, rest);
        }
    }

    fn policy(&self, index: u32) -> Policy {
        let Settings { policy, echo, .. } = &self.settings;
        let public = self.table[index].is(flag::PUBLIC);
        let identified = self.grants.identity(index).is_some();
        Policy { echo: if public { echo.1 } else { echo.0 }, identified, ..policy.clone() }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.gate.draining.load(Ordering::Relaxed)
    }

    /// Spread over the drain, as are the delays of those that are told to come back.
    fn draining(&self, index: u32) -> Refusal {
        let refusal = Refusal::new(RefusalReason::Draining, "the gateway is about to restart");
        Refusal { retry_after_s: Some(1 + spread(self.delay_key(index), self.drain_within_s())), ..refusal }
    }

    /// Lets the client in, here or at its owner. True if it is established here. `another`: not the one before
    /// it on this connection.
    fn admit(&mut self, index: u32, mut opening: Opening, unread: &[u8], another: bool) -> bool {
        // Where a credential says who it is, that is known only once it has been checked.
        let named = matches!(opening.credential, Credential::None);
        if named {
            self.notice(index, &opening);
        }
        if self.is_draining() {
            self.refuse_opening(index, &opening, self.draining(index));
            return false;
        }
        // Another request of one that was let in: those who poll all the time are no rush of new ones.
        let served = self.table[index].is(flag::SERVED);
        // Before the rate of the shard: one address must not use it up for all others.
        if (!served || another)
            && let Err(refusal) = self.take_connect(index)
        {
            self.refuse_opening(index, &opening, refusal);
            return false;
        }
        if !served && let Err(refusal) = self.take_turn(opening.since) {
            self.refuse_opening(index, &opening, refusal);
            return false;
        }
        // Behind the rate of connects: a signature costs more than all that came before it.
        let identified = self.identify(index, &mut opening);
        if !named {
            self.notice(index, &opening);
        }
        if let Err(refusal) = identified {
            self.refuse_opening(index, &opening, refusal);
            return false;
        }
        let owner = opening.user.as_ref().map_or(self.number, |user| self.owner.shard_of(user));
        if owner == self.number {
            return self.establish(index, opening);
        }
        self.stats.moved_out += 1;
        life!(DEBUG, self, connection = %self.id(index), remote = self.remote(index), to = owner, "handed over");
        self.trace(index, |_| Act::HandedOver { shard: owner });
        self.uncount(index);
        let address = self.addresses.of(index);
        let flags = self.table[index].flags & flag::OF_LISTENER;
        let socket = self.release(index);
        let origins = self.settings.policy.origins.clone();
        let handover = Handover { socket, opening, origins, unread: unread.to_vec(), address, flags };
        let handover = Box::new(handover);
        if let Err(returned) = self.peers[usize::from(owner)].hand_over(handover) {
            self.stats.moved_out -= 1;
            let index = self.table.insert(returned.socket, self.clock.tick());
            self.follow(index, returned.opening.user.as_ref());
            let (key, why) = (self.delay_key(index), "the shard of this user is overloaded");
            let refusal = overloaded(key, RefusalReason::ShardBusy, why);
            self.refuse_opening(index, &returned.opening, refusal);
        }
        false
    }

    /// Takes over a connection that landed elsewhere.
    pub(super) fn take_over(&mut self, handover: Handover) {
        let Handover { socket, mut opening, origins, mut unread, address, flags } = handover;
        // Both shards take over other settings, but not at the same moment.
        opening.origin = self.settings.policy.origins.renumber(opening.origin, &origins);
        self.stats.moved_in += 1;
        let index = self.table.insert(socket, self.clock.tick());
        self.table[index].set(flags);
        if let Some(address) = address {
            self.addresses.keep(index, address);
        }
        if self.establish(index, opening) {
            self.after_head(index, &mut unread);
            self.want_read(index);
        }
    }

    /// Answers and makes the client part of everything. False when it was refused.
    fn establish(&mut self, index: u32, opening: Opening) -> bool {
        let place = self.check_connections_of_user(&opening).and_then(|()| self.take_places(index));
        if let Err(refusal) = place {
            self.refuse_opening(index, &opening, refusal);
            return false;
        }
        self.replace_others(&opening);
        self.stats.connections += 1;
        *self.clients_by(opening.transport) += 1;
        let slot = &mut self.table[index];
        slot.state = State::Open;
        slot.transport = opening.transport;
        slot.heartbeat_s = opening.heartbeat_s;
        slot.uplink_full_us = self.clock.us();
        self.grant(index, &opening);
        if let Some(user) = &opening.user {
            self.users.attach(&mut self.table, index, user.as_str());
        }
        self.begin_heartbeat(index);
        for topic in &opening.topics {
            let id = self.topics.intern(topic, &mut self.tape);
            self.topics.subscribe(&mut self.table, index, id);
        }
        let asked = opening.since.map(Some).or(opening.lost.then_some(None));
        self.follow(index, opening.user.as_ref());
        self.trace(index, |shard| Act::Opened {
            transport: transport_name(opening.transport),
            remote: shard.remote(index),
            topics: opening.topics.clone(),
            heartbeat_s: opening.heartbeat_s,
        });
        let resume = asked.map(|since| self.resume(index, since));
        if let (Some(since), Some(resume)) = (asked, &resume) {
            self.count_resume(resume);
            self.trace_resumed(index, since, resume);
        }
        let gap = resume.as_ref().is_some_and(|resume| resume.gap);
        life!(
            DEBUG,
            self,
            connection = %self.id(index),
            remote = self.remote(index),
            transport = transport_name(opening.transport),
            user = opening.user.as_ref().map(|user| user.as_str()),
            topics = opening.topics.len(),
            replayed = resume.as_ref().map(|resume| resume.replayed),
            gap,
            "open"
        );
        let greeting = self.greeting(index, &opening, resume);
        if self.wants(event_mask::CONNECT) {
            let what = Happening::Connect {
                transport: transport_name(opening.transport),
                remote: self.remote(index),
                topics: opening.topics.clone(),
            };
            self.report(Some(self.id(index)), opening.user.clone(), what);
        }
        match greeting {
            Some(greeting) => self.queue(index, greeting),
            None => self.begin_poll(index, &opening, gap),
        }
        true
    }

    /// How many established clients there are of this kind.
    pub(super) fn clients_by(&mut self, transport: Transport) -> &mut u64 {
        match transport {
            Transport::EventStream => &mut self.stats.event_streams,
            Transport::LongPoll => &mut self.stats.polls,
            Transport::WebSocketRaw | Transport::WebSocketJson | Transport::WebSocketEcho => {
                &mut self.stats.websockets
            }
        }
    }

    /// The answer to the request, and what the client is told before any message. `None` for a poll, whose
    /// answer is the message.
    fn greeting(&self, index: u32, opening: &Opening, resume: Option<Resume>) -> Option<Bytes> {
        Some(match opening.transport {
            Transport::LongPoll => return None,
            Transport::WebSocketRaw | Transport::WebSocketEcho => opening.response(),
            Transport::WebSocketJson => {
                let hello = envelope::hello(self.id(index), self.position(), opening.heartbeat_s);
                let resumed = resume.map(|resume| envelope::resumed(resume.replayed, resume.gap));
                Bytes::from([opening.response(), hello, resumed.unwrap_or_default()].concat())
            }
            Transport::EventStream => {
                let gap = resume.as_ref().is_some_and(|resume| resume.gap);
                // Only where nothing is sent again: an id ahead of a replay would have what the client did
                // not get of it skipped when it comes back.
                let at = resume.is_none_or(|resume| resume.replayed == 0).then(|| self.stands_at(index));
                let retry_ms = STREAM_RETRY_MS + spread(index, STREAM_RETRY_MS);
                let mut answer = event_stream::head(&self.settings.policy.origins.fields(opening.origin));
                answer += &event_stream::begin(retry_ms, at.filter(|_| !gap));
                if gap {
                    answer += &event_stream::gap(at);
                }
                answer.into()
            }
        })
    }

    /// The position up to which nothing is on its way to the client that it has not been given.
    pub(super) fn stands_at(&self, index: u32) -> Position {
        let slot = &self.table[index];
        let seq = if slot.is(flag::AHEAD) { slot.cursor } else { self.tape.head() };
        Position { epoch: self.epoch, seq }
    }

    pub(super) fn count_resume(&mut self, resume: &Resume) {
        self.stats.resumes += 1;
        self.stats.gaps += u64::from(resume.gap);
    }

    /// Sets the cursor for a client that was at `since`, or at what is no position.
    fn resume(&mut self, index: u32, since: Option<Position>) -> Resume {
        let head = self.tape.head();
        let given_out = self.gate.last_seq.load(Ordering::Acquire);
        let since_seq = since.filter(|since| since.epoch == self.epoch).map(|since| since.seq);
        let same_epoch = since_seq.is_some();
        let seq = since_seq.unwrap_or(0);
        if seq > given_out {
            // Nobody was ever given this position: what was missed cannot be known.
            return Resume { replayed: 0, gap: true };
        }
        if seq > head {
            // Given out by another shard; our copies are still in the mailbox.
            let slot = &mut self.table[index];
            slot.cursor = seq;
            slot.set(flag::AHEAD);
            return Resume { replayed: 0, gap: false };
        }
        let chains = self.chains_of(index);
        // A user without a chain may have had one, forgotten since.
        let chainless = self.table[index].user != NONE && !self.has_user_chain(index);
        let forgotten = chainless && self.tape.has_forgotten(seq);
        let gap = !same_epoch || forgotten || self.tape.has_lost(&chains, seq);
        let replayed = self.count_replay(&chains, seq);
        if replayed > 0 {
            let slot = &mut self.table[index];
            slot.cursor = seq;
            slot.set(flag::BEHIND);
            slot.rare().lag_exempt = head;
            self.mark(index);
        }
        Resume { replayed, gap }
    }

    /// Ends a connection whose request is refused.
    pub(super) fn refuse(&mut self, index: u32, refusal: &Refusal) {
        self.refuse_by(index, None, refusal, session::refusal_response(refusal));
    }

    /// The same for HEAD.
    fn refuse_head(&mut self, index: u32, refusal: &Refusal) {
        self.refuse_by(index, None, refusal, session::head_of(&session::refusal_response(refusal)));
    }

    /// The same for a request that there was no room for, in a way that a page can read.
    fn refuse_opening(&mut self, index: u32, opening: &Opening, refusal: Refusal) {
        let fields = match opening.transport {
            Transport::EventStream | Transport::LongPoll => {
                self.settings.policy.origins.refusal_fields(opening.origin)
            }
            Transport::WebSocketRaw | Transport::WebSocketJson | Transport::WebSocketEcho => String::new(),
        };
        let refusal = Refusal { fields, ..refusal };
        self.refuse_by(index, opening.user.clone(), &refusal, session::refusal_response(&refusal));
    }

    fn refuse_by(&mut self, index: u32, user: Option<UserId>, refusal: &Refusal, response: Bytes) {
        self.tell_refused(Some(refusal.status), refusal.code, user, |shard| shard.remote(index));
        let (status, code) = (refusal.status, refusal.code);
        life!(DEBUG, self, connection = %self.id(index), remote = self.remote(index), status, code, "refused");
        self.trace(index, |_| Act::Refused { status, code, message: refusal.message.to_string() });
        self.stats.unauthorized += u64::from(refusal.status == 401);
        self.stats.count_refusal(refusal.reason);
        let reason = match refusal.reason {
            RefusalReason::HandshakeTimeout => CloseReason::HandshakeTimeout,
            RefusalReason::ForbiddenAddress => CloseReason::ForbiddenAddress,
            _ => CloseReason::Refused,
        };
        self.finish(index, reason, Answer::Http(response));
    }

    fn answer(&mut self, index: u32, request: &Request<'_>, response: Bytes) {
        let response = if request.method == "HEAD" { session::head_of(&response) } else { response };
        life!(DEBUG, self, connection = %self.id(index), "answered without being let in");
        self.finish(index, CloseReason::Answered, Answer::Http(response));
    }

    /// Queued in two pieces: nobody needs a copy of the page.
    fn answer_demo(&mut self, index: u32, request: &Request<'_>) {
        self.queue(index, demo::head());
        if request.method == "GET" {
            self.queue(index, Bytes::from_static(demo::PAGE.as_bytes()));
        }
        self.finish(index, CloseReason::Answered, Answer::Queued);
    }
}

/// How a transport is named to operators.
pub(super) fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::WebSocketRaw | Transport::WebSocketJson => "ws",
        Transport::WebSocketEcho => "echo",
        Transport::EventStream => "sse",
        Transport::LongPoll => "poll",
    }
}
