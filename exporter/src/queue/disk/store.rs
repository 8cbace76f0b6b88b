//! The files of the queue: batches, acknowledgements and removals go in, and are on the disk when the call returns. Used by
//! the queue's own thread alone.
//!
//! Must never say that a batch is on the disk before fsync has said so, or trust a file again whose fsync failed: the
//! kernel may have thrown away what it could not write. Such a file is cut back to what was synced before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::{Path, PathBuf},
};

use super::{
    acks::{self, ACK},
    directory::{Lock, OpenError, acks_path, segment_path},
    files::Files,
    recover::{Recovery, Slot, recover},
    segment::{self, ENTRY, Entry, HEADER},
};
use crate::record::Batch;

/// Acknowledgement files that are kept open.
const OPEN_ACKS: usize = 8;

/// The directory, and what is open in it.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    files: Files,
    lock: Lock,
    segment_bytes: u64,
    /// The sequence of the next batch.
    next: u64,
    active: Option<Active>,
    acks: BTreeMap<u64, Acks>,
    /// A file whose end can't be trusted, and how long it may be: cut before anything else is written.
    doubtful: Option<(u64, u64)>,
}

/// The segment that batches are appended to.
#[derive(Debug)]
struct Active {
    first: u64,
    path: PathBuf,
    file: File,
    length: u64,
    synced: u64,
    /// Whether the directory knows it after a crash.
    named: bool,
}

#[derive(Debug)]
struct Acks {
    path: PathBuf,
    file: File,
    length: u64,
    dirty: bool,
}

// === impl Store

impl Store {
    /// Takes the directory, and looks at what is in it.
    pub(super) fn open(
        directory: &Path,
        files: &Files,
        segment_bytes: u64,
        known: &BTreeSet<u64>,
    ) -> Result<(Self, Recovery), OpenError> {
        let lock = Lock::take(directory, files)?;
        let recovery = recover(directory, files, known).map_err(|source| OpenError::Io {
            what: "cannot read the queue's directory",
            path: directory.to_owned(),
            source,
        })?;
        let store = Self {
            directory: directory.to_owned(),
            files: files.clone(),
            lock,
            segment_bytes,
            next: recovery.next,
            active: None,
            acks: BTreeMap::new(),
            doubtful: None,
        };
        Ok((store, recovery))
    }

    /// Whether the directory is still the one that was opened.
    pub(super) fn is_in_place(&self) -> bool {
        self.lock.is_in_place()
    }

    /// The segment that batches are appended to.
    pub(super) fn active(&self) -> Option<u64> {
        self.active.as_ref().map(|active| active.first)
    }

    /// Appends batches, as many as can be, and syncs. `written` gets, in order, where each is that is on the disk now,
    /// whether or not an error kept the rest from it.
    pub(super) fn write<'a>(
        &mut self,
        batches: impl IntoIterator<Item = &'a Batch>,
        written: &mut Vec<Slot>,
    ) -> io::Result<()> {
        self.mend()?;
        let mut unsynced = Vec::new();
        let mut outcome = Ok(());
        for batch in batches {
            match self.append(batch, &mut unsynced, written) {
                Ok(slot) => unsynced.push(slot),
                Err(e) => {
                    outcome = Err(e);
                    break;
                }
            }
        }
        if self.doubtful.is_none() {
            self.sync_active()?;
            written.append(&mut unsynced);
        }
        outcome
    }

    fn append(&mut self, batch: &Batch, unsynced: &mut Vec<Slot>, written: &mut Vec<Slot>) -> io::Result<Slot> {
        let entry = Entry::of(batch, self.next).ok_or(io::ErrorKind::InvalidInput)?;
        let full = |active: &Active| active.length > HEADER as u64 && active.length + entry.size() > self.segment_bytes;
        if self.active.as_ref().is_some_and(full) {
            self.sync_active()?;
            written.append(unsynced);
            self.active = None;
        }
        if self.active.is_none() {
            self.active = Some(self.create()?);
        }
        let Some(active) = &mut self.active else { return Err(io::ErrorKind::NotFound.into()) };
        let at = active.length;
        let write = |bytes: &[u8], at| self.files.write(&active.path, &active.file, bytes, at);
        if let Err(e) = write(&entry.encode(), at).and_then(|()| write(&batch.bytes, at + ENTRY as u64)) {
            // Half a batch would read as a torn one.
            if self.files.cut(&active.path, at).is_err() {
                self.doubt();
            }
            return Err(e);
        }
        active.length += entry.size();
        self.next += 1;
        let Entry { sequence, length, records, .. } = entry;
        Ok(Slot { segment: active.first, sequence, at, length, records })
    }

    fn create(&mut self) -> io::Result<Active> {
        let first = self.next;
        let path = segment_path(&self.directory, first);
        let made = self.files.create(&path).and_then(|file| {
            self.files.write(&path, &file, &segment::header(first), 0)?;
            self.open_acks(first)?;
            Ok(file)
        });
        match made {
            Ok(file) => Ok(Active { first, path, file, length: HEADER as u64, synced: 0, named: false }),
            Err(e) => {
                if e.kind() == io::ErrorKind::AlreadyExists {
                    // Not ours, and not to be touched.
                    self.next += 1;
                } else {
                    self.acks.remove(&first);
                    // An empty one that stays is removed at the next start.
                    let _ =
                        self.files.remove(&path).and_then(|()| self.files.remove(&acks_path(&self.directory, first)));
                    self.next += 1;
                }
                Err(e)
            }
        }
    }

    fn sync_active(&mut self) -> io::Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        if active.synced == active.length {
            return Ok(());
        }
        let synced = self
            .files
            .sync(&active.path, &active.file)
            .and_then(|()| if active.named { Ok(()) } else { self.files.sync_directory(&self.directory) });
        match synced {
            Ok(()) => {
                (active.named, active.synced) = (true, active.length);
                Ok(())
            }
            Err(e) => {
                self.doubt();
                Err(e)
            }
        }
    }

    /// The active segment holds no more than what was synced; nothing is appended to it any more.
    fn doubt(&mut self) {
        if let Some(active) = self.active.take() {
            self.doubtful = Some((active.first, active.synced));
        }
    }

    /// Cuts what can't be trusted. Must succeed before the same batches are written again: they would be there twice.
    pub(super) fn mend(&mut self) -> io::Result<()> {
        let Some((first, length)) = self.doubtful else { return Ok(()) };
        if length <= HEADER as u64 {
            self.remove(first)?;
        } else {
            match self.files.cut(&segment_path(&self.directory, first), length) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        self.doubtful = None;
        Ok(())
    }

    /// Writes that a batch is settled. It survives the end of this process from now on, and that of the system from
    /// [`Store::sync_acks`] on.
    pub(super) fn acknowledge(&mut self, segment: u64, sequence: u64) -> io::Result<()> {
        if !self.acks.contains_key(&segment) {
            self.open_acks(segment)?;
        }
        let Some(acks) = self.acks.get_mut(&segment) else { return Err(io::ErrorKind::NotFound.into()) };
        self.files.write(&acks.path, &acks.file, &acks::ack(sequence), acks.length)?;
        acks.length += ACK as u64;
        acks.dirty = true;
        Ok(())
    }

    /// Syncs all acknowledgements.
    pub(super) fn sync_acks(&mut self) -> io::Result<()> {
        for acks in self.acks.values_mut().filter(|acks| acks.dirty) {
            self.files.sync(&acks.path, &acks.file)?;
            acks.dirty = false;
        }
        while self.acks.len() > OPEN_ACKS {
            self.acks.pop_first();
        }
        Ok(())
    }

    /// Whether an acknowledgement is not synced.
    pub(super) fn has_unsynced_acks(&self) -> bool {
        self.acks.values().any(|acks| acks.dirty)
    }

    fn open_acks(&mut self, segment: u64) -> io::Result<()> {
        let path = acks_path(&self.directory, segment);
        let file = self.files.reopen(&path)?;
        // A torn one at the end is written over.
        let mut length = file.metadata()?.len() / ACK as u64 * ACK as u64;
        if length == 0 {
            self.files.write(&path, &file, &acks::header(segment), 0)?;
            length = ACK as u64;
        }
        self.acks.insert(segment, Acks { path, file, length, dirty: false });
        Ok(())
    }

    /// Removes a segment. Its acknowledgements go last: without them it would be sent again.
    pub(super) fn remove(&mut self, segment: u64) -> io::Result<()> {
        if self.active() == Some(segment) {
            self.active = None;
        }
        self.files.remove(&segment_path(&self.directory, segment))?;
        if self.doubtful.is_some_and(|(first, _)| first == segment) {
            self.doubtful = None;
        }
        self.files.sync_directory(&self.directory)?;
        self.acks.remove(&segment);
        self.files.remove(&acks_path(&self.directory, segment))
    }

    /// Reads a batch.
    pub(super) fn read(&self, slot: &Slot) -> io::Result<Batch> {
        let file = self.files.open(&segment_path(&self.directory, slot.segment))?;
        segment::read(&file, slot.at, slot.sequence, slot.length)
    }
}
