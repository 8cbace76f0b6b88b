//! Connections by their two endpoints, in the order of their age, and bounded: at the limit the oldest goes.

use std::{collections::VecDeque, net::SocketAddr};

use hashbrown::HashMap;

/// A connection, whichever of its ends a packet comes from: the two endpoints in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pair(SocketAddr, SocketAddr);

/// Values by connection.
#[derive(Debug)]
pub struct Table<V> {
    entries: HashMap<Pair, (u64, V), foldhash::fast::RandomState>,
    /// By age. One is stale when its entry is gone, or was put in anew.
    ages: VecDeque<(u64, Pair)>,
    next: u64,
    most: usize,
}

// === impl Pair

impl Pair {
    pub fn new(a: SocketAddr, b: SocketAddr) -> Self {
        if a <= b { Self(a, b) } else { Self(b, a) }
    }
}

// === impl Table

impl<V> Table<V> {
    pub fn new(most: usize) -> Self {
        Self { entries: HashMap::default(), ages: VecDeque::new(), next: 0, most: most.max(1) }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn get(&self, pair: &Pair) -> Option<&V> {
        // Most tables are empty most of the time, and a hash costs more than this.
        if self.entries.is_empty() { None } else { self.entries.get(pair).map(|(_, value)| value) }
    }

    pub fn get_mut(&mut self, pair: &Pair) -> Option<&mut V> {
        if self.entries.is_empty() { None } else { self.entries.get_mut(pair).map(|(_, value)| value) }
    }

    /// Puts a value in, as the youngest. Returns the one that had to go for it.
    pub fn insert(&mut self, pair: Pair, value: V) -> Option<V> {
        let full = self.entries.len() >= self.most && !self.entries.contains_key(&pair);
        let gone = if full { self.pop() } else { None };
        self.entries.insert(pair, (self.next, value));
        self.age(pair);
        gone
    }

    /// Makes an entry the youngest.
    pub fn renew(&mut self, pair: &Pair) {
        if let Some((age, _)) = self.entries.get_mut(pair) {
            *age = self.next;
            self.age(*pair);
        }
    }

    pub fn remove(&mut self, pair: &Pair) -> Option<V> {
        if self.entries.is_empty() { None } else { self.entries.remove(pair).map(|(_, value)| value) }
    }

    /// Takes the oldest out.
    pub fn pop(&mut self) -> Option<V> {
        self.pop_if(|_| true)
    }

    /// Takes the oldest out if it is to go.
    pub fn pop_if(&mut self, goes: impl FnOnce(&V) -> bool) -> Option<V> {
        loop {
            let (age, pair) = self.ages.front()?;
            match self.entries.get(pair) {
                Some((current, value)) if current == age => {
                    if !goes(value) {
                        return None;
                    }
                    let pair = *pair;
                    self.ages.pop_front();
                    return self.entries.remove(&pair).map(|(_, value)| value);
                }
                _ => self.ages.pop_front(),
            };
        }
    }

    fn age(&mut self, pair: Pair) {
        self.ages.push_back((self.next, pair));
        self.next += 1;
        // Entries go in any order, so stale ages stay behind: sweep when they are the majority.
        if self.ages.len() > 2 * self.entries.len() + 1024 {
            self.ages.retain(|(age, pair)| self.entries.get(pair).is_some_and(|(current, _)| current == age));
        }
    }
}
