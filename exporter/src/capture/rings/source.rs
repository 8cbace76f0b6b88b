//! One of the rings whose events are put in order, and up to when all that it tells was read.
//!
//! A record has its place in the ring before it is written, and nobody can read what lies behind a record that is not whole.
//! Mostly that takes a tenth of a microsecond. But a hypervisor can take the CPU away in the middle of it, or a kernel that
//! can be preempted the program, for milliseconds; and then one ring tells less than the other: who drops a socket, but not
//! that it was connected. So a reading notes how far the ring was written when it began, and until it has come there, only
//! what was before an earlier such mark is known whole.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use aya::maps::{MapData, RingBuf};
use flowtel_common::event::Event;

use super::{MAX_DRAIN, MOST_WAITING, Records};
use crate::capture::{
    Error, KernelTime,
    position::{Position, Written},
};

/// How often a reading looks whether a record that is not whole has become it, and how long it spins before each look: some 20
/// microseconds altogether.
const LOOKS: u32 = 32;
const SPINS: u32 = 16;

/// The ring and its positions.
pub(super) struct Source {
    ring: RingBuf<MapData>,
    read: Position,
    written: Written,
    whole: Whole,
}

/// Up to when all was read.
#[derive(Debug, Default)]
struct Whole {
    until: KernelTime,
    /// The first mark since that was not reached.
    next: Option<Mark>,
}

/// How far a ring was written, and a time before that was looked up: whatever has happened by then lies before it.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: KernelTime,
    end: u64,
}

// === impl Source

impl Source {
    /// # Errors
    /// There is no memory to map its positions.
    pub fn new(ring: RingBuf<MapData>) -> Result<Self, Error> {
        let failed = |source: io::Error| Error::System { what: "mapping the positions of a ring", source };
        // SAFETY: the descriptor belongs to the ring, which outlives this function; a mapping keeps its own reference.
        let fd = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
        let (read, written) = (Position::of(fd).map_err(failed)?, Written::of(fd).map_err(failed)?);
        Ok(Self { ring, read, written, whole: Whole::default() })
    }

    pub fn ring(&self) -> &RingBuf<MapData> {
        &self.ring
    }

    /// What happened by then, and is told here, was read.
    pub fn whole_until(&self) -> KernelTime {
        self.whole.until
    }

    /// Reads what there is. `now` is the time, looked up before this call.
    pub fn read(&mut self, now: KernelTime, into: &mut Records) {
        // The other ring is held up. One that is held up itself is always read, for that is what is waited for.
        if into.order.len() >= MOST_WAITING && self.whole.next.is_none() {
            return;
        }
        let mark = Mark { at: now, end: self.written.get() };
        let mut room = MAX_DRAIN;
        for _ in 0..LOOKS {
            while room > 0
                && let Some(record) = self.ring.next()
            {
                into.push(&record);
                room -= 1;
            }
            if self.read.get() >= mark.end || room == 0 {
                break;
            }
            (0..SPINS).for_each(|_| std::hint::spin_loop());
        }
        self.whole.reached(self.read.get(), mark);
    }

    /// Reads up to the first record that is later than `cut`, which stays. Returns whether all that was written when this was
    /// called, or such a record, was reached.
    pub fn read_until(&mut self, cut: KernelTime, into: &mut Records) -> bool {
        let end = self.written.get();
        while let Some(record) = self.ring.next() {
            if KernelTime(Event::time_in(&record)) > cut {
                // Dropped, it would count as read.
                std::mem::forget(record);
                return true;
            }
            into.push(&record);
        }
        self.read.get() >= end
    }
}

// === impl Whole

impl Whole {
    /// Notes that a ring was read up to `read`, in a reading that began with `mark`.
    fn reached(&mut self, read: u64, mark: Mark) {
        match self.next {
            _ if read >= mark.end => *self = Self { until: mark.at, next: None },
            Some(next) if read >= next.end => *self = Self { until: next.at, next: Some(mark) },
            Some(_) => {}
            None => self.next = Some(mark),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(at: u64, end: u64) -> Mark {
        Mark { at: KernelTime(at), end }
    }

    #[test]
    fn a_ring_that_was_read_to_its_end_is_whole_up_to_that_reading() {
        let mut whole = Whole::default();
        whole.reached(100, mark(1, 100));
        assert_eq!(whole.until, KernelTime(1));
        whole.reached(140, mark(2, 120));
        assert_eq!(whole.until, KernelTime(2), "more came while it was read");
    }

    #[test]
    fn one_that_is_held_up_is_whole_up_to_the_reading_before_however_often_it_is_read() {
        let mut whole = Whole::default();
        whole.reached(100, mark(1, 100));
        for at in 2..5 {
            whole.reached(100, mark(at, 100 + 40 * at));
            assert_eq!(whole.until, KernelTime(1));
        }
        whole.reached(260, mark(5, 260));
        assert_eq!(whole.until, KernelTime(5));
    }

    #[test]
    fn one_that_fills_as_fast_as_it_is_read_becomes_whole_all_the_same_a_mark_after_the_other() {
        let mut whole = Whole::default();
        // Each reading comes as far as the mark of the one before.
        for at in 1..10 {
            whole.reached(100 * (at - 1), mark(at, 100 * at));
            assert_eq!(whole.until, KernelTime(at - 1), "a reading behind");
        }
    }
}
