//! What is kept by socket cookie, at the expense of the cgroup that brought it: entries in, entries out. Bounded, for each
//! cgroup and in all.
//!
//! A cgroup that is at its limit loses its own oldest entry. When the whole table is full, the cgroup that has the most loses
//! its oldest. So nobody can push out what another cgroup has, unless that one has as much itself.

use std::collections::BTreeMap;

use hashbrown::HashMap;

/// The table.
#[derive(Debug)]
pub(super) struct Shares<V> {
    entries: HashMap<u64, Entry<V>, foldhash::fast::RandomState>,
    /// Cookies of each cgroup, the oldest first. None is empty.
    cgroups: HashMap<u64, BTreeMap<u64, u64>, foldhash::fast::RandomState>,
    /// How many entries there were ever.
    turn: u64,
    /// The most of one cgroup, and of all.
    each: usize,
    all: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    cgroup: u64,
    turn: u64,
}

impl<V> Shares<V> {
    /// An empty table for so many entries of each cgroup, and of all together.
    pub fn new(each: usize, all: usize) -> Self {
        Self { entries: HashMap::default(), cgroups: HashMap::default(), turn: 0, each, all }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn get(&self, cookie: u64) -> Option<&V> {
        self.entries.get(&cookie).map(|entry| &entry.value)
    }

    /// Sets the value of `cookie`, at the expense of `cgroup`. Returns the value that was pushed out, or replaced.
    pub fn insert(&mut self, cookie: u64, cgroup: u64, value: V) -> Option<V> {
        let replaced = self.remove(cookie);
        self.turn += 1;
        let turn = self.turn;
        self.entries.insert(cookie, Entry { value, cgroup, turn });
        let own = self.cgroups.entry(cgroup).or_default();
        own.insert(turn, cookie);
        let over = if own.len() > self.each {
            Some(cgroup)
        } else if self.entries.len() > self.all {
            self.cgroups.iter().max_by_key(|(_, own)| own.len()).map(|(cgroup, _)| *cgroup)
        } else {
            None
        };
        let oldest = over.and_then(|cgroup| self.cgroups.get(&cgroup)?.first_key_value().map(|(_, cookie)| *cookie));
        oldest.and_then(|oldest| self.remove(oldest)).or(replaced)
    }

    pub fn remove(&mut self, cookie: u64) -> Option<V> {
        let Entry { value, cgroup, turn } = self.entries.remove(&cookie)?;
        if let Some(own) = self.cgroups.get_mut(&cgroup) {
            own.remove(&turn);
            if own.is_empty() {
                self.cgroups.remove(&cgroup);
            }
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cgroup_pushes_out_its_own_alone() {
        let mut shares = Shares::new(100, 1000);
        shares.insert(1, 7, "the web server's");
        for cookie in 2..20_000 {
            shares.insert(cookie, 8, "somebody's");
        }
        assert_eq!((shares.get(1), shares.entries.len()), (Some(&"the web server's"), 101));
        // Many cgroups of one user, each below its own limit.
        for cookie in 20_000..60_000 {
            shares.insert(cookie, 1000 + cookie % 20, "somebody's");
        }
        assert_eq!((shares.get(1), shares.entries.len()), (Some(&"the web server's"), 1000));
    }

    proptest! {
        /// The model: a list in the order of the insertions.
        #[test]
        fn it_holds_what_a_list_of_the_insertions_would(
            steps in prop::collection::vec((0u8..5, 0u64..12, 0u64..3), 1..200),
        ) {
            const EACH: usize = 4;
            const ALL: usize = 9;
            let mut shares = Shares::new(EACH, ALL);
            let mut model: Vec<(u64, u64, usize)> = Vec::new();
            for (step, (what, cookie, cgroup)) in steps.into_iter().enumerate() {
                let there = model.iter().position(|(c, ..)| *c == cookie).map(|at| model.remove(at).2);
                if what == 0 {
                    prop_assert_eq!(shares.remove(cookie), there);
                } else {
                    let given_back = shares.insert(cookie, cgroup, step);
                    model.push((cookie, cgroup, step));
                    let count = |cgroup: u64| model.iter().filter(|(_, c, _)| *c == cgroup).count();
                    let over = if count(cgroup) > EACH { vec![cgroup] } else if model.len() > ALL {
                        // Any of those that have the most.
                        let most = (0..3).map(count).max();
                        (0..3).filter(|c| Some(count(*c)) == most).collect()
                    } else { vec![] };
                    let pushed_out: Vec<_> =
                        over.iter().filter_map(|cgroup| model.iter().position(|(_, c, _)| c == cgroup)).collect();
                    match pushed_out.iter().find(|at| shares.get(model[**at].0).is_none()) {
                        Some(at) => prop_assert_eq!(given_back, Some(model.remove(*at).2)),
                        None => {
                            prop_assert!(pushed_out.is_empty());
                            prop_assert_eq!(given_back, there);
                        }
                    }
                }
                prop_assert_eq!(shares.entries.len(), model.len());
                for (cookie, _, value) in &model {
                    prop_assert_eq!(shares.get(*cookie), Some(value));
                }
            }
            for cookie in 0..12 { shares.remove(cookie); }
            prop_assert!(shares.is_empty() && shares.cgroups.is_empty());
        }
    }
}
