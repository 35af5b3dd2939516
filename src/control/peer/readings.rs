//! The counters at an interval, to a client that asked for them.
//!
//! Never a queue of them: a client that has not taken one misses the next ones. All who are due get the same
//! reading, so that many readers ask the shards no more often than one.

use std::time::{Duration, Instant};

use rustix::net::sockopt;

use super::{Peer, Protocol};
use crate::control::command::{Answer, Stats};
use crate::control::desk::Subject;
use crate::control::routes;

/// What the kernel may hold of a stream of counters: two readings or so of a gateway of a few shards. Its
/// default would be fifty, and who looks away for a minute would see the minute pass by before the present.
const SEND_BYTES: usize = 8 << 10;
/// Readings are due on this grid, so that many readers of one interval are due together.
const GRID: Duration = Duration::from_millis(50);

impl Peer {
    /// When the first reading of a stream that begins at `now` is due: at once.
    pub(super) fn first_reading(&self, now: Instant, epoch: Instant) -> Instant {
        // A refusal leaves the kernel's default: more is kept, and nothing is wrong.
        let _ = sockopt::set_socket_send_buffer_size(&self.socket, SEND_BYTES);
        let past = now.saturating_duration_since(epoch).as_nanos() % GRID.as_nanos();
        now.checked_sub(Duration::from_nanos(past as u64)).unwrap_or(now)
    }

    /// When it wants a reading, where it reads them.
    pub fn reading_due(&self) -> Option<Instant> {
        self.streams.iter().filter_map(|stream| stream.due).min()
    }

    /// Gives this reading to each of its streams that is due, unless what it was given before is unread; without
    /// one, all that are due miss it. `line` is the reading as JSON, made when somebody wants it.
    pub fn tell_reading(&mut self, reading: Option<(&Stats, &mut Option<String>)>, now: Instant) {
        let mut due = Vec::new();
        for stream in &mut self.streams {
            let (Subject::Stats(every), Some(at)) = (&stream.subject, stream.due.filter(|at| *at <= now))
            else {
                continue;
            };
            let missed = now.saturating_duration_since(at).as_nanos() / every.as_nanos().max(1);
            stream.due = Some(at + every.saturating_mul(missed as u32 + 1));
            due.push(stream.correlation);
        }
        let Some((stats, line)) = reading.filter(|_| self.output.unread() == 0) else { return };
        for correlation in due {
            match self.protocol {
                Protocol::Binary => {
                    self.write_line(correlation, "", |_| Answer::Stats(Box::new(stats.clone())));
                }
                _ => {
                    let line = line.get_or_insert_with(|| routes::stats_json(stats).to_string());
                    self.write_line(correlation, line, Answer::Event);
                }
            }
        }
    }
}
