//! Whether flows that count as open are still among the kernel's sockets: a table of flows comes in, those that are over and
//! whose end nobody reported go out, each once. It decides nothing about records.
//!
//! - [`lookouts`]: one way into each network namespace, opened at the start;
//! - `census`: all flows of one namespace, compared with its whole list of sockets;
//! - [`deafness`]: when missed ends are news, and when they are over.
//!
//! Every `capture.audit` some flows are looked up, young ones and others in turn: that costs some microseconds each. One
//! that isn't found starts a census of its namespace; so do events that were lost, and `FULL` of time. Only a census says
//! that a flow is over: its socket is missing in two whole lists in a row, and is not found by its addresses either. And that
//! is believed once everything that the programs had reported by then was read.
//!
//! It must never call a flow over that lives. So what can't be asked is never over: a flow in a namespace without a lookout
//! or that was left, one whose namespace isn't known (before Linux 6.1) unless it was seen there before, a look that failed.

mod census;
pub mod deafness;
pub mod lookouts;

use std::{
    collections::{HashSet, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use census::Census;
pub use deafness::Deafness;
pub use lookouts::Lookouts;

use super::KernelTime;
use crate::ledger;

/// The most flows that are looked up at a time.
const SAMPLE: usize = 64;
/// How old a flow is before it is looked up: what began just now may not be in the table as it is.
const YOUNG: Duration = Duration::from_secs(1);
/// How long no flow goes without a census.
const FULL: Duration = Duration::from_secs(600);
/// How long after the last loss of events the census starts that looks for what was lost with them.
const AFTER_LOSS: Duration = Duration::from_secs(2);
/// The same once more: what is left of a closed socket is gone from the list by then (TCP_TIMEWAIT_LEN is 60 s).
const AFTER_LOSS_AGAIN: Duration = Duration::from_secs(65);
/// How often a namespace is looked at that may be idle, and how many times as long as the look took the next one waits: the kernel
/// walks the sockets of all namespaces for it, which takes milliseconds where there are many.
const IDLE: Duration = Duration::from_secs(1);
const IDLE_TIMES: u32 = 2_000;
/// How long before everything is read that the programs had reported when a flow was seen to be over.
const SETTLES: Duration = Duration::from_millis(200);
/// The most flows that are remembered because a look at their addresses does not find them, though they live.
const MOST_EXCUSED: usize = 1 << 16;
/// How many sockets that were seen in a namespace are remembered for the next look, where nobody tells a flow's namespace.
const MOST_SEEN: usize = 1 << 20;

/// A flow that counts as open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Its socket (SO_COOKIE).
    pub cookie: u64,
    /// The socket's own address.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// The cookie of its network namespace; 0 where it is not known.
    pub netns: u64,
    /// When it began.
    pub began: KernelTime,
}

/// The flows that count as open.
pub trait Table {
    /// The one on this socket.
    fn flow(&self, cookie: u64) -> Option<Asked>;

    /// At most `most` of those that began before `before`: some that are as young as that allows, and some others, other ones
    /// each time.
    fn sample(&mut self, most: usize, before: KernelTime) -> Vec<Asked>;

    /// Gives out all that began before `before`, socket and namespace, the youngest first, until `out` returns false.
    fn each(&self, before: KernelTime, out: &mut dyn FnMut(u64, u64) -> bool);

    /// The one on this socket, which began before `before`, is over. Returns whether it still counted as open.
    fn over(&mut self, cookie: u64, before: KernelTime) -> bool;
}

/// The kernel's lists of sockets, one for each network namespace that can be asked.
pub trait Sockets {
    /// The namespaces by number: the cookie of each; 0 where it is not known. `None` where it is no longer asked.
    fn namespaces(&self) -> Vec<Option<u64>>;

    /// Whether a flow's socket is there.
    fn look(&mut self, namespace: usize, flow: &Asked) -> Look;

    /// Asks for the list of one family. Returns whether it will come.
    fn begin(&mut self, namespace: usize, six: bool) -> bool;

    /// Gives out a part of it.
    fn next(&mut self, namespace: usize, out: &mut dyn FnMut(u64)) -> Part;

    /// Whether a namespace has no socket at all.
    fn is_empty(&mut self, namespace: usize) -> bool;

    /// Leaves a namespace alone from now on: what keeps it open keeps it alive.
    fn leave(&mut self, namespace: usize);
}

/// What a look says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The socket is there.
    There,
    /// It isn't, or is bound to a device.
    Missing,
    /// The kernel didn't say.
    Unsure,
}

/// How a list goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// More follows.
    More,
    /// That was all.
    Last,
    /// It isn't whole.
    Broken,
}

/// The audit.
#[derive(Debug)]
pub struct Audit<S> {
    sockets: S,
    every: Duration,
    /// When the next sample is due, the next look at an idle namespace, and the next census of all.
    sample: KernelTime,
    idle: (KernelTime, usize),
    full: KernelTime,
    /// When censuses are due that look for what was lost.
    losses: [Option<KernelTime>; 2],
    lost: u64,
    /// Whose census is wanted.
    wanted: VecDeque<usize>,
    census: Option<Census>,
    /// Over, and not believed yet: which, began before when, seen when.
    over: VecDeque<(u64, KernelTime, KernelTime)>,
    /// Looks at addresses don't find these, though they live: bound to a device. And those of which that is to be found out.
    excused: HashSet<u64>,
    doubted: Vec<(u64, usize)>,
    /// Where flows of unknown namespaces were seen: that makes a miss there a proof.
    seen: Vec<HashSet<u64>>,
    /// Those of the last sample that were, to be looked up again.
    again: Vec<(u64, usize)>,
}

/// What a round may know.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// When it is.
    pub now: KernelTime,
    /// Up to when all that the programs reported was read and processed.
    pub cut: KernelTime,
    /// Events of flows that were lost so far.
    pub lost: u64,
}

// === impl Audit

impl<S: Sockets> Audit<S> {
    /// An audit of what `sockets` can be asked for, from `now` on.
    pub fn new(sockets: S, every: Duration, now: KernelTime) -> Self {
        let seen = sockets.namespaces().iter().map(|_| HashSet::new()).collect();
        Self {
            sockets,
            every,
            sample: after(now, every),
            idle: (now, 0),
            full: after(now, FULL),
            losses: [None; 2],
            lost: 0,
            wanted: VecDeque::new(),
            census: None,
            over: VecDeque::new(),
            excused: HashSet::new(),
            doubted: Vec::new(),
            seen,
            again: Vec::new(),
        }
    }

    /// Whether there is nothing to do before the next sample.
    pub fn is_quiet(&self) -> bool {
        self.census.is_none() && self.wanted.is_empty() && self.over.is_empty()
    }

    /// Does what is due: some looks, or a part of a list. What is over is told to `table`.
    pub fn round(&mut self, round: Round, table: &mut impl Table, ledger: &ledger::Audit) {
        let Round { now, cut, lost } = round;
        self.believe(cut, table, ledger);
        if lost != self.lost {
            self.lost = lost;
            self.losses = [AFTER_LOSS, AFTER_LOSS_AGAIN].map(|wait| Some(after(now, wait)));
        }
        let mut all = now >= self.full;
        for due in &mut self.losses {
            all |= due.take_if(|due| now >= *due).is_some();
        }
        if all {
            self.full = after(now, FULL);
            for namespace in 0..self.seen.len() {
                self.want(namespace);
            }
        }
        if self.census.is_some() {
            self.count(now, table, ledger);
        } else if let Some(namespace) = self.wanted.pop_front() {
            self.start(namespace, now, table);
        } else if now >= self.sample {
            self.sample = after(now, self.every);
            self.look(now, table, ledger);
        } else if now >= self.idle.0 {
            let start = Instant::now();
            self.leave_idle(now, table);
            self.idle.0 = after(now, IDLE.max(start.elapsed() * IDLE_TIMES));
        }
    }

    /// Tells what is over, once all was read that was reported before that was seen.
    fn believe(&mut self, cut: KernelTime, table: &mut impl Table, ledger: &ledger::Audit) {
        while let Some((cookie, began_before, seen)) = self.over.front().copied()
            && u128::from(cut.since(seen)) >= SETTLES.as_nanos()
        {
            self.over.pop_front();
            if table.over(cookie, began_before) {
                ledger.over.add(1);
            } else {
                ledger.reported.add(1);
            }
        }
    }

    fn want(&mut self, namespace: usize) {
        if !self.wanted.contains(&namespace) {
            self.wanted.push_back(namespace);
        }
    }

    /// Looks up a sample, and again what the one before found where nobody tells a flow's namespace.
    fn look(&mut self, now: KernelTime, table: &mut impl Table, ledger: &ledger::Audit) {
        let namespaces = self.sockets.namespaces();
        for (cookie, namespace) in std::mem::take(&mut self.again) {
            let Some(flow) = table.flow(cookie) else { continue };
            self.look_at(namespace, &flow, ledger);
        }
        for flow in table.sample(SAMPLE, before(now, YOUNG)) {
            if self.excused.contains(&flow.cookie) {
                continue;
            }
            if flow.netns != 0 {
                match namespaces.iter().position(|netns| *netns == Some(flow.netns)) {
                    Some(namespace) => self.look_at(namespace, &flow, ledger),
                    None => ledger.unsure.add(1),
                }
                continue;
            }
            // Nobody tells where it is: flowtel's own namespace is the one to ask. To find it proves that it is there.
            match self.sockets.look(0, &flow) {
                Look::There => {
                    ledger.there.add(1);
                    self.again.push((flow.cookie, 0));
                    if let Some(seen) = self.seen.get_mut(0).filter(|seen| seen.len() < MOST_SEEN) {
                        seen.insert(flow.cookie);
                    }
                }
                Look::Missing | Look::Unsure => ledger.unsure.add(1),
            }
        }
    }

    /// Looks at a flow that is to be there. Where it isn't, only a census can tell why.
    fn look_at(&mut self, namespace: usize, flow: &Asked, ledger: &ledger::Audit) {
        match self.sockets.look(namespace, flow) {
            Look::There => ledger.there.add(1),
            Look::Unsure => ledger.unsure.add(1),
            Look::Missing => {
                ledger.missing.add(1);
                self.doubted.push((flow.cookie, namespace));
                self.want(namespace);
            }
        }
    }

    /// Starts a census of a namespace.
    fn start(&mut self, namespace: usize, now: KernelTime, table: &impl Table) {
        let netns = self.sockets.namespaces().get(namespace).copied().flatten();
        let (Some(netns), Some(seen)) = (netns, self.seen.get(namespace)) else { return };
        let began_before = before(now, YOUNG);
        let mut missing = HashSet::new();
        let mut unknown = false;
        table.each(began_before, &mut |cookie, of| {
            unknown |= of == 0;
            if of != 0 && of == netns || of == 0 && seen.contains(&cookie) {
                missing.insert(cookie);
            }
            true
        });
        if !missing.is_empty() || unknown {
            self.census = Some(Census::new(namespace, began_before, missing, unknown));
        }
    }

    /// Goes on with the census.
    fn count(&mut self, now: KernelTime, table: &mut impl Table, ledger: &ledger::Audit) {
        let Some(census) = &mut self.census else { return };
        let state = census.step(&mut self.sockets, table, now);
        let (namespace, began_before) = (census.namespace, census.began_before);
        for (cookie, look) in census.looked.drain(..) {
            match look {
                Look::Missing => self.over.push_back((cookie, began_before, now)),
                Look::There => {}
                Look::Unsure => ledger.unsure.add(1),
            }
        }
        if state == census::State::Running {
            return;
        }
        if let Some(census) = self.census.take() {
            match state {
                census::State::Done => ledger.censuses.add(1),
                _ => ledger.censuses_broken.add(1),
            }
            let over: HashSet<_> = self.over.iter().map(|(cookie, ..)| *cookie).collect();
            if self.excused.len() >= MOST_EXCUSED {
                self.excused.clear();
            }
            for (cookie, _) in self.doubted.extract_if(.., |(_, of)| *of == namespace) {
                if state == census::State::Done && !over.contains(&cookie) {
                    self.excused.insert(cookie);
                }
            }
            // Where a flow's namespace isn't known, what was seen now may be missed next time.
            if let Some(seen) = self.seen.get_mut(namespace)
                && state == census::State::Done
            {
                *seen = census.into_seen();
            }
        }
    }

    /// Leaves one namespace that has neither an open flow nor a socket; another one each time. flowtel's own is kept.
    fn leave_idle(&mut self, now: KernelTime, table: &impl Table) {
        let namespaces = self.sockets.namespaces();
        if namespaces.len() < 2 {
            return;
        }
        let next = (self.idle.1 + 1) % namespaces.len();
        self.idle.1 = next;
        let Some(Some(netns)) = namespaces.get(next).copied().filter(|_| next > 0) else { return };
        let mut has_flow = false;
        table.each(now, &mut |_, of| {
            has_flow = of == netns;
            !has_flow
        });
        if !has_flow && self.sockets.is_empty(next) {
            self.sockets.leave(next);
        }
    }
}

fn after(time: KernelTime, wait: Duration) -> KernelTime {
    KernelTime(time.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
}

fn before(time: KernelTime, wait: Duration) -> KernelTime {
    KernelTime(time.0.saturating_sub(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests;
