//! Plain requests, and what WebSocket clients send.

use std::time::Instant;

use super::To;
use super::link::{Purpose, State, What};
use super::octets::{self, Frame};
use super::script::{Answer, End, Framing, falls_on};
use super::service::Service;
use super::tally::Tally;

/// What the body of a right answer contains.
pub const RIGHT: &str = "as it should be";

impl Service {
    /// Counts a request or an echo: what is planted for it, where something is.
    fn next_answer(&mut self, tally: &mut Tally) -> Option<Answer> {
        tally.asked += 1;
        if let Some((number, lasts)) = self.script.stall
            && number == tally.asked
        {
            std::thread::sleep(lasts);
        }
        self.script.answers.iter().find(|(every, _)| falls_on(*every, tally.asked)).map(|(_, answer)| *answer)
    }

    /// Answers a plain request.
    pub(super) fn answer(&mut self, id: usize, tally: &mut Tally) {
        let planted = self.next_answer(tally);
        let number = tally.asked;
        tally.connections[id].opened_at.get_or_insert(Instant::now());
        let good = |ok: bool, text: &str| format!(r#"{{"ok":{ok},"text":"{text}","number":{number}}}"#);
        let mut due = Instant::now();
        let (status, body) = match planted {
            Some(Answer::Status(status)) => (status, good(true, RIGHT)),
            Some(Answer::WrongJson) => (200, good(false, RIGHT)),
            Some(Answer::WrongBody) => (200, good(true, "something else")),
            Some(Answer::Never) => return self.links.get_mut(&id).unwrap().state = State::Deaf,
            Some(Answer::Ended) => return self.end(id, End::Silent),
            Some(Answer::Reset) => return self.end(id, End::Reset),
            Some(Answer::Garbage) => {
                return self.links.get_mut(&id).unwrap().put_octets(due, octets::GARBAGE);
            }
            Some(Answer::Late(late)) => {
                due += late;
                (200, good(true, RIGHT))
            }
            None => (200, good(true, RIGHT)),
        };
        *tally.statuses.entry(status).or_default() += 1;
        let framing = self.script.framing;
        let response = octets::response(status, &[], body.as_bytes(), framing);
        let link = self.links.get_mut(&id).unwrap();
        link.put(due, What::Octets { octets: response.into(), from: 0, messages: 1 });
        if framing == Framing::UntilClose {
            link.put(due, What::End(End::Silent));
        }
    }

    /// A frame of a client's.
    pub(super) fn frame(&mut self, id: usize, purpose: Purpose, frame: Frame, tally: &mut Tally) {
        let link = self.links.get_mut(&id).unwrap();
        let seen = &mut tally.connections[id];
        let now = Instant::now();
        match frame.opcode {
            octets::PING => {
                seen.pings_from_client += 1;
                link.put_octets(now, octets::frame(true, octets::PONG, &frame.payload));
            }
            octets::PONG => link.pong(&frame.payload, seen),
            octets::CLOSE => {
                let code = frame.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                seen.close_from_client = Some(code);
                if !link.ending {
                    link.put_octets(now, octets::frame(true, octets::CLOSE, &frame.payload));
                }
                link.put(now, What::End(End::Silent));
            }
            _ if frame.fin && frame.opcode != octets::CONTINUATION => {
                seen.messages += 1;
                match purpose {
                    Purpose::Subscriber => {}
                    Purpose::Echo => self.echo(id, &frame, tally),
                    Purpose::Chat => self.relay(id, &frame.payload, tally),
                }
            }
            _ => seen.fragments += 1,
        }
    }

    fn echo(&mut self, id: usize, frame: &Frame, tally: &mut Tally) {
        let planted = self.next_answer(tally);
        let link = self.links.get_mut(&id).unwrap();
        let mut due = Instant::now();
        let mut octets = octets::frame(true, frame.opcode, &frame.payload);
        match planted {
            None | Some(Answer::Status(_)) => {}
            Some(Answer::Late(late)) => due += late,
            Some(Answer::WrongJson | Answer::WrongBody) => {
                octets = octets::frame(true, frame.opcode, b"something else");
            }
            Some(Answer::Garbage) => octets = octets::GARBAGE.to_vec(),
            Some(Answer::Never) => return,
            Some(Answer::Ended) => return self.end(id, End::Silent),
            Some(Answer::Reset) => return self.end(id, End::Reset),
        }
        link.put(due, What::Octets { octets: octets.into(), from: 0, messages: 1 });
    }

    /// Passes on what a chat message says, its sender included: `all`, `gN` is a group, everything else a user.
    fn relay(&mut self, id: usize, message: &[u8], tally: &mut Tally) {
        let message: serde_json::Value = serde_json::from_slice(message).expect("a chat message is JSON");
        let to = message["to"].as_str().expect("a chat message says to whom");
        let to = match to {
            "all" => To::All,
            group if group.starts_with('g') => To::Group(group.to_owned()),
            user => To::User(user.to_owned()),
        };
        let payload = message["payload"].as_str().expect("a chat message has a payload");
        self.publish(to, payload.as_bytes().into(), Some(id), tally);
    }
}
