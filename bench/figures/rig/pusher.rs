//! Many pushes in flight on one control connection, each sent again while the gateway is busy.
//!
//! Uses the library client as anybody would. Never waits for what clients receive: `receiver` counts
//! that.

use std::collections::HashMap;
use std::ops::Range;
use std::thread::sleep;
use std::time::Duration;

use bytes::Bytes;
use corecast::client::Client;
use corecast::control::command::{Answer, Command, CommandError, ErrorCode, Push};
use corecast::message::{Kind, Name, Target};

use super::Outcome;

/// A binary push without frills.
pub fn push(target: Target, payload: &Bytes) -> Push {
    Push { target, kind: Kind::Binary, payload: payload.clone(), event: None, ttl_ms: None, id: None }
}

/// A user or topic that is known to be one.
pub fn name(text: &str) -> Outcome<Name> {
    Ok(Name::new(text)?)
}

/// How pushes are sent.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Pushes unanswered at once, at most.
    pub window: usize,
    /// Pushes in one command; 1 is a plain `Command::Push`.
    pub batch: usize,
}

/// What became of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pushed {
    /// Connections that accepted pushes were handed to.
    pub connections: u64,
    /// How often a push was answered `busy` and sent again.
    pub busy: u64,
}

/// Sends `pushes`, made by number, until the gateway has accepted every one.
pub fn push_all(
    client: &mut Client,
    pushes: Range<u32>,
    pace: Pace,
    make: impl Fn(u32) -> Push,
) -> Outcome<Pushed> {
    let mut pipeline =
        Pipeline { unsent: pushes, again: Vec::new(), in_flight: HashMap::new(), unanswered: 0 };
    let mut pushed = Pushed::default();
    loop {
        while pipeline.unanswered < pace.window {
            let numbers = pipeline.take(pace.batch);
            if numbers.is_empty() {
                break;
            }
            let command = match pace.batch {
                1 => Command::Push(make(numbers[0])),
                _ => Command::PushBatch(numbers.iter().map(|&number| make(number)).collect()),
            };
            let id = client.send(&command).map_err(|error| format!("{error:?}"))?;
            pipeline.unanswered += numbers.len();
            pipeline.in_flight.insert(id, numbers);
        }
        client.flush().map_err(|error| format!("{error:?}"))?;
        if pipeline.in_flight.is_empty() {
            return Ok(pushed);
        }
        // Down to half before the next are written, so that many go in one system call.
        let busy_before = pushed.busy;
        while pipeline.unanswered > pace.window / 2 || (pipeline.nothing_to_send() && pipeline.unanswered > 0)
        {
            let (id, answer) = client.receive().map_err(|error| format!("{error:?}"))?;
            pipeline.settle(id, answer, &mut pushed)?;
        }
        if pushed.busy > busy_before {
            // Nobody tells when there is room again; the shard needs a moment.
            sleep(Duration::from_micros(500));
        }
    }
}

struct Pipeline {
    unsent: Range<u32>,
    again: Vec<u32>,
    in_flight: HashMap<u64, Vec<u32>>,
    unanswered: usize,
}

impl Pipeline {
    fn nothing_to_send(&self) -> bool {
        self.unsent.is_empty() && self.again.is_empty()
    }

    fn take(&mut self, batch: usize) -> Vec<u32> {
        let again = self.again.len().min(batch);
        let mut numbers = self.again.split_off(self.again.len() - again);
        numbers.extend(self.unsent.by_ref().take(batch - again));
        numbers
    }

    fn settle(&mut self, id: u64, answer: Result<Answer, CommandError>, pushed: &mut Pushed) -> Outcome<()> {
        let numbers = self.in_flight.remove(&id).ok_or("an answer to nothing that was asked")?;
        self.unanswered -= numbers.len();
        match answer {
            Ok(Answer::Pushed(one)) => pushed.connections += one.connections,
            Ok(Answer::Batch(batch)) => {
                pushed.connections += batch.connections;
                for error in &batch.errors {
                    if error.code != ErrorCode::Busy {
                        return Err(format!("a push was refused: {error:?}").into());
                    }
                    self.again.push(numbers[error.line as usize - 1]);
                    pushed.busy += 1;
                }
            }
            Err(CommandError { code: ErrorCode::Busy, .. }) => {
                pushed.busy += numbers.len() as u64;
                self.again.extend(numbers);
            }
            other => return Err(format!("a push was answered {other:?}").into()),
        }
        Ok(())
    }
}
