//! Tickets: made over the control socket, good for one connection within a short time.
//!
//! All shards share one `Tickets` (behind a mutex, in `shard::mailbox::Gate`): a ticket is gone with its
//! first use, wherever that was. Bounded in number; times and random octets are arguments.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Identity;

/// Longest time that a ticket waits: it is for a connection that is about to be made.
pub const TTL_MAX: Duration = Duration::from_secs(3600);

/// The 128 random bits of a ticket. Written as 22 digits of base64url.
pub type TicketId = [u8; 16];

/// What a ticket is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Whose connection it will be. `expires_unix_ms` is not known before it is used.
    pub identity: Identity,
    /// How long the connection may last from then on; `None` is without end.
    pub connection_ttl: Option<Duration>,
}

/// As many tickets wait to be used as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Tickets that wait to be used.
#[derive(Debug, Default)]
pub struct Tickets {
    waiting: HashMap<TicketId, (Instant, Ticket)>,
    /// By when they end.
    ends: BTreeSet<(Instant, TicketId)>,
}

/// As a ticket is presented.
pub fn text(id: &TicketId) -> String {
    URL_SAFE_NO_PAD.encode(id)
}

fn parse(text: &str) -> Option<TicketId> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

impl Tickets {
    /// Keeps a ticket until `end`. Errors: `Full` where `tickets_max` others wait at `now`.
    pub fn issue(
        &mut self,
        id: TicketId,
        ticket: Ticket,
        end: Instant,
        now: Instant,
        tickets_max: usize,
    ) -> Result<(), Full> {
        self.forget_ended(now);
        if self.waiting.len() >= tickets_max {
            return Err(Full);
        }
        self.waiting.insert(id, (end, ticket));
        self.ends.insert((end, id));
        Ok(())
    }

    /// Takes the ticket presented as `text`: nobody will find it again. `None` for one that is unknown, used
    /// or ended.
    pub fn burn(&mut self, text: &str, now: Instant) -> Option<Ticket> {
        let id = parse(text)?;
        let (end, ticket) = self.waiting.remove(&id)?;
        self.ends.remove(&(end, id));
        (now < end).then_some(ticket)
    }

    /// Tickets that wait, ended ones that nobody has looked for among them.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn forget_ended(&mut self, now: Instant) {
        while let Some((end, id)) = self.ends.first().copied()
            && end <= now
        {
            self.ends.pop_first();
            self.waiting.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ticket() -> Ticket {
        Ticket { identity: Identity::default(), connection_ttl: None }
    }

    #[test]
    fn issue_6_a_ticket_is_burnt_on_first_use() {
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        tickets.issue([7; 16], ticket(), now + SECOND, now, 1).unwrap();
        let presented = text(&[7; 16]);
        assert_eq!(presented.len(), 22);
        assert_eq!(tickets.burn(&presented, now), Some(ticket()));
        assert_eq!(tickets.burn(&presented, now), None);
        assert!(tickets.is_empty() && tickets.ends.is_empty());
    }

    #[test]
    fn issue_6_a_ticket_is_good_until_its_end_and_not_at_it() {
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        for n in [1, 2] {
            tickets.issue([n; 16], ticket(), now + SECOND, now, 2).unwrap();
        }
        let before = now + SECOND - Duration::from_millis(1);
        assert!(tickets.burn(&text(&[1; 16]), before).is_some());
        assert_eq!(tickets.burn(&text(&[2; 16]), now + SECOND), None);
    }

    #[test]
    fn issue_6_no_more_tickets_wait_than_may_and_ended_ones_make_room() {
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        tickets.issue([1; 16], ticket(), now + 2 * SECOND, now, 2).unwrap();
        tickets.issue([2; 16], ticket(), now + SECOND, now, 2).unwrap();
        assert_eq!(tickets.issue([3; 16], ticket(), now + SECOND, now, 2), Err(Full));
        tickets.issue([3; 16], ticket(), now + 2 * SECOND, now + SECOND, 2).unwrap();
        assert_eq!(tickets.len(), 2);
        assert_eq!(tickets.burn(&text(&[2; 16]), now), None);
    }

    #[test]
    fn issue_6_what_is_no_ticket_is_none() {
        let mut tickets = Tickets::default();
        for text in ["", "a", "=", "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAA", "ß"] {
            assert_eq!(tickets.burn(text, Instant::now()), None);
        }
    }
}
