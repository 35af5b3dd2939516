//! Processes of a measurement: the gateway itself, and our own program again in a helper role.
//!
//! A helper is given orders and reports, one JSON object a line, through its standard streams, and ends
//! when its orders end. Whatever is started here is ended here, by its own id. Next: `baseline`
//! and `lone_shard`, the roles.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use corecast::client::Client;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use super::{Outcome, baseline, crowd, lone_shard};
use crate::{Failure, cpu};

/// What this program does when it was started by itself.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Role {
    /// `baseline::run`
    Baseline,
    /// `lone_shard::run`
    LoneShard,
    /// `crowd::run`
    Crowd,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Baseline => "baseline",
            Role::LoneShard => "lone-shard",
            Role::Crowd => "crowd",
        }
    }

    /// Does the role's work on one core until its orders end.
    pub fn run(self, core: usize) -> Outcome<()> {
        cpu::pin(core)?;
        match self {
            Role::Baseline => baseline::run(),
            Role::LoneShard => lone_shard::run(),
            Role::Crowd => crowd::run(),
        }
    }
}

/// A helper process, seen from the driver. Dropping it kills it.
pub struct Helper {
    role: Role,
    child: Child,
    orders: Option<ChildStdin>,
    reports: BufReader<ChildStdout>,
}

impl Helper {
    /// Starts this program in `role` on one core.
    pub fn start(role: Role, core: usize) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--role", role.name(), "--core", &core.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take();
        let reports = BufReader::new(child.stdout.take().ok_or("a helper without standard output")?);
        Ok(Self { role, child, orders, reports })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order; does not wait for what comes of it.
    pub fn order(&mut self, order: &impl Serialize) -> Outcome<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let orders = self.orders.as_mut().ok_or("the helper has been stopped")?;
        Ok(orders.write_all(&line)?)
    }

    /// The next report. Errors: none came in time, or the helper has ended (it said why on stderr).
    pub fn report<R: DeserializeOwned>(&mut self, within: Duration) -> Outcome<R> {
        let role = self.role.name();
        if self.reports.buffer().is_empty() {
            let wait =
                Timespec { tv_sec: within.as_secs() as i64, tv_nsec: i64::from(within.subsec_nanos()) };
            let mut ready = [PollFd::new(self.reports.get_ref(), PollFlags::IN)];
            if rustix::event::poll(&mut ready, Some(&wait))? == 0 {
                return Err(format!("the {role} reports nothing within {within:?}").into());
            }
        }
        let mut line = String::new();
        if self.reports.read_line(&mut line)? == 0 {
            return Err(format!("the {role} has ended").into());
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Ends it, and with it all its connections.
    pub fn stop(mut self) -> Outcome<()> {
        self.orders = None;
        match ended_within(&mut self.child, Duration::from_secs(20))? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("the {} ended with {status}", self.role.name()).into()),
            None => Err(format!("the {} does not end", self.role.name()).into()),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ended_within(child: &mut Child, within: Duration) -> Outcome<Option<ExitStatus>> {
    let deadline = Instant::now() + within;
    loop {
        let ended = child.try_wait()?;
        if ended.is_some() || Instant::now() > deadline {
            return Ok(ended);
        }
        sleep(Duration::from_millis(5));
    }
}

/// How a gateway is configured for a measurement; the rest is as it comes.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `shards`; shard 0 is pinned to core 0.
    pub shards: u16,
    /// `timeouts.heartbeat`, in seconds.
    pub heartbeat_s: u32,
}

/// A gateway of its own: own port, own control socket, own configuration. Dropping it kills it.
pub struct Gateway {
    child: Child,
    /// Where its clients connect.
    pub address: SocketAddr,
    directory: TempDir,
}

impl Gateway {
    /// Starts one and waits until it is ready for clients and for commands.
    ///
    /// The program is the one that Cargo built for this benchmark; `CORECAST_BENCH_GATEWAY` names
    /// another, an older build to compare with.
    pub fn start(settings: Settings) -> Outcome<Self> {
        Self::start_with(&configuration(settings, 0))
    }

    /// One that lets in a client a second, after the first two.
    pub fn start_refusing(settings: Settings) -> Outcome<Self> {
        Self::start_with(&configuration(settings, 1))
    }

    fn start_with(configuration: &str) -> Outcome<Self> {
        let directory = TempDir::with_prefix("corecast-bench-")?;
        let config = directory.path().join("corecast.toml");
        fs::write(&config, configuration)?;
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let log = File::create(directory.path().join("log"))?;
        let program = std::env::var_os("CORECAST_BENCH_GATEWAY");
        let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_corecast").into());
        let mut command = Command::new(program);
        // Whatever is set for a gateway of the caller's must not reach this one.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CORECAST_"))
        {
            command.env_remove(name);
        }
        command.arg("serve").arg("--config").arg(&config);
        command.arg("--socket").arg(directory.path().join("control.sock"));
        command.arg("--listen").arg(address.to_string());
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut gateway = Self { child, address, directory };
        gateway.wait_until_ready()?;
        Ok(gateway)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where commands go.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    /// A client of its control socket.
    pub fn client(&self) -> Outcome<Client> {
        Client::connect(&self.socket()).map_err(|error| format!("{error:?}").into())
    }

    /// Ends it as an operator would, with SIGTERM, and waits until it has.
    pub fn stop(mut self) -> Outcome<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        match ended_within(&mut self.child, Duration::from_secs(20))? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.complaint(&format!("ended with {status}"))),
            None => Err(self.complaint("does not end within 20 s of SIGTERM")),
        }
    }

    fn wait_until_ready(&mut self) -> Outcome<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !(is_ready(self.address) && UnixStream::connect(self.socket()).is_ok()) {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.complaint(&format!("ended with {status} before it was ready")));
            }
            if Instant::now() > deadline {
                return Err(self.complaint("is not ready within 10 s"));
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn complaint(&self, what: &str) -> Failure {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        format!("the gateway {what}; it said:\n{log}").into()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(settings: Settings, connects_per_second: u32) -> String {
    let Settings { shards, heartbeat_s } = settings;
    // The connection rate is what is measured, so it is mostly not limited; clients are gone before a stop,
    // so a drain has nobody to wait for.
    format!(
        "shards = {shards}\n\n[limits]\nconnects_per_second = {connects_per_second}\n\n\
         [timeouts]\nheartbeat = \"{heartbeat_s}s\"\ndrain = \"1s\"\n\n[log]\nlevel = \"warn\"\n"
    )
}

fn is_ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
