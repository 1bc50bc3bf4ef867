//! A map for things of which a session usually has few, and may have very many.

use std::hash::Hash;

use rustc_hash::FxHashMap;

/// A map in the order of insertion: a short list, or a long list with an index.
///
/// Looking up, inserting and removing cost O(1).
pub(crate) enum Few<K, V> {
    /// At most [`SHORT`] entries, looked through one by one. Empty, it owns no memory.
    Short(Vec<(K, V)>),
    Long(Box<Long<K, V>>),
}

pub(crate) struct Long<K, V> {
    /// `None` where an entry was removed.
    slots: Vec<Option<(K, V)>>,
    /// Where in `slots` each key stands.
    places: FxHashMap<K, usize>,
}

/// How many entries are looked through one by one.
const SHORT: usize = 16;

impl<K: Copy + Eq + Hash, V> Few<K, V> {
    pub(crate) const fn new() -> Few<K, V> {
        Few::Short(Vec::new())
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Few::Short(list) => list.len(),
            Few::Long(long) => long.places.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        match self {
            Few::Short(list) => list.iter().find(|(other, _)| *other == key).map(|(_, value)| value),
            Few::Long(long) => long.slots[*long.places.get(&key)?].as_ref().map(|(_, value)| value),
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        match self {
            Few::Short(list) => list.iter_mut().find(|(other, _)| *other == key).map(|(_, value)| value),
            Few::Long(long) => long.slots[*long.places.get(&key)?].as_mut().map(|(_, value)| value),
        }
    }

    pub(crate) fn has(&self, key: K) -> bool {
        self.get(key).is_some()
    }

    /// Adds an entry behind all others. A key that is there keeps its place; its former value is returned.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(present) = self.get_mut(key) {
            return Some(std::mem::replace(present, value));
        }
        match self {
            Few::Short(list) if list.len() < SHORT => list.push((key, value)),
            Few::Short(list) => *self = Few::Long(Box::new(Long::new(list.drain(..).chain([(key, value)])))),
            Few::Long(long) => long.push(key, value),
        }
        None
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        match self {
            Few::Short(list) => {
                let place = list.iter().position(|(other, _)| *other == key)?;
                Some(list.remove(place).1)
            }
            Few::Long(long) => {
                let (_, value) = long.slots[long.places.remove(&key)?].take()?;
                match long.places.len() {
                    0 => *self = Few::new(),
                    left if long.slots.len() > 4 * left + SHORT => long.close_gaps(),
                    _ => {}
                }
                Some(value)
            }
        }
    }

    /// Returns the entries in the order in which they were inserted.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        let (short, long) = match self {
            Few::Short(list) => (&list[..], &[][..]),
            Few::Long(long) => (&[][..], &long.slots[..]),
        };
        short.iter().chain(long.iter().flatten()).map(|(key, value)| (*key, value))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = K> {
        self.iter().map(|(key, _)| key)
    }

    /// Takes all entries out, in the order in which they were inserted.
    pub(crate) fn take_all(&mut self) -> Vec<(K, V)> {
        match std::mem::take(self) {
            Few::Short(list) => list,
            Few::Long(long) => long.slots.into_iter().flatten().collect(),
        }
    }
}

impl<K: Copy + Eq + Hash, V> Default for Few<K, V> {
    fn default() -> Few<K, V> {
        Few::new()
    }
}

impl<K: Copy + Eq + Hash, V> Long<K, V> {
    fn new(entries: impl Iterator<Item = (K, V)>) -> Long<K, V> {
        let mut long = Long { slots: Vec::new(), places: FxHashMap::default() };
        entries.for_each(|(key, value)| long.push(key, value));
        long
    }

    fn push(&mut self, key: K, value: V) {
        self.places.insert(key, self.slots.len());
        self.slots.push(Some((key, value)));
    }

    /// Moves the entries together. At least three removals were made for each entry that moves.
    fn close_gaps(&mut self) {
        self.slots.retain(Option::is_some);
        let keys = self.slots.iter().flatten().map(|(key, _)| *key);
        self.places = keys.enumerate().map(|(place, key)| (key, place)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_agrees_with_a_list_that_is_searched() {
        let (mut few, mut model) = (Few::new(), Vec::<(u32, u32)>::new());
        let mut random = 1_u32;
        for step in 0..20_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // It grows, and shrinks to nothing again.
            let key = (random >> 8) % 200;
            if (random >> 24) % 8 < if step % 4000 < 2000 { 6 } else { 2 } {
                let former = model.iter_mut().find(|(other, _)| *other == key);
                let expected = former.map(|(_, value)| std::mem::replace(value, step));
                if expected.is_none() {
                    model.push((key, step));
                }
                assert_eq!(few.insert(key, step), expected);
            } else {
                let place = model.iter().position(|(other, _)| *other == key);
                assert_eq!(few.remove(key), place.map(|place| model.remove(place).1));
            }
            assert_eq!((few.len(), few.is_empty()), (model.len(), model.is_empty()));
            assert_eq!(few.get(key), model.iter().find(|(other, _)| *other == key).map(|(_, value)| value));
            if step % 50 == 0 {
                assert!(few.iter().map(|(key, value)| (key, *value)).eq(model.iter().copied()));
            }
        }
        assert_eq!(few.take_all(), model);
        assert!(few.is_empty());
    }
}
