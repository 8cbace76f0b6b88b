//! The tree of cgroups in; each directory's number and path out, some hundred a step.
//!
//! For where cgroups can't be opened by handle. One step is taken at most every tick and reads a bounded number of
//! directories; a round through the whole tree begins at most every second, and less often the longer it takes: twenty
//! times as long, so that a host with very many cgroups spends 5 % of one CPU on it at most while unknown cgroups come.
//!
//! Must never follow a link, leave the tree, or remember more than the directories that wait to be read.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::fs::{Dir, FileType, Mode, OFlags, fstat, openat};

/// Directories a step: a few milliseconds.
const STEP: usize = 256;
/// Between two steps.
const PAUSE: Duration = Duration::from_millis(50);
/// Between the begins of two rounds, at least.
const ROUND: Duration = Duration::from_secs(1);
/// A round takes at most this share of the time: one in so many parts.
const SHARE: u32 = 20;
/// The most directories that wait: more are left out of this round.
const MOST_WAITING: usize = 65_536;
/// Paths of so many bytes are passed over (PATH_MAX): the kernel shows none of a cgroup found by handle either.
const MAX_PATH: usize = 4096;

/// A walk, from round to round.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Directories that wait to be read, relative to the root of the tree, each with a `/` before it.
    waiting: Vec<Vec<u8>>,
    next_step: Option<Instant>,
    next_round: Option<Instant>,
    /// How long this round has read so far.
    spent: Duration,
}

// === impl Walk

impl Walk {
    /// Goes one step on where it is time for one, and tells what it meets. Returns whether this step ended a round: what
    /// was not met in it is not there, or is new.
    pub fn step(&mut self, root: &OwnedFd, now: Instant, mut met: impl FnMut(u64, &[u8])) -> bool {
        if self.next_step.is_some_and(|next| now < next) {
            return false;
        }
        if self.waiting.is_empty() {
            if self.next_round.is_some_and(|next| now < next) {
                return false;
            }
            self.spent = Duration::ZERO;
            if let Ok(status) = fstat(root) {
                met(status.st_ino, b"/");
            }
            self.waiting.push(Vec::new());
        }
        for _ in 0..STEP {
            let Some(path) = self.waiting.pop() else { break };
            self.read(root, path, &mut met);
        }
        let after = Instant::now();
        self.spent += after.saturating_duration_since(now);
        self.next_step = Some(after + PAUSE);
        let ended = self.waiting.is_empty();
        if ended {
            self.next_round = Some(after + ROUND.max(self.spent * SHARE));
        }
        ended
    }

    /// Lets the next step come at once.
    #[cfg(test)]
    pub fn hurry(&mut self) {
        self.next_step = None;
    }

    /// Reads one directory. One that is gone meanwhile, or may not be read, has nothing in it.
    fn read(&mut self, root: &OwnedFd, path: Vec<u8>, met: &mut impl FnMut(u64, &[u8])) {
        let name = path.strip_prefix(b"/").unwrap_or(b".");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(entries) = openat(root, name, flags, Mode::empty()).and_then(Dir::new) else { return };
        for entry in entries {
            // The inode number of the entry is the cgroup's id: no call for each (fs/kernfs/dir.c, kernfs_fop_readdir).
            let Ok(entry) = entry else { return };
            let name = entry.file_name().to_bytes();
            if entry.file_type() != FileType::Directory || matches!(name, b"." | b"..") {
                continue;
            }
            let inner = [&path[..], b"/", name].concat();
            if inner.len() >= MAX_PATH {
                continue;
            }
            met(entry.ino(), &inner);
            if self.waiting.len() < MOST_WAITING {
                self.waiting.push(inner);
            }
        }
    }
}
