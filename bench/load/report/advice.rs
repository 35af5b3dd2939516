//! What an outcome is called, why it probably came about, and what to type.
//!
//! Outcomes of a run that goes well (200, 1000) have a name and no advice. Advice names the likely cause and
//! not every possible one. Next: `host` (what the client host needs, before anything goes wrong).

use crate::record::{Error, Outcome};

/// Why something happened, probably, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The likely cause.
    pub cause: &'static str,
    /// What to type or change.
    pub hint: &'static str,
}

const fn advice(cause: &'static str, hint: &'static str) -> Option<Advice> {
    Some(Advice { cause, hint })
}

/// `503 service unavailable`, `1012 service restart`, `connection refused`.
pub fn name(outcome: Outcome) -> String {
    match outcome {
        Outcome::Status(status) => numbered(status, status_name(status)),
        Outcome::Close(code) => numbered(code, close_name(code)),
        Outcome::Error(error) => error_name(error).to_owned(),
    }
}

fn numbered(number: u16, name: &str) -> String {
    if name.is_empty() { number.to_string() } else { format!("{number} {name}") }
}

/// What to do about `outcome`; nothing where nothing is wrong, or nothing is known.
pub fn of(outcome: Outcome) -> Option<Advice> {
    match outcome {
        Outcome::Status(status) => of_status(status),
        Outcome::Close(code) => of_close(code),
        Outcome::Error(error) => Some(of_error(error)),
    }
}

/// For people, where `Error::name` is for programs.
fn error_name(error: Error) -> &'static str {
    match error {
        Error::TooManyFiles => "too many open files",
        Error::AddressNotAvailable => "address not available",
        Error::Refused => "connection refused",
        Error::Reset => "connection reset",
        Error::Unreachable => "host or network unreachable",
        Error::ConnectTimedOut => "connect timed out",
        Error::HandshakeTimedOut => "handshake timed out",
        Error::ResponseTimedOut => "response timed out",
        Error::Ended => "ended without a word",
        Error::BadHandshake => "bad handshake",
        Error::BadProtocol => "protocol broken",
        Error::WrongStatus => "wrong status",
        Error::CheckFailed => "check failed",
        Error::System => "other error of the system",
    }
}

fn of_error(error: Error) -> Advice {
    let (cause, hint) = match error {
        Error::TooManyFiles => (
            "a process of corecast-bench has as many open files as RLIMIT_NOFILE allows, or the host as \
             many as fs.file-max",
            "--processes 8, or ulimit -n 1048576 before it; sysctl fs.file-nr shows the host's",
        ),
        Error::AddressNotAvailable => (
            "all local ports of the source addresses are taken: one address has about 28,000 to one target",
            "--sources 127.0.0.2-127.0.0.60, or sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"",
        ),
        Error::Refused => (
            "nobody listens there, or the server's queue of connections is full and \
             net.ipv4.tcp_abort_on_overflow is 1",
            "ss -ltn on the server: is the port there, is Recv-Q near Send-Q; a lower --ramp, a larger \
             backlog, sysctl net.core.somaxconn",
        ),
        Error::Reset => (
            "the server, or something between, cut the connection: it crashed, was overloaded or timed out",
            "the server's log at that second; dmesg for the OOM killer; a lower --ramp",
        ),
        Error::Unreachable => (
            "no route leads from the source address to the target, or a firewall says so",
            "ip route get TARGET, with `from SOURCE` where --sources is given",
        ),
        Error::ConnectTimedOut => (
            "the server's queue of connections is full (the kernel drops the SYN silently), or a firewall \
             drops packets",
            "nstat -az TcpExtListenOverflows on the server; a lower --ramp or --connecting, a larger backlog \
             and net.core.somaxconn, a longer --timeout",
        ),
        Error::HandshakeTimedOut => (
            "the connection stood and the server did not answer in time: it accepts slower than the ramp, or \
             does not speak this protocol there",
            "a lower --ramp or --connecting, a longer --timeout; is the path right",
        ),
        Error::ResponseTimedOut => (
            "the server takes longer than --timeout, or has lost the request",
            "a lower --rate or -c, a longer --timeout; the server's log",
        ),
        Error::Ended => (
            "the server closed the connection without a close frame or a response: it stopped, or an idle \
             timeout of it or a proxy struck",
            "the server's log; its idle timeout against the time of the run",
        ),
        Error::BadHandshake => (
            "what answered is no WebSocket, event stream or HTTP server, or not at this path",
            "curl -i http://HOST:PORT/PATH; --transport where the guess was wrong",
        ),
        Error::BadProtocol => (
            "the server sent what RFC 6455, RFC 9112 or the event stream format does not allow",
            "tcpdump -i any -w FILE port PORT, and report it to the server's authors",
        ),
        Error::WrongStatus => (
            "the response has another status than --check asks for, or no 2xx",
            "the statuses in this report; curl -i with the same headers and body",
        ),
        Error::CheckFailed => (
            "the status was right, and the body is not what --check asks for",
            "curl with the same headers and body, and compare it with --check",
        ),
        Error::System => (
            "an error of the operating system that corecast-bench has no name for",
            "strace -f -e trace=network,epoll_wait corecast-bench ..., with few connections",
        ),
    };
    Advice { cause, hint }
}

/// Names from RFC 9110 section 15, RFC 6585 and the IANA registry of HTTP status codes.
fn status_name(status: u16) -> &'static str {
    match status {
        100 => "continue",
        101 => "switching protocols",
        200 => "ok",
        201 => "created",
        202 => "accepted",
        203 => "non-authoritative information",
        204 => "no content",
        205 => "reset content",
        206 => "partial content",
        300 => "multiple choices",
        301 => "moved permanently",
        302 => "found",
        303 => "see other",
        304 => "not modified",
        307 => "temporary redirect",
        308 => "permanent redirect",
        400 => "bad request",
        401 => "unauthorized",
        402 => "payment required",
        403 => "forbidden",
        404 => "not found",
        405 => "method not allowed",
        406 => "not acceptable",
        408 => "request timeout",
        409 => "conflict",
        410 => "gone",
        411 => "length required",
        412 => "precondition failed",
        413 => "content too large",
        414 => "URI too long",
        415 => "unsupported media type",
        417 => "expectation failed",
        421 => "misdirected request",
        422 => "unprocessable content",
        425 => "too early",
        426 => "upgrade required",
        428 => "precondition required",
        429 => "too many requests",
        431 => "request header fields too large",
        451 => "unavailable for legal reasons",
        500 => "internal server error",
        501 => "not implemented",
        502 => "bad gateway",
        503 => "service unavailable",
        504 => "gateway timeout",
        505 => "HTTP version not supported",
        511 => "network authentication required",
        _ => "",
    }
}

fn of_status(status: u16) -> Option<Advice> {
    match status {
        300..=399 => advice(
            "the target has moved; corecast-bench does not follow redirects",
            "curl -i URL shows Location: use that URL",
        ),
        400 => advice(
            "the server does not understand the request",
            "curl -i with the same path, headers and body: most servers say what is wrong",
        ),
        401 => advice(
            "no token, or one that the server does not accept (wrong key, expired)",
            "-H 'Authorization: Bearer {{token}}' with --csv; the token's expiry and key",
        ),
        403 => advice(
            "the server knows who it is and refuses: the Origin, the topic or the address is not allowed",
            "-H 'Origin: https://...' as a browser sends it; the token's permissions",
        ),
        404 | 405 => advice(
            "nothing is served at this path, or not with this method",
            "the path of the URL; --ws-path, --sse-path or --poll-path with --mix; -X",
        ),
        408 => advice(
            "the server's time for a complete request was over before the request was",
            "a lower --ramp or --connecting: too many handshakes under way at once",
        ),
        413 | 414 | 431 => advice(
            "the request is larger than a limit of the server",
            "a smaller -d or -s, fewer or shorter headers, or the server's limit",
        ),
        426 => advice(
            "the path wants a WebSocket, and the request was none",
            "ws:// instead of http://, or --transport ws",
        ),
        429 => advice(
            "a limit per address or per client was reached: from here all clients look like one",
            "--sources with more addresses; for Corecast limits.connections_per_address or limits.trusted",
        ),
        500 | 501 | 505 => advice("the server failed by its own account", "its log at that second"),
        502 | 504 => advice(
            "a proxy got no answer, or a bad one, from the server behind it",
            "the log of both; the target without the proxy, to see which of them it is",
        ),
        503 => advice(
            "the server is full, is overloaded or is shutting down; Retry-After says when to come back",
            "a lower --ramp, --back-off as-told in storm; for Corecast limits.connections and \
             limits.connects_per_second",
        ),
        _ => None,
    }
}

/// Names from RFC 6455 section 7.4.1, the IANA registry of WebSocket close codes, and for 4000 up those of
/// Corecast (other servers have other meanings for them).
fn close_name(code: u16) -> &'static str {
    match code {
        1000 => "normal closure",
        1001 => "going away",
        1002 => "protocol error",
        1003 => "unsupported data",
        1005 => "without a code",
        1006 => "abnormal closure",
        1007 => "invalid UTF-8",
        1008 => "policy violation",
        1009 => "message too big",
        1010 => "extension required",
        1011 => "internal error",
        1012 => "service restart",
        1013 => "try again later",
        1014 => "bad gateway",
        1015 => "TLS handshake failed",
        3000 => "unauthorized",
        3003 => "forbidden",
        3008 => "timeout",
        4000 => "slow consumer",
        4001 => "heartbeat missed",
        4002 => "token expired",
        4500 => "kicked",
        4501 => "replaced",
        4502 => "no longer authorised",
        _ => "",
    }
}

fn of_close(code: u16) -> Option<Advice> {
    match code {
        1001 | 1012 => advice(
            "the server was shut down or restarted during the run",
            "its log; corecast-bench storm --by-server 60s to watch a restart on purpose",
        ),
        1002 | 1007 => advice(
            "the server found what it was sent wrong: meant so by --behaviour garbage, a mistake of \
             corecast-bench or of the server otherwise",
            "the same with one connection and tcpdump -i any -w FILE port PORT",
        ),
        1003 => advice("the server takes no messages of this kind", "--binary, or without it"),
        1008 => advice(
            "the client did what the server's policy forbids, most often sent too much",
            "a lower --rate; for Corecast limits.uplinks_per_second and limits.fragments",
        ),
        1009 => advice(
            "a message is larger than the server takes",
            "a smaller -s; for Corecast limits.message_bytes",
        ),
        1011 | 1014 => advice("the server failed by its own account", "its log at that second"),
        1013 => {
            advice("the server is overloaded and says so", "a lower --ramp or --rate; its CPU with --pid")
        }
        3000 | 3003 | 4002 | 4502 => advice(
            "the token has expired or does not allow this (4000 up: as Corecast names it)",
            "a token that lives longer than the run; what it allows",
        ),
        4000 => advice(
            "Corecast: the client read slower than messages came, past limits.send_backlog_bytes or \
             timeouts.send",
            "is corecast-bench itself the bottleneck (see THE TOOL): more --processes; a lower --rate",
        ),
        4001 => advice(
            "Corecast: no pong came in time, so the client's host was too busy or the network cut",
            "is corecast-bench itself the bottleneck (see THE TOOL): more --processes",
        ),
        4500 => advice("Corecast: somebody kicked the client", "who else uses this gateway's control socket"),
        4501 => advice(
            "Corecast: another connection came as the same user",
            "a user for each connection: user=u{{number}} in the URL",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_name_of_its_own_a_cause_and_a_hint() {
        let mut names = std::collections::BTreeSet::new();
        for (error, _) in Error::NAMES {
            assert!(names.insert(name(Outcome::Error(error))), "{error:?}");
            let advice = of(Outcome::Error(error)).unwrap();
            assert!(!advice.cause.is_empty() && !advice.hint.is_empty(), "{error:?}");
        }
    }

    #[test]
    fn codes_are_called_as_their_registries_call_them() {
        let named = [
            (Outcome::Status(200), "200 ok"),
            (Outcome::Status(503), "503 service unavailable"),
            (Outcome::Status(299), "299"),
            (Outcome::Close(1005), "1005 without a code"),
            (Outcome::Close(1012), "1012 service restart"),
            (Outcome::Close(4000), "4000 slow consumer"),
            (Outcome::Close(4321), "4321"),
            (Outcome::Error(Error::Refused), "connection refused"),
        ];
        for (outcome, text) in named {
            assert_eq!(name(outcome), text);
        }
    }

    #[test]
    fn every_close_code_of_the_contract_has_a_name() {
        let codes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013];
        for code in codes.into_iter().chain([4000, 4001, 4002, 4500, 4501, 4502]) {
            assert_ne!(name(Outcome::Close(code)), code.to_string());
            assert_eq!(of(Outcome::Close(code)).is_some(), code != 1000, "{code}");
        }
    }

    #[test]
    fn every_refusal_of_the_contract_has_advice() {
        for status in [400, 401, 403, 404, 405, 408, 413, 414, 426, 429, 431, 503] {
            assert_ne!(name(Outcome::Status(status)), status.to_string());
            assert!(of(Outcome::Status(status)).is_some(), "{status}");
        }
    }

    #[test]
    fn what_is_well_has_no_advice() {
        for status in [101, 200, 201, 204] {
            assert_eq!(of(Outcome::Status(status)), None);
        }
        assert_eq!(of(Outcome::Close(1000)), None);
        assert_eq!(of(Outcome::Close(1005)), None);
    }

    #[test]
    fn limits_of_the_host_are_answered_with_what_to_type() {
        let hint = |error| of(Outcome::Error(error)).unwrap().hint;
        assert!(hint(Error::TooManyFiles).contains("ulimit -n"));
        assert!(hint(Error::TooManyFiles).contains("--processes"));
        assert!(hint(Error::AddressNotAvailable).contains("--sources"));
        assert!(hint(Error::AddressNotAvailable).contains("net.ipv4.ip_local_port_range"));
        assert!(hint(Error::Refused).contains("somaxconn"));
    }
}
