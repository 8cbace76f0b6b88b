//! A census: flows of one network namespace come in, those that its whole list of sockets lacks twice go out, each with what a
//! look at its addresses says. It takes a little at a time, and never asks anything else of a namespace while it reads its
//! list.

use std::collections::HashSet;

use super::{Asked, Look, Part, Sockets, Table};
use crate::capture::KernelTime;

/// The most parts of a list that are read in a round, some 250 sockets each; and the most looks.
const PARTS: usize = 4;
const LOOKS: usize = 200;

/// A census that runs.
#[derive(Debug)]
pub(super) struct Census {
    pub namespace: usize,
    /// Flows that began later are no matter of it.
    pub began_before: KernelTime,
    /// What was looked up at the end.
    pub looked: Vec<(u64, Look)>,
    /// Flows that no list has shown.
    missing: HashSet<u64>,
    /// What the list shows of flows whose namespace nobody tells.
    seen: Option<HashSet<u64>>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The list of one family is to be asked for, in the first pass or the second.
    Ask { second: bool, six: bool },
    /// It comes.
    List { second: bool, six: bool },
    /// What is missing is looked up.
    Look(Vec<u64>),
}

/// How a census stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Running,
    Done,
    Broken,
}

// === impl Census

impl Census {
    /// Of flows that are to be in the namespace. `unknown`: what else is there may be a flow, too.
    pub fn new(namespace: usize, began_before: KernelTime, missing: HashSet<u64>, unknown: bool) -> Self {
        let (looked, seen) = (Vec::new(), unknown.then(HashSet::new));
        Self { namespace, began_before, looked, missing, seen, stage: Stage::Ask { second: false, six: false } }
    }

    /// What was seen of flows whose namespace nobody tells.
    pub fn into_seen(self) -> HashSet<u64> {
        self.seen.unwrap_or_default()
    }

    /// Does a little.
    pub fn step(&mut self, sockets: &mut impl Sockets, table: &impl Table, now: KernelTime) -> State {
        match &mut self.stage {
            &mut Stage::Ask { second, six } => {
                if !sockets.begin(self.namespace, six) {
                    return State::Broken;
                }
                self.stage = Stage::List { second, six };
                State::Running
            }
            &mut Stage::List { second, six } => {
                for _ in 0..PARTS {
                    let Self { missing, seen, .. } = self;
                    let part = sockets.next(self.namespace, &mut |cookie| {
                        missing.remove(&cookie);
                        if let Some(seen) = seen
                            && seen.len() < super::MOST_SEEN
                            && table.flow(cookie).is_some_and(|flow| flow.netns == 0)
                        {
                            seen.insert(cookie);
                        }
                    });
                    match part {
                        Part::More => {}
                        Part::Broken => return State::Broken,
                        Part::Last => {
                            self.stage = match (second, six) {
                                (_, false) => Stage::Ask { second, six: true },
                                (false, true) if !self.missing.is_empty() => Stage::Ask { second: true, six: false },
                                (_, true) => Stage::Look(self.missing.drain().collect()),
                            };
                            break;
                        }
                    }
                }
                State::Running
            }
            Stage::Look(missing) => {
                let from = missing.len().saturating_sub(LOOKS);
                for cookie in missing.drain(from..) {
                    // Its end came meanwhile; or its socket has another flow by now.
                    let Some(flow) = table.flow(cookie).filter(|flow| flow.began < self.began_before) else { continue };
                    debug_assert!(flow.began <= now);
                    self.looked.push((cookie, sockets.look(self.namespace, &flow)));
                }
                if missing.is_empty() { State::Done } else { State::Running }
            }
        }
    }
}

impl Asked {
    #[cfg(test)]
    pub(super) fn sample(cookie: u64, netns: u64, began: KernelTime) -> Self {
        let [local, remote] = [1, 2].map(|last| std::net::SocketAddr::from(([192, 0, 2, last], 80)));
        Self { cookie, local, remote, netns, began }
    }
}
