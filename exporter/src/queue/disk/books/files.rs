//! What the queue's own thread tells the books, and asks them: which batches are in files now, what is to be written, read,
//! acknowledged and removed.

use std::collections::BTreeSet;

use super::{
    super::{
        super::Position,
        acks::ACK,
        recover::{Found, Slot},
        segment::ENTRY,
    },
    Books, Place, Segment, Split,
    room::{SEGMENT, cost, size},
};
use crate::record::Batch;

/// Batches that are read before export asks for them.
const READ_AHEAD: usize = 8;

// === impl Books

impl Books {
    /// Another directory is taken over: what is found in it is older than what this run pushes, and younger than what was
    /// found before. Returns what [`Self::adopt`] must know of it.
    pub(in super::super) fn next_run(&mut self) -> u32 {
        let run = self.adoptions;
        self.adoptions += 1;
        run
    }

    /// Takes over some batches that an earlier run left. Returns their records.
    pub(in super::super) fn adopt(&mut self, run: u32, found: Found) -> u64 {
        let Found { segment: first, bytes, batches, settle, ended, .. } = found;
        if batches.is_empty() && !self.segments.contains_key(&first) {
            return 0;
        }
        let (mut live, mut records) = (0, 0);
        for slot in batches {
            let at = Position { run, push: slot.sequence, record: 0 };
            // A copy of a segment may be there under another name.
            if self.leased.contains_key(&at) {
                continue;
            }
            if let std::collections::btree_map::Entry::Vacant(place) = self.waiting.entry(at) {
                place.insert(Place::Disk(slot));
                live += 1;
                records += u64::from(slot.records);
            }
        }
        let segment = self.segments.entry(first).or_default();
        segment.bytes += bytes;
        segment.live += live;
        segment.open = !ended;
        self.disk_bytes += bytes;
        self.records += records;
        self.durable_records += records;
        // Damaged batches are to be acknowledged, so that no start counts them again.
        let slot = |sequence| Slot { segment: first, sequence, at: 0, length: 0, records: 0 };
        self.settled.extend(settle.into_iter().map(slot));
        self.bury_if_empty(first);
        records
    }

    /// The segments that the books know of, and those that are to be removed: these are where the others are.
    pub(in super::super) fn known(&self) -> BTreeSet<u64> {
        self.segments.keys().chain(&self.dead).copied().collect()
    }

    /// The oldest batches that are in memory alone, `bytes` of them or one. None while segments are to be removed: the
    /// one that would be appended to may be among them.
    pub(in super::super) fn take_chunk(&mut self, bytes: u64) -> Vec<(Position, Batch)> {
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
    pub(in super::super) fn written(&mut self, batches: &[(Position, Batch)], slots: &[Slot], active: Option<u64>) {
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
    pub(in super::super) fn errands(&mut self) -> (Vec<u64>, Vec<Slot>) {
        let settled = std::mem::take(&mut self.settled);
        // What is removed as a whole needs no more.
        let settled = settled.into_iter().filter(|slot| self.segments.contains_key(&slot.segment)).collect();
        (std::mem::take(&mut self.dead), settled)
    }

    /// What could not be done.
    pub(in super::super) fn put_back(&mut self, dead: Vec<u64>, settled: Vec<Slot>) {
        self.dead.extend(dead);
        self.settled.extend(settled);
    }

    pub(in super::super) fn has_removals(&self) -> bool {
        !self.dead.is_empty()
    }

    pub(in super::super) fn has_errands(&self) -> bool {
        !self.dead.is_empty() || !self.settled.is_empty()
    }

    /// The next batch to be read ahead for export.
    pub(in super::super) fn to_load(&self) -> Option<(Position, Slot)> {
        let ahead = self.waiting.iter().take(READ_AHEAD).enumerate();
        ahead.filter_map(|(i, (at, place))| Some((i, at, place.slot()?))).find_map(|(i, at, slot)| {
            let fits = i == 0 || self.loaded_bytes + u64::from(slot.length) <= self.limits.loaded;
            (fits && !self.loaded.contains_key(at)).then_some((*at, slot))
        })
    }

    /// A batch was read. Returns whether export may have waited for it.
    pub(in super::super) fn was_read(&mut self, at: Position, batch: Batch) {
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
    pub(in super::super) fn unreadable(&mut self, at: Position) -> u64 {
        let Some(place) = self.waiting.remove(&at) else { return 0 };
        self.forget(at, place).into()
    }
}
