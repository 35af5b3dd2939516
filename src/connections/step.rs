//! A look at the connections of one shard, a step at a time.

use std::sync::Arc;
use std::time::Duration;

use super::{Key, Query, Row};

/// What a shard is asked to look at in one go.
#[derive(Clone, Debug)]
pub struct ListingStep {
    /// Who is wanted, in which order, behind which cursor.
    pub query: Arc<Query>,
    /// Where to go on: as the step before said; `None` begins.
    pub place: Option<Place>,
    /// Only what comes before this.
    pub bound: Option<Key>,
    /// Whether each socket is asked what the kernel knows: `Row::idle_ms`, and what `Row::reason` says of it.
    pub ask_sockets: bool,
    /// When to stop.
    pub budget: Budget,
}

impl ListingStep {
    /// Whether the connection with this key is of use.
    pub fn wants(&self, key: Key) -> bool {
        let after = self.query.after.map(|after| after.key);
        after.is_none_or(|after| key > after) && self.bound.is_none_or(|bound| key < bound)
    }
}

/// When a step ends at the latest. At least one connection is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Connections looked at.
    pub looks: u32,
    /// Connections found.
    pub rows: usize,
    /// Time taken; exceeded by at most one connection that is found, or 64 that are not.
    pub time: Duration,
}

/// Where a look at one shard stands. Its end is set when it begins, so that clients who come meanwhile do not make it
/// endless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The next to look at: a slot, or how many members of a topic were looked at.
    pub next: u32,
    /// Where it ends.
    pub end: u32,
}

/// What one step found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which shard looked.
    pub shard: u16,
    /// With their place in the list; not in its order.
    pub rows: Vec<(Key, Row)>,
    /// Where to go on; `None` where all were looked at.
    pub next: Option<Place>,
    /// Whether those that come after are all behind these in a list by id.
    pub in_id_order: bool,
}
