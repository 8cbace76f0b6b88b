//! A queue's directory as it is, for people and programs: a path goes in; segments and batches come out. Reads only, works
//! on a directory in use and on a copy. Must never change a file, or end because of what is in one.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::disk::{
    directory::{self, Holder, acks_name, list, read_acks, segment_name},
    files::Directory,
    segment::{self, HEADER, Head, ReadAt as _, Scan, Stretch},
};
use crate::record::Batch;

/// A directory, before its files are read.
#[derive(Debug)]
pub struct Survey {
    /// The directory.
    pub path: PathBuf,
    directory: Directory,
    /// Who has it now.
    pub holder: Option<Holder>,
    /// Segments by the sequences of their first batches, with their sizes.
    pub segments: Vec<(u64, u64)>,
    /// Some names that are not the queue's.
    pub foreign: Vec<String>,
    /// How many there are of those.
    pub foreign_count: usize,
    /// The file whose lock is the directory's is there.
    locked: bool,
}

/// What was met in a segment.
#[derive(Debug)]
pub enum Met {
    /// A batch.
    Batch {
        /// Its place in the order of writing.
        sequence: u64,
        /// Records in it.
        records: u32,
        /// The earliest record's time, nanoseconds since the Unix epoch.
        first: u64,
        /// The latest record's time.
        last: u64,
        /// Bytes of its payload.
        bytes: u32,
        /// Its fate is known: it does not go out any more.
        settled: bool,
        /// Its bytes, or why they can't be had; `None` where they were not asked for.
        read: Option<io::Result<Batch>>,
    },
    /// Something is wrong; the text says what and where.
    Damage(String),
    /// The last batch of a directory in use is not whole: it may be being written.
    Unfinished,
}

/// Which payloads are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// None: headers only.
    None,
    /// Those of batches that wait.
    Waiting,
    /// All.
    All,
}

impl Survey {
    /// Looks at a directory.
    ///
    /// # Errors
    /// It can't be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        let directory = Directory::open(path)?;
        let holder = directory::holder(&directory);
        let listing = list(&directory)?;
        let size = |first: &u64| directory.size(&segment_name(*first)).unwrap_or(0);
        let segments = listing.segments.iter().map(|first| (*first, size(first))).collect();
        let (foreign, foreign_count) = (listing.foreign, listing.foreign_count);
        let locked = directory::has_lock(&directory);
        Ok(Self { locked, path: path.to_owned(), directory, holder, segments, foreign, foreign_count })
    }

    /// Whether this is the directory of a queue: one of its files is there, or nothing at all.
    pub fn is_queue(&self) -> bool {
        self.holder.is_some() || !self.segments.is_empty() || self.locked || self.foreign_count == 0
    }

    /// The bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Goes through a segment. One that went away meanwhile is passed over.
    ///
    /// # Errors
    /// Those of `each` alone.
    pub fn walk<E>(&self, first: u64, read: Read, mut each: impl FnMut(Met) -> Result<(), E>) -> Result<(), E> {
        // Before the batches: what is settled meanwhile shows as waiting, not the other way round.
        let settled = read_acks(self.directory.read(&acks_name(first)));
        let file = match self.directory.read(&segment_name(first)).and_then(|file| Ok((file.metadata()?.len(), file))) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return each(Met::Damage(format!("cannot be read: {e}"))),
        };
        let (end, file) = file;
        let last = self.segments.last().is_some_and(|(last, _)| *last == first);
        let growing = self.holder.is_some() && last;
        let mut bytes = [0; HEADER];
        let start = match file.fill(&mut bytes, 0).map(|()| segment::head(&bytes)) {
            Ok(head @ Head::Sound(_)) => segment::start(first, head),
            Ok(Head::Version(version)) => {
                return each(Met::Damage(format!("has version {version} of the format, which is not known here")));
            }
            Err(_) if growing => return each(Met::Unfinished),
            Ok(Head::Damaged) | Err(_) => {
                each(Met::Damage("the header is damaged".into()))?;
                segment::start(first, Head::Damaged)
            }
        };
        for stretch in Scan::from(&file, end, start) {
            match stretch {
                Ok(Stretch::Batch { entry, at }) => {
                    let segment::Entry { sequence, records, first, last, length, .. } = entry;
                    let settled = entry.is_empty() || settled.binary_search(&sequence).is_ok();
                    let wanted = read == Read::All || read == Read::Waiting && !settled;
                    let read = wanted.then(|| segment::read(&file, at, sequence, length));
                    each(Met::Batch { sequence, records, first, last, bytes: length, settled, read })?;
                }
                Ok(Stretch::Damaged { at, batches, .. }) => {
                    each(Met::Damage(format!("{batches} batches are damaged from byte {at} on")))?;
                }
                Ok(Stretch::Torn { .. }) if growing => each(Met::Unfinished)?,
                Ok(Stretch::Torn { at, entry, .. }) => {
                    let records = entry.map(|entry| format!(" of {} records", entry.records)).unwrap_or_default();
                    each(Met::Damage(format!("the last batch{records} is torn or damaged, from byte {at} on")))?;
                }
                Err(e) => each(Met::Damage(format!("cannot be read: {e}")))?,
            }
        }
        Ok(())
    }
}
