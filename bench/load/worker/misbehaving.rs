//! Clients that a server must survive: each step of each behaviour.

use super::slots::State;
use super::{MASK, SECOND_NS, Worker};
use crate::plan::Behaviour;
use crate::wire::websocket::{self, Opcode};

/// What a slow reader takes at a time, ten times a second.
const SIP_BYTES: usize = 1024;
const GARBAGE_BYTES: usize = 1024;
/// Pings and fragments of one step, and the pause between steps: 64,000 a second and client.
const FLOOD: usize = 64;
const FLOOD_PAUSE_NS: u64 = 1_000_000;
const FRAGMENT_PAUSE_NS: u64 = SECOND_NS / 10;

impl Worker {
    /// The next step of a client that misbehaves; its timer has run out.
    pub(super) fn misbehave(&mut self, index: usize) {
        let state = self.slots[index].state;
        match self.slots[index].behaviour {
            Behaviour::SlowReader => self.sip(index),
            Behaviour::ByteASecond if state == State::Handshake => self.drip(index),
            Behaviour::Resets if state == State::Open => {
                self.reset(index);
                self.connect(index);
            }
            Behaviour::Garbage => self.babble(index),
            Behaviour::EndlessFragments => self.fragment(index),
            Behaviour::PingFlood => self.flood(index),
            _ => {}
        }
    }

    fn sip(&mut self, index: usize) {
        match self.receive(index, SIP_BYTES) {
            Ok(0) => self.end(index, Some(crate::record::Error::Ended)),
            Ok(read) => self.take(index, read),
            Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => self.end(index, Some(super::opening::error_of(error))),
        }
        if self.slots[index].socket.is_some() {
            self.misbehave_in(index, SECOND_NS / 10);
        }
    }

    /// One byte more of the request.
    fn drip(&mut self, index: usize) {
        let request = self.opening_request(index);
        // `seq` counts the bytes: a client that never opens hears no publisher.
        let at = self.slots[index].seq as usize;
        if let Some(byte) = request.get(at) {
            self.slots[index].seq += 1;
            self.write(index, &[*byte]);
            self.misbehave_in(index, SECOND_NS);
        }
    }

    /// Ends the connection with RST.
    pub(super) fn reset(&mut self, index: usize) {
        if let Some(socket) = &self.slots[index].socket {
            // With a linger time of 0, close() discards what is queued and resets.
            let _ = rustix::net::sockopt::set_socket_linger(socket, Some(std::time::Duration::ZERO));
        }
        self.end(index, None);
    }

    fn babble(&mut self, index: usize) {
        let mut garbage = Vec::with_capacity(GARBAGE_BYTES);
        while garbage.len() < GARBAGE_BYTES {
            garbage.extend(self.random.next().to_le_bytes());
        }
        self.write(index, &garbage);
    }

    fn fragment(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        // The first begins a text message, the others go on with it. `seq` tells which it is.
        let first = slot.seq == 0;
        slot.seq = 1;
        let mut frame = Vec::new();
        websocket::fragment(&mut frame, first, b"and so on, ", MASK);
        self.write(index, &frame);
        if self.slots[index].socket.is_some() {
            self.misbehave_in(index, FRAGMENT_PAUSE_NS);
        }
    }

    fn flood(&mut self, index: usize) {
        let mut pings = Vec::with_capacity(FLOOD * 8);
        for _ in 0..FLOOD {
            websocket::frame(&mut pings, Opcode::Ping, b"??", MASK);
        }
        // Only while the socket takes them: what piles up here would be our own memory.
        let waits = self.slots[index].rare.as_ref().is_some_and(|rare| !rare.unsent.is_empty());
        if !waits {
            self.write(index, &pings);
        }
        if self.slots[index].socket.is_some() {
            self.misbehave_in(index, FLOOD_PAUSE_NS);
        }
    }
}
