//! HTTP as a test speaks it: one request per connection, read to its end, and the stream of events.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;
use serde_json::Value;

use super::{DEADLINE, Gateway};

/// A whole answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// Reads one off `octets`, which end with the connection.
    #[track_caller]
    pub fn parse(octets: &[u8]) -> Self {
        let text = String::from_utf8_lossy(octets);
        let end = octets.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer but {text:?}"));
        let (status, headers) = parse_head(&octets[..end]);
        let mut response = Self { status, headers, body: octets[end + 4..].to_vec() };
        if response.header("transfer-encoding") == Some("chunked") {
            response.body = dechunk(&response.body);
        }
        response
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body of a 200.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// Status and code of a refusal with the error object of contract section 2.
    #[track_caller]
    pub fn refusal(&self) -> (u16, String) {
        let body = self.json();
        assert!(body["error"]["message"].is_string(), "{body}");
        (self.status, body["error"]["code"].as_str().expect("a code").to_owned())
    }
}

#[track_caller]
pub fn parse_head(head: &[u8]) -> (u16, Vec<(String, String)>) {
    let head = std::str::from_utf8(head).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_lowercase(), value.trim().to_owned())
    };
    (status, lines.filter(|line| !line.is_empty()).map(header).collect())
}

fn dechunk(mut octets: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = octets.windows(2).position(|window| window == b"\r\n").expect("a chunk's length");
        let length = std::str::from_utf8(&octets[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&octets[end + 2..end + 2 + length]);
        octets = &octets[end + 4 + length..];
    }
}

/// Sends `request` and reads to the end of the connection.
#[track_caller]
pub fn exchange_tcp(address: SocketAddr, request: &[u8]) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // What is refused early is not read to its end.
    let _ = stream.write_all(request);
    Response::parse(&read_to_end(&mut stream))
}

/// What comes until the connection ends, by a reset, too. Panics at the deadline.
#[track_caller]
pub fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut octets = Vec::new();
    let by = Instant::now() + DEADLINE;
    match stream.read_to_end(&mut octets) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            panic!("not closed within {DEADLINE:?}; so far: {}", String::from_utf8_lossy(&octets))
        }
        // A reset is an end as well.
        _ => assert!(Instant::now() < by, "not closed within {DEADLINE:?}"),
    }
    octets
}

#[track_caller]
pub fn exchange_unix(path: &Path, method: &str, target: &str, content_type: &str, body: &[u8]) -> Response {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut request = format!(
        "{method} {target} HTTP/1.1\r\nHost: corecast\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    let _ = stream.write_all(&request);
    Response::parse(&read_to_end(&mut stream))
}

/// An endless answer of JSON lines, being read.
pub struct Lines<S> {
    stream: BufReader<S>,
}

/// `GET /v1/events`, being read.
pub type Events = Lines<UnixStream>;

impl Gateway {
    /// Listens to `/v1/events?<query>`; what happens from here on is told.
    #[track_caller]
    pub fn events(&self, query: &str) -> Events {
        self.listen(&format!("/v1/events?{query}"))
    }

    /// The lines of a stream of the control socket, which has begun.
    #[track_caller]
    pub fn listen(&self, target: &str) -> Events {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: corecast\r\n\r\n").unwrap();
        let events = Lines::begin(stream);
        // Answered in a later turn of control than the one that began the stream.
        self.totals();
        events
    }
}

impl Events {
    /// Whether anything has come that was not read.
    pub fn has_more(&self) -> bool {
        let socket = self.stream.get_ref();
        let peeked = rustix::net::recv(socket, &mut [0; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        !self.stream.buffer().is_empty() || peeked.is_ok_and(|(count, _)| count > 0)
    }

    /// The next event of somebody who may take longer.
    #[track_caller]
    pub fn next_within(&mut self, deadline: Duration) -> Value {
        self.stream.get_ref().set_read_timeout(Some(deadline)).unwrap();
        self.next()
    }
}

impl<S: Read> Lines<S> {
    /// Reads the head of the answer, which must be 200.
    #[track_caller]
    pub fn begin(stream: S) -> Self {
        let mut lines = Self { stream: BufReader::new(stream) };
        assert!(lines.line().starts_with("HTTP/1.1 200 "));
        while !lines.line().is_empty() {}
        lines
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line within the deadline");
        line.trim_end().to_owned()
    }

    /// The next line.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        // A chunk is its length, a line with its end, and an empty line.
        let length = self.line();
        assert!(usize::from_str_radix(&length, 16).is_ok(), "{length:?} is no chunk");
        let line = self.line();
        assert_eq!(self.line(), "");
        serde_json::from_str(&line).unwrap()
    }
}
