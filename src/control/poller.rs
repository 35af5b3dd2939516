//! What control sleeps on: its clients' sockets, the shards' reports, signals, and time.
//!
//! Readiness is told by one epoll (level-triggered: who was not served is told of again), which a small
//! `Ring` polls; ring and channels signal one eventfd, and that is what the executor sleeps on. Not
//! glommio's own Unix stream: it hides the descriptor, so that SO_PEERCRED could not be read.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, Timespec, epoll};
use rustix::io::Errno;

use crate::ring::kernel::Ring;
use crate::ring::{self, Arrival, Token};

pub use rustix::event::epoll::EventFlags;

/// Names the listener among what is ready.
pub const LISTENER: u64 = u64::MAX;
/// Names the admin listener.
pub const ADMIN_LISTENER: u64 = u64::MAX - 1;
const EPOLL: Token = Token { index: 0, generation: 0 };
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
        // Not flume's `drain`: that takes the buffer along, and the next sender, a shard, allocates one.
        self.receiver.try_iter().take(self.receiver.len())
    }

    /// Whether all senders were gone when last looked, so that nothing more will come.
    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

/// The epoll and what it last told.
pub struct Poller {
    epoll: OwnedFd,
    ring: Ring,
    alarm: glommio::io::BufferedFile,
    /// When the ring's timer will signal, if one is armed.
    timer: Option<Instant>,
    bell: Arc<Bell>,
    waker: Waker,
    ready: Vec<epoll::Event>,
}

impl Poller {
    /// To be made on the executor that will wait. Errors: no descriptors are left, or the ring is refused.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Blocking on purpose: io_uring turns a read of a non-blocking descriptor into EAGAIN.
        let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        let mut ring = Ring::new(eventfd.as_fd())?;
        ring.arm_lasting_poll(&epoll, EPOLL);
        let alarm = ring::alarm(eventfd.try_clone()?);
        let bell = Arc::new(Bell { eventfd, rung: AtomicBool::new(false) });
        let waker = bell.clone().into();
        Ok(Self { epoll, ring, alarm, timer: None, bell, waker, ready: Vec::with_capacity(READY_MAX) })
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
    pub async fn wait<A, B>(
        &mut self,
        timeout: Option<Duration>,
        first: &mut Channel<A>,
        second: &mut Channel<B>,
    ) -> io::Result<(Option<A>, Option<B>)> {
        self.ready.clear();
        let mut context = Context::from_waker(&self.waker);
        // A fresh future each time looks into the channel and leaves its waker there under one lock.
        let (a, b) = (first.receiver.recv_async(), second.receiver.recv_async());
        futures_lite::pin!(a, b);
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
        self.look()?;
        if !awake && self.ready.is_empty() {
            self.sleep(timeout).await;
            self.look()?;
        }
        Ok(given)
    }

    /// Takes from the epoll what is ready now.
    fn look(&mut self) -> io::Result<()> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.ready), Some(&now)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    async fn sleep(&mut self, timeout: Option<Duration>) {
        if let Some(timeout) = timeout {
            let at = Instant::now() + timeout;
            if self.timer.is_none_or(|timer| timer > at) {
                self.timer = Some(at);
                self.ring.arm_timer(timeout);
            }
        }
        // What arrived since the epoll was looked at will not be told of again.
        let arrived = self.take_arrivals();
        self.ring.signal(true);
        if !arrived && self.ring.is_quiet() {
            // An error would be a broken eventfd: a turn too many is the worst that can come of it.
            let _ = self.alarm.read_at(0, 8).await;
        }
        self.ring.signal(false);
        // What rings between these two lines is found in the channel before the next sleep.
        self.bell.rung.store(false, Ordering::SeqCst);
        self.take_arrivals();
    }

    /// Takes what the ring has to tell; whether it was anything.
    fn take_arrivals(&mut self) -> bool {
        self.ring.collect();
        let mut arrived = false;
        while let Some(arrival) = self.ring.arrival() {
            arrived = true;
            match arrival {
                Arrival::Timer => self.timer = None,
                Arrival::Readable { armed: false, .. } => self.ring.arm_lasting_poll(&self.epoll, EPOLL),
                _ => {}
            }
        }
        arrived
    }

    /// Names and flags of what is ready.
    pub fn ready(&self) -> impl Iterator<Item = (u64, EventFlags)> + '_ {
        self.ready.iter().map(|event| (event.data.u64(), event.flags))
    }
}
