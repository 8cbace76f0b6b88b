//! Answers of name servers, where this host asked: a query is noted when it leaves a socket, and the first answer to it
//! that arrives at the same socket from the same server with the same id is reported. Everything else from a name server's
//! port is forged, late or not ours, and passes by uncounted.
//!
//! What is the server is a question of NAT: Docker rewrites queries to 127.0.0.11:53 to a random port, so the bytes of a
//! query don't show it. The socket does where it is connected; where it is not, sendmsg4/6 sees the address first. Another
//! program there may rewrite it (a load balancer in the socket layer): before flowtel's, and then flowtel sees what it
//! became; or after, and then the query's bytes show it. So where the two differ an answer from either is taken, and one
//! only.
//!
//! Queries are kept with the socket that asks (BPF_MAP_TYPE_SK_STORAGE): whoever asks more than is answered pushes out
//! queries of the same socket alone, and they are counted. What is kept goes with the socket.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::{
        bpf_get_current_uid_gid, bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_skb_cgroup_id,
        generated::{bpf_sk_storage_get, bpf_skb_load_bytes},
    },
    macros::map,
    maps::PerCpuArray,
    programs::{SkBuffContext, SockAddrContext},
};
use flowtel_common::{
    event::{self, Address, DNS_ASKED, DNS_PAYLOAD, Dns, NO_UID, mapped},
    packet::{Packet as _, Transport},
    tally,
};

use crate::{
    calls::{self, Family},
    direct::{Direct, load},
    emit::{ANSWERS, Count},
    socket,
};

/// Ports of name servers, four to a word, the first in the lowest bits; 0 is none. Set by user space before loading.
#[unsafe(no_mangle)]
static DNS_PORTS: [u64; event::DNS_PORTS / 4] = [53, 0];

const UDP_HEADER: u32 = 8;
const DNS_HEADER: u32 = 12;

/// How many queries of one socket may await their answer: a power of two. A resolver has two or so; one that asks for many
/// clients over one socket has more.
const PENDING: u32 = 16;

/// A query that awaits its answer.
#[repr(C)]
#[derive(Clone, Copy)]
struct Query {
    /// Who may answer.
    server: Address,
    /// Who may answer instead; zeros where nobody.
    other: Address,
    /// The query's id, and [`AWAITED`]; 0: there is no query.
    id: u32,
    /// How many of the bytes that follow are the query's.
    length: u32,
    asked: [u8; DNS_ASKED],
}

/// Above the 16 bits of an id.
const AWAITED: u32 = 1 << 16;

/// What is kept of a socket.
#[repr(C)]
struct Asking {
    /// Where it sends queries, where it is not connected.
    server: Address,
    /// In which network namespace it is; 0: not known.
    netns: u64,
    /// Who sent, or connected, last.
    uid: u32,
    /// How many queries there were.
    count: u32,
    /// 1: what it sends next is a query, where it is not connected: it may talk to others than name servers, too.
    asks: u32,
    reserved: u32,
    pending: [Query; PENDING as usize],
}

/// A map of type 24 (BPF_MAP_TYPE_SK_STORAGE) as libbpf defines it. (aya's own takes contexts of one kind only, and hides
/// its fields from its loader where it is wrapped.)
#[repr(C)]
struct Storage {
    r#type: *const [i32; 24],
    key: *const i32,
    value: *const Asking,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: it holds no values, only types.
unsafe impl Sync for Storage {}

#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "ASKING")]
static ASKING: Storage = Storage {
    r#type: ptr::null(),
    key: ptr::null(),
    value: ptr::null(),
    max_entries: ptr::null(),
    map_flags: ptr::null(),
};

/// An event is put together here: it is too large for the stack, and a ring record of its true length is smaller than
/// one for the largest.
#[repr(C)]
struct Scratch {
    head: Dns,
    message: [u8; DNS_PAYLOAD],
}

#[map(name = "SCRATCH")]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Notes where an unconnected socket sends its queries, or to which name server one is connected, and who does it.
#[inline(always)]
pub fn send(ctx: &SockAddrContext, family: Family) {
    if !is_name_server(calls::port(ctx)) {
        return;
    }
    // SAFETY: the program's context.
    let sk = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    if sk.is_null() {
        return;
    }
    // Where there is no room the names of this socket's answers are not learned; its next query counts.
    let Some(asking) = asking(sk, true) else { return };
    let to = calls::address(ctx, family);
    // SAFETY: the storage lives as long as the socket. Two threads that send on one socket at once to different servers may
    // get each other's: then an answer counts for nothing.
    unsafe {
        (*asking).server = to;
        (*asking).netns = bpf_get_netns_cookie(ctx.sock_addr.cast());
        (*asking).uid = bpf_get_current_uid_gid() as u32;
        (&raw mut (*asking).asks).write_volatile(1);
    }
}

/// Notes a query that leaves.
#[inline(always)]
pub fn leaves(ctx: &SkBuffContext, transport: &Transport) {
    let skb = ctx.skb.skb;
    let Some(sk) = socket::of(skb) else { return };
    // SAFETY: `sk` is a full socket.
    if unsafe { (*sk).type_ } != socket::DATAGRAM {
        return;
    }
    // SAFETY: `sk` is a full socket.
    let connected = unsafe { socket::remote_port(sk) };
    if connected != 0 && !is_name_server(connected) {
        return;
    }
    // A connected socket may be older than the programs.
    let Some(asking) = asking(sk, connected != 0) else { return };
    if connected == 0 {
        // SAFETY: the storage lives as long as the socket.
        unsafe {
            let asks = &raw mut (*asking).asks;
            if asks.read_volatile() == 0 {
                return;
            }
            asks.write_volatile(0);
        }
    }
    let Some(head) = load::<4>(ctx, transport.at + UDP_HEADER as usize) else { return };
    if head[2] & 0x80 != 0 {
        return; // an answer
    }
    let from = transport.at as u32 + UDP_HEADER + DNS_HEADER;
    // SAFETY: `skb` is the program's context.
    let left = unsafe { (*skb).len }.wrapping_sub(from);
    if left == 0 || left > 0xffff {
        return;
    }
    // SAFETY: `sk` is a full socket, and the storage lives as long as it.
    let server = if connected != 0 { unsafe { socket::remote(sk) } } else { unsafe { (*asking).server } };
    let seen = if connected == 0 { address(ctx, transport, [16, 24]) } else { None };
    let length = bounded(left as u64, DNS_ASKED as u64);
    // SAFETY: as above; volatile, for the verifier must see the mask behind the load.
    unsafe {
        let count = (&raw const (*asking).count).read_volatile();
        (&raw mut (*asking).count).write_volatile(count.wrapping_add(1));
        let query = (&raw mut (*asking).pending).cast::<Query>().add((count & (PENDING - 1)) as usize);
        if (*query).id != 0
            && let Some(count) = Count::seen(tally::DNS)
        {
            count.limited();
        }
        // Nobody's answer counts until the whole query is there.
        (&raw mut (*query).id).write_volatile(0);
        (*query).server = server;
        (*query).other = match seen {
            Some(seen) if seen != server => seen,
            _ => [0; 4],
        };
        (*query).length = length as u32;
        let asked = (&raw mut (*query).asked).cast();
        if bpf_skb_load_bytes(skb.cast(), from, asked, length as u32) == 0 {
            let id = u32::from(u16::from_be_bytes([head[0], head[1]])) | AWAITED;
            (&raw mut (*query).id).write_volatile(id);
        }
    }
}

/// One of a packet's addresses: where it lies in the header of IPv4, and of IPv6.
#[inline(always)]
pub fn address(ctx: &SkBuffContext, transport: &Transport, [v4, v6]: [usize; 2]) -> Option<Address> {
    if transport.version == 4 {
        return load::<4>(ctx, v4).map(|address| mapped(u32::from_ne_bytes(address)));
    }
    let a = load::<16>(ctx, v6)?;
    let word = |i: usize| u32::from_ne_bytes([a[i], a[i + 1], a[i + 2], a[i + 3]]);
    Some([word(0), word(4), word(8), word(12)])
}

/// Reports an answer that arrives.
#[inline(always)]
pub fn arrives(ctx: &SkBuffContext, bytes: &Direct, transport: &Transport) {
    let Some(port) = bytes.bytes::<2>(transport.at) else { return };
    if !is_name_server(u16::from_be_bytes(port)) {
        return;
    }
    let Some(head) = load::<4>(ctx, transport.at + UDP_HEADER as usize) else { return };
    if head[2] & 0x80 == 0 {
        return; // a query
    }
    let skb = ctx.skb.skb;
    let Some(sk) = socket::of(skb) else { return };
    let Some(asking) = asking(sk, false) else { return };
    let Some(server) = address(ctx, transport, [12, 8]) else { return };
    let id = u32::from(u16::from_be_bytes([head[0], head[1]])) | AWAITED;
    let Some(query) = awaited(asking, id, server) else { return };
    let Some(count) = Count::seen(tally::DNS) else { return };
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return };
    let from = transport.at as u32 + UDP_HEADER;
    // SAFETY: `skb` is the program's context; `scratch` is this CPU's, and no program that uses it interrupts another
    // (packets are received with softirqs off). `length` is at most the buffer's. `query` is a part of the socket's storage.
    let written = unsafe {
        let whole = (*skb).len.wrapping_sub(from);
        (*scratch).head.asked = (*query).asked;
        (*scratch).head.asked_length = (*query).length;
        // One answer a query: whoever forges a second one comes too late.
        (&raw mut (*query).id).write_volatile(0);
        let length = bounded(whole as u64, DNS_PAYLOAD as u64);
        (*scratch).head.kind = event::DNS;
        (*scratch).head.length = length as u32;
        (*scratch).head.time = bpf_ktime_get_boot_ns();
        (*scratch).head.cookie = bpf_get_socket_cookie(skb.cast());
        (*scratch).head.cgroup = bpf_skb_cgroup_id(skb);
        (*scratch).head.whole = whole;
        let netns = (*asking).netns;
        (*scratch).head.netns = netns;
        (*scratch).head.uid = if netns != 0 { (*asking).uid } else { NO_UID };
        (*scratch).head.reserved = 0;
        let message = (&raw mut (*scratch).message).cast();
        bpf_skb_load_bytes(skb.cast(), from, message, length as u32) == 0 && output(scratch, length, count)
    };
    if !written {
        count.lost();
    }
}

/// What is kept of the socket `sk`; made where it is `wanted` and not there.
#[inline(always)]
fn asking(sk: *mut bpf_sock, wanted: bool) -> Option<*mut Asking> {
    let flags = if wanted { BPF_SK_STORAGE_GET_F_CREATE as u64 } else { 0 };
    // SAFETY: `sk` is a socket, and not null; the map has values of this type, and a fresh one is zeroed.
    let asking = unsafe {
        bpf_sk_storage_get((&raw const ASKING).cast_mut().cast(), sk.cast(), ptr::null_mut(), flags).cast::<Asking>()
    };
    if asking.is_null() { None } else { Some(asking) }
}

/// The socket's query with this id that `server` may answer.
#[inline(always)]
fn awaited(asking: *mut Asking, id: u32, server: Address) -> Option<*mut Query> {
    for at in 0..PENDING {
        // SAFETY: the storage lives as long as the socket; `at` is within it.
        unsafe {
            let query = (&raw mut (*asking).pending).cast::<Query>().add(at as usize);
            if (&raw const (*query).id).read_volatile() == id && ((*query).server == server || (*query).other == server)
            {
                return Some(query);
            }
        }
    }
    None
}

/// Whether name servers answer at this port.
#[inline(always)]
fn is_name_server(port: u16) -> bool {
    let ports = (&raw const DNS_PORTS).cast::<u64>();
    let has = |four: u64| {
        let at = |n: u32| (four >> (n * 16)) as u16 == port;
        at(0) || at(1) || at(2) || at(3)
    };
    // SAFETY: elements of a static. Volatile, for the compiler must not take the values above for those that count.
    port != 0 && unsafe { has(ports.read_volatile()) || has(ports.add(1).read_volatile()) }
}

/// Writes head and message into the ring.
///
/// # Safety
/// `scratch` is filled, and `length` at most [`DNS_PAYLOAD`].
#[inline(always)]
unsafe fn output(scratch: *const Scratch, length: u64, count: Count) -> bool {
    let size = size_of::<Dns>() as u64 + length;
    // SAFETY: as the caller promises.
    let record = unsafe { core::slice::from_raw_parts(scratch.cast::<u8>(), size as usize) };
    ANSWERS.output::<[u8]>(record, count.wake_up(&ANSWERS)).is_ok()
}

/// `n`, at least 1 and at most `most`, a power of two: in a form that the verifier of 5.10 follows. (It learns no lower
/// bound from a comparison with 0, and the compiler must not see through the mask.)
#[inline(always)]
pub fn bounded(n: u64, most: u64) -> u64 {
    let last = if n > most { most - 1 } else { n.wrapping_sub(1) };
    // SAFETY: a local variable.
    (unsafe { ptr::read_volatile(&last) } & (most - 1)) + 1
}
