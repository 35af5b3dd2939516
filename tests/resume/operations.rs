//! What may happen in a run, and how runs are drawn.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::model::{Limits, Transport};

pub const USERS: u8 = 4;
pub const TOPICS: u8 = 3;
/// Operations of one run, at most.
const OPERATIONS_MAX: usize = 40;

/// Bit n is topic n.
#[derive(Clone, Copy, Debug)]
pub struct Topics(pub u8);

impl Topics {
    pub fn set(self) -> BTreeSet<u8> {
        (0..TOPICS).filter(|topic| self.0 & 1 << topic != 0).collect()
    }

    pub fn of(set: &BTreeSet<u8>) -> Self {
        Self(set.iter().map(|topic| 1 << topic).sum())
    }
}

#[derive(Clone, Debug)]
pub enum To {
    All,
    Topic(u8),
    User(u8),
    Users(Vec<u8>),
    /// One of the clients whose connection id is known.
    Client(u8),
}

#[derive(Clone, Debug)]
pub struct Push {
    pub to: To,
    /// Beside its number.
    pub bytes: usize,
    pub ttl_s: Option<u8>,
}

/// The position that a client names.
#[derive(Clone, Copy, Debug)]
pub enum From {
    /// Its own.
    Last,
    Newest {
        back: u8,
    },
    Start,
    /// Of another epoch.
    Foreign {
        back: u8,
    },
    /// That nobody was given.
    Ahead {
        by: u8,
    },
}

#[derive(Clone, Debug)]
pub struct Connect {
    pub transport: Transport,
    pub user: Option<u8>,
    pub topics: Topics,
    pub since: Option<From>,
    pub landing: u8,
    /// Its socket takes little before it is read.
    pub sluggish: bool,
    /// Reads its greeting and then nothing, where it is sluggish.
    pub stalls: bool,
}

/// `who` counts those who come into question, and begins again at their end.
#[derive(Clone, Debug)]
pub enum Operation {
    /// All before any of them is delivered.
    Push(Vec<Push>),
    Connect(Connect),
    Poll {
        who: u8,
        since: Option<From>,
    },
    Resume {
        who: u8,
        transport: Transport,
        landing: u8,
    },
    Disconnect {
        who: u8,
    },
    Subscribe {
        who: u8,
        topics: Topics,
        since: Option<From>,
    },
    Unsubscribe {
        who: u8,
        topics: Topics,
    },
    Bind {
        user: u8,
        topic: u8,
    },
    Unbind {
        user: u8,
        topic: u8,
    },
    Kick {
        user: u8,
    },
    Stall {
        who: u8,
    },
    ReadOn {
        who: u8,
    },
    Pass {
        seconds: u8,
    },
    /// Pushes that one shard has not seen when all of `then` happens.
    Lag {
        shard: u8,
        pushes: Vec<Push>,
        then: Vec<Operation>,
    },
}

fn topics() -> impl Strategy<Value = Topics> {
    (1..1u8 << TOPICS).prop_map(Topics)
}

fn transport() -> impl Strategy<Value = Transport> {
    select(&[Transport::Raw, Transport::Json, Transport::EventStream, Transport::Poll][..])
}

fn to() -> impl Strategy<Value = To> {
    prop_oneof![
        1 => Just(To::All),
        4 => (0..TOPICS).prop_map(To::Topic),
        3 => (0..USERS).prop_map(To::User),
        1 => vec(0..USERS, 1..4).prop_map(|mut users| {
            users.sort_unstable();
            users.dedup();
            To::Users(users)
        }),
        1 => any::<u8>().prop_map(To::Client),
    ]
}

fn push() -> impl Strategy<Value = Push> {
    let bytes = prop_oneof![6 => 0..40usize, 2 => 900..1100usize, 3 => 5000..7000usize];
    (to(), bytes, option::weighted(0.2, 0..8u8)).prop_map(|(to, bytes, ttl_s)| Push { to, bytes, ttl_s })
}

fn from() -> impl Strategy<Value = From> {
    prop_oneof![
        4 => Just(From::Last),
        6 => (0..12u8).prop_map(|back| From::Newest { back }),
        2 => Just(From::Start),
        1 => (0..12u8).prop_map(|back| From::Foreign { back }),
        1 => (0..9u8).prop_map(|by| From::Ahead { by }),
    ]
}

fn connect() -> impl Strategy<Value = Operation> {
    let who = (option::weighted(0.7, 0..USERS), prop_oneof![1 => Just(Topics(0)), 4 => topics()]);
    let since = option::weighted(0.6, from());
    (transport(), who, since, any::<u8>(), prop::bool::weighted(0.4), any::<bool>()).prop_map(
        |(transport, (user, topics), since, landing, sluggish, stalls)| {
            Operation::Connect(Connect { transport, user, topics, since, landing, sluggish, stalls })
        },
    )
}

fn subscribe() -> impl Strategy<Value = Operation> {
    (any::<u8>(), topics(), option::weighted(0.7, from()))
        .prop_map(|(who, topics, since)| Operation::Subscribe { who, topics, since })
}

fn operation() -> impl Strategy<Value = Operation> {
    let who = any::<u8>;
    let bound = || (0..USERS, 0..TOPICS);
    // One subscription at most: what it has the shard take is there for whoever comes after it.
    let then = prop_oneof![
        2 => vec(connect(), 1..3),
        1 => (vec(connect(), 0..2), subscribe()).prop_map(|(mut then, subscribe)| {
            then.push(subscribe);
            then
        }),
    ];
    let lag = (any::<u8>(), vec(push(), 1..6), then);
    prop_oneof![
        10 => vec(push(), 1..6).prop_map(Operation::Push),
        8 => connect(),
        5 => (who(), option::weighted(0.8, from())).prop_map(|(who, since)| Operation::Poll { who, since }),
        5 => (who(), transport(), who())
            .prop_map(|(who, transport, landing)| Operation::Resume { who, transport, landing }),
        1 => who().prop_map(|who| Operation::Disconnect { who }),
        3 => subscribe(),
        2 => (who(), topics()).prop_map(|(who, topics)| Operation::Unsubscribe { who, topics }),
        1 => bound().prop_map(|(user, topic)| Operation::Bind { user, topic }),
        1 => bound().prop_map(|(user, topic)| Operation::Unbind { user, topic }),
        1 => (0..USERS).prop_map(|user| Operation::Kick { user }),
        3 => who().prop_map(|who| Operation::Stall { who }),
        3 => who().prop_map(|who| Operation::ReadOn { who }),
        2 => (1..5u8).prop_map(|seconds| Operation::Pass { seconds }),
        3 => lag.prop_map(|(shard, pushes, then)| Operation::Lag { shard, pushes, then }),
    ]
}

/// What a run does, printed a line each.
#[derive(Clone)]
pub struct Operations(pub Vec<Operation>);

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|operation| write!(f, "\n    {operation:?},"))
    }
}

pub fn operations() -> impl Strategy<Value = Operations> {
    vec(operation(), 1..OPERATIONS_MAX).prop_map(Operations)
}

/// Small enough to bite, each alone and together; age ends between two whole seconds.
pub fn limits() -> impl Strategy<Value = Limits> {
    let messages = select(&[2, 5, 1000][..]);
    let bytes = select(&[2 << 10, 16 << 10, 1 << 20][..]);
    let age = select(&[3500, 1_000_500][..]).prop_map(Duration::from_millis);
    let backlog_bytes = select(&[8 << 10, 64 << 10][..]);
    (messages, bytes, age, backlog_bytes).prop_map(|(messages, bytes, age, backlog_bytes)| Limits {
        messages,
        bytes,
        age,
        backlog_bytes,
        entry_bytes: 0,
        socket_bytes: [2 << 10, 24 << 10],
    })
}
