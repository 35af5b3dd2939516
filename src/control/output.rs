//! What a client has not read yet.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::SendFlags;

/// A buffer this large is given back once it is empty.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// Bytes on their way to one client, in order.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    written: usize,
    broken: bool,
}

impl Output {
    /// Bytes that wait.
    pub fn unread(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Where to append. What is appended to a broken output goes nowhere.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        if self.broken {
            self.clear();
        }
        &mut self.bytes
    }

    /// The client reads no more: forget what waits, and what comes.
    pub fn give_up(&mut self) {
        self.broken = true;
        self.clear();
    }

    /// Writes what the socket takes. Gives how much; none when the client does not read, or never will.
    pub fn flush(&mut self, socket: impl AsFd) -> usize {
        let before = self.written;
        while self.unread() > 0 {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&socket, &self.bytes[self.written..], flags) {
                Ok(n) => self.written += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    self.give_up();
                    return 0;
                }
            }
        }
        let wrote = self.written - before;
        if self.unread() == 0 {
            self.clear();
        } else if self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        wrote
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.written = 0;
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
    }
}
