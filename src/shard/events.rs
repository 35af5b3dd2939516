//! What happens to clients, told to those who listen to `/v1/events`.
//!
//! Nobody pays for what nobody listens to: `Shard::wants` is looked at before anything is put together. Never
//! waits for control.

use std::sync::atomic::Ordering;

use super::Shard;
use super::mailbox::{Event, Happening, Report};
use crate::message::{ConnId, UserId};

/// Reports that may wait for control before events are dropped; replies never are.
const REPORTS_MAX: usize = 65_536;

impl Shard {
    /// Whether anybody listens to events of this kind (`event_mask`).
    pub(super) fn wants(&self, event: u64) -> bool {
        self.gate.events_wanted.load(Ordering::Relaxed) & event != 0
    }

    /// Tells the listeners of `/v1/events`; they lose what they do not take in time, and are told.
    pub(super) fn report(&mut self, connection: ConnId, user: Option<UserId>, what: Happening) {
        let event = Event { connection, user, at_ms: self.clock.unix_ms(), what };
        if self.reports.len() >= REPORTS_MAX {
            self.stats.events_dropped += 1;
            return;
        }
        // Control has gone only when the gateway ends.
        let _ = self.reports.send(Report::Event(event));
    }
}
