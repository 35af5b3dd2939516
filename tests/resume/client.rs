//! A client of any transport, on a socket that never blocks: what it hears, as it comes.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use corecast::message::Position;
use serde_json::Value;

use crate::harness::http::parse_head;
use crate::harness::websocket::{CLOSE, PING, PONG, TEXT, connect, frame, upgrade};
use crate::harness::whatwg::Parser;
use crate::model::Transport;

/// What the kernel of a sluggish client takes, so that it is soon felt when it does not read.
const RECEIVE_BYTES: usize = 4096;

/// One message.
#[derive(Debug)]
pub struct Message {
    /// Raw WebSockets are not told.
    pub position: Option<Position>,
    pub topic: Option<String>,
    /// The payload, JSON.
    pub data: Value,
}

/// What a client hears.
#[derive(Debug)]
pub enum Heard {
    /// The answer to the request: a raw WebSocket, an event stream.
    Open,
    Hello {
        connection: String,
        position: Position,
    },
    Resumed {
        replayed: u64,
        gap: bool,
    },
    /// `subscribed` and `unsubscribed`.
    Replied,
    Message(Message),
    /// `corecast.gap`.
    Gap,
    Answer {
        next: Position,
        gap: bool,
        messages: Vec<Message>,
    },
    Refused(u16),
    Closed(u16),
    /// The gateway has ended the connection.
    End,
}

pub struct Client {
    pub stream: TcpStream,
    transport: Transport,
    input: Vec<u8>,
    open: bool,
    ended: bool,
    events: Parser,
    heard: VecDeque<Heard>,
}

impl Client {
    /// Connects and sends the request. `query` is what follows the question mark.
    pub fn connect(address: SocketAddr, sluggish: bool, transport: Transport, query: &str) -> Self {
        let stream = connect(address, sluggish.then_some(RECEIVE_BYTES), None);
        stream.set_nodelay(true).expect("a socket");
        let mut client = Self {
            stream,
            transport,
            input: Vec::new(),
            open: false,
            ended: false,
            events: Parser::default(),
            heard: VecDeque::new(),
        };
        let request = match transport {
            Transport::Raw => upgrade(&format!("/ws?{query}"), ""),
            Transport::Json => upgrade(&format!("/ws?{query}"), "Sec-WebSocket-Protocol: corecast.v1\r\n"),
            Transport::EventStream => format!("GET /sse?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            Transport::Poll => request(query),
        };
        client.send(request.as_bytes());
        client.stream.set_nonblocking(true).expect("a socket");
        client
    }

    /// Polls again on the same connection.
    pub fn poll(&mut self, query: &str) {
        self.send(request(query).as_bytes());
    }

    /// A frame of `corecast.v1`.
    pub fn say(&mut self, value: &Value) {
        self.send(&frame(true, TEXT, value.to_string().as_bytes()));
    }

    fn send(&mut self, octets: &[u8]) {
        // It may have been cut meanwhile; a few hundred octets always fit.
        let _ = self.stream.write_all(octets);
    }

    /// Takes what is there, about `bytes_max` at most, and gives the next thing heard.
    pub fn hear(&mut self, bytes_max: usize) -> Option<Heard> {
        let mut buffer = [0; 16 * 1024];
        let mut left = bytes_max;
        while self.heard.is_empty() && left > 0 && !self.ended {
            let room = left.min(buffer.len());
            match self.stream.read(&mut buffer[..room]) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    left -= count;
                    self.input.extend_from_slice(&buffer[..count]);
                    self.parse();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.ended = true,
            }
            if self.ended {
                self.heard.push_back(Heard::End);
            }
        }
        self.heard.pop_front()
    }

    /// Where an EventSource would resume, once everything that came was heard.
    pub fn last_event_id(&self) -> Option<Position> {
        self.heard.is_empty().then(|| self.events.last_event_id.parse().ok()).flatten()
    }

    fn parse(&mut self) {
        match self.transport {
            Transport::Poll => while self.parse_answer() {},
            Transport::Raw | Transport::Json | Transport::EventStream if !self.open => self.parse_opening(),
            Transport::Raw | Transport::Json => while self.parse_frame() {},
            Transport::EventStream => self.parse_events(),
        }
    }

    fn parse_opening(&mut self) {
        let Some(end) = find(&self.input, b"\r\n\r\n") else { return };
        let (status, _) = parse_head(&self.input[..end]);
        self.input.drain(..end + 4);
        if !matches!(status, 101 | 200) {
            return self.heard.push_back(Heard::Refused(status));
        }
        self.open = true;
        if self.transport == Transport::Raw {
            self.heard.push_back(Heard::Open);
        }
        self.parse();
    }

    fn parse_frame(&mut self) -> bool {
        let [first, second, ..] = self.input[..] else { return false };
        assert!(second <= 126, "unmasked, and no message of a run is as long: {second}");
        let extended = if second == 126 { 2 } else { 0 };
        let Some(length) = self.input.get(2..2 + extended) else { return false };
        let length = match length {
            [high, low] => usize::from(u16::from_be_bytes([*high, *low])),
            _ => usize::from(second),
        };
        let begin = 2 + extended;
        let Some(payload) = self.input.get(begin..begin + length) else { return false };
        let payload = payload.to_vec();
        self.input.drain(..begin + length);
        match first & 0xf {
            PING => self.send(&frame(true, PONG, &payload)),
            CLOSE => {
                self.heard.push_back(Heard::Closed(u16::from_be_bytes([payload[0], payload[1]])));
            }
            _ => {
                let value: Value = serde_json::from_slice(&payload).expect("JSON");
                let heard = match self.transport {
                    Transport::Json => Self::envelope(value),
                    _ => Heard::Message(Message { position: None, topic: None, data: value }),
                };
                self.heard.push_back(heard);
            }
        }
        true
    }

    fn envelope(value: Value) -> Heard {
        match value["type"].as_str().expect("a type") {
            "hello" => Heard::Hello {
                connection: value["connection"].as_str().expect("an id").to_owned(),
                position: position(&value["position"]),
            },
            "resumed" => Heard::Resumed {
                replayed: value["replayed"].as_u64().expect("a count"),
                gap: value["gap"].as_bool().expect("a bool"),
            },
            "subscribed" | "unsubscribed" => Heard::Replied,
            "message" => Heard::Message(message(&value)),
            other => panic!("{other}: {value}"),
        }
    }

    fn parse_events(&mut self) {
        let opened = self.events.retry.is_none();
        self.events.feed(&std::mem::take(&mut self.input));
        if opened && self.events.retry.is_some() {
            self.heard.push_back(Heard::Open);
        }
        while let Some(event) = self.events.events.pop_front() {
            let data: Value = serde_json::from_str(&event.data).expect("JSON");
            self.heard.push_back(match event.name.as_str() {
                "message" => {
                    let position = Some(event.id.parse().expect("an event has an id"));
                    Heard::Message(Message { position, topic: None, data })
                }
                "corecast.gap" => Heard::Gap,
                "corecast.close" => Heard::Closed(data["code"].as_u64().expect("a code") as u16),
                other => panic!("{other}: {data}"),
            });
        }
    }

    fn parse_answer(&mut self) -> bool {
        let Some(end) = find(&self.input, b"\r\n\r\n") else { return false };
        let (status, headers) = parse_head(&self.input[..end]);
        let length = headers.iter().find(|(name, _)| name == "content-length").expect("a length");
        let length: usize = length.1.parse().expect("a number");
        let Some(body) = self.input.get(end + 4..end + 4 + length) else { return false };
        let heard = if status == 200 {
            let body: Value = serde_json::from_slice(body).expect("JSON");
            let messages = body["messages"].as_array().expect("a list").iter().map(message).collect();
            let gap = body["gap"].as_bool().expect("a bool");
            Heard::Answer { next: position(&body["next"]), gap, messages }
        } else {
            Heard::Refused(status)
        };
        self.input.drain(..end + 4 + length);
        self.heard.push_back(heard);
        true
    }
}

fn request(query: &str) -> String {
    format!("GET /poll?timeout=300&{query} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn find(octets: &[u8], wanted: &[u8]) -> Option<usize> {
    octets.windows(wanted.len()).position(|window| window == wanted)
}

fn position(value: &Value) -> Position {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no position"))
}

/// A message under `corecast.v1`, or of a poll's answer.
fn message(value: &Value) -> Message {
    Message {
        position: Some(position(&value["position"])),
        topic: value["topic"].as_str().map(str::to_owned),
        data: value["data"].clone(),
    }
}
