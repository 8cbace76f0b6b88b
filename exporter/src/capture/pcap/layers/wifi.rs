//! 802.11 frames that carry data in the clear: what follows their header is LLC.

use super::{Layer, Rest, Step};

/// Frame control, first byte: version and type, of which data is 2.
const KIND: u8 = 0x0f;
const DATA: u8 = 0x08;
/// No data in it (Null, CF-Ack, ...).
const EMPTY: u8 = 0x40;
/// With QoS control.
const QOS: u8 = 0x80;
/// Frame control, second byte.
const BOTH_WAYS: u8 = 0x03;
const ENCRYPTED: u8 = 0x40;
const ORDERED: u8 = 0x80;
/// QoS control: several frames in one (A-MSDU).
const SEVERAL: u8 = 0x80;

/// A frame of any kind. `padded`: the header is filled up to a multiple of four. `swapped`: its first two bytes may be in the
/// wrong order, as some access points send them; then the second says that it is data, and the first doesn't.
pub fn data(rest: Rest<'_>, padded: bool, swapped: bool) -> Option<Step<'_>> {
    let [mut kind, mut flags] = rest.at(0)?;
    if swapped && kind & KIND != DATA {
        (kind, flags) = (flags, kind);
    }
    if kind & KIND != DATA || kind & EMPTY != 0 || flags & ENCRYPTED != 0 {
        return Some(Step::Nothing);
    }
    // From a bridge to a bridge there are four addresses.
    let mut length = if flags & BOTH_WAYS == BOTH_WAYS { 30 } else { 24 };
    let mut several = false;
    if kind & QOS != 0 {
        several = rest.byte(length)? & SEVERAL != 0;
        length += if flags & ORDERED != 0 { 6 } else { 2 };
    }
    if padded {
        length = length.next_multiple_of(4);
    }
    // Of several frames the first: two addresses and a length stand before each.
    Some(Step::To(Layer::Llc, rest.skip(length + if several { 14 } else { 0 })?))
}
