//! The PROXY protocol, versions 1 and 2: a proxy's word for whom it speaks, before the first octet of the client.
//!
//! Pure. Looks at the octets from the front and says "not yet", "this much is a header", or why it is none.
//! Whether the peer is a proxy whose word counts is the shard's to know (`shard::remote`). A header that
//! names no address that we can use, a proxy's check of its own health among them, says so, and the connection
//! is the proxy's own.
//!
//! The order of the checks is fixed, so that a header cut anywhere is refused for the same reason as the
//! whole. Source: haproxy's proxy-protocol.txt (2020/03/05), sections 2.1, 2.2 and 4.

// `core::net` and not `std::net`: addresses are numbers, and there is no socket in it (Rule 1).
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a header says about where the connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// From this address and port.
    Address(SocketAddr),
    /// The proxy connects for itself (`LOCAL`), or for one whose address is none of ours (`UNKNOWN`, a Unix
    /// socket, datagrams).
    Unknown,
}

/// Why octets are no header. The peer's fault; the connection is closed without an answer (section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// They begin with neither signature.
    Signature,
    /// A line of version 1 that is over 107 octets, or has not the fields of its family.
    Line,
    /// A version that is not 2, or a command, family or transport that is not defined.
    Unsupported,
    /// More than `HEADER_BYTES_MAX`.
    TooLong,
    /// The length leaves no room for the family's addresses, or a field after them has none for its value.
    Truncated,
    /// CRC32C is not that of the header.
    Checksum,
}

/// Longest line of version 1, CR LF included (section 2.1).
const LINE_BYTES_MAX: usize = 107;
/// What every header of version 2 begins with.
const FIXED_BYTES: usize = 16;
/// Longest header. Version 2 could announce 64 KiB; a proxy that passes on a client's certificate by name
/// sends a few hundred octets.
pub const HEADER_BYTES_MAX: usize = FIXED_BYTES + 4096;

const SIGNATURE_1: &[u8] = b"PROXY ";
const SIGNATURE_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Looks for a header at the front of `input`; consumes nothing. Gives whom it speaks for and its length in
/// octets, `None` while it is incomplete.
///
/// Errors: every `Malformed`.
pub fn parse(input: &[u8]) -> Result<Option<(Client, usize)>, Malformed> {
    let begins = |signature: &[u8]| {
        let seen = input.len().min(signature.len());
        input[..seen] == signature[..seen]
    };
    if begins(SIGNATURE_2) {
        version_2(input)
    } else if begins(SIGNATURE_1) {
        version_1(input)
    } else {
        Err(Malformed::Signature)
    }
}

/// `PROXY TCP4 <source> <destination> <port> <port>` and CR LF.
fn version_1(input: &[u8]) -> Result<Option<(Client, usize)>, Malformed> {
    let window = &input[..input.len().min(LINE_BYTES_MAX)];
    let Some(end) = window.windows(2).position(|octets| octets == b"\r\n") else {
        return if input.len() < LINE_BYTES_MAX { Ok(None) } else { Err(Malformed::Line) };
    };
    let line = &window[SIGNATURE_1.len()..end];
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        // What follows is not to be looked at.
        return Ok(Some((Client::Unknown, end + 2)));
    }
    let line = std::str::from_utf8(line).map_err(|_| Malformed::Line)?;
    let mut fields = line.split(' ');
    let mut field = || fields.next().ok_or(Malformed::Line);
    let family = field()?;
    let (source, _) = (address(family, field()?)?, address(family, field()?)?);
    let (port, _) = (port(field()?)?, port(field()?)?);
    if fields.next().is_some() {
        return Err(Malformed::Line);
    }
    Ok(Some((client(source, port), end + 2)))
}

fn address(family: &str, text: &str) -> Result<IpAddr, Malformed> {
    let address = match family {
        "TCP4" => text.parse().map(IpAddr::V4).ok(),
        "TCP6" => text.parse().map(IpAddr::V6).ok(),
        _ => None,
    };
    address.ok_or(Malformed::Line)
}

/// Decimal, without a sign or a leading zero.
fn port(text: &str) -> Result<u16, Malformed> {
    let number = text.parse::<u16>().map_err(|_| Malformed::Line)?;
    if number.to_string() == text { Ok(number) } else { Err(Malformed::Line) }
}

fn client(address: IpAddr, port: u16) -> Client {
    Client::Address(SocketAddr::new(address.to_canonical(), port))
}

/// Signature, version and command, family and transport, length; then addresses, then further fields.
fn version_2(input: &[u8]) -> Result<Option<(Client, usize)>, Malformed> {
    let (Some(&first), second) = (input.get(12), input.get(13)) else { return Ok(None) };
    if !matches!(first, 0x20 | 0x21) {
        return Err(Malformed::Unsupported);
    }
    // Four families, three transports; a combination that we have no use for is an unknown client.
    if second.is_some_and(|octet| octet >> 4 > 3 || octet & 0x0f > 2) {
        return Err(Malformed::Unsupported);
    }
    let (Some(&family), Some(length)) = (second, input.get(14..FIXED_BYTES)) else { return Ok(None) };
    let end = FIXED_BYTES + usize::from(u16::from_be_bytes([length[0], length[1]]));
    if end > HEADER_BYTES_MAX {
        return Err(Malformed::TooLong);
    }
    let Some(body) = input.get(FIXED_BYTES..end) else { return Ok(None) };
    let (is_local, header) = (first == 0x20, &input[..end]);
    let client = match family {
        // Section 2.2: of LOCAL everything is to be skipped.
        _ if is_local => Client::Unknown,
        0x11 => {
            let (addresses, fields) = body.split_first_chunk::<12>().ok_or(Malformed::Truncated)?;
            check_fields(header, fields)?;
            let [a, b, c, d, .., high, low, _, _] = *addresses;
            client(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low]))
        }
        0x21 => {
            let (addresses, fields) = body.split_first_chunk::<36>().ok_or(Malformed::Truncated)?;
            check_fields(header, fields)?;
            let (source, rest) = addresses.split_first_chunk::<16>().expect("16 of 36");
            client(Ipv6Addr::from(*source).into(), u16::from_be_bytes([rest[16], rest[17]]))
        }
        _ => Client::Unknown,
    };
    Ok(Some((client, end)))
}

/// The type of a field with the header's CRC32C (section 2.2.3).
const CRC32C: u8 = 0x03;

/// Walks over the fields behind the addresses. All are skipped but the checksum, of which there is one.
fn check_fields(header: &[u8], mut fields: &[u8]) -> Result<(), Malformed> {
    let mut checked = false;
    while let [kind, high, low, rest @ ..] = fields {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, after) = rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        if *kind == CRC32C {
            let value = <[u8; 4]>::try_from(value).map_err(|_| Malformed::Checksum)?;
            let at = header.len() - rest.len();
            // Of the header with zeros where the checksum stands.
            let sum = crc32c([&header[..at], &[0; 4], after]);
            if checked || sum != u32::from_be_bytes(value) {
                return Err(Malformed::Checksum);
            }
            checked = true;
        }
        fields = after;
    }
    if fields.is_empty() { Ok(()) } else { Err(Malformed::Truncated) }
}

/// CRC32C of the parts one after the other (RFC 3720 12.1: Castagnoli, reflected). Bit by bit: a connection
/// has one header of a few dozen octets.
fn crc32c(parts: [&[u8]; 3]) -> u32 {
    let step = |sum: u32, _| sum >> 1 ^ (0x82f6_3b78 & (sum & 1).wrapping_neg());
    let octets = parts.into_iter().flatten();
    !octets.fold(!0, |sum, &octet| (0..8).fold(sum ^ u32::from(octet), step))
}
