//! The queue on disk: its rules against a model, its files damaged byte by byte, and what befalls a directory.
//!
//! The thread's work is done by the tests themselves, round by round, so that each interleaving can be repeated.

use std::{fs, path::Path, sync::Arc};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;

mod damage;
mod directories;
pub(in super::super) mod faults;
mod ground;
mod hostile;
mod model;

use faults::Faults;

/// A queue in a directory, with a disk that can fail.
struct Bench {
    disk: Disk,
    worker: Worker,
    ledger: Arc<Ledger>,
    faults: Arc<Faults>,
    /// Time that went by.
    now: Instant,
}

impl Bench {
    fn open(config: &config::Queue) -> Self {
        let mut bench = Self::unread(config);
        // A directory that can't be read is tried again in a later round.
        let _ = bench.worker.look_in(bench.now);
        while bench.worker.read_on(bench.now) {}
        bench
    }

    /// With what an earlier run left not looked at yet.
    fn unread(config: &config::Queue) -> Self {
        let (ledger, faults) = (Arc::<Ledger>::default(), Arc::<Faults>::default());
        let files = Files { faults: Some(faults.clone()) };
        let (disk, worker) = Disk::prepare(config, ledger.clone(), files, 400).unwrap_or_else(|e| panic!("{e}"));
        Self { disk, worker, ledger, faults, now: Instant::now() }
    }

    fn push(&self, batch: Batch) {
        self.ledger.records.made.add(batch.records.into());
        self.disk.push(batch);
    }

    /// So much later the thread does what is due.
    fn round(&mut self) {
        self.now += Duration::from_secs(60);
        self.worker.round(self.now);
    }

    fn lease(&mut self) -> Option<(Position, Batch)> {
        self.worker.load(self.now);
        self.disk.try_lease()
    }

    /// All that waits, oldest first, which it still does afterwards.
    fn peek(&mut self) -> Vec<Batch> {
        let leases: Vec<_> = std::iter::from_fn(|| self.lease()).collect();
        leases.iter().for_each(|(at, _)| self.disk.give_back(*at));
        leases.into_iter().map(|(_, batch)| batch).collect()
    }

    /// The power fails. `None` was synced beyond what fsync was called for.
    fn crash(self, chance: impl FnMut(u64) -> u64) {
        let Self { disk, worker, faults, .. } = self;
        drop((disk, worker));
        faults.crash(chance);
    }

    /// An orderly end.
    fn stop(mut self) -> Left {
        self.disk.shared.books().finishing = true;
        self.worker.round(self.now);
        let left = self.disk.abandon();
        assert_eq!(self.ledger.records.waiting(), 0, "{}", self.ledger);
        left
    }
}

fn directory() -> TempDir {
    // In memory where that is possible: what is tested is the order of calls, not the disk.
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory can be made")
}

fn config(path: &Path) -> config::Queue {
    config::Queue {
        kind: config::QueueKind::Disk,
        path: path.join("queue"),
        max_bytes: config::Bytes(1 << 20),
        max_memory: config::Bytes(1 << 20),
        ..config::Queue::default()
    }
}

/// A batch whose bytes tell it from all others.
fn batch(name: u64, records: u32, size: usize) -> Batch {
    let mut bytes = vec![0; size.max(8)];
    bytes[..8].copy_from_slice(&name.to_le_bytes());
    Batch { bytes: Bytes::from(bytes), records, first: name, last: name + 1 }
}

fn names(batches: &[Batch]) -> Vec<u64> {
    batches.iter().map(|batch| batch.first).collect()
}
