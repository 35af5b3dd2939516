//! What has to happen later: the few connections that a worker cannot leave to the kernel.
//!
//! Waiting connections have no timer; deadlines of handshakes and responses are swept (`Worker::sweep`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// Connect again.
    Return,
    /// The next step of a client that misbehaves.
    Misbehave,
    /// The next message of a chat sender.
    Chat,
}

/// A heap of moments. A slot that has moved on since (its generation) is for the caller to leave out.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(u64, u32, u16, Due)>>,
}

impl Timers {
    /// Puts one in: at `at_ns`, for slot `index` of `generation`.
    pub fn add(&mut self, at_ns: u64, index: u32, generation: u16, due: Due) {
        self.heap.push(Reverse((at_ns, index, generation, due)));
    }

    /// When the next is due.
    pub fn next_ns(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_ns, ..))| *at_ns)
    }

    /// Takes one that is due at `now_ns`: slot, generation, what, and when it was due.
    pub fn pop(&mut self, now_ns: u64) -> Option<(u32, u16, Due, u64)> {
        self.next_ns().filter(|&at_ns| at_ns <= now_ns)?;
        let Reverse((at_ns, index, generation, due)) = self.heap.pop()?;
        Some((index, generation, due, at_ns))
    }
}
