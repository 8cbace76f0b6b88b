//! What a packet's socket is, and what it has counted.

use core::{arch::asm, ptr::read_volatile};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::{bpf_sk_fullsock, bpf_skc_to_tcp_sock, bpf_tcp_sock},
    macros::map,
    maps::PerCpuArray,
};
use flowtel_common::{
    event::{Address, Counters, mapped},
    kernel::{SOCK_ERR, SOCK_SOCKET, SOCK_USER_DATA, SOCKET_FILE},
};

use crate::kernel;

/// SOCK_STREAM, SOCK_DGRAM, SOCK_RAW (include/linux/net.h).
pub const STREAM: u32 = 1;
pub const DATAGRAM: u32 = 2;
pub const RAW: u32 = 3;

/// AF_INET.
pub const AF_INET: u32 = 2;

/// The full socket of a packet; `None` where it has none, or only a request or a TIME_WAIT one.
#[inline(always)]
pub fn of(skb: *mut __sk_buff) -> Option<*mut bpf_sock> {
    // SAFETY: `skb` is the program's context; each pointer is tested for null before it is used, as the verifier asks.
    unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        let sk = bpf_sk_fullsock(sk);
        if sk.is_null() { None } else { Some(sk) }
    }
}

/// Whether the packet's socket, full or not, is in this state. Costs two loads.
#[inline(always)]
pub fn is_in(skb: *mut __sk_buff, state: u32) -> bool {
    // SAFETY: `skb` is the program's context; the pointer is tested for null. The state is a member that every socket has
    // (bpf_sock_common_is_valid_access, net/core/filter.c).
    unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        !sk.is_null() && (*sk).state == state
    }
}

/// Writes the socket's own address and the peer's.
///
/// # Safety
/// `sk` is a full socket; `local` and `remote` point at memory for addresses, all of which is written.
#[inline(always)]
pub unsafe fn addresses(sk: *const bpf_sock, local: *mut Address, remote: *mut Address) {
    // SAFETY: as the caller promises.
    unsafe {
        let words = |v6: *const [u32; 4]| {
            let v6: *const u32 = v6.cast();
            let word = |i: usize| read_volatile(v6.add(i));
            [word(0), word(1), word(2), word(3)]
        };
        if (*sk).family == AF_INET {
            *local = mapped(apart(read_volatile(&raw const (*sk).src_ip4)));
            *remote = mapped(apart(read_volatile(&raw const (*sk).dst_ip4)));
        } else {
            *local = words(&raw const (*sk).src_ip6);
            *remote = words(&raw const (*sk).dst_ip6);
        }
    }
}

/// Keeps the two branches of [`addresses`] two: the compiler would make one of them, with a choice for each word, or with a
/// load whose place depends on a condition, which the verifier refuses.
#[inline(always)]
fn apart(value: u32) -> u32 {
    let mut value = u64::from(value);
    // SAFETY: moves a register into itself.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(nomem, nostack)) };
    value as u32
}

/// The peer's address.
///
/// # Safety
/// `sk` is a full socket.
#[inline(always)]
pub unsafe fn remote(sk: *const bpf_sock) -> Address {
    // SAFETY: as the caller promises. All are read, and volatile: a load whose place depends on a condition is refused by
    // the verifier.
    unsafe {
        let v6: *const u32 = (&raw const (*sk).dst_ip6).cast();
        let word = |i: usize| read_volatile(v6.add(i));
        let (v4, v6) = (read_volatile(&raw const (*sk).dst_ip4), [word(0), word(1), word(2), word(3)]);
        if (*sk).family == AF_INET { mapped(v4) } else { v6 }
    }
}

/// The peer's port. (A u16 in network order, with two bytes of padding: the verifier allows no other load.)
///
/// # Safety
/// `sk` is a full socket.
#[inline(always)]
pub unsafe fn remote_port(sk: *const bpf_sock) -> u16 {
    // SAFETY: as the caller promises.
    u16::from_be(unsafe { (*sk).dst_port })
}

/// A pointer becomes a number by being written here and read again: the verifier lets no address be made of a socket's, but of
/// a number it does.
#[map(name = "ADDRESS")]
static ADDRESS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The address of the kernel's own socket, for programs at packets, where [`of_kernel`] can't be asked.
#[inline(always)]
pub fn address(sk: *mut bpf_sock) -> Option<*const u8> {
    let slot = ADDRESS.get_ptr_mut(0)?;
    // SAFETY: the map's value lives as long as the program. Volatile, or there would be no write and no read. A program that
    // interrupts this one on the same CPU writes the address of another socket of the same kind.
    unsafe {
        slot.write_volatile(sk as u64);
        Some(slot.read_volatile() as *const u8)
    }
}

/// Whether a process holds this socket, or held it: the kernel's own have no file. `None` where this kernel does not say.
#[inline(always)]
pub fn is_a_process_s(sk: *mut bpf_sock) -> Option<bool> {
    // Where it is not known nothing of this is reached, and so the verifier asks for no right to it.
    kernel::offset(SOCK_SOCKET)?;
    kernel::offset(SOCKET_FILE)?;
    let address = address(sk)?;
    let socket: u64 = kernel::member(address, SOCK_SOCKET)?;
    // It was closed after it sent this.
    if socket == 0 {
        return Some(true);
    }
    kernel::member::<u64>(socket as *const u8, SOCKET_FILE).map(|file| file != 0)
}

/// Up to which sequence numbers a stream socket has counted.
#[derive(Clone, Copy)]
pub struct Counted {
    /// The next one that it expects.
    pub received: u32,
    /// The first that was not acknowledged.
    pub acknowledged: u32,
    /// The next one that it sends.
    pub sent: u32,
}

/// What a stream socket has counted, and up to where. (Of the kernel's own socket it would be garbage on some kernels: ask for the type
/// first.)
///
/// # Safety
/// `sk` is a full socket of type [`STREAM`]; `into` points at memory for counters, all of which is written.
#[inline(always)]
pub unsafe fn counters(sk: *mut bpf_sock, into: *mut Counters) -> Counted {
    // SAFETY: as the caller promises; the answer is tested for null.
    unsafe {
        let tcp = bpf_tcp_sock(sk);
        if tcp.is_null() {
            // Volatile, or it would be a call of a function.
            let zero = |field: *mut u32| field.write_volatile(0);
            (&raw mut (*into).bytes_acked).write_volatile(0);
            (&raw mut (*into).bytes_received).write_volatile(0);
            zero(&raw mut (*into).segments_in);
            zero(&raw mut (*into).segments_out);
            zero(&raw mut (*into).retransmits);
            zero(&raw mut (*into).srtt_us);
            Counted { received: 0, acknowledged: 0, sent: 0 }
        } else {
            (*into).bytes_acked = (*tcp).bytes_acked;
            (*into).bytes_received = (*tcp).bytes_received;
            (*into).segments_in = (*tcp).segs_in;
            (*into).segments_out = (*tcp).segs_out;
            (*into).retransmits = (*tcp).total_retrans;
            (*into).srtt_us = (*tcp).srtt_us >> 3;
            Counted { received: (*tcp).rcv_nxt, acknowledged: (*tcp).snd_una, sent: (*tcp).snd_nxt }
        }
    }
}

/// Segments that came.
///
/// # Safety
/// `sk` is a full socket of type [`STREAM`].
#[inline(always)]
pub unsafe fn segments_in(sk: *mut bpf_sock) -> u32 {
    // SAFETY: as the caller promises; the answer is tested for null.
    unsafe {
        let tcp = bpf_tcp_sock(sk);
        if tcp.is_null() { 0 } else { (*tcp).segs_in }
    }
}

/// What a handshake looked like.
#[derive(Clone, Copy)]
pub struct Trips {
    /// The smoothed round trip time in microseconds.
    pub srtt_us: u32,
    /// Segments that were sent again.
    pub retransmits: u32,
    /// Segments that came, and those of them with data.
    pub segments_in: u16,
    pub data_segments_in: u16,
}

/// What the handshake of a stream socket looked like, right after it.
///
/// # Safety
/// `sk` is a full socket of type [`STREAM`].
#[inline(always)]
pub unsafe fn trips(sk: *mut bpf_sock) -> Trips {
    // SAFETY: as the caller promises; the answer is tested for null.
    unsafe {
        let tcp = bpf_tcp_sock(sk);
        if tcp.is_null() {
            return Trips { srtt_us: 0, retransmits: 0, segments_in: 0, data_segments_in: 0 };
        }
        Trips {
            srtt_us: (*tcp).srtt_us >> 3,
            retransmits: (*tcp).total_retrans,
            segments_in: (*tcp).segs_in as u16,
            data_segments_in: (*tcp).data_segs_in as u16,
        }
    }
}

/// The kernel's own socket, to be read by [`crate::kernel`]; `None` where this kernel does not say where its members lie.
/// Unlike `bpf_sock`, whose members are translated, this is an address.
///
/// # Safety
/// `sk` is a full socket.
#[inline(always)]
pub unsafe fn of_kernel(sk: *mut bpf_sock) -> Option<*const u8> {
    // Without types the helper is refused where it is called, and where it can't be reached it is not looked at.
    kernel::offset(SOCK_ERR)?;
    // SAFETY: as the caller promises; the answer is tested for null.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk.cast()) };
    if tcp.is_null() { None } else { Some(tcp.cast_const().cast()) }
}

/// Whether a stream socket, at this kernel address, may have moved bytes that TCP did not count: it is in a SOCKMAP
/// (`sk_psock`), or a part of the kernel uses it.
#[inline(always)]
pub fn is_uncounted(sk: *const u8) -> bool {
    /// Bits of `sk_user_data` that are flags (SK_USER_DATA_PTRMASK, include/net/sock.h).
    const FLAGS: u64 = 7;
    kernel::member::<u64>(sk, SOCK_USER_DATA).is_some_and(|data| data & !FLAGS != 0)
}
