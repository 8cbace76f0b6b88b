//! A packed stream in, its bytes out: gzip, zstd, lz4 and xz, known by their first bytes; anything else as it is.
//!
//! Unpacks as it is read, so a stream that grows a thousandfold takes time and no memory. Must never hold more than its
//! window, and windows are bounded: 32 KiB of gzip, 128 MiB of zstd (what its own tool takes without asking), 8 MiB of lz4,
//! 256 MiB of xz.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use liblzma::{bufread::XzDecoder, stream};
use lz4_flex::frame::FrameDecoder;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const LZ4: [[u8; 4]; 2] = [[0x04, 0x22, 0x4d, 0x18], [0x02, 0x21, 0x4c, 0x18]];
const XZ: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
/// The largest window of zstd: 2^27 bytes.
const MOST_ZSTD: u32 = 27;
/// The most memory that xz gets. `xz -9` needs 65 MiB.
const MOST_XZ: u64 = 256 << 20;

/// What the stream holds. `buffer`: how much is read at once.
pub fn unpack(mut source: impl Read + Send + 'static, buffer: usize) -> io::Result<Box<dyn Read + Send>> {
    // A pipe may give a few bytes at a time.
    let mut head = Vec::with_capacity(XZ.len());
    source.by_ref().take(XZ.len() as u64).read_to_end(&mut head)?;
    let kind = Kind::of(&head);
    let source = BufReader::with_capacity(buffer, io::Cursor::new(head).chain(source));
    let unpacked: Box<dyn Read + Send> = match kind {
        Kind::Plain => return Ok(Box::new(source)),
        Kind::Gzip => Box::new(MultiGzDecoder::new(source)),
        Kind::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(source)?;
            decoder.window_log_max(MOST_ZSTD)?;
            Box::new(decoder)
        }
        Kind::Lz4 => Box::new(Frames(FrameDecoder::new(source))),
        Kind::Xz => {
            let decoder = stream::Stream::new_stream_decoder(MOST_XZ, stream::CONCATENATED)?;
            Box::new(XzDecoder::new_stream(source, decoder))
        }
    };
    Ok(Box::new(BufReader::with_capacity(buffer, unpacked)))
}

/// How a stream is packed.
enum Kind {
    Plain,
    Gzip,
    Zstd,
    Lz4,
    Xz,
}

// === impl Kind

impl Kind {
    fn of(head: &[u8]) -> Self {
        if head.starts_with(&GZIP) {
            Self::Gzip
        } else if head.starts_with(&ZSTD) {
            Self::Zstd
        } else if LZ4.iter().any(|magic| head.starts_with(magic)) {
            Self::Lz4
        } else if head.starts_with(&XZ) {
            Self::Xz
        } else {
            Self::Plain
        }
    }
}

/// Frames of lz4, one behind the other: the decoder stops at the end of each.
struct Frames<R: Read>(FrameDecoder<R>);

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.0.read(buffer)?;
            // Each turn takes a frame's head, so this ends.
            if count > 0 || buffer.is_empty() || self.0.get_mut().fill_buf()?.is_empty() {
                return Ok(count);
            }
        }
    }
}
