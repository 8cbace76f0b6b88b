//! Packets wrapped by hand: the same segment comes out of each, with the tunnel's name, and nothing of what is cut short or
//! encrypted.

use std::net::{IpAddr, SocketAddr};

use flowtel_common::packet::Flags;
use proptest::prelude::*;

use super::*;
use crate::capture::{
    KernelTime,
    pcap::{Content, Link, Packet, decode, sample},
};

fn ends(v6: bool) -> [SocketAddr; 2] {
    let [a, b] = if v6 { ["[2001:db8::1]:40000", "[2001:db8::2]:80"] } else { ["10.0.0.1:40000", "10.0.0.2:80"] };
    [a, b].map(|end| end.parse().expect("an endpoint"))
}

/// A segment of five bytes.
fn tcp(v6: bool) -> Vec<u8> {
    let [a, b] = ends(v6);
    sample::tcp(a, b, Flags::ACK, (7, 9), b"hello")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    sample::ip(address("192.0.2.1"), address("192.0.2.2"), protocol, payload)
}

fn ipv6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    sample::ip(address("2001:db8:f::1"), address("2001:db8:f::2"), protocol, payload)
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    sample::udp((address("192.0.2.1"), 50000).into(), (address("192.0.2.2"), port).into(), payload)
}

fn kind(packet: &[u8]) -> [u8; 2] {
    if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] }
}

fn ethernet(packet: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &kind(packet), packet].concat()
}

/// In Ethernet, behind these bytes, which begin with an EtherType.
fn behind(head: &[u8], packet: &[u8]) -> Vec<u8> {
    [&[2; 12][..], head, packet].concat()
}

fn snap(packet: &[u8]) -> Vec<u8> {
    [&[0xaa, 0xaa, 3, 0, 0, 0][..], &kind(packet), packet].concat()
}

fn ppp(packet: &[u8]) -> Vec<u8> {
    let number = if packet[0] >> 4 == 4 { 0x21 } else { 0x57 };
    [&[0xff, 3, 0, number][..], packet].concat()
}

fn wifi(head: [u8; 2], rest: usize, packet: &[u8]) -> Vec<u8> {
    [&head[..], &vec![0; rest], &snap(packet)].concat()
}

fn content(link: u16, bytes: &[u8], which: Decapsulate) -> Content<'_> {
    let whole = bytes.len() as u32;
    decode(&Packet { time: KernelTime(1), link: Link::from_number(link), bytes, whole }, which)
}

/// Link type, bytes, and the tunnel that is named.
type Wrapped = (&'static str, u16, Vec<u8>, Option<Tunnel>);

/// What a link carries without a tunnel.
fn links(p: &[u8]) -> Vec<Wrapped> {
    let e = ethernet(p);
    let tags = |count: usize| [[0x81, 0, 0, 9].repeat(count), kind(p).to_vec()].concat();
    let fixed = |bytes: usize, rest: &[u8]| [&vec![0; bytes], rest].concat();
    let nflog = |order: fn(u16) -> [u8; 2]| {
        let field = |number: u16, body: &[u8]| [&order(4 + body.len() as u16)[..], &order(number), body].concat();
        [&[2, 0, 0, 0][..], &field(1, &[0; 4]), &field(10, b"ab\0\0"), &field(9, p)].concat()
    };
    let radiotap = |present: u32, fields: &[u8], frame: &[u8]| {
        let length = 8 + fields.len() as u16;
        [&[0, 0][..], &length.to_le_bytes(), &present.to_le_bytes(), fields, frame].concat()
    };
    let qos = wifi([0x88, 1], 24, p);
    let mut padded = qos.clone();
    padded.splice(26..26, [0, 0]);
    let several = [&[0x88, 2][..], &[0; 22], &[0x80, 0], &[0; 14], &snap(p)].concat();
    let labels = |last: &[u8]| [&[0, 1, 0, 9, 0, 2, 1, 9][..], last].concat();
    let all: Vec<(&'static str, u16, Vec<u8>)> = vec![
        ("ethernet", 1, e.clone()),
        ("a tag", 1, behind(&tags(1), p)),
        ("QinQ", 1, behind(&[&[0x88, 0xa8, 0, 7][..], &tags(1)].concat(), p)),
        ("sixty tags", 1, behind(&tags(60), p)),
        ("PBB", 1, behind(&[0x88, 0xa8, 0, 7, 0x88, 0xe7, 0, 1, 2, 3], &e)),
        ("802.3 with SNAP", 1, behind(&[0, 99], &snap(p))),
        ("802.3 with LLC", 1, behind(&[0, 99, 6, 6, 3], p)),
        ("ISL", 1, [&[1, 0, 0x0c, 0, 0, 0][..], &[9; 6], &[0, 99], &[0; 12], &e].concat()),
        ("MPLS", 1, behind(&[0x88, 0x47], &labels(p))),
        ("MPLS with a frame", 1, behind(&[0x88, 0x47], &labels(&e))),
        ("MPLS with a control word", 1, behind(&[0x88, 0x47], &labels(&fixed(4, &e)))),
        ("PPPoE", 1, behind(&[0x88, 0x64, 0x11, 0, 0, 1, 0, 99], &ppp(p)[2..])),
        ("802.1BR", 1, behind(&[&[0x89, 0x3f, 0, 0, 0, 0, 0, 0][..], &kind(p)].concat(), p)),
        ("VN-tag", 1, behind(&[&[0x89, 0x26, 0, 0, 0, 0][..], &kind(p)].concat(), p)),
        ("TRILL", 1, behind(&[0x22, 0xf3, 0, 0, 0, 1, 0, 2], &e)),
        ("NSH", 1, behind(&[0x89, 0x4f, 0, 2, 2, 3, 0, 0, 0, 1], &e)),
        ("loopback", 0, fixed(4, p)),
        ("OpenBSD's loopback", 108, fixed(4, p)),
        ("raw", 101, p.to_vec()),
        ("raw by version", 228, p.to_vec()),
        ("token ring", 6, fixed(14, &snap(p))),
        ("FDDI", 10, fixed(13, &snap(p))),
        ("PPP", 9, ppp(p)),
        ("PPP without address", 9, ppp(p)[2..].to_vec()),
        ("PPP with a short protocol", 9, ppp(p)[3..].to_vec()),
        ("PPP of an HDLC line", 50, ppp(p)),
        ("Cisco's HDLC of a PPP line", 50, [&[0x0f, 0][..], &kind(p), p].concat()),
        ("PPPoE without Ethernet", 51, [&[0x11, 0, 0, 1, 0, 99][..], &ppp(p)[2..]].concat()),
        ("pppd", 166, [&[1, 3][..], &ppp(p)[2..]].concat()),
        ("Cisco's HDLC", 104, [&[0x8f, 0][..], &kind(p), p].concat()),
        ("with a direction", 205, [&[0, 0x0f, 0][..], &kind(p), p].concat()),
        ("frame relay", 107, [&[0x18, 0x41, 3, if p[0] >> 4 == 4 { 0xcc } else { 0x8e }][..], p].concat()),
        ("frame relay with SNAP", 107, [&[0x18, 0x41, 3, 0, 0x80][..], &snap(p)[3..]].concat()),
        ("frame relay as Cisco has it", 107, [&[0x18, 0x41][..], &kind(p), p].concat()),
        ("SLL", 113, [&[0; 14][..], &kind(p), p].concat()),
        ("SLL of a GRE device", 113, [&[0, 0, 3, 10][..], &[0; 10], &kind(p), p].concat()),
        ("SLL with a tag", 113, [&[0; 14][..], &tags(2), p].concat()),
        ("SLL2", 276, [&kind(p)[..], &[0; 18], p].concat()),
        ("SLL2 with a tag", 276, [&[0x81, 0][..], &[0; 18], &[0, 9], &kind(p), p].concat()),
        ("802.11", 105, wifi([8, 1], 22, p)),
        ("802.11 of four addresses", 105, wifi([8, 3], 28, p)),
        ("802.11 with QoS", 105, qos.clone()),
        ("802.11 with HT control", 105, wifi([0x88, 0x81], 28, p)),
        ("several in one", 105, several),
        ("radiotap", 127, radiotap(0, &[], &qos)),
        ("radiotap, padded", 127, radiotap(3, &[&[0; 8][..], &[0x20, 0]].concat(), &padded)),
        ("radiotap of two words", 127, radiotap(1 << 31 | 2, &[0, 0, 0, 0, 0x20], &padded)),
        ("AVS", 163, [&[0x80, 0x21, 0x10, 1, 0, 0, 0, 64][..], &[0; 56], &qos].concat()),
        ("Prism", 119, [&[0x44, 0, 0, 0, 144, 0, 0, 0][..], &[0; 136], &qos].concat()),
        ("PPI", 192, [&[0, 0, 8, 0, 105, 0, 0, 0][..], &qos].concat()),
        ("NFLOG", 239, nflog(u16::to_le_bytes)),
        ("NFLOG of another machine", 239, nflog(u16::to_be_bytes)),
        ("PKTAP", 258, [&[12, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0][..], &e].concat()),
        ("pflog", 117, [&[61, 2][..], &[0; 62], p].concat()),
        ("ERF", 197, [&[0; 8][..], &[0x82], &[0; 7], &[0; 8], &[0, 0], &e].concat()),
        ("ARCNET of BSD", 7, [&[1, 2, if p[0] >> 4 == 4 { 0xd4 } else { 0xc4 }, 0, 0, 1][..], p].concat()),
        ("ARCNET of Linux", 129, [&[1, 2, 0, 0, if p[0] >> 4 == 4 { 0xd4 } else { 0xc4 }, 0, 0, 1][..], p].concat()),
        ("Juniper", 178, [&[0x4d, 0x47, 0x43, 0x81, 0, 2, 9, 9][..], &e].concat()),
        ("Juniper without layer 2", 179, [&[0x4d, 0x47, 0x43, 2, 0, 0, 0, 2][..], p].concat()),
        ("Broadcom's tag", 282, fixed(4, &e)),
        ("FireWire", 138, [&[0; 16][..], &kind(p), p].concat()),
    ];
    all.into_iter().map(|(name, link, bytes)| (name, link, bytes, None)).collect()
}

/// Tunnels, each in Ethernet.
fn tunnels(p: &[u8]) -> Vec<Wrapped> {
    let e = ethernet(p);
    let four = p[0] >> 4 == 4;
    let gre = |flags: u16, optional: usize, kind: [u8; 2], carried: &[u8]| {
        ipv4(47, &[&flags.to_be_bytes()[..], &kind, &vec![0; optional], carried].concat())
    };
    let bridging = [0x65, 0x58];
    let gtp = |head: &[u8]| udp(2152, &[head, p].concat());
    let teredo = sample::ip(address("2001:db8::7"), address("2001:db8::8"), 6, &tcp(true)[40..]);
    let l2tp = |head: &[u8]| udp(1701, &[head, &ppp(p)].concat());
    let mut all = vec![
        ("in IPv4", ipv4(if four { 4 } else { 41 }, p), if four { Tunnel::IpInIp } else { Tunnel::SixInFour }),
        ("in IPv6", ipv6(if four { 4 } else { 41 }, p), if four { Tunnel::FourInSix } else { Tunnel::SixInSix }),
        (
            "behind authentication",
            ipv4(51, &[&[if four { 4 } else { 41 }, 4, 0, 0][..], &[0; 20], p].concat()),
            if four { Tunnel::IpInIp } else { Tunnel::SixInFour },
        ),
        ("GRE", gre(0, 0, kind(p), p), Tunnel::Gre),
        ("GRE with a checksum", gre(0x8000, 4, kind(p), p), Tunnel::Gre),
        ("GRE with a key", gre(0x2000, 4, kind(p), p), Tunnel::Gre),
        ("GRE with a key and a number", gre(0x3000, 8, kind(p), p), Tunnel::Gre),
        ("GRE with all", gre(0xb000, 12, kind(p), p), Tunnel::Gre),
        ("GRE with routes", gre(0x4000, 8, kind(p), p), Tunnel::Gre),
        ("GRE with a frame", gre(0, 0, bridging, &e), Tunnel::Gre),
        ("GRE with labels", gre(0, 0, [0x88, 0x47], &[&[0, 1, 1, 9][..], p].concat()), Tunnel::Gre),
        ("PPTP", gre(0x3081, 12, [0x88, 0x0b], &ppp(p)), Tunnel::Gre),
        ("ERSPAN, type I", gre(0, 0, [0x88, 0xbe], &e), Tunnel::Erspan),
        (
            "ERSPAN, type II",
            gre(0x1000, 4, [0x88, 0xbe], &[&[0x10, 0, 0, 0, 0, 0, 0, 0][..], &e].concat()),
            Tunnel::Erspan,
        ),
        ("ERSPAN, type III", gre(0x1000, 4, [0x22, 0xeb], &[&[0x20][..], &[0; 11], &e].concat()), Tunnel::Erspan),
        (
            "ERSPAN, type III, with more",
            gre(0x1000, 4, [0x22, 0xeb], &[&[0x20][..], &[0; 10], &[1], &[0; 8], &e].concat()),
            Tunnel::Erspan,
        ),
        ("GRE in UDP", udp(4754, &[&[0, 0][..], &kind(p), p].concat()), Tunnel::Gre),
        ("EtherIP", ipv4(97, &[&[0x30, 0][..], &e].concat()), Tunnel::EtherIp),
        ("MPLS in IP", ipv4(137, &[&[0, 1, 1, 9][..], p].concat()), Tunnel::Mpls),
        ("MPLS in UDP", udp(6635, &[&[0, 1, 1, 9][..], p].concat()), Tunnel::Mpls),
        ("SRv6", ipv6(43, &[&[143, 2, 4, 0][..], &[0; 20], &e].concat()), Tunnel::Srv6),
        ("VXLAN", udp(4789, &[&[8, 0, 0, 0, 0, 0, 1, 0][..], &e].concat()), Tunnel::Vxlan),
        ("VXLAN at Linux' port", udp(8472, &[&[8, 0, 0, 0, 0, 0, 1, 0][..], &e].concat()), Tunnel::Vxlan),
        ("VXLAN-GPE", udp(4790, &[&[12, 0, 0, 1, 0, 0, 1, 0][..], p].concat()), Tunnel::Vxlan),
        ("GENEVE", udp(6081, &[&[0, 0, 0x65, 0x58, 0, 0, 1, 0][..], &e].concat()), Tunnel::Geneve),
        (
            "GENEVE with options",
            udp(6081, &[&[2, 0, 0x65, 0x58, 0, 0, 1, 0][..], &[0; 8], &e].concat()),
            Tunnel::Geneve,
        ),
        ("GENEVE with IP", udp(6081, &[&[0, 0][..], &kind(p), &[0, 0, 1, 0], p].concat()), Tunnel::Geneve),
        ("GTP-U", gtp(&[0x30, 0xff, 0, 99, 0, 0, 0, 1]), Tunnel::Gtp),
        ("GTP-U with a number", gtp(&[0x32, 0xff, 0, 99, 0, 0, 0, 1, 0, 7, 0, 0]), Tunnel::Gtp),
        (
            "GTP-U with extensions",
            gtp(&[0x34, 0xff, 0, 99, 0, 0, 0, 1, 0, 0, 0, 0x85, 1, 0, 0, 0xc0, 2, 0, 0, 0, 0, 0, 0, 0]),
            Tunnel::Gtp,
        ),
        ("GTP, version 0", udp(3386, &[&[0x1e, 0xff][..], &[0; 18], p].concat()), Tunnel::Gtp),
        ("L2TP", l2tp(&[0, 2, 0, 1, 0, 1]), Tunnel::L2tp),
        ("L2TP with all fields", l2tp(&[0x4a, 2, 0, 99, 0, 1, 0, 1, 0, 0, 0, 0, 0, 2, 9, 9]), Tunnel::L2tp),
        ("LISP", udp(4341, &[&[0x80; 8][..], p].concat()), Tunnel::Lisp),
        ("CAPWAP", udp(5247, &[&[0, 0x10, 2, 0, 0, 0, 0, 0][..], &e].concat()), Tunnel::Capwap),
        (
            "CAPWAP with 802.11",
            udp(5247, &[&[0, 0x10, 3, 0, 0, 0, 0, 0][..], &wifi([1, 8], 22, p)].concat()),
            Tunnel::Capwap,
        ),
        ("TZSP", udp(37008, &[&[1, 0, 0, 1, 10, 1, 9, 0, 1][..], &e].concat()), Tunnel::Tzsp),
        ("VXLAN in GRE", gre(0, 0, [8, 0], &udp(4789, &[&[8, 0, 0, 0, 0, 0, 1, 0][..], &e].concat())), Tunnel::Vxlan),
    ];
    if !four {
        let head = [0, 1, 1, 1, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        all.push(("Teredo", udp(3544, p), Tunnel::Teredo));
        all.push(("Teredo with all", udp(3544, &[&head[..], p].concat()), Tunnel::Teredo));
        assert_eq!(teredo[0] >> 4, 6);
    }
    all.into_iter().map(|(name, packet, tunnel)| (name, 1, ethernet(&packet), Some(tunnel))).collect()
}

#[test]
fn every_encapsulation_holds_the_same_segment_and_tunnels_are_named() {
    for v6 in [false, true] {
        let p = tcp(v6);
        for (name, link, bytes, tunnel) in links(&p).into_iter().chain(tunnels(&p)) {
            let Content::Segment(found) = content(link, &bytes, Decapsulate::Inner) else {
                panic!("{name}, IPv6 {v6}: {:?}", content(link, &bytes, Decapsulate::Inner))
            };
            assert_eq!([found.source, found.destination], ends(v6), "{name}");
            assert_eq!((found.sequence, found.acknowledgement, found.payload), (7, 9, 5), "{name}");
            assert_eq!(found.tunnel, tunnel, "{name}");
        }
    }
}

#[test]
fn outer_looks_through_the_link_and_into_no_tunnel() {
    let p = tcp(false);
    for (name, link, bytes, tunnel) in links(&p).into_iter().chain(tunnels(&p)) {
        let found = content(link, &bytes, Decapsulate::Outer);
        let expected = tunnel.is_none();
        assert_eq!(matches!(found, Content::Segment(_)), expected, "{name}: {found:?}");
    }
}

#[test]
fn what_is_cut_short_is_never_a_segment() {
    let p = tcp(true);
    for (name, link, bytes, _) in links(&p).into_iter().chain(tunnels(&p)) {
        // Five bytes of payload, and six of the TCP header that nobody reads.
        for length in 0..bytes.len() - 11 {
            let found = content(link, &bytes[..length], Decapsulate::Inner);
            assert!(!matches!(found, Content::Segment(_)), "{name}, {length} bytes: {found:?}");
        }
    }
}

#[test]
fn what_is_no_tunnel_is_none() {
    let e = ethernet(&tcp(false));
    let p = tcp(false);
    for (name, packet) in [
        ("VXLAN without its flag", udp(4789, &[&[0; 8][..], &e].concat())),
        ("GENEVE of another version", udp(6081, &[&[0x40, 0, 0x65, 0x58, 0, 0, 1, 0][..], &e].concat())),
        ("a GTP message that carries nothing", udp(2152, &[&[0x30, 1, 0, 99, 0, 0, 0, 1][..], &p].concat())),
        (
            "an extension without a length",
            udp(2152, &[&[0x34, 0xff, 0, 99, 0, 0, 0, 1, 0, 0, 0, 0x85, 0][..], &p].concat()),
        ),
        ("L2TP's control message", udp(1701, &[&[0xc8, 2, 0, 99, 0, 1, 0, 1, 0, 0, 0, 0][..], &ppp(&p)].concat())),
        ("another port", udp(4788, &[&[8, 0, 0, 0, 0, 0, 1, 0][..], &e].concat())),
        ("ESP", ipv4(50, &p)),
        ("what an ICMP error quotes", ipv4(1, &[&[3, 3, 0, 0, 0, 0, 0, 0][..], &p].concat())),
    ] {
        assert_eq!(content(1, &ethernet(&packet), Decapsulate::Inner), Content::Other, "{name}");
    }
    let encrypted = wifi([0x88, 0x41], 24, &p);
    assert_eq!(content(105, &encrypted, Decapsulate::Inner), Content::Other, "encrypted 802.11");
    let beacon = wifi([0x80, 0], 24, &p);
    assert_eq!(content(105, &beacon, Decapsulate::Inner), Content::Other, "no data");
}

#[test]
fn a_name_servers_datagram_in_a_tunnel_is_one() {
    let answer = sample::udp((address("10.0.0.53"), 53).into(), (address("10.0.0.1"), 4789).into(), b"an answer");
    let packet = ethernet(&ipv4(4, &answer));
    assert!(matches!(content(1, &packet, Decapsulate::Inner), Content::Datagram(_)));
    assert_eq!(content(1, &packet, Decapsulate::Outer), Content::Other);
}

#[test]
fn more_headers_than_are_walked_are_unreadable() {
    let nested = |count: usize| (0..count).fold(tcp(false), |packet, _| ipv4(4, &packet));
    assert!(matches!(content(101, &nested(MOST_LAYERS - 1), Decapsulate::Inner), Content::Segment(_)));
    assert_eq!(content(101, &nested(MOST_LAYERS), Decapsulate::Inner), Content::Unreadable);
}

#[test]
fn a_first_fragment_of_a_tunnels_packet_counts_and_a_later_one_does_not() {
    let mut packet = ipv4(4, &tcp(false));
    packet[6] = 0x20;
    assert!(matches!(content(101, &packet, Decapsulate::Inner), Content::Segment(_)));
    packet[7] = 9;
    assert_eq!(content(101, &packet, Decapsulate::Inner), Content::Other);
}

proptest! {
    /// Whatever byte of whichever encapsulation is changed: no panic, and it ends.
    #[test]
    fn changed_bytes_do_no_harm(which in any::<prop::sample::Index>(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), v6 in any::<bool>()) {
        let p = tcp(v6);
        let all: Vec<_> = links(&p).into_iter().chain(tunnels(&p)).collect();
        let (_, link, mut bytes, _) = all[which.index(all.len())].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        content(link, &bytes, Decapsulate::Inner);
    }
}
