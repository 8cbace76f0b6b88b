//! Attempts that are over unless something more comes of them soon: a socket that was dropped in SYN_SENT, and of which no end
//! is told, for its SYN had never left (Fast Open, TCP_FASTOPEN_CONNECT); and a call that a cgroup program refused, where no
//! later program allows it again. In: which, and since when; out: those that have waited long enough.

use std::{collections::VecDeque, time::Duration};

use super::{Stamp, settle::SETTLE};
use crate::capture::KernelTime;

/// How long a refused call waits for a begin all the same.
const ALLOWED_AFTER_ALL: Duration = Duration::from_secs(1);
/// The most of each sort that wait. What comes above it makes the oldest wait no longer.
const MOST: usize = 1 << 16;

/// An attempt that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    pub cookie: u64,
    /// When it was asked for: another one on the same socket is not meant.
    pub asked: KernelTime,
    /// When it was over.
    pub over: Stamp,
}

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Waits {
    released: VecDeque<Wait>,
    denied: VecDeque<Wait>,
}

impl Waits {
    /// A socket was dropped in SYN_SENT.
    pub fn released(&mut self, wait: Wait) {
        self.released.push_back(wait);
    }

    /// A call was refused.
    pub fn denied(&mut self, wait: Wait) {
        self.denied.push_back(wait);
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.released.is_empty() && self.denied.is_empty()
    }

    /// The next that has waited long enough at `now`; any where it is `None`.
    pub fn next(&mut self, now: Option<KernelTime>) -> Option<Wait> {
        let due = |waits: &mut VecDeque<Wait>, limit: Duration| {
            let full = waits.len() > MOST;
            let waits_on =
                |wait: &Wait| !full && now.is_some_and(|now| u128::from(now.since(wait.over.time)) < limit.as_nanos());
            if waits.front().is_none_or(waits_on) { None } else { waits.pop_front() }
        };
        due(&mut self.released, SETTLE).or_else(|| due(&mut self.denied, ALLOWED_AFTER_ALL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::WallTime;

    fn wait(ms: u64) -> Wait {
        let over = Stamp { time: KernelTime(ms * 1_000_000), wall: WallTime(0), observed: WallTime(0) };
        Wait { cookie: ms, asked: KernelTime(0), over }
    }

    #[test]
    fn each_sort_waits_its_time_and_at_the_end_none_waits() {
        let mut waits = Waits::default();
        waits.denied(wait(1));
        waits.released(wait(2));
        assert!(waits.next(Some(KernelTime(5_000_000))).is_none());
        assert_eq!(waits.next(Some(KernelTime(12_000_000))).map(|wait| wait.cookie), Some(2));
        assert!(waits.next(Some(KernelTime(12_000_000))).is_none() && !waits.is_empty());
        assert_eq!(waits.next(None).map(|wait| wait.cookie), Some(1));
        assert!(waits.next(None).is_none() && waits.is_empty());
    }

    #[test]
    fn a_flood_makes_the_oldest_wait_no_longer() {
        let mut waits = Waits::default();
        (0..=MOST as u64).for_each(|_| waits.denied(wait(7)));
        assert!(waits.next(Some(KernelTime(0))).is_some());
        assert!(waits.next(Some(KernelTime(0))).is_none());
    }
}
