//! What an earlier run left: a directory goes in; batches that are not settled come out, in the order of their age, and
//! how many are lost. Nothing in the directory makes this fail but the directory itself.

use std::{collections::BTreeSet, io, path::Path};

use super::{
    acks::ACK,
    directory::{self, acks_path, list, segment_path},
    files::{self, Files},
    segment::{self, HEADER, Head, ReadAt as _, Scan, Stretch},
};

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

/// A segment that has batches left.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) segment: u64,
    /// Its size with that of its acknowledgements.
    pub(super) bytes: u64,
    pub(super) batches: Vec<Slot>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    pub(super) segments: Vec<Recovered>,
    /// Lost batches, of which the next says how many records they had where that is known. None that was counted by an
    /// earlier run.
    pub(super) lost_batches: u64,
    pub(super) lost_records: u64,
    /// Sequences to acknowledge, with their segments: so that the next start does not count them again.
    pub(super) settle: Vec<(u64, u64)>,
    /// The first sequence that no file has.
    pub(super) next: u64,
}

/// Looks at all segments but those in `known`, and removes those that have nothing left.
pub(super) fn recover(directory: &Path, files: &Files, known: &BTreeSet<u64>) -> io::Result<Recovery> {
    let listing = list(directory)?;
    if listing.foreign_count > 0 {
        tracing::info!(
            directory = %directory.display(), files = listing.foreign_count, names = ?listing.foreign,
            "files in the queue's directory that are not the queue's are left alone"
        );
    }
    let mut recovery = Recovery::default();
    for first in listing.orphans {
        // One that stays costs nothing but its room.
        let _ = files.remove(&acks_path(directory, first));
    }
    for first in listing.segments {
        recovery.next = recovery.next.max(first + 1);
        if known.contains(&first) {
            continue;
        }
        if let Err(error) = recovery.segment(directory, files, first) {
            tracing::warn!(
                file = %segment_path(directory, first).display(), %error,
                "a segment of the queue can't be read and is left alone"
            );
        }
    }
    Ok(recovery)
}

impl Recovery {
    fn segment(&mut self, directory: &Path, files: &Files, first: u64) -> io::Result<()> {
        let path = segment_path(directory, first);
        let file = files.open(&path)?;
        let end = file.metadata()?.len();
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
        let settled = directory::read_acks(directory, first);
        let acks_bytes = files::open(&acks_path(directory, first)).and_then(|f| f.metadata()).map_or(0, |m| m.len());
        let (mut batches, mut seen, mut damaged) = (Vec::new(), false, false);
        for stretch in Scan::new(&file, end, if let Head::Sound(first) = head { first } else { first }) {
            match stretch? {
                Stretch::Batch { entry, at } => {
                    seen = true;
                    self.next = self.next.max(entry.sequence + 1);
                    if !settled.contains(&entry.sequence) {
                        let segment::Entry { sequence, length, records, .. } = entry;
                        batches.push(Slot { segment: first, sequence, at, length, records });
                    }
                }
                Stretch::Damaged { sequence, batches, .. } => {
                    damaged = true;
                    for sequence in sequence..sequence + batches {
                        self.lost(first, sequence, 0, &settled);
                    }
                }
                Stretch::Torn { sequence, entry, .. } => {
                    seen |= entry.is_some();
                    damaged |= entry.is_none();
                    self.next = self.next.max(sequence + 1);
                    self.lost(first, sequence, entry.map_or(0, |entry| entry.records), &settled);
                }
            }
        }
        if damaged || head == Head::Damaged && end > 0 {
            tracing::warn!(file = %path.display(), "a segment of the queue is damaged; what is sound in it goes on");
        }
        if !seen && head == Head::Damaged && end > HEADER as u64 {
            // Perhaps somebody can make something of it.
            let aside = path.with_extension("segment.damaged");
            tracing::warn!(file = %aside.display(), "a segment without a sound batch is set aside under this name");
            std::fs::rename(&path, &aside)?;
            let _ = files.remove(&acks_path(directory, first));
        } else if batches.is_empty() {
            files.remove(&path)?;
            files.remove(&acks_path(directory, first))?;
        } else {
            // A torn acknowledgement at the end is written over: its room is that of the one which is still to come.
            let acks_bytes = (acks_bytes / ACK as u64).max(1) * ACK as u64;
            // What is lost is acknowledged too.
            let to_come = batches.len() + self.settle.iter().rev().take_while(|(segment, _)| *segment == first).count();
            let bytes = end + acks_bytes + (to_come * ACK) as u64;
            self.segments.push(Recovered { segment: first, bytes, batches });
        }
        Ok(())
    }

    fn lost(&mut self, segment: u64, sequence: u64, records: u32, settled: &BTreeSet<u64>) {
        if !settled.contains(&sequence) {
            self.lost_batches += 1;
            self.lost_records += u64::from(records);
            self.settle.push((segment, sequence));
        }
    }
}
