//! io_uring in batches, and the sockets of clients: nobody else touches them (Rule 2).
//!
//! `kernel` is the real one, and the only `unsafe` of the program. Under the feature `simulation`, for tests,
//! `simulated` takes its place before the shards. Never decides anything; `shard` does.

pub mod kernel;
#[cfg(feature = "simulation")]
pub mod simulated;

use std::io;

pub use kernel::alarm;
#[cfg(not(feature = "simulation"))]
pub use kernel::{Pieces, Ring, Socket};
#[cfg(feature = "simulation")]
pub use simulated::{Pieces, Ring, Socket};

/// Most operations in one batch. Measured with a broadcast to 10,000, CPU against `send()` in a loop: 32 give
/// 0.98, 256 0.94, 512 and 1,024 0.77 to 0.90.
pub const BATCH_MAX: usize = 512;
/// Most pieces of memory gathered in one batch of sends.
pub const PIECES_MAX: usize = 16_384;
/// Most pieces in one send (UIO_MAXIOV).
pub const PIECES_PER_SEND_MAX: usize = 1024;

/// What a ring has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounts {
    /// Operations that the kernel has taken.
    pub submissions: u64,
    /// Completions taken from the kernel; a multishot operation has many.
    pub completions: u64,
    /// System calls (`io_uring_enter`).
    pub enters: u64,
}

/// What the ring is told about a slot and says back: index and the low 24 bits of its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The slot.
    pub index: u32,
    /// Its generation; only the low 24 bits travel.
    pub generation: u32,
}

/// What the kernel knows of a connection: TCP_INFO (tcp(7), `struct tcp_info` of linux/tcp.h).
///
/// A handful of loads in the kernel, but a system call: for a few connections at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Milliseconds since octets last came, by the kernel's tick (1 to 10 ms). The end of the handshake counts as
    /// such; acknowledgements and keep-alive probes do not.
    pub idle_ms: u32,
    /// Smoothed round trip time, in microseconds.
    pub rtt_us: u32,
    /// Its mean deviation, in microseconds.
    pub rtt_var_us: u32,
    /// Segments sent more than once, since the connection began.
    pub retransmits: u32,
    /// Octets sent and acknowledged. The end of our side counts as one.
    pub bytes_acked: u64,
    /// Octets that came in order. The end of the peer's side counts as one.
    pub bytes_received: u64,
    /// Octets in the send queue that have not been sent once.
    pub unsent_bytes: u32,
    /// Segments that were sent and are not acknowledged.
    pub unacked: u32,
    /// Octets that the peer said it has room for.
    pub window_bytes: u32,
    /// How often in a row nothing was acknowledged in time: segments sent again, or probes of a closed window.
    pub unanswered: u8,
}

/// What happened outside a batch.
#[derive(Debug)]
pub enum Arrival<S = Socket> {
    /// A client connected to listener `listener`.
    Accepted {
        /// As given to `arm_accept`.
        listener: u16,
        /// The client's socket.
        socket: S,
        /// Whether accepting goes on; else `arm_accept` is needed again.
        armed: bool,
    },
    /// Accepting failed; `arm_accept` is needed again.
    AcceptFailed {
        /// As given to `arm_accept`.
        listener: u16,
        /// Why: EMFILE, ENFILE, ECONNABORTED, ENOBUFS and the like.
        error: io::Error,
    },
    /// There is something to receive, or the peer has gone. `armed` is false when the poll has ended
    /// and must be armed again.
    Readable {
        /// Whose.
        token: Token,
        /// Whether the poll goes on.
        armed: bool,
        /// The peer has ended its side, or the socket is broken: behind what there is to receive comes
        /// the end, and no further arrival tells of it.
        ended: bool,
    },
    /// The peer has ended its side, or the socket is broken: what `arm_end_poll` waits for.
    Ended {
        /// Whose.
        token: Token,
    },
    /// The socket takes bytes again.
    Writable {
        /// Whose.
        token: Token,
    },
    /// The timer fired.
    Timer,
}

/// Low bits of a generation that fit beside the tag.
pub const GENERATION_MASK: u32 = 0x00ff_ffff;
