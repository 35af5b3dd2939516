//! One run from the first connect to the report: phases, news, seconds, the server's cost.
//!
//! The modes (`coordinator::modes`) say what happens in which order; here it is done. Every wait goes through
//! `wait`, so that seconds are shown and deltas added up while anything is waited for.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::crew::Crew;
use super::ledger::Ledger;
use super::scenario::Scenario;
use crate::arguments::Output;
use crate::failure::Unreachable;
use crate::plan::{Expected, News, Order, Transport};
use crate::record::{Counts, Error, Outcome, Timed};
use crate::report::progress::{Goal, Progress};
use crate::report::{self, Publisher, Report, advice, host, summary, verdict};
use crate::server::{self, Server};
use crate::{Failure, cpu, failure};

/// From the end of the work to the last word of the workers.
const ENDING: Duration = Duration::from_secs(60);
/// How often a wait looks at the clock.
const STEP: Duration = Duration::from_millis(50);

/// How many of the messages that were counted are deliveries that were awaited.
type Heard = Box<dyn Fn(&Counts) -> u64>;

/// A run.
pub struct Session {
    mode: &'static str,
    scenario: Scenario,
    output: Output,
    crew: Crew,
    ledger: Ledger,
    progress: Progress,
    latency: Timed,
    server: Option<Server>,
    started_unix: SystemTime,
    /// Connections open when all had been tried.
    opened: u64,
    rates: Vec<(&'static str, f64)>,
    /// Deliveries that have to arrive in all, and how many of what was counted those are.
    expected: Option<(u64, Heard)>,
    /// By a signal: what was meant to go on ends.
    interrupted: Arc<AtomicBool>,
}

impl Session {
    /// Checks the host, starts the workers. `latency` is what the lines of each second show.
    pub fn start(
        mode: &'static str,
        scenario: Scenario,
        output: &Output,
        latency: Timed,
        phases: &[(&str, Goal)],
    ) -> Result<Self, Failure> {
        cpu::raise_descriptor_limit()?;
        let progress = Progress::new(output.quiet, phases);
        for finding in host::host_check(&need(&scenario)) {
            if !finding.is_enough() {
                progress.note(&format!("this host may be too small for that: {}", finding.text()));
            }
        }
        let server = output.pid.map(Server::watch).transpose()?;
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The first ends the run and leaves a report; the second ends the tool at once.
            signal_hook::flag::register_conditional_shutdown(signal, 130, interrupted.clone())?;
            signal_hook::flag::register(signal, interrupted.clone())?;
        }
        let crew = Crew::start(&std::env::current_exe()?, &scenario.shape)?;
        let started_ns = cpu::now_ns();
        Ok(Self {
            mode,
            ledger: Ledger::new(crew.size(), started_ns),
            scenario,
            output: output.clone(),
            crew,
            progress,
            latency,
            server,
            started_unix: SystemTime::now(),
            opened: 0,
            rates: Vec::new(),
            expected: None,
            interrupted,
        })
    }

    /// Begins a phase.
    pub fn phase(&mut self, name: &str, goal: Goal) {
        self.ledger.begin_phase(name, cpu::now_ns());
        self.progress.phase(name, goal);
    }

    /// Handles news until `until` has what it waits for, or `within` is over, or the run is interrupted: then
    /// `None`.
    pub fn wait<T>(
        &mut self,
        within: Duration,
        until: impl FnMut(&Ledger, Option<(u16, &News)>) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let interrupted = self.interrupted.clone();
        self.wait_unless(within, || interrupted.load(Ordering::Relaxed), until)
    }

    /// The same, interrupted or not.
    pub fn wait_out<T>(
        &mut self,
        within: Duration,
        until: impl FnMut(&Ledger, Option<(u16, &News)>) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        self.wait_unless(within, || false, until)
    }

    fn wait_unless<T>(
        &mut self,
        within: Duration,
        given_up: impl Fn() -> bool,
        mut until: impl FnMut(&Ledger, Option<(u16, &News)>) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let within_ns = u64::try_from(within.as_nanos()).unwrap_or(u64::MAX);
        let deadline_ns = cpu::now_ns().saturating_add(within_ns);
        loop {
            let left = Duration::from_nanos(deadline_ns.saturating_sub(cpu::now_ns()));
            let news = self.crew.news(left.min(STEP))?;
            if let Some((_, News::Delta(delta))) = &news {
                self.ledger.add(delta);
            }
            if let Some(second) = self.ledger.close_second(cpu::now_ns()) {
                self.progress.second(second, Some(self.latency));
            }
            let news = news.as_ref().map(|(worker, news)| (*worker, news));
            if let Some(found) = until(&self.ledger, news) {
                return Ok(Some(found));
            }
            if left.is_zero() || given_up() {
                return Ok(None);
            }
        }
    }

    /// Set once the run is interrupted, for the publisher.
    pub fn interrupted(&self) -> Arc<AtomicBool> {
        self.interrupted.clone()
    }

    /// Lets the run go on for a while.
    pub fn go_on(&mut self, duration: Duration) -> Result<(), Failure> {
        self.wait(duration, |_, _| None::<()>).map(drop)
    }

    /// Opens all connections and waits until each is open or has failed.
    ///
    /// Errors: `Unreachable` when there is nobody to connect to.
    pub fn open(&mut self) -> Result<(), Failure> {
        let count = u64::from(self.scenario.plan.count);
        self.phase("connect", Goal::Connections(count));
        for worker in 0..self.crew.size() {
            let plan = self.scenario.part(worker, self.crew.size());
            self.crew.order(worker, &Order::Open(Box::new(plan)))?;
        }
        let (mut left, began_ns) = (self.crew.size(), cpu::now_ns());
        let (mut started_ns, mut ended_ns) = (u64::MAX, 0);
        let opened = |_: &Ledger, news: Option<(u16, &News)>| {
            if let Some((_, News::Opened { started_ns: first, ended_ns: last, .. })) = news {
                started_ns = started_ns.min(*first);
                ended_ns = ended_ns.max(*last);
                left -= 1;
            }
            (left == 0).then_some(())
        };
        // Every handshake has its own time limit, so this ends.
        if self.wait(Duration::MAX, opened)?.is_none() {
            self.catch_up(false)?;
            (started_ns, ended_ns) = (began_ns, cpu::now_ns());
        }
        self.opened = self.ledger.open();
        let took_s = (ended_ns - started_ns) as f64 / 1e9;
        self.rate("connects/s", self.ledger.totals.opened as f64 / took_s.max(1e-9));
        if self.ledger.totals.opened == 0 && self.nobody_is_there() {
            let address = self.scenario.plan.targets[0].address;
            let outcome = self.ledger.outcomes.keys().next().copied();
            let name = outcome.map(advice::name).unwrap_or_default();
            let hint = outcome.and_then(advice::of);
            let hint = hint.map(|advice| format!("\nlikely cause: {}\ntry: {}", advice.cause, advice.hint));
            let text = format!("nobody answers at {address}: {name}{}", hint.unwrap_or_default());
            return Err(Box::new(Unreachable(text)));
        }
        if let Some(server) = &mut self.server {
            server.connections_are_open(self.opened)?;
        }
        Ok(())
    }

    fn nobody_is_there(&self) -> bool {
        let absent = |outcome: &Outcome| {
            let causes = [Error::Refused, Error::Unreachable, Error::ConnectTimedOut];
            causes.iter().any(|&cause| *outcome == Outcome::Error(cause))
        };
        self.ledger.totals.failed > 0 && self.ledger.outcomes.keys().all(absent)
    }

    /// Starts the work of the plan.
    pub fn begin_work(&mut self) -> Result<u64, Failure> {
        if let Some(server) = &mut self.server {
            server.work_begins()?;
        }
        let at_ns = cpu::now_ns();
        self.crew.order_all(&Order::Begin { at_ns })?;
        Ok(at_ns)
    }

    /// The work has ended: `messages` is what the server's CPU is divided by.
    pub fn end_work(&mut self, took_s: f64, messages: u64) -> Result<(), Failure> {
        self.server.as_mut().map_or(Ok(()), |server| server.work_ends(took_s, messages))
    }

    /// Has the workers tell what they have not told yet; `stop` ends their requests first.
    pub fn catch_up(&mut self, stop: bool) -> Result<(), Failure> {
        self.crew.order_all(&Order::Tell { stop })?;
        let mut left = self.crew.size();
        let told = |_: &Ledger, news: Option<(u16, &News)>| {
            left -= u16::from(matches!(news, Some((_, News::Told))));
            (left == 0).then_some(())
        };
        self.wait_out(ENDING, told)?.ok_or_else(|| failure!("the workers do not answer"))
    }

    /// Gives all workers an order.
    pub fn order_all(&mut self, order: &Order) -> Result<(), Failure> {
        self.crew.order_all(order)
    }

    /// Asks each worker to tell when every one of its connections has `each` messages more than now, or
    /// `own` gives what it has to have in all; the answer is `News::Received`.
    pub fn await_messages(&mut self, messages: impl Fn(u16) -> u64) -> Result<(), Failure> {
        (0..self.crew.size())
            .try_for_each(|worker| self.crew.order(worker, &Order::Await { messages: messages(worker) }))
    }

    /// Tells the workers what was published: part by part where each user has its own.
    pub fn expect(&mut self, publisher: u16, last: u32, per_user: &[u32]) -> Result<(), Failure> {
        for worker in 0..self.crew.size() {
            let part = self.scenario.part(worker, self.crew.size());
            let expected = if per_user.is_empty() {
                Expected::Each { publisher, last }
            } else {
                let (first, count) = (part.first as usize, part.count as usize);
                Expected::Own { publisher, last: per_user[first..first + count].to_vec() }
            };
            self.crew.order(worker, &Order::Expect(expected))?;
        }
        Ok(())
    }

    /// What is missing at the end of `deliveries` is lost, however it was numbered.
    pub fn expect_deliveries(&mut self, deliveries: u64, heard: impl Fn(&Counts) -> u64 + 'static) {
        self.expected = Some((deliveries, Box::new(heard)));
    }

    /// Notes a rate for the report.
    pub fn rate(&mut self, name: &'static str, value: f64) {
        self.rates.push((name, value));
    }

    /// What was added up so far.
    pub fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// The scenario of the run.
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// How many workers there are.
    pub fn workers(&self) -> u16 {
        self.crew.size()
    }

    /// Shows a line beside the seconds.
    pub fn note(&self, text: &str) {
        self.progress.note(text);
    }

    /// Ends the workers, writes and prints the report; gives the exit status.
    pub fn finish(mut self, publisher: Option<Publisher>) -> Result<u8, Failure> {
        let open = self.ledger.open();
        if self.interrupted.load(Ordering::Relaxed) {
            self.progress.note("interrupted: the report is of what was done so far");
        }
        self.crew.order_all(&Order::End)?;
        let mut left = self.crew.size();
        let done = |_: &Ledger, news: Option<(u16, &News)>| {
            left -= u16::from(matches!(news, Some((_, News::Done))));
            (left == 0).then_some(())
        };
        self.wait_out(ENDING, done)?.ok_or_else(|| failure!("the workers do not come to their end"))?;
        let now_ns = cpu::now_ns();
        self.ledger.end_phase(now_ns);
        if let Some(second) = self.ledger.close_rest(now_ns) {
            self.progress.second(second, Some(self.latency));
        }
        self.progress.finish();
        if let Some((deliveries, heard)) = &self.expected {
            self.ledger.totals.lost = deliveries.saturating_sub(heard(&self.ledger.totals));
        }
        let report = self.report(open, publisher)?;
        if let Some(path) = &self.output.json {
            report::file::write(path, &report)
                .map_err(|error| failure!("--json {}: {error}", path.display()))?;
        }
        if let Some(path) = &self.output.html {
            let page = report::html::page(&[&report]);
            report::file::replace(path, page.as_bytes())
                .map_err(|error| failure!("--html {}: {error}", path.display()))?;
        }
        let mut out = std::io::stdout().lock();
        summary::print(&report, &mut out)?;
        out.flush()?;
        // Last: closing a million sockets takes the kernel a while, and the report is there.
        self.crew.stop()?;
        Ok(report.verdict.exit_status)
    }

    fn report(&self, open: u64, publisher: Option<Publisher>) -> Result<Report, Failure> {
        let ledger = &self.ledger;
        let unix = self.started_unix.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Ok(Report {
            format: report::FORMAT,
            tool: concat!("corecast-bench ", env!("CARGO_PKG_VERSION")).to_owned(),
            command: format!("corecast-bench {}", shell_words(&arguments)),
            mode: self.mode.to_owned(),
            started_unix_ms: unix.as_millis() as u64,
            elapsed_s: ledger.elapsed_s(cpu::now_ns()),
            machine: server::machine()?,
            phases: ledger.phases(),
            seconds: ledger.seconds.clone(),
            totals: ledger.totals,
            outcomes: ledger.outcomes.clone(),
            open,
            times: ledger.times(),
            rates: self.rates.iter().map(|(name, rate)| ((*name).to_owned(), *rate)).collect(),
            verdict: verdict::judge(&ledger.totals, publisher.as_ref(), self.output.tolerate, false),
            publisher,
            server: self.server.as_ref().map(Server::cost),
            tool_cost: ledger.tool_cost(self.opened),
        })
    }
}

fn need(scenario: &Scenario) -> host::Need {
    let mut addresses: Vec<_> = scenario.plan.targets.iter().map(|target| target.address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    host::Need {
        connections: u64::from(scenario.plan.count),
        processes: u64::from(scenario.shape.processes),
        sources: scenario.plan.sources.len() as u64,
        targets: addresses.len() as u64,
        target_is_loopback: scenario.is_loopback(),
    }
}

/// The arguments as a shell would take them again.
fn shell_words(arguments: &[String]) -> String {
    let plain = |argument: &String| {
        let safe = |c: char| c.is_ascii_alphanumeric() || "-_./:=%@,+".contains(c);
        if !argument.is_empty() && argument.chars().all(safe) {
            argument.clone()
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    };
    arguments.iter().map(plain).collect::<Vec<_>>().join(" ")
}

/// What the lines of a run without a publisher show.
pub fn latency_of(transports: &[Transport]) -> Timed {
    if transports == [Transport::Http] { Timed::Response } else { Timed::Connect }
}
