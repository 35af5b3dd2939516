//! The real gateway with two shards. Its clock is the world's, and where an anonymous client lands is the kernel's
//! choice: no operation depends on either.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use corecast::client::Client;
use corecast::control::command::{Answer, Command};
use corecast::message::Name;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::harness::{DEADLINE, Gateway};
use crate::model::Limits;
use crate::run::Machine;

/// How long to wait for something to read before looking at everything again.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
const BACKLOG_BYTES: usize = 16 << 10;

pub struct Process {
    gateway: Gateway,
    control: Client,
    epoch: u32,
    answers: VecDeque<Answer>,
}

impl Process {
    /// With a history of so many messages for each target, and its limits as the model takes them.
    pub fn start(messages: usize) -> (Self, Limits) {
        // More bytes than any run pushes, and nothing is as old: what bites is the count.
        let (bytes, age) = (8 << 20, Duration::from_secs(600));
        let gateway = Gateway::start(&[
            "limits.socket_send_bytes=4096",
            "limits.connects_per_second=0",
            "limits.uplinks_per_second=0",
            "timeouts.heartbeat=10min",
            "limits.message_bytes=16KiB",
            "history.bytes=8MiB",
            &format!("history.messages={messages}"),
            &format!("limits.send_backlog_bytes={BACKLOG_BYTES}"),
        ]);
        let control = gateway.client();
        let (_, hello) = gateway.hello("");
        let epoch = hello["epoch"].as_str().expect("an epoch");
        let epoch = u32::from_str_radix(epoch, 16).expect("eight hex digits");
        let machine = Self { gateway, control, epoch, answers: VecDeque::new() };
        let socket_bytes = [usize::MAX; 2];
        let limits =
            Limits { messages, bytes, age, backlog_bytes: BACKLOG_BYTES, entry_bytes: 256, socket_bytes };
        (machine, limits)
    }
}

impl Machine for Process {
    const PATIENCE: Duration = DEADLINE;

    fn epoch(&self) -> u32 {
        self.epoch
    }

    fn shard_of(&self, _: &Name) -> usize {
        0
    }

    fn address(&self, _: usize, _: bool) -> (SocketAddr, usize) {
        (self.gateway.address, 0)
    }

    fn turn(&mut self, readers: &[&TcpStream]) {
        let mut readers: Vec<_> = readers.iter().map(|reader| PollFd::new(*reader, PollFlags::IN)).collect();
        poll(&mut readers, Some(&LOOK_EVERY)).expect("a poll");
    }

    fn order(&mut self, command: Command) {
        self.answers.push_back(self.control.call(&command).expect("answered"));
    }

    fn answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    fn connections(&mut self) -> usize {
        match self.control.call(&Command::Stats).expect("answered") {
            Answer::Stats(stats) => stats.shards.iter().map(|shard| shard.connections as usize).sum(),
            other => panic!("{other:?}"),
        }
    }

    fn counted(&mut self) -> String {
        format!("{:?}", self.control.call(&Command::Stats))
    }

    fn is_by_hand(&self) -> bool {
        false
    }

    fn pass(&mut self, _: Duration) {
        unreachable!("not by hand");
    }

    fn freeze(&mut self, _: Option<usize>) {
        unreachable!("not by hand");
    }
}
