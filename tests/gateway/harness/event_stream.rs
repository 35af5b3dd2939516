//! An event stream as a browser reads it, and its octets. Blocking; reads have a deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::DEADLINE;
use super::http::{Response, parse_head};
pub use super::whatwg::Event;
use super::whatwg::Parser;

/// An open event stream.
pub struct EventStream {
    pub stream: TcpStream,
    /// Of the gateway's 200.
    pub headers: Vec<(String, String)>,
    pub parser: Parser,
    /// The body so far.
    pub body: Vec<u8>,
}

impl EventStream {
    /// Opens `target` with more header lines (each with its CR LF).
    #[track_caller]
    pub fn open(address: SocketAddr, target: &str, more: &str) -> Self {
        Self::open_on(TcpStream::connect(address).unwrap(), target, more)
    }

    /// Panics when it is refused.
    #[track_caller]
    pub fn open_on(mut stream: TcpStream, target: &str, more: &str) -> Self {
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        Self::opened(stream).unwrap_or_else(|refused| panic!("{refused:?}"))
    }

    /// Reads the answer to a request, up to its `retry`; or the refusal.
    #[track_caller]
    pub fn opened(stream: TcpStream) -> Result<Self, Response> {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let (parser, headers, body) = (Parser::default(), Vec::new(), Vec::new());
        let mut client = Self { stream, headers, parser, body };
        let mut octets = Vec::new();
        let end = loop {
            if let Some(end) = octets.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            assert!(client.read_into(&mut octets), "no answer but {:?}", String::from_utf8_lossy(&octets));
        };
        let (status, headers) = parse_head(&octets[..end]);
        if status != 200 {
            while client.read_into(&mut octets) {}
            return Err(Response::parse(&octets));
        }
        client.headers = headers;
        client.take(octets.split_off(end + 4));
        while client.parser.retry.is_none() {
            assert!(client.read(), "ended before retry");
        }
        Ok(client)
    }

    /// False at the end of the connection, by a reset, too.
    #[track_caller]
    fn read_into(&mut self, octets: &mut Vec<u8>) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                octets.extend_from_slice(&buffer[..count]);
                count > 0
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("nothing within {DEADLINE:?}; so far: {}", String::from_utf8_lossy(&self.body))
            }
            Err(_) => false,
        }
    }

    fn take(&mut self, octets: Vec<u8>) {
        self.parser.feed(&octets);
        self.body.extend(octets);
    }

    /// Reads more; false at the end.
    #[track_caller]
    pub fn read(&mut self) -> bool {
        let mut octets = Vec::new();
        let more = self.read_into(&mut octets);
        self.take(octets);
        more
    }

    /// The next event, `None` at the end of the connection.
    #[track_caller]
    pub fn try_next(&mut self) -> Option<Event> {
        while self.parser.events.is_empty() {
            if !self.read() {
                return None;
            }
        }
        self.parser.events.pop_front()
    }

    #[track_caller]
    pub fn next(&mut self) -> Event {
        self.try_next().expect("the gateway ended the connection")
    }

    /// The next event, which has to be of this name: its data as JSON.
    #[track_caller]
    pub fn expect(&mut self, name: &str) -> Value {
        let event = self.next();
        assert_eq!(event.name, name, "{event:?}");
        serde_json::from_str(&event.data).unwrap()
    }

    /// Waits for the end of the connection; no event may come before it.
    #[track_caller]
    pub fn ended(&mut self) {
        assert_eq!(self.try_next(), None);
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}
