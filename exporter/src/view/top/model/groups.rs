//! Flows and their events in; the same by process, by destination and by container out.
//!
//! Of each kind at most [`MOST`] groups are kept: where there are more, those without an open flow go, the quietest first.

use std::{collections::HashMap, rc::Rc};

use super::{
    flow::{Flow, Past},
    sums::Sums,
};
use crate::view::facts::Event;

/// The most groups of a kind.
pub const MOST: usize = 2000;

/// By what flows are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// By program.
    Process,
    /// By the name, or address, and port of who was asked.
    Destination,
    /// By container, else pod, else systemd unit.
    Container,
}

/// Some flows.
#[derive(Debug, Default)]
pub struct Group {
    /// Counts of their events.
    pub sums: Sums,
    /// How many are open.
    pub open: u64,
    /// The time of the last event.
    pub last: u64,
}

/// All groups of all kinds.
#[derive(Debug, Default)]
pub struct Groups([HashMap<Rc<str>, Group>; 3]);

// === impl Kind

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Process, Self::Destination, Self::Container];

    /// The group that a flow is in.
    pub fn of(self, flow: &Flow) -> &str {
        match (self, flow.groups()) {
            (Self::Process, [process, ..]) => process,
            (Self::Destination, [_, destination, _]) => destination,
            (Self::Container, [.., container]) => container,
        }
    }
}

// === impl Groups

impl Groups {
    /// Counts an event of a flow. It is open from the `first` that is heard of it until its end.
    pub fn add(&mut self, flow: &Flow, past: &Past, first: bool) {
        for (name, groups) in flow.groups().iter().zip(&mut self.0) {
            if !groups.contains_key(name) && groups.len() >= MOST {
                make_room(groups);
            }
            let group = groups.entry(Rc::clone(name)).or_default();
            group.sums.add(past);
            group.last = group.last.max(past.time);
            match past.event {
                Event::End | Event::Failed if !first => group.open = group.open.saturating_sub(1),
                Event::End | Event::Failed | Event::Gap => {}
                Event::Begin | Event::Open | Event::Update if first => group.open += 1,
                Event::Begin | Event::Open | Event::Update => {}
            }
        }
    }

    /// A flow is not remembered any more.
    pub fn forget(&mut self, flow: &Flow) {
        if flow.is_over() {
            return;
        }
        for (name, groups) in flow.groups().iter().zip(&mut self.0) {
            if let Some(group) = groups.get_mut(name) {
                group.open = group.open.saturating_sub(1);
            }
        }
    }

    /// Those of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = (&str, &Group)> {
        let at = Kind::ALL.iter().position(|one| *one == kind).unwrap_or(0);
        self.0[at].iter().map(|(name, group)| (&**name, group))
    }
}

/// Takes a quarter out.
fn make_room(groups: &mut HashMap<Rc<str>, Group>) {
    let mut order: Vec<_> = groups.iter().map(|(name, group)| (group.open > 0, group.last, Rc::clone(name))).collect();
    order.sort();
    for (_, _, name) in order.into_iter().take(MOST / 4) {
        groups.remove(&name);
    }
}
