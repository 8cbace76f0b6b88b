//! Flows between their begin and their end, by socket cookie. Bounded: when it is full a new flow is not followed, which
//! is counted; its end still has addresses, for the kernel tells them with it.

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
    most: usize,
}

impl OpenFlows {
    pub fn new(most: usize) -> Self {
        Self { by_cookie: HashMap::default(), most }
    }

    /// Follows a flow. Returns one that had the same cookie, whose end was lost; and whether there was room.
    pub fn insert(&mut self, cookie: u64, open: Open) -> (Option<Box<Open>>, bool) {
        if self.by_cookie.len() >= self.most && !self.by_cookie.contains_key(&cookie) {
            return (None, false);
        }
        (self.by_cookie.insert(cookie, Box::new(open)), true)
    }

    pub fn get(&mut self, cookie: u64) -> Option<&mut Open> {
        self.by_cookie.get_mut(&cookie).map(|open| &mut **open)
    }

    pub fn remove(&mut self, cookie: u64) -> Option<Box<Open>> {
        self.by_cookie.remove(&cookie)
    }

    pub fn len(&self) -> usize {
        self.by_cookie.len()
    }

    pub fn values(&self) -> impl Iterator<Item = &Open> {
        self.by_cookie.values().map(|open| &**open)
    }
}
