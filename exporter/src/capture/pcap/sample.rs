//! Packets and captures made by hand, for tests.

use std::net::{IpAddr, SocketAddr};

/// A frame's link type number, and its bytes.
pub type Frame = (u16, Vec<u8>);

/// A TCP segment without options.
pub fn tcp(from: SocketAddr, to: SocketAddr, flags: u8, numbers: (u32, u32), payload: &[u8]) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(from.port().to_be_bytes());
    tcp.extend(to.port().to_be_bytes());
    tcp.extend(numbers.0.to_be_bytes());
    tcp.extend(numbers.1.to_be_bytes());
    tcp.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    tcp.extend(payload);
    ip(from.ip(), to.ip(), 6, &tcp)
}

/// A datagram.
pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut udp = Vec::new();
    udp.extend(from.port().to_be_bytes());
    udp.extend(to.port().to_be_bytes());
    udp.extend((8 + payload.len() as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    ip(from.ip(), to.ip(), 17, &udp)
}

/// An IP packet without options.
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            packet.extend([0x45, 0]);
            packet.extend((20 + payload.len() as u16).to_be_bytes());
            packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        _ => panic!("addresses of two versions"),
    }
    packet.extend(payload);
    packet
}

/// EtherType of an IP packet.
fn ether_type(packet: &[u8]) -> [u8; 2] {
    if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] }
}

/// In Ethernet, padded to its least length.
pub fn ethernet(packet: &[u8]) -> Frame {
    let mut frame = [&[0; 12][..], &ether_type(packet), packet].concat();
    frame.resize(frame.len().max(60), 0);
    (1, frame)
}

/// In Ethernet with two VLAN tags.
pub fn vlans(packet: &[u8]) -> Frame {
    (1, [&[0; 12][..], &[0x88, 0xa8, 0, 7], &[0x81, 0, 0, 9], &ether_type(packet), packet].concat())
}

/// In Linux cooked captures.
pub fn cooked(packet: &[u8]) -> Frame {
    (113, [&[0; 14][..], &ether_type(packet), packet].concat())
}

/// In Linux cooked captures, version 2.
pub fn cooked2(packet: &[u8]) -> Frame {
    (276, [&ether_type(packet)[..], &[0; 18], packet].concat())
}

/// In BSD's loopback.
pub fn loopback(packet: &[u8]) -> Frame {
    (0, [&[30, 0, 0, 0], packet].concat())
}

/// As it is.
pub fn raw(packet: &[u8]) -> Frame {
    (101, packet.to_vec())
}

/// A pcap file of packets with their times in nanoseconds; all frames have the first one's link type. `big`: in the other
/// byte order, with times in microseconds.
pub fn pcap(frames: &[(u64, Frame)], big: bool) -> Vec<u8> {
    let number = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
    let link = frames.first().map_or(1, |(_, frame)| frame.0);
    let mut file = Vec::new();
    file.extend(number(if big { 0xa1b2_c3d4 } else { 0xa1b2_3c4d }));
    file.extend(if big { [0, 2, 0, 4] } else { [2, 0, 4, 0] });
    for n in [0, 0, 262_144, u32::from(link)] {
        file.extend(number(n));
    }
    for (time, (_, bytes)) in frames {
        let fraction = (time % 1_000_000_000) as u32 / if big { 1000 } else { 1 };
        for n in [(time / 1_000_000_000) as u32, fraction, bytes.len() as u32, bytes.len() as u32] {
            file.extend(number(n));
        }
        file.extend(bytes);
    }
    file
}

/// A pcapng block.
pub fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut padded = body.to_vec();
    padded.resize(body.len().next_multiple_of(4), 0);
    let length = (12 + padded.len() as u32).to_le_bytes();
    [&kind.to_le_bytes()[..], &length, &padded, &length].concat()
}

/// A pcapng file: an interface for each packet, in turns with microseconds, nanoseconds, and 2^-20 s.
pub fn pcapng(frames: &[(u64, Frame)]) -> Vec<u8> {
    let mut file = block(0x0a0d_0d0a, &[&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat());
    for (i, (_, (link, _))) in frames.iter().enumerate() {
        let mut body = [&link.to_le_bytes()[..], &[0, 0], &[0; 4]].concat();
        match i % 3 {
            0 => {}
            1 => body.extend([9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0]),
            _ => body.extend([9, 0, 1, 0, 0x80 | 20, 0, 0, 0, 0, 0, 0, 0]),
        }
        file.extend(block(1, &body));
    }
    for (i, (time, (_, bytes))) in frames.iter().enumerate() {
        let units = match i % 3 {
            0 => time / 1000,
            1 => *time,
            _ => (u128::from(*time) * (1 << 20)).div_ceil(1_000_000_000) as u64,
        };
        let mut body = Vec::new();
        for n in [i as u32, (units >> 32) as u32, units as u32, bytes.len() as u32, bytes.len() as u32] {
            body.extend(n.to_le_bytes());
        }
        body.extend(bytes);
        file.extend(block(6, &body));
        // A list of names, empty: by its definition no packet.
        file.extend(block(4, &[0; 4]));
    }
    file
}
