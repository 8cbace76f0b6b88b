//! What an earlier run left: a directory goes in; batches that are not settled come out, in the order of their age, and
//! how many are lost. Nothing in the directory makes this fail.
//!
//! It goes in steps of a bounded length, so that whoever takes them hears everything else meanwhile. Must never hold more
//! than one segment's acknowledgements and one step's batches, or fill the log, whatever the directory holds.

use std::{fs::File, io, vec};

use super::{
    acks::ACK,
    directory::{Listing, acks_name, read_acks, segment_name},
    files::{Directory, Files},
    segment::{self, FAR_SEQUENCE, HEADER, Head, Mark, ReadAt as _, SPAN, Scan, Stretch},
};

/// Batches a step at most.
const STEP: usize = 1024;
/// Lost batches that are acknowledged, of one segment: more than one of flowtel's can hold.
const MOST_LOST: usize = 1 << 19;
/// Warnings about single files; the end tells how many there were.
const TOLD: u64 = 8;
/// Bytes of st_blocks' unit.
const BLOCK: u64 = 512;

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// Its segment.
    pub(super) segment: u64,
    /// Its sequence.
    pub(super) sequence: u64,
    /// Where its header begins.
    pub(super) at: u64,
    /// Bytes of its payload.
    pub(super) length: u32,
    /// Records in it.
    pub(super) records: u32,
}

/// What a step found in a segment.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) segment: u64,
    /// Bytes of the budget that belong to it and were not given before: of the file, and of its acknowledgements.
    pub(super) bytes: u64,
    pub(super) batches: Vec<Slot>,
    /// Lost batches, of which the next says how many records they had where that is known. None that was counted by an
    /// earlier run.
    pub(super) lost_batches: u64,
    pub(super) lost_records: u64,
    /// Sequences to acknowledge: so that the next start does not count them again.
    pub(super) settle: Vec<u64>,
    /// All of the segment was read.
    pub(super) ended: bool,
}

/// A directory that is being read.
#[derive(Debug)]
pub(super) struct Recovery {
    segments: vec::IntoIter<u64>,
    current: Option<Current>,
    /// Files that could not be read, or are damaged.
    bad: u64,
}

/// The segment that is being read.
#[derive(Debug)]
struct Current {
    first: u64,
    file: File,
    end: u64,
    mark: Mark,
    head: Head,
    settled: Vec<u64>,
    /// A batch was met, sound or torn.
    seen: bool,
    damaged: bool,
    /// Batches of it were given out.
    kept: bool,
    found: Found,
}

/// A sequence from which on no segment of these, in their order, can hold any, for a long way.
pub(super) fn next_sequence(segments: &[u64]) -> u64 {
    let near = segments.partition_point(|first| *first < FAR_SEQUENCE);
    let mut next = near.checked_sub(1).and_then(|last| segments.get(last)).map_or(0, |first| first + SPAN);
    for first in segments.get(near..).unwrap_or_default() {
        if *first >= next.saturating_add(SPAN) {
            break;
        }
        next = first.saturating_add(SPAN);
    }
    next
}

impl Recovery {
    /// Of all segments but those that are known already. Removes acknowledgements without a segment.
    pub(super) fn new(listing: Listing, directory: &Directory, files: &Files, known: impl Fn(u64) -> bool) -> Self {
        let Listing { mut segments, foreign, foreign_count, orphans } = listing;
        if foreign_count > 0 {
            tracing::info!(
                directory = %directory.path().display(), files = foreign_count, names = ?foreign,
                "files in the queue's directory that are not the queue's are left alone"
            );
        }
        for first in orphans {
            // One that stays costs nothing but its room.
            let _ = files.remove(directory, &acks_name(first));
        }
        segments.retain(|first| !known(*first));
        Self { segments: segments.into_iter(), current: None, bad: 0 }
    }

    /// Goes one step on. `None` at the end.
    pub(super) fn step(&mut self, directory: &Directory, files: &Files) -> Option<Found> {
        let mut current = match self.current.take() {
            Some(current) => current,
            None => {
                let first = self.segments.next()?;
                match Current::open(directory, files, first) {
                    Ok(current) => current,
                    Err(error) => return Some(self.unreadable(directory, first, &error)),
                }
            }
        };
        match current.read() {
            Ok(false) => {
                let found = current.give();
                self.current = Some(current);
                Some(found)
            }
            Ok(true) => Some(self.end(directory, files, current)),
            Err(error) => {
                // What was found before goes on; the file stays.
                let told = self.unreadable(directory, current.first, &error);
                let found = std::mem::take(&mut current.found);
                Some(if current.kept || !found.batches.is_empty() {
                    Found { segment: current.first, ..found }
                } else {
                    told
                })
            }
        }
    }

    /// How many files are not as they should be.
    pub(super) fn bad(&self) -> u64 {
        self.bad
    }

    fn may_say(&mut self) -> bool {
        self.bad += 1;
        self.bad <= TOLD
    }

    fn unreadable(&mut self, directory: &Directory, segment: u64, error: &io::Error) -> Found {
        if self.may_say() {
            let file = directory.name(&segment_name(segment));
            tracing::warn!(file = %file.display(), %error, "a segment of the queue can't be read and is left alone");
        }
        Found { segment, ..Found::default() }
    }

    /// A segment was read to its end.
    fn end(&mut self, directory: &Directory, files: &Files, mut current: Current) -> Found {
        let name = segment_name(current.first);
        let is_damaged = current.damaged || current.head == Head::Damaged && current.end > 0;
        if is_damaged && self.may_say() {
            let file = directory.name(&name);
            tracing::warn!(file = %file.display(), "a segment of the queue is damaged; what is sound in it goes on");
        }
        let acks = acks_name(current.first);
        if current.kept || !current.found.batches.is_empty() {
            current.found.ended = true;
        } else {
            let gone = if !current.seen && current.head == Head::Damaged && current.end > HEADER as u64 {
                // Perhaps somebody can make something of it.
                let aside = format!("{name}.damaged");
                if self.bad <= TOLD {
                    let file = directory.name(&aside);
                    tracing::warn!(file = %file.display(), "a segment without a sound batch is set aside under this name");
                }
                files.rename(directory, &name, &aside)
            } else {
                files.remove(directory, &name)
            };
            if let Err(error) = gone.and_then(|()| files.remove(directory, &acks)) {
                self.unreadable(directory, current.first, &error);
            }
        }
        Found { segment: current.first, ..current.found }
    }
}

// === impl Current

impl Current {
    fn open(directory: &Directory, files: &Files, first: u64) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let file = files.open(directory, &segment_name(first))?;
        let metadata = file.metadata()?;
        let end = metadata.len();
        let mut bytes = [0; HEADER];
        let head = match file.fill(&mut bytes, 0) {
            Ok(()) => segment::head(&bytes),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Head::Damaged,
            Err(e) => return Err(e),
        };
        if let Head::Version(version) = head {
            let text = format!("it has version {version} of the format, and this flowtel knows {}", segment::VERSION);
            return Err(io::Error::other(text));
        }
        let acks = files.open(directory, &acks_name(first));
        let acks_bytes = acks.as_ref().ok().and_then(|file| file.metadata().ok()).map_or(0, |m| m.len());
        // A torn acknowledgement at the end is written over: its room is that of the one which is still to come.
        let acks_bytes = (acks_bytes / ACK as u64).max(1) * ACK as u64;
        // Holes take no room.
        let bytes = end.min(metadata.blocks().saturating_mul(BLOCK)) + acks_bytes;
        let settled = read_acks(acks);
        let mark = segment::start(first, head);
        let found = Found { bytes, ..Found::default() };
        Ok(Self { first, file, end, mark, head, settled, seen: false, damaged: false, kept: false, found })
    }

    /// Reads on. Returns whether that was the end.
    fn read(&mut self) -> io::Result<bool> {
        let mut scan = Scan::from(&self.file, self.end, self.mark);
        for _ in 0..STEP {
            let Some(stretch) = scan.next() else { return Ok(true) };
            self.mark = scan.mark();
            let (lost, records) = match stretch? {
                Stretch::Batch { entry, at } => {
                    self.seen = true;
                    let segment::Entry { sequence, length, records, .. } = entry;
                    if !entry.is_empty() && self.settled.binary_search(&sequence).is_err() {
                        self.found.batches.push(Slot { segment: self.first, sequence, at, length, records });
                        self.found.bytes += ACK as u64;
                    }
                    continue;
                }
                Stretch::Damaged { sequence, batches, .. } => {
                    self.damaged = true;
                    (sequence..sequence + batches, 0)
                }
                Stretch::Torn { sequence, entry, .. } => {
                    self.seen |= entry.is_some();
                    self.damaged |= entry.is_none();
                    (sequence..sequence + 1, entry.map_or(0, |entry| entry.records))
                }
            };
            for sequence in lost.filter(|sequence| self.settled.binary_search(sequence).is_err()) {
                self.found.lost_batches += 1;
                self.found.lost_records += u64::from(records);
                if self.found.settle.len() < MOST_LOST {
                    self.found.settle.push(sequence);
                    self.found.bytes += ACK as u64;
                }
            }
        }
        Ok(false)
    }

    /// What was found, once it is known that the segment stays.
    fn give(&mut self) -> Found {
        self.kept |= !self.found.batches.is_empty();
        if self.kept {
            Found { segment: self.first, ..std::mem::take(&mut self.found) }
        } else {
            Found { segment: self.first, ..Found::default() }
        }
    }
}
