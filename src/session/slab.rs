//! Slots for open sessions, reused, each key good for one tenancy only.
//!
//! An event that epoll reported for a session that has just ended must not reach the next tenant
//! of its slot; so a key carries the slot's generation and an old one finds nothing.

/// Names one tenancy of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) index: u32,
    generation: u32,
}

impl Key {
    /// The key as the number that travels through epoll.
    pub(super) const fn token(self) -> mio::Token {
        mio::Token((self.generation as usize) << 32 | self.index as usize)
    }

    /// The key of that number.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "takes a key's two halves apart"
    )]
    pub(super) const fn from_token(token: mio::Token) -> Self {
        Self {
            index: token.0 as u32,
            generation: (token.0 >> 32) as u32,
        }
    }
}

const _: () = assert!(usize::BITS == 64, "a token holds two 32-bit numbers");

/// A store of values under reusable small indices.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The key that the next [`Self::insert`] will return.
    pub(super) fn next_key(&self) -> Key {
        match self.free.last() {
            Some(&index) => Key {
                index,
                generation: self.slots[index as usize].generation,
            },
            None => Key {
                index: as_index(self.slots.len()),
                generation: 0,
            },
        }
    }

    pub(super) fn insert(&mut self, value: T) -> Key {
        let key = self.next_key();
        if self.free.pop().is_some() {
            self.slots[key.index as usize].value = Some(value);
        } else {
            self.slots.push(Slot {
                generation: 0,
                value: Some(value),
            });
        }
        key
    }

    pub(super) fn value(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation {
            slot.value.as_mut()
        } else {
            None
        }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self
            .slots
            .get_mut(key.index as usize)
            .filter(|s| s.generation == key.generation)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index);
        Some(value)
    }

    /// The key of the present tenant of a slot.
    pub(super) fn tenant(&self, index: u32) -> Option<Key> {
        let slot = self.slots.get(index as usize)?;
        slot.value.as_ref().map(|_| Key {
            index,
            generation: slot.generation,
        })
    }

    /// The keys of all tenants.
    pub(super) fn keys(&self) -> Vec<Key> {
        (0..as_index(self.slots.len()))
            .filter_map(|index| self.tenant(index))
            .collect()
    }
}

fn as_index(length: usize) -> u32 {
    u32::try_from(length).expect("each slot holds a descriptor, of which there are fewer than 2^31")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_finds_nothing() {
        let mut slab = Slab::new();
        let first = slab.insert("a");
        assert_eq!(slab.remove(first), Some("a"));
        assert_eq!(slab.remove(first), None);
        let expected = slab.next_key();
        let second = slab.insert("b");
        assert_eq!(second, expected);
        assert_eq!(second.index, first.index, "the slot is reused");
        assert_eq!(slab.value(first), None);
        assert_eq!(slab.value(second), Some(&mut "b"));
        assert_eq!(slab.tenant(second.index), Some(second));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn keys_pass_through_tokens() {
        for (index, generation) in [(0, 0), (7, 1), (u32::MAX, u32::MAX), (1, u32::MAX)] {
            let key = Key { index, generation };
            assert_eq!(Key::from_token(key.token()), key);
        }
    }

    #[test]
    fn keys_are_those_of_the_tenants() {
        let mut slab = Slab::new();
        let keys: Vec<Key> = (0..4).map(|i| slab.insert(i)).collect();
        slab.remove(keys[1]);
        assert_eq!(slab.keys(), [keys[0], keys[2], keys[3]]);
        assert_eq!(slab.len(), 3);
    }
}
