//! What a client says first over TLS: its ClientHello (RFC 8446, 4.1.2), as far as it is the first thing that its side of a
//! connection sends. Reported as it is, for user space to read.
//!
//! A segment is looked at while its sender's first [`HELLO_PAYLOAD`] bytes have not been acknowledged (out) or received (in): the
//! socket counts them, which a helper tells. That is some 20 ns, so sockets that are past their beginning are noted in a small table, by the
//! number that the kernel gives a connection's packets and by both ports: an acknowledgement costs a comparison, and what comes
//! later a look at one word. A number that is made of the connection's ends, as network cards make it, may come again with the next
//! connection between them: its SYN takes the note away.
//!
//! A hello may be cut into segments: those of 1.7 kB, with keys that withstand quantum computers, mostly are. Which ones go
//! on is kept by the connection's ends and not by its socket: the first segment may come to the listening socket, before there is
//! any other (TCP_DEFER_ACCEPT, a lost ACK). Two connections that share a place there make an event too many, and user space
//! knows better.
//!
//! Not looked at: what a SYN carries (Fast Open).

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_tcp_sock, generated::bpf_skb_load_bytes},
    macros::map,
    maps::{Array, LruHashMap},
    programs::SkBuffContext,
};
use flowtel_common::{
    event::{self, AT_LISTENER, Address, HELLO_PAYLOAD, Hello},
    packet::Transport,
    tally,
};

use crate::{
    direct::load,
    dns::{address, bounded},
    emit::{Count, HELLOS},
    socket,
};

/// The most bytes of a hello that are carried.
const MOST: u32 = HELLO_PAYLOAD as u32;
/// Bytes of a ring record for a hello without large keys. The other size is [`HELLO_PAYLOAD`].
const SMALL: usize = 1024;

/// The first byte of a TLS record with a handshake message, and the first of a ClientHello (RFC 8446, 5.1 and 4).
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Bytes before a record's content, and before a handshake message's.
const RECORD_HEADER: u32 = 5;
const MESSAGE_HEADER: u32 = 4;

/// A hello that goes on in the next segment.
#[repr(C)]
#[derive(Clone, Copy)]
struct Rest {
    /// Sequence number of its first byte.
    start: u32,
    /// How long it is, at most [`MOST`].
    length: u32,
}

/// Hellos that go on, by their connection's ends ([`key`]). User space sets how many. The one that was asked for least
/// recently goes first.
#[map(name = "HELLOS_CUT")]
static HELLOS_CUT: LruHashMap<u64, Rest> = LruHashMap::with_max_entries(1, 0);

/// Places of [`PAST`] for each way: a power of two.
const PLACES: u32 = 8192;

/// Sockets that are past their beginning, those of what arrives and then those of what leaves: by the lower bits of their packets'
/// hash the whole hash in the upper half, and both ports in the lower one. Sockets that share a place are asked themselves.
/// Made with room for nobody where nobody asks.
#[map(name = "PAST")]
static PAST: Array<u64> = Array::with_max_entries(1, 0);

/// A record of the ring.
#[repr(C)]
struct Record<const N: usize> {
    head: Hello,
    bytes: [u8; N],
}

/// Where a segment is, and between which ends.
#[derive(Clone, Copy)]
struct Place {
    cookie: u64,
    local: Address,
    remote: Address,
    local_port: u16,
    remote_port: u16,
    /// Sequence number of its first byte.
    sequence: u32,
    /// Where its payload is in the packet, and how long it is.
    payload: u32,
    length: u32,
    way: u32,
}

/// A segment without SYN and RST passes a socket. `offset` is the 13th byte of its TCP header.
#[inline(always)]
pub fn look<const WAY: u32>(ctx: &SkBuffContext, transport: &Transport, offset: u8) {
    let payload = transport.at as u32 + u32::from(offset >> 4) * 4;
    // SAFETY: the program's context.
    let length = unsafe { (*ctx.skb.skb).len }.wrapping_sub(payload);
    if length == 0 || length > 0xffff_0000 {
        return;
    }
    // SAFETY: the program's context; the pointer is tested for null. Ports are members that every socket has.
    let (hash, ports) = unsafe {
        let sk = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return;
        }
        ((*ctx.skb.skb).hash, (*sk).src_port << 16 | u32::from((*sk).dst_port))
    };
    let note = u64::from(hash) << 32 | u64::from(ports);
    let past = past::<WAY>(hash);
    // SAFETY: the map's value lives as long as the program; whole words are read and written.
    if hash != 0 && past.is_some_and(|place| unsafe { place.read_volatile() } == note) {
        return;
    }
    // One helper for nearly all others: it takes any socket of a packet, and says nothing of those that are no TCP ones. What it says of a
    // raw one for TCP is garbage, which is not used further down.
    // SAFETY: the program's context; both pointers are tested for null.
    let tcp = unsafe {
        let sk = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return;
        }
        bpf_tcp_sock(sk)
    };
    if tcp.is_null() {
        return;
    }
    // SAFETY: tested for null.
    let passed = unsafe { if WAY == event::IN { (*tcp).bytes_received } else { (*tcp).bytes_acked } };
    if passed > u64::from(MOST) {
        if let Some(place) = past {
            // SAFETY: as above.
            unsafe { place.write_volatile(note) };
        }
        return;
    }
    // SAFETY: likewise.
    let next = unsafe { if WAY == event::IN { (*tcp).rcv_nxt } else { (*tcp).snd_una } };
    let Some(sk) = socket::of(ctx.skb.skb) else { return };
    // SAFETY: `sk` is a full socket.
    if unsafe { (*sk).type_ } != socket::STREAM {
        return;
    }
    let Some(sequence) = load::<4>(ctx, transport.at + 4) else { return };
    let sequence = u32::from_be_bytes(sequence);
    // What was sent before it. Where this side asked for the connection, its SYN counts among what was acknowledged.
    let at = sequence.wrapping_sub(next).wrapping_add(passed as u32);
    if at > MOST {
        return;
    }
    let first = at == 0 || WAY == event::OUT && at == 1;
    if first && !is_hello(ctx, payload, length) {
        return;
    }
    let Some(place) = place(ctx, sk, sequence, [payload, length], WAY) else { return };
    if first { begins(ctx, &place) } else { goes_on(ctx, &place) }
}

/// Where a socket is noted that is past its beginning.
#[inline(always)]
fn past<const WAY: u32>(hash: u32) -> Option<*mut u64> {
    let first = if WAY == event::IN { 0 } else { PLACES };
    PAST.get_ptr_mut(first + (hash & (PLACES - 1)))
}

/// A SYN arrives: what was noted of a connection with its hash is over.
#[inline(always)]
pub fn asked(ctx: &SkBuffContext) {
    // SAFETY: the program's context.
    let hash = unsafe { (*ctx.skb.skb).hash };
    if let Some(place) = past::<{ event::IN }>(hash) {
        // SAFETY: as in `look`.
        unsafe { place.write_volatile(0) };
    }
}

/// A segment without SYN and RST comes to a listening socket: it completes a handshake, or nothing. `offset` is
/// the 13th byte of its TCP header.
#[inline(always)]
pub fn at_listener(ctx: &SkBuffContext, transport: &Transport, offset: u8) {
    let payload = transport.at as u32 + u32::from(offset >> 4) * 4;
    // SAFETY: the program's context.
    let length = unsafe { (*ctx.skb.skb).len }.wrapping_sub(payload);
    if length == 0 || length > 0xffff_0000 || !is_hello(ctx, payload, length) {
        return;
    }
    let Some(tcp) = load::<8>(ctx, transport.at) else { return };
    let Some(remote) = address(ctx, transport, [12, 8]) else { return };
    let Some(local) = address(ctx, transport, [16, 24]) else { return };
    let place = Place {
        // SAFETY: the program's context.
        cookie: unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) },
        local,
        remote,
        local_port: u16::from_be_bytes([tcp[2], tcp[3]]),
        remote_port: u16::from_be_bytes([tcp[0], tcp[1]]),
        sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        payload,
        length,
        way: event::IN | AT_LISTENER,
    };
    begins(ctx, &place);
}

/// Whether a segment's payload starts like a hello, as far as it goes.
#[inline(always)]
fn is_hello(ctx: &SkBuffContext, payload: u32, length: u32) -> bool {
    if length > RECORD_HEADER {
        let Some(head) = load::<6>(ctx, payload as usize) else { return false };
        return head[0] == HANDSHAKE && head[5] == CLIENT_HELLO;
    }
    let Some([first]) = load::<1>(ctx, payload as usize) else { return false };
    first == HANDSHAKE
}

#[inline(always)]
fn place(ctx: &SkBuffContext, sk: *mut bpf_sock, sequence: u32, payload: [u32; 2], way: u32) -> Option<Place> {
    let (mut local, mut remote) = ([0; 4], [0; 4]);
    // SAFETY: `sk` is a full socket; the addresses are this function's own.
    let remote_port = unsafe {
        socket::addresses(sk, &raw mut local, &raw mut remote);
        socket::remote_port(sk)
    };
    Some(Place {
        // SAFETY: the program's context.
        cookie: unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) },
        local,
        remote,
        // SAFETY: `sk` is a full socket.
        local_port: unsafe { (*sk).src_port } as u16,
        remote_port,
        sequence,
        payload: payload[0],
        length: payload[1],
        way,
    })
}

/// The ends of a connection as a number: by the peer, whose address is known at the listening socket too.
#[inline(always)]
fn key(place: &Place) -> u64 {
    let two = |a: u32, b: u32| u64::from(a) << 32 | u64::from(b);
    let [a, b, c, d] = place.remote;
    let ports = two(u32::from(place.local_port), u32::from(place.remote_port));
    let mixed = two(a, b).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ two(c, d);
    (mixed.wrapping_mul(0xff51_afd7_ed55_8ccd) ^ ports << 1) | u64::from(place.way & event::IN)
}

/// The first segment of a hello.
#[inline(always)]
fn begins(ctx: &SkBuffContext, place: &Place) {
    let whole = RECORD_HEADER + MESSAGE_HEADER;
    let mut length = MOST;
    if place.length >= whole {
        let Some(head) = load::<9>(ctx, place.payload as usize) else { return };
        let record = u32::from(head[3]) << 8 | u32::from(head[4]);
        let message = u32::from(head[6]) << 16 | u32::from(head[7]) << 8 | u32::from(head[8]);
        // Of a message in several records it is not known yet how long it is with their headers.
        if message + MESSAGE_HEADER <= record && message + whole < MOST {
            length = message + whole;
        }
    }
    if place.length < length {
        let rest = Rest { start: place.sequence, length };
        // Where there is no room the hello has no rest.
        let _ = HELLOS_CUT.insert(&key(place), &rest, 0);
    }
    report(ctx, place, 0, length);
}

/// A segment that may be more of a hello.
#[inline(always)]
fn goes_on(ctx: &SkBuffContext, place: &Place) {
    let Some(rest) = HELLOS_CUT.get_ptr(&key(place)) else { return };
    // SAFETY: the value stays there until the program ends, though its place may be given to another connection.
    let (start, length) = unsafe { ((*rest).start, (*rest).length) };
    let at = place.sequence.wrapping_sub(start);
    if at != 0 && at < length {
        report(ctx, place, at, length - at);
    }
}

/// Reports at most `left` bytes of the segment, the first of which is the hello's `at`.
#[inline(always)]
fn report(ctx: &SkBuffContext, place: &Place, at: u32, left: u32) {
    let length = if place.length > left { left } else { place.length };
    let cut = u32::from(place.length > left && at + left >= MOST);
    let Some(count) = Count::seen(tally::HELLO) else { return };
    if length <= SMALL as u32 {
        write::<SMALL>(ctx, place, [at, length, cut], count);
    } else {
        write::<HELLO_PAYLOAD>(ctx, place, [at, length, cut], count);
    }
}

#[inline(always)]
fn write<const N: usize>(ctx: &SkBuffContext, place: &Place, [at, length, cut]: [u32; 3], count: Count) {
    let Some(mut reserved) = HELLOS.reserve::<Record<N>>(0) else { return count.lost() };
    let record = reserved.as_mut_ptr();
    let length = bounded(u64::from(length), N as u64);
    // SAFETY: `record` is a reserved record of this type; every field of its head is written, and of its bytes those that the
    // head says there are. `length` is at most `N`.
    let copied = unsafe {
        (*record).head.kind = event::HELLO;
        (*record).head.length = length as u32;
        (*record).head.time = bpf_ktime_get_boot_ns();
        (*record).head.cookie = place.cookie;
        (*record).head.local = place.local;
        (*record).head.remote = place.remote;
        (*record).head.local_port = place.local_port;
        (*record).head.remote_port = place.remote_port;
        (*record).head.at = at;
        (*record).head.way = place.way;
        (*record).head.cut = cut;
        let into = (&raw mut (*record).bytes).cast();
        bpf_skb_load_bytes(ctx.skb.skb.cast(), place.payload, into, length as u32) == 0
    };
    if copied {
        reserved.submit(count.wake_up(&HELLOS));
    } else {
        reserved.discard(0);
        count.lost();
    }
}
