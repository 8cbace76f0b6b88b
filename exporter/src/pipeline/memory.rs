//! Memory that a busy time took and nothing holds any more: it is given back to the system.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::param::page_size;

/// How often it is looked whether there is much: a look that gives back costs some milliseconds.
const EVERY: Duration = Duration::from_secs(30);
/// How much more than after the start is much, in bytes.
const MUCH: u64 = 4 << 20;
/// How much the allocator keeps free at the end of a heap, and from which size on a piece is a mapping of its own, in bytes. What
/// a busy tick needs is needed by the next one too: to give it back each time costs more in page faults than the records do.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 8 << 20;
#[cfg(target_env = "gnu")]
const MAPPED: libc::c_int = 4 << 20;

/// When to give back, and how much is usual.
#[derive(Debug)]
pub(super) struct Memory {
    /// Resident after the start.
    usual: u64,
    next: Instant,
}

// === impl Memory

impl Memory {
    /// Gives back what only the start needed.
    ///
    /// The kernel's types alone are 6 MiB, read twice (here and by aya).
    pub fn after_start(now: Instant) -> Self {
        settle();
        give_back();
        Self { usual: resident().unwrap_or(u64::MAX), next: now + EVERY }
    }

    /// To be called once a second or so: gives back if it is time and there is more than usual. The allocator keeps what is
    /// freed between memory in use, and nothing that it says cheaply tells how much that is.
    pub fn look(&mut self, now: Instant) {
        if now < self.next {
            return;
        }
        self.next = now + EVERY;
        if resident().is_some_and(|bytes| bytes.saturating_sub(self.usual) > MUCH) {
            give_back();
        }
    }
}

/// Bytes that are resident, from /proc/self/statm (proc(5): pages, the second number).
pub fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * page_size() as u64)
}

/// Tells glibc what to keep (mallopt(3)). Else the largest piece that was ever freed decides.
fn settle() {
    #[cfg(target_env = "gnu")]
    for (what, bytes) in [(libc::M_TRIM_THRESHOLD, KEPT), (libc::M_MMAP_THRESHOLD, MAPPED)] {
        // SAFETY: it changes numbers of the allocator, under its own locks.
        unsafe {
            libc::mallopt(what, bytes);
        }
    }
}

fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks, and no memory that is in use moves.
    unsafe {
        libc::malloc_trim(0);
    }
}
