//! The number of a cgroup in; its path in this process's file system out, by open_by_handle_at(2).
//!
//! kernfs takes a handle of the type FILEID_KERNFS that holds the number and nothing else (include/linux/exportfs.h;
//! fs/kernfs/mount.c, __kernfs_fh_to_dentry), since Linux 5.5.
//!
//! Must never give a path of another number: what was opened is asked for its own.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::{
    fs::{fstat, readlink},
    io::Errno,
};

/// enum fid_type, include/linux/exportfs.h.
const FILEID_KERNFS: i32 = 0xfe;

/// struct file_handle (include/linux/fs.h, open_by_handle_at(2)) with the bytes of a kernfs number behind it.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    number: [u8; 8],
}

/// Why there is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::owner) enum Failure {
    /// Nothing has this number, or no longer.
    Gone,
    /// It is there, but its path can't be had: it is longer than a page, for one (fs/d_path.c).
    NoPath,
    /// This process may not open by handle, or the kernel can't.
    Refused,
    /// No descriptor or no memory is left at the moment.
    NotNow,
}

/// The path of the cgroup with the number `id`. `mount` is any directory of the tree.
///
/// # Errors
/// It is gone, this process may not ask, or lacks the means at the moment.
pub(in crate::owner) fn path_of(mount: &OwnedFd, id: u64) -> Result<Vec<u8>, Failure> {
    let mut handle = Handle { bytes: 8, kind: FILEID_KERNFS, number: id.to_ne_bytes() };
    // SAFETY: `handle` is laid out as struct file_handle with `bytes` bytes behind its head and outlives the call, which
    // reads it only; the descriptor is open.
    let opened = unsafe {
        libc::open_by_handle_at(
            mount.as_raw_fd(),
            (&raw mut handle).cast(),
            libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC,
        )
    };
    if opened < 0 {
        return Err(Failure::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)));
    }
    // SAFETY: the call has just opened it, and nobody else knows it.
    let directory = unsafe { OwnedFd::from_raw_fd(opened) };
    if fstat(&directory).map_err(|e| Failure::from(e.raw_os_error()))?.st_ino != id {
        return Err(Failure::Gone);
    }
    let link = readlink(format!("/proc/self/fd/{opened}"), Vec::new()).map_err(|e| Failure::from(e.raw_os_error()))?;
    let path = link.into_bytes();
    // It was removed between the two calls: the kernel marks its path (fs/d_path.c).
    Ok(path.strip_suffix(b" (deleted)").map(<[u8]>::to_vec).unwrap_or(path))
}

// === impl Failure

impl Failure {
    /// An error that means the same.
    pub(in crate::owner) fn raw(self) -> i32 {
        let error = match self {
            Self::Gone => Errno::NOENT,
            Self::NoPath => Errno::NAMETOOLONG,
            Self::Refused => Errno::PERM,
            Self::NotNow => Errno::NOMEM,
        };
        error.raw_os_error()
    }
}

impl From<i32> for Failure {
    fn from(errno: i32) -> Self {
        match Errno::from_raw_os_error(errno) {
            Errno::STALE | Errno::NOENT | Errno::NOTDIR => Self::Gone,
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR => Self::NotNow,
            // The path is longer than a page (d_path, fs/d_path.c).
            Errno::NAMETOOLONG | Errno::RANGE => Self::NoPath,
            _ => Self::Refused,
        }
    }
}
