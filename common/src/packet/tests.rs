use proptest::prelude::*;

use super::*;

/// An IPv4 packet with `options` words of options and a TCP header with `flags`, captured or made by hand.
fn ipv4(options: u8, flags: u8, fragment: u16) -> Vec<u8> {
    let mut packet = vec![0u8; 20 + usize::from(options) * 4 + 20];
    packet[0] = 0x40 | (5 + options);
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[9] = TCP;
    packet[12..16].copy_from_slice(&[192, 0, 2, 1]);
    packet[16..20].copy_from_slice(&[192, 0, 2, 2]);
    tcp_header(&mut packet, 20 + usize::from(options) * 4, flags);
    packet
}

/// An IPv6 packet with extension headers (type, length in units of 8 bytes beyond the first 8).
fn ipv6(extensions: &[(u8, u8)], flags: u8) -> Vec<u8> {
    let mut packet = vec![0u8; 40];
    packet[0] = 0x60;
    packet[8..24].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().expect("valid").octets());
    packet[24..40].copy_from_slice(&"2001:db8::2".parse::<Ipv6Addr>().expect("valid").octets());
    let mut next_at = 6;
    for (kind, length) in extensions {
        packet[next_at] = *kind;
        next_at = packet.len();
        packet.extend(vec![0; (usize::from(*length) + 1) * 8]);
        packet[next_at + 1] = *length;
    }
    packet[next_at] = TCP;
    let at = packet.len();
    packet.extend([0; 20]);
    tcp_header(&mut packet, at, flags);
    packet
}

fn tcp_header(packet: &mut [u8], at: usize, flags: u8) {
    packet[at..at + 2].copy_from_slice(&40_000u16.to_be_bytes());
    packet[at + 2..at + 4].copy_from_slice(&443u16.to_be_bytes());
    packet[at + 12] = 0x50;
    packet[at + 13] = flags;
}

const SYN_ACK: u8 = Flags::SYN | Flags::ACK;

#[test]
fn a_captured_syn_ack_is_read() {
    // From a capture on loopback: IPv4, DF, TCP 443 > 59780, SYN-ACK with MSS, SACK, timestamps, window scale.
    let captured: &[u8] = &[
        0x45, 0x00, 0x00, 0x3c, 0x00, 0x00, 0x40, 0x00, 0x40, 0x06, 0x3c, 0xba, 0x7f, 0x00, 0x00, 0x01, 0x7f, 0x00,
        0x00, 0x01, 0x01, 0xbb, 0xe9, 0x84, 0x6b, 0x3f, 0x1d, 0x08, 0x27, 0x0a, 0x55, 0x2e, 0xa0, 0x12, 0xff, 0xcb,
        0xfe, 0x30, 0x00, 0x00, 0x02, 0x04, 0xff, 0xd7, 0x04, 0x02, 0x08, 0x0a, 0x5c, 0x11, 0x4e, 0x2f, 0x5c, 0x11,
        0x4e, 0x2f, 0x01, 0x03, 0x03, 0x07,
    ];
    let read = tcp(&captured).expect("a TCP segment");
    assert_eq!((read.source, read.source_port), ("127.0.0.1".parse().expect("valid"), 443));
    assert_eq!((read.destination, read.destination_port), ("127.0.0.1".parse().expect("valid"), 59_780));
    assert!(read.flags.is_syn_ack() && !read.flags.is_syn());
}

#[test]
fn options_of_ipv4_move_the_tcp_header() {
    for options in 0..=10 {
        let packet = ipv4(options, SYN_ACK, 0);
        let read = tcp(&packet.as_slice()).expect("a TCP segment");
        assert_eq!((read.source_port, read.destination_port, read.flags), (40_000, 443, Flags(SYN_ACK)));
    }
}

#[test]
fn a_fragment_that_does_not_start_the_packet_is_no_segment_and_the_first_one_is() {
    assert!(tcp_flags(&ipv4(0, SYN_ACK, 0x2000).as_slice()).is_some(), "more fragments follow, this is the first");
    assert!(tcp_flags(&ipv4(0, SYN_ACK, 0x2001).as_slice()).is_none());
    assert!(tcp_flags(&ipv4(0, SYN_ACK, 0x0100).as_slice()).is_none());
}

#[test]
fn extension_headers_of_ipv6_are_walked_up_to_four() {
    for extensions in [&[][..], &[(0, 0)], &[(0, 1), (60, 2)], &[(0, 0), (43, 2), (60, 0), (60, 1)]] {
        let read = tcp(&ipv6(extensions, SYN_ACK).as_slice()).expect("a TCP segment");
        assert_eq!(read.source, "2001:db8::1".parse::<IpAddr>().expect("valid"));
        assert_eq!((read.destination_port, read.flags), (443, Flags(SYN_ACK)));
    }
    assert!(tcp_flags(&ipv6(&[(0, 0); 5], SYN_ACK).as_slice()).is_none(), "five are too many");
    assert!(tcp_flags(&ipv6(&[(0, 255)], SYN_ACK).as_slice()).is_none(), "beyond the bound");
}

#[test]
fn other_headers_and_protocols_are_no_segments() {
    assert!(tcp_flags(&ipv6(&[(44, 0)], SYN_ACK).as_slice()).is_none(), "a fragment header is not walked");
    let mut udp = ipv4(0, SYN_ACK, 0);
    udp[9] = UDP;
    assert!(tcp_flags(&udp.as_slice()).is_none());
    assert_eq!(transport(&udp.as_slice()).map(|t| (t.protocol, t.at)), Some((UDP, 20)));
    let mut short = ipv4(0, SYN_ACK, 0);
    short[0] = 0x44;
    assert!(transport(&short.as_slice()).is_none(), "a header of 16 bytes");
    short[0] = 0x55;
    assert!(transport(&short.as_slice()).is_none(), "IP version 5");
}

#[test]
fn only_syn_with_ack_and_without_rst_or_fin_answers_a_syn() {
    for flags in 0..=255u8 {
        let clean = flags & (Flags::RST | Flags::FIN) == 0;
        let (syn, ack) = (flags & Flags::SYN != 0, flags & Flags::ACK != 0);
        assert_eq!(Flags(flags).is_syn_ack(), syn && ack && clean);
        assert_eq!(Flags(flags).is_syn(), syn && !ack && clean);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_and_what_it_finds_lies_inside(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        let packet = bytes.as_slice();
        if let Some(found) = transport(&packet) {
            prop_assert!(found.at >= 20 && found.at <= MAX_OFFSET);
        }
        if let Some(found) = tcp(&packet) {
            prop_assert_eq!(tcp_flags(&packet), Some(found.flags));
        }
    }

    #[test]
    fn every_cut_of_a_packet_is_read_right_or_not_at_all(
        options in 0u8..=10,
        extensions in prop::collection::vec((prop_oneof![Just(0u8), Just(43), Just(60)], 0u8..4), 0..4),
        flags in any::<u8>(),
    ) {
        for whole in [ipv4(options, flags, 0), ipv6(&extensions, flags)] {
            for end in 0..=whole.len() {
                let cut = &whole[..end];
                if let Some(found) = tcp_flags(&cut) {
                    prop_assert_eq!(found, Flags(flags));
                }
            }
            prop_assert_eq!(tcp_flags(&whole.as_slice()), Some(Flags(flags)));
        }
    }
}
