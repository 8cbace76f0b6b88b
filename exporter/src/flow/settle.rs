//! Begins that wait a moment. The two ends of a connection on one host are established one after the other, the time of
//! one segment apart; only when both have been seen is it known that both are here. So a begin is held until it is
//! [`SETTLE`] old at a reading of the rings.

use std::{net::SocketAddr, time::Duration};

use hashbrown::HashMap;

use super::{Begin, FlowEvent};
use crate::{capture::KernelTime, ledger::KernelEvents};

/// How long a begin waits for its other end. With the tick it bounds how long a record takes: at most two ticks.
pub(super) const SETTLE: Duration = Duration::from_millis(10);

/// Begins that wait, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Settling {
    held: Vec<Held>,
    /// Places in `held` of begins whose other end was not seen yet, by connection.
    unmatched: HashMap<Connection, usize, foldhash::fast::RandomState>,
}

#[derive(Debug)]
struct Held {
    begin: Begin,
    since: KernelTime,
    /// Part of a connection of flowtel's own.
    own: bool,
}

/// A connection, whichever side looks at it: the two endpoints in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Connection(SocketAddr, SocketAddr);

impl Connection {
    fn of(begin: &Begin) -> Self {
        let (a, b) = (begin.source, begin.destination);
        if a <= b { Self(a, b) } else { Self(b, a) }
    }
}

impl Settling {
    /// Holds a begin that was established at `since`. `own`: it is flowtel's, and so is its other end.
    pub fn hold(&mut self, mut begin: Begin, since: KernelTime, mut own: bool) {
        begin.local = begin.source.ip().is_loopback() || begin.source.ip() == begin.destination.ip();
        let connection = Connection::of(&begin);
        if let Some(place) = self.unmatched.remove(&connection) {
            let other = &mut self.held[place];
            other.begin.local = true;
            begin.local = true;
            own |= other.own;
            other.own = own;
        } else {
            self.unmatched.insert(connection, self.held.len());
        }
        self.held.push(Held { begin, since, own });
    }

    /// Gives out what is old enough at `now`, or all where it is `None`.
    pub fn release(&mut self, now: Option<KernelTime>, ledger: &KernelEvents, mut out: impl FnMut(FlowEvent)) {
        // Established times rise in the list, but for what came late: the first that must wait ends the round.
        let settled = now
            .and_then(|now| self.held.iter().position(|held| u128::from(now.since(held.since)) < SETTLE.as_nanos()))
            .unwrap_or(self.held.len());
        if settled == 0 {
            return;
        }
        for held in self.held.drain(..settled) {
            if held.own {
                ledger.established.own.add(1);
            } else {
                ledger.established.joined.add(1);
                out(FlowEvent::Begin(held.begin));
            }
        }
        self.unmatched.retain(|_, place| *place >= settled);
        self.unmatched.values_mut().for_each(|place| *place -= settled);
    }
}
