//! Looks at the connections of all shards: lists, a page at a time, and dumps of all.
//!
//! A shard is asked for one short step at a time, whoever asks, one shard after the other; so a list costs a
//! push that comes by at most one step. A list goes on by itself, a dump only when its reader has taken the
//! piece before. No I/O; what is said comes out of `take`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::command::{Answer, CommandError, ErrorCode};
use super::inquiries::{ClientId, Waiter};
use super::queries;
use super::sequencer::Sequencer;
use crate::connections::{
    Budget, Found, LIMIT_DEFAULT, LIMIT_MAX, ListingStep, Page, Place, Query, Session, SessionsEnd, Sort,
};
use crate::shard::mailbox::Request;

/// What a step may take of a shard: a fifth of what a turn may be held.
const STEP_TIME: Duration = Duration::from_micros(200);
/// Slots that a step may look at.
const STEP_LOOKS: u32 = 4096;
/// Connections that a step may find.
const STEP_ROWS: usize = 256;
/// Lists at once. One more is `busy`.
const LISTS_MAX: usize = 64;

/// Names one scan.
pub type ScanId = u64;

/// What a step of a scan comes to.
#[derive(Debug)]
pub enum Told {
    /// The answer to a list.
    Answer(Answer),
    /// A piece of a dump, and its end with the last.
    Piece(Vec<Session>, Option<SessionsEnd>),
}

#[derive(Debug)]
enum Kind {
    List(Page),
    Dump(SessionsEnd),
}

#[derive(Debug)]
struct Scan {
    client: ClientId,
    correlation: u64,
    query: Arc<Query>,
    kind: Kind,
    /// The shard that is looked at, and where it stands there.
    shard: u16,
    place: Option<Place>,
    /// The last of all.
    last_shard: u16,
    /// A step is asked for or under way.
    steps: bool,
}

/// All scans that run.
#[derive(Debug, Default)]
pub struct Scans {
    running: HashMap<ScanId, Scan>,
    next_id: ScanId,
    /// Those with a step to be asked for, in order.
    queue: VecDeque<ScanId>,
    /// Shards with a step under way, by number.
    looking: Vec<bool>,
}

/// The shards that `query` concerns, first and last.
fn shards(query: &Query, sequencer: &Sequencer) -> (u16, u16) {
    if let Some(user) = &query.filter.user {
        let owner = sequencer.shard_of(user);
        return (owner, owner);
    }
    let last = sequencer.shard_count() as u16 - 1;
    // A cursor may be from another run, with more shards.
    let first =
        query.after.filter(|_| query.sort == Sort::Id).map_or(0, |after| after.key.id.shard.min(last));
    (first, last)
}

fn check(query: &Query) -> Result<u32, CommandError> {
    let limit = queries::limit(query.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    match query.after {
        Some(after) if after.sort != query.sort => {
            let message = format!("after is of a list by {}, this one is by {}", after.sort, query.sort);
            Err(CommandError::new(ErrorCode::BadRequest, message))
        }
        _ => Ok(limit),
    }
}

impl Scans {
    /// Begins a list for one request of `waiter`. Errors: `bad_request` for a limit out of range or a cursor of
    /// another sort, `busy` when too many run.
    pub fn list(&mut self, query: Query, waiter: Waiter, sequencer: &Sequencer) -> Result<(), CommandError> {
        let limit = check(&query)?;
        let lists = self.running.values().filter(|scan| matches!(scan.kind, Kind::List(_))).count();
        if lists >= LISTS_MAX {
            let message = format!("{LISTS_MAX} lists of connections are being made, try again");
            return Err(CommandError::new(ErrorCode::Busy, message));
        }
        let page = Page::new(query.sort, limit);
        self.begin(query, Kind::List(page), waiter, sequencer);
        Ok(())
    }

    /// Asks for the next piece of the dump that `waiter` reads; of a new one, for its first.
    pub fn dump_on(&mut self, waiter: Waiter, sequencer: &Sequencer) {
        let of = |scan: &Scan| Waiter::Client { client: scan.client, correlation: scan.correlation };
        let begun = self
            .running
            .iter_mut()
            .find(|(_, scan)| matches!(scan.kind, Kind::Dump(_)) && of(scan) == waiter);
        match begun {
            None => {
                let begins_at = SessionsEnd { connections: 0, position: sequencer.position() };
                self.begin(Query::default(), Kind::Dump(begins_at), waiter, sequencer);
            }
            Some((&id, scan)) if !scan.steps => {
                scan.steps = true;
                self.queue.push_back(id);
            }
            Some(_) => {}
        }
    }

    fn begin(&mut self, query: Query, kind: Kind, waiter: Waiter, sequencer: &Sequencer) {
        let Waiter::Client { client, correlation } = waiter else { return };
        self.looking.resize(sequencer.shard_count(), false);
        let (shard, last_shard) = shards(&query, sequencer);
        let query = Arc::new(query);
        let scan = Scan { client, correlation, query, kind, shard, place: None, last_shard, steps: true };
        self.running.insert(self.next_id, scan);
        self.queue.push_back(self.next_id);
        self.next_id += 1;
    }

    /// Whether a step waits for room in a mailbox, so that time alone may change something.
    pub fn is_held(&self) -> bool {
        !self.queue.is_empty() && !self.looking.contains(&true)
    }

    /// Asks for every step that a shard is free for.
    pub fn ask(&mut self, sequencer: &mut Sequencer) {
        for _ in 0..self.queue.len() {
            let Some(id) = self.queue.pop_front() else { return };
            let Some(scan) = self.running.get(&id) else { continue };
            let shard = scan.shard;
            let busy = self.looking[usize::from(shard)];
            if busy || sequencer.ask_one(shard, Request::Look(scan.step()), Waiter::Scan(id)).is_err() {
                self.queue.push_back(id);
                continue;
            }
            self.looking[usize::from(shard)] = true;
        }
    }

    /// Takes what a step of scan `id` found. Gives whom something is to be told, and what.
    pub fn take(&mut self, id: ScanId, found: Found) -> Option<(Waiter, Told)> {
        self.looking[usize::from(found.shard)] = false;
        // Who asked may have gone.
        let scan = self.running.get_mut(&id)?;
        let waiter = Waiter::Client { client: scan.client, correlation: scan.correlation };
        let over = scan.go_on(&found);
        let told = match &mut scan.kind {
            Kind::List(page) => {
                found.rows.into_iter().for_each(|(key, row)| page.take(key, row));
                if !(over || scan.query.sort == Sort::Id && found.in_id_order && page.room() == 0) {
                    self.queue.push_back(id);
                    return None;
                }
                let Some(Scan { kind: Kind::List(page), .. }) = self.running.remove(&id) else { return None };
                return Some((waiter, Told::Answer(Answer::Connections(page.finish()))));
            }
            Kind::Dump(end) => {
                let sessions: Vec<_> = found.rows.into_iter().map(|(_, row)| Session::from(row)).collect();
                end.connections += sessions.len() as u64;
                scan.steps = false;
                Told::Piece(sessions, over.then_some(*end))
            }
        };
        if over {
            self.running.remove(&id);
        }
        Some((waiter, told))
    }

    /// Ends what a client has asked for: it is gone.
    pub fn forget(&mut self, client: ClientId) {
        self.running.retain(|_, scan| scan.client != client);
    }
}

impl Scan {
    fn step(&self) -> ListingStep {
        let (bound, rows) = match &self.kind {
            // By id, whoever comes first is mostly found first: no more than are due.
            Kind::List(page) if self.query.sort == Sort::Id && page.room() > 0 => {
                (page.bound(), page.room().min(STEP_ROWS))
            }
            Kind::List(page) => (page.bound(), STEP_ROWS),
            Kind::Dump(_) => (None, STEP_ROWS),
        };
        ListingStep {
            query: self.query.clone(),
            place: self.place,
            bound,
            ask_sockets: matches!(self.kind, Kind::List(_)),
            budget: Budget { looks: STEP_LOOKS, rows, time: STEP_TIME },
        }
    }

    /// Notes how far it came; true when all shards were looked at.
    fn go_on(&mut self, found: &Found) -> bool {
        self.place = found.next;
        if found.next.is_none() {
            if self.shard == self.last_shard {
                return true;
            }
            self.shard += 1;
        }
        false
    }
}
