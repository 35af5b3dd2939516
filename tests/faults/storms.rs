//! Many at once: more than before, more than may, all away together, and more than there are descriptors.

use std::time::Duration;

use crate::crowd::{Crowd, Manner};
use crate::scene::{Form, Scene, in_front};
use crate::table::Row;

const CONNECT_WITHIN: Duration = Duration::from_secs(120);

/// 19,000 come at once beside 500 that are there.
pub fn storm(form: Form) -> Row {
    let (good, count) = form.of((100, 2000), (500, 19_000));
    let mut scene = Scene::begin(form, &[], good);
    let mut crowd = scene.under(|scene| {
        Crowd::open(scene.gateway.address, count, Manner::default(), CONNECT_WITHIN, |n| {
            format!("user=u{n}&topics=storm&heartbeat=600")
        })
    });
    let opened = crowd.heard.opened;
    scene.expect(opened == count, format_args!("{opened} of {count} got in: {:?}", crowd.heard));
    crowd.reset_all();
    scene.end("storm of new clients", format!("{count} beside {good}"), count, Some(count))
}

/// 10,000 want in where 5,000 may be: the others are told 503, and nobody who is in is disturbed.
pub fn over_the_cap(form: Form) -> Row {
    let (good, count, cap) = form.of((100, 1000, 500), (250, 10_000, 5000));
    let limit = format!("limits.connections={cap}");
    let mut scene = Scene::begin(form, &[&limit], good);
    let mut crowd = scene.under(|scene| {
        Crowd::open(scene.gateway.address, count, Manner::default(), CONNECT_WITHIN, |n| {
            format!("user=u{n}&heartbeat=600")
        })
    });
    let room = cap - good;
    let heard = &crowd.heard;
    let refused = heard.refused.get(&503).copied().unwrap_or(0);
    let exact = heard.opened == room && refused == count - room;
    scene.expect(exact, format_args!("room for {room} of {count}: {heard:?}"));
    let connections = scene.gateway.totals()["connections"].as_u64();
    scene.expect(connections == Some(cap as u64), format_args!("{connections:?} connections, cap {cap}"));
    crowd.reset_all();
    scene.end("more than limits.connections", format!("{count} for {cap}"), count, Some(count))
}

/// 10,000 reset at once, twenty times.
pub fn resets(form: Form) -> Row {
    let (good, count, rounds) = form.of((100, 1000, 3), (500, 10_000, 20));
    let mut scene = Scene::begin(form, &[], good);
    scene.under(|scene| {
        for _ in 0..rounds {
            let address = scene.gateway.address;
            let mut crowd = Crowd::open(address, count, Manner::default(), CONNECT_WITHIN, |n| {
                format!("user=u{n}&topics=t{}&heartbeat=600", n % 100)
            });
            let opened = crowd.heard.opened;
            scene.expect(opened == count, format_args!("{opened} of {count} got in"));
            crowd.reset_all();
        }
    });
    scene.end("resets at once", format!("{rounds} x {count}"), count, Some(count * rounds))
}

/// Opens so many descriptors under so low a limit, and becomes what follows: a gateway in which something leaks.
const LEAK: &str = "import os, resource, sys
limit, leaked = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
for number in range(leaked):
    os.dup2(0, 10 + number, True)
os.execv(sys.argv[3], sys.argv[3:])";

/// No descriptor is left while clients keep coming: those that are in stay in, and as others go those that
/// wait get in.
///
/// `limits.connections` leaves a reserve, so that it takes descriptors that nobody knows of. Lowering the limit
/// of a gateway that runs would not do: an accept that is armed keeps the limit that it was armed under.
pub fn no_descriptors(form: Form) -> Row {
    let (good, count, leaked, limit) = form.of((100, 600, 400, 1024), (500, 7000, 3000, 8192));
    let numbers = [limit.to_string(), leaked.to_string()];
    let words = ["python3", "-c", LEAK, &numbers[0], &numbers[1]];
    let mut scene = Scene::prepared(form, &[], good, |command| in_front(command, &words));
    let room = limit - scene.descriptors();
    let mut crowd = scene.under(|scene| {
        let mut crowd = Crowd::begin(scene.gateway.address, count, Manner::default(), |n| {
            format!("user=u{n}&heartbeat=600")
        });
        crowd.until(scene.form.watch(), |heard| heard.opened > room);
        let opened = crowd.heard.opened;
        let full = room.abs_diff(opened) <= 4;
        scene.expect(full, format_args!("{opened} in {room} descriptors: {:?}", crowd.heard));
        crowd
    });
    crowd.reset_open(count - room + 50);
    let all = crowd.until(CONNECT_WITHIN, |heard| heard.opened == count);
    scene.expect(all, format_args!("with descriptors again: {:?}", crowd.heard));
    let errors = scene.gateway.totals()["accept_errors"]["EMFILE"].as_u64().unwrap();
    scene.expect(errors > 0, "no accept failed: the fault did not happen");
    crowd.reset_all();
    scene.end("EMFILE", format!("{count} for {room} descriptors"), count, Some(count))
}
