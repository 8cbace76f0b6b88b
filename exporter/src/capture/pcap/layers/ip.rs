//! An IP header in; who sends to whom, and what follows it, out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Rest;

/// The most extension headers that are walked.
const MOST_EXTENSIONS: usize = 16;
const FRAGMENT: u8 = 44;
/// Authentication (RFC 4302): nothing is hidden by it. Its length is counted in words.
const AUTHENTICATION: u8 = 51;

/// What an IP header says.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// Who sent it.
    pub source: IpAddr,
    /// Who is to get it.
    pub destination: IpAddr,
    /// What follows: the last number of a row of extension headers.
    pub protocol: u8,
    /// What follows, without the link's padding behind it.
    pub rest: Rest<'a>,
}

/// What an IP packet is.
#[derive(Debug, Clone, Copy)]
pub enum Found<'a> {
    /// A packet, or the first fragment of one.
    Packet(Header<'a>),
    /// A later fragment: what its packet holds stands in the first.
    LaterFragment,
}

/// Reads a header; `None`: cut short, or not IP.
#[inline]
pub fn read(rest: Rest<'_>) -> Option<Found<'_>> {
    match rest.byte(0)? >> 4 {
        4 => version_4(rest),
        6 => version_6(rest),
        _ => None,
    }
}

#[inline]
fn version_4(rest: Rest<'_>) -> Option<Found<'_>> {
    let head: &[u8; 20] = rest.bytes.first_chunk()?;
    let length = usize::from(head[0] & 0x0f) * 4;
    if length < 20 {
        return None;
    }
    if head[6] & 0x1f != 0 || head[7] != 0 {
        return Some(Found::LaterFragment);
    }
    let stated = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let source = Ipv4Addr::new(head[12], head[13], head[14], head[15]).into();
    let destination = Ipv4Addr::new(head[16], head[17], head[18], head[19]).into();
    let (mut protocol, mut rest) = (head[9], cut(rest, stated)?.skip(length)?);
    if protocol == AUTHENTICATION {
        let [next, words] = rest.at(0)?;
        (protocol, rest) = (next, rest.skip((usize::from(words) + 2) * 4)?);
    }
    Some(Found::Packet(Header { source, destination, protocol, rest }))
}

fn version_6(rest: Rest<'_>) -> Option<Found<'_>> {
    let head: &[u8; 40] = rest.bytes.first_chunk()?;
    let address = |at: usize| -> Option<IpAddr> { Some(Ipv6Addr::from(*head.get(at..)?.first_chunk::<16>()?).into()) };
    let (source, destination) = (address(8)?, address(24)?);
    let stated = usize::from(u16::from_be_bytes([head[4], head[5]]));
    let mut protocol = head[6];
    let mut rest = cut(rest, if stated == 0 { 0 } else { stated + 40 })?.skip(40)?;
    for _ in 0..MOST_EXTENSIONS {
        let length = match protocol {
            // Hop-by-hop, routing, destination options, mobility, HIP, Shim6.
            0 | 43 | 60 | 135 | 139 | 140 => (usize::from(rest.byte(1)?) + 1) * 8,
            FRAGMENT => {
                if rest.number(2)? >> 3 != 0 {
                    return Some(Found::LaterFragment);
                }
                8
            }
            AUTHENTICATION => (usize::from(rest.byte(1)?) + 2) * 4,
            _ => return Some(Found::Packet(Header { source, destination, protocol, rest })),
        };
        protocol = rest.byte(0)?;
        rest = rest.skip(length)?;
    }
    None
}

/// Without what stands behind the length that the header states: the link's padding. Where it states none, a segment of more
/// than 64 KiB on its way through the host, the frame's length holds.
#[inline]
fn cut(rest: Rest<'_>, stated: usize) -> Option<Rest<'_>> {
    if stated == 0 {
        return Some(rest);
    }
    Some(Rest { bytes: rest.bytes.get(..stated).unwrap_or(rest.bytes), whole: stated })
}
