//! Corecast, a push gateway for Linux: the map of the code.
//!
//! ```text
//!            clients                                            local programs, CLI
//!               │ TCP                                                │ Unix socket
//!   ┌───────────▼───────────┐  one per core, pinned      ┌───────────▼──────────┐
//!   │ shard 0..N-1          │  glommio executor          │ control              │  unpinned
//!   │  listener REUSEPORT   │                            │  parse, authorise    │
//!   │  ring (ours)          │◄── Letter ──── mailbox ────│  sequencer           │
//!   │  connections, users,  │      (flume, bounded)      │  replies, events     │
//!   │  topics, tape, clock  │─── Report ────────────────►│                      │
//!   └───────────────────────┘                            └──────────────────────┘
//! ```
//!
//! A push comes in at `control::peer`, is checked by `control::push`, gets its position from
//! `control::sequencer` and goes as one `Letter` to each shard concerned. There `shard::delivery` puts it on
//! the tape and marks the connections it is for; `shard::sending` writes to all of them in batches. How many
//! there were comes back as a `Report`, and `control` answers.
//!
//! # Rooms
//!
//! Each sees only rooms below it, and `control` sees of `shard` only its mailbox (`tests/tidy.rs`).
//!
//! | room | what it does |
//! |---|---|
//! | [`cli`] | the command line; asks a running gateway through `client` |
//! | [`gateway`] | starts shards and control, hears signals, reloads, waits for the end |
//! | [`client`] | the Rust client of the control socket, blocking |
//! | [`control`] | the control socket, both its protocols, the admin listener, and the one sequencer of all pushes |
//! | [`shard`] | one core: its clients, who they are, what they subscribed to, the tape, the loop |
//! | [`ring`] | io_uring in batches, the sockets of clients, and both simulated for tests; the only `unsafe` |
//! | [`auth`] | who a client is: tokens and their keys, tickets, the topics that they allow |
//! | [`wire`] | the protocols of clients as pure machines: HTTP, WebSocket, `corecast.v1`, event streams, polls |
//! | [`service`] | systemd: what it is told, what it asked for, the sockets it keeps |
//! | [`host`] | what the machine gives, what a number of connections needs, and the kernel settings for it |
//! | [`fatal`] | what can be wrong with the machine at start, with exit statuses and what to type |
//! | [`config`] | the one typed configuration: file, variables, flags, bounds |
//! | [`connections`] | what may be asked about connections, and what is told of them |
//! | [`message`] | the words that everybody shares: users, topics, positions, messages |
//! | [`stats`] | the counters, and the reasons why connections end |
//!
//! # Rules
//!
//! Comments cite them by number (`Rule 3`).
//!
//! 1. `wire` does no I/O and reads no clock: bytes and ticks in, events and bytes out. The same input split
//!    anywhere gives the same output.
//! 2. Only the ring touches client sockets; only `control` touches the control socket.
//! 3. Every queue, table and buffer has a limit in the configuration and a named outcome when it is reached.
//!    A shard never waits for another: a full mailbox is answered `busy` to the pusher, and nothing of that
//!    push was delivered anywhere.
//! 4. Messages are encoded at most once per form per shard, as long as there is room to keep what was
//!    encoded (`history.bytes`).
//! 5. A connection ends with exactly one `CloseReason`; accepted = open + the sum of closed by reason, in
//!    the metrics, always.
//! 6. No byte from a peer can panic the process. `assert!` is for our own mistakes; a panic anywhere ends
//!    the process (systemd restarts it) rather than leaving a core dead.
//! 7. A `ConnId` carries a generation: a stale one finds nobody.
//! 8. A million misbehaving clients must not write a million log lines: count always, log the first and the
//!    rate.
//! 9. Configuration is parsed into types once, at the edge.
//! 10. A message that is due to a connection becomes exactly one of delivered, expired or dropped for a
//!     reason: handed + replayed = delivered + expired + dropped + pending, in the metrics, always ([`stats`]).
//!
//! # Where to start reading
//!
//! `Shard::run` in `shard/mod.rs` is the loop, on one screen; `shard/conn.rs` is what a connection is, and
//! `shard/tape.rs` what it reads from. For a client's first bytes begin at `shard/opening.rs`, for a push at
//! `control/sequencer.rs`.
//!
//! # Where this departs from the design
//!
//! - [`ring`] is a room of its own and not a file of `shard`: control sleeps on a ring too
//!   (`control::poller`), and must see nothing of `shard` but its mailbox.
//! - There is no timer wheel. Deadlines are looked at by the clock sweep that sends heartbeats anyway
//!   (`shard::clock`): one mechanism instead of two, and nothing to allocate, arm or cancel per deadline. They
//!   are never early, and late by at most an eighth of the shortest timeout, at most 1.25 s. The ends of tokens
//!   are due to the second: only those who have one are kept in the order of their ends (`shard::grants`).
pub mod auth;
pub mod cli;
pub mod client;
pub mod config;
pub mod connections;
pub mod control;
pub mod fatal;
pub mod gateway;
pub mod host;
pub mod message;
pub mod ring;
pub mod service;
pub mod shard;
pub mod stats;
pub mod wire;
