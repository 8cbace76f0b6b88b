//! Ethernet and what it carries before IP begins: VLAN tags, provider backbone bridges, MPLS labels, PPPoE, LLC.

use super::{Layer, Rest, Step};

pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
pub const MPLS: [u16; 2] = [0x8847, 0x8848];
/// Ethernet in whatever has EtherTypes: GRE, GENEVE.
pub const BRIDGING: u16 = 0x6558;
/// 802.1Q, 802.1ad, and the numbers that came before 802.1ad.
const VLAN: [u16; 4] = [0x8100, 0x88a8, 0x9100, 0x9200];
/// The largest number in place of an EtherType that is a length (802.3, 3.2.6).
const MOST_LENGTH: u16 = 1500;

/// Behind the two addresses.
#[inline]
pub fn ethernet(rest: Rest<'_>) -> Option<Step<'_>> {
    let kind = rest.number(12)?;
    if kind <= MOST_LENGTH && rest.at(0) == Some([0x01, 0x00, 0x0c, 0x00, 0x00]) {
        // Cisco's ISL: a header of 26 bytes, whose first are this address.
        return Some(Step::To(Layer::Ethernet, rest.skip(26)?));
    }
    carried(kind, rest.skip(14)?)
}

/// Behind an EtherType.
#[inline]
pub fn carried(mut kind: u16, mut rest: Rest<'_>) -> Option<Step<'_>> {
    // Tags may stand in any number: each takes four bytes.
    while VLAN.contains(&kind) {
        kind = rest.number(2)?;
        rest = rest.skip(4)?;
    }
    Some(match kind {
        IPV4 | IPV6 => Step::To(Layer::Ip, rest),
        0..=MOST_LENGTH => Step::To(Layer::Llc, rest),
        0x8847 | 0x8848 => Step::To(Layer::Mpls, rest),
        // PPPoE, a session's (RFC 2516, 4): version and type, code, session, length.
        0x8864 => {
            if rest.at(0)? != [0x11, 0] {
                return Some(Step::Nothing);
            }
            Step::To(Layer::Ppp, rest.skip(6)?)
        }
        0x880b => Step::To(Layer::Ppp, rest),
        // 802.1ah: the service's tag, then the customer's whole frame.
        0x88e7 => Step::To(Layer::Ethernet, rest.skip(4)?),
        BRIDGING => Step::To(Layer::Ethernet, rest),
        0x894f => Step::To(Layer::Nsh, rest),
        // Tags of bridges' ports: 802.1BR, and Cisco's VN-tag.
        0x893f => Step::To(Layer::Type(rest.number(6)?), rest.skip(8)?),
        0x8926 => Step::To(Layer::Type(rest.number(4)?), rest.skip(6)?),
        // Cisco's metadata: version, length, type, group.
        0x8909 => Step::To(Layer::Type(rest.number(6)?), rest.skip(8)?),
        // Cisco's FabricPath: what precedes is an outer header without a type of its own.
        0x8903 => Step::To(Layer::Ethernet, rest.skip(2)?),
        // TRILL (RFC 6325, 3): the options' length is in the first two bytes.
        0x22f3 => {
            let options = usize::from(rest.number(0)? >> 6 & 0x1f) * 4;
            Step::To(Layer::Ethernet, rest.skip(6 + options)?)
        }
        // A frame of 802.11 whole.
        0x890d => Step::Nothing,
        _ => Step::Nothing,
    })
}

/// 802.2: IP's own access point, or SNAP with an EtherType or a bridged frame.
pub fn llc(rest: Rest<'_>) -> Option<Step<'_>> {
    Some(match rest.at::<3>(0)? {
        [0x06, 0x06, 0x03] => Step::To(Layer::Ip, rest.skip(3)?),
        // A frame of PPP in ATM (RFC 2364).
        [0xfe, 0xfe, 0x03] if rest.byte(3)? == 0xcf => Step::To(Layer::Ppp, rest.skip(4)?),
        [0xaa, 0xaa, 0x03] => snap(rest.skip(3)?)?,
        _ => Step::Nothing,
    })
}

/// Behind LLC's access points for SNAP, or frame relay's.
pub fn snap(rest: Rest<'_>) -> Option<Step<'_>> {
    let kind = rest.number(3)?;
    let carried = rest.skip(5)?;
    Some(match rest.at::<3>(0)? {
        // RFC 1042, and 802.1H's tunnel.
        [0, 0, 0] | [0, 0, 0xf8] => Step::To(Layer::Type(kind), carried),
        // Bridged frames (RFC 2684, 5.2): two bytes of padding in ATM.
        [0, 0x80, 0xc2] if matches!(kind, 1 | 7) => {
            let padded = carried.at(0) == Some([0, 0]) && carried.number(14).is_some_and(is_known);
            Step::To(Layer::Ethernet, if padded { carried.skip(2)? } else { carried })
        }
        _ => Step::Nothing,
    })
}

/// Behind a stack of labels (RFC 3032): IP by its version, else an Ethernet frame, with a control word or without (RFC 4385,
/// RFC 4448). Labels may stand in any number: each takes four bytes.
pub fn mpls(mut rest: Rest<'_>) -> Option<Step<'_>> {
    loop {
        let last = rest.byte(2)? & 1 == 1;
        rest = rest.skip(4)?;
        if last {
            break;
        }
    }
    let is_ethernet = |rest: Rest<'_>| rest.number(12).is_some_and(is_known);
    Some(match rest.byte(0)? >> 4 {
        4 | 6 => Step::To(Layer::Ip, rest),
        0 if is_ethernet(rest.skip(4)?) => Step::To(Layer::Ethernet, rest.skip(4)?),
        _ if is_ethernet(rest) => Step::To(Layer::Ethernet, rest),
        _ => Step::Nothing,
    })
}

/// RFC 8300, 2.2: the length is counted in words, the next protocol by a list of its own.
pub fn nsh(rest: Rest<'_>) -> Option<Step<'_>> {
    let length = usize::from(rest.byte(1)? & 0x3f) * 4;
    if length < 8 {
        return Some(Step::Nothing);
    }
    Some(generic(rest.byte(3)?, rest.skip(length)?))
}

/// Behind a number of the list that NSH and VXLAN-GPE share.
pub fn generic(protocol: u8, rest: Rest<'_>) -> Step<'_> {
    match protocol {
        1 | 2 => Step::To(Layer::Ip, rest),
        3 => Step::To(Layer::Ethernet, rest),
        4 => Step::To(Layer::Nsh, rest),
        5 => Step::To(Layer::Mpls, rest),
        _ => Step::Nothing,
    }
}

/// Whether this stands in an Ethernet header that may lead to IP: what has no type of its own is told by it.
fn is_known(kind: u16) -> bool {
    VLAN.contains(&kind) || MPLS.contains(&kind) || matches!(kind, IPV4 | IPV6 | 0x8864 | 0x88e7)
}
