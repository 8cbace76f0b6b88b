//! Cgroup ids in; the places that their paths name out.
//!
//! The id of a cgroup is the inode number of its directory in the cgroup v2 tree. Its path is found in one of two ways:
//!
//! - by **handle**: the kernel opens the directory with this number (`handle`); exact, some microseconds, needs
//!   CAP_DAC_READ_SEARCH;
//! - by **search**, without that right: the tree is walked in small steps (`walk`), and everything on the way is
//!   remembered.
//!
//! # Why what was found may be remembered for ever
//! A number is given once: kernfs counts 32 bits up in a circle and adds a generation above them each time round, 64 bits
//! together (fs/kernfs/dir.c, __kernfs_new_node; on machines of 32 bits st_ino has the lower half only, and the search
//! finds the cgroup that has it now). The tree lives as long as the kernel, whether it is mounted or not, and cgroups of
//! version 2 can't be renamed (kernel/cgroup/cgroup.c: only version 1 has a rename). So id and path belong together, and
//! an event of a cgroup that was removed since is answered rightly. "Not found" is remembered for a while only.
//!
//! A path that is longer than the kernel shows (4,096 bytes) is none: containers may make such cgroups, and theirs alone go
//! without a name.
//!
//! Must never give the place of another cgroup, let one cgroup take the names of others away, block for longer than one step of the search, or grow without bound.

pub(in crate::owner) mod handle;
mod walk;

use std::{
    borrow::Cow,
    fmt,
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use self::{handle::Failure, walk::Walk};
use super::{
    cgroup_path::Place,
    generations::Generations,
    helper::{Found, Helper, Request},
};
use crate::{capture::cgroup, config, ledger::Ledger};

/// How long "there is no such cgroup" is believed: the kernel's word, and that of a search, which may have passed the
/// place before the cgroup was made.
const ABSENT_FOR: Duration = Duration::from_secs(30);
const NOT_MET_FOR: Duration = Duration::from_secs(3);
/// How long opening by handle rests after it was refused. Rights don't come back, but a refusal need not be about rights.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// Which cgroup is what.
pub struct Places {
    tree: Option<Tree>,
    /// Opening by handle was refused: it is not tried before this.
    rests_until: Option<Instant>,
    /// Who may open by handle.
    helper: Option<Helper>,
    walk: Walk,
    known: Generations<u64, Arc<Place>>,
    absent: Generations<u64, Absent>,
    ledger: Arc<Ledger>,
}

/// A cgroup that has no path here, and until when that is believed.
#[derive(Clone, Copy)]
struct Absent {
    until: Instant,
    /// It isn't there; else it is, and its path can't be had.
    gone: bool,
}

/// The mounted tree of cgroups.
struct Tree {
    /// Where the search begins.
    root: OwnedFd,
    /// The path of that in the tree; empty for the tree's own root.
    start: Vec<u8>,
    mount: Vec<u8>,
}

// === impl Places

impl Places {
    /// Opens the tree of cgroups. Where there is none, or `owner.container` is off, all questions are answered with
    /// `None`.
    pub fn new(config: &config::Owner, ledger: Arc<Ledger>) -> Self {
        Self::below(config, None, ledger)
    }

    /// The same for questions about this cgroup and those below it alone, where one is given: the search then goes through
    /// these few, and not through the whole host's.
    pub fn below(config: &config::Owner, cgroup: Option<&Path>, ledger: Arc<Ledger>) -> Self {
        let most = config.max_cgroups as usize;
        Self {
            tree: if config.container { Tree::open(cgroup) } else { None },
            rests_until: None,
            helper: None,
            walk: Walk::default(),
            known: Generations::new(most),
            absent: Generations::new(most / 4),
            ledger,
        }
    }

    /// The same, which has the helper open by handle where there is one.
    #[must_use]
    pub fn helped(self, helper: Option<Helper>) -> Self {
        Self { helper, ..self }
    }

    /// The place of the cgroup with the id `cgroup`, its inode number; 0 is none.
    ///
    /// `None`, and counted in the ledger under its reason: it was removed before it was first asked for, lies outside of
    /// what this process's mount shows, or was not reached yet by the search.
    pub fn of(&mut self, cgroup: u64) -> Option<Arc<Place>> {
        let counts = &self.ledger.owner.places;
        if let Some(place) = self.known.get(cgroup) {
            counts.cached.bump();
            return Some(Arc::clone(place));
        }
        let Some(tree) = self.tree.as_ref().filter(|_| cgroup != 0) else {
            counts.unreadable.add(1);
            return None;
        };
        let now = Instant::now();
        if let Some(absent) = self.absent.get(cgroup).filter(|absent| now < absent.until) {
            if absent.gone { &counts.gone } else { &counts.unreadable }.add(1);
            return None;
        }
        if self.rests_until.is_none_or(|until| until <= now) {
            let found = path_of(self.helper.as_ref(), tree, cgroup)
                .and_then(|path| tree.relative(&path).map(Place::from_path).ok_or(Failure::Gone));
            if !matches!(found, Err(Failure::Refused)) {
                self.rests_until = None;
            }
            match found {
                Ok(place) => {
                    let place = Arc::new(place);
                    self.known.insert(cgroup, Arc::clone(&place));
                    counts.looked_up.add(1);
                    return Some(place);
                }
                Err(Failure::Gone) => {
                    self.absent.insert(cgroup, Absent { until: now + ABSENT_FOR, gone: true });
                    counts.gone.add(1);
                    return None;
                }
                // Of this one alone: what one cgroup is called must not take the others' names away.
                Err(Failure::NoPath) => {
                    self.absent.insert(cgroup, Absent { until: now + ABSENT_FOR, gone: false });
                    counts.unreadable.add(1);
                    return None;
                }
                Err(Failure::NotNow) => {
                    counts.unreadable.add(1);
                    return None;
                }
                Err(Failure::Refused) => self.rests_until = Some(now + REFUSED_FOR),
            }
        }
        self.search(cgroup, now)
    }

    /// Whether paths are found by handle: at once, and all of them. Else the right to it, CAP_DAC_READ_SEARCH, is missing,
    /// and a new cgroup is found some time after its first connection only.
    pub fn by_handle(&self) -> bool {
        self.rests_until.is_none()
            && self
                .tree
                .as_ref()
                .is_some_and(|tree| !matches!(path_of(self.helper.as_ref(), tree, 1), Err(Failure::Refused)))
    }

    fn search(&mut self, cgroup: u64, now: Instant) -> Option<Arc<Place>> {
        let counts = &self.ledger.owner.places;
        let Some(tree) = &self.tree else { return None };
        let known = &mut self.known;
        let mut found = None;
        let complete = self.walk.step(&tree.root, now, |id, path| {
            // Paths of one id never change, so what is known is not read again.
            if id == cgroup || known.get(id).is_none() {
                let place = Arc::new(Place::from_path(&tree.path(path)));
                if id == cgroup {
                    found = Some(Arc::clone(&place));
                }
                known.insert(id, place);
            }
        });
        match (&found, complete) {
            (Some(_), _) => counts.looked_up.add(1),
            (None, true) => {
                self.absent.insert(cgroup, Absent { until: now + NOT_MET_FOR, gone: true });
                counts.gone.add(1);
            }
            (None, false) => counts.unreadable.add(1),
        }
        found
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places").field("by_handle", &self.rests_until.is_none()).finish_non_exhaustive()
    }
}

/// Asks the kernel, or the helper: where it is gone, the kernel.
fn path_of(helper: Option<&Helper>, tree: &Tree, cgroup: u64) -> Result<Vec<u8>, Failure> {
    match helper.map(|helper| (helper.ask(Request::Cgroup(cgroup)), helper)) {
        Some((Some(Ok(Found::Cgroup(path))), _)) => Ok(path),
        Some((Some(Err(error)), _)) => Err(Failure::from(error)),
        // It is late.
        Some((_, helper)) if helper.pid().is_some() => Err(Failure::NotNow),
        _ => handle::path_of(&tree.root, cgroup),
    }
}

// === impl Tree

impl Tree {
    fn open(below: Option<&Path>) -> Option<Self> {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let mount = cgroup::mount().ok()?;
        // A path that leads elsewhere says nothing of the place in the tree.
        let inner =
            below.and_then(|below| below.strip_prefix(&mount).ok()).filter(|inner| !inner.as_os_str().is_empty());
        let start = inner.map(|inner| [b"/", inner.as_os_str().as_bytes()].concat()).unwrap_or_default();
        let root = std::fs::File::open(inner.map_or_else(|| mount.clone(), |inner| mount.join(inner))).ok()?.into();
        Some(Self { root, start, mount: mount.into_os_string().into_vec() })
    }

    /// The path in the tree of what the search calls `path`.
    fn path<'p>(&self, path: &'p [u8]) -> Cow<'p, [u8]> {
        match (self.start.is_empty(), path) {
            (true, path) => path.into(),
            (false, b"/") => self.start.clone().into(),
            (false, path) => [&self.start[..], path].concat().into(),
        }
    }

    /// A path of the file system as one of the tree. `None` for a cgroup outside of the part that is mounted here (in a
    /// cgroup namespace): the kernel opens it all the same, and shows some end of its path, or `/`.
    fn relative<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        path.strip_prefix(&*self.mount).filter(|inner| matches!(inner, [] | [b'/', ..]))
    }
}

#[cfg(test)]
mod tests;
