//! Pieces in, compressed pieces out. Each is a member (gzip) or a frame (zstd) of its own: one after the other they are a
//! stream that `zcat` and `zstdcat` read, whole up to the last batch even where flowtel was killed.

use std::io::{self, Write as _};

use flate2::{Compression as Level, write::GzEncoder};

use crate::config::Compression;

/// zstd's own default.
const ZSTD: i32 = 3;

/// A compressor.
pub(super) enum Pack {
    Gzip,
    Zstd(zstd::bulk::Compressor<'static>),
}

// === impl Pack

impl Pack {
    /// The compressor of this setting; `None` where there is none.
    pub(super) fn of(compression: Compression) -> io::Result<Option<Self>> {
        Ok(match compression {
            Compression::None => None,
            Compression::Gzip => Some(Self::Gzip),
            Compression::Zstd => Some(Self::Zstd(zstd::bulk::Compressor::new(ZSTD)?)),
        })
    }

    /// Puts the compressed piece in the place of the plain one.
    pub(super) fn pack(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        *piece = match self {
            Self::Gzip => {
                let mut gzip = GzEncoder::new(Vec::with_capacity(piece.len() / 8), Level::fast());
                gzip.write_all(piece)?;
                gzip.finish()?
            }
            Self::Zstd(zstd) => zstd.compress(piece)?,
        };
        Ok(())
    }
}
