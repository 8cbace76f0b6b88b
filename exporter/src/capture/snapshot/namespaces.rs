//! The network namespaces of this host: files by which they can be entered come out, each namespace once.

use std::{
    collections::HashSet,
    fs::{self, File},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::{
    process::{Resource, getrlimit},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

/// Where iproute2 keeps named namespaces.
const NAMED: &str = "/run/netns";
/// NSFS_MAGIC (include/uapi/linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;
/// The most namespaces, and at most an eighth of what RLIMIT_NOFILE grants: two look for them, and each keeps a descriptor of
/// each.
const MOST: u64 = 1024;
/// The most processes that are asked for theirs.
const MOST_PROCESSES: usize = 1 << 20;

/// Other namespaces than the calling thread's.
#[derive(Debug, Default)]
pub struct Others {
    /// Those that can be entered.
    pub files: Vec<File>,
    /// More than [`MOST`] there were.
    pub too_many: bool,
}

/// Finds them: those that processes live in, as `proc` shows them, and those that have a name.
pub fn others(proc: &Path) -> Others {
    let most = getrlimit(Resource::Nofile).current.map_or(MOST, |limit| MOST.min(limit / 8)) as usize;
    let mut seen = HashSet::new();
    if let Ok(own) = fs::metadata("/proc/thread-self/ns/net") {
        seen.insert((own.dev(), own.ino()));
    }
    let mut others = Others::default();
    let processes = fs::read_dir(proc).into_iter().flatten().flatten().take(MOST_PROCESSES);
    let is_process = |name: &std::ffi::OsStr| name.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit);
    let of_processes = processes.filter(|e| is_process(&e.file_name())).map(|e| e.path().join("ns/net"));
    let named = fs::read_dir(NAMED).into_iter().flatten().flatten().map(|e| e.path());
    for path in of_processes.chain(named.take(MOST_PROCESSES)) {
        add(path, &mut seen, &mut others, most);
    }
    others
}

fn add(path: PathBuf, seen: &mut HashSet<(u64, u64)>, others: &mut Others, most: usize) {
    // Gone meanwhile, or not to be read: then it is another user's, and could not be entered either.
    let Ok(found) = fs::metadata(&path) else { return };
    if !seen.insert((found.dev(), found.ino())) {
        return;
    }
    if others.files.len() >= most {
        others.too_many = true;
    } else if let Ok(file) = File::open(&path)
        // The process may have moved between two looks.
        && file.metadata().is_ok_and(|m| (m.dev(), m.ino()) == (found.dev(), found.ino()))
        && rustix::fs::fstatfs(&file).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(NSFS_MAGIC))
    {
        others.files.push(file);
    }
}

/// Moves the calling thread into a namespace: only for a thread that ends soon.
///
/// # Errors
/// CAP_SYS_ADMIN is missing.
pub fn enter(namespace: &File) -> rustix::io::Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
}
