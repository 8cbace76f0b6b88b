//! Flows between their begin and their end, by socket cookie. Bounded: at the limit the oldest is forgotten. Its end is
//! told all the same, for the kernel tells addresses with it, but without what its begin knew. (Not the newest: flows
//! whose end was lost would fill the table for ever.)

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::{Flow, reason::Seen, settle::Place};
use crate::capture::KernelTime;

/// A flow that has begun.
#[derive(Debug)]
pub(super) struct Open {
    pub flow: Flow,
    pub began: KernelTime,
    pub seen: Seen,
    /// Where its begin was held.
    pub begin: Place,
    /// This side asked for it: its SYN is among what the peer acknowledged.
    pub active: bool,
    pub own: bool,
}

/// All of them.
#[derive(Debug)]
pub(super) struct OpenFlows {
    by_cookie: HashMap<u64, Box<Open>, foldhash::fast::RandomState>,
    /// Cookies by age. An entry is stale when its flow is gone, or another one has its cookie.
    by_age: VecDeque<(Place, u64)>,
    most: usize,
}

impl OpenFlows {
    pub fn new(most: usize) -> Self {
        Self { by_cookie: HashMap::default(), by_age: VecDeque::new(), most: most.max(1) }
    }

    /// Follows a flow. Returns whether another one had to be forgotten for it.
    pub fn insert(&mut self, cookie: u64, open: Open) -> bool {
        let full = self.by_cookie.len() >= self.most && !self.by_cookie.contains_key(&cookie);
        if full {
            self.forget_oldest();
        }
        self.by_age.push_back((open.begin, cookie));
        // One that had the same cookie has ended unseen.
        self.by_cookie.insert(cookie, Box::new(open));
        // Flows end in any order, so stale entries stay behind: sweep when they are the majority.
        if self.by_age.len() > 2 * self.by_cookie.len() + 1024 {
            self.by_age.retain(|(begin, cookie)| self.by_cookie.get(cookie).is_some_and(|open| open.begin == *begin));
        }
        full
    }

    /// All of them, each with its cookie.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, &Open)> {
        self.by_cookie.iter().map(|(cookie, open)| (*cookie, &**open))
    }

    pub fn contains(&self, cookie: u64) -> bool {
        self.by_cookie.contains_key(&cookie)
    }

    pub fn get(&mut self, cookie: u64) -> Option<&mut Open> {
        self.by_cookie.get_mut(&cookie).map(|open| &mut **open)
    }

    pub fn remove(&mut self, cookie: u64) -> Option<Box<Open>> {
        self.by_cookie.remove(&cookie)
    }

    /// Goes on with another limit. Returns how many had to be forgotten for it.
    pub fn set_limit(&mut self, most: usize) -> u64 {
        self.most = most.max(1);
        let over = self.by_cookie.len().saturating_sub(self.most);
        for _ in 0..over {
            self.forget_oldest();
        }
        over as u64
    }

    pub fn len(&self) -> usize {
        self.by_cookie.len()
    }

    fn forget_oldest(&mut self) {
        while let Some((begin, cookie)) = self.by_age.pop_front() {
            if self.by_cookie.get(&cookie).is_some_and(|open| open.begin == begin) {
                self.by_cookie.remove(&cookie);
                return;
            }
        }
    }
}
