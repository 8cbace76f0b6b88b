//! Connections that were asked for and are not established yet, by socket cookie. Bounded: at the limit the oldest is
//! forgotten, for it is the least likely to be answered still, and a process that connects in a loop costs others at most
//! the time and the owner of very slow handshakes, never a flow.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use hashbrown::{HashMap, hash_map::Entry};

use super::Owner;
use crate::{capture::KernelTime, ledger::KernelEvents};

/// A connection that was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Attempt {
    pub asked: KernelTime,
    /// Where to, as the process said it.
    pub destination: SocketAddr,
    /// When a SYN last left again.
    pub again: Option<KernelTime>,
    /// A reset came.
    pub reset_in: bool,
    /// The process dropped the socket.
    pub released: bool,
    /// Who asked; `None` for a worker of the kernel, which asks on nobody's behalf.
    pub owner: Option<Owner>,
}

/// Open attempts.
#[derive(Debug)]
pub(super) struct Attempts {
    by_cookie: HashMap<u64, Attempt, foldhash::fast::RandomState>,
    /// Cookies by age. An entry is stale when its attempt is gone or was asked at another time.
    by_age: VecDeque<(KernelTime, u64)>,
    most: usize,
    age: u64,
}

impl Attempts {
    pub fn new(most: usize, age: Duration) -> Self {
        Self {
            by_cookie: HashMap::default(),
            by_age: VecDeque::new(),
            most: most.max(1),
            age: u64::try_from(age.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// Goes on with other limits; the oldest that are over them are forgotten at once.
    pub fn set_limits(&mut self, most: usize, age: Duration, ledger: &KernelEvents) {
        self.most = most.max(1);
        self.age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        while self.by_cookie.len() > self.most {
            self.evict_oldest(ledger);
        }
    }

    pub fn len(&self) -> usize {
        self.by_cookie.len()
    }

    /// Opens an attempt. Returns the one on the same socket that it replaces: that one led to nothing.
    pub fn open(&mut self, cookie: u64, attempt: Attempt, ledger: &KernelEvents) -> Option<Attempt> {
        if self.by_cookie.len() >= self.most && !self.by_cookie.contains_key(&cookie) {
            self.evict_oldest(ledger);
        }
        self.by_age.push_back((attempt.asked, cookie));
        let replaced = self.by_cookie.insert(cookie, attempt);
        // Attempts end in any order, so stale entries stay behind; sweeping when they are the majority keeps the cost
        // of an attempt constant and the list at twice its use.
        if self.by_age.len() > 2 * self.by_cookie.len() + 1024 {
            self.by_age.retain(|(asked, cookie)| self.by_cookie.get(cookie).is_some_and(|a| a.asked == *asked));
        }
        replaced
    }

    /// All of them, each with its cookie.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Attempt)> {
        self.by_cookie.iter().map(|(cookie, attempt)| (*cookie, attempt))
    }

    /// The attempt on this socket that something at `time` can belong to: not one that was asked for later.
    pub fn get(&mut self, cookie: u64, time: KernelTime) -> Option<&mut Attempt> {
        self.by_cookie.get_mut(&cookie).filter(|attempt| attempt.asked <= time)
    }

    /// Ends the attempt on this socket that something at `time` can belong to, and hands it out.
    pub fn take(&mut self, cookie: u64, time: KernelTime) -> Option<Attempt> {
        match self.by_cookie.entry(cookie) {
            Entry::Occupied(attempt) if attempt.get().asked <= time => Some(attempt.remove()),
            _ => None,
        }
    }

    /// Ends an attempt and hands it out.
    pub fn close(&mut self, cookie: u64) -> Option<Attempt> {
        self.by_cookie.remove(&cookie)
    }

    /// Forgets one attempt that is older than the age limit at `now` and hands it out; `None` when there is none left.
    pub fn expire(&mut self, now: KernelTime) -> Option<(u64, Attempt)> {
        while let Some((asked, cookie)) = self.by_age.front().copied() {
            let live = self.by_cookie.get(&cookie).is_some_and(|a| a.asked == asked);
            if live && now.since(asked) <= self.age {
                return None;
            }
            self.by_age.pop_front();
            if live {
                return self.by_cookie.remove(&cookie).map(|attempt| (cookie, attempt));
            }
        }
        None
    }

    fn evict_oldest(&mut self, ledger: &KernelEvents) {
        while let Some((asked, cookie)) = self.by_age.pop_front() {
            if self.by_cookie.get(&cookie).is_none_or(|a| a.asked != asked) {
                continue;
            }
            self.by_cookie.remove(&cookie);
            ledger.connect.evicted.add(1);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attempt(asked: u64) -> Attempt {
        Attempt {
            asked: KernelTime(asked),
            destination: SocketAddr::from(([192, 0, 2, 2], 80)),
            again: None,
            reset_in: false,
            released: false,
            owner: None,
        }
    }

    #[test]
    fn a_full_table_forgets_the_oldest_attempt_and_counts_it() {
        let ledger = KernelEvents::default();
        let mut attempts = Attempts::new(3, Duration::from_secs(1));
        for cookie in 1..=5 {
            attempts.open(cookie, attempt(cookie), &ledger);
        }
        assert_eq!(attempts.len(), 3);
        assert_eq!(ledger.connect.evicted.get(), 2);
        assert!(attempts.close(1).is_none() && attempts.close(2).is_none());
        assert!(attempts.close(3).is_some());
    }

    #[test]
    fn a_lowered_limit_forgets_the_oldest_at_once() {
        let ledger = KernelEvents::default();
        let mut attempts = Attempts::new(10, Duration::from_secs(1));
        for cookie in 1..=8 {
            attempts.open(cookie, attempt(cookie), &ledger);
        }
        attempts.set_limits(3, Duration::from_secs(1), &ledger);
        assert_eq!((attempts.len(), ledger.connect.evicted.get()), (3, 5));
        assert!(attempts.close(5).is_none() && attempts.close(6).is_some());
    }

    #[test]
    fn a_million_attempts_that_all_end_leave_no_list_behind() {
        let ledger = KernelEvents::default();
        let mut attempts = Attempts::new(1000, Duration::from_secs(1));
        // One that stays, so that the list can't be emptied from its front.
        attempts.open(u64::MAX, attempt(0), &ledger);
        for cookie in 0..1_000_000 {
            attempts.open(cookie, attempt(cookie + 1), &ledger);
            attempts.close(cookie);
        }
        assert_eq!(attempts.len(), 1);
        assert!(attempts.by_age.len() < 2048);
    }

    proptest! {
        #[test]
        fn every_attempt_is_handed_out_once_or_evicted(
            steps in prop::collection::vec((0u8..4, 0u64..6), 1..200),
            most in 1usize..5,
        ) {
            let ledger = KernelEvents::default();
            let mut attempts = Attempts::new(most, Duration::from_nanos(20));
            let (mut opened, mut out, mut now) = (0u64, 0u64, 0u64);
            for (step, cookie) in steps {
                now += 3;
                match step {
                    0 => { opened += 1; out += u64::from(attempts.open(cookie, attempt(now), &ledger).is_some()); }
                    1 => out += u64::from(attempts.close(cookie).is_some()),
                    2 => if let Some(a) = attempts.get(cookie, KernelTime(now)) { a.again = Some(KernelTime(now)); },
                    _ => while attempts.expire(KernelTime(now)).is_some() { out += 1; },
                }
                prop_assert!(attempts.len() <= most);
                prop_assert_eq!(opened, out + ledger.connect.evicted.get() + attempts.len() as u64);
            }
        }
    }
}
