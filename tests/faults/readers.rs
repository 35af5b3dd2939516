//! Clients that do not read, and pushers that push more than is drained.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use corecast::client::Client;
use corecast::control::command::{Answer, Command, ErrorCode};

use crate::crowd::{Crowd, Manner};
use crate::frozen::shard_of;
use crate::harness::Gateway;
use crate::scene::{Form, Scene, text, topic, user};
use crate::table::Row;

const CONNECT_WITHIN: Duration = Duration::from_secs(120);
/// Takes little before it is read.
const SLOW: Manner = Manner { receive_bytes: 4096, rude: true };

/// 500 of 5,000 stop reading during broadcasts: each is cut as a slow consumer, the others get everything.
pub fn stop_reading(form: Form) -> Row {
    let (good, slow) = form.of((450, 50), (4500, 500));
    let settings = ["limits.send_backlog_bytes=64KiB", "limits.socket_send_bytes=8KiB"];
    let mut scene = Scene::begin(form, &settings, good);
    let mut crowd = Crowd::open(scene.gateway.address, slow, SLOW, CONNECT_WITHIN, |n| {
        format!("user=slow-{n}&topics=all-good&heartbeat=600")
    });
    crowd.mute(0);
    scene.aside();
    scene.under(|scene| {
        let mut client = Client::connect(&scene.gateway.socket).unwrap();
        let by = Instant::now() + Duration::from_secs(60);
        // A broadcast every 50 ms is 90,000 messages a second to 4,500: what two cores carry.
        while closed(scene, "slow_consumer") < slow as u64 && Instant::now() < by {
            client.push(text(topic("all-good"), format!("{:4000}", ' '))).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let cut = closed(&scene, "slow_consumer");
    scene.expect(cut == slow as u64, format_args!("{cut} of {slow} were cut as slow"));
    crowd.reset_all();
    scene.end("clients that stop reading", format!("{slow} of {}", good + slow), slow, Some(slow))
}

pub fn closed(scene: &Scene, reason: &str) -> u64 {
    scene.gateway.totals()["closed"][reason].as_u64().unwrap()
}

/// Connections of the user that is pushed to: each push to it is as many messages.
const FAN: usize = 200;

/// Pushes come twice as fast as a shard drains them. What is accepted arrives, what is refused is told
/// `busy`, and the mailbox holds no more than its limit.
pub fn too_many_pushes(form: Form) -> Row {
    let (good, count) = form.of((50, 20_000), (500, 100_000));
    // What is accepted waits for clients that are slower than the shard; who lags is another fault.
    let settings = [
        "shards=2",
        "control.mailbox_messages=1024",
        "history.bytes=64MiB",
        "history.messages=1000000",
        "limits.send_backlog_bytes=64MiB",
        "timeouts.send=60s",
    ];
    // Good ones are on the shard that "many" does not live on: the other's mailbox is full for everybody.
    let elsewhere = |gateway: &Gateway, user: &str| shard_of(gateway, user) != shard_of(gateway, "many");
    let mut scene = Scene::on(form, &settings, "127.0.0.1:0", good, |_| {}, elsewhere);
    let mut crowd = Crowd::open(scene.gateway.address, FAN, Manner::default(), CONNECT_WITHIN, |_| {
        "user=many&heartbeat=600".to_owned()
    });
    let mut client = Client::connect(&scene.gateway.socket).unwrap();
    let drained = drained_per_second(&mut client, &mut crowd);
    let heard_before = crowd.heard.messages;
    let (accepted, busy) = scene.under(|_| push_at(&mut client, &mut crowd, drained * 2, count));
    scene
        .expect(accepted + busy == count as u64, format_args!("{accepted} accepted, {busy} busy of {count}"));
    scene.expect(busy > 0, "none was busy: the fault did not happen");
    let due = accepted * FAN as u64;
    let all = crowd.until(Duration::from_secs(60), |heard| heard.messages - heard_before == due);
    // The tape keeps them.
    scene.kept_bytes += 64 << 20;
    let heard = crowd.heard.messages - heard_before;
    scene.expect(all, format_args!("{heard} of {due} accepted messages arrived"));
    crowd.reset_all();
    let size = format!("{} a second, {drained} drained", drained * 2);
    scene.end("pushes at twice what is drained", size, FAN, None)
}

/// How many pushes to "many" a second are answered when 64 are always on their way.
fn drained_per_second(client: &mut Client, crowd: &mut Crowd) -> u64 {
    const WINDOW: u64 = 64;
    let begun = Instant::now();
    let (mut sent, mut answered) = (0, 0);
    while begun.elapsed() < Duration::from_secs(1) {
        while sent < answered + WINDOW {
            client.send(&push_to_many()).unwrap();
            sent += 1;
        }
        client.flush().unwrap();
        while client.try_receive().unwrap().is_some() {
            answered += 1;
        }
        crowd.turn(Duration::ZERO);
    }
    let rate = answered * 1000 / begun.elapsed().as_millis() as u64;
    for _ in answered..sent {
        client.receive().unwrap().1.unwrap();
    }
    let due = sent * FAN as u64;
    assert!(crowd.until(Duration::from_secs(30), |heard| heard.messages == due), "{:?}", crowd.heard);
    rate
}

fn push_to_many() -> Command {
    Command::Push(text(user("many"), "x".repeat(100)))
}

/// `count` pushes at this rate; how many were accepted and how many `busy`.
fn push_at(client: &mut Client, crowd: &mut Crowd, per_second: u64, count: usize) -> (u64, u64) {
    let begun = Instant::now();
    let mut answers = BTreeMap::<&str, u64>::new();
    let (mut sent, count) = (0, count as u64);
    while answers.values().sum::<u64>() < count {
        let due = (begun.elapsed().as_micros() as u64 * per_second / 1_000_000).min(count);
        while sent < due {
            client.send(&push_to_many()).unwrap();
            sent += 1;
        }
        client.flush().unwrap();
        while let Some((_, answer)) = client.try_receive().unwrap() {
            *answers.entry(kind(answer)).or_default() += 1;
        }
        crowd.turn(Duration::ZERO);
        assert!(begun.elapsed() < Duration::from_secs(240), "{sent} sent, answers {answers:?}");
    }
    (answers.get("accepted").copied().unwrap_or(0), answers.get("busy").copied().unwrap_or(0))
}

/// What became of a push.
pub fn kind(answer: Result<Answer, corecast::control::command::CommandError>) -> &'static str {
    match answer {
        Ok(Answer::Pushed(_)) => "accepted",
        Err(refused) if refused.code == ErrorCode::Busy => "busy",
        other => panic!("{other:?} answers a push"),
    }
}
