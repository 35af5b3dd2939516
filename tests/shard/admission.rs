//! Who may come in when many do, and what it costs to say no (issue 6).

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use corecast::stats::{CloseReason, RefusalReason, ShardStats};

use crate::by_hand::ByHand;
use crate::harness::eventually;
use crate::harness::http::{Response, read_to_end};
use crate::harness::websocket::upgrade as head;

/// One a second, and so a burst of two; time stands still.
fn shard() -> ByHand {
    ByHand::start(|config| config.limits.connects_per_second = 1)
}

/// The same, the burst used up.
fn spent() -> (ByHand, [TcpStream; 2]) {
    let mut shard = shard();
    let clients = ["/ws", "/ws"].map(|target| shard.websocket(target));
    (shard, clients)
}

#[track_caller]
fn assert_overloaded(answer: &Response) -> u32 {
    assert_eq!(answer.refusal(), (503, "overloaded".to_owned()));
    assert_eq!(answer.header("content-length"), Some(&answer.body.len().to_string()[..]));
    answer.header("retry-after").unwrap().parse().unwrap()
}

/// Rule 5.
#[track_caller]
fn assert_adds_up(stats: &ShardStats, refused: u64) {
    assert_eq!(stats.closed[CloseReason::Refused as usize], refused, "{stats:?}");
    assert_eq!(stats.refused_total(), refused, "{stats:?}");
    assert_eq!(stats.accepted, stats.open + stats.closed_total(), "{stats:?}");
}

#[test]
fn issue_6_beyond_the_rate_every_kind_of_client_is_refused_early_and_without_a_reset() {
    let (mut shard, _clients) = spent();
    let mut refused = 0;
    for target in ["/ws", "/ws?user=a", "/sse?topics=t", "/poll"] {
        assert_overloaded(&shard.exchange(head(target, "").as_bytes()));
        refused += 1;
    }
    let stats = shard.until("they have gone", |stats| stats.open == 2);
    assert_eq!(
        (stats.refused_for(RefusalReason::ConnectsPerSecond), stats.refused_early),
        (refused, refused)
    );
    assert_adds_up(&stats, refused);
    assert_eq!(shard.gate.sockets.load(Ordering::Relaxed), 2);
}

#[test]
fn issue_6_the_retry_after_of_those_refused_together_is_spread_evenly() {
    let (mut shard, _clients) = spent();
    let mut told = [0; 9];
    for _ in 0..40 {
        told[assert_overloaded(&shard.exchange(head("/ws", "").as_bytes())) as usize] += 1;
    }
    assert_eq!(told, [0, 5, 5, 5, 5, 5, 5, 5, 5]);
}

#[test]
fn issue_6_many_refused_in_one_turn_are_all_answered() {
    let (mut shard, _clients) = spent();
    let mut storm: Vec<TcpStream> = (0..500).map(|_| TcpStream::connect(shard.address).unwrap()).collect();
    storm.iter_mut().for_each(|client| client.write_all(head("/ws", "").as_bytes()).unwrap());
    for client in &mut storm {
        assert_overloaded(&shard.answer(client));
    }
    let stats = shard.until("they have gone", |stats| stats.open == 2);
    assert_eq!(stats.refused_early, 500);
    assert_adds_up(&stats, 500);
}

#[test]
fn issue_6_health_checks_are_answered_beyond_the_rate() {
    let (mut shard, _clients) = spent();
    for path in ["/healthz", "/readyz"] {
        let answer = shard.exchange(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!(answer.status, 200, "{path}");
    }
}

#[test]
fn issue_6_a_head_in_pieces_is_refused_when_it_is_whole_and_without_a_reset() {
    let (mut shard, _clients) = spent();
    let head = head("/ws", "");
    let mut client = TcpStream::connect(shard.address).unwrap();
    let (first, rest) = head.as_bytes().split_at(head.len() / 2);
    client.write_all(first).unwrap();
    let received = first.len() as u64;
    let before = shard.turn().received_bytes;
    shard.until("the first piece is there", |stats| stats.received_bytes >= before.max(received));
    client.write_all(rest).unwrap();
    assert_overloaded(&shard.answer(&mut client));
    let stats = shard.turn();
    assert_eq!((stats.refused_for(RefusalReason::ConnectsPerSecond), stats.refused_early), (1, 0));
}

#[test]
fn issue_6_a_page_may_read_why_it_is_refused_under_a_list_of_origins_too() {
    let mut shard = ByHand::start(|config| {
        config.limits.connects_per_second = 1;
        config.web.origins = vec!["https://a.example".to_owned()];
    });
    let _clients = ["/ws", "/ws"].map(|target| shard.websocket(target));
    let answer = shard.exchange(head("/sse", "Origin: https://a.example\r\n").as_bytes());
    assert_overloaded(&answer);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("Retry-After"));
    assert_eq!(shard.turn().refused_early, 0);
    // Who names none is no page.
    assert_overloaded(&shard.exchange(head("/sse", "").as_bytes()));
    assert_eq!(shard.turn().refused_early, 1);
}

#[test]
fn issue_6_a_page_may_read_why_it_is_refused_where_any_may_connect() {
    let (mut shard, _clients) = spent();
    let answer = shard.exchange(head("/sse", "Origin: https://a.example\r\n").as_bytes());
    assert_overloaded(&answer);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(shard.turn().refused_early, 1);
}

#[test]
fn issue_6_who_comes_back_from_a_position_takes_half_of_what_a_new_client_takes() {
    let mut shard = shard();
    // A burst of two: four of those who come back.
    let _clients: Vec<_> = (0..4).map(|_| shard.websocket("/ws?since=000000a1-0")).collect();
    assert_overloaded(&shard.exchange(head("/ws?since=000000a1-0", "").as_bytes()));
    // 0.75 s later there is enough for one of them, and not for a new one, ...
    shard.pass(Duration::from_millis(750));
    assert_overloaded(&shard.exchange(head("/ws", "").as_bytes()));
    // ... nor for one with a position of another gateway, or that nobody was given.
    for since in ["000000b2-0", "000000a1-9"] {
        assert_overloaded(&shard.exchange(head(&format!("/ws?since={since}"), "").as_bytes()));
    }
    let _by_header = {
        let mut client = TcpStream::connect(shard.address).unwrap();
        client.write_all(head("/sse", "Last-Event-ID: 000000a1-0\r\n").as_bytes()).unwrap();
        shard.until("it is open", |stats| stats.event_streams == 1);
        client
    };
}

#[test]
fn issue_6_a_new_client_comes_in_as_soon_as_there_is_a_whole_connect() {
    let (mut shard, _clients) = spent();
    shard.pass(Duration::from_millis(999));
    assert_overloaded(&shard.exchange(head("/ws", "").as_bytes()));
    shard.pass(Duration::from_millis(1));
    let _client = shard.websocket("/ws");
}

#[test]
fn issue_6_who_is_accepted_as_the_shard_ends_is_told_so() {
    let shard = ByHand::start(|_| {});
    shard.gate.draining.store(true, Ordering::SeqCst);
    let (mut client, gate) = (TcpStream::connect(shard.address).unwrap(), shard.gate.clone());
    std::thread::scope(|scope| {
        let asks = scope.spawn(move || {
            // Accepted in the turn in which the shard is told to stop: it has not seen the request by then.
            eventually("it is accepted", || (gate.sockets.load(Ordering::Relaxed) == 1).then_some(()));
            client.write_all(head("/ws", "").as_bytes()).unwrap();
            Response::parse(&read_to_end(&mut client))
        });
        shard.stop();
        assert_eq!(asks.join().unwrap().refusal(), (503, "draining".to_owned()));
    });
}

#[test]
fn issue_6_while_memory_is_short_new_clients_are_refused_and_those_who_are_there_stay() {
    let mut shard = ByHand::start(|_| {});
    let _clients = ["/ws", "/ws"].map(|target| shard.websocket(target));
    shard.gate.memory_short.store(true, Ordering::Relaxed);
    let answer = shard.exchange(head("/ws?since=000000a1-0", "").as_bytes());
    assert_overloaded(&answer);
    assert!(answer.text().contains("memory"), "{}", answer.text());
    let stats = shard.until("it has gone", |stats| stats.open == 2);
    assert_eq!(
        (stats.refused_for(RefusalReason::Memory), stats.refused_total(), stats.refused_early),
        (1, 1, 1)
    );
    shard.gate.memory_short.store(false, Ordering::Relaxed);
    let _client = shard.websocket("/ws");
}
