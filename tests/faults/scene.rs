//! A gateway with good clients that are watched all the while, and what is measured of both.
//!
//! A probe is a push to one of the good ones, sent at a fixed rate and timed from when it was due to its
//! receipt: first without the fault, then with it. Afterwards the scene waits until the gateway is as it
//! was, adds up its counters, stops it, and reads its log. Next: `table` for what comes out.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use corecast::client::{Client, ClientError};
use corecast::control::command::{Answer, Command as Asked, CommandError, Push};
use corecast::message::{Kind, Name, Target};
use rustix::process::Signal;
use serde_json::Value;

use crate::crowd::{Crowd, Heard, Manner, stamp_us};
use crate::harness::{Gateway, sum};
use crate::table::{Bound, Row};

/// How long the gateway has to be as it was before.
const BACK_WITHIN: Duration = Duration::from_secs(30);
/// Log lines of one reason in one second.
const LOG_LINES_MAX: usize = 10;
/// Memory that may stay: what the allocator keeps for next time, and for each client of the fault the
/// chunks of the tables.
const KEPT_BYTES: u64 = 8 << 20;
const KEPT_BYTES_PER_CLIENT: u64 = 512;
/// Pushes that are measured, per second.
const PROBES_PER_SECOND: u32 = 200;
/// Of the gateway in every scene: none is refused for coming fast, and what the tape may hold is little
/// beside what is measured.
pub const SETTINGS: [&str; 3] =
    ["limits.connects_per_second=0", "history.bytes=1MiB", "limits.uplinks_per_second=0"];

/// How large a fault is.
#[derive(Clone, Copy, PartialEq)]
pub enum Form {
    /// Seconds, beside other tests.
    Short,
    /// As issue 6 names it, on a quiet machine.
    Full,
}

impl Form {
    pub fn of<T>(self, short: T, full: T) -> T {
        if self == Self::Short { short } else { full }
    }

    /// How long the good ones are watched without the fault, and at least with it.
    pub fn watch(self) -> Duration {
        self.of(Duration::from_secs(2), Duration::from_secs(10))
    }

    /// The good ones' p99 with the fault. The short form shares two cores with other tests, and the
    /// fault's clients share them with the gateway in both.
    pub fn bound(self) -> Bound {
        self.of(Bound { ratio: 20.0, floor_ms: 1000 }, Bound { ratio: 10.0, floor_ms: 250 })
    }
}

/// What a process holds.
#[derive(Clone, Copy)]
struct Footprint {
    descriptors: usize,
    anonymous_bytes: u64,
}

/// What the two threads of the good ones share with the test.
#[derive(Default)]
struct Watch {
    stop: AtomicBool,
    no_more_probes: AtomicBool,
    probes_us: Mutex<Vec<u64>>,
    sent: AtomicU64,
    busy: AtomicU64,
    received: AtomicU64,
    ended: AtomicU64,
    closed: Mutex<BTreeMap<u16, usize>>,
}

pub struct Scene {
    pub gateway: Gateway,
    pub form: Form,
    /// How many the good ones are.
    pub good: usize,
    pub bound: Bound,
    /// Memory that may stay, beside that of clients.
    pub kept_bytes: u64,
    watch: Arc<Watch>,
    listener: Option<JoinHandle<()>>,
    prober: Option<JoinHandle<()>>,
    settled: Footprint,
    without_us: Vec<u64>,
    with_us: Vec<u64>,
    /// Promises that were not kept.
    broken: Vec<String>,
}

/// A push of `payload` as text.
pub fn text(target: Target, payload: impl Into<Bytes>) -> Push {
    Push { target, kind: Kind::Text, payload: payload.into(), event: None, ttl_ms: None, id: None }
}

pub fn user(name: &str) -> Target {
    Target::User(Name::new(name).unwrap())
}

pub fn topic(name: &str) -> Target {
    Target::Topic(Name::new(name).unwrap())
}

/// Puts a program and its arguments in front of a command.
pub fn in_front(command: &mut Command, words: &[&str]) {
    let mut wrapped = Command::new(words[0]);
    wrapped.env_clear().args(&words[1..]).arg(command.get_program()).args(command.get_args());
    *command = wrapped;
}

impl Scene {
    /// A gateway with these settings beside `SETTINGS`, and as many good ones.
    pub fn begin(form: Form, settings: &[&str], good: usize) -> Self {
        Self::prepared(form, settings, good, |_| {})
    }

    /// The same with a command that `prepare` has had.
    pub fn prepared(form: Form, settings: &[&str], good: usize, prepare: impl FnOnce(&mut Command)) -> Self {
        Self::on(form, settings, "127.0.0.1:0", good, prepare, |_, _| true)
    }

    /// The same listening elsewhere, with those good ones whose user is `wanted`.
    pub fn on(
        form: Form,
        settings: &[&str],
        listen: &str,
        good: usize,
        prepare: impl FnOnce(&mut Command),
        wanted: impl Fn(&Gateway, &str) -> bool,
    ) -> Self {
        let settings: Vec<&str> = SETTINGS.iter().chain(settings).copied().collect();
        let mut gateway = Gateway::prepared(&settings, listen, prepare);
        gateway.address = SocketAddr::from(([127, 0, 0, 1], gateway.address.port()));
        let users: Vec<String> =
            (0..).map(|n| format!("good-{n}")).filter(|user| wanted(&gateway, user)).take(good).collect();
        let watch = Arc::new(Watch::default());
        let listener = Some(listen_all(&gateway, &users, &watch));
        let prober = Some(probe_all(&gateway, users, &watch));
        let settled = Footprint { descriptors: 0, anonymous_bytes: 0 };
        let (without_us, with_us, broken, bound) = (vec![], vec![], vec![], form.bound());
        let mut scene = Self {
            gateway,
            form,
            good,
            bound,
            kept_bytes: KEPT_BYTES,
            watch,
            listener,
            prober,
            settled,
            without_us,
            with_us,
            broken,
        };
        // The first probes meet cold caches and an allocator that grows.
        std::thread::sleep(Duration::from_millis(500));
        scene.take_probes();
        std::thread::sleep(form.watch());
        scene.without_us = scene.take_probes();
        scene.settled = scene.footprint();
        scene
    }

    /// Watches the good ones during `fault`, and for as long as without it at least.
    pub fn under<T>(&mut self, fault: impl FnOnce(&mut Self) -> T) -> T {
        let by = Instant::now() + self.form.watch();
        let result = fault(self);
        std::thread::sleep(by.saturating_duration_since(Instant::now()));
        self.with_us.extend(self.take_probes());
        result
    }

    /// What does not count: before the fault begins, or after it is over.
    pub fn aside(&mut self) {
        self.take_probes();
    }

    /// Writes down a promise that is not kept.
    pub fn expect(&mut self, holds: bool, promise: impl Display) {
        if !holds {
            self.broken.push(promise.to_string());
        }
    }

    fn take_probes(&self) -> Vec<u64> {
        std::mem::take(&mut *self.watch.probes_us.lock().unwrap())
    }

    /// How many the gateway has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.gateway.pid())).unwrap().count()
    }

    fn footprint(&self) -> Footprint {
        let descriptors = self.descriptors();
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.gateway.pid())).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
        let kib: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
        Footprint { descriptors, anonymous_bytes: kib * 1024 }
    }

    /// Waits until all of the fault is gone, adds up, and stops the gateway. `clients` were there for it at
    /// most at once, and `accepted` in all where that is known.
    pub fn end(mut self, fault: &str, size: String, clients: usize, accepted: Option<usize>) -> Row {
        let over = Instant::now();
        let back = self.wait_until_back(over, clients);
        let exact = self.add_up(accepted);
        self.stop_probes();
        let (sent, busy) = (self.watch.sent.load(Ordering::Relaxed), self.watch.busy.load(Ordering::Relaxed));
        self.expect(busy == 0, format_args!("{busy} probes were refused"));
        let arrived = self.wait_for(|watch| watch.received.load(Ordering::Relaxed) == sent);
        let received = self.watch.received.load(Ordering::Relaxed);
        self.expect(arrived, format_args!("{received} of {sent} probes arrived"));
        let ended = self.watch.ended.load(Ordering::Relaxed);
        let closed = self.watch.closed.lock().unwrap().clone();
        self.expect(ended == 0, format_args!("{ended} good ones were ended: {closed:?}"));
        self.leave();
        self.gateway.signal(Signal::TERM);
        self.row(fault, size, exact && arrived, back)
    }

    /// The last of it, for a scene that has ended its gateway itself.
    pub fn row(mut self, fault: &str, size: String, exact: bool, back: Option<Duration>) -> Row {
        self.leave();
        let status = self.gateway.ended();
        self.expect(status.success(), format_args!("it ended with {status}"));
        let said = self.gateway.said();
        let panics = said.matches("panicked at").count();
        self.expect(panics == 0, format_args!("{panics} panics:\n{said}"));
        let (lines, reason) = log_rate(&said);
        self.expect(lines <= LOG_LINES_MAX, format_args!("{lines} log lines in a second: {reason}"));
        Row::new(
            fault,
            size,
            [self.without_us, self.with_us],
            self.bound,
            exact,
            back,
            panics,
            lines,
            self.broken,
        )
    }

    fn wait_for(&self, holds: impl Fn(&Watch) -> bool) -> bool {
        let by = Instant::now() + BACK_WITHIN;
        while !holds(&self.watch) && Instant::now() < by {
            std::thread::sleep(Duration::from_millis(20));
        }
        holds(&self.watch)
    }

    fn wait_until_back(&mut self, over: Instant, clients: usize) -> Option<Duration> {
        let allowed = self.settled.anonymous_bytes + self.kept_bytes + clients as u64 * KEPT_BYTES_PER_CLIENT;
        loop {
            let (now, open) = (self.footprint(), self.gateway.totals()["open"].as_u64().unwrap());
            // The question itself is a descriptor until its answer is read.
            let descriptors = now.descriptors <= self.settled.descriptors + 1;
            if open == self.good as u64 && descriptors && now.anonymous_bytes <= allowed {
                return Some(over.elapsed());
            }
            if over.elapsed() >= BACK_WITHIN {
                let before = self.settled;
                self.broken.push(format!(
                    "after {BACK_WITHIN:?} {open} are open, {} descriptors (before: {}), {} KiB anonymous \
                     memory (before: {}, allowed: {})",
                    now.descriptors,
                    before.descriptors,
                    now.anonymous_bytes >> 10,
                    before.anonymous_bytes >> 10,
                    allowed >> 10
                ));
                return None;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Rules 5 and 10, exactly.
    fn add_up(&mut self, accepted: Option<usize>) -> bool {
        let totals = self.gateway.totals();
        let balance = balance(&totals);
        self.expect(balance == 0, format_args!("accepted is {balance} more than open and closed: {totals}"));
        let unaccounted = unaccounted(&totals);
        self.expect(unaccounted == 0, format_args!("{unaccounted} messages are unaccounted for: {totals}"));
        let known = accepted.is_none_or(|count| totals["accepted"] == count + self.good);
        let good = self.good;
        self.expect(known, format_args!("{accepted:?} and {good} came: {totals}"));
        balance == 0 && unaccounted == 0 && known
    }

    /// Each that was sent has been answered when this returns.
    fn stop_probes(&mut self) {
        self.watch.no_more_probes.store(true, Ordering::Relaxed);
        if let Some(thread) = self.prober.take() {
            thread.join().unwrap();
        }
    }

    /// The good ones go.
    pub fn leave(&mut self) {
        self.stop_probes();
        self.watch.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.listener.take() {
            thread.join().unwrap();
        }
    }

    /// What the good ones were told at their end, by close code.
    pub fn good_closed(&self) -> BTreeMap<u16, usize> {
        self.watch.closed.lock().unwrap().clone()
    }
}

/// Accepted less open and closed; 0 is exact.
pub fn balance(totals: &Value) -> i64 {
    let count = |name: &str| totals[name].as_i64().unwrap();
    count("accepted") - count("open") - sum(&totals["closed"]) as i64
}

/// Messages that were due less what became of them; 0 is exact (Rule 10).
fn unaccounted(totals: &Value) -> i64 {
    let count = |name: &str| totals[name].as_i64().unwrap();
    let became = count("delivered") + count("expired") + sum(&totals["dropped"]) as i64 + count("pending");
    count("handed") + count("replayed") - became
}

/// A thread with all good ones, which are connected when this returns.
fn listen_all(gateway: &Gateway, users: &[String], watch: &Arc<Watch>) -> JoinHandle<()> {
    let query = |n: usize| format!("user={}&topics=all-good&heartbeat=600", users[n]);
    let within = Duration::from_secs(60);
    let mut crowd = Crowd::open(gateway.address, users.len(), Manner::default(), within, query);
    assert_eq!(crowd.heard.opened, users.len(), "{:?}", crowd.heard);
    let watch = watch.clone();
    std::thread::spawn(move || {
        while !watch.stop.load(Ordering::Relaxed) {
            crowd.turn(Duration::from_millis(20));
            let Heard { probes_us, closed, ended, .. } = &mut crowd.heard;
            watch.received.fetch_add(probes_us.len() as u64, Ordering::Relaxed);
            watch.probes_us.lock().unwrap().append(probes_us);
            watch.ended.store(*ended as u64, Ordering::Relaxed);
            watch.closed.lock().unwrap().clone_from(closed);
        }
    })
}

/// A thread that pushes to one good one after the other, each when it is due, whatever became of those before.
fn probe_all(gateway: &Gateway, users: Vec<String>, watch: &Arc<Watch>) -> JoinHandle<()> {
    let mut client = Client::connect(&gateway.socket).unwrap();
    let watch = watch.clone();
    std::thread::spawn(move || {
        let _ = probe(&mut client, &users, &watch);
    })
}

/// Until told to stop, and then until all are answered. Errors: the gateway has gone.
fn probe(client: &mut Client, users: &[String], watch: &Watch) -> Result<(), ClientError> {
    let (mut due_us, mut unanswered) = (stamp_us(), 0u64);
    // A stride without a factor in common with most numbers, so that both shards are met.
    let mut users = (0..).step_by(7919).map(|n: usize| &users[n % users.len()]);
    while !watch.no_more_probes.load(Ordering::Relaxed) {
        due_us += u64::from(1_000_000 / PROBES_PER_SECOND);
        std::thread::sleep(Duration::from_micros(due_us.saturating_sub(stamp_us())));
        let next = users.next().expect("there is always one more");
        client.send(&Asked::Push(text(user(next), due_us.to_string())))?;
        client.flush()?;
        unanswered += 1;
        watch.sent.fetch_add(1, Ordering::Relaxed);
        while let Some((_, answer)) = client.try_receive()? {
            unanswered -= 1;
            count_busy(watch, answer);
        }
    }
    for _ in 0..unanswered {
        count_busy(watch, client.receive()?.1);
    }
    Ok(())
}

fn count_busy(watch: &Watch, answer: Result<Answer, CommandError>) {
    if answer.is_err() {
        watch.sent.fetch_sub(1, Ordering::Relaxed);
        watch.busy.fetch_add(1, Ordering::Relaxed);
    }
}

/// The most lines of one reason in one second, and the reason: a line without its numbers.
fn log_rate(said: &str) -> (usize, String) {
    let mut counts = BTreeMap::<(&str, String), usize>::new();
    for line in said.lines() {
        let Some((second, rest)) = line.split_at_checked("2026-11-20T16:27:21".len()) else { continue };
        let Some((_, reason)) = rest.split_once("Z ") else { continue };
        let reason = reason.chars().filter(|letter| !letter.is_ascii_digit()).collect();
        *counts.entry((second, reason)).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or((0, String::new()), |((_, reason), count)| (count, reason))
}
