//! Links that are pinned: looked up by path, and made to run another program, in one step that no packet falls into
//! (BPF_OBJ_GET and BPF_LINK_UPDATE of bpf(2), include/uapi/linux/bpf.h).

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_UPDATE: libc::c_long = 29;

/// What is pinned at `path`.
///
/// # Errors
/// Nothing is, or this process may not have it.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Get {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let get = Get { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: the attributes are those of the command, which reads them and the path, and both outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const get, size_of::<Get>()) };
    match i32::try_from(fd) {
        // SAFETY: the call has just opened it, and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes `link` run `program` from now on.
///
/// # Errors
/// It is no link, or one of another kind of program.
pub(super) fn update(link: &OwnedFd, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Update {
        link: i32,
        program: i32,
        flags: u32,
        old_program: u32,
    }
    let update = Update { link: link.as_raw_fd(), program: program.as_raw_fd(), flags: 0, old_program: 0 };
    // SAFETY: the attributes are those of the command, which reads them only; both descriptors are open.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_UPDATE, &raw const update, size_of::<Update>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
