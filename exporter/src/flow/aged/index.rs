//! Where the slot of a socket cookie is: cookies in, numbers out.
//!
//! Its cost does not depend on how many there are. A table that scatters its entries makes each a miss of the near caches once it
//! is larger than they are; here the cookies of one moment lie together, and what one has brought the next ones find.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Neighbouring cookies that lie beside each other.
const RUN: u64 = 64;
/// Bits of a hash by which the table knows an entry before it looks at it: the upper ones (`Tag::full`, hashbrown).
const TAG: u32 = 7;

/// The numbers.
#[derive(Debug, Default)]
pub(super) struct Index {
    table: HashTable<Entry>,
    hasher: RandomState,
}

/// 12 bytes: the less there are, the more lie in one cache line.
#[derive(Debug, Clone, Copy)]
#[repr(Rust, packed(4))]
struct Entry {
    cookie: u64,
    at: u32,
}

// === impl Index

impl Index {
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn get(&self, cookie: u64) -> Option<u32> {
        self.table.find(hash(&self.hasher, cookie), |entry| entry.cookie == cookie).map(|entry| entry.at)
    }

    /// Sets the number of a cookie that has none.
    pub fn insert(&mut self, cookie: u64, at: u32) {
        let Self { table, hasher } = self;
        let hash_of = |entry: &Entry| hash(hasher, entry.cookie);
        if table.len() * 2 >= table.num_buckets() {
            // Half full at most: where runs meet, the way past them stays short.
            table.reserve(table.num_buckets() - table.len(), hash_of);
        }
        table.insert_unique(hash(hasher, cookie), Entry { cookie, at }, hash_of);
    }

    /// Forgets a cookie. Returns its number.
    pub fn remove(&mut self, cookie: u64) -> Option<u32> {
        let entry = self.table.find_entry(hash(&self.hasher, cookie), |entry| entry.cookie == cookie).ok()?;
        Some(entry.remove().0.at)
    }
}

/// Where the table looks for a cookie first, in the lower bits, and its tag, in the upper ones. The kernel hands cookies out one
/// after the other, 4,096 to a CPU at a time (gen_cookie_next, include/linux/cookie.h), so sockets of one moment have
/// neighbouring ones. Which place a run has is a secret: nobody can open sockets whose runs meet.
fn hash(hasher: &RandomState, cookie: u64) -> u64 {
    let n = cookie % RUN;
    hasher.hash_one(cookie / RUN).wrapping_add(n) ^ n << (u64::BITS - TAG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_lie_beside_each_other_and_are_told_apart_by_their_tags() {
        let hasher = RandomState::default();
        let hashes: Vec<_> = (0..RUN).map(|n| hash(&hasher, 7 * RUN + n)).collect();
        let places = |mask: u64| hashes.iter().map(move |hash| hash & mask);
        let first = hashes.first().copied().unwrap_or_default();
        assert!(places(0xffff).eq((0..RUN).map(|n| first.wrapping_add(n) & 0xffff)));
        let tags: std::collections::HashSet<_> = hashes.iter().map(|hash| hash >> (u64::BITS - TAG)).collect();
        assert_eq!(tags.len(), hashes.len());
    }

    #[test]
    fn half_full_at_most_and_no_larger_for_what_comes_and_goes() {
        let mut index = Index::default();
        for cookie in 0..100_000 {
            index.insert(cookie, cookie as u32);
        }
        let buckets = index.table.num_buckets();
        assert_eq!(buckets, 1 << 18);
        for cookie in 100_000..2_000_000u64 {
            index.insert(cookie, 0);
            index.remove(cookie);
        }
        assert_eq!((index.table.num_buckets(), index.get(99_999), index.get(100_000)), (buckets, Some(99_999), None));
    }
}
