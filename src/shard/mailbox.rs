//! How control reaches a shard, shards reach each other, and a shard answers.
//!
//! Bounded everywhere (Rule 3). Control is the only sender of letters, so that "there is room on
//! every shard" stays true until it has posted to all of them: a push is accepted whole or not at all.
//! A sleeping shard is woken through the same eventfd that its ring signals.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Settings;
use super::counts::Counts;
pub use super::happenings::{Event, Happening, Party, REFUSED_PER_SECOND, SLOW_PART, event_mask};
pub use super::steps::{Act, Step, TraceId, Traced};

use crate::auth::Tickets;
use crate::connections::{Detail, Found, ListingStep};
use crate::message::{ConnId, Message, Topic, UserId, borrowed};
use crate::ring::Socket;
use crate::stats::ShardStats;
use crate::wire::origin::Origins;
use crate::wire::session::Opening;

/// Joins the answers of several shards to the command that asked; given by control.
pub type Inquiry = u64;

/// From control to one shard.
#[derive(Debug)]
pub enum Letter {
    /// Deliver this; answered by `Reply::Delivered`.
    Push {
        /// Joins the reply.
        inquiry: Inquiry,
        /// What to deliver; positions ascend from letter to letter.
        message: Arc<Message>,
    },
    /// Do or tell this; answered by the reply named at each request.
    Ask {
        /// Joins the reply.
        inquiry: Inquiry,
        /// What is asked.
        request: Request,
    },
}

/// What control asks of a shard.
#[derive(Clone, Debug)]
pub enum Request {
    /// The user's connections, to the owner: `Reply::Presence`.
    Presence(UserId),
    /// Close all connections of the user, to the owner: `Reply::Closed`.
    KickUser {
        /// Whose.
        user: UserId,
        /// WebSocket close code: 1000 or 4000 to 4999.
        code: u16,
        /// At most 123 bytes.
        reason: String,
    },
    /// Close one connection: `Reply::Closed`.
    KickConnection {
        /// Which.
        connection: ConnId,
        /// WebSocket close code: 1000 or 4000 to 4999.
        code: u16,
        /// At most 123 bytes.
        reason: String,
    },
    /// Subscribe all of the user's present connections, to the owner: `Reply::Bound`.
    Bind {
        /// Whose.
        user: UserId,
        /// To what.
        topic: Topic,
    },
    /// The opposite of `Bind`: `Reply::Bound`.
    Unbind {
        /// Whose.
        user: UserId,
        /// From what.
        topic: Topic,
    },
    /// Look at some topics, to list them: `Reply::TopicsFound`.
    Topics(TopicsStep),
    /// One topic, present or not: `Reply::Topic`.
    Topic(Topic),
    /// `Reply::Stats`.
    Stats,
    /// Refuse new clients and tell the present ones to come back, spread over `within_ms`:
    /// `Reply::Done` at once; progress is seen in `ShardStats::connections`.
    Drain {
        /// Over how long, in milliseconds.
        within_ms: u64,
    },
    /// Go on with these settings: `Reply::Done`.
    Adopt(Arc<Settings>),
    /// Close everything and end the shard: `Reply::Done`, then the thread ends.
    Stop,
    /// Tell everything about somebody from now on: `Reply::Traced`, then `Report::Step`.
    Trace {
        /// What the steps are told under.
        trace: TraceId,
        /// About whom.
        of: Traced,
        /// What times are counted from.
        begun: Instant,
    },
    /// Tell no more of it: `Reply::Done`.
    EndTrace(TraceId),
    /// Look at some connections, to list them: `Reply::Found`.
    Look(ListingStep),
    /// Everything about one connection: `Reply::Detail`.
    Detail(ConnId),
}

/// A shard's answer to one letter.
#[derive(Clone, Debug)]
pub enum Reply {
    /// How many live connections the message was handed to here.
    Delivered(u32),
    /// The user's connections here.
    Presence(Vec<Presence>),
    /// How many connections were closed.
    Closed(u32),
    /// How many connections were bound or unbound.
    Bound(u32),
    /// One topic and its subscribers here; `None` where it is not known.
    Topic(Option<TopicCount>),
    /// Topics, and where the look goes on.
    TopicsFound(TopicsFound),
    /// A snapshot of the counters.
    Stats(Box<ShardStats>),
    /// Nothing to tell.
    Done,
    /// The connections here that are traced now.
    Traced(Vec<ConnId>),
    /// Connections, and where the look goes on.
    Found(Found),
    /// One connection, unless nobody has that id.
    Detail(Option<Box<Detail>>),
}

/// One live connection as `who` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Presence {
    /// The connection.
    pub id: ConnId,
    /// `ws`, `sse`, `poll` or `echo`.
    #[serde(deserialize_with = "borrowed::text")]
    pub transport: String,
    /// `ip:port` of the peer.
    #[serde(deserialize_with = "borrowed::text")]
    pub remote: String,
    /// Unix time in milliseconds.
    pub connected_at: u64,
    /// What it is subscribed to.
    pub topics: Vec<Topic>,
}

/// A topic's subscribers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TopicCount {
    /// The topic.
    pub topic: Topic,
    /// Connections subscribed now.
    pub connections: u64,
    /// Seq of the newest message held for it, 0 where none is.
    pub seq: u64,
    /// Pushes to it since the shard has known it, wrapping.
    pub pushes: u32,
}

/// One step of a list of topics: what is asked of a shard.
#[derive(Clone, Debug, Default)]
pub struct TopicsStep {
    /// Where to go on: `TopicsFound::next` of the step before, at first 0.
    pub from: u32,
    /// Only those behind this name.
    pub after: Option<Topic>,
    /// Nobody wants what comes behind this name.
    pub bound: Option<Topic>,
}

/// What a step found.
#[derive(Clone, Debug)]
pub struct TopicsFound {
    /// Those with a subscriber, in no order.
    pub topics: Vec<TopicCount>,
    /// Where the look goes on; `None` where it has seen all.
    pub next: Option<u32>,
}

/// From a shard to control.
#[derive(Debug)]
pub enum Report {
    /// The answer to a letter.
    Reply {
        /// Of that letter.
        inquiry: Inquiry,
        /// What it answers.
        reply: Reply,
    },
    /// Something a listener of `/v1/events` may want to know.
    Event(Event),
    /// So many events were lost here, because control did not take them in time.
    EventsLost(u64),
    /// One line of a trace.
    Step(Step),
    /// So many lines of a trace were lost here, because control did not take them in time.
    StepsLost {
        /// Of which.
        trace: TraceId,
        /// How many.
        count: u64,
    },
    /// The shard has ended after `Request::Stop`.
    Stopped,
}

/// Tells which shard a user lives on: `hash(user) mod shards`.
///
/// The keys of the hash are chosen at start, so that nobody outside can aim users at one shard; all
/// clones share them and agree.
#[derive(Clone, Debug)]
pub struct Owner {
    keys: RandomState,
    shards: u16,
}

impl Owner {
    /// Among `shards` shards, at least 1.
    pub fn new(shards: u16) -> Self {
        assert!(shards > 0, "a gateway has a shard");
        Self { keys: RandomState::new(), shards }
    }

    /// The shard that owns `user`.
    pub fn shard_of(&self, user: &UserId) -> u16 {
        (self.keys.hash_one(user) % u64::from(self.shards)) as u16
    }
}

/// A connection on its way to the shard that owns its user.
#[derive(Debug)]
pub struct Handover {
    /// The socket; nothing is armed on it any more.
    pub socket: Socket,
    /// The validated request.
    pub opening: Opening,
    /// The list that `opening.origin` is a number of.
    pub origins: Origins,
    /// Bytes already read behind the request head.
    pub unread: Vec<u8>,
    /// The client's address, where one was kept.
    pub address: Option<SocketAddr>,
    /// Bits of `flag::OF_LISTENER`.
    pub flags: u32,
}

/// The few words that all shards and control share; written rarely, read without waiting.
#[derive(Debug, Default)]
pub struct Gate {
    /// Newest seq given out, stored before the message is posted.
    pub last_seq: AtomicU64,
    /// New clients are refused with `draining`.
    pub draining: AtomicBool,
    /// Memory in use and its limit when it was last looked at, in bytes; 0 where nothing limits it.
    pub memory_used_bytes: AtomicU64,
    /// See `memory_used_bytes`.
    pub memory_limit_bytes: AtomicU64,
    /// New clients are refused with `overloaded`: memory is short.
    pub memory_short: AtomicBool,
    /// How often the shards were told to cut those furthest behind, and how many bytes they are to free by it,
    /// all together. The bytes are stored first.
    pub cuts_told: AtomicU64,
    /// See `cuts_told`.
    pub cut_bytes: AtomicU64,
    /// Established clients over all shards, against `limits.connections`.
    pub established: AtomicU64,
    /// Client sockets open over all shards, handshakes included.
    pub sockets: AtomicU64,
    /// Which events anybody listens for (`event_mask`).
    pub events_wanted: AtomicU64,
    /// Tickets that wait to be used; touched only with `auth.mode = "ticket"`.
    pub tickets: std::sync::Mutex<Tickets>,
    /// What is counted by address: see `counts`, which alone touches it.
    pub(super) addresses: std::sync::Mutex<Counts>,
}

/// Why a letter was not taken: the shard's mailbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The sending side of one shard's mailbox. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mailbox {
    letters: flume::Sender<Letter>,
    handovers: flume::Sender<Box<Handover>>,
    waker: Arc<Waker>,
}

/// The shard's own side.
#[derive(Debug)]
pub struct Inbox {
    letters: flume::Receiver<Letter>,
    handovers: flume::Receiver<Box<Handover>>,
    waker: Arc<Waker>,
}

#[derive(Debug)]
struct Waker {
    eventfd: OwnedFd,
    asleep: AtomicBool,
    /// Control waits for a sign that the shard's loop turns.
    sign_wanted: AtomicBool,
    payload_bytes: AtomicUsize,
    payload_bytes_max: usize,
}

/// Most hand-overs waiting for one shard; beyond it the client is refused with `overloaded`.
const HANDOVERS_MAX: usize = 4096;

/// Makes both sides. At most `letters_max` letters and `payload_bytes_max` bytes of payload wait.
///
/// Errors: the eventfd could not be made (descriptor limit).
pub fn mailbox(letters_max: usize, payload_bytes_max: usize) -> std::io::Result<(Mailbox, Inbox)> {
    // Blocking on purpose: io_uring turns a read of a non-blocking descriptor into EAGAIN.
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
    let waker = Arc::new(Waker {
        eventfd,
        asleep: AtomicBool::new(false),
        sign_wanted: AtomicBool::new(false),
        payload_bytes: AtomicUsize::new(0),
        payload_bytes_max,
    });
    let (letters, letters_in) = flume::bounded(letters_max);
    let (handovers, handovers_in) = flume::bounded(HANDOVERS_MAX);
    let inbox = Inbox { letters: letters_in, handovers: handovers_in, waker: waker.clone() };
    Ok((Mailbox { letters, handovers, waker }, inbox))
}

impl Waker {
    fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // Cannot fail: the counter would have to reach 2^64 - 1.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }
}

impl Mailbox {
    /// Whether a letter with so much payload would be taken now. Control is the only sender, so the
    /// answer stays true until it posts.
    pub fn has_room(&self, payload_bytes: usize) -> bool {
        let waiting = self.waker.payload_bytes.load(Ordering::Relaxed);
        !self.letters.is_full() && (waiting == 0 || waiting + payload_bytes <= self.waker.payload_bytes_max)
    }

    /// Posts a letter and wakes the shard. Errors: `Full`, also when the shard has ended.
    pub fn post(&self, letter: Letter) -> Result<(), Full> {
        self.put(letter)?;
        self.wake();
        Ok(())
    }

    /// Wakes the shard if it sleeps.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Asks for a sign that the shard's loop turns, and wakes it. Not a letter: a shard whose mailbox is full
    /// is busy, not dead.
    pub fn ask_for_sign_of_life(&self) {
        self.waker.sign_wanted.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Whether the loop has turned since it was asked, or was not asked.
    pub fn has_given_sign_of_life(&self) -> bool {
        !self.waker.sign_wanted.load(Ordering::SeqCst)
    }

    /// Posts a letter and lets the shard sleep: `wake` is due soon. Many letters so cost one wake-up,
    /// a system call each. Errors: as `post`.
    pub fn put(&self, letter: Letter) -> Result<(), Full> {
        if let Letter::Push { message, .. } = &letter {
            self.waker.payload_bytes.fetch_add(message.payload().len(), Ordering::Relaxed);
        }
        self.letters.try_send(letter).map_err(|refused| {
            if let Letter::Push { message, .. } = refused.into_inner() {
                self.waker.payload_bytes.fetch_sub(message.payload().len(), Ordering::Relaxed);
            }
            Full
        })
    }

    /// Hands a connection over; boxed, because a waiting one should cost the channel a pointer.
    ///
    /// Errors: gives it back when the shard does not keep up.
    pub fn hand_over(&self, handover: Box<Handover>) -> Result<(), Box<Handover>> {
        self.handovers.try_send(handover).map_err(flume::TrySendError::into_inner)?;
        self.waker.wake();
        Ok(())
    }
}

impl Inbox {
    /// The next letter, if one waits.
    pub fn letter(&self) -> Option<Letter> {
        let letter = self.letters.try_recv().ok()?;
        if let Letter::Push { message, .. } = &letter {
            self.waker.payload_bytes.fetch_sub(message.payload().len(), Ordering::Relaxed);
        }
        Some(letter)
    }

    /// The next connection handed over, if one waits.
    pub fn handover(&self) -> Option<Box<Handover>> {
        self.handovers.try_recv().ok()
    }

    /// Whether anything waits.
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty() && self.handovers.is_empty() && !self.waker.sign_wanted.load(Ordering::SeqCst)
    }

    /// Letters that wait, and the bytes of payload in them.
    pub fn waiting(&self) -> (usize, usize) {
        (self.letters.len(), self.waker.payload_bytes.load(Ordering::Relaxed))
    }

    /// Gives control the sign that it waits for, if it does: once a turn.
    pub fn give_sign_of_life(&self) {
        // Read first: to write would take the line from the other shards' caches every turn.
        if self.waker.sign_wanted.load(Ordering::Relaxed) {
            self.waker.sign_wanted.store(false, Ordering::SeqCst);
        }
    }

    /// The descriptor that the ring signals and that this shard sleeps on.
    pub fn eventfd(&self) -> &OwnedFd {
        &self.waker.eventfd
    }

    /// Announces sleep. Call `is_empty` after it: what is posted later will signal the eventfd.
    pub fn fall_asleep(&self) {
        self.waker.asleep.store(true, Ordering::SeqCst);
    }

    /// Takes the announcement back, so that posts cost no system call.
    pub fn stay_awake(&self) {
        self.waker.asleep.store(false, Ordering::SeqCst);
    }
}
