//! Who is behind, from `GET /v1/connections`: asked for as any program may, over HTTP on the control socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

/// Those asked for: more than any terminal has rows.
const CONSUMERS_MAX: usize = 100;
/// The longest that the list may take.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// By what consumers are ordered, the most first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Sort {
    /// Bytes behind.
    #[default]
    Lag,
    /// Since something was last heard.
    Idle,
    /// Since it connected.
    Age,
}

impl Sort {
    const ALL: [Self; 3] = [Self::Lag, Self::Idle, Self::Age];

    /// As in the query, and on the screen.
    pub(super) fn name(self) -> &'static str {
        ["lag", "idle", "age"][self as usize]
    }

    /// The one after this, round and round.
    pub(super) fn next(self) -> Self {
        Self::from_number(self as u8 + 1)
    }

    /// The one of this number.
    pub(super) fn from_number(number: u8) -> Self {
        Self::ALL[usize::from(number) % Self::ALL.len()]
    }
}

/// One connection. What a gateway of another version does not tell is 0 or nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Consumer {
    /// As `corecast kick --connection` takes it.
    pub id: String,
    /// `None` is anonymous.
    pub user: Option<String>,
    /// `ws`, `sse` or `poll`.
    pub transport: String,
    /// `ip:port`
    pub remote: String,
    /// Unix time in milliseconds.
    pub connected_at: u64,
    /// What it subscribed to.
    pub topics: Vec<String>,
    /// How far it is behind.
    pub lag_messages: u64,
    /// See `lag_messages`.
    pub lag_bytes: u64,
    /// Since something was last heard of it.
    pub idle_ms: u64,
}

/// The list, or why there is none.
#[derive(Clone, Debug)]
pub(super) enum Consumers {
    /// In the order that was asked for.
    Listed(Vec<Consumer>),
    /// In a few words.
    Unknown(String),
}

#[derive(Deserialize)]
struct Answer {
    connections: Vec<Consumer>,
}

/// Asks for the first in this order.
pub(super) fn ask(socket: &Path, sort: Sort) -> Consumers {
    let target = format!("/v1/connections?sort={}&limit={CONSUMERS_MAX}", sort.name());
    match fetch(socket, &target) {
        Ok((200, body)) => match serde_json::from_slice::<Answer>(&body) {
            Ok(answer) => Consumers::Listed(answer.connections),
            Err(error) => Consumers::Unknown(format!("the answer is not understood: {error}")),
        },
        Ok((404 | 405, _)) => Consumers::Unknown("this gateway does not list connections".to_owned()),
        Ok((503, _)) => Consumers::Unknown("the gateway is busy".to_owned()),
        Ok((status, _)) => Consumers::Unknown(format!("the gateway refuses with {status}")),
        Err(error) => Consumers::Unknown(format!("not answered: {error}")),
    }
}

/// Status and body of the answer to one `GET`.
fn fetch(socket: &Path, target: &str) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut octets = Vec::new();
    stream.read_to_end(&mut octets)?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer");
    let end = octets.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(malformed)?;
    let head = String::from_utf8_lossy(&octets[..end]);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
    Ok((status, octets.split_off(end + 4)))
}
