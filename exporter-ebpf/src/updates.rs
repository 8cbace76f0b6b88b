//! Updates of open flows: what a socket has counted so far, every so often. The socket's own traffic is the clock: a flow that
//! is alive sends acknowledgements at least, in whatever network namespace it is; one that is asleep costs nothing.
//!
//! When a socket is due is kept with it (BPF_MAP_TYPE_SK_STORAGE), and goes with it. That takes two helpers to reach, some 45 ns:
//! so a small table, by the number that the kernel gives all of a socket's packets, says until when nothing is to be done. A
//! segment costs a look at that and at the kernel's coarse clock. The exact clock is some 40 ns, so it is read only when the
//! coarse one says that it may be time. How long a jiffy is the kernel does not say; it is taken for the longest there is, and so the way to the due time is
//! gone in a few dozen steps.
//!
//! An update that finds no room is not lost: the next segment tries again, and what it would have told is in the next one.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_RB_AVAIL_DATA, BPF_RB_RING_SIZE, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::{bpf_jiffies64, bpf_ktime_get_boot_ns, generated::bpf_sk_storage_get},
    macros::map,
    maps::Array,
    programs::SkBuffContext,
};
use flowtel_common::{
    event::{self, Update, state},
    kernel::SOCK_USER_DATA,
    tally,
};

use crate::{
    emit::{Count, FLOWS},
    kernel, netns, packets, socket,
};

/// Nanoseconds between two updates of a flow. Set by user space before loading.
#[unsafe(no_mangle)]
static UPDATE_EVERY: u64 = 300_000_000_000;

/// The longest that a jiffy is: 100 of them are a second (CONFIG_HZ), or more.
const NANOSECONDS_PER_JIFFY: u64 = 10_000_000;
/// The most jiffies between two looks at the exact clock: an interval that became shorter counts after so many.
const MOST_QUIET: u64 = 2000;
/// How many jiffies an update waits that found no room.
const POSTPONED: u64 = 8;

/// What is kept of a socket.
#[repr(C)]
struct Due {
    /// Nothing is to be done before this jiffy.
    quiet_until: u64,
    /// When it is reported next, nanoseconds of CLOCK_BOOTTIME; 0: not decided yet.
    at: u64,
}

/// A map of type 24 (BPF_MAP_TYPE_SK_STORAGE), see `dns::Storage`.
#[repr(C)]
struct Storage {
    r#type: *const [i32; 24],
    key: *const i32,
    value: *const Due,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: it holds no values, only types.
unsafe impl Sync for Storage {}

#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "DUES")]
static DUES: Storage = Storage {
    r#type: ptr::null(),
    key: ptr::null(),
    value: ptr::null(),
    max_entries: ptr::null(),
    map_flags: ptr::null(),
};

/// Places of [`QUIET`]: a power of two.
const PLACES: u32 = 8192;

/// Until which jiffy nothing is to be done for a socket: by the lower bits of its packets' hash (sk_txhash) the whole hash in
/// the upper half, the jiffy in the lower one. Sockets that share a place, or changed their hash, are looked at themselves. Two
/// with the same hash, one in four billion, may make each other's updates some seconds late.
#[map(name = "QUIET")]
static QUIET: Array<u64> = Array::with_max_entries(PLACES, 0);

/// A segment without SYN, FIN or RST leaves: reports its flow if that is due.
#[inline(always)]
pub fn look(ctx: &SkBuffContext) {
    // SAFETY: the program's context; the helper has no requirement.
    let (hash, jiffies) = unsafe { ((*ctx.skb.skb).hash, bpf_jiffies64()) };
    let Some(place) = QUIET.get_ptr_mut(hash & (PLACES - 1)) else { return };
    // SAFETY: the map's value lives as long as the program; whole words are read and written.
    let known = unsafe { place.read_volatile() };
    // A place that was written long ago, when the lower half of the clock was another time round, is none.
    let rest = (known as u32).wrapping_sub(jiffies as u32).wrapping_sub(1);
    if (known >> 32) as u32 == hash && hash != 0 && rest < MOST_QUIET as u32 {
        return;
    }
    let quiet = |until: u64| {
        // SAFETY: as above.
        unsafe { place.write_volatile(u64::from(hash) << 32 | until & 0xffff_ffff) }
    };
    let Some(sk) = socket::of(ctx.skb.skb) else { return };
    let mut due = due(sk, false);
    if due.is_null() {
        // The kernel's own sockets answer for others; they are no stream sockets.
        // SAFETY: `sk` is a full socket.
        if unsafe { (*sk).type_ } != socket::STREAM {
            quiet(jiffies + MOST_QUIET);
            return;
        }
        due = self::due(sk, true);
        if due.is_null() {
            // The socket has no room for it: its end tells all.
            quiet(jiffies + MOST_QUIET);
            return;
        }
    }
    // SAFETY: the storage lives as long as the socket. The socket's segments leave one after the other.
    unsafe {
        if jiffies >= (*due).quiet_until {
            may_be_due(ctx, sk, due, jiffies);
        }
        quiet((*due).quiet_until);
    }
}

/// What is kept of a socket; null where nothing is, and where it can't be kept.
#[inline(always)]
fn due(sk: *mut bpf_sock, create: bool) -> *mut Due {
    let flags = if create { u64::from(BPF_SK_STORAGE_GET_F_CREATE) } else { 0 };
    // SAFETY: `sk` is a full socket, and the map is one of socket storage.
    unsafe { bpf_sk_storage_get((&raw const DUES).cast_mut().cast(), sk.cast(), ptr::null_mut(), flags).cast() }
}

#[inline(always)]
fn may_be_due(ctx: &SkBuffContext, sk: *mut bpf_sock, due: *mut Due, jiffies: u64) {
    // SAFETY: the object's own constant; volatile, for user space sets it.
    let every = unsafe { (&raw const UPDATE_EVERY).read_volatile() };
    // SAFETY: no requirement.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: as in `look`.
    let mut at = unsafe { (*due).at };
    if at == 0 || at > now + every {
        // A new socket, one that is older than the programs, or a longer interval before.
        at = now + 1 + phase(packets::cookie(ctx), every);
    }
    if now >= at {
        // SAFETY: `sk` is a full socket.
        let state = unsafe { (*sk).state };
        // While the own FIN waits to be acknowledged it can't be told what of the peer's is counted.
        if !matches!(state, state::ESTABLISHED | state::CLOSE_WAIT | state::FIN_WAIT2) || !report(ctx, sk, now, state) {
            // SAFETY: as in `look`.
            unsafe {
                (*due).at = at;
                (*due).quiet_until = jiffies + POSTPONED;
            }
            return;
        }
        at += every;
        // What was asleep is not reported twice in a row.
        if at < now + every / 2 {
            at = now + every;
        }
    }
    let left = (at - now) / NANOSECONDS_PER_JIFFY;
    let quiet = if left > MOST_QUIET { MOST_QUIET } else { left };
    // SAFETY: as in `look`.
    unsafe {
        (*due).at = at;
        (*due).quiet_until = jiffies + quiet;
    }
}

/// Where in the interval a socket is reported: spread by its cookie.
#[inline(always)]
fn phase(cookie: u64, every: u64) -> u64 {
    // Knuth's multiplicative hash, of which the upper 24 bits are taken: their product with a 2^24th of a day fits.
    (cookie.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) * (every >> 24)
}

/// Reports what the socket has counted. Returns whether there was room.
#[inline(always)]
fn report(ctx: &SkBuffContext, sk: *mut bpf_sock, now: u64, state: u32) -> bool {
    // Begins and ends come first.
    if FLOWS.query(BPF_RB_AVAIL_DATA as u64) > FLOWS.query(BPF_RB_RING_SIZE as u64) / 2 {
        return false;
    }
    let netns = netns::inode_of_packet(ctx);
    let uncounted = kernel::offset(SOCK_USER_DATA).is_some() && socket::address(sk).is_some_and(socket::is_uncounted);
    let Some(mut reserved) = FLOWS.reserve::<Update>(0) else { return false };
    let record = reserved.as_mut_ptr();
    // SAFETY: `record` is a reserved record of this type and `sk` a full stream socket; every field is written.
    unsafe {
        (*record).kind = event::UPDATE;
        (*record).state = state;
        (*record).time = now;
        (*record).cookie = packets::cookie(ctx);
        socket::addresses(sk, &raw mut (*record).local, &raw mut (*record).remote);
        (*record).local_port = (*sk).src_port as u16;
        (*record).remote_port = socket::remote_port(sk);
        (*record).interface = (*sk).bound_dev_if;
        socket::counters(sk, &raw mut (*record).counters);
        (*record).netns_inode = netns;
        (*record).marks = if uncounted { u32::from(event::UNCOUNTED) } else { 0 };
    }
    let Some(count) = Count::seen(tally::UPDATE) else {
        reserved.discard(0);
        return false;
    };
    reserved.submit(count.wake_up(&FLOWS));
    true
}
