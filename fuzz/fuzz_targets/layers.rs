//! Any bytes as a frame of any link type: no panic, an end, and the two ways to read a tunnel agree: what is found without
//! looking into tunnels is found by looking into them, too, and what a tunnel carried is not found without.

#![no_main]

use flowtel::capture::{
    KernelTime,
    pcap::{Content, Decapsulate, Link, Packet, decode},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [a, b, bytes @ ..] = data else { return };
    let link = Link::from_number(u16::from_be_bytes([*a, *b]));
    let packet = Packet { time: KernelTime(0), link, bytes, whole: bytes.len() as u32 };
    let inner = decode(&packet, Decapsulate::Inner);
    let outer = decode(&packet, Decapsulate::Outer);
    match (inner, outer) {
        (Content::Segment(inner), Content::Segment(outer)) => {
            assert_eq!(inner, outer);
            assert_eq!(inner.tunnel, None);
        }
        (Content::Segment(inner), Content::Other) => assert!(inner.tunnel.is_some()),
        (Content::Segment(_), outer) => panic!("inner only, though {outer:?}"),
        (inner, Content::Segment(outer)) => panic!("outer only: {outer:?}, {inner:?}"),
        (Content::Datagram(inner), Content::Datagram(outer)) => assert_eq!(inner, outer),
        _ => {}
    }
});
