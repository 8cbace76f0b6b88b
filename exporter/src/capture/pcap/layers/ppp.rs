//! What serial lines speak: PPP (RFC 1661), Cisco HDLC, frame relay (RFC 2427).

use super::{Layer, Rest, Step, ether};

/// PPP: address and control may be left out, and the first half of a small protocol number too (RFC 1661, 6.5 and 6.6).
pub fn ppp(rest: Rest<'_>) -> Option<Step<'_>> {
    let rest = if rest.at(0) == Some([0xff, 0x03]) { rest.skip(2)? } else { rest };
    let first = rest.byte(0)?;
    let (protocol, rest) =
        if first & 1 == 1 { (u16::from(first), rest.skip(1)?) } else { (rest.number(0)?, rest.skip(2)?) };
    Some(match protocol {
        0x0021 | 0x0057 => Step::To(Layer::Ip, rest),
        0x0281 | 0x0283 => Step::To(Layer::Mpls, rest),
        // A bridged frame (RFC 3518): flags, kind of MAC; 1 is Ethernet.
        0x0031 if rest.byte(1)? == 1 => Step::To(Layer::Ethernet, rest.skip(2)?),
        // Multilink (RFC 1990) where one fragment is the whole packet.
        0x003d if rest.byte(0)? & 0xc0 == 0xc0 => Step::To(Layer::Ppp, rest.skip(4)?),
        _ => Step::Nothing,
    })
}

/// Cisco HDLC: address, control, EtherType.
pub fn cisco(rest: Rest<'_>) -> Option<Step<'_>> {
    Some(Step::To(Layer::Type(rest.number(2)?), rest.skip(4)?))
}

/// Address 0x0f (unicast) or 0x8f (broadcast) is Cisco HDLC's.
pub fn serial(rest: Rest<'_>) -> Option<Step<'_>> {
    let cisco = matches!(rest.byte(0)?, 0x0f | 0x8f);
    Some(Step::To(if cisco { Layer::CiscoHdlc } else { Layer::Ppp }, rest))
}

/// An address of two to four bytes, then a network layer's number, or an EtherType as Cisco has it.
pub fn frame_relay(rest: Rest<'_>) -> Option<Step<'_>> {
    let mut length = 2;
    while length < 4 && rest.byte(length - 1)? & 1 == 0 {
        length += 1;
    }
    let rest = rest.skip(length)?;
    if rest.byte(0)? != 0x03 {
        return Some(Step::To(Layer::Type(rest.number(0)?), rest.skip(2)?));
    }
    let mut rest = rest.skip(1)?;
    if rest.byte(0)? == 0 {
        rest = rest.skip(1)?;
    }
    Some(match rest.byte(0)? {
        0xcc | 0x8e => Step::To(Layer::Ip, rest.skip(1)?),
        0xcf => Step::To(Layer::Ppp, rest.skip(1)?),
        0x80 => ether::snap(rest.skip(1)?)?,
        _ => Step::Nothing,
    })
}
