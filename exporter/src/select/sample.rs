//! The part of flows that is recorded, by the flow's id: that is a keyed hash already, the same on begin and end and after
//! a restart, and nobody outside of this host can aim at it.

use crate::flow::{FlowEvent, What};

/// Which flows are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Ids whose first 64 bits are less than this are; `None`: all.
    below: Option<u64>,
}

// === impl Sample

impl Sample {
    /// The part `ratio` of all, from 0 to 1. What a smaller ratio keeps, a larger one keeps too.
    pub fn new(ratio: f64) -> Self {
        /// 2⁶⁴.
        const ALL: f64 = 18_446_744_073_709_551_616.0;
        // A cast of a float stays within the limits of the type.
        Self { below: (ratio < 1.0).then_some((ratio * ALL) as u64) }
    }

    /// Whether a record is made of this. Attempts that failed are rare and matter: all are kept, also those that stand for
    /// many.
    pub fn keeps(self, event: &FlowEvent) -> bool {
        match (self.below, event.flow.id, &event.what) {
            (None, ..) | (_, None, _) | (_, _, What::Failed { .. }) => true,
            (
                Some(below),
                Some(id),
                What::Begin { .. }
                | What::Open
                | What::Update { .. }
                | What::ClientHello { .. }
                | What::End { .. }
                | What::Vanished,
            ) => ((id.0 >> 64) as u64) < below,
        }
    }
}
