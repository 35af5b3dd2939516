//! Runs that failed once, as proptest shrank them or shorter.

use std::time::Duration;

use crate::model::{Limits, Transport};
use crate::operations::{Connect, From, Operation, Operations, Push, To, Topics};
use crate::perform_by_hand;

const T0: Topics = Topics(1);
const T1: Topics = Topics(2);

/// Nothing bites but `messages` and `bytes`.
#[track_caller]
fn perform(messages: usize, bytes: usize, operations: Vec<Operation>) {
    perform_with(messages, bytes, 64 << 10, operations);
}

#[track_caller]
fn perform_with(messages: usize, bytes: usize, backlog_bytes: usize, operations: Vec<Operation>) {
    let limits = Limits {
        messages,
        bytes,
        age: Duration::from_secs(600),
        backlog_bytes,
        entry_bytes: 0,
        socket_bytes: [2 << 10, 24 << 10],
    };
    if let Err(error) = perform_by_hand(limits, 256 << 10, 1, &Operations(operations)) {
        panic!("{error}");
    }
}

fn push(to: To, bytes: usize, count: usize) -> Operation {
    Operation::Push(vec![Push { to, bytes, ttl_s: None }; count])
}

fn connect(transport: Transport, user: Option<u8>, topics: Topics) -> Connect {
    Connect { transport, user, topics, since: None, landing: 0, sluggish: false, stalls: false }
}

fn stalled(connect: Connect) -> Operation {
    Operation::Connect(Connect { sluggish: true, stalls: true, ..connect })
}

const FIRST_READS_ON: Operation = Operation::ReadOn { who: 0 };

#[test]
fn a_reader_that_stood_still_while_its_users_messages_were_pushed_out_is_cut_and_not_sent_the_rest() {
    for transport in [Transport::Raw, Transport::Json, Transport::EventStream] {
        perform(
            1000,
            16 << 10,
            vec![
                stalled(connect(transport, Some(0), Topics(0))),
                push(To::User(0), 6000, 4),
                // Others' messages: more than is kept for anybody.
                push(To::Topic(1), 6000, 5),
                push(To::Topic(1), 6000, 5),
                push(To::Topic(1), 6000, 5),
                FIRST_READS_ON,
            ],
        );
    }
}

#[test]
fn what_a_subscription_replays_is_kept_for_a_reader_that_stands_still() {
    let subscribe = Operation::Subscribe { who: 0, topics: T1, since: Some(From::Start) };
    perform(
        2,
        1 << 20,
        vec![
            push(To::Topic(1), 8, 2),
            stalled(connect(Transport::Json, None, T0)),
            push(To::Topic(0), 6000, 4),
            subscribe,
            // Those of the replay are too many now, and older than what the reader was known to need.
            push(To::Topic(1), 8, 3),
            push(To::Topic(1), 8, 3),
            FIRST_READS_ON,
        ],
    );
}

#[test]
fn subscribing_at_a_position_that_this_shard_has_not_reached_repeats_nothing() {
    perform(
        1000,
        1 << 20,
        vec![
            Operation::Connect(connect(Transport::Json, None, T0)),
            Operation::Lag {
                shard: 0,
                pushes: vec![Push { to: To::Topic(1), bytes: 0, ttl_s: None }; 3],
                then: vec![Operation::Subscribe {
                    who: 0,
                    topics: T1,
                    since: Some(From::Newest { back: 1 }),
                }],
            },
        ],
    );
}

#[test]
fn a_topic_subscribed_from_before_the_position_that_was_resumed_is_not_skipped_up_to_it() {
    let at = |back| Some(From::Newest { back });
    perform(
        1000,
        1 << 20,
        vec![Operation::Lag {
            shard: 0,
            pushes: vec![Push { to: To::Topic(1), bytes: 0, ttl_s: None }; 3],
            then: vec![
                Operation::Connect(Connect { since: at(0), ..connect(Transport::Json, None, T0) }),
                Operation::Subscribe { who: 0, topics: T1, since: at(2) },
            ],
        }],
    );
}

#[test]
fn a_subscription_does_not_wake_a_reader_that_stands_still_past_what_it_has_lost() {
    let pushes = |pushes: &[(To, usize)]| {
        let push = |(to, bytes): &(To, usize)| Push { to: to.clone(), bytes: *bytes, ttl_s: None };
        Operation::Push(pushes.iter().map(push).collect())
    };
    let (own, all) = (To::Client(0), To::All);
    perform_with(
        2,
        2 << 10,
        8 << 10,
        vec![
            stalled(connect(Transport::Json, None, Topics(0))),
            Operation::Subscribe { who: 0, topics: T0, since: None },
            pushes(&[(own.clone(), 5788)]),
            pushes(&[
                (own, 937),
                (all.clone(), 29),
                (all.clone(), 5344),
                (all.clone(), 26),
                (To::Topic(2), 12),
            ]),
            pushes(&[(all.clone(), 22), (all.clone(), 35), (all, 1029), (To::User(0), 1016)]),
            Operation::Subscribe { who: 0, topics: Topics(4), since: Some(From::Last) },
        ],
    );
}

#[test]
fn what_comes_for_a_reader_that_is_blocked_by_replies_alone_is_kept_for_it() {
    let mut operations = vec![stalled(connect(Transport::Json, None, T0))];
    // Far more replies than the socket takes, and nothing else.
    operations.extend(vec![Operation::Subscribe { who: 0, topics: T0, since: None }; 400]);
    operations.push(push(To::All, 8, 5));
    operations.push(push(To::All, 8, 5));
    operations.push(FIRST_READS_ON);
    perform(2, 1 << 20, operations);
}
