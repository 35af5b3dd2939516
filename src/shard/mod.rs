//! One core's executor with all that it owns: listeners, ring, connections, users, topics, tape, clock.
//!
//! A shard shares nothing (design section 2): plain fields of one struct on one thread. Its life is the
//! loop in `run`, a loop of batches. This file performs no protocol: `accepting` takes sockets, `remote` says
//! where they come from, `opening` makes them clients where `identity` knows who they are and `admission` has a
//! place, `refusing` turns the others away, `receiving` hears them, `polling` holds those that poll, `delivery`
//! takes letters from control, `sending` writes what `outlook` gathers, `sweeping` keeps time, `shedding` cuts
//! those furthest behind when memory is short, `ending` lets go, `conservation` counts what is never sent,
//! `listing` tells control who is there, `adopting` takes over other settings, `measuring` tells what is counted and
//! held, `life` tells of it all at `debug`, `events` tells those who listen what happens, `trail` those who trace.

mod accepting;
mod addresses;
mod admission;
mod adopting;
pub mod clock;
mod column;
pub mod conn;
mod conservation;
mod counts;
mod delivery;
mod ending;
mod events;
mod forms;
mod grants;
mod happenings;
mod identity;
mod life;
pub mod listener;
mod listing;
mod log_pace;
pub mod mailbox;
mod measuring;
mod networks;
mod opening;
mod outlook;
mod polling;
mod receiving;
mod refusing;
mod remote;
mod sending;
mod settings;
mod shedding;
mod steps;
mod sweeping;
pub mod tape;
pub mod topics;
mod trail;
pub mod users;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ring::{self, Arrival, Ring};
use addresses::Addresses;
use clock::{Clock, Sweep};
use conn::Table;
use grants::Grants;
use listener::Listener;
use mailbox::{Gate, Inbox, Mailbox, Owner, Report};
use tape::Tape;
use topics::Topics;
use users::Users;

use crate::message::{ConnId, Position};
use crate::stats::ShardStats;

pub use conservation::Owed;
pub use settings::{Room, Settings};

/// What a shard is made from.
#[derive(Debug)]
pub struct Parts {
    /// Its number, from 0.
    pub number: u16,
    /// The gateway's epoch.
    pub epoch: u32,
    /// Limits and timeouts as plain numbers.
    pub settings: Settings,
    /// Its own listeners, one per address.
    pub listeners: Vec<Listener>,
    /// Its mailbox.
    pub inbox: Inbox,
    /// Every shard's mailbox, by number, for hand-overs.
    pub peers: Vec<Mailbox>,
    /// Who owns which user.
    pub owner: Owner,
    /// What all shards share.
    pub gate: Arc<Gate>,
    /// To control.
    pub reports: flume::Sender<Report>,
}

/// One shard.
#[derive(Debug)]
pub struct Shard {
    number: u16,
    epoch: u32,
    settings: Settings,
    listeners: Vec<Listener>,
    inbox: Inbox,
    peers: Vec<Mailbox>,
    owner: Owner,
    gate: Arc<Gate>,
    reports: flume::Sender<Report>,

    ring: Ring,
    clock: Clock,
    sweep: Sweep,
    /// When the ring's timer will wake us, if one is armed.
    timer: Option<Instant>,
    table: Table,
    addresses: Addresses,
    users: Users,
    grants: Grants,
    topics: Topics,
    tape: Tape,

    /// Slots with something to receive, and with something to send.
    readable: VecDeque<u32>,
    marked: VecDeque<u32>,
    /// Cursors below this may still be needed: `Tape::trim`.
    needed_after: u64,
    /// The same, being collected by the running pass of the sweep.
    needed_after_next: u64,
    /// What the sweep has found by the way.
    census: measuring::Census,
    /// Bytes appended since nobody was marked: letters wait while it is too much.
    unsent_bytes: usize,
    receiver: receiving::Receiver,
    sender: sending::Sender,
    connects: admission::ConnectRate,
    lines: log_pace::Lines,
    /// To be told at the end of the batch that is being received, with the number of their delay.
    refusals: Vec<(u32, refusing::Shortage, u32)>,
    /// `5e9f7cd8-`, as positions of this gateway begin.
    epoch_text: [u8; 9],
    trails: trail::Trails,
    /// Refusals that listeners are yet to be told of, and events that control did not take.
    refused: events::Refused,
    events_lost: u64,
    /// How often those furthest behind were cut: `Gate::cuts_told`.
    cuts_done: u64,
    draining: Option<ending::Drain>,
    stopped: bool,
    stats: ShardStats,
}

impl Shard {
    /// Makes the shard, on the thread that will run it. Its turns accept.
    ///
    /// Errors: the ring was refused (`Ring::new`), or a listener's option was (ENOPROTOOPT).
    pub fn new(parts: Parts) -> io::Result<Self> {
        Self::new_at(parts, Instant::now())
    }

    /// The same at time `now`, with which its turns begin.
    pub fn new_at(parts: Parts, now: Instant) -> io::Result<Self> {
        let Parts { number, epoch, settings, listeners, inbox, peers, owner, gate, reports } = parts;
        let clock = Clock::start(now);
        for listener in &listeners {
            listener.adopt(&settings)?;
        }
        let mut shard = Self {
            ring: Ring::new(inbox.eventfd().as_fd())?,
            sweep: Sweep::new(&settings.timeouts, clock.now()),
            tape: Tape::new(settings.tape),
            receiver: receiving::Receiver::new(),
            sender: sending::Sender::default(),
            connects: admission::ConnectRate::new(settings.connects_per_second),
            lines: log_pace::Lines::new(peers.len()),
            refusals: Vec::new(),
            epoch_text: epoch_text(epoch),
            stats: ShardStats { shard: number, ..ShardStats::default() },
            number,
            epoch,
            settings,
            listeners,
            inbox,
            peers,
            owner,
            gate,
            reports,
            clock,
            timer: None,
            table: Table::default(),
            addresses: Addresses::default(),
            users: Users::default(),
            grants: Grants::default(),
            topics: Topics::default(),
            readable: VecDeque::new(),
            marked: VecDeque::new(),
            needed_after: u64::MAX,
            unsent_bytes: 0,
            needed_after_next: u64::MAX,
            trails: trail::Trails::default(),
            refused: events::Refused::default(),
            events_lost: 0,
            census: measuring::Census::default(),
            cuts_done: 0,
            draining: None,
            stopped: false,
        };
        shard.arm_listeners();
        Ok(shard)
    }

    /// Runs until told to stop, inside a glommio executor. `begin` is called, and may wait, when the shard has all
    /// descriptors of its own and before it accepts the first client.
    pub async fn run(mut self, begin: impl FnOnce()) -> io::Result<()> {
        let alarm = self.alarm()?;
        begin();
        self.clock.run();
        while !self.stopped {
            self.turn(Instant::now());
            self.rest(&alarm).await;
        }
        self.answer_the_late().await;
        self.close_all();
        Ok(())
    }

    /// One turn of the loop, at time `now`, which never goes back. `run` is turns and rests.
    pub fn turn(&mut self, now: Instant) {
        self.clock.advance(now);
        self.stats.turns += 1;
        self.inbox.give_sign_of_life();
        self.collect();
        self.receive();
        self.take_letters();
        self.keep_time();
        self.send();
        self.stats.turn_time.observe(self.clock.reading() - now);
    }

    /// Takes what the ring has to tell: new clients, sockets to read, sockets that take bytes again.
    fn collect(&mut self) {
        self.ring.collect();
        while let Some(arrival) = self.ring.arrival() {
            match arrival {
                Arrival::Accepted { listener, socket, armed } => self.accepted(listener, socket, armed),
                Arrival::AcceptFailed { listener, error } => self.accept_failed(listener, &error),
                Arrival::Readable { token, ended, .. } => self.became_readable(token, ended),
                Arrival::Ended { token } => self.has_ended(token),
                Arrival::Writable { token } => self.became_writable(token),
                Arrival::Timer => self.timer = None,
            }
        }
    }

    /// Sleeps until the ring or the mailbox has something, or time is due; only yields when there is work.
    async fn rest(&mut self, alarm: &glommio::io::BufferedFile) {
        let busy = !self.readable.is_empty() || !self.marked.is_empty() || self.is_telling_clients_to_leave();
        if busy || self.stopped {
            glommio::executor().yield_if_needed().await;
            return;
        }
        self.arm_timer();
        self.ring.collect();
        self.ring.signal(true);
        self.inbox.fall_asleep();
        if self.ring.is_quiet() && self.inbox.is_empty() {
            // An error would be a broken eventfd: a turn too many is the worst that can come of it.
            let _ = alarm.read_at(0, 8).await;
        }
        self.inbox.stay_awake();
        self.ring.signal(false);
    }

    /// The eventfd as glommio reads it.
    fn alarm(&self) -> io::Result<glommio::io::BufferedFile> {
        Ok(ring::alarm(self.inbox.eventfd().try_clone()?))
    }

    fn arm_timer(&mut self) {
        let now = self.clock.now();
        let Some(due) = self.due_in(now) else { return };
        let at = now + due;
        // An earlier timer is good enough: it costs one empty turn.
        if self.timer.is_some_and(|timer| timer <= at && timer > now) {
            return;
        }
        self.timer = Some(at);
        self.ring.arm_timer(due.max(Duration::from_millis(1)));
    }

    /// This connection's id.
    fn id(&self, index: u32) -> ConnId {
        ConnId { shard: self.number, index, generation: self.table[index].generation }
    }

    /// Where this shard stands in the sequence.
    fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.tape.head() }
    }

    /// Puts slot `index` among those with something to send.
    fn mark(&mut self, index: u32) {
        let slot = &mut self.table[index];
        if !slot.is(conn::flag::MARKED) {
            slot.set(conn::flag::MARKED);
            self.marked.push_back(index);
        }
    }
}

/// How positions of epoch `epoch` begin.
fn epoch_text(epoch: u32) -> [u8; 9] {
    let text = Position { epoch, seq: 0 }.to_string();
    text.as_bytes()[..9].try_into().expect("8 digits and a dash")
}
