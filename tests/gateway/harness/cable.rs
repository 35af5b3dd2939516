//! A line between a client and the gateway that can be cut. It keeps what the client sends.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::DEADLINE;

pub struct Cable {
    /// Where the client connects.
    pub address: SocketAddr,
    line: Arc<Mutex<Line>>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Line {
    cut: bool,
    over: bool,
    /// Both ends of what goes through now, and of what went.
    ends: Vec<TcpStream>,
    sent: Vec<u8>,
}

impl Cable {
    /// To a gateway at `gateway`.
    pub fn to(gateway: SocketAddr) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let line = Arc::new(Mutex::new(Line::default()));
        let shared = line.clone();
        let listener = std::thread::spawn(move || {
            let mut carriers = Vec::new();
            for client in socket.incoming().map(Result::unwrap) {
                if shared.lock().unwrap().over {
                    break;
                }
                let line = shared.clone();
                carriers.push(std::thread::spawn(move || carry(client, gateway, &line)));
            }
            carriers.into_iter().for_each(|carrier| carrier.join().unwrap());
        });
        Self { address, line, listener: Some(listener) }
    }

    /// Ends every connection, and each new one before anything goes through.
    pub fn cut(&self) {
        let mut line = self.line.lock().unwrap();
        line.cut = true;
        line.end_all();
    }

    pub fn mend(&self) {
        self.line.lock().unwrap().cut = false;
    }

    /// The requests that went through to paths that begin so, without their method.
    pub fn requests(&self, path: &str) -> Vec<String> {
        let sent = String::from_utf8_lossy(&self.line.lock().unwrap().sent).into_owned();
        sent.split("GET ").filter(|request| request.starts_with(path)).map(str::to_owned).collect()
    }
}

impl Line {
    /// Keeps an end to be cut. False while the line is cut.
    fn join(&mut self, end: &TcpStream) -> bool {
        if !self.cut {
            self.ends.push(end.try_clone().unwrap());
        }
        !self.cut
    }

    fn end_all(&mut self) {
        for end in self.ends.drain(..) {
            // It may have ended by itself.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn carry(client: TcpStream, gateway: SocketAddr, line: &Mutex<Line>) {
    if !line.lock().unwrap().join(&client) {
        return;
    }
    let server = TcpStream::connect(gateway).unwrap();
    if !line.lock().unwrap().join(&server) {
        return;
    }
    let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let back = std::thread::spawn(move || pass(from, to, |_| {}));
    pass(client, server, |octets| line.lock().unwrap().sent.extend_from_slice(octets));
    back.join().unwrap();
}

/// Passes on what comes, and its end.
fn pass(mut from: TcpStream, mut to: TcpStream, keep: impl Fn(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        keep(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

impl Drop for Cable {
    fn drop(&mut self) {
        {
            let mut line = self.line.lock().unwrap();
            (line.cut, line.over) = (true, true);
            line.end_all();
        }
        // Wakes the listener.
        let _ = TcpStream::connect_timeout(&self.address, DEADLINE);
        let _ = self.listener.take().map(JoinHandle::join);
    }
}
