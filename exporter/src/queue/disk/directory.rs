//! The queue's directory: which files in it are the queue's, and who has it. A path comes in; names, or the exclusive
//! right to write there, come out. Must never open what is no regular file, or touch what is not the queue's.

use std::{
    collections::BTreeSet,
    fmt, fs,
    fs::File,
    io::{self, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::{
    acks,
    files::{self, Files},
    segment::MAX_SEQUENCE,
};

/// The file whose lock is the directory's.
const LOCK: &str = "lock";
/// More acknowledgements than a segment can hold batches.
const MOST_ACKS: u64 = 64 << 20;
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

/// The exclusive right to write in a directory, for as long as it lives.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

/// A segment's file.
pub(in super::super) fn segment_path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("{first:020}.segment"))
}

/// The file of its acknowledgements.
pub(super) fn acks_path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("{first:020}.acks"))
}

/// What is in a directory.
///
/// # Errors
/// As readdir(3).
pub fn list(directory: &Path) -> io::Result<Listing> {
    let (mut listing, mut acks) = (Listing::default(), Vec::new());
    for item in fs::read_dir(directory)? {
        let name = item?.file_name();
        let name = name.to_string_lossy();
        match name.split_once('.').map(|(number, kind)| (sequence(number), kind)) {
            Some((Some(first), "segment")) => listing.segments.push(first),
            Some((Some(first), "acks")) => acks.push(first),
            _ if name == LOCK => {}
            _ => {
                listing.foreign_count += 1;
                if listing.foreign.len() < TOLD {
                    listing.foreign.push(name.into_owned());
                }
            }
        }
    }
    listing.segments.sort_unstable();
    acks.retain(|first| listing.segments.binary_search(first).is_err());
    listing.orphans = acks;
    Ok(listing)
}

/// The settled sequences of a segment, and how many whole places the file has. A file that is missing or can't be read
/// settles nothing: its batches go out once more.
pub(in super::super) fn read_acks(directory: &Path, first: u64) -> BTreeSet<u64> {
    let mut bytes = Vec::new();
    if let Ok(file) = files::open(&acks_path(directory, first)) {
        // What was read before an error counts.
        let _ = file.take(MOST_ACKS).read_to_end(&mut bytes);
    }
    acks::decode(&bytes).collect()
}

/// Who has a directory now, if anybody. Takes nothing, and works without the right to write.
pub fn holder(directory: &Path) -> Option<Holder> {
    let file = files::open(&directory.join(LOCK)).ok()?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => Some(said(&file)),
        _ => None,
    }
}

// === impl Lock

impl Lock {
    /// Makes the directory where it isn't there, and takes it.
    pub(super) fn take(directory: &Path, files: &Files) -> Result<Self, OpenError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { what, path, source }
        };
        Files::make_directory(directory).map_err(failed("cannot make the queue's directory", directory))?;
        let path = directory.join(LOCK);
        let file = files.reopen(&path).map_err(failed("cannot open the queue's lock", &path))?;
        let mut tries = 0;
        while let Err(e) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            tries += 1;
            match e {
                // `flowtel queue` looks by taking it for a moment.
                rustix::io::Errno::WOULDBLOCK if tries < TRIES => std::thread::park_timeout(TRY),
                rustix::io::Errno::WOULDBLOCK => {
                    return Err(OpenError::Held { directory: directory.to_owned(), holder: said(&file) });
                }
                e => return Err(failed("cannot lock", &path)(e.into())),
            }
        }
        // For people only; a disk that takes no number still has its lock.
        let _ = file.set_len(0).and_then(|()| writeln!(&file, "{}", std::process::id()));
        Ok(Self { file, path })
    }

    /// Whether the directory still has this lock's file. It has not after it was removed or another file system was
    /// mounted over it.
    pub(super) fn is_in_place(&self) -> bool {
        match (self.file.metadata(), fs::metadata(&self.path)) {
            (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }
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
