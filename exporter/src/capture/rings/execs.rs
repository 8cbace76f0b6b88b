//! The ring of what processes run: read with the others, handed out before them.

use aya::maps::{MapData, PerCpuArray};
use flowtel_common::exec::{Told, Words};

use super::{Records, Source};
use crate::{
    capture::{Error, KernelTime, Programs, position::Shared},
    ledger::KernelEvents,
};

/// Two CPUs that lose something at once may note their times in either order.
const SLACK: u64 = 1_000_000;

/// The ring, and what of it was read and not handed out.
pub(super) struct Execs {
    pub source: Source,
    pub read: Records,
    shared: Shared,
    tallies: PerCpuArray<MapData, Words>,
}

/// How far what was told of processes goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// All that happened up to here was read,
    pub until: KernelTime,
    /// but for what the ring had no room for, up to here.
    pub lost: KernelTime,
    /// Inode number of the host's mount namespace.
    pub host_mounts: Option<u64>,
}

// === impl Execs

impl Execs {
    /// # Errors
    /// The object does not hold it, or there is no memory to map it.
    pub fn take(programs: &mut Programs) -> Result<Self, Error> {
        Ok(Self {
            source: Source::new(programs.take("EXECS")?)?,
            read: Records::default(),
            shared: programs.shared("EXECS_SHARED")?,
            tallies: programs.take("EXEC_TALLIES")?,
        })
    }

    /// Gives `take` all that was read, in the order of time.
    pub fn hand_out(&mut self, ledger: &KernelEvents, mut take: impl FnMut(&Told<'_>)) -> Reach {
        let until = self.source.whole_until();
        self.read.take(KernelTime(u64::MAX), |record| match Told::decode(record) {
            Some(told) => {
                let kind = if matches!(told, Told::Fork(_)) { &ledger.fork } else { &ledger.exec };
                kind.read.bump();
                kind.joined.bump();
                take(&told);
            }
            None => ledger.unknown.add(1),
        });
        // Looked up after what came later was read.
        let lost = match self.shared.first() {
            0 => KernelTime(0),
            lost => KernelTime(lost + SLACK),
        };
        let host_mounts = Some(self.shared.second()).filter(|inode| *inode != 0);
        Reach { until, lost, host_mounts }
    }

    /// Copies the kernel's counts into the ledger.
    pub fn count(&self, ledger: &KernelEvents) {
        let Ok(per_cpu) = self.tallies.get(&0, 0) else { return };
        let sum = |word: usize| per_cpu.iter().filter_map(|cpu| cpu.get(word)).sum::<u64>();
        ledger.exec.seen.set(sum(0));
        ledger.exec.ring_full.set(sum(1));
        ledger.fork.seen.set(sum(2));
        ledger.fork.ring_full.set(sum(3));
    }
}
