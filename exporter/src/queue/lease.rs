//! One batch in flight. What its holder learned from the receiver goes in; the queue's books are right whatever happens
//! to the holder.

use super::{Position, Queue};
use crate::record::Batch;

/// The right to deliver one batch. Dropping it unsettled gives the batch back.
#[derive(Debug)]
#[must_use = "a lease that is dropped gives its batch back"]
pub struct Lease {
    queue: Queue,
    at: Position,
    batch: Batch,
    settled: bool,
}

// === impl Lease

impl Lease {
    pub(super) fn new(queue: Queue, at: Position, batch: Batch) -> Self {
        Self { queue, at, batch, settled: false }
    }

    /// The batch to deliver.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// The batch's fate is known: it leaves the queue. Returns how many records the caller now has to count as
    /// delivered, rejected or not written: all of the batch, or 0 when the queue was abandoned meanwhile and has counted
    /// them `undelivered` already.
    #[must_use = "these records are to be counted"]
    pub fn done(mut self) -> u32 {
        self.settled = true;
        self.queue.done(self.at)
    }

    /// The batch has to be tried again: it goes back to its place in the order of age.
    pub fn give_back(self) {
        // Drop does it.
    }

    /// The batch is replaced by its two halves, which take its place in the order of age. The halves hold the records
    /// of the batch in their order, neither of them none.
    pub fn replace(mut self, halves: [Batch; 2]) {
        self.settled = true;
        self.queue.replace(self.at, halves);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.settled {
            self.queue.give_back(self.at);
        }
    }
}
