//! One shard stands still while the other serves.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use corecast::client::Client;
use corecast::control::command::Command as Asked;

use crate::harness::websocket::WebSocket;
use crate::harness::{Gateway, eventually};
use crate::readers::kind;
use crate::scene::{Form, Scene, text, user};
use crate::table::{Bound, Row};

/// Pushes that a mailbox holds.
const MAILBOX: usize = 1024;
/// What systemd would allow; a third of it is how often it is told.
const WATCHDOG: Duration = Duration::from_millis(600);
/// Issue 6: at most twice. The floor is what waking up on a machine with two cores takes.
const BOUND: Bound = Bound { ratio: 2.0, floor_ms: 5 };

/// One shard is frozen. The clients of the other notice nothing; pushers to it are answered `busy` once its
/// mailbox is full, and what was accepted arrives afterwards; the manager is not told that all is well.
pub fn frozen(form: Form, seconds: u64) -> Row {
    let good = form.of(50, 500);
    let directory = tempfile::tempdir().unwrap();
    let notes = hear_notes(&directory.path().join("notify"));
    let mailbox = format!("control.mailbox_messages={MAILBOX}");
    let settings = ["shards=2", &mailbox];
    let notify = |command: &mut Command| {
        command.env("NOTIFY_SOCKET", directory.path().join("notify"));
        command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    };
    let mut scene = Scene::on(form, &settings, "127.0.0.1:0", good, notify, |gateway, user| {
        shard_of(gateway, user) == '1'
    });
    // A short run is beside other tests.
    scene.bound = form.of(Bound { ratio: 20.0, floor_ms: 500 }, BOUND);
    let names = (0..).map(|n| format!("frozen-{n}"));
    let name = names.into_iter().find(|name| shard_of(&scene.gateway, name) == '0').unwrap();
    let mut listener = scene.gateway.raw(&format!("user={name}&heartbeat=600"));
    let mut client = Client::connect(&scene.gateway.socket).unwrap();
    scene.aside();
    let count = MAILBOX * 4;
    let (answers, alive) = scene.under(|scene| {
        let mut freezer = freeze(thread(&scene.gateway, "shard-0"), seconds);
        let frozen_at = Instant::now();
        for n in 0..count {
            client.send(&push(&name, n)).unwrap();
        }
        client.flush().unwrap();
        let mut answers = BTreeMap::<&str, usize>::new();
        // Those that have no room are answered while it stands still.
        while answers.values().sum::<usize>() < count - MAILBOX && freezer.try_wait().unwrap().is_none() {
            receive(&mut client, &mut answers);
        }
        let busy = answers.get("busy").copied().unwrap_or(0);
        scene.expect(busy >= count - MAILBOX, format_args!("{answers:?} of {count} while it stood still"));
        assert!(freezer.wait().unwrap().success(), "the thread could not be frozen");
        // It stood still for as long as it was told to at least.
        let thawed_at = frozen_at + Duration::from_secs(seconds);
        let alive =
            notes.try_iter().filter(|(at, note)| is_alive(note) && (frozen_at..thawed_at).contains(at));
        let alive = alive.count();
        (answers, alive)
    });
    // One round may have been under way.
    scene.expect(alive <= 1, format_args!("the manager was told {alive} times that it lives"));
    let exact = all_arrive(&mut scene, &mut client, &mut listener, answers, count);
    eventually("the manager is told that it lives again", || {
        notes.try_iter().find(|(_, note)| is_alive(note))
    });
    drop(listener);
    scene.expect(exact, "what was accepted did not arrive whole and in order");
    scene.end("one shard frozen", format!("{seconds} s, {count} pushes to it"), 1, None)
}

/// Asked of the gateway: it gives its users to shards by keys of its own.
pub fn shard_of(gateway: &Gateway, user: &str) -> char {
    let (_client, hello) = gateway.hello(&format!("user={user}"));
    hello["connection"].as_str().and_then(|id| id.chars().next()).expect("an id begins with its shard")
}

fn push(name: &str, n: usize) -> Asked {
    Asked::Push(text(user(name), format!("#{n}")))
}

fn receive(client: &mut Client, answers: &mut BTreeMap<&'static str, usize>) {
    match client.try_receive().unwrap() {
        Some((_, answer)) => *answers.entry(kind(answer)).or_default() += 1,
        None => std::thread::sleep(Duration::from_millis(1)),
    }
}

/// After the thaw: every push is answered, and the accepted ones arrive.
fn all_arrive(
    scene: &mut Scene,
    client: &mut Client,
    listener: &mut WebSocket,
    mut answers: BTreeMap<&'static str, usize>,
    count: usize,
) -> bool {
    let by = Instant::now() + Duration::from_secs(10);
    while answers.values().sum::<usize>() < count && Instant::now() < by {
        receive(client, &mut answers);
    }
    let accepted = answers.get("accepted").copied().unwrap_or(0);
    // A signalled eventfd and a shard that was in its turn: one batch may have been taken before.
    let bounded = (1..=2 * MAILBOX).contains(&accepted);
    scene.expect(bounded, format_args!("a mailbox of {MAILBOX} took {accepted}"));
    scene.expect(answers.values().sum::<usize>() == count, format_args!("{answers:?} of {count} answered"));
    let mut before = None;
    for _ in 0..accepted {
        let n: usize = listener.text()[1..].parse().unwrap();
        if before.is_some_and(|before| before >= n) {
            return false;
        }
        before = Some(n);
    }
    listener.nothing_waits();
    true
}

/// What the manager is told, and when, until nobody takes it.
fn hear_notes(path: &Path) -> Receiver<(Instant, String)> {
    let manager = UnixDatagram::bind(path).unwrap();
    manager.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let (tell, notes) = mpsc::channel();
    std::thread::spawn(move || {
        let mut note = [0; 4096];
        loop {
            let length = manager.recv(&mut note).unwrap_or(0);
            let words = String::from_utf8_lossy(&note[..length]).into_owned();
            if tell.send((Instant::now(), words)).is_err() {
                return;
            }
        }
    });
    notes
}

fn is_alive(note: &str) -> bool {
    note.trim_end() == "WATCHDOG=1"
}

/// The id of the thread that runs this shard. glommio names its helper threads like it; they came later.
fn thread(gateway: &Gateway, shard: &str) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
    let tasks = tasks.map(|task| task.unwrap().path());
    let of_shard = |task: &PathBuf| std::fs::read_to_string(task.join("comm")).unwrap().starts_with(shard);
    let number = |task: PathBuf| task.file_name().unwrap().to_str().unwrap().parse::<u32>().unwrap();
    tasks.filter(of_shard).map(number).min().expect("the shard has a thread").to_string()
}

/// Stops a thread for so long; it stands still when this returns.
fn freeze(thread: String, seconds: u64) -> Child {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/freeze.py");
    let mut command = Command::new("python3");
    command.args([script, &thread, &seconds.to_string()]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("python3: {error}"));
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "frozen\n", "ptrace is refused here");
    child
}
