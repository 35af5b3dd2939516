//! What the server did and what was done to it, as it saw it itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use super::octets::Request;

/// What a connection turned out to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It has not said it.
    #[default]
    Silent,
    /// It publishes: none of the tool's connections that are counted.
    Publisher,
    /// A WebSocket.
    WebSocket,
    /// An event stream.
    EventStream,
    /// Polls.
    LongPoll,
    /// Plain requests.
    Http,
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The server, as planted.
    Planted,
    /// The client, with FIN.
    Finished,
    /// The client, with RST.
    Reset,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Seen {
    pub peer: SocketAddr,
    /// `number=` of its URL.
    pub number: Option<u32>,
    pub role: Role,
    pub accepted_at: Instant,
    /// When its handshake was answered well.
    pub opened_at: Option<Instant>,
    pub ended: Option<(Instant, Ended)>,
    /// The code of the close frame that the client sent.
    pub close_from_client: Option<u16>,
    /// The first breach of the protocol by the client; nothing is read as frames afterwards.
    pub breach: Option<&'static str>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// How often something was read.
    pub reads: u64,
    /// Octets that the client has not taken yet.
    pub unsent: usize,
    /// Messages written whole.
    pub delivered: u64,
    /// Whole messages from the client.
    pub messages: u64,
    /// Frames from the client that are part of a longer message.
    pub fragments: u64,
    pub pings_from_client: u64,
    /// Pings sent, and the pongs that answered them.
    pub pings: u64,
    pub pongs: u64,
}

impl Seen {
    pub fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            number: None,
            role: Role::Silent,
            accepted_at: Instant::now(),
            opened_at: None,
            ended: None,
            close_from_client: None,
            breach: None,
            bytes_in: 0,
            bytes_out: 0,
            reads: 0,
            unsent: 0,
            delivered: 0,
            messages: 0,
            fragments: 0,
            pings_from_client: 0,
            pings: 0,
            pongs: 0,
        }
    }

    pub fn is_open(&self) -> bool {
        self.opened_at.is_some() && self.ended.is_none()
    }
}

/// A plain request, and on which connection it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub connection: usize,
    pub request: Request,
}

/// Everything since the start.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// In the order they were accepted.
    pub connections: Vec<Seen>,
    /// Plain requests, in the order they came.
    pub requests: Vec<Asked>,
    /// Plain requests and echoes.
    pub asked: u64,
    /// Messages published, and those that were dropped, sent twice, swapped.
    pub published: u64,
    pub dropped: u64,
    pub doubled: u64,
    pub swapped: u64,
    /// The same as deliveries: how many connections a dropped message was for, and a doubled one. In a chat
    /// without the sender, who hears itself but does not count on it.
    pub missed: u64,
    pub extra: u64,
    /// Handshakes answered as planted and not well.
    pub misgreeted: u64,
    /// How often each status was sent.
    pub statuses: BTreeMap<u16, u64>,
}

impl Tally {
    /// Connections of the tool, those that publish left out.
    pub fn clients(&self) -> impl Iterator<Item = &Seen> {
        self.connections.iter().filter(|seen| seen.role != Role::Publisher)
    }

    /// A sum over the tool's connections.
    pub fn sum(&self, of: impl Fn(&Seen) -> u64) -> u64 {
        self.clients().map(of).sum()
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.clients().filter(|seen| seen.is_open()).count()
    }

    /// How often a connection of the tool ended like this.
    pub fn ended(&self, how: Ended) -> usize {
        self.clients().filter(|seen| seen.ended.is_some_and(|(_, ended)| ended == how)).count()
    }
}
