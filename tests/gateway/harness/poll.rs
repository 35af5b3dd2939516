//! A client that polls, on one connection for as long as that is kept. Blocking; reads have a deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::DEADLINE;
use super::http::{Response, parse_head};

/// The request of a poll; `query` is what follows `/poll?`.
pub fn request(query: &str) -> String {
    format!("GET /poll?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// One connection.
pub struct Poller {
    pub stream: TcpStream,
    input: Vec<u8>,
}

impl Poller {
    pub fn connect(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).unwrap())
    }

    pub fn on(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, input: Vec::new() }
    }

    /// Sends a request, and does not wait for its answer.
    #[track_caller]
    pub fn send(&mut self, request: impl AsRef<[u8]>) {
        self.stream.write_all(request.as_ref()).unwrap();
    }

    /// False at the end of the connection, by a reset, too.
    #[track_caller]
    fn read(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                self.input.extend_from_slice(&buffer[..count]);
                count > 0
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("nothing within {DEADLINE:?}; so far: {}", String::from_utf8_lossy(&self.input))
            }
            Err(_) => false,
        }
    }

    /// The next answer, `None` at the end of the connection.
    #[track_caller]
    pub fn try_answer(&mut self) -> Option<Response> {
        let end = loop {
            if let Some(end) = self.input.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if !self.read() {
                assert!(self.input.is_empty(), "half an answer: {:?}", String::from_utf8_lossy(&self.input));
                return None;
            }
        };
        let (status, headers) = parse_head(&self.input[..end]);
        let mut answer = Response { status, headers, body: Vec::new() };
        let length: usize = answer.header("content-length").expect("a length").parse().unwrap();
        while self.input.len() < end + 4 + length {
            assert!(self.read(), "ended within an answer");
        }
        answer.body = self.input[end + 4..end + 4 + length].to_vec();
        self.input.drain(..end + 4 + length);
        Some(answer)
    }

    /// The next octets, so many.
    #[track_caller]
    pub fn octets(&mut self, count: usize) -> Vec<u8> {
        while self.input.len() < count {
            assert!(self.read(), "ended after {} octets", self.input.len());
        }
        self.input.drain(..count).collect()
    }

    #[track_caller]
    pub fn answer(&mut self) -> Response {
        self.try_answer().expect("the gateway ended the connection")
    }

    /// Polls and waits for the answer, which has to be 200.
    #[track_caller]
    pub fn poll(&mut self, query: &str) -> Value {
        self.send(request(query));
        self.answer().ok()
    }

    /// Waits for the end of the connection; nothing may come before it.
    #[track_caller]
    pub fn ended(&mut self) {
        if let Some(answer) = self.try_answer() {
            panic!("{answer:?}");
        }
    }
}
