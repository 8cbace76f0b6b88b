//! The events that the kernel programs write into the rings, and user space reads.
//!
//! Every event starts with its kind and is written field by field, so that no byte of it is left over from an earlier
//! record of the ring. Integers are in the machine's order: kernel and reader are one machine. Times are nanoseconds of
//! CLOCK_BOOTTIME. Addresses are an [`Address`], ports in host order.

use core::net::{IpAddr, Ipv6Addr};

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// First word of a [`Call`]: connect().
pub const CONNECT: u32 = 1;
/// First word of an event: [`Established`].
pub const ESTABLISHED: u32 = 3;
/// First word of a [`Segment`] with FIN.
pub const FIN: u32 = 4;
/// First word of a [`Segment`] with RST.
pub const RESET: u32 = 5;
/// First word of an event: [`Close`].
pub const CLOSE: u32 = 6;
/// First word of an event: [`Refused`].
pub const REFUSED: u32 = 7;
/// First word of an event: [`Accept`].
pub const ACCEPT: u32 = 8;
/// First word of a [`Caller`]: bind().
pub const BIND: u32 = 9;
/// First word of an event: [`Release`].
pub const RELEASE: u32 = 10;
/// First word of an event: [`Dns`].
pub const DNS: u32 = 11;
/// First word of an [`Instant`]: a SYN leaves again (BPF_SOCK_OPS_RETRANS_CB).
pub const SYN_AGAIN: u32 = 12;
/// First word of an [`Instant`]: a SYN leaves from a socket that had sent one before, for another connection
/// (BPF_SOCK_OPS_TCP_CONNECT_CB).
pub const USED_AGAIN: u32 = 13;
/// First word of a [`Caller`]: listen() (BPF_SOCK_OPS_TCP_LISTEN_CB). Process id 0 where the kernel does not tell whose.
pub const LISTEN: u32 = 14;
/// First word of an [`Instant`]: a listening socket is closed. Ring: owners.
pub const UNLISTEN: u32 = 15;
/// First word of an event: [`Update`].
pub const UPDATE: u32 = 16;
/// First word of an event: [`Hello`].
pub const HELLO: u32 = 17;

/// First word of an event: [`Netns`].
pub const NETNS: u32 = 40;

/// In [`Established::netns`]: what follows is the namespace's inode number, where no cookie can be had.
pub const NETNS_INODE: u64 = 1 << 63;

/// States of a TCP socket (include/net/tcp_states.h).
pub mod state {
    #![expect(missing_docs, reason = "RFC 9293, 3.3.2, defines them")]
    pub const ESTABLISHED: u32 = 1;
    pub const SYN_SENT: u32 = 2;
    pub const SYN_RECV: u32 = 3;
    pub const FIN_WAIT1: u32 = 4;
    pub const FIN_WAIT2: u32 = 5;
    pub const TIME_WAIT: u32 = 6;
    pub const CLOSE: u32 = 7;
    pub const CLOSE_WAIT: u32 = 8;
    pub const LAST_ACK: u32 = 9;
    pub const LISTEN: u32 = 10;
    pub const CLOSING: u32 = 11;
}

/// [`Segment::way`]: it arrives.
pub const IN: u32 = 1;
/// [`Segment::way`]: it leaves.
pub const OUT: u32 = 2;

/// [`Established::how`]: the handshake of a connection that this socket asked for
/// (BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, include/uapi/linux/bpf.h).
pub const ACTIVE: u32 = 1;
/// [`Established::how`]: a socket went from SYN_RECV to ESTABLISHED: it was accepted, or SYNs crossed
/// (BPF_SOCK_OPS_STATE_CB).
pub const PASSIVE: u32 = 2;

/// [`Close::fin_in`]: it did not come.
pub const FIN_NOT_SEEN: u8 = 0;
/// [`Close::fin_in`]: it came.
pub const FIN_CAME: u8 = 1;
/// [`Close::fin_in`]: another program has overwritten the flags by which the socket would remember it.
pub const FIN_UNKNOWN: u8 = 2;

/// [`Close::timer`]: the socket's retransmission timer was not asked, for the programs came later than its SYN.
pub const TIMER_UNKNOWN: u8 = 0;
/// [`Close::timer`]: it did not give up.
pub const TIMER_RUNS: u8 = 1;
/// [`Close::timer`]: it gave up, and closed the socket (BPF_SOCK_OPS_RTO_CB, `expired`).
pub const TIMER_EXPIRED: u8 = 2;

/// [`Close::error`]: this kernel does not say where the socket keeps it, or it was not asked.
pub const ERROR_UNKNOWN: u8 = 255;

/// Bit of [`Close::marks`]: the peer has acknowledged all that was sent; the own FIN too, where the state says that one was.
pub const ALL_ACKNOWLEDGED: u8 = 1 << 0;
/// Bit of [`Close::marks`]: [`ALL_ACKNOWLEDGED`] is about all that was written, sent or not: a FIN that waits behind a closed
/// window is among it.
pub const ALL_WRITTEN: u8 = 1 << 1;
/// Bit of [`Close::marks`]: a process's call closed the socket, or the peer's segment came while such a call had it locked.
pub const IN_CALL: u8 = 1 << 2;
/// Bit of [`Close::marks`]: the socket is in a SOCKMAP, or a part of the kernel uses it: TCP need not have counted its bytes.
pub const UNCOUNTED: u8 = 1 << 3;
/// Bit of [`Close::marks`]: the error did not close the socket, which had heard of it before. Of one that asked for several
/// connections it may be about an earlier one.
pub const HEARD: u8 = 1 << 4;

/// An IPv6 address as four words, each as it lies in memory in network order; IPv4 as `::ffff:a.b.c.d`. (Words, because
/// the BPF target would store 16 bytes one by one.)
pub type Address = [u32; 4];

/// Length of a thread's name in the kernel, with its final zero (TASK_COMM_LEN).
pub const COMM_LEN: usize = 16;

/// Who makes a call, on which socket, and when. Alone it is a connect() of which nobody asks where to: the handshake will
/// tell. Ring: owners.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct Caller {
    /// [`CONNECT`], [`BIND`] or [`LISTEN`].
    pub kind: u32,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// When the call was made.
    pub time: u64,
    /// The socket (SO_COOKIE).
    pub cookie: u64,
    /// The process's cgroup: inode number of its cgroup v2 directory.
    pub cgroup: u64,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// User id in the initial user namespace.
    pub uid: u32,
    /// The thread's name, up to the first zero.
    pub comm: [u8; COMM_LEN],
}

/// A process asks for a TCP connection (cgroup/connect4, connect6). Ring: owners.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct Call {
    /// Who, on which socket, when.
    pub caller: Caller,
    /// The socket's network namespace (bpf_get_netns_cookie).
    pub netns: u64,
    /// Where to, as the process said it, before any address translation; the unspecified address where the event did not
    /// carry it.
    pub address: Address,
    /// Which port, likewise.
    pub port: u16,
    /// connect(): the error number with which a cgroup program before flowtel's refuses the call; 0 where none does, or where
    /// the kernel does not say (before Linux 5.18).
    pub refusal: u16,
    /// Zero.
    pub reserved_2: u32,
}

/// A process took a connection (cgroup/getpeername4, getpeername6, which run inside accept(), and in getpeername() and
/// getsockopt(); see [`Accept::certain`]). Ring: owners.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct Accept {
    /// [`ACCEPT`].
    pub kind: u32,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// When.
    pub time: u64,
    /// The accepted socket (SO_COOKIE); with MPTCP at both ends the listener's.
    pub cookie: u64,
    /// The process's cgroup.
    pub cgroup: u64,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// User id in the initial user namespace.
    pub uid: u32,
    /// The thread's name, up to the first zero.
    pub comm: [u8; COMM_LEN],
    /// The peer's address.
    pub remote: Address,
    /// The peer's port.
    pub remote_port: u16,
    /// The socket's own port.
    pub local_port: u16,
    /// 1: the process is in accept(). 0: it may also have asked for the peer's name; where the kernel tells that it did,
    /// there is no event.
    pub certain: u32,
    /// The socket's network namespace (bpf_get_netns_cookie).
    pub netns: u64,
}

/// A process dropped its last reference to a TCP socket that was not established: in SYN_SENT, it gives up; in CLOSE, it
/// may never have sent a SYN; or to one whose bytes TCP need not have counted (cgroup/sock_release).
/// Ring: owners.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct Release {
    /// [`RELEASE`].
    pub kind: u32,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// When.
    pub time: u64,
    /// The socket (SO_COOKIE).
    pub cookie: u64,
    /// Its [`state`] then.
    pub state: u32,
    /// 1: as [`UNCOUNTED`].
    pub uncounted: u32,
    /// The address to which the kernel found no route when it was asked last; the unspecified one where that is not known.
    pub unroutable: Address,
}

/// What a TCP socket has counted.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct Counters {
    /// Sequence numbers that the peer has acknowledged: payload, and 1 each for SYN and FIN.
    pub bytes_acked: u64,
    /// Sequence numbers received in order: payload, and 1 for FIN.
    pub bytes_received: u64,
    /// Segments received.
    pub segments_in: u32,
    /// Segments sent, repeated ones included.
    pub segments_out: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Smoothed round trip time, microseconds; 0 where there is none.
    pub srtt_us: u32,
}

/// A FIN of a socket that is older than the programs, whose states are not reported (cgroup_skb at a stream socket): each
/// that leaves; and one that arrives only where the own FIN is out, because the own one says that it came. Without addresses:
/// many such sockets may end at once, and the cookie is enough. Ring: flows.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct Fin {
    /// [`FIN`].
    pub kind: u32,
    /// [`IN`] or [`OUT`].
    pub way: u32,
    /// When.
    pub time: u64,
    /// The socket (SO_COOKIE).
    pub cookie: u64,
    /// What the socket had counted before this segment (in), or with it (out).
    pub counters: Counters,
    /// How many sequence numbers this segment's end is ahead of what was counted: as for [`Segment`].
    pub ahead: u32,
    /// The socket's [`state`]: LAST_ACK, where the peer's FIN came before the own one.
    pub state: u32,
}

/// A RST at a stream socket (cgroup_skb). Ring: flows.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct Segment {
    /// [`RESET`].
    pub kind: u32,
    /// [`IN`] or [`OUT`].
    pub way: u32,
    /// When.
    pub time: u64,
    /// The socket (SO_COOKIE).
    pub cookie: u64,
    /// The socket's cgroup, fixed when it was made.
    pub cgroup: u64,
    /// The socket's own address.
    pub local: Address,
    /// The peer's address.
    pub remote: Address,
    /// The socket's own port; after a local reset as the packet says it, which may be after address translation.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
    /// The socket's [`state`].
    pub state: u32,
    /// What the socket had counted before this segment (in), or with it (out).
    pub counters: Counters,
    /// How many sequence numbers this segment's end is ahead of what was counted: of `bytes_received` (in), of `bytes_acked`
    /// (out). Counted are they once all up to this segment has come, or was acknowledged.
    pub ahead: u32,
    /// 1: of a socket that is older than the programs, and the peer's FIN came before.
    pub fin_in: u32,
}

/// A TCP socket went to CLOSE (sockops, BPF_SOCK_OPS_STATE_CB). Ring: flows.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct Close {
    /// [`CLOSE`].
    pub kind: u32,
    /// The [`state`] that it came from.
    pub old_state: u32,
    /// When.
    pub time: u64,
    /// The socket (SO_COOKIE).
    pub cookie: u64,
    /// The socket's own address.
    pub local: Address,
    /// The peer's address.
    pub remote: Address,
    /// The socket's own port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
    /// From FIN_WAIT1 and FIN_WAIT2: whether the peer's FIN came to it while the own one was out ([`FIN_NOT_SEEN`],
    /// [`FIN_CAME`], [`FIN_UNKNOWN`]); else of no meaning.
    pub fin_in: u8,
    /// [`ALL_ACKNOWLEDGED`], [`ALL_WRITTEN`], [`IN_CALL`] (from SYN_SENT alone), [`UNCOUNTED`], [`HEARD`].
    pub marks: u8,
    /// From SYN_SENT: [`TIMER_UNKNOWN`], [`TIMER_RUNS`] or [`TIMER_EXPIRED`]; else of no meaning.
    pub timer: u8,
    /// The socket's error (errno) where it was not closed in order, 0 for none; or [`ERROR_UNKNOWN`].
    pub error: u8,
    /// What it counted.
    pub counters: Counters,
    /// As [`Established::interface`].
    pub interface: u32,
    /// From SYN_RECV, of which no begin was reported: the inode number of its network namespace; 0 where this kernel does not
    /// say it. Else 0.
    pub netns_inode: u32,
}

/// What an open connection has counted so far (cgroup_skb egress, where the configured interval is over). Ring: flows.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct Update {
    /// [`UPDATE`].
    pub kind: u32,
    /// The socket's [`state`]: ESTABLISHED, CLOSE_WAIT or FIN_WAIT2.
    pub state: u32,
    /// When.
    pub time: u64,
    /// The socket (SO_COOKIE).
    pub cookie: u64,
    /// The socket's own address.
    pub local: Address,
    /// The peer's address.
    pub remote: Address,
    /// The socket's own port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
    /// As [`Established::interface`].
    pub interface: u32,
    /// What it has counted, the segment that leaves included.
    pub counters: Counters,
    /// The inode number of its network namespace; 0 where this kernel does not say it.
    pub netns_inode: u32,
    /// [`UNCOUNTED`] or 0.
    pub marks: u32,
}

/// A SYN to a port where nobody listens was answered with a reset (cgroup_skb egress: RST and ACK with sequence number 0
/// from the kernel's own socket; IPv4 only). Ring: flows.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct Refused {
    /// [`REFUSED`].
    pub kind: u32,
    /// 1: it was the kernel's own socket. 0: it looked like it, and a process's raw socket would, too.
    pub proven: u32,
    /// When.
    pub time: u64,
    /// The address that was asked.
    pub local: Address,
    /// Who asked.
    pub remote: Address,
    /// The closed port.
    pub local_port: u16,
    /// The asker's port.
    pub remote_port: u16,
    /// The inode number of the network namespace; 0 where this kernel does not say it.
    pub netns_inode: u32,
}

/// The most bytes of a DNS message that are carried: a power of two, for the verifier.
pub const DNS_PAYLOAD: usize = 4096;
/// How many ports of name servers there may be.
pub const DNS_PORTS: usize = 8;
/// The most bytes of a question that are compared.
pub const DNS_ASKED: usize = 64;

/// The head of a DNS answer to a query that was seen leaving the same socket for the same server (cgroup_skb ingress, UDP
/// from port 53). The message follows, up to [`DNS_PAYLOAD`] bytes of it. Ring: dns.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct Dns {
    /// [`DNS`].
    pub kind: u32,
    /// Bytes that follow.
    pub length: u32,
    /// When it arrived.
    pub time: u64,
    /// The socket (SO_COOKIE).
    pub cookie: u64,
    /// The socket's cgroup.
    pub cgroup: u64,
    /// Bytes of the whole message.
    pub whole: u32,
    /// Bytes in `asked` that are the query's.
    pub asked_length: u32,
    /// The network namespace of the socket, as its sender or connector had it (bpf_get_netns_cookie); 0 where that came
    /// before the programs.
    pub netns: u64,
    /// Who sent the query, or connected the socket: user id in the initial user namespace; [`NO_UID`] where that came before
    /// the programs.
    pub uid: u32,
    /// Zero.
    pub reserved: u32,
    /// The query's bytes behind its header: its question, and perhaps what follows that.
    pub asked: [u8; DNS_ASKED],
}

/// The most bytes of a TLS ClientHello that are carried, over all of its segments: a power of two, for the verifier.
pub const HELLO_PAYLOAD: usize = 4096;

/// The head of what one segment carries of a TLS ClientHello (RFC 8446, 4.1.2), the first thing that a side sends over a
/// connection (cgroup_skb, in and out). The bytes follow, up to [`HELLO_PAYLOAD`] of all segments together. Ring: hellos.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct Hello {
    /// [`HELLO`].
    pub kind: u32,
    /// Bytes that follow.
    pub length: u32,
    /// When it passed.
    pub time: u64,
    /// The socket (SO_COOKIE); with [`AT_LISTENER`] the listening one.
    pub cookie: u64,
    /// The socket's own address; with [`AT_LISTENER`] the packet's destination.
    pub local: Address,
    /// The peer's address.
    pub remote: Address,
    /// The socket's own port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
    /// Where the first byte that follows is among those that its sender sent.
    pub at: u32,
    /// [`IN`] or [`OUT`], and [`AT_LISTENER`].
    pub way: u32,
    /// The hello went on behind what follows, in this segment, and was cut there.
    pub cut: u32,
}

/// Bit of [`Hello::way`]: the segment also completes the handshake, and came to the listening socket. It belongs to the
/// socket that this makes of it.
pub const AT_LISTENER: u32 = 1 << 8;

/// [`Dns::uid`]: not known. (The number of no user: setuid(2) refuses it.)
pub const NO_UID: u32 = u32::MAX;

/// Something happened to a socket, and only the time of it is news. Ring: flows, but for [`UNLISTEN`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct Instant {
    /// [`SYN_AGAIN`], [`USED_AGAIN`] or [`UNLISTEN`].
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
    /// When: [`ACTIVE`], when the SYN-ACK arrived (cgroup_skb), or where its CPU did not note it, when the socket took it.
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
    /// Segments that came so far: 0 where the socket was put into this state by hand (TCP_REPAIR).
    pub segments_in: u16,
    /// Those of them with data.
    pub data_segments_in: u16,
    /// The socket's network namespace (bpf_get_netns_cookie); before Linux 6.1, where sockops can't tell, [`NETNS_INODE`] and
    /// its inode number, or 0 where the kernel has no BTF.
    pub netns: u64,
    /// The listening socket that took it (SO_COOKIE); 0 where none was seen to: of [`ACTIVE`] ones, and with Fast Open.
    pub listener: u64,
    /// The interface that the socket is bound to, as it is with link-local addresses of IPv6 (sk_bound_dev_if); 0: none.
    pub interface: u32,
    /// Zero.
    pub reserved_2: u32,
}

/// A network namespace is met that was not met before, or not for long. It comes before the event that tells of its socket.
/// Ring: flows.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct Netns {
    /// [`NETNS`].
    pub kind: u32,
    /// Its inode number in nsfs; 0 where this kernel does not say it.
    pub inode: u32,
    /// When.
    pub time: u64,
    /// Its cookie.
    pub cookie: u64,
    /// The cookie of the initial network namespace, the host's.
    pub host: u64,
}

/// One event of the rings for flows and owners, decoded.
#[cfg(feature = "user")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each names what it holds")]
pub enum Event {
    Connect(Call),
    Bind(Caller),
    Listen(Caller),
    Unlisten(Instant),
    Accept(Accept),
    Release(Release),
    SynAgain(Instant),
    UsedAgain(Instant),
    Established(Established),
    Fin(Fin),
    Reset(Segment),
    Close(Close),
    Refused(Refused),
    Update(Update),
    Netns(Netns),
}

// === impl Call

impl From<Caller> for Call {
    /// A connect() that nobody asks where to.
    fn from(caller: Caller) -> Self {
        Self { caller, netns: 0, address: [0; 4], port: 0, refusal: 0, reserved_2: 0 }
    }
}

// === impl Event

#[cfg(feature = "user")]
impl Event {
    /// Reads the event that a ring record holds. `None` where kind and length do not belong together: the record came
    /// from a kernel object of another version.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let (kind, _) = u32::read_from_prefix(record).ok()?;
        match kind {
            CONNECT if record.len() == size_of::<Caller>() => {
                Caller::read_from_bytes(record).ok().map(|caller| Self::Connect(caller.into()))
            }
            CONNECT => Call::read_from_bytes(record).ok().map(Self::Connect),
            BIND => Caller::read_from_bytes(record).ok().map(Self::Bind),
            LISTEN => Caller::read_from_bytes(record).ok().map(Self::Listen),
            UNLISTEN => Instant::read_from_bytes(record).ok().map(Self::Unlisten),
            ACCEPT => Accept::read_from_bytes(record).ok().map(Self::Accept),
            RELEASE => Release::read_from_bytes(record).ok().map(Self::Release),
            SYN_AGAIN => Instant::read_from_bytes(record).ok().map(Self::SynAgain),
            USED_AGAIN => Instant::read_from_bytes(record).ok().map(Self::UsedAgain),
            ESTABLISHED => Established::read_from_bytes(record).ok().map(Self::Established),
            FIN => Fin::read_from_bytes(record).ok().map(Self::Fin),
            RESET => Segment::read_from_bytes(record).ok().map(Self::Reset),
            CLOSE => Close::read_from_bytes(record).ok().map(Self::Close),
            REFUSED => Refused::read_from_bytes(record).ok().map(Self::Refused),
            UPDATE => Update::read_from_bytes(record).ok().map(Self::Update),
            NETNS => Netns::read_from_bytes(record).ok().map(Self::Netns),
            _ => None,
        }
    }

    /// When the event happened that a ring record holds, without decoding it: every event has its time behind its first
    /// two words. 0 where the record is too short for one.
    pub fn time_in(record: &[u8]) -> u64 {
        let time = record.get(8..).and_then(|rest| u64::read_from_prefix(rest).ok());
        time.map_or(0, |(time, _)| time)
    }

    /// When it happened: CLOCK_BOOTTIME, nanoseconds.
    pub fn time(&self) -> u64 {
        match self {
            Self::Connect(e) => e.caller.time,
            Self::Bind(e) | Self::Listen(e) => e.time,
            Self::Accept(e) => e.time,
            Self::Release(e) => e.time,
            Self::SynAgain(e) | Self::UsedAgain(e) | Self::Unlisten(e) => e.time,
            Self::Established(e) => e.time,
            Self::Fin(e) => e.time,
            Self::Reset(e) => e.time,
            Self::Close(e) => e.time,
            Self::Refused(e) => e.time,
            Self::Update(e) => e.time,
            Self::Netns(e) => e.time,
        }
    }
}

#[cfg(feature = "user")]
impl Dns {
    /// Reads the head and the message that follows it. `None` where the lengths do not belong together.
    pub fn decode(record: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = Self::read_from_prefix(record).ok()?;
        let message = rest.get(..usize::try_from(head.length).ok()?)?;
        let asked = usize::try_from(head.asked_length).ok()?;
        (head.kind == DNS && asked <= DNS_ASKED).then_some((head, message))
    }
}

#[cfg(feature = "user")]
impl Hello {
    /// Reads the head and the bytes that follow it. `None` where the lengths do not belong together.
    pub fn decode(record: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = Self::read_from_prefix(record).ok()?;
        let bytes = rest.get(..usize::try_from(head.length).ok()?)?;
        (head.kind == HELLO && bytes.len() <= HELLO_PAYLOAD).then_some((head, bytes))
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
        assert_eq!(size_of::<Caller>(), 56);
        assert_eq!(size_of::<Call>(), 88);
        assert_eq!(size_of::<Accept>(), 88);
        assert_eq!(size_of::<Release>(), 48);
        assert_eq!(size_of::<Counters>(), 32);
        assert_eq!(size_of::<Fin>(), 64);
        assert_eq!(size_of::<Segment>(), 112);
        assert_eq!(size_of::<Close>(), 104);
        assert_eq!(size_of::<Refused>(), 56);
        assert_eq!(size_of::<Update>(), 104);
        assert_eq!(size_of::<Dns>(), 56 + DNS_ASKED);
        assert_eq!(size_of::<Hello>(), 72);
        assert_eq!(size_of::<Instant>(), 24);
        assert_eq!(size_of::<Established>(), 96);
        assert_eq!(size_of::<Netns>(), 32);
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
        bytes[..4].copy_from_slice(&SYN_AGAIN.to_ne_bytes());
        assert!(matches!(Event::decode(&bytes), Some(Event::SynAgain(_))));
        for n in 0..24 {
            assert_eq!(Event::decode(&bytes[..n]), None);
        }
        bytes[..4].copy_from_slice(&ESTABLISHED.to_ne_bytes());
        assert_eq!(Event::decode(&bytes), None);
        bytes[..4].copy_from_slice(&99u32.to_ne_bytes());
        assert_eq!(Event::decode(&bytes), None);
    }
}
