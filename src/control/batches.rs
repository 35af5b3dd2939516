//! Batches of pushes: each accepted or refused by itself, one answer for all.
//!
//! Reads and posts nothing; `sequencer` tells it what became of each push.

use super::command::{BatchAnswer, BatchError, CommandError, Pushed};
use super::inquiries::{BatchId, Waiter};

/// Most refusals told one by one; `refused` counts all. A body of 16 MiB could hold millions of them.
pub const ERRORS_MAX: usize = 1000;

#[derive(Debug)]
struct Batch {
    waiter: Waiter,
    answer: BatchAnswer,
    /// Pushes without their answer.
    left: u64,
    closed: bool,
}

/// All batches that are running; few, since a client has at most one.
#[derive(Debug, Default)]
pub struct Batches {
    running: Vec<Option<Batch>>,
}

impl Batches {
    /// A new batch, for `waiter`.
    pub fn open(&mut self, waiter: Waiter) -> BatchId {
        let answer =
            BatchAnswer { accepted: 0, refused: 0, errors: Vec::new(), position: None, connections: 0 };
        let batch = Some(Batch { waiter, answer, left: 0, closed: false });
        let free = self.running.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.running.push(None);
            self.running.len() - 1
        });
        self.running[index] = batch;
        index as BatchId
    }

    fn batch(&mut self, id: BatchId) -> &mut Batch {
        self.running[id as usize].as_mut().expect("a batch runs until it is settled")
    }

    /// One more push is on its way.
    pub fn posted(&mut self, id: BatchId) {
        self.batch(id).left += 1;
    }

    /// One has its answer.
    pub fn pushed(&mut self, id: BatchId, pushed: Pushed) {
        let batch = self.batch(id);
        batch.left -= 1;
        batch.answer.accepted += 1;
        batch.answer.connections += pushed.connections;
        // Shards answer in any order; positions ascend.
        if batch.answer.position.is_none_or(|newest| newest.seq < pushed.position.seq) {
            batch.answer.position = Some(pushed.position);
        }
    }

    /// One was refused.
    pub fn refused(&mut self, id: BatchId, line: u64, error: CommandError) {
        let batch = self.batch(id);
        batch.left -= 1;
        batch.answer.refused += 1;
        if batch.answer.errors.len() < ERRORS_MAX {
            batch.answer.errors.push(BatchError { line, code: error.code, message: error.message });
        }
    }

    /// No further push comes.
    pub fn close(&mut self, id: BatchId) {
        self.batch(id).closed = true;
    }

    /// The whole answer once every push has its own; the batch is over then.
    pub fn settle(&mut self, id: BatchId) -> Option<(Waiter, BatchAnswer)> {
        let batch = self.batch(id);
        if !batch.closed || batch.left > 0 {
            return None;
        }
        self.running[id as usize].take().map(|batch| (batch.waiter, batch.answer))
    }
}
