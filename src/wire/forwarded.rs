//! `X-Forwarded-For` and `Forwarded` (RFC 7239): whom a proxy speaks for, request by request.
//!
//! Each proxy adds the address that it was reached from at the right end. So the list is read from there, as
//! far as those that wrote it are trusted: the first address that is none of theirs is the client's, and what
//! stands to the left of it was written by the client and means nothing. Pure; whose word counts is the
//! caller's to say (`shard::remote`).

// `core::net` and not `std::net`: addresses are numbers, and there is no socket in it (Rule 1).
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::close::Refusal;
use super::request::{Request, is_token_octet, trim};
use crate::stats::RefusalReason;

/// One place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    /// An address; port 0 where none is told.
    Address(SocketAddr),
    /// `unknown` or an obfuscated identifier (RFC 7239 6.2, 6.3): somebody, but not who.
    Hidden,
    /// None of these.
    Malformed,
}

/// The client's address as the headers tell it, port 0 where they tell none; `peer` is who sent them.
///
/// Where the client is hidden it is the address of the trusted proxy that hides it. `None` where that is
/// `peer` itself, where there is no such header, and where `peer` is not trusted. Both headers may be there if
/// they tell the same.
///
/// Errors: 400 where what a trusted proxy wrote is malformed, or the two headers differ: then one of them may
/// be the client's own, and which is not for us to guess.
pub fn client(
    request: &Request<'_>,
    peer: IpAddr,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Result<Option<SocketAddr>, Refusal> {
    if !is_trusted(peer) {
        return Ok(None);
    }
    let list = |name, nodes| {
        let lines: Vec<&[u8]> = request.header_values(name).collect();
        if lines.is_empty() { Ok(None) } else { walk(&lines, nodes, &is_trusted).map(Some) }
    };
    match (list("x-forwarded-for", addresses)?, list("forwarded", elements)?) {
        (Some(one), Some(other)) if one.map(|found| found.ip()) != other.map(|found| found.ip()) => {
            Err(malformed("X-Forwarded-For and Forwarded name different clients"))
        }
        (one, other) => Ok(one.or(other).flatten()),
    }
}

/// Reads one line into its nodes, left to right; `None` where its grammar is broken.
type Nodes = fn(&[u8]) -> Option<Vec<Node>>;

/// From the right, over as many lines as are needed: what no trusted proxy wrote is not looked at.
fn walk(
    lines: &[&[u8]],
    nodes: Nodes,
    is_trusted: &impl Fn(IpAddr) -> bool,
) -> Result<Option<SocketAddr>, Refusal> {
    let mut client = None;
    for line in lines.iter().rev() {
        let nodes = nodes(line).ok_or_else(|| malformed("a Forwarded header that is not RFC 7239"))?;
        for node in nodes.into_iter().rev() {
            match node {
                Node::Malformed => return Err(malformed("a forwarded address that is none")),
                Node::Hidden => return Ok(client),
                Node::Address(address) => client = Some(address),
            }
            if client.is_some_and(|address| !is_trusted(address.ip())) {
                return Ok(client);
            }
        }
    }
    Ok(client)
}

fn malformed(message: &'static str) -> Refusal {
    Refusal::new(RefusalReason::BadRequest, message)
}

/// `X-Forwarded-For`: addresses between commas, by custom also with a port, and IPv6 with or without brackets.
fn addresses(line: &[u8]) -> Option<Vec<Node>> {
    let read = |item| {
        let text = std::str::from_utf8(item).unwrap_or_default();
        let bare = text.parse::<Ipv6Addr>();
        bare.map_or_else(|_| node(text), |address| found(address.into(), 0))
    };
    let items = line.split(|&octet| octet == b',').map(trim);
    Some(items.filter(|item| !item.is_empty()).map(read).collect())
}

/// `Forwarded`: elements between commas, pairs between semicolons, of which `for` is looked at. The whole line
/// has to be well formed (RFC 7239 4): a quotation mark that the client left open would swallow what a proxy
/// wrote behind it.
fn elements(line: &[u8]) -> Option<Vec<Node>> {
    let (mut nodes, mut rest) = (Vec::new(), line);
    // Of the element being read; an element that does not say for whom hides it.
    let (mut whom, mut pairs) = (None, 0);
    loop {
        rest = trim(rest);
        if !matches!(rest, [] | [b',' | b';', ..]) {
            let (name, value, after) = pair(rest)?;
            if name.eq_ignore_ascii_case(b"for")
                && whom.replace(node(std::str::from_utf8(&value).unwrap_or_default())).is_some()
            {
                return None;
            }
            (rest, pairs) = (trim(after), pairs + 1);
        }
        let (separator, after) =
            rest.split_first().map_or((None, rest), |(first, after)| (Some(first), after));
        if !matches!(separator, None | Some(b',' | b';')) {
            return None;
        }
        if separator != Some(&b';') && pairs > 0 {
            nodes.push(whom.unwrap_or(Node::Hidden));
            (whom, pairs) = (None, 0);
        }
        if separator.is_none() {
            return Some(nodes);
        }
        rest = after;
    }
}

/// `token "=" ( token / quoted-string )` at the front: name, value without its quotes, and what follows.
fn pair(input: &[u8]) -> Option<(&[u8], Vec<u8>, &[u8])> {
    let (name, rest) = token(input)?;
    match rest.strip_prefix(b"=")? {
        [b'"', quoted @ ..] => {
            let (mut value, mut octets) = (Vec::new(), quoted.iter());
            loop {
                match octets.next()? {
                    b'"' => return Some((name, value, octets.as_slice())),
                    b'\\' => value.push(*octets.next()?),
                    &octet => value.push(octet),
                }
            }
        }
        plain => token(plain).map(|(value, rest)| (name, value.to_vec(), rest)),
    }
}

/// At least one octet of a token, and what follows.
fn token(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = input.iter().take_while(|&&octet| is_token_octet(octet)).count();
    (length > 0).then(|| input.split_at(length))
}

/// `nodename [ ":" node-port ]` (RFC 7239 6).
fn node(text: &str) -> Node {
    let (name, rest) = match text.split_inclusive(']').next() {
        Some(bracketed) if text.starts_with('[') => text.split_at(bracketed.len()),
        _ => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match rest.strip_prefix(':') {
        Some(text) => port(text),
        None => rest.is_empty().then_some(0),
    };
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let address = match bracketed {
        Some(name) => name.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        None => name.parse::<Ipv4Addr>().ok().map(IpAddr::from),
    };
    match (address, port) {
        (Some(address), Some(port)) => found(address, port),
        (None, Some(_)) if name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) => Node::Hidden,
        _ => Node::Malformed,
    }
}

/// A port, 0 for an obfuscated one.
fn port(text: &str) -> Option<u16> {
    if is_obfuscated(text) {
        return Some(0);
    }
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// `"_" 1*(ALPHA / DIGIT / "." / "_" / "-")`
fn is_obfuscated(text: &str) -> bool {
    let is_octet = |octet: u8| octet.is_ascii_alphanumeric() || b"._-".contains(&octet);
    text.len() > 1 && text.starts_with('_') && text.bytes().all(is_octet)
}

fn found(address: IpAddr, port: u16) -> Node {
    Node::Address(SocketAddr::new(address.to_canonical(), port))
}
