//! Packets: which of them answers a SYN, ends a connection, or refuses one. Data segments leave at the flags.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, bpf_sock},
    helpers::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_skb_cgroup_id},
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
    programs::SkBuffContext,
};
use flowtel_common::{
    event::{self, Fin, Refused, Segment, mapped, state},
    packet::{self, Flags, Packet as _, TCP, Transport, UDP},
    tally,
};

use crate::{
    direct::{Direct, load},
    dns,
    emit::{Count, FLOWS, answered, emit_counted, taken},
    netns, socket, tls, updates,
};

/// A packet that arrives: an answer to a SYN, what completes a handshake (where `TAKERS` are wanted), an end (where `ENDS`
/// are), a name server's answer (where `NAMES` are), or what a client says of TLS (where `HELLOS` are, with the others).
#[inline(always)]
pub fn arrives<const ENDS: bool, const NAMES: bool, const TAKERS: bool, const HELLOS: bool>(ctx: &SkBuffContext) {
    // Where nothing else is wanted, the socket's state tells almost every packet from answers to SYNs, and nothing of the
    // packet need be read.
    if !ENDS
        && !NAMES
        && !(socket::is_in(ctx.skb.skb, state::SYN_SENT) || TAKERS && socket::is_in(ctx.skb.skb, state::LISTEN))
    {
        return;
    }
    let bytes = Direct::of(ctx);
    let Some(transport) = packet::transport(&bytes) else { return };
    if transport.protocol == UDP {
        if NAMES {
            dns::arrives(ctx, &bytes, &transport);
        }
        return;
    }
    let Some((offset, flags)) = offset_and_flags::<HELLOS>(&bytes, &transport) else { return };
    // What is asked of the packet comes before what is asked of the socket, which is farther away. But for this: the kernel
    // has just asked the socket the same.
    if TAKERS && flags.0 & (Flags::SYN | Flags::RST) == 0 && socket::is_in(ctx.skb.skb, state::LISTEN) {
        if let Some(tcp) = load::<12>(ctx, transport.at) {
            let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
            taken(cookie(ctx), word(0), word(8));
        }
        if HELLOS {
            tls::at_listener(ctx, &transport, offset);
        }
        return;
    }
    if HELLOS && flags.0 & (Flags::SYN | Flags::RST) == 0 {
        tls::look::<{ event::IN }>(ctx, &transport, offset);
    }
    if flags.says_nothing() {
        return;
    }
    if HELLOS && flags.0 & (Flags::SYN | Flags::ACK) == Flags::SYN {
        tls::asked(ctx);
    }
    if flags.is_syn_ack() {
        if socket::is_in(ctx.skb.skb, state::SYN_SENT) {
            answered(cookie(ctx));
        }
    } else if ENDS
        // A FIN that comes is told by the socket's states and end, but for sockets whose states are not.
        && (flags.0 & Flags::RST != 0 || flags.0 & Flags::FIN != 0 && any_older())
        && let Some(sk) = stream(ctx)
    {
        segment(ctx, sk, &transport, flags, event::IN);
    }
}

/// A packet that leaves: an end or a refusal (where `ENDS` are wanted), a query, an occasion to report an open flow (where
/// `UPDATES` are), or what a client says of TLS (where `HELLOS` are).
#[inline(always)]
pub fn leaves<const ENDS: bool, const UPDATES: bool, const HELLOS: bool>(ctx: &SkBuffContext) {
    let bytes = Direct::of(ctx);
    let Some(transport) = packet::transport(&bytes) else { return };
    if transport.protocol == UDP {
        dns::leaves(ctx, &transport);
        return;
    }
    if !ENDS {
        return;
    }
    let Some((offset, flags)) = offset_and_flags::<HELLOS>(&bytes, &transport) else { return };
    if HELLOS && flags.0 & (Flags::SYN | Flags::RST) == 0 {
        tls::look::<{ event::OUT }>(ctx, &transport, offset);
    }
    if flags.says_nothing() {
        if UPDATES {
            updates::look(ctx);
        }
        return;
    }
    // A FIN that leaves, too, is told by the socket's states and end, but for sockets whose states are not.
    if flags.0 & Flags::RST == 0 && (flags.0 & Flags::FIN == 0 || !any_older()) {
        return;
    }
    if let Some(sk) = stream(ctx) {
        segment(ctx, sk, &transport, flags, event::OUT);
    } else if flags.0 & (Flags::RST | Flags::ACK) == Flags::RST | Flags::ACK {
        refused(ctx, &transport);
    }
}

/// The flags of a TCP segment, and where `OFFSET` is wanted the byte before them, which says where the payload is; else 0. One
/// access for both: the verifier forgets what was compared for the first when there is a second.
#[inline(always)]
fn offset_and_flags<const OFFSET: bool>(bytes: &Direct, transport: &Transport) -> Option<(u8, Flags)> {
    if transport.protocol != TCP {
        return None;
    }
    if OFFSET {
        let [offset, flags] = bytes.bytes::<2>(transport.at + 12)?;
        return Some((offset, Flags(flags)));
    }
    let [flags] = bytes.bytes::<1>(transport.at + 13)?;
    Some((0, Flags(flags)))
}

/// The packet's socket, where it is an ordinary TCP one. Raw sockets and the kernel's control socket are not.
#[inline(always)]
fn stream(ctx: &SkBuffContext) -> Option<*mut bpf_sock> {
    let sk = socket::of(ctx.skb.skb)?;
    // SAFETY: `sk` is a full socket.
    if unsafe { (*sk).type_ } == socket::STREAM { Some(sk) } else { None }
}

/// The packet's socket (SO_COOKIE).
#[inline(always)]
pub fn cookie(ctx: &SkBuffContext) -> u64 {
    // SAFETY: the program's context.
    unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) }
}

/// Cookies of established sockets that are older than these programs, each with 1 once the peer's FIN has come: no change of
/// their state is told, so their FINs are. User space fills it at its start (and sets its size), and takes out what has
/// ended. Only segments with FIN or RST look here. Not preallocated: it costs what is in it.
#[map(name = "OLDER")]
static OLDER: HashMap<u64, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// 1 while there may be any: cookie and look-up cost each FIN a quarter of a microsecond, and for nothing once all have ended.
#[map(name = "ANY_OLDER")]
static ANY_OLDER: Array<u32> = Array::with_max_entries(1, 0);

#[inline(always)]
fn any_older() -> bool {
    // SAFETY: the map's value lives as long as the program; user space writes it.
    ANY_OLDER.get_ptr(0).is_some_and(|any| unsafe { any.read_volatile() } != 0)
}

#[inline(always)]
fn segment(ctx: &SkBuffContext, sk: *mut bpf_sock, transport: &Transport, flags: Flags, way: u32) {
    // SAFETY: `sk` is a full socket.
    let state = unsafe { (*sk).state };
    if flags.0 & Flags::RST == 0 {
        fin(ctx, sk, transport, state, way);
    } else if state != state::LISTEN {
        // Strays at a listener end nothing.
        reset(ctx, sk, transport, state, way);
    }
}

/// A FIN. One event a socket as a rule: the own FIN's, which says that the peer's came where it did. Only where the own one is
/// out the peer's has an event, too.
#[inline(always)]
fn fin(ctx: &SkBuffContext, sk: *mut bpf_sock, transport: &Transport, state: u32, way: u32) {
    let cookie = cookie(ctx);
    let Some(came) = OLDER.get_ptr_mut(&cookie) else { return };
    if way == event::IN {
        // SAFETY: the value stays there until the program ends, though user space may take it out of the table.
        unsafe { came.write_volatile(1) };
        if !matches!(state, state::FIN_WAIT1 | state::FIN_WAIT2) {
            return;
        }
    }
    let Some(tcp) = load::<16>(ctx, transport.at) else { return };
    let end = end_of(ctx, transport, &tcp, 1);
    // No closure, although two programs use this: it would become a function with a name that holds a hash of this folder's
    // path, and the object would have other bytes in every folder.
    let Some(count) = Count::seen(tally::FIN) else { return };
    let Some(mut reserved) = FLOWS.reserve::<Fin>(0) else { return count.lost() };
    let record = reserved.as_mut_ptr();
    // SAFETY: `record` is a reserved record of this type and `sk` a full stream socket; every field is written.
    unsafe {
        (*record).kind = event::FIN;
        (*record).way = way;
        (*record).time = bpf_ktime_get_boot_ns();
        (*record).cookie = cookie;
        (*record).state = state;
        let counted = socket::counters(sk, &raw mut (*record).counters);
        (*record).ahead = end.wrapping_sub(if way == event::IN { counted.received } else { counted.acknowledged });
    }
    reserved.submit(count.wake_up(&FLOWS));
}

#[inline(always)]
fn reset(ctx: &SkBuffContext, sk: *mut bpf_sock, transport: &Transport, state: u32, way: u32) {
    let cookie = cookie(ctx);
    let fin_in = if any_older() {
        // SAFETY: the value is copied at once.
        unsafe { OLDER.get(&cookie) }.map_or(0, |came| *came)
    } else {
        0
    };
    let Some(tcp) = load::<16>(ctx, transport.at) else { return };
    let (near, far) =
        if way == event::IN { ([tcp[2], tcp[3]], [tcp[0], tcp[1]]) } else { ([tcp[0], tcp[1]], [tcp[2], tcp[3]]) };
    let end = end_of(ctx, transport, &tcp, u32::from(tcp[13] & Flags::FIN));
    let Some(count) = Count::seen(tally::RESET) else { return };
    let Some(mut reserved) = FLOWS.reserve::<Segment>(0) else { return count.lost() };
    let record = reserved.as_mut_ptr();
    // SAFETY: `record` is a reserved record of this type and `sk` a full stream socket; every field is written.
    unsafe {
        (*record).kind = event::RESET;
        (*record).way = way;
        (*record).time = bpf_ktime_get_boot_ns();
        (*record).cookie = cookie;
        (*record).cgroup = bpf_skb_cgroup_id(ctx.skb.skb);
        socket::addresses(sk, &raw mut (*record).local, &raw mut (*record).remote);
        // After a local reset the socket has no port any more: the packet has.
        let own = (*sk).src_port as u16;
        (*record).local_port = if own != 0 { own } else { u16::from_be_bytes(near) };
        let peer = socket::remote_port(sk);
        (*record).remote_port = if peer != 0 { peer } else { u16::from_be_bytes(far) };
        (*record).state = state;
        let counted = socket::counters(sk, &raw mut (*record).counters);
        (*record).ahead = end.wrapping_sub(if way == event::IN { counted.received } else { counted.acknowledged });
        (*record).fin_in = fin_in;
    }
    reserved.submit(count.wake_up(&FLOWS));
}

/// The sequence number after a segment, its FIN included (RFC 9293, 3.1).
#[inline(always)]
fn end_of(ctx: &SkBuffContext, transport: &Transport, tcp: &[u8; 16], fin: u32) -> u32 {
    let header = transport.at as u32 + u32::from(tcp[12] >> 4) * 4;
    // SAFETY: the program's context.
    let payload = unsafe { (*ctx.skb.skb).len }.wrapping_sub(header);
    u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add(payload).wrapping_add(fin)
}

/// A token bucket.
#[repr(C)]
#[derive(Clone, Copy)]
struct Bucket {
    /// When it was last filled, nanoseconds.
    filled: u64,
    tokens: u64,
}

#[map(name = "REFUSALS")]
static REFUSALS: PerCpuArray<Bucket> = PerCpuArray::with_max_entries(1, 0);

/// Refusals that each CPU lets through at once, and per second: a port scan is a story, not a flood.
const REFUSALS_BURST: u64 = 1024;
const NANOSECONDS_PER_REFUSAL: u64 = 1_000_000;

/// The kernel's answer to a SYN at a closed port: from its control socket, RST and ACK with sequence number 0
/// (tcp_v4_send_reset, net/ipv4/tcp_ipv4.c). Not one that a process sent from a raw socket, where the kernel's types tell
/// these apart; where they don't the event says so.
#[inline(always)]
fn refused(ctx: &SkBuffContext, transport: &Transport) {
    let Some(sk) = socket::of(ctx.skb.skb) else { return };
    // SAFETY: `sk` is a full socket.
    if transport.version != 4 || unsafe { (*sk).type_ != socket::RAW || (*sk).protocol != TCP as u32 } {
        return;
    }
    let Some(tcp) = load::<8>(ctx, transport.at) else { return };
    if tcp[4] | tcp[5] | tcp[6] | tcp[7] != 0 {
        return;
    }
    // A raw socket of a process looks the same and sends what it likes.
    let proven = match socket::is_a_process_s(sk) {
        Some(true) => return,
        Some(false) => 1,
        None => 0,
    };
    let Some(ends) = load::<20>(ctx, 0) else { return };
    let Some(count) = Count::seen(tally::REFUSED) else { return };
    // SAFETY: no requirement.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if !allowed(now) {
        count.limited();
        return;
    }
    let netns = netns::inode_of_packet(ctx);
    emit_counted::<Refused>(&FLOWS, count, |record| {
        // SAFETY: `record` is a reserved record of this type; every field is written.
        unsafe {
            (*record).kind = event::REFUSED;
            (*record).proven = proven;
            (*record).time = now;
            (*record).local = mapped(u32::from_ne_bytes([ends[12], ends[13], ends[14], ends[15]]));
            (*record).remote = mapped(u32::from_ne_bytes([ends[16], ends[17], ends[18], ends[19]]));
            (*record).local_port = u16::from_be_bytes([tcp[0], tcp[1]]);
            (*record).remote_port = u16::from_be_bytes([tcp[2], tcp[3]]);
            (*record).netns_inode = netns;
        }
    });
}

/// Takes a token.
#[inline(always)]
fn allowed(now: u64) -> bool {
    let Some(bucket) = REFUSALS.get_ptr_mut(0) else { return false };
    // SAFETY: the map's value lives as long as the program. A softirq in between may take or fill a few tokens twice,
    // which moves the limit by as many and no count.
    unsafe {
        let earned = now.wrapping_sub((*bucket).filled) / NANOSECONDS_PER_REFUSAL;
        if earned > 0 {
            let tokens = (*bucket).tokens + earned;
            (*bucket).tokens = if tokens > REFUSALS_BURST { REFUSALS_BURST } else { tokens };
            (*bucket).filled = now;
        }
        if (*bucket).tokens == 0 {
            return false;
        }
        (*bucket).tokens -= 1;
        true
    }
}
