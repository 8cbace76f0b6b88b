//! The hosts file: its path comes in, the names that it gives to addresses go out.
//!
//! hosts(5): an address, then its names, with blanks between; from `#` on a comment. What can't be used is passed over
//! and counted, for every program on the host goes on with such a file, too.
//!
//! Must never read without an end, block on something that is no file, or look at the file at each look-up.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use hashbrown::HashMap;

use super::{
    names::{Gather, MAX_NAMES, Names, Origin, State},
    text,
};
use crate::{capture::KernelTime, ledger::Counter};

/// The most bytes that are read: lists against advertisements have some millions, all of them for 0.0.0.0.
pub const MAX_FILE: u64 = 16 << 20;
/// The most addresses that are remembered.
pub const MAX_ADDRESSES: usize = 65_536;
/// Nanoseconds from one look at the file to the next.
const EVERY: u64 = 10_000_000_000;

/// Names by address, as the file has them.
#[derive(Debug)]
pub struct Hosts {
    path: PathBuf,
    names: StaticNames,
    version: Option<Version>,
    looked: KernelTime,
}

type StaticNames = HashMap<IpAddr, Vec<Box<str>>, foldhash::fast::RandomState>;

/// What changes when the file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

// === impl Hosts

impl Hosts {
    /// Reads the file. An empty path: there is none. One that can't be read gives no names, and is told in the log.
    pub fn read(path: &Path, now: KernelTime, ignored: &Counter) -> Self {
        let mut hosts =
            Self { path: path.to_owned(), names: StaticNames::default(), version: None, looked: KernelTime(0) };
        if !path.as_os_str().is_empty() {
            hosts.look(now, ignored, true);
        }
        hosts
    }

    /// Reads the file again if it has changed. Looks at it every 10 s at most.
    pub fn tick(&mut self, now: KernelTime, ignored: &Counter) {
        if !self.path.as_os_str().is_empty() && now.since(self.looked) >= EVERY {
            self.look(now, ignored, false);
        }
    }

    /// The names of an address, in the order of the file.
    pub fn names(&self, address: IpAddr) -> Option<Names<'_>> {
        let names = self.names.get(&address.to_canonical())?;
        let mut gather = Gather::new();
        names.iter().for_each(|name| gather.add(name));
        gather.done(State::Static, None, Some(Origin::Static))
    }

    fn look(&mut self, now: KernelTime, ignored: &Counter, first: bool) {
        self.looked = now;
        let version = Version::of(&self.path);
        if !first && version.as_ref().ok() == self.version.as_ref() {
            return;
        }
        let text = version.and_then(|version| Ok((version, contents(&self.path)?)));
        match text {
            Ok((version, text)) => {
                self.version = Some(version);
                self.names = parse(&text, ignored);
            }
            Err(e) => {
                // Said once, until it can be read again.
                tracing::warn!("no names from the hosts file {}: {e}", self.path.display());
                self.version = None;
                self.names = StaticNames::default();
            }
        }
    }
}

// === impl Version

impl Version {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Ok(Self { inode: metadata.ino(), size: metadata.size(), modified })
    }
}

fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(text)
}

/// Reads lines. Of an address's names the first [`MAX_NAMES`] count, of addresses the first [`MAX_ADDRESSES`].
fn parse(text: &[u8], ignored: &Counter) -> StaticNames {
    let mut all = StaticNames::default();
    for line in text.split(|b| *b == b'\n') {
        let line = line.split(|b| *b == b'#').next().unwrap_or_default();
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let Some(first) = words.next() else { continue };
        let Some(address) = address(first) else {
            ignored.add(1);
            continue;
        };
        let mut usable = false;
        for name in words.filter_map(name) {
            usable = true;
            // No connection goes to the unspecified address: it stands for "nowhere" in lists of blocked names.
            if address.is_unspecified() || (all.len() >= MAX_ADDRESSES && !all.contains_key(&address)) {
                continue;
            }
            let names = all.entry(address).or_default();
            if names.len() < MAX_NAMES && !names.contains(&name) {
                names.push(name);
            }
        }
        if !usable {
            ignored.add(1);
        }
    }
    all
}

/// An address; of one with a zone (`fe80::1%eth0`), without it.
fn address(word: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(word).ok()?;
    let text = text.split('%').next().unwrap_or_default();
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// A name as it is stored: labels of visible ASCII, as everywhere else in names.
fn name(word: &[u8]) -> Option<Box<str>> {
    let visible = word.iter().all(|b| (0x21..=0x7e).contains(b));
    let mut out = String::new();
    text::append(&mut out, word.split(|b| *b == b'.')).ok()?;
    (visible && !out.is_empty()).then(|| out.into())
}

#[cfg(test)]
mod tests;
