//! Who a client is: its token verified or its ticket burnt, what that allows, and its end.
//!
//! What a credential means is decided in `auth`. The wall clock is looked at when a token comes in, and never
//! again: from then on its end is counted by the clock that nobody can set.

use std::sync::Arc;
use std::time::Instant;

use super::Shard;
use super::clock::wall_ms;
use super::conn::State;
use super::ending::Answer;
use super::grants::Rights;
use crate::auth::{BadToken, Credential, Identity};
use crate::message::Topic;
use crate::stats::{CloseReason, RefusalReason};
use crate::wire::close::{Refusal, code};
use crate::wire::envelope::{self, EchoId};
use crate::wire::session::{Opening, Proof, Transport};

/// Tokens that are ended in one turn.
const ENDS_PER_TURN: usize = 1024;

impl Shard {
    /// Finds out who the client of `opening` is, and whether it may have the topics that it wants.
    ///
    /// Errors: 401 for a credential that does not hold, 403 for a topic. `opening.user` is set then, too, where who
    /// it is is certain.
    pub(super) fn identify(&mut self, index: u32, opening: &mut Opening) -> Result<(), Refusal> {
        let identity = match std::mem::take(&mut opening.credential) {
            Credential::None => return Ok(()),
            Credential::Token(token) => {
                let verified = self.settings.verifier.judge(token.reveal(), wall_ms());
                Arc::new(verified.map_err(|refused| {
                    opening.user = refused.user;
                    unauthorized(refused.why)
                })?)
            }
            Credential::Ticket(ticket) => Arc::new(self.burn(ticket.reveal())?),
            Credential::Kept => {
                let ended =
                    || Refusal::new(RefusalReason::Unauthorized, "the time of this connection is over");
                self.grants.identity(index).cloned().ok_or_else(ended)?
            }
        };
        opening.user.clone_from(&identity.user);
        let refused = identity.topics.as_ref().and_then(|patterns| patterns.first_refused(&opening.topics));
        if let Some(topic) = refused {
            return Err(Refusal::new(RefusalReason::ForbiddenTopic, forbidden(topic)));
        }
        opening.identity = Some(identity);
        Ok(())
    }

    fn verify(&self, token: &str) -> Result<Identity, Refusal> {
        let verified = self.settings.verifier.verify(token, wall_ms());
        verified.map_err(unauthorized)
    }

    fn burn(&self, text: &str) -> Result<Identity, Refusal> {
        let mut tickets = self.gate.tickets.lock().expect("no panic while tickets are counted");
        let ticket = tickets.burn(text, Instant::now()).ok_or_else(|| {
            Refusal::new(RefusalReason::Unauthorized, "the ticket is unknown, used already, or too old")
        })?;
        let ttl_ms = ticket.connection_ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let expires_unix_ms = ttl_ms.map(|ttl_ms| wall_ms().saturating_add(ttl_ms));
        Ok(Identity { expires_unix_ms, ..ticket.identity })
    }

    /// Whether the user may have one more connection. Errors: 429.
    pub(super) fn check_connections_of_user(&self, opening: &Opening) -> Result<(), Refusal> {
        let Some(identity) = &opening.identity else { return Ok(()) };
        let (Some(user), Some(most)) = (&identity.user, identity.connections_max) else { return Ok(()) };
        // One that replaces the others is alone.
        let others = if identity.single { 0 } else { self.connections_of(user).len() };
        if others >= most as usize {
            let message = format!("the user has {others} connections, and {most} are allowed");
            return Err(Refusal::new(RefusalReason::ConnectionsPerUser, message));
        }
        Ok(())
    }

    /// Ends the user's other connections where this one is to be the only one.
    pub(super) fn replace_others(&mut self, opening: &Opening) {
        let identity = opening.identity.as_ref().filter(|identity| identity.single);
        let Some(user) = identity.and_then(|identity| identity.user.as_ref()) else { return };
        for index in self.connections_of(user) {
            self.replace(index);
        }
    }

    fn replace(&mut self, index: u32) {
        let reason = "replaced by a newer connection";
        if self.table[index].transport == Transport::LongPoll {
            return self.forbid_poll(index, CloseReason::Replaced, RefusalReason::Replaced, reason);
        }
        let answer = Answer::Close { code: Some(code::REPLACED), reason: reason.into() };
        self.finish(index, CloseReason::Replaced, answer);
    }

    /// Keeps of the identity what is needed from here on.
    pub(super) fn grant(&mut self, index: u32, opening: &Opening) {
        let Some(identity) = &opening.identity else { return self.grants.clear(index) };
        // Of an earlier poll: its end is counted already.
        if !self.grants.identity(index).is_some_and(|kept| Arc::ptr_eq(kept, identity)) {
            self.set_grant(index, identity.clone());
        }
    }

    fn set_grant(&mut self, index: u32, identity: Arc<Identity>) {
        let end = identity.expires_unix_ms.and_then(|expires| self.clock.tenths_at(expires));
        let polls = self.table[index].transport == Transport::LongPoll && self.proof() == Proof::Ticket;
        let topics = identity.topics.clone().map(Rights::Topics);
        let rights = if polls { Some(Rights::Polls(identity)) } else { topics };
        self.grants.set(index, end, rights);
    }

    /// What clients have to show.
    pub(super) fn proof(&self) -> Proof {
        self.settings.policy.proof
    }

    /// Ends those whose token or ticket has.
    pub(super) fn end_grants(&mut self) {
        for _ in 0..ENDS_PER_TURN {
            let Some(index) = self.grants.take_ended(self.clock.tenths()) else { return };
            // Between two polls there is nobody to be told: the next one is refused.
            if self.table[index].state == State::Open {
                self.end_grant(index);
            }
        }
    }

    fn end_grant(&mut self, index: u32) {
        if self.table[index].transport == Transport::LongPoll {
            return self.cut_poll_short(index);
        }
        let answer = Answer::Close { code: Some(code::TOKEN_EXPIRED), reason: "token expired".into() };
        self.finish(index, CloseReason::TokenExpired, answer);
    }

    /// `refresh`: the connection goes on under another token of the same user. What the new token does not
    /// allow any more is unsubscribed, except topics that the old one did not allow either: those were bound
    /// by the operator.
    pub(super) fn heard_refresh(&mut self, index: u32, token: &str, id: &EchoId) {
        let identity = match self.refreshed_identity(index, token) {
            Ok(identity) => identity,
            Err(refusal) => return self.queue(index, envelope::error(refusal.code, &refusal.message, id)),
        };
        let (before, after) = (self.grants.topics(index), identity.topics.as_ref());
        let subscribed = self.topics.of(&self.table, index).map(|id| self.topics.name(id));
        let lost = subscribed.filter(|topic| before.is_none_or(|patterns| patterns.allow(topic)));
        let lost = lost.filter(|topic| after.is_some_and(|patterns| !patterns.allow(topic)));
        let lost: Vec<Topic> = lost.cloned().collect();
        let expires_at = identity.expires_unix_ms;
        self.set_grant(index, Arc::new(identity));
        self.queue(index, envelope::refreshed(expires_at, id));
        if !lost.is_empty() {
            self.unsubscribe_from(index, &lost);
            self.queue(index, envelope::unsubscribed(&lost, self.position(), &None));
        }
    }

    fn refreshed_identity(&mut self, index: u32, token: &str) -> Result<Identity, Refusal> {
        if self.proof() != Proof::Token {
            return Err(Refusal::new(
                RefusalReason::BadRequest,
                "auth.mode is not jwt: there is nothing to refresh",
            ));
        }
        let identity = self.verify(token).and_then(|identity| {
            let is_same = identity.user == self.user_of(index);
            let other = || Refusal::new(RefusalReason::Unauthorized, "the token is of another user");
            if is_same { Ok(identity) } else { Err(other()) }
        });
        self.stats.unauthorized += u64::from(identity.is_err());
        identity
    }

    /// The first of `topics` that the client may not subscribe to.
    pub(super) fn first_forbidden<'t>(&self, index: u32, topics: &'t [Topic]) -> Option<&'t Topic> {
        self.grants.topics(index)?.first_refused(topics)
    }
}

fn unauthorized(why: BadToken) -> Refusal {
    Refusal::new(RefusalReason::Unauthorized, why.to_string())
}

/// What a client is told about a topic that it may not have.
pub(super) fn forbidden(topic: &Topic) -> String {
    format!("this client may not subscribe to the topic {topic}")
}
