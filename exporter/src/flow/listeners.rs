//! Who bound which port, for incoming flows that nobody was seen to accept: accept() without an address runs no hook.
//! Bounded; at the limit the oldest goes.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::Owner;

/// The most ports remembered.
const MOST: usize = 16_384;

/// Binders by network namespace and port.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    by_port: HashMap<(u64, u16), Owner, foldhash::fast::RandomState>,
    by_age: VecDeque<(u64, u16)>,
}

impl Listeners {
    /// Remembers who bound `port`. The last one counts.
    pub fn bound(&mut self, netns: u64, port: u16, owner: Owner) {
        if port == 0 {
            return;
        }
        if self.by_port.insert((netns, port), owner).is_none() {
            self.by_age.push_back((netns, port));
            if self.by_age.len() > MOST
                && let Some(oldest) = self.by_age.pop_front()
            {
                self.by_port.remove(&oldest);
            }
        }
    }

    /// Who bound `port`. Where the namespace is not known (0) nobody did: another container's listener has the same port
    /// often enough.
    pub fn owner(&self, netns: u64, port: u16) -> Option<Owner> {
        if netns == 0 { None } else { self.by_port.get(&(netns, port)).copied() }
    }
}
