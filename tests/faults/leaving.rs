//! The way out with everybody there.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::crowd::{Crowd, Manner};
use crate::scene::{Form, Scene, balance};
use crate::table::Row;

const CONNECT_WITHIN: Duration = Duration::from_secs(120);
/// Reads nothing at all.
const SLOW: Manner = Manner { receive_bytes: 4096, rude: true };
/// Reads, and answers nothing.
const DEAD: Manner = Manner { receive_bytes: 0, rude: true };

/// SIGTERM with 19,000 up: each that reads is told 1012 before its end, nobody holds up the process for
/// longer than the drain and the close may take, and it ends with status 0.
pub fn sigterm(form: Form) -> Row {
    let (good, polite, others, drain_s) = form.of((100, 900, 50, 2), (500, 17_500, 500, 10));
    let drain = format!("timeouts.drain={drain_s}s");
    let mut scene = Scene::begin(form, &[&drain, "timeouts.close=2s"], good);
    let address = scene.gateway.address;
    let open = |name: &'static str, count, manner| {
        Crowd::open(address, count, manner, CONNECT_WITHIN, |n| format!("user={name}{n}&heartbeat=600"))
    };
    let mut crowd = open("polite", polite, Manner::default());
    let mut slow = open("slow", others, SLOW);
    slow.mute(0);
    let mut dead = open("dead", others, DEAD);
    let count = polite + 2 * others;
    scene.aside();
    // Until the first of them are told: what is pushed to who is gone reaches nobody.
    scene.under(|scene| {
        // They answer pings meanwhile.
        crowd.until(scene.form.watch(), |_| false);
        dead.turn(Duration::ZERO);
    });
    let begun = Instant::now();
    scene.gateway.signal(Signal::TERM);
    let within = Duration::from_secs(drain_s + 10);
    let told = crowd.until(within, |heard| heard.ended == polite);
    let heard = &crowd.heard;
    let all_told = heard.closed.get(&1012) == Some(&polite);
    scene.expect(told && all_told, format_args!("{polite} were to be told 1012: {heard:?}"));
    dead.until(within, |heard| heard.ended == others);
    scene.expect(
        dead.heard.closed.get(&1012) == Some(&others),
        format_args!("{others} that do not answer were to be told 1012: {:?}", dead.heard),
    );
    // Some stay until `timeouts.close`: until then the counters may be asked for.
    let exact = adds_up(&scene);
    scene.expect(exact, "the counters do not add up during the drain");
    let status = scene.gateway.ended();
    let took = begun.elapsed();
    scene.expect(took < within, format_args!("{status} after {took:?}"));
    let closed = scene.good_closed();
    scene.expect(closed.get(&1012) == Some(&good), format_args!("{good} good ones were told {closed:?}"));
    let size = format!("{} up, ended after {:.1} s", count + good, took.as_secs_f64());
    scene.row("SIGTERM", size, exact, Some(took))
}

/// Whether what is accepted is open or closed, on a gateway that may end any moment.
fn adds_up(scene: &Scene) -> bool {
    (0..20).any(|_| {
        let output = scene.gateway.cli(&["stats", "--json"]);
        let stats: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        // Connections on their way from one shard to the other are nowhere for a moment.
        stats.is_some_and(|stats| balance(&stats["totals"]) == 0)
    })
}
