//! Capture files in, [`Packet`]s out: pcap and pcapng, gzip'd or not, from a file or a pipe.
//!
//! - [`link`]: where in a frame its IP packet is, by link type;
//! - [`mod@decode`]: what an IP packet holds that matters here: a TCP segment, or a name server's datagram.
//!
//! Must never hold more than one block in memory, or go on behind damage: sizes are all that tells where a block ends.

pub mod decode;
pub mod link;
#[cfg(test)]
pub mod sample;
#[cfg(test)]
mod tests;

use std::{
    io::{self, BufRead as _, BufReader, Read},
    sync::{Arc, Mutex, PoisonError},
};

pub use decode::{Content, Datagram, Segment, decode};
use flate2::bufread::MultiGzDecoder;
pub use link::Link;
use pcap_parser::{Block, PcapBlockOwned, PcapError, traits::PcapReaderIterator};

use super::KernelTime;

/// Bytes that are read at once.
const BUFFER: usize = 256 << 10;
/// The largest block that is read. Packets are at most 256 KiB (libpcap's MAXIMUM_SNAPLEN); lists of names or keys in
/// pcapng may be larger.
const MOST_BLOCK: usize = 16 << 20;
/// The most interfaces of one section of pcapng.
const MOST_INTERFACES: usize = 4096;
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Type of pcapng's section header block, the same in either byte order.
const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Length of a pcap file's header.
const PCAP_HEADER: usize = 24;

/// A captured packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// When it was captured, nanoseconds since the Unix epoch. A capture has one clock: it stands for the kernel's and
    /// for the wall's.
    pub time: KernelTime,
    /// How its bytes begin.
    pub link: Link,
    /// What was captured of it.
    pub bytes: &'a [u8],
    /// How long it was on the wire.
    pub whole: u32,
}

/// Why a capture can't be read, or not further. Offsets are bytes of the capture, unpacked where it was gzip'd.
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
    #[error("this is neither pcap nor pcapng (as tcpdump -w and Wireshark write them, gzip'd or not)")]
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
    /// Of pcapng: those of the section. Of pcap: one.
    interfaces: Vec<Interface>,
    /// Bytes that the buffer has room for.
    room: usize,
}

/// Where packets were captured.
#[derive(Debug, Clone, Copy)]
struct Interface {
    link: Link,
    resolution: Resolution,
    /// Seconds to be added.
    offset: i64,
}

/// What one unit of a timestamp is.
#[derive(Debug, Clone, Copy)]
enum Resolution {
    /// 10^-n s.
    Decimal(u32),
    /// 2^-n s.
    Binary(u32),
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
        let mut source = BufReader::with_capacity(BUFFER, source);
        if source.fill_buf().map_err(fails)?.starts_with(&GZIP) {
            return Self::plain(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(source)));
        }
        Self::plain(source)
    }

    fn plain(mut source: impl Read + Send + 'static) -> Result<Self, Error> {
        // A pipe may give a few bytes at a time, and the parser wants its first header whole.
        let head = head(&mut source).map_err(|source| Error::Read { at: 0, source })?;
        if head.is_empty() {
            return Err(Error::Unknown);
        }
        let trouble = Trouble::default();
        let source = Watched { source: io::Cursor::new(head).chain(source), trouble: Arc::clone(&trouble) };
        match pcap_parser::create_reader(BUFFER, source) {
            Ok(blocks) => Ok(Self { blocks, trouble, interfaces: Vec::new(), room: BUFFER }),
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
            Ok((length, block)) => (length, take(&block, &mut self.interfaces, on)),
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

    /// Bytes read so far: of the capture, unpacked where it was gzip'd.
    pub fn consumed(&self) -> usize {
        self.blocks.consumed()
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

/// Takes one block in.
fn take(
    block: &PcapBlockOwned<'_>,
    interfaces: &mut Vec<Interface>,
    on: impl FnOnce(&Packet<'_>),
) -> Result<(), &'static str> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let digits = if header.is_nanosecond_precision() { 9 } else { 6 };
            // The upper bits tell of frame check sequences.
            let link = Link::from_number((header.network.0 & 0xffff) as u16);
            interfaces.push(Interface { link, resolution: Resolution::Decimal(digits), offset: 0 });
        }
        PcapBlockOwned::Legacy(frame) => {
            let interface = interfaces.first().ok_or("a packet before the header")?;
            let Resolution::Decimal(digits) = interface.resolution else { return Ok(()) };
            let fraction = u64::from(frame.ts_usec) * 10u64.pow(9 - digits.min(9));
            let time = KernelTime(u64::from(frame.ts_sec) * 1_000_000_000 + fraction);
            on(&Packet { time, link: interface.link, bytes: frame.data, whole: frame.origlen });
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => interfaces.clear(),
        PcapBlockOwned::NG(Block::InterfaceDescription(description)) => {
            if interfaces.len() == MOST_INTERFACES {
                return Err("more than 4,096 interfaces");
            }
            interfaces.push(Interface {
                link: Link::from_number((description.linktype.0 & 0xffff) as u16),
                resolution: Resolution::from_number(description.if_tsresol),
                offset: description.if_tsoffset,
            });
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let interface =
                interfaces.get(packet.if_id as usize).ok_or("a packet of an interface that is not there")?;
            let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
            let bytes = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
            on(&Packet { time: interface.time(units), link: interface.link, bytes, whole: packet.origlen });
        }
        // A simple packet has no time, and what has no time makes no record; the rest is about packets, none itself.
        PcapBlockOwned::NG(_) => {}
    }
    Ok(())
}

// === impl Interface

impl Interface {
    /// A timestamp in nanoseconds since the Unix epoch; what lies before 1970 or behind 2554 is brought to these ends.
    fn time(&self, units: u64) -> KernelTime {
        let units = u128::from(units);
        let nanoseconds = match self.resolution {
            Resolution::Decimal(n) if n <= 9 => units * 10u128.pow(9 - n),
            Resolution::Decimal(n) => units / 10u128.pow((n - 9).min(38)),
            Resolution::Binary(n) => (units * 1_000_000_000) >> n,
        };
        let nanoseconds = i128::try_from(nanoseconds).unwrap_or(i128::MAX);
        let shifted = nanoseconds.saturating_add(i128::from(self.offset) * 1_000_000_000);
        KernelTime(u64::try_from(shifted.max(0)).unwrap_or(u64::MAX))
    }
}

// === impl Resolution

impl Resolution {
    /// From pcapng's `if_tsresol`.
    fn from_number(number: u8) -> Self {
        let n = u32::from(number & 0x7f);
        if number & 0x80 == 0 { Self::Decimal(n) } else { Self::Binary(n) }
    }
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
