//! What comes of a request head, here and in `httparse`: the same fields, or one of the differences that are
//! listed in `DIFFERENCES`, each of which is shown to be what it says by looking for it in the octets.
//!
//! All of them are of one side: we refuse what `httparse` leaves to its caller, or takes. What we take, it
//! takes, and reads the same.

use corecast::wire::request::{HeadLimits, parse_head};
use httparse::Status;

/// Limits that no input here reaches: `httparse` has none but the number of header lines.
const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 1 << 20, header_lines_max: HEADERS_MAX, target_bytes_max: 1 << 20 };
const HEADERS_MAX: usize = 64;

/// Why we refuse what `httparse` does not, by our message.
pub type Difference = (&'static str, fn(&Head<'_>) -> bool);

/// A head that we refuse. `headers` is empty where `httparse` has not seen its end.
pub struct Head<'a> {
    octets: &'a [u8],
    headers: Vec<(String, Vec<u8>)>,
}

/// The messages, the argument for each, and what has to be so.
pub const DIFFERENCES: [Difference; 12] = [
    // They skip any number of empty lines first, we one (RFC 9112 2.2), and wait for the end of a method of
    // any length, where we end at 32 octets: what is no HTTP is told so at once.
    ("the request does not begin with a method and a space", |head| {
        let method = head.at_method();
        let length = method.iter().take_while(|octet| is_token(**octet)).count();
        length == 0 || length > 32 || method.get(length).is_some_and(|octet| *octet != b' ')
    }),
    // RFC 3986 has no such octet in a URI; some caches and logs take `#` or what is not ASCII for another path.
    ("an octet in the request target that has to be percent-encoded", |head| {
        head.target().iter().any(|octet| !octet.is_ascii_graphic() || *octet == b'#')
    }),
    // The target's form is their caller's to check (RFC 9112 3.2).
    ("the request target must begin with a slash", |head| !head.target().starts_with(b"/")),
    // They take a bare LF here; what we refuse in the version itself, they refuse when it is whole.
    ("the request line must end with HTTP/1.1 (or HTTP/1.0), CR and LF", |head| {
        let version = head.behind_target();
        let seen = &version[..version.len().min(10)];
        !b"HTTP/1.1\r\n".starts_with(seen) && !b"HTTP/1.0\r\n".starts_with(seen)
    }),
    // RFC 9112 2.2 lets a recipient take a bare LF for a line end. Two recipients that differ there see two
    // different requests.
    ("a line ends in LF without CR", |head| {
        let octets = head.octets;
        octets.iter().enumerate().any(|(at, octet)| *octet == b'\n' && (at == 0 || octets[at - 1] != b'\r'))
    }),
    // Header fields are names and values to them (RFC 9112 3.2, 6.1, 6.3 say what we refuse).
    ("no Host header", |head| head.values("host").is_empty()),
    ("more than one Host header", |head| head.values("host").len() > 1),
    ("the Host header is not a host name", |head| {
        let known = |octet: &u8| octet.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(octet);
        !head.values("host")[0].iter().all(known)
    }),
    ("more than one Content-Length", |head| head.values("content-length").len() > 1),
    ("Content-Length with Transfer-Encoding", |head| {
        !head.values("content-length").is_empty() && !head.values("transfer-encoding").is_empty()
    }),
    ("Content-Length is not a number", |head| {
        let text = String::from_utf8_lossy(head.values("content-length")[0]).into_owned();
        text.is_empty() || text.bytes().any(|octet| !octet.is_ascii_digit()) || text.parse::<u64>().is_err()
    }),
    ("the only transfer coding is chunked, in HTTP/1.1", |head| {
        let codings = head.values("transfer-encoding").join(&b","[..]).to_ascii_lowercase();
        codings.trim_ascii() != b"chunked" || head.behind_target().starts_with(b"HTTP/1.0")
    }),
];

/// Panics where the two differ in a way that is not listed.
pub fn check(input: &[u8]) {
    let _ = difference(input);
}

/// How the two differ on `octets`: our message. Panics where that is not listed.
pub fn difference(octets: &[u8]) -> Option<&'static str> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut theirs = httparse::Request::new(&mut headers);
    let status = theirs.parse(octets);
    match (parse_head(octets, &LIMITS), status) {
        (Ok(None), Ok(Status::Partial)) | (Err(_), Err(_)) => None,
        (Ok(None), Err(error)) => {
            // They look at each header line as it comes, we when the head is whole: then we refuse it, too.
            let whole = [octets, b"\r\n\r\n"].concat();
            assert!(parse_head(&whole, &LIMITS).is_err(), "{error} in {}", octets.escape_ascii());
            None
        }
        (Ok(Some((ours, length))), Ok(Status::Complete(their_length))) => {
            assert_eq!(length, their_length, "{}", octets.escape_ascii());
            assert_eq!(Some(ours.method), theirs.method);
            assert_eq!(Some(u8::from(ours.http_1_1)), theirs.version);
            assert_eq!((ours.path, ours.query), path_and_query(theirs.path.unwrap_or_default()));
            let their_headers = theirs.headers.iter().map(|header| (header.name, header.value));
            assert_eq!(ours.headers, Vec::from_iter(their_headers), "{}", octets.escape_ascii());
            None
        }
        (Err(refusal), Ok(status)) => {
            let headers = match status {
                Status::Complete(_) => &theirs.headers[..],
                Status::Partial => &[],
            };
            let headers =
                headers.iter().map(|header| (header.name.to_ascii_lowercase(), header.value.to_vec()));
            let head = Head { octets, headers: headers.collect() };
            let listed =
                DIFFERENCES.iter().find(|(message, is_so)| *message == refusal.message && is_so(&head));
            let (message, _) =
                listed.unwrap_or_else(|| panic!("unlisted: {refusal:?} of {}", octets.escape_ascii()));
            Some(message)
        }
        (ours, theirs) => panic!("unlisted: {ours:?}, they: {theirs:?} of {}", octets.escape_ascii()),
    }
}

/// Path and query of a target in one of the forms that we take (RFC 9112 3.2).
fn path_and_query(target: &str) -> (&str, &str) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match path.split_once("://") {
        Some((_, rest)) if !path.starts_with('/') => (rest.find('/').map_or("/", |at| &rest[at..]), query),
        _ => (path, query),
    }
}

fn is_token(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet)
}

impl<'a> Head<'a> {
    fn at_method(&self) -> &'a [u8] {
        self.octets.strip_prefix(b"\r\n").unwrap_or(self.octets)
    }

    /// The request line behind its first space.
    fn behind_method(&self) -> &'a [u8] {
        let octets = self.at_method();
        let space = octets.iter().position(|octet| *octet == b' ');
        space.map_or(&[], |at| &octets[at + 1..])
    }

    /// What stands there up to a space, or as far as it goes.
    fn target(&self) -> &'a [u8] {
        self.behind_method().split(|octet| *octet == b' ').next().unwrap_or_default()
    }

    fn behind_target(&self) -> &'a [u8] {
        self.behind_method().get(self.target().len() + 1..).unwrap_or_default()
    }

    fn values(&self, name: &str) -> Vec<&[u8]> {
        self.headers.iter().filter(|(field, _)| field == name).map(|(_, value)| &value[..]).collect()
    }
}
