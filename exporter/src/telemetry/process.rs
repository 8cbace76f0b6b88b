//! What this process takes of the machine, as the kernel tells it. What can't be read is told as nothing.

use std::{fs, path::Path};

use rustix::time::{ClockId, clock_gettime};

pub use crate::pipeline::resident;

/// Seconds of CPU time, of all threads, in user and kernel mode.
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Open file descriptors, without the one that counts them.
pub fn descriptors() -> Option<u64> {
    entries("/proc/self/fd").map(|n| n.saturating_sub(1))
}

/// Threads.
pub fn threads() -> Option<u64> {
    entries("/proc/self/task")
}

fn entries(directory: impl AsRef<Path>) -> Option<u64> {
    Some(fs::read_dir(directory).ok()?.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something() {
        assert!(resident().is_some_and(|bytes| bytes > 1 << 20));
        assert!(cpu_seconds() > 0.0);
        assert!(descriptors().is_some_and(|n| n >= 3));
        assert!(threads().is_some_and(|n| n >= 1));
    }
}
