//! The tree of cgroups (v2): where it is mounted, and the directory that the programs are attached to.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::unix::{
        ffi::OsStringExt,
        fs::{DirEntryExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use super::Error;

mod own;

/// The most of /proc/self/mountinfo that is read: a host with thousands of containers has some hundred KiB.
const MAX_MOUNTINFO: u64 = 16 << 20;

/// An open cgroup directory.
#[derive(Debug)]
pub struct Cgroup {
    /// Its path.
    pub path: PathBuf,
    /// The directory, open.
    pub directory: File,
    /// Its id, as the kernel's helpers give it: the inode number. 1 is the root of the whole tree.
    pub id: u64,
}

impl Cgroup {
    /// Opens the cgroup that `capture.cgroup` names: `root`, `self` for the group that flowtel belongs to, or the path of a
    /// directory.
    ///
    /// # Errors
    /// No cgroup v2 tree is mounted; or flowtel's group can't be told; or the path is not a directory in the tree.
    pub fn open(setting: &str) -> Result<Self, Error> {
        let path = match setting {
            "root" => mount()?,
            "self" => own::group()?,
            path => PathBuf::from(path),
        };
        let fail = |source| Error::Cgroup { path: path.clone(), source };
        // cgroup.procs is there in every cgroup of a v2 tree, its root included, and nowhere else with this neighbour.
        if !path.join("cgroup.controllers").exists() {
            return Err(fail(io::Error::new(io::ErrorKind::NotFound, "it is not a directory of a cgroup v2 tree")));
        }
        let directory = File::open(&path).map_err(fail)?;
        let id = directory.metadata().map_err(fail)?.ino();
        Ok(Self { path, directory, id })
    }

    /// Its path in the tree, from the root on. `None` where the whole tree can't be seen, as in a cgroup namespace.
    pub fn path_in_tree(&self) -> Option<PathBuf> {
        let root = mount().ok().filter(|mount| is_host_root(mount))?;
        let path = fs::canonicalize(&self.path).ok()?;
        Some(Path::new("/").join(path.strip_prefix(root).ok()?))
    }

    /// Whether this process is in it, or in one below it: then it sees its own connections. `false` also where that can't be
    /// told.
    pub fn holds_this_process(&self) -> bool {
        self.is_host_root() || own::find(&self.path).is_some()
    }

    /// Whether this is the root of the whole tree, not only of what a cgroup namespace shows.
    pub fn is_host_root(&self) -> bool {
        self.id == 1
    }
}

/// Whether a directory is the root of the whole tree, not only of what a cgroup namespace shows.
fn is_host_root(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|root| root.ino() == 1)
}

/// The ids of the cgroup `root` and of all below it, a million at most. One that comes or goes meanwhile may be missing; that
/// more are missing is said in the log.
pub fn tree(root: &Path) -> HashSet<u64> {
    const MOST: usize = 1 << 20;
    let mut ids: HashSet<u64> = fs::metadata(root).map(|root| root.ino()).into_iter().collect();
    let mut unread = vec![root.to_owned()];
    while let Some(path) = unread.pop() {
        let entries = match fs::read_dir(&path) {
            Ok(entries) if ids.len() < MOST => entries,
            Ok(_) => {
                tracing::warn!("more than a million cgroups: open connections of some are not told");
                break;
            }
            Err(e) if path == root => {
                tracing::warn!("open connections below {} are not told: {e}", root.display());
                break;
            }
            // Gone meanwhile.
            Err(_) => continue,
        };
        // Links are not followed: of a link this is no directory.
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            ids.insert(entry.ino());
            unread.push(entry.path());
        }
    }
    ids
}

/// The first mount of a cgroup v2 tree, also in a hybrid layout (/sys/fs/cgroup/unified).
///
/// # Errors
/// There is none.
pub fn mount() -> Result<PathBuf, Error> {
    let text = read_bounded(Path::new("/proc/self/mountinfo"), MAX_MOUNTINFO)
        .map_err(|source| Error::System { what: "reading /proc/self/mountinfo", source })?;
    find_mount(&text).ok_or(Error::NoCgroup2)
}

/// The mount point of the first cgroup2 line of a mountinfo (proc(5)): fields before " - " end with the mount point as
/// fifth, the file system's type comes right after it. Spaces and such are written as `\040`.
fn find_mount(mountinfo: &[u8]) -> Option<PathBuf> {
    mountinfo.split(|b| *b == b'\n').find_map(|line| {
        let mut fields = line.split(|b| *b == b' ');
        let point = fields.nth(4)?;
        fields.find(|f| *f == b"-")?;
        (fields.next()? == b"cgroup2").then(|| PathBuf::from(std::ffi::OsString::from_vec(unescape(point))))
    })
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) = (first, tail) {
            out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = after;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut text = Vec::new();
    fs::File::open(path)?.take(most).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup2_mount_is_found_in_a_pure_a_hybrid_and_an_odd_layout() {
        let pure = b"24 1 0:22 / /proc rw - proc proc rw\n30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(find_mount(pure), Some("/sys/fs/cgroup".into()));
        let hybrid = b"30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n31 30 0:27 / /sys/fs/cgroup/unified rw shared:5 master:1 - cgroup2 c rw\n32 30 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        assert_eq!(find_mount(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let odd = br"31 30 0:27 / /mnt/a\040b\134c rw - cgroup2 c rw";
        assert_eq!(find_mount(odd), Some("/mnt/a b\\c".into()));
    }

    #[test]
    fn a_mountinfo_without_cgroup2_or_cut_anywhere_finds_nothing_and_does_not_panic() {
        let line = b"31 30 0:27 / /sys/fs/cgroup/unified rw shared:5 - cgroup2 c rw";
        assert_eq!(find_mount(b"30 23 0:26 / /sys/fs/cgroup rw - cgroup cgroup rw"), None);
        for n in 0..=line.len() {
            let _ = find_mount(&line[..n]);
        }
    }
}
