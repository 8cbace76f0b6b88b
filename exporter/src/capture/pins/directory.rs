//! The directory of `capture.pin`, on a BPF file system: a lock, and in it directories with a number for a name. Each is one
//! generation of maps and links: a flowtel that can't use those of the one before makes the next.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{FlockOperation, flock, statfs};

/// BPF_FS_MAGIC (include/uapi/linux/magic.h).
const BPF_FS: u64 = 0xcafe_4a11;

/// Keeps others out as long as it or a copy of it lives.
#[derive(Debug, Clone)]
pub struct Lock(#[expect(dead_code, reason = "it is locked as long as it is open")] Arc<File>);

/// What is wrong with a directory.
#[derive(Debug)]
pub(super) enum Problem {
    /// A flowtel uses it.
    Held,
    /// It can't be used, and why.
    Unfit(String),
}

/// Takes the directory, and makes it where it isn't there.
pub(super) fn take(base: &Path) -> Result<Lock, Problem> {
    match DirBuilder::new().mode(0o700).create(base) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(explain(base, &e)),
    }
    is_fit(base, None)?;
    let directory = File::open(base).map_err(|e| unfit(&e))?;
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(Arc::new(directory))),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Problem::Held),
        Err(e) => Err(unfit(&e.into())),
    }
}

/// Looks whether [`take`] would succeed, also after a change to `user`. Returns whether the directory is there.
pub(super) fn look(base: &Path, user: Option<u32>) -> Result<bool, Problem> {
    if !base.exists() {
        let parent = base.parent().unwrap_or(base);
        let there = statfs(parent).map_err(|e| explain(base, &e.into()))?;
        return if is_bpf(&there) { Ok(false) } else { Err(elsewhere()) };
    }
    is_fit(base, user)?;
    let directory = File::open(base).map_err(|e| unfit(&e))?;
    match flock(&directory, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Problem::Held),
        _ => Ok(true),
    }
}

/// Whether nobody else can put something into it than this user, and the one that it is about to become.
fn is_fit(base: &Path, user: Option<u32>) -> Result<(), Problem> {
    let metadata = fs::symlink_metadata(base).map_err(|e| unfit(&e))?;
    if !metadata.is_dir() {
        return Err(Problem::Unfit("it is not a directory".into()));
    }
    if !is_bpf(&statfs(base).map_err(|e| unfit(&e.into()))?) {
        return Err(elsewhere());
    }
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own && Some(metadata.uid()) != user || metadata.mode() & 0o022 != 0 {
        return Err(Problem::Unfit(format!(
            "others than user {own} may write there (owner {}, mode {:o})",
            metadata.uid(),
            metadata.mode() & 0o7777
        )));
    }
    Ok(())
}

fn is_bpf(there: &rustix::fs::StatFs) -> bool {
    u64::try_from(there.f_type).is_ok_and(|kind| kind == BPF_FS)
}

fn elsewhere() -> Problem {
    Problem::Unfit("it is not on a BPF file system; mount one: mount -t bpf bpf /sys/fs/bpf".into())
}

fn unfit(error: &io::Error) -> Problem {
    Problem::Unfit(error.to_string())
}

/// What can't be made is most often in a place where nothing can.
fn explain(base: &Path, error: &io::Error) -> Problem {
    let there = base.parent().and_then(|parent| statfs(parent).ok());
    if there.is_some_and(|there| !is_bpf(&there)) { elsewhere() } else { unfit(error) }
}

/// Generations, the newest first.
pub(super) fn generations(base: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(base)? {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// Makes the generation after all of `there`.
pub(super) fn make_next(base: &Path, there: &[(u32, PathBuf)]) -> io::Result<PathBuf> {
    let number = there.first().map_or(1, |(newest, _)| newest.wrapping_add(1));
    let path = base.join(number.to_string());
    DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

/// Names of what is pinned in a generation.
pub(super) fn names(generation: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(generation)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
