//! Where requests go: URLs, the file of `--targets`, and who gets which by weight.
//!
//! A URL's path is kept as it was typed: it may hold variables, which a strict parser would encode.

use std::fmt;

/// What comes before `://`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `ws`.
    Ws,
    /// `http`.
    Http,
}

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `ws` or `http`.
    pub scheme: Scheme,
    /// Name or address, IPv6 without its brackets.
    pub host: String,
    /// 80 unless given.
    pub port: u16,
    /// Path and query as typed, from the first `/` on; a fragment is left out. May hold variables.
    pub path: String,
}

impl Url {
    /// What the `Host` header says (RFC 9110 7.2): the port only where it is not 80.
    pub fn host_header(&self) -> String {
        let brackets = if self.host.contains(':') { ["[", "]"] } else { ["", ""] };
        let host = brackets.join(&self.host);
        if self.port == 80 { host } else { format!("{host}:{}", self.port) }
    }
}

/// A text that is no URL of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadUrl {
    /// The text.
    pub url: String,
    /// What is wrong.
    pub fault: UrlFault,
}

/// What is wrong with a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlFault {
    /// No `ws://` or `http://` in front.
    Scheme,
    /// `wss` or `https`.
    Tls,
    /// `user:password@`.
    UserInfo,
    /// None, or with what no host has.
    Host,
    /// Not 1 to 65535.
    Port,
    /// A space or control character outside `{{}}`.
    Space,
}

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.fault {
            UrlFault::Scheme => "a URL begins with ws:// or http://",
            UrlFault::Tls => "TLS is not spoken: put a proxy that ends TLS in front, or measure behind it",
            UrlFault::UserInfo => "no user and password here: write -H 'Authorization: Basic ...'",
            UrlFault::Host => "a host is a name or an address, IPv6 in brackets, without variables",
            UrlFault::Port => "a port is 1 to 65535, without variables",
            UrlFault::Space => "a space or control character: write %20, or {{name|url}} for a variable",
        };
        write!(f, "{:?}: {why}", self.url)
    }
}

/// Takes a URL apart: `ws` or `http`, host, port, path and query.
pub fn parse_url(text: &str) -> Result<Url, BadUrl> {
    parts(text).map_err(|fault| BadUrl { url: text.to_owned(), fault })
}

fn parts(text: &str) -> Result<Url, UrlFault> {
    let (scheme, rest) = text.split_once("://").ok_or(UrlFault::Scheme)?;
    let scheme = match &*scheme.to_ascii_lowercase() {
        "ws" => Scheme::Ws,
        "http" => Scheme::Http,
        "wss" | "https" => return Err(UrlFault::Tls),
        _ => return Err(UrlFault::Scheme),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (host, port) = host_and_port(authority)?;
    let path = path.split('#').next().unwrap_or_default();
    if has_space(path) {
        return Err(UrlFault::Space);
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok(Url { scheme, host: host.to_owned(), port, path: format!("{slash}{path}") })
}

fn host_and_port(authority: &str) -> Result<(&str, u16), UrlFault> {
    if authority.contains('@') {
        return Err(UrlFault::UserInfo);
    }
    let (host, port, is_host): (_, _, fn(char) -> bool) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(UrlFault::Host)?;
            (host, port, |c| c.is_ascii_hexdigit() || ":.".contains(c))
        }
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            (host, port, |c| c.is_alphanumeric() || "-._~".contains(c))
        }
    };
    if host.is_empty() || !host.chars().all(is_host) {
        return Err(UrlFault::Host);
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, 80)),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let port = digits.parse().ok().filter(|port| *port > 0);
            port.map(|port| (host, port)).ok_or(UrlFault::Port)
        }
        _ => Err(UrlFault::Port),
    }
}

/// Whether there is what would break the request line, outside the braces of variables.
fn has_space(path: &str) -> bool {
    let breaks = |c: char| c.is_whitespace() || c.is_control();
    // After the first, each part begins within braces; without `}}` it is no variable.
    path.split("{{").enumerate().any(|(number, part)| match part.split_once("}}") {
        Some((_, outside)) if number > 0 => outside.contains(breaks),
        _ => part.contains(breaks),
    })
}

/// A line of `--targets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Share among the lines, at least 1.
    pub weight: u32,
    /// The method, where one is given.
    pub method: Option<String>,
    /// Where to.
    pub url: Url,
}

/// A file of targets that cannot be used, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTargets {
    /// The file, as it was given.
    pub file: String,
    /// The line, from 1 up; `None` for the whole file.
    pub line: Option<usize>,
    /// What is wrong with it.
    pub fault: LineFault,
}

/// What is wrong with a line of targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineFault {
    /// There is no line with a target.
    Empty,
    /// The first word is no weight.
    Weight(String),
    /// No URL follows.
    NoUrl,
    /// The second word is no method.
    Method(String),
    /// The URL is none.
    Url(BadUrl),
}

impl fmt::Display for BadTargets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        f.write_str(": ")?;
        match &self.fault {
            LineFault::Empty => write!(f, "no target: write WEIGHT URL, or WEIGHT METHOD URL"),
            LineFault::Weight(word) => write!(f, "{word:?} is no weight: a whole number from 1 up"),
            LineFault::NoUrl => write!(f, "no URL: write WEIGHT URL, or WEIGHT METHOD URL"),
            LineFault::Method(word) => write!(f, "{word:?} is no method: write GET, POST, ..."),
            LineFault::Url(bad) => bad.fmt(f),
        }
    }
}

/// The targets of a file, at least one: `WEIGHT URL` or `WEIGHT METHOD URL` a line. A `#` at the front of a
/// line or behind a space begins a comment.
pub fn parse(file: &str, text: &str) -> Result<Vec<Line>, BadTargets> {
    let bad = |line, fault| BadTargets { file: file.to_owned(), line, fault };
    let mut lines = Vec::new();
    for (number, text) in text.lines().enumerate() {
        let text = without_comment(text).trim();
        if !text.is_empty() {
            lines.push(line(text).map_err(|fault| bad(Some(number + 1), fault))?);
        }
    }
    if lines.is_empty() { Err(bad(None, LineFault::Empty)) } else { Ok(lines) }
}

fn without_comment(line: &str) -> &str {
    let begins = |at: &usize| line[..*at].chars().next_back().is_none_or(char::is_whitespace);
    let comment = line.match_indices('#').map(|(at, _)| at).find(begins);
    &line[..comment.unwrap_or(line.len())]
}

fn line(text: &str) -> Result<Line, LineFault> {
    let (weight, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let parsed = weight.parse().ok().filter(|weight| *weight > 0);
    let weight = parsed.ok_or_else(|| LineFault::Weight(weight.to_owned()))?;
    let rest = rest.trim_start();
    // A variable may have spaces between its braces: all that is behind the method is the URL.
    let (method, url) = match rest.split_once(char::is_whitespace) {
        Some((method, url)) if !method.contains("://") => (Some(method), url.trim_start()),
        _ => (None, rest),
    };
    if url.is_empty() {
        return Err(LineFault::NoUrl);
    }
    if let Some(method) = method.filter(|method| !is_method(method)) {
        return Err(LineFault::Method(method.to_owned()));
    }
    let url = parse_url(url).map_err(LineFault::Url)?;
    Ok(Line { weight, method: method.map(str::to_owned), url })
}

/// Whether it can be a method: methods are tokens (RFC 9110 9.1), and all that are in use have capitals only.
pub fn is_method(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
}

/// Which of several a number gets, by weight: always the same one.
///
/// As many consecutive numbers as the weights add up to, their common divisor taken out, hold the shares
/// exactly, from whatever number on, and evenly interleaved. Not all weights are 0.
pub fn pick(weights: &[u32], number: u32) -> usize {
    let divisor = weights.iter().fold(0, |divisor, weight| gcd(divisor, u64::from(*weight)));
    assert!(divisor > 0, "nothing to pick from {weights:?}");
    let cycle = weights.iter().map(|weight| u64::from(*weight) / divisor).sum();
    // Steps of the golden ratio spread points the most evenly; without a common divisor with the cycle
    // they come to each place in it once.
    let golden = (cycle as f64 * 0.618_033_988_749_895) as u64;
    let step = (golden.max(1)..).find(|step| gcd(*step, cycle) == 1).expect("cycle + 1 is one");
    let mut place = (u128::from(number) * u128::from(step) % u128::from(cycle)) as u64;
    for (index, weight) in weights.iter().enumerate() {
        match place.checked_sub(u64::from(*weight) / divisor) {
            Some(rest) => place = rest,
            None => return index,
        }
    }
    unreachable!("a place within the cycle")
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
