//! Refused attempts from outside. One is one record; many from one source within a second are one story, told as one:
//! a port scan must not become a flood.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hashbrown::{HashMap, HashSet};

use super::{BootId, Cause, CommunityId, Direction, Evidence, FailReason, Flow, FlowEvent, FlowId, Fold, Stamp, What};
use crate::capture::{KernelTime, NetnsId};

/// How long refusals of one source are gathered.
const GATHER: Duration = Duration::from_secs(1);
/// So many of a source are told one by one.
const SINGLE: usize = 3;
/// The most sources that are gathered at once; more are told one by one.
const SOURCES: usize = 4096;
/// The most ports of a source that are told apart.
const PORTS: usize = 4096;

/// A refused attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    pub at: Stamp,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub netns: NetnsId,
    /// It was the kernel that refused, and no process whose raw socket looked like it.
    pub proven: bool,
}

#[derive(Debug)]
struct Story {
    first: Vec<Refusal>,
    count: u64,
    last: KernelTime,
    /// All of them.
    proven: bool,
    ports: HashSet<u16, foldhash::fast::RandomState>,
}

/// Refusals that are gathered.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    stories: HashMap<(NetnsId, IpAddr, IpAddr), Story, foldhash::fast::RandomState>,
}

impl Refusals {
    /// Takes one. Returns it where it can't be gathered: it is told at once.
    pub fn add(&mut self, refusal: Refusal) -> Option<Refusal> {
        let key = (refusal.netns, refusal.source.ip(), refusal.destination.ip());
        if self.stories.len() >= SOURCES && !self.stories.contains_key(&key) {
            return Some(refusal);
        }
        let story = self.stories.entry(key).or_insert_with(|| Story {
            first: Vec::new(),
            count: 0,
            last: refusal.at.time,
            proven: true,
            ports: HashSet::default(),
        });
        story.proven &= refusal.proven;
        if story.first.len() < SINGLE {
            story.first.push(refusal);
        }
        story.count += 1;
        story.last = story.last.max(refusal.at.time);
        if story.ports.len() < PORTS {
            story.ports.insert(refusal.destination.port());
        }
        None
    }

    /// Whether nothing is gathered.
    pub fn is_empty(&self) -> bool {
        self.stories.is_empty()
    }

    /// Forgets one: it was flowtel's own attempt.
    pub fn forget(&mut self, source: SocketAddr, destination: SocketAddr) {
        let ends = (source.ip(), destination.ip());
        for (_, story) in self.stories.iter_mut().filter(|((_, from, to), _)| (*from, *to) == ends) {
            let before = story.first.len();
            story.first.retain(|r| (r.source, r.destination) != (source, destination));
            story.count = story.count.saturating_sub((before - story.first.len()) as u64);
        }
    }

    /// Tells what was gathered long enough at `now`, or everything where it is `None`. `out` gets each record's event.
    pub fn tell(&mut self, boot: &BootId, now: Option<KernelTime>, mut out: impl FnMut(FlowEvent)) {
        if self.stories.is_empty() {
            return;
        }
        self.stories.retain(|_, story| {
            let Some(first) = story.first.first().copied() else { return false };
            if now.is_some_and(|now| u128::from(now.since(first.at.time)) < GATHER.as_nanos()) {
                return true;
            }
            if story.count <= SINGLE as u64 {
                story.first.iter().for_each(|refusal| out(single(boot, refusal)));
            } else {
                out(folded(&first, story));
            }
            false
        });
    }
}

/// One refused attempt.
pub(super) fn single(boot: &BootId, refusal: &Refusal) -> FlowEvent {
    let Refusal { at, source, destination, netns, proven } = *refusal;
    FlowEvent {
        at,
        flow: Flow {
            netns,
            // There is no socket, hence no cookie: the time tells attempts apart.
            id: Some(FlowId::new(boot, at.time.0, destination, source)),
            community_id: Some(CommunityId::tcp(source, destination)),
            ..flow(source, destination)
        },
        what: What::Failed { cause: cause(proven), attempts: 1, fold: None },
    }
}

/// How it is known is left out where a process may have made it up.
fn cause(proven: bool) -> Cause<FailReason> {
    if proven { FailReason::Refused.by(Evidence::Segment) } else { FailReason::Refused.unknown() }
}

fn folded(first: &Refusal, story: &Story) -> FlowEvent {
    let mut source = first.source;
    source.set_port(0);
    let mut destination = first.destination;
    let ports = story.ports.len();
    if ports > 1 {
        destination.set_port(0);
    }
    let fold = Fold {
        count: story.count,
        duration: Duration::from_nanos(story.last.since(first.at.time)),
        destination_ports: u32::try_from(ports).unwrap_or(u32::MAX),
    };
    let attempts = u32::try_from(story.count).unwrap_or(u32::MAX);
    FlowEvent {
        at: first.at,
        flow: Flow { netns: first.netns, ..flow(source, destination) },
        what: What::Failed { cause: cause(story.proven), attempts, fold: Some(fold) },
    }
}

fn flow(source: SocketAddr, destination: SocketAddr) -> Flow {
    Flow {
        id: None,
        community_id: None,
        source,
        destination,
        direction: Some(Direction::Incoming),
        local: source.ip().is_loopback() || source.ip() == destination.ip(),
        netns: NetnsId::UNKNOWN,
        interface: 0,
        owner: None,
        tunnel: None,
    }
}
