//! Asks the gateway, on a thread of its own: a gateway that is slow to answer holds up no key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant};
use std::{io, thread};

use super::consumers::{self, Consumers, SORTS};
use super::topics::{HotTopic, TopicCounts};
use crate::cli::Gateway;
use crate::cli::ask::all_topics;
use crate::cli::failure::Failure;
use crate::client::{Client, ClientError};
use crate::connections::Sort;
use crate::control::command::{Answer, Command, Stats};

/// The list of topics is long where there are many. A rate takes two of them, so the second is not waited for.
const TOPICS_EVERY: Duration = Duration::from_secs(5);
/// With more topics than this the list is not asked for: it would cost the gateway more than it tells.
const TOPICS_MAX: u64 = 20_000;
/// Readings that wait to be shown.
const READINGS_MAX: usize = 4;

/// What one look at the gateway gave.
#[derive(Debug)]
pub(super) struct Reading {
    /// The counters now.
    pub stats: Box<Stats>,
    /// The counters one look before.
    pub before: Option<Box<Stats>>,
    /// Who is behind.
    pub consumers: Consumers,
    /// Topics, those with the most pushes a second first; `None` where there are too many to ask for.
    pub topics: Option<Arc<Vec<HotTopic>>>,
}

/// The thread that asks.
#[derive(Debug)]
pub(super) struct Asker {
    readings: Receiver<Result<Reading, Failure>>,
    /// The order of consumers, by its number in `SORTS`.
    sort: Arc<AtomicU8>,
}

impl Asker {
    /// Begins to ask. Errors: nobody answers on the socket.
    pub(super) fn begin(gateway: Gateway, every: Duration) -> Result<Self, Failure> {
        let (tell, readings) = mpsc::sync_channel(READINGS_MAX);
        let sort = Arc::new(AtomicU8::new(0));
        let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        let client = gateway.connect()?;
        let asking = Asking {
            gateway,
            client,
            sort: sort.clone(),
            counts: TopicCounts::default(),
            topics: None,
            topics_at: None,
        };
        // Ends with the process, or when nobody takes its readings.
        let spawned = thread::Builder::new().name("asking".to_owned()).spawn(move || {
            if let Err(failure) = asking.run(every_ms, &tell) {
                let _ = tell.send(Err(failure));
            }
        });
        spawned.map_err(Failure::Output)?;
        Ok(Self { readings, sort })
    }

    #[cfg(test)]
    pub(super) fn of_nobody() -> Self {
        Self { readings: mpsc::sync_channel(1).1, sort: Arc::default() }
    }

    /// Waits for the next reading. Errors: what ended the asking.
    pub(super) fn next(&self) -> Result<Reading, Failure> {
        self.readings.recv().unwrap_or(Err(Failure::Answer))
    }

    /// The next reading if there is one.
    pub(super) fn try_next(&self) -> Result<Result<Reading, Failure>, TryRecvError> {
        self.readings.try_recv()
    }

    /// In which order consumers are asked for from now on.
    pub(super) fn sort(&self, sort: Sort) {
        let number = SORTS.iter().position(|other| *other == sort).unwrap_or(0);
        self.sort.store(number as u8, Ordering::Relaxed);
    }
}

struct Asking {
    gateway: Gateway,
    /// Has the counters told at an interval.
    client: Client,
    sort: Arc<AtomicU8>,
    counts: TopicCounts,
    topics: Option<Arc<Vec<HotTopic>>>,
    topics_at: Option<Instant>,
}

impl Asking {
    /// Until nobody takes the readings. Errors: what ended it before.
    fn run(mut self, every_ms: u64, tell: &SyncSender<Result<Reading, Failure>>) -> Result<(), Failure> {
        let sent = self.client.send(&Command::StatsEvery { every_ms });
        sent.and_then(|_| self.client.flush()).map_err(|error| self.gone(error))?;
        let mut before = None;
        loop {
            let stats = match self.client.receive().map_err(|error| self.gone(error))? {
                (_, Ok(Answer::Stats(stats))) => stats,
                (_, Ok(_)) => return Err(Failure::Answer),
                (_, Err(refused)) => return Err(Failure::Refused(refused)),
            };
            self.ask_topics(&stats)?;
            let sort = SORTS[usize::from(self.sort.load(Ordering::Relaxed)) % SORTS.len()];
            let consumers = consumers::ask(&self.gateway, sort);
            let topics = self.topics.clone();
            let reading = Reading { stats: stats.clone(), before, consumers, topics };
            if tell.send(Ok(reading)).is_err() {
                return Ok(());
            }
            before = Some(stats);
        }
    }

    fn ask_topics(&mut self, stats: &Stats) -> Result<(), Failure> {
        let now = Instant::now();
        if self.counts.are_two() && self.topics_at.is_some_and(|at| now < at + TOPICS_EVERY) {
            return Ok(());
        }
        self.topics_at = Some(now);
        self.topics = None;
        if stats.shards.iter().map(|shard| shard.topics).sum::<u64>() > TOPICS_MAX {
            return Ok(());
        }
        let topics = all_topics(&self.gateway).map_err(gone)?;
        self.topics = Some(Arc::new(self.counts.take(topics, Instant::now())));
        Ok(())
    }

    fn gone(&self, error: ClientError) -> Failure {
        gone(self.gateway.failed(error))
    }
}

/// A gateway that ends under the screen is none that answers: contract section 4, status 3.
fn gone(failure: Failure) -> Failure {
    match failure {
        Failure::Broken { socket, error } => {
            let error = io::Error::new(io::ErrorKind::ConnectionRefused, error);
            Failure::Unreachable { socket, error }
        }
        other => other,
    }
}
