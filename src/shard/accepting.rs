//! Sockets from the listeners: accepting, and backing off where the kernel refuses.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shard;
use super::conn::flag;
use super::life::life;
use super::listener::Retry;
use super::remote::remote_of;
use crate::ring::Socket;
use crate::stats::{AcceptError, CloseReason, RefusalReason};

/// First wait after an accept error, and the longest.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

impl Shard {
    pub(super) fn arm_listeners(&mut self) {
        for number in 0..self.listeners.len() {
            self.arm_listener(number);
        }
    }

    fn arm_listener(&mut self, number: usize) {
        self.ring.arm_accept(self.listeners[number].socket.as_fd(), number as u16);
    }

    pub(super) fn accepted(&mut self, listener: u16, socket: Socket, armed: bool) {
        self.listeners[usize::from(listener)].retry = None;
        if !armed {
            self.arm_listener(usize::from(listener));
        }
        self.stats.accepted += 1;
        if let Err(reason) = self.judge_peer(listener, &socket) {
            self.tell_refused(None, reason.name(), None, |_| remote_of(&socket));
            return self.stats.count_close(reason);
        }
        if self.gate.sockets.fetch_add(1, Ordering::Relaxed) >= self.settings.sockets_max {
            self.gate.sockets.fetch_sub(1, Ordering::Relaxed);
            self.tell_refused(None, CloseReason::Refused.name(), None, |_| remote_of(&socket));
            self.stats.count_refusal(RefusalReason::Descriptors);
            self.stats.count_close(CloseReason::Refused);
            life!(
                DEBUG,
                self,
                "closed at accept: there are descriptors for {} sockets",
                self.settings.sockets_max
            );
            return;
        }
        let index = self.table.insert(socket, self.clock.tick());
        life!(DEBUG, self, connection = %self.id(index), remote = self.remote(index), "accepted");
        let listener = &self.listeners[usize::from(listener)];
        if !listener.loopback {
            self.table[index].set(flag::PUBLIC);
        }
        if listener.speaks_proxy {
            self.table[index].set(flag::PROXY_DUE);
        }
        // The head is often there already: read before arming a poll.
        self.want_read(index);
    }

    /// Backs off, so that a full descriptor table does not become a busy loop.
    pub(super) fn accept_failed(&mut self, listener: u16, error: &std::io::Error) {
        let errors: u64 = self.stats.accept_errors.iter().sum();
        self.stats.accept_errors[kind_of(error) as usize] += 1;
        let number = usize::from(listener);
        if error.raw_os_error() == Some(libc::ECONNABORTED) {
            self.arm_listener(number);
            return;
        }
        let before = self.listeners[number].retry;
        let wait = before.map_or(RETRY_MIN, |retry| (retry.wait * 2).min(RETRY_MAX));
        self.listeners[number].retry = Some(Retry { at: self.clock.now() + wait, wait, armed: false });
        // Rule 8: each accept that succeeds in between would make the next error a first one.
        if before.is_none() && (errors == 0 || errors.is_power_of_two()) {
            let (open, limit) = (self.table.used(), self.settings.connections_max);
            tracing::warn!(
                shard = self.number,
                "cannot accept: {error}, {errors} times before; {open} connections open here, limits.connections is {limit}; \
                 trying again every {RETRY_MAX:?} at most"
            );
        }
    }

    /// Accepts again where the wait is over. Gives when the next one is.
    pub(super) fn retry_listeners(&mut self) -> Option<Duration> {
        let now = self.clock.now();
        let mut next: Option<Duration> = None;
        for number in 0..self.listeners.len() {
            let Some(retry) = self.listeners[number].retry.as_mut().filter(|retry| !retry.armed) else {
                continue;
            };
            if retry.at <= now {
                retry.armed = true;
                self.arm_listener(number);
            } else {
                let wait = retry.at - now;
                next = Some(next.map_or(wait, |earlier| earlier.min(wait)));
            }
        }
        next
    }
}

fn kind_of(error: &std::io::Error) -> AcceptError {
    match error.raw_os_error() {
        Some(libc::EMFILE) => AcceptError::Emfile,
        Some(libc::ENFILE) => AcceptError::Enfile,
        Some(libc::ENOBUFS) => AcceptError::Enobufs,
        Some(libc::ENOMEM) => AcceptError::Enomem,
        Some(libc::ECONNABORTED) => AcceptError::Econnaborted,
        _ => AcceptError::Other,
    }
}
