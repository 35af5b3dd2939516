//! `corecast push`: one message, or with `--lines` one a line of standard input.
//!
//! The payload is sent exactly as given; what kind it is, is said by a flag and never guessed. The
//! gateway checks it. Lines go in batches, several in flight; a batch waits for no line that is not
//! there yet, so that `tail -f | corecast push --lines` pushes each line as it comes.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::failure::{Failure, code_name};
use super::table::{counted, grouped};
use super::{Gateway, print_json, print_line};
use crate::client::Client;
use crate::control::command::{Answer, BatchError, Command, Push};
use crate::message::{ConnId, Kind, Position, Target, Topic, UserId};

/// Longest payload read from standard input; the gateway's own limit is lower unless it was raised.
const INPUT_BYTES_MAX: u64 = 64 << 20;
/// A batch is sent when it holds so many lines or bytes.
const BATCH_LINES_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Batches sent and not answered yet.
const BATCHES_IN_FLIGHT_MAX: usize = 8;
/// Refused lines that are told one by one; the rest is counted.
const REFUSALS_TOLD_MAX: u64 = 100;

/// `corecast push`
#[derive(Debug, Args)]
pub(super) struct PushFlags {
    #[command(flatten)]
    to: To,
    #[command(flatten)]
    kind: KindFlags,
    /// The event name, for event streams
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// Not delivered later than this after acceptance
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// Idempotency key: for 5 minutes the same key gets the first answer and pushes nothing
    #[arg(long, value_name = "KEY", conflicts_with = "lines")]
    id: Option<String>,
    /// Push each line of standard input by itself, without its newline; empty lines are skipped
    #[arg(long, conflicts_with = "data")]
    lines: bool,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// The payload, sent exactly as it is; `-` or nothing reads it from standard input
    data: Option<OsString>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct To {
    /// All connections of this user
    #[arg(long, value_name = "ID")]
    user: Option<UserId>,
    /// All connections of each of these users
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    users: Vec<UserId>,
    /// All subscribers of this topic
    #[arg(long, value_name = "T")]
    topic: Option<Topic>,
    /// This connection, as `corecast who` shows it
    #[arg(long, value_name = "C")]
    connection: Option<ConnId>,
    /// Every connection
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct KindFlags {
    /// The payload is one JSON value
    #[arg(long)]
    json: bool,
    /// The payload is UTF-8 text; so it is unless --json or --binary is given
    #[arg(long)]
    text: bool,
    /// The payload is any octets
    #[arg(long)]
    binary: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One line for people
    Text,
    /// One JSON object
    Json,
}

impl To {
    fn target(self) -> Result<Target, Failure> {
        Ok(match self {
            Self { user: Some(user), .. } => Target::User(user),
            Self { topic: Some(topic), .. } => Target::Topic(topic),
            Self { connection: Some(connection), .. } => Target::Connection(connection),
            Self { all: true, .. } => Target::All,
            Self { users, .. } if !users.is_empty() => Target::Users(users),
            _ => {
                return Err(Failure::Usage(
                    "give --user, --users, --topic, --connection or --all".to_owned(),
                ));
            }
        })
    }
}

impl KindFlags {
    fn kind(&self) -> Kind {
        match self {
            Self { json: true, .. } => Kind::Json,
            Self { binary: true, .. } => Kind::Binary,
            _ => Kind::Text,
        }
    }
}

/// Pushes, and prints the position and the number of connections reached.
pub(super) fn push(flags: PushFlags, gateway: &Gateway, out: &mut dyn Write) -> Result<(), Failure> {
    let output = flags.output;
    let ttl_ms = flags.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let mut push = Push {
        target: flags.to.target()?,
        kind: flags.kind.kind(),
        payload: Bytes::new(),
        event: flags.event,
        ttl_ms,
        id: flags.id,
    };
    if flags.lines {
        let client = gateway.connect()?;
        return Lines::new(client, gateway, push).run(
            BufReader::with_capacity(1 << 16, io::stdin().lock()),
            output,
            out,
        );
    }
    push.payload = payload(flags.data)?;
    let pushed = gateway.connect()?.push(push).map_err(|error| gateway.failed(error))?;
    match output {
        Output::Json => print_json(out, &pushed),
        Output::Text => {
            let reached = counted(pushed.connections, "connection");
            print_line(out, &format!("position {}, {reached}", pushed.position))
        }
    }
}

fn payload(data: Option<OsString>) -> Result<Bytes, Failure> {
    match data {
        Some(data) if data != "-" => return Ok(data.into_vec().into()),
        None if io::stdin().is_terminal() => {
            return Err(Failure::Usage("give DATA, or - to type it and end with Ctrl-D".to_owned()));
        }
        _ => {}
    }
    let mut payload = Vec::new();
    let input = io::stdin().lock();
    input.take(INPUT_BYTES_MAX + 1).read_to_end(&mut payload).map_err(Failure::Input)?;
    within_limit(payload.len())?;
    Ok(payload.into())
}

fn within_limit(bytes: usize) -> Result<(), Failure> {
    if bytes as u64 > INPUT_BYTES_MAX {
        let message = format!("one payload is longer than {} bytes", grouped(INPUT_BYTES_MAX));
        return Err(Failure::Input(io::Error::other(message)));
    }
    Ok(())
}

/// Many pushes on one connection.
struct Lines<'a> {
    client: Client,
    gateway: &'a Gateway,
    /// Everything but the payload.
    template: Push,
    batch: Batch,
    /// For each batch in flight, oldest first: the number of each of its lines.
    in_flight: VecDeque<(u64, Vec<u64>)>,
    totals: Totals,
}

/// Lines read and not sent yet.
#[derive(Default)]
struct Batch {
    pushes: Vec<Push>,
    lines: Vec<u64>,
    payload_bytes: usize,
}

#[derive(Default)]
struct Totals {
    accepted: u64,
    refused: u64,
    connections: u64,
    position: Option<Position>,
    /// The first `REFUSALS_TOLD_MAX`, by line of the input.
    errors: Vec<BatchError>,
}

impl<'a> Lines<'a> {
    fn new(client: Client, gateway: &'a Gateway, template: Push) -> Self {
        Self {
            client,
            gateway,
            template,
            batch: Batch::default(),
            in_flight: VecDeque::new(),
            totals: Totals::default(),
        }
    }

    fn run(mut self, mut input: impl Lookahead, output: Output, out: &mut dyn Write) -> Result<(), Failure> {
        let mut number = 0;
        loop {
            if !input.has_line() {
                // The next read may wait for long: what was read goes out, and its answers come in.
                self.send()?;
                self.settle(0)?;
            }
            let mut line = Vec::new();
            let read = (&mut input)
                .take(INPUT_BYTES_MAX + 2)
                .read_until(b'\n', &mut line)
                .map_err(Failure::Input)?;
            if read == 0 {
                break;
            }
            number += 1;
            line.pop_if(|last| *last == b'\n');
            within_limit(line.len())?;
            if !line.is_empty() {
                self.add(number, line)?;
            }
        }
        self.send()?;
        self.settle(0)?;
        self.totals.print(output, out)
    }

    fn add(&mut self, number: u64, line: Vec<u8>) -> Result<(), Failure> {
        self.batch.payload_bytes += line.len();
        self.batch.lines.push(number);
        self.batch.pushes.push(Push { payload: line.into(), ..self.template.clone() });
        if self.batch.lines.len() >= BATCH_LINES_MAX || self.batch.payload_bytes >= BATCH_BYTES_MAX {
            self.send()?;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Failure> {
        if self.batch.lines.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let sent = self.client.send(&Command::PushBatch(batch.pushes));
        let correlation = sent.map_err(|error| self.gateway.failed(error))?;
        self.client.flush().map_err(|error| self.gateway.failed(error))?;
        self.in_flight.push_back((correlation, batch.lines));
        self.settle(BATCHES_IN_FLIGHT_MAX - 1)
    }

    /// Takes answers until at most `left` batches are in flight.
    fn settle(&mut self, left: usize) -> Result<(), Failure> {
        while self.in_flight.len() > left {
            let (correlation, answer) = self.client.receive().map_err(|error| self.gateway.failed(error))?;
            let place = self.in_flight.iter().position(|(sent, _)| *sent == correlation);
            let (_, lines) = place.and_then(|place| self.in_flight.remove(place)).ok_or(Failure::Answer)?;
            match answer {
                Ok(Answer::Batch(answer)) => {
                    self.totals.accepted += answer.accepted;
                    self.totals.refused += answer.refused;
                    self.totals.connections += answer.connections;
                    self.totals.position = answer.position.or(self.totals.position);
                    for error in answer.errors {
                        let line = usize::try_from(error.line.wrapping_sub(1))
                            .ok()
                            .and_then(|index| lines.get(index));
                        self.totals.tell(BatchError { line: line.copied().unwrap_or(0), ..error });
                    }
                }
                Ok(_) => return Err(Failure::Answer),
                Err(refused) => {
                    self.totals.refused += lines.len() as u64;
                    for line in lines {
                        let message = refused.message.clone();
                        self.totals.tell(BatchError { line, code: refused.code, message });
                    }
                }
            }
        }
        Ok(())
    }
}

impl Totals {
    fn tell(&mut self, error: BatchError) {
        if (self.errors.len() as u64) < REFUSALS_TOLD_MAX {
            let _ = writeln!(
                io::stderr(),
                "corecast: line {}: {}: {}",
                error.line,
                code_name(error.code),
                error.message
            );
            self.errors.push(error);
        }
    }

    fn print(self, output: Output, out: &mut dyn Write) -> Result<(), Failure> {
        let Self { accepted, refused, connections, position, errors } = self;
        match output {
            Output::Json => print_json(
                out,
                &json!({
                    "accepted": accepted, "refused": refused, "errors": errors,
                    "position": position, "connections": connections,
                }),
            )?,
            Output::Text => {
                let position =
                    position.map_or("no position".to_owned(), |position| format!("position {position}"));
                let reached = counted(connections, "connection");
                let (accepted, refused) = (grouped(accepted), grouped(refused));
                print_line(out, &format!("{accepted} accepted, {refused} refused, {position}, {reached}"))?;
            }
        }
        match refused {
            0 => Ok(()),
            _ => Err(Failure::SomeRefused { refused, of: accepted + refused }),
        }
    }
}

/// A reader that knows whether the next line can be read without waiting.
trait Lookahead: BufRead {
    /// Whether a whole line is in memory already.
    fn has_line(&self) -> bool;
}

impl<R: Read> Lookahead for BufReader<R> {
    fn has_line(&self) -> bool {
        self.buffer().contains(&b'\n')
    }
}
