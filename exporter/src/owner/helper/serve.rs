//! The helper process: requests in, what /proc and the tree of cgroups say out. It lives in a forked copy of flowtel as it was
//! before anything was loaded, and never leaves [`run`].
//!
//! With its two rights it could read any file, and write to any process. So its system calls are filtered by their
//! arguments: it opens to read only, and beside the held directories of /proc and of the cgroup tree nothing; it writes to its
//! socket alone. Must never act on anything but a whole request, nor outlive flowtel.

use std::{
    mem::MaybeUninit,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, major, minor, openat, statat},
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
    path::DecInt,
    process::{Pid, Signal, getppid, set_parent_process_death_signal},
    thread::set_name,
};

use super::wire::{self, Answer, Found, Process, REQUESTS, Request};
use crate::{
    owner::{place::handle, process::reading},
    rights::{
        Plan,
        calls::{self, Argument, rule},
        capabilities,
    },
};

/// Numbers of its descriptors: the filter knows them.
const SOCKET: RawFd = 3;
const PROC: RawFd = 4;
const CGROUPS: RawFd = 5;
/// The next two: the directory of the process, or cgroup, that is asked about, and a file in it.
const ASKED: RawFd = 6;
const FILE: RawFd = 7;

/// What it holds.
pub(super) struct Ground {
    socket: OwnedFd,
    proc: OwnedFd,
    cgroups: Option<OwnedFd>,
}

// === impl Ground

impl Ground {
    pub(super) fn open(proc: &Path, cgroups: Option<&Path>, socket: OwnedFd) -> rustix::io::Result<Self> {
        let proc = openat(CWD, proc, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let cgroups = cgroups
            .map(|path| openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()))
            .transpose()?;
        Ok(Self { socket, proc, cgroups })
    }

    /// Puts its descriptors where the filter expects them, and closes all others.
    fn settle(self) -> std::io::Result<Self> {
        let null = openat(CWD, c"/dev/null", OFlags::RDWR, Mode::empty())?;
        // Out of the way of the numbers that they get.
        let away = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 64);
        let (socket, proc) = (away(&self.socket)?, away(&self.proc)?);
        let cgroups = self.cgroups.as_ref().map_or_else(|| away(&null), away)?;
        let standard = [0, 1, 2].map(|number| (null.as_raw_fd(), number));
        let held = [(socket.as_raw_fd(), SOCKET), (proc.as_raw_fd(), PROC), (cgroups.as_raw_fd(), CGROUPS)];
        let has_cgroups = self.cgroups.is_some();
        // Their numbers are taken by others now.
        std::mem::forget((self, null));
        for (from, to) in standard.into_iter().chain(held) {
            // SAFETY: both numbers are of descriptors that this function owns, or that nobody uses any more.
            if unsafe { libc::dup3(from, to, libc::O_CLOEXEC) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        drop((socket, proc, cgroups));
        // SAFETY: the process owns all its descriptors, and goes on with those below alone. Before Linux 5.9 there is no such
        // call, but there flowtel has not got so far.
        if unsafe { libc::syscall(libc::SYS_close_range, ASKED, libc::c_uint::MAX, 0) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the three were just put there, and nobody else has them.
        unsafe {
            Ok(Self {
                socket: OwnedFd::from_raw_fd(SOCKET),
                proc: OwnedFd::from_raw_fd(PROC),
                cgroups: has_cgroups.then(|| OwnedFd::from_raw_fd(CGROUPS)),
            })
        }
    }

    fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Process(pid) => self.process(pid).map(Found::Process).map_err(Errno::raw_os_error),
            Request::Netns(pid) => self.netns(pid).map(Found::Netns).map_err(Errno::raw_os_error),
            Request::Cgroup(id) => {
                let Some(cgroups) = &self.cgroups else { return Err(Errno::OPNOTSUPP.raw_os_error()) };
                handle::path_of(cgroups, id).map(Found::Cgroup).map_err(handle::Failure::raw)
            }
        }
    }

    fn directory(&self, pid: u32) -> rustix::io::Result<OwnedFd> {
        openat(&self.proc, DecInt::new(pid), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    }

    /// As `owner::process::reading` reads it: all through one descriptor.
    fn process(&self, pid: u32) -> rustix::io::Result<Process> {
        let directory = self.directory(pid)?;
        let stat = reading::read_stat(&directory)?;
        let mut buffer = [MaybeUninit::uninit(); wire::PATH];
        let link = reading::read_link(&directory, &mut buffer)?.to_vec();
        let file = statat(&directory, c"exe", AtFlags::empty()).ok();
        let mounts = statat(&directory, c"ns/mnt", AtFlags::empty()).map_or(0, |stat| stat.st_ino);
        Ok(Process {
            start: stat.start,
            parent: stat.parent,
            device: file.as_ref().map_or((0, 0), |file| (major(file.st_dev), minor(file.st_dev))),
            inode: file.as_ref().map_or(0, |file| file.st_ino),
            mounts,
            link,
        })
    }

    fn netns(&self, pid: u32) -> rustix::io::Result<u64> {
        let directory = self.directory(pid)?;
        Ok(statat(&directory, c"ns/net", AtFlags::empty())?.st_ino)
    }
}

/// Becomes the helper.
pub(super) fn run(ground: Ground, plan: &Plan, parent: Pid) -> ! {
    // There is nobody to tell: flowtel sees that the socket is closed.
    let code = i32::from(confined(ground, plan, parent).map(|ground| serve(&ground)).is_err());
    // SAFETY: it ends the process, without anything of flowtel's that would run at an orderly exit.
    unsafe { libc::_exit(code) }
}

fn confined(ground: Ground, plan: &Plan, parent: Pid) -> std::io::Result<Ground> {
    let ground = ground.settle()?;
    let failed = |error: crate::rights::Error| std::io::Error::other(error);
    plan.change_user_alone().map_err(failed)?;
    capabilities::keep_only(&capabilities::kept_by_helper())?;
    plan.seal().map_err(failed)?;
    set_name(c"flowtel-helper")?;
    // After the change of user, which would take it back.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Some(parent) {
        return Err(std::io::ErrorKind::BrokenPipe.into());
    }
    calls::confine(list()?, plan.seccomp())?;
    Ok(ground)
}

/// Until flowtel is gone.
fn serve(ground: &Ground) {
    let mut bytes = [0; REQUESTS + 1];
    loop {
        let length = match recv(&ground.socket, bytes.as_mut_slice(), RecvFlags::empty()) {
            Err(Errno::INTR) => continue,
            Ok((length @ 1.., _)) => length,
            _ => return,
        };
        let Some((sequence, requests)) = bytes.get(..length).and_then(wire::decode) else { return };
        for (index, request) in requests.into_iter().enumerate() {
            let answer = wire::encode_answer(sequence, index, &ground.answer(request));
            if send(&ground.socket, &answer, SendFlags::NOSIGNAL).is_err() {
                return;
            }
        }
    }
}

type List = Vec<(&'static str, Vec<seccompiler::SeccompRule>)>;

/// The system calls that it makes, with the arguments that it gives them.
fn list() -> std::io::Result<List> {
    const EXEC: u64 = libc::PROT_EXEC as u64;
    let int = |index, value: libc::c_int| Argument::int(index, value);
    // Bits by which machines say that files may be large, or that a link is not followed: they open nothing more.
    const HARMLESS: u64 = 0x8000 | 0x2_0000;
    let flags = |index, flags: libc::c_int| Argument::bits(index, 0xffff_ffff & !HARMLESS, flags as u64 & !HARMLESS);
    let directory = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let mut list: List = vec![
        // A link or what is behind it is looked at; nothing is opened by that.
        ("readlink", Vec::new()),
        ("readlinkat", Vec::new()),
        ("fstat", Vec::new()),
        ("newfstatat", Vec::new()),
        ("statx", Vec::new()),
        ("close", Vec::new()),
        ("exit", Vec::new()),
        ("exit_group", Vec::new()),
        ("brk", Vec::new()),
        ("munmap", Vec::new()),
        ("mremap", Vec::new()),
        ("madvise", Vec::new()),
        ("restart_syscall", Vec::new()),
    ];
    let mut add = |name, rules: &[&[Argument]]| -> std::io::Result<()> {
        list.push((name, rules.iter().map(|arguments| rule(arguments)).collect::<std::io::Result<_>>()?));
        Ok(())
    };
    add("recvfrom", &[&[int(0, SOCKET)]])?;
    add("sendto", &[&[int(0, SOCKET), Argument::null(4)]])?;
    // Debug builds look whether what they close is open.
    add("fcntl", &[&[int(1, libc::F_GETFD)]])?;
    add("read", &[&[int(0, FILE)]])?;
    add(
        "openat",
        &[&[int(0, PROC), flags(2, directory)], &[int(0, ASKED), flags(2, libc::O_RDONLY | libc::O_CLOEXEC)]],
    )?;
    add("open_by_handle_at", &[&[int(0, CGROUPS), flags(2, directory)]])?;
    add(
        "mmap",
        &[&[Argument::bits(2, EXEC, 0), Argument::bits(3, libc::MAP_ANONYMOUS as u64, libc::MAP_ANONYMOUS as u64)]],
    )?;
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_list_opens_to_read_alone_and_sends_nowhere_else() {
        let list = list().expect("valid rules");
        let names: Vec<_> = list.iter().map(|(name, _)| *name).collect();
        for name in [
            "write",
            "socket",
            "connect",
            "execve",
            "clone",
            "fork",
            "ptrace",
            "process_vm_writev",
            "kill",
            "ioctl",
            "prctl",
        ] {
            assert!(!names.contains(&name), "{name}");
        }
        for name in ["openat", "open_by_handle_at", "read", "sendto", "recvfrom", "mmap"] {
            let rules = list.iter().find(|(known, _)| *known == name).map(|(_, rules)| rules.len());
            assert!(rules > Some(0), "{name}: each of its calls is looked at");
        }
    }
}
