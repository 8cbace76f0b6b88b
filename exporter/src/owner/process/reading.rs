//! A process id in; what /proc says of whoever has it now out, through one descriptor of its directory.

use std::{ffi::CStr, fmt, mem::MaybeUninit, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, Stat as FileStat, major, minor, openat, readlinkat_raw, statat},
    io::Errno,
    path::DecInt,
};

use super::{
    super::helper::{Found, Helper, Process, Request},
    executable::{Executable, File, MAX_PATH, Mounts},
    stat::Stat,
};

/// The proc file system of the host.
pub(super) struct Proc {
    directory: OwnedFd,
    /// Inode of the mount namespace of its first process; `None` where that may not be read.
    mounts: Option<u64>,
    /// Who may read what this process may not.
    helper: Option<Helper>,
}

/// What was read of a process.
#[derive(Debug)]
pub(super) struct Look {
    /// Its directory: it stays with the process, whatever becomes of the number. The helper keeps none.
    pub handle: Option<OwnedFd>,
    pub stat: Stat,
    pub executable: Executable,
}

// === impl Proc

impl Proc {
    /// # Errors
    /// There is no such directory.
    pub fn open(path: &Path) -> rustix::io::Result<Self> {
        let directory = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mounts = statat(&directory, c"1/ns/mnt", AtFlags::empty()).ok().map(|stat| stat.st_ino);
        Ok(Self { directory, mounts, helper: None })
    }

    /// Has the helper read.
    pub fn help(&mut self, helper: Helper) {
        if self.mounts.is_none()
            && let Some(Ok(Found::Process(first))) = helper.ask(Request::Process(1))
        {
            self.mounts = Some(first.mounts).filter(|mounts| *mounts != 0);
        }
        self.helper = Some(helper);
    }

    /// The helper, where it is still there.
    pub fn helper(&self) -> Option<&Helper> {
        self.helper.as_ref().filter(|helper| helper.pid().is_some())
    }

    /// The kernel says which mount namespace is the host's.
    pub fn know_host_mounts(&mut self, inode: u64) {
        self.mounts = Some(inode);
    }

    /// Reads who has the number now.
    ///
    /// # Errors
    /// ENOENT: nobody has it, or it is a zombie or a thread of the kernel. ESRCH: it went meanwhile. Others: it may not be
    /// read.
    pub fn look(&self, pid: u32) -> rustix::io::Result<Look> {
        if let Some(helper) = self.helper() {
            return self.look_by(helper, pid);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = openat(&self.directory, DecInt::new(pid), flags, Mode::empty())?;
        let stat = read_stat(&handle)?;
        let executable = self.executable(&handle)?;
        Ok(Look { handle: Some(handle), stat, executable })
    }

    fn look_by(&self, helper: &Helper, pid: u32) -> rustix::io::Result<Look> {
        let process = match helper.ask(Request::Process(pid)) {
            Some(Ok(Found::Process(process))) => process,
            Some(Err(error)) => return Err(Errno::from_raw_os_error(error)),
            // It is late, or just gone.
            _ => return Err(Errno::AGAIN),
        };
        let Process { start, parent, device, inode, mounts, link } = process;
        let file = (inode != 0).then_some(File { device, inode });
        let mounts = match (self.mounts, mounts) {
            (Some(host), mounts) if mounts == host => Mounts::Host,
            (Some(_), 1..) => Mounts::Other,
            _ => Mounts::Unknown,
        };
        let executable = Executable::from_link(&link, file, mounts).ok_or(Errno::NOENT)?;
        Ok(Look { handle: None, stat: Stat { parent, start, kernel_thread: false }, executable })
    }

    /// What the process runs now.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn executable(&self, process: &OwnedFd) -> rustix::io::Result<Executable> {
        let mut buffer = [MaybeUninit::uninit(); MAX_PATH];
        let link = read_link(process, &mut buffer)?;
        // Through the link to the file itself, which may have no path.
        let file = statat(process, c"exe", AtFlags::empty()).ok().map(file);
        let mounts = match (self.mounts, statat(process, c"ns/mnt", AtFlags::empty())) {
            (Some(host), Ok(stat)) if stat.st_ino == host => Mounts::Host,
            (Some(_), Ok(_)) => Mounts::Other,
            _ => Mounts::Unknown,
        };
        Executable::from_link(link, file, mounts).ok_or(Errno::NOENT)
    }
}

impl fmt::Debug for Proc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proc").field("mounts", &self.mounts).finish_non_exhaustive()
    }
}

fn file(stat: FileStat) -> File {
    File { device: (major(stat.st_dev), minor(stat.st_dev)), inode: stat.st_ino }
}

/// The line `stat` of a directory of /proc, which is made anew at each open.
pub(in crate::owner) fn read_stat(process: &OwnedFd) -> rustix::io::Result<Stat> {
    let mut line = [0u8; 1024];
    let length = read_into(process, c"stat", &mut line)?;
    Stat::parse(&line[..length]).ok_or(Errno::SRCH)
}

/// A small file of a directory of /proc, cut after `most` bytes.
pub(in crate::owner) fn read_whole(process: &OwnedFd, name: &CStr, most: usize) -> rustix::io::Result<Vec<u8>> {
    let mut text = vec![0u8; most];
    let length = read_into(process, name, &mut text)?;
    text.truncate(length);
    Ok(text)
}

fn read_into(process: &OwnedFd, name: &CStr, text: &mut [u8]) -> rustix::io::Result<usize> {
    let file = openat(process, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut length = 0;
    while length < text.len() {
        match rustix::io::read(&file, &mut text[length..])? {
            0 => break,
            n => length += n,
        }
    }
    Ok(length)
}

/// What the link to the executable holds.
///
/// # Errors
/// As [`Proc::look`].
pub(in crate::owner) fn read_link<'b>(
    process: &OwnedFd,
    buffer: &'b mut [MaybeUninit<u8>; MAX_PATH],
) -> rustix::io::Result<&'b [u8]> {
    readlinkat_raw(process, c"exe", buffer).map(|(link, _)| &*link)
}
