//! The start: what it says, and each thing that keeps it from happening, with its exit status.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::harness::{Gateway, corecast, refused_start, stderr, stdout};

/// Statuses of `corecast::fatal`, and of wrong configuration.
const CONFIGURATION: i32 = 2;
const MEMLOCK: i32 = 13;
const PORT_TAKEN: i32 = 14;
const ADDRESS: i32 = 15;
const SOCKET_LIVE: i32 = 16;
const SOCKET_FOREIGN: i32 = 17;
const SOCKET_PATH: i32 = 18;
const DESCRIPTORS: i32 = 19;

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Starts with this socket and these arguments, and must not.
#[track_caller]
fn refused(socket: &Path, arguments: &[&str]) -> (i32, String) {
    let (status, said) = refused_start(|command| {
        command.arg("--socket").arg(socket).args(["--listen", "127.0.0.1:0"]).args(arguments);
    });
    assert!(said.contains("corecast: "), "{said}");
    (status, said)
}

#[test]
fn contract_3_the_socket_has_mode_0660_in_a_0750_directory_and_goes_with_the_gateway() {
    let mut gateway = Gateway::start(&[]);
    assert_eq!(mode(&gateway.socket), 0o660);
    assert_eq!(mode(gateway.socket.parent().unwrap()), 0o750);
    gateway.signal(rustix::process::Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0));
    assert!(!gateway.socket.exists());
}

#[test]
fn issue_2_the_start_says_what_listens_where_and_gives_pushes_that_work() {
    let mut gateway = Gateway::start(&[]);
    let mut client = gateway.raw("user=alice&topics=news");
    let socket = gateway.socket.display().to_string();
    let said = crate::harness::eventually("all is said", || {
        Some(gateway.said()).filter(|said| said.contains("corecast: or "))
    });
    assert!(said.contains(&format!("ws://{}/ws", gateway.address)), "{said}");
    assert!(said.contains(&format!("control   {socket}\n")), "{said}");
    let line = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(&format!("corecast: {name}"))).unwrap();
        line.trim().to_owned()
    };
    // As a user would paste them, with the binary under test in place of the installed one.
    let binary = env!("CARGO_BIN_EXE_corecast");
    for typed in [line("try").replacen("corecast", binary, 1), line("or")] {
        let output = std::process::Command::new("sh").args(["-c", &typed]).output().unwrap();
        assert!(output.status.success(), "{typed}: {}{}", stdout(&output), stderr(&output));
        assert_eq!(client.text().trim_matches('"'), "hello");
    }
}

#[test]
fn contract_3_a_stale_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    // std leaves the file behind.
    drop(UnixListener::bind(&socket).unwrap());
    let mut child = corecast()
        .args(["serve", "--listen", "127.0.0.1:0", "--shards", "1", "--socket"])
        .arg(&socket)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    crate::harness::eventually("it answers", || corecast::client::Client::connect(&socket).ok());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn contract_3_a_live_gateway_at_the_socket_refuses_the_start_and_goes_on() {
    let gateway = Gateway::start(&[]);
    let (status, said) = refused(&gateway.socket, &[]);
    assert_eq!(status, SOCKET_LIVE, "{said}");
    assert!(said.contains(gateway.socket.to_str().unwrap()) && said.contains("\ntry: "), "{said}");
    gateway.totals();
}

#[test]
fn contract_3_whatever_is_no_dead_socket_refuses_the_start_and_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("file"), "precious").unwrap();
    drop(UnixListener::bind(path("dead")).unwrap());
    symlink(path("dead"), path("link")).unwrap();
    symlink(path("nowhere"), path("dangling")).unwrap();
    std::fs::create_dir(path("directory")).unwrap();
    for (name, what) in [
        ("file", "a regular file"),
        ("link", "a symbolic link"),
        ("dangling", "a symbolic link"),
        ("directory", "a directory"),
    ] {
        let (status, said) = refused(&path(name), &[]);
        assert_eq!(status, SOCKET_FOREIGN, "{name}: {said}");
        assert!(
            said.contains(what) && said.contains("\nlikely cause: ") && said.contains("\ntry: "),
            "{said}"
        );
    }
    assert_eq!(std::fs::read_to_string(path("file")).unwrap(), "precious");
    assert!(path("dead").exists() && path("link").is_symlink() && !path("nowhere").exists());
}

#[test]
fn contract_3_a_directory_that_cannot_be_made_refuses_the_start() {
    let (status, said) = refused(Path::new("/proc/corecast/control.sock"), &[]);
    assert_eq!(status, SOCKET_PATH, "{said}");
}

#[test]
fn issue_2_a_taken_port_refuses_the_start_by_a_gateway_or_anybody_else() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(&[]);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [gateway.address, other.local_addr().unwrap()] {
        let (status, said) = refused_start(|command| {
            let socket = directory.path().join("control.sock");
            command.arg("--socket").arg(socket).args(["--listen", &address.to_string()]);
        });
        assert_eq!(status, PORT_TAKEN, "{said}");
        assert!(said.contains(&address.to_string()), "{said}");
    }
    assert!(!directory.path().join("control.sock").exists());
}

#[test]
fn issue_2_an_address_of_another_host_refuses_the_start() {
    let directory = tempfile::tempdir().unwrap();
    // RFC 5737 2: for documentation, nobody has it.
    let config = directory.path().join("corecast.toml");
    std::fs::write(&config, "listen = [\"192.0.2.1:0\"]\n[auth]\nmode = \"open\"\n").unwrap();
    let (status, said) = refused_start(|command| {
        command.arg("--socket").arg(directory.path().join("s")).arg("--config").arg(&config);
    });
    assert_eq!(status, ADDRESS, "{said}");
}

#[test]
fn contract_5_auth_mode_open_is_refused_beyond_loopback_unless_the_file_sets_it() {
    let directory = tempfile::tempdir().unwrap();
    for more in [&[][..], &["--set", "auth.mode=open"]] {
        let (status, said) = refused_start(|command| {
            let socket = directory.path().join("s");
            command.arg("--socket").arg(socket).args(["--listen", "0.0.0.0:0"]).args(more);
        });
        assert_eq!(status, CONFIGURATION, "{said}");
    }
    let gateway = Gateway::listening(&[], "0.0.0.0:0");
    gateway.raw("").close();
}

#[test]
fn issue_2_too_few_descriptors_refuse_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let (status, said) =
        refused(&directory.path().join("control.sock"), &["--set", "limits.connections=4000000000"]);
    assert_eq!(status, DESCRIPTORS, "{said}");
    assert!(said.contains("4000000256") || said.contains("file descriptors"), "{said}");
}

#[test]
fn issue_6_a_limit_that_control_alone_uses_up_refuses_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 1024; exec \"$0\" serve --set control.clients=4000 --listen 127.0.0.1:0 --socket \"$1\""])
        .arg(env!("CARGO_BIN_EXE_corecast"))
        .arg(directory.path().join("control.sock"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(DESCRIPTORS), "{said}");
    assert!(said.contains("file descriptors: the limit is 1024, at least 4"), "{said}");
}

#[test]
fn issue_2_too_little_lockable_memory_refuses_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_corecast");
    let output = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -l 256; exec {binary} serve --listen 127.0.0.1:0 --socket $0/control.sock"))
        .arg(directory.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(MEMLOCK), "{}", stderr(&output));
}
