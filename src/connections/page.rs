//! The order of a list, where one page of it ends and the next begins.
//!
//! A page is found by looking at every connection and keeping the first few by `Key`; the next one is what comes
//! behind the last key. The value that is sorted by is a moment where it can be, not a duration: those who are idle
//! stay in their order while time passes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Listing, Row, Sort};
use crate::message::{ConnId, serde_by_text};

/// Most connections of one page.
pub const LIMIT_MAX: u32 = 1000;
/// Connections of a page where nothing else is asked for.
pub const LIMIT_DEFAULT: u32 = 100;

/// Where a connection stands in a list: keys ascend, whatever is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    rank: u64,
    /// Decides between those of one rank.
    pub id: ConnId,
}

impl Key {
    /// Of a connection whose sorted value is `value`: octets of lag, Unix milliseconds at which it was last heard of
    /// (idle) or established (age); 0 by id.
    pub fn new(sort: Sort, value: u64, id: ConnId) -> Self {
        let rank = match sort {
            Sort::Id => 0,
            Sort::Lag => u64::MAX - value,
            // The longest idle is the one that was heard of first.
            Sort::Idle | Sort::Age => value,
        };
        Self { rank, id }
    }

    fn value(self, sort: Sort) -> u64 {
        if sort == Sort::Lag { u64::MAX - self.rank } else { self.rank }
    }
}

/// Names the last connection of a page: `lag-65536-0-5-1`. To be given back as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Of the list that it is from.
    pub sort: Sort,
    /// Where its last connection stood.
    pub key: Key,
}

/// The text is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCursor;

impl fmt::Display for BadCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be \"next\" of the page before, of the same sort")
    }
}

impl std::error::Error for BadCursor {}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.sort, self.key.value(self.sort), self.key.id)
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let mut parts = text.splitn(3, '-');
        let mut part = || parts.next().ok_or(BadCursor);
        let sort: Sort = part()?.parse().map_err(|_| BadCursor)?;
        let value = part()?.parse().map_err(|_| BadCursor)?;
        let id = part()?.parse().map_err(|_| BadCursor)?;
        if sort == Sort::Id && value != 0 {
            return Err(BadCursor);
        }
        Ok(Self { sort, key: Key::new(sort, value, id) })
    }
}

serde_by_text!(Cursor, "a cursor");

/// The first of a list, being gathered.
#[derive(Debug)]
pub struct Page {
    sort: Sort,
    /// One more than are asked for, so that it is seen whether the list goes on.
    rows_max: usize,
    rows: BTreeMap<Key, Row>,
    /// Whoever moved in the list while it was gathered is found twice: the newest counts.
    keys: HashMap<ConnId, Key>,
}

impl Page {
    /// Of at most `limit` connections.
    pub fn new(sort: Sort, limit: u32) -> Self {
        Self { sort, rows_max: limit as usize + 1, rows: BTreeMap::new(), keys: HashMap::new() }
    }

    /// How many more there is room for, before others have to go.
    pub fn room(&self) -> usize {
        self.rows_max - self.rows.len()
    }

    /// Only what comes before this is still of use; anything while there is room.
    pub fn bound(&self) -> Option<Key> {
        let last = self.rows.last_key_value().filter(|_| self.room() == 0);
        last.map(|(key, _)| *key)
    }

    /// Takes one that was found.
    pub fn take(&mut self, key: Key, row: Row) {
        if let Some(before) = self.keys.insert(key.id, key) {
            self.rows.remove(&before);
        }
        self.rows.insert(key, row);
        if self.rows.len() > self.rows_max
            && let Some((last, _)) = self.rows.pop_last()
        {
            self.keys.remove(&last.id);
        }
    }

    /// The page, and where the next one begins.
    pub fn finish(mut self) -> Listing {
        let goes_on = self.room() == 0;
        if goes_on {
            self.rows.pop_last();
        }
        let sort = self.sort;
        let last = self.rows.last_key_value().filter(|_| goes_on);
        let next = last.map(|(key, _)| Cursor { sort, key: *key });
        Listing { connections: self.rows.into_values().collect(), next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::Transport;
    use proptest::prelude::*;

    fn id(index: u32) -> ConnId {
        ConnId { shard: (index % 3) as u16, index, generation: 1 }
    }

    fn row(index: u32) -> Row {
        Row {
            id: id(index),
            user: None,
            transport: Transport::WebSocket,
            remote: String::new(),
            connected_at: 0,
            topics: Vec::new(),
            lag_messages: 0,
            lag_bytes: 0,
            idle_ms: 0,
            reason: None,
        }
    }

    #[test]
    fn issue_7_a_cursor_reads_back_as_it_displays_and_nothing_else_is_one() {
        for &sort in Sort::ALL {
            let value = if sort == Sort::Id { 0 } else { 65_536 };
            let cursor = Cursor { sort, key: Key::new(sort, value, id(5)) };
            assert_eq!(cursor.to_string(), format!("{sort}-{value}-2-5-1"));
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in
            ["", "lag", "lag-1", "lag-1-0-5", "lag--0-5-1", "id-1-0-5-1", "rank-1-0-5-1", "lag-1-0-5-1-2"]
        {
            assert_eq!(bad.parse::<Cursor>(), Err(BadCursor), "{bad:?}");
        }
    }

    #[test]
    fn issue_7_lag_descends_and_who_is_idle_or_connected_longest_comes_first() {
        let key = |sort, value| Key::new(sort, value, id(1));
        assert!(key(Sort::Lag, 9) < key(Sort::Lag, 8));
        assert!(key(Sort::Idle, 8) < key(Sort::Idle, 9) && key(Sort::Age, 8) < key(Sort::Age, 9));
        assert!(Key::new(Sort::Id, 0, id(3)) < Key::new(Sort::Id, 0, id(1)), "by shard first");
    }

    #[test]
    fn issue_7_who_is_found_twice_is_listed_once_where_it_was_last() {
        let mut page = Page::new(Sort::Lag, 2);
        page.take(Key::new(Sort::Lag, 10, id(1)), row(1));
        page.take(Key::new(Sort::Lag, 5, id(2)), row(2));
        page.take(Key::new(Sort::Lag, 1, id(1)), row(1));
        let listing = page.finish();
        assert_eq!(listing.connections.iter().map(|row| row.id).collect::<Vec<_>>(), [id(2), id(1)]);
        assert_eq!(listing.next, None);
    }

    proptest! {
        /// Pages one after the other are the whole list in its order, whatever the order in which it was found.
        #[test]
        fn issue_7_pages_one_after_the_other_are_the_whole_list(
            values in prop::collection::vec(0u64..5, 0..40), limit in 1u32..9, sort in 0usize..4,
        ) {
            let sort = Sort::ALL[sort];
            let value = |value: u64| if sort == Sort::Id { 0 } else { value };
            let all: Vec<(Key, u32)> = values.iter().zip(0..)
                .map(|(&of, index)| (Key::new(sort, value(of), id(index)), index)).collect();
            let mut expected = all.clone();
            expected.sort();
            let (mut listed, mut after) = (Vec::new(), None);
            loop {
                let mut page = Page::new(sort, limit);
                for &(key, index) in all.iter().filter(|(key, _)| after.is_none_or(|after: Cursor| *key > after.key)) {
                    if page.bound().is_none_or(|bound| key < bound) {
                        page.take(key, row(index));
                    }
                }
                let listing = page.finish();
                prop_assert!(listing.connections.len() <= limit as usize);
                listed.extend(listing.connections.iter().map(|row| row.id));
                after = listing.next;
                if after.is_none() {
                    break;
                }
            }
            prop_assert_eq!(listed, expected.iter().map(|(key, _)| key.id).collect::<Vec<_>>());
        }
    }
}
