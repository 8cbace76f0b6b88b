//! Numbers and addresses as text, written by hand, for the formatting machinery of the standard library was a quarter of
//! the time of a record; and texts of others made fit to be shown.

use std::{io::Write as _, net::IpAddr};

use super::wire;
use crate::escape::Escaped;

/// Appends `number` in decimal.
pub(super) fn decimal(out: &mut Vec<u8>, mut number: u32) {
    let mut digits = [0; 10];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a port behind a colon. (The loop of [`decimal`] is as long as the number, which the CPU can't foresee.)
#[inline(always)]
pub(super) fn port(out: &mut Vec<u8>, port: u16) {
    let digit = |power: u16| u64::from(port / power % 10) + u64::from(b'0');
    let digits = digit(10_000) | digit(1000) << 8 | digit(100) << 16 | digit(10) << 24 | digit(1) << 32;
    let zeros = u32::from(port < 10_000) + u32::from(port < 1000) + u32::from(port < 100) + u32::from(port < 10);
    let text = digits >> (8 * zeros) << 8 | u64::from(b':');
    wire::block(out, &text.to_le_bytes(), 6 - zeros as usize);
}

/// Appends `text` as it may be shown on a terminal, for that is what a body is for.
pub(super) fn shown(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return out.extend_from_slice(text.as_bytes());
    }
    // A Vec takes all that is written.
    let _ = write!(out, "{}", Escaped(text));
}

/// The 256 octets in decimal with a dot behind, and the length of that.
const OCTETS: [([u8; 4], u8); 256] = {
    let mut all = [([b'.'; 4], 0); 256];
    let mut n = 0;
    while n < 256 {
        let (hundreds, tens, ones) = (n / 100, n / 10 % 10, n % 10);
        let digits = [b'0' + hundreds as u8, b'0' + tens as u8, b'0' + ones as u8];
        let from = if hundreds > 0 {
            0
        } else if tens > 0 {
            1
        } else {
            2
        };
        let mut i = from;
        while i < 3 {
            all[n].0[i - from] = digits[i];
            i += 1;
        }
        all[n].1 = (3 - from) as u8 + 1;
        n += 1;
    }
    all
};

/// An address as the standard library shows it: it stands in a record more than once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address {
    bytes: [u8; LONGEST],
    len: usize,
}

/// Eight groups of four digits; an IPv4 address within one of IPv6 is shorter.
const LONGEST: usize = 8 * 4 + 7;
/// Four octets with a dot behind each.
const LONGEST_V4: usize = 16;

impl Address {
    pub fn new(ip: IpAddr) -> Self {
        let mut text = Self { bytes: [0; LONGEST], len: 0 };
        match ip {
            IpAddr::V4(v4) => {
                let mut at = 0;
                for octet in v4.octets() {
                    let (digits, len) = OCTETS[usize::from(octet)];
                    text.bytes[at..at + 4].copy_from_slice(&digits);
                    at += usize::from(len);
                }
                // Without the last dot.
                text.len = at - 1;
            }
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => {
                    text.push(b"::ffff:");
                    text.push(Self::new(v4.into()).as_bytes());
                }
                None => text.groups(v6.segments()),
            },
        }
        text
    }

    /// Appends it to `out`.
    #[inline(always)]
    pub fn write(&self, out: &mut Vec<u8>) {
        match self.bytes.first_chunk::<LONGEST_V4>() {
            Some(short) if self.len <= LONGEST_V4 => wire::block(out, short, self.len),
            _ => out.extend_from_slice(self.as_bytes()),
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Eight groups, the longest run of zeros left out, the first of several (RFC 5952, 4.2).
    fn groups(&mut self, groups: [u16; 8]) {
        let (mut longest, mut run) = (0..0, 0..0);
        for (i, group) in groups.into_iter().enumerate() {
            if group != 0 {
                run = i + 1..i + 1;
                continue;
            }
            run.end = i + 1;
            // One zero alone is written.
            if run.len() > longest.len().max(1) {
                longest = run.clone();
            }
        }
        if longest.is_empty() {
            return self.written(&groups);
        }
        self.written(&groups[..longest.start]);
        self.push(b"::");
        self.written(&groups[longest.end..]);
    }

    fn written(&mut self, groups: &[u16]) {
        for (i, group) in groups.iter().enumerate() {
            if i > 0 {
                self.push(b":");
            }
            let [high, low] = group.to_be_bytes().map(|byte| HEX[usize::from(byte)]);
            let digits = [high[0], high[1], low[0], low[1]];
            self.push(&digits[(group.leading_zeros() as usize / 4).min(3)..]);
        }
    }

    fn push(&mut self, text: &[u8]) {
        let end = self.len + text.len();
        if let Some(place) = self.bytes.get_mut(self.len..end) {
            place.copy_from_slice(text);
            self.len = end;
        }
    }
}

/// 32 hex digits.
pub(super) fn hex(id: u128) -> [u8; 32] {
    let mut out = [0; 32];
    for (two, byte) in out.chunks_exact_mut(2).zip(id.to_be_bytes()) {
        two.copy_from_slice(&HEX[usize::from(byte)]);
    }
    out
}

/// The 256 bytes in hex.
const HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut all = [[0; 2]; 256];
    let mut n = 0;
    while n < 256 {
        all[n] = [DIGITS[n >> 4], DIGITS[n & 15]];
        n += 1;
    }
    all
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_is_32_digits(id: u128) {
            prop_assert_eq!(hex(id).to_vec(), format!("{id:032x}").into_bytes());
        }

        #[test]
        fn a_number_and_an_address_are_what_the_standard_library_shows(
            number in prop_oneof![any::<u32>(), 0u32..300, Just(u32::MAX)], v4: [u8; 4],
            v6 in prop::array::uniform8(prop_oneof![Just(0u16), Just(0xffff), any::<u16>(), 0u16..32]),
        ) {
            for (shown, write) in [
                (number.to_string(), &(|out: &mut Vec<u8>| decimal(out, number)) as &dyn Fn(&mut Vec<u8>)),
                (format!(":{}", number as u16), &|out| port(out, number as u16)),
                (IpAddr::from(v4).to_string(), &|out| Address::new(v4.into()).write(out)),
                (IpAddr::from(v6).to_string(), &|out| Address::new(v6.into()).write(out)),
            ] {
                let mut out = b"before ".to_vec();
                write(&mut out);
                prop_assert_eq!(String::from_utf8(out).expect("ASCII"), format!("before {shown}"));
            }
        }
    }
}
