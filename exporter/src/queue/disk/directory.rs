//! The queue's directory: which files in it are the queue's, and who has it. A path comes in; names, or the exclusive
//! right to write there, come out. Must never open what is no regular file, touch what is not the queue's, or write where
//! others may.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::{
    acks,
    files::{Directory, Files, Identity},
    segment::MAX_SEQUENCE,
};

/// The file whose lock is the directory's.
const LOCK: &str = "lock";
/// More acknowledgements than a segment can hold batches.
const MOST_ACKS: u64 = 8 << 20;
/// Segments that are listed at most. What is beyond is found when these are gone.
const MOST_SEGMENTS: usize = 1 << 20;
/// How often a lock is tried, and how long after another.
const TRIES: u32 = 5;
const TRY: std::time::Duration = std::time::Duration::from_millis(10);
/// Names of foreign files that are kept to be told.
const TOLD: usize = 8;

/// Why a queue's directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the queue's directory {} is in use by {holder}: stop that one, or set queue.path to another directory",
        directory.display()
    )]
    Held {
        /// The directory.
        directory: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// Others may write there.
    #[error(
        "the queue's directory {} can't be used: {why}; give it to flowtel's user alone (chown, chmod 0700), or set queue.path to \
         a directory within it, which flowtel makes",
        directory.display()
    )]
    Unfit {
        /// The directory.
        directory: PathBuf,
        /// Who may, and why.
        why: String,
    },
    /// The file system refuses.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// The process that has the lock, as far as it said who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(pub Option<u32>);

/// What is in a directory.
#[derive(Debug, Default)]
pub struct Listing {
    /// Segments by their first sequences, ascending.
    pub segments: Vec<u64>,
    /// Some of the names that are not the queue's.
    pub foreign: Vec<String>,
    /// How many there are of those.
    pub foreign_count: usize,
    /// Acknowledgements without their segment.
    pub(super) orphans: Vec<u64>,
}

/// A directory, and the exclusive right to write there for as long as this lives.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) directory: Directory,
    lock: File,
}

/// Where a directory is that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Where it was.
    InPlace,
    /// It is no more.
    Removed,
    /// Another file has the lock's name in it, or none.
    Unlocked,
    /// Its path leads to another one now, or to none: it was moved, or another file system was mounted over it.
    Elsewhere,
}

/// A segment's file.
pub(in super::super) fn segment_name(first: u64) -> String {
    format!("{first:020}.segment")
}

/// The file of its acknowledgements.
pub(in super::super) fn acks_name(first: u64) -> String {
    format!("{first:020}.acks")
}

/// What is in a directory.
///
/// # Errors
/// As readdir(3).
pub(in super::super) fn list(directory: &Directory) -> io::Result<Listing> {
    let (mut listing, mut acks) = (Listing::default(), Vec::new());
    for item in directory.entries()? {
        let item = item?;
        let Ok(name) = item.file_name().to_str() else {
            listing.foreign_count += 1;
            continue;
        };
        let room = listing.segments.len() < MOST_SEGMENTS && acks.len() < MOST_SEGMENTS;
        match name.split_once('.').map(|(number, kind)| (sequence(number), kind)) {
            Some((Some(first), "segment")) if room => listing.segments.push(first),
            Some((Some(first), "acks")) if room => acks.push(first),
            Some((Some(_), "segment" | "acks")) => {}
            _ if matches!(name, LOCK | "." | "..") => {}
            _ => {
                listing.foreign_count += 1;
                if listing.foreign.len() < TOLD {
                    listing.foreign.push(name.to_owned());
                }
            }
        }
    }
    listing.segments.sort_unstable();
    if listing.segments.len() < MOST_SEGMENTS {
        acks.retain(|first| listing.segments.binary_search(first).is_err());
        listing.orphans = acks;
    }
    Ok(listing)
}

/// The settled sequences of a segment, ascending. A file that is missing or can't be read settles nothing: its batches go
/// out once more.
pub(in super::super) fn read_acks(file: io::Result<File>) -> Vec<u64> {
    let mut bytes = Vec::new();
    if let Ok(file) = file {
        // What was read before an error counts.
        let _ = file.take(MOST_ACKS).read_to_end(&mut bytes);
    }
    let mut settled: Vec<_> = acks::decode(&bytes).collect();
    settled.sort_unstable();
    settled
}

/// Whether a queue was ever in this directory: the lock's file stays.
pub(in super::super) fn has_lock(directory: &Directory) -> bool {
    directory.read(LOCK).is_ok()
}

/// Who has a directory now, if anybody. Takes nothing, and works without the right to write.
pub(in super::super) fn holder(directory: &Directory) -> Option<Holder> {
    let file = directory.read(LOCK).ok()?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => Some(said(&file)),
        _ => None,
    }
}

// === impl Ground

impl Ground {
    /// Makes the directory where it isn't there, and takes it.
    pub(super) fn take(path: &Path, files: &Files) -> Result<Self, OpenError> {
        Directory::make(path).map_err(failed("cannot make the queue's directory", path))?;
        Self::take_there(path, files)
    }

    /// Takes a directory that is there.
    pub(super) fn take_there(path: &Path, files: &Files) -> Result<Self, OpenError> {
        let cannot = "cannot open the queue's directory";
        let directory = Directory::open(path).map_err(failed(cannot, path))?;
        if let Some(why) = directory.is_open_to_others().map_err(failed(cannot, path))? {
            return Err(OpenError::Unfit { directory: path.to_owned(), why });
        }
        let lock = lock(&directory, files)?;
        Ok(Self { directory, lock })
    }

    /// Locks the directory once more, whose lock was removed.
    pub(super) fn lock_again(&mut self, files: &Files) -> Result<(), OpenError> {
        self.lock = lock(&self.directory, files)?;
        Ok(())
    }

    /// Where the directory is now.
    pub(super) fn standing(&self) -> Standing {
        let there = Directory::open(self.directory.path()).and_then(|there| there.identity()).ok();
        if self.directory.is_removed() {
            Standing::Removed
        } else if there.is_none() || there != self.directory.identity().ok() {
            Standing::Elsewhere
        } else if self.lock.metadata().ok().map(|m| Identity::of(&m)) != self.directory.identity_of(LOCK).ok() {
            Standing::Unlocked
        } else {
            Standing::InPlace
        }
    }
}

fn lock(directory: &Directory, files: &Files) -> Result<File, OpenError> {
    let path = directory.name(LOCK);
    let file = files.reopen(directory, LOCK).map_err(failed("cannot open the queue's lock", &path))?;
    let mut tries = 0;
    while let Err(e) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        tries += 1;
        match e {
            // `flowtel queue` looks by taking it for a moment.
            rustix::io::Errno::WOULDBLOCK if tries < TRIES => std::thread::park_timeout(TRY),
            rustix::io::Errno::WOULDBLOCK => {
                return Err(OpenError::Held { directory: directory.path().to_owned(), holder: said(&file) });
            }
            e => return Err(failed("cannot lock", &path)(e.into())),
        }
    }
    // For people only; a disk that takes no number still has its lock.
    let _ = file.set_len(0).and_then(|()| writeln!(&file, "{}", std::process::id()));
    Ok(file)
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { what, path, source }
}

// === impl Holder

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}

/// Twenty digits.
fn sequence(name: &str) -> Option<u64> {
    let digits = name.len() == 20 && name.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| name.parse().ok())?.filter(|first| *first <= MAX_SEQUENCE)
}

fn said(file: &File) -> Holder {
    let mut text = String::new();
    let read = file.take(32).read_to_string(&mut text);
    Holder(read.ok().and_then(|_| text.trim().parse().ok()))
}
