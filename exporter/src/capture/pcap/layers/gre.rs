//! GRE (RFC 2784, 2890), with the routing of RFC 1701, and as PPTP has it (RFC 2637).

use super::{Layer, Rest, Step, Tunnel, ether};

const CHECKSUM: u16 = 0x8000;
const ROUTING: u16 = 0x4000;
const KEY: u16 = 0x2000;
const SEQUENCE: u16 = 0x1000;
/// PPTP's.
const ACKNOWLEDGEMENT: u16 = 0x0080;
const VERSION: u16 = 0x0007;
const PPP: u16 = 0x880b;

/// The header, whose optional fields are as its flags say.
pub fn gre(rest: Rest<'_>) -> Option<Step<'_>> {
    let (flags, kind) = (rest.number(0)?, rest.number(2)?);
    let has = |flag: u16| flags & flag != 0;
    let mut length = 4;
    match flags & VERSION {
        0 => {
            length += 4 * [has(CHECKSUM | ROUTING), has(KEY), has(SEQUENCE)].map(usize::from).iter().sum::<usize>();
            if has(ROUTING) {
                // Entries of routes: family, offset, length; the last one is all zeros.
                loop {
                    let [a, b, _, entry] = rest.at(length)?;
                    length += 4 + usize::from(entry);
                    if [a, b, entry] == [0; 3] {
                        break;
                    }
                }
            }
        }
        1 if kind == PPP => {
            length = 8 + 4 * [has(SEQUENCE), has(ACKNOWLEDGEMENT)].map(usize::from).iter().sum::<usize>();
            if rest.bytes.len() == length {
                // An acknowledgement alone.
                return Some(Step::Nothing);
            }
        }
        _ => return Some(Step::Nothing),
    }
    let rest = rest.skip(length)?;
    Some(match kind {
        // A port's mirror: without a sequence number there is no header (type I).
        0x88be if !has(SEQUENCE) => Step::Through(Tunnel::Erspan, Layer::Ethernet, rest),
        0x88be | 0x22eb => {
            let length = match rest.byte(0)? >> 4 {
                1 => 8,
                // Its last bit says whether there are 8 bytes more.
                2 => 12 + if rest.byte(11)? & 1 == 1 { 8 } else { 0 },
                _ => return Some(Step::Nothing),
            };
            Step::Through(Tunnel::Erspan, Layer::Ethernet, rest.skip(length)?)
        }
        // WCCP: a header of four bytes may stand before IP.
        0x883e => Step::To(Layer::Ip, if rest.byte(0)? >> 4 == 4 { rest } else { rest.skip(4)? }),
        // Arista's and others' for Ethernet, too.
        ether::BRIDGING | 0x6400 => Step::To(Layer::Ethernet, rest),
        0x6559 => Step::To(Layer::FrameRelay, rest),
        // Frames of 802.11, as controllers of access points send them.
        0x8200..=0x82f0 => Step::To(Layer::WIFI, rest),
        kind => Step::To(Layer::Type(kind), rest),
    })
}
