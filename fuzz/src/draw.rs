//! Numbers and pieces out of an input, so that what libFuzzer draws has the shape that a target needs.

use bytes::Bytes;
use corecast::control::command::Push;
use corecast::control::push;
use corecast::message::{Kind, Message, Target, Topic};
use corecast::wire::websocket::encode_message;

/// What is left of an input. Gives zeros and nothing when it is used up.
pub struct Draw<'a>(pub &'a [u8]);

impl<'a> Draw<'a> {
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn octet(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Its first octet is its length.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.octet()).min(self.0.len());
        let (piece, rest) = self.0.split_at(length);
        self.0 = rest;
        piece
    }

    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.piece()).into_owned()
    }

    /// One line of what is left, without its LF.
    pub fn line(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|&octet| octet == b'\n');
        let (line, rest) = match end {
            Some(end) => (&self.0[..end], &self.0[end + 1..]),
            None => (self.0, &[][..]),
        };
        self.0 = rest;
        line
    }

    /// A message as the gateway would have accepted it; `None` where it would not.
    pub fn message(&mut self, seq: u64) -> Option<Message> {
        let shape = self.octet();
        let kind = [Kind::Json, Kind::Text, Kind::Binary][usize::from(shape % 3)];
        let event = (shape & 0x40 != 0).then(|| self.text());
        let topic = (shape & 0x80 != 0).then(|| Topic::new(&self.text()));
        let target = match topic {
            Some(topic) => Target::Topic(topic.ok()?),
            None => Target::All,
        };
        let payload = Bytes::copy_from_slice(self.piece());
        let pushed = Push { target, kind, payload, event, ttl_ms: None, id: None };
        push::check(&pushed, 255).ok()?;
        let (frame, header_bytes) = encode_message(kind, &pushed.payload);
        let mut message = Message::new(seq, pushed.target, kind, frame, header_bytes);
        message.event = pushed.event.map(Into::into);
        Some(message)
    }
}
