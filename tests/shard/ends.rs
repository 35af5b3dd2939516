//! The end of a client is found by what the poll tells, also where its octets are not read (issue 4).

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use crate::by_hand::ByHand;

/// More than is kept of what comes behind a held poll.
const BEHIND_BYTES: usize = 40 << 10;

fn held_poll(shard: &mut ByHand) -> TcpStream {
    let mut poll = TcpStream::connect(shard.address).unwrap();
    poll.write_all(b"GET /poll?topics=t HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    shard.until("it is held", |stats| stats.polls == 1);
    poll
}

#[test]
fn issue_4_a_poll_that_is_not_read_any_more_and_then_ends_is_let_go_at_once() {
    let mut shard = ByHand::start(|_| {});
    let mut poll = held_poll(&mut shard);
    poll.write_all(&[b'x'; BEHIND_BYTES]).unwrap();
    shard.until("what is kept of it has been read", |stats| stats.received_bytes > 8 << 10);
    poll.shutdown(Shutdown::Write).unwrap();
    shard.until("it is gone", |stats| stats.connections == 0);
}

#[test]
fn issue_4_a_poll_whose_end_comes_with_more_than_is_read_is_let_go_at_once() {
    let mut shard = ByHand::start(|_| {});
    let mut poll = held_poll(&mut shard);
    poll.write_all(&[b'x'; BEHIND_BYTES]).unwrap();
    poll.shutdown(Shutdown::Write).unwrap();
    shard.until("it is gone", |stats| stats.connections == 0);
}
