//! Who publishes: the gateway's control socket, an HTTP request, a command. Each in a thread of its own.
//!
//! A message carries publisher 1, its number and the moment it was due; by the clock that is the intended
//! moment, however late it went out.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use bytes::Bytes;
use corecast::client::Client;
use corecast::control::command::{Answer, Command as Request, CommandError, ErrorCode, Push};
use corecast::message::{Kind, Name, Target as PushTarget};

use crate::arguments::{PublishBy, Publishing, Rate, Where};
use crate::plan::Target;
use crate::report::Publisher;
use crate::request::template::Template;
use crate::request::values::Values;
use crate::wire::http;
use crate::wire::stamp::{self, Stamp};
use crate::{Failure, cpu, failure};

/// The publisher's number in its stamps.
pub const PUBLISHER: u16 = 1;
/// Pushes unanswered at once on the control socket.
const WINDOW: usize = 1024;
/// How long a push waits that was answered `busy`: nobody tells when there is room again.
const BUSY_WAIT: Duration = Duration::from_micros(500);
/// How soon a publisher that sleeps notices that it is interrupted.
const INTERRUPT_STEP: Duration = Duration::from_millis(100);
/// A sleeping thread is woken so much too late at most, on a machine that is not busy: the rest of the wait is
/// spent awake, so that the publisher's own wake-up does not count as the server's time.
const AWAKE: Duration = Duration::from_micros(200);
/// Longest wait for the response to an HTTP publish.
const RESPONSE: Duration = Duration::from_secs(30);

/// What is published, how often, to whom.
pub struct Job {
    /// Messages.
    pub messages: u64,
    /// Bytes of each.
    pub payload_bytes: usize,
    /// When.
    pub rate: Rate,
    /// With stamps.
    pub stamped: bool,
    /// To single users, by these numbers, drawn at random; else to all.
    pub users: Option<u32>,
    /// The user of a number.
    pub user: Template,
    /// Seed of the drawing.
    pub seed: u64,
}

/// What was published.
pub struct Published {
    /// For the report.
    pub publisher: Publisher,
    /// Messages that went out.
    pub sent: u32,
    /// Before the first.
    pub started_ns: u64,
    /// Last sequence number of each user; empty when all got everything.
    pub per_user: Vec<u32>,
}

/// A way to publish one message.
pub trait Way: Send {
    /// Hands over one message; may return before it is accepted.
    fn publish(&mut self, user: &str, payload: Vec<u8>, tally: &mut Publisher) -> Result<(), Failure>;

    /// Waits until everything handed over is accepted or refused.
    fn settle(&mut self, tally: &mut Publisher) -> Result<(), Failure>;
}

/// The way that the arguments name; none when somebody else publishes.
pub fn way(publishing: &Publishing, unicast: bool) -> Result<Option<Box<dyn Way>>, Failure> {
    Ok(match publishing.by {
        PublishBy::None => None,
        PublishBy::Corecast => Some(Box::new(Corecast::connect(publishing, unicast)?)),
        PublishBy::Http => Some(Box::new(Http::new(publishing)?)),
        PublishBy::Command => {
            let command = publishing.publish_command.as_deref().unwrap_or_default();
            Some(Box::new(Shell { command: Template::parse(command)? }))
        }
    })
}

/// Publishes everything, unless interrupted. In lockstep each message but the first waits for a word through
/// `go`.
pub fn run(
    job: &Job,
    way: &mut dyn Way,
    go: &Receiver<()>,
    interrupted: &AtomicBool,
) -> Result<Published, Failure> {
    cpu::wake_on_time()?;
    let mut tally = Publisher::default();
    let mut per_user = vec![0; job.users.unwrap_or(0) as usize];
    let mut random = crate::worker::Random::new(job.seed);
    let (started_ns, mut sent) = (cpu::now_ns(), 0);
    for number in 0..job.messages {
        let due_ns = match job.rate {
            Rate::PerSecond(rate) => started_ns + (number as f64 * 1e9 / rate) as u64,
            Rate::Max | Rate::Lockstep => cpu::now_ns(),
        };
        sleep_until(due_ns, interrupted);
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
        sent = number as u32 + 1;
        let (user, seq) = match job.users {
            None => (0, number as u32 + 1),
            Some(users) => {
                let user = random.below(u64::from(users)) as u32;
                per_user[user as usize] += 1;
                (user, per_user[user as usize])
            }
        };
        let payload = if job.stamped {
            stamp::payload(Stamp { publisher: PUBLISHER, seq, at_ns: due_ns, wall: false }, job.payload_bytes)
        } else {
            vec![b'x'; job.payload_bytes]
        };
        tally.late_us_max = tally.late_us_max.max(cpu::now_ns().saturating_sub(due_ns) as f64 / 1000.0);
        let name = Values { number: user, ..Values::default() }.render(&job.user);
        way.publish(&name, payload, &mut tally)?;
        if job.rate == Rate::Lockstep {
            way.settle(&mut tally)?;
            // The coordinator has gone only when the run has failed.
            if go.recv().is_err() {
                break;
            }
        }
    }
    way.settle(&mut tally)?;
    tally.took_s = (cpu::now_ns() - started_ns) as f64 / 1e9;
    Ok(Published { publisher: tally, sent, started_ns, per_user })
}

fn sleep_until(due_ns: u64, interrupted: &AtomicBool) {
    loop {
        let left = Duration::from_nanos(due_ns.saturating_sub(cpu::now_ns()));
        if left.is_zero() || interrupted.load(Ordering::Relaxed) {
            return;
        }
        match left.checked_sub(AWAKE) {
            Some(sleep) => std::thread::sleep(sleep.min(INTERRUPT_STEP)),
            None => std::hint::spin_loop(),
        }
    }
}

/// The binary protocol of the gateway's control socket.
struct Corecast {
    client: Client,
    topic: Option<Name>,
    in_flight: BTreeMap<u64, Push>,
}

impl Corecast {
    fn connect(publishing: &Publishing, unicast: bool) -> Result<Self, Failure> {
        let socket =
            publishing.socket.clone().unwrap_or_else(|| corecast::control::default_path(Path::new("")));
        let client = Client::connect(&socket).map_err(|error| {
            failure!("no gateway answers on {}: {error:?}; --socket names another", socket.display())
        })?;
        let topic = Name::new(&publishing.topic).map_err(|error| failure!("--topic {error}"))?;
        Ok(Self { client, topic: (!unicast).then_some(topic), in_flight: BTreeMap::new() })
    }

    fn send(&mut self, push: Push) -> Result<(), Failure> {
        let id = self.client.send(&Request::Push(push.clone())).map_err(|error| failure!("{error:?}"))?;
        self.in_flight.insert(id, push);
        Ok(())
    }

    fn hear(&mut self, tally: &mut Publisher) -> Result<(), Failure> {
        let (id, answer) = self.client.receive().map_err(|error| failure!("{error:?}"))?;
        let push =
            self.in_flight.remove(&id).ok_or_else(|| failure!("an answer to nothing that was asked"))?;
        match answer {
            Ok(Answer::Pushed(_)) => tally.accepted += 1,
            Err(CommandError { code: ErrorCode::Busy, .. }) => {
                tally.again += 1;
                std::thread::sleep(BUSY_WAIT);
                self.send(push)?;
            }
            other => {
                tally.refused += 1;
                tally.first_error.get_or_insert_with(|| format!("{other:?}"));
            }
        }
        Ok(())
    }
}

impl Way for Corecast {
    fn publish(&mut self, user: &str, payload: Vec<u8>, tally: &mut Publisher) -> Result<(), Failure> {
        let target = match &self.topic {
            Some(topic) => PushTarget::Topic(topic.clone()),
            None => PushTarget::User(Name::new(user).map_err(|error| failure!("--user {error}"))?),
        };
        let payload = Bytes::from(payload);
        self.send(Push { target, kind: Kind::Text, payload, event: None, ttl_ms: None, id: None })?;
        self.client.flush().map_err(|error| failure!("{error:?}"))?;
        while self.in_flight.len() >= WINDOW {
            self.hear(tally)?;
        }
        Ok(())
    }

    fn settle(&mut self, tally: &mut Publisher) -> Result<(), Failure> {
        while !self.in_flight.is_empty() {
            self.client.flush().map_err(|error| failure!("{error:?}"))?;
            self.hear(tally)?;
        }
        Ok(())
    }
}

/// One HTTP request for each message, on one connection as long as the server keeps it.
struct Http {
    target: Target,
    path: Template,
    body: Template,
    stream: Option<TcpStream>,
}

impl Http {
    fn new(publishing: &Publishing) -> Result<Self, Failure> {
        let url = super::scenario::url(publishing.publish_url.as_deref().unwrap_or_default())?;
        let place = Where { headers: publishing.publish_headers.clone(), ..Where::default() };
        let method = &publishing.publish_method;
        let target = super::scenario::target(url, Some(crate::plan::Transport::Http), method, 1, &place)?;
        let path = Template::parse(&target.path)?;
        Ok(Self { target, path, body: Template::parse(&publishing.publish_body)?, stream: None })
    }

    fn exchange(&mut self, request: &[u8]) -> Result<http::Head, Failure> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(self.target.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(RESPONSE))?;
                none.insert(stream)
            }
        };
        stream.write_all(request)?;
        let mut input = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let read = stream.read(&mut buffer)?;
            input.extend_from_slice(&buffer[..read]);
            if let Some(head) = http::head(&input, &self.target.method)?
                && (read == 0 || is_whole(&head, &input))
            {
                if !head.keep_alive {
                    self.stream = None;
                }
                return Ok(head);
            }
            if read == 0 {
                return Err(failure!("the connection ended before the response"));
            }
        }
    }
}

fn is_whole(head: &http::Head, input: &[u8]) -> bool {
    let mut body = &input[head.length_bytes..];
    match head.body {
        http::Body::None => true,
        http::Body::Length(length) => body.len() as u64 >= length,
        http::Body::UntilClose => false,
        http::Body::Chunked => {
            let mut chunks = http::Chunks::default();
            while !body.is_empty() {
                match chunks.take(&mut body) {
                    Ok(http::Piece::End) => return true,
                    Ok(http::Piece::Data(_)) => {}
                    Ok(http::Piece::More) | Err(_) => return false,
                }
            }
            false
        }
    }
}

impl Way for Http {
    fn publish(&mut self, user: &str, payload: Vec<u8>, tally: &mut Publisher) -> Result<(), Failure> {
        let payload = String::from_utf8_lossy(&payload);
        let values = Values { payload: &payload, user: Some(user), ..Values::default() };
        let lines = self.target.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let headers: String = lines.collect();
        let (path, body) = (values.render(&self.path), values.render(&self.body));
        let Target { method, host, .. } = &self.target;
        let request = http::request(method, &path, host, &headers, Some(body.as_bytes()), false);
        let kept = self.stream.is_some();
        let answered = match self.exchange(&request) {
            // A kept connection may have ended meanwhile: once more on a new one.
            Err(_) if kept => {
                self.stream = None;
                self.exchange(&request)
            }
            other => other,
        };
        let complaint = match answered {
            Ok(head) if (200..300).contains(&head.status) => {
                tally.accepted += 1;
                return Ok(());
            }
            Ok(head) => format!("status {}", head.status),
            Err(error) => {
                self.stream = None;
                error.to_string()
            }
        };
        tally.refused += 1;
        tally.first_error.get_or_insert(complaint);
        Ok(())
    }

    fn settle(&mut self, _: &mut Publisher) -> Result<(), Failure> {
        Ok(())
    }
}

/// A command for each message.
struct Shell {
    command: Template,
}

impl Way for Shell {
    fn publish(&mut self, user: &str, payload: Vec<u8>, tally: &mut Publisher) -> Result<(), Failure> {
        let payload = String::from_utf8_lossy(&payload);
        let values = Values { payload: &payload, user: Some(user), ..Values::default() };
        let command = values.render(&self.command);
        let output =
            Command::new("sh").arg("-c").arg(&command).stdin(Stdio::null()).stdout(Stdio::null()).output()?;
        if output.status.success() {
            tally.accepted += 1;
        } else {
            tally.refused += 1;
            let said = String::from_utf8_lossy(&output.stderr);
            tally.first_error.get_or_insert_with(|| format!("{}: {}", output.status, said.trim()));
        }
        Ok(())
    }

    fn settle(&mut self, _: &mut Publisher) -> Result<(), Failure> {
        Ok(())
    }
}
