//! The budgets: a batch that comes goes in; whether there is room for it comes out, and what had to go for it.
//!
//! Must never drop what is leased, nor anything where that makes no room.

use super::{
    super::{
        acks::ACK,
        segment::{ENTRY, HEADER},
    },
    Books, Place, Segment,
};
use crate::record::Batch;

/// Batches that may wait at most, so that the books of a very long outage stay within 100 MiB.
const MAX_BATCHES: usize = 1 << 20;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Limits {
    /// Of the directory.
    pub(in super::super) disk: u64,
    /// Of batches that are in memory alone.
    pub(in super::super) memory: u64,
    /// Of batches that were read ahead for export.
    pub(in super::super) loaded: u64,
    /// With so many batches no more of what an earlier run left is read: the rest stays in its files until these are fewer.
    pub(in super::super) enough: usize,
    pub(in super::super) drop_oldest: bool,
}

/// What a segment costs without any batch.
pub(super) const SEGMENT: u64 = (HEADER + ACK) as u64;

// === impl Books

impl Books {
    /// Whether there is room for a batch now. Drops others for it where that is wanted and helps.
    pub(super) fn make_room(&mut self, batch: &Batch, dropped: &mut u64) -> bool {
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
        let free = move |first: u64, s: &Segment| s.pinned == 0 && !s.open && Some(first) != appended_to;
        self.segments.iter().map(|(first, s)| (*first, s)).filter(move |(first, s)| free(*first, s))
    }

    /// Whether there are so many batches that what an earlier run left can wait in its files.
    pub(in super::super) fn has_enough(&self) -> bool {
        self.waiting.len() + self.leased.len() >= self.limits.enough
    }

    /// What the budget counts: the files, and what is to be written to them.
    pub(super) fn used(&self) -> u64 {
        self.disk_bytes + self.unwritten_bytes
    }
}

pub(super) fn size(batch: &Batch) -> u64 {
    batch.bytes.len() as u64
}

/// What a batch needs on the disk at most: it may be the first of its segment.
pub(super) fn cost(batch: &Batch) -> u64 {
    size(batch) + (ENTRY + ACK) as u64 + SEGMENT
}
