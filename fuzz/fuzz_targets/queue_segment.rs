//! Any bytes as a segment of the queue and as its acknowledgements: no panic, no allocation beyond the input, and every
//! batch that is found has a right checksum.
//!
//! The first byte says where the input is cut into segment and acknowledgements; with its last bit set, each checksum that
//! is wrong in a header is mended first, so that what stands behind it is reached.

#![no_main]

use flowtel::queue::disk::{
    acks,
    segment::{ENTRY, Entry, HEADER, Head, Scan, Stretch, head, read},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [how, rest @ ..] = data else { return };
    let cut = rest.len() * usize::from(how >> 1) / 127;
    let (segment, acknowledged) = rest.split_at(cut);
    assert!(acks::decode(acknowledged).count() <= acknowledged.len() / acks::ACK);

    let mut bytes = segment.to_vec();
    if how & 1 == 1 {
        mend(&mut bytes);
    }
    let first = match bytes.first_chunk::<HEADER>().map(head) {
        Some(Head::Sound(first)) => first,
        _ => 0,
    };
    let end = bytes.len() as u64;
    let (mut behind, mut sequence) = (HEADER as u64, None);
    for stretch in Scan::new(&bytes[..], end, first) {
        match stretch.expect("bytes can be read") {
            Stretch::Batch { entry, at } => {
                assert!(at >= behind && at + entry.size() <= end);
                assert!(sequence.is_none_or(|before| before < entry.sequence));
                (behind, sequence) = (at + entry.size(), Some(entry.sequence));
                if let Ok(batch) = read(&bytes[..], at, entry.sequence, entry.length) {
                    assert_eq!(Entry::of(&batch, entry.sequence), Some(entry));
                }
            }
            Stretch::Damaged { at, batches, .. } => {
                assert!(at >= behind && batches <= end / ENTRY as u64);
            }
            Stretch::Torn { at, .. } => {
                assert!(at >= behind && at < end);
                behind = end;
            }
        }
    }
});

/// Makes the checksums of the first headers right.
fn mend(bytes: &mut [u8]) {
    let seal = |bytes: &mut [u8], from: usize, size: usize| {
        if let Some(header) = bytes.get_mut(from..from + size) {
            let crc = crc32c::crc32c(&header[..size - 4]).to_le_bytes();
            header[size - 4..].copy_from_slice(&crc);
        }
    };
    seal(bytes, 0, HEADER);
    let mut at = HEADER;
    for _ in 0..16 {
        let Some(length) = bytes.get(at + 4..at + 8).and_then(|l| l.first_chunk::<4>().copied()) else { return };
        if let Some(magic) = bytes.get_mut(at..at + 4) {
            magic.copy_from_slice(b"FTB1");
        }
        seal(bytes, at, ENTRY);
        at = at.saturating_add(ENTRY).saturating_add(u32::from_le_bytes(length) as usize);
    }
}
