//! A ring without a kernel: clients, their sockets and everything that can go wrong with them, from one seed.
//!
//! For tests: takes the place of `kernel` under the feature `simulation`. All rings and sockets of a thread
//! live in one world, and its clients are the thread's other functions (`connect`, `Far`). What a kernel
//! may do and seldom does happens all the time: short sends and receives, wake-ups that come late, in another
//! order or after a cancel, polls and accepts that end, errors that pass and errors that do not. Nothing
//! happens that a kernel would not do: who waits for a wake-up gets one.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::{Arrival, BATCH_MAX, PIECES_PER_SEND_MAX, RingCounts, TcpInfo, Token};

/// Errors of sending that pass.
const PASSING: [i32; 4] = [libc::EAGAIN, libc::EINTR, libc::ENOBUFS, libc::ENOMEM];
const BROKEN: [i32; 2] = [libc::EPIPE, libc::ECONNRESET];
const NOT_ACCEPTED: [i32; 5] = [libc::EMFILE, libc::ENFILE, libc::ECONNABORTED, libc::ENOBUFS, libc::ENOMEM];

/// Where chance comes from.
#[derive(Debug)]
pub enum Dice {
    /// A seed.
    Seed(u64),
    /// A fuzzer's octets; behind them everything goes well.
    Octets(VecDeque<u8>),
}

impl Dice {
    /// A number below `range`; 0 when the octets are used up.
    pub fn below(&mut self, range: u32) -> u32 {
        let roll = match self {
            Self::Seed(state) => {
                // SplitMix64 (Steele, Lea, Flood 2014).
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                (mixed >> 33) as u32
            }
            Self::Octets(octets) if range <= 256 => octets.pop_front().unwrap_or(0).into(),
            Self::Octets(octets) => {
                (0..4).fold(0, |roll, _| roll << 8 | u32::from(octets.pop_front().unwrap_or(0)))
            }
        };
        roll % range.max(1)
    }

    /// Once in `range` times; never when the octets are used up.
    pub fn once_in(&mut self, range: u32) -> bool {
        self.below(range) + 1 == range
    }
}

/// One connection, seen by the kernel.
#[derive(Debug, Default)]
struct Line {
    /// Sent by the client and not received yet.
    inbound: VecDeque<u8>,
    /// The client has ended its side behind that.
    ended: bool,
    reset: bool,
    /// Taken from the gateway and not looked at yet by the client.
    outbound: Vec<u8>,
    /// Octets that are still taken before the client reads.
    room: usize,
    /// The gateway has ended its side, or let go.
    over: bool,
    closed: bool,
    /// A wake-up that was not told yet.
    news: bool,
    read_poll: Option<(usize, Token)>,
    end_poll: Option<(usize, Token)>,
    write_poll: Option<(usize, Token)>,
}

/// What a ring has armed beside polls.
#[derive(Debug, Default)]
struct Accepting {
    armed: bool,
    waiting: VecDeque<u32>,
    /// Told although they were cancelled, or because their socket hung up.
    late: Vec<Arrival>,
}

#[derive(Debug)]
struct World {
    dice: Dice,
    calm: bool,
    lines: Vec<Line>,
    rings: Vec<Accepting>,
}

thread_local! {
    static WORLD: RefCell<World> =
        const { RefCell::new(World { dice: Dice::Seed(0), calm: true, lines: Vec::new(), rings: Vec::new() }) };
}

fn world<T>(act: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(act)
}

/// Begins anew: no ring, no socket. Rings are numbered from 0 as they are made.
pub fn start(dice: Dice) {
    world(|world| *world = World { dice, calm: false, lines: Vec::new(), rings: Vec::new() });
}

/// Draws a number below `range`.
pub fn below(range: u32) -> u32 {
    world(|world| world.dice.below(range))
}

/// From now on nothing goes wrong, or anything may again.
pub fn calm(calm: bool) {
    world(|world| world.calm = calm);
}

/// Sockets that the gateway holds, and polls that are armed on any.
pub fn held() -> (usize, usize) {
    world(|world| {
        let waiting: usize = world.rings.iter().map(|ring| ring.waiting.len()).sum();
        let open = world.lines.iter().filter(|line| !line.closed).count();
        let armed = |line: &Line| [line.read_poll, line.end_poll, line.write_poll].iter().flatten().count();
        let polls = world.lines.iter().map(armed);
        (open - waiting, polls.sum())
    })
}

/// The client's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Far(u32);

/// Connects to ring `number`, whose kernel takes `room` octets before the client reads.
pub fn connect(number: usize, room: usize) -> Far {
    world(|world| {
        world.lines.push(Line { room, ..Line::default() });
        let id = world.lines.len() as u32 - 1;
        world.rings[number].waiting.push_back(id);
        Far(id)
    })
}

impl Far {
    fn line<T>(self, act: impl FnOnce(&mut Line) -> T) -> T {
        world(|world| act(&mut world.lines[self.0 as usize]))
    }

    /// Sends.
    pub fn write(self, octets: &[u8]) {
        self.line(|line| {
            if !line.ended && !line.reset {
                line.inbound.extend(octets);
                line.news = true;
            }
        });
    }

    /// Ends this side (FIN).
    pub fn end(self) {
        self.line(|line| (line.ended, line.news) = (true, true));
    }

    /// Breaks off (RST): what was sent and not received is lost.
    pub fn reset(self) {
        self.line(|line| {
            (line.reset, line.news) = (true, true);
            line.inbound.clear();
        });
    }

    /// What the kernel has taken from the gateway since the last call. That it was looked at makes no room.
    pub fn taken(self) -> Vec<u8> {
        self.line(|line| std::mem::take(&mut line.outbound))
    }

    /// Reads: the kernel takes so many octets more, up to `most` in all.
    pub fn read(self, octets: usize, most: usize) {
        self.line(|line| line.room = (line.room + octets).min(most));
    }

    /// Whether the gateway has ended the connection.
    pub fn is_over(self) -> bool {
        self.line(|line| line.over)
    }
}

/// A client's socket, as the gateway holds it. Closed when it is dropped.
#[derive(Debug)]
pub struct Socket(std::num::NonZeroU32);

impl Socket {
    fn new(id: u32) -> Self {
        Self(std::num::NonZeroU32::new(id + 1).expect("not 0"))
    }

    fn id(&self) -> usize {
        self.0.get() as usize - 1
    }

    /// The peer's address: four clients share one.
    pub fn peer(&self) -> Option<SocketAddr> {
        let id = self.id() as u32;
        Some((Ipv4Addr::from(0x0a00_0000 + id / 4), 1024 + id as u16 % 4).into())
    }

    /// Ends our side behind what was sent.
    pub fn end(&self) {
        world(|world| world.lines[self.id()].over = true);
    }

    /// Ends both sides, so that every poll that is armed on it tells, and lets it go.
    pub fn hang_up(&self) {
        world(|world| {
            let World { lines, rings, .. } = world;
            let line = &mut lines[self.id()];
            line.over = true;
            if let Some((ring, token)) = line.read_poll.take() {
                rings[ring].late.push(Arrival::Readable { token, armed: false, ended: true });
            }
            if let Some((ring, token)) = line.end_poll.take() {
                rings[ring].late.push(Arrival::Ended { token });
            }
            if let Some((ring, token)) = line.write_poll.take() {
                rings[ring].late.push(Arrival::Writable { token });
            }
        });
    }

    /// What a kernel would know: nothing here but whether the client takes more.
    pub fn info(&self) -> TcpInfo {
        let closed = world(|world| world.lines[self.id()].room == 0);
        TcpInfo { unsent_bytes: closed.into(), window_bytes: u32::from(!closed), ..TcpInfo::default() }
    }

    /// Nothing waits: what is taken is with the client.
    pub fn send_queue_bytes(&self) -> u32 {
        0
    }

    /// The close is a reset, which clients here see as any other end.
    pub fn forsake(&self) {}
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A world that has begun anew, or a thread that ends, knows it no more.
        let _ = WORLD.try_with(|world| {
            if let Ok(mut world) = world.try_borrow_mut()
                && let Some(line) = world.lines.get_mut(self.id())
            {
                (line.over, line.closed) = (true, true);
            }
        });
    }
}

/// One shard's ring.
#[derive(Debug)]
pub struct Ring {
    number: usize,
    arrivals: VecDeque<Arrival>,
    results: Vec<Result<usize, i32>>,
    counts: RingCounts,
}

impl Ring {
    /// The next ring of this thread's world. Never fails.
    pub fn new(_eventfd: BorrowedFd<'_>) -> io::Result<Self> {
        let number = world(|world| {
            world.rings.push(Accepting::default());
            world.rings.len() - 1
        });
        Ok(Self { number, arrivals: VecDeque::new(), results: Vec::new(), counts: RingCounts::default() })
    }

    /// Accepts until it ends.
    pub fn arm_accept(&mut self, _listener: BorrowedFd<'_>, _number: u16) {
        world(|world| {
            let ring = &mut world.rings[self.number];
            assert!(!ring.armed, "accepting is armed once");
            ring.armed = true;
        });
    }

    /// Tells once when there is something to read; at once where there is.
    pub fn arm_read_poll(&mut self, socket: &Socket, token: Token) {
        world(|world| {
            let line = &mut world.lines[socket.id()];
            assert!(line.read_poll.is_none(), "one read poll for a socket");
            line.read_poll = Some((self.number, token));
            line.news = !line.inbound.is_empty() || line.ended || line.reset;
        });
    }

    /// Tells once when the peer has ended its side; at once where it has.
    pub fn arm_end_poll(&mut self, socket: &Socket, token: Token) {
        world(|world| {
            let line = &mut world.lines[socket.id()];
            assert!(line.end_poll.is_none(), "one end poll for a socket");
            line.end_poll = Some((self.number, token));
        });
    }

    /// Tells once when the socket takes octets again.
    pub fn arm_write_poll(&mut self, socket: &Socket, token: Token) {
        world(|world| {
            let line = &mut world.lines[socket.id()];
            assert!(line.write_poll.is_none(), "one write poll for a socket");
            line.write_poll = Some((self.number, token));
        });
    }

    /// Ends the end poll. It may have told already.
    pub fn cancel_end_poll(&mut self, token: Token) {
        self.cancel(|line| &mut line.end_poll, token, Arrival::Ended { token });
    }

    /// Ends the read poll. It may have told already.
    pub fn cancel_read_poll(&mut self, token: Token) {
        let late = Arrival::Readable { token, armed: false, ended: false };
        self.cancel(|line| &mut line.read_poll, token, late);
    }

    /// Ends the write poll. It may have told already.
    pub fn cancel_write_poll(&mut self, token: Token) {
        self.cancel(|line| &mut line.write_poll, token, Arrival::Writable { token });
    }

    fn cancel(
        &mut self,
        poll: impl Fn(&mut Line) -> &mut Option<(usize, Token)>,
        token: Token,
        late: Arrival,
    ) {
        world(|world| {
            for line in &mut world.lines {
                poll(line).take_if(|armed| *armed == (self.number, token));
            }
            if !world.calm && world.dice.once_in(4) {
                world.rings[self.number].late.push(late);
            }
        });
    }

    /// Ends accepting.
    pub fn cancel_accept(&mut self, _number: u16) {
        world(|world| world.rings[self.number].armed = false);
    }

    /// Turns are taken by hand, at whatever time: nobody is woken.
    pub fn arm_timer(&mut self, _after: Duration) {}

    /// Takes what has arrived.
    pub fn collect(&mut self) {
        world(|world| {
            world.accept(self.number, &mut self.arrivals);
            let mut told = std::mem::take(&mut world.rings[self.number].late);
            world.tell(self.number, &mut told);
            // The polls of different sockets complete in any order.
            while !told.is_empty() {
                let next = world.dice.below(told.len() as u32) as usize;
                self.arrivals.push_back(told.swap_remove(next));
            }
        });
    }

    /// What it has done so far: of batches, what it was given, as all of it completes.
    pub fn counts(&self) -> RingCounts {
        self.counts
    }

    /// The next thing that happened.
    pub fn arrival(&mut self) -> Option<Arrival> {
        self.arrivals.pop_front()
    }

    /// Never: nobody sleeps.
    pub fn is_quiet(&mut self) -> bool {
        false
    }

    /// Nobody sleeps.
    pub fn signal(&mut self, _on: bool) {}

    /// Receives into each buffer, and gives what each receive returned, in order. At most `BATCH_MAX`.
    pub fn receive_all<'b>(
        &mut self,
        jobs: impl Iterator<Item = (&'b Socket, &'b mut [u8])>,
    ) -> impl ExactSizeIterator<Item = io::Result<usize>> + '_ {
        self.results.clear();
        for (socket, buffer) in jobs {
            self.results.push(world(|world| world.receive(socket.id(), buffer)));
        }
        assert!(self.results.len() <= BATCH_MAX, "a batch holds at most {BATCH_MAX}");
        self.count_batch();
        self.results()
    }

    /// Sends each job's pieces, and gives what each send returned, in order: as `kernel::Ring::send_all`, but a
    /// batch may end early.
    pub fn send_all<'b>(
        &mut self,
        mut fill: impl FnMut(&mut Pieces<'_, 'b>) -> Option<&'b Socket>,
    ) -> impl ExactSizeIterator<Item = io::Result<usize>> + '_ {
        self.results.clear();
        while self.results.len() < BATCH_MAX {
            if !self.results.is_empty() && world(|world| !world.calm && world.dice.once_in(32)) {
                break;
            }
            let mut pieces = Pieces { pieces: Vec::new(), bytes: 0, ring: PhantomData };
            let Some(socket) = fill(&mut pieces) else { break };
            self.results.push(world(|world| world.send(socket.id(), &pieces.pieces)));
        }
        self.count_batch();
        self.results()
    }

    /// Sends to each socket the last that it will be sent: as `kernel::Ring::send_last`.
    pub fn send_last<'b>(
        &mut self,
        jobs: impl Iterator<Item = (&'b Socket, &'b [u8])>,
    ) -> impl ExactSizeIterator<Item = io::Result<usize>> + '_ {
        self.results.clear();
        for (socket, words) in jobs {
            self.results.push(world(|world| world.send(socket.id(), &[words])));
        }
        self.count_batch();
        self.results()
    }

    fn count_batch(&mut self) {
        let operations = self.results.len() as u64;
        self.counts.submissions += operations;
        self.counts.completions += operations;
        self.counts.enters += 1;
    }

    fn results(&self) -> impl ExactSizeIterator<Item = io::Result<usize>> + '_ {
        self.results.iter().map(|result| result.map_err(io::Error::from_raw_os_error))
    }
}

impl World {
    fn accept(&mut self, number: usize, arrivals: &mut VecDeque<Arrival>) {
        let Self { dice, calm, rings, .. } = self;
        let ring = &mut rings[number];
        while ring.armed && !ring.waiting.is_empty() {
            if !*calm && dice.once_in(16) {
                ring.armed = false;
                let error = io::Error::from_raw_os_error(NOT_ACCEPTED[dice.below(5) as usize]);
                return arrivals.push_back(Arrival::AcceptFailed { listener: 0, error });
            }
            let id = ring.waiting.pop_front().expect("looked for above");
            ring.armed = *calm || !dice.once_in(8);
            arrivals.push_back(Arrival::Accepted { listener: 0, socket: Socket::new(id), armed: ring.armed });
        }
    }

    fn tell(&mut self, number: usize, told: &mut Vec<Arrival>) {
        let Self { dice, calm, lines, .. } = self;
        for line in lines.iter_mut().filter(|line| !line.closed) {
            if let Some((_, token)) = line.read_poll.filter(|(ring, _)| *ring == number && line.news)
                && (*calm || !dice.once_in(3))
            {
                line.news = false;
                line.read_poll = None;
                told.push(Arrival::Readable { token, armed: false, ended: line.ended || line.reset });
            }
            let over = line.ended || line.reset;
            if let Some((_, token)) = line.end_poll.filter(|(ring, _)| *ring == number && over)
                && (*calm || !dice.once_in(3))
            {
                line.end_poll = None;
                told.push(Arrival::Ended { token });
            }
            let takes = line.room > 0 || line.reset;
            if let Some((_, token)) = line.write_poll.filter(|(ring, _)| *ring == number && takes)
                && (*calm || !dice.once_in(2))
            {
                line.write_poll = None;
                told.push(Arrival::Writable { token });
            }
        }
    }

    fn receive(&mut self, id: usize, buffer: &mut [u8]) -> Result<usize, i32> {
        let Self { dice, calm, lines, .. } = self;
        let line = &mut lines[id];
        if line.reset {
            return Err(libc::ECONNRESET);
        }
        if line.inbound.is_empty() {
            return if line.ended { Ok(0) } else { Err(libc::EAGAIN) };
        }
        let mut count = buffer.len().min(line.inbound.len());
        if !*calm && dice.once_in(4) {
            // The rest came a moment later, and with a wake-up of its own.
            count = 1 + dice.below(count as u32) as usize;
            line.news = true;
        }
        line.inbound.drain(..count).zip(buffer).for_each(|(octet, place)| *place = octet);
        Ok(count)
    }

    fn send(&mut self, id: usize, pieces: &[&[u8]]) -> Result<usize, i32> {
        let Self { dice, calm, lines, .. } = self;
        let line = &mut lines[id];
        assert!(!line.over, "nothing is sent behind the end");
        if line.reset {
            return Err(BROKEN[dice.below(2) as usize]);
        }
        if !*calm && dice.once_in(16) {
            return Err(PASSING[dice.below(4) as usize]);
        }
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut count = bytes.min(line.room);
        if count == 0 {
            return Err(libc::EAGAIN);
        }
        if !*calm && dice.once_in(6) {
            count = 1 + dice.below(count as u32) as usize;
        }
        line.room -= count;
        line.outbound.extend(pieces.iter().copied().flatten().take(count));
        Ok(count)
    }
}

/// Collects the pieces of one send.
#[derive(Debug)]
pub struct Pieces<'r, 'b> {
    pieces: Vec<&'b [u8]>,
    bytes: usize,
    ring: PhantomData<&'r ()>,
}

impl<'b> Pieces<'_, 'b> {
    /// Adds one piece; false (and nothing added) when this send can hold no more.
    pub fn push(&mut self, piece: &'b [u8]) -> bool {
        if self.pieces.len() >= PIECES_PER_SEND_MAX {
            return false;
        }
        self.bytes += piece.len();
        self.pieces.push(piece);
        true
    }

    /// The piece added last to this send.
    pub fn last(&self) -> Option<&'b [u8]> {
        self.pieces.last().copied()
    }

    /// Octets gathered so far in this send.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
