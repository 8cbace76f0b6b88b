//! Bytes of a request in, the same compressed out; bytes of an answer in, the same unpacked out, within bounds. Names are
//! those of HTTP's content codings, which gRPC uses too.

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::{Compression as Level, read::MultiGzDecoder, write::GzEncoder};

use crate::config::Compression;

/// The fastest, as with gzip: CPU is dearer here than bytes.
const ZSTD_LEVEL: i32 = 1;

/// Receivers need 8 MiB at most (RFC 8878, 3.1.1.1.2).
const MAX_WINDOW_LOG: u32 = 23;

/// The name of a compression; `None`: there is none.
pub(super) const fn name(compression: Compression) -> Option<&'static str> {
    match compression {
        Compression::None => None,
        Compression::Gzip => Some("gzip"),
        Compression::Zstd => Some("zstd"),
    }
}

/// As it is sent.
pub(super) fn pack(compression: Compression, bytes: Bytes) -> io::Result<Bytes> {
    Ok(match compression {
        Compression::None => bytes,
        Compression::Gzip => {
            // Records repeat each other so much that the fastest level already takes most of it.
            let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Level::fast());
            encoder.write_all(&bytes)?;
            encoder.finish()?.into()
        }
        Compression::Zstd => zstd::bulk::compress(&bytes, ZSTD_LEVEL)?.into(),
    })
}

/// What `bytes` are by a coding of this name, at most `most` of it; `None` where it is more, or no such coding.
pub(super) fn unpack(name: &str, bytes: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut reader: Box<dyn Read + '_> = match name {
        "identity" => Box::new(bytes),
        "gzip" => Box::new(MultiGzDecoder::new(bytes)),
        "zstd" => {
            let mut decoder = zstd::Decoder::new(bytes).ok()?;
            // It would take as much memory as the sender asks for.
            decoder.window_log_max(MAX_WINDOW_LOG).ok()?;
            Box::new(decoder)
        }
        _ => return None,
    };
    let mut plain = Vec::new();
    reader.by_ref().take(most as u64 + 1).read_to_end(&mut plain).ok()?;
    (plain.len() <= most).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_and_a_bomb_is_not() {
        let bytes = Bytes::from(vec![7; 100_000]);
        for compression in [Compression::Gzip, Compression::Zstd] {
            let name = name(compression).expect("it has one");
            let packed = pack(compression, bytes.clone()).expect("memory");
            assert!(packed.len() < 2000);
            assert_eq!(unpack(name, &packed, 100_000).as_deref(), Some(&bytes[..]));
            assert_eq!(unpack(name, &packed, 99_999), None);
            assert_eq!(unpack(name, b"garbage", 100), None);
        }
        assert_eq!(unpack("identity", b"abc", 3).as_deref(), Some(&b"abc"[..]));
        assert_eq!(unpack("br", b"abc", 3), None);
    }
}
