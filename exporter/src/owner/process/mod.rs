//! Process ids in; what they run, when they began and who made them out: from what the kernel told of them, else from /proc.
//!
//! What the kernel tells when a program starts (`execs`) comes first: it knows what was run at the very time, also of processes
//! that are gone, and saves the look into /proc. What follows is about processes of which nothing was told: they are older than
//! flowtel, or it can't watch starts here.
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
//! What stays open where starts can't be watched: the *program* is that of the time of the look-up. A process that calls
//! execve(2) between the event and the look-up, one tick of `capture.tick` later, is named by its new program. The kernel keeps
//! no time of the exec that user space could read. Where starts are watched, an answer that was read after a start which the
//! event was before does not count.
//!
//! Must never name another process's executable, nor hold more descriptors than its bound.

mod about;
mod executable;
pub(in crate::owner) mod reading;
pub mod stat;
mod told_of;
mod visibility;

use std::{fmt, fs, mem::MaybeUninit, os::fd::OwnedFd, path::PathBuf, sync::Arc};

pub use about::{Created, Parent, Process};
pub use executable::Executable;
use flowtel_common::exec::Told;
use reading::{Look, Proc};
use rustix::{
    io::Errno,
    process::{Resource, getrlimit},
};
pub use visibility::Visibility;
pub(crate) use visibility::shows_kernel_threads;

use self::{executable::MAX_PATH, stat::Stat, told_of::ToldOf};
use super::{
    execs::{Execs, Open, Said},
    generations::Generations,
    helper::{Helper, Request},
};
use crate::{
    capture::{Clock, KernelTime, Reach, clock},
    config,
    ledger::{Counter, Ledger},
};

/// The most processes whose directory is kept open, and at most a quarter of what RLIMIT_NOFILE grants.
const MAX_HANDLES: u64 = 256;

/// The fewest free process ids with which a number can't come round within a tick.
const ENOUGH_FREE: u64 = 30_000;

/// Which process runs what.
pub struct Processes {
    /// The proc file system, where it shows the host's processes.
    proc: Option<Proc>,
    path: PathBuf,
    enabled: bool,
    /// What the kernel told.
    execs: Execs,
    /// What /proc told.
    known: Generations<u32, Known>,
    handles: Generations<u32, OwnedFd>,
    helper: Option<Helper>,
    /// When the helper was asked ahead last.
    asked_ahead: KernelTime,
    /// Of these the kernel told what they run, and nothing else since.
    told_of: ToldOf,
    tick_ns: u64,
    ledger: Arc<Ledger>,
}

/// What is known of a process id from /proc.
#[derive(Debug)]
struct Known {
    found: Found,
    /// It holds for events up to here.
    until: KernelTime,
}

#[derive(Debug, Clone)]
enum Found {
    /// A process that began at `since` or before, in the clock tick `ticks`. Its parent was looked at where it is `whole`.
    Process { since: KernelTime, ticks: u64, process: Arc<Process>, whole: bool },
    /// Nobody has the number, or it has no executable.
    Gone,
    /// It may not be read.
    Unreadable,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Gone,
    Reused,
    Unreadable,
}

/// An answer of /proc: it was there already, or was read now.
type Answer = Result<(Arc<Process>, bool), Why>;

// === impl Processes

impl Processes {
    /// Opens the proc file system of `owner.proc`. Where that does not show the host's processes it is not asked:
    /// [`Processes::visibility`] says why.
    pub fn new(config: &config::Owner, ledger: Arc<Ledger>) -> Self {
        let handles = getrlimit(Resource::Nofile).current.map_or(MAX_HANDLES, |limit| MAX_HANDLES.min(limit / 4));
        let mut processes = Self {
            proc: Proc::open(&config.proc).ok(),
            path: config.proc.clone(),
            enabled: config.executable,
            execs: Execs::new(config.max_processes as usize),
            known: Generations::new(config.max_processes as usize),
            handles: Generations::new(usize::try_from(handles).unwrap_or(2)),
            helper: None,
            asked_ahead: KernelTime(0),
            told_of: ToldOf::default(),
            tick_ns: clock::tick_ns(),
            ledger,
        };
        if processes.visibility().is_hidden() {
            processes.proc = None;
        }
        processes
    }

    /// The same, which has the helper read where there is one.
    #[must_use]
    pub fn helped(mut self, helper: Option<Helper>) -> Self {
        if let (Some(helper), Some(proc)) = (&helper, &mut self.proc)
            && helper.reads(&self.path)
        {
            proc.help(helper.clone());
        }
        self.helper = helper;
        self
    }

    /// Has the helper asked at once for all that these events will ask for, each a process id and a time.
    pub fn ahead(&mut self, events: impl Iterator<Item = (u32, KernelTime)>) {
        let Some(helper) = self.proc.as_ref().and_then(Proc::helper).cloned() else { return };
        self.asked_ahead = KernelTime::now();
        let unknown = events.filter(|(pid, at)| *pid != 0 && self.would_read(*pid, *at));
        helper.ahead(unknown.map(|(pid, _)| Request::Process(pid)));
    }

    /// Looks a process up that did something at `at`, before it is gone: what is found is remembered. Once in a round is enough
    /// where the kernel told what it runs.
    pub fn notice(&mut self, pid: u32, at: KernelTime) {
        if self.told_of.holds(pid) {
            return;
        }
        let _ = self.process(pid, at);
        if self.execs.is_settled(pid, at) {
            self.told_of.insert(pid);
        }
    }

    /// Whether a question would lead to /proc.
    fn would_read(&mut self, pid: u32, at: KernelTime) -> bool {
        if self.told_of.holds(pid) {
            return false;
        }
        if self.execs.is_settled(pid, at) {
            self.told_of.insert(pid);
            return false;
        }
        let open = matches!(self.execs.at(pid, at), Said::Open(_) | Said::Nothing);
        open && self.known.get(pid).is_none_or(|known| at > known.until)
    }

    /// Goes on with changed settings. What /proc told is looked up anew; what the kernel told it tells only once.
    pub fn reconfigure(&mut self, config: &config::Owner) {
        let new = Self::new(config, Arc::clone(&self.ledger));
        let helper = self.helper.take();
        let execs = std::mem::replace(self, new.helped(helper)).execs;
        // What nobody goes on to feed would soon be about others.
        if self.enabled {
            self.execs = execs;
        }
    }

    /// Takes what the kernel told of a process, in the order of time.
    pub fn told(&mut self, told: &Told<'_>) {
        if self.enabled {
            self.told_of.clear();
            self.execs.on(told);
        }
    }

    /// All that the kernel told of processes was taken, as far as this goes.
    pub fn reaches(&mut self, reach: Reach) {
        self.told_of.clear();
        self.execs.reaches(reach);
        if let (Some(proc), Some(mounts)) = (&mut self.proc, reach.host_mounts) {
            proc.know_host_mounts(mounts);
        }
    }

    /// What the process with the id `pid` in the initial pid namespace runs, which did something at `at`.
    pub fn executable(&mut self, pid: u32, at: KernelTime) -> Option<Arc<Executable>> {
        self.process(pid, at).and_then(|process| process.executable.clone())
    }

    /// The process with the id `pid` in the initial pid namespace, which did something at `at`. The answer is as good as the
    /// question is early: ask when the event is read, not when the flow is told.
    ///
    /// `None`, or without an executable, and counted in the ledger under its reason: the process is no longer there, the number
    /// belongs to another one (or may), or it may not be read.
    pub fn process(&mut self, pid: u32, at: KernelTime) -> Option<Arc<Process>> {
        let first = match self.execs.at(pid, at) {
            Said::Process(process) => return Some(self.count_told(process)),
            Said::Open(open) => {
                let process = self.complete(pid, at, open);
                return Some(self.count_told(process));
            }
            Said::Later(first) => Some(first),
            Said::Nothing => None,
        };
        let answer = match first {
            // It may have been read since then: that is another program.
            Some(first) => match self.known.get(pid) {
                Some(known) if at <= known.until && known.until < first => known.found.answer(at),
                _ => Err(Why::Gone),
            },
            None => self.find(pid, at, true),
        };
        let counts = &self.ledger.owner.executables;
        let (counter, process): (&Counter, _) = match answer {
            Ok((process, true)) => (&counts.cached, Some(process)),
            Ok((process, false)) => (&counts.looked_up, Some(process)),
            Err(Why::Gone) => (&counts.gone, None),
            Err(Why::Reused) => (&counts.reused, None),
            Err(Why::Unreadable) => (&counts.unreadable, None),
        };
        counter.bump();
        process
    }

    fn count_told(&self, process: Arc<Process>) -> Arc<Process> {
        let counts = &self.ledger.owner.executables;
        if process.executable.is_some() {
            counts.told.bump()
        } else {
            counts.gone.bump()
        }
        process
    }

    /// Makes an answer of what the kernel told, with /proc's help where that is not all.
    fn complete(&mut self, pid: u32, at: KernelTime, open: Open) -> Arc<Process> {
        let mut executable = open.executable.clone();
        let mut borrowed = None;
        let is_open = executable.as_ref().is_none_or(|executable| executable.is_called());
        if is_open && !open.closed {
            let now = KernelTime::now();
            if let Some(found) = self.found_of(pid, at, open.start) {
                (executable, borrowed) = (Some(found), Some((pid, now)));
            } else if executable.is_none()
                && let Some(of) = open.of
                && let Some(found) = self.unchanged(of, open.since)
            {
                (executable, borrowed) = (Some(found), Some((of, now)));
            }
        }
        let known = open.parent.map(|parent| {
            let same = open.of == Some(parent) && executable.is_some();
            let known = if same { executable.clone() } else { open.parent_executable.clone() };
            Parent { pid: parent, executable: known.or_else(|| self.unchanged(parent, open.since)) }
        });
        // Of a process that is older than flowtel only the start of its program was told.
        let older = if open.start.is_none() || known.is_none() { self.find(pid, at, true).ok() } else { None };
        let parent = known.or_else(|| older.as_ref().and_then(|(process, _)| process.parent.clone()));
        let created = match open.start {
            Some(start) => Some(Created { at: Clock::measure().wall(start), digits: 3 }),
            None => older.and_then(|(process, _)| process.created),
        };
        let process = Arc::new(Process { executable, created, parent, command: open.command });
        self.execs.close(pid, open.since, &process, borrowed);
        process
    }

    /// What /proc says that a process runs of which the kernel told, where it is that one for certain.
    fn found_of(&mut self, pid: u32, at: KernelTime, start: Option<KernelTime>) -> Option<Arc<Executable>> {
        let (process, _) = self.find(pid, at, true).ok()?;
        let Some(Known { found: Found::Process { ticks, .. }, .. }) = self.known.get(pid) else { return None };
        let shown = clock::shown_as(*ticks, self.tick_ns);
        let same = start.is_none_or(|start| start >= shown && start.since(shown) < self.tick_ns);
        process.executable.clone().filter(|_| same)
    }

    /// What a process ran at `at` of which the kernel has told nothing: what it runs now.
    fn unchanged(&mut self, pid: u32, at: KernelTime) -> Option<Arc<Executable>> {
        if !self.execs.is_silent(pid, at) {
            return None;
        }
        self.find(pid, at, false).ok().and_then(|(process, _)| process.executable.clone())
    }

    /// Asks /proc, or what is known from it. `whole`: with its parent.
    fn find(&mut self, pid: u32, at: KernelTime, whole: bool) -> Answer {
        if let Some(known) = self.known.get(pid).filter(|known| at <= known.until && known.found.is_whole(whole)) {
            return known.found.answer(at);
        }
        if self.proc.is_none() || pid == 0 {
            return Err(Why::Unreadable);
        }
        // Before anything is read: what is read holds at least until here.
        let now = KernelTime::now();
        if let Some(unchanged) = self.check_again(pid, now, whole) {
            return unchanged.answer(at);
        }
        let found = self.read(pid, whole);
        // What the helper was asked ahead was read then.
        let now = if self.proc.as_ref().is_some_and(|proc| proc.helper().is_some()) {
            now.min(self.asked_ahead)
        } else {
            now
        };
        // The event lies before this look-up even where two CPUs' clocks differ by a little.
        let known = Known { found, until: now.max(at) };
        let answer = known.found.answer(at).map(|(process, _)| (process, false));
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
    fn check_again(&mut self, pid: u32, now: KernelTime, whole: bool) -> Option<Found> {
        let handle = self.handles.get(pid)?;
        let known = self.known.get(pid).filter(|known| known.found.is_whole(whole))?;
        let Found::Process { process, .. } = &mut known.found else { return None };
        let mut buffer = [MaybeUninit::uninit(); MAX_PATH];
        let before = process.executable.as_ref();
        let link = reading::read_link(handle, &mut buffer);
        let same = link.as_ref().is_ok_and(|link| before.is_some_and(|before| before.path.as_bytes() == *link));
        if !same {
            let Some(executable) = self.proc.as_ref().and_then(|proc| proc.executable(handle).ok()) else {
                // It is gone, or may no longer be read; the number may be another's already.
                self.handles.remove(pid);
                return None;
            };
            if before.is_none_or(|before| **before != executable) {
                *process = Arc::new(Process { executable: Some(Arc::new(executable)), ..(**process).clone() });
            }
        }
        known.until = known.until.max(now);
        Some(known.found.clone())
    }

    /// Reads who has the number now, and keeps its descriptor.
    fn read(&mut self, pid: u32, whole: bool) -> Found {
        let Some(proc) = &self.proc else { return Found::Unreadable };
        match proc.look(pid) {
            Ok(Look { handle, stat, executable }) => {
                let since = certain_since(stat.start, self.tick_ns, numbers_suffice());
                if let Some(handle) = handle {
                    self.handles.insert(pid, handle);
                } else if let Some(same) = self.same(pid, &stat, &executable, whole) {
                    return same;
                }
                let began = clock::shown_as(stat.start, self.tick_ns);
                let parent = (stat.parent != 0).then(|| Parent {
                    pid: stat.parent,
                    executable: if whole { self.runs_now(stat.parent, stat.start) } else { None },
                });
                let process = Process {
                    executable: Some(Arc::new(executable)),
                    created: Some(Created { at: Clock::measure().wall(began), digits: self.tick_digits() }),
                    parent,
                    command: None,
                };
                Found::Process { since, ticks: stat.start, process: Arc::new(process), whole }
            }
            // ENOENT: nobody has it, or (of the link) it is a zombie or a thread of the kernel. ESRCH: it went meanwhile.
            Err(Errno::NOENT | Errno::SRCH) => Found::Gone,
            Err(_) => Found::Unreadable,
        }
    }

    /// What is known already of a process that the helper has looked at once more. Where a number can't come round within a
    /// tick, who has it and began in the same one is the same process.
    fn same(&mut self, pid: u32, stat: &Stat, executable: &Executable, whole: bool) -> Option<Found> {
        let known = self.known.get(pid).filter(|known| known.found.is_whole(whole))?;
        let Found::Process { since, ticks, process, whole } = &known.found else { return None };
        // Its number was free in between only where the start is another one, or numbers are few.
        if *ticks != stat.start || *since > clock::shown_as(stat.start, self.tick_ns) {
            return None;
        }
        let process = if process.executable.as_deref() == Some(executable) {
            Arc::clone(process)
        } else {
            Arc::new(Process { executable: Some(Arc::new(executable.clone())), ..(**process).clone() })
        };
        Some(Found::Process { since: *since, ticks: *ticks, process, whole: *whole })
    }

    /// What the parent runs now of a process that began in the clock tick `child`. Whoever has its number is not it where it
    /// began later.
    fn runs_now(&mut self, pid: u32, child: u64) -> Option<Arc<Executable>> {
        let now = KernelTime::now();
        match self.execs.at(pid, now) {
            Said::Process(process) => return process.executable.clone(),
            Said::Open(Open { executable: Some(executable), .. }) => return Some(executable),
            _ => {}
        }
        let (process, _) = self.find(pid, now, false).ok()?;
        let Some(Known { found: Found::Process { ticks, .. }, .. }) = self.known.get(pid) else { return None };
        process.executable.clone().filter(|_| *ticks <= child)
    }

    /// How many digits of a second a clock tick gives.
    fn tick_digits(&self) -> u8 {
        if self.tick_ns >= 10_000_000 { 2 } else { 3 }
    }
}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processes").field("proc", &self.path).finish_non_exhaustive()
    }
}

// === impl Found

impl Found {
    /// The answer for an event at `at`.
    fn answer(&self, at: KernelTime) -> Answer {
        match self {
            Self::Process { since, process, .. } if at >= *since => Ok((Arc::clone(process), true)),
            Self::Process { .. } => Err(Why::Reused),
            Self::Gone => Err(Why::Gone),
            Self::Unreadable => Err(Why::Unreadable),
        }
    }

    fn is_whole(&self, wanted: bool) -> bool {
        match self {
            Self::Process { whole, .. } => *whole || !wanted,
            _ => true,
        }
    }
}

/// The earliest event that is certainly of a process whose start reads `ticks`. The start was rounded down: the process
/// began within the tick of `tick_ns` that starts there. An event of that very tick counts where `lenient`.
fn certain_since(ticks: u64, tick_ns: u64, lenient: bool) -> KernelTime {
    let began = clock::shown_as(ticks, tick_ns);
    if lenient { began } else { KernelTime(began.0.saturating_add(tick_ns)) }
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

/// From when on an event is certainly of the process whose directory of /proc this is. The question is about an event at `at`.
pub(super) fn since_of(process: &OwnedFd, at: KernelTime) -> rustix::io::Result<KernelTime> {
    let (start, tick) = (reading::read_stat(process)?.start, clock::tick_ns());
    let certain = certain_since(start, tick, false);
    // Two more files are read only for what happened within the tick of the start.
    Ok(if at >= certain { certain } else { certain_since(start, tick, numbers_suffice()) })
}

#[cfg(test)]
mod tests;
