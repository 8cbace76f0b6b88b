//! Answers of name servers, where this host asked: a query is noted when it leaves a socket, and the first answer to it
//! that arrives at the same socket from the same server with the same id is reported. Everything else from port 53 is
//! forged, late or not ours, and passes by uncounted.
//!
//! What is the server is a question of NAT: Docker rewrites queries to 127.0.0.11:53 to a random port, so the bytes of a
//! query don't show it. The socket does where it is connected; where it is not, sendmsg4/6 sees the address first. Another
//! program there may rewrite it (a load balancer in the socket layer): before flowtel's, and then flowtel sees what it became; or
//! after, and then the query's bytes show it. So where the two differ an answer from either is taken, and one only.

use core::ptr;

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_skb_cgroup_id, generated::bpf_skb_load_bytes},
    macros::map,
    maps::{LruHashMap, PerCpuArray},
    programs::{SkBuffContext, SockAddrContext},
};
use flowtel_common::{
    event::{self, Address, DNS_ASKED, DNS_PAYLOAD, Dns, mapped},
    packet::{Packet as _, Transport},
    tally,
};

use crate::{
    calls::{self, Family},
    direct::{Direct, load},
    emit::{ANSWERS, Count},
    socket,
};

const PORT: u16 = 53;
const UDP_HEADER: u32 = 8;
const DNS_HEADER: u32 = 12;

/// What an answer must fit.
#[repr(C)]
#[derive(Clone, Copy)]
struct Query {
    cookie: u64,
    server: Address,
    id: u32,
    reserved: u32,
}

/// What was asked.
#[repr(C)]
#[derive(Clone, Copy)]
struct Asked {
    length: u32,
    bytes: [u8; DNS_ASKED],
    /// The other address that may answer the same query; zeros where there is none.
    other: Address,
}

/// Queries that await an answer. The least recently asked go first: a flood of queries costs names, never flows.
#[map(name = "QUERIES")]
static QUERIES: LruHashMap<Query, Asked> = LruHashMap::with_max_entries(8192, 0);

/// Name servers that unconnected sockets send to, by cookie.
#[map(name = "SERVERS")]
static SERVERS: LruHashMap<u64, Address> = LruHashMap::with_max_entries(4096, 0);

/// An event is put together here: it is too large for the stack, and a ring record of its true length is smaller than
/// one for the largest.
#[repr(C)]
struct Scratch {
    head: Dns,
    message: [u8; DNS_PAYLOAD],
}

#[map(name = "SCRATCH")]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Notes where an unconnected socket sends its queries.
#[inline(always)]
pub fn send(ctx: &SockAddrContext, family: Family) {
    if calls::port(ctx) != PORT {
        return;
    }
    // SAFETY: the program's context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) };
    // Where the map has no room the names of this socket's answers are not learned.
    let _ = SERVERS.insert(&cookie, &calls::address(ctx, family), BPF_ANY as u64);
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
    if connected != 0 && connected != PORT {
        return;
    }
    // SAFETY: `skb` is the program's context.
    let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
    let server = if connected == PORT {
        // SAFETY: `sk` is a full socket.
        unsafe { socket::remote(sk) }
    } else {
        // SAFETY: the value is copied at once; another CPU may write it meanwhile, for the same socket.
        match unsafe { SERVERS.get(&cookie) } {
            Some(server) => *server,
            None => return,
        }
    };
    let Some(head) = load::<4>(ctx, transport.at + UDP_HEADER as usize) else { return };
    if head[2] & 0x80 != 0 {
        return; // an answer
    }
    let query = Query { cookie, server, id: u16::from_be_bytes([head[0], head[1]]).into(), reserved: 0 };
    let mut asked = Asked { length: 0, bytes: [0; DNS_ASKED], other: [0; 4] };
    let from = transport.at as u32 + UDP_HEADER + DNS_HEADER;
    // SAFETY: `skb` is the program's context.
    let left = unsafe { (*skb).len }.wrapping_sub(from);
    if left == 0 || left > 0xffff {
        return;
    }
    let length = bounded(left as u64, DNS_ASKED as u64);
    // SAFETY: `length` bytes fit into the buffer, which is initialised.
    if unsafe { bpf_skb_load_bytes(skb.cast(), from, asked.bytes.as_mut_ptr().cast(), length as u32) } != 0 {
        return;
    }
    asked.length = length as u32;
    if connected == 0
        && let Some(destination) = address(ctx, transport, [16, 24])
        && destination != server
    {
        asked.other = server;
        let _ = QUERIES.insert(&Query { server: destination, ..query }, &asked, BPF_ANY as u64);
        asked.other = destination;
    }
    let _ = QUERIES.insert(&query, &asked, BPF_ANY as u64);
}

/// One of a packet's addresses: where it lies in the header of IPv4, and of IPv6.
#[inline(always)]
fn address(ctx: &SkBuffContext, transport: &Transport, [v4, v6]: [usize; 2]) -> Option<Address> {
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
    if u16::from_be_bytes(port) != PORT {
        return;
    }
    let Some(head) = load::<4>(ctx, transport.at + UDP_HEADER as usize) else { return };
    if head[2] & 0x80 == 0 {
        return; // a query
    }
    let skb = ctx.skb.skb;
    let Some(server) = address(ctx, transport, [12, 8]) else { return };
    // SAFETY: `skb` is the program's context.
    let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
    let query = Query { cookie, server, id: u16::from_be_bytes([head[0], head[1]]).into(), reserved: 0 };
    // SAFETY: the value is copied before the entry is removed.
    let Some(asked) = (unsafe { QUERIES.get(&query) }) else { return };
    let Some(count) = Count::seen(tally::DNS) else { return };
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return };
    let from = transport.at as u32 + UDP_HEADER;
    // SAFETY: `skb` is the program's context; `scratch` is this CPU's, and no program that uses it interrupts another
    // (packets are received with softirqs off). `length` is at most the buffer's.
    let written = unsafe {
        let whole = (*skb).len.wrapping_sub(from);
        (*scratch).head.asked = asked.bytes;
        (*scratch).head.asked_length = asked.length;
        let other = Query { server: asked.other, ..query };
        // One answer a query: whoever forges a second one comes too late.
        let _ = QUERIES.remove(&query);
        if other.server != [0; 4] {
            let _ = QUERIES.remove(&other);
        }
        let length = bounded(whole as u64, DNS_PAYLOAD as u64);
        (*scratch).head.kind = event::DNS;
        (*scratch).head.length = length as u32;
        (*scratch).head.time = bpf_ktime_get_boot_ns();
        (*scratch).head.cookie = cookie;
        (*scratch).head.cgroup = bpf_skb_cgroup_id(skb);
        (*scratch).head.whole = whole;
        let message = (&raw mut (*scratch).message).cast();
        bpf_skb_load_bytes(skb.cast(), from, message, length as u32) == 0 && output(scratch, length, count)
    };
    if !written {
        count.lost();
    }
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
fn bounded(n: u64, most: u64) -> u64 {
    let last = if n > most { most - 1 } else { n.wrapping_sub(1) };
    // SAFETY: a local variable.
    (unsafe { ptr::read_volatile(&last) } & (most - 1)) + 1
}
