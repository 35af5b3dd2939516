//! Refusing early: who comes when there is no place is told so before anything is parsed or kept for him.
//!
//! Not at accept, where health checks and pages could not be told apart: by the first octets that come. They
//! have to be one whole request for a path of clients, so that everything they sent has been read and closing
//! at once sends a FIN: with input unread, or still to come, the kernel sends a reset instead, which may take
//! the answer with it (RFC 1122 4.2.2.13). Whatever looks different (`/healthz`, a head in pieces) goes the
//! long way through `opening`, which gives the same answers. What it costs: bench/README.md, `refusal`.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Shard;
use super::admission::{NEW, RETRY_AFTER_S, RETURNING};
use super::conn::{State, flag};
use super::life::life;
use crate::message::Position;
use crate::stats::{CloseReason, RefusalReason};
use crate::wire::close::Refusal;
use crate::wire::origin::Origins;
use crate::wire::session;

/// Why a client that has done nothing wrong is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    /// `limits.connects_per_second`.
    Rate,
    /// `limits.memory`, or the cgroup's limit.
    Memory,
}

impl Shortage {
    const ALL: [Self; 2] = [Self::Rate, Self::Memory];
    /// In the answer, for both.
    const CODE: &'static str = "overloaded";

    fn reason(self) -> RefusalReason {
        match self {
            Self::Rate => RefusalReason::ConnectsPerSecond,
            Self::Memory => RefusalReason::Memory,
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Rate => "too many new connections at once (limits.connects_per_second)",
            Self::Memory => "memory is short (limits.memory)",
        }
    }

    /// The refusal, with the `number`th of the delays.
    pub(super) fn refusal(self, number: u32) -> Refusal {
        let refusal = Refusal::new(self.reason(), self.message());
        Refusal { retry_after_s: Some(1 + number % RETRY_AFTER_S), ..refusal }
    }
}

/// Answers that are ready: for each shortage one with each delay.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    by_shortage: [Vec<Bytes>; Shortage::ALL.len()],
    /// Whose page asks decides whether it may read the answer.
    by_origin: bool,
}

impl Answers {
    pub(super) fn new(origins: &Origins) -> Self {
        let fields = origins.refusal_fields(None);
        let answer = |shortage: Shortage, number| {
            session::refusal_response(&Refusal { fields: fields.clone(), ..shortage.refusal(number) })
        };
        let answers = |shortage| (0..RETRY_AFTER_S).map(|number| answer(shortage, number)).collect();
        Self { by_shortage: Shortage::ALL.map(answers), by_origin: *origins != Origins::ANY }
    }
}

impl Shard {
    /// Whether there is no room for one more client, be its request what it may: an early answer will do.
    /// `returning` is asked only where it matters.
    fn is_short(&mut self, returning: impl FnOnce(&Self) -> bool) -> Option<Shortage> {
        let now_ms = self.clock.ms();
        if self.gate.memory_short.load(Ordering::Relaxed) {
            return Some(Shortage::Memory);
        }
        if self.connects.has(NEW, now_ms) || self.connects.has(RETURNING, now_ms) && returning(self) {
            return None;
        }
        Some(Shortage::Rate)
    }

    /// The same for a client whose request is known; takes its place where there is one.
    pub(super) fn take_turn(&mut self, since: Option<Position>) -> Result<(), Refusal> {
        let given_out = self.gate.last_seq.load(Ordering::Acquire);
        let returning = since.is_some_and(|since| since.epoch == self.epoch && since.seq <= given_out);
        if let Some(shortage) = self.is_short(|_| returning) {
            return Err(shortage.refusal(self.tell_of_shortage(shortage)));
        }
        self.connects.take(if returning { RETURNING } else { NEW });
        Ok(())
    }

    /// Logs a client that is about to be refused. Gives how many were before it: the number of its delay.
    fn tell_of_shortage(&mut self, shortage: Shortage) -> u32 {
        let lines = match shortage {
            Shortage::Rate => &mut self.lines.refused_rate,
            Shortage::Memory => &mut self.lines.refused_memory,
        };
        if let Some(silent) = lines.count(self.clock.now()) {
            let (shard, limit) = (self.number, self.settings.connects_per_second);
            tracing::warn!(
                shard,
                "refused a client: {}; {silent} without a line before it, limits.connects_per_second is {limit}",
                shortage.message()
            );
        }
        self.stats.refused_for(shortage.reason()) as u32
    }

    /// Puts the client of slot `index`, whose first octets these are, among those to be refused at the end of
    /// the batch, if that is what becomes of it.
    pub(super) fn refuse_early(&mut self, index: u32, input: &[u8]) -> bool {
        let slot = &self.table[index];
        let first =
            slot.state == State::Handshake && !slot.is(flag::SERVED | flag::PROXY_DUE) && slot.rare.is_none();
        if !first || self.is_draining() {
            return false;
        }
        let Some(shortage) = self.is_short(|shard| shard.names_our_epoch(input)) else { return false };
        let by_origin = self.settings.answers.by_origin;
        if !session::is_whole_opening(input) || by_origin && session::names_origin(input) {
            return false;
        }
        let number = self.tell_of_shortage(shortage);
        self.stats.count_refusal(shortage.reason());
        self.refusals.push((index, shortage, number % RETRY_AFTER_S));
        true
    }

    /// Whoever knows it has been here. What it says is looked at where its request is parsed.
    fn names_our_epoch(&self, input: &[u8]) -> bool {
        input.windows(self.epoch_text.len()).any(|octets| octets == self.epoch_text)
    }

    /// Answers those who are refused early, and lets them go at once.
    pub(super) fn send_refusals(&mut self) {
        if self.refusals.is_empty() {
            return;
        }
        let refusals = std::mem::take(&mut self.refusals);
        let Self { ring, table, settings, stats, .. } = self;
        let job = |&(index, shortage, number): &(u32, Shortage, u32)| {
            let answer = &settings.answers.by_shortage[shortage as usize][number as usize];
            (table[index].socket(), &answer[..])
        };
        // A failed send is of a peer that has gone.
        let sent = ring.send_last(refusals.iter().map(job));
        stats.sent_bytes += sent.map(|sent| sent.unwrap_or(0) as u64).sum::<u64>();
        for &(index, ..) in &refusals {
            self.tell_refused(Some(503), Shortage::CODE, None, |shard| shard.remote(index));
            self.stats.refused_early += 1;
            life!(DEBUG, self, connection = %self.id(index), "refused before its request was read");
            self.stats.count_close(CloseReason::Refused);
            self.gate.sockets.fetch_sub(1, Ordering::Relaxed);
            self.let_go(index);
        }
        self.refusals = refusals;
        self.refusals.clear();
    }
}
