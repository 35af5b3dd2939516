//! What control sleeps on: its clients' sockets, the shards' reports and signals.
//!
//! One epoll. Not glommio: its Unix stream hides the descriptor, so SO_PEERCRED could not be read
//! without `unsafe`, and a shard's report costs one eventfd write here instead of a foreign wake.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, epoll};
use rustix::io::Errno;

pub use rustix::event::epoll::EventFlags;

/// Names the listener among what is ready.
pub const LISTENER: u64 = u64::MAX;
const BELL: u64 = u64::MAX - 1;
/// Most that is told at once; the rest comes with the next call.
const READY_MAX: usize = 128;

/// Rung by a channel that has something again.
#[derive(Debug)]
struct Bell {
    eventfd: OwnedFd,
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // Cannot fail: the counter would have to reach 2^64 - 1.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }
}

/// One channel that wakes the sleeper.
#[derive(Debug)]
pub struct Channel<T> {
    receiver: flume::Receiver<T>,
    /// All senders are gone.
    closed: bool,
}

impl<T> Channel<T> {
    /// Listens to `receiver`.
    pub fn new(receiver: flume::Receiver<T>) -> Self {
        Self { receiver, closed: false }
    }

    /// Everything that is there, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.closed = self.receiver.is_disconnected();
        self.receiver.drain()
    }

    /// Whether all senders were gone when last looked, so that nothing more will come.
    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

/// The epoll and what it last told.
pub struct Poller {
    epoll: OwnedFd,
    bell: Arc<Bell>,
    waker: Waker,
    ready: Vec<epoll::Event>,
}

impl Poller {
    /// Errors: no descriptors are left.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &eventfd, epoll::EventData::new_u64(BELL), EventFlags::IN)?;
        let bell = Arc::new(Bell { eventfd, rung: AtomicBool::new(false) });
        let waker = bell.clone().into();
        Ok(Self { epoll, bell, waker, ready: Vec::with_capacity(READY_MAX) })
    }

    /// Watches `socket` under `name`.
    pub fn add(&self, socket: impl AsFd, name: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(name), flags)?)
    }

    /// Watches it for something else.
    pub fn modify(&self, socket: impl AsFd, name: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(name), flags)?)
    }

    /// Watches it no more.
    pub fn remove(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// Sleeps until something is ready, a channel has something, or `timeout` has passed (`None`:
    /// never). What a channel gave away to wake us comes back, in its order.
    pub fn wait<A, B>(
        &mut self,
        timeout: Option<Duration>,
        first: &mut Channel<A>,
        second: &mut Channel<B>,
    ) -> io::Result<(Option<A>, Option<B>)> {
        self.ready.clear();
        let mut context = Context::from_waker(&self.waker);
        // A fresh future each time looks into the channel and leaves its waker there under one lock.
        let (mut a, mut b) = (pin!(first.receiver.recv_async()), pin!(second.receiver.recv_async()));
        let mut given = (None, None);
        let mut awake = timeout == Some(Duration::ZERO);
        if !awake && !first.closed {
            match a.as_mut().poll(&mut context) {
                Poll::Ready(Ok(item)) => (given.0, awake) = (Some(item), true),
                Poll::Ready(Err(_)) => (first.closed, awake) = (true, true),
                Poll::Pending => {}
            }
        }
        if !awake && !second.closed {
            match b.as_mut().poll(&mut context) {
                Poll::Ready(Ok(item)) => (given.1, awake) = (Some(item), true),
                Poll::Ready(Err(_)) => (second.closed, awake) = (true, true),
                Poll::Pending => {}
            }
        }
        let timeout = if awake { Some(Duration::ZERO) } else { timeout };
        let timeout = timeout
            .map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) });
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.ready), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if self.ready.iter().any(|event| event.data.u64() == BELL) {
            let _ = rustix::io::read(&self.bell.eventfd, &mut [0; 8]);
            // What rings between these two lines is found in the channel before the next sleep.
            self.bell.rung.store(false, Ordering::SeqCst);
        }
        Ok(given)
    }

    /// Names and flags of what is ready.
    pub fn ready(&self) -> impl Iterator<Item = (u64, EventFlags)> + '_ {
        let ready = self.ready.iter().map(|event| (event.data.u64(), event.flags));
        ready.filter(|(name, _)| *name != BELL)
    }
}
