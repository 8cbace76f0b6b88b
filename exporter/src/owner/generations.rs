//! A bounded map that forgets what was not used for longest: keys and values in, values out while they are in use.
//!
//! Two maps, young and old, each of half the bound. What is used moves to the young one; when that is full the old one is
//! emptied and the two change places. So an entry stays for at least half the bound of other entries used after it, a
//! use costs one or two hash look-ups, and no list has to be kept.
//!
//! Must never hold more than its bound.

use std::{hash::Hash, mem};

use hashbrown::{HashMap, hash_map::Entry};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The map.
#[derive(Debug)]
pub(crate) struct Generations<K, V> {
    young: Map<K, V>,
    old: Map<K, V>,
    half: usize,
}

// === impl Generations

impl<K: Copy + Eq + Hash, V> Generations<K, V> {
    /// An empty one that holds at most `most` entries, and at least two.
    pub fn new(most: usize) -> Self {
        Self { young: Map::default(), old: Map::default(), half: (most / 2).max(1) }
    }

    /// The value of `key`, which counts as its use.
    pub fn get(&mut self, key: K) -> Option<&mut V> {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            let value = self.old.remove(&key)?;
            self.insert(key, value);
        }
        // One look-up in all but those few cases in which the generations change places.
        match self.young.entry(key) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(place) => self.old.remove(&key).map(|value| place.insert(value)),
        }
    }

    /// Sets the value of `key`, which counts as its use.
    pub fn insert(&mut self, key: K, value: V) {
        if let Some(known) = self.young.get_mut(&key) {
            *known = value;
            return;
        }
        self.old.remove(&key);
        if self.young.len() >= self.half {
            mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key, value);
    }

    /// Forgets `key`.
    pub fn remove(&mut self, key: K) -> Option<V> {
        self.young.remove(&key).or_else(|| self.old.remove(&key))
    }

    /// How many entries there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_used_stays_however_many_others_come() {
        let mut map = Generations::new(16);
        map.insert(0, "used");
        for other in 1..10_000 {
            map.insert(other, "other");
            assert_eq!(map.get(0).copied(), Some("used"));
        }
        assert!(map.get(1).is_none());
    }

    #[test]
    fn the_latest_half_of_the_bound_is_always_there() {
        let mut map = Generations::new(16);
        for key in 0..1000_u32 {
            map.insert(key, key);
            for recent in key.saturating_sub(7)..=key {
                assert!(map.young.contains_key(&recent) || map.old.contains_key(&recent));
            }
        }
    }

    proptest! {
        #[test]
        fn a_value_is_the_last_one_set_and_the_bound_holds(
            steps in prop::collection::vec((0u8..3, 0u32..40, any::<u16>()), 1..400),
            most in 0usize..24,
        ) {
            let mut map = Generations::new(most);
            let mut model = HashMap::new();
            for (step, key, value) in steps {
                match step {
                    0 => { map.insert(key, value); model.insert(key, value); }
                    1 => { map.remove(key); model.remove(&key); }
                    _ => {}
                }
                let found = map.get(key).copied();
                prop_assert!(found.is_none() || found == model.get(&key).copied());
                prop_assert!(step != 0 || found.is_some());
                prop_assert!(map.len() <= most.max(2));
            }
        }
    }
}
