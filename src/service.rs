//! The service manager that started us (systemd), where one did: what it is told and what it asked for.
//!
//! Notes go over `NOTIFY_SOCKET` (sd_notify(3)) from a thread of their own, which exists only where that is
//! set: a manager that does not read, as while it executes itself anew, keeps nobody waiting. When there is
//! what to tell is decided in `control::supervision`.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;

/// Notes that may wait while the manager does not read. What comes beyond them is not told.
const NOTES_MAX: usize = 64;
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

/// Where to tell it.
#[derive(Debug)]
pub struct ServiceManager {
    /// `None` once dropped.
    notes: Option<flume::Sender<Note>>,
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
        Ok(Some(Self { notes: Some(notes), told, watchdog: sd_notify::watchdog_enabled() }))
    }

    /// One that is planted: what it is told comes out of the receiver.
    #[cfg(test)]
    pub fn planted(watchdog: Option<Duration>) -> (Self, flume::Receiver<Note>) {
        let (notes, notes_in) = flume::bounded(NOTES_MAX);
        let (_, told) = flume::bounded(0);
        (Self { notes: Some(notes), told, watchdog }, notes_in)
    }

    /// Within how long it wants to hear `Note::Alive` again, where it does (`WatchdogSec=`).
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Tells it without waiting.
    pub fn tell(&self, note: Note) {
        if let Some(notes) = &self.notes {
            // Full: it does not read, and will hear the next ones. A watchdog that it does not hear of
            // is its own then.
            let _ = notes.try_send(note);
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

fn tell_all(notes: &flume::Receiver<Note>) {
    let mut failed = false;
    for note in notes {
        let told = tell(&note);
        // Rule 8: the first of a row.
        if let Err(error) = &told
            && !failed
        {
            tracing::warn!("cannot tell the service manager {note:?}: {error}");
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
