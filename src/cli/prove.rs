//! `corecast check --prove N`: what idle connections cost on this host, measured against a gateway of its
//! own.
//!
//! Blocking: connects, waits for the answers, reads what the kernel and the gateway have grown by. The
//! gateway, its directory and all connections go again, however this ends: by a `Drop` here, by the signal
//! that the kernel sends the gateway when this process is killed (`serve --with-parent`).

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM};

use crate::client::{Client, ClientError};
use crate::control::command::{Answer, Command as Ask};
use crate::host::memory::{KernelMemory, at_rest, tcp_sockets};
use crate::host::need;

/// One source address has 28,232 ports (`ip_local_port_range`), of which others may use some.
const CONNECTIONS_PER_ADDRESS: u64 = 12_000;
/// Connects before the answers are read: less than any backlog (`net.core.somaxconn` is 4,096, once 128).
const BATCH: u64 = 100;
/// Connections before the first reading, so that code pages and first tables do not count as theirs.
const WARM_UP: u64 = 100;
/// Plain connections inside this process, to know what the client's end costs.
const PLAIN: u64 = 2_000;
/// Descriptors of this process that are no connections.
const DESCRIPTORS_OWN: u64 = 64;
/// How long the gateway may take to start, or to answer.
const DEADLINE: Duration = Duration::from_secs(15);

/// Of the gateway. No heartbeats: nobody here answers a ping, and a frame that waits to be read is memory
/// too.
const SETTINGS: [&str; 5] = [
    "limits.connects_per_second=0",
    "timeouts.heartbeat=65535s",
    "timeouts.heartbeat_max=65535s",
    "timeouts.pong=1day",
    "log.level=error",
];

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Proof {
    /// Connections measured.
    pub connections: u64,
    /// Growth of the gateway's resident memory for each of them, in bytes.
    pub user_bytes: i64,
    /// The kernel's growth for the gateway's end of each, in bytes.
    pub kernel_bytes: i64,
    /// The same for both ends.
    pub kernel_both_ends_bytes: i64,
    /// Where the kernel's was read.
    pub kernel_source: &'static str,
    /// From the first connect to the last answer, in milliseconds.
    pub connect_ms: u64,
    /// What `corecast check` reckons with for both together, in bytes.
    pub reckoned_bytes: u64,
}

/// Why there is no proof.
#[derive(Debug)]
pub(super) enum ProveError {
    /// More than the descriptors of this process or of the gateway allow.
    TooMany {
        /// What was asked.
        connections: u64,
        /// What would do.
        most: u64,
        /// The hard limit of RLIMIT_NOFILE.
        limit: u64,
    },
    /// The gateway did not start: what it said.
    Gateway(String),
    /// It stopped answering, or refused a connection: which, and what came back.
    Refused {
        /// How many it had taken.
        after: u64,
        /// The answer's first line, or the error.
        answer: String,
    },
    /// Others opened or closed so many sockets meanwhile that the kernel's figure would be theirs.
    Disturbed {
        /// How many.
        sockets: u64,
    },
    /// A signal came.
    Interrupted,
    /// A file, a socket or a process failed.
    Io(io::Error),
}

impl From<io::Error> for ProveError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for ProveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooMany { connections, most, limit } => write!(
                f,
                "cannot open {connections} connections here: {limit} descriptors allow {most}\n\
                 try: corecast check --prove {most}, or ulimit -Hn {} as root",
                need::descriptors(connections + WARM_UP)
            ),
            Self::Gateway(said) => write!(f, "the gateway to measure did not start:\n{}", said.trim_end()),
            Self::Refused { after, answer } => write!(
                f,
                "the gateway to measure took {after} connections, then: {answer}\n\
                 try: corecast check --connections N for the limit that is reached"
            ),
            Self::Disturbed { sockets } => write!(
                f,
                "other programs opened or closed {sockets} sockets meanwhile: what the kernel holds is not these \
                 connections' alone\ntry: again when the host is quieter"
            ),
            Self::Interrupted => write!(f, "interrupted; the gateway and its connections are gone"),
            Self::Io(error) => write!(f, "cannot measure: {error}"),
        }
    }
}

/// Opens `connections` to a gateway of its own and measures them. Errors: every `ProveError`.
pub(super) fn prove(connections: u64) -> Result<Proof, ProveError> {
    let limit = raise_descriptor_limit();
    let most = need::clients_of(limit).min(limit.saturating_sub(DESCRIPTORS_OWN)).saturating_sub(WARM_UP);
    if connections > most {
        return Err(ProveError::TooMany { connections, most, limit });
    }
    let stop = Stop::listen()?;
    let gateway = Gateway::start(&stop)?;
    let pairs = (limit.saturating_sub(DESCRIPTORS_OWN) / 2).saturating_sub(WARM_UP).min(PLAIN);
    let plain = plain_bytes(pairs, &stop);
    let mut clients = Clients::new(gateway.address);
    clients.open(WARM_UP, &stop)?;
    let before = Reading::of(gateway.child.id())?;
    let begun = Instant::now();
    clients.open(connections, &stop)?;
    let connect_ms = begun.elapsed().as_millis() as u64;
    gateway.holds(connections + WARM_UP)?;
    let after = Reading::of(gateway.child.id())?;
    let both_ends = before.until(&after, connections)?;
    Ok(Proof {
        connections,
        user_bytes: (after.resident_bytes as i64 - before.resident_bytes as i64) / connections as i64,
        kernel_bytes: both_ends - plain? / 2,
        kernel_both_ends_bytes: both_ends,
        kernel_source: after.kernel.source(),
        connect_ms,
        reckoned_bytes: need::USER_BYTES + need::KERNEL_BYTES,
    })
}

/// The kernel's objects and a process's pages at rest, and how many sockets there are.
struct Reading {
    kernel: KernelMemory,
    resident_bytes: u64,
    sockets: u64,
}

impl Reading {
    fn of(pid: u32) -> io::Result<Self> {
        let (kernel, resident_bytes) = at_rest(pid)?;
        Ok(Self { kernel, resident_bytes, sockets: tcp_sockets()? })
    }

    /// What each of `connections` new ones costs the kernel by `after`, in bytes, both ends. Errors:
    /// `Disturbed` where more than a fiftieth of the new sockets, or as many gone ones, are those of others.
    fn until(&self, after: &Self, connections: u64) -> Result<i64, ProveError> {
        let (expected, sockets) = (self.sockets + 2 * connections, after.sockets);
        let others = sockets.abs_diff(expected);
        if others > connections / 25 {
            return Err(ProveError::Disturbed { sockets: others });
        }
        Ok(after.kernel.growth_since(&self.kernel, 2 * connections) / connections as i64)
    }
}

/// Raises the soft limit to the hard one, which the gateway inherits and does too. Gives it.
fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // A refusal leaves the soft limit as it was: it is read again.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Whether a signal came: then everything is taken down and not just left.
struct Stop(Arc<AtomicBool>);

impl Stop {
    fn listen() -> io::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, flag.clone())?;
        }
        Ok(Self(flag))
    }

    fn check(&self) -> Result<(), ProveError> {
        if self.0.load(Ordering::Relaxed) { Err(ProveError::Interrupted) } else { Ok(()) }
    }
}

/// What both ends of a plain connection cost the kernel, in bytes: half of it is a client's end.
fn plain_bytes(pairs: u64, stop: &Stop) -> Result<i64, ProveError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let own = std::process::id();
    let mut held = Vec::new();
    let mut open = |count| -> Result<(), ProveError> {
        for _ in 0..count {
            stop.check()?;
            held.push(connect(Ipv4Addr::LOCALHOST, address)?);
            held.push(listener.accept()?.0);
        }
        Ok(())
    };
    // The first ones fill slabs that are half empty and count as full.
    open(WARM_UP)?;
    let before = Reading::of(own)?;
    open(pairs)?;
    before.until(&Reading::of(own)?, pairs)
}

/// Connects from `source`. Closing resets the connection: thousands would linger in TIME_WAIT otherwise.
fn connect(source: Ipv4Addr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    rustix::net::bind(&socket, &SocketAddrV4::new(source, 0))?;
    rustix::net::connect(&socket, &address)?;
    Ok(TcpStream::from(socket))
}

/// A gateway for this one purpose. It ends with this value.
struct Gateway {
    child: Child,
    address: SocketAddr,
    directory: Directory,
}

impl Gateway {
    fn start(stop: &Stop) -> Result<Self, ProveError> {
        let directory = Directory::make()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--listen", "127.0.0.1:0", "--socket"]).arg(directory.socket());
        command.args(["--with-parent", &std::process::id().to_string()]);
        command.args(SETTINGS.iter().flat_map(|setting| ["--set", setting]));
        // Nothing of this environment (CORECAST_*), and no part in what the terminal sends to all.
        command.env_clear().process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        let said = directory.path.join("stderr");
        let child = command.stderr(fs::File::create(&said)?).spawn()?;
        // Held from here on, so that it is killed if anything below fails.
        let mut gateway = Self { child, address: (Ipv4Addr::LOCALHOST, 0).into(), directory };
        let by = Instant::now() + DEADLINE;
        loop {
            stop.check()?;
            let text = fs::read_to_string(&said)?;
            if let Some(address) = announced(&text) {
                gateway.address = address;
                return Ok(gateway);
            }
            if gateway.child.try_wait()?.is_some() || Instant::now() > by {
                return Err(ProveError::Gateway(text));
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it counts `wanted` clients: what is measured is what it holds.
    fn holds(&self, wanted: u64) -> Result<(), ProveError> {
        let refused = |answer: String| ProveError::Refused { after: wanted, answer };
        let failed = |error: ClientError| refused(error.to_string());
        let mut client = Client::connect(&self.directory.socket()).map_err(failed)?;
        let by = Instant::now() + DEADLINE;
        loop {
            let Answer::Stats(stats) = client.call(&Ask::Stats).map_err(failed)? else {
                return Err(refused("no counters".to_owned()));
            };
            let held: u64 = stats.shards.iter().map(|shard| shard.connections).sum();
            if held == wanted {
                return Ok(());
            }
            if Instant::now() > by {
                return Err(refused(format!("{held} of them are left")));
            }
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It has ended already, or is told to: either way it is waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `corecast: clients   ws://127.0.0.1:43210/ws?…`
fn announced(said: &str) -> Option<SocketAddr> {
    // A whole line: the address may be half written.
    let lines = said.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let mut rests = lines.filter_map(|line| line.strip_prefix("corecast: clients   ws://"));
    rests.next()?.split('/').next()?.parse().ok()
}

/// A directory of this user alone. It goes with this value.
struct Directory {
    path: PathBuf,
}

impl Directory {
    fn make() -> io::Result<Self> {
        use std::hash::BuildHasher;
        let number = std::hash::RandomState::new().hash_one(std::process::id());
        let path = std::env::temp_dir().join(format!("corecast-prove-{number:016x}"));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path })
    }

    fn socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// WebSockets to `address`, each with a user of 16 bytes and one topic, as in the README's figure.
struct Clients {
    address: SocketAddr,
    held: Vec<TcpStream>,
}

impl Clients {
    fn new(address: SocketAddr) -> Self {
        Self { address, held: Vec::new() }
    }

    fn open(&mut self, more: u64, stop: &Stop) -> Result<(), ProveError> {
        let mut left = more;
        while left > 0 {
            stop.check()?;
            let count = left.min(BATCH);
            let begin = self.held.len();
            for _ in 0..count {
                let stream = self.connect().map_err(|error| self.refused(begin, error.to_string()))?;
                self.held.push(stream);
            }
            for index in begin..self.held.len() {
                let answer = upgraded(&mut self.held[index]);
                answer.map_err(|answer| self.refused(index, answer))?;
            }
            left -= count;
        }
        Ok(())
    }

    fn refused(&self, after: usize, answer: String) -> ProveError {
        ProveError::Refused { after: after as u64, answer }
    }

    /// Connects and asks for the upgrade.
    fn connect(&self) -> io::Result<TcpStream> {
        let number = self.held.len() as u64;
        let mut stream = connect(source(number), self.address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let request = format!(
            "GET /ws?user=prove-{number:010}&topics=news HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.address
        );
        stream.write_all(request.as_bytes())?;
        Ok(stream)
    }
}

/// 127.0.0.2 for the first 12,000, 127.0.0.3 for the next; not 127.0.0.1, whose ports others use.
fn source(number: u64) -> Ipv4Addr {
    let host = 2 + number / CONNECTIONS_PER_ADDRESS;
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 0, 0)) + host as u32)
}

/// Reads the answer to the upgrade: nothing follows it on a raw WebSocket. Errors: what came instead.
fn upgraded(stream: &mut TcpStream) -> Result<(), String> {
    let mut answer = Vec::new();
    let mut part = [0; 512];
    while !answer.ends_with(b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(error) => return Err(error.to_string()),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    if text.starts_with("HTTP/1.1 101 ") {
        return Ok(());
    }
    Err(text.lines().next().unwrap_or("closed without an answer").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_12_000_connections_have_an_address_of_their_own() {
        let pairs = [(0, [127, 0, 0, 2]), (11_999, [127, 0, 0, 2]), (12_000, [127, 0, 0, 3])];
        for (number, address) in pairs {
            assert_eq!(source(number), Ipv4Addr::from(address), "{number}");
        }
        assert_eq!(source(12_000 * 300), Ipv4Addr::new(127, 0, 1, 46));
    }

    #[test]
    fn the_address_is_read_from_whole_lines_of_what_a_gateway_says() {
        assert_eq!(announced("corecast: clients   ws://127.0.0.1:43"), None);
        let said = "x\ncorecast: clients   ws://127.0.0.1:43210/ws?user=alice&topics=news   (2 shards)\n";
        assert_eq!(announced(said), Some(([127, 0, 0, 1], 43_210).into()));
    }
}
