//! Begins that wait a moment. The two ends of a connection on one host are established one after the other, the time of
//! one segment apart; only when both have been seen is it known that both are here. So a begin is held until it is
//! [`SETTLE`] old at a reading of the rings.

use std::{collections::VecDeque, time::Duration};

use hashbrown::{HashMap, hash_map::Entry};

use super::{Begin, CommunityId, FlowEvent};
use crate::{capture::KernelTime, ledger::KernelEvents};

/// How long a begin waits for its other end. With the tick it bounds how long a record takes: at most two ticks.
pub(super) const SETTLE: Duration = Duration::from_millis(10);

/// Begins that wait, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Settling {
    held: VecDeque<Held>,
    /// Number of the first in `held`; they are numbered as they come.
    first: u64,
    /// Numbers of begins whose other end was not seen yet, by what both ends have in common.
    unmatched: HashMap<CommunityId, u64, foldhash::fast::RandomState>,
}

#[derive(Debug)]
struct Held {
    begin: Begin,
    since: KernelTime,
    /// Part of a connection of flowtel's own.
    own: bool,
    /// It is in `unmatched`.
    unmatched: bool,
}

impl Settling {
    /// Holds a begin that was established at `since`. `own`: it is flowtel's, and so is its other end.
    pub fn hold(&mut self, mut begin: Begin, since: KernelTime, mut own: bool) {
        begin.local = begin.source.ip().is_loopback() || begin.source.ip() == begin.destination.ip();
        let unmatched = match self.unmatched.entry(begin.community_id) {
            Entry::Vacant(entry) => {
                entry.insert(self.first + self.held.len() as u64);
                true
            }
            Entry::Occupied(entry) => {
                // Released ones are not in the map.
                if let Some(other) = self.held.get_mut((entry.remove() - self.first) as usize) {
                    (other.begin.local, other.unmatched) = (true, false);
                    begin.local = true;
                    own |= other.own;
                    other.own = own;
                }
                false
            }
        };
        self.held.push_back(Held { begin, since, own, unmatched });
    }

    /// Gives out what is old enough at `now`, or all where it is `None`.
    pub fn release(&mut self, now: Option<KernelTime>, ledger: &KernelEvents, mut out: impl FnMut(FlowEvent)) {
        // Established times rise in the list, but for what came late: the first that must wait ends the round.
        let settled = now
            .and_then(|now| self.held.iter().position(|held| u128::from(now.since(held.since)) < SETTLE.as_nanos()))
            .unwrap_or(self.held.len());
        for held in self.held.drain(..settled) {
            if held.unmatched {
                self.unmatched.remove(&held.begin.community_id);
            }
            if held.own {
                ledger.established.own.add(1);
            } else {
                ledger.established.joined.add(1);
                out(FlowEvent::Begin(held.begin));
            }
        }
        self.first += settled as u64;
    }
}
