//! The kernel's counters: an [`OnCpu`] on each CPU, which hold one count of each sort for each kind of event, at the indices
//! below.

/// Index of connect()'s tally.
pub const CONNECT: u32 = 0;
/// Index of [`crate::event::Established`]'s tally.
pub const ESTABLISHED: u32 = 1;
/// Index of [`crate::event::Close`]'s tally.
pub const CLOSE: u32 = 2;
/// Index of RST segments' tally.
pub const RESET: u32 = 3;
/// Index of FIN segments' tally.
pub const FIN: u32 = 4;
/// Index of [`crate::event::Refused`]'s tally.
pub const REFUSED: u32 = 5;
/// Index of [`crate::event::Accept`]'s tally.
pub const ACCEPT: u32 = 6;
/// Index of bind()'s tally.
pub const BIND: u32 = 7;
/// Index of [`crate::event::Release`]'s tally.
pub const RELEASE: u32 = 8;
/// Index of [`crate::event::Dns`]'s tally.
pub const DNS: u32 = 9;
/// Index of repeated SYNs' tally.
pub const SYN_AGAIN: u32 = 10;
/// Index of the tally of sockets that are used again.
pub const USED_AGAIN: u32 = 11;
/// Index of listen()'s tally.
pub const LISTEN: u32 = 12;
/// Index of the tally of listening sockets that are closed.
pub const UNLISTEN: u32 = 13;
/// Index of [`crate::event::Netns`]'s tally.
pub const NETNS: u32 = 14;
/// Index of [`crate::event::Update`]'s tally.
pub const UPDATE: u32 = 15;
/// Index of [`crate::event::Hello`]'s tally.
pub const HELLO: u32 = 16;
/// How many tallies there are.
pub const LEN: u32 = 17;

/// What happened on one CPU, by kind of event. What was met and not lost is in the ring: a counter of that would cost
/// every event a locked instruction, and say nothing new.
///
/// One value for all kinds, with what every event counts in front: the counters of a begin's events then share a cache
/// line (an element of an array map for each kind was measured at two cold lines an event).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OnCpu {
    /// The last SYN-ACK that arrived at a socket in SYN_SENT: the socket (SO_COOKIE), when, and when by the kernel's
    /// coarsest clock. Its handshake is told a moment later, on the same CPU as a rule.
    pub answered: [u64; 3],
    /// The last segment without SYN and RST that arrived at a listening socket: the socket (SO_COOKIE), and then, from the
    /// high bits down, both ports and the sequence number that it acknowledges. Where it completes a handshake, the connection
    /// that the listener takes by it is told in the same breath, on the same CPU.
    pub taken: [u64; 2],
    /// The socket (SO_COOKIE) whose begin was reported and whose change of state must follow at once, on this CPU; else 0.
    pub promised: u64,
    /// Met by a program.
    pub seen: [u64; LEN as usize],
    /// Lost: the ring had no room.
    pub ring_full: [u64; LEN as usize],
    /// Left out: more came than the rate limit lets through.
    pub limited: [u64; LEN as usize],
    /// Promises that were not kept: another program had taken the callback away.
    pub unkept: u64,
    /// Sockets that were asked for their states again, because another program had overwritten the flags.
    pub asked_again: u64,
}

/// [`OnCpu`] as user space reads it.
pub type Words = [u64; size_of::<OnCpu>() / 8];
/// Where in [`Words`] the promise is.
pub const PROMISED: u32 = 5;
/// Where in [`Words`] the first count of those seen is; the other sorts follow, [`LEN`] apart.
pub const SEEN: u32 = PROMISED + 1;
/// Where in [`Words`] the promises are that were not kept.
pub const UNKEPT: u32 = SEEN + 3 * LEN;
/// Where in [`Words`] the sockets are that were asked again.
pub const ASKED_AGAIN: u32 = UNKEPT + 1;
