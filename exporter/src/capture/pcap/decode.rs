//! A captured packet in; out comes the TCP segment in it, or a datagram to or from a name server, or why neither.
//!
//! [`layers`] knows the headers before them. Must never recurse: a tunnel in a tunnel is one more turn of a loop that is
//! bounded.

use std::net::SocketAddr;

use flowtel_common::packet::{self, Flags};

use super::{
    Packet,
    layers::{self, Decapsulate, Layer, MOST_LAYERS, Rest, Step, Tunnel, ip},
};
use crate::capture::KernelTime;

/// The port of name servers.
const NAMES: u16 = 53;
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
    /// A link type that is not known, or a packet cut short, not in order, or of too many headers: what it holds can't be
    /// known.
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
    /// The tunnel that carried it: the innermost, where one is in another.
    pub tunnel: Option<Tunnel>,
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

/// Looks into a packet. Of one that is in a tunnel, `which` says whether the tunnel's own packet counts or the one in it.
pub fn decode<'a>(packet: &Packet<'a>, which: Decapsulate) -> Content<'a> {
    decode_with_payload(packet, which).0
}

/// The same, and what was captured of a segment's payload.
pub fn decode_with_payload<'a>(packet: &Packet<'a>, which: Decapsulate) -> (Content<'a>, &'a [u8]) {
    let Some(layer) = packet.link.layer() else { return (Content::Unreadable, &[]) };
    let rest = Rest { bytes: packet.bytes, whole: packet.whole as usize };
    let mut payload: &[u8] = &[];
    let content = walk(packet.time, layer, rest, which, &mut payload).unwrap_or(Content::Unreadable);
    (content, payload)
}

/// From header to header; `None`: cut short, not in order, or more headers than are walked.
fn walk<'a>(
    time: KernelTime,
    mut layer: Layer,
    mut rest: Rest<'a>,
    which: Decapsulate,
    payload: &mut &'a [u8],
) -> Option<Content<'a>> {
    let mut tunnel = None;
    for _ in 0..MOST_LAYERS {
        let step = if layer == Layer::Ip {
            let header = match ip::read(rest)? {
                ip::Found::Packet(header) => header,
                ip::Found::LaterFragment => return Some(Content::Other),
            };
            if header.protocol == packet::TCP {
                let segment = segment(time, &header, tunnel)?;
                let captured = header.rest.bytes.get(header_length(header.rest.bytes)..).unwrap_or_default();
                *payload = captured.get(..segment.payload as usize).unwrap_or(captured);
                return Some(Content::Segment(segment));
            }
            if header.protocol == packet::UDP
                && let Some(datagram) = datagram(time, &header)?
            {
                return Some(Content::Datagram(datagram));
            }
            match which {
                Decapsulate::Inner => layers::tunnel(&header).unwrap_or(Step::Nothing),
                Decapsulate::Outer => Step::Nothing,
            }
        } else {
            layer.step(rest)?
        };
        match step {
            Step::To(next, behind) => (layer, rest) = (next, behind),
            Step::Through(by, next, behind) => (tunnel, layer, rest) = (Some(by), next, behind),
            Step::Nothing => return Some(Content::Other),
        }
    }
    None
}

/// The length of a TCP header, as it says itself.
fn header_length(tcp: &[u8]) -> usize {
    tcp.get(12).map_or(0, |offset| usize::from(offset >> 4) * 4)
}

fn segment(time: KernelTime, ip: &ip::Header<'_>, tunnel: Option<Tunnel>) -> Option<Segment> {
    let head: &[u8; 14] = ip.rest.bytes.first_chunk()?;
    let header = header_length(head);
    let source = SocketAddr::new(ip.source, u16::from_be_bytes([head[0], head[1]]));
    let destination = SocketAddr::new(ip.destination, u16::from_be_bytes([head[2], head[3]]));
    if header < 20 || source.port() == 0 || destination.port() == 0 {
        return None;
    }
    Some(Segment {
        time,
        source,
        destination,
        flags: Flags(head[13]),
        sequence: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
        acknowledgement: u32::from_be_bytes([head[8], head[9], head[10], head[11]]),
        payload: u32::try_from(ip.rest.whole.saturating_sub(header)).unwrap_or(0),
        tunnel,
    })
}

/// `None`: cut short. `Some(None)`: no name server's.
fn datagram<'a>(time: KernelTime, ip: &ip::Header<'a>) -> Option<Option<Datagram<'a>>> {
    let source = SocketAddr::new(ip.source, ip.rest.number(0)?);
    let destination = SocketAddr::new(ip.destination, ip.rest.number(2)?);
    if source.port() != NAMES && destination.port() != NAMES {
        return Some(None);
    }
    let stated = usize::from(ip.rest.number(4)?).saturating_sub(UDP_HEADER);
    let captured = ip.rest.skip(UDP_HEADER)?.bytes;
    let payload = captured.get(..stated).unwrap_or(captured);
    Some(Some(Datagram { time, source, destination, payload, truncated: payload.len() < stated }))
}

// === impl Segment

impl Segment {
    /// Whether all of `flags` are set.
    pub const fn has(&self, flags: u8) -> bool {
        self.flags.0 & flags == flags
    }
}
