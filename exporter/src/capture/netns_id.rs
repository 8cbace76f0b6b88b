//! What an event says of a network namespace: a cookie, or an inode number, or nothing.

use flowtel_common::event::NETNS_INODE;

/// Which network namespace a socket is in, as its event says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct NetnsId(u64);

// === impl NetnsId

impl NetnsId {
    /// Nobody knows.
    pub const UNKNOWN: Self = Self(0);

    /// As an event has it: [`NETNS_INODE`] marks an inode number.
    pub const fn new(told: u64) -> Self {
        Self(told)
    }

    /// By the inode number alone; 0 is none.
    pub const fn of_inode(inode: u32) -> Self {
        Self(if inode == 0 { 0 } else { NETNS_INODE | inode as u64 })
    }

    /// As an event has it.
    pub const fn told(self) -> u64 {
        self.0
    }

    /// This, or where it is unknown the other.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        if self.0 == 0 { other } else { self }
    }

    /// Its inode number, where it is known by that.
    pub fn inode(self) -> Option<u32> {
        if self.0 & NETNS_INODE == 0 { None } else { u32::try_from(self.0 & !NETNS_INODE).ok() }
    }

    /// Its cookie, where it is known by that.
    pub fn cookie(self) -> Option<u64> {
        (self.0 != 0 && self.0 & NETNS_INODE == 0).then_some(self.0)
    }
}
