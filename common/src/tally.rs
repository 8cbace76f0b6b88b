//! The kernel's counters: one [`Tally`] for each kind of event, in a per-CPU array with the indices below.

/// Index of [`crate::event::Connect`]'s tally.
pub const CONNECT: u32 = 0;
/// Index of [`crate::event::SynAck`]'s tally.
pub const SYN_ACK: u32 = 1;
/// Index of [`crate::event::Established`]'s tally.
pub const ESTABLISHED: u32 = 2;
/// How many tallies there are.
pub const LEN: u32 = 3;

/// What happened to one kind of event on one CPU. What was met and not lost is in the ring: a counter of that would cost
/// every event a locked instruction, and say nothing new.
///
/// Two words, read by user space as `[u64; 2]` in this order.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Met by a program.
    pub seen: u64,
    /// Lost: the ring had no room.
    pub ring_full: u64,
}
