//! Flows that are older than flowtel, from the snapshot at its start to their end. No change of their sockets' state is
//! told, unless an earlier flowtel asked for it; so what ends them is put together: their FINs and RSTs say how, the kernel's
//! list of sockets says that. Whichever complete end comes first is told, and no second one.
//!
//! Bytes are what the last FIN each way said would be counted once it was acknowledged; else what was counted last.

use std::time::Duration;

use flowtel_common::event::{self, Close, Counters, Fin, Segment, Update, state};
use hashbrown::{HashMap, HashSet};

use super::{
    Cause, CommunityId, Direction, EndReason, Evidence, Flow, FlowEvent, FlowId, Owner, Role, Sent, Source, Stamp,
    Traffic, What,
    flows::{Flows, ended, stamp},
    reason::{LEAST_RTO, RESET_CLOSES_WITHIN, Seen},
    updates::{Passed, so_far},
};
use crate::capture::{
    Clock, KernelEvent, KernelTime,
    snapshot::{Found, FoundListener, Gone, Holder, Listing},
};

/// Flows that were there before flowtel, by socket cookie. As many as the snapshot was allowed to find.
#[derive(Debug, Default)]
pub(super) struct OlderFlows {
    by_cookie: HashMap<u64, Older, foldhash::fast::RandomState>,
}

/// One of them.
#[derive(Debug)]
struct Older {
    flow: Flow,
    /// This side asked for it, as far as is known: its SYN is among what the peer acknowledged.
    active: bool,
    /// When it was found, and in which state.
    found: (KernelTime, u32),
    /// The most that was counted.
    counters: Counters,
    /// The peer's FIN, the own FIN, last: when, and what is counted once all up to it is.
    fin_in: Option<(Stamp, u64)>,
    fin_out: Option<(Stamp, u64)>,
    /// The own FIN left again.
    fin_again: Option<KernelTime>,
    /// The own FIN was acknowledged: it is among what was counted.
    fin_counted: bool,
    /// The peer's FIN came, and is among what was counted.
    peer_fin_came: bool,
    reset_in: Option<Stamp>,
    reset_out: Option<Stamp>,
    /// What passed by its last update, or by when it was found.
    told: Passed,
}

// === impl OlderFlows

impl OlderFlows {
    pub fn len(&self) -> usize {
        self.by_cookie.len()
    }

    /// All of them, in no order.
    pub fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.by_cookie.values().map(|older| &older.flow)
    }

    /// Whether the flow on this socket is one.
    pub fn contains(&self, cookie: u64) -> bool {
        self.by_cookie.contains_key(&cookie)
    }

    /// A process takes a connection that nobody had taken when it was found. Returns whether it is one of these.
    pub fn accepts(&mut self, cookie: u64, owner: Owner) -> bool {
        let flow = self.by_cookie.get_mut(&cookie).map(|older| &mut older.flow);
        let Some(flow) = flow.filter(|flow| flow.direction == Some(Direction::Incoming) && flow.owner.is_none()) else {
            return false;
        };
        flow.owner = Some(owner);
        true
    }

    /// Notes a FIN. Returns whether it is of one of these.
    pub fn fin(&mut self, event: &KernelEvent, fin: &Fin) -> bool {
        let Some(older) = self.by_cookie.get_mut(&fin.cookie) else { return false };
        older.segment(&fin.counters, fin.state);
        let at = stamp(event, event.time);
        let Counters { bytes_acked, bytes_received, .. } = fin.counters;
        // A FIN that stands before what was counted, or far ahead of it, is a stray one.
        let ahead = if fin.ahead < 1 << 31 { u64::from(fin.ahead) } else { 0 };
        if fin.way == event::IN {
            older.fin_in = Some((at, bytes_received + ahead));
        } else {
            if older.fin_out.is_some() || older.fin_was_out() {
                older.fin_again = Some(event.time);
            }
            older.fin_out = Some((at, bytes_acked + ahead));
        }
        true
    }

    /// Takes what one of these has counted so far. Returns its flow, and what has passed; `None` where that is not known.
    pub fn updates(&mut self, update: &Update) -> Option<(Flow, Traffic)> {
        let older = self.by_cookie.get_mut(&update.cookie)?;
        older.counts(&update.counters);
        if update.state == state::FIN_WAIT2 && older.fin_in.is_some() {
            // The peer's FIN is among what it has received: the end tells.
            return None;
        }
        let mut traffic = so_far(&update.counters, update.state, older.flow.direction, older.active);
        traffic.counted = update.marks & u32::from(event::UNCOUNTED) == 0;
        Some((older.flow.clone(), traffic))
    }

    /// What passed by the last update of the flow on this socket, or by when it was found.
    pub fn told(&mut self, cookie: u64) -> Option<&mut Passed> {
        self.by_cookie.get_mut(&cookie).map(|older| &mut older.told)
    }

    /// The same of all, each with its cookie.
    pub fn all_told(&self) -> impl Iterator<Item = (u64, &Passed)> {
        self.by_cookie.iter().map(|(cookie, older)| (*cookie, &older.told))
    }

    /// Notes a reset. Returns whether it is of one of these.
    pub fn reset(&mut self, event: &KernelEvent, reset: &Segment) -> bool {
        let Some(older) = self.by_cookie.get_mut(&reset.cookie) else { return false };
        older.segment(&reset.counters, reset.state);
        // A reset that leaves comes from a socket that is closed already.
        older.peer_fin_came |= reset.fin_in != 0 && reset.state == state::CLOSE;
        let at = Some(stamp(event, event.time));
        if reset.way == event::IN {
            older.reset_in = at;
        } else {
            older.reset_out = at;
        }
        true
    }
}

// === impl Flows

impl Flows {
    /// Takes what was there at the start: connections, each told once as open, and listeners. `began` says of which the
    /// programs have told the begin, or will: those are no news, nor are those that are followed already. To be called
    /// before anything else.
    pub fn found(&mut self, listing: &Listing, clock: &Clock, began: impl Fn(u64) -> bool) {
        for listener in listing.listeners.iter().filter(|_| self.acceptors) {
            // One that began to listen meanwhile was told, or will be.
            if let Some(owner) = listener_owner(listener, listing.time) {
                self.listeners.listens(listener.cookie, Some(owner));
            }
        }
        let listeners: HashMap<_, _> = listing.listeners.iter().map(|l| ((l.namespace, l.port), l)).collect();
        // Both ends of a connection are here where both are in the lists.
        let mut ends: HashMap<CommunityId, u32> = HashMap::new();
        let mut seen = HashSet::new();
        let all = listing.connections.iter().map(|found| (found.local, found.remote));
        for (local, remote) in all.chain(listing.left.iter().copied()) {
            if seen.insert((local, remote)) {
                *ends.entry(CommunityId::tcp(local, remote)).or_default() += 1;
            }
        }
        let wall = clock.wall(listing.time);
        let at = Stamp { time: listing.time, wall, observed: wall };
        let kind = &self.ledger.kernel.found;
        kind.seen.add(listing.connections.len() as u64);
        kind.read.add(listing.connections.len() as u64);
        for found in &listing.connections {
            if began(found.cookie) || self.open.contains(found.cookie) {
                self.ledger.kernel.found.unused.add(1);
                continue;
            }
            if self.own_sockets.is_inherited(found.cookie) {
                self.ledger.kernel.found.own.add(1);
                continue;
            }
            let Found { cookie, local, remote, .. } = *found;
            let listens = |port: u16| listeners.get(&(found.namespace, port)).copied();
            let direction = direction(found, listens(local.port()).is_some(), listens(remote.port()).is_some());
            let mut flow = Flow::new(&self.boot, cookie, local, remote, direction);
            flow.local |= ends.get(&CommunityId::tcp(local, remote)).is_some_and(|n| *n > 1);
            (flow.netns, flow.interface) = (found.netns, found.interface);
            flow.owner = self.holder(found, direction, listing.time);
            let active = found.active.unwrap_or(direction == Some(Direction::Outgoing));
            self.settling.hold(FlowEvent { at, flow: flow.clone(), what: What::Open }, cookie, at.time, false, false);
            let mut older = Older::new(flow, active, (listing.time, found.state, found.counters));
            // A flowtel before this one has told of it.
            older.told = self.untied.take(cookie).unwrap_or(older.told);
            self.older.by_cookie.insert(cookie, older);
            self.ledger.kernel.found.joined.add(1);
        }
    }

    /// Whether the flow on this socket was there at the start, and its end was not told yet.
    pub fn is_older(&self, cookie: u64) -> bool {
        self.older.contains(cookie)
    }

    /// A connection that was there at the start is no longer.
    pub fn gone(&mut self, gone: &Gone, clock: &Clock) {
        let kind = &self.ledger.kernel.gone;
        kind.seen.add(1);
        kind.read.add(1);
        let Some(mut older) = self.older.by_cookie.remove(&gone.cookie) else {
            kind.unused.add(1);
            return;
        };
        kind.joined.add(1);
        older.counts(&gone.counters);
        older.fin_counted |= gone.state == state::FIN_WAIT2;
        older.peer_fin_came |= has_peer_fin(gone.state);
        let wall = clock.wall(gone.time);
        let (what, at) = older.ended(gone, Stamp { time: gone.time, wall, observed: wall });
        let what = what.since(self.updated.then_some(&older.told));
        self.settling.hold(FlowEvent { at, flow: older.flow, what }, gone.cookie, gone.time, false, false);
    }

    /// The end of an older flow whose socket an earlier flowtel had asked for its states. Returns whether it is one.
    pub(super) fn closes_older(&mut self, event: &KernelEvent, close: &Close) -> bool {
        let Some(older) = self.older.by_cookie.remove(&close.cookie) else { return false };
        self.count(&self.ledger.kernel.close, false);
        let what = ended(event, close, &older.seen(), older.flow.direction, older.active, None);
        let what = what.since(self.updated.then_some(&older.told));
        self.hold_end(event, close.cookie, older.flow, what, false);
        true
    }

    /// A socket of an older flow begins one. Where it is the same flow, the kernel told of its begin later than it showed it
    /// in the list: it was told as open, and is not told again. Otherwise the older one is over. Returns whether to begin.
    pub(super) fn begins_after_older(
        &mut self,
        event: &KernelEvent,
        cookie: u64,
        id: Option<FlowId>,
        asked: bool,
    ) -> bool {
        let Some(older) = self.older.by_cookie.get_mut(&cookie) else { return true };
        if older.flow.id == id {
            self.count(&self.ledger.kernel.established, false);
            if asked {
                self.count(&self.ledger.kernel.connect, false);
            }
            return false;
        }
        if let Some(older) = self.older.by_cookie.remove(&cookie) {
            let at = stamp(event, event.time);
            let (time, state) = older.found;
            let gone = Gone { cookie, time: event.time, alive: time, state, counters: older.counters };
            let (what, at) = older.ended(&gone, at);
            let what = what.since(self.updated.then_some(&older.told));
            self.settling.hold(FlowEvent { at, flow: older.flow, what }, cookie, event.time, false, false);
        }
        true
    }

    /// Who owns this side: whoever holds the socket. One that was not accepted yet nobody holds; which listener took it is
    /// not told any more.
    fn holder(&self, found: &Found, direction: Option<Direction>, time: KernelTime) -> Option<Owner> {
        let role = match direction? {
            Direction::Outgoing => Role::Connector,
            Direction::Incoming if !self.acceptors => return None,
            Direction::Incoming => Role::Acceptor,
        };
        found.holder.map(|holder| held(&holder, found.cgroup, time, role))
    }
}

/// Who listens: of several processes that hold the socket each may take from it.
fn listener_owner(listener: &FoundListener, since: KernelTime) -> Option<Owner> {
    let holder = listener.holder.filter(|holder| holder.alone)?;
    Some(held(&holder, listener.cgroup, since, Role::Listener))
}

fn held(holder: &Holder, cgroup: u64, since: KernelTime, role: Role) -> Owner {
    let Holder { pid, uid, comm, alone: _ } = *holder;
    Owner { pid, uid, comm, cgroup, since, role, source: Source::Snapshot, begin: None }
}

/// Who initiated a connection that was found. Its counters prove it while nothing is on its way; else the side whose port
/// somebody listens on was asked, and where that is so of both, or the peer's alone, nobody can tell for certain but in the
/// second case: listeners of this namespace are not asked by others.
fn direction(found: &Found, here: bool, there: bool) -> Option<Direction> {
    match (found.active, here, there) {
        (Some(true), ..) => Some(Direction::Outgoing),
        (Some(false), ..) | (None, true, false) => Some(Direction::Incoming),
        (None, false, _) => Some(Direction::Outgoing),
        (None, true, true) => None,
    }
}

// === impl Older

impl Older {
    fn new(flow: Flow, active: bool, (time, state, counters): (KernelTime, u32, Counters)) -> Self {
        let told = so_far(&counters, state, flow.direction, active).passed();
        Self {
            told,
            flow,
            active,
            found: (time, state),
            counters,
            fin_in: None,
            fin_out: None,
            fin_again: None,
            fin_counted: state == state::FIN_WAIT2,
            peer_fin_came: has_peer_fin(state),
            reset_in: None,
            reset_out: None,
        }
    }

    /// A segment shows what was counted, and which FINs are among it.
    fn segment(&mut self, counters: &Counters, state: u32) {
        self.counts(counters);
        self.fin_counted |= state == state::FIN_WAIT2;
        self.peer_fin_came |= has_peer_fin(state);
    }

    /// Counters only grow.
    fn counts(&mut self, now: &Counters) {
        let c = &mut self.counters;
        c.bytes_acked = c.bytes_acked.max(now.bytes_acked);
        c.bytes_received = c.bytes_received.max(now.bytes_received);
        c.segments_in = c.segments_in.max(now.segments_in);
        c.segments_out = c.segments_out.max(now.segments_out);
        c.retransmits = c.retransmits.max(now.retransmits);
        if now.srtt_us > 0 {
            c.srtt_us = now.srtt_us;
        }
    }

    /// Whether the own FIN had left when it was found.
    fn fin_was_out(&self) -> bool {
        matches!(self.found.1, state::FIN_WAIT1 | state::FIN_WAIT2 | state::LAST_ACK | state::CLOSING)
    }

    /// What was seen of it, for an end that its socket's state tells.
    fn seen(&self) -> Seen {
        Seen {
            fin_in: self.fin_in.map(|(at, _)| at.time),
            reset_in: self.reset_in.map(|at| at.time),
            reset_out: self.reset_out.is_some(),
            uncounted: false,
        }
    }

    /// The end of one that is no longer there, which was seen to be so at `seen`.
    fn ended(&self, gone: &Gone, seen: Stamp) -> (What, Stamp) {
        let rtt = Duration::from_micros(self.counters.srtt_us.into());
        // A reset closes a socket at once: one that the socket outlived was forged.
        let closed = |at: &Stamp| u128::from(gone.alive.since(at.time)) < RESET_CLOSES_WITHIN.as_nanos();
        let own_fin = self.fin_out.is_some() || self.fin_was_out();
        // Its acknowledgement would have come within a round trip; after that a timer tries again, or gives up.
        let gave_up = matches!(gone.state, state::FIN_WAIT1 | state::LAST_ACK | state::CLOSING)
            && self.fin_again.is_some_and(|t| u128::from(gone.alive.since(t)) > (rtt + LEAST_RTO).as_nanos());
        let fins = [self.fin_in, self.fin_out].into_iter().flatten().map(|(at, _)| at);
        let (cause, at) = if let Some(at) = self.reset_in.filter(closed) {
            (EndReason::ResetRemote.by(Evidence::Segment), at)
        } else if let Some(at) = self.reset_out.filter(closed) {
            (EndReason::ResetLocal.by(Evidence::Segment), at)
        } else if own_fin && !gave_up {
            // Where it lived on for long after its last FIN, the list knows better when it ended.
            let soon = |at: &Stamp| u128::from(gone.alive.since(at.time)) < LEAST_RTO.as_nanos();
            let source = if self.fin_out.is_some() { Evidence::Segment } else { Evidence::State };
            (EndReason::Fin.by(source), fins.max_by_key(|at| at.time).filter(soon).unwrap_or(seen))
        } else {
            (EndReason::Timeout.by(Evidence::State), seen)
        };
        let mut sent = self.counters.bytes_acked;
        let mut own_fin_counted = self.fin_counted;
        if let Some((_, acked)) = self.fin_out {
            sent = if cause.reason == EndReason::Fin { sent.max(acked) } else { sent };
            own_fin_counted |= sent >= acked;
        }
        let mut received = self.counters.bytes_received;
        let mut peer_fin_counted = self.peer_fin_came;
        if let Some((_, all)) = self.fin_in {
            peer_fin_counted = true;
            received = received.max(all);
        }
        sent = sent.saturating_sub(u64::from(self.active) + u64::from(own_fin_counted));
        received = received.saturating_sub(u64::from(peer_fin_counted));
        (self.end(cause, sent, received, rtt), at)
    }

    fn end(&self, cause: Cause<EndReason>, sent: u64, received: u64, rtt: Duration) -> What {
        let Counters { segments_in, segments_out, retransmits, .. } = self.counters;
        let own = Sent { bytes: sent, segments: segments_out };
        let peer = Sent { bytes: received, segments: segments_in };
        let traffic = Traffic::new(self.flow.direction, own, peer, retransmits, rtt);
        What::End { cause: Some(cause), duration: None, traffic }
    }
}

/// Whether a socket in this state has got the peer's FIN, in order.
fn has_peer_fin(state: u32) -> bool {
    matches!(state, state::CLOSE_WAIT | state::LAST_ACK | state::CLOSING)
}

#[cfg(test)]
mod tests;
