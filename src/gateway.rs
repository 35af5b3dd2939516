//! Starts the shards and control, hears signals, and waits for the end.
//!
//! Everything that can be refused at start is tried before the first client can connect; each refusal
//! is a `Fatal`. Afterwards nothing here takes part in the work.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use glommio::{ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement};
use rustix::process::{Resource, Rlimit};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::auth::KeyRing;
use crate::config::{self, AuthMode, Change, Config, Keys, Source};
use crate::control::admin::AdminSocket;
use crate::control::{self, Reload, Signal, SocketError};
use crate::fatal::{self, Fatal};
use crate::host::marks::{Level, Reading};
use crate::host::{facts, need};
use crate::service::{ServiceManager, Sockets};
use crate::shard::listener::{self, Listener, SocketOptions};
use crate::shard::mailbox::{Gate, Inbox, Mailbox, Owner, Request, mailbox};
use crate::shard::{Parts, Room, Settings, Shard};

/// Memory that a shard's executor sets aside for file I/O, which shards hardly do. glommio refuses less.
const EXECUTOR_IO_BYTES: usize = 64 << 10;
const EXECUTOR_RING_ENTRIES: usize = 64;

/// Runs the gateway until it has drained; on SIGHUP it takes over what `source` reads. `keys` are those that
/// `config` names. Errors: why it did not start.
pub fn serve(config: Config, keys: KeyRing, source: Source) -> Result<(), Fatal> {
    if cfg!(feature = "simulation") {
        panic!("this build simulates its sockets: build it without the feature simulation");
    }
    let mut sockets = Sockets::take();
    fatal::check_host()?;
    let manager = ServiceManager::connect().map_err(|error| Fatal::thread_start("notify", error))?;
    raise_descriptor_limit();
    let room = room(&config)?;
    let path = control::default_path(&config.control.socket);
    let cpus = cpus_for(config.shards)?;
    let shards = cpus.len() as u16;
    let (addresses, listeners) = listen(&config, shards, &mut sockets)?;
    store_listeners(manager.as_ref(), &listeners)?;
    let admin = listen_admin(&config)?;
    let socket = control::bind(&config, &path, sockets.control.take()).map_err(Fatal::from)?;
    drop(sockets);
    let epoch = choose_epoch();
    let gate = Arc::new(Gate::default());
    let owner = Owner::new(shards);
    let (reports, reports_in) = flume::unbounded();
    let (mailboxes, inboxes) = make_mailboxes(&config, shards)?;
    let settings = Settings::new(&config, room).with_keys(&config.auth, keys);
    let (hold, begin) = flume::bounded(0);
    let mut threads = Vec::new();
    for (number, (listeners, inbox)) in listeners.into_iter().zip(inboxes).enumerate() {
        let parts = Parts {
            number: number as u16,
            epoch,
            settings: settings.clone(),
            listeners,
            inbox,
            peers: mailboxes.clone(),
            owner: owner.clone(),
            gate: gate.clone(),
            reports: reports.clone(),
        };
        threads.push(start_shard(parts, cpus[number], begin.clone())?);
    }
    drop(reports);
    let control = start_control()?;
    let Source { read, log_filter } = source;
    let signals = start_watching(&config, &gate, read)?;
    let shards = control::Shards { mailboxes, owner };
    // Everybody has the descriptors that it needs: now clients may take the rest.
    drop(hold);
    announce(&config, &addresses, &path, admin.as_ref(), threads.len());
    let (config, reports) = (Arc::new(config), reports_in);
    control.run(control::Parts {
        socket,
        admin,
        config,
        log_filter,
        epoch,
        shards,
        gate,
        reports,
        signals,
        manager,
    })?;
    for thread in threads {
        // A shard that failed has aborted the process (Rule 6): what is left is the ordinary end.
        let _ = thread.join();
    }
    tracing::info!("stopped");
    Ok(())
}

/// Raises the soft limit to the hard one.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // A refusal leaves the soft limit as it was: it counts either way.
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
}

/// The clients that the descriptor limit leaves room for, or the configured number of them.
fn room(config: &Config) -> Result<Room, Fatal> {
    let nofile = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(1 << 30);
    let reserve = need::descriptors_reserved(nofile);
    let wanted = u64::from(config.limits.connections);
    if nofile <= reserve || wanted + reserve > nofile {
        return Err(Fatal::Descriptors { limit: nofile, needed: wanted.max(1) + reserve });
    }
    // On a host with many cores the gateway itself needs more than the reserve of a small limit.
    let shards = cpus_for(config.shards)?.len() as u64;
    let listeners = config.listen.len() as u64;
    let control = u64::from(config.control.clients);
    let admin = config.admin.listen.map_or(0, |_| u64::from(config.admin.clients) + 1);
    let own = need::descriptors_of_gateway(shards, listeners, control + admin);
    let sockets_max = nofile.saturating_sub(own.max(reserve / 2));
    // Room for nobody, or not for as many as were asked for.
    if sockets_max < wanted.max(1) {
        return Err(Fatal::Descriptors { limit: nofile, needed: wanted.max(1) + own });
    }
    let clients_max = if wanted == 0 { nofile - reserve } else { wanted };
    Ok(Room { clients_max: clients_max.min(sockets_max), sockets_max })
}

/// One CPU for each shard, out of those this process may use. More shards than CPUs share them.
fn cpus_for(shards: u16) -> Result<Vec<usize>, Fatal> {
    let set = rustix::thread::sched_getaffinity(None)
        .map_err(|error| Fatal::thread_start("shard 0", error.into()))?;
    let allowed: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect();
    let count = if shards == 0 { allowed.len() } else { usize::from(shards) };
    Ok(allowed.into_iter().cycle().take(count).collect())
}

/// Listens on every address for every shard, with the sockets that are there already first. Gives the addresses with the ports chosen, and each shard's
/// listeners.
fn listen(
    config: &Config,
    shards: u16,
    sockets: &mut Sockets,
) -> Result<(Vec<SocketAddr>, Vec<Vec<Listener>>), Fatal> {
    let options = SocketOptions { send_bytes: config.limits.socket_send_bytes.bytes(), backlog: somaxconn() };
    let mut addresses = Vec::new();
    let mut listeners: Vec<Vec<Listener>> = (0..shards).map(|_| Vec::new()).collect();
    for &configured in &config.listen {
        let refused = |error| Fatal::listen(configured, error);
        let mut given = sockets.take_clients(configured).into_iter();
        if given.len() == 0 {
            listener::probe(configured).map_err(refused)?;
        }
        let mut address = configured;
        for listeners in &mut listeners {
            let listener = match given.next() {
                Some(socket) => Listener::inherit(socket, options),
                None => Listener::bind(address, options),
            };
            let listener = listener.map_err(refused)?;
            // The port that the kernel chose for port 0.
            address = listener.address().map_err(refused)?;
            listeners.push(listener.speaking_proxy(config.network.proxy_protocol.contains(&configured)));
        }
        addresses.push(address);
    }
    Ok((addresses, listeners))
}

/// Has the service manager, where there is one, keep the listeners open over a restart.
fn store_listeners(manager: Option<&ServiceManager>, listeners: &[Vec<Listener>]) -> Result<(), Fatal> {
    let Some(manager) = manager else { return Ok(()) };
    let keep = listeners.iter().flatten().map(Listener::duplicate).collect::<io::Result<_>>();
    manager.store(keep.map_err(|error| Fatal::thread_start("notify", error))?);
    Ok(())
}

/// Listens on `admin.listen`, where it is set.
fn listen_admin(config: &Config) -> Result<Option<AdminSocket>, Fatal> {
    let bind = |address| AdminSocket::bind(address).map_err(|error| Fatal::listen(address, error));
    config.admin.listen.map(bind).transpose()
}

/// The longest queue of unaccepted connections that the host allows.
fn somaxconn() -> i32 {
    let limit = facts::sysctl("net.core.somaxconn").and_then(|limits| i32::try_from(limits[0]).ok());
    limit.unwrap_or(4096)
}

fn make_mailboxes(config: &Config, shards: u16) -> Result<(Vec<Mailbox>, Vec<Inbox>), Fatal> {
    let (messages_max, bytes_max) =
        (config.control.mailbox_messages as usize, config.control.mailbox_bytes.bytes());
    let pairs: io::Result<Vec<_>> = (0..shards).map(|_| mailbox(messages_max, bytes_max)).collect();
    Ok(pairs.map_err(|error| Fatal::thread_start("shard 0", error))?.into_iter().unzip())
}

/// Differs between any two starts: seconds and process id, mixed.
fn choose_epoch() -> u32 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(std::process::id()) as u32
}

type Thread = ExecutorJoinHandle<io::Result<()>>;

/// Watches memory, and what signals tell: gives what they tell.
fn start_watching(
    config: &Config,
    gate: &Arc<Gate>,
    read: config::Read,
) -> Result<flume::Receiver<Signal>, Fatal> {
    let memory_max_bytes = Arc::new(AtomicU64::new(config.limits.memory.0));
    let watch = MemoryWatch::new(gate.clone(), memory_max_bytes.clone());
    watch.start().map_err(|error| Fatal::thread_start("memory", error))?;
    let (signals, told) = flume::unbounded();
    let reloader = Reloader { read, config: config.clone(), memory_max_bytes };
    listen_to_signals(signals, reloader).map_err(|error| Fatal::thread_start("signals", error))?;
    Ok(told)
}

/// Starts a shard on its CPU and waits until it has all it needs. It begins when the other end of `begin` goes.
fn start_shard(parts: Parts, cpu: usize, begin: flume::Receiver<()>) -> Result<Thread, Fatal> {
    let number = parts.number;
    // Pinned here and not by `Placement::Fixed`: that reads the whole topology from /sys first, and panics
    // where the kernel knows no package (physical_package_id is -1 under User Mode Linux, on some ARM boards).
    let work = move |started: flume::Sender<()>| async move {
        pin(cpu)?;
        let wait = || {
            let _ = started.send(());
            let _ = begin.recv();
        };
        Shard::new(parts)?.run(wait).await
    };
    start(&format!("shard-{number}"), work)
        .map_err(|error| Fatal::thread_start(format!("shard {number}"), error))
}

/// Control's thread, which has all it needs and waits for its parts.
struct ControlThread {
    thread: Thread,
    parts: flume::Sender<control::Parts>,
}

/// Starts control's thread. Before the shards begin, so that a storm of clients cannot take its descriptors.
fn start_control() -> Result<ControlThread, Fatal> {
    let (parts, given) = flume::bounded(1);
    let work = move |started: flume::Sender<()>| async move {
        let poller = control::Poller::new()?;
        let _ = started.send(());
        // Not given where a shard did not start: the process ends.
        if let Ok(parts) = given.recv() {
            control::run(poller, parts).await;
        }
        Ok(())
    };
    let thread = start("control", work).map_err(|error| Fatal::thread_start("control", error))?;
    Ok(ControlThread { thread, parts })
}

impl ControlThread {
    /// Has control work until the gateway has drained.
    fn run(self, parts: control::Parts) -> Result<(), Fatal> {
        let _ = self.parts.send(parts);
        let ended = self.thread.join().map_err(io_error).and_then(|result| result);
        ended.map_err(|error| Fatal::thread_start("control", error))
    }
}

/// Starts an executor on a thread of its own and waits until `work` has told that it is started. Errors: why it
/// ended instead.
fn start<W, F>(name: &str, work: W) -> io::Result<Thread>
where
    W: FnOnce(flume::Sender<()>) -> F + Send + 'static,
    F: Future<Output = io::Result<()>> + 'static,
{
    let (started, is_started) = flume::bounded(1);
    let thread = LocalExecutorBuilder::new(Placement::Unbound)
        .name(name)
        .io_memory(EXECUTOR_IO_BYTES)
        .ring_depth(EXECUTOR_RING_ENTRIES)
        .spawn(move || work(started))
        .map_err(io_error)?;
    if is_started.recv().is_ok() {
        return Ok(thread);
    }
    Err(match thread.join() {
        Ok(Err(error)) => error,
        Err(error) => io_error(error),
        Ok(Ok(())) => io::ErrorKind::Other.into(),
    })
}

/// Keeps this thread on one CPU.
fn pin(cpu: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

fn io_error(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

impl From<SocketError> for Fatal {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Live(path) => Self::SocketLive { path },
            SocketError::Foreign { path, what } => Self::SocketForeign { path, what: what.to_owned() },
            SocketError::Permission { path, error, .. } | SocketError::Io { path, error, .. } => {
                Self::SocketPath { path, error }
            }
        }
    }
}

/// Reads the configuration again.
struct Reloader {
    read: config::Read,
    /// The one in effect.
    config: Config,
    /// Its `limits.memory`, for `MemoryWatch`.
    memory_max_bytes: Arc<AtomicU64>,
}

impl Reloader {
    /// What is there to take over, or why it is refused whole. Says which keys changed, and which need a
    /// restart.
    fn reload(&mut self) -> Reload {
        match self.read() {
            Ok((Change { config, taken, kept }, keys, room)) => {
                keys.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                tracing::info!(changed = taken.join(", "), "configuration reloaded");
                if !kept.is_empty() {
                    tracing::warn!("a restart is needed for: {}; they stay as they were", kept.join(", "));
                }
                self.memory_max_bytes.store(config.limits.memory.0, Ordering::Relaxed);
                self.config = config.clone();
                let settings = Settings::new(&config, room).with_keys(&config.auth, keys.ring);
                let adopt = Request::Adopt(Arc::new(settings));
                Reload::Good { config: Arc::new(config), adopt }
            }
            Err(why) => {
                tracing::error!("reload refused, the old configuration stays: {why}");
                Reload::Bad { why }
            }
        }
    }

    /// Errors: what is wrong, in one line.
    fn read(&self) -> Result<(Change, Keys, Room), String> {
        let line = |text: String| text.lines().next().unwrap_or_default().to_owned();
        let read = (self.read)().map_err(|error| line(error.to_string()))?;
        let mut change = Change::new(&self.config, read);
        // Of the configuration that will be in effect: `auth.mode` may stay what it was.
        let mut keys = config::read_keys(&change.config.auth).map_err(|error| line(error.to_string()))?;
        keys.warnings.extend(change.config.admin.read_token().map_err(|error| line(error.to_string()))?);
        match room(&change.config) {
            Ok(room) => Ok((change, keys, room)),
            Err(Fatal::Descriptors { limit, needed }) => {
                let keys = "limits.connections and control.clients";
                Err(format!("{keys} need {needed} file descriptors, and the limit is {limit}"))
            }
            Err(fatal) => Err(line(fatal.to_string())),
        }
    }
}

/// How often memory is looked at: each look reads a few files.
const MEMORY_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Of one level at most one line is logged in so long.
const MEMORY_SAID_EVERY: Duration = Duration::from_secs(60);

/// Looks at the memory, and tells the shards through the gate when it gets short.
#[derive(Debug)]
struct MemoryWatch {
    gate: Arc<Gate>,
    /// `limits.memory`
    max_bytes: Arc<AtomicU64>,
    level: Level,
    /// When each level was last told of.
    said_at: [Option<Instant>; 4],
}

impl MemoryWatch {
    fn new(gate: Arc<Gate>, max_bytes: Arc<AtomicU64>) -> Self {
        Self { gate, max_bytes, level: Level::Fine, said_at: [None; 4] }
    }

    /// Looks from now on, on a thread of its own: a slow read holds up neither pushes nor commands.
    fn start(mut self) -> io::Result<()> {
        let watch = move || loop {
            self.look(Instant::now());
            std::thread::sleep(MEMORY_LOOK_EVERY);
        };
        // Ends with the process.
        std::thread::Builder::new().name("memory".to_owned()).spawn(watch).map(drop)
    }

    fn look(&mut self, now: Instant) {
        let sockets = self.gate.sockets.load(Ordering::Relaxed);
        let reading = facts::memory(self.max_bytes.load(Ordering::Relaxed), sockets);
        // No limit, no level.
        let reading = reading.unwrap_or(Reading { used_bytes: 0, limit_bytes: 0 });
        let level = if reading.limit_bytes == 0 { Level::Fine } else { self.level.after(reading) };
        self.gate.memory_used_bytes.store(reading.used_bytes, Ordering::Relaxed);
        self.gate.memory_limit_bytes.store(reading.limit_bytes, Ordering::Relaxed);
        self.gate.memory_short.store(level >= Level::Refuse, Ordering::Relaxed);
        if level == Level::Cut {
            self.gate.cut_bytes.store(reading.excess_bytes(), Ordering::Relaxed);
            self.gate.cuts_told.fetch_add(1, Ordering::Release);
        }
        let before = std::mem::replace(&mut self.level, level);
        let said_at = &mut self.said_at[level as usize];
        if level != before && said_at.is_none_or(|at| now - at >= MEMORY_SAID_EVERY) {
            *said_at = Some(now);
            say_memory(level, reading);
        }
    }
}

fn say_memory(level: Level, Reading { used_bytes, limit_bytes }: Reading) {
    let what = match level {
        Level::Fine => return tracing::info!(used_bytes, limit_bytes, "memory is no longer short"),
        Level::Warn => "from 90 % on new clients are refused",
        Level::Refuse => "new clients are refused",
        Level::Cut => "new clients are refused, and those furthest behind are cut",
    };
    let percent = Reading { used_bytes, limit_bytes }.percent();
    tracing::warn!(
        "memory: {percent} % of {limit_bytes} bytes in use (limits.memory, or the limit of its cgroup): {what}; \
         give it more (MemoryMax= of the unit), or lower limits.connections or history.bytes"
    );
}

/// SIGTERM and SIGINT drain; the second one ends at once. SIGHUP reloads.
fn listen_to_signals(signals: flume::Sender<Signal>, mut reloader: Reloader) -> io::Result<()> {
    let mut hook = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let wait = move || {
        let mut heard = 0;
        for signal in hook.forever() {
            if signal == SIGHUP {
                let _ = signals.send(Signal::Reload(Reload::Begins));
                let _ = signals.send(Signal::Reload(reloader.reload()));
                continue;
            }
            heard += 1;
            if heard > 1 {
                tracing::info!(signal, "told twice: ending at once");
                std::process::exit(0);
            }
            tracing::info!(signal, "draining; once more ends at once");
            // Control has gone only when the process ends anyway.
            let _ = signals.send(Signal::Drain);
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait)?;
    Ok(())
}

/// Says what listens where, and gives a push to try.
fn announce(
    config: &Config,
    addresses: &[SocketAddr],
    path: &Path,
    admin: Option<&AdminSocket>,
    shards: usize,
) {
    let who = match config.auth.mode() {
        AuthMode::Open => "user=alice",
        AuthMode::Jwt => "token=TOKEN",
        AuthMode::Ticket => "ticket=TICKET",
    };
    let plural = if shards == 1 { "" } else { "s" };
    for address in addresses {
        eprintln!("corecast: clients   ws://{address}/ws?{who}&topics=news   ({shards} shard{plural})");
    }
    if let Some(address) = addresses.first().filter(|_| config.web.demo) {
        eprintln!("corecast: demo      http://{address}/");
    }
    if let Some(admin) = admin {
        eprintln!("corecast: admin     http://{}/", admin.address());
    }
    eprintln!("corecast: control   {}", path.display());
    let default: PathBuf = control::default_path(Path::new(""));
    let socket = if path == default { String::new() } else { format!(" --socket {}", path.display()) };
    eprintln!("corecast: try       corecast push{socket} --topic news 'hello'");
    let curl = "-d '{\"to\":{\"user\":\"alice\"},\"data\":\"hello\"}' http://localhost/v1/push";
    eprintln!("corecast: or        curl --unix-socket {} {curl}", path.display());
    tracing::info!(shards, "ready");
}
