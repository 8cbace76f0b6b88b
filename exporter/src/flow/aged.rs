//! A map by socket cookie that knows which of its entries came first: cookies and values in, values out, by cookie or the
//! oldest.
//!
//! Values lie in slots: [`Index`] knows which is whose, [`Order`] whose turn it is. The three lie apart, so that what an entry
//! costs that others are looked for, or leave, is some bytes of each.
//!
//! It has no bound of its own: whoever uses it has one, and takes the oldest out. Must never hold memory for many where
//! there is none.

mod index;
mod order;
mod pieces;

use index::Index;
use order::Order;
use pieces::Pieces;

/// The map.
#[derive(Debug)]
pub(super) struct Aged<V> {
    index: Index,
    order: Order,
    /// `None` where the slot is free.
    values: Pieces<Option<V>>,
}

// === impl Aged

impl<V> Default for Aged<V> {
    fn default() -> Self {
        Self { index: Index::default(), order: Order::default(), values: Pieces::default() }
    }
}

impl<V> Aged<V> {
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn contains(&self, cookie: u64) -> bool {
        self.index.get(cookie).is_some()
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.order.iter().filter_map(|(at, cookie)| Some((cookie, self.values.get(at)?.as_ref()?)))
    }

    /// All of them, the youngest first.
    pub fn youngest(&self) -> impl Iterator<Item = (u64, &V)> {
        self.order.youngest().filter_map(|(at, cookie)| Some((cookie, self.values.get(at)?.as_ref()?)))
    }

    /// Those in `most` places from `place` on, and the place to go on from: 0 behind the last. Who goes round so meets whatever
    /// stays.
    pub fn from(&self, place: u32, most: usize) -> (Vec<(u64, &V)>, u32) {
        let end = place.saturating_add(u32::try_from(most).unwrap_or(u32::MAX));
        let mut found = Vec::new();
        for at in place..end {
            let Some(value) = self.values.get(at) else { return (found, 0) };
            if let (Some(value), Some(cookie)) = (value, self.order.cookie(at)) {
                found.push((cookie, value));
            }
        }
        (found, end)
    }

    pub fn peek(&self, cookie: u64) -> Option<&V> {
        self.values.get(self.index.get(cookie)?)?.as_ref()
    }

    pub fn get_mut(&mut self, cookie: u64) -> Option<&mut V> {
        self.values.get_mut(self.index.get(cookie)?)?.as_mut()
    }

    /// Sets the value of `cookie`, which is the youngest from now on. Returns the one it had.
    pub fn insert(&mut self, cookie: u64, value: V) -> Option<V> {
        let replaced = self.remove(cookie);
        let at = self.order.append(cookie);
        match self.values.get_mut(at) {
            Some(free) => *free = Some(value),
            None => _ = self.values.push(Some(value)),
        }
        self.index.insert(cookie, at);
        replaced
    }

    /// Takes the value of `cookie` out.
    pub fn remove(&mut self, cookie: u64) -> Option<V> {
        let at = self.index.remove(cookie)?;
        self.order.take_out(at);
        let value = self.values.get_mut(at)?.take();
        if self.index.len() == 0 && self.values.are_many() {
            // One busy time is not paid for in memory for ever.
            *self = Self::default();
        }
        value
    }

    /// Takes the value of `cookie` out, if `wanted` says so.
    pub fn remove_if(&mut self, cookie: u64, wanted: impl FnOnce(&V) -> bool) -> Option<V> {
        self.get_mut(cookie).filter(|value| wanted(value))?;
        self.remove(cookie)
    }

    /// The value that has been here for longest.
    pub fn oldest(&self) -> Option<&V> {
        self.iter().next().map(|(_, value)| value)
    }

    /// Takes that out.
    pub fn pop_oldest(&mut self) -> Option<(u64, V)> {
        let (_, cookie) = self.order.iter().next()?;
        self.remove(cookie).map(|value| (cookie, value))
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
        let most = 3000;
        for cookie in 0..most {
            aged.insert(cookie, cookie);
        }
        for cookie in (1..most).rev() {
            assert_eq!(aged.remove(cookie), Some(cookie));
        }
        assert!(aged.values.are_many());
        assert_eq!(aged.pop_oldest(), Some((0, 0)));
        assert!(aged.len() == 0 && aged.values.get(0).is_none());
        assert_eq!(aged.pop_oldest(), None);
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
                let mut back: Vec<_> = aged.youngest().map(|(cookie, value)| (cookie, *value)).collect();
                back.reverse();
                prop_assert!(back.iter().eq(model.iter()));
                let (mut round, mut place) = (Vec::new(), 0);
                loop {
                    let (some, next) = aged.from(place, 3);
                    round.extend(some.into_iter().map(|(cookie, value)| (cookie, *value)));
                    place = next;
                    if place == 0 {
                        break;
                    }
                }
                round.sort_unstable();
                let mut all: Vec<_> = model.iter().copied().collect();
                all.sort_unstable();
                prop_assert_eq!(round, all);
                prop_assert_eq!(aged.peek(cookie).copied(), aged.get_mut(cookie).copied());
                prop_assert_eq!(aged.len(), model.len());
                prop_assert!(aged.values.get(12).is_none(), "free slots are used again");
            }
        }
    }
}
