//! A file of records that is put aside when it is large or old, as the collector's file exporter does.
//!
//! The directory is opened once, at the start, and every file is named within it: a path that changes takes nothing away.
//! Whoever opens it must be able to write there afterwards, or nothing is put aside. A batch is in one file as a whole. Where it
//! can't be written as a whole (a full disk), what was written of it is cut off again.
//!
//! Must never follow a symbolic link in the file's own name, or write into something that is no file.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use jiff::{Timestamp, tz::TimeZone};
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, SeekFrom};

use super::Sink;
use crate::config::Rotate;

/// How often it is looked whether the file is still where it was.
const LOOK: Duration = Duration::from_secs(1);
/// Behind the name of a file that was put aside: when, in UTC. Its texts sort as the times do.
const ASIDE: &str = "-%Y%m%dT%H%M%S.%3fZ";
/// Length of such a text.
const ASIDE_LEN: usize = "-20261122T100000.123Z".len();

/// The file.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    directory: Option<OwnedFd>,
    /// `records.jsonl`.
    name: Name,
    rotate: Rotate,
    fd: Option<OwnedFd>,
    /// Its length, and what it was before this batch.
    bytes: u64,
    begun: u64,
    opened: Instant,
    looked: Instant,
}

/// The file's name, and by it those of the files that were put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    name: OsString,
    /// Where its ending begins.
    stem: usize,
}

// === impl Name

impl Name {
    /// Of a file at this path; `None`: it names none.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_owned();
        let stem = Path::new(&name).file_stem().map_or(name.len(), OsStr::len);
        Some(Self { name, stem })
    }

    /// Whether a file of the same directory is the file itself, or was put aside.
    pub(crate) fn has(&self, other: &[u8]) -> bool {
        self.name.as_bytes() == other || self.is_aside(other)
    }

    fn is_aside(&self, other: &[u8]) -> bool {
        let (stem, ending) = self.name.as_bytes().split_at(self.stem);
        let time = other.strip_prefix(stem).and_then(|rest| rest.strip_suffix(ending));
        time.is_some_and(|time| time.len() == ASIDE_LEN && time[0] == b'-' && time[9] == b'T' && time.ends_with(b"Z"))
    }

    fn aside(&self, time: &str) -> OsString {
        let (stem, ending) = self.name.as_bytes().split_at(self.stem);
        OsString::from_vec([stem, time.as_bytes(), ending].concat())
    }
}

// === impl File

impl File {
    /// A file that is opened or made by [`Sink::open`].
    ///
    /// # Errors
    /// The path names no file.
    pub(super) fn new(path: &Path, rotate: Rotate) -> io::Result<Self> {
        let name = Name::of(path).ok_or_else(|| io::Error::other("this is no path of a file"))?;
        let now = Instant::now();
        let path = path.to_owned();
        Ok(Self { path, directory: None, name, rotate, fd: None, bytes: 0, begun: 0, opened: now, looked: now })
    }

    fn directory(&self) -> io::Result<&OwnedFd> {
        self.directory.as_ref().ok_or_else(|| io::Error::other("it is not open yet"))
    }

    fn reopen(&mut self) -> io::Result<()> {
        let flags =
            OFlags::CREATE | OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP;
        let fd = fs::openat(self.directory()?, &self.name.name, flags, mode)?;
        let stat = fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("this is no regular file"));
        }
        self.bytes = u64::try_from(stat.st_size).unwrap_or(0);
        (self.opened, self.looked) = (Instant::now(), Instant::now());
        self.fd = Some(fd);
        Ok(())
    }

    /// Whether the file's name leads to another file by now, or to none.
    fn is_moved(&mut self) -> bool {
        if self.looked.elapsed() < LOOK {
            return false;
        }
        self.looked = Instant::now();
        let (Some(fd), Some(directory)) = (&self.fd, &self.directory) else { return true };
        let named = fs::statat(directory, &self.name.name, AtFlags::SYMLINK_NOFOLLOW);
        match (named, fs::fstat(fd)) {
            (Ok(named), Ok(own)) => (named.st_dev, named.st_ino) != (own.st_dev, own.st_ino),
            _ => true,
        }
    }

    fn is_due(&self) -> bool {
        let age = self.rotate.max_age.0;
        let old = !age.is_zero() && self.opened.elapsed() >= age;
        self.bytes > 0 && (self.bytes >= self.rotate.max_bytes.0 || old)
    }

    /// Puts the file aside, and removes those that are too many.
    fn put_aside(&mut self) -> io::Result<()> {
        let now = Timestamp::try_from(SystemTime::now()).unwrap_or_default().to_zoned(TimeZone::UTC);
        let aside = self.name.aside(&now.strftime(ASIDE).to_string());
        let directory = self.directory()?;
        // Two within a millisecond: the second one waits for the next batch.
        if fs::statat(directory, &aside, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Ok(());
        }
        fs::renameat(directory, &self.name.name, directory, &aside)?;
        self.fd = None;
        self.reopen()?;
        self.remove_oldest()
    }

    fn remove_oldest(&self) -> io::Result<()> {
        if self.rotate.keep == 0 {
            return Ok(());
        }
        let directory = self.directory()?;
        let mut aside: Vec<OsString> = Vec::new();
        for entry in Dir::read_from(directory)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if self.name.is_aside(&name) {
                aside.push(OsString::from_vec(name));
            }
        }
        aside.sort();
        let too_many = aside.len().saturating_sub(self.rotate.keep as usize);
        for name in &aside[..too_many] {
            fs::unlinkat(directory, name, AtFlags::empty())?;
        }
        Ok(())
    }
}

impl Sink for File {
    fn open(&mut self) -> io::Result<()> {
        if self.directory.is_some() {
            return Ok(());
        }
        let parent = self.path.parent().unwrap_or(&self.path);
        self.directory = Some(fs::open(parent, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
        self.reopen()
    }

    fn begin(&mut self) -> io::Result<()> {
        if (self.fd.is_none() || self.is_moved())
            && let Err(error) = self.reopen()
        {
            // The records matter more than the file's name, as long as somebody can find them.
            if !self.fd.as_ref().is_some_and(|fd| fs::fstat(fd).is_ok_and(|stat| stat.st_nlink > 0)) {
                self.fd = None;
                return Err(error);
            }
            tracing::warn!(%error, file = ?self.name.name, "the file of records was moved, and no new one can be opened");
        }
        if let Some(fd) = &self.fd {
            // Others may have cut it or written to it: logrotate's copytruncate, or the exporter before a reload.
            self.bytes = u64::try_from(fs::fstat(fd)?.st_size).unwrap_or(0);
        }
        if self.is_due()
            && let Err(error) = self.put_aside()
        {
            // The records matter more than the file's size.
            tracing::warn!(%error, file = ?self.name.name, "the file of records can't be put aside");
            self.opened = Instant::now();
            if self.fd.is_none() {
                self.reopen()?;
            }
        }
        self.begun = self.bytes;
        Ok(())
    }

    fn undo(&mut self) -> bool {
        let Some(fd) = &self.fd else { return false };
        let cut = fs::ftruncate(fd, self.begun).is_ok() && fs::seek(fd, SeekFrom::End(0)).is_ok();
        if cut {
            self.bytes = self.begun;
        }
        cut
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(fd) = &self.fd else { return Err(io::ErrorKind::NotFound.into()) };
        let written = rustix::io::write(fd, bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Bytes, Span};

    fn rotate(max_bytes: u64, keep: u32) -> Rotate {
        Rotate { max_bytes: Bytes(max_bytes), max_age: Span(Duration::ZERO), keep }
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Time passes: names of files that are put aside are by the millisecond.
    #[expect(clippy::disallowed_methods, reason = "a test's thread waits for nothing else")]
    fn pause(milliseconds: u64) {
        std::thread::sleep(Duration::from_millis(milliseconds));
    }

    fn open(path: &Path, rotate: Rotate) -> io::Result<File> {
        let mut file = File::new(path, rotate)?;
        file.open()?;
        Ok(file)
    }

    fn batch(file: &mut File, text: &[u8]) {
        file.begin().unwrap();
        file.write_all(text).unwrap();
    }

    #[test]
    fn a_file_that_another_cut_is_not_filled_up_when_a_batch_is_undone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records.jsonl");
        let mut file = open(&path, rotate(1 << 20, 0)).unwrap();
        batch(&mut file, b"0123456789\n");
        std::fs::write(&path, "").unwrap();
        batch(&mut file, b"hal");
        assert!(file.undo());
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_large_file_is_put_aside_and_the_oldest_of_those_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records.jsonl");
        std::fs::write(directory.path().join("records-mine.jsonl"), "another's").unwrap();
        let mut file = open(&path, rotate(10, 2)).unwrap();
        for n in 0..5 {
            batch(&mut file, format!("{n} ten bytes\n").as_bytes());
            pause(2);
        }
        let names = names(directory.path());
        let [first, second, mine, now] = names.as_slice() else { panic!("{names:?}") };
        assert!(first.starts_with("records-20") && first.ends_with("Z.jsonl"), "{first}");
        assert_eq!((mine.as_str(), now.as_str()), ("records-mine.jsonl", "records.jsonl"));
        let text = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!((text(first), text(second)), ("2 ten bytes\n".into(), "3 ten bytes\n".into()));
        assert_eq!(text(now), "4 ten bytes\n");
    }

    #[test]
    fn an_old_file_is_put_aside_and_an_empty_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let rotate = Rotate { max_age: Span(Duration::from_millis(1)), ..rotate(1 << 20, 0) };
        let mut file = open(&directory.path().join("a"), rotate).unwrap();
        pause(3);
        batch(&mut file, b"1\n");
        assert_eq!(names(directory.path()), ["a"]);
        pause(3);
        batch(&mut file, b"2\n");
        assert_eq!(names(directory.path()).len(), 2);
    }

    #[test]
    fn a_batch_that_did_not_fit_is_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.jsonl");
        let mut file = open(&path, rotate(1 << 20, 0)).unwrap();
        batch(&mut file, b"whole\n");
        batch(&mut file, b"hal");
        assert!(file.undo());
        batch(&mut file, b"whole again\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\nwhole again\n");
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let mut file = open(&path, rotate(1 << 20, 0)).unwrap();
        batch(&mut file, b"1\n");
        std::fs::rename(&path, directory.path().join("b")).unwrap();
        file.looked = Instant::now().checked_sub(LOOK).unwrap();
        batch(&mut file, b"2\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "2\n");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", directory.path().join("link")).unwrap();
        for path in [directory.path().join("link"), directory.path().to_owned(), "/dev/null".into()] {
            open(&path, rotate(1 << 20, 0)).unwrap_err();
        }
    }
}
