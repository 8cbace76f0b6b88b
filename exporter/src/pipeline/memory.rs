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
    /// The kernel's types alone are 6 MiB, read twice (here and by aya). The first free of that size makes glibc keep up to
    /// twice as much at the end of its heap from then on (M_MMAP_THRESHOLD, mallopt(3)), so it must be asked.
    pub fn after_start(now: Instant) -> Self {
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

fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks, and no memory that is in use moves.
    unsafe {
        libc::malloc_trim(0);
    }
}
