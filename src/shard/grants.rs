//! What tokens and tickets allow to connections, beside their slots: when each has to end, and which topics.
//!
//! 16 bytes for each slot, in chunks that are there while one of their slots has a grant, and about 13 in the
//! order of the ends; topics take 60 more and their text. A gateway whose clients have none keeps nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::column::Column;
use crate::auth::{Identity, Patterns};

/// No end.
const NEVER: u32 = u32::MAX;
/// What one end takes in the order of the ends: nodes of a B-tree are two thirds full.
const DUE_BYTES: usize = 13;

/// What of an identity is needed while its connection lasts.
#[derive(Clone, Debug, PartialEq)]
pub enum Rights {
    /// The topics that it may subscribe to.
    Topics(Patterns),
    /// All of it, for the polls to come.
    Polls(Arc<Identity>),
}

#[derive(Debug, PartialEq)]
struct Grant {
    /// In `Clock::tenths`.
    end: u32,
    /// Where more than the end has to be known. Boxed: most have none.
    rights: Option<Box<Rights>>,
}

const _: () = assert!(size_of::<Grant>() == 16, "one for each connection with a token");

impl Default for Grant {
    fn default() -> Self {
        Self { end: NEVER, rights: None }
    }
}

/// The grants of a shard's connections, by slot.
#[derive(Debug, Default)]
pub struct Grants {
    grants: Column<Grant>,
    /// Ends, and whose.
    due: BTreeSet<(u32, u32)>,
}

impl Grants {
    /// Gives slot `index` an end (in `Clock::tenths`) and rights, in the place of what it had.
    pub fn set(&mut self, index: u32, end: Option<u32>, rights: Option<Rights>) {
        self.replace(index, Grant { end: end.unwrap_or(NEVER), rights: rights.map(Box::new) });
    }

    /// Slot `index` has nothing any more.
    pub fn clear(&mut self, index: u32) {
        self.replace(index, Grant::default());
    }

    fn replace(&mut self, index: u32, grant: Grant) {
        let end = grant.end;
        let before = self.grants.put(index, grant);
        if before.end != NEVER {
            self.due.remove(&(before.end, index));
        }
        if end != NEVER {
            self.due.insert((end, index));
        }
    }

    /// Bytes that it takes, but for topics that are allowed by name.
    pub fn memory_bytes(&self) -> usize {
        self.grants.memory_bytes() + self.due.len() * DUE_BYTES
    }

    /// As whom slot `index` polls.
    pub fn identity(&self, index: u32) -> Option<&Arc<Identity>> {
        match self.rights(index)? {
            Rights::Polls(identity) => Some(identity),
            Rights::Topics(_) => None,
        }
    }

    /// What slot `index` may subscribe to; `None` is anything.
    pub fn topics(&self, index: u32) -> Option<&Patterns> {
        match self.rights(index)? {
            Rights::Polls(identity) => identity.topics.as_ref(),
            Rights::Topics(patterns) => Some(patterns),
        }
    }

    fn rights(&self, index: u32) -> Option<&Rights> {
        self.grants.get(index)?.rights.as_deref()
    }

    /// When the next one ends.
    pub fn next_end(&self) -> Option<u32> {
        self.due.first().map(|(end, _)| *end)
    }

    /// Takes the grant of one whose end has come at `tenths`: its slot.
    pub fn take_ended(&mut self, tenths: u32) -> Option<u32> {
        let index = self.due.first().filter(|(end, _)| *end <= tenths)?.1;
        self.clear(index);
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issue_6_grants_end_in_order_and_only_once() {
        let mut grants = Grants::default();
        for (index, end) in [(7, 30), (3000, 10), (1, 20), (2, 20)] {
            grants.set(index, Some(end), None);
        }
        assert_eq!((grants.next_end(), grants.take_ended(9)), (Some(10), None));
        let ended: Vec<u32> = std::iter::from_fn(|| grants.take_ended(29)).collect();
        assert_eq!(ended, [3000, 1, 2]);
        assert_eq!(grants.next_end(), Some(30));
    }

    #[test]
    fn issue_6_a_grant_that_is_replaced_or_cleared_leaves_no_end_behind() {
        let mut grants = Grants::default();
        grants.set(7, Some(10), None);
        grants.set(7, Some(50), Some(Rights::Polls(Arc::default())));
        assert_eq!((grants.take_ended(49), grants.identity(7).is_some()), (None, true));
        grants.set(7, None, None);
        assert!(grants.due.is_empty() && grants.identity(7).is_none());
        grants.set(8, Some(10), None);
        grants.clear(8);
        grants.clear(5000);
        assert_eq!(grants.take_ended(u32::MAX), None);
    }
}
