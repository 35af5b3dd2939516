//! `corecast profile`: where a gateway under load spends its time, by perf(1).

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use corecast::control::command::Push;
use corecast::message::{Kind, Target};

use crate::harness::guest::INSTALL;
use crate::harness::{Gateway, stderr, stdout};

/// Pushes to 40 clients that read, while `run` runs.
fn under_load<T>(gateway: &Gateway, run: impl FnOnce() -> T) -> T {
    let streams: Vec<_> = (0..40).map(|_| gateway.raw("topics=news").stream).collect();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for mut stream in &streams {
            scope.spawn(move || while stream.read(&mut [0; 65_536]).is_ok_and(|read| read > 0) {});
        }
        let mut client = gateway.client();
        let payload = bytes::Bytes::from_static(&[b'x'; 256]);
        let target = Target::Topic("news".parse().unwrap());
        let push = Push { target, kind: Kind::Text, payload, event: None, ttl_ms: None, id: None };
        let over = &over;
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                client.push(push.clone()).unwrap();
            }
        });
        let done = run();
        over.store(true, Ordering::Relaxed);
        // Ends the readers.
        streams.iter().for_each(|stream| drop(stream.shutdown(std::net::Shutdown::Both)));
        done
    })
}

#[test]
fn issue_7_a_profile_of_a_gateway_under_load_names_the_send_path() {
    let gateway = Gateway::start(&["shards=1"]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("flame.svg");
    let output = under_load(&gateway, || gateway.cli(&["profile", "2s", "--output", file.to_str().unwrap()]));
    assert_eq!(output.status.code(), Some(0), "{}; {INSTALL}", stderr(&output));
    let svg = std::fs::read_to_string(&file).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    // In a release build most of what these call is a part of them.
    for name in ["<title>shard-0-1: ", "corecast::shard::sending::", "<title>control"] {
        assert!(svg.contains(name), "no {name}");
    }
    let mut printed = stdout(&output).lines();
    let first = printed.next().unwrap();
    assert!(first.starts_with(&file.display().to_string()) && first.ends_with(" samples in 2s"), "{first}");
    assert_eq!(printed.next(), Some("ITSELF  FUNCTION"));
    // It has been looked at from outside: nothing is left of it, and it goes on.
    assert_eq!(gateway.get("/v1/stats")["draining"], false);
}

#[test]
fn issue_7_a_profile_of_nothing_says_so_and_writes_no_file() {
    let gateway = Gateway::start(&["shards=1"]);
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], path: Option<&str>| {
        let mut command = gateway.cli_command(&[&["profile", "100ms"], arguments].concat());
        path.map(|path| command.env("PATH", path));
        command.current_dir(&directory).output().unwrap()
    };
    let absent = run(&[], Some("/nonexistent"));
    assert_eq!(absent.status.code(), Some(1));
    assert!(stderr(&absent).contains("there is no perf on this host"), "{}", stderr(&absent));
    // Beyond the largest that Linux gives (proc(5), pid_max).
    let stranger = run(&["--pid", "4194305"], None);
    assert_eq!(stranger.status.code(), Some(1));
    assert!(stderr(&stranger).contains("perf cannot sample process 4194305"), "{}", stderr(&stranger));
    assert_eq!(run(&["--frequency", "1000"], None).status.code(), Some(2));
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}
