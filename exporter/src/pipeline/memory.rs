//! Memory that only the start needed.

/// Gives it back to the system.
///
/// The kernel's types alone are 6 MiB, read twice (here and by aya). The first free of that size makes glibc keep up to twice
/// as much at the end of its heap from then on (M_MMAP_THRESHOLD, mallopt(3)), so it must be asked.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks, and no memory that is in use moves.
    unsafe {
        libc::malloc_trim(0);
    }
}
