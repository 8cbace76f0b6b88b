//! What an earlier run left, read a bounded part at a time beside everything else that the queue's thread does.
//!
//! Must never keep the thread from hearing that the queue ends, or have more batches in memory than are needed next.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{super::books::Books, Worker};
use crate::queue::disk::recover::Recovery;

/// Steps a round.
const STEPS: u32 = 64;
/// How long what this run pushed waits for what is older.
const LEAD: Duration = Duration::from_secs(2);

/// How far it has come.
#[derive(Debug)]
pub(super) enum Reading {
    /// The directory was opened, and not looked into.
    Due,
    /// It is being read.
    On(Box<On>),
    /// There is nothing more.
    Done,
}

#[derive(Debug)]
pub(super) struct On {
    recovery: Recovery,
    /// Which directory's batches they are.
    run: u32,
    since: Instant,
    /// Of batches that were taken over.
    records: u64,
    /// Batches that were lost, and their records as far as they are known.
    lost: (u64, u64),
}

// === impl Reading

impl Reading {
    /// Whether the directory is still to be looked into.
    pub(super) fn is_unopened(&self) -> bool {
        matches!(self, Self::Due)
    }

    /// Whether there is more to be read now.
    pub(super) fn goes_on(&self, books: &Books) -> bool {
        matches!(self, Self::On(_)) && !books.has_enough()
    }
}

// === impl Worker

impl Worker {
    /// Looks into the directory, if that is still to be done.
    pub(in super::super) fn look_in(&mut self, now: Instant) -> io::Result<()> {
        if let (Reading::Due, Some(store)) = (&self.reading, &mut self.store) {
            let listing = store.list()?;
            let known = self.shared.books().known();
            let recovery = Recovery::new(listing, store.directory(), store.files(), |first| known.contains(&first));
            let run = self.shared.books().next_run();
            self.reading = Reading::On(Box::new(On { recovery, run, since: now, records: 0, lost: (0, 0) }));
        }
        Ok(())
    }

    /// Reads on in what an earlier run left. Returns whether there is more to be read now.
    pub(in super::super) fn read_on(&mut self, now: Instant) -> bool {
        let (Reading::On(on), Some(store)) = (&mut self.reading, &self.store) else { return false };
        for _ in 0..STEPS {
            // What is not read yet when the queue ends is there for the next run.
            if self.shared.books().finishing {
                break;
            }
            if self.shared.books().has_enough() {
                self.shared.recovered();
                break;
            }
            let Some(found) = on.recovery.step(store.directory(), store.files()) else {
                on.tell(self.shared.books().waiting().batches);
                self.reading = Reading::Done;
                self.shared.recovered();
                break;
            };
            on.lost.0 += found.lost_batches;
            on.lost.1 += found.lost_records;
            on.records += self.shared.adopt(on.run, found);
        }
        if let Reading::On(on) = &self.reading
            && now.saturating_duration_since(on.since) >= LEAD
        {
            self.shared.recovered();
        }
        self.reading.goes_on(&self.shared.books())
    }
}

// === impl On

impl On {
    fn tell(&self, batches: usize) {
        let (bad, (lost, lost_records)) = (self.recovery.bad(), self.lost);
        if lost > 0 {
            tracing::warn!(
                batches = lost,
                records = lost_records,
                files = bad,
                "batches of the queue are damaged or torn: they are lost, and counted as corrupt where their records are known"
            );
        } else if bad > 0 {
            tracing::warn!(
                files = bad,
                "files of the queue are damaged or can't be read; no batch is known to be lost"
            );
        }
        if self.records > 0 {
            tracing::info!(self.records, batches, "the queue goes on with what an earlier run left");
        }
    }
}
