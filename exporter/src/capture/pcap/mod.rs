//! Capture files in, [`Packet`]s out: pcap and pcapng, packed or not, from a file or a pipe.
//!
//! - `unpack`: gzip, zstd, lz4, xz;
//! - `blocks`: a packet with its time and link type, of each format's blocks;
//! - [`undecoded`]: what could not be looked into, counted;
//! - [`link`], [`layers`]: from a frame's first header to its IP packet, through whatever carries it;
//! - [`mod@decode`]: what an IP packet holds that matters here: a TCP segment, or a name server's datagram.
//!
//! Must never hold more than one block in memory, or go on behind damage: sizes are all that tells where a block ends.

mod blocks;
pub mod decode;
pub mod layers;
pub mod link;
#[cfg(test)]
pub mod sample;
#[cfg(test)]
mod tests;
pub mod undecoded;
mod unpack;

use std::{
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
};

pub use decode::{Content, Datagram, Segment, decode, decode_with_payload};
pub use layers::{Decapsulate, Tunnel};
pub use link::Link;
use pcap_parser::{PcapError, traits::PcapReaderIterator};
pub use undecoded::Undecoded;

use self::blocks::Section;
use super::KernelTime;

/// Bytes that are read at once.
const BUFFER: usize = 256 << 10;
/// The largest block that is read. Packets are at most 256 KiB (libpcap's MAXIMUM_SNAPLEN); lists of names or keys in
/// pcapng may be larger.
const MOST_BLOCK: usize = 16 << 20;
/// Type of pcapng's section header block, the same in either byte order.
const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Length of a pcap file's header.
const PCAP_HEADER: usize = 24;

/// A captured packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// When it was captured, nanoseconds since the Unix epoch. A capture has one clock: it stands for the kernel's and
    /// for the wall's. 0 where the capture doesn't say (pcapng's simple packets).
    pub time: KernelTime,
    /// How its bytes begin.
    pub link: Link,
    /// What was captured of it.
    pub bytes: &'a [u8],
    /// How long it was on the wire.
    pub whole: u32,
}

/// Why a capture can't be read, or not further. Offsets are bytes of the capture, unpacked where it was packed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes can't be had.
    #[error("reading failed at byte {at}: {source}")]
    Read {
        /// Where.
        at: usize,
        /// Why.
        source: io::Error,
    },
    /// No capture at all.
    #[error(
        "this is neither pcap nor pcapng (as tcpdump -w and Wireshark write them; gzip, zstd, lz4 or xz may have packed it)"
    )]
    Unknown,
    /// It ends within a block.
    #[error("the capture is cut off: the block at byte {at} is not whole")]
    Cut {
        /// Where the block begins.
        at: usize,
    },
    /// A block says what can't be.
    #[error("the capture is damaged at byte {at}: {what}")]
    Damaged {
        /// Where the block begins.
        at: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A capture being read.
pub struct Reader {
    blocks: Box<dyn PcapReaderIterator + Send>,
    trouble: Trouble,
    section: Section,
    undecoded: Undecoded,
    /// Bytes that the buffer has room for.
    room: usize,
}

/// Why reading failed: pcap-parser says only that it did.
type Trouble = Arc<Mutex<Option<io::Error>>>;

/// A source whose errors are kept.
struct Watched<R> {
    source: R,
    trouble: Trouble,
}

// === impl Reader

impl Reader {
    /// Begins to read, up to the end of the capture's first header.
    ///
    /// # Errors
    /// The bytes can't be had, or are no capture.
    pub fn new(source: impl Read + Send + 'static) -> Result<Self, Error> {
        let fails = |source| Error::Read { at: 0, source };
        let mut source = unpack::unpack(source, BUFFER).map_err(fails)?;
        // A pipe may give a few bytes at a time, and the parser wants its first header whole.
        let head = head(&mut source).map_err(fails)?;
        if head.is_empty() {
            return Err(Error::Unknown);
        }
        let trouble = Trouble::default();
        let source = Watched { source: io::Cursor::new(head).chain(source), trouble: Arc::clone(&trouble) };
        match pcap_parser::create_reader(BUFFER, source) {
            Ok(blocks) => {
                let (section, undecoded) = (Section::default(), Undecoded::default());
                Ok(Self { blocks, trouble, section, undecoded, room: BUFFER })
            }
            Err(PcapError::Incomplete(_) | PcapError::Eof | PcapError::UnexpectedEof) => Err(Error::Cut { at: 0 }),
            Err(_) => Err(Error::Unknown),
        }
    }

    /// Reads one block; `on` gets the packet in it, if it is one. Returns whether there may be more.
    ///
    /// # Errors
    /// The capture is damaged, cut off, or can't be read any further.
    pub fn next(&mut self, on: impl FnOnce(&Packet<'_>)) -> Result<bool, Error> {
        let at = self.blocks.consumed();
        let (length, taken) = match self.blocks.next() {
            Ok((length, block)) => (length, self.section.take(&block, &mut self.undecoded, on)),
            Err(problem) => {
                let full = match problem {
                    PcapError::Eof => return Ok(false),
                    PcapError::Incomplete(_) => false,
                    PcapError::BufferTooSmall => true,
                    PcapError::UnexpectedEof => {
                        // The parser's own reckoning of the end depends on where in its buffer it lies.
                        return if self.blocks.data().is_empty() { Ok(false) } else { Err(Error::Cut { at }) };
                    }
                    _ => return Err(Error::Damaged { at, what: "it is no block of this format" }),
                };
                return self.more(at, full);
            }
        };
        taken.map_err(|what| Error::Damaged { at, what })?;
        self.blocks.consume(length);
        Ok(true)
    }

    /// Reads on, where a block is not whole yet. `full`: there is no room for it.
    fn more(&mut self, at: usize, full: bool) -> Result<bool, Error> {
        if full {
            self.grow(at)?;
        }
        let before = self.blocks.data().len();
        let trouble = &self.trouble;
        self.blocks.refill().map_err(|_| {
            let source = trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
            Error::Read { at, source: source.unwrap_or_else(|| io::ErrorKind::Other.into()) }
        })?;
        if self.blocks.data().len() == before && !self.blocks.reader_exhausted() {
            self.grow(at)?;
        }
        Ok(true)
    }

    fn grow(&mut self, at: usize) -> Result<(), Error> {
        if self.room >= MOST_BLOCK {
            return Err(Error::Damaged { at, what: "the block says that it is larger than 16 MiB" });
        }
        self.room = (self.room * 2).min(MOST_BLOCK);
        self.blocks.grow(self.room);
        Ok(())
    }

    /// Bytes read so far: of the capture, unpacked where it was packed.
    pub fn consumed(&self) -> usize {
        self.blocks.consumed()
    }

    /// What could not be looked into so far.
    pub fn undecoded(&self) -> &Undecoded {
        &self.undecoded
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("consumed", &self.consumed()).finish_non_exhaustive()
    }
}

/// The first header, as far as it is there, and maybe nothing behind it.
fn head(source: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(PCAP_HEADER);
    source.by_ref().take(PCAP_HEADER as u64).read_to_end(&mut head)?;
    if let (true, Some(length), Some(order)) =
        (head.starts_with(&SECTION), head.get(4..8).and_then(|b| b.first_chunk()), head.get(8))
    {
        // pcapng's byte order magic is 0x1a2b3c4d.
        let length = if *order == 0x4d { u32::from_le_bytes(*length) } else { u32::from_be_bytes(*length) };
        let rest = (length as usize).min(BUFFER / 2).saturating_sub(head.len());
        source.by_ref().take(rest as u64).read_to_end(&mut head)?;
    }
    Ok(head)
}

// === impl Watched

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.source.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                    return Err(io::ErrorKind::Other.into());
                }
                done => return done,
            }
        }
    }
}
