//! The rings and the counters: an event is written whole, or lost and counted.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::{bpf_jiffies64, bpf_ktime_get_boot_ns},
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use flowtel_common::{
    event::Instant,
    tally::{self, OnCpu},
};

/// What a flow is made of. User space sets the sizes before loading.
#[map(name = "FLOWS")]
pub static FLOWS: RingBuf = RingBuf::with_byte_size(2 << 20, 0);

/// Who asks, takes and drops: apart, so that a process in a loop of calls can't crowd out flows.
#[map(name = "OWNERS")]
pub static OWNERS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Answers of name servers.
#[map(name = "ANSWERS")]
pub static ANSWERS: RingBuf = RingBuf::with_byte_size(512 << 10, 0);

/// What clients say first over TLS. User space makes it as small as can be where nobody asks for that.
#[map(name = "HELLOS")]
pub static HELLOS: RingBuf = RingBuf::with_byte_size(4 << 10, 0);

/// This CPU's counters of all kinds, and what it saw last: a SYN-ACK, a segment for a listening socket, a promise.
#[map(name = "TALLIES")]
static TALLIES: PerCpuArray<OnCpu> = PerCpuArray::with_max_entries(1, 0);

/// Every how many events of a kind and CPU a program looks how full the ring is. 128 CPUs write less than a tenth of a
/// default ring between two looks.
const LOOK_EVERY: u64 = 8;

/// The counters of one kind on this CPU: where the first of them is.
#[derive(Clone, Copy)]
pub struct Count(*mut u64);

impl Count {
    /// Of `kind`, with one more seen.
    #[inline(always)]
    pub fn seen(kind: u32) -> Option<Self> {
        let words = words()?;
        // SAFETY: the map's value lives as long as the program and holds `tally::LEN` counters of each sort; the kind is
        // below that. Only `add` touches them.
        let seen = unsafe { words.add((tally::SEEN + kind) as usize) };
        add(seen);
        Some(Self(seen))
    }

    /// One more that the rate limit left out.
    #[inline(always)]
    pub fn limited(self) {
        // SAFETY: as in `seen`; the third sort.
        add(unsafe { self.0.add(2 * tally::LEN as usize) });
    }

    /// One more for which the ring had no room.
    #[inline(always)]
    pub fn lost(self) {
        // SAFETY: as in `seen`; the second sort.
        add(unsafe { self.0.add(tally::LEN as usize) });
    }

    /// How the reader is told of this event: see [`look`].
    #[inline(always)]
    pub fn wake_up(self, ring: &RingBuf) -> u64 {
        // SAFETY: as in `seen`.
        unsafe { look(self.0, ring) }
    }
}

/// Writes one event of `kind` into `ring`: `fill` gets the record's memory and must write every field of it.
#[inline(always)]
pub fn emit<T: 'static>(ring: &RingBuf, kind: u32, fill: impl FnOnce(*mut T)) {
    if let Some(count) = Count::seen(kind) {
        emit_counted(ring, count, fill);
    }
}

/// The same for an event that was counted as seen before.
#[inline(always)]
pub fn emit_counted<T: 'static>(ring: &RingBuf, count: Count, fill: impl FnOnce(*mut T)) {
    match ring.reserve::<T>(0) {
        Some(mut record) => {
            fill(record.as_mut_ptr());
            record.submit(count.wake_up(ring));
        }
        None => count.lost(),
    }
}

/// Notes that the begin of the socket `cookie` is reported now: the change of its state must follow at once, on this CPU,
/// before any other socket's. Where it didn't, another program has taken the callback away.
#[inline(always)]
pub fn promise(cookie: u64) {
    if let Some(words) = words() {
        // SAFETY: as in `Count::seen`; only softirqs of this CPU write the promise, one after the other.
        unsafe {
            let promised = words.add(tally::PROMISED as usize);
            if promised.read_volatile() != 0 {
                add(words.add(tally::UNKEPT as usize));
            }
            promised.write_volatile(cookie);
        }
    }
}

/// The change of state came for the socket `cookie`. Returns whether its begin was reported before.
#[inline(always)]
pub fn keep(cookie: u64) -> bool {
    let Some(words) = words() else { return false };
    // SAFETY: as above.
    unsafe {
        let promised = words.add(tally::PROMISED as usize);
        let kept = promised.read_volatile() == cookie;
        if kept {
            promised.write_volatile(0);
        }
        kept
    }
}

/// Counts a socket that was asked for its states again.
#[inline(always)]
pub fn asked_again() {
    if let Some(words) = words() {
        // SAFETY: as in `Count::seen`.
        add(unsafe { words.add(tally::ASKED_AGAIN as usize) });
    }
}

#[inline(always)]
fn words() -> Option<*mut u64> {
    TALLIES.get_ptr_mut(0).map(<*mut OnCpu>::cast)
}

/// Notes that a SYN-ACK arrived at the socket `cookie` now.
#[inline(always)]
pub fn answered(cookie: u64) {
    let Some(on_cpu) = TALLIES.get_ptr_mut(0) else { return };
    // SAFETY: the map's value lives as long as the program; only softirqs of this CPU write here, one after the other.
    unsafe {
        (&raw mut (*on_cpu).answered[0]).write_volatile(cookie);
        (&raw mut (*on_cpu).answered[1]).write_volatile(bpf_ktime_get_boot_ns());
        (&raw mut (*on_cpu).answered[2]).write_volatile(bpf_jiffies64());
    }
}

/// When the handshake of the socket `cookie`, complete now, was answered: when its SYN-ACK arrived, where that is the last
/// one that this CPU saw; else now.
///
/// A ring record for each SYN-ACK would be one of four that a begin costs. What is lost without: where the socket was locked by a process when its SYN-ACK came, and another one came to
/// this CPU before the lock was released, the time is when the socket took it.
#[inline(always)]
pub fn answered_at(cookie: u64) -> u64 {
    /// A SYN-ACK of an earlier attempt on the same socket is older.
    const MOST_JIFFIES: u64 = 2;
    if let Some(on_cpu) = TALLIES.get_ptr_mut(0) {
        // SAFETY: as above. The cookie is read last: a softirq in between writes all three, and then it is another's.
        let (time, jiffies, of) = unsafe {
            let time = (&raw const (*on_cpu).answered[1]).read_volatile();
            let jiffies = (&raw const (*on_cpu).answered[2]).read_volatile();
            (time, jiffies, (&raw const (*on_cpu).answered[0]).read_volatile())
        };
        // SAFETY: no requirement.
        if of == cookie && unsafe { bpf_jiffies64() }.wrapping_sub(jiffies) <= MOST_JIFFIES {
            return time;
        }
    }
    // SAFETY: no requirement.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Notes a segment that may complete a handshake: at the listening socket `cookie`, and what must fit, see [`taken_by`].
#[inline(always)]
pub fn taken(cookie: u64, ports: u32, acknowledged: u32) {
    let Some(on_cpu) = TALLIES.get_ptr_mut(0) else { return };
    // SAFETY: as for `answered`.
    unsafe {
        (&raw mut (*on_cpu).taken[0]).write_volatile(cookie);
        (&raw mut (*on_cpu).taken[1]).write_volatile(u64::from(ports) << 32 | u64::from(acknowledged));
    }
}

/// The listening socket that takes a connection, complete now, between these ports, the peer's in the upper half: where the
/// last segment that came to a listener on this CPU acknowledged just the sequence number `acknowledged`, the first after
/// the own SYN. 0 elsewhere.
///
/// The kernel looks at the segment with the listener, makes the connection's own socket or finds it, and completes it, all
/// in one go (tcp_v4_rcv, tcp_check_req, tcp_child_process, net/ipv4): nothing else of this CPU comes between. Whoever would
/// have it mistaken needs the sequence number, which the kernel has chosen and told the peer alone.
#[inline(always)]
pub fn taken_by(ports: u32, acknowledged: u32) -> u64 {
    let Some(on_cpu) = TALLIES.get_ptr_mut(0) else { return 0 };
    // SAFETY: as above.
    let (cookie, of) =
        unsafe { ((&raw const (*on_cpu).taken[0]).read_volatile(), (&raw const (*on_cpu).taken[1]).read_volatile()) };
    if of == u64::from(ports) << 32 | u64::from(acknowledged) { cookie } else { 0 }
}

/// Reports that something happened to the socket `cookie` now.
#[inline(always)]
pub fn instant(ring: &RingBuf, tally: u32, kind: u32, cookie: u64) {
    emit::<Instant>(ring, tally, |record| {
        // SAFETY: `record` is a reserved record of this type; every field is written.
        unsafe {
            (*record).kind = kind;
            (*record).reserved = 0;
            (*record).time = bpf_ktime_get_boot_ns();
            (*record).cookie = cookie;
        }
    });
}

/// How the reader of `ring` is told of the event that `counter` has just counted: it comes by itself, and every so often it
/// is looked whether it must hurry.
///
/// # Safety
/// `counter` is in a value of a map.
#[inline(always)]
pub unsafe fn look(counter: *const u64, ring: &RingBuf) -> u64 {
    // SAFETY: as the caller promises. A softirq that counts in between moves the look to another event, no more.
    if unsafe { counter.read_volatile() } % LOOK_EVERY == 0 { wake_up(ring) } else { BPF_RB_NO_WAKEUP as u64 }
}

/// A wake-up costs some 20 µs in the packet path, so the reader comes by its own clock; only a ring that is half full
/// calls it.
#[inline(always)]
fn wake_up(ring: &RingBuf) -> u64 {
    if ring.query(BPF_RB_AVAIL_DATA as u64) > ring.query(BPF_RB_RING_SIZE as u64) / 2 {
        BPF_RB_FORCE_WAKEUP as u64
    } else {
        BPF_RB_NO_WAKEUP as u64
    }
}

/// Adds one. Atomic although the counter is this CPU's own: a softirq can come between load and store. Relaxed and with
/// no use of the old value it is BPF's plain atomic add, which 5.10 has. (The target says that it has no atomics, so
/// `AtomicU64::fetch_add` is not there; the intrinsic is.)
#[inline(always)]
pub fn add(counter: *mut u64) {
    // SAFETY: `counter` points at an aligned u64 of a map value, which lives as long as the program.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, 1) };
}
