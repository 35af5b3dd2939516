//! The binary control protocol: u32 little-endian length, then one bincode value.
//!
//! Pure: bytes in, requests out; replies in, bytes out. Lengths are checked before anything is
//! allocated for them. Shared with `client`, so that both ends speak the same.

use serde::{Deserialize, Serialize};

use super::command::{Answer, Command, CommandError};

/// Bytes of the length field.
pub const LENGTH_BYTES: usize = 4;

/// What a client sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Comes back with every reply to it; chosen by the client.
    pub correlation: u64,
    /// What is asked.
    pub command: Command,
}

/// What it gets: one for each request, in any order; several for a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// Of the request.
    pub correlation: u64,
    /// What became of it.
    pub result: Result<Answer, CommandError>,
}

/// `Request` without owning its command.
#[derive(Serialize)]
struct RequestRef<'a> {
    correlation: u64,
    command: &'a Command,
}

/// The peer does not speak this protocol; it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A frame longer than `control.body_bytes`.
    TooLong,
    /// Not one bincode value, exactly.
    Undecodable,
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard()
}

/// The frame at the front of `input`, without its length field; consumes nothing.
///
/// `None` while it is incomplete. Errors: `TooLong`, as soon as the length field is there.
pub fn frame(input: &[u8], frame_bytes_max: usize) -> Result<Option<&[u8]>, Malformed> {
    let Some((length, rest)) = input.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length > frame_bytes_max {
        return Err(Malformed::TooLong);
    }
    Ok(rest.get(..length))
}

/// Decodes a request from one frame. Errors: `Undecodable`, also when bytes are left over.
pub fn decode_request(frame: &[u8]) -> Result<Request, Malformed> {
    decode(frame)
}

/// Decodes a reply from one frame. Errors: `Undecodable`, also when bytes are left over.
pub fn decode_reply(frame: &[u8]) -> Result<Reply, Malformed> {
    decode(frame)
}

fn decode<'a, T: Deserialize<'a>>(frame: &'a [u8]) -> Result<T, Malformed> {
    match bincode::serde::borrow_decode_from_slice(frame, config()) {
        Ok((value, used)) if used == frame.len() => Ok(value),
        _ => Err(Malformed::Undecodable),
    }
}

/// Appends a request as one frame.
pub fn encode_request(correlation: u64, command: &Command, output: &mut Vec<u8>) {
    encode(&RequestRef { correlation, command }, output);
}

/// Appends a reply as one frame.
pub fn encode_reply(reply: &Reply, output: &mut Vec<u8>) {
    encode(reply, output);
}

fn encode<T: Serialize>(value: &T, output: &mut Vec<u8>) {
    let start = output.len();
    output.extend_from_slice(&[0; LENGTH_BYTES]);
    let written = bincode::serde::encode_into_std_write(value, output, config());
    assert!(written.is_ok(), "our own types encode, and a Vec takes every byte");
    let length = output.len() - start - LENGTH_BYTES;
    let length = u32::try_from(length).expect("a frame of ours stays below 4 GiB");
    output[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// Which of the two control protocols a client speaks, by its first bytes; `None` while they are too few.
///
/// HTTP begins with an ASCII capital. So may a frame's length, but its highest byte is then below 32
/// (512 MiB), where a method has a letter or the space behind it.
pub fn is_binary(input: &[u8]) -> Option<bool> {
    match (input.first(), input.get(3)) {
        (None, _) => None,
        (Some(first), _) if !first.is_ascii_uppercase() => Some(true),
        (Some(_), fourth) => fourth.map(|&byte| byte < 32),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::control::command::{ErrorCode, Push, Pushed, TicketRequest};
    use crate::message::{ConnId, Kind, Name, Position, Target};

    fn name(text: &str) -> Name {
        Name::new(text).expect("valid")
    }

    fn push(target: Target) -> Push {
        Push {
            target,
            kind: Kind::Binary,
            payload: Bytes::from_static(b"\x00\xffpayload"),
            event: Some("e".to_owned()),
            ttl_ms: Some(60_000),
            id: None,
        }
    }

    fn commands() -> Vec<Command> {
        let connection = ConnId { shard: 1, index: 1841, generation: 7 };
        let users = vec![name("a"), name("b")];
        let all = [
            Target::User(name("a")),
            Target::Users(users),
            Target::Topic(name("t")),
            Target::Connection(connection),
            Target::All,
        ];
        let mut commands: Vec<_> = all.clone().map(|target| Command::Push(push(target))).into();
        commands.extend([
            Command::PushBatch(all.map(push).into()),
            Command::Presence(name("a")),
            Command::KickUser { user: name("a"), code: Some(4500), reason: Some("bye".to_owned()) },
            Command::KickConnection { connection, code: None, reason: None },
            Command::Bind { user: name("a"), topic: name("t") },
            Command::Unbind { user: name("a"), topic: name("t") },
            Command::Topics,
            Command::Topic(name("t")),
            Command::Stats,
            Command::Events { mask: 7 },
            Command::Drain { within_ms: Some(1) },
            Command::Version,
            Command::Ticket(TicketRequest {
                user: name("a"),
                topics: Some(vec![name("t/*")]),
                ttl_ms: Some(1),
                connection_ttl_ms: None,
                max_connections: Some(2),
                single: true,
            }),
        ]);
        commands
    }

    #[test]
    fn contract_3_every_command_encoded_then_decoded_is_itself_cut_anywhere() {
        for command in commands() {
            let mut bytes = Vec::new();
            encode_request(u64::MAX, &command, &mut bytes);
            for cut in 0..bytes.len() {
                assert_eq!(frame(&bytes[..cut], 1024), Ok(None), "{command:?} cut at {cut}");
            }
            let whole = frame(&bytes, 1024).expect("short enough").expect("whole");
            let request = decode_request(whole).expect("decodes");
            assert_eq!(request.correlation, u64::MAX);
            assert_eq!(format!("{:?}", request.command), format!("{command:?}"));
            for cut in 0..whole.len() {
                assert_eq!(decode_request(&whole[..cut]).err(), Some(Malformed::Undecodable), "{command:?}");
            }
        }
    }

    #[test]
    fn contract_3_a_reply_encoded_then_decoded_is_itself() {
        let pushed = Pushed { position: Position { epoch: 0xa1, seq: 18 }, connections: 3 };
        let refused = CommandError::new(ErrorCode::Busy, "try again");
        for result in [Ok(Answer::Pushed(pushed)), Err(refused)] {
            let reply = Reply { correlation: 9, result };
            let mut bytes = Vec::new();
            encode_reply(&reply, &mut bytes);
            let back = decode_reply(frame(&bytes, 1024).expect("short").expect("whole")).expect("decodes");
            assert_eq!(format!("{back:?}"), format!("{reply:?}"));
        }
    }

    #[test]
    fn contract_2_a_frame_at_the_limit_passes_and_one_byte_more_is_refused_by_its_length_alone() {
        assert_eq!(frame(&[4, 0, 0, 0, 1, 2, 3, 4], 4), Ok(Some(&[1, 2, 3, 4][..])));
        assert_eq!(frame(&[5, 0, 0, 0], 4), Err(Malformed::TooLong));
        assert_eq!(frame(&[255; 4], 16 << 20), Err(Malformed::TooLong));
    }

    #[test]
    fn a_length_claimed_inside_a_frame_is_not_believed() {
        // A push whose payload, then whose user, claims 2^62 bytes (bincode: 253, then a u64).
        let claim = [&[253][..], &(1u64 << 62).to_le_bytes()].concat();
        for head in [&[1, 0, 0][..], &[1, 0, 0, 1, b'a', 2], &[1, 1], &[1, 0, 1], &[1, 2]] {
            let bytes = [head, &claim].concat();
            assert_eq!(decode_request(&bytes).err(), Some(Malformed::Undecodable), "{head:?}");
        }
    }

    #[test]
    fn a_length_claimed_inside_a_reply_is_not_believed_either() {
        let claim = [&[253][..], &(1u64 << 62).to_le_bytes()].concat();
        // A refusal's message, an event, a version, a ticket, a presence's transport.
        for head in [
            &[1, 1, 8][..],
            &[1, 0, 7],
            &[1, 0, 9],
            &[1, 0, 10],
            &[1, 0, 2, 1, 5, b'0', b'-', b'0', b'-', b'0'],
        ] {
            let bytes = [head, &claim].concat();
            assert_eq!(decode_reply(&bytes).err(), Some(Malformed::Undecodable), "{head:?}");
        }
    }

    #[test]
    fn contract_3_the_first_bytes_tell_the_protocols_apart() {
        for method in ["GET /", "POST ", "PUT /v", "DELETE"] {
            assert_eq!(is_binary(method.as_bytes()), Some(false));
            assert_eq!(is_binary(&method.as_bytes()[..1]), None);
        }
        assert_eq!(is_binary(&u32::to_le_bytes(71)), Some(true));
        assert_eq!(is_binary(&u32::to_le_bytes(16 << 20)), Some(true));
        assert_eq!(is_binary(&u32::to_le_bytes((16 << 20) - 1)), Some(true));
        assert_eq!(is_binary(b""), None);
    }
}
