//! Calls of accept() whose flow has not begun, by cookie: a connection can be taken, on another CPU, in the moment before the
//! kernel tells of it, and with Fast Open a round trip before. Bounded by cgroup and by age.

use std::{collections::VecDeque, time::Duration};

use super::{Owner, shares::Shares};
use crate::capture::{KernelTime, NetnsId};

/// How long one is remembered.
const AGE: Duration = Duration::from_secs(1);
/// The most of one cgroup, and of all.
const MOST: (usize, usize) = (256, 8192);

/// They.
#[derive(Debug)]
pub(super) struct Early {
    calls: Shares<(Owner, NetnsId)>,
    /// In the order in which they came; some are taken already.
    order: VecDeque<(KernelTime, u64)>,
}

impl Default for Early {
    fn default() -> Self {
        Self { calls: Shares::new(MOST.0, MOST.1), order: VecDeque::new() }
    }
}

impl Early {
    /// Remembers one, and its socket's network namespace. The first of a socket counts. Returns how many led to nothing by that: itself, or one that had to go.
    pub fn add(&mut self, cookie: u64, owner: Owner, netns: NetnsId) -> u64 {
        if self.calls.get(cookie).is_some() {
            return 1;
        }
        let gone = self.calls.insert(cookie, owner.cgroup, (owner, netns)).map_or(0, |_| 1);
        self.order.push_back((owner.since, cookie));
        if self.order.len() > 2 * MOST.1 {
            let calls = &self.calls;
            self.order.retain(|(since, cookie)| calls.get(*cookie).is_some_and(|(owner, _)| owner.since == *since));
        }
        gone
    }

    /// Takes the one on this socket.
    pub fn take(&mut self, cookie: u64) -> Option<(Owner, NetnsId)> {
        if self.calls.is_empty() { None } else { self.calls.remove(cookie) }
    }

    /// Forgets those that are too old at `now`; all of them where it is `None`. Returns how many.
    pub fn forget(&mut self, now: Option<KernelTime>) -> u64 {
        let mut gone = 0;
        let old = |since: KernelTime| now.is_none_or(|now| u128::from(now.since(since)) >= AGE.as_nanos());
        while let Some((since, cookie)) = self.order.front().copied().filter(|(since, _)| old(*since)) {
            self.order.pop_front();
            if self.calls.get(cookie).is_some_and(|(owner, _)| owner.since == since) {
                self.calls.remove(cookie);
                gone += 1;
            }
        }
        gone
    }

    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Role, Source};

    fn owner(since: u64, cgroup: u64) -> Owner {
        let (role, source) = (Role::Acceptor, Source::Accept);
        Owner { pid: 1, uid: 0, comm: [0; 16], cgroup, since: KernelTime(since), role, source, begin: None }
    }

    #[test]
    fn one_cgroup_pushes_out_its_own_alone_and_each_is_counted_once() {
        let mut early = Early::default();
        assert_eq!(early.add(1, owner(1, 1), NetnsId::UNKNOWN), 0);
        let gone: u64 = (2..100_000).map(|cookie| early.add(cookie, owner(cookie, 2), NetnsId::UNKNOWN)).sum();
        assert_eq!(gone, 99_998 - MOST.0 as u64);
        assert!(early.order.len() <= 2 * MOST.1);
        assert_eq!(early.add(1, owner(2, 1), NetnsId::UNKNOWN), 1, "the first of a socket counts");
        assert_eq!(early.take(1).map(|(owner, _)| owner.since), Some(KernelTime(1)));
        assert_eq!(early.forget(Some(KernelTime(1_000_000_000))), 0);
        assert_eq!(early.forget(None), MOST.0 as u64);
        assert!(early.is_empty() && early.order.is_empty());
    }
}
