//! Which batches there are, where each is, and what the budgets allow: calls of the capture thread, of export and of the
//! queue's own thread go in; what was lost, and what is to be done on the disk, comes out.
//!
//! Everything here is a few map operations under one lock. Must never do I/O, or lose a record without returning it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{
    super::{Left, Position, Waiting},
    acks::ACK,
    recover::{Recovered, Slot},
    segment::{ENTRY, HEADER},
};
use crate::record::Batch;

/// Batches that may wait at most, so that the books of a very long outage stay within 100 MiB.
pub(super) const MAX_BATCHES: usize = 1 << 20;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Of the directory.
    pub(super) disk: u64,
    /// Of batches that are in memory alone.
    pub(super) memory: u64,
    /// Of batches that were read ahead for export.
    pub(super) loaded: u64,
    pub(super) drop_oldest: bool,
}

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
        }
    }

    // === from the capture thread

    /// Takes a batch in. Returns how many records had to go for it, or with it.
    pub(super) fn push(&mut self, batch: Batch, now: Instant) -> u64 {
        let mut dropped = 0;
        if !self.make_room(&batch, &mut dropped) {
            return dropped + u64::from(batch.records);
        }
        let at = Position { run: u32::MAX, push: self.pushes, record: 0 };
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

    /// Whether there is room for a batch now. Drops others for it where that is wanted and helps.
    fn make_room(&mut self, batch: &Batch, dropped: &mut u64) -> bool {
        let lacks_memory = |books: &Self| (books.memory_bytes + size(batch)).saturating_sub(books.limits.memory);
        let lacks_disk = |books: &Self| (books.used() + cost(batch)).saturating_sub(books.limits.disk);
        let too_many = |books: &Self| books.waiting.len() + books.leased.len() >= MAX_BATCHES;
        if lacks_disk(self) > 0 {
            self.free_active();
        }
        let (memory, disk) = (lacks_memory(self), lacks_disk(self));
        if memory == 0 && disk == 0 && !too_many(self) {
            return true;
        }
        let (mut memory_free, mut disk_free) = (0, 0);
        for at in &self.unwritten {
            if let Some(Place::Memory(batch)) = self.waiting.get(at) {
                memory_free += size(batch);
                disk_free += cost(batch);
            }
        }
        disk_free += self.droppable().map(|(_, s)| s.bytes).sum::<u64>();
        if !self.limits.drop_oldest || memory > memory_free || disk > disk_free {
            return false;
        }
        while lacks_memory(self) > 0 {
            if !self.drop_unwritten(dropped) {
                return false;
            }
        }
        while lacks_disk(self) > 0 || too_many(self) {
            if !self.drop_segment(dropped) && !self.drop_unwritten(dropped) {
                return false;
            }
        }
        true
    }

    /// Gives up the room of the active segment when nothing in it is needed.
    fn free_active(&mut self) {
        if let Some(active) = self.active.filter(|_| !self.writing)
            && self.segments.get(&active).is_some_and(|s| s.live == 0)
        {
            self.active = None;
            self.bury(active);
        }
    }

    /// Drops the oldest batch that is in memory alone and not leased.
    fn drop_unwritten(&mut self, dropped: &mut u64) -> bool {
        let Some(at) = self.unwritten.iter().find(|at| self.waiting.contains_key(at)).copied() else { return false };
        if let Some(place) = self.waiting.remove(&at) {
            *dropped += u64::from(self.forget(at, place));
        }
        true
    }

    /// Drops the oldest segment of which no batch is leased: to drop single batches of it would free no room.
    fn drop_segment(&mut self, dropped: &mut u64) -> bool {
        let Some((first, live)) = self.droppable().find(|(_, s)| s.live > 0).map(|(first, s)| (first, s.live)) else {
            return false;
        };
        if self.active == Some(first) {
            self.active = None;
        }
        let of_it = |place: &Place| matches!(place, Place::Disk(slot) if slot.segment == first);
        let all = self.waiting.iter().filter(|(_, place)| of_it(place)).map(|(at, _)| *at);
        let all: Vec<_> = all.take(live as usize).collect();
        for at in all {
            if let Some(place) = self.waiting.remove(&at) {
                *dropped += u64::from(self.forget(at, place));
            }
        }
        true
    }

    fn droppable(&self) -> impl Iterator<Item = (u64, &Segment)> {
        let appended_to = self.active.filter(|_| self.writing);
        let free = move |first: u64, s: &Segment| s.pinned == 0 && Some(first) != appended_to;
        self.segments.iter().map(|(first, s)| (*first, s)).filter(move |(first, s)| free(*first, s))
    }

    // === from export

    /// The oldest waiting batch, unless it must be read first.
    pub(super) fn lease(&mut self) -> Option<(Position, Batch)> {
        let (at, place) = self.waiting.first_key_value()?;
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

    // === from the queue's thread

    /// Takes over what an earlier run left.
    pub(super) fn adopt(&mut self, recovered: Vec<Recovered>) -> u64 {
        let (run, mut records) = (self.adoptions, 0);
        self.adoptions += 1;
        for Recovered { segment, bytes, batches } in recovered {
            let mut live = 0;
            for slot in batches {
                let at = Position { run, push: slot.sequence, record: 0 };
                // A copy of a segment may be there under another name.
                if let std::collections::btree_map::Entry::Vacant(place) = self.waiting.entry(at) {
                    place.insert(Place::Disk(slot));
                    live += 1;
                    records += u64::from(slot.records);
                }
            }
            self.disk_bytes += bytes;
            self.segments.insert(segment, Segment { bytes, live, pinned: 0 });
            if live == 0 {
                self.bury(segment);
            }
        }
        self.records += records;
        self.durable_records += records;
        records
    }

    /// Damaged batches that an earlier run left are to be acknowledged, so that no start counts them again.
    pub(super) fn settle_lost(&mut self, lost: Vec<(u64, u64)>) {
        let slot = |(segment, sequence)| Slot { segment, sequence, at: 0, length: 0, records: 0 };
        self.settled.extend(lost.into_iter().map(slot));
    }

    /// The segments that the books know of.
    pub(super) fn known(&self) -> BTreeSet<u64> {
        self.segments.keys().copied().collect()
    }

    /// Drops the oldest segments of more batches than there may be. Of bytes there may be more than the budget, when it
    /// was larger before: the next push makes room, nothing is lost for a start alone.
    pub(super) fn shrink(&mut self) -> u64 {
        let mut dropped = 0;
        while self.waiting.len() > MAX_BATCHES && self.drop_segment(&mut dropped) {}
        dropped
    }

    /// The oldest batches that are in memory alone, `bytes` of them or one. None while segments are to be removed: the
    /// one that would be appended to may be among them.
    pub(super) fn take_chunk(&mut self, bytes: u64) -> Vec<(Position, Batch)> {
        let mut chunk = Vec::new();
        if !self.dead.is_empty() {
            return chunk;
        }
        let mut sum = 0;
        for at in &self.unwritten {
            let Some(Place::Memory(batch)) = self.waiting.get(at).or_else(|| self.leased.get(at)) else { continue };
            sum += size(batch);
            if sum > bytes && !chunk.is_empty() {
                break;
            }
            chunk.push((*at, Batch::clone(batch)));
        }
        self.writing = !chunk.is_empty();
        chunk
    }

    /// These batches are on the disk, and this segment is the active one now.
    pub(super) fn written(&mut self, batches: &[(Position, Batch)], slots: &[Slot], active: Option<u64>) {
        self.writing = false;
        let before = std::mem::replace(&mut self.active, active);
        for ((at, batch), slot) in batches.iter().zip(slots) {
            self.settle_written(*at, batch, *slot);
        }
        // Only now: a segment whose first batch is settled already may have a second one.
        for segment in before.into_iter().chain(slots.iter().map(|slot| slot.segment)) {
            self.bury_if_empty(segment);
        }
        if self.unwritten.is_empty() {
            self.since = None;
        }
    }

    fn settle_written(&mut self, at: Position, batch: &Batch, slot: Slot) {
        let bytes = (ENTRY + ACK) as u64 + size(batch);
        let segment = self.segments.entry(slot.segment).or_insert_with(|| {
            self.disk_bytes += SEGMENT;
            Segment { bytes: SEGMENT, ..Segment::default() }
        });
        segment.bytes += bytes;
        segment.live += 1;
        self.disk_bytes += bytes;
        let is_it = |place: Option<&Place>| {
            matches!(place, Some(Place::Memory(there))
                if there.bytes.as_ptr() == batch.bytes.as_ptr() && there.bytes.len() == batch.bytes.len())
        };
        let (waits, leased) = (is_it(self.waiting.get(&at)), is_it(self.leased.get(&at)));
        if waits || leased {
            self.wrote(at, batch);
            let place = Place::Disk(slot);
            if waits {
                self.waiting.insert(at, place);
            } else {
                self.pin(slot.segment);
                self.leased.insert(at, place);
            }
            if leased || self.loaded_bytes + size(batch) <= self.limits.loaded {
                self.load(at, batch.clone());
            }
            return;
        }
        // It was settled, dropped or split meanwhile.
        let all = at..Position { record: at.record.saturating_add(batch.records), ..at };
        let mut left = 0;
        let parts: Vec<_> = self.unwritten.range(all).copied().collect();
        for part in parts {
            let map = if self.waiting.contains_key(&part) { &mut self.waiting } else { &mut self.leased };
            if let Some(Place::Memory(half)) = map.remove(&part) {
                map.insert(part, Place::Half(half.clone()));
                self.wrote(part, &half);
                self.memory_bytes += size(&half);
                left += 1;
            }
        }
        if left > 0 {
            self.splits.insert(at, Split { slot, left });
            self.pin(slot.segment);
        } else {
            self.settle(slot);
        }
    }

    /// A batch is not in memory alone any more.
    fn wrote(&mut self, at: Position, batch: &Batch) {
        self.unwritten.remove(&at);
        self.unwritten_bytes -= cost(batch);
        self.memory_bytes -= size(batch);
        self.durable_records += u64::from(batch.records);
    }

    /// What is to be done on the disk: segments to remove, and batches to acknowledge.
    pub(super) fn errands(&mut self) -> (Vec<u64>, Vec<Slot>) {
        let settled = std::mem::take(&mut self.settled);
        // What is removed as a whole needs no more.
        let settled = settled.into_iter().filter(|slot| self.segments.contains_key(&slot.segment)).collect();
        (std::mem::take(&mut self.dead), settled)
    }

    /// What could not be done.
    pub(super) fn put_back(&mut self, dead: Vec<u64>, settled: Vec<Slot>) {
        self.dead.extend(dead);
        self.settled.extend(settled);
    }

    pub(super) fn has_removals(&self) -> bool {
        !self.dead.is_empty()
    }

    pub(super) fn has_errands(&self) -> bool {
        !self.dead.is_empty() || !self.settled.is_empty()
    }

    /// The next batch to be read ahead for export.
    pub(super) fn to_load(&self) -> Option<(Position, Slot)> {
        let ahead = self.waiting.iter().take(READ_AHEAD).enumerate();
        ahead.filter_map(|(i, (at, place))| Some((i, at, place.slot()?))).find_map(|(i, at, slot)| {
            let fits = i == 0 || self.loaded_bytes + u64::from(slot.length) <= self.limits.loaded;
            (fits && !self.loaded.contains_key(at)).then_some((*at, slot))
        })
    }

    /// A batch was read. Returns whether export may have waited for it.
    pub(super) fn was_read(&mut self, at: Position, batch: Batch) {
        if !self.waiting.contains_key(&at) {
            return;
        }
        while self.loaded_bytes + size(&batch) > self.limits.loaded {
            // The youngest is needed last.
            let mut young = self.loaded.keys().rev();
            let Some(young) = young.find(|young| **young > at && self.waiting.contains_key(young)).copied() else {
                break;
            };
            self.unload(young);
        }
        self.load(at, batch);
    }

    /// A batch can't be read. Returns its records, which are lost.
    pub(super) fn unreadable(&mut self, at: Position) -> u64 {
        let Some(place) = self.waiting.remove(&at) else { return 0 };
        self.forget(at, place).into()
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
        self.closed && self.waiting.is_empty() && self.leased.is_empty()
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

    /// What the budget counts: the files, and what is to be written to them.
    fn used(&self) -> u64 {
        self.disk_bytes + self.unwritten_bytes
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
                self.durable_records -= u64::from(batch.records);
                if let Some((whole, split)) = self.splits.range_mut(..=at).next_back() {
                    split.left -= 1;
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
                self.durable_records -= u64::from(slot.records);
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
        if self.active != Some(segment) && self.segments.get(&segment).is_some_and(|s| s.live == 0) {
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

// === impl Place

impl Place {
    fn slot(&self) -> Option<Slot> {
        match self {
            Self::Disk(slot) => Some(*slot),
            Self::Memory(_) | Self::Half(_) => None,
        }
    }
}

/// Batches that are read before export asks for them.
const READ_AHEAD: usize = 8;
/// What a segment costs without any batch.
const SEGMENT: u64 = (HEADER + ACK) as u64;

fn size(batch: &Batch) -> u64 {
    batch.bytes.len() as u64
}

/// What a batch needs on the disk at most: it may be the first of its segment.
fn cost(batch: &Batch) -> u64 {
    size(batch) + (ENTRY + ACK) as u64 + SEGMENT
}
