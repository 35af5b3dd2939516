//! The admin listener (`admin.listen`): HTTP over TCP, for browsers and for Prometheus.
//!
//! Its clients are `Peer`s like those of the control socket, but counted apart from them, so that nobody who
//! comes this way can keep a local program out. Who may open a Unix socket is a matter of file modes; a port
//! has none, and any page that a browser on this host shows can reach it. So the gatekeeper lets pass what
//! only reads counters, and the rest with `admin.token`. What passes is `routes`' to understand.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt;

use super::command::{CommandError, ErrorCode};
use super::http::{self, Request};
use crate::auth::Secret;
use crate::config::Admin;

/// A client that neither answers the kernel nor reads for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// Of wrong tokens at most one line is logged in so long (Rule 8).
const SAID_EVERY: Duration = Duration::from_secs(1);

/// The listener, bound.
#[derive(Debug)]
pub struct AdminSocket {
    listener: TcpListener,
    address: SocketAddr,
}

impl AdminSocket {
    /// Listens on `address`. Errors: of bind(2) and listen(2).
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens: with the port that the kernel chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn listener(&self) -> &TcpListener {
        &self.listener
    }

    /// The next client that waits; `None` when none does. Errors: descriptors or memory are used up.
    pub(super) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        let client = match self.listener.accept() {
            Ok((client, _)) => client,
            Err(error) => {
                return match Errno::from_io_error(&error) {
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Err(error),
                    // The others are of this one connection (accept(2)): nobody's business but its own.
                    _ => Ok(None),
                };
            }
        };
        client.set_nonblocking(true)?;
        // What the kernel refuses here it refuses to a client that has gone.
        let _ = client.set_nodelay(true);
        let _ = sockopt::set_socket_keepalive(&client, true);
        let _ = sockopt::set_tcp_keepidle(&client, GONE_AFTER);
        let _ = sockopt::set_tcp_user_timeout(&client, GONE_AFTER.as_millis() as u32);
        Ok(Some(client.into()))
    }
}

/// Where a request may go on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The dashboard's page; whether only its head is wanted.
    Page {
        /// `HEAD`
        head_only: bool,
    },
    /// To `routes`.
    Route,
}

/// What a path asks of who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// The page, which holds nothing of this gateway's.
    Page,
    /// Counters: open on loopback, behind the token elsewhere.
    Counters,
    /// Clients, read or acted on: behind the token.
    Clients,
}

/// Decides who passes the admin listener.
#[derive(Debug)]
pub struct Gatekeeper {
    token: Option<Secret>,
    /// Nobody but programs and browsers of this host can come.
    loopback: bool,
    unauthorized: u64,
    /// When a line about wrong tokens was last logged, and how many there were since.
    said_at: Option<Instant>,
    unsaid: u64,
}

impl Gatekeeper {
    /// Keeps the listener of this configuration.
    pub fn new(admin: &Admin) -> Self {
        let loopback = admin.listen.is_some_and(|address| address.ip().to_canonical().is_loopback());
        Self { token: admin.bearer.clone(), loopback, unauthorized: 0, said_at: None, unsaid: 0 }
    }

    /// Lets pass who has this token from now on.
    pub fn adopt(&mut self, admin: &Admin) {
        self.token.clone_from(&admin.bearer);
    }

    /// Requests whose token was wrong, or missing where one is needed.
    pub fn unauthorized(&self) -> u64 {
        self.unauthorized
    }

    /// Whether `request` passes, and where to. Errors: the answer to give instead.
    pub fn admit(&mut self, request: &Request, now: Instant) -> Result<Way, Box<http::Answer>> {
        let (path, allow) = path(&request.path).ok_or_else(|| refused_path(&request.path))?;
        if !allow.split(", ").any(|method| method == request.method) {
            let message = format!("{} is not for this path, {allow} is", request.method);
            let answer = http::Answer::refused(&CommandError::new(ErrorCode::MethodNotAllowed, message));
            return Err(Box::new(http::Answer { allow: Some(allow), ..answer }));
        }
        let holds = match (&self.token, &request.bearer) {
            (Some(token), Some(shown)) => token.is(shown.reveal()),
            _ => false,
        };
        // A page whose name was made to lead here has no token, and whoever has one needs no further proof.
        if !holds && !is_ours(&request.host) {
            let message = "the Host header must be an address or localhost: a name may have been made to lead \
                           here by somebody else (DNS rebinding)";
            return Err(refused(403, "forbidden_host", message));
        }
        let is_open = path == Path::Page || (path == Path::Counters && self.loopback);
        if !is_open && self.token.is_none() {
            let message =
                "neither admin.token nor admin.token_file is set, and this is for nobody without it";
            return Err(refused(403, "forbidden", message));
        }
        if !is_open && !holds {
            self.count_unauthorized(now);
            let message = match request.bearer {
                Some(_) => "this is not admin.token",
                None => "no token: give admin.token in Authorization: Bearer",
            };
            return Err(refused(401, "unauthorized", message));
        }
        if !matches!(request.method.as_str(), "GET" | "HEAD") && !is_same_origin(request) {
            let message = "the Origin header names another page than those of this listener";
            return Err(refused(403, "forbidden_origin", message));
        }
        Ok(match path {
            Path::Page => Way::Page { head_only: request.method == "HEAD" },
            Path::Counters | Path::Clients => Way::Route,
        })
    }

    fn count_unauthorized(&mut self, now: Instant) {
        self.unauthorized += 1;
        if self.said_at.is_some_and(|at| now < at + SAID_EVERY) {
            self.unsaid += 1;
            return;
        }
        let unsaid = std::mem::take(&mut self.unsaid);
        self.said_at = Some(now);
        tracing::warn!(unsaid, "admin listener: a request without the right token was refused");
    }
}

fn refused(status: u16, code: &str, message: &str) -> Box<http::Answer> {
    Box::new(http::Answer::error(status, code, message))
}

fn refused_path(path: &str) -> Box<http::Answer> {
    refused(404, "not_found", &format!("no such path on the admin listener: {path}"))
}

/// What a path is, and its methods here; `None` for one that is not served here. Segments are compared as they
/// were sent: an escaped one is another path.
fn path(path: &str) -> Option<(Path, &'static str)> {
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    Some(match segments[..] {
        [""] => (Path::Page, "GET, HEAD"),
        ["metrics"] | ["v1", "stats"] => (Path::Counters, "GET"),
        ["v1", "connections"] => (Path::Clients, "GET"),
        ["v1", "connections", _] => (Path::Clients, "GET, DELETE"),
        ["v1", "users", _] => (Path::Clients, "DELETE"),
        ["v1", "push"] | ["v1", "push", "all"] | ["v1", "push", "user" | "topic", _] => {
            (Path::Clients, "POST")
        }
        _ => return None,
    })
}

/// Whether `host` is an address, or the one name that never leads elsewhere (RFC 6761 6.3).
fn is_ours(host: &str) -> bool {
    // A colon inside brackets is of an IPv6 address.
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bare {
        Some(address) => address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()),
        None => {
            let is_v4 = name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4());
            // Without `Host` it is HTTP/1.0, and no browser.
            name.is_empty() || is_v4 || name.eq_ignore_ascii_case("localhost")
        }
    }
}

/// Whether no page asks, or one that this listener has served; behind a proxy with TLS it is `https`.
fn is_same_origin(request: &Request) -> bool {
    let Some(origin) = &request.origin else { return true };
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(&request.host))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn keeper(listen: &str, token: Option<&str>) -> Gatekeeper {
        let bearer = token.map(|token| Secret::new(token.to_owned()));
        Gatekeeper::new(&Admin {
            listen: Some(listen.parse().expect("an address")),
            bearer,
            ..Admin::default()
        })
    }

    fn request(method: &str, path: &str) -> Request {
        Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: String::new(),
            content_type: String::new(),
            host: "127.0.0.1:9090".to_owned(),
            origin: None,
            bearer: None,
            keep_alive: true,
            body: Vec::new(),
        }
    }

    fn with_token(request: Request, token: &str) -> Request {
        Request { bearer: Some(Secret::new(token.to_owned())), ..request }
    }

    /// The status of a refusal, 200 for what passes.
    fn status(keeper: &mut Gatekeeper, request: &Request) -> u16 {
        keeper.admit(request, Instant::now()).map_or_else(|answer| answer.status, |_| 200)
    }

    const READ: [(&str, &str); 2] = [("GET", "/metrics"), ("GET", "/v1/stats")];
    const GUARDED: [(&str, &str); 7] = [
        ("GET", "/v1/connections"),
        ("GET", "/v1/connections/0-1-2"),
        ("DELETE", "/v1/connections/0-1-2"),
        ("DELETE", "/v1/users/a"),
        ("POST", "/v1/push"),
        ("POST", "/v1/push/user/a"),
        ("POST", "/v1/push/all"),
    ];

    #[test]
    fn issue_7_on_loopback_counters_are_open_and_clients_are_behind_the_token() {
        let mut keeper = keeper("127.0.0.1:9090", Some(TOKEN));
        for (method, path) in READ {
            assert_eq!(status(&mut keeper, &request(method, path)), 200, "{path}");
        }
        for (method, path) in GUARDED {
            assert_eq!(status(&mut keeper, &request(method, path)), 401, "{path}");
            assert_eq!(status(&mut keeper, &with_token(request(method, path), "0123456789abcdeX")), 401);
            assert_eq!(status(&mut keeper, &with_token(request(method, path), TOKEN)), 200, "{path}");
        }
        assert_eq!(keeper.unauthorized(), 2 * GUARDED.len() as u64);
    }

    #[test]
    fn issue_7_beyond_loopback_all_but_the_page_is_behind_the_token() {
        let mut keeper = keeper("0.0.0.0:9090", Some(TOKEN));
        assert_eq!(keeper.admit(&request("GET", "/"), Instant::now()), Ok(Way::Page { head_only: false }));
        for (method, path) in READ.into_iter().chain(GUARDED) {
            assert_eq!(status(&mut keeper, &request(method, path)), 401, "{path}");
            assert_eq!(status(&mut keeper, &with_token(request(method, path), TOKEN)), 200, "{path}");
        }
    }

    #[test]
    fn issue_7_without_a_token_configured_clients_are_for_nobody() {
        let mut keeper = keeper("127.0.0.1:9090", None);
        for (method, path) in GUARDED {
            assert_eq!(status(&mut keeper, &request(method, path)), 403, "{path}");
            assert_eq!(status(&mut keeper, &with_token(request(method, path), "")), 403, "{path}");
        }
        assert_eq!(keeper.unauthorized(), 0);
    }

    #[test]
    fn issue_7_other_paths_are_404_and_other_methods_405_whatever_the_token() {
        let mut keeper = keeper("127.0.0.1:9090", Some(TOKEN));
        for path in [
            "/v1/drain",
            "/v1/tickets",
            "/v1/events",
            "/v1/topics",
            "/v1/users/a/topics/t",
            "/x",
            "",
            "/v1/%73tats",
        ] {
            assert_eq!(status(&mut keeper, &with_token(request("POST", path), TOKEN)), 404, "{path}");
        }
        for (method, path) in
            [("GET", "/v1/users/a"), ("POST", "/metrics"), ("OPTIONS", "/v1/push"), ("POST", "/")]
        {
            assert_eq!(status(&mut keeper, &with_token(request(method, path), TOKEN)), 405, "{path}");
        }
    }

    #[test]
    fn issue_7_a_host_that_is_a_name_is_refused_but_with_the_token() {
        let mut keeper = keeper("127.0.0.1:9090", Some(TOKEN));
        let from = |host: &str| Request { host: host.to_owned(), ..request("GET", "/v1/stats") };
        for host in
            ["127.0.0.1", "127.0.0.1:80", "[::1]:80", "[::1]", "localhost", "LocalHost:9", "192.0.2.1:9"]
        {
            assert_eq!(status(&mut keeper, &from(host)), 200, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9090",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[x]",
            "::1",
        ] {
            assert_eq!(status(&mut keeper, &from(host)), 403, "{host}");
            assert_eq!(status(&mut keeper, &with_token(from(host), TOKEN)), 200, "{host}");
        }
    }

    #[test]
    fn issue_7_a_page_of_another_origin_changes_nothing_even_with_the_token() {
        let mut keeper = keeper("127.0.0.1:9090", Some(TOKEN));
        let from = |origin: &str| {
            let request = Request { origin: Some(origin.to_owned()), ..request("DELETE", "/v1/users/a") };
            with_token(request, TOKEN)
        };
        for origin in ["http://127.0.0.1:9090", "https://127.0.0.1:9090"] {
            assert_eq!(status(&mut keeper, &from(origin)), 200, "{origin}");
        }
        for origin in
            ["null", "", "http://127.0.0.1:8080", "http://127.0.0.1", "http://evil.example", "127.0.0.1:9090"]
        {
            assert_eq!(status(&mut keeper, &from(origin)), 403, "{origin}");
        }
    }
}
