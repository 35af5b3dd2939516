//! A batch of pushes in progress: some of it each turn, so that a long one delays nobody.
//!
//! Where a single push is told `busy`, a batch waits for room: its pushes keep their order, and the
//! caller has one answer. Only when no room comes for `control.request_timeout` is the rest refused.

use std::time::{Duration, Instant};

use super::command::{CommandError, Push};
use super::inquiries::BatchId;
use super::push;
use super::sequencer::Sequencer;

/// Pushes taken from one batch in one turn.
const STEP: usize = 1024;

#[derive(Debug)]
enum Source {
    /// An NDJSON body, and where its next line begins.
    Lines(Vec<u8>, usize),
    /// Decoded already.
    Pushes(std::vec::IntoIter<Push>),
}

/// One batch.
#[derive(Debug)]
pub struct Job {
    batch: BatchId,
    source: Source,
    /// Of the last push or line taken, from 1.
    line: u64,
    /// Taken, and waiting for room since then.
    held: Option<(Push, Instant)>,
}

impl Job {
    /// Pushes from the lines of an NDJSON body.
    pub fn lines(batch: BatchId, body: Vec<u8>) -> Self {
        Self { batch, source: Source::Lines(body, 0), line: 0, held: None }
    }

    /// Pushes that are decoded already.
    pub fn pushes(batch: BatchId, pushes: Vec<Push>) -> Self {
        Self { batch, source: Source::Pushes(pushes.into_iter()), line: 0, held: None }
    }

    /// Whether it waits for a shard, so that there is no use in another step at once.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Takes some pushes; false when there are no more and the batch was closed.
    pub fn step(&mut self, sequencer: &mut Sequencer, patience: Duration, now: Instant) -> bool {
        for _ in 0..STEP {
            let (push, since) = match self.held.take() {
                Some((push, since)) => (Ok(push), since),
                None => match self.next() {
                    Some(push) => (push, now),
                    None => {
                        sequencer.close_batch(self.batch);
                        return false;
                    }
                },
            };
            match push {
                Ok(push) if !sequencer.would_take(&push) && now < since + patience => {
                    self.held = Some((push, since));
                    return true;
                }
                push => sequencer.batch_push(self.batch, self.line, push, now),
            }
        }
        true
    }

    fn next(&mut self) -> Option<Result<Push, CommandError>> {
        match &mut self.source {
            Source::Pushes(pushes) => {
                self.line += 1;
                pushes.next().map(Ok)
            }
            Source::Lines(body, at) => loop {
                let (line, next) = push::next_line(body, *at)?;
                *at = next;
                self.line += 1;
                if !push::is_blank(line) {
                    return Some(push::parse(line));
                }
            },
        }
    }
}
