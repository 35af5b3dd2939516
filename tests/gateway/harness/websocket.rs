//! A WebSocket client with control over every octet. Blocking; reads have a deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use serde_json::Value;

use super::DEADLINE;
use super::http::{Response, parse_head};

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;

const FIN: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// RFC 6455 1.3's example key, and what answers it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// One frame from the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// An open WebSocket.
pub struct WebSocket {
    pub stream: TcpStream,
    /// Of the gateway's 101.
    pub headers: Vec<(String, String)>,
    input: Vec<u8>,
}

/// The request that opens a WebSocket at `target`, with more header lines (each with its CR LF).
pub fn upgrade(target: &str, more: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{more}\r\n"
    )
}

/// A client's frame header with the mask; `first` is FIN, reserved bits and opcode.
pub fn header(first: u8, length: u64) -> Vec<u8> {
    let mut header = vec![first];
    match length {
        0..=125 => header.push(0x80 | length as u8),
        126..=0xffff => {
            header.push(0x80 | 126);
            header.extend((length as u16).to_be_bytes());
        }
        _ => {
            header.push(0x80 | 127);
            header.extend(length.to_be_bytes());
        }
    }
    header.extend(MASK);
    header
}

/// A client's whole frame.
pub fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut octets = header(opcode | if fin { FIN } else { 0 }, payload.len() as u64);
    octets.extend(payload.iter().zip(MASK.iter().cycle()).map(|(octet, key)| octet ^ key));
    octets
}

/// A connection that takes few bytes before it is read, and comes from `from` where that is given.
pub fn connect(address: SocketAddr, receive_bytes: Option<usize>, from: Option<SocketAddr>) -> TcpStream {
    // Not for the programs that other tests start meanwhile: with them it would stay open when it is closed here.
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    if let Some(bytes) = receive_bytes {
        // Before connecting: it decides the window that is announced.
        sockopt::set_socket_recv_buffer_size(&socket, bytes).unwrap();
    }
    if let Some(from) = from {
        rustix::net::bind(&socket, &from).unwrap();
    }
    rustix::net::connect(&socket, &address).unwrap();
    socket.into()
}

/// Ends `stream` with a reset instead of a FIN.
pub fn reset(stream: TcpStream) {
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

impl WebSocket {
    #[track_caller]
    pub fn open(address: SocketAddr, target: &str, protocol: Option<&str>) -> Self {
        Self::open_on(TcpStream::connect(address).unwrap(), target, protocol)
    }

    /// Upgrades on `stream`. Panics when that is refused.
    #[track_caller]
    pub fn open_on(stream: TcpStream, target: &str, protocol: Option<&str>) -> Self {
        Self::try_open_on(stream, target, protocol).unwrap_or_else(|refused| panic!("{refused:?}"))
    }

    /// Upgrades on `stream`, or gives the refusal.
    #[track_caller]
    pub fn try_open_on(stream: TcpStream, target: &str, protocol: Option<&str>) -> Result<Self, Response> {
        let protocol = protocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
        let mut stream = stream;
        stream.set_nodelay(true).unwrap();
        stream.write_all(upgrade(target, &protocol.unwrap_or_default()).as_bytes()).unwrap();
        Self::opened(stream)
    }

    /// Reads the answer to an upgrade.
    #[track_caller]
    pub fn opened(stream: TcpStream) -> Result<Self, Response> {
        let mut client = Self { stream, headers: Vec::new(), input: Vec::new() };
        let end = loop {
            if let Some(end) = client.input.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            assert!(client.read(), "closed without an answer: {:?}", String::from_utf8_lossy(&client.input));
        };
        let (status, headers) = parse_head(&client.input[..end]);
        if status != 101 {
            while client.read() {}
            return Err(Response::parse(&client.input));
        }
        client.input.drain(..end + 4);
        client.headers = headers;
        assert_eq!(client.header("sec-websocket-accept"), Some(ACCEPT));
        Ok(client)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Sends octets as they are.
    pub fn octets(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).unwrap();
    }

    pub fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.octets(&frame(true, opcode, payload));
    }

    pub fn send_json(&mut self, value: &Value) {
        self.send(TEXT, value.to_string().as_bytes());
    }

    /// Reads once; false at the end of the connection, a reset included. Panics at the deadline.
    #[track_caller]
    fn read(&mut self) -> bool {
        let mut octets = [0; 65_536];
        self.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        match self.stream.read(&mut octets) {
            Ok(0) => false,
            Ok(count) => {
                self.input.extend_from_slice(&octets[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nothing within {DEADLINE:?}"),
            Err(_) => false,
        }
    }

    /// The next frame as it came; `None` at the end of the connection.
    #[track_caller]
    pub fn try_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take_frame() {
                return Some(frame);
            }
            if !self.read() {
                return None;
            }
        }
    }

    /// RFC 6455 5.1, 5.2: never masked, no reserved bits; the gateway does not fragment.
    fn take_frame(&mut self) -> Option<Frame> {
        let [first, second, ..] = self.input[..] else { return None };
        assert_eq!((first & 0xf0, second & 0x80), (FIN, 0), "{:?}", &self.input[..2]);
        let extended = match second {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let length = self.input.get(2..2 + extended)?;
        let length = length.iter().fold(0, |length, &octet| length << 8 | usize::from(octet));
        let length = if extended == 0 { usize::from(second) } else { length };
        let payload = self.input.get(2 + extended..2 + extended + length)?.to_vec();
        self.input.drain(..2 + extended + length);
        Some(Frame { opcode: first & 0xf, payload })
    }

    /// The next frame that is no ping; pings are answered. `None` at the end of the connection.
    #[track_caller]
    pub fn try_next(&mut self) -> Option<Frame> {
        loop {
            let frame = self.try_frame()?;
            if frame.opcode != PING {
                return Some(frame);
            }
            // It may have closed meanwhile.
            let _ = self.stream.write_all(&self::frame(true, PONG, &frame.payload));
        }
    }

    #[track_caller]
    pub fn next(&mut self) -> Frame {
        self.try_next().expect("the gateway ended the connection")
    }

    /// The next message, which has to be text.
    #[track_caller]
    pub fn text(&mut self) -> String {
        let Frame { opcode, payload } = self.next();
        let text = String::from_utf8(payload).unwrap();
        assert_eq!(opcode, TEXT, "{text}");
        text
    }

    /// The next message, which has to be JSON in text.
    #[track_caller]
    pub fn json(&mut self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// The next message under `corecast.v1`, which has to be of `kind`.
    #[track_caller]
    pub fn expect(&mut self, kind: &str) -> Value {
        let value = self.json();
        assert_eq!(value["type"], kind, "{value}");
        value
    }

    /// Nothing was sent to this client but what it has read: the next frame is the pong to our ping.
    #[track_caller]
    pub fn nothing_waits(&mut self) {
        self.send(PING, b"nothing?");
        assert_eq!(self.next(), Frame { opcode: PONG, payload: b"nothing?".to_vec() });
    }

    /// The next frame is a close: its code and reason. Answers it, and waits for the end.
    #[track_caller]
    pub fn closed(&mut self) -> (u16, String) {
        let Frame { opcode, payload } = self.next();
        assert_eq!(opcode, CLOSE, "{}", String::from_utf8_lossy(&payload));
        let _ = self.stream.write_all(&frame(true, CLOSE, &payload));
        self.ended();
        let (code, reason) = payload.split_at_checked(2).unwrap_or((&[3, 237], &[]));
        (u16::from_be_bytes([code[0], code[1]]), String::from_utf8(reason.to_vec()).unwrap())
    }

    /// Waits for the end of the connection; nothing may come before it.
    #[track_caller]
    pub fn ended(&mut self) {
        let by = Instant::now() + DEADLINE;
        assert_eq!(self.try_frame(), None);
        assert!(Instant::now() < by);
        // As every client does; a reset has done it already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Closes as RFC 6455 7.1.1 wants it, and checks that it is echoed.
    #[track_caller]
    pub fn close(mut self) {
        self.send(CLOSE, &1000u16.to_be_bytes());
        while let Some(frame) = self.try_next() {
            if frame.opcode == CLOSE {
                assert_eq!(frame.payload, 1000u16.to_be_bytes());
                return self.ended();
            }
        }
        panic!("the close was not echoed");
    }
}
