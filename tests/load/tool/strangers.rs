//! Servers that nobody here wrote: nginx, and Python's `websockets`.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use tempfile::TempDir;

use crate::bench::{Run, bench, beside};
use crate::guest::{Guest, eventually, python};
use crate::process::server;

/// nginx in the foreground, alone in its directory, with what it logs.
struct Nginx {
    guest: Guest,
    address: SocketAddr,
}

const CONFIGURATION: &str = r#"
daemon off;
master_process off;
pid nginx.pid;
events { worker_connections 512; }
http {
    log_format counted '$status $bytes_sent $request_length $connection';
    access_log access.log counted;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen ADDRESS;
        keepalive_requests 50;
        location /json { default_type application/json; return 200 '{"ok":true,"from":"nginx"}'; }
        location /file { root .; }
        location /missing { return 404; }
    }
}
"#;

impl Nginx {
    /// On a port that was free a moment ago, and on another where somebody was quicker.
    fn start() -> Self {
        for _ in 0..5 {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("nginx.conf");
            fs::write(&file, CONFIGURATION.replace("ADDRESS", &address.to_string())).unwrap();
            fs::write(directory.path().join("file"), "0123456789".repeat(20_000)).unwrap();
            let mut command = server("nginx");
            command.arg("-p").arg(directory.path()).arg("-c").arg(file).args(["-e", "stderr"]);
            let mut guest = Guest::start(&mut command, directory);
            let listens = || match TcpStream::connect(address) {
                Ok(_) => Some(guest.runs()),
                Err(_) => (!guest.runs()).then_some(false),
            };
            if eventually("nginx listens, or has ended", listens) {
                return Self { guest, address };
            }
        }
        panic!("nginx does not start");
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Status, bytes sent, bytes received and connection of each request, once there are `count`.
    fn log(&self, count: usize) -> Vec<[u64; 4]> {
        eventually("nginx has logged every request", || {
            let text = fs::read_to_string(self.guest.directory.path().join("access.log")).unwrap();
            let number = |word: &str| word.parse().unwrap();
            let line = |line: &str| line.split(' ').map(number).collect::<Vec<u64>>().try_into().unwrap();
            let lines: Vec<[u64; 4]> = text.lines().map(line).collect();
            (lines.len() >= count).then_some(lines)
        })
    }
}

#[test]
fn nginx_answers_and_counts_the_same_requests_and_bytes() {
    let _machine = beside();
    let server = Nginx::start();
    let exact = [&*server.url("/json"), "--check", "json:$.from=nginx", "--check", "status=200"];
    let run = bench("request", &exact, "-c 4 -n 400");
    run.exits(0);
    run.has(&[("sent", 400), ("succeeded", 400), ("unsuccessful", 0), ("failed", 0), ("dropped", 0)]);
    run.ended_as(&[("status 200", 400)]);
    let log = server.log(400);
    let sum = |column: usize| log.iter().map(|line| line[column]).sum::<u64>();
    assert_eq!((log.len(), sum(1), sum(2)), (400, run.total("bytes_in"), run.total("bytes_out")));
    // It ends each connection after fifty requests, and nobody fails of that.
    let connections: BTreeSet<u64> = log.iter().map(|line| line[3]).collect();
    assert!((8..=12).contains(&connections.len()), "{connections:?}");
}

#[test]
fn nginx_serves_a_file_of_200_kb_in_open_loop() {
    let _machine = beside();
    let server = Nginx::start();
    let run = bench(
        "request",
        &[&server.url("/file"), "--check", "contains=0123456789"],
        "-c 4 -n 60 --rate 100/s",
    );
    run.exits(0);
    run.has(&[("succeeded", 60)]);
    assert!(run.total("payload_bytes") >= 60 * 200_000, "{}", run.said());
}

#[test]
fn nginx_says_404_and_the_tool_says_so() {
    let _machine = beside();
    let server = Nginx::start();
    let run = bench("request", &[&server.url("/missing")], "-c 2 -n 50 --check status=200 --no-keep-alive");
    run.exits(1);
    run.has(&[("succeeded", 0), ("unsuccessful", 50)]);
    assert_eq!(run.outcome("status 404"), 50, "{}", run.said());
    let log = server.log(50);
    let connections: BTreeSet<u64> = log.iter().map(|line| line[3]).collect();
    assert_eq!((log.len(), connections.len()), (50, 50));
}

/// Python's `websockets` as a push server: where to listen, where to publish.
fn websockets() -> (Guest, u16, u16) {
    let directory: TempDir = tempfile::tempdir().unwrap();
    let mut command = Command::new(python());
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/load/tool/broadcast.py"));
    let mut guest = Guest::start(&mut command, directory);
    let line = guest.line();
    let (listen, publish) = line.split_once(' ').unwrap();
    (guest, listen.parse().unwrap(), publish.parse().unwrap())
}

#[test]
fn python_websockets_echoes_in_both_loops() {
    let _machine = beside();
    let (_guest, port, _) = websockets();
    let url = format!("ws://127.0.0.1:{port}/echo");
    for words in ["-c 10 -n 500", "-c 10 -n 300 --rate 600/s", "-c 3 -n 30 -s 70000 --binary"] {
        let run: Run = bench("echo", &[&url], words);
        run.exits(0);
        let requests = words.split(' ').nth(3).unwrap().parse().unwrap();
        run.has(&[("sent", requests), ("succeeded", requests), ("unsuccessful", 0), ("dropped", 0)]);
        assert_eq!(run.timed("response"), requests);
    }
}

#[test]
fn python_websockets_broadcasts_and_nothing_is_lost() {
    let _machine = beside();
    let (guest, listen, publish) = websockets();
    let url = format!("ws://127.0.0.1:{listen}/listen");
    let exact = [&*url, "--publish", "http", "--publish-url", &format!("http://127.0.0.1:{publish}/")];
    let run = bench("fanout", &exact, &format!("-c 30 -m 100 --rate 200/s --pid {}", guest.pid()));
    run.exits(0);
    // What it cost Python, by the kernel's account.
    let cost = &run.report["server"];
    let figure = |name: &str| cost[name].as_f64().unwrap_or_else(|| panic!("no {name}: {cost}"));
    assert_eq!((&cost["pid"], cost["name"].as_str().is_some()), (&guest.pid().into(), true), "{cost}");
    assert!(figure("rss_open_bytes") > 5e6 && figure("work_cpu_s") > 0.01, "{cost}");
    let per_million = figure("work_cpu_s") / 3000.0 * 1e6;
    assert!((figure("cpu_s_per_million") / per_million - 1.0).abs() < 0.01, "{cost}");
    run.has(&[("opened", 30), ("messages", 3000), ("payload_bytes", 3000 * 256)]);
    run.has(&[("lost", 0), ("duplicated", 0), ("reordered", 0), ("unstamped", 0)]);
}

#[test]
fn a_server_that_is_killed_is_seen_as_every_connection_s_end() {
    let _machine = beside();
    let (guest, listen, _) = websockets();
    let url = format!("ws://127.0.0.1:{listen}/listen");
    let running = crate::bench::start("hold", &[&url], "-c 12 --for 2s");
    eventually("twelve are connected", || {
        let count = established(listen);
        (count == 12).then_some(())
    });
    drop(guest);
    let run = running.ended();
    run.exits(1);
    run.has(&[("opened", 12), ("dropped", 12)]);
    let ends = run.outcome("error ended") + run.outcome("error reset");
    assert_eq!(ends, 12, "{}", run.said());
}

/// Established connections whose local port is `port` (state 01 of /proc/net/tcp).
fn established(port: u16) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    let is_ours = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words[1].ends_with(&local) && words[3] == "01"
    };
    table.lines().skip(1).filter(is_ours).count()
}
