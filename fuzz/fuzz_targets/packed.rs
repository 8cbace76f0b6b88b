//! Any bytes as a packed stream of one of the four kinds: no panic, and no endless loop: what is unpacked is read in steps, and
//! given up after some.

#![no_main]

use std::io::Cursor;

use flowtel::capture::pcap::{Decapsulate, Reader, decode};
use libfuzzer_sys::fuzz_target;

const MAGIC: [&[u8]; 5] =
    [&[0x1f, 0x8b, 8], &[0x28, 0xb5, 0x2f, 0xfd], &[0x04, 0x22, 0x4d, 0x18], &[0x02, 0x21, 0x4c, 0x18], b"\xfd7zXZ\0"];

fuzz_target!(|data: &[u8]| {
    let [kind, bytes @ ..] = data else { return };
    let head = MAGIC.get(usize::from(*kind)).copied().unwrap_or_default();
    let Ok(mut reader) = Reader::new(Cursor::new([head, bytes].concat())) else { return };
    let mut steps = 0;
    while let Ok(true) = reader.next(|packet| {
        decode(packet, Decapsulate::Inner);
    }) {
        steps += 1;
        if steps > 50_000 {
            return;
        }
    }
});
