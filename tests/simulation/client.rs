//! A client of any transport on a simulated socket: what it says, and what of the messages it is due has come.
//!
//! It sees every octet that the gateway's kernel has taken, whether it reads or not: what counts as delivered
//! is exactly what comes out here whole.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use corecast::ring::simulated::{Far, connect};
use serde_json::Value;

use crate::run::{EPOCH, TOPICS, Target};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Raw,
    Json,
    EventStream,
    Poll,
}

pub struct Client {
    pub far: Far,
    pub transport: Transport,
    pub user: Option<usize>,
    /// Whatever it may have been subscribed to.
    pub topics: BTreeSet<usize>,
    /// Under `corecast.v1`.
    pub connection: Option<String>,
    /// It has been let in and nobody has ended it.
    pub open: bool,
    /// It has not ended its side.
    pub present: bool,
    /// It makes room for more.
    pub reads: bool,
    /// Messages that came whole.
    pub delivered: u64,
    /// The newest that came.
    pub newest: u64,
    /// The newest of each topic, and of all else. What a topic's replay repeats is older than the rest.
    last: BTreeMap<Option<usize>, u64>,
    /// The position of each poll that is not answered.
    asked: VecDeque<u64>,
    input: Vec<u8>,
    greeted: bool,
}

impl Client {
    /// Connects to the listener of shard `landing` and says nothing.
    pub fn new(landing: usize, room: usize, transport: Transport, user: Option<usize>) -> Self {
        Self {
            far: connect(landing, room),
            transport,
            user,
            topics: BTreeSet::new(),
            connection: None,
            open: false,
            present: true,
            reads: true,
            delivered: 0,
            newest: 0,
            last: BTreeMap::new(),
            asked: VecDeque::new(),
            input: Vec::new(),
            greeted: false,
        }
    }

    /// Goes on as who was there until now: nothing may come twice.
    pub fn succeed(&mut self, before: &Self) {
        self.newest = before.newest;
        self.last = before.last.iter().map(|(&topic, &last)| (topic, last.min(before.newest))).collect();
    }

    /// The request, with this query, which names `since`.
    pub fn request(&mut self, query: &str, since: Option<u64>) -> String {
        self.asked.push_back(since.unwrap_or(0));
        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let (path, more) = match self.transport {
            Transport::Raw => ("/ws", upgrade.to_owned()),
            Transport::Json => ("/ws", format!("{upgrade}Sec-WebSocket-Protocol: corecast.v1\r\n")),
            Transport::EventStream => ("/sse", String::new()),
            Transport::Poll => ("/poll", String::new()),
        };
        format!("GET {path}?{query} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n")
    }

    /// Sends one frame, masked with zeros.
    pub fn frame(&self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            short @ ..=125 => frame.push(0x80 | short as u8),
            long => frame.extend([0xfe, (long >> 8) as u8, long as u8]),
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        self.far.write(&frame);
    }

    /// Takes what has come. `pushes` are the targets of all pushes, by seq from 1.
    pub fn hear(&mut self, pushes: &[Target]) {
        self.input.extend(self.far.taken());
        while self.hear_next(pushes) {}
        if self.far.is_over() {
            self.open = false;
        }
    }

    /// What came last of an event or a frame and is not whole, or what nobody awaited.
    pub fn is_between_messages(&self) -> bool {
        self.input.is_empty()
    }

    fn hear_next(&mut self, pushes: &[Target]) -> bool {
        match self.transport {
            Transport::Poll => self.hear_answer(pushes),
            _ if !self.greeted => self.hear_head(),
            Transport::EventStream => self.hear_event(pushes),
            Transport::Raw | Transport::Json => self.hear_frame(pushes),
        }
    }

    /// Takes a response's head; gives its status and Content-Length.
    fn head(&mut self) -> Option<(u16, usize)> {
        let end = find(&self.input, b"\r\n\r\n")?;
        let head = std::str::from_utf8(&self.input[..end]).expect("a head is text");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.map_or(0, |length| length.parse().expect("a number"));
        let whole = self.transport != Transport::Poll && status < 300 || self.input.len() >= end + 4 + length;
        if whole {
            self.input.drain(..end + 4);
        }
        whole.then_some((status, length))
    }

    fn hear_head(&mut self) -> bool {
        let Some((status, length)) = self.head() else { return false };
        self.greeted = status < 300;
        self.open = self.greeted;
        if status >= 300 {
            self.input.drain(..length);
            // Nothing but the end comes behind a refusal.
            assert!(self.input.is_empty(), "{:?}", String::from_utf8_lossy(&self.input));
        }
        self.greeted
    }

    fn hear_answer(&mut self, pushes: &[Target]) -> bool {
        let Some((status, length)) = self.head() else { return false };
        let body: Vec<u8> = self.input.drain(..length).collect();
        self.open = false;
        // Two polls that name one position are answered alike.
        let since = self.asked.pop_front().expect("an answer to a request");
        self.last = (0..TOPICS).map(Some).chain([None]).map(|topic| (topic, since)).collect();
        if status == 200 {
            let body: Value = serde_json::from_slice(&body).expect("JSON");
            for message in body["messages"].as_array().expect("a list") {
                self.heard(seq_of(&message["position"]), &message["data"], pushes);
            }
            self.newest = self.newest.max(seq_of(&body["next"]));
        }
        true
    }

    fn hear_event(&mut self, pushes: &[Target]) -> bool {
        let Some(end) = find(&self.input, b"\n\n") else { return false };
        let event: Vec<u8> = self.input.drain(..end + 2).collect();
        let event = String::from_utf8(event).expect("an event stream is UTF-8");
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
        if let (Some(id), Some(data)) = (field("id: "), field("data: "))
            && field("event: ").is_none()
        {
            let data = serde_json::from_str(data).expect("JSON");
            self.heard(seq_of(&Value::from(id)), &data, pushes);
        }
        true
    }

    fn hear_frame(&mut self, pushes: &[Target]) -> bool {
        let [first, second, ..] = self.input[..] else { return false };
        let extended = match second {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(length) = self.input.get(2..2 + extended) else { return false };
        let length = length.iter().fold(0, |length, &octet| length << 8 | usize::from(octet));
        let length = if extended == 0 { usize::from(second) } else { length };
        let begin = 2 + extended;
        if self.input.len() < begin + length {
            return false;
        }
        let payload = self.input[begin..begin + length].to_vec();
        self.input.drain(..begin + length);
        match first {
            0x81 => self.hear_text(&payload, pushes),
            0x88 => self.open = false,
            0x89 if self.reads && self.present => self.frame(0xa, &payload),
            0x89 | 0x8a => {}
            other => panic!("a frame that begins with {other:#x}"),
        }
        true
    }

    fn hear_text(&mut self, payload: &[u8], pushes: &[Target]) {
        let value: Value = serde_json::from_slice(payload).expect("JSON");
        if self.transport == Transport::Raw {
            let seq = value["n"].as_u64().expect("its number");
            return self.heard(seq, &value, pushes);
        }
        match value["type"].as_str().expect("a type") {
            "hello" => self.connection = Some(value["connection"].as_str().expect("an id").to_owned()),
            "message" => self.heard(seq_of(&value["position"]), &value["data"], pushes),
            "subscribed" => {
                // Its past may come with it.
                for topic in value["topics"].as_array().expect("a list") {
                    let topic: usize = topic.as_str().expect("a name")[1..].parse().expect("a number");
                    self.last.remove(&Some(topic));
                }
            }
            "resumed" | "unsubscribed" | "pong" | "error" | "reconnect" => {}
            other => panic!("{other}: {value}"),
        }
    }

    /// A message: for this client, in its order, and not heard before.
    fn heard(&mut self, seq: u64, data: &Value, pushes: &[Target]) {
        assert_eq!(data["n"], seq, "the payload of another");
        let target = &pushes[seq as usize - 1];
        let (mine, topic) = match target {
            Target::All => (true, None),
            Target::Topic(topic) => (self.topics.contains(topic), Some(*topic)),
            Target::Users(users) => (self.user.is_some_and(|user| users.contains(&user)), None),
            Target::Connection(id) => (self.connection.as_ref().is_none_or(|own| own == id), None),
        };
        assert!(mine, "{seq} is not for this client: {target:?}");
        let last = self.last.insert(topic, seq).unwrap_or(0);
        let transport = self.transport;
        assert!(seq > last, "{seq} came behind {last} of {topic:?}, twice or out of order, by {transport:?}");
        self.newest = self.newest.max(seq);
        self.delivered += 1;
    }
}

fn seq_of(position: &Value) -> u64 {
    let (epoch, seq) = position.as_str().and_then(|text| text.split_once('-')).expect("a position");
    assert_eq!(epoch, format!("{EPOCH:08x}"));
    seq.parse().expect("a number")
}

fn find(octets: &[u8], wanted: &[u8]) -> Option<usize> {
    octets.windows(wanted.len()).position(|window| window == wanted)
}
