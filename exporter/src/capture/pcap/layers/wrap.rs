//! What capture programs and drivers put in front of a frame: Linux cooked captures, radiotap, NFLOG and their like.

use super::{Layer, Rest, Step, ether};
use crate::capture::pcap::Link;

/// A header that is not from the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrap {
    /// So many bytes, then another header.
    Fixed(u8, &'static Layer),
    /// So many bytes, the last two of which are an EtherType.
    Typed(u8),
    /// Linux cooked capture, version 1.
    Sll,
    /// Linux cooked capture, version 2.
    Sll2,
    /// Radiotap.
    Radiotap,
    /// AVS, or Prism's: both name their length.
    Prism,
    /// Per-packet information: any link type, behind fields of its own.
    Ppi,
    /// `NFLOG` of Linux' netfilter.
    Nflog,
    /// `PKTAP` of macOS.
    Pktap,
    /// OpenBSD's log of its packet filter.
    Pflog,
    /// pppd's: a direction in place of the address.
    Pppd,
    /// Endace's ERF.
    Erf,
    /// ARCNET; where the kind of packet stands.
    Arcnet(u8),
    /// Juniper's, before a frame of this kind.
    Juniper(&'static Layer),
    /// Token ring, with a route or without.
    TokenRing,
}

/// ARPHRD numbers (linux/if_arp.h) of interfaces whose "protocol" in a cooked capture is something else than an EtherType.
const FRAME_RELAY: u16 = 770;
const GRE: u16 = 778;
const NETLINK: u16 = 824;
const RADIOTAP: u16 = 803;
const WIFI: u16 = 801;
/// Prism's message code, in the byte order of the machine that captured, and AVS's magic number.
const AVS: [u8; 3] = [0x80, 0x21, 0x10];

impl Wrap {
    /// Reads the header; `None` where it is cut short.
    pub fn step(self, rest: Rest<'_>) -> Option<Step<'_>> {
        match self {
            Self::Fixed(length, next) => Some(Step::To(*next, rest.skip(length.into())?)),
            Self::Typed(length) => {
                let length = usize::from(length);
                ether::carried(rest.number(length.checked_sub(2)?)?, rest.skip(length)?)
            }
            Self::Sll => cooked(rest.number(2)?, rest.number(14)?, rest.skip(16)?),
            Self::Sll2 => cooked(rest.number(8)?, rest.number(0)?, rest.skip(20)?),
            Self::Radiotap => radiotap(rest),
            Self::Prism => {
                let head = rest.at::<8>(0)?;
                let length = if head.starts_with(&AVS) {
                    u32::from_be_bytes(rest.at(4)?)
                } else if head[0] != 0 {
                    u32::from_le_bytes(rest.at(4)?)
                } else {
                    u32::from_be_bytes(rest.at(4)?)
                };
                Some(Step::To(Layer::WIFI, rest.skip(length as usize)?))
            }
            Self::Ppi => {
                let length = u16::from_le_bytes(rest.at(2)?);
                let link = u32::from_le_bytes(rest.at(4)?);
                linked(link, rest.skip(length.into())?)
            }
            Self::Nflog => nflog(rest),
            Self::Pktap => {
                let length = u32::from_le_bytes(rest.at(0)?);
                let link = u32::from_le_bytes(rest.at(8)?);
                linked(link, rest.skip(length as usize)?)
            }
            Self::Pflog => Some(Step::To(Layer::Ip, rest.skip(usize::from(rest.byte(0)?).next_multiple_of(4))?)),
            Self::Pppd => Some(Step::To(Layer::Ppp, if rest.byte(1)? == 3 { rest.skip(2)? } else { rest })),
            Self::Erf => erf(rest),
            Self::Arcnet(at) => arcnet(rest, at.into()),
            Self::Juniper(next) => juniper(rest, *next),
            Self::TokenRing => {
                // A route follows where the source's address has its first bit (802.5).
                let routed = rest.byte(8)? & 0x80 != 0;
                let route = if routed { usize::from(rest.byte(14)? & 0x1f) } else { 0 };
                Some(Step::To(Layer::Llc, rest.skip(14 + route)?))
            }
        }
    }
}

/// A header that names the link type of what follows.
fn linked(number: u32, rest: Rest<'_>) -> Option<Step<'_>> {
    let layer = u16::try_from(number).ok().and_then(|number| Link::from_number(number).layer());
    Some(layer.map_or(Step::Nothing, |layer| Step::To(layer, rest)))
}

/// `device`: the kind of interface.
fn cooked(device: u16, protocol: u16, rest: Rest<'_>) -> Option<Step<'_>> {
    Some(match (device, protocol) {
        (NETLINK, _) => Step::Nothing,
        (FRAME_RELAY, _) => Step::To(Layer::FrameRelay, rest),
        (RADIOTAP, _) => Step::To(Layer::Wrap(Wrap::Radiotap), rest),
        (WIFI, _) => Step::To(Layer::WIFI, rest),
        // The protocol is what GRE carries, and the packet begins behind its header.
        (GRE, kind) => Step::To(Layer::Type(kind), rest),
        // Frames of Novell's kind, and of LLC.
        (_, 1) => Step::Nothing,
        (_, 4) => Step::To(Layer::Llc, rest),
        (_, kind) => Step::To(Layer::Type(kind), rest),
    })
}

/// Version, length; which fields are there. Of those only the flags matter, the second: 0x20 says that the 802.11 header is
/// filled up.
fn radiotap(rest: Rest<'_>) -> Option<Step<'_>> {
    let length = usize::from(u16::from_le_bytes(rest.at(2)?));
    let present = u32::from_le_bytes(rest.at(4)?);
    let mut at = 8;
    let mut word = present;
    // Further words of fields may follow in a row.
    while word & 1 << 31 != 0 {
        word = u32::from_le_bytes(rest.at(at)?);
        at += 4;
    }
    if present & 1 != 0 {
        // A time of eight bytes.
        at = at.next_multiple_of(8) + 8;
    }
    let padded = present & 2 != 0 && at < length && rest.byte(at)? & 0x20 != 0;
    Some(Step::To(Layer::Wifi { padded, swapped: false }, rest.skip(length)?))
}

/// Fields behind four bytes, in the byte order of the machine that captured: number 9 is the packet.
fn nflog(rest: Rest<'_>) -> Option<Step<'_>> {
    let family = rest.byte(0)?;
    for order in [u16::from_le_bytes, u16::from_be_bytes] {
        let mut at = 4;
        while let (Some(length), Some(kind)) = (rest.at(at).map(order), rest.at(at + 2).map(order)) {
            // In the other byte order lengths are too large, and the walk ends soon.
            let length = usize::from(length);
            if length < 4 {
                break;
            }
            if kind == 9 {
                // Of a bridge (7) it is what the bridge carries, too: its own header is another field.
                let known = matches!(family, 0 | 2 | 7 | 10);
                return Some(if known { Step::To(Layer::Ip, rest.skip(at + 4)?) } else { Step::Nothing });
            }
            at += length.next_multiple_of(4);
        }
    }
    Some(Step::Nothing)
}

/// RFC 1051, or RFC 1201 with a flag of fragments: odd of the first one, even of later ones, 255 before four bytes of filling.
fn arcnet(rest: Rest<'_>, at: usize) -> Option<Step<'_>> {
    let kind = rest.byte(at)?;
    if kind == 0xf0 {
        return Some(Step::To(Layer::Ip, rest.skip(at + 1)?));
    }
    let (flag, more) = match rest.byte(at + 1)? {
        0xff => (rest.byte(at + 5)?, 4),
        flag => (flag, 0),
    };
    let later = flag != 0 && flag & 1 == 0;
    Some(match kind {
        0xd4 | 0xc4 if !later => Step::To(Layer::Ip, rest.skip(at + 4 + more)?),
        _ => Step::Nothing,
    })
}

/// A magic number, flags, further fields in any number; without layer 2 a protocol's number.
fn juniper(rest: Rest<'_>, next: Layer) -> Option<Step<'_>> {
    let [a, b, c, flags] = rest.at(0)?;
    if [a, b, c] != [0x4d, 0x47, 0x43] {
        return Some(Step::Nothing);
    }
    let further = if flags & 0x80 != 0 { 2 + usize::from(rest.number(4)?) } else { 0 };
    let rest = rest.skip(4 + further)?;
    if flags & 0x02 == 0 {
        return Some(Step::To(next, rest));
    }
    Some(match u32::from_be_bytes(rest.at(0)?) {
        2 | 6 => Step::To(Layer::Ip, rest.skip(4)?),
        3 => Step::To(Layer::Mpls, rest.skip(4)?),
        _ => Step::Nothing,
    })
}

/// A header of 16 bytes, extensions of eight each, then what the type says.
fn erf(rest: Rest<'_>) -> Option<Step<'_>> {
    let kind = rest.byte(8)?;
    let mut at = 16;
    let mut more = kind & 0x80 != 0;
    while more {
        more = rest.byte(at)? & 0x80 != 0;
        at += 8;
    }
    Some(match kind & 0x7f {
        // Ethernet of some kinds: two bytes stand before it.
        2 | 11 | 16 | 20 => Step::To(Layer::Ethernet, rest.skip(at + 2)?),
        1 | 10 | 15 | 17 => Step::To(Layer::Serial, rest.skip(at)?),
        22 | 23 => Step::To(Layer::Ip, rest.skip(at)?),
        _ => Step::Nothing,
    })
}
