//! Reading the rings: everything that happened up to now, in the order of kernel time.

use aya::maps::{MapData, RingBuf};
use flowtel_common::event::{Dns, Event};

use super::{Clock, Error, KernelEvent, KernelTime, Programs, Stop, Wait, WallTime};
use crate::ledger::{KernelEvents, Kind};

/// The most events taken from one ring at a time, so that a ring that fills as fast as it is read can't hold the reader.
const MAX_DRAIN: usize = 1 << 16;

/// Events whose memory is kept from reading to reading.
const KEPT: usize = 1 << 14;

/// The rings between kernel and user space.
pub struct Rings {
    flows: RingBuf<MapData>,
    owners: RingBuf<MapData>,
    answers: RingBuf<MapData>,
    /// Read, but later than the last cut.
    pending: Vec<KernelEvent>,
    /// Times and places of what was read, kept for their memory.
    order: Vec<(KernelTime, u32)>,
    /// What was read, in order, likewise.
    sorted: Vec<KernelEvent>,
}

impl Rings {
    /// Takes the rings of `programs`.
    ///
    /// # Errors
    /// The object does not hold them: never in a sound build.
    pub fn take(programs: &mut Programs) -> Result<Self, Error> {
        Ok(Self {
            flows: programs.ring("FLOWS")?,
            owners: programs.ring("OWNERS")?,
            answers: programs.ring("ANSWERS")?,
            pending: Vec::new(),
            order: Vec::new(),
            sorted: Vec::new(),
        })
    }

    /// A way to wait for these rings, or for `stop`.
    ///
    /// # Errors
    /// The kernel refuses an epoll instance.
    pub fn wait(&self, stop: &Stop) -> Result<Wait, Error> {
        use std::os::fd::{AsRawFd, BorrowedFd};
        let borrow = |ring: &RingBuf<MapData>| {
            // SAFETY: the descriptor belongs to the ring, which outlives this function; epoll keeps its own reference.
            unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) }
        };
        let rings = [&self.flows, &self.owners, &self.answers].map(borrow);
        Wait::new(stop, &rings).map_err(|source| Error::System { what: "preparing to wait for the rings", source })
    }

    /// Appends to `events` what happened up to this call, in the order of kernel time; what happened while it ran stays
    /// for the next one.
    ///
    /// Flows are read first: whatever caused a flow event is in the owners' ring by the time that one is read. And the
    /// cut makes sure that an owner's later event doesn't get before a flow event that the first reading missed.
    pub fn drain(&mut self, clock: &Clock, events: &mut Vec<KernelEvent>, ledger: &KernelEvents) {
        let cut = KernelTime::now();
        let now = clock.wall(cut);
        let start = events.len();
        events.append(&mut self.pending);
        read(&mut self.flows, clock, now, events, ledger);
        read(&mut self.owners, clock, now, events, ledger);
        let Self { pending, order, sorted, .. } = self;
        let new = events.get(start..).unwrap_or_default();
        // Nearly sorted runs, which the standard stable sort merges as it finds them. Places are sorted, not events: each
        // merge would move all of them, and they are nine times as large.
        order.clear();
        order.extend(new.iter().zip(0u32..).map(|(event, place)| (event.time, place)));
        order.sort();
        let kept = order.partition_point(|(time, _)| *time <= cut);
        let (now, later) = order.split_at(kept);
        let event = |(_, place): &(KernelTime, u32)| new.get(*place as usize).copied();
        pending.extend(later.iter().filter_map(event));
        sorted.clear();
        sorted.extend(now.iter().filter_map(event));
        events.truncate(start);
        if events.is_empty() {
            std::mem::swap(events, sorted);
            sorted.clear();
        } else {
            events.append(sorted);
        }
        // As for the events: one very busy tick should not be paid for in memory for ever.
        order.shrink_to(KEPT);
        sorted.shrink_to(KEPT);
    }
}

impl Rings {
    /// Gives name servers' answers to `take`: each with the message that was carried. To be called before what was drained
    /// is processed: the answer that a flow follows is there by then.
    pub fn answers(&mut self, ledger: &KernelEvents, mut take: impl FnMut(&Dns, &[u8])) {
        for _ in 0..MAX_DRAIN {
            let Some(record) = self.answers.next() else { return };
            match Dns::decode(&record) {
                Some((head, message)) => {
                    ledger.dns.read.add(1);
                    ledger.dns.joined.add(1);
                    take(&head, message);
                }
                None => ledger.unknown.add(1),
            }
        }
    }
}

/// The count of an event's kind.
pub fn kind_of<'a>(event: &Event, ledger: &'a KernelEvents) -> &'a Kind {
    match event {
        Event::Connect(_) => &ledger.connect,
        Event::Listen(_) => &ledger.listen,
        Event::Accept(_) => &ledger.accept,
        Event::Release(_) => &ledger.release,
        Event::SynAgain(_) => &ledger.syn_again,
        Event::Established(_) => &ledger.established,
        Event::Fin(_) => &ledger.fin,
        Event::Reset(_) => &ledger.reset,
        Event::Close(_) => &ledger.close,
        Event::Refused(_) => &ledger.refused,
    }
}

fn read(
    ring: &mut RingBuf<MapData>,
    clock: &Clock,
    now: WallTime,
    events: &mut Vec<KernelEvent>,
    ledger: &KernelEvents,
) {
    for _ in 0..MAX_DRAIN {
        let Some(record) = ring.next() else { return };
        let Some(event) = Event::decode(&record) else {
            ledger.unknown.add(1);
            continue;
        };
        kind_of(&event, ledger).read.bump();
        let time = KernelTime(event.time());
        let wall = clock.wall(time);
        // What comes while this runs is younger than `now`; nothing is read before it happened.
        events.push(KernelEvent { time, wall, read: now.max(wall), event });
    }
}
