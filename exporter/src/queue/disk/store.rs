//! The files of the queue: batches, acknowledgements and removals go in, and are on the disk when the call returns. Used by
//! the queue's own thread alone.
//!
//! Must never say that a batch is on the disk before fsync has said so, or trust a file again whose fsync failed: the
//! kernel may have thrown away what it could not write. Such a file is cut back to what was synced before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::Path,
};

use super::{
    acks::{self, ACK},
    directory::{Ground, Listing, OpenError, Standing, acks_name, list, segment_name},
    files::{Directory, Files, Identity},
    recover::{Slot, next_sequence},
    segment::{self, ENTRY, Entry, HEADER},
};
use crate::record::Batch;

/// Acknowledgement files that are kept open.
const OPEN_ACKS: usize = 8;

/// The directory, and what is open in it.
#[derive(Debug)]
pub(super) struct Store {
    ground: Ground,
    /// The directory before, which another one has replaced: what waited there is still read, for as long as it can be.
    former: Option<Former>,
    files: Files,
    segment_bytes: u64,
    /// The sequence of the next batch.
    next: u64,
    active: Option<Active>,
    acks: BTreeMap<u64, Acks>,
    /// A file whose end can't be trusted, and how long it may be: cut before anything else is written.
    doubtful: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Former {
    ground: Ground,
    segments: BTreeSet<u64>,
}

/// The segment that batches are appended to.
#[derive(Debug)]
struct Active {
    first: u64,
    name: String,
    file: File,
    length: u64,
    synced: u64,
    /// Whether the directory knows it after a crash.
    named: bool,
}

#[derive(Debug)]
struct Acks {
    name: String,
    file: File,
    length: u64,
    dirty: bool,
}

/// The directory that a segment is in: one that was replaced, or the one that is written to.
fn directory_of<'a>(former: Option<&'a Former>, ground: &'a Ground, segment: u64) -> &'a Directory {
    let former = former.filter(|former| former.segments.contains(&segment));
    &former.map_or(ground, |former| &former.ground).directory
}

// === impl Store

impl Store {
    /// Takes the directory. What is in it must be listed before anything is written.
    pub(super) fn open(directory: &Path, files: &Files, segment_bytes: u64) -> Result<Self, OpenError> {
        Ok(Self {
            ground: Ground::take(directory, files)?,
            former: None,
            files: files.clone(),
            segment_bytes,
            next: 0,
            active: None,
            acks: BTreeMap::new(),
            doubtful: None,
        })
    }

    /// What is in the directory. New batches come behind all of it.
    pub(super) fn list(&mut self) -> io::Result<Listing> {
        let listing = list(&self.ground.directory)?;
        self.next = self.next.max(next_sequence(&listing.segments));
        Ok(listing)
    }

    /// Where the directory is now.
    pub(super) fn standing(&self) -> Standing {
        self.ground.standing()
    }

    /// Locks the directory once more, whose lock was removed.
    pub(super) fn lock_again(&mut self) -> Result<(), OpenError> {
        self.ground.lock_again(&self.files)
    }

    /// Goes on in the directory that is at the path now, where there is one; it is made where the one before was removed.
    /// The `segments` of that one are read where they are, if it still is. Returns which of all that are known are in the
    /// directory that is written to now.
    pub(super) fn move_on(&mut self, segments: BTreeSet<u64>) -> Result<BTreeSet<u64>, OpenError> {
        let path = self.ground.directory.path().to_owned();
        let back = self.former.as_ref().is_some_and(|former| {
            Directory::open(&path).and_then(|there| there.identity()).ok() == former.ground.directory.identity().ok()
        });
        let removed = self.ground.standing() == Standing::Removed;
        let (ground, here) = match self.former.take_if(|_| back) {
            Some(former) => (former.ground, former.segments),
            None => {
                let take = if removed { Ground::take } else { Ground::take_there };
                (take(&path, &self.files)?, BTreeSet::new())
            }
        };
        let before = std::mem::replace(&mut self.ground, ground);
        let segments = &segments - &here;
        // One that was removed holds nothing, but the one before it may.
        if !removed && !segments.is_empty() {
            self.former = Some(Former { ground: before, segments });
        }
        (self.active, self.doubtful) = (None, None);
        self.acks.clear();
        Ok(here)
    }

    /// Whether a segment is in the directory before: what fails there is no matter of the one that is written to.
    pub(super) fn is_stray(&self, segment: u64) -> bool {
        self.former.as_ref().is_some_and(|former| former.segments.contains(&segment))
    }

    /// The directory that a segment is in.
    pub(super) fn directory_of(&self, segment: u64) -> &Directory {
        directory_of(self.former.as_ref(), &self.ground, segment)
    }

    /// The directory that is written to.
    pub(super) fn directory(&self) -> &Directory {
        &self.ground.directory
    }

    /// Whether a segment has its name in it. A look that fails proves nothing.
    pub(super) fn has(&self, segment: u64) -> bool {
        let there = self.ground.directory.size(&segment_name(segment));
        !there.is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
    }

    /// Files of acknowledgements that were removed are made again with the next one.
    pub(super) fn drop_nameless(&mut self) {
        let Self { acks, former, ground, .. } = self;
        acks.retain(|segment, acks| {
            let directory = directory_of(former.as_ref(), ground, *segment);
            acks.file.metadata().ok().map(|m| Identity::of(&m)) == directory.identity_of(&acks.name).ok()
        });
    }

    /// A segment is gone, and is not written to any more.
    pub(super) fn forget(&mut self, segment: u64) {
        self.active.take_if(|active| active.first == segment);
        self.doubtful.take_if(|(first, _)| *first == segment);
        self.acks.remove(&segment);
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
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
            self.finish_active(unsynced, written)?;
        }
        match self.append_here(batch, &entry) {
            // The process may not make files as long as the queue would (RLIMIT_FSIZE): shorter ones do.
            Err(e)
                if e.kind() == io::ErrorKind::FileTooLarge
                    && self.active.as_ref().is_some_and(|active| active.length > HEADER as u64) =>
            {
                self.finish_active(unsynced, written)?;
                self.append_here(batch, &entry)
            }
            other => other,
        }
    }

    /// Nothing is appended to the active segment any more: what is in it is synced.
    fn finish_active(&mut self, unsynced: &mut Vec<Slot>, written: &mut Vec<Slot>) -> io::Result<()> {
        self.sync_active()?;
        written.append(unsynced);
        self.active = None;
        Ok(())
    }

    fn append_here(&mut self, batch: &Batch, entry: &Entry) -> io::Result<Slot> {
        if self.active.is_none() {
            self.active = Some(self.create()?);
        }
        let Some(active) = &mut self.active else { return Err(io::ErrorKind::NotFound.into()) };
        let at = active.length;
        let directory = &self.ground.directory;
        let write = |bytes: &[u8], at| self.files.write(directory, &active.name, &active.file, bytes, at);
        if let Err(e) = write(&entry.encode(), at).and_then(|()| write(&batch.bytes, at + ENTRY as u64)) {
            // Half a batch would read as a torn one.
            if self.files.cut(directory, &active.name, at).is_err() {
                self.doubt();
            }
            return Err(e);
        }
        active.length += entry.size();
        self.next += 1;
        let Entry { sequence, length, records, .. } = *entry;
        Ok(Slot { segment: active.first, sequence, at, length, records })
    }

    fn create(&mut self) -> io::Result<Active> {
        let first = self.next;
        let name = segment_name(first);
        let directory = &self.ground.directory;
        let made = self.files.create(directory, &name).and_then(|file| {
            self.files.write(directory, &name, &file, &segment::header(first), 0)?;
            Ok(file)
        });
        let made = made.and_then(|file| self.open_acks(first).map(|()| file));
        self.next += 1;
        match made {
            Ok(file) => {
                self.next = first;
                Ok(Active { first, name, file, length: HEADER as u64, synced: 0, named: false })
            }
            // Not ours, and not to be touched.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(e),
            Err(e) => {
                self.acks.remove(&first);
                let directory = &self.ground.directory;
                // An empty one that stays is removed at the next start.
                let _ =
                    self.files.remove(directory, &name).and_then(|()| self.files.remove(directory, &acks_name(first)));
                Err(e)
            }
        }
    }

    fn sync_active(&mut self) -> io::Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        if active.synced == active.length {
            return Ok(());
        }
        let directory = &self.ground.directory;
        let synced = self
            .files
            .sync(directory, &active.name, &active.file)
            .and_then(|()| if active.named { Ok(()) } else { self.files.sync_directory(directory) });
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
            match self.files.cut(&self.ground.directory, &segment_name(first), length) {
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
        let directory = directory_of(self.former.as_ref(), &self.ground, segment);
        self.files.write(directory, &acks.name, &acks.file, &acks::ack(sequence), acks.length)?;
        acks.length += ACK as u64;
        acks.dirty = true;
        Ok(())
    }

    /// Syncs all acknowledgements. Of those in a directory that was replaced, as far as it lets itself be written.
    pub(super) fn sync_acks(&mut self) -> io::Result<()> {
        let Self { acks, former, files, ground, .. } = self;
        for (segment, acks) in acks.iter_mut().filter(|(_, acks)| acks.dirty) {
            match former.as_ref().filter(|former| former.segments.contains(segment)) {
                Some(former) => _ = files.sync(&former.ground.directory, &acks.name, &acks.file),
                None => files.sync(&ground.directory, &acks.name, &acks.file)?,
            }
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
        let (name, directory) = (acks_name(segment), self.directory_of(segment));
        let file = self.files.reopen(directory, &name)?;
        // A torn one at the end is written over.
        let mut length = file.metadata()?.len() / ACK as u64 * ACK as u64;
        if length == 0 {
            self.files.write(directory, &name, &file, &acks::header(segment), 0)?;
            length = ACK as u64;
        }
        self.acks.insert(segment, Acks { name, file, length, dirty: false });
        Ok(())
    }

    /// Removes a segment. Its acknowledgements go last: without them it would be sent again.
    pub(super) fn remove(&mut self, segment: u64) -> io::Result<()> {
        if self.active() == Some(segment) {
            self.active = None;
        }
        self.files.remove(self.directory_of(segment), &segment_name(segment))?;
        if self.doubtful.is_some_and(|(first, _)| first == segment) {
            self.doubtful = None;
        }
        self.files.sync_directory(self.directory_of(segment))?;
        self.acks.remove(&segment);
        self.files.remove(self.directory_of(segment), &acks_name(segment))?;
        if let Some(former) = &mut self.former {
            former.segments.remove(&segment);
            if former.segments.is_empty() {
                self.former = None;
            }
        }
        Ok(())
    }

    /// Reads a batch.
    pub(super) fn read(&self, slot: &Slot) -> io::Result<Batch> {
        let (name, directory) = (segment_name(slot.segment), self.directory_of(slot.segment));
        match self.active.as_ref().filter(|active| active.first == slot.segment) {
            // Also where its name was removed.
            Some(active) => {
                self.files.reads(directory, &name)?;
                segment::read(&active.file, slot.at, slot.sequence, slot.length)
            }
            None => {
                let file = self.files.open(directory, &name)?;
                segment::read(&file, slot.at, slot.sequence, slot.length)
            }
        }
    }
}
