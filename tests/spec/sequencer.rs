//! Positions, room, and answers over several shards: the sequencer against real mailboxes, with a shard
//! that answers when the test says.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use corecast::control::command::{Answer, CommandError, ErrorCode, Push, Pushed};
use corecast::control::inquiries::{ClientId, Waiter};
use corecast::control::sequencer::{Outcome, Sequencer, Shards};
use corecast::message::{ConnId, Kind, Message, Name, Target};
use corecast::shard::mailbox::{Gate, Inbox, Inquiry, Letter, Owner, Reply, Request, TopicCount, mailbox};

const EPOCH: u32 = 0xa1;
const MESSAGE_BYTES_MAX: usize = 1024;

/// A sequencer and the inboxes of its shards.
struct Gateway {
    sequencer: Sequencer,
    inboxes: Vec<Inbox>,
    owner: Owner,
    gate: Arc<Gate>,
    now: Instant,
}

impl Gateway {
    fn new(shards: u16, letters_max: usize) -> Self {
        let pairs = (0..shards).map(|_| mailbox(letters_max, 1 << 20).expect("an eventfd"));
        let (mailboxes, inboxes) = pairs.unzip();
        let (owner, gate) = (Owner::new(shards), Arc::new(Gate::default()));
        let shards = Shards { mailboxes, owner: owner.clone() };
        let sequencer = Sequencer::new(EPOCH, MESSAGE_BYTES_MAX, shards, gate.clone());
        Self { sequencer, inboxes, owner, gate, now: Instant::now() }
    }

    fn push(&mut self, push: Push, correlation: u64) -> Result<(), CommandError> {
        self.sequencer.push(push, waiter(correlation), self.now)
    }

    /// Every push that waits for `shard`.
    fn letters(&self, shard: u16) -> Vec<(Inquiry, Arc<Message>)> {
        let letters = std::iter::from_fn(|| self.inboxes[usize::from(shard)].letter());
        letters
            .map(|letter| match letter {
                Letter::Push { inquiry, message } => (inquiry, message),
                Letter::Ask { request, .. } => panic!("{request:?} is no push"),
            })
            .collect()
    }

    /// The seqs that wait for `shard`.
    fn seqs(&self, shard: u16) -> Vec<u64> {
        self.letters(shard).into_iter().map(|(_, message)| message.seq).collect()
    }

    /// `shard` answers everything that waits with `connections`.
    fn deliver(&mut self, shard: u16, connections: u32) {
        for (inquiry, _) in self.letters(shard) {
            self.sequencer.handle_reply(inquiry, Reply::Delivered(connections));
        }
    }

    /// The correlations and answers that are finished.
    fn answers(&mut self) -> Vec<(u64, Pushed)> {
        let outcomes = std::iter::from_fn(|| self.sequencer.poll_answer());
        outcomes
            .map(|outcome| match outcome {
                (Waiter::Client { correlation, .. }, Outcome::Answer(Answer::Pushed(pushed))) => {
                    (correlation, pushed)
                }
                other => panic!("{other:?} is no answer to a push"),
            })
            .collect()
    }

    /// A user who lives on `shard`.
    fn user_on(&self, shard: u16) -> Name {
        let mut users = (0..).map(|n| name(&format!("user{n}")));
        users.find(|user| self.owner.shard_of(user) == shard).expect("endless")
    }
}

fn waiter(correlation: u64) -> Waiter {
    Waiter::Client { client: ClientId { index: 0, generation: 0 }, correlation }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("valid")
}

fn to(target: Target) -> Push {
    Push { target, kind: Kind::Json, payload: Bytes::from_static(b"1"), event: None, ttl_ms: None, id: None }
}

fn keyed(target: Target, key: &str) -> Push {
    Push { id: Some(key.to_owned()), ..to(target) }
}

#[test]
fn contract_1_positions_ascend_by_one_from_1_and_every_shard_sees_them_in_order() {
    let mut gateway = Gateway::new(2, 16);
    let user = gateway.user_on(1);
    for (correlation, target) in
        [Target::All, Target::User(user), Target::Topic(name("t"))].into_iter().enumerate()
    {
        gateway.push(to(target), correlation as u64).expect("there is room");
    }
    assert_eq!(gateway.seqs(0), [1, 3]);
    assert_eq!(gateway.seqs(1), [1, 2, 3]);
    assert_eq!(gateway.sequencer.position().to_string(), "000000a1-3");
}

#[test]
fn the_gate_tells_a_position_before_its_message_is_posted() {
    let mut gateway = Gateway::new(1, 16);
    gateway.push(to(Target::All), 1).expect("there is room");
    assert_eq!(gateway.gate.last_seq.load(Ordering::SeqCst), 1);
}

#[test]
fn rule_3_one_full_mailbox_is_busy_and_then_no_position_is_used_and_nothing_posted_anywhere() {
    let mut gateway = Gateway::new(2, 1);
    let full = gateway.user_on(0);
    gateway.push(to(Target::User(full)), 1).expect("there is room");
    let refused = gateway.push(to(Target::All), 2).expect_err("shard 0 is full");
    assert_eq!(refused.code, ErrorCode::Busy);
    assert!(gateway.seqs(1).is_empty());
    assert_eq!(gateway.gate.last_seq.load(Ordering::SeqCst), 1);
    gateway.deliver(0, 1);
    gateway.push(to(Target::All), 3).expect("there is room again");
    assert_eq!((gateway.seqs(0), gateway.seqs(1)), (vec![2], vec![2]));
    let counts = gateway.sequencer.counts();
    assert_eq!((counts.accepted, counts.refused, counts.busy), (2, 1, 1));
}

#[test]
fn an_answer_is_there_when_the_last_shard_has_replied_and_counts_them_all() {
    let mut gateway = Gateway::new(3, 16);
    gateway.push(to(Target::All), 7).expect("there is room");
    gateway.deliver(2, 1);
    gateway.deliver(0, 10);
    assert_eq!(gateway.answers(), []);
    gateway.deliver(1, 100);
    let position = gateway.sequencer.position();
    assert_eq!(gateway.answers(), [(7, Pushed { position, connections: 111 })]);
}

#[test]
fn a_user_is_pushed_to_the_owner_shard_alone() {
    let mut gateway = Gateway::new(3, 16);
    let user = gateway.user_on(1);
    gateway.push(to(Target::User(user)), 1).expect("there is room");
    assert_eq!((gateway.seqs(0), gateway.seqs(1), gateway.seqs(2)), (vec![], vec![1], vec![]));
}

#[test]
fn users_named_twice_are_folded_and_each_owner_gets_the_message_once() {
    let mut gateway = Gateway::new(3, 16);
    let (a, b) = (gateway.user_on(0), gateway.user_on(2));
    let users = vec![a.clone(), b.clone(), a.clone()];
    gateway.push(to(Target::Users(users)), 1).expect("there is room");
    assert_eq!((gateway.seqs(1), gateway.seqs(2)), (vec![], vec![1]));
    let (_, message) = gateway.letters(0).remove(0);
    let mut folded = vec![a, b];
    folded.sort();
    assert_eq!(message.target, Target::Users(folded));
}

#[test]
fn a_connection_of_a_shard_that_does_not_exist_is_nobody() {
    let mut gateway = Gateway::new(1, 16);
    let connection = ConnId { shard: 9, index: 0, generation: 0 };
    gateway.push(to(Target::Connection(connection)), 1).expect("accepted");
    let position = gateway.sequencer.position();
    assert_eq!(gateway.answers(), [(1, Pushed { position, connections: 0 })]);
}

#[test]
fn the_message_is_the_raw_frame_with_event_and_expiry() {
    let mut gateway = Gateway::new(1, 16);
    let push = Push { event: Some("e".to_owned()), ttl_ms: Some(60_000), ..to(Target::All) };
    gateway.push(push, 1).expect("there is room");
    let (_, message) = gateway.letters(0).remove(0);
    assert_eq!((message.payload(), message.event.as_deref()), (&b"1"[..], Some("e")));
    assert_eq!(message.expires, Some(gateway.now + Duration::from_secs(60)));
    assert_eq!(message.frame()[..], [0x81, 1, b'1']);
}

#[test]
fn contract_3_the_same_id_gives_the_first_answer_and_pushes_nothing() {
    let mut gateway = Gateway::new(1, 16);
    gateway.push(keyed(Target::All, "k"), 1).expect("there is room");
    gateway.deliver(0, 5);
    let first = gateway.answers();
    gateway.push(keyed(Target::Topic(name("other")), "k"), 2).expect("known");
    assert!(gateway.seqs(0).is_empty());
    assert_eq!(gateway.answers(), [(2, first[0].1)]);
}

#[test]
fn contract_3_the_same_id_while_the_first_is_on_its_way_waits_for_the_same_answer() {
    let mut gateway = Gateway::new(1, 16);
    gateway.push(keyed(Target::All, "k"), 1).expect("there is room");
    gateway.push(keyed(Target::All, "k"), 2).expect("known");
    assert_eq!(gateway.answers(), []);
    gateway.deliver(0, 5);
    let pushed = Pushed { position: gateway.sequencer.position(), connections: 5 };
    assert_eq!(gateway.answers(), [(1, pushed), (2, pushed)]);
    assert_eq!(pushed.position.seq, 1);
}

#[test]
fn contract_3_an_id_is_forgotten_after_five_minutes() {
    let mut gateway = Gateway::new(1, 16);
    gateway.push(keyed(Target::All, "k"), 1).expect("there is room");
    gateway.now += Duration::from_secs(300);
    gateway.push(keyed(Target::All, "k"), 2).expect("there is room");
    assert_eq!(gateway.seqs(0), [1, 2]);
}

#[test]
fn contract_3_a_refused_push_leaves_no_id_behind() {
    let mut gateway = Gateway::new(1, 1);
    gateway.push(to(Target::All), 1).expect("there is room");
    gateway.push(keyed(Target::All, "k"), 2).expect_err("full");
    gateway.deliver(0, 0);
    gateway.push(keyed(Target::All, "k"), 3).expect("there is room again");
    assert_eq!(gateway.seqs(0), [2]);
}

#[test]
fn contract_3_a_batch_is_taken_in_order_and_answers_for_all_when_all_are_answered() {
    let mut gateway = Gateway::new(2, 16);
    let batch = gateway.sequencer.open_batch(waiter(9));
    let bad = CommandError::new(ErrorCode::BadTopic, "a topic is wrong");
    let user = gateway.user_on(1);
    gateway.sequencer.batch_push(batch, 1, Ok(to(Target::All)), gateway.now);
    gateway.sequencer.batch_push(batch, 3, Err(bad), gateway.now);
    gateway.sequencer.batch_push(batch, 4, Ok(to(Target::User(user))), gateway.now);
    gateway.sequencer.close_batch(batch);
    gateway.deliver(1, 1);
    assert!(gateway.sequencer.poll_answer().is_none());
    gateway.deliver(0, 1);
    let (to, outcome) = gateway.sequencer.poll_answer().expect("finished");
    let Outcome::Answer(Answer::Batch(answer)) = outcome else { panic!("{outcome:?} is no batch") };
    assert_eq!(to, waiter(9));
    assert_eq!((answer.accepted, answer.refused, answer.connections), (2, 1, 3));
    assert_eq!(answer.position, Some(gateway.sequencer.position()));
    assert_eq!((answer.errors[0].line, answer.errors[0].code), (3, ErrorCode::BadTopic));
}

#[test]
fn an_empty_batch_is_answered_at_once() {
    let mut gateway = Gateway::new(1, 16);
    let batch = gateway.sequencer.open_batch(waiter(9));
    gateway.sequencer.close_batch(batch);
    let (_, outcome) = gateway.sequencer.poll_answer().expect("finished");
    assert!(matches!(outcome, Outcome::Answer(Answer::Batch(answer)) if answer.position.is_none()));
}

#[test]
fn topics_are_added_up_over_the_shards_and_the_newest_position_and_the_most_pushes_count() {
    let mut gateway = Gateway::new(2, 16);
    gateway.sequencer.ask_all(Request::Topic(name("t")), waiter(1)).expect("there is room");
    for (shard, seq, pushes) in [(0, 5, 7), (1, 3, 9)] {
        let Some(Letter::Ask { inquiry, .. }) = gateway.inboxes[shard].letter() else { panic!("asked") };
        let count = TopicCount { topic: name("t"), connections: 10, seq, pushes };
        gateway.sequencer.handle_reply(inquiry, Reply::Topic(Some(count)));
    }
    let (_, outcome) = gateway.sequencer.poll_answer().expect("finished");
    let Outcome::Answer(Answer::Topics(topics)) = outcome else { panic!("{outcome:?} is no list") };
    let topic = &topics[0];
    assert_eq!((topic.connections, topic.position.map(|p| p.seq), topic.pushes), (20, Some(5), 9));
}

#[test]
fn once_the_shards_are_told_to_stop_everything_is_busy() {
    let mut gateway = Gateway::new(1, 16);
    gateway.sequencer.ask_all(Request::Stop, Waiter::Drain).expect("there is room");
    assert_eq!(gateway.push(to(Target::All), 1).expect_err("stopped").code, ErrorCode::Busy);
}
