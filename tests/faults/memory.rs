//! A gateway that may use 256 MiB, and everything that fills memory.
//!
//! A memory cgroup, of version 1 or 2, needs root.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use corecast::client::Client;

use crate::crowd::{Crowd, Manner};
use crate::harness::eventually;
use crate::scene::{Form, Scene, in_front, text, topic};
use crate::table::Row;

const LIMIT_BYTES: u64 = 256 << 20;
const CONNECT_WITHIN: Duration = Duration::from_secs(120);
const SLOW: Manner = Manner { receive_bytes: 4096, rude: true };

/// A cgroup that goes with the test.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Self {
        let (root, limit) = if Path::new("/sys/fs/cgroup/memory").is_dir() {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            ("/sys/fs/cgroup", "memory.max")
        };
        let path = Path::new(root).join(format!("corecast-faults-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let cgroup = Self(path);
        std::fs::write(cgroup.0.join(limit), LIMIT_BYTES.to_string()).unwrap();
        cgroup
    }

    fn processes(&self) -> String {
        self.0.join("cgroup.procs").display().to_string()
    }

    /// The times that the kernel killed for it.
    fn kills(&self) -> u64 {
        let read = |name| std::fs::read_to_string(self.0.join(name)).ok();
        let text = read("memory.oom_control").or_else(|| read("memory.events")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.unwrap().trim().parse().unwrap()
    }

    /// The most that was in use.
    fn peak_mib(&self) -> u64 {
        let read = |name| std::fs::read_to_string(self.0.join(name)).ok();
        let peak = read("memory.max_usage_in_bytes").or_else(|| read("memory.peak")).unwrap();
        peak.trim().parse::<u64>().unwrap() >> 20
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its last process may not be gone yet.
        eventually("the cgroup is empty", || std::fs::remove_dir(&self.0).ok());
    }
}

/// Clients that do not read, a history that fills, and more clients that want in: the
/// gateway lives, and the good ones are served.
pub fn capped(form: Form) -> Row {
    let (good, slow) = form.of((100, 500), (500, 5000));
    let cgroup = Cgroup::new();
    let enter = format!("echo $$ > {} && exec \"$0\" \"$@\"", cgroup.processes());
    // As it is by default: it alone may hold all of the memory.
    let settings = ["history.bytes=64MiB", "history.messages=100000", "limits.send_backlog_bytes=64MiB"];
    let mut scene =
        Scene::prepared(form, &settings, good, |command| in_front(command, &["sh", "-c", &enter]));
    let begin = |scene: &Scene, name: &'static str| {
        Crowd::open(scene.gateway.address, slow, SLOW, CONNECT_WITHIN, |n| {
            format!("user={name}-{n}&topics=flood&heartbeat=600")
        })
    };
    let mut crowd = begin(&scene, "slow");
    crowd.mute(0);
    scene.aside();
    let mut more = scene.under(|scene| {
        let mut client = Client::connect(&scene.gateway.socket).unwrap();
        let by = Instant::now() + form.of(Duration::from_secs(4), Duration::from_secs(20));
        // 64 MiB of payload and more, so that the tape is full; each is one of many messages a connection has
        // not been sent.
        for n in 0..2200 {
            if Instant::now() >= by {
                break;
            }
            client.push(text(topic("flood"), format!("#{n:32000}"))).unwrap();
        }
        begin(scene, "more")
    });
    scene.expect(cgroup.kills() == 0, "the kernel killed it for want of memory");
    crowd.reset_all();
    more.reset_all();
    // The tape stays: it is within `history.bytes`, and as much again of what was encoded, for each shard.
    scene.kept_bytes += 256 << 20;
    let size = format!("{} of 256 MiB, {slow} that do not read", cgroup.peak_mib());
    let row = scene.end("memory capped", size, 2 * slow, Some(2 * slow));
    drop(cgroup);
    row
}
