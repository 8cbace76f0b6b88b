//! Events in; counts, and how many of them a second, out.

use std::collections::VecDeque;

use super::{SECOND, flow::Past};
use crate::view::facts::Event;

/// Seconds that are remembered one by one.
pub const SECONDS: usize = 64;
/// Seconds over which a rate is taken.
pub const OVER: u64 = 5;
/// Records come up to so much later than what they tell: younger seconds are not complete.
const LATE: u64 = 2;
/// Handshakes that are remembered.
const HANDSHAKES: usize = 128;

/// What happened within a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slot {
    /// Flows that began.
    pub begun: u64,
    /// Flows that ended.
    pub ended: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Bytes of sources.
    pub there: u64,
    /// Bytes of destinations.
    pub back: u64,
}

/// How many a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Flows that began.
    pub begun: f64,
    /// Flows that ended.
    pub ended: f64,
    /// Attempts that failed.
    pub failed: f64,
    /// Bytes of sources.
    pub there: f64,
    /// Bytes of destinations.
    pub back: f64,
}

/// Counts of events.
#[derive(Debug, Default)]
pub struct Sums {
    total: Slot,
    /// The last seconds, the oldest first, up to second `newest`.
    slots: VecDeque<Slot>,
    newest: u64,
    handshakes: VecDeque<f64>,
}

// === impl Sums

impl Sums {
    /// Takes an event.
    pub fn add(&mut self, past: &Past) {
        let mut slot = Slot { there: past.bytes.0, back: past.bytes.1, ..Slot::default() };
        match past.event {
            Event::Begin => slot.begun = past.count,
            Event::End => slot.ended = past.count,
            Event::Failed => slot.failed = past.count,
            Event::Open | Event::Update | Event::Gap => {}
        }
        self.total.add(&slot);
        if let Some(into) = self.at(past.time / SECOND) {
            into.add(&slot);
        }
        if let Some(handshake) = past.handshake {
            if self.handshakes.len() == HANDSHAKES {
                self.handshakes.pop_front();
            }
            self.handshakes.push_back(handshake);
        }
    }

    /// The place of a second; `None`: it is too long ago.
    fn at(&mut self, second: u64) -> Option<&mut Slot> {
        if self.slots.is_empty() || second >= self.newest + SECONDS as u64 {
            self.slots.clear();
            self.slots.push_back(Slot::default());
            self.newest = second;
        }
        while self.newest < second {
            if self.slots.len() == SECONDS {
                self.slots.pop_front();
            }
            self.slots.push_back(Slot::default());
            self.newest += 1;
        }
        let back = usize::try_from(self.newest - second).ok().filter(|back| *back < SECONDS)?;
        while self.slots.len() <= back {
            self.slots.push_front(Slot::default());
        }
        let at = self.slots.len() - 1 - back;
        self.slots.get_mut(at)
    }

    /// What happened in a second.
    pub fn second(&self, second: u64) -> Slot {
        let back = self.newest.checked_sub(second).and_then(|back| usize::try_from(back).ok());
        let at = back.and_then(|back| self.slots.len().checked_sub(1 + back));
        at.and_then(|at| self.slots.get(at)).copied().unwrap_or_default()
    }

    /// The last seconds that are complete, the oldest first.
    pub fn seconds(&self, now: u64, most: usize) -> impl Iterator<Item = Slot> {
        let last = (now / SECOND).saturating_sub(LATE);
        let first = last.saturating_sub(most as u64 - u64::from(most > 0));
        (first..=last).map(|second| self.second(second))
    }

    /// How many a second, over the last seconds that are complete.
    pub fn rates(&self, now: u64) -> Rates {
        let mut sum = Slot::default();
        self.seconds(now, OVER as usize).for_each(|slot| sum.add(&slot));
        let rate = |n: u64| n as f64 / OVER as f64;
        Rates {
            begun: rate(sum.begun),
            ended: rate(sum.ended),
            failed: rate(sum.failed),
            there: rate(sum.there),
            back: rate(sum.back),
        }
    }

    /// All of it.
    pub fn total(&self) -> Slot {
        self.total
    }

    /// The handshake that so many percent of the last ones did not exceed, in seconds.
    pub fn handshake(&self, percent: usize) -> Option<f64> {
        let mut sorted: Vec<_> = self.handshakes.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        sorted.get(last * percent.min(100) / 100).copied()
    }
}

impl Slot {
    fn add(&mut self, other: &Self) {
        let Self { begun, ended, failed, there, back } = other;
        self.begun = self.begun.saturating_add(*begun);
        self.ended = self.ended.saturating_add(*ended);
        self.failed = self.failed.saturating_add(*failed);
        self.there = self.there.saturating_add(*there);
        self.back = self.back.saturating_add(*back);
    }
}
