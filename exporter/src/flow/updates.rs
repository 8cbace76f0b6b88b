//! Updates of open flows: what has passed so far, and what of it since the last time. Kernel events that say what a socket has
//! counted come in; they wait with everything else, and are told if their flow is still open then: an end tells the rest.
//!
//! What was told last lies beside the flow, in the table that holds it. So the deltas of all updates and of the end add up to
//! the end's totals; of a flow that is older than flowtel, to what passed since it was found; of one in none of the tables
//! (its begin was lost, or it was forgotten), to what passed since its first update, which has no delta.
//!
//! Must never guess a delta: where it is not known what was told, there is none.

use std::{net::SocketAddr, time::Duration};

use flowtel_common::event::{self, Counters, Update, state};

use super::{
    Delta, Direction, Flow, FlowEvent, Sent, Traffic, What,
    aged::Aged,
    flows::{Flows, stamp},
};
use crate::capture::{KernelEvent, NetnsId};

/// What has passed by the last time that it was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Passed {
    pub source_bytes: u64,
    pub destination_bytes: u64,
    pub source_segments: u32,
    pub destination_segments: u32,
    pub retransmits: u32,
}

/// What was told of flows that are in no table, by socket cookie; `None` where nothing was yet. Bounded: the one that was told
/// least recently is forgotten.
#[derive(Debug)]
pub(super) struct Untied {
    told: Aged<Option<Passed>>,
    most: usize,
}

// === impl Passed

impl Passed {
    /// Whether it was counted earlier than `other`: counters only grow, those of segments around after four billion.
    fn is_before(&self, other: &Self) -> bool {
        let less = |now: u32, then: u32| now.wrapping_sub(then) > u32::MAX / 2;
        self.source_bytes < other.source_bytes
            || self.destination_bytes < other.destination_bytes
            || less(self.source_segments, other.source_segments)
            || less(self.destination_segments, other.destination_segments)
    }

    /// By source and destination in, by the socket's own side and its peer out, and back: where the peer asked for the
    /// connection, the peer is the source.
    pub(super) fn turned(self, direction: Option<Direction>) -> Self {
        if direction != Some(Direction::Incoming) {
            return self;
        }
        Self {
            source_bytes: self.destination_bytes,
            destination_bytes: self.source_bytes,
            source_segments: self.destination_segments,
            destination_segments: self.source_segments,
            ..self
        }
    }
}

// === impl Untied

impl Untied {
    pub fn new(most: usize) -> Self {
        Self { told: Aged::default(), most: most.max(1) }
    }

    /// Notes what was told of the flow on this socket.
    pub fn insert(&mut self, cookie: u64, told: Option<Passed>) {
        if self.told.len() >= self.most && !self.told.contains(cookie) {
            self.told.pop_oldest();
        }
        self.told.insert(cookie, told);
    }

    /// Follows the flow on this socket, if that is not done yet.
    fn follow(&mut self, cookie: u64) {
        if !self.told.contains(cookie) {
            self.insert(cookie, None);
        }
    }

    /// What was told of the flow on this socket, which is not followed here any more.
    pub fn take(&mut self, cookie: u64) -> Option<Passed> {
        self.told.remove(cookie).flatten()
    }

    /// All of which something was told, each with its cookie.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Passed)> {
        self.told.iter().filter_map(|(cookie, told)| Some((cookie, told.as_ref()?)))
    }

    /// Goes on with another limit.
    pub fn set_limit(&mut self, most: usize) {
        self.most = most.max(1);
        while self.told.len() > self.most {
            self.told.pop_oldest();
        }
    }
}

// === impl Traffic

impl Traffic {
    /// What is to be remembered of it.
    pub(super) fn passed(&self) -> Passed {
        Passed {
            source_bytes: self.source_bytes,
            destination_bytes: self.destination_bytes,
            source_segments: self.source_segments,
            destination_segments: self.destination_segments,
            retransmits: self.retransmits,
        }
    }

    /// The same with what of it passed since `told`.
    pub(super) fn since(self, told: &Passed) -> Self {
        // The kernel's counters of bytes are beyond any connection, those of segments go round after four billion.
        let bytes = |now: u64, then: u64| now.wrapping_sub(then) as i64;
        let segments = |now: u32, then: u32| now.wrapping_sub(then) as i32;
        let delta = Delta {
            source_bytes: bytes(self.source_bytes, told.source_bytes),
            destination_bytes: bytes(self.destination_bytes, told.destination_bytes),
            source_segments: segments(self.source_segments, told.source_segments),
            destination_segments: segments(self.destination_segments, told.destination_segments),
            retransmits: segments(self.retransmits, told.retransmits),
        };
        Self { delta: Some(delta), ..self }
    }
}

// === impl What

impl What {
    /// An end with what passed since `told`; anything else, and where nothing is known of that, as it is.
    pub(super) fn since(mut self, told: Option<&Passed>) -> Self {
        if let (Self::End { traffic, .. }, Some(told)) = (&mut self, told) {
            *traffic = traffic.since(told);
        }
        self
    }
}

// === impl Flows

impl Flows {
    /// An open flow has counted so much.
    pub(super) fn updates(&mut self, event: &KernelEvent, update: &Update) {
        let cookie = update.cookie;
        let at = stamp(event, event.time);
        let kind = &self.ledger.kernel.update;
        if let Some(open) = self.open.get(cookie) {
            let own = open.own;
            let mut traffic = so_far(&update.counters, update.state, open.flow.direction, open.active);
            traffic.counted = update.marks & u32::from(event::UNCOUNTED) == 0 && !open.seen.uncounted;
            let duration = Some(Duration::from_nanos(event.time.since(open.began)));
            let told = FlowEvent { at, flow: open.flow.clone(), what: What::Update { duration, traffic } };
            self.count(kind, own);
            self.settling.hold(told, cookie, event.time, own, false);
            return;
        }
        if self.vanished.holds(cookie) || self.own_sockets.is_inherited(cookie) {
            let counter = if self.vanished.holds(cookie) { &kind.unused } else { &kind.own };
            counter.add(1);
            return;
        }
        if self.older.contains(cookie) {
            let told = self.older.updates(&self.boot, update);
            let counter = if told.is_some() { &kind.joined } else { &kind.unused };
            counter.add(1);
            if let Some((flow, traffic)) = told {
                let told = FlowEvent { at, flow, what: What::Update { duration: None, traffic } };
                self.settling.hold(told, cookie, event.time, false, false);
            }
            return;
        }
        self.updates_untied(event, update);
    }

    /// The same of a flow whose begin was not seen, or which was forgotten since.
    fn updates_untied(&mut self, event: &KernelEvent, update: &Update) {
        let cookie = update.cookie;
        let local = SocketAddr::new(event::ip(update.local), update.local_port);
        let remote = SocketAddr::new(event::ip(update.remote), update.remote_port);
        // Where its begin was lost, who asked for it is known still.
        let attempt = self.attempts.get(cookie, event.time).map(|attempt| *attempt);
        let own = attempt.is_some_and(|attempt| self.is_own(&attempt));
        self.count(&self.ledger.kernel.update, own);
        if own {
            return;
        }
        let direction = attempt.map(|_| Direction::Outgoing);
        let mut flow = Flow::new(&self.boot, cookie, local, remote, direction);
        flow.came_of(attempt.as_ref(), &self.boot, event.time);
        (flow.owner, flow.netns) = attempt.map_or((None, NetnsId::UNKNOWN), |attempt| (attempt.owner, attempt.netns));
        flow.netns = flow.netns.or(NetnsId::of_inode(update.netns_inode));
        flow.interface = update.interface;
        let mut traffic = so_far(&update.counters, update.state, direction, attempt.is_some());
        traffic.counted = update.marks & u32::from(event::UNCOUNTED) == 0;
        self.untied.follow(cookie);
        let told = FlowEvent { at: stamp(event, event.time), flow, what: What::Update { duration: None, traffic } };
        self.settling.hold(told, cookie, event.time, false, false);
    }

    /// An update that has waited: with its delta, and what is known of its flow by now. `None` where the flow has ended
    /// meanwhile.
    pub(super) fn told_update(&mut self, event: &FlowEvent, cookie: u64) -> Option<FlowEvent> {
        let mut event = event.clone();
        let What::Update { traffic, .. } = &mut event.what else { return None };
        let now = traffic.passed();
        if let Some(open) = self.open.get(cookie) {
            if open.began > event.at.time {
                // The socket has another flow.
                return None;
            }
            *traffic = traffic.since(&open.told.as_deref().copied().unwrap_or_default());
            open.told = Some(Box::new(now));
            event.flow = open.flow.clone();
        } else if let Some(told) = self.older.told(cookie) {
            if now.is_before(told) {
                // It was counted before the flow was found.
                return None;
            }
            *traffic = traffic.since(told);
            *told = now;
        } else if self.untied.told.contains(cookie) {
            if let Some(told) = self.untied.take(cookie) {
                *traffic = traffic.since(&told);
            }
            // It is the youngest from here on.
            self.untied.insert(cookie, Some(now));
        } else {
            return None;
        }
        Some(event)
    }
}

/// What a socket in this state has passed, by its counters. `active`: this side asked for the connection.
pub(super) fn so_far(counters: &Counters, state: u32, direction: Option<Direction>, active: bool) -> Traffic {
    let Counters { bytes_acked, bytes_received, segments_in, segments_out, retransmits, srtt_us } = *counters;
    // SYN and FIN take a sequence number each: of what was acknowledged, the own ones; of what was received, the peer's FIN.
    // The peer's FIN that comes in FIN_WAIT2 closes the socket, and its end tells what that counts.
    let own_fin = state == state::FIN_WAIT2;
    let peer_fin = matches!(state, state::CLOSE_WAIT | state::LAST_ACK | state::CLOSING);
    let own =
        Sent { bytes: bytes_acked.saturating_sub(u64::from(active) + u64::from(own_fin)), segments: segments_out };
    let peer = Sent { bytes: bytes_received.saturating_sub(u64::from(peer_fin)), segments: segments_in };
    Traffic::new(direction, own, peer, retransmits, Duration::from_micros(srtt_us.into()))
}
