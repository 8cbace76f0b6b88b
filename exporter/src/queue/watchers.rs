//! Those who want to see each batch that comes in, beside whoever delivers it: lines on standard output, `flowtel tail`.
//!
//! A batch is shown as it comes, whether or not the receiver takes it. Nothing waits for a watcher: who falls behind misses
//! batches, and is told how many records were in them. While nobody watches this costs a look at a number for each batch.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::broadcast::{self, error::RecvError};

use crate::record::Batch;

/// The most batches that a watcher may be behind.
const BEHIND: usize = 64;

/// All who watch a queue.
#[derive(Debug)]
pub(super) struct Watchers {
    sender: broadcast::Sender<Shown>,
    /// Records that were shown so far.
    shown: AtomicU64,
}

/// A batch, and how many records were shown before it.
#[derive(Debug, Clone)]
struct Shown {
    before: u64,
    batch: Batch,
}

/// One who watches.
#[derive(Debug)]
pub struct Watcher {
    receiver: broadcast::Receiver<Shown>,
    /// Records that came before the next batch, where none is missed. `None` before the first.
    next: Option<u64>,
}

/// What a watcher sees.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Records that were missed before it.
    pub missed: u64,
    /// The batch.
    pub batch: Batch,
}

// === impl Watchers

impl Default for Watchers {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BEHIND), shown: AtomicU64::new(0) }
    }
}

impl Watchers {
    /// Shows a batch. The capture thread alone does.
    pub(super) fn show(&self, batch: &Batch) {
        if !self.are_there() {
            return;
        }
        let before = self.shown.fetch_add(batch.records.into(), Relaxed);
        // Fails only where the last watcher has just gone.
        let _ = self.sender.send(Shown { before, batch: batch.clone() });
    }

    pub(super) fn are_there(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    pub(super) fn watch(&self) -> Watcher {
        Watcher { receiver: self.sender.subscribe(), next: None }
    }
}

// === impl Watcher

impl Watcher {
    /// The next batch; `None` once the queue is gone.
    pub async fn next(&mut self) -> Option<Seen> {
        loop {
            match self.receiver.recv().await {
                Ok(shown) => return Some(self.seen(shown)),
                // The next one says how many records that were.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// The next batch, where there is one already.
    pub fn try_next(&mut self) -> Option<Seen> {
        loop {
            match self.receiver.try_recv() {
                Ok(shown) => return Some(self.seen(shown)),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => return None,
            }
        }
    }

    fn seen(&mut self, Shown { before, batch }: Shown) -> Seen {
        let missed = before.saturating_sub(self.next.unwrap_or(before));
        self.next = Some(before + u64::from(batch.records));
        Seen { missed, batch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(records: u32) -> Batch {
        Batch { bytes: bytes::Bytes::from_static(b"a"), records, first: 1, last: 2 }
    }

    #[tokio::test]
    async fn a_watcher_that_falls_behind_knows_how_many_records_it_missed() {
        let watchers = Watchers::default();
        watchers.show(&batch(100));
        let mut watcher = watchers.watch();
        (0..3).for_each(|_| watchers.show(&batch(2)));
        assert_eq!(watcher.next().await.map(|seen| (seen.missed, seen.batch.records)), Some((0, 2)));
        (0..BEHIND + 10).for_each(|_| watchers.show(&batch(5)));
        // Two of the first three were not read either.
        assert_eq!(watcher.next().await.map(|seen| seen.missed), Some(2 * 2 + 10 * 5));
        let rest: Vec<_> = std::iter::from_fn(|| watcher.try_next()).map(|seen| seen.missed).collect();
        assert_eq!(rest, [0; BEHIND - 1]);
        drop(watchers);
        assert!(watcher.next().await.is_none());
    }
}
