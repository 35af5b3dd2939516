//! Taking over other settings while clients are connected.
//!
//! Most settings are looked up when they are needed and so hold from the next turn on, for everybody. Here
//! is what was derived from the old ones. What a client has agreed with the gateway (its heartbeat period)
//! and what its socket inherited from the listener stay as they were for it.

use super::Shard;
use super::settings::Settings;

impl Shard {
    /// Goes on with `settings`.
    pub(super) fn adopt(&mut self, settings: &Settings) {
        let before = std::mem::replace(&mut self.settings, settings.clone());
        self.sweep.adopt(&settings.timeouts, self.clock.now());
        self.connects.adopt(settings.connects_per_second);
        self.tape.adopt(settings.tape);
        if before.poll_begin != settings.poll_begin {
            self.tape.forget_answers();
        }
        self.renumber_origins(&before);
        for listener in &self.listeners {
            if let Err(error) = listener.adopt(settings) {
                tracing::warn!(
                    shard = self.number,
                    "a listener refuses its new options: {error}; new clients get the old ones"
                );
            }
        }
    }

    /// Held polls are answered with the origin that they named, by its number in `web.origins`.
    fn renumber_origins(&mut self, before: &Settings) {
        let (old, new) = (&before.policy.origins, &self.settings.policy.origins);
        if old == new {
            return;
        }
        for index in 0..self.table.slots() {
            let origin = self.table[index].origin;
            self.table[index].origin = new.renumber(origin, old);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use crate::config::{Config, Timeouts};
    use crate::message::{Kind, Message, Target};
    use crate::shard::clock::{Sweep, Tick};
    use crate::shard::tape::{EVERYBODY, Encoder, Form, Tape};
    use crate::shard::{Room, Settings};
    use crate::wire::websocket;

    #[test]
    fn issue_5_an_answer_that_was_encoded_is_not_given_under_another_list_of_origins() {
        let settings = Settings::new(&Config::default(), Room { clients_max: 1, sockets_max: 1 });
        let mut tape = Tape::new(settings.tape);
        let (frame, header_bytes) = websocket::encode_message(Kind::Json, b"1");
        let message = Arc::new(Message::new(1, Target::All, Kind::Json, frame, header_bytes));
        tape.append(EVERYBODY, message, Tick(0));
        let answer = |tape: &Tape, poll_begin: &[u8]| {
            let encoder = Encoder { epoch: 1, poll_begin, encoded: tape.encoded() };
            let mut answer = None;
            tape.walk(&[EVERYBODY], 0, 1, |entry| {
                answer = Some(entry.form(Form::Answer, &encoder).clone());
                true
            });
            answer.expect("it is on the tape")
        };
        let before = answer(&tape, b"old");
        assert_eq!(answer(&tape, b"new"), before, "encoded once");
        tape.forget_answers();
        assert_eq!(tape.encoded().get(), 0, "nothing is kept of it");
        assert!(answer(&tape, b"new").starts_with(b"new"));
    }

    #[test]
    fn issue_5_a_sweep_under_shorter_timeouts_does_not_wait_for_the_old_step() {
        let (timeouts, now) = (Timeouts::default(), Instant::now());
        let short = Timeouts { pong: Duration::from_millis(100), ..timeouts.clone() };
        let mut sweep = Sweep::new(&timeouts, now);
        let before = sweep.due_in(now);
        sweep.adopt(&short, now);
        assert!(sweep.due_in(now) <= Duration::from_millis(10) && before > Duration::from_millis(50));
        // A longer one again: the step that is due stays so.
        sweep.adopt(&timeouts, now);
        assert!(sweep.due_in(now) <= Duration::from_millis(10));
    }
}
