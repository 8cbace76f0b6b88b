//! Which connections are flowtel's own. A process's id tells who asked; the sockets are remembered for the flowtel after
//! this one, which will see their ends.

use std::collections::BTreeSet;

use super::attempts::Attempt;
use crate::capture::{Earlier, KernelTime, pins::MOST_OWN as MOST};

/// Who asks for flowtel's own connections.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Own {
    /// This process, as the kernel sees it.
    now: Option<u32>,
    /// The flowtel before, and when it had ended.
    before: Option<(u32, KernelTime)>,
}

/// Sockets of flowtel's own connections, and of their other ends on this host.
#[derive(Debug, Default)]
pub(super) struct OwnSockets {
    open: BTreeSet<u64>,
    /// Those that a flowtel before had.
    before: BTreeSet<u64>,
}

// === impl Own

impl Own {
    /// Of the process with this id, where its connections are to be left out.
    pub fn new(now: Option<u32>) -> Self {
        Self { now, before: None }
    }

    /// And of this one.
    pub fn inherit(&mut self, earlier: &Earlier) {
        self.before = (earlier.tgid != 0).then_some((earlier.tgid, earlier.until));
    }

    /// This process's id.
    pub fn id(&self) -> Option<u32> {
        self.now
    }

    /// Whether flowtel asked.
    pub fn asked(&self, attempt: &Attempt) -> bool {
        let Some(pid) = attempt.owner.map(|owner| owner.pid) else { return false };
        self.now == Some(pid) || self.before.is_some_and(|(before, until)| before == pid && attempt.asked <= until)
    }
}

// === impl OwnSockets

impl OwnSockets {
    /// Takes those of the flowtel before.
    pub fn inherit(&mut self, earlier: &Earlier) {
        self.before.extend(earlier.sockets.iter().take(MOST));
    }

    /// This one is flowtel's own.
    pub fn add(&mut self, cookie: u64) {
        self.open.insert(cookie);
        if self.open.len() > MOST {
            // Cookies grow: the oldest.
            self.open.pop_first();
        }
    }

    /// This one is closed.
    pub fn remove(&mut self, cookie: u64) {
        self.open.remove(&cookie);
    }

    /// Whether the flowtel before had it.
    pub fn is_inherited(&self, cookie: u64) -> bool {
        !self.before.is_empty() && self.before.contains(&cookie)
    }

    /// Forgets one that the flowtel before had, which is closed now. Returns whether it was one.
    pub fn take_inherited(&mut self, cookie: u64) -> bool {
        !self.before.is_empty() && self.before.remove(&cookie)
    }

    /// Those that are open: the flowtel before's, too, for they may outlive this one.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.open.iter().chain(&self.before).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        capture::NetnsId,
        flow::{Owner, Role, Source},
    };

    fn attempt(pid: u32, asked: u64) -> Attempt {
        let comm = *b"flowtel\0\0\0\0\0\0\0\0\0";
        let owner = Owner {
            pid,
            uid: 0,
            comm,
            cgroup: 1,
            since: KernelTime(asked),
            role: Role::Connector,
            source: Source::Connect,
            begin: None,
        };
        Attempt {
            asked: KernelTime(asked),
            destination: ([192, 0, 2, 1], 4317).into(),
            again: None,
            used_again: false,
            reset_in: false,
            released: false,
            denied: false,
            netns: NetnsId::UNKNOWN,
            owner: Some(owner),
        }
    }

    #[test]
    fn the_flowtel_before_asked_only_until_it_had_ended() {
        let mut own = Own::new(Some(7));
        assert!(own.asked(&attempt(7, 1)) && !own.asked(&attempt(5, 1)));
        own.inherit(&Earlier { tgid: 5, until: KernelTime(10), sockets: vec![] });
        assert!(own.asked(&attempt(5, 10)) && !own.asked(&attempt(5, 11)));
        let mut nobody = Own::new(None);
        nobody.inherit(&Earlier { tgid: 0, until: KernelTime(10), sockets: vec![] });
        assert!(!nobody.asked(&attempt(0, 1)), "nobody's are left out");
    }

    #[test]
    fn sockets_are_bounded_and_told_until_they_are_closed() {
        let mut sockets = OwnSockets::default();
        sockets.inherit(&Earlier { tgid: 5, until: KernelTime(0), sockets: vec![1, 2] });
        (10..200).for_each(|cookie| sockets.add(cookie));
        assert_eq!(sockets.iter().count(), MOST + 2);
        sockets.remove(199);
        assert!(sockets.is_inherited(1) && sockets.take_inherited(1) && !sockets.take_inherited(1));
        assert!(sockets.iter().eq((136..199).chain([2])));
    }
}
