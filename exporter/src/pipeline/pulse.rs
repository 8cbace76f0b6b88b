//! The capture thread's signs of life: it writes them once a round, relaxed; whoever watches reads them.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
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
    /// Somebody wants the kernel's counts as they are now.
    asked: AtomicBool,
}

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

    /// Whether somebody asked since it was called last. Called once a round.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.load(Relaxed) && self.asked.swap(false, Relaxed)
    }

    /// Asks for the kernel's counts, which are else copied into the ledger about once a second, and waits until they are
    /// there, no longer than `limit`.
    pub async fn counts(&self, limit: Duration) {
        let before = self.rounds();
        self.asked.store(true, Relaxed);
        let copied = async {
            // The first round to end may have been past the copying when it was asked for.
            while self.rounds().wrapping_sub(before) < 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // Without them the counts are a second old.
        let _ = tokio::time::timeout(limit, copied).await;
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
