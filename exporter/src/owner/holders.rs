//! Inodes of sockets in; the processes that hold them out, from the descriptors that /proc shows. For connections that are
//! older than flowtel: who made them nobody saw, but who has them can be looked up.
//!
//! Where several processes hold one socket it is the one that has run longest: the one that forked the others, or took the
//! socket before it handed it on. Whether it is alone is told only after a pass that saw all descriptors of all processes.
//!
//! One pass over /proc, bounded in time and number. Must never be used where /proc shows other processes than the host's.

use std::{
    collections::HashMap,
    fs::{self, DirEntry},
    io,
    os::unix::ffi::OsStrExt,
    path::Path,
    time::{Duration, Instant},
};

use flowtel_common::event::COMM_LEN;

use super::process::stat::Stat;
use crate::capture::snapshot::Holder;

/// How long the pass may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The most processes, and descriptors of one process, that are looked at.
const MOST: usize = 1 << 20;

/// A holder, and when it began, in clock ticks.
type Since = (u64, Holder);

/// Who holds which socket, by the inode of the socket's file. Those that `wanted` names and nobody was found for are not
/// in it: kept by a process that may not be read, or by none.
pub fn find(proc: &Path, wanted: impl Fn(u32) -> bool) -> HashMap<u32, Holder> {
    let start = Instant::now();
    let mut holders: HashMap<u32, Since> = HashMap::new();
    let mut saw_all = true;
    for process in fs::read_dir(proc).into_iter().flatten().flatten().take(MOST) {
        if start.elapsed() > PATIENCE {
            saw_all = false;
            break;
        }
        if let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) {
            saw_all &= add(&process, pid, &wanted, &mut holders);
        }
    }
    let holders = holders.into_iter();
    holders.map(|(inode, (_, holder))| (inode, Holder { alone: holder.alone && saw_all, ..holder })).collect()
}

/// Adds what a process holds. Returns whether all of it could be seen; one that is gone holds nothing.
fn add(process: &DirEntry, pid: u32, wanted: &impl Fn(u32) -> bool, holders: &mut HashMap<u32, Since>) -> bool {
    let mut holder = None;
    let descriptors = match fs::read_dir(process.path().join("fd")) {
        Ok(descriptors) => descriptors,
        Err(e) => return e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH),
    };
    for descriptor in descriptors.flatten().take(MOST) {
        let Ok(link) = fs::read_link(descriptor.path()) else { continue };
        let Some(inode) = socket(link.as_os_str().as_bytes()).filter(|inode| wanted(*inode)) else { continue };
        // Read once it is known to be needed.
        let Some(holder) = *holder.get_or_insert_with(|| read(&process.path(), pid)) else { return true };
        let first = holders.entry(inode).or_insert(holder);
        let alone = first.1.alone && first.1.pid == pid;
        if (holder.0, holder.1.pid) < (first.0, first.1.pid) {
            *first = holder;
        }
        first.1.alone = alone;
    }
    true
}

/// The number in `socket:[4711]`.
fn socket(link: &[u8]) -> Option<u32> {
    let number = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

fn read(process: &Path, pid: u32) -> Option<Since> {
    let stat = Stat::parse(&fs::read(process.join("stat")).ok()?)?;
    let status = fs::read(process.join("status")).ok()?;
    let mut comm = [0; COMM_LEN];
    let name = fs::read(process.join("comm")).ok()?;
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    // The last byte stays zero.
    comm.iter_mut().zip(name.iter().take(COMM_LEN - 1)).for_each(|(to, from)| *to = *from);
    Some((stat.start, Holder { pid, uid: real_uid(&status)?, comm, alone: true }))
}

/// The first number of the line `Uid:` (proc_pid_status(5)). The name stands in a line of its own before it, with its line
/// ends escaped.
fn real_uid(status: &[u8]) -> Option<u32> {
    let line = status.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"Uid:\t"))?;
    std::str::from_utf8(line.split(|b| *b == b'\t').next()?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsRawFd, unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn this_process_holds_its_own_socket() {
        let (socket, _) = std::os::unix::net::UnixStream::pair().expect("a socket");
        let inode = fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).expect("its inode").ino();
        let inode = u32::try_from(inode).expect("32 bits");
        let holders = find(Path::new("/proc"), |i| i == inode);
        let holder = holders.get(&inode).expect("this process");
        assert_eq!(holder.pid, std::process::id());
        assert_eq!(holder.uid, rustix::process::getuid().as_raw());
        assert_eq!(holders.len(), 1);
        // Where another user's process may not be read nobody is known to be alone.
        assert!(holder.alone || !rustix::process::getuid().is_root());
    }

    #[test]
    fn of_two_processes_neither_is_alone() {
        let (socket, _) = std::os::unix::net::UnixStream::pair().expect("a socket");
        let inode = fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).expect("its inode").ino();
        let copy = socket.try_clone().expect("a copy");
        let mut other = std::process::Command::new("sleep")
            .arg("60")
            .stdin(std::os::fd::OwnedFd::from(copy))
            .spawn()
            .expect("another process");
        let found = find(Path::new("/proc"), |i| u64::from(i) == inode);
        other.kill().expect("killed");
        other.wait().expect("its end");
        let holder = found.into_values().next().expect("a holder");
        assert_eq!((holder.pid, holder.alone), (std::process::id(), false), "the one that has run longest");
        drop(socket);
    }

    #[test]
    fn links_that_are_no_sockets_have_no_inode() {
        assert_eq!(super::socket(b"socket:[4711]"), Some(4711));
        for link in [&b"pipe:[1]"[..], b"socket:[]", b"socket:[1", b"socket:[99999999999]", b"", b"/socket:[1]"] {
            assert_eq!(super::socket(link), None);
        }
    }

    #[test]
    fn a_name_can_not_pretend_a_user() {
        assert_eq!(real_uid(b"Name:\tx\\nUid:\\t7\nUmask:\t0022\nUid:\t1000\t0\t0\t0\n"), Some(1000));
        assert_eq!(real_uid(b"Name:\tx\n"), None);
    }
}
