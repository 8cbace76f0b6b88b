//! The kernel's counters: one [`Tally`] for each kind of event, in a per-CPU array with the indices below.

/// Index of connect()'s tally.
pub const CONNECT: u32 = 0;
/// Index of SYN-ACK's tally.
pub const SYN_ACK: u32 = 1;
/// Index of [`crate::event::Established`]'s tally.
pub const ESTABLISHED: u32 = 2;
/// Index of FIN segments' tally.
pub const FIN: u32 = 3;
/// Index of RST segments' tally.
pub const RESET: u32 = 4;
/// Index of [`crate::event::Close`]'s tally.
pub const CLOSE: u32 = 5;
/// Index of [`crate::event::Refused`]'s tally.
pub const REFUSED: u32 = 6;
/// Index of [`crate::event::Accept`]'s tally.
pub const ACCEPT: u32 = 7;
/// Index of bind()'s tally.
pub const LISTEN: u32 = 8;
/// Index of [`crate::event::Release`]'s tally.
pub const RELEASE: u32 = 9;
/// Index of [`crate::event::Dns`]'s tally.
pub const DNS: u32 = 10;
/// Index of repeated SYNs' tally.
pub const SYN_AGAIN: u32 = 11;
/// How many tallies there are.
pub const LEN: u32 = 12;

/// What happened to one kind of event on one CPU. What was met and not lost is in the ring: a counter of that would cost
/// every event a locked instruction, and say nothing new.
///
/// Three words, read by user space as `[u64; 3]` in this order.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Met by a program.
    pub seen: u64,
    /// Lost: the ring had no room.
    pub ring_full: u64,
    /// Left out: more came than the rate limit lets through.
    pub limited: u64,
}
