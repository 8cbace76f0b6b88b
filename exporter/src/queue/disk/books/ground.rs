//! What becomes of batches whose files are not where they were: a directory that was moved, removed or replaced, or single
//! files that are gone.
//!
//! Must never count a batch as durable that the next run will not find, or give up bytes that are still in memory.

use std::collections::BTreeSet;

use super::{
    super::{super::Position, recover::Slot},
    Books, Place,
    room::{cost, size},
};
use crate::record::Batch;

// === impl Books

impl Books {
    /// The next run will find the segments of which `here` is true, and no others: what is in those is not durable.
    pub(in super::super) fn strand(&mut self, here: impl Fn(u64) -> bool) {
        for (first, segment) in &mut self.segments {
            segment.stray = !here(*first);
        }
        if self.active.is_some_and(|active| !here(active)) {
            let active = self.active.take();
            active.into_iter().for_each(|active| self.bury_if_empty(active));
        }
        let Self { segments, splits, .. } = self;
        let is_durable = |segment| super::is_durable(segments, segment);
        let records = |(at, place): (&Position, &Place)| match place {
            Place::Disk(slot) if is_durable(slot.segment) => u64::from(slot.records),
            Place::Half(batch) => {
                let split = splits.range(..=at).next_back();
                u64::from(if split.is_some_and(|(_, s)| is_durable(s.slot.segment)) { batch.records } else { 0 })
            }
            Place::Disk(_) | Place::Memory(_) => 0,
        };
        self.durable_records = self.waiting.iter().chain(&self.leased).map(records).sum();
    }

    /// The segments that the next run should find.
    pub(in super::super) fn known_here(&self) -> BTreeSet<u64> {
        self.segments.iter().filter(|(_, s)| !s.stray).map(|(first, _)| *first).collect()
    }

    /// Batches of a segment that are in its file alone, as many as memory has room for.
    pub(in super::super) fn to_rescue(&self, segment: u64) -> Vec<(Position, Slot)> {
        let mut room = self.limits.memory.saturating_sub(self.memory_bytes);
        let of_it = self.waiting.iter().filter_map(|(at, place)| Some((*at, place.slot()?)));
        let of_it = of_it.filter(|(at, slot)| slot.segment == segment && !self.loaded.contains_key(at));
        of_it
            .take_while(|(_, slot)| {
                let fits = room.checked_sub(slot.length.into());
                room = fits.unwrap_or(0);
                fits.is_some()
            })
            .collect()
    }

    /// A batch was read from a file that will be gone: it is in memory until it is written again.
    pub(in super::super) fn rescued(&mut self, at: Position, batch: Batch) {
        if self.waiting.contains_key(&at) {
            self.load(at, batch);
        }
    }

    /// A segment is gone. What is in memory is written again; the rest is lost. Returns how many batches that is, and their
    /// records.
    pub(in super::super) fn vanished(&mut self, segment: u64) -> (u64, u64) {
        let of_it = |(at, place): (&Position, &Place)| {
            place.slot().filter(|slot| slot.segment == segment).map(|slot| (*at, slot))
        };
        let places: Vec<_> = self.waiting.iter().chain(&self.leased).filter_map(of_it).collect();
        let (mut batches, mut records) = (0, 0);
        for (at, slot) in places {
            if super::is_durable(&self.segments, segment) {
                self.durable_records -= u64::from(slot.records);
            }
            match self.loaded.get(&at).cloned() {
                Some(batch) => {
                    self.unload(at);
                    self.memory_bytes += size(&batch);
                    // Whoever counts it goes by what was adopted.
                    self.unwrite(at, Batch { records: slot.records, ..batch });
                }
                None => {
                    self.waiting.remove(&at);
                    self.leased.remove(&at);
                    self.records -= u64::from(slot.records);
                    batches += 1;
                    records += u64::from(slot.records);
                }
            }
        }
        let splits: Vec<_> =
            self.splits.iter().filter(|(_, s)| s.slot.segment == segment).map(|(at, s)| (*at, s.slot)).collect();
        for (whole, slot) in splits {
            self.splits.remove(&whole);
            let all = whole..Position { record: whole.record.saturating_add(slot.records), ..whole };
            let halves = self.waiting.range(all.clone()).chain(self.leased.range(all));
            let halves: Vec<_> = halves
                .filter_map(
                    |(at, place)| if let Place::Half(half) = place { Some((*at, Batch::clone(half))) } else { None },
                )
                .collect();
            for (at, half) in halves {
                if super::is_durable(&self.segments, segment) {
                    self.durable_records -= u64::from(half.records);
                }
                self.unwrite(at, half);
            }
        }
        if let Some(gone) = self.segments.remove(&segment) {
            self.disk_bytes -= gone.bytes;
        }
        if self.active == Some(segment) {
            self.active = None;
        }
        (batches, records)
    }

    /// A batch is in memory alone again.
    fn unwrite(&mut self, at: Position, batch: Batch) {
        self.unwritten_bytes += cost(&batch);
        self.unwritten.insert(at);
        self.since.get_or_insert_with(std::time::Instant::now);
        let map = if self.leased.contains_key(&at) { &mut self.leased } else { &mut self.waiting };
        map.insert(at, Place::Memory(Box::new(batch)));
    }
}
