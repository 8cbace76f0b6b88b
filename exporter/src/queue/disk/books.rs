//! Which batches there are, where each is, and what the budgets allow: calls of the capture thread, of export and of the
//! queue's own thread go in; what was lost, and what is to be done on the disk, comes out. `room` decides what the budgets
//! allow; `files` has the calls of the queue's thread, and `ground` those for when files are not where they were.
//!
//! Everything here is a few map operations under one lock. Must never do I/O, or lose a record without returning it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{
    super::{Left, Position, Waiting},
    recover::Slot,
};
use crate::record::Batch;

mod files;
mod ground;
mod room;

pub(super) use room::Limits;
use room::{cost, size};

/// What this run pushes is younger than all that was found.
const THIS_RUN: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Books {
    limits: Limits,
    /// Pushes of this run.
    pushes: u64,
    /// Directories that were taken over; their batches are older than this run's.
    adoptions: u32,
    waiting: BTreeMap<Position, Place>,
    leased: BTreeMap<Position, Place>,
    /// Batches in files whose halves are in memory, by their own positions: the halves' follow.
    splits: BTreeMap<Position, Split>,
    segments: BTreeMap<u64, Segment>,
    /// Batches that are in files and in memory too.
    loaded: BTreeMap<Position, Batch>,
    loaded_bytes: u64,
    /// Batches that are in memory alone.
    unwritten: BTreeSet<Position>,
    /// What they need on the disk.
    unwritten_bytes: u64,
    /// Payloads of those and of halves.
    memory_bytes: u64,
    disk_bytes: u64,
    records: u64,
    durable_records: u64,
    /// When the oldest unwritten batch came.
    pub(super) since: Option<Instant>,
    /// Segments to remove.
    dead: Vec<u64>,
    /// Batches to acknowledge.
    settled: Vec<Slot>,
    /// The segment that is appended to. It stays when all its batches are settled, until its room is needed.
    active: Option<u64>,
    /// The queue's thread is appending: what it appends is not in `segments` yet.
    writing: bool,
    pub(super) closed: bool,
    pub(super) finishing: bool,
    /// The queue's thread does nothing any more.
    pub(super) finished: bool,
    /// What an earlier run left is being looked for: what this run pushed waits, for it is younger.
    pub(super) recovering: bool,
}

/// Where a batch is.
#[derive(Debug)]
enum Place {
    /// In memory alone.
    Memory(Box<Batch>),
    /// In memory, and as part of a batch in a file.
    Half(Box<Batch>),
    /// In a file.
    Disk(Slot),
}

#[derive(Debug)]
struct Split {
    slot: Slot,
    /// Halves, and halves of halves, that are left.
    left: u32,
}

#[derive(Debug, Default)]
struct Segment {
    bytes: u64,
    /// Batches that are not settled.
    live: u32,
    /// Of those: leased, or split. Such a segment is not dropped.
    pinned: u32,
    /// It is still being read: it may hold more than is known. It is neither dropped nor removed.
    open: bool,
    /// It is not where the next run will look: what is in it is not durable.
    stray: bool,
}

// === impl Books

impl Books {
    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            pushes: 0,
            adoptions: 0,
            waiting: BTreeMap::new(),
            leased: BTreeMap::new(),
            splits: BTreeMap::new(),
            segments: BTreeMap::new(),
            loaded: BTreeMap::new(),
            loaded_bytes: 0,
            unwritten: BTreeSet::new(),
            unwritten_bytes: 0,
            memory_bytes: 0,
            disk_bytes: 0,
            records: 0,
            durable_records: 0,
            since: None,
            dead: Vec::new(),
            settled: Vec::new(),
            active: None,
            writing: false,
            closed: false,
            finishing: false,
            finished: false,
            recovering: false,
        }
    }

    // === from the capture thread

    /// Takes a batch in. Returns how many records had to go for it, or with it.
    pub(super) fn push(&mut self, batch: Batch, now: Instant) -> u64 {
        let mut dropped = 0;
        if !self.make_room(&batch, &mut dropped) {
            return dropped + u64::from(batch.records);
        }
        let at = Position { run: THIS_RUN, push: self.pushes, record: 0 };
        self.pushes += 1;
        self.records += u64::from(batch.records);
        self.keep_in_memory(at, batch);
        self.since.get_or_insert(now);
        dropped
    }

    fn keep_in_memory(&mut self, at: Position, batch: Batch) {
        self.memory_bytes += size(&batch);
        self.unwritten_bytes += cost(&batch);
        self.unwritten.insert(at);
        self.waiting.insert(at, Place::Memory(Box::new(batch)));
    }

    // === from export

    /// The oldest waiting batch, unless it must be read first.
    pub(super) fn lease(&mut self) -> Option<(Position, Batch)> {
        let (at, place) = self.waiting.first_key_value()?;
        if self.recovering && at.run == THIS_RUN {
            return None;
        }
        let (at, batch) = match place {
            Place::Memory(batch) | Place::Half(batch) => (*at, Batch::clone(batch)),
            Place::Disk(_) => (*at, self.loaded.get(at)?.clone()),
        };
        let place = self.waiting.remove(&at)?;
        if let Place::Disk(slot) = &place {
            self.pin(slot.segment);
        }
        self.leased.insert(at, place);
        Some((at, batch))
    }

    /// A leased batch's fate is known. Returns its records, 0 where the queue has counted them already.
    pub(super) fn done(&mut self, at: Position) -> u32 {
        let Some(place) = self.leased.remove(&at) else { return 0 };
        if let Place::Disk(slot) = &place {
            self.unpin(slot.segment);
        }
        self.forget(at, place)
    }

    pub(super) fn give_back(&mut self, at: Position) {
        let Some(place) = self.leased.remove(&at) else { return };
        if let Place::Disk(slot) = &place {
            self.unpin(slot.segment);
        }
        self.waiting.insert(at, place);
    }

    pub(super) fn replace(&mut self, at: Position, halves: [Batch; 2]) {
        let Some(place) = self.leased.remove(&at) else { return };
        let [first, second] = halves;
        let second_at = Position { record: at.record.saturating_add(first.records), ..at };
        let halves = [(at, first), (second_at, second)];
        match place {
            Place::Memory(whole) => {
                self.unwritten.remove(&at);
                self.memory_bytes -= size(&whole);
                self.unwritten_bytes -= cost(&whole);
                for (at, half) in halves {
                    self.keep_in_memory(at, half);
                }
            }
            Place::Half(whole) => {
                self.memory_bytes -= size(&whole);
                if let Some((_, split)) = self.splits.range_mut(..=at).next_back() {
                    split.left += 1;
                }
                self.keep_halves(halves);
            }
            Place::Disk(slot) => {
                // The pin of the lease becomes the split's.
                self.unload(at);
                self.splits.insert(at, Split { slot, left: 2 });
                self.keep_halves(halves);
            }
        }
    }

    fn keep_halves(&mut self, halves: [(Position, Batch); 2]) {
        for (at, half) in halves {
            self.memory_bytes += size(&half);
            self.waiting.insert(at, Place::Half(Box::new(half)));
        }
    }

    // === from all

    /// Ends it: nothing waits, nothing is leased.
    pub(super) fn end(&mut self) -> Left {
        self.closed = true;
        let left = Left { lost: self.records - self.durable_records, queued: self.durable_records };
        (self.records, self.durable_records) = (0, 0);
        self.waiting.clear();
        self.leased.clear();
        self.splits.clear();
        self.loaded.clear();
        self.unwritten.clear();
        (self.loaded_bytes, self.unwritten_bytes, self.memory_bytes, self.since) = (0, 0, 0, None);
        left
    }

    /// All batches with their records, and whether they are leased.
    #[cfg(test)]
    pub(super) fn contents(&self) -> Vec<(Position, u32, bool)> {
        let records = |place: &Place| match place {
            Place::Memory(batch) | Place::Half(batch) => batch.records,
            Place::Disk(slot) => slot.records,
        };
        let waiting = self.waiting.iter().map(|(at, place)| (*at, records(place), false));
        waiting.chain(self.leased.iter().map(|(at, place)| (*at, records(place), true))).collect()
    }

    pub(super) fn is_over(&self) -> bool {
        self.closed && !self.recovering && self.waiting.is_empty() && self.leased.is_empty()
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn waiting(&self) -> Waiting {
        Waiting {
            batches: self.waiting.len() + self.leased.len(),
            records: self.records,
            bytes: self.used(),
            leased: self.leased.len(),
            durable: self.durable_records,
        }
    }

    /// A batch that is in neither map any more leaves the queue. Returns its records.
    fn forget(&mut self, at: Position, place: Place) -> u32 {
        match place {
            Place::Memory(batch) => {
                self.unwritten.remove(&at);
                self.unwritten_bytes -= cost(&batch);
                self.memory_bytes -= size(&batch);
                self.records -= u64::from(batch.records);
                if self.unwritten.is_empty() {
                    self.since = None;
                }
                batch.records
            }
            Place::Half(batch) => {
                self.memory_bytes -= size(&batch);
                self.records -= u64::from(batch.records);
                if let Some((whole, split)) = self.splits.range_mut(..=at).next_back() {
                    split.left -= 1;
                    if is_durable(&self.segments, split.slot.segment) {
                        self.durable_records -= u64::from(batch.records);
                    }
                    if split.left == 0 {
                        let (whole, slot) = (*whole, split.slot);
                        self.splits.remove(&whole);
                        self.unpin(slot.segment);
                        self.settle(slot);
                        self.bury_if_empty(slot.segment);
                    }
                }
                batch.records
            }
            Place::Disk(slot) => {
                self.unload(at);
                self.records -= u64::from(slot.records);
                if is_durable(&self.segments, slot.segment) {
                    self.durable_records -= u64::from(slot.records);
                }
                self.settle(slot);
                self.bury_if_empty(slot.segment);
                slot.records
            }
        }
    }

    /// A batch in a file is not needed any more.
    fn settle(&mut self, slot: Slot) {
        if let Some(segment) = self.segments.get_mut(&slot.segment) {
            segment.live = segment.live.saturating_sub(1);
            self.settled.push(slot);
        }
    }

    fn bury_if_empty(&mut self, segment: u64) {
        if self.active != Some(segment) && self.segments.get(&segment).is_some_and(|s| s.live == 0 && !s.open) {
            self.bury(segment);
        }
    }

    fn bury(&mut self, segment: u64) {
        if let Some(buried) = self.segments.remove(&segment) {
            self.disk_bytes -= buried.bytes;
            self.dead.push(segment);
        }
    }

    fn pin(&mut self, segment: u64) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.pinned += 1;
        }
    }

    fn unpin(&mut self, segment: u64) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.pinned = segment.pinned.saturating_sub(1);
        }
    }

    fn load(&mut self, at: Position, batch: Batch) {
        self.loaded_bytes += size(&batch);
        if let Some(before) = self.loaded.insert(at, batch) {
            self.loaded_bytes -= size(&before);
        }
    }

    fn unload(&mut self, at: Position) {
        if let Some(batch) = self.loaded.remove(&at) {
            self.loaded_bytes -= size(&batch);
        }
    }
}

/// Whether what is in a segment is there for the next run.
fn is_durable(segments: &BTreeMap<u64, Segment>, segment: u64) -> bool {
    segments.get(&segment).is_none_or(|segment| !segment.stray)
}

// === impl Place

impl Place {
    fn slot(&self) -> Option<Slot> {
        match self {
            Self::Disk(slot) => Some(*slot),
            Self::Memory(_) | Self::Half(_) => None,
        }
    }
}
