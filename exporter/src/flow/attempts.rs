//! Connections that were asked for and are not established yet, by socket cookie. Bounded: at the limit the oldest is
//! forgotten, for it is the least likely to be answered still, and a process that connects in a loop costs others at most
//! the time and the owner of very slow handshakes, never a flow.

use std::{net::SocketAddr, time::Duration};

use super::{Owner, aged::Aged};
use crate::{
    capture::{KernelTime, NetnsId},
    ledger::KernelEvents,
};

/// A connection that was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Attempt {
    pub asked: KernelTime,
    /// Where to, as the process said it.
    pub destination: SocketAddr,
    /// When a SYN last left again.
    pub again: Option<KernelTime>,
    /// The socket had asked for a connection before.
    pub used_again: bool,
    /// A reset came.
    pub reset_in: bool,
    /// The process dropped the socket.
    pub released: bool,
    /// A cgroup program refused the call.
    pub denied: bool,
    /// Who asked; `None` for a worker of the kernel, which asks on nobody's behalf.
    pub owner: Option<Owner>,
    /// The network namespace of its socket.
    pub netns: NetnsId,
}

/// Open attempts.
#[derive(Debug)]
pub(super) struct Attempts {
    open: Aged<Attempt>,
    most: usize,
    age: u64,
}

impl Attempts {
    pub fn new(most: usize, age: Duration) -> Self {
        Self { open: Aged::default(), most: most.max(1), age: u64::try_from(age.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// Goes on with other limits; the oldest that are over them are forgotten at once.
    pub fn set_limits(&mut self, most: usize, age: Duration, ledger: &KernelEvents) {
        self.most = most.max(1);
        self.age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        while self.open.len() > self.most {
            self.evict_oldest(ledger);
        }
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Opens an attempt. Returns the one on the same socket that it replaces: that one led to nothing.
    pub fn open(&mut self, cookie: u64, attempt: Attempt, ledger: &KernelEvents) -> Option<Attempt> {
        if self.open.len() >= self.most && !self.open.contains(cookie) {
            self.evict_oldest(ledger);
        }
        self.open.insert(cookie, attempt)
    }

    /// All of them, each with its cookie, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Attempt)> {
        self.open.iter()
    }

    /// The attempt on this socket that something at `time` can belong to: not one that was asked for later.
    pub fn get(&mut self, cookie: u64, time: KernelTime) -> Option<&mut Attempt> {
        self.open.get_mut(cookie).filter(|attempt| attempt.asked <= time)
    }

    /// Ends the attempt on this socket that something at `time` can belong to, and hands it out.
    pub fn take(&mut self, cookie: u64, time: KernelTime) -> Option<Attempt> {
        self.open.remove_if(cookie, |attempt| attempt.asked <= time)
    }

    /// Ends the attempt on this socket where `which` says so, and hands it out.
    pub fn close_if(&mut self, cookie: u64, which: impl FnOnce(&Attempt) -> bool) -> Option<Attempt> {
        self.open.remove_if(cookie, which)
    }

    /// Ends an attempt and hands it out.
    pub fn close(&mut self, cookie: u64) -> Option<Attempt> {
        self.open.remove(cookie)
    }

    /// Forgets one attempt that is older than the age limit at `now` and hands it out; `None` when there is none left.
    pub fn expire(&mut self, now: KernelTime) -> Option<(u64, Attempt)> {
        let oldest = self.open.oldest()?;
        if now.since(oldest.asked) <= self.age {
            return None;
        }
        self.open.pop_oldest()
    }

    fn evict_oldest(&mut self, ledger: &KernelEvents) {
        if self.open.pop_oldest().is_some() {
            ledger.connect.evicted.add(1);
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
            used_again: false,
            reset_in: false,
            released: false,
            denied: false,
            owner: None,
            netns: NetnsId::UNKNOWN,
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
