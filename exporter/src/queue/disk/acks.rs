//! The form of an acknowledgement file, which stands beside a segment: sequences of batches that are settled go in, and
//! come out again.
//!
//! Sixteen bytes each: the sequence, `FTA1`, and the CRC32C of these twelve bytes. The first sixteen bytes hold `FTAH`
//! instead and acknowledge nothing: they make the file system set room aside, so that a full disk can still take
//! acknowledgements.
//!
//! Must never acknowledge what was not: whatever is not whole and sound counts as not written, and its batch goes out
//! once more.

use super::segment::MAX_SEQUENCE;

/// Bytes of an acknowledgement.
pub const ACK: usize = 16;

/// The first bytes of the file.
pub fn header(first: u64) -> [u8; ACK] {
    encode(first, b"FTAH")
}

/// An acknowledgement.
pub fn ack(sequence: u64) -> [u8; ACK] {
    encode(sequence, b"FTA1")
}

/// All sequences that a file acknowledges.
pub fn decode(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<ACK>().0.iter().filter_map(|chunk| {
        let sequence = chunk.first_chunk().copied().map(u64::from_le_bytes)?;
        (sequence <= MAX_SEQUENCE && ack(sequence) == *chunk).then_some(sequence)
    })
}

fn encode(sequence: u64, magic: &[u8; 4]) -> [u8; ACK] {
    let mut bytes = [0; ACK];
    bytes[..8].copy_from_slice(&sequence.to_le_bytes());
    bytes[8..12].copy_from_slice(magic);
    let crc = crc32c::crc32c(&bytes[..12]);
    bytes[12..].copy_from_slice(&crc.to_le_bytes());
    bytes
}
