//! The capture thread's signs of life: it writes them once a round, relaxed; whoever watches reads them.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::capture::KernelTime;

/// What the capture thread shows of itself.
#[derive(Debug, Default)]
pub struct Pulse {
    rounds: AtomicU64,
    /// Kernel time of the last round's end.
    last: AtomicU64,
    tables: Tables<AtomicU64>,
    /// How many want the kernel's counts as they are now.
    watchers: AtomicU64,
}

/// While it lives, the kernel's counts are copied at the end of each round.
#[derive(Debug)]
#[must_use = "the counts grow old when it is dropped"]
pub struct Watcher<'a>(&'a Pulse);

/// How much the tables of the capture thread hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tables<N = u64> {
    /// Flows that have begun and not ended.
    pub flows: N,
    /// Connection attempts that are not established yet.
    pub attempts: N,
    /// Addresses with names.
    pub addresses: N,
    /// Bytes of names.
    pub names_bytes: N,
}

// === impl Pulse

impl Pulse {
    /// Called at the end of each round.
    pub(super) fn beat(&self, tables: Tables) {
        let Tables { flows, attempts, addresses, names_bytes } = &self.tables;
        flows.store(tables.flows, Relaxed);
        attempts.store(tables.attempts, Relaxed);
        addresses.store(tables.addresses, Relaxed);
        names_bytes.store(tables.names_bytes, Relaxed);
        self.rounds.fetch_add(1, Relaxed);
        self.last.store(KernelTime::now().0, Relaxed);
    }

    /// Whether somebody wants the kernel's counts. Asked once a round.
    pub(super) fn is_watched(&self) -> bool {
        self.watchers.load(Relaxed) > 0
    }

    /// Has the kernel's counts, which are else copied into the ledger about once a second, copied at the end of each
    /// round, and waits until they are there, no longer than `limit`. What is read while the watcher lives belongs
    /// together, as of the end of a round.
    pub async fn watch(&self, limit: Duration) -> Watcher<'_> {
        self.watchers.fetch_add(1, Relaxed);
        let watcher = Watcher(self);
        let before = self.rounds();
        let copied = async {
            // The first round to end may have been past the copying when it was asked for.
            while self.rounds().wrapping_sub(before) < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // Without them the counts are a second old.
        let _ = tokio::time::timeout(limit, copied).await;
        watcher
    }

    /// Rounds since the start.
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Relaxed)
    }

    /// How long ago the last round ended; `None` before the first.
    pub fn silence(&self) -> Option<Duration> {
        let last = self.last.load(Relaxed);
        (last > 0).then(|| Duration::from_nanos(KernelTime::now().since(KernelTime(last))))
    }

    /// What the tables held at the end of the last round.
    pub fn tables(&self) -> Tables {
        let Tables { flows, attempts, addresses, names_bytes } = &self.tables;
        Tables {
            flows: flows.load(Relaxed),
            attempts: attempts.load(Relaxed),
            addresses: addresses.load(Relaxed),
            names_bytes: names_bytes.load(Relaxed),
        }
    }
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Relaxed);
    }
}
