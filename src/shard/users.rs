//! Who is connected here: user id to connections.
//!
//! A user's connections are linked through their slots; the index holds one slot number per user, and
//! the id's text is stored once. About 35 bytes for a user with a 16-byte id.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::conn::{NONE, Table};
use crate::message::NAME_BYTES_MAX;

/// The user index of one shard.
#[derive(Debug, Default)]
pub struct Users {
    /// First slot of each user's list.
    heads: HashTable<u32>,
    names: Names,
    hasher: RandomState,
}

impl Users {
    /// Users with at least one connection.
    pub fn count(&self) -> usize {
        self.heads.len()
    }

    /// Bytes that the index and the ids take.
    pub fn memory_bytes(&self) -> usize {
        self.heads.allocation_size() + self.names.memory_bytes()
    }

    /// The id's text, by the name kept in a slot.
    pub fn text(&self, name: u32) -> &str {
        self.names.text(name)
    }

    /// First of the user's connections, or `NONE`; the others follow by `Slot::next`.
    pub fn first(&self, table: &Table, user: &str) -> u32 {
        let hash = self.hasher.hash_one(user);
        let found = self.heads.find(hash, |&head| self.names.text(table[head].user) == user);
        found.copied().unwrap_or(NONE)
    }

    /// Adds slot `index` to the user's connections.
    pub fn attach(&mut self, table: &mut Table, index: u32, user: &str) {
        let first = self.first(table, user);
        if first != NONE {
            // Second in the list: the index keeps pointing at the first.
            let second = table[first].next;
            let name = table[first].user;
            table[first].next = index;
            if second != NONE {
                table[second].previous = index;
            }
            let slot = &mut table[index];
            (slot.user, slot.next, slot.previous) = (name, second, first);
            return;
        }
        let name = self.names.insert(user);
        let slot = &mut table[index];
        (slot.user, slot.next, slot.previous) = (name, NONE, NONE);
        let (hasher, names) = (&self.hasher, &self.names);
        let rehash = |&head: &u32| hasher.hash_one(names.text(table[head].user));
        self.heads.insert_unique(hasher.hash_one(user), index, rehash);
    }

    /// Takes slot `index` from its user's connections.
    pub fn detach(&mut self, table: &mut Table, index: u32) {
        let (name, next, previous) = (table[index].user, table[index].next, table[index].previous);
        if name == NONE {
            return;
        }
        if previous == NONE {
            let hash = self.hasher.hash_one(self.names.text(name));
            let entry =
                self.heads.find_entry(hash, |&head| head == index).expect("a list's first is indexed");
            if next == NONE {
                entry.remove();
                self.names.remove(name);
            } else {
                *entry.into_mut() = next;
            }
        } else {
            table[previous].next = next;
        }
        if next != NONE {
            table[next].previous = previous;
        }
        let slot = &mut table[index];
        (slot.user, slot.next, slot.previous) = (NONE, NONE, NONE);
    }
}

/// Bytes of one cell, length byte included, per size class.
const CELLS: [usize; 7] = [12, 18, 24, 34, 48, 72, NAME_BYTES_MAX + 1];
const CLASS_SHIFT: u32 = 29;
const CHUNK_CELLS: usize = 1024;

/// Texts of at most 128 bytes in cells of a few sizes: no allocation and no header per text.
#[derive(Debug, Default)]
struct Names {
    classes: [Class; CELLS.len()],
}

#[derive(Debug, Default)]
struct Class {
    chunks: Vec<Vec<u8>>,
    cells: u32,
    free: Vec<u32>,
}

impl Names {
    fn memory_bytes(&self) -> usize {
        let class = |(class, cell): (&Class, usize)| {
            class.chunks.len() * cell * CHUNK_CELLS + class.free.capacity() * size_of::<u32>()
        };
        self.classes.iter().zip(CELLS).map(class).sum()
    }

    fn insert(&mut self, text: &str) -> u32 {
        let number = CELLS.iter().position(|&cell| text.len() < cell).expect("a name has at most 128 bytes");
        let (cell, class) = (CELLS[number], &mut self.classes[number]);
        let place = class.free.pop().unwrap_or_else(|| {
            let place = class.cells;
            class.cells += 1;
            if (place as usize).is_multiple_of(CHUNK_CELLS) {
                class.chunks.push(Vec::with_capacity(cell * CHUNK_CELLS));
            }
            let chunk = class.chunks.last_mut().expect("pushed for the first cell");
            chunk.resize(chunk.len() + cell, 0);
            place
        });
        let at = place as usize % CHUNK_CELLS * cell;
        let bytes = &mut class.chunks[place as usize / CHUNK_CELLS][at..at + cell];
        bytes[0] = text.len() as u8;
        bytes[1..=text.len()].copy_from_slice(text.as_bytes());
        (number as u32) << CLASS_SHIFT | place
    }

    fn text(&self, name: u32) -> &str {
        let (number, place) = ((name >> CLASS_SHIFT) as usize, name as usize & ((1 << CLASS_SHIFT) - 1));
        let at = place % CHUNK_CELLS * CELLS[number];
        let bytes = &self.classes[number].chunks[place / CHUNK_CELLS][at..];
        let text = &bytes[1..=usize::from(bytes[0])];
        std::str::from_utf8(text).expect("stored from a str")
    }

    fn remove(&mut self, name: u32) {
        self.classes[(name >> CLASS_SHIFT) as usize].free.push(name & ((1 << CLASS_SHIFT) - 1));
    }
}
