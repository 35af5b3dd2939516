//! Clients whose network is gone: no FIN, no reset, no answer.
//!
//! The gateway and the good ones live in a network namespace of their own, the others in a second one at the
//! end of a virtual cable (veth(4)), which is pulled. Needs root.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use corecast::client::Client;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::crowd::{Crowd, Manner};
use crate::harness::eventually;
use crate::harness::guest::Guest;
use crate::readers::closed;
use crate::scene::{Form, Scene, text, topic};
use crate::table::Row;

const CONNECT_WITHIN: Duration = Duration::from_secs(60);
/// Heartbeat and pong of those that vanish, and as long for the clock's sweep.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

/// A network namespace, and the process that keeps it.
struct Network(Guest);

impl Network {
    fn new() -> Self {
        let network = Self(Guest::spawn(Command::new("unshare").args(["--net", "sleep", "infinity"])));
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        eventually("a network namespace (needs root)", || {
            std::fs::read_link(network.path()).ok().filter(|theirs| *theirs != ours)
        });
        network
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.0.id())
    }

    /// Moves this thread, and those that it starts, into it.
    fn enter(&self) {
        let file = File::open(self.path()).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Runs `ip` in it.
    #[track_caller]
    fn ip(&self, words: &str) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("ip").args(words.split(' '));
        let output = command.output().unwrap();
        assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// 2,000 of 10,000 vanish. Their connections end within the time of their heartbeat; the others, and who
/// pushes, notice nothing.
pub fn vanish(form: Form) -> Row {
    let (near, far) = (Network::new(), Network::new());
    near.ip(&format!("link add near type veth peer name far netns {}", far.0.0.id()));
    for (network, end, address) in [(&near, "near", "10.99.0.1/24"), (&far, "far", "10.99.0.2/24")] {
        network.ip("link set lo up");
        network.ip(&format!("address add {address} dev {end}"));
        network.ip(&format!("link set {end} up"));
    }
    // A thread, because a namespace is one's own for good.
    std::thread::scope(|scope| scope.spawn(|| cut_cable(form, &near, &far)).join().unwrap())
}

fn cut_cable(form: Form, near: &Network, far: &Network) -> Row {
    near.enter();
    let (good, count) = form.of((400, 100), (8000, 2000));
    let settings = ["timeouts.heartbeat_min=2s", "timeouts.pong=1s", "timeouts.heartbeat=5s"];
    let mut scene = Scene::on(form, &settings, "0.0.0.0:0", good, |_| {}, |_, _| true);
    let address = SocketAddr::from(([10, 99, 0, 1], scene.gateway.address.port()));
    let connect = || {
        far.enter();
        Crowd::open(address, count, Manner::default(), CONNECT_WITHIN, |n| {
            format!("user=u{n}&topics=far&heartbeat=2")
        })
    };
    let mut crowd = std::thread::scope(|scope| scope.spawn(connect).join().unwrap());
    let opened = crowd.heard.opened;
    scene.expect(opened == count, format_args!("{opened} of {count} got in"));
    scene.aside();
    let told_after = scene.under(|scene| {
        far.ip("link set far down");
        let begun = Instant::now();
        let mut client = Client::connect(&scene.gateway.socket).unwrap();
        // What is on its way to them is held by the kernel, unconfirmed.
        client.push(text(topic("far"), "is anybody there")).unwrap();
        let gone = |scene: &Scene| closed(scene, "heartbeat_missed") + closed(scene, "peer_gone");
        while gone(scene) < count as u64 && begun.elapsed() < TOLD_WITHIN {
            std::thread::sleep(Duration::from_millis(100));
        }
        let gone = gone(scene);
        scene.expect(gone == count as u64, format_args!("{gone} of {count} were missed in {TOLD_WITHIN:?}"));
        begun.elapsed()
    });
    crowd.reset_all();
    let size = format!("{count} of {}, all missed after {:.1} s", good + count, told_after.as_secs_f64());
    scene.end("clients vanish without FIN", size, count, Some(count))
}
