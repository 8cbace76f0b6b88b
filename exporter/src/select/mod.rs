//! What of the flow stage's events becomes a record: events by name, then rules, then a sample. Stands between enrich and
//! record.
//!
//! - [`Select`]: the stage; it counts what it leaves out;
//! - [`Filter`]: rules made ready to match; a plain value, which can be replaced while flowtel runs;
//! - [`Sample`]: the part of flows that is recorded;
//! - `decided`: what was decided when a flow began.
//!
//! **Begin and end share a fate.** Addresses, ports, direction and the flow's id are the same on both, so rules about those,
//! and the sample, decide alike. What a process is called may change in between (accept() comes late, exec, an end without
//! a look-up): so where a rule that asks for the owner decided a begin, the decision is remembered until the end. It is
//! forgotten when more flows are open than `flow.max_flows`; then, and where flowtel did not see the begin, the end is
//! decided by what it says itself.
//!
//! Must never look anything up by itself, nor lose an event uncounted.

mod decided;
mod filter;
mod sample;

use std::sync::Arc;

use self::decided::Decided;
pub use self::{
    filter::{Ends, Filter, Who},
    sample::Sample,
};
use crate::{
    config::{self, Events},
    enrich::Enriched,
    flow::{FlowEvent, What},
    ledger::Ledger,
};

/// The stage.
#[derive(Debug)]
pub struct Select {
    events: Events,
    filter: Filter,
    sample: Sample,
    decided: Decided,
    ledger: Arc<Ledger>,
}

/// What is to be done with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// It becomes a record.
    Record,
    /// It does not: it was counted, under its reason.
    LeaveOut,
    /// A rule asks for the process behind it: [`Select::decide`], once that is known.
    AskOwner,
}

// === impl Select

impl Select {
    /// A fresh stage.
    pub fn new(config: &config::Config, ledger: Arc<Ledger>) -> Self {
        Self {
            events: config.capture.events,
            filter: Filter::new(&config.capture.filter, config.capture.filter_default),
            sample: Sample::new(config.capture.sample),
            decided: Decided::new(config.flow.max_flows as usize),
            ledger,
        }
    }

    /// From now on other rules hold. Open flows that were decided by their owner keep their fate; the end of any other is
    /// decided by the new rules, so that around the change a begin may have no end, or an end no begin.
    pub fn replace_filter(&mut self, filter: Filter) {
        self.filter = filter;
    }

    /// Looks at an event, by what it says itself.
    #[inline]
    pub fn look(&mut self, event: &FlowEvent) -> Look {
        self.ledger.events.told.bump();
        if !self.events.has(name(&event.what)) {
            self.ledger.events.unselected.add(1);
            return Look::LeaveOut;
        }
        self.ledger.records.made.bump();
        if let Some(kept) = self.remembered(event) {
            return self.fate(event, kept);
        }
        if self.filter.is_empty() {
            return self.sampled(event);
        }
        match self.filter.early(event) {
            Some(kept) => self.fate(event, kept),
            None => Look::AskOwner,
        }
    }

    /// Decides on an event that is enriched now. Returns whether it becomes a record.
    pub fn decide(&mut self, enriched: &Enriched<'_>) -> bool {
        let event = enriched.event;
        let kept = self.filter.late(enriched);
        let begins = Events::BEGINS.and(Events::OPEN).has(name(&event.what));
        let follows = begins && self.events.has_any(Events::ENDS.and(Events::UPDATES).and(Events::HELLOS));
        if let Some(id) = event.flow.id.filter(|_| follows) {
            self.decided.insert(id, kept);
        }
        self.fate(event, kept) == Look::Record
    }

    /// Whether the records of an open flow are recorded, as far as rules and the sample go. Nothing is counted: it is for people
    /// who ask what is open.
    pub fn shows(&self, enriched: &Enriched<'_>) -> bool {
        let decided = enriched.event.flow.id.and_then(|id| self.decided.get(id));
        decided.unwrap_or_else(|| self.filter.late(enriched)) && self.sample.keeps(enriched.event)
    }

    /// What was decided when the flow began that this event ends, or tells more of.
    #[inline]
    fn remembered(&mut self, event: &FlowEvent) -> Option<bool> {
        if self.decided.is_empty() {
            return None;
        }
        match name(&event.what) {
            Events::ENDS => self.decided.take(event.flow.id?),
            Events::UPDATES | Events::HELLOS => self.decided.get(event.flow.id?),
            _ => None,
        }
    }

    fn fate(&self, event: &FlowEvent, kept: bool) -> Look {
        if kept {
            return self.sampled(event);
        }
        self.ledger.records.filtered.add(1);
        Look::LeaveOut
    }

    #[inline]
    fn sampled(&self, event: &FlowEvent) -> Look {
        if self.sample.keeps(event) {
            return Look::Record;
        }
        self.ledger.records.sampled.add(1);
        Look::LeaveOut
    }
}

/// The event's place in the set of all.
fn name(what: &What) -> Events {
    match what {
        What::Begin { .. } => Events::BEGINS,
        What::Open => Events::OPEN,
        What::Update { .. } => Events::UPDATES,
        What::ClientHello { .. } => Events::HELLOS,
        What::End { .. } | What::Vanished => Events::ENDS,
        What::Failed { .. } => Events::FAILED,
    }
}

#[cfg(test)]
mod tests;
