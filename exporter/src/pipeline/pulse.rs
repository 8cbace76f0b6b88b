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
