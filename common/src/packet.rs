//! Where the TCP header of an IP packet is, and what it says.
//!
//! In: the bytes of a packet from its IP header on, behind [`Packet`] (in the kernel two pointers that the verifier
//! watches, on the host a slice). Out: [`Transport`], [`Flags`], [`Tcp`]. Never reads past the end, never panics, and
//! looks at no more than it needs: a data segment costs the IP header's first bytes and one byte of flags.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol number of TCP (RFC 9293).
pub const TCP: u8 = 6;
/// IP protocol number of UDP (RFC 768).
pub const UDP: u8 = 17;

/// The most extension headers that are walked.
const MAX_EXTENSIONS: usize = 4;
/// The furthest from the packet's start that a transport header is looked for: the verifier wants a bound.
const MAX_OFFSET: usize = 512;

/// Bytes of a packet, from its IP header on.
pub trait Packet {
    /// The `N` bytes at `at`, or `None` where the packet ends before.
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]>;
}

/// The transport header of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// IP version: 4 or 6. It is the packet's, whatever the socket's family is.
    pub version: u8,
    /// [`TCP`], [`UDP`], or another IP protocol number.
    pub protocol: u8,
    /// Where the transport header starts.
    pub at: usize,
}

/// The flags of a TCP segment (RFC 9293, 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(pub u8);

/// Addresses, ports and flags of a TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// Who sent it.
    pub source: IpAddr,
    /// From which port.
    pub source_port: u16,
    /// Who is to get it.
    pub destination: IpAddr,
    /// At which port.
    pub destination_port: u16,
    /// Its flags.
    pub flags: Flags,
}

/// An IPv6 extension header that is walked: hop-by-hop options, routing, destination options (RFC 8200, 4.3 to 4.6).
#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | 60)
}

/// Finds the transport header. `None`: not IP, cut short, a fragment that does not start the packet, or more extension
/// headers than are walked.
#[inline(always)]
pub fn transport(packet: &impl Packet) -> Option<Transport> {
    // The packet's own version decides: IPv4 arrives at AF_INET6 sockets too.
    // (20 bytes at once, the least that either version has: the verifier learns nothing from a look at byte 0 alone.)
    let head = packet.bytes::<20>(0)?;
    match head[0] >> 4 {
        4 => {
            let length = usize::from(head[0] & 0x0f) * 4;
            let later_fragment = head[6] & 0x1f != 0 || head[7] != 0;
            if length < 20 || later_fragment {
                return None;
            }
            Some(Transport { version: 4, protocol: head[9], at: length })
        }
        6 => {
            let head = packet.bytes::<40>(0)?;
            let (mut next, mut at) = (head[6], 40);
            let mut walked = 0;
            while walked < MAX_EXTENSIONS && is_extension(next) {
                let [following, length] = packet.bytes::<2>(at)?;
                next = following;
                at += (usize::from(length) + 1) * 8;
                if at > MAX_OFFSET {
                    return None;
                }
                walked += 1;
            }
            if is_extension(next) {
                return None;
            }
            Some(Transport { version: 6, protocol: next, at })
        }
        _ => None,
    }
}

/// The flags of the TCP segment in `packet`; `None` where it holds none.
#[inline(always)]
pub fn tcp_flags(packet: &impl Packet) -> Option<Flags> {
    let transport = transport(packet)?;
    if transport.protocol != TCP {
        return None;
    }
    let [flags] = packet.bytes::<1>(transport.at + 13)?;
    Some(Flags(flags))
}

/// Addresses, ports and flags of the TCP segment in `packet`; `None` where it holds none.
#[inline(always)]
pub fn tcp(packet: &impl Packet) -> Option<Tcp> {
    let transport = transport(packet)?;
    if transport.protocol != TCP {
        return None;
    }
    let (source, destination): (IpAddr, IpAddr) = if transport.version == 4 {
        (Ipv4Addr::from(packet.bytes::<4>(12)?).into(), Ipv4Addr::from(packet.bytes::<4>(16)?).into())
    } else {
        (Ipv6Addr::from(packet.bytes::<16>(8)?).into(), Ipv6Addr::from(packet.bytes::<16>(24)?).into())
    };
    let [flags] = packet.bytes::<1>(transport.at + 13)?;
    Some(Tcp {
        source,
        source_port: u16::from_be_bytes(packet.bytes::<2>(transport.at)?),
        destination,
        destination_port: u16::from_be_bytes(packet.bytes::<2>(transport.at + 2)?),
        flags: Flags(flags),
    })
}

// === impl Packet

impl Packet for &[u8] {
    #[inline(always)]
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.get(at..)?.first_chunk().copied()
    }
}

// === impl Flags

impl Flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;

    /// No SYN, FIN or RST: data, or an acknowledgement.
    #[inline(always)]
    pub const fn says_nothing(self) -> bool {
        self.0 & (Self::SYN | Self::FIN | Self::RST) == 0
    }

    /// The answer to a SYN: SYN and ACK, no RST, no FIN.
    #[inline(always)]
    pub const fn is_syn_ack(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST | Self::FIN) == Self::SYN | Self::ACK
    }

    /// The start of a handshake: SYN without ACK, RST, FIN.
    #[inline(always)]
    pub const fn is_syn(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST | Self::FIN) == Self::SYN
    }
}

#[cfg(test)]
mod tests;
