//! The control socket and the admin listener: commands in, answers out.
//!
//! One glommio executor, one loop (`Control::turn`): sleep in `poller`, accept through `socket`, read and do what
//! each `peer` asks, take the shards' reports, look at the clock, write. HTTP (`http`, `routes`) and the
//! binary protocol (`codec`) meet in `command`; `desk` does it; `sequencer` gives positions and is the
//! only one that posts to shards. Over TCP the same comes in by `admin`, which lets little of it pass. Sees of
//! `shard` only its mailbox, and never waits for a shard.

pub mod admin;
mod batches;
mod chunked;
pub mod codec;
pub mod command;
mod dashboard;
mod desk;
mod drain;
mod events;
pub mod http;
pub mod inquiries;
mod job;
mod keys;
mod log_levels;
mod metrics;
mod output;
mod peer;
mod poller;
pub mod push;
mod queries;
mod reload;
mod routes;
mod scans;
pub mod sequencer;
pub mod socket;
mod supervision;
pub mod tally;
mod tickets;
pub mod topics;
mod trace;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use admin::AdminSocket;
use command::{CommandError, DrainProgress, ErrorCode};
use desk::{Desk, Subject};
use inquiries::{ClientId, Waiter};
pub use metrics::reference as metrics_reference;
use peer::{Door, Peer, PeerLimits, READ_BYTES};
use poller::{ADMIN_LISTENER, EventFlags, LISTENER};
pub use poller::{Channel, Poller};
pub use reload::{Reload, Reloads};
pub use routes::stats_json;
use scans::Told;
pub use sequencer::Shards;
use sequencer::{Outcome, Sequencer};
pub use socket::{BoundSocket, SocketError, default_path};
use supervision::Supervision;

use crate::config::{Config, LogFilter};
use crate::service::ServiceManager;
use crate::shard::mailbox::{Event, Gate, Report, Request};
use crate::stats::ShardStats;

/// Clients beyond `control.clients`, and as many beyond `admin.clients`, that are told so; beyond them an accepted
/// client is just closed.
const REFUSED_MAX: usize = 16;
/// Clients of the admin listener that are accepted in one turn.
const ADMIN_ACCEPTS_MAX: usize = 16;
/// How often the clock is looked at while something waits for it.
const TICK: Duration = Duration::from_millis(50);
/// How long accepting pauses when descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the last answers may take to be read before the gateway goes.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the gateway tells control.
#[derive(Debug)]
pub enum Signal {
    /// Drain over `timeouts.drain`, then return.
    Drain,
    /// The configuration is read again.
    Reload(Reload),
}

/// The control socket: `given` by the service manager, else bound at `path`. See `socket::bind`.
pub fn bind(config: &Config, path: &Path, given: Option<UnixListener>) -> Result<BoundSocket, SocketError> {
    match given {
        Some(listener) => socket::inherit(config, path, listener),
        None => socket::bind(config, path),
    }
}

/// What control is made from.
#[derive(Debug)]
pub struct Parts {
    /// The control socket.
    pub socket: BoundSocket,
    /// The admin listener.
    pub admin: Option<AdminSocket>,
    /// The effective configuration.
    pub config: Arc<Config>,
    /// What changes its `log.level`.
    pub log_filter: LogFilter,
    /// The gateway's epoch.
    pub epoch: u32,
    /// All shards.
    pub shards: Shards,
    /// What they share.
    pub gate: Arc<Gate>,
    /// Where they send what they report.
    pub reports: flume::Receiver<Report>,
    /// Where the signal thread sends.
    pub signals: flume::Receiver<Signal>,
    /// Who is to be told how it goes.
    pub manager: Option<ServiceManager>,
}

/// Serves the control socket on this executor, waiting with `poller`, until a drain is over and all shards have
/// reported `Stopped` (or are gone); the socket's file is removed then.
///
/// Panics when waiting fails: then nothing can be commanded any more (Rule 6).
pub async fn run(poller: Poller, parts: Parts) {
    let mut control = Control::new(poller, parts);
    while !control.desk.drain.is_over() {
        control.turn().await;
    }
    control.farewell().await;
}

/// All that control owns.
pub struct Control {
    poller: Poller,
    socket: BoundSocket,
    admin: Option<AdminSocket>,
    /// Accepting pauses until then, on both.
    accept_at: Option<Instant>,
    peers: Vec<Slot>,
    limits: PeerLimits,
    /// The shards were asked for counters that are told at an interval.
    reading: bool,
    desk: Desk,
    /// Traces are still to be ended: a shard had no room for the letter.
    traces_ending: bool,
    /// A configuration that the shards are still to be asked to take over.
    adopting: Option<(Arc<Config>, Request)>,
    supervision: Option<Supervision>,
    gate: Arc<Gate>,
    reports: Channel<Report>,
    signals: Channel<Signal>,
    scratch: Vec<u8>,
}

/// Room for one client.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    peer: Option<Peer>,
    /// What its socket is watched for; `None` once it hung up.
    watched: Option<EventFlags>,
}

impl Control {
    fn new(poller: Poller, parts: Parts) -> Self {
        let Parts { socket, admin, config, log_filter, epoch, shards, gate, reports, signals, manager } =
            parts;
        poller.add(socket.listener(), LISTENER, EventFlags::IN).expect("the control socket can be watched");
        if let Some(admin) = &admin {
            let added = poller.add(admin.listener(), ADMIN_LISTENER, EventFlags::IN);
            added.expect("the admin listener can be watched");
        }
        let message_bytes_max = config.limits.message_bytes.bytes();
        let sequencer = Sequencer::new(epoch, message_bytes_max, shards, gate.clone());
        let now = Instant::now();
        let supervision = manager.map(|manager| Supervision::begin(manager, &sequencer, now));
        Self {
            poller,
            socket,
            admin,
            accept_at: None,
            peers: Vec::new(),
            limits: reload::peer_limits(&config),
            reading: false,
            desk: Desk::new(sequencer, gate.clone(), config, log_filter, now),
            traces_ending: false,
            adopting: None,
            supervision,
            gate,
            reports: Channel::new(reports),
            signals: Channel::new(signals),
            scratch: vec![0; READ_BYTES],
        }
    }

    async fn turn(&mut self) {
        let now = self.sleep().await;
        self.take_reports(now);
        self.deliver(now);
        // Before the peers work: theirs are the letters that fill the mailboxes.
        self.adopt();
        for peer in self.peers.iter_mut().filter_map(|slot| slot.peer.as_mut()) {
            peer.work(&mut self.desk, now);
        }
        self.read_counters(now);
        self.deliver(now);
        let Desk { drain, sequencer, scans, topic_lists, .. } = &mut self.desk;
        scans.ask(sequencer);
        topic_lists.ask(sequencer);
        drain.handle_tick(sequencer, now);
        if let Some(supervision) = &mut self.supervision {
            supervision.handle_tick(sequencer, drain, now);
        }
        self.desk.log_levels.handle_tick(now);
        self.desk.sequencer.wake_shards();
        self.settle(now);
    }

    /// Sleeps until something is to be done, accepts and reads what is there. Gives the time.
    async fn sleep(&mut self) -> Instant {
        let timeout = self.timeout();
        let woken = self.poller.wait(timeout, &mut self.reports, &mut self.signals).await;
        let (report, signal) = woken.expect("control can wait for its sockets");
        let now = Instant::now();
        if let Some(report) = report {
            self.take_report(report, now);
        }
        let signals: Vec<_> = signal.into_iter().chain(self.signals.drain()).collect();
        for signal in signals {
            match signal {
                Signal::Drain => self.desk.begin_default_drain(now),
                Signal::Reload(reload) => self.take_reload(reload),
            }
        }
        let ready: Vec<_> = self.poller.ready().collect();
        for (name, flags) in ready {
            if name == LISTENER || name == ADMIN_LISTENER {
                self.accept(now);
            } else if let Some(Slot { peer: Some(peer), watched, .. }) = self.peers.get_mut(name as usize) {
                if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
                    peer.hang_up();
                    *watched = None;
                    let _ = self.poller.remove(peer.socket());
                }
                if peer.wants_to_read() {
                    peer.read(&mut self.scratch);
                }
            }
        }
        // Who hung up is watched no more, but what was sent before is still to be done.
        for slot in self.peers.iter_mut().filter(|slot| slot.watched.is_none()) {
            if let Some(peer) = slot.peer.as_mut().filter(|peer| peer.wants_to_read()) {
                peer.read(&mut self.scratch);
            }
        }
        now
    }

    fn timeout(&self) -> Option<Duration> {
        let mut peers = self.peers.iter().filter_map(|slot| slot.peer.as_ref());
        if peers.clone().any(Peer::can_work) {
            return Some(Duration::ZERO);
        }
        let waits = self.accept_at.is_some()
            || self.adopting.is_some()
            || self.traces_ending
            || self.desk.drain.has_begun()
            || self.desk.scans.is_held()
            || self.desk.topic_lists.is_held();
        let ticks = waits || peers.any(Peer::wants_ticks);
        let now = Instant::now();
        let supervision = self.supervision.as_ref().map(|supervision| supervision.due_in(now));
        let reading = self.reading_due().filter(|_| !self.reading);
        let reading = reading.map(|at| at.saturating_duration_since(now));
        let own = [supervision, self.desk.log_levels.due_in(now), reading].into_iter().flatten();
        let peers = self.peers.iter().filter_map(|slot| slot.peer.as_ref());
        let due = own.chain(peers.filter_map(|peer| peer.due_in(now))).min();
        // Not shorter than it takes to be due for certain: a timer may be early by its own rounding.
        let due = due.map(|due| due.max(Duration::from_millis(1)));
        due.into_iter().chain(ticks.then_some(TICK)).min()
    }

    /// Takes in who waits at either door.
    fn accept(&mut self, now: Instant) {
        let taken = self.accept_control(now).and_then(|()| self.accept_admin(now));
        if let Err(error) = taken {
            tracing::warn!("control cannot accept: {error}; trying again in 100 ms");
            let _ = self.poller.remove(self.socket.listener());
            let _ = self.admin.as_ref().map(|admin| self.poller.remove(admin.listener()));
            self.accept_at = Some(now + ACCEPT_PAUSE);
        }
    }

    fn accept_control(&mut self, now: Instant) -> io::Result<()> {
        while let Some(accepted) = self.socket.accept()? {
            let refused = (!accepted.allowed).then(|| {
                CommandError::new(
                    ErrorCode::Forbidden,
                    "control.allow_uids and allow_gids do not name this peer",
                )
            });
            self.admit(Door::Control, accepted.socket, refused, now);
        }
        Ok(())
    }

    fn accept_admin(&mut self, now: Instant) -> io::Result<()> {
        // Strangers may come in any number, and local programs are served in between: whoever is left is told of
        // again.
        for _ in 0..ADMIN_ACCEPTS_MAX {
            let Some(admin) = &self.admin else { break };
            let Some(socket) = admin.accept()? else { break };
            self.admit(Door::Admin, socket, None, now);
        }
        Ok(())
    }

    fn admit(&mut self, door: Door, socket: OwnedFd, refused: Option<CommandError>, now: Instant) {
        let config = &self.desk.config;
        let (key, clients_max, limits) = match door {
            Door::Control => ("control.clients", config.control.clients, self.limits),
            Door::Admin => ("admin.clients", config.admin.clients, reload::admin_limits(self.limits)),
        };
        let peers =
            self.peers.iter().filter_map(|slot| slot.peer.as_ref()).filter(|peer| peer.door() == door);
        let (refused_now, clients_now) = peers.fold((0, 0), |(refused, clients), peer| {
            if peer.is_refused() { (refused + 1, clients) } else { (refused, clients + 1) }
        });
        let refusal = refused.or_else(|| {
            let message = format!("{key} is {clients_max}, and so many are connected");
            (clients_now >= clients_max).then(|| CommandError::new(ErrorCode::Busy, message))
        });
        if refusal.is_some() && refused_now >= REFUSED_MAX {
            return;
        }
        let free = self.peers.iter().position(|slot| slot.peer.is_none());
        let index = free.unwrap_or_else(|| {
            self.peers.push(Slot::default());
            self.peers.len() - 1
        });
        let slot = &mut self.peers[index];
        if let Err(error) = self.poller.add(&socket, index as u64, EventFlags::IN) {
            return tracing::warn!("control cannot watch a client: {error}");
        }
        let id = ClientId { index: index as u32, generation: slot.generation };
        slot.peer = Some(Peer::new(id, door, socket, limits, refusal, now));
        slot.watched = Some(EventFlags::IN);
    }

    /// When the next reader of the counters is due.
    fn reading_due(&self) -> Option<Instant> {
        self.peers.iter().filter_map(|slot| slot.peer.as_ref()?.reading_due()).min()
    }

    /// Asks for the counters where a reader is due. A full mailbox makes all that are due miss this one.
    fn read_counters(&mut self, now: Instant) {
        if self.reading || self.reading_due().is_none_or(|at| now < at) {
            return;
        }
        self.reading = self.desk.sequencer.ask_all(Request::Stats, Waiter::Readers).is_ok();
        if !self.reading {
            self.peers
                .iter_mut()
                .filter_map(|slot| slot.peer.as_mut())
                .for_each(|p| p.tell_reading(None, now));
        }
    }

    /// Tells the counters to all readers that are due.
    fn tell_reading(&mut self, shards: Vec<ShardStats>, now: Instant) {
        self.reading = false;
        let (stats, mut line) = (self.desk.stats(shards, now), None);
        for peer in self.peers.iter_mut().filter_map(|slot| slot.peer.as_mut()) {
            peer.tell_reading(Some((&stats, &mut line)), now);
        }
    }

    fn take_reports(&mut self, now: Instant) {
        let reports: Vec<_> = self.reports.drain().collect();
        for report in reports {
            self.take_report(report, now);
        }
        if self.reports.is_closed() {
            self.desk.drain.handle_gone();
        }
    }

    fn take_report(&mut self, report: Report, _now: Instant) {
        match report {
            Report::Reply { inquiry, reply } => self.desk.sequencer.handle_reply(inquiry, reply),
            Report::Event(event) => self.tell_event(&event),
            Report::EventsLost(count) => {
                let wants = |subject: &Subject| matches!(subject, Subject::Events(_));
                self.peers().for_each(|peer| peer.count_lost(count, wants));
            }
            Report::Step(step) => self.tell_step(&step),
            Report::StepsLost { trace, count } => {
                let wants = |subject: &Subject| *subject == Subject::Trace(trace);
                self.peers().for_each(|peer| peer.count_lost(count, wants));
            }
            Report::Stopped => self.desk.drain.handle_stopped(&self.desk.sequencer),
        }
    }

    fn tell_event(&mut self, event: &Event) {
        // Nobody may be left who wanted it: then it is not even written down.
        let mut line = None;
        self.peers().for_each(|peer| peer.tell_event(event, &mut line));
    }

    fn peers(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.peers.iter_mut().filter_map(|slot| slot.peer.as_mut())
    }

    /// Brings finished answers to whom they are for.
    fn deliver(&mut self, now: Instant) {
        while let Some((waiter, outcome)) = self.desk.sequencer.poll_answer() {
            match (waiter, outcome) {
                (Waiter::Drain, Outcome::Stats(shards)) => {
                    let Desk { drain, sequencer, .. } = &mut self.desk;
                    let progress = drain.handle_stats(&shards, sequencer, now);
                    self.tell_drain(progress);
                }
                (Waiter::Supervision, Outcome::Stats(shards)) => {
                    if let Some(supervision) = &mut self.supervision {
                        supervision.handle_stats(&shards, &self.desk.drain, now);
                    }
                }
                (Waiter::Readers, Outcome::Stats(shards)) => self.tell_reading(shards, now),
                (Waiter::Reload, _) => self.adopted(),
                (Waiter::Client { client, correlation }, Outcome::Traced(begun)) => {
                    self.begin_trace(client, correlation, &begun, now);
                }
                (Waiter::Scan(scan), Outcome::Found(found)) => {
                    if let Some((waiter, told)) = self.desk.scans.take(scan, found) {
                        self.tell_scanned(waiter, told, now);
                    }
                }
                (Waiter::Topics(list), Outcome::TopicsFound(found)) => {
                    let Desk { topic_lists, sequencer, .. } = &mut self.desk;
                    if let Some((waiter, answer)) = topic_lists.take(list, found, sequencer) {
                        self.tell_scanned(waiter, Told::Answer(answer), now);
                    }
                }
                (Waiter::Client { client, correlation }, outcome) => {
                    let slot = &mut self.peers[client.index as usize];
                    if let Some(peer) = slot.peer.as_mut().filter(|peer| peer.id() == client) {
                        peer.answer(correlation, self.desk.complete(outcome, now), now);
                    }
                }
                (
                    Waiter::Drain
                    | Waiter::Supervision
                    | Waiter::Readers
                    | Waiter::Batch(_)
                    | Waiter::Nobody
                    | Waiter::Scan(_)
                    | Waiter::Topics(_),
                    _,
                ) => {}
            }
        }
    }

    fn tell_scanned(&mut self, waiter: Waiter, told: Told, now: Instant) {
        let Waiter::Client { client, correlation } = waiter else { return };
        let peer = self.peers[client.index as usize].peer.as_mut().filter(|peer| peer.id() == client);
        match (peer, told) {
            (None, _) => {}
            (Some(peer), Told::Answer(answer)) => peer.answer(correlation, Ok(answer), now),
            (Some(peer), Told::Piece(sessions, end)) => peer.tell_sessions(correlation, sessions, end),
        }
    }

    fn tell_drain(&mut self, progress: DrainProgress) {
        self.peers().for_each(|peer| peer.tell_drain(progress));
    }

    /// Writes, looks at the clock, and lets go of whom it is over with.
    fn settle(&mut self, now: Instant) {
        // Stored before a reader is told that its stream has begun: what happens then is meant for it.
        let present = self.peers.iter().filter_map(|slot| slot.peer.as_ref());
        let wanted = present.fold(0, |wanted, peer| wanted | peer.events_wanted());
        if self.gate.events_wanted.load(Ordering::Relaxed) != wanted {
            self.gate.events_wanted.store(wanted, Ordering::Relaxed);
        }
        (self.desk.clients, self.desk.admin_clients) = (0, 0);
        for (index, slot) in self.peers.iter_mut().enumerate() {
            let Some(peer) = &mut slot.peer else { continue };
            peer.flush(now);
            if !peer.handle_tick(now) {
                self.desk.scans.forget(peer.id());
                self.desk.topic_lists.forget(peer.id());
                // Dropping the socket ends the watch, too.
                *slot = Slot { generation: slot.generation.wrapping_add(1), ..Slot::default() };
                continue;
            }
            match peer.door() {
                Door::Control => self.desk.clients += 1,
                Door::Admin => self.desk.admin_clients += 1,
            }
            let mut flags = EventFlags::empty();
            flags.set(EventFlags::IN, peer.wants_to_read());
            flags.set(EventFlags::OUT, peer.wants_to_write());
            if slot.watched.is_some_and(|watched| watched != flags)
                && self.poller.modify(peer.socket(), index as u64, flags).is_ok()
            {
                slot.watched = Some(flags);
            }
        }
        self.traces_ending = !self.end_unread_traces();
        if self.accept_at.is_some_and(|at| now >= at) {
            self.accept_at = None;
            let _ = self.poller.add(self.socket.listener(), LISTENER, EventFlags::IN);
            if let Some(admin) = &self.admin {
                let _ = self.poller.add(admin.listener(), ADMIN_LISTENER, EventFlags::IN);
            }
        }
    }

    /// Tells the last there is to tell, and gives everybody a moment to read it.
    async fn farewell(mut self) {
        let now = Instant::now();
        self.take_reports(now);
        self.deliver(now);
        self.tell_drain(self.desk.drain.progress(0, now));
        self.peers().for_each(Peer::end_streams);
        let by = now + FAREWELL;
        loop {
            let now = Instant::now();
            self.settle(now);
            let mut peers = self.peers.iter().filter_map(|slot| slot.peer.as_ref());
            if now >= by || !peers.any(Peer::wants_to_write) {
                break;
            }
            glommio::timer::sleep(Duration::from_millis(5)).await;
        }
        tracing::info!(path = %self.socket.path().display(), "control socket closed");
    }
}
