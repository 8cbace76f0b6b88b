//! What waits a moment before it is told, in the order in which it happened. Three things come late: the other end of a
//! connection on the same host is established a segment later; accept() runs after the handshake; and a local reset leaves
//! after its socket is closed. So everything is held until it is [`SETTLE`] old, and an incoming begin without an owner
//! until it is [`OWNER_WAIT`] old.

use std::{collections::VecDeque, time::Duration};

use super::{Cause, EndReason, FlowEvent, Owner, Role, What};
use crate::capture::{KernelTime, NetnsId};

/// How long everything waits. With the tick it bounds how long a record takes.
pub(super) const SETTLE: Duration = Duration::from_millis(10);
/// How long an incoming begin waits for its owner.
pub(super) const OWNER_WAIT: Duration = Duration::from_millis(50);

/// Where something is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

impl Place {
    /// Of what another flowtel has told: nothing is held there.
    pub const ELSEWHERE: Self = Self(u64::MAX);
}

/// What is held.
#[derive(Debug)]
pub(super) struct Held {
    pub event: FlowEvent,
    pub cookie: u64,
    /// Part of a connection of flowtel's own: not told.
    pub own: bool,
    /// It may still get an owner.
    pub wants_owner: bool,
    /// A begin whose other end was not seen.
    pub unmatched: bool,
    since: KernelTime,
}

impl Held {
    /// A begin whose owner is whoever listens: nobody was seen to take the connection.
    pub fn names_listener(&self) -> bool {
        matches!(self.event.what, What::Begin { .. })
            && self.event.flow.owner.is_some_and(|owner| owner.role == Role::Listener)
    }
}

/// The waiting line.
#[derive(Debug, Default)]
pub(super) struct Settling {
    held: VecDeque<Held>,
    /// The place of the front.
    base: u64,
}

impl Settling {
    /// Holds an event that was known at `since`.
    pub fn hold(&mut self, event: FlowEvent, cookie: u64, since: KernelTime, own: bool, wants_owner: bool) -> Place {
        self.held.push_back(Held { event, cookie, own, wants_owner, unmatched: false, since });
        Place(self.base + self.held.len() as u64 - 1)
    }

    /// What is held there, unless it was told already.
    pub fn get(&mut self, place: Place) -> Option<&mut Held> {
        let index = usize::try_from(place.0.checked_sub(self.base)?).ok()?;
        self.held.get_mut(index)
    }

    /// Notes that a begin's other end was not seen.
    pub fn await_other_end(&mut self, place: Place) {
        if let Some(held) = self.get(place) {
            held.unmatched = true;
        }
    }

    /// Gives a begin its owner, who is in this network namespace with it, if it is still held.
    pub fn give_owner(&mut self, place: Place, owner: Owner, netns: NetnsId) {
        if let Some(held) = self.get(place) {
            held.event.flow.netns = held.event.flow.netns.or(netns);
            held.event.flow.owner = Some(owner);
            held.wants_owner = false;
        }
    }

    /// Corrects the cause of an end, if it is still held.
    pub fn correct_end(&mut self, place: Place, correct: Cause<EndReason>) {
        if let Some(Held { event: FlowEvent { what: What::End { cause, .. }, .. }, .. }) = self.get(place) {
            *cause = Some(correct);
        }
    }

    /// The next that may be told at `now`, or at any time where it is `None`; [`Self::told`] takes it away.
    pub fn next(&self, now: Option<KernelTime>) -> Option<(Place, &Held)> {
        let front = self.held.front()?;
        if let Some(now) = now {
            let wait = if front.wants_owner { OWNER_WAIT } else { SETTLE };
            if u128::from(now.since(front.since)) < wait.as_nanos() {
                return None;
            }
        }
        Some((Place(self.base), front))
    }

    /// What [`Self::next`] showed was told.
    pub fn told(&mut self) {
        if self.held.pop_front().is_some() {
            self.base += 1;
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Gives back memory that one busy moment took.
    pub fn shrink(&mut self, keep: usize) {
        if self.held.is_empty() {
            self.held.shrink_to(keep);
        }
    }
}
