//! Open flows, as the audit asks for them; and the end of one that it found to be over although nobody had reported it. What is
//! reported after that is no second end.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::{Direction, Flow, FlowEvent, Flows, Stamp, What, open::Open};
use crate::capture::{
    Clock, KernelTime,
    audit::{Asked, Table},
};

/// How long an end that the audit found keeps out one that is reported, and how many are remembered for that.
const REMEMBERED: Duration = Duration::from_secs(60);
const MOST: usize = 1 << 16;

/// Sockets of flows whose end the audit found.
#[derive(Debug, Default)]
pub(super) struct Vanished {
    by_cookie: HashMap<u64, KernelTime>,
    order: VecDeque<(u64, KernelTime)>,
}

// === impl Vanished

impl Vanished {
    fn add(&mut self, cookie: u64, now: KernelTime) {
        while let Some((oldest, since)) = self.order.front().copied()
            && (self.order.len() >= MOST || u128::from(now.since(since)) >= REMEMBERED.as_nanos())
        {
            self.order.pop_front();
            if self.by_cookie.get(&oldest) == Some(&since) {
                self.by_cookie.remove(&oldest);
            }
        }
        self.by_cookie.insert(cookie, now);
        self.order.push_back((cookie, now));
    }

    /// Whether the end of the flow on this socket was found a moment before `now`. It is asked once.
    pub fn take(&mut self, cookie: u64, now: KernelTime) -> bool {
        let since = self.by_cookie.remove(&cookie);
        since.is_some_and(|since| u128::from(now.since(since)) < REMEMBERED.as_nanos())
    }

    /// Whether the end of a flow on this socket was found.
    pub fn holds(&self, cookie: u64) -> bool {
        !self.by_cookie.is_empty() && self.by_cookie.contains_key(&cookie)
    }

    /// The socket has another flow.
    pub fn forget(&mut self, cookie: u64) {
        if !self.by_cookie.is_empty() {
            self.by_cookie.remove(&cookie);
        }
    }
}

// === impl Flows

impl Table for Flows {
    fn flow(&self, cookie: u64) -> Option<Asked> {
        self.open.peek(cookie).map(|open| asked(cookie, open))
    }

    fn sample(&mut self, most: usize, before: KernelTime) -> Vec<Asked> {
        let settled = |(_, open): &(u64, &Open)| open.began < before;
        // What other programs keep from flowtel are the ends of flows that began after them.
        let young = self.open.youngest().take(MOST).filter(settled).take(most / 2);
        let mut sample: Vec<_> = young.map(|(cookie, open)| asked(cookie, open)).collect();
        let (others, next) = self.open.from(self.audited, most - sample.len());
        sample.extend(others.into_iter().filter(settled).map(|(cookie, open)| asked(cookie, open)));
        self.audited = next;
        sample
    }

    fn each(&self, before: KernelTime, out: &mut dyn FnMut(u64, u64) -> bool) {
        for (cookie, open) in self.open.youngest().filter(|(_, open)| open.began < before) {
            if !out(cookie, open.flow.netns.cookie().unwrap_or_default()) {
                break;
            }
        }
    }

    fn over(&mut self, cookie: u64, before: KernelTime) -> bool {
        if self.open.peek(cookie).is_none_or(|open| open.began >= before) {
            return false;
        }
        let Some(Open { flow, own, .. }) = self.open.remove(cookie) else { return false };
        let now = KernelTime::now();
        let wall = Clock::measure().wall(now);
        let told = FlowEvent { at: Stamp { time: now, wall, observed: wall }, flow, what: What::Vanished };
        self.settling.hold(told, cookie, now, own, false);
        self.vanished.add(cookie, now);
        self.ledger.ended_unreported();
        true
    }
}

fn asked(cookie: u64, open: &Open) -> Asked {
    let Flow { source, destination, direction, .. } = open.flow;
    let (local, remote) =
        if direction == Some(Direction::Incoming) { (destination, source) } else { (source, destination) };
    Asked { cookie, local, remote, netns: open.flow.netns.cookie().unwrap_or_default(), began: open.began }
}
