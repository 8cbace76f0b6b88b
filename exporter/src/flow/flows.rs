//! The flow stage: events by cookie become begins, ends and failures.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use flowtel_common::event::{self, Accept, Call, Caller, Close, Counters, Established, Event, Release, Segment, state};
use hashbrown::{HashMap, hash_map::Entry};

use super::{
    BootId, CommunityId, Direction, EndReason, FailReason, Flow, FlowEvent, Owner, Role, Sent, Stamp, Traffic, What,
    attempts::{Attempt, Attempts},
    listeners::Listeners,
    older::OlderFlows,
    open::{Open, OpenFlows},
    reason::{self, Asked, Seen},
    refusals::{self, Refusal, Refusals},
    settle::{Place, SETTLE, Settling},
};
use crate::{
    capture::{KernelEvent, KernelTime, WallTime},
    config,
    ledger::{Kind, Ledger},
};

/// Entries of the waiting line whose memory is kept when it is empty.
const KEEP: usize = 1 << 12;
/// The most accept() calls that wait for their flow's begin.
const MOST_EARLY: usize = 256;

/// The flow stage.
#[derive(Debug)]
pub struct Flows {
    attempts: Attempts,
    open: OpenFlows,
    pub(super) older: OlderFlows,
    pub(super) listeners: Listeners,
    pub(super) settling: Settling,
    refusals: Refusals,
    /// Calls of accept() whose flow has not begun, by cookie: a connection can be taken, on another CPU, in the moment
    /// before the kernel tells of it.
    early: VecDeque<(u64, Owner)>,
    /// Begins whose other end was not seen yet, by what both ends have in common.
    unmatched: HashMap<CommunityId, Place, foldhash::fast::RandomState>,
    /// Ends that are held, by cookie: a local reset leaves after its socket is closed.
    closed: HashMap<u64, Place, foldhash::fast::RandomState>,
    pub(super) events: config::Events,
    pub(super) acceptors: bool,
    pub(super) boot: BootId,
    own: Option<u32>,
    pub(super) ledger: Arc<Ledger>,
}

// === impl Flows

impl Flows {
    /// A fresh stage that follows flows as far as `capture.events` needs it, and waits for acceptors where `owner` has
    /// them told. `boot` goes into every id. `own` is flowtel's process id as the kernel sees it, where its own
    /// connections are to be left out.
    pub fn new(config: &config::Config, boot: BootId, own: Option<u32>, ledger: Arc<Ledger>) -> Self {
        Self {
            attempts: Attempts::new(config.flow.max_attempts as usize, config.flow.attempt_age.0),
            open: OpenFlows::new(config.flow.max_flows as usize),
            older: OlderFlows::default(),
            listeners: Listeners::default(),
            settling: Settling::default(),
            refusals: Refusals::default(),
            early: VecDeque::new(),
            unmatched: HashMap::default(),
            closed: HashMap::default(),
            events: config.capture.events,
            acceptors: config.owner.acceptor,
            boot,
            own,
            ledger,
        }
    }

    /// Takes one event. Events come in the order of kernel time, but some may be missing or late.
    pub fn on(&mut self, event: &KernelEvent) {
        match &event.event {
            Event::Connect(call) => self.asks(event, call),
            Event::Listen(call) => self.binds(event, call),
            Event::Accept(accept) => self.accepts(event, accept),
            Event::Release(release) => self.drops(event, release),
            Event::SynAgain(syn) => self.in_attempt(
                event,
                syn.cookie,
                |kernel| &kernel.syn_again,
                |attempt, time| {
                    attempt.again = Some(time);
                },
            ),
            Event::Established(established) => self.begins(event, established),
            Event::Fin(segment) => self.fin(event, segment),
            Event::Reset(segment) => self.reset(event, segment),
            Event::Close(close) => self.closes(event, close),
            Event::Refused(refused) => {
                self.ledger.kernel.refused.joined.add(1);
                let refusal = Refusal {
                    at: stamp(event, event.time),
                    source: SocketAddr::new(event::ip(refused.remote), refused.remote_port),
                    destination: SocketAddr::new(event::ip(refused.local), refused.local_port),
                };
                if let Some(refusal) = self.refusals.add(refusal) {
                    let told = refusals::single(&self.boot, &refusal);
                    self.settling.hold(told, 0, event.time, false, false);
                }
            }
        }
    }

    /// Gives out what has settled by `now`, in the order in which it happened, and forgets attempts that are too old.
    pub fn settle(&mut self, now: KernelTime, mut out: impl FnMut(&FlowEvent)) {
        while let Some((cookie, attempt)) = self.attempts.expire(now) {
            self.gives_up(cookie, &attempt, now);
        }
        self.forget_early(Some(now));
        self.refusals.tell(&self.boot, Some(now), |event| out(&event));
        self.release(Some(now), out);
    }

    /// Gives out everything that waits: nothing more will come.
    pub fn flush(&mut self, mut out: impl FnMut(&FlowEvent)) {
        self.forget_early(None);
        self.refusals.tell(&self.boot, None, |event| out(&event));
        self.release(None, out);
    }

    /// Goes on with changed limits of its tables. The oldest that are over a limit are forgotten, and counted.
    pub fn set_limits(&mut self, config: &config::Flow) {
        self.attempts.set_limits(config.max_attempts as usize, config.attempt_age.0, &self.ledger.kernel);
        self.ledger.flows_forgotten.add(self.open.set_limit(config.max_flows as usize));
    }

    /// Whether nothing waits to be told.
    pub fn is_quiet(&self) -> bool {
        self.settling.is_empty() && self.early.is_empty() && self.refusals.is_empty()
    }

    /// How many attempts are open.
    pub fn open_attempts(&self) -> usize {
        self.attempts.len()
    }

    /// How many flows are open.
    pub fn open_flows(&self) -> usize {
        self.open.len() + self.older.len()
    }

    fn release(&mut self, now: Option<KernelTime>, mut out: impl FnMut(&FlowEvent)) {
        while let Some((place, held)) = self.settling.next(now) {
            match held.event.what {
                What::Begin { .. } => {
                    if held.unmatched
                        && let Some(id) = held.event.flow.community_id
                        && let Entry::Occupied(unmatched) = self.unmatched.entry(id)
                        && *unmatched.get() == place
                    {
                        unmatched.remove();
                    }
                    self.count(&self.ledger.kernel.established, held.own);
                    if !self.events.needs_ends() {
                        // Nobody will ask for it again: its end is not watched for.
                        self.open.remove(held.cookie);
                    }
                }
                What::End { .. } => {
                    if let Entry::Occupied(closed) = self.closed.entry(held.cookie)
                        && *closed.get() == place
                    {
                        closed.remove();
                    }
                }
                What::Open | What::Failed { .. } => {}
            }
            if !held.own {
                out(&held.event);
            }
            self.settling.told();
        }
        self.settling.shrink(KEEP);
    }

    fn asks(&mut self, event: &KernelEvent, call: &Call) {
        let attempt = Attempt {
            asked: event.time,
            destination: SocketAddr::new(event::ip(call.address), call.port),
            again: None,
            reset_in: false,
            released: false,
            owner: (!is_kernel_worker(&call.caller)).then(|| owner(event, &call.caller, Role::Connector)),
        };
        let cookie = call.caller.cookie;
        if let Some(replaced) = self.attempts.open(cookie, attempt, &self.ledger.kernel) {
            // A socket can be used again only after the call before it failed. Where a SYN had left, its end came first.
            self.no_way(event, cookie, &replaced);
        }
    }

    fn binds(&mut self, event: &KernelEvent, call: &Call) {
        self.ledger.kernel.listen.joined.bump();
        self.listeners.bound(call.netns, call.port, owner(event, &call.caller, Role::Listener));
    }

    fn accepts(&mut self, event: &KernelEvent, accept: &Accept) {
        let kernel = &self.ledger.kernel;
        let owner = Owner {
            pid: accept.tgid,
            uid: accept.uid,
            comm: accept.comm,
            cgroup: accept.cgroup,
            since: event.time,
            role: Role::Acceptor,
        };
        let Some(open) = self.open.get(accept.cookie) else {
            // Or getpeername() on a socket that is not followed.
            if self.attempts.get(accept.cookie, event.time).is_some() {
                kernel.accept.unused.add(1);
                return;
            }
            self.early.push_back((accept.cookie, owner));
            if self.early.len() > MOST_EARLY {
                self.early.pop_front();
                kernel.accept.unused.add(1);
            }
            return;
        };
        // getpeername() runs the same hook, for this side's own calls too, and again and again.
        let taken = open.flow.owner.is_some_and(|owner| owner.role != Role::Listener);
        if open.flow.direction != Some(Direction::Incoming) || taken {
            kernel.accept.unused.add(1);
            return;
        }
        self.settling.give_owner(open.begin, owner);
        open.flow.owner = Some(owner);
        if open.own { kernel.accept.own.bump() } else { kernel.accept.joined.bump() }
    }

    /// Takes the call of accept() on this socket that came before its begin.
    fn take_early(&mut self, cookie: u64) -> Option<Owner> {
        let at = self.early.iter().rposition(|(early, _)| *early == cookie)?;
        self.early.remove(at).map(|(_, owner)| owner)
    }

    /// Forgets calls of accept() whose flow would have begun by `now`; all of them where it is `None`.
    fn forget_early(&mut self, now: Option<KernelTime>) {
        let old = |owner: &Owner| now.is_none_or(|now| u128::from(now.since(owner.since)) >= SETTLE.as_nanos());
        while self.early.front().is_some_and(|(_, owner)| old(owner)) {
            self.early.pop_front();
            self.ledger.kernel.accept.unused.add(1);
        }
    }

    fn drops(&mut self, event: &KernelEvent, release: &Release) {
        let Some(attempt) = self.attempts.get(release.cookie, event.time) else {
            self.ledger.kernel.release.unused.add(1);
            return;
        };
        attempt.released = true;
        let own = attempt.is_of(self.own);
        self.count(&self.ledger.kernel.release, own);
        // Closed, and no end from SYN_SENT came before: no SYN ever left.
        if release.state == state::CLOSE
            && let Some(attempt) = self.attempts.close(release.cookie)
        {
            self.no_way(event, release.cookie, &attempt);
        }
    }

    /// Notes something that belongs to an attempt.
    fn in_attempt(
        &mut self,
        event: &KernelEvent,
        cookie: u64,
        kind: impl FnOnce(&crate::ledger::KernelEvents) -> &Kind,
        note: impl FnOnce(&mut Attempt, KernelTime),
    ) {
        let kind = kind(&self.ledger.kernel);
        match self.attempts.get(cookie, event.time) {
            Some(attempt) => {
                note(attempt, event.time);
                let own = attempt.is_of(self.own);
                if own { kind.own.add(1) } else { kind.joined.add(1) }
            }
            None => kind.unused.add(1),
        }
    }

    fn begins(&mut self, event: &KernelEvent, established: &Established) {
        let cookie = established.cookie;
        // A later call on the same socket is not what this handshake answers.
        let attempt = self.attempts.take(cookie, event.time);
        let active = established.how == event::ACTIVE;
        let direction = if active || attempt.is_some() { Direction::Outgoing } else { Direction::Incoming };
        let local = SocketAddr::new(event::ip(established.local), established.local_port);
        let remote = SocketAddr::new(event::ip(established.remote), established.remote_port);
        let mut flow = Flow::new(&self.boot, cookie, local, remote, Some(direction));
        if !self.begins_after_older(event, cookie, flow.id, attempt.is_some()) {
            return;
        }
        flow.owner = match direction {
            Direction::Outgoing => attempt.and_then(|a| a.owner),
            Direction::Incoming => self.listeners.owner(established.netns, local.port()),
        };
        let early = self.take_early(cookie);
        let acceptor = early.filter(|_| direction == Direction::Incoming);
        flow.owner = acceptor.or(flow.owner);
        // When the SYN-ACK came. Of SYNs that crossed there is none.
        let handshake = match (&attempt, direction) {
            (Some(attempt), _) if active => Some(event.time.since(attempt.asked)),
            (None, Direction::Incoming) => incoming_handshake(established),
            _ => None,
        };
        let mut own = attempt.is_some_and(|a| a.is_of(self.own));
        if attempt.is_some() {
            self.count(&self.ledger.kernel.connect, own);
        }
        let other_end = self.meets_other_end(&mut flow, own);
        own |= other_end == Some(true);
        if acceptor.is_some() {
            self.count(&self.ledger.kernel.accept, own);
        } else if early.is_some() {
            self.ledger.kernel.accept.unused.add(1);
        }
        let handshake = handshake.filter(|n| *n > 0).map(Duration::from_nanos);
        let wants_owner = direction == Direction::Incoming && self.acceptors && acceptor.is_none();
        let connection = flow.community_id;
        // Where nothing more is to be told of it, it is not followed.
        let followed = (self.events.needs_ends() || self.acceptors).then(|| flow.clone());
        let told = FlowEvent { at: stamp(event, event.time), flow, what: What::Begin { handshake } };
        let begin = self.settling.hold(told, cookie, event.time, own, wants_owner);
        if other_end.is_none()
            && let Some(connection) = connection
        {
            self.unmatched.insert(connection, begin);
            self.settling.await_other_end(begin);
        }
        // Of SYNs that crossed, too, the own one is among what was acknowledged, although the kernel calls one passive.
        let active = direction == Direction::Outgoing;
        let Some(flow) = followed else { return };
        let open = Open { flow, began: event.time, seen: Seen::default(), begin, active, own };
        if self.open.insert(cookie, open) {
            self.ledger.flows_forgotten.add(1);
        }
    }

    /// Whether the other end of this connection was established on this host just before. Then both are local, and both
    /// flowtel's own where one is. Returns whether the other end is its own, where it was there.
    fn meets_other_end(&mut self, flow: &mut Flow, own: bool) -> Option<bool> {
        let place = self.unmatched.remove(flow.community_id.as_ref()?)?;
        let other = self.settling.get(place)?;
        other.unmatched = false;
        flow.local = true;
        other.event.flow.local = true;
        other.own |= own;
        let (cookie, other_own) = (other.cookie, other.own);
        if let Some(open) = self.open.get(cookie) {
            open.flow.local = true;
            open.own |= own;
        } else if let Some(end) = self.closed.get(&cookie).copied().and_then(|place| self.settling.get(place)) {
            // It has ended already: one reset it as soon as it was there.
            end.event.flow.local = true;
            end.own |= own;
        }
        Some(other_own)
    }

    fn fin(&mut self, event: &KernelEvent, segment: &Segment) {
        let Some(open) = self.open.get(segment.cookie) else {
            let kind = &self.ledger.kernel.fin;
            let counter = if self.older.segment(event, segment) { &kind.joined } else { &kind.unused };
            counter.add(1);
            return;
        };
        if segment.way == event::IN {
            open.seen.fin_in = Some(event.time);
        } else if segment.counters.retransmits > 0 {
            // A first one is told only where the kernel side takes the socket for an older one.
            open.seen.fin_again = Some(event.time);
        }
        let own = open.own;
        self.count(&self.ledger.kernel.fin, own);
    }

    fn reset(&mut self, event: &KernelEvent, segment: &Segment) {
        let kernel = &self.ledger.kernel;
        if let Some(open) = self.open.get(segment.cookie) {
            if segment.way == event::IN {
                open.seen.reset_in = Some(event.time);
            } else {
                open.seen.reset_out = true;
            }
            if open.own { kernel.reset.own.add(1) } else { kernel.reset.joined.add(1) }
        } else if let Some(attempt) = self.attempts.get(segment.cookie, event.time) {
            attempt.reset_in |= segment.way == event::IN;
            if attempt.is_of(self.own) { kernel.reset.own.add(1) } else { kernel.reset.joined.add(1) }
        } else if let Some(place) = self.closed.get(&segment.cookie).copied() {
            if segment.way == event::OUT {
                self.settling.correct_end(place, EndReason::ResetLocal);
            }
            kernel.reset.joined.add(1);
        } else if self.older.segment(event, segment) {
            kernel.reset.joined.add(1);
        } else {
            kernel.reset.unused.add(1);
        }
    }

    fn closes(&mut self, event: &KernelEvent, close: &Close) {
        if close.old_state == state::SYN_SENT {
            self.fails(event, close);
            return;
        }
        let Some(open) = self.open.remove(close.cookie) else {
            if !self.closes_older(event, close) {
                self.closes_unfollowed(event, close);
            }
            return;
        };
        self.count(&self.ledger.kernel.close, open.own);
        let Open { flow, began, seen, active, own, .. } = *open;
        let what = ended(event, close, &seen, flow.direction, active, Some(began));
        self.hold_end(event, close.cookie, flow, what, own);
    }

    /// A socket was closed whose begin was not seen, or not followed.
    fn closes_unfollowed(&mut self, event: &KernelEvent, close: &Close) {
        let local = SocketAddr::new(event::ip(close.local), close.local_port);
        let remote = SocketAddr::new(event::ip(close.remote), close.remote_port);
        if close.old_state == state::SYN_RECV {
            // Fast Open or crossing SYNs that were never completed.
            self.ledger.kernel.close.joined.add(1);
            let attempt = self.attempts.close(close.cookie);
            if attempt.is_some() {
                self.ledger.kernel.connect.joined.add(1);
            }
            let direction = if attempt.is_some() { Direction::Outgoing } else { Direction::Incoming };
            let mut flow = Flow::new(&self.boot, close.cookie, local, remote, Some(direction));
            flow.owner = attempt.and_then(|a| a.owner);
            let what = What::Failed { reason: FailReason::Aborted, attempts: 1, fold: None };
            let told = FlowEvent { at: stamp(event, event.time), flow, what };
            self.settling.hold(told, close.cookie, event.time, false, false);
            return;
        }
        self.ledger.kernel.close.joined.add(1);
        let flow = Flow::new(&self.boot, close.cookie, local, remote, None);
        let what = ended(event, close, &Seen::default(), None, false, None);
        self.hold_end(event, close.cookie, flow, what, false);
    }

    pub(super) fn hold_end(&mut self, event: &KernelEvent, cookie: u64, flow: Flow, what: What, own: bool) {
        let told = FlowEvent { at: stamp(event, event.time), flow, what };
        let place = self.settling.hold(told, cookie, event.time, own, false);
        self.closed.insert(cookie, place);
    }

    /// A socket in SYN_SENT was closed: the attempt failed.
    fn fails(&mut self, event: &KernelEvent, close: &Close) {
        let attempt = self.attempts.take(close.cookie, event.time);
        let own = attempt.is_some_and(|a| a.is_of(self.own));
        self.count(&self.ledger.kernel.close, own);
        if attempt.is_some() {
            self.count(&self.ledger.kernel.connect, own);
        }
        let local = SocketAddr::new(event::ip(close.local), close.local_port);
        let remote = SocketAddr::new(event::ip(close.remote), close.remote_port);
        if own {
            self.refusals.forget(local, remote);
            return;
        }
        let asked = Asked {
            last_syn: attempt.map_or(event.time, |a| a.again.unwrap_or(a.asked)),
            // Where the reset's own event was lost: a segment came, and nothing else answers a SYN so.
            reset_in: attempt.map_or(close.counters.segments_in > 0, |a| a.reset_in),
            released: attempt.is_some_and(|a| a.released),
        };
        let mut flow = Flow::new(&self.boot, close.cookie, local, remote, Some(Direction::Outgoing));
        flow.owner = attempt.and_then(|a| a.owner);
        let what = What::Failed {
            reason: reason::failure(event.time, &asked),
            attempts: close.counters.retransmits.saturating_add(1),
            fold: None,
        };
        let told = FlowEvent { at: stamp(event, event.time), flow, what };
        self.settling.hold(told, close.cookie, event.time, false, false);
    }

    /// An attempt for which no SYN ever left: there was no way.
    fn no_way(&mut self, event: &KernelEvent, cookie: u64, attempt: &Attempt) {
        let own = attempt.is_of(self.own);
        self.count(&self.ledger.kernel.connect, own);
        if !own {
            let told = FlowEvent { at: stamp(event, event.time), ..never_sent(&self.boot, cookie, attempt) };
            self.settling.hold(told, cookie, event.time, false, false);
        }
    }

    /// An attempt is older than is remembered. Where no SYN was repeated none ever left; else the kernel may be trying still.
    fn gives_up(&mut self, cookie: u64, attempt: &Attempt, now: KernelTime) {
        let own = attempt.is_of(self.own);
        if attempt.again.is_some() || own {
            self.ledger.kernel.connect.unused.add(1);
            return;
        }
        self.ledger.kernel.connect.joined.add(1);
        let wall = crate::capture::Clock::measure().wall(now);
        let at = Stamp { time: now, wall, observed: wall };
        let told = FlowEvent { at, ..never_sent(&self.boot, cookie, attempt) };
        self.settling.hold(told, cookie, now, false, false);
    }

    pub(super) fn count(&self, kind: &Kind, own: bool) {
        if own { kind.own.bump() } else { kind.joined.bump() }
    }
}

/// When `event` happened, or something that led to it at `time`.
pub(super) fn stamp(event: &KernelEvent, time: KernelTime) -> Stamp {
    // The event's own wall time, less the way back.
    let wall = WallTime(event.wall.0.saturating_sub(event.time.since(time)));
    Stamp { time, wall, observed: event.read }
}

fn owner(event: &KernelEvent, caller: &Caller, role: Role) -> Owner {
    let Caller { tgid: pid, uid, comm, cgroup, .. } = *caller;
    Owner { pid, uid, comm, cgroup, since: event.time, role }
}

/// Whether a worker of the kernel makes this call: further subflows of MPTCP are asked for so (mptcp_pm_worker,
/// net/mptcp/protocol.c). The name alone would not do, for anybody may call himself so.
fn is_kernel_worker(caller: &Caller) -> bool {
    /// Inode number of the root of the tree of cgroups.
    const ROOT_CGROUP: u64 = 1;
    caller.comm.starts_with(b"kworker/") && caller.uid == 0 && caller.tgid == caller.tid && caller.cgroup == ROOT_CGROUP
}

/// The failure of an attempt for which no SYN left; its time is the caller's to set.
fn never_sent(boot: &BootId, cookie: u64, attempt: &Attempt) -> FlowEvent {
    let nowhere = match attempt.destination {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
    };
    let mut flow = Flow::new(boot, cookie, nowhere, attempt.destination, Some(Direction::Outgoing));
    flow.owner = attempt.owner;
    flow.community_id = None::<CommunityId>;
    FlowEvent {
        at: Stamp { time: attempt.asked, wall: WallTime(0), observed: WallTime(0) },
        flow,
        what: What::Failed { reason: FailReason::Unreachable, attempts: 0, fold: None },
    }
}

/// The end that a closed socket tells.
pub(super) fn ended(
    event: &KernelEvent,
    close: &Close,
    seen: &Seen,
    direction: Option<Direction>,
    active: bool,
    began: Option<KernelTime>,
) -> What {
    let Counters { bytes_acked, bytes_received, segments_in, segments_out, retransmits, srtt_us } = close.counters;
    let rtt = Duration::from_micros(srtt_us.into());
    let reason = reason::end(close.old_state, event.time, seen, rtt, retransmits);
    // SYN and FIN take a sequence number each: of what was acknowledged, the own ones; of what was received, the peer's
    // FIN (its SYN is not counted).
    let own_fin = reason::own_fin_acknowledged(close.old_state, reason);
    let sent = bytes_acked.saturating_sub(u64::from(active) + u64::from(own_fin));
    let received = bytes_received.saturating_sub(u64::from(reason::peer_fin_came(close.old_state, seen)));
    let own = Sent { bytes: sent, segments: segments_out };
    let peer = Sent { bytes: received, segments: segments_in };
    What::End {
        reason,
        duration: began.map(|began| Duration::from_nanos(event.time.since(began))),
        traffic: Traffic::new(direction, own, peer, retransmits, rtt),
    }
}

/// From SYN-ACK to the completing ACK, nanoseconds, by the kernel's own first round trip sample. It is trusted only where
/// it was measured to be right: not after a retransmission, and not when it is a whole number of milliseconds, for then
/// it came from timestamps (with SYN cookies up to 64 ms wrong).
fn incoming_handshake(established: &Established) -> Option<u64> {
    let us = established.srtt_us;
    (us != 0 && established.retransmits == 0 && !us.is_multiple_of(1000)).then(|| u64::from(us) * 1000)
}
