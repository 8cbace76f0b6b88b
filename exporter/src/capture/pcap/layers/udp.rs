//! Tunnels over UDP, known by their port, of either side as answers come from it; each must look like what it is said to be.

use super::{Layer, Rest, Step, Tunnel, ether};

/// Length of a UDP header.
const HEADER: usize = 8;

/// What a datagram carries, from the UDP header on; `None` where it is no tunnel, or cut short.
pub fn tunnel(rest: Rest<'_>) -> Option<Step<'_>> {
    let (source, destination) = (rest.number(0)?, rest.number(2)?);
    let low = source.min(destination);
    let high = source.max(destination);
    // Most datagrams end here.
    let port = if is_tunnel(low) {
        low
    } else if is_tunnel(high) {
        high
    } else {
        return None;
    };
    let rest = rest.skip(HEADER)?;
    match port {
        1701 => l2tp(rest),
        2152 => gtp(rest),
        3386 => gtp_before(rest),
        3544 => teredo(rest),
        4341 => Some(Step::Through(Tunnel::Lisp, Layer::Ip, rest.skip(8)?)).filter(|_| is_ip(rest, 8)),
        4754 => Some(Step::Through(Tunnel::Gre, Layer::Gre, rest)),
        // The second is what Linux took before there was a standard's.
        4789 | 8472 => {
            // The flag that says there is a network's number.
            let right = rest.byte(0)? & 0x08 != 0;
            right.then_some(Step::Through(Tunnel::Vxlan, Layer::Ethernet, rest.skip(8)?))
        }
        5247 => capwap(rest),
        4790 => through(Tunnel::Vxlan, ether::generic(rest.byte(3)?, rest.skip(8)?)),
        6081 => geneve(rest),
        6635 => Some(Step::Through(Tunnel::Mpls, Layer::Mpls, rest)),
        37008 => tzsp(rest),
        _ => None,
    }
}

fn is_tunnel(port: u16) -> bool {
    matches!(port, 1701 | 2152 | 3386 | 3544 | 4341 | 4754 | 4789 | 4790 | 5247 | 6081 | 6635 | 8472 | 37008)
}

fn is_ip(rest: Rest<'_>, at: usize) -> bool {
    rest.byte(at).is_some_and(|first| matches!(first >> 4, 4 | 6))
}

fn through(tunnel: Tunnel, step: Step<'_>) -> Option<Step<'_>> {
    match step {
        Step::To(layer, rest) => Some(Step::Through(tunnel, layer, rest)),
        _ => None,
    }
}

/// RFC 8926, 3.4: options in words, an EtherType.
fn geneve(rest: Rest<'_>) -> Option<Step<'_>> {
    let [version, _] = rest.at(0)?;
    let kind = rest.number(2)?;
    let options = usize::from(version & 0x3f) * 4;
    (version >> 6 == 0).then_some(Step::Through(Tunnel::Geneve, Layer::Type(kind), rest.skip(8 + options)?))
}

/// 3GPP TS 29.281, 5.1: a G-PDU, with optional fields where any flag asks for them, and extension headers in a row, each at
/// least four bytes.
fn gtp(rest: Rest<'_>) -> Option<Step<'_>> {
    let [flags, kind] = rest.at(0)?;
    if flags & 0xf0 != 0x30 || kind != 0xff {
        return None;
    }
    let mut at = 8;
    if flags & 0x07 != 0 {
        let mut next = if flags & 0x04 != 0 { rest.byte(11)? } else { 0 };
        at = 12;
        while next != 0 {
            let words = usize::from(rest.byte(at)?);
            if words == 0 {
                return None;
            }
            at += words * 4;
            next = rest.byte(at - 1)?;
        }
    }
    is_ip(rest, at).then_some(Step::Through(Tunnel::Gtp, Layer::Ip, rest.skip(at)?))
}

/// 3GPP TS 29.060 before version 1, and GSM 09.60: a T-PDU behind 20 bytes.
fn gtp_before(rest: Rest<'_>) -> Option<Step<'_>> {
    let [flags, kind] = rest.at(0)?;
    let right = flags >> 5 == 0 && kind == 0xff && is_ip(rest, 20);
    right.then_some(Step::Through(Tunnel::Gtp, Layer::Ip, rest.skip(20)?))
}

/// RFC 4380, 5.1.1: authentication and where the packet came from may stand before it.
fn teredo(mut rest: Rest<'_>) -> Option<Step<'_>> {
    if rest.at(0)? == [0, 1] {
        let [id, authentication] = rest.at(2)?;
        rest = rest.skip(4 + usize::from(id) + usize::from(authentication) + 9)?;
    }
    if rest.at(0)? == [0, 0] {
        rest = rest.skip(8)?;
    }
    (rest.byte(0)? >> 4 == 6).then_some(Step::Through(Tunnel::Teredo, Layer::Ip, rest))
}

/// RFC 2661, 3.1: data, with whatever fields its flags ask for.
fn l2tp(rest: Rest<'_>) -> Option<Step<'_>> {
    let flags = rest.number(0)?;
    if flags & 0x800f != 0x0002 {
        return None;
    }
    let mut at = 6;
    at += if flags & 0x4000 != 0 { 2 } else { 0 };
    at += if flags & 0x0800 != 0 { 4 } else { 0 };
    if flags & 0x0200 != 0 {
        at += 2 + usize::from(rest.number(at)?);
    }
    Some(Step::Through(Tunnel::L2tp, Layer::Ppp, rest.skip(at)?))
}

/// RFC 5415, 4.3: the header's length in words, what kind of frame follows, whether it is a fragment, and which.
fn capwap(rest: Rest<'_>) -> Option<Step<'_>> {
    let [preamble, a, b, c] = rest.at(0)?;
    let flags = u32::from_be_bytes([0, a, b, c]);
    let length = (flags >> 19) as usize * 4;
    let (native, fragment, wireless) = (flags & 0x100 != 0, flags & 0x80 != 0, flags >> 9 & 0x1f);
    let later = fragment && rest.number(6)? >> 3 != 0;
    if preamble != 0 || length < 8 || later {
        return None;
    }
    let layer = match (native, wireless) {
        (false, _) => Layer::Ethernet,
        (true, 1) => Layer::Wifi { padded: false, swapped: true },
        _ => return None,
    };
    Some(Step::Through(Tunnel::Capwap, layer, rest.skip(length)?))
}

/// Version, kind, protocol; fields in a row, each at least one byte, the last is 1.
fn tzsp(rest: Rest<'_>) -> Option<Step<'_>> {
    let [version, _] = rest.at(0)?;
    let layer = match rest.number(2)? {
        1 => Layer::Ethernet,
        18 => Layer::WIFI,
        _ => return None,
    };
    if version != 1 {
        return None;
    }
    let mut at = 4;
    loop {
        match rest.byte(at)? {
            0 => at += 1,
            1 => return Some(Step::Through(Tunnel::Tzsp, layer, rest.skip(at + 1)?)),
            _ => at += 2 + usize::from(rest.byte(at + 1)?),
        }
    }
}
