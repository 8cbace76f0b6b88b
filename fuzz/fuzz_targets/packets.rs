//! Any bytes as a packet, through the parser that the kernel side is built of and through a capture's: no panic, and both
//! say the same.

#![no_main]

use flowtel::capture::{
    KernelTime,
    pcap::{Content, Decapsulate, Link, Packet, decode},
};
use flowtel_common::packet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [kind, bytes @ ..] = data else { return };
    let flags = packet::tcp_flags(&bytes);
    let tcp = packet::tcp(&bytes);
    assert!(tcp.is_none_or(|tcp| flags == Some(tcp.flags)));
    if let Some(transport) = packet::transport(&bytes) {
        assert!(transport.at >= 20 && transport.at <= 600);
    }
    let link = |link| {
        let packet = Packet { time: KernelTime(0), link, bytes, whole: u32::from(*kind) * 997 };
        decode(&packet, Decapsulate::Outer)
    };
    if let Content::Segment(segment) = link(Link::RAW) {
        // A fragment's header of IPv6, authentication and rarer headers hide the segment from the kernel side's parser only.
        if let Some(tcp) = tcp {
            assert_eq!((segment.source.ip(), segment.source.port()), (tcp.source, tcp.source_port));
            assert_eq!((segment.destination.ip(), segment.destination.port()), (tcp.destination, tcp.destination_port));
            assert_eq!(segment.flags, tcp.flags);
        }
    }
    for number in [0, 1, 12, 108, 113, 276, u16::from(*kind)] {
        if let Content::Datagram(datagram) = link(Link::from_number(number)) {
            assert!(datagram.payload.len() <= bytes.len());
        }
    }
});
