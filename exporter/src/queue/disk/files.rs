//! The few things that the queue asks of the file system, so that a test can have any of them fail: a directory, names and
//! bytes go in, real files change. Must never retry: whoever calls knows what a failure means.
//!
//! Files are named within an open directory, not by their whole paths: what is done to the queue's files is done to those
//! of the directory that was looked at and locked, whatever its path leads to by now.

use std::{
    fs::{DirBuilder, File, Metadata},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, statat, unlinkat};

#[cfg(test)]
use super::tests::faults::Faults;

/// The file system.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    #[cfg(test)]
    pub(super) faults: Option<std::sync::Arc<Faults>>,
}

/// An open directory, and the path it was opened by.
#[derive(Debug)]
pub(in super::super) struct Directory {
    file: File,
    path: PathBuf,
}

/// Which file it is, on which file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

// === impl Directory

impl Directory {
    /// Makes a directory with all above it, for its owner alone: it shows who talks to whom.
    pub(super) fn make(path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    /// Opens it.
    pub(in super::super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(path)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// A regular file in it, to be read: never a link, a pipe or a device, which could hold up whoever opens it.
    pub(in super::super) fn read(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        regular(openat(&self.file, name, flags, Mode::empty())?.into())
    }

    /// The bytes of a file in it.
    pub(in super::super) fn size(&self, name: &str) -> io::Result<u64> {
        let status = statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(u64::try_from(status.st_size).unwrap_or(0))
    }

    /// What is in it, from the first on.
    pub(super) fn entries(&self) -> io::Result<rustix::fs::Dir> {
        Ok(rustix::fs::Dir::read_from(&self.file)?)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A file's whole path, as far as the directory's is still right: for people.
    pub(super) fn name(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Who else than this process could put something into it, in words.
    pub(super) fn is_open_to_others(&self) -> io::Result<Option<String>> {
        Ok(others(&self.file.metadata()?))
    }

    pub(super) fn identity(&self) -> io::Result<Identity> {
        Ok(Identity::of(&self.file.metadata()?))
    }

    /// Whether it is in no directory any more, and so can't hold a file again.
    pub(super) fn is_removed(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// Which file has this name in it.
    pub(super) fn identity_of(&self, name: &str) -> io::Result<Identity> {
        let status = statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Identity { device: status.st_dev, inode: status.st_ino })
    }
}

// === impl Identity

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

// === impl Files

impl Files {
    /// A new file, for its owner alone; an error where there is one.
    pub(super) fn create(&self, directory: &Directory, name: &str) -> io::Result<File> {
        self.ask(directory, name, Op::Create)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&directory.file, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// A file that may be there, to be written.
    pub(super) fn reopen(&self, directory: &Directory, name: &str) -> io::Result<File> {
        self.ask(directory, name, Op::Create)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        own(regular(openat(&directory.file, name, flags, Mode::RUSR | Mode::WUSR)?.into())?)
    }

    /// Writes all of `bytes` at `at`.
    pub(super) fn write(
        &self,
        directory: &Directory,
        name: &str,
        file: &File,
        bytes: &[u8],
        at: u64,
    ) -> io::Result<()> {
        if let Err(error) = self.ask(directory, name, Op::Write { end: at + bytes.len() as u64 }) {
            // As much as a full disk may take of it.
            file.write_all_at(&bytes[..bytes.len() / 2], at)?;
            return Err(error);
        }
        file.write_all_at(bytes, at)
    }

    /// Returns once the file's content is on the disk.
    pub(super) fn sync(&self, directory: &Directory, name: &str, file: &File) -> io::Result<()> {
        self.ask(directory, name, Op::Sync)?;
        file.sync_data()
    }

    /// Returns once the directory's names are on the disk.
    pub(super) fn sync_directory(&self, directory: &Directory) -> io::Result<()> {
        self.ask(directory, "", Op::SyncDirectory)?;
        directory.file.sync_all()
    }

    /// Cuts a file and syncs it.
    pub(super) fn cut(&self, directory: &Directory, name: &str, length: u64) -> io::Result<()> {
        self.ask(directory, name, Op::Cut { length })?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = regular(openat(&directory.file, name, flags, Mode::empty())?.into())?;
        file.set_len(length)?;
        file.sync_all()
    }

    /// Removes a file; one that is not there is as good as removed.
    pub(super) fn remove(&self, directory: &Directory, name: &str) -> io::Result<()> {
        self.ask(directory, name, Op::Remove)?;
        match unlinkat(&directory.file, name, AtFlags::empty()) {
            Err(e) if e != rustix::io::Errno::NOENT => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Gives a file another name in the same directory.
    #[expect(clippy::unused_self, reason = "all that changes files goes through here")]
    pub(super) fn rename(&self, directory: &Directory, name: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&directory.file, name, &directory.file, to)?)
    }

    /// A file to be read, which nobody else may have written.
    pub(super) fn open(&self, directory: &Directory, name: &str) -> io::Result<File> {
        self.ask(directory, name, Op::Read)?;
        own(directory.read(name)?)
    }

    /// Says that a file that is open already is read.
    pub(super) fn reads(&self, directory: &Directory, name: &str) -> io::Result<()> {
        self.ask(directory, name, Op::Read)
    }

    #[cfg(test)]
    fn ask(&self, directory: &Directory, name: &str, op: Op) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.ask(&directory.path.join(name), op))
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests have something to ask")]
    #[inline]
    fn ask(&self, _: &Directory, _: &str, _: Op) -> io::Result<()> {
        Ok(())
    }
}

/// What is about to happen to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Create,
    Write { end: u64 },
    Sync,
    SyncDirectory,
    Cut { length: u64 },
    Remove,
    Read,
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("this is no regular file")) }
}

/// Refuses what others may have written.
fn own(file: File) -> io::Result<File> {
    match others(&file.metadata()?) {
        None => Ok(file),
        Some(who) => Err(io::Error::other(who)),
    }
}

/// Who else than this process may write there, in words. Root may anywhere, so what is root's is nobody else's.
fn others(metadata: &Metadata) -> Option<String> {
    let own = rustix::process::geteuid().as_raw();
    let is_own = metadata.uid() == own || metadata.uid() == 0;
    (!is_own || metadata.mode() & 0o022 != 0).then(|| {
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        format!("others than user {own} may write there (owner {owner}, mode {mode:o})")
    })
}
