//! The service manager that started us (systemd), where one did: what it is told, what it asked for, and the
//! sockets that it keeps for us.
//!
//! Notes go over `NOTIFY_SOCKET` (sd_notify(3)) from a thread of their own, which exists only where that is
//! set: a manager that does not read, as while it executes itself anew, keeps nobody waiting. When there is
//! what to tell is decided in `control::supervision`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// Notes that may wait while the manager does not read. What comes beyond them is not told.
const NOTES_MAX: usize = 64;
/// What the listeners for clients are called in the manager's store.
const CLIENTS: &str = "clients";
/// Descriptors in one message; the kernel takes at most 253 (SCM_MAX_FD).
const STORED_AT_ONCE: usize = 128;
/// How long the end of the process waits for the last notes to be taken.
const LAST_NOTES_WAIT: Duration = Duration::from_secs(1);

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// It serves: the start, or a reload, is over.
    Ready,
    /// It reads its configuration again; `Ready` follows.
    Reloading,
    /// It goes.
    Stopping,
    /// One line for `systemctl status`.
    Status(String),
    /// It is alive: due within each `ServiceManager::watchdog`.
    Alive,
    /// The start or the stop goes on, and may take this long from now.
    Extend(Duration),
}

/// What goes to the thread.
#[derive(Debug)]
enum Errand {
    Tell(Note),
    /// Keep these, and no others, over a restart.
    Store(Vec<OwnedFd>),
}

/// Where to tell it.
#[derive(Debug)]
pub struct ServiceManager {
    /// `None` once dropped.
    notes: Option<flume::Sender<Errand>>,
    /// Closed when the thread has told everything.
    told: flume::Receiver<()>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The manager that started this process; `None` where `NOTIFY_SOCKET` is not set.
    ///
    /// Errors: the thread did not start.
    pub fn connect() -> io::Result<Option<Self>> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(None);
        }
        let (notes, notes_in) = flume::bounded(NOTES_MAX);
        let (telling, told) = flume::bounded::<()>(0);
        std::thread::Builder::new().name("notify".to_owned()).spawn(move || {
            tell_all(&notes_in);
            drop(telling);
        })?;
        // 0 would be due all the time.
        let watchdog = sd_notify::watchdog_enabled().filter(|within| !within.is_zero());
        Ok(Some(Self { notes: Some(notes), told, watchdog }))
    }

    /// One that is planted: what it is told comes out of the receiver.
    #[cfg(test)]
    pub fn planted(watchdog: Option<Duration>) -> (Self, impl Fn() -> Vec<Note>) {
        let (notes, notes_in) = flume::bounded(NOTES_MAX);
        let (_, told) = flume::bounded(0);
        let drain = move || {
            let note = |errand| match errand {
                Errand::Tell(note) => Some(note),
                Errand::Store(_) => None,
            };
            notes_in.drain().filter_map(note).collect()
        };
        (Self { notes: Some(notes), told, watchdog }, drain)
    }

    /// Within how long it wants to hear `Note::Alive` again, where it does (`WatchdogSec=`).
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Tells it without waiting.
    pub fn tell(&self, note: Note) {
        self.send(Errand::Tell(note));
    }

    /// Has it keep these listeners open over a restart (`FileDescriptorStoreMax=`): clients that connect
    /// meanwhile wait. What it kept before, it lets go.
    pub fn store(&self, listeners: Vec<OwnedFd>) {
        self.send(Errand::Store(listeners));
    }

    fn send(&self, errand: Errand) {
        if let Some(notes) = &self.notes {
            // Full: it does not read, and will hear the next ones. A watchdog that it does not hear of
            // is its own then.
            let _ = notes.try_send(errand);
        }
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        self.notes = None;
        // Disconnected is what is waited for; too late is late enough.
        let _ = self.told.recv_timeout(LAST_NOTES_WAIT);
    }
}

fn tell_all(errands: &flume::Receiver<Errand>) {
    let mut failed = false;
    for errand in errands {
        let told = match &errand {
            Errand::Tell(note) => tell(note),
            Errand::Store(listeners) => store(listeners),
        };
        // Rule 8: the first of a row.
        if let Err(error) = &told
            && !failed
        {
            tracing::warn!("cannot tell the service manager {errand:?}: {error}");
        }
        failed = told.is_err();
    }
}

fn tell(note: &Note) -> io::Result<()> {
    let us = |duration: &Duration| u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    match note {
        Note::Ready => sd_notify::notify(&[NotifyState::Ready]),
        // The time lets systemd 253 and newer tell this reload from one before (`Type=notify-reload`).
        Note::Reloading => sd_notify::notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?]),
        Note::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        Note::Status(line) => sd_notify::notify(&[NotifyState::Status(line)]),
        Note::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
        Note::Extend(time) => sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(us(time))]),
    }
}

fn store(listeners: &[OwnedFd]) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(CLIENTS)])?;
    let listeners: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
    for some in listeners.chunks(STORED_AT_ONCE) {
        sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(CLIENTS)], some)?;
    }
    Ok(())
}

/// Sockets that the manager had open before us (`LISTEN_FDS`, sd_listen_fds(3)).
#[derive(Debug, Default)]
pub struct Sockets {
    /// The control socket, from a socket unit.
    pub control: Option<UnixListener>,
    clients: Vec<(SocketAddr, TcpListener)>,
}

impl Sockets {
    /// Takes them from the environment, which names them no more afterwards: to be called once, before there
    /// are threads. One that is neither of Unix nor of TCP, or a second control socket, is closed.
    pub fn take() -> Self {
        let mut given = ListenFd::from_env();
        let mut sockets = Self::default();
        for number in 0..given.len() {
            // Wrong in kind is an error, and leaves it to be taken as the other kind.
            if let Ok(Some(control)) = given.take_unix_listener(number) {
                sockets.control.get_or_insert(control);
            } else if let Ok(Some(listener)) = given.take_tcp_listener(number)
                && let Ok(address) = listener.local_addr()
            {
                sockets.clients.push((address, listener));
            }
        }
        sockets
    }

    /// Those that listen on `address`. What is left at the end is let go: nobody would accept from it.
    pub fn take_clients(&mut self, address: SocketAddr) -> Vec<TcpListener> {
        let all = std::mem::take(&mut self.clients).into_iter();
        let (wanted, others): (Vec<_>, Vec<_>) = all.partition(|(at, _)| *at == address);
        self.clients = others;
        wanted.into_iter().map(|(_, listener)| listener).collect()
    }
}
