//! The name that a reverse look-up asks for (RFC 1035, 3.5; RFC 3596, 2.5) comes in, the address goes out.

use std::net::{IpAddr, Ipv6Addr};

/// The address, canonical. `None`: the name stands for none, or for a whole network.
pub fn address(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut labels = labels.split('.');
        for octet in octets.iter_mut().rev() {
            let label = labels.next()?;
            let plain = label.bytes().all(|b| b.is_ascii_digit()) && (label == "0" || !label.starts_with('0'));
            *octet = label.parse().ok().filter(|_| plain)?;
        }
        return labels.next().is_none().then(|| octets.into());
    }
    let mut labels = name.strip_suffix(".ip6.arpa")?.split('.');
    let mut bits = 0u128;
    for shift in (0..128).step_by(4) {
        let label = labels.next().filter(|label| label.len() == 1)?;
        bits |= u128::from(u8::from_str_radix(label, 16).ok()?) << shift;
    }
    labels.next().is_none().then(|| IpAddr::from(Ipv6Addr::from_bits(bits)).to_canonical())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// As resolvers write it.
    fn question(address: IpAddr) -> String {
        match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                format!("{d}.{c}.{b}.{a}.in-addr.arpa")
            }
            IpAddr::V6(v6) => {
                let mut name = String::new();
                for byte in v6.octets().into_iter().rev() {
                    write!(name, "{:x}.{:x}.", byte & 15, byte >> 4).expect("a text");
                }
                name + "ip6.arpa"
            }
        }
    }

    #[test]
    fn what_stands_for_no_address_gives_none() {
        for name in [
            "",
            "in-addr.arpa",
            ".in-addr.arpa",
            "2.0.192.in-addr.arpa",
            "1.2.0.192.5.in-addr.arpa",
            "256.2.0.192.in-addr.arpa",
            "01.2.0.192.in-addr.arpa",
            "+1.2.0.192.in-addr.arpa",
            "1.0/25.2.0.192.in-addr.arpa",
            "1.2.0.192.in-addr.arpa.example",
            "8.b.d.0.1.0.0.2.ip6.arpa",
            "lb._dns-sd._udp.0.2.0.192.in-addr.arpa",
        ] {
            assert_eq!(address(name), None, "{name}");
        }
        let six = question("2001:db8::1".parse().expect("an address"));
        assert_eq!(address(&six.replacen('1', "+", 1)), None);
        assert_eq!(address(&six.replacen('1', "11", 1)), None);
    }

    proptest! {
        #[test]
        fn the_question_about_an_address_gives_it_back(four in any::<[u8; 4]>(), six in any::<[u8; 16]>()) {
            for ip in [IpAddr::from(four), IpAddr::from(six), std::net::Ipv4Addr::from(four).to_ipv6_mapped().into()] {
                prop_assert_eq!(address(&question(ip)), Some(ip.to_canonical()));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            let _ = address(&text);
            let _ = address(&(text + ".ip6.arpa"));
        }
    }
}
