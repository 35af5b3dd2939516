//! The wall clock jumps: a day back, ten years on (libfaketime, Debian's `faketime`).

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::harness::eventually;
use crate::scene::{Form, Scene};
use crate::table::Row;

const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

/// Nobody is closed, no probe is late, and what was pushed before is still held for who resumes.
pub fn jumps(form: Form) -> Row {
    let good = form.of(100, 5000);
    let library = LIBRARIES.into_iter().find(|path| Path::new(path).exists());
    let library = library.expect("no libfaketime: install it with tests/faults/install.sh");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("offset");
    std::fs::write(&file, "+0").unwrap();
    let mut scene = Scene::prepared(form, &[], good, |command| {
        command.env("LD_PRELOAD", library);
        command.env("FAKETIME_TIMESTAMP_FILE", &file);
        // The file is read at every look at the clock; monotonic clocks are left alone, as by settimeofday(2).
        command.envs([("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);
    });
    let mut watcher = scene.gateway.raw("user=watcher&topics=kept&heartbeat=600");
    let before = scene.gateway.push(json!({"user": "watcher"}), json!("before"));
    let since = before["position"].as_str().unwrap().to_owned();
    let kept = json!({"to": {"topic": "kept"}, "data": "kept", "ttl_ms": 3_600_000});
    scene.gateway.push_with(kept);
    assert_eq!((watcher.text(), watcher.text()), ("\"before\"".to_owned(), "\"kept\"".to_owned()));
    let year = logged_year(&mut scene);
    scene.aside();
    for (offset, years) in [("-1d", 0), ("+3650d", 10)] {
        scene.under(|scene| {
            std::fs::write(&file, offset).unwrap();
            let now = logged_year(scene);
            // New Year may lie between.
            let jumped = now.abs_diff(year + years) <= 1;
            scene.expect(jumped, format_args!("{offset}: the year is {now}, it was {year}"));
            let (mut back, _) = scene.gateway.hello(&format!("topics=kept&since={since}&heartbeat=600"));
            let resumed = back.expect("resumed");
            let held = resumed["replayed"] == 1 && resumed["gap"] == false;
            scene.expect(held, format_args!("{offset}: a resume is answered {resumed}"));
            std::thread::sleep(Duration::from_millis(500));
        });
    }
    watcher.nothing_waits();
    drop(watcher);
    scene.end("wall clock jumps", format!("{good}, -1 day, +10 years"), 1, None)
}

/// The year by which the gateway's log goes: a reload writes a line.
fn logged_year(scene: &mut Scene) -> u64 {
    let lines = scene.gateway.said().lines().count();
    scene.gateway.signal(Signal::HUP);
    eventually("a reload is logged", || {
        let said = scene.gateway.said();
        said.lines().skip(lines).find_map(|line| line.get(..4)?.parse().ok())
    })
}
