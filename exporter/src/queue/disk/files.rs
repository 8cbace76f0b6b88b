//! The few things that the queue asks of the file system, so that a test can have any of them fail: paths and bytes go
//! in, real files change. Must never retry: whoever calls knows what a failure means.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::Path,
};

#[cfg(test)]
use super::tests::faults::{Faults, Op};

/// The file system.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    #[cfg(test)]
    pub(super) faults: Option<std::sync::Arc<Faults>>,
}

impl Files {
    /// Makes a directory with all above it, for its owner alone: it tells who talks to whom.
    pub(super) fn make_directory(path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    /// A new file, for its owner alone; an error where there is one.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        #[cfg(test)]
        self.ask(path, Op::Create)?;
        File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
    }

    /// A file that may be there, to be written.
    pub(super) fn reopen(&self, path: &Path) -> io::Result<File> {
        #[cfg(test)]
        self.ask(path, Op::Create)?;
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
        regular(options.open(path)?)
    }

    /// Writes all of `bytes` at `at`.
    pub(super) fn write(&self, path: &Path, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Err(error) = self.ask(path, Op::Write { end: at + bytes.len() as u64 }) {
            // As much as a full disk may take of it.
            file.write_all_at(&bytes[..bytes.len() / 2], at)?;
            return Err(error);
        }
        #[cfg(not(test))]
        let _ = path;
        file.write_all_at(bytes, at)
    }

    /// Returns once the file's content is on the disk.
    pub(super) fn sync(&self, path: &Path, file: &File) -> io::Result<()> {
        #[cfg(test)]
        self.ask(path, Op::Sync)?;
        #[cfg(not(test))]
        let _ = path;
        file.sync_data()
    }

    /// Returns once the directory's names are on the disk.
    pub(super) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        #[cfg(test)]
        self.ask(path, Op::SyncDirectory)?;
        File::open(path)?.sync_all()
    }

    /// Cuts a file and syncs it.
    pub(super) fn cut(&self, path: &Path, length: u64) -> io::Result<()> {
        #[cfg(test)]
        self.ask(path, Op::Cut { length })?;
        let file = File::options().write(true).open(path)?;
        file.set_len(length)?;
        file.sync_all()
    }

    /// Removes a file; one that is not there is as good as removed.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        #[cfg(test)]
        self.ask(path, Op::Remove)?;
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// A file to be read: never a pipe or a device, which could hold up whoever opens it.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        #[cfg(test)]
        self.ask(path, Op::Read)?;
        open(path)
    }

    #[cfg(test)]
    fn ask(&self, path: &Path, op: Op) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.ask(path, op))
    }
}

/// A regular file, to be read.
pub(in super::super) fn open(path: &Path) -> io::Result<File> {
    regular(File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?)
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("this is no regular file")) }
}
