//! Between flow and record: where more comes than there is room for, repeats are folded into a count, before anything has
//! to be lost. [`FlowEvent`]s come in; those that are not folded are told as they are, and later one for many.
//!
//! - [`Pressure`]: whether there is more than there is room for;
//! - [`Budgets`]: whether one cgroup makes more than its share, before that is so;
//! - [`Folds`]: what is folded meanwhile, of all or of that cgroup.
//!
//! The order in which flows degrade, while the pressure lasts:
//!
//! 1. Repeats of the same source address, destination address and destination port, of the same event, direction and
//!    outcome: the first is told, what follows is counted and told as one each [`WINDOW`].
//! 2. What was not seen since the pressure began is always told in full, and so goes last: when the queue is full, which
//!    drops batches whatever is in them and tells it by a gap record.
//!
//! Updates of open flows (`flow.update`), and what clients say over TLS (`capture.tls`), are folded among themselves, by a budget of
//! their own: they never cost a begin or an end its record. Hellos are alike that say the same. Deltas of updates are added up, so that bytes over time stay what they are.
//!
//! Of a cgroup that is over its budget repeats are folded in the same way, and failures at one address whatever the port, while
//! all others are told in full. Without pressure it costs two comparisons an event. It must never lose an event: each is told, alone or in a count.

mod budgets;
mod folds;
mod pressure;

use std::sync::Arc;

pub use budgets::{Budget, Budgets};
pub use folds::{Folds, MOST, WINDOW};
pub use pressure::Pressure;

use crate::{
    capture::KernelTime,
    flow::{FlowEvent, Fold, What},
    ledger::Ledger,
    queue::Queue,
};

/// How long a cgroup counts as over its budget after it last was, nanoseconds: as long as what is folded waits.
const LASTING: u64 = WINDOW.as_nanos() as u64;

/// The stage.
#[derive(Debug)]
pub struct Overload {
    pressure: Pressure,
    budgets: Budgets,
    folds: Folds,
    /// Updates of open flows, and ClientHellos, have budgets and kinds of their own: however many there are, they fold no begin and
    /// no end.
    updates: (Budgets, Folds),
    ledger: Arc<Ledger>,
    folded_before: u64,
}

impl Overload {
    /// A stage without pressure.
    pub fn new(budget: Budget, ledger: Arc<Ledger>) -> Self {
        Self {
            pressure: Pressure::default(),
            budgets: Budgets::new(budget),
            folds: Folds::default(),
            updates: (Budgets::new(budget), Folds::default()),
            ledger,
            folded_before: 0,
        }
    }

    /// Another budget for each cgroup, from now on.
    pub fn limit(&mut self, budget: Budget) {
        self.budgets = Budgets::new(budget);
        self.updates.0 = Budgets::new(budget);
    }

    /// Looks whether there is pressure. To be called at each reading of the rings.
    pub fn look(&mut self, now: KernelTime, queue: &Queue) {
        let was = self.pressure.is_on();
        // A queue of few large batches may drop one and be half empty a moment later.
        let lost = self.ledger.flows_ring_full() + self.ledger.records.queue_full.get();
        let is = self.pressure.look(now, queue.waiting().bytes, queue.max_bytes(), lost);
        self.budgets.look(now, LASTING);
        self.updates.0.look(now, LASTING);
        let folded = self.ledger.records.folded.get();
        if is && !was {
            self.folded_before = folded;
            tracing::warn!("more comes than there is room for: repeats are folded into counts");
        } else if was && !is {
            tracing::info!(folded = folded - self.folded_before, "there is room again: every flow has its own record");
        }
    }

    /// Whether there is neither pressure nor anything that is folded.
    pub fn is_quiet(&self) -> bool {
        let (budgets, folds) = &self.updates;
        let folded = !self.folds.is_empty() || !folds.is_empty();
        !folded && !self.pressure.is_on() && !self.budgets.is_on() && !budgets.is_on()
    }

    /// Takes an event. Returns whether it is told by a count, now or later: the caller tells it otherwise.
    pub fn folds(&mut self, event: &FlowEvent) -> bool {
        let cgroup = event.flow.owner.as_ref().map(|owner| owner.cgroup);
        let (budgets, folds) = match event.what {
            What::Update { .. } | What::ClientHello { .. } => (&mut self.updates.0, &mut self.updates.1),
            _ => (&mut self.budgets, &mut self.folds),
        };
        let is_over = cgroup.is_some_and(|cgroup| budgets.is_over(cgroup, event.at.time));
        (is_over || self.pressure.is_on()) && folds.take(event, is_over, &self.ledger.records)
    }

    /// Gives out what is due at `now`: all of it where the pressure is over, or `last`.
    pub fn tell(&mut self, now: KernelTime, last: bool, mut out: impl FnMut(FlowEvent, Option<Fold>)) {
        let (budgets, folds) = &mut self.updates;
        for (budgets, folds) in [(&self.budgets, &mut self.folds), (budgets, folds)] {
            if !folds.is_empty() {
                let all = last || !self.pressure.is_on() && !budgets.is_on();
                folds.tell((!all).then_some(now), &mut out);
            }
        }
    }
}

#[cfg(test)]
mod tests;
