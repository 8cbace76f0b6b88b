//! Repeats, folded: events alike go in, one event and a count come out. Bounded: more kinds than [`MOST`] are not folded.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::IpAddr,
    time::Duration,
};

use hashbrown::{HashMap, HashSet};

use crate::{
    capture::{KernelTime, NetnsId},
    flow::{Cause, Direction, EndReason, FailReason, FlowEvent, Fold, What},
    ledger::Records,
};

/// How long repeats are counted before they are told. A kind that was not repeated for so long counts as new.
pub const WINDOW: Duration = Duration::from_secs(10);
/// The most kinds that are told apart at once. What is new beyond them is told in full: a peer that makes up ports without
/// end can't keep others from being told, nor make this grow.
pub const MOST: usize = 16_384;
/// The most ports of a kind that are told apart.
const PORTS: usize = 4096;
/// How often it is looked what is due.
const LOOK: Duration = Duration::from_secs(1);

/// What repeats have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Alike {
    netns: NetnsId,
    source: IpAddr,
    destination: IpAddr,
    /// `None`: any.
    port: Option<u16>,
    direction: Option<Direction>,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Outcome {
    Begun,
    Open,
    Updated,
    /// What was said, as a number.
    Said(u64),
    Ended(Option<Cause<EndReason>>),
    Vanished,
    Failed(Cause<FailReason>),
}

/// A kind that was told since the pressure began.
#[derive(Debug)]
struct Known {
    /// When it was last told.
    since: KernelTime,
    repeats: Option<Box<Repeats>>,
}

#[derive(Debug)]
struct Repeats {
    /// The first, as it came.
    first: FlowEvent,
    /// All of them as one.
    sum: FlowEvent,
    count: u64,
    last: KernelTime,
    /// Those of all, where they differ.
    ports: HashSet<u16, foldhash::fast::RandomState>,
}

/// Repeats that are folded.
#[derive(Debug, Default)]
pub struct Folds {
    known: HashMap<Alike, Known, foldhash::fast::RandomState>,
    looked: KernelTime,
}

// === impl Folds

impl Folds {
    /// Takes an event that was counted as made, and counts it where it is folded away: of n folded into one, n - 1. Returns
    /// whether it was taken: what is new is not. With `ports` failures are alike whatever the port.
    pub fn take(&mut self, event: &FlowEvent, ports: bool, records: &Records) -> bool {
        let Some(mut alike) = Alike::of(event) else { return false };
        if ports && matches!(alike.outcome, Outcome::Failed(_)) {
            alike.port = None;
        }
        if let Some(known) = self.known.get_mut(&alike) {
            match &mut known.repeats {
                Some(repeats) => {
                    repeats.add(event);
                    records.folded.add(1);
                }
                // The first repeat becomes the count's record.
                none => *none = Some(Box::new(Repeats::new(event))),
            }
            return true;
        }
        if self.known.len() < MOST {
            self.known.insert(alike, Known { since: event.at.time, repeats: None });
        }
        false
    }

    /// Gives out the repeats that were counted long enough at `now`, or all, and forgets every kind, where it is `None`.
    /// An only repeat is told as it came.
    pub fn tell(&mut self, now: Option<KernelTime>, mut out: impl FnMut(FlowEvent, Option<Fold>)) {
        if let Some(now) = now {
            if is_over(self.looked, now, LOOK) {
                self.looked = now;
                self.known.retain(|_, known| {
                    if !is_over(known.since, now, WINDOW) {
                        return true;
                    }
                    known.since = now;
                    known.repeats.take().is_some_and(|repeats| {
                        repeats.tell(&mut out);
                        true
                    })
                });
            }
        } else {
            // The map's memory goes with it.
            for known in std::mem::take(&mut self.known).into_values() {
                if let Some(repeats) = known.repeats {
                    repeats.tell(&mut out);
                }
            }
        }
    }

    /// Whether it knows of nothing.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

fn is_over(since: KernelTime, now: KernelTime, time: Duration) -> bool {
    u128::from(now.since(since)) >= time.as_nanos()
}

// === impl Alike

impl Alike {
    /// `None` for what is folded already, or does not say from where.
    fn of(event: &FlowEvent) -> Option<Self> {
        let flow = &event.flow;
        let outcome = match &event.what {
            What::Begin { .. } => Outcome::Begun,
            What::Open => Outcome::Open,
            What::Update { .. } => Outcome::Updated,
            What::ClientHello { hello } => {
                let mut hash = DefaultHasher::new();
                hello.hash(&mut hash);
                Outcome::Said(hash.finish())
            }
            What::End { cause, .. } => Outcome::Ended(*cause),
            What::Vanished => Outcome::Vanished,
            What::Failed { fold: Some(_), .. } => return None,
            What::Failed { cause, .. } => Outcome::Failed(*cause),
        };
        Some(Self {
            netns: flow.netns,
            source: flow.source.ip(),
            destination: flow.destination.ip(),
            port: Some(flow.destination.port()),
            direction: flow.direction,
            outcome,
        })
    }
}

// === impl Repeats

impl Repeats {
    fn new(event: &FlowEvent) -> Self {
        let mut sum = event.clone();
        sum.flow.id = None;
        sum.flow.community_id = None;
        sum.flow.source.set_port(0);
        match &mut sum.what {
            What::Begin { handshake } => *handshake = None,
            What::Update { duration, traffic } | What::End { duration, traffic, .. } => {
                *duration = None;
                traffic.rtt = None;
            }
            What::Open | What::ClientHello { .. } | What::Vanished | What::Failed { .. } => {}
        }
        Self { first: event.clone(), sum, count: 1, last: event.at.time, ports: HashSet::default() }
    }

    fn add(&mut self, event: &FlowEvent) {
        self.count += 1;
        self.last = self.last.max(event.at.time);
        let (first, port) = (self.first.flow.destination.port(), event.flow.destination.port());
        if (port != first || !self.ports.is_empty()) && self.ports.len() < PORTS {
            self.ports.extend([first, port]);
        }
        let flow = &mut self.sum.flow;
        flow.local &= event.flow.local;
        if flow.interface != event.flow.interface {
            flow.interface = 0;
        }
        let process = |owner: &crate::flow::Owner| (owner.pid, owner.uid, owner.role, owner.source, owner.begin);
        if flow.owner.as_ref().map(process) != event.flow.owner.as_ref().map(process) {
            flow.owner = None;
        }
        match (&mut self.sum.what, &event.what) {
            (What::Update { traffic: sum, .. }, What::Update { traffic, .. })
            | (What::End { traffic: sum, .. }, What::End { traffic, .. }) => {
                sum.delta = match (sum.delta, traffic.delta) {
                    (Some(sum), Some(delta)) => Some(sum.saturating_add(&delta)),
                    (sum, delta) => sum.or(delta),
                };
                sum.counted &= traffic.counted;
                sum.source_bytes = sum.source_bytes.saturating_add(traffic.source_bytes);
                sum.destination_bytes = sum.destination_bytes.saturating_add(traffic.destination_bytes);
                sum.source_segments = sum.source_segments.saturating_add(traffic.source_segments);
                sum.destination_segments = sum.destination_segments.saturating_add(traffic.destination_segments);
                sum.retransmits = sum.retransmits.saturating_add(traffic.retransmits);
            }
            (What::Failed { attempts: sum, .. }, What::Failed { attempts, .. }) => *sum = sum.saturating_add(*attempts),
            _ => {}
        }
    }

    fn tell(self, out: &mut impl FnMut(FlowEvent, Option<Fold>)) {
        let Self { first, mut sum, count, last, ports } = self;
        if count == 1 {
            return out(first, None);
        }
        let duration = Duration::from_nanos(last.since(sum.at.time));
        let destination_ports = u32::try_from(ports.len()).unwrap_or(u32::MAX).max(1);
        if destination_ports > 1 {
            sum.flow.destination.set_port(0);
        }
        let all = Fold { count, duration, destination_ports };
        if let What::Failed { fold, .. } = &mut sum.what {
            *fold = Some(all);
            return out(sum, None);
        }
        out(sum, Some(all));
    }
}

#[cfg(test)]
mod tests;
