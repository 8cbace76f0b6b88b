//! A map by socket cookie that knows which of its entries came first: cookies and values in, values out, by cookie or the
//! oldest.
//!
//! Values lie in slots, each with the numbers of its elder and its younger neighbour; the table holds numbers of slots only,
//! 4 bytes an entry. An entry that goes leaves nothing behind that had to be swept up later by looking for it, and its slot
//! is the next to be used. Slots lie in pieces, so that nothing is copied, and no memory taken at a stroke, when they
//! become more.
//!
//! It has no bound of its own: whoever uses it has one, and takes the oldest out. Must never hold memory for many where
//! there is none.

use std::hash::BuildHasher as _;

use hashbrown::HashTable;

/// Slots of a piece.
const PIECE: usize = 1 << 10;
/// No slot.
const NONE: u32 = u32::MAX;

/// The map.
#[derive(Debug)]
pub(super) struct Aged<V> {
    /// Numbers of slots, by the hash of their cookies.
    table: HashTable<u32>,
    slots: Slots<V>,
    oldest: u32,
    youngest: u32,
    /// The free slot that was used last; the others follow as `younger`.
    free: u32,
    hasher: foldhash::fast::RandomState,
}

/// Slots, by number: all pieces but the last are full.
#[derive(Debug)]
struct Slots<V>(Vec<Vec<Slot<V>>>);

#[derive(Debug)]
struct Slot<V> {
    cookie: u64,
    older: u32,
    younger: u32,
    /// `None` where the slot is free.
    value: Option<V>,
}

// === impl Aged

impl<V> Default for Aged<V> {
    fn default() -> Self {
        Self {
            table: HashTable::new(),
            slots: Slots(Vec::new()),
            oldest: NONE,
            youngest: NONE,
            free: NONE,
            hasher: foldhash::fast::RandomState::default(),
        }
    }
}

impl<V> Aged<V> {
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn contains(&self, cookie: u64) -> bool {
        self.table.find(self.hasher.hash_one(cookie), |at| self.slots.is(*at, cookie)).is_some()
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        let slot = |at: u32| self.slots.get(at);
        let slots = std::iter::successors(slot(self.oldest), move |before| slot(before.younger));
        slots.filter_map(|slot| Some((slot.cookie, slot.value.as_ref()?)))
    }

    pub fn get_mut(&mut self, cookie: u64) -> Option<&mut V> {
        let Self { table, slots, hasher, .. } = self;
        let at = *table.find(hasher.hash_one(cookie), |at| slots.is(*at, cookie))?;
        slots.get_mut(at)?.value.as_mut()
    }

    /// Sets the value of `cookie`, which is the youngest from now on. Returns the one it had.
    pub fn insert(&mut self, cookie: u64, value: V) -> Option<V> {
        let replaced = self.remove(cookie);
        let at = self.fill(cookie, value);
        let Self { table, slots, hasher, .. } = self;
        let hash_of = |at: &u32| hasher.hash_one(slots.get(*at).map_or(0, |slot| slot.cookie));
        table.insert_unique(hasher.hash_one(cookie), at, hash_of);
        replaced
    }

    /// Takes the value of `cookie` out.
    pub fn remove(&mut self, cookie: u64) -> Option<V> {
        self.remove_if(cookie, |_| true)
    }

    /// Takes the value of `cookie` out, if `wanted` says so.
    pub fn remove_if(&mut self, cookie: u64, wanted: impl FnOnce(&V) -> bool) -> Option<V> {
        let Self { table, slots, hasher, .. } = self;
        let entry = table.find_entry(hasher.hash_one(cookie), |at| slots.is(*at, cookie)).ok()?;
        let at = *entry.get();
        slots.get(at).and_then(|slot| slot.value.as_ref()).filter(|value| wanted(value))?;
        entry.remove();
        self.empty(at)
    }

    /// The value that has been here for longest.
    pub fn oldest(&self) -> Option<&V> {
        self.slots.get(self.oldest)?.value.as_ref()
    }

    /// Takes that out.
    pub fn pop_oldest(&mut self) -> Option<(u64, V)> {
        let cookie = self.slots.get(self.oldest)?.cookie;
        self.remove(cookie).map(|value| (cookie, value))
    }

    /// Puts a value into a free slot, or a new one, as the youngest.
    fn fill(&mut self, cookie: u64, value: V) -> u32 {
        let filled = Slot { cookie, older: self.youngest, younger: NONE, value: Some(value) };
        let mut at = self.free;
        match self.slots.get_mut(at) {
            Some(slot) => self.free = std::mem::replace(slot, filled).younger,
            None => at = self.slots.push(filled),
        }
        match self.slots.get_mut(self.youngest) {
            Some(before) => before.younger = at,
            None => self.oldest = at,
        }
        self.youngest = at;
        at
    }

    /// Takes the value out of a slot that is no longer in the table.
    fn empty(&mut self, at: u32) -> Option<V> {
        let slot = self.slots.get_mut(at)?;
        let value = slot.value.take();
        let (older, younger) = (slot.older, std::mem::replace(&mut slot.younger, self.free));
        self.free = at;
        match self.slots.get_mut(older) {
            Some(slot) => slot.younger = younger,
            None => self.oldest = younger,
        }
        match self.slots.get_mut(younger) {
            Some(slot) => slot.older = older,
            None => self.youngest = older,
        }
        if self.table.is_empty() && self.slots.0.len() > 1 {
            // One busy time is not paid for in memory for ever.
            *self = Self { hasher: self.hasher.clone(), ..Self::default() };
        }
        value
    }
}

// === impl Slots

impl<V> Slots<V> {
    fn get(&self, at: u32) -> Option<&Slot<V>> {
        self.0.get(at as usize / PIECE)?.get(at as usize % PIECE)
    }

    fn get_mut(&mut self, at: u32) -> Option<&mut Slot<V>> {
        self.0.get_mut(at as usize / PIECE)?.get_mut(at as usize % PIECE)
    }

    /// Whether a slot is that of `cookie`.
    fn is(&self, at: u32, cookie: u64) -> bool {
        self.get(at).is_some_and(|slot| slot.cookie == cookie)
    }

    /// Appends one. Returns its number.
    fn push(&mut self, slot: Slot<V>) -> u32 {
        let full = self.0.last().is_none_or(|piece| piece.len() == PIECE);
        if full {
            self.0.push(Vec::with_capacity(PIECE));
        }
        let before = (self.0.len() - 1) * PIECE;
        let Some(piece) = self.0.last_mut() else { return NONE };
        piece.push(slot);
        // The limits of tables are numbers of 32 bits, and far below.
        u32::try_from(before + piece.len() - 1).unwrap_or(NONE)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_for_many_goes_with_the_last_of_them() {
        let mut aged = Aged::default();
        let most = 3 * PIECE as u64;
        for cookie in 0..most {
            aged.insert(cookie, cookie);
        }
        for cookie in (1..most).rev() {
            assert_eq!(aged.remove(cookie), Some(cookie));
        }
        assert_eq!(aged.slots.0.len(), 3);
        assert_eq!(aged.pop_oldest(), Some((0, 0)));
        assert_eq!((aged.len(), aged.slots.0.capacity(), aged.pop_oldest()), (0, 0, None));
        aged.insert(7, 8);
        assert_eq!((aged.oldest(), aged.len()), (Some(&8), 1));
    }

    proptest! {
        #[test]
        fn it_does_what_a_list_by_age_does(steps in prop::collection::vec((0u8..6, 0u64..12, any::<u32>()), 0..300)) {
            let mut aged = Aged::default();
            let mut model: VecDeque<(u64, u32)> = VecDeque::new();
            for (step, cookie, value) in steps {
                let at = model.iter().position(|(is, _)| *is == cookie);
                let known = at.and_then(|at| model.get(at)).map(|(_, value)| *value);
                let take = |model: &mut VecDeque<_>| at.and_then(|at| model.remove(at));
                match step {
                    0 | 1 => {
                        prop_assert_eq!(aged.insert(cookie, value), known);
                        take(&mut model);
                        model.push_back((cookie, value));
                    }
                    2 => {
                        prop_assert_eq!(aged.remove(cookie), known);
                        take(&mut model);
                    }
                    3 => {
                        prop_assert_eq!(aged.remove_if(cookie, |value| value % 2 == 0), known.filter(|v| v % 2 == 0));
                        if known.is_some_and(|value| value % 2 == 0) {
                            take(&mut model);
                        }
                    }
                    4 => prop_assert_eq!(aged.pop_oldest(), model.pop_front()),
                    _ => prop_assert_eq!(aged.get_mut(cookie).copied(), known),
                }
                prop_assert_eq!(aged.contains(cookie), model.iter().any(|(is, _)| *is == cookie));
                prop_assert_eq!(aged.oldest(), model.front().map(|(_, value)| value));
                prop_assert!(aged.iter().map(|(cookie, value)| (cookie, *value)).eq(model.iter().copied()));
                prop_assert_eq!(aged.len(), model.len());
                prop_assert!(aged.slots.0.iter().map(Vec::len).sum::<usize>() <= 12, "free slots are used again");
            }
        }
    }
}
