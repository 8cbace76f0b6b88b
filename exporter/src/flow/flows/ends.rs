//! From what came over a connection, and its closing, to its end; and to the failure of an attempt.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use flowtel_common::event::{self, Close, Counters, Fin, Segment, state};

use super::{Flows, stamp};
use crate::{
    capture::{KernelEvent, KernelTime, NetnsId},
    flow::{
        Cause, CommunityId, Direction, EndReason, Evidence, FailReason, Flow, FlowEvent, Sent, Stamp, Traffic, What,
        attempts::Attempt,
        open::Open,
        reason::{self, Asked, Seen},
        waits::Wait,
    },
};

impl Flows {
    pub(super) fn fin(&mut self, event: &KernelEvent, fin: &Fin) {
        let Some(open) = self.open.get(fin.cookie) else {
            let kind = &self.ledger.kernel.fin;
            let counter = if self.older.fin(event, fin) { &kind.joined } else { &kind.unused };
            counter.add(1);
            return;
        };
        if fin.way == event::IN {
            open.seen.fin_in = Some(event.time);
        }
        let own = open.own;
        self.count(&self.ledger.kernel.fin, own);
    }

    pub(super) fn reset(&mut self, event: &KernelEvent, segment: &Segment) {
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
            if self.own.asked(attempt) { kernel.reset.own.add(1) } else { kernel.reset.joined.add(1) }
        } else if let Some(place) = self.closed.get(&segment.cookie).copied() {
            if segment.way == event::OUT {
                self.settling.correct_end(place, EndReason::ResetLocal.by(Evidence::Segment));
            }
            kernel.reset.joined.add(1);
        } else if self.older.reset(event, segment) {
            kernel.reset.joined.add(1);
        } else {
            kernel.reset.unused.add(1);
        }
    }

    pub(super) fn closes(&mut self, event: &KernelEvent, close: &Close) {
        self.hello_over(close.cookie);
        if close.old_state == state::SYN_SENT {
            self.fails(event, close);
            return;
        }
        let Some(open) = self.open.remove(close.cookie) else {
            if self.vanished.take(close.cookie, event.time) {
                self.ledger.kernel.close.unused.add(1);
                self.ledger.audit.late.add(1);
                return;
            }
            if !self.closes_older(event, close) {
                self.closes_unfollowed(event, close);
            }
            return;
        };
        self.count(&self.ledger.kernel.close, open.own);
        let Open { flow, began, seen, active, own, told, .. } = open;
        let told = self.updated.then(|| told.map(|told| *told).unwrap_or_default());
        let what = ended(event, close, &seen, flow.direction, active, Some(began)).since(told.as_ref());
        self.hold_end(event, close.cookie, flow, what, own);
    }

    /// A socket was closed whose begin was not seen, or not followed.
    fn closes_unfollowed(&mut self, event: &KernelEvent, close: &Close) {
        if self.own_sockets.take_inherited(close.cookie) {
            self.ledger.kernel.close.own.add(1);
            return;
        }
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
            flow.came_of(attempt.as_ref(), &self.boot, event.time);
            (flow.owner, flow.netns) = attempt.map_or((None, NetnsId::UNKNOWN), |a| (a.owner, a.netns));
            flow.netns = flow.netns.or(NetnsId::of_inode(close.netns_inode));
            flow.interface = close.interface;
            let cause = reason::half(close, &asked(attempt.as_ref()), attempt.is_some());
            let what = What::Failed { cause, attempts: 1, fold: None };
            let told = FlowEvent { at: stamp(event, event.time), flow, what };
            self.settling.hold(told, close.cookie, event.time, false, false);
            return;
        }
        // Where its begin was lost, who asked for it is known still.
        let attempt = self.attempts.take(close.cookie, event.time);
        let own = attempt.is_some_and(|attempt| self.own.asked(&attempt));
        self.count(&self.ledger.kernel.close, own);
        let mut flow = Flow::new(&self.boot, close.cookie, local, remote, attempt.map(|_| Direction::Outgoing));
        flow.came_of(attempt.as_ref(), &self.boot, event.time);
        flow.interface = close.interface;
        if let Some(attempt) = attempt {
            self.count(&self.ledger.kernel.connect, own);
            (flow.owner, flow.netns) = (attempt.owner, attempt.netns);
        }
        let told = self.untied.take(close.cookie);
        let what = ended(event, close, &Seen::default(), flow.direction, attempt.is_some(), None).since(told.as_ref());
        self.hold_end(event, close.cookie, flow, what, own);
    }

    pub(in crate::flow) fn hold_end(&mut self, event: &KernelEvent, cookie: u64, flow: Flow, what: What, own: bool) {
        let told = FlowEvent { at: stamp(event, event.time), flow, what };
        let place = self.settling.hold(told, cookie, event.time, own, false);
        self.closed.insert(cookie, place);
    }

    /// A socket in SYN_SENT was closed: the attempt failed.
    fn fails(&mut self, event: &KernelEvent, close: &Close) {
        let attempt = self.attempts.take(close.cookie, event.time);
        let inherited = self.own_sockets.take_inherited(close.cookie);
        let own = inherited || attempt.is_some_and(|a| self.own.asked(&a));
        self.count(&self.ledger.kernel.close, own);
        if attempt.is_some() {
            self.count(&self.ledger.kernel.connect, own);
        }
        let local = SocketAddr::new(event::ip(close.local), close.local_port);
        let remote = SocketAddr::new(event::ip(close.remote), close.remote_port);
        if own {
            self.own_sockets.remove(close.cookie);
            self.refusals.forget(local, remote);
            return;
        }
        let mut flow = Flow::new(&self.boot, close.cookie, local, remote, Some(Direction::Outgoing));
        flow.came_of(attempt.as_ref(), &self.boot, event.time);
        (flow.owner, flow.netns) = attempt.map_or((None, NetnsId::UNKNOWN), |a| (a.owner, a.netns));
        flow.interface = close.interface;
        let Counters { segments_out, retransmits, .. } = close.counters;
        let attempts = if segments_out == 0 { 0 } else { retransmits.saturating_add(1) };
        let cause = reason::failure(close, &asked(attempt.as_ref()));
        let what = What::Failed { cause, attempts, fold: None };
        let told = FlowEvent { at: stamp(event, event.time), flow, what };
        self.settling.hold(told, close.cookie, event.time, false, false);
    }

    /// An attempt for which no SYN ever left: connect() failed at once. `unroutable`: where to there was no route, as far as
    /// the kernel's socket shows it.
    pub(super) fn no_way(&mut self, event: &KernelEvent, cookie: u64, attempt: &Attempt, unroutable: Option<IpAddr>) {
        let (cause, time) = if attempt.denied {
            (FailReason::Denied.by(Evidence::Call), attempt.asked)
        } else if unroutable == Some(attempt.destination.ip()) {
            (FailReason::Unreachable.by(Evidence::State), event.time)
        } else {
            // No route, no free port, no memory, or a program that ran after flowtel's refused it.
            (FailReason::Other.unknown(), event.time)
        };
        self.never_sent(cookie, attempt, stamp(event, time), cause);
    }

    /// Tells of attempts that have waited long enough at `now` for something more to come of them.
    pub(super) fn waited(&mut self, now: Option<KernelTime>) {
        while let Some(Wait { cookie, asked, over }) = self.waits.next(now) {
            let Some(attempt) = self.attempts.close_if(cookie, |attempt| attempt.asked == asked) else { continue };
            // Where events of flows were lost since, its end may be among them.
            if !attempt.denied && asked <= self.lost.at {
                self.ledger.kernel.connect.unused.add(1);
                continue;
            }
            let reason = if attempt.denied { FailReason::Denied } else { FailReason::Aborted };
            self.never_sent(cookie, &attempt, over, reason.by(Evidence::Call));
        }
    }

    /// Tells of an attempt for which no SYN left.
    fn never_sent(&mut self, cookie: u64, attempt: &Attempt, at: Stamp, cause: Cause<FailReason>) {
        let own = self.own.asked(attempt);
        if attempt.asked < self.watched {
            self.ledger.kernel.connect.unused.add(1);
            return;
        }
        self.count(&self.ledger.kernel.connect, own);
        if own {
            return;
        }
        let nowhere = match attempt.destination {
            SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
            SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
        };
        let mut flow = Flow::new(&self.boot, cookie, nowhere, attempt.destination, Some(Direction::Outgoing));
        // The kernel tells nothing of a socket for which no SYN leaves, so it may be one of many such attempts.
        flow.set_apart(&self.boot, attempt.asked);
        (flow.owner, flow.netns) = (attempt.owner, attempt.netns);
        flow.community_id = None::<CommunityId>;
        let what = What::Failed { cause, attempts: 0, fold: None };
        self.settling.hold(FlowEvent { at, flow, what }, cookie, at.time, false, false);
    }
}

/// What was seen of an attempt.
fn asked(attempt: Option<&Attempt>) -> Asked {
    attempt.map_or_else(Asked::default, |attempt| Asked {
        reset_in: attempt.reset_in,
        released: attempt.released,
        first: !attempt.used_again,
    })
}

/// The end that a closed socket tells.
pub(in crate::flow) fn ended(
    event: &KernelEvent,
    close: &Close,
    seen: &Seen,
    direction: Option<Direction>,
    active: bool,
    began: Option<KernelTime>,
) -> What {
    let Counters { bytes_acked, bytes_received, segments_in, segments_out, retransmits, srtt_us } = close.counters;
    let rtt = Duration::from_micros(srtt_us.into());
    let cause = reason::end(close, event.time, seen);
    // SYN and FIN take a sequence number each: of what was acknowledged, the own ones; of what was received, the peer's
    // FIN (its SYN is not counted).
    let own_fin = reason::own_fin_acknowledged(close);
    let sent = bytes_acked.saturating_sub(u64::from(active) + u64::from(own_fin));
    let fin_in = close.fin_in == event::FIN_CAME || seen.fin_in.is_some();
    let received = bytes_received.saturating_sub(u64::from(reason::peer_fin_came(close.old_state, fin_in)));
    let own = Sent { bytes: sent, segments: segments_out };
    let peer = Sent { bytes: received, segments: segments_in };
    let counted = !seen.uncounted && close.marks & event::UNCOUNTED == 0;
    What::End {
        cause,
        duration: began.map(|began| Duration::from_nanos(event.time.since(began))),
        traffic: Traffic { counted, ..Traffic::new(direction, own, peer, retransmits, rtt) },
    }
}
