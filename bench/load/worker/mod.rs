//! Thousands of connections in one thread: one epoll, one receive buffer, no task.
//!
//! A worker obeys the coordinator's orders and tells it what happened, over a Unix socket that sits in the
//! same epoll. `opening` brings connections up, `receiving` reads and takes apart, `asking` paces requests
//! and chat, `misbehaving` does what a good client would not, `storms` cuts and returns. All decisions by
//! time go through `due` and `timers`; nothing here sleeps but `epoll_wait`.

mod asking;
mod opening;
mod receiving;
mod scene;
mod slots;
mod storms;
mod tally;
mod timers;
mod tracking;

mod misbehaving;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::arguments::WorkerArguments;
use crate::plan::{BackOff, Behaviour, Expected, News, Order, Work};
use crate::record::{Error, Timed};
use crate::{Failure, cpu, failure, memory};
pub use scene::Random;
use scene::Scene;
use slots::{Slot, State, flag};
use tally::Tally;
use timers::{Due, Timers};

/// Returns begun in one turn: between them what has arrived is heard, pings among it, be it a million that return.
const RETURNS_PER_TURN: u32 = 256;
const BUFFER_BYTES: usize = 256 * 1024;
/// RFC 6455 5.3 wants a fresh key for every frame, against scripts that could choose what proxies see; what
/// a load generator sends is no secret and chosen by nobody else.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const EVENTS_MAX: usize = 1024;
/// Marks the coordinator among the epoll data, which else are slot numbers.
const ORDERS: u64 = u64::MAX;
const SECOND_NS: u64 = 1_000_000_000;
/// How often deadlines of handshakes and responses are looked at: less often where a look at all takes more than a
/// twentieth of that, as at a million.
const SWEEP_NS: u64 = SECOND_NS / 4;
const SWEEP_SHARE: u64 = 20;

/// Runs the threads of a worker process until the coordinator ends them; the first is the process's own.
pub fn run(arguments: &WorkerArguments) -> Result<(), Failure> {
    cpu::raise_descriptor_limit()?;
    std::thread::scope(|scope| {
        let others = (1..arguments.threads).map(|thread| scope.spawn(move || run_thread(arguments, thread)));
        let others: Vec<_> = others.collect();
        let mut outcome = run_thread(arguments, 0);
        for thread in others {
            outcome = outcome.and(thread.join().unwrap_or_else(|_| Err(failure!("a thread panicked"))));
        }
        outcome
    })
}

fn run_thread(arguments: &WorkerArguments, thread: u16) -> Result<(), Failure> {
    if let Some(&core) = arguments.pin.get(usize::from(thread)) {
        cpu::pin(core)?;
    }
    cpu::wake_on_time()?;
    Worker::new(arguments, thread)?.run()
}

/// One thread of connections.
struct Worker {
    first_of_process: bool,
    coordinator: UnixStream,
    orders: Vec<u8>,
    news: Vec<u8>,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
    started_ns: u64,
    now_ns: u64,

    slots: Vec<Slot>,
    open: u32,
    scene: Scene,
    opening: Option<opening::Ramping>,
    timers: Timers,
    asking: asking::Asking,
    storm: Option<storms::Storm>,
    awaited: VecDeque<u64>,
    random: Random,
    tally: Tally,
    next_second_ns: u64,
    next_sweep_ns: u64,
    /// `Order::Begin` has come.
    works: bool,
    ended: bool,
}

impl Worker {
    fn new(arguments: &WorkerArguments, thread: u16) -> Result<Self, Failure> {
        let coordinator = UnixStream::connect(&arguments.socket)?;
        coordinator.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&epoll, &coordinator, epoll::EventData::new_u64(ORDERS), flags)?;
        let now_ns = cpu::now_ns();
        let number = arguments.first + thread;
        let mut worker = Self {
            first_of_process: thread == 0,
            coordinator,
            orders: Vec::new(),
            news: Vec::new(),
            epoll,
            events: Vec::with_capacity(EVENTS_MAX),
            // Written once: a page that is first touched later would look like a connection's memory.
            buffer: vec![1; BUFFER_BYTES],
            started_ns: now_ns,
            now_ns,
            slots: Vec::new(),
            open: 0,
            scene: Scene::default(),
            opening: None,
            timers: Timers::default(),
            asking: asking::Asking::default(),
            storm: None,
            awaited: VecDeque::new(),
            random: Random::new(u64::from(number) + 1),
            tally: Tally::new(number, now_ns),
            next_second_ns: next_second(now_ns),
            next_sweep_ns: now_ns + SWEEP_NS,
            works: false,
            ended: false,
        };
        worker.tell(&News::Hello { worker: number, pid: std::process::id() })?;
        Ok(worker)
    }

    fn run(&mut self) -> Result<(), Failure> {
        while !self.ended {
            self.turn()?;
        }
        // What is left to say goes out before the socket does.
        self.coordinator.set_nonblocking(false)?;
        match self.coordinator.write_all(&self.news) {
            Err(error) if !is_gone(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Waits for events or for what is due next, and handles both.
    fn turn(&mut self) -> Result<(), Failure> {
        let due_ns = self.due_ns();
        let wait_ns = due_ns.saturating_sub(cpu::now_ns());
        let wait = Timespec { tv_sec: (wait_ns / SECOND_NS) as i64, tv_nsec: (wait_ns % SECOND_NS) as i64 };
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let woke_ns = cpu::now_ns();
        self.now_ns = woke_ns;
        for event in &events {
            match event.data.u64() {
                ORDERS => self.hear_coordinator()?,
                index => self.handle_event(index as usize, event.flags),
            }
        }
        self.events = events;
        self.do_what_is_due()?;
        // Late to what was due, or kept what came last in this batch waiting.
        let late_ns = woke_ns.saturating_sub(due_ns);
        let busy_ns = cpu::now_ns() - woke_ns;
        // While connections are opened every turn is long, and nothing is timed to the microsecond.
        if self.works {
            self.tally.time(Timed::LoopLag, late_ns.max(busy_ns));
        }
        self.report_progress()
    }

    /// When something has to be done even if nothing comes in.
    fn due_ns(&self) -> u64 {
        let moments = [
            self.timers.next_ns(),
            self.opening.as_ref().and_then(|ramping| ramping.next_ns(&self.scene)),
            self.asking.next_ns(),
            Some(self.next_second_ns),
            Some(self.next_sweep_ns),
        ];
        moments.into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    fn do_what_is_due(&mut self) -> Result<(), Failure> {
        self.now_ns = cpu::now_ns();
        self.open_more()?;
        self.ask_what_is_due();
        let mut returns = 0;
        while returns < RETURNS_PER_TURN
            && let Some((index, generation, due, at_ns)) = self.timers.pop(self.now_ns)
        {
            if self.slots[index as usize].generation != generation {
                continue;
            }
            match due {
                Due::Return => {
                    self.connect(index as usize);
                    returns += 1;
                }
                Due::Misbehave => self.misbehave(index as usize),
                Due::Chat => self.chat(index as usize, at_ns),
            }
        }
        if self.now_ns >= self.next_sweep_ns {
            // A million that only wait are not looked at.
            if self.scene.under_way > 0 || self.asking.is_running() {
                self.sweep();
            }
            let took_ns = cpu::now_ns() - self.now_ns;
            self.next_sweep_ns = self.now_ns + SWEEP_NS.max(took_ns * SWEEP_SHARE);
        }
        if self.now_ns >= self.next_second_ns {
            self.next_second_ns = next_second(self.now_ns);
            self.tell_delta()?;
        }
        Ok(())
    }

    /// Looks for handshakes and responses that take too long.
    fn sweep(&mut self) {
        let now_ms = self.ms(self.now_ns);
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            let error = match slot.state {
                State::Connecting => Error::ConnectTimedOut,
                State::Handshake => Error::HandshakeTimedOut,
                State::Open if slot.is(flag::ASKED) => Error::ResponseTimedOut,
                _ => continue,
            };
            if slot.deadline_ms <= now_ms && slot.behaviour == Behaviour::Well {
                self.end(index, Some(error));
            }
        }
    }

    /// Milliseconds since the worker's start.
    fn ms(&self, at_ns: u64) -> u32 {
        (at_ns.saturating_sub(self.started_ns) / 1_000_000) as u32
    }

    fn deadline_ms(&self) -> u32 {
        self.ms(self.now_ns).saturating_add((self.scene.timeout_ns / 1_000_000) as u32)
    }

    fn hear_coordinator(&mut self) -> Result<(), Failure> {
        loop {
            match self.coordinator.read(&mut self.buffer) {
                // The coordinator has gone: so do we.
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(read) => self.orders.extend_from_slice(&self.buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // It has gone without having read everything.
                Err(error) if is_gone(&error) => {
                    self.ended = true;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        while let Some(end) = self.orders.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.orders.drain(..=end).collect();
            self.obey(serde_json::from_slice(&line)?)?;
        }
        self.flush()
    }

    fn obey(&mut self, order: Order) -> Result<(), Failure> {
        match order {
            Order::Open(plan) => {
                // What the process has without connections is told before the first.
                self.tell_delta()?;
                self.begin_opening(*plan)?;
            }
            Order::Begin { at_ns } => {
                self.works = true;
                self.begin_work(at_ns);
            }
            Order::Await { messages } => self.awaited.push_back(messages),
            Order::Tell { stop } => {
                if stop {
                    self.asking.stop();
                }
                self.tell_delta()?;
                self.tell(&News::Told)?;
            }
            Order::Expect(expected) => self.count_lost(&expected),
            Order::Storm(cut) => self.begin_storm(cut),
            Order::End => {
                self.count_holes();
                self.tell_delta()?;
                self.tell(&News::Done)?;
                self.ended = true;
            }
        }
        Ok(())
    }

    fn tell(&mut self, news: &News) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.news, news)?;
        self.news.push(b'\n');
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        while !self.news.is_empty() {
            match self.coordinator.write(&self.news) {
                Ok(written) => drop(self.news.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if is_gone(&error) => {
                    self.ended = true;
                    self.news.clear();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn tell_delta(&mut self) -> Result<(), Failure> {
        let mut delta = self.tally.tell(cpu::now_ns(), cpu::thread_used_ns(), self.open);
        if self.first_of_process {
            delta.resident_bytes = memory::own_resident()?;
        }
        self.tell(&News::Delta(Box::new(delta)))
    }

    /// What the coordinator waits for.
    fn report_progress(&mut self) -> Result<(), Failure> {
        if let Some(news) = self.opened() {
            self.tell_delta()?;
            self.tell(&news)?;
        }
        if let Some(news) = self.back() {
            self.tell_delta()?;
            self.tell(&news)?;
        }
        if self.asking.take_finished() {
            self.tell_delta()?;
            self.tell(&News::WorkDone { at_ns: self.now_ns })?;
        }
        while self.awaited.front().is_some_and(|&messages| self.heard() >= messages) {
            self.awaited.pop_front();
            let counts = Box::new(self.tally.counts);
            self.tell(&News::Received { counts, at_ns: cpu::now_ns() })?;
        }
        Ok(())
    }

    /// Messages that came for the first time.
    fn heard(&self) -> u64 {
        self.tally.counts.messages - self.tally.counts.duplicated
    }

    /// Ends a connection from our side: because of `error`, or because that is what was wanted.
    fn end(&mut self, index: usize, error: Option<Error>) {
        if let Some(error) = error {
            self.tally.error(error);
        }
        self.close(index, error.is_some(), None);
    }

    /// Lets the socket go. `fault`: nobody here wanted that. `told_ms`: when the server wants it back.
    fn close(&mut self, index: usize, fault: bool, told_ms: Option<u64>) {
        let slot = &mut self.slots[index];
        let (was, asked) = (slot.state, slot.is(flag::ASKED));
        // `retry:` of an event stream.
        let retry_ms = Some(u64::from(slot.deadline_ms)).filter(|&ms| ms > 0 && was == State::Open && !asked);
        slot.socket = None;
        slot.state = State::Idle;
        slot.generation = slot.generation.wrapping_add(1);
        slot.clear(flag::SATED | flag::CHUNKED | flag::UNTIL_CLOSE | flag::LAST_RESPONSE);
        slot.keep_tracks();
        if was == State::Open {
            self.open -= 1;
        }
        self.stop_waiting(index);
        if fault && self.slots[index].behaviour == Behaviour::Well {
            self.count_fault(index, was);
        }
        let requests = matches!(self.scene.work, Work::Request { .. });
        if requests && fault && self.asking.is_running() {
            self.come_back(index, was, None);
        } else if self.comes_back(index) {
            self.come_back(index, was, told_ms.or(retry_ms));
        }
    }

    /// A connection of a client that behaves has ended though nobody here wanted that.
    fn count_fault(&mut self, index: usize, was: State) {
        let slot = &mut self.slots[index];
        if was == State::Open {
            // What a storm takes was wanted.
            self.tally.counts.dropped += u64::from(self.scene.holds && self.storm.is_none());
        } else {
            self.tally.counts.failed += 1;
            slot.failures = slot.failures.saturating_add(1);
        }
        if slot.is(flag::ASKED) {
            slot.clear(flag::ASKED);
            self.tally.counts.unsuccessful += 1;
            self.asking.count_done();
        }
    }

    /// Whether a connection that has ended, by whatever fault, is to be had again.
    fn comes_back(&self, index: usize) -> bool {
        let requests = matches!(self.scene.work, Work::Request { .. });
        let good = matches!(self.slots[index].behaviour, Behaviour::Well | Behaviour::SlowReader);
        !self.ended && !requests && good && self.scene.back_off != BackOff::Never
    }

    /// Sends bytes; what the socket does not take waits in `Rare::unsent`.
    fn write(&mut self, index: usize, bytes: &[u8]) {
        let slot = &mut self.slots[index];
        let Some(socket) = &slot.socket else { return };
        if slot.rare.as_ref().is_some_and(|rare| !rare.unsent.is_empty()) {
            slot.rare().unsent.extend_from_slice(bytes);
            return;
        }
        match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) => {
                self.tally.counts.bytes_out += sent as u64;
                if sent < bytes.len() {
                    slot.rare().unsent.extend_from_slice(&bytes[sent..]);
                }
            }
            Err(Errno::AGAIN) => slot.rare().unsent.extend_from_slice(bytes),
            // The end will be read, with its cause.
            Err(_) => {}
        }
    }

    /// The socket takes bytes again.
    fn write_rest(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let (Some(socket), Some(rare)) = (&slot.socket, &mut slot.rare) else { return };
        if rare.unsent.is_empty() {
            return;
        }
        let sent = rustix::net::send(socket, &rare.unsent, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        if let Ok(sent) = sent {
            self.tally.counts.bytes_out += sent as u64;
            rare.unsent.drain(..sent);
        }
        slot.slim();
    }

    /// Reads once into the buffer.
    fn receive(&mut self, index: usize, limit: usize) -> Result<usize, Errno> {
        let Some(socket) = &self.slots[index].socket else { return Err(Errno::BADF) };
        let received = rustix::net::recv(socket, &mut self.buffer[..limit], RecvFlags::DONTWAIT)?.0;
        self.tally.counts.bytes_in += received as u64;
        Ok(received)
    }

    /// Counts what every connection should have heard and has not.
    fn count_lost(&mut self, expected: &Expected) {
        let first = self.scene.first;
        for slot in self.slots.iter_mut().filter(|slot| slot.behaviour == Behaviour::Well) {
            let (publisher, last) = match expected {
                Expected::Each { publisher, last } => (*publisher, *last),
                Expected::Own { publisher, last } => {
                    (*publisher, last.get((slot.number - first) as usize).copied().unwrap_or(0))
                }
            };
            // Taken: `count_holes` must not see it again.
            let track = slot.take_track(publisher);
            self.tally.counts.lost += tracking::lost(track.newest, &track.missing, last);
        }
    }

    /// Counts the holes in what was heard of publishers whose end nobody has told.
    fn count_holes(&mut self) {
        for rare in self.slots.iter_mut().filter_map(|slot| slot.rare.as_mut()) {
            let tracks = rare.others.values().map(|track| &track.missing).chain([&rare.missing]);
            let holes = tracks.flatten().map(|(first, last)| u64::from(last - first) + 1);
            self.tally.counts.lost += holes.sum::<u64>();
            rare.missing.clear();
            rare.others.clear();
        }
    }
}

/// Whether the coordinator has ended: nobody is left to tell.
fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

fn next_second(now_ns: u64) -> u64 {
    (now_ns / SECOND_NS + 1) * SECOND_NS
}
