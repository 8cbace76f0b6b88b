//! flowtel's own directories in; the same, of the user that flowtel becomes, out: the queue's, that of the pins, those of its
//! sockets, that of a file of records. What an earlier flowtel wrote as another user is taken over.
//!
//! Must never give away what is not flowtel's. A directory is given only where nobody else could have put something into it:
//! it is root's or that user's, and others may not write there. Links are not followed, files with a second name stay.

use std::{
    ffi::CString,
    fs::DirBuilder,
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fstat, openat, stat, statat};

use super::User;
use crate::{
    config::{Config, QueueKind},
    export::FileName,
};

/// What a directory is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Queue,
    Pins,
    Sockets,
    /// The file that is written, and those that were put aside.
    Records(FileName),
}

/// Directories that flowtel writes to.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    all: Vec<(Kind, PathBuf)>,
    /// Whom flowtel may have been before.
    earlier: Option<u32>,
}

/// What failed, and how.
type Failed = (&'static str, io::Error);

// === impl Wanted

impl Wanted {
    pub(super) fn of(config: &Config) -> Self {
        let mut all = Vec::new();
        if config.queue.kind == QueueKind::Disk {
            all.push((Kind::Queue, config.queue.path.clone()));
        }
        all.extend(config.capture.pin.clone().map(|path| (Kind::Pins, path)));
        for socket in [&config.telemetry.status.socket, &config.telemetry.admin.socket] {
            if let Some(directory) = socket.parent().filter(|path| !path.as_os_str().is_empty()) {
                all.push((Kind::Sockets, directory.to_owned()));
            }
        }
        if let Some(path) = config.export.path.as_ref().filter(|_| config.export.prints())
            && let (Some(directory), Some(name)) = (path.parent(), FileName::of(path))
        {
            all.push((Kind::Records(name), directory.to_owned()));
        }
        let earlier = User::find(config.security.user.as_deref()).ok().map(|user| user.uid);
        Self { all, earlier }
    }

    /// Whether a directory is not the user's yet.
    pub(super) fn needs_chown(&self, user: &User) -> bool {
        self.all.iter().any(|(kind, path)| match std::fs::symlink_metadata(path) {
            Ok(found) => found.uid() != user.uid && matches!(kind, Kind::Queue | Kind::Pins),
            Err(_) => matches!(kind, Kind::Queue | Kind::Pins | Kind::Sockets),
        })
    }

    /// The directory of the file of records, where it is not the user's and won't be.
    pub(super) fn foreign_records(&self, user: &User) -> Option<&Path> {
        let (kind, path) = self.all.iter().find(|(kind, _)| matches!(kind, Kind::Records(_)))?;
        let becomes_users = || {
            let found =
                stat(path).ok().filter(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory)?;
            if found.st_uid == user.uid {
                return Some(true);
            }
            let entries = entries(openat(CWD, path, OPENED, Mode::empty()).ok()?).ok()?;
            let all_own = entries.iter().all(|(name, found)| is_own(kind, name.to_bytes(), found));
            Some(self.is_trusted(&found) && all_own && !is_link(path))
        };
        (!becomes_users().unwrap_or(false)).then_some(path)
    }

    /// Makes what is missing, and gives everything to the user and group `to`. As root.
    pub(super) fn hand_over(&self, to: (u32, u32)) -> Result<(), Failed> {
        for (kind, path) in &self.all {
            let missing: Vec<_> = path.ancestors().skip(1).take_while(|above| !above.exists()).collect();
            // What can't be made is a matter of the room that needs it: it says so, or works without.
            if make(kind, path).is_ok() {
                self.give(kind, path, to)?;
                for made in missing {
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let given = openat(CWD, made, flags, Mode::empty()).and_then(|made| own(&made, to));
                    given.map_err(|e| ("giving a directory of flowtel's to its user (chown)", e.into()))?;
                }
            }
        }
        Ok(())
    }

    fn give(&self, kind: &Kind, path: &Path, to: (u32, u32)) -> Result<(), Failed> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // A link, or no directory: whoever opens it says so.
        let Ok(directory) = openat(CWD, path, flags, Mode::empty()) else { return Ok(()) };
        self.give_open(kind, &directory, to)
    }

    fn give_open(&self, kind: &Kind, directory: &OwnedFd, to: (u32, u32)) -> Result<(), Failed> {
        let failed = |e: rustix::io::Errno| ("giving a directory of flowtel's to its user (chown)", e.into());
        let found = fstat(directory).map_err(failed)?;
        if found.st_uid == to.0 || !self.is_trusted(&found) {
            return Ok(());
        }
        if found.st_uid != 0 {
            // Without CAP_DAC_OVERRIDE root may not look into another user's directory.
            own(directory, (0, 0)).map_err(failed)?;
        }
        let Ok(listed) = openat(directory, c".", OPENED, Mode::empty()) else { return Ok(()) };
        let entries = entries(listed).map_err(failed)?;
        if entries.iter().any(|(name, found)| !is_own(kind, name.to_bytes(), found)) {
            // It is not for flowtel alone.
            return Ok(());
        }
        for (name, found) in entries {
            if name.to_bytes() == LOST_AND_FOUND {
                continue;
            }
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner = openat(directory, &name, flags, Mode::empty()).map_err(failed)?;
                self.give_open(kind, &inner, to)?;
            } else if found.st_nlink == 1 && (found.st_uid == 0 || Some(found.st_uid) == self.earlier) {
                // By its name: nobody else may put another file there meanwhile. There may be very many.
                let (uid, gid) = (Uid::from_raw(to.0), Gid::from_raw(to.1));
                chownat(directory, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            }
        }
        // Last: should flowtel be killed before, the next one begins anew.
        own(directory, to).map_err(failed)
    }

    /// Nobody else could have put something into it.
    fn is_trusted(&self, found: &Stat) -> bool {
        (found.st_uid == 0 || Some(found.st_uid) == self.earlier) && found.st_mode & 0o022 == 0
    }
}

const OPENED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What is in a directory.
fn entries(directory: OwnedFd) -> rustix::io::Result<Vec<(CString, Stat)>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            entries.push((name.to_owned(), statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?));
        }
    }
    Ok(entries)
}

fn is_link(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

const LOST_AND_FOUND: &[u8] = b"lost+found";

/// Whether flowtel puts such a thing into a directory of this kind.
fn is_own(kind: &Kind, name: &[u8], found: &Stat) -> bool {
    let file = FileType::from_raw_mode(found.st_mode);
    match kind {
        Kind::Sockets => file == FileType::Socket,
        Kind::Records(own) => file == FileType::RegularFile && own.has(name),
        Kind::Pins if file == FileType::Directory => name.iter().all(u8::is_ascii_digit),
        Kind::Pins => file == FileType::RegularFile,
        Kind::Queue if file == FileType::Directory => name == LOST_AND_FOUND,
        Kind::Queue => {
            file == FileType::RegularFile
                && (name == b"lock" || [&b".segment"[..], b".acks", b".damaged"].iter().any(|end| name.ends_with(end)))
        }
    }
}

fn own(file: &OwnedFd, (uid, gid): (u32, u32)) -> rustix::io::Result<()> {
    chownat(file, c"", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)
}

/// Makes a directory, and what is missing above it so that everybody can go through.
fn make(kind: &Kind, path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let mode = match kind {
        Kind::Sockets => 0o755,
        Kind::Queue => 0o700,
        // Its room knows where it may be, and makes it; where root's right is needed it is a directory of root's.
        Kind::Pins => return make_pins(path),
        // Its room says so.
        Kind::Records(_) => return Err(io::ErrorKind::NotFound.into()),
    };
    if let Some(above) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(above)?;
    }
    DirBuilder::new().mode(mode).create(path)
}

/// Only on a BPF file system: elsewhere it would be of no use.
fn make_pins(path: &Path) -> io::Result<()> {
    /// BPF_FS_MAGIC (include/uapi/linux/magic.h).
    const BPF_FS: u64 = 0xcafe_4a11;
    let above = path.parent().unwrap_or(path);
    let found = rustix::fs::statfs(above)?;
    if u64::try_from(found.f_type) != Ok(BPF_FS) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    DirBuilder::new().mode(0o700).create(path)
}

/// The first directory above `path` through which this user can't go.
pub(super) fn unreachable(path: &Path, user: &User) -> Option<PathBuf> {
    let there = path.ancestors().skip(1).find_map(|above| above.canonicalize().ok())?;
    let above: Vec<_> = there.ancestors().collect();
    above.into_iter().rev().find(|above| !allows(above, user, 0o1)).map(Path::to_owned)
}

/// Whether the mode of a file gives a user these rights (one octal digit). A list of access beside it (acl(5)) is not asked.
pub(super) fn allows(path: &Path, user: &User, rights: u32) -> bool {
    std::fs::metadata(path).is_ok_and(|found| {
        let shift = if found.uid() == user.uid {
            6
        } else if user.is_in(found.gid()) {
            3
        } else {
            0
        };
        found.mode() >> shift & rights == rights
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn wanted(kind: Kind, path: &Path) -> Wanted {
        Wanted { all: vec![(kind, path.to_owned())], earlier: Some(65533) }
    }

    fn is_root() -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            println!("skipped: only root can give files away");
        }
        root
    }

    fn owner(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("there").uid()
    }

    #[test]
    fn a_queue_of_roots_is_given_with_its_files_and_taken_back() {
        if !is_root() {
            return;
        }
        let top = tempfile::tempdir().expect("a directory");
        let path = top.path().join("var/queue");
        let wanted = wanted(Kind::Queue, &path);
        wanted.hand_over((65533, 65533)).expect("made and given");
        let modes = [&path, &top.path().join("var")].map(|p| fs::metadata(p).expect("there").mode() & 0o777);
        assert_eq!((owner(&path), modes), (65533, [0o700, 0o755]));
        let file = path.join("00000000000000000001.segment");
        fs::write(&file, "x").expect("written");
        wanted.hand_over((0, 0)).expect("taken back");
        assert_eq!((owner(&path), owner(&file)), (0, 0));
        wanted.hand_over((65533, 65533)).expect("given");
        assert_eq!((owner(&path), owner(&file)), (65533, 65533));
    }

    #[test]
    fn what_others_could_have_touched_or_is_not_flowtels_alone_stays() {
        if !is_root() {
            return;
        }
        let top = tempfile::tempdir().expect("a directory");
        // A link to a directory of root's.
        let target = top.path().join("etc");
        fs::create_dir(&target).expect("made");
        fs::write(target.join("shadow"), "x").expect("written");
        let link = top.path().join("link");
        std::os::unix::fs::symlink(&target, &link).expect("linked");
        wanted(Kind::Queue, &link).hand_over((65533, 65533)).expect("left alone");
        wanted(Kind::Queue, &target).hand_over((65533, 65533)).expect("left alone");
        assert_eq!((owner(&target), owner(&target.join("shadow"))), (0, 0));
        // One in which others may write, with a second name of a file of root's in it.
        let open = top.path().join("open");
        fs::create_dir(&open).expect("made");
        fs::hard_link(target.join("shadow"), open.join("lock")).expect("linked");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("set");
        wanted(Kind::Queue, &open).hand_over((65533, 65533)).expect("left alone");
        assert_eq!(owner(&open), 0);
        fs::set_permissions(&open, fs::Permissions::from_mode(0o700)).expect("set");
        wanted(Kind::Queue, &open).hand_over((65533, 65533)).expect("given");
        assert_eq!((owner(&open), owner(&open.join("lock"))), (65533, 0), "a file with a second name stays");
        // A directory with more than sockets in it.
        wanted(Kind::Sockets, top.path()).hand_over((65533, 65533)).expect("left alone");
        assert_eq!(owner(top.path()), 0);
    }

    #[test]
    fn a_directory_of_records_alone_is_given_with_its_files() {
        if !is_root() {
            return;
        }
        let top = tempfile::tempdir().expect("a directory");
        fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).expect("set");
        let (now, aside) = (top.path().join("records.jsonl"), top.path().join("records-20261122T100000.123Z.jsonl"));
        fs::write(&now, "x").expect("written");
        fs::write(&aside, "x").expect("written");
        let user = User::find(Some("65533")).expect("a number");
        let kind = Kind::Records(FileName::of(&now).expect("a file"));
        // Another's file beside it: the directory stays, and whoever starts flowtel hears of it.
        let other = top.path().join("records-of-mine.jsonl");
        fs::write(&other, "x").expect("written");
        assert_eq!(wanted(kind.clone(), top.path()).foreign_records(&user), Some(top.path()));
        wanted(kind.clone(), top.path()).hand_over((65533, 65533)).expect("left alone");
        assert_eq!([top.path(), &now, &aside, &other].map(owner), [0; 4]);
        fs::remove_file(&other).expect("removed");
        assert_eq!(wanted(kind.clone(), top.path()).foreign_records(&user), None);
        wanted(kind.clone(), top.path()).hand_over((65533, 65533)).expect("given");
        assert_eq!([top.path(), &now, &aside].map(owner), [65533; 3]);
        assert_eq!(wanted(kind.clone(), top.path()).foreign_records(&user), None);
        // One that isn't there is not made.
        let missing = top.path().join("missing");
        wanted(kind, &missing).hand_over((65533, 65533)).expect("nothing to do");
        assert!(!missing.exists());
    }

    #[test]
    fn who_can_not_go_to_a_directory_is_known_by_the_modes_above() {
        let top = tempfile::tempdir().expect("a directory");
        let shut = top.path().join("shut");
        fs::create_dir(&shut).expect("made");
        fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).expect("set");
        fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).expect("set");
        let user = User::find(Some("65533")).expect("a number");
        let found = unreachable(&shut.join("not/yet/there"), &user);
        assert_eq!(found, Some(shut.canonicalize().expect("there")));
        assert_eq!(unreachable(&shut, &user), None);
    }
}
