//! The rings and the counters: an event is written whole, or lost and counted.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use flowtel_common::tally::{self, Tally};

/// Handshakes: what a flow is made of. User space sets the size before loading.
#[map(name = "FLOWS")]
pub static FLOWS: RingBuf = RingBuf::with_byte_size(2 << 20, 0);

/// Who asks for a connection: apart, so that a process in a connect loop can't crowd out flows.
#[map(name = "OWNERS")]
pub static OWNERS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// One tally for each kind of event.
#[map(name = "TALLIES")]
static TALLIES: PerCpuArray<Tally> = PerCpuArray::with_max_entries(tally::LEN, 0);

/// Every how many events of a kind and CPU a program looks how full the ring is. 128 CPUs write less than a tenth of a
/// default ring between two looks.
const LOOK_EVERY: u64 = 8;

/// Writes one event of `kind` into `ring`: `fill` gets the record's memory and must write every field of it.
#[inline(always)]
pub fn emit<T: 'static>(ring: &RingBuf, kind: u32, fill: impl FnOnce(*mut T)) {
    let Some(tally) = TALLIES.get_ptr_mut(kind) else { return };
    // SAFETY: the map's values are `Tally`s of this CPU; only `add` below writes them.
    let (seen, ring_full) = unsafe { (&raw mut (*tally).seen, &raw mut (*tally).ring_full) };
    add(seen);
    match ring.reserve::<T>(0) {
        Some(mut record) => {
            fill(record.as_mut_ptr());
            // SAFETY: as above. A softirq that counts in between moves the look to another event, no more.
            let look = unsafe { seen.read_volatile() } % LOOK_EVERY == 0;
            record.submit(if look { wake_up(ring) } else { BPF_RB_NO_WAKEUP as u64 });
        }
        None => add(ring_full),
    }
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
