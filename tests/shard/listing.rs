//! How a shard lists its connections: in short steps that leave nobody out (issue 7).

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use corecast::config::ByteSize;
use corecast::connections::{
    Budget, Detail, Filter, Found, ListingStep, Place, Query, Reason, Row, Sort, State, Transport,
};
use corecast::message::ConnId;
use corecast::shard::mailbox::{Reply, Request, TopicsFound, TopicsStep};
use rustix::net::sockopt::set_socket_linger;

use crate::by_hand::{ByHand, read_more};
use crate::harness::websocket::connect;

const MUCH: Budget = Budget { looks: 1 << 20, rows: 1 << 20, time: Duration::from_secs(60) };

fn step(query: Query, place: Option<Place>, budget: Budget) -> ListingStep {
    ListingStep { query: Arc::new(query), place, bound: None, ask_sockets: true, budget }
}

#[track_caller]
fn look(shard: &mut ByHand, step: ListingStep) -> Found {
    let Reply::Found(found) = shard.ask(Request::Look(step)) else { panic!("no answer to a look") };
    found
}

#[track_caller]
fn all(shard: &mut ByHand, query: Query) -> Vec<Row> {
    let found = look(shard, step(query, None, MUCH));
    assert_eq!(found.next, None);
    found.rows.into_iter().map(|(_, row)| row).collect()
}

fn of_topic(topic: &str) -> Query {
    Query { filter: Filter { topic: topic.parse().ok(), ..Filter::default() }, ..Query::default() }
}

fn of_user(user: &str) -> Query {
    Query { filter: Filter { user: user.parse().ok(), ..Filter::default() }, ..Query::default() }
}

fn websockets(shard: &mut ByHand, count: usize, target: &str) -> Vec<TcpStream> {
    (0..count).map(|_| shard.websocket(target)).collect()
}

fn topics(shard: &mut ByHand, step: TopicsStep) -> (BTreeSet<String>, Option<u32>) {
    let Reply::TopicsFound(TopicsFound { topics, next }) = shard.ask(Request::Topics(step)) else {
        panic!("no answer to a look at topics")
    };
    let count = topics.len();
    let names: BTreeSet<_> = topics.into_iter().map(|count| count.topic.to_string()).collect();
    assert_eq!(names.len(), count, "one twice");
    (names, next)
}

/// Ends it at once, so that no slot waits for its end.
fn reset(shard: &mut ByHand, client: TcpStream) {
    let before = shard.turn().open;
    set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    shard.until("it has gone", |stats| stats.open == before - 1);
}

#[test]
fn issue_7_a_step_looks_at_no_more_slots_than_it_may() {
    let mut shard = ByHand::start(|_| {});
    let _clients = websockets(&mut shard, 10, "/ws?topics=t");
    for query in [Query::default(), of_topic("t")] {
        let (mut ids, mut place, mut steps) = (Vec::new(), None, 0);
        loop {
            let found = look(&mut shard, step(query.clone(), place, Budget { looks: 3, ..MUCH }));
            assert!(found.rows.len() <= 3);
            ids.extend(found.rows.iter().map(|(key, _)| key.id));
            (place, steps) = (found.next, steps + 1);
            if place.is_none() {
                break;
            }
        }
        ids.sort();
        assert_eq!(ids.iter().map(|id| id.index).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        assert_eq!(steps, 4);
    }
}

#[test]
fn issue_7_a_step_without_time_ends_after_one_that_is_found_or_64_that_are_not() {
    let mut shard = ByHand::start(|_| {});
    let _clients = websockets(&mut shard, 200, "/ws");
    let none = Budget { time: Duration::ZERO, ..MUCH };
    let found = look(&mut shard, step(Query::default(), None, none));
    assert_eq!((found.rows.len(), found.next), (1, Some(Place { next: 1, end: 200 })));
    let filter = Filter { transport: Some(Transport::LongPoll), ..Filter::default() };
    let found = look(&mut shard, step(Query { filter, ..Query::default() }, None, none));
    assert_eq!((found.rows.len(), found.next), (0, Some(Place { next: 64, end: 200 })));
}

#[test]
fn issue_7_clients_who_come_while_a_list_is_made_do_not_make_it_endless() {
    let mut shard = ByHand::start(|_| {});
    let mut clients = websockets(&mut shard, 4, "/ws?topics=t");
    for query in [Query::default(), of_topic("t")] {
        let (mut place, mut seen) = (None, 0);
        for _ in 0..20 {
            let found = look(&mut shard, step(query.clone(), place, Budget { looks: 1, ..MUCH }));
            seen += found.rows.len();
            place = found.next;
            if place.is_none() {
                break;
            }
            clients.push(shard.websocket("/ws?topics=t"));
        }
        assert_eq!(place, None, "{seen} seen");
    }
}

#[test]
fn issue_7_who_stays_is_listed_though_others_leave_the_topic_while_it_is_looked_at() {
    let mut shard = ByHand::start(|_| {});
    let mut clients: Vec<_> = websockets(&mut shard, 12, "/ws?topics=t").into_iter().map(Some).collect();
    let (mut ids, mut place) = (Vec::new(), None);
    // Slots are given out in order: client n is in slot n. Leaves one from the front and one from the back a step.
    for leaving in 0.. {
        let found = look(&mut shard, step(of_topic("t"), place, Budget { looks: 2, ..MUCH }));
        ids.extend(found.rows.iter().map(|(key, _)| key.id.index));
        place = found.next;
        if place.is_none() {
            break;
        }
        for index in [leaving, 11 - leaving].into_iter().filter(|index| !(4..8).contains(index)) {
            if let Some(client) = clients.get_mut(index).and_then(Option::take) {
                reset(&mut shard, client);
            }
        }
    }
    assert!((4..8).all(|index| ids.contains(&index)), "{ids:?}");
}

#[test]
fn issue_7_a_list_of_a_user_looks_at_no_others_connections() {
    let mut shard = ByHand::start(|_| {});
    let _others = websockets(&mut shard, 50, "/ws?user=b&topics=t");
    let _clients = websockets(&mut shard, 3, "/ws?user=a&topics=t,u");
    let found = look(&mut shard, step(of_user("a"), None, Budget { looks: 3, ..MUCH }));
    assert_eq!((found.rows.len(), found.next), (3, None));
    let found = look(&mut shard, step(of_topic("u"), None, Budget { looks: 3, ..MUCH }));
    assert_eq!((found.rows.len(), found.next), (3, None));
    let both = Filter { topic: "t".parse().ok(), ..of_user("a").filter };
    assert_eq!(all(&mut shard, Query { filter: both, ..Query::default() }).len(), 3);
    let neither = Filter { topic: "u".parse().ok(), ..of_user("b").filter };
    assert_eq!(all(&mut shard, Query { filter: neither, ..Query::default() }), []);
    assert_eq!(all(&mut shard, of_user("nobody")), []);
    assert_eq!(all(&mut shard, of_topic("nothing")), []);
}

#[test]
fn issue_7_a_user_with_more_than_256_connections_is_listed_in_steps_like_all() {
    let mut shard = ByHand::start(|_| {});
    let _others = websockets(&mut shard, 3, "/ws?user=b");
    let mut clients = websockets(&mut shard, 256, "/ws?user=a");
    let half = look(&mut shard, step(of_user("a"), None, Budget { looks: 100, ..MUCH }));
    clients.push(shard.websocket("/ws?user=a"));
    let rest = look(&mut shard, step(of_user("a"), half.next, MUCH));
    assert_eq!(
        (half.rows.len() + rest.rows.len(), rest.next),
        (256, None),
        "the last came while it was looked at"
    );
    assert_eq!(all(&mut shard, of_user("a")).len(), 257);
}

#[test]
fn issue_7_only_connections_before_the_bound_and_behind_the_cursor_are_found() {
    let mut shard = ByHand::start(|_| {});
    let _clients = websockets(&mut shard, 5, "/ws");
    let found = look(&mut shard, step(Query { sort: Sort::Age, ..Query::default() }, None, MUCH));
    let mut keys: Vec<_> = found.rows.iter().map(|(key, _)| *key).collect();
    keys.sort();
    let after = corecast::connections::Cursor { sort: Sort::Age, key: keys[0] };
    let query = Query { sort: Sort::Age, after: Some(after), ..Query::default() };
    let found = look(&mut shard, ListingStep { bound: Some(keys[3]), ..step(query, None, MUCH) });
    let mut between: Vec<_> = found.rows.iter().map(|(key, _)| *key).collect();
    between.sort();
    assert_eq!(between, keys[1..3]);
}

fn detail(shard: &mut ByHand, index: u32, generation: u32) -> Option<Detail> {
    let Reply::Detail(detail) = shard.ask(Request::Detail(ConnId { shard: 0, index, generation })) else {
        panic!()
    };
    detail.map(|detail| *detail)
}

#[test]
fn issue_7_what_waits_for_a_client_that_does_not_read_is_counted_in_messages_and_octets() {
    const MESSAGE: usize = 16 << 10;
    let mut shard = ByHand::start(|config| config.limits.socket_send_bytes = ByteSize(4096));
    let _reads = shard.websocket("/ws?topics=t");
    let mut lazy = shard.websocket_on(connect(shard.address, Some(4096), None), "/ws?topics=t,u&user=a");
    for topic in ["t", "u", "t", "u", "t", "u"] {
        shard.push(topic, &[b'x'; MESSAGE]);
    }
    shard.until("it is blocked", |stats| stats.blocked == 1 && stats.pushes == 6);
    let filter = Filter { lag_above_bytes: Some(0), ..Filter::default() };
    let rows = all(&mut shard, Query { filter, sort: Sort::Lag, ..Query::default() });
    let [row] = &rows[..] else { panic!("{rows:?}") };
    let pending = shard.turn().pending;
    assert_eq!((row.id.index, row.lag_messages), (1, pending), "as `pending` counts");
    let frames = pending * (MESSAGE as u64 + 4);
    assert!(row.lag_bytes <= frames && row.lag_bytes > frames - MESSAGE as u64 - 4, "{row:?}");
    let reasons = [Reason::NotReading, Reason::SocketFull, Reason::NotAcknowledging];
    assert!(row.reason.is_some_and(|reason| reasons.contains(&reason)), "{row:?}");
    let seen = detail(&mut shard, 1, 0).expect("it is there");
    assert_eq!((seen.state, seen.row.lag_bytes, seen.outbox_bytes > 0), (State::Open, row.lag_bytes, true));
    assert!(seen.position.seq < 6 && seen.send_queue_bytes > 0, "{seen:?}");
    let mut octets = Vec::new();
    while octets.len() < 6 * (MESSAGE + 4) {
        shard.turn();
        assert!(read_more(&mut lazy, &mut octets));
    }
    let seen = detail(&mut shard, 1, 0).expect("it is there");
    assert_eq!((seen.row.lag_messages, seen.row.lag_bytes, seen.row.reason), (0, 0, None));
    assert_eq!((seen.position.seq, seen.outbox_bytes), (6, 0));
}

#[test]
fn rule_7_the_detail_of_a_connection_that_has_gone_is_nothing_though_its_slot_is_used_again() {
    let mut shard = ByHand::start(|_| {});
    let client = shard.websocket("/ws?user=a");
    assert_eq!(detail(&mut shard, 0, 0).map(|seen| seen.row.user), Some("a".parse().ok()));
    reset(&mut shard, client);
    assert_eq!(detail(&mut shard, 0, 0), None);
    let _next = shard.websocket("/ws?user=b");
    assert_eq!(detail(&mut shard, 0, 0), None);
    assert_eq!(detail(&mut shard, 0, 1).map(|seen| seen.row.user), Some("b".parse().ok()));
    assert_eq!(detail(&mut shard, 1, 0), None);
}

#[test]
fn issue_7_topics_are_looked_at_in_short_steps_each_once_and_only_between_after_and_bound() {
    let mut shard = ByHand::start(|_| {});
    let name = |number: usize| format!("t{number:04}");
    let of_client = |client: usize| (0..100).map(|n| name(client * 100 + n)).collect::<Vec<_>>().join(",");
    let _clients: Vec<_> =
        (0..25).map(|client| shard.websocket(&format!("/ws?topics={}", of_client(client)))).collect();
    let mut step = TopicsStep::default();
    let (mut names, mut steps) = (BTreeSet::new(), 0);
    loop {
        let (mut found, next) = topics(&mut shard, step.clone());
        assert!(found.len() <= 2048);
        names.append(&mut found);
        steps += 1;
        let Some(next) = next else { break };
        step.from = next;
    }
    assert_eq!((names, steps), ((0..2500).map(name).collect(), 2));
    let (after, bound) = (name(10).parse().ok(), name(20).parse().ok());
    let (names, next) = topics(&mut shard, TopicsStep { from: 0, after, bound });
    assert_eq!((names, next), ((11..=20).map(name).collect(), Some(2048)));
    assert_eq!(
        topics(&mut shard, TopicsStep { from: 9999, ..TopicsStep::default() }),
        (BTreeSet::new(), None)
    );
}
