//! A captured packet in; out comes the TCP segment in it, or a datagram to or from a name server, or why neither.
//!
//! Finds transport headers by the parser that the kernel side uses, and adds what only a capture has: fragments of IPv6,
//! lengths, sequence numbers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use flowtel_common::packet::{self, Flags, Packet as _};

use super::Packet;
use crate::capture::KernelTime;

/// The port of name servers.
const NAMES: u16 = 53;
/// IPv6's fragment header (RFC 8200, 4.5).
const FRAGMENT: u8 = 44;
/// Length of a UDP header.
const UDP_HEADER: usize = 8;

/// What a packet holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// A TCP segment.
    Segment(Segment),
    /// A datagram to or from port 53.
    Datagram(Datagram<'a>),
    /// Neither.
    Other,
    /// A link type that is not known, or a packet cut short or not in order: what it holds can't be told.
    Unreadable,
}

/// A TCP segment (RFC 9293, 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// When it was captured.
    pub time: KernelTime,
    /// Who sent it.
    pub source: SocketAddr,
    /// Who is to get it.
    pub destination: SocketAddr,
    /// Its flags.
    pub flags: Flags,
    /// Of its first byte, or its SYN.
    pub sequence: u32,
    /// What is expected next; counts with the ACK flag.
    pub acknowledgement: u32,
    /// Bytes of payload on the wire, captured or not.
    pub payload: u32,
}

/// A datagram to or from a name server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// When it was captured.
    pub time: KernelTime,
    /// Who sent it.
    pub source: SocketAddr,
    /// Who is to get it.
    pub destination: SocketAddr,
    /// What was captured of its payload.
    pub payload: &'a [u8],
    /// It was longer than that.
    pub truncated: bool,
}

/// Looks into a packet.
pub fn decode<'a>(packet: &Packet<'a>) -> Content<'a> {
    match packet.link.ip(packet.bytes) {
        Some(ip) => {
            // Where the IP header has no length (a segment of more than 64 KiB on its way through the host), the frame's.
            let before = packet.bytes.len() - ip.len();
            let whole = (packet.whole as usize).saturating_sub(before);
            of_ip(packet.time, ip, whole).unwrap_or(Content::Unreadable)
        }
        None if matches!(packet.link, super::Link::Other(_)) => Content::Unreadable,
        None => Content::Other,
    }
}

/// `None`: cut short, or not in order. `whole`: its length on the wire, from the IP header on.
fn of_ip(time: KernelTime, ip: &[u8], whole: usize) -> Option<Content<'_>> {
    let Some(transport) = packet::transport(&ip) else {
        return Some(if is_later_fragment(ip) { Content::Other } else { Content::Unreadable });
    };
    let (mut protocol, mut at) = (transport.protocol, transport.at);
    if transport.version == 6 && protocol == FRAGMENT {
        let head = (&ip).bytes::<4>(at)?;
        if u16::from_be_bytes([head[2], head[3]]) >> 3 != 0 {
            return Some(Content::Other);
        }
        (protocol, at) = (head[0], at + 8);
    }
    let (source, destination, stated): (IpAddr, IpAddr, usize) = if transport.version == 4 {
        let head = (&ip).bytes::<20>(0)?;
        (
            Ipv4Addr::from([head[12], head[13], head[14], head[15]]).into(),
            Ipv4Addr::from([head[16], head[17], head[18], head[19]]).into(),
            u16::from_be_bytes([head[2], head[3]]).into(),
        )
    } else {
        let length = usize::from(u16::from_be_bytes((&ip).bytes::<2>(4)?));
        (
            Ipv6Addr::from((&ip).bytes::<16>(8)?).into(),
            Ipv6Addr::from((&ip).bytes::<16>(24)?).into(),
            if length == 0 { 0 } else { length + 40 },
        )
    };
    let whole = if stated == 0 { whole } else { stated };
    if !matches!(protocol, packet::TCP | packet::UDP) {
        return Some(Content::Other);
    }
    let ports = (&ip).bytes::<4>(at)?;
    let source = SocketAddr::new(source, u16::from_be_bytes([ports[0], ports[1]]));
    let destination = SocketAddr::new(destination, u16::from_be_bytes([ports[2], ports[3]]));
    if protocol == packet::UDP {
        if source.port() != NAMES && destination.port() != NAMES {
            return Some(Content::Other);
        }
        let stated = usize::from(u16::from_be_bytes((&ip).bytes::<2>(at + 4)?)).saturating_sub(UDP_HEADER);
        let from = at + UDP_HEADER;
        // What stands behind the datagram is the link's padding.
        let captured = ip.get(from..)?;
        let payload = captured.get(..stated).unwrap_or(captured);
        let truncated = payload.len() < stated;
        return Some(Content::Datagram(Datagram { time, source, destination, payload, truncated }));
    }
    let head = (&ip).bytes::<14>(at)?;
    let header = usize::from(head[12] >> 4) * 4;
    if header < 20 || source.port() == 0 || destination.port() == 0 {
        return None;
    }
    Some(Content::Segment(Segment {
        time,
        source,
        destination,
        flags: Flags(head[13]),
        sequence: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
        acknowledgement: u32::from_be_bytes([head[8], head[9], head[10], head[11]]),
        payload: u32::try_from(whole.saturating_sub(at + header)).unwrap_or(0),
    }))
}

/// Whether this is a fragment that does not start its packet, of IPv4.
fn is_later_fragment(ip: &[u8]) -> bool {
    (&ip).bytes::<20>(0).is_some_and(|head| head[0] >> 4 == 4 && (head[6] & 0x1f != 0 || head[7] != 0))
}

// === impl Segment

impl Segment {
    /// Whether all of `flags` are set.
    pub const fn has(&self, flags: u8) -> bool {
        self.flags.0 & flags == flags
    }
}
