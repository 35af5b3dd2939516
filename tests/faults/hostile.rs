//! Clients that mean ill: a tool of others that sends and reads slowly, and WebSockets that break every rule.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::crowd::{Crowd, Manner};
use crate::harness::guest::Guest;
use crate::harness::websocket::{BINARY, CLOSE, CONTINUATION, PING, TEXT, frame};
use crate::readers::closed;
use crate::scene::{Form, Scene};
use crate::table::Row;

const CONNECT_WITHIN: Duration = Duration::from_secs(120);

/// slowhttptest (Debian's): slow heads, slow bodies, slow readers. Each is ended in time, and who connects
/// meanwhile is served.
pub fn slow_http(form: Form) -> Row {
    let (good, count, seconds) = form.of((100, 200, "4"), (500, 3000, "20"));
    let mut scene = Scene::begin(form, &["timeouts.handshake=2s", "timeouts.send=2s"], good);
    let count_text = count.to_string();
    scene.under(|scene| {
        for mode in ["-H", "-B", "-X"] {
            let url = format!("http://{}/sse?topics=t&user=slow", scene.gateway.address);
            let mut command = Command::new("slowhttptest");
            command.args([mode, "-c", &count_text, "-r", &count_text, "-l", seconds, "-i", "1", "-p", "1"]);
            // Slow reading: a window of 1 to 10 octets, of which 5 are taken every second.
            command.args(if mode == "-X" { &["-w", "1", "-y", "10", "-n", "1", "-z", "5"][..] } else { &[] });
            let mut guest = Guest::spawn(command.args(["-u", &url]).stdout(Stdio::null()));
            while guest.0.try_wait().unwrap().is_none() {
                // Served, whatever it does.
                scene.gateway.raw("user=passing").close();
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    });
    let ended = closed(&scene, "handshake_timeout") + closed(&scene, "refused");
    let least = 2 * count as u64 * 9 / 10;
    scene.expect(ended >= least, format_args!("{ended} slow ones were ended, at least {least} came"));
    scene.end("slowhttptest", format!("3 x {count}"), count, None)
}

/// One way to be hostile: what is sent first, what again and again, and as what it is closed; `None` where
/// that is none of the gateway's business.
type Way = (&'static str, Vec<u8>, Vec<u8>, &'static str);

fn ways() -> Vec<Way> {
    let mut bad_utf8 = vec![b'x'; 1000];
    bad_utf8[999] = 0xff;
    let mut unmasked = frame(true, TEXT, b"hello");
    unmasked[1] &= 0x7f;
    vec![
        ("endless fragments", frame(false, BINARY, b"x"), frame(false, CONTINUATION, b"x"), "policy"),
        ("a flood of pings", vec![], frame(true, PING, &[b'p'; 125]).repeat(64), ""),
        ("frames of one octet", vec![], frame(true, BINARY, b"x").repeat(64), ""),
        ("no mask", vec![], unmasked, "protocol_error"),
        ("bad UTF-8 in the last octet", vec![], frame(true, TEXT, &bad_utf8), "bad_utf8"),
        ("close and stay", frame(true, CLOSE, &[3, 232]), frame(true, TEXT, b"still here"), "peer_closed"),
    ]
}

/// 500 that break every rule without a pause beside 4,500 that keep them.
pub fn websockets(form: Form) -> Row {
    let (good, count) = form.of((450, 60), (4500, 500));
    let mut scene = Scene::begin(form, &["timeouts.close=1s"], good);
    let ways = ways();
    let mut crowd = Crowd::open(scene.gateway.address, count, RUDE, CONNECT_WITHIN, |n| {
        format!("user=hostile-{n}&heartbeat=600")
    });
    scene.aside();
    scene.under(|scene| {
        for n in 0..count {
            crowd.send(n, &ways[n % ways.len()].1);
        }
        let by = Instant::now() + scene.form.of(Duration::from_secs(4), Duration::from_secs(20));
        while Instant::now() < by {
            for n in 0..count {
                crowd.send(n, &ways[n % ways.len()].2);
            }
            crowd.turn(Duration::ZERO);
        }
    });
    for (way, _, _, reason) in ways.iter().filter(|way| !way.3.is_empty()) {
        let (ended, due) = (closed(&scene, reason), (count / ways.len()) as u64);
        scene.expect(ended >= due, format_args!("{way}: {ended} closed as {reason}, {due} were due"));
    }
    crowd.reset_all();
    scene.end("hostile WebSockets", format!("{count} beside {good}"), count, Some(count))
}

const RUDE: Manner = Manner { receive_bytes: 0, rude: true };
