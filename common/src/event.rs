//! The events that the kernel programs write into the rings, and user space reads.
//!
//! Every event starts with its kind and is written field by field, so that no byte of it is left over from an earlier
//! record of the ring. Integers are in the machine's order: kernel and reader are one machine. Times are nanoseconds of
//! CLOCK_BOOTTIME. Addresses are an [`Address`], ports in host order.

use core::net::{IpAddr, Ipv6Addr};

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// First word of an event: [`Connect`].
pub const CONNECT: u32 = 1;
/// First word of an event: [`SynAck`].
pub const SYN_ACK: u32 = 2;
/// First word of an event: [`Established`].
pub const ESTABLISHED: u32 = 3;

/// [`Established::how`]: the handshake of a connection that this socket asked for
/// (BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, include/uapi/linux/bpf.h).
pub const ACTIVE: u32 = 1;
/// [`Established::how`]: a socket went from SYN_RECV to ESTABLISHED: it was accepted, or SYNs crossed
/// (BPF_SOCK_OPS_STATE_CB).
pub const PASSIVE: u32 = 2;

/// An IPv6 address as four words, each as it lies in memory in network order; IPv4 as `::ffff:a.b.c.d`. (Words, because
/// the BPF target would store 16 bytes one by one.)
pub type Address = [u32; 4];

/// Length of a thread's name in the kernel, with its final zero (TASK_COMM_LEN).
pub const COMM_LEN: usize = 16;

/// A process asks for a TCP connection (cgroup/connect4, cgroup/connect6). Ring: owners.
///
/// Only what a record says: each further helper call here, and each cache line of the ring, is time in every connect().
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct Connect {
    /// [`CONNECT`].
    pub kind: u32,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// When the call was made.
    pub time: u64,
    /// The socket (SO_COOKIE).
    pub cookie: u64,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// User id in the initial user namespace.
    pub uid: u32,
    /// The thread's name, up to the first zero.
    pub comm: [u8; COMM_LEN],
}

/// The peer answered a SYN of this socket (cgroup_skb ingress: SYN and ACK at a socket in SYN_SENT). Ring: flows.
///
/// It gives a time and proves nothing: a forged answer with a wrong ACK number looks the same.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct SynAck {
    /// [`SYN_ACK`].
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
    /// When it passed.
    pub time: u64,
    /// The socket (SO_COOKIE).
    pub cookie: u64,
}

/// The handshake is complete: the flow begins (sockops). Ring: flows.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct Established {
    /// [`ESTABLISHED`].
    pub kind: u32,
    /// [`ACTIVE`] or [`PASSIVE`].
    pub how: u32,
    /// When.
    pub time: u64,
    /// The socket (SO_COOKIE); of an accepted connection the child's own.
    pub cookie: u64,
    /// The socket's own address, as the application sees it.
    pub local: Address,
    /// The peer's address, as the application sees it.
    pub remote: Address,
    /// The socket's own port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
    /// The kernel's smoothed round trip time, microseconds; 0 where it has none.
    pub srtt_us: u32,
    /// Segments sent again so far.
    pub retransmits: u32,
    /// Segments received so far.
    pub segments_in: u32,
}

/// One event, decoded.
#[cfg(feature = "user")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each names the type it holds")]
pub enum Event {
    Connect(Connect),
    SynAck(SynAck),
    Established(Established),
}

// === impl Event

#[cfg(feature = "user")]
impl Event {
    /// Reads the event that a ring record holds. `None` where kind and length do not belong together: the record came
    /// from a kernel object of another version.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let (kind, _) = u32::read_from_prefix(record).ok()?;
        match kind {
            CONNECT => Connect::read_from_bytes(record).ok().map(Self::Connect),
            SYN_ACK => SynAck::read_from_bytes(record).ok().map(Self::SynAck),
            ESTABLISHED => Established::read_from_bytes(record).ok().map(Self::Established),
            _ => None,
        }
    }
}

/// The form of an IPv4 address, itself a word in network order: `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
#[inline(always)]
pub const fn mapped(v4: u32) -> Address {
    [0, 0, 0xffff_u32.to_be(), v4]
}

/// The IP address that `address` stands for: IPv4 where it is a mapped one.
#[inline]
pub fn ip(address: Address) -> IpAddr {
    let [a, b, c, d] = address.map(u32::from_be);
    let bits = u128::from(a) << 96 | u128::from(b) << 64 | u128::from(c) << 32 | u128::from(d);
    Ipv6Addr::from_bits(bits).to_canonical()
}

#[cfg(all(test, feature = "user"))]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_have_no_padding_and_the_sizes_that_the_rings_are_planned_for() {
        // A layout with padding would carry stale ring bytes to user space.
        assert_eq!(size_of::<Connect>(), 48);
        assert_eq!(size_of::<SynAck>(), 24);
        assert_eq!(size_of::<Established>(), 72);
    }

    #[test]
    fn a_mapped_address_is_ipv4_and_any_other_is_what_it_says() {
        assert_eq!(ip(mapped(u32::from_ne_bytes([192, 0, 2, 1]))), IpAddr::from([192, 0, 2, 1]));
        let words = [0x2001_0db8_u32.to_be(), 0, 0, 1u32.to_be()];
        assert_eq!(ip(words), "2001:db8::1".parse::<IpAddr>().expect("an address"));
    }

    #[test]
    fn a_record_of_another_length_or_kind_is_no_event() {
        let mut bytes = [0u8; 24];
        bytes[..4].copy_from_slice(&SYN_ACK.to_ne_bytes());
        assert!(matches!(Event::decode(&bytes), Some(Event::SynAck(_))));
        for n in 0..24 {
            assert_eq!(Event::decode(&bytes[..n]), None);
        }
        bytes[..4].copy_from_slice(&ESTABLISHED.to_ne_bytes());
        assert_eq!(Event::decode(&bytes), None);
        bytes[..4].copy_from_slice(&99u32.to_ne_bytes());
        assert_eq!(Event::decode(&bytes), None);
    }
}
