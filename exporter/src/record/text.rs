//! Numbers and addresses as text. Written by hand, for the formatting machinery of the standard library was a quarter of
//! the time of a record.

use std::{io::Write as _, net::IpAddr};

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

/// Appends an address as the standard library shows it.
pub(super) fn ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            decimal(out, a.into());
            for octet in [b, c, d] {
                out.push(b'.');
                decimal(out, octet.into());
            }
        }
        // Which zeros are left out is intricate (RFC 5952), and a Vec takes all that is written.
        IpAddr::V6(v6) => _ = write!(out, "{v6}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_and_an_address_are_what_the_standard_library_shows(
            number in prop_oneof![any::<u32>(), 0u32..300, Just(u32::MAX)], v4: [u8; 4], v6: [u16; 8],
        ) {
            for (shown, write) in [
                (number.to_string(), &(|out: &mut Vec<u8>| decimal(out, number)) as &dyn Fn(&mut Vec<u8>)),
                (IpAddr::from(v4).to_string(), &|out| ip(out, v4.into())),
                (IpAddr::from(v6).to_string(), &|out| ip(out, v6.into())),
            ] {
                let mut out = b"before ".to_vec();
                write(&mut out);
                prop_assert_eq!(String::from_utf8(out).expect("ASCII"), format!("before {shown}"));
            }
        }
    }
}
