//! Process ids in; the executables that they run out, from /proc.
//!
//! # Why the answer is never another process's
//!
//! An event says: process id P did something at kernel time T. /proc tells of whoever has P *now*. Whoever it is, it has
//! held P without a break since it began, and nobody else has, for a process id is free only after its holder was
//! reaped. So if the process found began before T, it is the one. Four rules follow.
//!
//! 1. **One process, one descriptor.** /proc/PID is opened once, and its files are read through that descriptor. It stays
//!    with the process whatever becomes of the number: once the process was reaped every read fails (fs/proc/base.c,
//!    proc_pid_make_inode; get_proc_task gives ESRCH, a fresh name in it ENOENT). So its start and its executable belong
//!    together without reading one of them twice. A pidfd would say as much, but not of the host's processes from within
//!    a container that reads the host's /proc.
//! 2. **Began before T.** The start has the grain of a clock tick, 10 ms, rounded down. A process of an earlier tick than T
//!    began before T: it is certain. One of a later tick did not. Of the same tick either may be true, and it counts only
//!    where the number can't have come round within that tick. The kernel hands numbers out in a circle (kernel/pid.c,
//!    idr_alloc_cyclic), so for that every free number would have to be handed out first. At 30,000 free ones, the bound
//!    here, that is three million forks a second, through locks that the whole system shares. Below it, and where the
//!    host's numbers can't be told, the answer is absent. (Whoever may pick a number, by clone3's `set_tid` or
//!    ns_last_pid, is an administrator with CAP_CHECKPOINT_RESTORE.) Without this rule half of all programs that connect
//!    within their first 10 ms, such as curl, would have no name.
//! 3. **Known until.** An answer read at V holds for every event up to V: the process held the number from its start
//!    until then at least. No call is needed for such an event, however many come, and no time-out is guessed. The same
//!    goes for "nobody has this number". Events are read a tick at a time, so a process that connects all the time costs
//!    one call a tick.
//! 4. **After V** the link is read again through the kept descriptor: one call says both that the process is still there
//!    and what it runs now. Descriptors are bounded; without one /proc/PID is opened again, and rule 2 decides anew.
//!
//! What stays open: the *program* is that of the time of the look-up. A process that calls execve(2) between the event
//! and the look-up, one tick of `capture.tick` later, is named by its new program. The kernel keeps no time of the exec
//! that user space could read.
//!
//! Must never name another process's executable, nor hold more descriptors than its bound.

mod executable;
pub mod stat;
mod visibility;

use std::{fmt, fs, mem::MaybeUninit, os::fd::OwnedFd, path::PathBuf, sync::Arc};

pub use executable::Executable;
use rustix::{
    fs::{CWD, Mode, OFlags, openat, readlinkat_raw},
    io::Errno,
    path::DecInt,
    process::{Resource, getrlimit},
};
pub use visibility::Visibility;

use self::{executable::MAX_PATH, stat::Stat};
use super::generations::Generations;
use crate::{
    capture::KernelTime,
    config,
    ledger::{Counter, Ledger, Lookups},
};

/// The most processes whose directory is kept open, and at most a quarter of what RLIMIT_NOFILE grants.
const MAX_HANDLES: u64 = 256;

/// The fewest free process ids with which a number can't come round within a tick.
const ENOUGH_FREE: u64 = 30_000;

/// Which process runs what.
pub struct Processes {
    /// The proc file system, where it shows the host's processes.
    proc: Option<OwnedFd>,
    path: PathBuf,
    enabled: bool,
    known: Generations<u32, Known>,
    handles: Generations<u32, OwnedFd>,
    tick_ns: u64,
    ledger: Arc<Ledger>,
}

/// What is known of a process id.
#[derive(Debug)]
struct Known {
    found: Found,
    /// It holds for events up to here.
    until: KernelTime,
}

#[derive(Debug, Clone)]
enum Found {
    /// A process that began at `since` or before, and what it runs.
    Process { since: KernelTime, executable: Arc<Executable> },
    /// Nobody has the number, or it has no executable.
    Gone,
    /// It may not be read.
    Unreadable,
}

// === impl Processes

impl Processes {
    /// Opens the proc file system of `owner.proc`. Where that does not show the host's processes all questions are
    /// answered with `None`: [`Processes::visibility`] says why.
    pub fn new(config: &config::Owner, ledger: Arc<Ledger>) -> Self {
        let handles = getrlimit(Resource::Nofile).current.map_or(MAX_HANDLES, |limit| MAX_HANDLES.min(limit / 4));
        let mut processes = Self {
            proc: open_directory(&config.proc).ok(),
            path: config.proc.clone(),
            enabled: config.executable,
            known: Generations::new(config.max_processes as usize),
            handles: Generations::new(usize::try_from(handles).unwrap_or(2)),
            tick_ns: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
            ledger,
        };
        if processes.visibility().is_hidden() {
            processes.proc = None;
        }
        processes
    }

    /// What the process with the id `pid` in the initial pid namespace runs, which did something at `at`. The name is as
    /// good as the question is early: ask when the event is read, not when the flow is told.
    ///
    /// `None`, and counted in the ledger under its reason: the process is no longer there, the number belongs to another
    /// one (or may), or it may not be read.
    pub fn executable(&mut self, pid: u32, at: KernelTime) -> Option<Arc<Executable>> {
        let counts = &self.ledger.owner.executables;
        if let Some(known) = self.known.get(pid).filter(|known| at <= known.until) {
            return known.found.answer(at, &counts.cached, counts);
        }
        if self.proc.is_none() || pid == 0 {
            counts.unreadable.add(1);
            return None;
        }
        let ledger = Arc::clone(&self.ledger);
        let counts = &ledger.owner.executables;
        // Before anything is read: what is read holds at least until here.
        let now = KernelTime::now();
        if let Some(unchanged) = self.check_again(pid, now) {
            return unchanged.answer(at, &counts.cached, counts);
        }
        let found = self.read(pid);
        // The event lies before this look-up even where two CPUs' clocks differ by a little.
        let known = Known { found, until: now.max(at) };
        let answer = known.found.answer(at, &counts.looked_up, counts);
        self.known.insert(pid, known);
        answer
    }

    /// Whether the proc file system of `config` shows the processes of this host, whatever may be read of them.
    pub fn shows_host(config: &config::Owner) -> bool {
        !Visibility::of(&config.proc, true).is_hidden()
    }

    /// What this process can see of others, now: rights may have been dropped since the start.
    pub fn visibility(&self) -> Visibility {
        Visibility::of(&self.path, self.enabled)
    }

    /// Looks whether the process that is known by a kept descriptor is still there and runs the same.
    fn check_again(&mut self, pid: u32, now: KernelTime) -> Option<Found> {
        let handle = self.handles.get(pid)?;
        let known = self.known.get(pid)?;
        let Found::Process { executable, .. } = &mut known.found else { return None };
        let mut buffer = [MaybeUninit::uninit(); MAX_PATH];
        let Ok(link) = read_link(handle, &mut buffer) else {
            // It is gone, or may no longer be read; the number may be another's already.
            self.handles.remove(pid);
            return None;
        };
        let same = executable.path.as_bytes() == link;
        if !same
            && let Some(other) = Executable::from_link(link)
            && **executable != other
        {
            *executable = Arc::new(other);
        }
        known.until = known.until.max(now);
        Some(known.found.clone())
    }

    /// Reads who has the number now, and keeps its descriptor.
    fn read(&mut self, pid: u32) -> Found {
        let Some(proc) = &self.proc else { return Found::Unreadable };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let read = openat(proc, DecInt::new(pid), flags, Mode::empty()).and_then(|process| {
            let stat = read_stat(&process)?;
            let mut buffer = [MaybeUninit::uninit(); MAX_PATH];
            let executable = Executable::from_link(read_link(&process, &mut buffer)?).ok_or(Errno::NOENT)?;
            Ok((process, stat, executable))
        });
        match read {
            Ok((process, stat, executable)) => {
                let since = certain_since(stat.start, self.tick_ns, numbers_suffice());
                self.handles.insert(pid, process);
                Found::Process { since, executable: Arc::new(executable) }
            }
            // ENOENT: nobody has it, or (of the link) it is a zombie or a thread of the kernel. ESRCH: it went meanwhile.
            Err(Errno::NOENT | Errno::SRCH) => Found::Gone,
            Err(_) => Found::Unreadable,
        }
    }
}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processes").field("proc", &self.path).finish_non_exhaustive()
    }
}

// === impl Found

impl Found {
    /// The answer for an event at `at`, counted: under `success`, or under the reason why there is none.
    fn answer(&self, at: KernelTime, success: &Counter, counts: &Lookups) -> Option<Arc<Executable>> {
        let (counter, answer) = match self {
            Self::Process { since, executable } if at >= *since => (success, Some(Arc::clone(executable))),
            Self::Process { .. } => (&counts.reused, None),
            Self::Gone => (&counts.gone, None),
            Self::Unreadable => (&counts.unreadable, None),
        };
        counter.bump();
        answer
    }
}

/// The earliest event that is certainly of a process whose start reads `ticks`. The start was rounded down: the process
/// began within the tick of `tick_ns` that starts there. An event of that very tick counts where `lenient`.
fn certain_since(ticks: u64, tick_ns: u64, lenient: bool) -> KernelTime {
    KernelTime(ticks.saturating_add(u64::from(!lenient)).saturating_mul(tick_ns))
}

/// Whether so many process ids are free that none can come round within a tick. Read each time: both numbers change. In
/// a pid namespace of its own this process may see another limit than the host's, so there it does not count.
fn numbers_suffice() -> bool {
    visibility::in_initial_pid_namespace()
        && free_numbers(
            &fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default(),
            &fs::read_to_string("/proc/loadavg").unwrap_or_default(),
        )
        .is_some_and(|free| free >= ENOUGH_FREE)
}

/// The limit of process ids less the threads there are: the number behind the `/` in /proc/loadavg (proc_loadavg(5)).
fn free_numbers(pid_max: &str, loadavg: &str) -> Option<u64> {
    let limit: u64 = pid_max.trim().parse().ok()?;
    let threads: u64 = loadavg.split('/').nth(1)?.split(' ').next()?.parse().ok()?;
    Some(limit.saturating_sub(threads))
}

fn open_directory(path: &std::path::Path) -> rustix::io::Result<OwnedFd> {
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// The line `stat` of a directory of /proc, which is made anew at each open.
fn read_stat(process: &OwnedFd) -> rustix::io::Result<Stat> {
    let file = openat(process, c"stat", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut line = [0u8; 1024];
    let mut length = 0;
    while length < line.len() {
        match rustix::io::read(&file, &mut line[length..])? {
            0 => break,
            n => length += n,
        }
    }
    Stat::parse(&line[..length]).ok_or(Errno::SRCH)
}

fn read_link<'b>(process: &OwnedFd, buffer: &'b mut [MaybeUninit<u8>; MAX_PATH]) -> rustix::io::Result<&'b [u8]> {
    readlinkat_raw(process, c"exe", buffer).map(|(link, _)| &*link)
}

#[cfg(test)]
mod tests;
