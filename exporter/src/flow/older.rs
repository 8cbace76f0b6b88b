//! Flows that are older than flowtel, from the snapshot at its start to their end. No change of their sockets' state is
//! told, unless an earlier flowtel asked for it; so what ends them is put together: their FINs and RSTs say how, the kernel's
//! list of sockets says that. Whichever complete end comes first is told, and no second one.
//!
//! Bytes are what the last FIN each way said would be counted once it was acknowledged; else what was counted last.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use flowtel_common::event::{self, Close, Counters, Fin, Segment, Update, state};
use hashbrown::{HashMap, HashSet};

use super::{
    BootId, CommunityId, Direction, EndReason, Evidence, Flow, FlowEvent, FlowId, Owner, Role, Sent, Source, Stamp,
    Traffic, What,
    flows::{Flows, ended, stamp},
    reason::{LEAST_RTO, RESET_CLOSES_WITHIN, Seen},
    updates::{Passed, so_far},
};
use crate::capture::{
    Clock, KernelEvent, KernelTime, NetnsId,
    snapshot::{Found, FoundListener, Gone, Holder, Listing},
};

/// How many connections are taken over before the memory that held them is given back.
const PIECE: usize = 1 << 15;

/// Flows that were there before flowtel, by socket cookie. As many as the snapshot was allowed to find.
#[derive(Debug, Default)]
pub(super) struct OlderFlows {
    by_cookie: HashMap<u64, Older, foldhash::fast::RandomState>,
    /// When they were found.
    found: KernelTime,
    /// FINs, resets and ends that had been lost by then.
    lost: u64,
}

/// One of them: hundreds of thousands may be there, and most do nothing for a long time. So what can be made anew is not kept
/// (ids), what many have in common is kept once (owners), and what comes last has no place before it comes.
#[derive(Debug)]
struct Older {
    local: SocketAddr,
    remote: SocketAddr,
    netns: NetnsId,
    interface: u32,
    owner: Option<Arc<Owner>>,
    segments: Option<Box<Segments>>,
    direction: Option<Direction>,
    /// Both ends are on this host.
    here: bool,
    /// This side asked for it, as far as is known: its SYN is among what the peer acknowledged.
    active: bool,
    /// The [`state`] that it was found in.
    found: u8,
    /// What passed by its last update, or by when it was found; only where there are updates.
    told: Option<Box<Passed>>,
}

/// What its last segments said.
#[derive(Debug, Default, Clone)]
struct Segments {
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
}

// === impl OlderFlows

impl OlderFlows {
    pub fn len(&self) -> usize {
        self.by_cookie.len()
    }

    /// The one whose id `is` asked for. Ids are made anew, so this takes a while: it is for people who ask.
    pub fn find(&self, boot: &BootId, is: impl Fn(FlowId) -> bool) -> Option<Flow> {
        let is = |(cookie, older): &(&u64, &Older)| is(FlowId::new(boot, **cookie, older.local, older.remote));
        self.by_cookie.iter().find(is).map(|(cookie, older)| older.flow(boot, *cookie))
    }

    /// The sockets of all of them.
    pub fn cookies(&self) -> impl Iterator<Item = u64> {
        self.by_cookie.keys().copied()
    }

    /// The flow on this socket.
    pub fn get(&self, boot: &BootId, cookie: u64) -> Option<Flow> {
        self.by_cookie.get(&cookie).map(|older| older.flow(boot, cookie))
    }

    /// Whether the flow on this socket is one.
    pub fn contains(&self, cookie: u64) -> bool {
        self.by_cookie.contains_key(&cookie)
    }

    /// The flow on this socket, if it is one.
    pub fn flow_of(&self, boot: &BootId, cookie: u64) -> Option<Flow> {
        self.by_cookie.get(&cookie).map(|older| older.flow(boot, cookie))
    }

    /// A process takes a connection that nobody had taken when it was found. Returns whether it is one of these.
    pub fn accepts(&mut self, cookie: u64, owner: Owner) -> bool {
        let older = self.by_cookie.get_mut(&cookie);
        let Some(older) = older.filter(|older| older.direction == Some(Direction::Incoming) && older.owner.is_none())
        else {
            return false;
        };
        older.owner = Some(Arc::new(owner));
        true
    }

    /// Notes a FIN. Returns whether it is of one of these.
    pub fn fin(&mut self, event: &KernelEvent, fin: &Fin) -> bool {
        let Some(older) = self.by_cookie.get_mut(&fin.cookie) else { return false };
        let was_out = older.fin_was_out();
        let segments = older.segments();
        segments.add(&fin.counters, fin.state);
        let at = stamp(event, event.time);
        let Counters { bytes_acked, bytes_received, .. } = fin.counters;
        // A FIN that stands before what was counted, or far ahead of it, is a stray one.
        let ahead = if fin.ahead < 1 << 31 { u64::from(fin.ahead) } else { 0 };
        if fin.way == event::IN {
            segments.fin_in = Some((at, bytes_received + ahead));
        } else {
            if segments.fin_out.is_some() || was_out {
                segments.fin_again = Some(event.time);
            }
            segments.fin_out = Some((at, bytes_acked + ahead));
        }
        true
    }

    /// Takes what one of these has counted so far. Returns its flow, and what has passed; `None` where that is not known.
    pub fn updates(&mut self, boot: &BootId, update: &Update) -> Option<(Flow, Traffic)> {
        let older = self.by_cookie.get_mut(&update.cookie)?;
        // The end may know less than this: a time-out's bytes are those of the last look.
        let segments = older.segments();
        segments.add(&update.counters, update.state);
        if update.state == state::FIN_WAIT2 && segments.fin_in.is_some() {
            // The peer's FIN is among what it has received: the end tells.
            return None;
        }
        let mut traffic = so_far(&update.counters, update.state, older.direction, older.active);
        traffic.counted = update.marks & u32::from(event::UNCOUNTED) == 0;
        Some((older.flow(boot, update.cookie), traffic))
    }

    /// What passed by the last update of the flow on this socket, or by when it was found.
    pub fn told(&mut self, cookie: u64) -> Option<&mut Passed> {
        self.by_cookie.get_mut(&cookie)?.told.as_deref_mut()
    }

    /// The same of all, each with its cookie; by own side and peer, for whoever reads it decides on the direction anew.
    pub fn all_told(&self) -> impl Iterator<Item = (u64, Passed)> {
        let told = |older: &Older| Some(older.told.as_deref()?.turned(older.direction));
        self.by_cookie.iter().filter_map(move |(cookie, older)| Some((*cookie, told(older)?)))
    }

    /// Notes a reset. Returns whether it is of one of these.
    pub fn reset(&mut self, event: &KernelEvent, reset: &Segment) -> bool {
        let Some(older) = self.by_cookie.get_mut(&reset.cookie) else { return false };
        let segments = older.segments();
        segments.add(&reset.counters, reset.state);
        // A reset that leaves comes from a socket that is closed already.
        segments.peer_fin_came |= reset.fin_in != 0 && reset.state == state::CLOSE;
        let at = Some(stamp(event, event.time));
        if reset.way == event::IN {
            segments.reset_in = at;
        } else {
            segments.reset_out = at;
        }
        true
    }
}

// === impl Flows

impl Flows {
    /// Takes what was there at the start: connections, each given to `open` once as open, and listeners. `began` says of which
    /// the programs have told the begin, or will: those are no news, nor are those that are followed already. Each connection
    /// goes to `then` afterwards, with the answer whether it is an older flow: so none is here twice. To be called before
    /// anything else.
    pub fn found(
        &mut self,
        listing: &mut Listing,
        clock: &Clock,
        began: impl Fn(u64) -> bool,
        mut open: impl FnMut(&FlowEvent),
        mut then: impl FnMut(Found, bool),
    ) {
        for listener in listing.listeners.iter().filter(|_| self.acceptors) {
            // One that began to listen meanwhile was told, or will be.
            if let Some(owner) = listener_owner(listener, listing.time) {
                self.listeners.listens(listener.cookie, Some(owner));
            }
        }
        let listeners: HashSet<_> = listing.listeners.iter().map(|l| (l.namespace, l.port)).collect();
        let both = both_here(listing);
        let wall = clock.wall(listing.time);
        let at = Stamp { time: listing.time, wall, observed: wall };
        let mut connections = std::mem::take(&mut listing.connections);
        let kind = &self.ledger.kernel.found;
        kind.seen.add(connections.len() as u64);
        kind.read.add(connections.len() as u64);
        self.older.found = listing.time;
        self.older.lost = self.ends_lost();
        self.older.by_cookie.reserve(connections.len());
        let mut owners: HashMap<(u32, u64), Arc<Owner>> = HashMap::new();
        while let Some(found) = connections.pop() {
            if connections.len().is_multiple_of(PIECE) {
                connections.shrink_to_fit();
            }
            let Found { cookie, local, remote, .. } = found;
            if began(cookie) || self.open.contains(cookie) {
                self.ledger.kernel.found.unused.add(1);
                then(found, false);
                continue;
            }
            if self.own_sockets.is_inherited(cookie) {
                self.ledger.kernel.found.own.add(1);
                then(found, false);
                continue;
            }
            let listens = |port: u16| listeners.contains(&(found.namespace, port));
            let direction = direction(&found, listens(local.port()), listens(remote.port()));
            let owner = self.holder(&found, direction, listing.time).map(|owner| {
                let known = owners.entry((owner.pid, owner.cgroup)).or_insert_with(|| Arc::new(owner));
                if **known != owner {
                    *known = Arc::new(owner);
                }
                Arc::clone(known)
            });
            let older = Older {
                local,
                remote,
                netns: found.netns,
                interface: found.interface,
                owner,
                segments: None,
                direction,
                here: both.contains(&CommunityId::tcp(local, remote)),
                active: found.active.unwrap_or(direction == Some(Direction::Outgoing)),
                found: found.state as u8,
                told: self.updated.then(|| {
                    // A flowtel before this one has told of it.
                    let told = self.untied.take(cookie).map(|told| told.turned(direction));
                    let active = found.active.unwrap_or(direction == Some(Direction::Outgoing));
                    Box::new(told.unwrap_or_else(|| so_far(&found.counters, found.state, direction, active).passed()))
                }),
            };
            open(&FlowEvent { at, flow: older.flow(&self.boot, cookie), what: What::Open });
            self.older.by_cookie.insert(cookie, older);
            self.ledger.kernel.found.joined.add(1);
            then(found, true);
        }
    }

    /// FINs, resets and ends for which the ring had no room.
    fn ends_lost(&self) -> u64 {
        let kernel = &self.ledger.kernel;
        [&kernel.fin, &kernel.reset, &kernel.close].iter().map(|kind| kind.ring_full.get()).sum()
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
        older.segments().add(&gone.counters, gone.state);
        let wall = clock.wall(gone.time);
        let (what, at) =
            older.ended(gone, Stamp { time: gone.time, wall, observed: wall }, self.ends_lost() > self.older.lost);
        let what = what.since(older.told.as_deref());
        let told = FlowEvent { at, flow: older.flow(&self.boot, gone.cookie), what };
        self.settling.hold(told, gone.cookie, gone.time, false, false);
        if self.older.by_cookie.is_empty() {
            // One busy start is not paid for in memory for ever.
            self.older.by_cookie.shrink_to_fit();
        }
    }

    /// The end of an older flow whose socket an earlier flowtel had asked for its states. Returns whether it is one.
    pub(super) fn closes_older(&mut self, event: &KernelEvent, close: &Close) -> bool {
        let Some(older) = self.older.by_cookie.remove(&close.cookie) else { return false };
        self.count(&self.ledger.kernel.close, false);
        let what = ended(event, close, &older.seen(), older.direction, older.active, None);
        let what = what.since(older.told.as_deref());
        let flow = older.flow(&self.boot, close.cookie);
        self.hold_end(event, close.cookie, flow, what, false);
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
        if older.flow(&self.boot, cookie).id == id {
            self.count(&self.ledger.kernel.established, false);
            if asked {
                self.count(&self.ledger.kernel.connect, false);
            }
            return false;
        }
        if let Some(older) = self.older.by_cookie.remove(&cookie) {
            let at = stamp(event, event.time);
            let flow = older.flow(&self.boot, cookie);
            let (what, at) = match &older.segments {
                Some(segments) if segments.tell_of_an_end() => {
                    let (alive, state) = (self.older.found, older.found.into());
                    let gone = Gone { cookie, time: event.time, alive, state, counters: segments.counters };
                    older.ended(&gone, at, self.ends_lost() > self.older.lost)
                }
                // Nothing was seen of its end.
                _ => (What::Vanished, at),
            };
            let what = what.since(older.told.as_deref());
            self.settling.hold(FlowEvent { at, flow, what }, cookie, event.time, false, false);
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

/// Connections of which both ends are in the lists.
fn both_here(listing: &Listing) -> HashSet<CommunityId> {
    let (mut one, mut both) = (HashMap::new(), HashSet::new());
    let all = listing.connections.iter().map(|found| (found.local, found.remote));
    for (local, remote) in all.chain(listing.left.iter().copied()) {
        // The same end may be there twice: in two namespaces, or as a socket and as what is left of one.
        let (id, first) = (CommunityId::tcp(local, remote), local <= remote);
        match one.get(&id) {
            None => _ = one.insert(id, first),
            Some(other) if *other != first => _ = both.insert(id),
            Some(_) => {}
        }
    }
    both
}

// === impl Older

impl Older {
    /// The flow, as records tell it.
    fn flow(&self, boot: &BootId, cookie: u64) -> Flow {
        let mut flow = Flow::new(boot, cookie, self.local, self.remote, self.direction);
        flow.local |= self.here;
        (flow.netns, flow.interface) = (self.netns, self.interface);
        flow.owner = self.owner.as_deref().copied();
        flow
    }

    fn segments(&mut self) -> &mut Segments {
        let found = self.found.into();
        self.segments.get_or_insert_with(|| {
            let mut segments = Box::<Segments>::default();
            segments.add(&Counters::default(), found);
            segments
        })
    }

    /// Whether the own FIN had left when it was found.
    fn fin_was_out(&self) -> bool {
        matches!(self.found.into(), state::FIN_WAIT1 | state::FIN_WAIT2 | state::LAST_ACK | state::CLOSING)
    }

    /// What was seen of it, for an end that its socket's state tells.
    fn seen(&self) -> Seen {
        let Some(segments) = &self.segments else { return Seen::default() };
        Seen {
            fin_in: segments.fin_in.map(|(at, _)| at.time),
            reset_in: segments.reset_in.map(|at| at.time),
            reset_out: segments.reset_out.is_some(),
            uncounted: false,
        }
    }

    /// The end of one that is no longer there, which was seen to be so at `seen`. `lost`: what would have said how may have
    /// been lost.
    fn ended(&self, gone: &Gone, seen: Stamp, lost: bool) -> (What, Stamp) {
        let Some(segments) = &self.segments else { return (What::Vanished, seen) };
        let rtt = Duration::from_micros(segments.counters.srtt_us.into());
        // A reset closes a socket at once: one that the socket outlived was forged.
        let closed = |at: &Stamp| u128::from(gone.alive.since(at.time)) < RESET_CLOSES_WITHIN.as_nanos();
        let own_fin = segments.fin_out.is_some() || self.fin_was_out();
        // Its acknowledgement would have come within a round trip; after that a timer tries again, or gives up.
        let gave_up = matches!(gone.state, state::FIN_WAIT1 | state::LAST_ACK | state::CLOSING)
            && segments.fin_again.is_some_and(|t| u128::from(gone.alive.since(t)) > (rtt + LEAST_RTO).as_nanos());
        let fins = [segments.fin_in, segments.fin_out].into_iter().flatten().map(|(at, _)| at);
        let (cause, at) = if let Some(at) = segments.reset_in.filter(closed) {
            (EndReason::ResetRemote.by(Evidence::Segment), at)
        } else if let Some(at) = segments.reset_out.filter(closed) {
            (EndReason::ResetLocal.by(Evidence::Segment), at)
        } else if own_fin && !gave_up {
            // Where it lived on for long after its last FIN, the list knows better when it ended.
            let soon = |at: &Stamp| u128::from(gone.alive.since(at.time)) < LEAST_RTO.as_nanos();
            let source = if segments.fin_out.is_some() { Evidence::Segment } else { Evidence::State };
            (EndReason::Fin.by(source), fins.max_by_key(|at| at.time).filter(soon).unwrap_or(seen))
        } else if lost && !gave_up {
            // Nothing came; or a FIN or a reset, whose event was lost.
            return (What::Vanished, seen);
        } else {
            (EndReason::Timeout.by(Evidence::State), seen)
        };
        let mut sent = segments.counters.bytes_acked;
        let mut own_fin_counted = segments.fin_counted;
        if let Some((_, acked)) = segments.fin_out {
            sent = if cause.reason == EndReason::Fin { sent.max(acked) } else { sent };
            own_fin_counted |= sent >= acked;
        }
        let mut received = segments.counters.bytes_received;
        let mut peer_fin_counted = segments.peer_fin_came;
        if let Some((_, all)) = segments.fin_in {
            peer_fin_counted = true;
            received = received.max(all);
        }
        sent = sent.saturating_sub(u64::from(self.active) + u64::from(own_fin_counted));
        received = received.saturating_sub(u64::from(peer_fin_counted));
        let Counters { segments_in, segments_out, retransmits, .. } = segments.counters;
        let own = Sent { bytes: sent, segments: segments_out };
        let peer = Sent { bytes: received, segments: segments_in };
        let traffic = Traffic::new(self.direction, own, peer, retransmits, rtt);
        (What::End { cause: Some(cause), duration: None, traffic }, at)
    }
}

// === impl Segments

impl Segments {
    /// Whether a FIN or a reset is among them; without one they are what an update counted.
    fn tell_of_an_end(&self) -> bool {
        self.fin_in.is_some() || self.fin_out.is_some() || self.reset_in.is_some() || self.reset_out.is_some()
    }

    /// A segment, or a look, shows what was counted, and which FINs are among it. Counters only grow.
    fn add(&mut self, now: &Counters, state: u32) {
        self.fin_counted |= state == state::FIN_WAIT2;
        self.peer_fin_came |= has_peer_fin(state);
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
}

/// Whether a socket in this state has got the peer's FIN, in order.
fn has_peer_fin(state: u32) -> bool {
    matches!(state, state::CLOSE_WAIT | state::LAST_ACK | state::CLOSING)
}

#[cfg(test)]
mod tests;
