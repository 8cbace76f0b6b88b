//! Reading the rings: everything that happened up to now, in the order of kernel time.

use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use execs::Execs;
pub use execs::Reach;
use flowtel_common::{
    event::{self, Dns, Event, Hello},
    exec::Told,
    tally,
};
use source::Source;

use super::{Clock, Error, KernelEvent, KernelTime, Programs, Stop, Wait, pins};
use crate::ledger::{KernelEvents, Kind};

mod execs;
mod source;

/// The most events taken from one ring at a time, so that a ring that fills as fast as it is read can't hold the reader.
const MAX_DRAIN: usize = 1 << 16;
/// The most events that wait for a ring that is held up. What comes then stays in the other one, and is lost and counted when
/// that is full.
const MOST_WAITING: usize = 1 << 18;
/// How often, and after which time each, the last reading looks whether a record that holds up a ring is whole.
const LAST_LOOKS: u32 = 20;
const LAST_LOOK: Duration = Duration::from_millis(1);

/// Bytes of records whose memory is kept from reading to reading, and records.
const KEPT_BYTES: usize = 1 << 20;
const KEPT: usize = 1 << 14;

/// The rings between kernel and user space.
pub struct Rings {
    flows: Source,
    owners: Source,
    answers: RingBuf<MapData>,
    hellos: RingBuf<MapData>,
    execs: Execs,
    /// What was read of flows and owners and not handed out yet.
    read: Records,
    /// What is handed out is not later than this.
    cut: KernelTime,
}

/// Records as they lay in the rings, one after the other. They are copied once and never moved: decoded events are larger,
/// and to sort and hand them on would move each some more times.
#[derive(Debug, Default)]
struct Records {
    bytes: Vec<u8>,
    order: Vec<Record>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
struct Record {
    time: KernelTime,
    /// Where it lies in the bytes.
    start: u32,
    end: u32,
}

impl Rings {
    /// Takes the rings of `programs`.
    ///
    /// # Errors
    /// The object does not hold them: never in a sound build.
    pub fn take(programs: &mut Programs) -> Result<Self, Error> {
        Ok(Self {
            flows: Source::new(programs.take("FLOWS")?)?,
            owners: Source::new(programs.take("OWNERS")?)?,
            answers: programs.take("ANSWERS")?,
            hellos: programs.take("HELLOS")?,
            execs: Execs::take(programs)?,
            read: Records::default(),
            cut: KernelTime::default(),
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
        let rings = [self.flows.ring(), self.owners.ring(), &self.answers, &self.hellos, self.execs.source.ring()];
        let rings = rings.map(borrow);
        Wait::new(stop, &rings).map_err(|source| Error::System { what: "preparing to wait for the rings", source })
    }

    /// Reads what happened up to this call; [`Self::hand_out`] gives it. Returns whether there is anything to hand out, now
    /// or next time.
    ///
    /// Whatever caused an event happened before it, but may lie in the other ring. So nothing is handed out that is later than
    /// what is known whole of both: mostly up to this call, and less while one of them is held up (see `source`).
    pub fn read(&mut self) -> bool {
        let now = KernelTime::now();
        self.flows.read(now, &mut self.read);
        self.owners.read(now, &mut self.read);
        let execs = &mut self.execs;
        execs.source.read(now, &mut execs.read);
        self.cut = self.flows.whole_until().min(self.owners.whole_until()).min(execs.source.whole_until());
        !self.read.order.is_empty()
    }

    /// As [`Self::read`], for the last time: all that was read is handed out next. Waits a moment for what holds up a ring.
    pub fn read_rest(&mut self) -> bool {
        let now = KernelTime::now();
        for _ in 0..LAST_LOOKS {
            self.read();
            if self.cut >= now {
                break;
            }
            wait_once();
        }
        self.cut = KernelTime::now();
        !self.read.order.is_empty()
    }

    /// As [`Self::read_rest`], where another flowtel will read on: what happened later than this call stays in the rings.
    pub fn read_last(&mut self) -> bool {
        self.cut = KernelTime::now();
        for _ in 0..LAST_LOOKS {
            let flows = self.flows.read_until(self.cut, &mut self.read);
            let owners = self.owners.read_until(self.cut, &mut self.read);
            if flows && owners {
                break;
            }
            wait_once();
        }
        !self.read.order.is_empty()
    }

    /// Gives `take` what processes run by now, all that was read, in the order of kernel time, and counts it: to be called
    /// before [`Self::hand_out`]. Returns how far
    /// that goes.
    pub fn execs(&mut self, ledger: &KernelEvents, take: impl FnMut(&Told<'_>)) -> Reach {
        self.execs.hand_out(ledger, take)
    }

    /// Reads what processes run once more, apart from the others.
    pub fn read_execs(&mut self) {
        let Execs { source, read, .. } = &mut self.execs;
        source.read(KernelTime::now(), read);
    }

    /// Copies the kernel's counts of what processes run into the ledger.
    pub fn count_execs(&self, ledger: &KernelEvents) {
        self.execs.count(ledger);
    }

    /// Up to when everything that happened is handed out by the next [`Self::hand_out`].
    pub fn cut(&self) -> KernelTime {
        self.cut
    }

    /// How many events were read and not handed out yet, by kind: indices of [`flowtel_common::tally`].
    pub(super) fn pending(&self) -> [u64; tally::LEN as usize] {
        let mut pending = [0; tally::LEN as usize];
        for record in &self.read.order {
            if let Some(count) = pins::kind_of(self.read.bytes(record)).and_then(|kind| pending.get_mut(kind)) {
                *count += 1;
            }
        }
        pending
    }

    /// Who asks for connections or takes them, in what the next [`Self::hand_out`] gives: process id and time, in no order.
    pub fn callers(&self) -> impl Iterator<Item = (u32, KernelTime)> {
        let now = self.read.order.iter().filter(|record| record.time <= self.cut);
        now.filter_map(|record| {
            let bytes = self.read.bytes(record);
            let kind = bytes.first_chunk().map(|word| u32::from_ne_bytes(*word))?;
            // The others need not be decoded.
            let event = matches!(kind, event::CONNECT | event::ACCEPT).then(|| Event::decode(bytes)).flatten()?;
            caller(&event).map(|pid| (pid, record.time))
        })
    }

    /// Gives `take` what was read and happened up to [`Self::cut`], in the order of kernel time, and counts it; what is later
    /// stays for the next one.
    pub fn hand_out(&mut self, clock: &Clock, ledger: &KernelEvents, mut take: impl FnMut(&KernelEvent)) {
        let Self { read, cut, .. } = self;
        let now = clock.wall(*cut);
        read.take(*cut, |record| {
            let Some(event) = Event::decode(record) else {
                ledger.unknown.add(1);
                return;
            };
            kind_of(&event, ledger).read.bump();
            let time = KernelTime(event.time());
            // What comes while this runs is younger than `now`; nothing is read before it happened.
            let wall = clock.wall(time);
            take(&KernelEvent { time, wall, read: now.max(wall), event });
        });
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

impl Rings {
    /// Gives segments of ClientHellos to `take`: each with the bytes that were carried. To be called before what was drained is
    /// processed: they wait for their flow, and its end must not come before them. Returns whether there were any.
    pub fn hellos(&mut self, ledger: &KernelEvents, mut take: impl FnMut(&Hello, &[u8])) -> bool {
        for taken in 0..MAX_DRAIN {
            let Some(record) = self.hellos.next() else { return taken > 0 };
            match Hello::decode(&record) {
                Some((head, bytes)) => {
                    ledger.hello.read.add(1);
                    take(&head, bytes);
                }
                None => ledger.unknown.add(1),
            }
        }
        true
    }
}

/// Lets whoever holds up a ring go on.
#[expect(clippy::disallowed_methods, reason = "nothing wakes the thread any more that is stopping: 20 ms at most")]
fn wait_once() {
    std::thread::sleep(LAST_LOOK);
}

/// The process that asked for a connection, or took it.
pub fn caller(event: &Event) -> Option<u32> {
    match event {
        Event::Connect(call) => Some(call.caller.tgid),
        Event::Accept(accept) => Some(accept.tgid),
        _ => None,
    }
}

/// The count of an event's kind.
pub fn kind_of<'a>(event: &Event, ledger: &'a KernelEvents) -> &'a Kind {
    match event {
        Event::Connect(_) => &ledger.connect,
        Event::Bind(_) => &ledger.bind,
        Event::Listen(_) => &ledger.listen,
        Event::Unlisten(_) => &ledger.unlisten,
        Event::Accept(_) => &ledger.accept,
        Event::Release(_) => &ledger.release,
        Event::SynAgain(_) => &ledger.syn_again,
        Event::UsedAgain(_) => &ledger.used_again,
        Event::Netns(_) => &ledger.netns,
        Event::Established(_) => &ledger.established,
        Event::Fin(_) => &ledger.fin,
        Event::Reset(_) => &ledger.reset,
        Event::Close(_) => &ledger.close,
        Event::Refused(_) => &ledger.refused,
        Event::Update(_) => &ledger.update,
    }
}

// === impl Records

impl Records {
    fn bytes(&self, record: &Record) -> &[u8] {
        self.bytes.get(record.start as usize..record.end as usize).unwrap_or_default()
    }

    fn push(&mut self, record: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(record);
        let [Ok(from), Ok(end)] = [start, self.bytes.len()].map(u32::try_from) else {
            // 65,536 records of a hundred bytes each time never come to 4 GiB.
            self.bytes.truncate(start);
            return;
        };
        self.order.push(Record { time: KernelTime(Event::time_in(record)), start: from, end });
    }

    /// Gives out those up to `cut`, in the order of time, and keeps the others.
    fn take(&mut self, cut: KernelTime, mut take: impl FnMut(&[u8])) {
        // Nearly sorted runs, which the standard stable sort merges as it finds them.
        self.order.sort_by_key(|record| record.time);
        let kept = self.order.partition_point(|record| record.time <= cut);
        let (now, later) = self.order.split_at(kept);
        now.iter().for_each(|record| take(self.bytes(record)));
        // Few as a rule: what came in the microseconds of the reading itself.
        let mut rest = Self::default();
        later.iter().for_each(|record| rest.push(self.bytes(record)));
        self.bytes.clear();
        self.order.clear();
        // One very busy tick should not be paid for in memory for ever.
        self.bytes.shrink_to(KEPT_BYTES);
        self.order.shrink_to(KEPT);
        self.bytes.append(&mut rest.bytes);
        self.order.append(&mut rest.order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(time: u64, name: u8) -> Vec<u8> {
        let mut record = vec![name; 24];
        record[8..16].copy_from_slice(&time.to_ne_bytes());
        record
    }

    #[test]
    fn what_was_read_comes_in_the_order_of_time_and_what_is_later_than_the_cut_comes_next_time() {
        let mut records = Records::default();
        let mut told = Vec::new();
        for (time, name) in [(3, b'c'), (9, b'x'), (1, b'a'), (3, b'd'), (2, b'b')] {
            records.push(&record(time, name));
        }
        records.take(KernelTime(3), |record| told.push(record[0]));
        assert_eq!(told, b"abcd");
        records.push(&record(8, b'w'));
        records.take(KernelTime(9), |record| told.push(record[0]));
        assert_eq!(told, b"abcdwx");
        records.take(KernelTime(99), |_| panic!("there is nothing left"));
    }

    #[test]
    fn a_record_too_short_for_a_time_is_handed_out_all_the_same() {
        let mut records = Records::default();
        records.push(b"short");
        let mut told = Vec::new();
        records.take(KernelTime(0), |record| told.push(record.to_vec()));
        assert_eq!(told, [b"short".to_vec()]);
    }
}
