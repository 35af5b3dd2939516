//! The Rust client of the control socket: blocking, without an async runtime.

use std::io;
use std::path::Path;

use crate::control::command::{Answer, Command, CommandError, Push, Pushed};

/// One connection to the gateway's control socket, over the binary protocol.
#[derive(Debug)]
pub struct Client {}

/// Why a call failed.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody answers on the socket.
    Unreachable(io::Error),
    /// The connection broke.
    Broken(io::Error),
    /// The gateway refused the command.
    Refused(CommandError),
}

impl Client {
    /// Connects. Errors: `Unreachable`.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let _ = path;
        todo!()
    }

    /// Sends one command and waits for its answer.
    pub fn call(&mut self, command: &Command) -> Result<Answer, ClientError> {
        let _ = command;
        todo!()
    }

    /// One push.
    pub fn push(&mut self, push: Push) -> Result<Pushed, ClientError> {
        let _ = push;
        todo!()
    }

    /// Queues a command without waiting; gives its correlation id. Written out by `flush`, or when
    /// 64 KiB are queued.
    pub fn send(&mut self, command: &Command) -> Result<u64, ClientError> {
        let _ = command;
        todo!()
    }

    /// Writes out what is queued.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        todo!()
    }

    /// Waits for the next answer to anything sent: its correlation id and what became of it.
    pub fn receive(&mut self) -> Result<(u64, Result<Answer, CommandError>), ClientError> {
        todo!()
    }
}
