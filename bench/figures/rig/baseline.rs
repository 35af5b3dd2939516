//! The bare server that the gateway is compared with: one thread, blocking calls, no protocol.
//!
//! It accepts and keeps descriptors, and sends the same bytes to each in a plain `send()` loop: what
//! the kernel itself charges. It never reads, and knows nothing about its clients. Its listener has the
//! gateway's options, so that its sockets cost the same. Next: `receiver`, its other end.

use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use corecast::ring::BATCH_MAX;
use corecast::ring::kernel::Ring;
use corecast::shard::listener::SEGMENT_BYTES_MAX;
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Serialize};

use super::Outcome;
use super::process::{Helper, Role};
use crate::cpu;

/// The gateway's `limits.socket_send_bytes`.
const SOCKET_SEND_BYTES: usize = 32 * 1024;
/// What the gateway takes from `net.core.somaxconn`; the kernel cuts it to that.
const BACKLOG: i32 = 65_535;

/// The answer to the tool's upgrade: it asks with RFC 6455 1.3's key, so the answer is known.
const RESPONSE: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// Accept until `count` more clients are held, and where `upgrade` is set answer what they ask:
    /// `Report::Accepted`.
    Accept { count: u32, upgrade: bool },
    /// Send one message to every client held, `rounds` times: `Report::Sent`.
    Send { rounds: u32, payload_bytes: usize, way: Way },
}

/// How the baseline sends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Way {
    /// `send()` in a loop.
    Loop,
    /// Batches of the gateway's own ring and nothing else of it: what a gateway can reach at best.
    Batch,
}

#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Listening { address: SocketAddr },
    Accepted { at_ns: u64 },
    Sent,
}

/// The baseline's process, seen from the driver.
pub struct Baseline {
    helper: Helper,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Baseline {
    /// Starts it on one core.
    pub fn start(core: usize) -> Outcome<Self> {
        let mut helper = Helper::start(Role::Baseline, core)?;
        let Report::Listening { address } = helper.report(Duration::from_secs(10))? else {
            return Err("the baseline did not say where it listens".into());
        };
        Ok(Self { helper, address })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.helper.pid()
    }

    /// Has it accept `count` more clients; does not wait.
    pub fn accept(&mut self, count: u32) -> Outcome<()> {
        self.helper.order(&Order::Accept { count, upgrade: false })
    }

    /// The same, and each is given a 101 for the request that it sends: where deliveries are compared,
    /// the connections of both sides have the same past (congestion window, acknowledgements).
    pub fn accept_and_upgrade(&mut self, count: u32) -> Outcome<()> {
        self.helper.order(&Order::Accept { count, upgrade: true })
    }

    /// Waits until they are accepted; gives the moment (`cpu::now_ns`).
    pub fn accepted(&mut self) -> Outcome<u64> {
        match self.helper.report(Duration::from_secs(60))? {
            Report::Accepted { at_ns } => Ok(at_ns),
            other => Err(format!("the baseline reports {other:?}").into()),
        }
    }

    /// Has it send one message of `payload_bytes` to every client, `rounds` times; does not wait.
    pub fn send(&mut self, rounds: u32, payload_bytes: usize, way: Way) -> Outcome<()> {
        self.helper.order(&Order::Send { rounds, payload_bytes, way })
    }

    /// Waits until all is sent.
    pub fn sent(&mut self) -> Outcome<()> {
        match self.helper.report(Duration::from_secs(120))? {
            Report::Sent => Ok(()),
            other => Err(format!("the baseline reports {other:?}").into()),
        }
    }

    /// Ends the process.
    pub fn stop(self) -> Outcome<()> {
        self.helper.stop()
    }
}

/// The baseline's process, from inside: obeys until its orders end.
pub fn run() -> Outcome<()> {
    let (listener, address) = listen()?;
    report(&Report::Listening { address })?;
    let mut clients: Vec<OwnedFd> = Vec::new();
    let mut ring = quiet_ring()?;
    for line in std::io::stdin().lock().lines() {
        match serde_json::from_str(&line?)? {
            Order::Accept { count, upgrade } => {
                for _ in 0..count {
                    let client = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC)?;
                    if upgrade {
                        answer_upgrade(&client)?;
                    }
                    clients.push(client);
                }
                report(&Report::Accepted { at_ns: cpu::now_ns() })?;
            }
            Order::Send { rounds, payload_bytes, way } => {
                let frame = binary_frame(&vec![b'x'; payload_bytes]);
                for _ in 0..rounds {
                    match way {
                        Way::Loop => send_round(&clients, &frame)?,
                        Way::Batch => send_batches(&mut ring, &clients, &frame)?,
                    }
                }
                report(&Report::Sent)?;
            }
        }
    }
    Ok(())
}

/// The frame of an unmasked binary message, as a server sends it.
fn binary_frame(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a benchmark's payloads are short");
    let mut frame = vec![0x82];
    match length {
        0..=125 => frame.push(length as u8),
        _ => {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// Reads the request without looking at it: it comes in one piece, from our own receiver.
fn answer_upgrade(client: &OwnedFd) -> Outcome<()> {
    let mut request = [0; 1024];
    rustix::net::recv(client, &mut request[..], RecvFlags::empty())?;
    rustix::net::send(client, RESPONSE.as_bytes(), SendFlags::NOSIGNAL)?;
    Ok(())
}

fn send_round(clients: &[OwnedFd], frame: &[u8]) -> Outcome<()> {
    for client in clients {
        if rustix::net::send(client, frame, SendFlags::NOSIGNAL)? != frame.len() {
            return Err("a blocking send was cut short".into());
        }
    }
    Ok(())
}

/// A ring that signals nobody.
fn quiet_ring() -> Outcome<Ring> {
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
    let mut ring = Ring::new(eventfd.as_fd())?;
    ring.signal(false);
    Ok(ring)
}

fn send_batches(ring: &mut Ring, clients: &[OwnedFd], frame: &[u8]) -> Outcome<()> {
    for batch in clients.chunks(BATCH_MAX) {
        let mut clients = batch.iter();
        let sent = ring.send_all(|pieces| {
            let client = clients.next()?;
            pieces.push(frame);
            Some(client)
        });
        let whole = sent.filter(|sent| matches!(sent, Ok(bytes) if *bytes == frame.len())).count();
        if whole != batch.len() {
            return Err("a send of a batch was cut short".into());
        }
    }
    Ok(())
}

fn listen() -> Outcome<(OwnedFd, SocketAddr)> {
    let listener =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_send_buffer_size(&listener, SOCKET_SEND_BYTES)?;
    sockopt::set_tcp_nodelay(&listener, true)?;
    sockopt::set_socket_keepalive(&listener, true)?;
    socket2::SockRef::from(&listener).set_tcp_mss(SEGMENT_BYTES_MAX)?;
    rustix::net::bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    rustix::net::listen(&listener, BACKLOG)?;
    let address = rustix::net::getsockname(&listener)?.try_into()?;
    Ok((listener, address))
}

fn report(report: &Report) -> Outcome<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    Ok(std::io::stdout().write_all(&line)?)
}
