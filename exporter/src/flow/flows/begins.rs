//! From a process's call to the begin of a flow: attempts, acceptors, both ends of a connection within the host.

use std::{net::SocketAddr, num::NonZeroU32, time::Duration};

use flowtel_common::event::{self, Accept, Call, Caller, Established, Release, state};

use super::{Flows, stamp};
use crate::{
    capture::{KernelEvent, KernelTime, NetnsId},
    config,
    flow::{
        Direction, Flow, FlowEvent, Owner, Role, Source, What, attempts::Attempt, open::Open, reason::Seen, waits::Wait,
    },
    ledger::Kind,
};

impl Flows {
    pub(super) fn asks(&mut self, event: &KernelEvent, call: &Call) {
        let attempt = Attempt {
            asked: event.time,
            destination: SocketAddr::new(event::ip(call.address), call.port),
            again: None,
            used_again: false,
            reset_in: false,
            released: false,
            denied: call.refusal != 0,
            owner: (!is_kernel_worker(&call.caller))
                .then(|| owner(event, &call.caller, Role::Connector, Source::Connect)),
            netns: NetnsId::new(call.netns),
        };
        let cookie = call.caller.cookie;
        if self.own.asked(&attempt) {
            self.own_sockets.add(cookie);
        }
        if let Some(replaced) = self.attempts.open(cookie, attempt, &self.ledger.kernel) {
            // A socket can be used again only after the call before it failed. Where a SYN had left, its end came first.
            self.no_way(event, cookie, &replaced, None);
        }
        if attempt.denied {
            let over = stamp(event, event.time);
            self.waits.denied(Wait { cookie, asked: event.time, over });
        }
    }

    pub(super) fn binds(&mut self, event: &KernelEvent, caller: &Caller) {
        self.ledger.kernel.bind.joined.bump();
        self.listeners.bound(caller.cookie, owner(event, caller, Role::Listener, Source::Listener));
    }

    pub(super) fn listens(&mut self, event: &KernelEvent, caller: &Caller) {
        self.ledger.kernel.listen.joined.bump();
        // The kernel side tells it whatever is wanted.
        if self.acceptors {
            let owner = (caller.tgid != 0).then(|| owner(event, caller, Role::Listener, Source::Listener));
            self.listeners.listens(caller.cookie, owner);
        }
    }

    pub(super) fn accepts(&mut self, event: &KernelEvent, accept: &Accept) {
        let kernel = &self.ledger.kernel;
        let owner = Owner {
            pid: accept.tgid,
            uid: accept.uid,
            comm: accept.comm,
            cgroup: accept.cgroup,
            since: event.time,
            role: Role::Acceptor,
            source: Source::Accept,
            begin: None,
        };
        let netns = NetnsId::new(accept.netns);
        let certain = accept.certain != 0;
        let Some(open) = self.open.get(accept.cookie) else {
            if certain && self.older.accepts(accept.cookie, owner) {
                kernel.accept.joined.add(1);
            } else if self.attempts.get(accept.cookie, event.time).is_some() {
                // The peer's name of a socket that connects.
                kernel.accept.unused.add(1);
            } else {
                // Or of one that is not followed.
                kernel.accept.unused.add(self.early.add(accept.cookie, owner, netns));
            }
            return;
        };
        let told = self.settling.get(open.begin).is_none();
        // Where the kernel can't tell the one from the other, who asks for the peer's name later is no taker: a debugger, or
        // whoever was given the socket. Right after the handshake it is accept().
        let believed = certain || !told;
        let taken = open.flow.owner.is_some_and(|owner| owner.role != Role::Listener);
        if open.flow.direction != Some(Direction::Incoming) || taken || !believed {
            kernel.accept.unused.add(1);
            return;
        }
        self.settling.give_owner(open.begin, owner, netns);
        open.flow.netns = open.flow.netns.or(netns);
        let named = open.flow.owner.map(|listener| listener.pid).filter(|pid| told && *pid != owner.pid);
        open.flow.owner = Some(Owner { begin: named.and_then(NonZeroU32::new), ..owner });
        if open.own { kernel.accept.own.bump() } else { kernel.accept.joined.bump() }
    }

    pub(super) fn drops(&mut self, event: &KernelEvent, release: &Release) {
        if release.uncounted != 0 {
            let open = self.open.get(release.cookie);
            let kind = &self.ledger.kernel.release;
            match open {
                Some(open) => {
                    open.seen.uncounted = true;
                    if open.own { kind.own.add(1) } else { kind.joined.add(1) }
                }
                None => kind.unused.add(1),
            }
            return;
        }
        // One that was bound and never listened.
        let _ = self.listeners.closed(release.cookie);
        // Where no failures are wanted the closing of a socket, which comes before, was not told either.
        let wanted = self.events.has(config::Events::FAILED);
        let Some(attempt) = self.attempts.get(release.cookie, event.time).filter(|_| wanted) else {
            self.ledger.kernel.release.unused.add(1);
            return;
        };
        attempt.released = true;
        let asked = attempt.asked;
        let own = self.own.asked(attempt);
        self.count(&self.ledger.kernel.release, own);
        // Closed, and no end from SYN_SENT came before: no SYN ever left.
        if release.state == state::CLOSE
            && let Some(attempt) = self.attempts.close(release.cookie)
        {
            let unroutable = event::ip(release.unroutable);
            self.no_way(event, release.cookie, &attempt, Some(unroutable).filter(|ip| !ip.is_unspecified()));
        } else if release.state == state::SYN_SENT {
            self.waits.released(Wait { cookie: release.cookie, asked, over: stamp(event, event.time) });
        }
    }

    /// Notes something that belongs to an attempt.
    pub(super) fn in_attempt(
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
                let own = self.own.asked(attempt);
                if own { kind.own.add(1) } else { kind.joined.add(1) }
            }
            None => kind.unused.add(1),
        }
    }

    pub(super) fn begins(&mut self, event: &KernelEvent, established: &Established) {
        let cookie = established.cookie;
        // A later call on the same socket is not what this handshake answers.
        let attempt = self.attempts.take(cookie, event.time);
        let active = established.how == event::ACTIVE;
        let direction = if active || attempt.is_some() { Direction::Outgoing } else { Direction::Incoming };
        let local = SocketAddr::new(event::ip(established.local), established.local_port);
        let remote = SocketAddr::new(event::ip(established.remote), established.remote_port);
        let mut flow = Flow::new(&self.boot, cookie, local, remote, Some(direction));
        flow.came_of(attempt.as_ref(), &self.boot, event.time);
        if !self.begins_after_older(event, cookie, flow.id, attempt.is_some()) {
            return;
        }
        let asked_in = attempt.map_or(NetnsId::UNKNOWN, |attempt| attempt.netns);
        flow.netns = NetnsId::new(established.netns).or(asked_in);
        flow.interface = established.interface;
        flow.owner = match direction {
            Direction::Outgoing => attempt.and_then(|a| a.owner),
            Direction::Incoming => self.listeners.owner(established.listener),
        };
        let early = self.early.take(cookie);
        let acceptor = early.filter(|_| direction == Direction::Incoming).map(|(owner, netns)| {
            flow.netns = flow.netns.or(netns);
            owner
        });
        flow.owner = acceptor.or(flow.owner);
        // When the SYN-ACK came. Of SYNs that crossed there is none.
        let handshake = match (&attempt, direction) {
            (Some(attempt), _) if active && established.segments_in > 0 => Some(event.time.since(attempt.asked)),
            (None, Direction::Incoming) => incoming_handshake(established),
            _ => None,
        };
        let mut own = attempt.is_some_and(|a| self.own.asked(&a)) || self.own_sockets.is_inherited(cookie);
        if attempt.is_some() {
            self.count(&self.ledger.kernel.connect, own);
        }
        let other_end = self.meets_other_end(&mut flow, own);
        own |= other_end == Some(true);
        if own {
            self.own_sockets.add(cookie);
        }
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
        let by_listener = wants_owner && told.flow.owner.is_some();
        let begin = self.settling.hold(told, cookie, event.time, own, wants_owner);
        if by_listener {
            self.doubted.push((begin, cookie));
        }
        if other_end.is_none()
            && let Some(connection) = connection
        {
            self.unmatched.insert(connection, begin);
            self.settling.await_other_end(begin);
        }
        // Of SYNs that crossed, too, the own one is among what was acknowledged, although the kernel calls one passive.
        let active = direction == Direction::Outgoing;
        let Some(flow) = followed else { return };
        let open =
            Open { flow, began: event.time, seen: Seen::default(), begin, active, own, hello: false, told: None };
        self.vanished.forget(cookie);
        if self.open.insert(cookie, open) {
            self.ledger.flows_forgotten.add(1);
        }
        self.hello_taken(established, stamp(event, event.time));
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
        if own {
            self.own_sockets.add(cookie);
        }
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
}

fn owner(event: &KernelEvent, caller: &Caller, role: Role, source: Source) -> Owner {
    let Caller { tgid: pid, uid, comm, cgroup, .. } = *caller;
    Owner { pid, uid, comm, cgroup, since: event.time, role, source, begin: None }
}

/// Whether a worker of the kernel makes this call: further subflows of MPTCP are asked for so (mptcp_pm_worker,
/// net/mptcp/protocol.c). The name alone would not do, for anybody may call himself so.
fn is_kernel_worker(caller: &Caller) -> bool {
    /// Inode number of the root of the tree of cgroups.
    const ROOT_CGROUP: u64 = 1;
    caller.comm.starts_with(b"kworker/") && caller.uid == 0 && caller.tgid == caller.tid && caller.cgroup == ROOT_CGROUP
}

/// From SYN-ACK to the completing ACK, nanoseconds, by the kernel's own first round trip sample. It is trusted only where
/// it was measured to be right: not after a retransmission, and not when it is a whole number of milliseconds, for then
/// it came from timestamps (with SYN cookies up to 64 ms wrong). Nor where the first segment had data: then it ends when the
/// client had something to say (TCP_DEFER_ACCEPT, which drops the bare ACK; an ACK that was lost; Fast Open).
fn incoming_handshake(established: &Established) -> Option<u64> {
    let us = established.srtt_us;
    let bare = established.data_segments_in == 0;
    (bare && us != 0 && established.retransmits == 0 && !us.is_multiple_of(1000)).then(|| u64::from(us) * 1000)
}
