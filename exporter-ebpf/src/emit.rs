//! The rings and the counters: an event is written whole, or lost and counted.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::bpf_ktime_get_boot_ns,
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use flowtel_common::{
    event::Instant,
    tally::{self, Tally},
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

/// One tally for each kind of event.
#[map(name = "TALLIES")]
static TALLIES: PerCpuArray<Tally> = PerCpuArray::with_max_entries(tally::LEN, 0);

/// Every how many events of a kind and CPU a program looks how full the ring is. 128 CPUs write less than a tenth of a
/// default ring between two looks.
const LOOK_EVERY: u64 = 8;

/// The counters of one kind on this CPU.
#[derive(Clone, Copy)]
pub struct Count(*mut Tally);

impl Count {
    /// Of `kind`, with one more seen.
    #[inline(always)]
    pub fn seen(kind: u32) -> Option<Self> {
        let tally = TALLIES.get_ptr_mut(kind)?;
        // SAFETY: the map's value lives as long as the program; only `add` touches it.
        add(unsafe { &raw mut (*tally).seen });
        Some(Self(tally))
    }

    /// One more that the rate limit left out.
    #[inline(always)]
    pub fn limited(self) {
        // SAFETY: as in `seen`.
        add(unsafe { &raw mut (*self.0).limited });
    }

    /// One more for which the ring had no room.
    #[inline(always)]
    pub fn lost(self) {
        // SAFETY: as in `seen`.
        add(unsafe { &raw mut (*self.0).ring_full });
    }

    /// How the reader is told of this event: see [`wake_up`].
    #[inline(always)]
    pub fn wake_up(self, ring: &RingBuf) -> u64 {
        // SAFETY: as in `seen`. A softirq that counts in between moves the look to another event, no more.
        let look = unsafe { (&raw const (*self.0).seen).read_volatile() } % LOOK_EVERY == 0;
        if look { wake_up(ring) } else { BPF_RB_NO_WAKEUP as u64 }
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

/// Whether ends and failures are wanted, or begins only. Set by user space before loading: where it is 0 the verifier cuts
/// away what hangs on it.
#[unsafe(no_mangle)]
static ENDS: u8 = 1;

/// Whether ends and failures are wanted.
#[inline(always)]
pub fn ends() -> bool {
    // SAFETY: a constant of this object.
    unsafe { core::ptr::read_volatile(&raw const ENDS) != 0 }
}

/// Reports that something happened to the socket `cookie` now.
#[inline(always)]
pub fn instant(tally: u32, kind: u32, cookie: u64) {
    emit::<Instant>(&FLOWS, tally, |record| {
        // SAFETY: `record` is a reserved record of this type; every field is written.
        unsafe {
            (*record).kind = kind;
            (*record).reserved = 0;
            (*record).time = bpf_ktime_get_boot_ns();
            (*record).cookie = cookie;
        }
    });
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
fn add(counter: *mut u64) {
    // SAFETY: `counter` points at an aligned u64 of a map value, which lives as long as the program.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, 1) };
}
