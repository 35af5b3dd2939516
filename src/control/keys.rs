//! Idempotency keys: the same key again gets the first answer and pushes nothing (contract section 3).
//!
//! Bounded in age and number; reads no clock. A key is remembered from acceptance on, so a refused
//! push leaves none behind.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::command::Pushed;
use crate::shard::mailbox::Inquiry;

/// How long a key is remembered.
pub const KEY_AGE_MAX: Duration = Duration::from_secs(300);
/// Most keys at once; one more forgets the oldest, whatever its age.
pub const KEYS_MAX: usize = 100_000;

/// What became of the push that brought the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It waits for its answer under this inquiry.
    Waiting(Inquiry),
    /// Its answer.
    Answered(Pushed),
}

/// The keys of the last minutes.
#[derive(Debug, Default)]
pub struct Keys {
    known: HashMap<Rc<str>, Known>,
    /// In order of age.
    order: VecDeque<(Instant, Rc<str>)>,
}

impl Keys {
    /// What is known of `key`, after forgetting what is too old.
    pub fn find(&mut self, key: &str, now: Instant) -> Option<Known> {
        while self.order.front().is_some_and(|(since, _)| now.duration_since(*since) >= KEY_AGE_MAX) {
            self.forget_oldest();
        }
        self.known.get(key).copied()
    }

    /// Remembers a key that `find` did not know.
    pub fn remember(&mut self, key: Rc<str>, known: Known, now: Instant) {
        if self.order.len() >= KEYS_MAX {
            self.forget_oldest();
        }
        self.known.insert(key.clone(), known);
        self.order.push_back((now, key));
    }

    /// The push under `inquiry` has its answer. A key forgotten meanwhile stays forgotten.
    pub fn answer(&mut self, key: &str, inquiry: Inquiry, pushed: Pushed) {
        if let Some(known) = self.known.get_mut(key).filter(|known| **known == Known::Waiting(inquiry)) {
            *known = Known::Answered(pushed);
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.known.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Position;

    fn pushed(seq: u64) -> Known {
        Known::Answered(Pushed { position: Position { epoch: 1, seq }, connections: 0 })
    }

    #[test]
    fn contract_3_a_key_is_known_for_five_minutes_and_no_longer() {
        let (mut keys, start) = (Keys::default(), Instant::now());
        keys.remember("k".into(), pushed(1), start);
        assert_eq!(keys.find("k", start + KEY_AGE_MAX - Duration::from_millis(1)), Some(pushed(1)));
        assert_eq!(keys.find("k", start + KEY_AGE_MAX), None);
    }

    #[test]
    fn one_key_more_than_the_limit_forgets_the_oldest() {
        let (mut keys, now) = (Keys::default(), Instant::now());
        for n in 0..KEYS_MAX {
            keys.remember(n.to_string().into(), pushed(1), now);
        }
        assert!(keys.find("0", now).is_some());
        keys.remember("more".into(), pushed(1), now);
        assert!(keys.find("0", now).is_none() && keys.find("1", now).is_some());
    }
}
