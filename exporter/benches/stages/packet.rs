//! The packet parser that the kernel runs, on the host.

use std::hint::black_box;

use criterion::Criterion;
use flowtel_common::packet::{self, TCP};

/// Flags of the packets: SYN and ACK.
const FLAGS: u8 = 0x12;

fn tcp() -> [u8; 20] {
    let mut header = [0; 20];
    (header[12], header[13]) = (5 << 4, FLAGS);
    header
}

fn ipv4() -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, TCP, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
    packet.extend(tcp());
    packet
}

/// With `extensions` headers of destination options before the TCP header.
fn ipv6(extensions: usize) -> Vec<u8> {
    let next = |left: usize| if left == 0 { TCP } else { 60 };
    let mut packet = vec![0; 40];
    (packet[0], packet[6]) = (0x60, next(extensions));
    for left in (0..extensions).rev() {
        packet.extend([next(left), 0, 1, 4, 0, 0, 0, 0]);
    }
    packet.extend(tcp());
    packet
}

pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("packet");
    for (name, bytes) in [("ipv4", ipv4()), ("ipv6", ipv6(0)), ("ipv6, 4 extension headers", ipv6(4))] {
        let packet = bytes.as_slice();
        assert_eq!(packet::tcp_flags(&packet).map(|flags| flags.0), Some(FLAGS));
        group.bench_function(name, |b| b.iter(|| packet::tcp_flags(&black_box(packet))));
    }
    group.finish();
}
