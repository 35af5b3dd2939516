//! Lists of connections beside broadcasts: how much later a broadcast is with its last client.

use std::sync::mpsc;
use std::thread;

use corecast::client::Client;
use corecast::connections::{Filter, Query, Sort};
use corecast::control::command::{Answer, Command};

use crate::rig::Outcome;
use crate::rig::audience::Audience;
use crate::rig::receiver::Role;
use crate::table::{Bound, Reading, median, runs as runs_note};
use crate::{cpu, failure};

const SUBSCRIBERS: u32 = 15_000;
const PAIRS: u32 = 3;
const ROUNDS: u32 = 20;

/// Has a list made each time it is told to, and tells how long each took, in ns.
struct Lister {
    begin: mpsc::Sender<()>,
    ended: mpsc::Receiver<Result<u64, String>>,
}

impl Lister {
    /// The dearest list there is: the kernel is asked for the idle time of everybody, and nobody is left out before.
    fn start(mut client: Client) -> Self {
        let (begin, begins) = mpsc::channel();
        let (ends, ended) = mpsc::channel();
        let filter = Filter { idle_above_ms: Some(0), ..Filter::default() };
        let command = Command::Connections(Query { filter, sort: Sort::Idle, ..Query::default() });
        thread::spawn(move || {
            for () in begins {
                let begun_ns = cpu::now_ns();
                let told = match client.call(&command) {
                    Ok(Answer::Connections(listing)) if listing.connections.len() == 100 => {
                        Ok(cpu::now_ns() - begun_ns)
                    }
                    other => Err(format!("a list of 100 was due, not {other:?}")),
                };
                if ends.send(told).is_err() {
                    return;
                }
            }
        });
        Self { begin, ended }
    }

    fn begin(&self) -> Outcome<()> {
        Ok(self.begin.send(())?)
    }

    fn took_ms(&self) -> Outcome<f64> {
        let took_ns = self.ended.recv()?.map_err(|error| failure!("{error}"))?;
        Ok(took_ns as f64 / 1e6)
    }
}

/// Broadcasts one after the other, each beside a list where there is a lister: the median of the times from push to
/// last receipt, in ms, and of those of the lists.
fn rounds(audience: &mut Audience, lister: Option<&Lister>) -> Outcome<(f64, f64)> {
    let (mut times, mut lists) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun_ns = cpu::now_ns();
        lister.map_or(Ok(()), Lister::begin)?;
        audience.broadcast()?;
        times.push((cpu::now_ns() - begun_ns) as f64 / 1e6);
        if let Some(lister) = lister {
            lists.push(lister.took_ms()?);
        }
    }
    Ok((median(&times), if lists.is_empty() { 0.0 } else { median(&lists) }))
}

/// From push to last receipt of a broadcast to 15,000 beside one list of all of them, over the same without: what the
/// slowest hundredth of its deliveries sees. Alternating blocks.
pub fn listing(runs: u32) -> Outcome<Vec<Reading>> {
    let mut audience = Audience::start(SUBSCRIBERS, &[Role::Subscriber])?;
    let lister = Lister::start(audience.gateway.client()?);
    rounds(&mut audience, Some(&lister))?;
    let (mut ratios, mut lists) = (Vec::new(), Vec::new());
    for _ in 0..runs * PAIRS {
        let (alone_ms, _) = rounds(&mut audience, None)?;
        let (beside_ms, list_ms) = rounds(&mut audience, Some(&lister))?;
        ratios.push(beside_ms / alone_ms);
        lists.push(list_ms);
    }
    audience.stop()?;
    Ok(vec![
        Reading::detail("listing", median(&ratios), "x without", runs_note(&ratios)).goal(Bound::AtMost(1.1)),
        Reading::detail("listing.took", median(&lists), "ms", runs_note(&lists)),
    ])
}
