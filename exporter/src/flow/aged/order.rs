//! Which socket cookie came first: cookies in, a number each; numbers or the oldest out.
//!
//! Each has the numbers of its elder and its younger neighbour. One that goes leaves nothing behind that had to be swept up later
//! by looking for it, and its number is the next to be used. 16 bytes each, and nothing else between them: to take one out of
//! the middle touches its neighbours, too.

use super::pieces::Pieces;

/// No number.
const NONE: u32 = u32::MAX;

/// Numbers in use, the oldest first, and free ones.
#[derive(Debug)]
pub(super) struct Order {
    links: Pieces<Link>,
    oldest: u32,
    youngest: u32,
    /// The free number that was used last; the others follow as `younger`.
    free: u32,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    cookie: u64,
    older: u32,
    younger: u32,
}

// === impl Order

impl Default for Order {
    fn default() -> Self {
        Self { links: Pieces::default(), oldest: NONE, youngest: NONE, free: NONE }
    }
}

impl Order {
    /// Gives a cookie a number, as the youngest: one that was used before, or the first that never was.
    pub fn append(&mut self, cookie: u64) -> u32 {
        let link = Link { cookie, older: self.youngest, younger: NONE };
        let mut at = self.free;
        match self.links.get_mut(at) {
            Some(free) => self.free = std::mem::replace(free, link).younger,
            None => at = self.links.push(link),
        }
        match self.links.get_mut(self.youngest) {
            Some(before) => before.younger = at,
            None => self.oldest = at,
        }
        self.youngest = at;
        at
    }

    /// Takes a number out that is in use.
    pub fn take_out(&mut self, at: u32) {
        let Some(link) = self.links.get_mut(at) else { return };
        let (older, younger) = (link.older, std::mem::replace(&mut link.younger, self.free));
        self.free = at;
        match self.links.get_mut(older) {
            Some(link) => link.younger = younger,
            None => self.oldest = younger,
        }
        match self.links.get_mut(younger) {
            Some(link) => link.older = older,
            None => self.youngest = older,
        }
    }

    /// The cookie of a number that is in use.
    pub fn cookie(&self, at: u32) -> Option<u64> {
        self.links.get(at).map(|link| link.cookie)
    }

    /// All that are in use with their cookies, the youngest first.
    pub fn youngest(&self) -> impl Iterator<Item = (u32, u64)> {
        let link = |at: u32| Some((at, self.links.get(at)?));
        let links = std::iter::successors(link(self.youngest), move |(_, after)| link(after.older));
        links.map(|(at, link)| (at, link.cookie))
    }

    /// All that are in use with their cookies, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u64)> {
        let link = |at: u32| Some((at, self.links.get(at)?));
        let links = std::iter::successors(link(self.oldest), move |(_, before)| link(before.younger));
        links.map(|(at, link)| (at, link.cookie))
    }
}
