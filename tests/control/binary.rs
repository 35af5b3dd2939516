//! Contract section 3, the binary protocol, through the library's own client.

use bytes::Bytes;
use corecast::client::{Client, ClientError};
use corecast::control::command::{Answer, Command, ErrorCode, Push};
use corecast::message::{Kind, Name, Target};
use corecast::shard::mailbox::event_mask;

use crate::shard::Gateway;

fn push(target: Target, data: &str) -> Push {
    let payload = Bytes::copy_from_slice(data.as_bytes());
    Push { target, kind: Kind::Json, payload, event: None, ttl_ms: None, id: None }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("valid")
}

#[test]
fn contract_3_every_command_has_its_answer() {
    let gateway = Gateway::default();
    let mut client = gateway.client();
    let (user, topic) = (name("a"), name("t"));
    let mut call = |command: Command| client.call(&command).expect("answered");
    let pushes = vec![push(Target::All, "1"), push(Target::All, "{")];
    assert!(
        matches!(call(Command::PushBatch(pushes)), Answer::Batch(b) if (b.accepted, b.errors[0].line) == (1, 2))
    );
    assert!(matches!(call(Command::Presence(user.clone())), Answer::Presence(all) if all.len() == 1));
    let kick = Command::KickUser { user: user.clone(), code: None, reason: None };
    assert!(matches!(call(kick), Answer::Closed(1)));
    assert!(matches!(call(Command::Bind { user, topic }), Answer::Bound(1)));
    assert!(matches!(call(Command::Topics), Answer::Topics(all) if all.len() == 1));
    assert!(matches!(call(Command::Topic(name("x"))), Answer::Topics(all) if all[0].connections == 0));
    assert!(matches!(call(Command::Stats), Answer::Stats(stats) if stats.control_clients == 1));
    assert!(matches!(call(Command::Version), Answer::Version(v) if v == env!("CARGO_PKG_VERSION")));
}

#[test]
fn contract_3_a_refused_command_says_why_and_the_connection_stays() {
    let gateway = Gateway::default();
    let mut client = gateway.client();
    let refused = client.push(push(Target::All, "{")).expect_err("not JSON");
    assert!(matches!(refused, ClientError::Refused(e) if e.code == ErrorCode::BadPayload));
    assert_eq!(client.push(push(Target::All, "1")).expect("accepted").connections, 2);
}

#[test]
fn contract_3_a_hundred_thousand_pushes_in_flight_all_get_their_own_position() {
    const PUSHES: u64 = 100_000;
    let gateway = Gateway::default();
    let mut client = gateway.client();
    let command = Command::Push(push(Target::User(name("a")), "1"));
    for _ in 0..PUSHES {
        client.send(&command).expect("sent");
    }
    let mut positions: Vec<_> = (0..PUSHES)
        .map(|_| match client.receive().expect("answered") {
            (correlation, Ok(Answer::Pushed(pushed))) => (correlation, pushed.position.seq),
            other => panic!("{other:?}"),
        })
        .collect();
    positions.sort_unstable();
    assert!(positions.iter().all(|(correlation, seq)| correlation == seq));
}

#[test]
fn contract_3_events_stream_to_a_binary_client() {
    let gateway = Gateway::default();
    let mut events = gateway.client().events(event_mask::UPLINK).expect("asked");
    while gateway.gate.events_wanted.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    gateway.client().push(push(Target::Topic(name("uplink")), "[1]")).expect("accepted");
    let line = events.next().expect("one").expect("an event");
    assert!(line.contains(r#""data":[1]"#), "{line}");
}

#[test]
fn contract_3_a_drain_streams_until_the_gateway_goes() {
    let mut gateway = Gateway::default();
    let mut client = gateway.client();
    assert!(
        matches!(client.call(&Command::Drain { within_ms: None }), Ok(Answer::Drain(p)) if p.connections == 0)
    );
    gateway.join();
    while let Ok((_, answer)) = client.receive() {
        assert!(matches!(answer, Ok(Answer::Drain(_))));
    }
}

#[test]
fn nobody_on_the_socket_is_unreachable_and_says_what_to_try() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("none.sock");
    let error = Client::connect(&path).expect_err("nobody");
    let text = error.to_string();
    assert!(matches!(error, ClientError::Unreachable(_)));
    assert!(text.contains(path.to_str().expect("text")) && text.contains("try: corecast serve"), "{text}");
}
