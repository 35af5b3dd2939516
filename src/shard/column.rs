//! One value for each slot of a `Table`, for what only some gateways' connections have: a slot has no room for it.
//!
//! By the chunks of the table; one in which all values are the default is not there.

use super::conn::CHUNK;

/// Values by slot.
#[derive(Debug)]
pub(super) struct Column<T> {
    chunks: Vec<Option<Box<Chunk<T>>>>,
}

#[derive(Debug)]
struct Chunk<T> {
    values: [T; CHUNK],
    /// Values that are not the default.
    set: u32,
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T: Default + PartialEq> Column<T> {
    /// The value of slot `index`; `None` is the default.
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let chunk = self.chunks.get(index as usize / CHUNK)?.as_ref()?;
        Some(&chunk.values[index as usize % CHUNK])
    }

    /// Bytes that it takes, but for what the values own.
    pub(super) fn memory_bytes(&self) -> usize {
        let present = self.chunks.iter().flatten().count();
        present * size_of::<Chunk<T>>() + self.chunks.capacity() * size_of::<Option<Box<Chunk<T>>>>()
    }

    /// Gives slot `index` another value; gives the one before.
    pub(super) fn put(&mut self, index: u32, value: T) -> T {
        let (number, default) = (index as usize / CHUNK, T::default());
        let is_set = value != default;
        if !is_set && self.get(index).is_none() {
            return default;
        }
        if self.chunks.len() <= number {
            self.chunks.resize_with(number + 1, || None);
        }
        let nothing = || Box::new(Chunk { values: std::array::from_fn(|_| T::default()), set: 0 });
        let chunk = self.chunks[number].get_or_insert_with(nothing);
        let before = std::mem::replace(&mut chunk.values[index as usize % CHUNK], value);
        chunk.set += u32::from(is_set);
        chunk.set -= u32::from(before != default);
        if chunk.set == 0 {
            self.chunks[number] = None;
        }
        before
    }
}
