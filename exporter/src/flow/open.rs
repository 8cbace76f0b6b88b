//! Flows between their begin and their end, by socket cookie. Bounded: at the limit the oldest is forgotten. Its end is
//! told all the same, for the kernel tells addresses with it, but without what its begin knew. (Not the newest: flows
//! whose end was lost would fill the table for ever.)

use super::{Flow, aged::Aged, reason::Seen, settle::Place, updates::Passed};
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
    /// What its client said over TLS was told.
    pub hello: bool,
    /// What passed by its last update.
    pub told: Option<Box<Passed>>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct OpenFlows {
    flows: Aged<Open>,
    most: usize,
}

impl OpenFlows {
    pub fn new(most: usize) -> Self {
        Self { flows: Aged::default(), most: most.max(1) }
    }

    /// Follows a flow. Returns whether another one had to be forgotten for it.
    pub fn insert(&mut self, cookie: u64, open: Open) -> bool {
        let full = self.flows.len() >= self.most && !self.flows.contains(cookie);
        if full {
            self.flows.pop_oldest();
        }
        // One that had the same cookie has ended unseen.
        self.flows.insert(cookie, open);
        full
    }

    /// All of them, each with its cookie, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Open)> {
        self.flows.iter()
    }

    /// The youngest first, each with its cookie.
    pub fn youngest(&self) -> impl Iterator<Item = (u64, &Open)> {
        self.flows.youngest()
    }

    /// What lies from a place on, each with its cookie, and the place behind it.
    pub fn from(&self, place: u32, most: usize) -> (Vec<(u64, &Open)>, u32) {
        self.flows.from(place, most)
    }

    pub fn contains(&self, cookie: u64) -> bool {
        self.flows.contains(cookie)
    }

    pub fn peek(&self, cookie: u64) -> Option<&Open> {
        self.flows.peek(cookie)
    }

    pub fn get(&mut self, cookie: u64) -> Option<&mut Open> {
        self.flows.get_mut(cookie)
    }

    pub fn remove(&mut self, cookie: u64) -> Option<Open> {
        self.flows.remove(cookie)
    }

    /// Goes on with another limit. Returns how many had to be forgotten for it.
    pub fn set_limit(&mut self, most: usize) -> u64 {
        self.most = most.max(1);
        let over = self.flows.len().saturating_sub(self.most);
        for _ in 0..over {
            self.flows.pop_oldest();
        }
        over as u64
    }

    pub fn len(&self) -> usize {
        self.flows.len()
    }
}
