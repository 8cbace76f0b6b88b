//! The form of a segment file: a header, then batches one after the other. Batches go in, bytes come out; and back,
//! however damaged the bytes are.
//!
//! All numbers are little-endian. The header, 32 bytes:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 8 | `flowtelq` |
//! | 8 | 4 | version of the format: 1 |
//! | 12 | 4 | 0 |
//! | 16 | 8 | sequence of the first batch, which is also the file's name |
//! | 24 | 4 | 0 |
//! | 28 | 4 | CRC32C of the 28 bytes before |
//!
//! Each batch, 48 bytes and its payload:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 4 | `FTB1`: by it the next batch is found behind a damaged one |
//! | 4 | 4 | length of the payload |
//! | 8 | 8 | sequence: one more than the batch before |
//! | 16 | 4 | records |
//! | 20 | 4 | CRC32C of the payload |
//! | 24 | 8 | earliest record's time, nanoseconds since the Unix epoch |
//! | 32 | 8 | latest record's time |
//! | 40 | 4 | 0 |
//! | 44 | 4 | CRC32C of the 44 bytes before: so that the records of a damaged payload can still be counted |
//! | 48 | | the batch's final bytes |
//!
//! A batch has at least one record and one byte; sequences are at most 2^62, and less than 2^24 above the file's name; a
//! payload has at most 128 MiB.
//!
//! Must never write what would not be read, trust a length or a count that no checksum covers, or take bytes of a payload for a batch: what is found
//! behind damage must also carry a sequence that fits there.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use crate::record::Batch;

/// The version that is written and read.
pub const VERSION: u32 = 1;
/// Bytes of a segment's header.
pub const HEADER: usize = 32;
/// Bytes of a batch's header.
pub const ENTRY: usize = 48;
/// Sequences end here: none that is honest comes near.
pub const MAX_SEQUENCE: u64 = 1 << 62;
/// What is as far up as this is read, but new sequences don't follow from it: else one damaged or forged number would bring
/// them to where they end.
pub const FAR_SEQUENCE: u64 = 1 << 61;
/// A segment holds fewer batches than this: so its name alone bounds the sequences in it.
pub const SPAN: u64 = 1 << 24;
/// The longest payload: twice what `export.batch.max_bytes` may be.
pub const MAX_PAYLOAD: u32 = 128 << 20;
/// How far the next batch is looked for behind damage: no segment grows larger by a second batch.
const SEARCH: u64 = 16 << 20;

const MAGIC: &[u8; 8] = b"flowtelq";
const ENTRY_MAGIC: &[u8; 4] = b"FTB1";
/// How much is looked through at once for the next batch.
const WINDOW: usize = 64 << 10;

/// A batch's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Place in the order of writing.
    pub sequence: u64,
    /// Log records in it.
    pub records: u32,
    /// The earliest record's time, nanoseconds since the Unix epoch.
    pub first: u64,
    /// The latest record's time, nanoseconds since the Unix epoch.
    pub last: u64,
    /// Bytes of the payload.
    pub length: u32,
    /// CRC32C of the payload.
    pub crc: u32,
}

/// What a segment's first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// A segment of this version, and its first sequence.
    Sound(u64),
    /// A segment of a version that is not known here.
    Version(u32),
    /// Damaged, or no segment at all.
    Damaged,
}

/// A stretch of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stretch {
    /// A batch whose header is sound and whose payload is there; whether that is sound, [`read`] says.
    Batch {
        /// Its header.
        entry: Entry,
        /// Where that begins.
        at: u64,
    },
    /// Bytes that are no batch, with batches behind them.
    Damaged {
        /// Where they begin.
        at: u64,
        /// The sequence of the first batch that is missing.
        sequence: u64,
        /// How many batches are missing, by the sequences around.
        batches: u64,
    },
    /// The end of the file is missing or damaged. Nothing comes behind.
    Torn {
        /// Where it begins.
        at: u64,
        /// The sequence of the batch that was cut.
        sequence: u64,
        /// Its header, where that is sound.
        entry: Option<Entry>,
    },
}

/// Bytes that can be read at any place.
pub trait ReadAt {
    /// Fills `into` with the bytes from `at` on.
    ///
    /// # Errors
    /// As pread(2), or there are not so many bytes.
    fn fill(&self, into: &mut [u8], at: u64) -> io::Result<()>;

    /// From `at` on, where the next byte is that need not be 0; after the end where there is none.
    fn data(&self, at: u64) -> u64 {
        at
    }
}

/// Goes through a segment from its header on. Ends after an error.
#[derive(Debug)]
pub struct Scan<'a, R: ?Sized> {
    source: &'a R,
    at: u64,
    end: u64,
    /// The sequence that the next batch should have.
    expected: u64,
    /// No batch has this one, or a greater one.
    beyond: u64,
}

/// Where a scan has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    at: u64,
    expected: u64,
    beyond: u64,
}

/// The header of a segment that begins with this sequence.
pub fn header(first: u64) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    put(&mut bytes, 0, MAGIC);
    put(&mut bytes, 8, &VERSION.to_le_bytes());
    put(&mut bytes, 16, &first.to_le_bytes());
    seal(&mut bytes);
    bytes
}

/// What the first bytes of a file say.
pub fn head(bytes: &[u8; HEADER]) -> Head {
    if !bytes.starts_with(MAGIC) || !is_sealed(bytes) {
        return Head::Damaged;
    }
    match (number(bytes, 8), long(bytes, 16)) {
        (VERSION, first) if first <= MAX_SEQUENCE => Head::Sound(first),
        (VERSION, _) => Head::Damaged,
        (version, _) => Head::Version(version),
    }
}

/// Where a scan of the file with this name begins, and what it may find there.
pub fn start(name: u64, head: Head) -> Mark {
    let first = if let Head::Sound(first) = head { first } else { name };
    let beyond = name.saturating_add(SPAN);
    // A header that does not fit to the name says nothing.
    Mark { at: HEADER as u64, expected: if first < beyond { first } else { name }, beyond }
}

/// The batch that a scan found at `at`, with this sequence and length of payload.
///
/// # Errors
/// As pread(2); [`io::ErrorKind::InvalidData`] where a checksum is wrong or the header is another's.
pub fn read(source: &(impl ReadAt + ?Sized), at: u64, sequence: u64, length: u32) -> io::Result<Batch> {
    let mut head = [0; ENTRY];
    source.fill(&mut head, at)?;
    let entry = Entry::decode(&head).ok_or(io::ErrorKind::InvalidData)?;
    if entry.sequence != sequence || entry.length != length || entry.is_empty() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut payload = vec![0; entry.length as usize];
    source.fill(&mut payload, at + ENTRY as u64)?;
    if crc32c::crc32c(&payload) != entry.crc {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Batch { bytes: payload.into(), records: entry.records, first: entry.first, last: entry.last })
}

// === impl Entry

impl Entry {
    /// The header of a batch; `None` where it would not be read again: it is too large, is none, or comes too late.
    pub fn of(batch: &Batch, sequence: u64) -> Option<Self> {
        let entry = Self {
            sequence,
            records: batch.records,
            first: batch.first,
            last: batch.last,
            length: u32::try_from(batch.bytes.len()).ok()?,
            crc: crc32c::crc32c(&batch.bytes),
        };
        entry.is_possible().then_some(entry)
    }

    /// As bytes.
    pub fn encode(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        put(&mut bytes, 0, ENTRY_MAGIC);
        put(&mut bytes, 4, &self.length.to_le_bytes());
        put(&mut bytes, 8, &self.sequence.to_le_bytes());
        put(&mut bytes, 16, &self.records.to_le_bytes());
        put(&mut bytes, 20, &self.crc.to_le_bytes());
        put(&mut bytes, 24, &self.first.to_le_bytes());
        put(&mut bytes, 32, &self.last.to_le_bytes());
        seal(&mut bytes);
        bytes
    }

    /// From bytes; `None` where they are no sound header.
    pub fn decode(bytes: &[u8; ENTRY]) -> Option<Self> {
        if !bytes.starts_with(ENTRY_MAGIC) || !is_sealed(bytes) {
            return None;
        }
        let entry = Self {
            length: number(bytes, 4),
            sequence: long(bytes, 8),
            records: number(bytes, 16),
            crc: number(bytes, 20),
            first: long(bytes, 24),
            last: long(bytes, 32),
        };
        (entry.sequence <= MAX_SEQUENCE && entry.length <= MAX_PAYLOAD).then_some(entry)
    }

    /// Whether a batch can be like this.
    fn is_possible(&self) -> bool {
        self.sequence <= MAX_SEQUENCE && (1..=MAX_PAYLOAD).contains(&self.length) && self.records > 0
    }

    /// It holds nothing: no flowtel wrote it.
    pub fn is_empty(&self) -> bool {
        self.length == 0 || self.records == 0
    }

    /// Bytes in the file, the header included.
    pub fn size(&self) -> u64 {
        ENTRY as u64 + u64::from(self.length)
    }
}

// === impl Scan

impl<'a, R: ReadAt + ?Sized> Scan<'a, R> {
    /// Of a file of `end` bytes whose first batch should have the sequence `first`.
    pub fn new(source: &'a R, end: u64, first: u64) -> Self {
        Self::from(source, end, start(first, Head::Sound(first)))
    }

    /// Goes on from there.
    pub fn from(source: &'a R, end: u64, Mark { at, expected, beyond }: Mark) -> Self {
        Self { source, at, end, expected, beyond }
    }

    /// Where it has come to.
    pub fn mark(&self) -> Mark {
        Mark { at: self.at, expected: self.expected, beyond: self.beyond }
    }

    fn step(&mut self) -> io::Result<Option<Stretch>> {
        let (at, left) = (self.at, self.end.saturating_sub(self.at));
        if left == 0 {
            return Ok(None);
        }
        if let Some(entry) = self.entry(at)?
            && (self.expected..self.beyond).contains(&entry.sequence)
        {
            // Less than the file's length, or MAX_SEQUENCE: neither overflows.
            self.expected = entry.sequence + 1;
            if entry.size() > left {
                self.at = self.end;
                return Ok(Some(Stretch::Torn { at, sequence: entry.sequence, entry: Some(entry) }));
            }
            self.at += entry.size();
            return Ok(Some(Stretch::Batch { entry, at }));
        }
        match self.next_entry(at + 1)? {
            Some((found, entry)) => {
                self.at = found;
                let sequence = std::mem::replace(&mut self.expected, entry.sequence);
                Ok(Some(Stretch::Damaged { at, sequence, batches: entry.sequence - sequence }))
            }
            None => {
                self.at = self.end;
                Ok(Some(Stretch::Torn { at, sequence: self.expected, entry: None }))
            }
        }
    }

    fn entry(&self, at: u64) -> io::Result<Option<Entry>> {
        if self.end.saturating_sub(at) < ENTRY as u64 {
            return Ok(None);
        }
        let mut bytes = [0; ENTRY];
        self.source.fill(&mut bytes, at)?;
        Ok(Entry::decode(&bytes))
    }

    /// The next sound header from `from` on whose sequence fits there, and where it is.
    fn next_entry(&self, mut from: u64) -> io::Result<Option<(u64, Entry)>> {
        let mut window = vec![0; WINDOW];
        let mut left = SEARCH;
        while self.end.saturating_sub(from) >= ENTRY as u64 && left > 0 {
            // Of a file with holes only what was written is read.
            let data = self.source.data(from);
            if data > from {
                from = data;
                continue;
            }
            let length = usize::try_from(self.end - from).unwrap_or(WINDOW).min(WINDOW);
            let bytes = &mut window[..length];
            self.source.fill(bytes, from)?;
            for (i, head) in bytes.windows(ENTRY).enumerate() {
                let Some(entry) = head.first_chunk().and_then(Entry::decode) else { continue };
                let at = from + i as u64;
                let most = self.expected.saturating_add((at - self.at) / ENTRY as u64).min(self.beyond - 1);
                if (self.expected..=most).contains(&entry.sequence) {
                    return Ok(Some((at, entry)));
                }
            }
            from += (length - ENTRY + 1) as u64;
            left = left.saturating_sub(length as u64);
        }
        Ok(None)
    }
}

impl<R: ReadAt + ?Sized> Iterator for Scan<'_, R> {
    type Item = io::Result<Stretch>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.at = self.end;
        }
        step.transpose()
    }
}

// === impl ReadAt

impl ReadAt for File {
    fn data(&self, at: u64) -> u64 {
        match rustix::fs::seek(self, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data.max(at),
            Err(rustix::io::Errno::NXIO) => u64::MAX,
            // The file system can't tell.
            Err(_) => at,
        }
    }

    fn fill(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(into, at)
    }
}

impl ReadAt for [u8] {
    fn fill(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        let from = usize::try_from(at).ok().and_then(|at| self.get(at..)?.get(..into.len()));
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

// === numbers at places that the constants above name

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk().copied()).map_or(0, u32::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk().copied()).map_or(0, u64::from_le_bytes)
}

/// Writes the checksum of all before into the last four bytes.
fn seal(bytes: &mut [u8]) {
    if let Some((before, crc)) = bytes.split_last_chunk_mut::<4>() {
        *crc = crc32c::crc32c(before).to_le_bytes();
    }
}

fn is_sealed(bytes: &[u8]) -> bool {
    bytes.split_last_chunk::<4>().is_some_and(|(before, crc)| crc32c::crc32c(before).to_le_bytes() == *crc)
}
