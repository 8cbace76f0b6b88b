//! Frames in; flows, sums and groups out, as a screen shows them.
//!
//! The history of flows is kept here, in the process that looks, and only as long as it looks: at most [`MOST_FLOWS`], each with
//! at most [`flow::MOST_PAST`] events. Flows that have ended are forgotten first, the oldest first.
//!
//! Must never ask a clock: what time it is comes in, so a capture is shown in its own time.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::super::{
    choose::Chosen,
    facts::{self, Event, Facts},
};
use crate::{
    config::{Events, rules::Rules},
    telemetry::status::{
        Status,
        frame::{Frame, Hello},
    },
};

pub mod flow;
pub mod groups;
pub mod sums;

use flow::Flow;
use groups::{Group, Groups, Kind};
use sums::Sums;

/// The most flows that are remembered.
pub const MOST_FLOWS: usize = 20_000;
/// The most gaps that are remembered.
const MOST_GAPS: usize = 50;
/// How long a flow that has ended is shown among the open ones: nanoseconds.
const LINGER: u64 = 10 * SECOND;
/// A second, in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;

/// A flow's number here: its id, or one that is given where a record has none.
pub type Number = u128;

/// Everything that is known.
#[derive(Debug)]
pub struct Model {
    flows: HashMap<Number, Flow>,
    /// Flows that have ended, the oldest first.
    over: VecDeque<Number>,
    /// In the order in which they were met: the oldest goes when nothing has ended.
    met: VecDeque<Number>,
    /// Numbers that were given.
    given: u128,
    chosen: Chosen,
    sums: Sums,
    groups: Groups,
    /// What time it is, in nanoseconds since 1970.
    now: u64,
    /// The time of the latest record.
    latest: u64,
    hello: Option<Hello>,
    status: Option<Status>,
    gaps: VecDeque<(u64, String)>,
    gap_count: u64,
    missed: u64,
    forgotten: u64,
}

// === impl Model

impl Model {
    /// An empty one, which shows what is chosen.
    pub fn new(chosen: Chosen) -> Self {
        Self {
            flows: HashMap::new(),
            over: VecDeque::new(),
            met: VecDeque::new(),
            given: 0,
            chosen,
            sums: Sums::default(),
            groups: Groups::default(),
            now: 0,
            latest: 0,
            hello: None,
            status: None,
            gaps: VecDeque::new(),
            gap_count: 0,
            missed: 0,
            forgotten: 0,
        }
    }

    /// What time it is.
    pub fn tick(&mut self, now: u64) {
        self.now = self.now.max(now);
    }

    /// Takes a frame.
    pub fn on(&mut self, frame: Frame) {
        match frame {
            Frame::Hello(hello) => self.hello = Some(*hello),
            Frame::Status(status) => self.status = Some(*status),
            Frame::Records { missed, request, .. } => {
                self.miss(missed);
                self.records(&request, false);
            }
            Frame::Open { older, request } => self.records(&request, older),
            Frame::Dropped { missed } => self.missed += missed,
            Frame::Full | Frame::End => {}
        }
    }

    fn records(&mut self, request: &Bytes, older: bool) {
        let Ok(records) = facts::records(request) else { return };
        for record in records {
            if let Some(facts) = Facts::of_bytes(&record) {
                self.take(facts, older);
            }
        }
    }

    fn take(&mut self, facts: Facts, older: bool) {
        if !older {
            self.latest = self.latest.max(facts.time);
        }
        if facts.event == Event::Gap {
            self.gap_count += 1;
            self.gaps.push_back((facts.time, facts.body.unwrap_or_default()));
            if self.gaps.len() > MOST_GAPS {
                self.gaps.pop_front();
            }
            return;
        }
        let number = facts.flow.unwrap_or_else(|| {
            self.given += 1;
            // Ids are hashes: none has these values.
            u128::MAX - self.given
        });
        if !self.flows.contains_key(&number) {
            self.make_room();
            self.flows.insert(number, Flow::new(&facts, older));
            self.met.push_back(number);
        }
        let Some(flow) = self.flows.get_mut(&number) else { return };
        let was_over = flow.is_over();
        let Some(past) = flow.take(facts) else { return };
        if flow.is_over() && !was_over {
            self.over.push_back(number);
        }
        if self.chosen.keeps(flow.facts()) {
            self.sums.add(&past);
            self.groups.add(flow, &past, flow.past().len() == 1);
        }
    }

    /// Forgets one flow where there are too many.
    fn make_room(&mut self) {
        while self.flows.len() >= MOST_FLOWS {
            let Some(number) = self.over.pop_front().or_else(|| self.met.pop_front()) else { return };
            if let Some(flow) = self.flows.remove(&number) {
                self.forgotten += 1;
                if self.chosen.keeps(flow.facts()) {
                    self.groups.forget(&flow);
                }
            }
        }
        // Those that have ended are in both lists.
        if self.met.len() > 4 * MOST_FLOWS {
            let Self { met, flows, .. } = self;
            met.retain(|number| flows.contains_key(number));
        }
    }

    /// Shows what another rule keeps. All sums are made anew, from the flows that are remembered.
    ///
    /// # Errors
    /// It is no rule; in words.
    pub fn choose(&mut self, text: &str) -> Result<(), String> {
        let text = text.trim();
        let rules = if text.is_empty() {
            Rules::default()
        } else {
            let first = text.split_whitespace().next().unwrap_or_default();
            let whole = matches!(first, "include" | "exclude");
            let text = if whole { text.to_owned() } else { format!("include {text}") };
            serde_json::from_value(serde_json::json!(text)).map_err(|e| e.to_string())?
        };
        self.chosen = Chosen::new(&rules, Events::NETWORK_EVENTS)?;
        self.sums = Sums::default();
        self.groups = Groups::default();
        let Self { flows, chosen, sums, groups, .. } = self;
        for flow in flows.values().filter(|flow| chosen.keeps(flow.facts())) {
            for (at, past) in flow.past().iter().enumerate() {
                sums.add(past);
                groups.add(flow, past, at == 0);
            }
        }
        Ok(())
    }

    /// Flows that are shown: open ones and those that ended a moment ago; with `all` every one.
    pub fn flows(&self, all: bool) -> impl Iterator<Item = (Number, &Flow)> {
        let fresh = move |flow: &Flow| !flow.is_over() || flow.last().saturating_add(LINGER) >= self.now;
        let shown = self.flows.iter().filter(move |(_, flow)| self.chosen.keeps(flow.facts()) && (all || fresh(flow)));
        shown.map(|(number, flow)| (*number, flow))
    }

    /// A flow.
    pub fn flow(&self, number: Number) -> Option<&Flow> {
        self.flows.get(&number)
    }

    /// Groups of flows.
    pub fn groups(&self, kind: Kind) -> impl Iterator<Item = (&str, &Group)> {
        self.groups.of(kind)
    }

    /// The sums of all that is shown.
    pub fn sums(&self) -> &Sums {
        &self.sums
    }

    /// What time it is, in nanoseconds since 1970.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The time of the latest record.
    pub fn latest(&self) -> u64 {
        self.latest
    }

    /// Who speaks.
    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// How the flowtel that is looked at is doing.
    pub fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    /// How many gap records came, and the last of them.
    pub fn gaps(&self) -> (u64, impl DoubleEndedIterator<Item = &(u64, String)>) {
        (self.gap_count, self.gaps.iter())
    }

    /// Records that were not shown here, because this reader was too slow.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// So many more records were not shown.
    pub(super) fn miss(&mut self, records: u64) {
        self.missed = self.missed.saturating_add(records);
    }

    /// Flows that are remembered, and that were forgotten for want of room.
    pub fn held(&self) -> (usize, u64) {
        (self.flows.len(), self.forgotten)
    }

    /// Open flows that are remembered, of all that are shown.
    pub fn open(&self) -> usize {
        self.flows.values().filter(|flow| !flow.is_over() && self.chosen.keeps(flow.facts())).count()
    }
}

#[cfg(test)]
mod tests;
