//! Behind a proxy: the PROXY protocol on listeners that are marked for it, and proxies that nobody here wrote.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::addresses::{assert_no_address_is_left, closed, from, remote};
use crate::harness::event_stream::EventStream;
use crate::harness::guest::{Guest, server};
use crate::harness::http::{Response, read_to_end};
use crate::harness::poll::{Poller, request};
use crate::harness::websocket::{WebSocket, upgrade};
use crate::harness::{Gateway, eventually};

/// Its only listener speaks the PROXY protocol, to 127.0.0.1 alone.
fn behind_proxy(settings: &[&str]) -> Gateway {
    let own = ["network.proxy_protocol=127.0.0.1:0", "network.trusted_proxies=127.0.0.1"];
    Gateway::start(&[&own[..], settings].concat())
}

/// A connection of the proxy, its header sent.
fn proxied(gateway: &Gateway, header: impl AsRef<[u8]>) -> TcpStream {
    let mut stream = from(gateway, "127.0.0.1");
    stream.set_read_timeout(Some(crate::harness::DEADLINE)).unwrap();
    stream.write_all(header.as_ref()).unwrap();
    stream
}

/// Version 2, TCP over IPv4 from 192.0.2.7:56324, or `LOCAL`.
fn version_2(local: bool) -> Vec<u8> {
    let begin =
        if local { b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c" } else { b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" };
    [&begin[..], &[192, 0, 2, 7, 127, 0, 0, 1, 0xdc, 0x04, 0, 80]].concat()
}

#[test]
fn issue_6_a_proxy_header_says_who_the_client_is() {
    let gateway = behind_proxy(&[]);
    for (n, (header, told)) in [
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 56324 80\r\n".to_vec(), "192.0.2.7:56324"),
        (b"PROXY TCP6 2001:db8::7 ::1 56324 80\r\n".to_vec(), "[2001:db8::7]:56324"),
        (version_2(false), "192.0.2.7:56324"),
    ]
    .into_iter()
    .enumerate()
    {
        // So many users do not all live where they land: the address goes with those that are handed over.
        for user in (0..8).map(|user| format!("{n}-{user}")) {
            let stream = proxied(&gateway, &header);
            let client = WebSocket::open_on(stream, &format!("/ws?user={user}"), None);
            assert_eq!(remote(&gateway, &user), told);
            client.close();
        }
    }
    assert!(gateway.totals()["moved_in"].as_u64() > Some(0));
    assert_no_address_is_left(&gateway);
}

#[test]
fn issue_6_a_header_and_its_request_come_in_one_piece_or_octet_by_octet() {
    let gateway = behind_proxy(&["shards=1"]);
    let request = upgrade("/ws?user=ann", "");
    let octets = [&version_2(false), request.as_bytes()].concat();
    let mut stream = proxied(&gateway, &octets);
    assert!(read_status(&mut stream).starts_with("HTTP/1.1 101 "));
    assert_eq!(remote(&gateway, "ann"), "192.0.2.7:56324");
    drop(stream);
    gateway.until("gone", |totals| totals["users"] == 0);
    let mut stream = proxied(&gateway, b"");
    stream.set_nodelay(true).unwrap();
    octets.iter().for_each(|octet| stream.write_all(&[*octet]).unwrap());
    assert!(read_status(&mut stream).starts_with("HTTP/1.1 101 "));
    assert_eq!(remote(&gateway, "ann"), "192.0.2.7:56324");
}

fn read_status(stream: &mut TcpStream) -> String {
    use std::io::Read;
    let mut status = [0; 13];
    stream.read_exact(&mut status).unwrap();
    String::from_utf8_lossy(&status).into_owned()
}

#[test]
fn issue_6_a_proxy_that_speaks_for_itself_is_its_own_client_and_forwards_nobody() {
    let gateway = behind_proxy(&["network.deny=192.0.2.7"]);
    for header in [version_2(true), b"PROXY UNKNOWN 192.0.2.7 x\r\n".to_vec()] {
        let stream = proxied(&gateway, &header);
        let own = stream.local_addr().unwrap().to_string();
        // What passes through it may be the client's.
        let client = EventStream::open_on(stream, "/sse?user=ann", "X-Forwarded-For: 192.0.2.7\r\n");
        assert_eq!(remote(&gateway, "ann"), own);
        drop(client);
        gateway.until("gone", |totals| totals["users"] == 0);
    }
}

#[test]
fn issue_6_behind_a_header_forwarded_headers_are_not_looked_at() {
    let gateway = behind_proxy(&[]);
    let lines = "X-Forwarded-For: 203.0.113.9\r\nForwarded: nonsense\"\r\n";
    let stream = proxied(&gateway, "PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n");
    let _client = EventStream::open_on(stream, "/sse?user=ann", lines);
    assert_eq!(remote(&gateway, "ann"), "127.0.0.1:1");
}

#[test]
fn issue_6_without_a_whole_header_of_a_trusted_proxy_a_connection_is_closed_without_an_answer() {
    let gateway = behind_proxy(&["timeouts.handshake=300ms", "shards=1"]);
    // Not trusted: closed before it says anything.
    assert_eq!(read_to_end(&mut from(&gateway, "127.0.0.2")), b"");
    // No header, and malformed ones.
    let wrong = [
        &b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"PROXY TCP4 192.0.2.7 127.0.0.1 1\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31",
        &[b'P'; 200],
    ];
    for octets in wrong {
        assert_eq!(read_to_end(&mut proxied(&gateway, octets)), b"");
    }
    let totals = gateway.until("closed", |totals| totals["open"] == 0);
    assert_eq!(closed(&totals, "proxy_header"), 5);
    // Nothing, and half of one: until the time is over.
    let begun = Instant::now();
    for half in ["", "PROXY TCP4 192.0.2.7 "] {
        assert_eq!(read_to_end(&mut proxied(&gateway, half)), b"");
    }
    assert!(begun.elapsed() >= Duration::from_millis(300));
    // A balancer that looks whether the port is open.
    proxied(&gateway, "").shutdown(Shutdown::Both).unwrap();
    let totals = gateway.until("closed", |totals| closed(totals, "peer_gone") == 1);
    assert_eq!(closed(&totals, "handshake_timeout"), 2);
    assert_no_address_is_left(&gateway);
}

#[test]
fn issue_6_a_client_that_its_header_names_is_judged_and_counted() {
    let settings = ["network.deny=192.0.2.0/24", "limits.connections_per_address=1", "limits.head_bytes=256"];
    let gateway = behind_proxy(&settings);
    // As soon as it is known, and before its request.
    let mut denied = proxied(&gateway, version_2(false));
    assert_eq!(Response::parse(&read_to_end(&mut denied)).refusal(), (403, "forbidden_address".to_owned()));
    let header = "PROXY TCP6 2001:db8::7 ::1 56324 80\r\n";
    let mut polls = Poller::on(proxied(&gateway, header));
    // To and fro between the shards: what the header said stays, and counts once.
    for n in 0..8 {
        assert_eq!(polls.poll(&format!("timeout=0&user=u{n}"))["gap"], false);
        let neighbour = "PROXY TCP6 2001:db8::8 ::1 1 80\r\n";
        let mut other = Poller::on(proxied(&gateway, neighbour));
        other.send(request("timeout=0"));
        assert_eq!(other.answer().refusal(), (429, "too_many_connections".to_owned()));
    }
    polls.send(request("user=held"));
    gateway.until("held", |totals| totals["polls"] == 1);
    assert_eq!(remote(&gateway, "held"), "[2001:db8::7]:56324");
    drop((polls, denied));
    assert_no_address_is_left(&gateway);
    assert_eq!(closed(&gateway.totals(), "forbidden_address"), 1);
}

#[test]
fn issue_6_only_the_listeners_that_are_marked_speak_the_proxy_protocol() {
    let settings = ["network.proxy_protocol=127.0.0.2:0", "network.trusted_proxies=127.0.0.1"];
    let mut gateway = Gateway::prepared(&settings, "127.0.0.1:0", |command| {
        command.args(["--listen", "127.0.0.2:0"]);
    });
    let marked = eventually("it says where it listens", || {
        let said = gateway.said();
        said.lines().find_map(|line| line.split("ws://127.0.0.2:").nth(1)).map(str::to_owned)
    });
    let marked: SocketAddr = format!("127.0.0.2:{}", marked.split('/').next().unwrap()).parse().unwrap();
    let answer = gateway.ask("PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(answer.status, 400, "to the others a header is a bad request");
    gateway.raw("user=direct").close();
    let mut stream = TcpStream::connect(marked).unwrap();
    stream.write_all(&version_2(false)).unwrap();
    let _client = WebSocket::open_on(stream, "/ws?user=ann", None);
    assert_eq!(remote(&gateway, "ann"), "192.0.2.7:56324");
}

/// A proxy in the foreground, and where it listens.
struct Proxy {
    _guest: Guest,
    _directory: tempfile::TempDir,
    address: SocketAddr,
}

impl Proxy {
    /// With `configuration` (`LISTEN` is where, `GATEWAY` where to) as its file: on a port that was free a
    /// moment ago, and on another where somebody was quicker. Its address is this process's own, so that what
    /// listens there is no proxy of another run.
    fn start(configuration: &str, gateway: &Gateway, command: impl Fn(&std::path::Path) -> Command) -> Self {
        for _ in 0..5 {
            let [.., high, low] = std::process::id().to_be_bytes();
            let own = Ipv4Addr::new(127, 77, high, low);
            let address = TcpListener::bind((own, 0)).unwrap().local_addr().unwrap();
            let directory = tempfile::tempdir().unwrap();
            let text = configuration.replace("LISTEN", &address.to_string());
            let file = directory.path().join("proxy.conf");
            std::fs::write(&file, text.replace("GATEWAY", &gateway.address.to_string())).unwrap();
            let mut guest = Guest::spawn(command(&file).stdin(Stdio::null()).stdout(Stdio::null()));
            let listens = eventually("the proxy listens, or has ended", || {
                let ended = guest.0.try_wait().unwrap().is_some();
                let listens = TcpStream::connect(address).is_ok();
                (ended || listens).then_some(!ended)
            });
            if listens {
                return Self { _guest: guest, _directory: directory, address };
            }
        }
        panic!("the proxy does not start");
    }

    /// A client of it from 127.0.0.5.
    fn connect(&self) -> TcpStream {
        let source = SocketAddr::from(([127, 0, 0, 5], 0));
        crate::harness::websocket::connect(self.address, None, Some(source))
    }
}

// Without `noreuseport` it would share the port with whoever else listens there in that way.
const HAPROXY: &str = "
global
    noreuseport
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen front
    bind LISTEN
    server gateway GATEWAY OPTIONS
";

#[test]
fn issue_6_haproxy_says_in_either_version_who_its_client_is() {
    let gateway = behind_proxy(&["limits.connections_per_address=1"]);
    for options in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"] {
        let configuration = HAPROXY.replace("OPTIONS", options);
        let proxy = Proxy::start(&configuration, &gateway, |file| {
            let mut command = server("haproxy");
            command.arg("-db").arg("-f").arg(file);
            command
        });
        let stream = proxy.connect();
        let own = stream.local_addr().unwrap().to_string();
        let mut client = WebSocket::open_on(stream, "/ws?user=ann&topics=t", None);
        assert_eq!(remote(&gateway, "ann"), own, "{options}");
        gateway.push(json!({"topic": "t"}), json!(1));
        assert_eq!(client.text(), "1");
        let second = WebSocket::try_open_on(proxy.connect(), "/ws", None);
        assert_eq!(second.err().expect("one too many").refusal().0, 429);
        client.close();
        gateway.until("gone", |totals| totals["connections"] == 0);
    }
}

const NGINX: &str = "
daemon off;
master_process off;
pid nginx.pid;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen LISTEN;
        location / {
            proxy_pass http://GATEWAY;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }
    }
}
";

#[test]
fn issue_6_nginx_says_by_x_forwarded_for_who_its_client_is_whatever_that_claims() {
    let settings = ["network.trusted_proxies=127.0.0.1", "network.deny=203.0.113.0/24"];
    let gateway = Gateway::start(&settings);
    let proxy = Proxy::start(NGINX, &gateway, |file| {
        let mut command = server("nginx");
        command.arg("-p").arg(file.parent().unwrap()).arg("-c").arg(file).args(["-e", "stderr"]);
        command
    });
    for claim in ["", "X-Forwarded-For: 203.0.113.9\r\n", "X-Forwarded-For: nonsense\r\n"] {
        let mut stream = proxy.connect();
        stream.write_all(upgrade("/ws?user=ann", claim).as_bytes()).unwrap();
        assert!(read_status(&mut stream).starts_with("HTTP/1.1 101 "), "{claim}");
        assert_eq!(remote(&gateway, "ann"), "127.0.0.5:0");
        drop(stream);
        gateway.until("gone", |totals| totals["users"] == 0);
    }
}
