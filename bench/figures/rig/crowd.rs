//! Clients that may be refused: each connects, asks for a WebSocket, and reads what it is told.
//!
//! Not a `receiver`: that one takes a refusal for a failure. One thread, blocking calls, so many under way at
//! once; those who are let in stay, those who are refused read to the end and go.

use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use super::Outcome;
use super::process::{Helper, Role};
use crate::{cpu, failure};

/// How many are under way at once, as many as a receiver has.
const AT_ONCE: u32 = 256;
/// Connections from one address.
const PER_SOURCE: u32 = 10_000;

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    address: SocketAddr,
    count: u32,
}

/// What became of a crowd.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Told {
    /// 101.
    pub let_in: u32,
    /// 503, and a clean end.
    pub refused: u32,
}

/// The crowd's process, seen from the driver.
pub struct Crowd {
    helper: Helper,
}

impl Crowd {
    /// Starts it on one core.
    pub fn start(core: usize) -> Outcome<Self> {
        Ok(Self { helper: Helper::start(Role::Crowd, core)? })
    }

    /// Has so many come, and waits until each knows.
    pub fn come(&mut self, address: SocketAddr, count: u32) -> Outcome<Told> {
        self.helper.order(&Order { address, count })?;
        self.helper.report(Duration::from_secs(60))
    }

    /// Ends the process, and with it those who were let in.
    pub fn stop(self) -> Outcome<()> {
        self.helper.stop()
    }
}

/// The crowd's process, from inside: obeys until its orders end.
pub fn run() -> Outcome<()> {
    cpu::raise_descriptor_limit()?;
    let (mut let_in, mut number) = (Vec::new(), 0);
    for line in std::io::stdin().lock().lines() {
        let Order { address, count } = serde_json::from_str(&line?)?;
        let mut told = Told::default();
        let until = number + count;
        while number < until {
            let wave = number..until.min(number + AT_ONCE);
            number = wave.end;
            let clients = wave.map(|number| ask(address, number)).collect::<Outcome<Vec<_>>>()?;
            for client in clients {
                match hear(client)? {
                    Some(client) => let_in.push(client),
                    None => told.refused += 1,
                }
            }
        }
        told.let_in = count - told.refused;
        let mut line = serde_json::to_vec(&told)?;
        line.push(b'\n');
        std::io::stdout().write_all(&line)?;
    }
    Ok(())
}

/// Connects and asks.
fn ask(address: SocketAddr, number: u32) -> Outcome<TcpStream> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Another net for every process: ports in TIME_WAIT are not in the way.
    let net = (std::process::id() % 200) as u8 + 2;
    let source = [127, 1, net, (number / PER_SOURCE) as u8 + 1];
    rustix::net::bind(&socket, &SocketAddr::from((source, 0)))?;
    rustix::net::connect(&socket, &address)?;
    let mut stream = TcpStream::from(socket);
    // In one write, as clients do: a head in pieces is not refused early.
    let head = format!(
        "GET /ws?user=u{number:015}&topics=news HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    Ok(stream)
}

/// Reads the answer: the client if it was let in. Errors: neither 101 nor 503, or no clean end behind a 503.
fn hear(mut client: TcpStream) -> Outcome<Option<TcpStream>> {
    let mut answer = [0; 4096];
    let read = client.read(&mut answer)?;
    match answer.get(9..12) {
        Some(b"101") => return Ok(Some(client)),
        Some(b"503") => {}
        _ => return Err(failure!("answered {:?}", String::from_utf8_lossy(&answer[..read]))),
    }
    client.read_to_end(&mut Vec::new())?;
    Ok(None)
}
