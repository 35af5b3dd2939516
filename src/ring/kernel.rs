//! The shard's io_uring, and the only `unsafe` of the program. A safe API around batches.
//!
//! A batch of `RECV` or `SEND` carries `MSG_DONTWAIT`, so every operation has finished when
//! `io_uring_enter` returns (checked here, an assertion otherwise): buffers are borrowed for the call
//! only, and no operation is ever in flight with a pointer to memory that could move. What stays armed
//! between calls (multishot accept, polls, the timer) owns no memory of ours.
//! Kernel 6.1 or newer (DEFER_TASKRUN).
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::net::{Shutdown, getpeername, shutdown, sockopt};

use super::{
    Arrival, BATCH_MAX, GENERATION_MASK, PIECES_MAX, PIECES_PER_SEND_MAX, RingCounts, TcpInfo, Token,
};

const QUEUE_ENTRIES: u32 = 512;
const COMPLETION_ENTRIES: u32 = 8192;

const TAG_BATCH: u64 = 0;
const TAG_ACCEPT: u64 = 1;
const TAG_READ_POLL: u64 = 2;
const TAG_WRITE_POLL: u64 = 3;
const TAG_TIMER: u64 = 4;
const TAG_IGNORED: u64 = 5;
const TAG_END_POLL: u64 = 6;

fn user_data(tag: u64, token: Token) -> u64 {
    tag << 56 | u64::from(token.generation & GENERATION_MASK) << 32 | u64::from(token.index)
}

fn token_of(user_data: u64) -> Token {
    Token { index: user_data as u32, generation: (user_data >> 32) as u32 & GENERATION_MASK }
}

/// A client's socket: closed when it is dropped.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Socket {
    /// The peer's address, unless it has gone.
    pub fn peer(&self) -> Option<SocketAddr> {
        SocketAddr::try_from(getpeername(self).ok()??).ok()
    }

    /// Ends our side behind what was sent.
    pub fn end(&self) {
        // An error means that the peer has gone: the read side will tell.
        let _ = shutdown(self, Shutdown::Write);
    }

    /// Ends both sides, so that every poll that is armed on it tells, and lets it go: a poll holds the socket open,
    /// and to find one among a million by its name takes the kernel 0.3 ms (256 lists, io_uring/io_uring.c).
    pub fn hang_up(&self) {
        // An error means that it has ended already, which wakes the polls, too (net/ipv4/af_inet.c, `inet_shutdown`).
        let _ = shutdown(self, Shutdown::Both);
    }

    /// What the kernel knows of the connection. All zero where it says nothing.
    pub fn info(&self) -> TcpInfo {
        // SAFETY: all-zero is a valid tcp_info: it has numbers only.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        let place = (&raw mut info).cast();
        // SAFETY: the kernel writes at most `length` octets to `info`, which outlives the call. One that knows
        // fewer fields writes less; those of 5.4 and older are all that is read.
        let failed = unsafe {
            libc::getsockopt(self.0.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, place, &mut length)
        };
        if failed != 0 {
            return TcpInfo::default();
        }
        TcpInfo {
            idle_ms: info.tcpi_last_data_recv,
            rtt_us: info.tcpi_rtt,
            rtt_var_us: info.tcpi_rttvar,
            retransmits: info.tcpi_total_retrans,
            bytes_acked: info.tcpi_bytes_acked,
            bytes_received: info.tcpi_bytes_received,
            unsent_bytes: info.tcpi_notsent_bytes,
            unacked: info.tcpi_unacked,
            window_bytes: info.tcpi_snd_wnd,
            unanswered: info.tcpi_retransmits.max(info.tcpi_probes),
        }
    }

    /// Octets in the send queue that the peer has not acknowledged (SIOCOUTQ, tcp(7)); 0 where the kernel says
    /// nothing.
    pub fn send_queue_bytes(&self) -> u32 {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the kernel writes one int to `bytes`, which outlives the call.
        let failed = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        if failed == 0 { bytes as u32 } else { 0 }
    }

    /// Has the close drop what the kernel still holds for the peer, and reset.
    pub fn forsake(&self) {
        let _ = sockopt::set_socket_linger(self, Some(Duration::ZERO));
    }
}

/// One shard's ring.
pub struct Ring {
    ring: IoUring,
    /// Operations without memory of ours, submitted with the next call.
    queued: VecDeque<squeue::Entry>,
    /// The batch being built; never submitted half.
    staged: Vec<squeue::Entry>,
    pieces: Vec<libc::iovec>,
    headers: Vec<libc::msghdr>,
    results: Vec<i32>,
    finished: usize,
    arrivals: VecDeque<Arrival<Socket>>,
    timer: Box<types::Timespec>,
    counts: RingCounts,
}

// A batch's iovecs and message headers hold raw pointers, dead outside the call that builds them.
// A `Ring` never leaves its thread all the same: `IoUring` with SINGLE_ISSUER belongs to its creator.

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("queued", &self.queued.len()).finish_non_exhaustive()
    }
}

impl Ring {
    /// Makes the ring, on the thread that will use it, and registers `eventfd` to be signalled when
    /// there is something to collect.
    ///
    /// Errors: EPERM (sysctl or seccomp), ENOSYS, EINVAL (kernel before 6.1), ENOMEM (memlock), EMFILE.
    pub fn new(eventfd: BorrowedFd<'_>) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(COMPLETION_ENTRIES)
            .build(QUEUE_ENTRIES)?;
        ring.submitter().register_eventfd(eventfd.as_raw_fd())?;
        Ok(Self {
            ring,
            queued: VecDeque::with_capacity(BATCH_MAX),
            staged: Vec::with_capacity(BATCH_MAX),
            pieces: Vec::with_capacity(PIECES_MAX),
            headers: Vec::with_capacity(BATCH_MAX),
            results: Vec::with_capacity(BATCH_MAX),
            finished: 0,
            arrivals: VecDeque::with_capacity(BATCH_MAX),
            timer: Box::new(types::Timespec::new()),
            counts: RingCounts::default(),
        })
    }

    /// Accepts on `listener` until the kernel ends it (kernel 5.19: multishot).
    pub fn arm_accept(&mut self, listener: BorrowedFd<'_>, number: u16) {
        let token = Token { index: u32::from(number), generation: 0 };
        let fd = types::Fd(listener.as_raw_fd());
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let entry = opcode::AcceptMulti::new(fd).flags(flags).build();
        self.queued.push_back(entry.user_data(user_data(TAG_ACCEPT, token)));
    }

    /// Tells of every wake-up with something to read, until it is cancelled (kernel 5.13).
    pub fn arm_lasting_poll(&mut self, socket: &impl AsFd, token: Token) {
        let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
        let entry = opcode::PollAdd::new(types::Fd(socket.as_fd().as_raw_fd()), events).multi(true).build();
        self.queued.push_back(entry.user_data(user_data(TAG_READ_POLL, token)));
    }

    /// Tells once when there is something to read; at once where there is.
    pub fn arm_read_poll(&mut self, socket: &impl AsFd, token: Token) {
        self.arm_poll(socket, libc::POLLIN | libc::POLLRDHUP, user_data(TAG_READ_POLL, token));
    }

    /// Tells once when the peer has ended its side; at once where it has.
    pub fn arm_end_poll(&mut self, socket: &impl AsFd, token: Token) {
        self.arm_poll(socket, libc::POLLRDHUP, user_data(TAG_END_POLL, token));
    }

    /// Tells once when the socket takes bytes again.
    pub fn arm_write_poll(&mut self, socket: &impl AsFd, token: Token) {
        self.arm_poll(socket, libc::POLLOUT, user_data(TAG_WRITE_POLL, token));
    }

    fn arm_poll(&mut self, socket: &impl AsFd, events: libc::c_short, user_data: u64) {
        let fd = types::Fd(socket.as_fd().as_raw_fd());
        let entry = opcode::PollAdd::new(fd, events as u32).build();
        self.queued.push_back(entry.user_data(user_data));
    }

    /// Ends the read poll of a socket that lives on. A socket that is to be closed hangs up: this is slow.
    pub fn cancel_read_poll(&mut self, token: Token) {
        self.cancel(user_data(TAG_READ_POLL, token));
    }

    /// Ends the end poll of a socket that lives on.
    pub fn cancel_end_poll(&mut self, token: Token) {
        self.cancel(user_data(TAG_END_POLL, token));
    }

    /// Ends the write poll of a socket that lives on.
    pub fn cancel_write_poll(&mut self, token: Token) {
        self.cancel(user_data(TAG_WRITE_POLL, token));
    }

    /// Ends accepting on listener `number`: the socket is closed once its descriptor is too.
    pub fn cancel_accept(&mut self, number: u16) {
        let token = Token { index: u32::from(number), generation: 0 };
        let entry = opcode::AsyncCancel::new(user_data(TAG_ACCEPT, token)).build();
        self.queued.push_back(entry.user_data(TAG_IGNORED << 56));
    }

    fn cancel(&mut self, target: u64) {
        let entry = opcode::PollRemove::new(target).build();
        self.queued.push_back(entry.user_data(TAG_IGNORED << 56));
    }

    /// Signals after `after`, once. Several may be armed.
    pub fn arm_timer(&mut self, after: Duration) {
        // The kernel copies the time while it takes the entry, so it must go in alone and now.
        *self.timer = types::Timespec::new().sec(after.as_secs()).nsec(after.subsec_nanos());
        let entry = opcode::Timeout::new(&*self.timer).build().user_data(TAG_TIMER << 56);
        self.queued.push_back(entry);
        self.submit_queued();
    }

    /// What it has done so far.
    pub fn counts(&self) -> RingCounts {
        self.counts
    }

    /// Submits what is queued and takes what has arrived.
    pub fn collect(&mut self) {
        self.submit_queued();
        let due = {
            let queue = self.ring.submission();
            queue.taskrun() || queue.cq_overflow()
        };
        if due {
            self.enter_for_events();
        }
        self.drain();
    }

    /// The next thing that happened, oldest first.
    pub fn arrival(&mut self) -> Option<Arrival<Socket>> {
        self.arrivals.pop_front()
    }

    /// Whether `collect` would find nothing. Call after `signal(true)`, before sleeping.
    pub fn is_quiet(&mut self) -> bool {
        fence(Ordering::SeqCst);
        let due = {
            let queue = self.ring.submission();
            queue.taskrun() || queue.cq_overflow()
        };
        !due && self.arrivals.is_empty() && self.queued.is_empty() && self.ring.completion().is_empty()
    }

    /// Switches the eventfd's signals on (before sleeping) or off (while awake: each completion of a
    /// batch would signal).
    pub fn signal(&mut self, on: bool) {
        let completions = self.ring.completion();
        if on { completions.enable_eventfd() } else { completions.disable_eventfd() }
    }

    /// Receives into each buffer, and gives what each `recv` returned, in order. At most `BATCH_MAX`.
    pub fn receive_all<'b, S: AsFd + 'b>(
        &mut self,
        jobs: impl Iterator<Item = (&'b S, &'b mut [u8])>,
    ) -> impl ExactSizeIterator<Item = io::Result<usize>> + '_ {
        self.staged.clear();
        for (socket, buffer) in jobs {
            let fd = types::Fd(socket.as_fd().as_raw_fd());
            let entry = opcode::Recv::new(fd, buffer.as_mut_ptr(), buffer.len() as u32)
                .flags(libc::MSG_DONTWAIT)
                .build();
            self.stage(entry);
        }
        // SAFETY: each buffer is exclusively borrowed for `'b`, which outlives this call, and
        // `run_staged` returns only when every operation has finished.
        unsafe { self.run_staged() };
        self.results()
    }

    /// Sends each job's pieces, as much as the socket takes, and gives what each `send` returned, in
    /// order. At most `BATCH_MAX` jobs.
    ///
    /// `fill` is called until it gives no more socket; it puts the pieces of one send into `Pieces`.
    pub fn send_all<'b, S: AsFd + 'b>(
        &mut self,
        mut fill: impl FnMut(&mut Pieces<'_, 'b>) -> Option<&'b S>,
    ) -> impl ExactSizeIterator<Item = io::Result<usize>> + '_ {
        self.staged.clear();
        self.pieces.clear();
        self.headers.clear();
        while self.staged.len() < BATCH_MAX && self.pieces.len() + PIECES_PER_SEND_MAX <= PIECES_MAX {
            let start = self.pieces.len();
            let mut pieces = Pieces { pieces: &mut self.pieces, start, bytes: 0, last: None };
            let Some(socket) = fill(&mut pieces) else { break };
            let entry = self.send_entry(types::Fd(socket.as_fd().as_raw_fd()), start);
            self.stage(entry);
        }
        // SAFETY: each piece is borrowed for `'b`, which outlives this call; `pieces` and `headers` have
        // fixed capacity and are not touched until `run_staged` returns, which is when every operation
        // has finished.
        unsafe { self.run_staged() };
        self.results()
    }

    /// Sends to each socket the last that it will be sent, and gives what each `send` returned, in order. At
    /// most `BATCH_MAX`. Nothing leaves before the socket is shut or closed (MSG_MORE, send(2)): last words and
    /// FIN are one segment.
    pub fn send_last<'b, S: AsFd + 'b>(
        &mut self,
        jobs: impl Iterator<Item = (&'b S, &'b [u8])>,
    ) -> impl ExactSizeIterator<Item = io::Result<usize>> + '_ {
        self.staged.clear();
        for (socket, words) in jobs {
            let fd = types::Fd(socket.as_fd().as_raw_fd());
            let entry = opcode::Send::new(fd, words.as_ptr(), words.len() as u32)
                .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_MORE)
                .build();
            self.stage(entry);
        }
        // SAFETY: the words are borrowed for `'b`, which outlives this call, and `run_staged` returns only
        // when every operation has finished.
        unsafe { self.run_staged() };
        self.results()
    }

    fn send_entry(&mut self, fd: types::Fd, start: usize) -> squeue::Entry {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        if let [piece] = self.pieces[start..] {
            return opcode::Send::new(fd, piece.iov_base.cast(), piece.iov_len as u32).flags(flags).build();
        }
        // SAFETY: all-zero is a valid msghdr: no name, no control data, no pieces.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = self.pieces[start..].as_mut_ptr();
        header.msg_iovlen = self.pieces.len() - start;
        assert!(self.headers.len() < self.headers.capacity(), "headers must not move while pointed at");
        self.headers.push(header);
        let header: *const libc::msghdr = &self.headers[self.headers.len() - 1];
        opcode::SendMsg::new(fd, header).flags(flags as u32).build()
    }

    fn stage(&mut self, entry: squeue::Entry) {
        let number = self.staged.len() as u64;
        assert!(self.staged.len() < BATCH_MAX, "a batch holds at most {BATCH_MAX}");
        self.staged.push(entry.user_data(TAG_BATCH << 56 | number));
    }

    /// Submits the staged batch and waits until all of it has finished.
    ///
    /// # Safety
    /// What the staged entries point at must stay valid until this returns.
    unsafe fn run_staged(&mut self) {
        let count = self.staged.len();
        self.results.clear();
        self.results.resize(count, 0);
        self.finished = 0;
        if count == 0 {
            return;
        }
        self.submit_queued();
        // SAFETY: by the caller's promise.
        unsafe { self.ring.submission().push_multiple(&self.staged) }.expect("the queue holds a whole batch");
        self.staged.clear();
        self.submit_all();
        self.drain();
        while self.finished < count && self.ring.submission().cq_overflow() {
            self.enter_for_events();
            self.drain();
        }
        // MSG_DONTWAIT makes the kernel finish each operation inline (io_uring/net.c sets REQ_F_NOWAIT).
        assert_eq!(self.finished, count, "every operation of a batch finishes within its submit");
    }

    fn results(&self) -> impl ExactSizeIterator<Item = io::Result<usize>> + '_ {
        self.results.iter().map(|&result| match result {
            n if n >= 0 => Ok(n as usize),
            errno => Err(io::Error::from_raw_os_error(-errno)),
        })
    }

    fn submit_queued(&mut self) {
        while !self.queued.is_empty() {
            {
                let mut queue = self.ring.submission();
                while !queue.is_full() {
                    let Some(entry) = self.queued.pop_front() else { break };
                    // SAFETY: queued entries point at no memory but `timer`, which is boxed and rewritten
                    // only after the entry that points at it was submitted (`arm_timer`).
                    unsafe { queue.push(&entry) }.expect("checked that the queue is not full");
                }
            }
            self.submit_all();
            self.drain();
        }
    }

    fn submit_all(&mut self) {
        loop {
            let submitted = self.ring.submit();
            self.counts.enters += 1;
            self.counts.submissions += submitted.as_ref().map_or(0, |&taken| taken as u64);
            match submitted {
                Ok(_) if self.ring.submission().is_empty() => return,
                // Fewer taken than offered: the kernel was short of memory for a moment.
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN)) => {
                    self.drain();
                    self.enter_for_events();
                }
                Err(error) => panic!("io_uring_enter failed: {error}"),
            }
            self.drain();
        }
    }

    /// Enters the kernel only to run deferred work and flush overflown completions.
    fn enter_for_events(&mut self) {
        const GETEVENTS: u32 = 1;
        self.counts.enters += 1;
        // SAFETY: submits nothing; no argument is passed.
        match unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, GETEVENTS, None) } {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
            Err(error) => panic!("io_uring_enter failed: {error}"),
        }
    }

    fn drain(&mut self) {
        let Self { ring, results, finished, arrivals, counts, .. } = self;
        for completion in ring.completion() {
            counts.completions += 1;
            let data = completion.user_data();
            if data >> 56 == TAG_BATCH {
                results[data as u32 as usize] = completion.result();
                *finished += 1;
            } else if let Some(arrival) = arrival_of(&completion, data) {
                arrivals.push_back(arrival);
            }
        }
    }
}

/// The eventfd as a file that glommio can read: `read_at(0, 8)` completes once it was signalled.
pub fn alarm(eventfd: OwnedFd) -> glommio::io::BufferedFile {
    use std::os::fd::IntoRawFd;
    // SAFETY: ownership of the descriptor passes to the file; nobody else closes it.
    unsafe { glommio::io::BufferedFile::from_raw_fd(eventfd.into_raw_fd()) }
}

fn arrival_of(completion: &cqueue::Entry, data: u64) -> Option<Arrival<Socket>> {
    let (result, more) = (completion.result(), cqueue::more(completion.flags()));
    let token = token_of(data);
    match data >> 56 {
        TAG_ACCEPT => accept_arrival(token.index as u16, result, more),
        // ECANCELED: our own cancel. A lasting one ends on any error and on overflow.
        TAG_READ_POLL if result == -libc::ECANCELED => None,
        TAG_READ_POLL => {
            let ends = i32::from(libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR);
            Some(Arrival::Readable { token, armed: more, ended: result < 0 || result & ends != 0 })
        }
        TAG_WRITE_POLL | TAG_END_POLL if result == -libc::ECANCELED => None,
        TAG_END_POLL => Some(Arrival::Ended { token }),
        TAG_WRITE_POLL => Some(Arrival::Writable { token }),
        TAG_TIMER => Some(Arrival::Timer),
        _ => None,
    }
}

/// A multishot accept ends with any error, and after a success when the completion queue overflowed.
fn accept_arrival(listener: u16, result: RawFd, more: bool) -> Option<Arrival<Socket>> {
    if result >= 0 {
        // SAFETY: a non-negative result of ACCEPT is a descriptor that nobody else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(result) };
        return Some(Arrival::Accepted { listener, socket: Socket(socket), armed: more });
    }
    if -result == libc::ECANCELED {
        return None;
    }
    Some(Arrival::AcceptFailed { listener, error: io::Error::from_raw_os_error(-result) })
}

/// Collects the pieces of one send.
pub struct Pieces<'r, 'b> {
    pieces: &'r mut Vec<libc::iovec>,
    start: usize,
    bytes: usize,
    last: Option<&'b [u8]>,
}

impl<'b> Pieces<'_, 'b> {
    /// Adds one piece; false (and nothing added) when this send can hold no more.
    pub fn push(&mut self, piece: &'b [u8]) -> bool {
        if self.pieces.len() - self.start >= PIECES_PER_SEND_MAX {
            return false;
        }
        self.bytes += piece.len();
        self.last = Some(piece);
        self.pieces.push(libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() });
        true
    }

    /// The piece added last to this send.
    pub fn last(&self) -> Option<&'b [u8]> {
        self.last
    }

    /// Bytes gathered so far in this send.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
