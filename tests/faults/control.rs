//! Programs on the same host that misuse the control socket.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{Gateway, eventually};
use crate::scene::{Form, Scene};
use crate::table::Row;

/// What is sent, if anything, and then nothing more.
const SILENT: &[u8] = b"";
const HALF: &[u8] = b"POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Le";
/// `control.clients`.
const CLIENTS: usize = 64;
const BODY_BYTES: usize = 100 << 20;

/// Silent ones, half requests, a body of 100 MiB, some that never read, 1,000 at once, and a user who may
/// not: pushes that have their connection go on, and a new client gets in once a place is free.
pub fn misused(form: Form) -> Row {
    let good = form.of(50, 500);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[control]\nallow_uids = [0]\n").unwrap();
    let with_file = |command: &mut Command| {
        command.arg("--config").arg(file.path());
    };
    // So that 32 unread answers are less than the allocator may keep, and ten times as many are more.
    let settings = ["control.request_timeout=2s", "control.reply_bytes=128KiB"];
    let mut scene = Scene::prepared(form, &settings, good, with_file);
    scene.under(|scene| {
        refused_by_uid(scene);
        large_body(scene);
        unread_answers(scene);
        for words in [SILENT, HALF] {
            crowd(scene, words);
        }
    });
    scene.end("control socket misused", "6 ways, 1000 at once".to_owned(), 0, Some(0))
}

fn connect(gateway: &Gateway) -> UnixStream {
    let stream = UnixStream::connect(&gateway.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// 1,000 at once that then do nothing, or stop in the midst of a request: those beyond `control.clients` are
/// ended at once, half requests in time, and whoever asks afterwards is answered.
fn crowd(scene: &mut Scene, words: &[u8]) {
    let streams: Vec<UnixStream> = (0..1000)
        .map(|_| {
            let mut stream = connect(&scene.gateway);
            let _ = stream.write_all(words);
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    // The probes have a place of their own, and silence has no timeout.
    let least = if words.is_empty() { 1000 - CLIENTS } else { 1000 };
    let mut said = vec![Vec::new(); streams.len()];
    eventually("those without a place are ended", || {
        let ended = streams.iter().zip(&mut said).map(|(stream, said)| usize::from(has_ended(stream, said)));
        let ended: usize = ended.sum();
        (ended >= least).then_some(())
    });
    // Of the others some are told why; a close over what they wrote takes the words away, and so many need none.
    let busy = said.iter().filter(|said| String::from_utf8_lossy(said).contains("busy")).count();
    scene.expect(busy > 0 || !words.is_empty(), format_args!("{busy} of 1000 were told busy"));
    drop(streams);
    eventually("control answers again", || {
        Some(scene.gateway.cli(&["stats"])).filter(|output| output.status.success())
    });
}

/// Whether the gateway has ended it; reads what there is.
fn has_ended(mut stream: &UnixStream, said: &mut Vec<u8>) -> bool {
    let mut octets = [0; 1024];
    loop {
        match stream.read(&mut octets) {
            Ok(0) => return true,
            Ok(count) => said.extend_from_slice(&octets[..count]),
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// Judged by the announced length, before anything is read.
fn large_body(scene: &mut Scene) {
    let mut stream = connect(&scene.gateway);
    write!(stream, "POST /v1/push/all HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY_BYTES}\r\n\r\n").unwrap();
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..BODY_BYTES >> 20 {
        if stream.write_all(&piece).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    scene.expect(answer.contains("too_large"), format_args!("100 MiB were answered {answer:?}"));
}

/// 32 that ask for a second and read nothing: what they are owed is bounded (`control.reply_bytes`), as the
/// memory tells in the end.
fn unread_answers(scene: &mut Scene) {
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(64);
    let clients: Vec<UnixStream> = (0..32).map(|_| connect(&scene.gateway)).collect();
    clients.iter().for_each(|stream| stream.set_nonblocking(true).unwrap());
    let by = Instant::now() + Duration::from_secs(1);
    while Instant::now() < by {
        // A part of a request is as good: what follows it is none, and is answered as well.
        clients.iter().for_each(|mut stream| drop(stream.write(&request)));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The peer's user id is looked at even where the file's mode would let it in.
fn refused_by_uid(scene: &mut Scene) {
    for (path, mode) in [
        (scene.gateway.socket.clone(), 0o666),
        (scene.gateway.socket.parent().unwrap().to_owned(), 0o755),
        (scene.gateway.socket.parent().unwrap().parent().unwrap().to_owned(), 0o755),
    ] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    let socket = scene.gateway.socket.to_str().unwrap();
    let words = ["--reuid=65534", "--clear-groups", "curl", "-s", "-m", "5", "--unix-socket", socket];
    let mut strangers: Vec<_> = (0..50)
        .map(|_| {
            let mut command = Command::new("setpriv");
            command.args(words).arg("http://localhost/v1/stats").stdout(std::process::Stdio::piped());
            command.spawn().unwrap_or_else(|error| panic!("setpriv: {error}"))
        })
        .collect();
    let mut served = 0;
    for stranger in &mut strangers {
        let mut answer = String::new();
        let _ = stranger.stdout.as_mut().unwrap().read_to_string(&mut answer);
        let _ = stranger.wait();
        served += usize::from(answer.contains("totals"));
    }
    scene.expect(served == 0, format_args!("{served} of 50 strangers were served"));
}
